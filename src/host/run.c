/* SPDX-License-Identifier: BSD-2-Clause */
/* KVM_RUN: the loop between guest and VMM, and the guest's stage-2 aborts. */
#include "src/host/driver.h"
#include "src/host/tracker.h"

#include <errno.h>

/* What the loop does with an exit: go on, return 0 to the VMM, or return an errno. */
enum { RUN_AGAIN = 1, RUN_EXIT = 0 };
#define ROUNDS_A_TURN 64u

static struct kvm_host_vcpu *shared_page(const struct vcpu *vcpu)
{
    const struct host_arch *arch = &vcpu->vm->host->arch;
    return arch->ram(arch->ctx, vcpu->host_vcpu_pfn);
}

/*
 * A guest's access is private or shared, and so is the page; where they differ
 * the VMM must decide.  The guest of a VM that EL2 protects accesses memory as
 * private, and one with a key as it has marked the page; any other's is what
 * the page is.  A page in transition is nobody's.
 */
static bool access_agrees(const struct vm *vm, const struct gmem *gmem, uint64_t index, uint64_t gfn,
                          struct run_record *run)
{
    uint64_t value = tracker_value(gmem, index);
    bool as_private = value != ATTR_SHARED;
    if (vm->el2_protected)
        as_private = true;
    else if (vm->driver->guest_marks_shared)
        as_private = !rangemap_get(&vm->marked, gfn).value;
    if (value == (as_private ? ATTR_PRIVATE : ATTR_SHARED))
        return true;
    run->exit_reason = KVM_EXIT_MEMORY_FAULT;
    run->flags = as_private ? KVM_MEMORY_EXIT_FLAG_PRIVATE : 0;
    run->gpa = gfn << HOST_PAGE_SHIFT;
    run->size = HOST_PAGE_SIZE;
    return false;
}

static int map_page(struct vcpu *vcpu, unsigned cpu, const struct memslot *slot, uint64_t gfn, struct run_record *run,
                    uint64_t *pfn)
{
    struct vm *vm = vcpu->vm;
    struct gmem *gmem = slot->gmem;
    uint64_t index = slot->index + (gfn - slot->gfn);

    if (!access_agrees(vm, gmem, index, gfn, run))
        return -EFAULT;
    *pfn = cache_lookup(gmem, index);
    if (*pfn && frame_of(vm->host, *pfn)->flags & FRAME_POISON) {
        run->exit_reason = KVM_EXIT_MEMORY_FAULT;
        run->flags = gmem_is_private(gmem, index) ? KVM_MEMORY_EXIT_FLAG_PRIVATE : 0;
        run->gpa = gfn << HOST_PAGE_SHIFT;
        run->size = HOST_PAGE_SIZE;
        return -EHWPOISON;
    }
    /* The order is pkvm_mem_abort()'s: what EL2 asks for its tables, whether the page is there, the page, the donation.
     */
    int rc = vm->driver->guest_prepare(vcpu);
    if (rc)
        return rc;
    *pfn = cache_lookup(gmem, index);
    bool mapped = *pfn && guest_has(slot, index, frame_of(vm->host, *pfn));
    if ((mapped || vm->nr_poisoned) && vm->driver->fault_is_poison(vcpu, cpu))
        return -EFAULT;
    if (mapped)
        return RUN_AGAIN; /* another vCPU was faster */
    rc = gmem_get_folio(gmem, index, pfn);
    if (rc)
        return rc;
    sched_point("abort:folio");
    struct frame *f = frame_of(vm->host, *pfn);
    task_lock_exclusive(&vm->mmu_lock);
    if (!guest_has(slot, index, f)) {
        rc = driver_guest_map(vcpu, cpu, gfn, *pfn);
        if (!rc)
            guest_got(slot, index, f);
    }
    task_unlock_exclusive(&vm->mmu_lock);
    sched_point("abort:mapped");
    return !rc || rc == -EAGAIN ? RUN_AGAIN : rc;
}

