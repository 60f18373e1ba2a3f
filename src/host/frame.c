/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames of RAM: allocation and reference counts. */
#include "src/host/policy.h"

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
    unsigned order = gmem->order;
    /* Of a file beyond 16 TiB only what a frame can name has pages. */
    if (index > UINT32_MAX)
        return -EFBIG;
    int rc = take(fr, order, pfn);
    if (rc)
        return rc;
    uint64_t nr = UINT64_C(1) << order, first = index & ~(nr - 1);
    for (uint64_t i = 0; i < nr; i++)
        fr->table[*pfn - fr->base + i] = (struct frame){
            .owner = gmem->id, .index = (uint32_t)(first + i), .flags = (uint16_t)(order << FRAME_ORDER_SHIFT)};
    fr->table[*pfn - fr->base].refcount = (uint32_t)nr;
    fr->nr_data += nr;
    return 0;
}

/* ---- folios --------------------------------------------------------------------------------------------------------
 */

/* Frames of an order are aligned to it, and each knows it. */
uint64_t folio_nr_pages(const struct host *host, uint64_t pfn)
{
    return UINT64_C(1) << (frame_of(host, pfn)->flags >> FRAME_ORDER_SHIFT);
}

uint64_t folio_head(const struct host *host, uint64_t pfn)
{
    return pfn & ~(folio_nr_pages(host, pfn) - 1);
}

static struct frame *head_of(const struct host *host, uint64_t pfn)
{
    return frame_of(host, folio_head(host, pfn));
}

static bool large(const struct host *host, uint64_t pfn)
{
    return folio_nr_pages(host, pfn) > 1;
}

uint32_t folio_refcount(const struct host *host, uint64_t pfn)
{
    return head_of(host, pfn)->refcount;
}

uint32_t folio_pincount(const struct host *host, uint64_t pfn)
{
    return large(host, pfn) ? head_of(host, pfn)[1].pincount : 0;
}

uint32_t folio_mapcount(const struct host *host, uint64_t pfn)
{
    const struct frame *head = head_of(host, pfn);
    uint32_t sum = 0;
    for (uint64_t i = 0, nr = folio_nr_pages(host, pfn); i < nr; i++)
        sum += head[i].mapcount;
    return sum;
}

bool folio_maybe_dma_pinned(const struct host *host, uint64_t pfn)
{
    return large(host, pfn) ? folio_pincount(host, pfn) : folio_refcount(host, pfn) >= FOLL_PIN_BIAS;
}

static uint32_t unit(const struct host *host, uint64_t pfn, enum ref_kind kind)
{
    return ref_kinds[kind].pin && !large(host, pfn) ? FOLL_PIN_BIAS : 1;
}

bool folio_get(struct host *host, uint64_t pfn, enum ref_kind kind)
{
    struct frame *head = head_of(host, pfn);
    uint32_t refs = unit(host, pfn, kind);
    if (head->refcount > UINT32_MAX - refs)
        return false;
    head->refcount += refs;
    if (ref_kinds[kind].pin && large(host, pfn))
        head[1].pincount++;
    return true;
}

void folio_put(struct host *host, uint64_t pfn, enum ref_kind kind)
{
    if (ref_kinds[kind].pin && large(host, pfn))
        head_of(host, pfn)[1].pincount--;
    frame_put(host, pfn, unit(host, pfn, kind));
}

void frame_put(struct host *host, uint64_t pfn, uint32_t refs)
{
    struct frame *head = head_of(host, pfn);
    assert(head->refcount >= refs);
    head->refcount -= refs;
    if (head->flags & FRAME_WATCHED)
        sched_wake_all(&host->put);
    if (head->refcount)
        return;
    uint64_t first = folio_head(host, pfn), nr = folio_nr_pages(host, pfn);
    if (head->flags & FRAME_TYPED) {
        struct gmem *gmem = gmem_by_id(host, head->owner);
        gmem->policy->last_put(gmem, first);
        return;
    }
    unsigned order = head->flags >> FRAME_ORDER_SHIFT;
    for (uint64_t i = 0; i < nr; i++) {
        if (head[i].flags & FRAME_ORPHAN)
            host->arch.forget(host->arch.ctx, first + i);
        head[i] = (struct frame){0};
    }
    host->frames.nr_data -= nr;
    give(&host->frames, order, first);
}
