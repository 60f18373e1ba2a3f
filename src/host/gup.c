/* SPDX-License-Identifier: BSD-2-Clause */
/* get_user_pages() on a file's pages: what a client that pins names by offset. */
#include <errno.h>
#include <stdio.h>

#include "src/host/policy.h"
#include "src/host/tracker.h"

/* One page of the slow path: faulted in, and taken, under the lock that a conversion holds exclusively. */
static int pin_page(struct gmem *gmem, uint64_t index, struct ref *ref, struct caller *caller)
{
    const struct host_arch *arch = &gmem->host->arch;
    uint64_t pfn;

    if (!gmem->policy->keeps_mappings && tracker_refuses_host(gmem, index)) {
        caller_explain(caller, "page at offset 0x%llx is private: only shared memory can be pinned",
                       (unsigned long long)index << HOST_PAGE_SHIFT);
        return -EFAULT;
    }
    int rc = gmem_get_folio(gmem, index, &pfn);
    if (rc)
        return rc;
    if (!arch->stage2_allows(arch->ctx, pfn)) {
        caller_explain(caller,
                       "page at offset 0x%llx is marked shared, but stage 2 refuses the host: the guest has not "
                       "shared it",
                       (unsigned long long)index << HOST_PAGE_SHIFT);
        return -EFAULT;
    }
    rc = gmem->policy->gup ? gmem->policy->gup(gmem, index, pfn, ref->kind, caller) : 0;
    return rc ? rc : ref_add_page(ref, pfn);
}

void gup_trace(const struct ref *ref)
{
    struct host_event event = {.kind = HOST_EV_pin,
                               .vm = ref->gmem->vm_id,
                               .gmem = ref->gmem->id,
                               .offset = ref->index << HOST_PAGE_SHIFT,
                               .size = ref->nr << HOST_PAGE_SHIFT,
                               .a0 = ref->kind,
                               .a1 = ref->id,
                               .pid = ref->tag.pid};
    snprintf(event.note, sizeof(event.note), "%s", ref->label);
    host_trace(ref->host, &event);
}

int gmem_pin(struct gmem *gmem, uint64_t offset, uint64_t size, enum ref_kind kind, const char *label, struct ref **out,
             struct caller *caller)
{
    if ((unsigned)kind >= REF_USER_KINDS || !size || (offset | size) & (HOST_PAGE_SIZE - 1)) {
        caller_explain(caller,
                       "pin [0x%llx, +0x%llx) kind %u: offset and size are multiples of 4096, size > 0, kind 0..2",
                       (unsigned long long)offset, (unsigned long long)size, kind);
        return -EINVAL;
    }
    uint64_t start = offset >> HOST_PAGE_SHIFT, nr = size >> HOST_PAGE_SHIFT;
    if (start >= gmem->nr_pages || nr > gmem->nr_pages - start) {
        caller_explain(caller, "pin [0x%llx, +0x%llx): beyond the end of the file (0x%llx): a fault there is SIGBUS",
                       (unsigned long long)offset, (unsigned long long)size,
                       (unsigned long long)gmem->nr_pages << HOST_PAGE_SHIFT);
        return -EFAULT;
    }
    struct ref *ref = ref_new(gmem, start, nr, kind, label, caller ? caller->pid : 0);
    if (!ref)
        return -ENOMEM;
    task_lock_shared(&gmem->invalidate_lock);
    /* Each reference has a known holder from the start. */
    ref_link(ref);
    int rc = 0;
    while (ref->nr < nr && !(rc = pin_page(gmem, start + ref->nr, ref, caller))) {
        sched_point("gup:pinned");
        if (ref->nr % RELAX_EVERY == 0)
            sched_relax();
    }
    if (rc) {
        ref_drop(ref);
    } else {
        gup_trace(ref);
        *out = ref;
    }
    task_unlock_shared(&gmem->invalidate_lock);
    return rc;
}

void gmem_unpin(struct ref *ref)
{
    host_trace(ref->host, &(struct host_event){.kind = HOST_EV_unpin,
                                               .gmem = ref->gmem ? ref->gmem->id : 0,
                                               .offset = ref->index << HOST_PAGE_SHIFT,
                                               .size = ref->nr << HOST_PAGE_SHIFT,
                                               .a1 = ref->id,
                                               .pid = ref->tag.pid});
    ref_drop(ref);
}
