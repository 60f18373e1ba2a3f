/* SPDX-License-Identifier: BSD-2-Clause */
/* The host's calls: SMCCC decoding and the checks of the handlers, which precede those of the functions they call. */
#include "fakehyp/pkvm/internal.h"

#define MAX_ARGS 5

struct host_call {
    struct hyp *hyp;
    unsigned cpu;
    uint64_t arg[MAX_ARGS];
    enum hyp_next next;
};

/* Loaded vcpu of the right kind, or NULL (the callers' EINVAL). */
static struct hyp_vcpu *loaded_vcpu(const struct host_call *call, bool is_protected)
{
    struct hyp_vcpu *vcpu = call->hyp->cpus[call->cpu].loaded;

    return vcpu && vcpu->vm->is_protected == is_protected ? vcpu : NULL;
}

/* VM of the handle in the first argument if it is not protected, or NULL (the callers' EINVAL). */
static struct hyp_vm *np_vm(const struct host_call *call)
{
    struct hyp_vm *vm = hyp_vm_find(call->hyp, call->arg[0]);

    return vm && !vm->is_protected ? vm : NULL;
}

static int64_t handle_prot_finalize(struct host_call *call)
{
    struct hyp_cpu *cpu = &call->hyp->cpus[call->cpu];

    if (cpu->finalized)
        return -HYP_EPERM;
    cpu->finalized = true;
    call->hyp->finalized = true;
    return 0;
}

static int64_t handle_vcpu_run(struct host_call *call)
{
    int ret = pkvm_vcpu_run(call->hyp, call->cpu, call->arg[0]);

    if (!ret)
        call->next = HYP_NEXT_GUEST;
    return ret;
}

static int64_t handle_host_share_hyp(struct host_call *call)
{
    return pkvm_host_share_hyp(call->hyp, call->arg[0]);
}

static int64_t handle_host_unshare_hyp(struct host_call *call)
{
    return pkvm_host_unshare_hyp(call->hyp, call->arg[0]);
}

static int64_t handle_host_donate_guest(struct host_call *call)
{
    struct hyp_vcpu *vcpu = loaded_vcpu(call, true);
    int ret = vcpu ? hyp_refill_memcache(call->hyp, vcpu) : -HYP_EINVAL;

    return ret ? ret : pkvm_host_donate_guest(call->hyp, vcpu, call->arg[0], call->arg[1]);
}

static int64_t handle_host_share_guest(struct host_call *call)
{
    struct hyp_vcpu *vcpu = loaded_vcpu(call, false);
    int ret = vcpu ? hyp_refill_memcache(call->hyp, vcpu) : -HYP_EINVAL;

    return ret ? ret : pkvm_host_share_guest(call->hyp, vcpu, call->arg[0], call->arg[1], call->arg[2], call->arg[3]);
}

static int64_t handle_host_unshare_guest(struct host_call *call)
{
    struct hyp_vm *vm = np_vm(call);

    return vm ? pkvm_host_unshare_guest(call->hyp, vm, call->arg[1], call->arg[2]) : -HYP_EINVAL;
}

static int64_t handle_relax_perms_guest(struct host_call *call)
{
    struct hyp_vcpu *vcpu = loaded_vcpu(call, false);

    return vcpu ? pkvm_relax_perms(vcpu->vm, call->arg[0], call->arg[1]) : -HYP_EINVAL;
}

static int64_t handle_wrprotect_guest(struct host_call *call)
{
    struct hyp_vm *vm = np_vm(call);

    return vm ? pkvm_wrprotect(vm, call->arg[1], call->arg[2]) : -HYP_EINVAL;
}

static int64_t handle_test_clear_young_guest(struct host_call *call)
{
    struct hyp_vm *vm = np_vm(call);

    return vm ? pkvm_test_clear_young(vm, call->arg[1], call->arg[2], call->arg[3] != 0) : -HYP_EINVAL;
}

static int64_t handle_mkyoung_guest(struct host_call *call)
{
    struct hyp_vcpu *vcpu = loaded_vcpu(call, false);

    return vcpu ? pkvm_mkyoung(vcpu->vm, call->arg[0]) : -HYP_EINVAL;
}

