/* SPDX-License-Identifier: BSD-2-Clause */
/* fallocate(2) on a guest_memfd: allocation and hole punching (spec guest_memfd.md 2.3). */
#include <errno.h>
#include <fcntl.h>

#include "src/host/driver.h"
#include "src/host/tracker.h"

/* Pages that are allocated between two chances for others: on the live stage each costs the price of a fresh page. */
#define ALLOCATE_EVERY UINT64_C(256)

/*
 * Takes the page back from every guest that has it.  The order is hypervisor
 * first, page cache second: a frame must never be free while a guest reaches it.
 */
static bool reclaimed(struct gmem *gmem, uint64_t index, uint64_t pfn)
{
    uint64_t gfn = 0;
    if (!(frame_of(gmem->host, pfn)->flags & FRAME_GUEST))
        return true;
    const struct vm *vm = gmem_binding(gmem, index, &gfn);
    if (driver_reclaim_page(gmem, index, pfn))
        return false;
    host_trace(gmem->host, &(struct host_event){.kind = HOST_EV_reclaim,
                                                .vm = vm ? vm->id : 0,
                                                .gmem = gmem->id,
                                                .offset = index << HOST_PAGE_SHIFT,
                                                .size = HOST_PAGE_SIZE,
                                                .a0 = pfn,
                                                .a1 = gfn});
    return true;
}

/* All pages of the folio are the host's again. */
static bool folio_reclaimed(struct gmem *gmem, const struct folio *folio)
{
    bool all = true;
    for (uint64_t i = 0; i < folio->nr; i++)
        all = reclaimed(gmem, folio->index + i, folio->pfn + i) && all;
    return all;
}

/* The library's invalidate_begin(): nothing is truncated when the hypervisor keeps a page. */
static int invalidate_begin(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller)
{
    uint64_t index, pfn;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1) {
        if (reclaimed(gmem, index, pfn))
            continue;
        caller_explain(caller,
                       "page at offset 0x%llx: the hypervisor leaves it with the guest: the hole is not punched",
                       (unsigned long long)index << HOST_PAGE_SHIFT);
        return -EBUSY;
    }
    return 0;
}

/*
 * kvm_gmem_punch_hole(): never fails because of references.  A pinned page
 * leaves the file, the pinner keeps the frame.  A page that the hypervisor
 * leaves with the guest, and a folio that is larger than the hole, lose their
 * bytes and keep their frames.
 */
static int punch_locked(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller)
{
    const struct host_arch *arch = &gmem->host->arch;
    bool ignore = gmem->config.bugs & HOST_BUG(PUNCH_IGNORES_INVALIDATE);
    uint64_t index, pfn, done = 0;

    unmap_mapping_range(gmem, start, end);
    sched_point("punch:unmapped");
    int rc = gmem->config.rfc_library && !ignore ? invalidate_begin(gmem, start, end, caller) : 0;
    if (rc)
        return rc;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn);) {
        struct folio folio;
        folio_at(gmem, index, &folio);
        at = folio.index + folio.nr;
        if (folio.index >= start && at <= end && (folio_reclaimed(gmem, &folio) || ignore)) {
            guests_keep(gmem, &folio);
            sched_point("punch:reclaimed");
            folio_leave(gmem, &folio);
        }
        if (++done % RELAX_EVERY == 0)
            sched_relax();
    }
    sched_point("punch:removed");
    arch->discard(arch->ctx, gmem->file, start, end);
    if (gmem->tracker->lost_with_folio)
        arch->commit(arch->ctx, gmem->file, start, end);
    return 0;
}