/* kvm_handle_guest_abort() and pkvm_mem_abort(). */
static int handle_abort(struct vcpu *vcpu, unsigned cpu, struct run_record *run)
{
    struct vm *vm = vcpu->vm;
    const struct kvm_host_vcpu *page = shared_page(vcpu);
    uint64_t gpa = IPA_FROM_HPFAR(page->hpfar), gfn = gpa >> HOST_PAGE_SHIFT, pfn = 0;
    bool write = page->esr & ESR_WNR;
    const struct memslot *slot = vm_slot_at(vm, gfn);
    uint32_t id = slot ? gmem_id(slot->gmem) : 0;
    int rc;

    if (!slot) {
        run->exit_reason = KVM_EXIT_MMIO;
        /* HPFAR has no bits below the page: the faulting address gives them. */
        run->gpa = gpa | (page->far & (HOST_PAGE_SIZE - 1));
        run->is_write = write;
        rc = RUN_EXIT;
    } else {
        struct gmem *gmem = slot->gmem;
        struct ref *unknown = NULL;
        gmem_get(gmem);
        /* The library does not count this one, and its holder waits for whoever waits for the count. */
        if (vm->config.bugs & HOST_BUG(SAFE_COUNT_RACE))
            ref_take(gmem, slot->index + (gfn - slot->gfn), REF_SPECULATIVE, "vCPU waiting for the folio lock", 0,
                     &unknown);
        task_lock_shared(&gmem->invalidate_lock);
        sched_point("abort:locked");
        /* Whoever had the lock may have taken the slot away: the guest's access is tried again. */
        slot = vm_slot_at(vm, gfn);
        rc = slot && slot->gmem == gmem ? map_page(vcpu, cpu, slot, gfn, run, &pfn) : RUN_AGAIN;
        task_unlock_shared(&gmem->invalidate_lock);
        if (unknown)
            ref_drop(unknown);
        gmem_put(gmem);
    }
    host_trace(vm->host, &(struct host_event){.kind = HOST_EV_guest_abort,
                                              .vm = vm->id,
                                              .gmem = id,
                                              .offset = gpa,
                                              .size = HOST_PAGE_SIZE,
                                              .a0 = write,
                                              .a1 = pfn,
                                              .vcpu = vcpu->index,
                                              .rc = rc == RUN_AGAIN ? 0 : rc});
    return rc;
}

static void trace_call(const struct vcpu *vcpu, uint64_t nr, uint64_t ipa, int64_t x0)
{
    host_trace(vcpu->vm->host, &(struct host_event){.kind = HOST_EV_guest_call,
                                                    .vm = vcpu->vm->id,
                                                    .offset = ipa,
                                                    .size = HOST_PAGE_SIZE,
                                                    .a0 = nr,
                                                    .a1 = ipa,
                                                    .vcpu = vcpu->index,
                                                    .rc = x0});
}

/* The guest's own page tables, which the hardware sees: the call only tells of it. */
static void mark(struct vm *vm, uint64_t nr, uint64_t ipa)
{
    uint64_t gfn = ipa >> HOST_PAGE_SHIFT;
    if (!vm->driver->guest_marks_shared || (nr != SMCCC_MEM_SHARE && nr != SMCCC_MEM_UNSHARE) ||
        ipa >> vm->config.ipa_bits)
        return;
    while (rangemap_reserve(&vm->marked))
        sched_relax();
    rangemap_set(&vm->marked, gfn, gfn + 1, nr == SMCCC_MEM_SHARE);
}

static int handle_call(struct vcpu *vcpu, struct run_record *run)
{
    struct kvm_host_vcpu *page = shared_page(vcpu);

    if (page->x[0] == PSCI_SYSTEM_OFF) {
        bool died = page->x[2] == GUEST_DIED;
        run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
        run->event_type = died ? KVM_SYSTEM_EVENT_CRASH : KVM_SYSTEM_EVENT_SHUTDOWN;
        run->event_data = page->x[1];
        vcpu->off = true;
        vcpu->last = *run;
        return RUN_EXIT;
    }
    run->exit_reason = KVM_EXIT_HYPERCALL;
    run->nr = page->x[0];
    for (unsigned i = 0; i < 3; i++)
        run->args[i] = page->x[i + 1];
    run->ret = (uint64_t)SMCCC_RET_NOT_SUPPORTED;
    vcpu->pending_call = run->nr;
    vcpu->pending_ipa = run->args[0];
    mark(vcpu->vm, run->nr, run->args[0]);
    /* What EL2 has carried out already; the exit only tells.  An unprotected guest's calls it only passes on. */
    if (vcpu->vm->el2_protected &&
        (run->nr == SMCCC_MEM_SHARE ||
         (run->nr == SMCCC_MEM_UNSHARE && vcpu->vm->config.unshare_mode == HYP_UNSHARE_UNILATERAL)))
        trace_call(vcpu, run->nr, run->args[0], SMCCC_RET_SUCCESS);
    return RUN_EXIT;
}