static int64_t handle_reserve_vm(struct host_call *call)
{
    return pkvm_reserve_vm(call->hyp);
}

static int64_t handle_unreserve_vm(struct host_call *call)
{
    pkvm_unreserve_vm(call->hyp, call->arg[0]);
    return 0;
}

static int64_t handle_init_vm(struct host_call *call)
{
    return pkvm_init_vm(call->hyp, call->arg[0], call->arg[1], call->arg[2]);
}

static int64_t handle_init_vcpu(struct host_call *call)
{
    return pkvm_init_vcpu(call->hyp, call->arg[0], call->arg[1], call->arg[2]);
}

static int64_t handle_vcpu_in_poison_fault(struct host_call *call)
{
    struct hyp_vcpu *vcpu = loaded_vcpu(call, true);

    return vcpu ? pkvm_vcpu_in_poison_fault(vcpu) : -HYP_EINVAL;
}

static int64_t handle_force_reclaim_guest_page(struct host_call *call)
{
    return pkvm_force_reclaim(call->hyp, call->arg[0]);
}

static int64_t handle_reclaim_dying_guest_page(struct host_call *call)
{
    struct hyp_vm *vm = hyp_vm_find(call->hyp, call->arg[0]);

    if (!vm || !vm->is_dying)
        return -HYP_EINVAL;
    return pkvm_reclaim_guest_page(call->hyp, vm, call->arg[1]);
}

static int64_t handle_start_teardown_vm(struct host_call *call)
{
    return pkvm_start_teardown_vm(call->hyp, call->arg[0]);
}

static int64_t handle_finalize_teardown_vm(struct host_call *call)
{
    return pkvm_finalize_teardown_vm(call->hyp, call->arg[0]);
}

/* The third argument is HCR_EL2 for the guest, of which nothing is modelled. */
static int64_t handle_vcpu_load(struct host_call *call)
{
    pkvm_vcpu_load(call->hyp, call->cpu, call->arg[0], call->arg[1]);
    return 0;
}

static int64_t handle_vcpu_put(struct host_call *call)
{
    pkvm_vcpu_put(call->hyp, call->cpu);
    return 0;
}

static int64_t handle_tlb_flush_vmid(struct host_call *call)
{
    const struct hyp_vm *vm = hyp_vm_find(call->hyp, call->arg[0]);

    if (vm)
        hyp_tlbi(&call->hyp->mm, vm->pgt.vmid, 0, 0);
    return 0;
}

static int64_t handle_host_may_access(struct host_call *call)
{
    return pkvm_host_may_access(call->hyp, call->arg[0]);
}

#define X(n, name, nargs) _Static_assert((nargs) <= MAX_ARGS, "arguments travel in x1..x5");
HYP_HOST_CALL_MAP(X)
#undef X

/*
 * A switch and not a table of functions: that would be relocated data, and EL2 has none.
 * False for a number that is no call.
 */
static bool dispatch(uint64_t n, struct host_call *call, int64_t *ret)
{
    switch (n) {
#define X(number, name, nargs)                                                                                         \
    case number:                                                                                                       \
        *ret = handle_##name(call);                                                                                    \
        return true;
        HYP_HOST_CALL_MAP(X)
#undef X
    }
    return false;
}

enum hyp_next hyp_host_hvc(struct hyp *hyp, unsigned cpu, uint64_t regs[8])
{
    struct host_call call = {.hyp = hyp, .cpu = cpu, .next = HYP_NEXT_HOST};
    uint64_t n = regs[0] - HVC_HOST_BASE;
    int64_t ret;

    for (unsigned i = 0; i < MAX_ARGS; i++)
        call.arg[i] = regs[1 + i];
    if (cpu >= hyp->nr_cpus || (!hyp->finalized && n >= HVC_PKVM_ONLY) || !dispatch(n, &call, &ret)) {
        regs[0] = (uint64_t)SMCCC_RET_NOT_SUPPORTED;
    } else if (call.next == HYP_NEXT_HOST) {
        regs[0] = 0;
        regs[1] = (uint64_t)ret;
    }
    return call.next;
}
