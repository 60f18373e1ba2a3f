/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files between model and stage: which side each page's bytes are on, and the
 * changes of side.
 *
 * Invariant, whenever no lock of a file is held: side == effective access.
 */
#include "src/machine/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RELAX_EVERY 4096u

static struct mfile_state *state(void *file)
{
    return file;
}

int file_create(void *ctx, struct gmem *gmem, bool init_shared, void **out)
{
    struct machine *m = ctx;
    struct mfile_state *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->file = (struct mfile){.machine = m, .gmem = gmem, .id = gmem_id(gmem), .nr_pages = gmem_pages(gmem)};
    int rc = rangemap_init(&f->side, f->file.nr_pages, init_shared ? SIDE_HOST : SIDE_GUEST);
    if (!rc)
        rc = m->config.stage->file_create(m->config.stage_ctx, &f->file, init_shared);
    if (rc) {
        rangemap_destroy(&f->side);
        free(f);
        return rc;
    }
    f->next = m->files;
    if (f->next)
        f->next->prev = f;
    m->files = f;
    *out = f;
    return 0;
}

void file_destroy(void *ctx, void *file)
{
    struct machine *m = ctx;
    struct mfile_state *f = state(file);
    m->config.stage->file_destroy(m->config.stage_ctx, &f->file);
    rangemap_destroy(&f->side);
    if (f->prev)
        f->prev->next = f->next;
    else
        m->files = f->next;
    if (f->next)
        f->next->prev = f->prev;
    free(f);
}

bool mmu_host_reaches(const struct mfile *file, uint64_t index)
{
    uint64_t found, pfn;
    struct s2_walk walk;
    if (gmem_is_private(file->gmem, index))
        return false;
    if (!gmem_next_folio(file->gmem, index, index + 1, &found, &pfn))
        return true;
    mmu_walk_host(file->machine, pfn, &walk);
    return !walk.annotated;
}

struct gmem_range mmu_side(const struct mfile *file, uint64_t index)
{
    const struct mfile_state *f = (const struct mfile_state *)file;
    struct range r = rangemap_get(&f->side, index);
    return (struct gmem_range){.start = r.start, .end = r.end, .private = r.value == SIDE_GUEST};
}

bool mmu_side_moving(const struct mfile *file)
{
    return ((const struct mfile_state *)file)->lock.writer;
}

size_t mmu_nr_sides(const struct mfile *file)
{
    return ((const struct mfile_state *)file)->side.nr_ranges;
}

/* ---- runs of pages whose side is not what it should be -------------------------------------------------------- */

struct diff {
    struct mfile_state *f;
    /* attribute to assume instead of EL1's: before the commit the change is not yet in its table */
    bool assume, assume_shared;
    int (*visit)(struct diff *diff, uint64_t start, uint64_t end, bool to_host);
    struct caller *caller;
};

/* [start, end) ought to be on the `host` side: visits the parts that are not. */
static int diff_run(struct diff *d, uint64_t start, uint64_t end, bool host)
{
    while (start < end) {
        struct range r = rangemap_first(&d->f->side, start, end);
        uint64_t next = r.end;
        if (r.value != (host ? SIDE_HOST : SIDE_GUEST)) {
            int rc = d->visit(d, r.start, r.end, host);
            if (rc)
                return rc;
        }
        start = next;
    }
    return 0;
}

/* Within a range that stage 1 allows, only allocated pages can be refused by stage 2. */
static int diff_shared(struct diff *d, uint64_t start, uint64_t end)
{
    uint64_t index, pfn, run = start;
    bool run_host = true;
    int rc;
    for (uint64_t at = start; gmem_next_folio(d->f->file.gmem, at, end, &index, &pfn); at = index + 1) {
        struct s2_walk walk;
        mmu_walk_host(d->f->file.machine, pfn, &walk);
        bool host = !walk.annotated;
        if (index % RELAX_EVERY == RELAX_EVERY - 1)
            sched_relax();
        if (!run_host && index > at) {
            /* Holes between folios are the host's. */
            rc = diff_run(d, run, at, false);
            if (rc)
                return rc;
            run = at;
            run_host = true;
        }
        if (host == run_host)
            continue;
        rc = run < index ? diff_run(d, run, index, run_host) : 0;
        if (rc)
            return rc;
        run = index;
        run_host = host;
    }
    if (!run_host) {
        /* The last folio was refused: the rest after it is a hole. */
        rc = diff_run(d, run, index + 1, false);
        if (rc)
            return rc;
        run = index + 1;
    }
    return run < end ? diff_run(d, run, end, true) : 0;
}

static int diff_range(struct diff *d, uint64_t start, uint64_t end)
{
    int rc = 0;
    if (d->assume)
        return d->assume_shared ? diff_shared(d, start, end) : diff_run(d, start, end, false);
    while (start < end && !rc) {
        struct gmem_range r = gmem_attr_range(d->f->file.gmem, start);
        uint64_t past = r.end < end ? r.end : end;
        rc = r.private ? diff_run(d, start, past, false) : diff_shared(d, start, past);
        start = past;
    }
    return rc;
}

static int visit_begin(struct diff *d, uint64_t start, uint64_t end, bool to_host)
{
    struct machine *m = d->f->file.machine;
    return m->config.stage->begin(m->config.stage_ctx, &d->f->file, start, end, to_host, d->caller);
}