/* As kvm_gmem_allocate(), page after page: what was allocated before a failure stays. */
static int allocate_shared(struct gmem *gmem, uint64_t start, uint64_t end)
{
    const struct host_arch *arch = &gmem->host->arch;
    uint64_t pfn;
    while (start < end) {
        uint64_t past = end - start > ALLOCATE_EVERY ? start + ALLOCATE_EVERY : end, at = start;
        int rc = 0;
        while (at < past && !(rc = gmem_get_folio(gmem, at, &pfn)))
            at++;
        if (at > start) {
            int allocated = arch->allocate(arch->ctx, gmem->file, start, at);
            rc = rc ? rc : allocated;
        }
        if (rc)
            return rc;
        start = past;
        if (start < end)
            sched_relax();
    }
    return 0;
}

/* Of the other modes no file system ever hears: vfs_fallocate() refuses them before it looks for an overflow. */
static bool vfs_mode(int mode)
{
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
    case FALLOC_FL_UNSHARE_RANGE:
    case FALLOC_FL_ZERO_RANGE:
        return true;
    case FALLOC_FL_PUNCH_HOLE:
        return mode & FALLOC_FL_KEEP_SIZE;
    case FALLOC_FL_COLLAPSE_RANGE:
    case FALLOC_FL_INSERT_RANGE:
        return !(mode & FALLOC_FL_KEEP_SIZE);
    default:
        return false;
    }
}

static int punch_range(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller)
{
    if (start >= end)
        return 0;
    task_lock_exclusive(&gmem->invalidate_lock);
    sched_point("punch:locked");
    int rc = punch_locked(gmem, start, end, caller);
    task_unlock_exclusive(&gmem->invalidate_lock);
    return rc;
}

int gmem_fallocate(struct gmem *gmem, int mode, int64_t offset, int64_t length, struct caller *caller)
{
    if (host_alive(gmem->host, caller))
        return -EIO;
    /* vfs_fallocate() */
    if (offset < 0 || length <= 0) {
        caller_explain(caller, "offset %lld, length %lld: must not be negative, length not 0", (long long)offset,
                       (long long)length);
        return -EINVAL;
    }
    if (vfs_mode(mode) && offset > INT64_MAX - length) {
        caller_explain(caller, "offset %lld + length %lld: no file is that large", (long long)offset,
                       (long long)length);
        return -EFBIG;
    }
    /* kvm_gmem_fallocate() */
    if (!(mode & FALLOC_FL_KEEP_SIZE) || mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) {
        caller_explain(caller, "mode 0x%x: guest_memfd knows KEEP_SIZE (1) and PUNCH_HOLE|KEEP_SIZE (3)",
                       (unsigned)mode);
        return -EOPNOTSUPP;
    }
    if ((offset | length) & (int64_t)(HOST_PAGE_SIZE - 1)) {
        caller_explain(caller, "offset %lld, length %lld: must be multiples of 4096", (long long)offset,
                       (long long)length);
        return -EINVAL;
    }
    uint64_t start = (uint64_t)offset >> HOST_PAGE_SHIFT, end = start + ((uint64_t)length >> HOST_PAGE_SHIFT);
    bool punch = mode & FALLOC_FL_PUNCH_HOLE;
    int rc = 0;
    if (punch) {
        rc = punch_range(gmem, start, end < gmem->nr_pages ? end : gmem->nr_pages, caller);
    } else if (end > gmem->nr_pages) {
        caller_explain(caller, "range ends at 0x%llx, the file at 0x%llx", (unsigned long long)end << HOST_PAGE_SHIFT,
                       (unsigned long long)gmem->nr_pages << HOST_PAGE_SHIFT);
        rc = -EINVAL;
    } else {
        task_lock_shared(&gmem->invalidate_lock);
        rc = allocate_shared(gmem, start, end);
        task_unlock_shared(&gmem->invalidate_lock);
    }
    host_trace(gmem->host, &(struct host_event){.kind = punch ? HOST_EV_punch : HOST_EV_allocate,
                                                .vm = gmem->vm_id,
                                                .gmem = gmem->id,
                                                .offset = (uint64_t)offset,
                                                .size = (uint64_t)length,
                                                .rc = rc,
                                                .pid = caller ? caller->pid : 0});
    return rc;
}