/*
 * The answer to an HVC exit.  Whether a protected guest's MEM_UNSHARE may go
 * through is not the VMM's word to give: the host consents iff the page really
 * became private, which it does only after the reference check.
 */
static void complete_call(struct vcpu *vcpu, const struct run_record *run)
{
    struct kvm_host_vcpu *page = shared_page(vcpu);
    struct vm *vm = vcpu->vm;

    if (!vcpu->pending_call)
        return;
    page->x[0] = run->ret;
    if (vm->el2_protected && vcpu->pending_call == SMCCC_MEM_UNSHARE) {
        uint64_t gfn = vcpu->pending_ipa >> HOST_PAGE_SHIFT;
        const struct memslot *slot = vm_slot_at(vm, gfn);
        bool consent = slot && tracker_value(slot->gmem, slot->index + (gfn - slot->gfn)) == ATTR_PRIVATE;
        page->x[0] = consent ? (uint64_t)SMCCC_RET_SUCCESS : (uint64_t)SMCCC_RET_INVALID_PARAMETER;
        if (vm->config.unshare_mode == HYP_UNSHARE_CONSENT)
            trace_call(vcpu, vcpu->pending_call, vcpu->pending_ipa, (int64_t)page->x[0]);
    }
    vcpu->pending_call = 0;
}

static int run_loop(struct vcpu *vcpu, unsigned cpu, struct run_record *run)
{
    struct vm *vm = vcpu->vm;
    for (unsigned round = 1;; round++) {
        int64_t code = host_hvc(vm->host, cpu, HVC_vcpu_run, vcpu_host_phys(vcpu), 0, 0, 0);
        if (code < 0)
            return (int)code;
        uint64_t ec = ESR_EC(shared_page(vcpu)->esr);
        int rc = ec == ESR_EC_HVC64 ? handle_call(vcpu, run) : handle_abort(vcpu, cpu, run);
        if (rc != RUN_AGAIN)
            return rc;
        /* A guest that does nothing but fault is not to keep others waiting. */
        if (round % ROUNDS_A_TURN == 0)
            sched_relax();
    }
}

int vcpu_run(struct vcpu *vcpu, struct run_record *run, struct caller *caller)
{
    struct vm *vm = vcpu->vm;
    struct host *host = vm->host;
    uint64_t ret = run->ret;

    if (host_alive(host, caller))
        return -EIO;
    if (vm->dying) {
        caller_explain(caller, "the VM is being destroyed");
        return -EIO;
    }
    if (vcpu->running) {
        caller_explain(caller, "vCPU %u is running in another thread", vcpu->index);
        return -EBUSY;
    }
    if (vcpu->off) {
        *run = vcpu->last;
        return 0;
    }
    *run = (struct run_record){.ret = ret};
    vcpu->running = true;
    vm->nr_inside++;
    int cpu = -1;
    task_lock_exclusive(&vm->mmu_lock);
    int rc = vm->driver->vm_first_run(vm, caller);
    task_unlock_exclusive(&vm->mmu_lock);
    if (!rc) {
        cpu = host->arch.cpu_get(host->arch.ctx, vcpu);
        rc = cpu < 0 ? cpu : 0;
    }
    if (!rc) {
        complete_call(vcpu, run);
        run->ret = 0;
        host_hvc(host, (unsigned)cpu, HVC_vcpu_load, vm->handle, vcpu->index, 0, 0);
        rc = run_loop(vcpu, (unsigned)cpu, run);
        host_hvc(host, (unsigned)cpu, HVC_vcpu_put, 0, 0, 0, 0);
        host->arch.cpu_put(host->arch.ctx, (unsigned)cpu);
        host_trace(host, &(struct host_event){.kind = HOST_EV_exit,
                                              .vm = vm->id,
                                              .a0 = run->exit_reason,
                                              .a1 = run->gpa,
                                              .vcpu = vcpu->index,
                                              .pid = caller ? caller->pid : 0,
                                              .rc = rc});
    }
    vcpu->running = false;
    if (--vm->nr_inside == 0)
        sched_wake_all(&vm->idle);
    return rc;
}