static int visit_move(struct diff *d, uint64_t start, uint64_t end, bool to_host)
{
    struct machine *m = d->f->file.machine;
    m->config.stage->move(m->config.stage_ctx, &d->f->file, start, end, to_host);
    /* What the tree needs is small; waiting for it beats telling a lie about where bytes are. */
    while (rangemap_reserve(&d->f->side))
        sched_relax();
    rangemap_set(&d->f->side, start, end, to_host ? SIDE_HOST : SIDE_GUEST);
    return 0;
}

int file_prepare(void *ctx, void *file, uint64_t start, uint64_t end, bool to_shared, struct caller *caller)
{
    struct machine *m = ctx;
    struct mfile_state *f = state(file);
    struct diff d = {.f = f, .assume = true, .assume_shared = to_shared, .visit = visit_begin, .caller = caller};
    task_lock_exclusive(&f->lock);
    int rc = diff_range(&d, start, end);
    if (rc) {
        m->config.stage->end(m->config.stage_ctx, &f->file, start, end);
        task_unlock_exclusive(&f->lock);
        return rc;
    }
    f->prepared_by = sched_task_id();
    return 0;
}

static void finish(struct machine *m, struct mfile_state *f, uint64_t start, uint64_t end)
{
    m->config.stage->end(m->config.stage_ctx, &f->file, start, end);
    f->prepared_by = 0;
    task_unlock_exclusive(&f->lock);
}

void file_commit(void *ctx, void *file, uint64_t start, uint64_t end)
{
    struct mfile_state *f = state(file);
    struct diff d = {.f = f, .visit = visit_move};
    if (f->prepared_by != sched_task_id())
        task_lock_exclusive(&f->lock);
    diff_range(&d, start, end);
    finish(ctx, f, start, end);
}

/* Between prepare() and commit() the lock is the conversion's already.  Returns whether it is. */
static bool lock_bytes(struct mfile_state *f)
{
    if (f->prepared_by && f->prepared_by == sched_task_id())
        return true;
    task_lock_exclusive(&f->lock);
    return false;
}

static void unlock_bytes(struct mfile_state *f, bool prepared)
{
    if (!prepared)
        task_unlock_exclusive(&f->lock);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

bool file_populated(void *ctx, void *file, uint64_t start, uint64_t end, uint64_t *first, uint64_t *past)
{
    struct machine *m = ctx;
    struct mfile_state *f = state(file);
    while (start < end) {
        struct range r = rangemap_first(&f->side, start, end);
        /* What is on the guest's side came there by the model. */
        if (r.value == SIDE_HOST &&
            m->config.stage->populated(m->config.stage_ctx, &f->file, true, r.start, r.end, first, past))
            return true;
        start = r.end;
    }
    return false;
}

int file_allocate(void *ctx, void *file, uint64_t start, uint64_t end)
{
    struct machine *m = ctx;
    struct mfile_state *f = state(file);
    int rc = 0;
    while (start < end && !rc) {
        struct range r = rangemap_first(&f->side, start, end);
        rc = m->config.stage->allocate(m->config.stage_ctx, &f->file, r.value == SIDE_HOST, r.start, r.end);
        start = r.end;
    }
    return rc;
}

void file_orphan(void *ctx, void *file, uint64_t index, uint64_t pfn)
{
    struct machine *m = ctx;
    if (m->config.stage->orphan)
        m->config.stage->orphan(m->config.stage_ctx, &state(file)->file, index, pfn);
}

void file_forget(void *ctx, uint64_t pfn)
{
    struct machine *m = ctx;
    if (m->config.stage->forget)
        m->config.stage->forget(m->config.stage_ctx, pfn);
}

void file_discard(void *ctx, void *file, uint64_t start, uint64_t end)
{
    struct machine *m = ctx;
    struct mfile_state *f = state(file);
    bool prepared = lock_bytes(f);
    while (start < end) {
        struct range r = rangemap_first(&f->side, start, end);
        m->config.stage->discard(m->config.stage_ctx, &f->file, r.value == SIDE_HOST, r.start, r.end);
        start = r.end;
    }
    unlock_bytes(f, prepared);
}

int file_copy(void *ctx, uint64_t to_pfn, uint64_t from_pfn)
{
    struct machine *m = ctx;
    const struct stage_ops *stage = m->config.stage;
    struct gmem *to, *from;
    uint64_t to_index, from_index;
    uint8_t page[HYP_PAGE_SIZE];
    if (!host_frame_slot(m->host, to_pfn, &to, &to_index) || !host_frame_slot(m->host, from_pfn, &from, &from_index))
        return -ENOENT;
    struct mfile *src = gmem_file(from), *dst = gmem_file(to);
    int rc = stage->read(m->config.stage_ctx, src, !mmu_side(src, from_index).private, from_index * HYP_PAGE_SIZE, page,
                         sizeof(page));
    return rc ? rc
              : stage->write(m->config.stage_ctx, dst, !mmu_side(dst, to_index).private, to_index * HYP_PAGE_SIZE, page,
                             sizeof(page));
}

void file_fill(void *ctx, void *file, uint64_t index, uint8_t byte)
{
    struct machine *m = ctx;
    struct mfile_state *f = state(file);
    uint8_t page[HYP_PAGE_SIZE];
    memset(page, byte, sizeof(page));
    bool prepared = lock_bytes(f);
    bool in_host = rangemap_get(&f->side, index).value == SIDE_HOST;
    if (m->config.stage->write(m->config.stage_ctx, &f->file, in_host, index * HYP_PAGE_SIZE, page, sizeof(page)))
        machine_log(m, 0, "guest_memfd %u page 0x%llx: no memory for its bytes", f->file.id, (unsigned long long)index);
    unlock_bytes(f, prepared);
}
