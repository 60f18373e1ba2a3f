/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Aborts that EL2 injects into the host kernel: what do_mem_abort() makes of
 * one, by where the access came from (arch/arm64/mm/fault.c, pkvm.c).
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "src/host/driver.h"

/* pkvm_force_reclaim_guest_page(), under the lock that keeps a conversion from moving what EL2 is about to zero. */
static int64_t force_reclaim(struct host *host, uint64_t pfn)
{
    struct gmem *gmem = NULL, *now;
    uint64_t index, index_now, gfn;

    if (host_frame_slot(host, pfn, &gmem, &index)) {
        gmem_get(gmem);
        task_lock_exclusive(&gmem->invalidate_lock);
        if (!host_frame_slot(host, pfn, &now, &index_now) || now != gmem || index_now != index) {
            /* It left the file meanwhile: whose it is now the access will tell when it is repeated. */
            task_unlock_exclusive(&gmem->invalidate_lock);
            gmem_put(gmem);
            return -EAGAIN;
        }
    }
    int64_t rc = host_hvc(host, 0, HVC_force_reclaim_guest_page, pfn << HOST_PAGE_SHIFT, 0, 0, 0);
    if (gmem) {
        struct vm *vm = gmem_binding(gmem, index, &gfn);
        if (rc == 0) {
            if (vm) {
                guest_lost(vm_slot_at(vm, gfn), index, frame_of(host, pfn));
                vm->nr_poisoned++;
            }
        }
        task_unlock_exclusive(&gmem->invalidate_lock);
        gmem_put(gmem);
    }
    return rc;
}

static void trace(struct host *host, const struct host_abort *abort, int64_t rc, const char *what)
{
    struct host_event event = {
        .kind = HOST_EV_host_abort, .a0 = abort->pfn, .a1 = abort->esr, .rc = rc, .pid = abort->pid};
    struct gmem *gmem;
    uint64_t index;

    if (host_frame_slot(host, abort->pfn, &gmem, &index)) {
        event.vm = gmem->vm_id;
        event.gmem = gmem->id;
        event.offset = index << HOST_PAGE_SHIFT;
        event.size = HOST_PAGE_SIZE;
    }
    snprintf(event.note, sizeof(event.note), "%s", what);
    host_trace(host, &event);
}

enum host_abort_end host_mem_abort(struct host *host, const struct host_abort *abort)
{
    assert(abort->esr & ESR_S1PTW); /* the mark of an injected abort: others never come here */
    if (ESR_EC(abort->esr) == ESR_EC_DABT_LOW) {
        /* Before any VMA is looked at; nothing is taken from the guest. */
        trace(host, abort, -EFAULT, "SIGSEGV, SEGV_ACCERR: stage-2 fault");
        return HOST_ABORT_SIGSEGV;
    }
    if (abort->fixup) {
        trace(host, abort, -EFAULT, "exception table: EFAULT or a short copy");
        return HOST_ABORT_FIXUP;
    }
    sched_point("host-abort:injected");
    int64_t rc = force_reclaim(host, abort->pfn);
    if (rc == 0 || rc == -EAGAIN) {
        trace(host, abort, rc, rc ? "would no longer fault: retried" : "forced reclaim: retried");
        return HOST_ABORT_RETRY;
    }
    trace(host, abort, rc, "Oops: access to hypervisor-protected memory");
    return HOST_ABORT_OOPS;
}
