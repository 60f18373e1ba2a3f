/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames of RAM: allocation and reference counts. */
#include "src/host/internal.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

int frames_init(struct frames *frames, uint64_t base, uint64_t nr)
{
    *frames = (struct frames){.base = base, .nr = nr};
    if (!nr || nr > UINT32_MAX - 1)
        return -EINVAL;
    /* Only what is touched costs memory: a machine of a TiB is no problem on a laptop. */
    void *p = mmap(NULL, nr * sizeof(struct frame), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    frames->table = p;
    return 0;
}

void frames_destroy(struct frames *frames)
{
    if (frames->table)
        munmap(frames->table, frames->nr * sizeof(struct frame));
    frames->table = NULL;
}

struct frame *frame_of(const struct host *host, uint64_t pfn)
{
    const struct frames *fr = &host->frames;
    return pfn >= fr->base && pfn - fr->base < fr->nr ? &fr->table[pfn - fr->base] : NULL;
}

/* Frames of an order come back as that order: what asks for them (tables, structures) always asks the same sizes. */
static int take(struct frames *fr, unsigned order, uint64_t *pfn)
{
    uint32_t head = fr->free_head[order];
    if (head) {
        fr->free_head[order] = fr->table[head - 1].index;
        *pfn = fr->base + head - 1;
        return 0;
    }
    uint64_t n = UINT64_C(1) << order;
    /* Aligned in the physical address space, as table walks want it; what is skipped becomes single frames. */
    while ((fr->base + fr->bump) & (n - 1)) {
        if (fr->bump >= fr->nr)
            return -ENOMEM;
        fr->table[fr->bump].index = fr->free_head[0];
        fr->free_head[0] = (uint32_t)++fr->bump;
    }
    if (fr->nr - fr->bump < n)
        return -ENOMEM;
    *pfn = fr->base + fr->bump;
    fr->bump += n;
    return 0;
}

static void give(struct frames *fr, unsigned order, uint64_t pfn)
{
    uint64_t i = pfn - fr->base;
    fr->table[i] = (struct frame){.index = fr->free_head[order]};
    fr->free_head[order] = (uint32_t)i + 1;
}

int ram_alloc(struct host *host, unsigned order, uint64_t *pfn)
{
    struct frames *fr = &host->frames;
    assert(order < RAM_MAX_ORDER);
    int rc = take(fr, order, pfn);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++)
        fr->table[*pfn - fr->base + i] = (struct frame){.refcount = 1};
    fr->nr_ram += UINT64_C(1) << order;
    return 0;
}

void ram_free(struct host *host, unsigned order, uint64_t pfn)
{
    struct frames *fr = &host->frames;
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        assert(frame_of(host, pfn + i)->refcount == 1);
        frame_of(host, pfn + i)->refcount = 0;
    }
    give(fr, order, pfn);
    fr->nr_ram -= UINT64_C(1) << order;
}

int data_alloc(struct host *host, struct gmem *gmem, uint64_t index, uint64_t *pfn)
{
    struct frames *fr = &host->frames;
    /* Of a file beyond 16 TiB only what a frame can name has pages. */
    if (index > UINT32_MAX)
        return -EFBIG;
    int rc = take(fr, 0, pfn);
    if (rc)
        return rc;
    fr->table[*pfn - fr->base] = (struct frame){.refcount = 1, .owner = gmem->id, .index = (uint32_t)index};
    fr->nr_data++;
    return 0;
}

void frame_put(struct host *host, uint64_t pfn, uint32_t refs)
{
    struct frame *f = frame_of(host, pfn);
    assert(f->refcount >= refs);
    f->refcount -= refs;
    if (f->refcount)
        return;
    host->frames.nr_data--;
    give(&host->frames, 0, pfn);
}
