/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/populate.h"

#include <errno.h>
#include <stdlib.h>

#include "src/host/driver.h"
#include "src/host/mm_internal.h"
#include "src/host/tracker.h"

/* ---- initial images ------------------------------------------------------------------------------------------------
 */

static int copy_page(struct gmem *gmem, uint64_t index, const struct ref *src, struct caller *caller)
{
    const struct host_arch *arch = &gmem->host->arch;
    uint64_t pfn;
    if (tracker_value(gmem, index) != ATTR_PRIVATE) {
        caller_explain(caller, "page at offset 0x%llx is shared: an initial image is private memory",
                       (unsigned long long)index << HOST_PAGE_SHIFT);
        return -EINVAL;
    }
    int rc = gmem_get_folio(gmem, index, &pfn);
    return rc || !src ? rc : arch->copy(arch->ctx, pfn, ref_pfn(src, 0));
}

/* The source is faulted in first: a fault takes the lock that the copy needs, and both may be of one file. */
static int populate_page(struct gmem *gmem, uint64_t index, struct mm *mm, uint64_t va, struct caller *caller)
{
    struct host *host = gmem->host;
    bool wrong = gmem->config.bugs & HOST_BUG(POPULATE_LOCK_ORDER);
    struct ref *src = NULL;
    if (mm && wrong) {
        /* The fault would wait for this task itself, or for one that waits for it: the detector tells, nobody hangs. */
        host_lock_order(host, HOST_LOCK_INVALIDATE, HOST_LOCK_MMAP);
        return -EDEADLK;
    }
    int rc = mm ? mm_gup(mm, va, 1, REF_FOLL_GET, "populate", &src, caller) : 0;
    if (rc)
        return rc;
    task_lock_exclusive(&gmem->invalidate_lock);
    rc = copy_page(gmem, index, src, caller);
    task_unlock_exclusive(&gmem->invalidate_lock);
    if (src)
        gmem_unpin(src);
    return rc;
}

int gmem_populate(struct vm *vm, uint64_t gfn, uint64_t nr, struct mm *mm, uint64_t va, struct caller *caller)
{
    if (va & (HOST_PAGE_SIZE - 1) || !nr) {
        caller_explain(caller, "source 0x%llx: must be aligned to a page", (unsigned long long)va);
        return -EINVAL;
    }
    if (vm->el2_ready) {
        caller_explain(caller, "the VM has run: its initial image is final");
        return -EINVAL;
    }
    for (uint64_t i = 0; i < nr; i++) {
        const struct memslot *slot = vm_slot_at(vm, gfn + i);
        if (!slot) {
            caller_explain(caller, "gfn 0x%llx is in no memslot", (unsigned long long)(gfn + i));
            return -EINVAL;
        }
        struct gmem *gmem = slot->gmem;
        uint64_t index = slot->index + (gfn + i - slot->gfn);
        gmem_get(gmem);
        int rc = populate_page(gmem, index, mm, va + (i << HOST_PAGE_SHIFT), caller);
        gmem_put(gmem);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- the last close ------------------------------------------------------------------------------------------------
 */

static void reclaim_all(struct gmem *gmem)
{
    uint64_t index, pfn;
    for (uint64_t at = 0; gmem_next_folio(gmem, at, gmem->nr_pages, &index, &pfn); at = index + 1)
        if (frame_of(gmem->host, pfn)->flags & FRAME_GUEST)
            driver_reclaim_page(gmem, index, pfn);
}

/* What the hypervisor does not give back is not truncated: it is lost, and must not be handed out. */
static void truncate_all(struct gmem *gmem, bool guests_too)
{
    uint64_t index, pfn;
    for (uint64_t at = 0; gmem_next_folio(gmem, at, gmem->nr_pages, &index, &pfn);) {
        struct folio folio;
        folio_at(gmem, index, &folio);
        at = folio.index + folio.nr;
        if (!guests_too && folio_of_guest(gmem->host, &folio))
            continue;
        guests_keep(gmem, &folio);
        folio_leave(gmem, &folio);
    }
    gmem->host->arch.discard(gmem->host->arch.ctx, gmem->file, 0, gmem->nr_pages);
}

void gmem_release(struct gmem *gmem)
{
    bool detached = gmem->config.bugs & HOST_BUG(DETACH_BEFORE_TRUNCATE);
    gmem_get(gmem);
    task_lock_exclusive(&gmem->invalidate_lock);
    gmem_look_at_bindings(gmem);
    unmap_mapping_range(gmem, 0, gmem->nr_pages);
    /* The driver hears of pages only while it is attached. */
    if (!detached)
        reclaim_all(gmem);
    truncate_all(gmem, detached);
    while (gmem->bindings)
        slot_unbind(gmem->bindings->vm, gmem->bindings->slot);
    task_unlock_exclusive(&gmem->invalidate_lock);
    gmem_put(gmem);
}

/* ---- a second VM ---------------------------------------------------------------------------------------------------
 */

/* From now on it matters which guest has a page.  So far all that are taken are the only VM's. */
static int tell_apart(struct memslot *slot)
{
    uint64_t index, pfn, end = slot->index + slot->nr_pages;
    slot->has = slot->has ? slot->has : calloc((slot->nr_pages + 7) / 8, 1);
    if (!slot->has)
        return -ENOMEM;
    for (uint64_t at = slot->index; gmem_next_folio(slot->gmem, at, end, &index, &pfn); at = index + 1)
        if (frame_of(slot->gmem->host, pfn)->flags & FRAME_GUEST)
            guest_got(slot, index, frame_of(slot->gmem->host, pfn));
    return 0;
}

bool gmem_is_linked(const struct gmem *gmem, uint64_t vm)
{
    for (unsigned i = 0; i < gmem->nr_linked; i++)
        if (gmem->linked[i] == vm)
            return true;
    return false;
}

int gmem_link(struct gmem *gmem, struct vm *vm, struct caller *caller)
{
    int rc = 0;
    if (vm->driver != gmem->driver || vm_private_memory(vm) != gmem->private_memory) {
        caller_explain(caller, "VM %llu is run by another hypervisor than the file's, or has no private memory",
                       (unsigned long long)vm->id);
        return -EINVAL;
    }
    if (gmem->nr_linked == GMEM_MAX_LINKED) {
        caller_explain(caller, "the file is linked into %u VMs: that is all", GMEM_MAX_LINKED);
        return -ENOSPC;
    }
    task_lock_exclusive(&gmem->invalidate_lock);
    for (struct memslot_link *l = gmem->bindings; l && !rc && !gmem->nr_linked; l = l->next)
        rc = tell_apart(l->slot);
    if (!rc && vm->id != gmem->vm_id && !gmem_is_linked(gmem, vm->id))
        gmem->linked[gmem->nr_linked++] = vm->id;
    task_unlock_exclusive(&gmem->invalidate_lock);
    return rc;
}
