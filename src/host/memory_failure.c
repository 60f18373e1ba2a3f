/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/memory_failure.h"

#include <errno.h>

#include "src/host/driver.h"
#include "src/host/mm_internal.h"

bool host_frame_poisoned(const struct host *host, uint64_t pfn)
{
    const struct frame *f = frame_of(host, pfn);
    return f && f->flags & FRAME_POISON;
}

/* collect_procs() and kill_procs(). */
struct victims {
    unsigned flags;
    bool folio_dirty;
    bool all; /* whatever they have done to it */
};

static void signal_one(void *ctx, struct mm *mm, const struct pte *pte)
{
    const struct victims *v = ctx;
    bool now = v->flags & MF_ACTION_REQUIRED;
    /* A clean page can be had again: nobody need die for it. */
    if (!v->all && (!(pte->dirty || v->folio_dirty) || !(now || mm->mce_early)))
        return;
    mm->signals++;
    mm->signal_code = now ? BUS_MCEERR_AR : BUS_MCEERR_AO;
    mm->signal_va = pte->vpn << HOST_PAGE_SHIFT;
}

static void unmap_everywhere(struct gmem *gmem, uint64_t index, uint64_t pfn, unsigned flags)
{
    struct host *host = gmem->host;
    struct frame *f = frame_of(host, pfn);
    struct victims victims = {
        .flags = flags, .folio_dirty = f->flags & FRAME_DIRTY, .all = gmem->config.bugs & HOST_BUG(MF_EBUSY)};
    const struct folio page = {.pfn = pfn, .index = index, .nr = 1};

    each_pte(gmem, &page, signal_one, &victims);
    unmap_mapping_range(gmem, index, index + 1);
    /* kvm_gmem_error_folio(): guests lose it too; what the hypervisor does not give back the guest keeps. */
    if (f->flags & FRAME_GUEST)
        driver_reclaim_page(gmem, index, pfn);
}

static int fail_page(struct gmem *gmem, uint64_t index, uint64_t pfn, unsigned flags)
{
    struct ref *ref;
    int rc = ref_take(gmem, index, REF_MEMORY_FAILURE, "memory failure", 0, &ref);
    if (rc)
        return rc;
    frame_of(gmem->host, pfn)->flags |= FRAME_POISON;
    unmap_everywhere(gmem, index, pfn, flags);
    /* Before MF_DELAYED: the page was not seen to be dealt with, so that all were killed and the caller told it failed.
     */
    return gmem->config.bugs & HOST_BUG(MF_EBUSY) ? -EBUSY : 0;
}

int host_memory_failure(struct host *host, uint64_t pfn, unsigned flags)
{
    struct gmem *gmem, *now;
    uint64_t index, index_now;

    if (!host_frame_slot(host, pfn, &gmem, &index))
        return -ENXIO;
    gmem_get(gmem);
    task_lock_exclusive(&gmem->invalidate_lock);
    int rc;
    if (!host_frame_slot(host, pfn, &now, &index_now) || now != gmem || index_now != index)
        rc = -ENXIO; /* it left the file while this waited */
    else if (host_frame_poisoned(host, pfn))
        rc = -EHWPOISON;
    else
        rc = fail_page(gmem, index, pfn, flags);
    task_unlock_exclusive(&gmem->invalidate_lock);
    host_trace(host, &(struct host_event){.kind = HOST_EV_memory_failure,
                                          .vm = gmem->vm_id,
                                          .gmem = gmem->id,
                                          .offset = index << HOST_PAGE_SHIFT,
                                          .size = HOST_PAGE_SIZE,
                                          .a0 = flags,
                                          .a1 = pfn,
                                          .rc = rc});
    gmem_put(gmem);
    return rc;
}

static struct ref *failure_ref(struct ref *list, uint64_t pfn)
{
    while (list && !(list->kind == REF_MEMORY_FAILURE && ref_pfn(list, 0) == pfn))
        list = list->next;
    return list;
}

int host_unpoison(struct host *host, uint64_t pfn)
{
    struct ref *ref = failure_ref(host->orphans, pfn);
    for (struct gmem *g = host->gmems; g && !ref; g = g->next)
        ref = failure_ref(g->holders, pfn);
    if (!ref)
        return -ENOENT;
    frame_of(host, pfn)->flags &= (uint16_t)~FRAME_POISON;
    ref_drop(ref);
    return 0;
}
