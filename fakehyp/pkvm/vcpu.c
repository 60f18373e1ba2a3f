/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading vcpus and entering the guest. */
#include "fakehyp/pkvm/internal.h"

void pkvm_vcpu_load(struct hyp *hyp, unsigned cpu, uint64_t handle, uint64_t idx)
{
    struct hyp_vm *vm = hyp_vm_find(hyp, handle);
    struct hyp_vcpu *vcpu;

    if (hyp->cpus[cpu].loaded || !vm || (vm->is_dying && !HYP_MUTANT(DYING_UNCHECKED)) || idx >= vm->nr_vcpus)
        return;
    vcpu = vm->vcpus[idx];
    if (!vcpu || vcpu->loaded)
        return;
    vcpu->loaded = true;
    hyp->cpus[cpu].loaded = vcpu;
    ++*hyp_vm_refcount(hyp, vm);
}

void pkvm_vcpu_put(struct hyp *hyp, unsigned cpu)
{
    struct hyp_vcpu *vcpu = hyp->cpus[cpu].loaded;

    if (!vcpu)
        return;
    hyp->cpus[cpu].loaded = NULL;
    vcpu->loaded = false;
    --*hyp_vm_refcount(hyp, vcpu->vm);
}

/* The guest's call that made it exit is completed with what the host says now. */
static void complete_call(struct hyp *hyp, struct hyp_vcpu *vcpu)
{
    const struct kvm_host_vcpu *host = hyp_host_vcpu(hyp, vcpu);
    uint64_t ipa = vcpu->regs.x[1];

    switch (vcpu->pending) {
    case HYP_PENDING_FORWARDED:
        /* A call has up to four results. */
        for (unsigned i = 0; i < 4; i++)
            vcpu->regs.x[i] = HYP_READ_ONCE(host->x[i]);
        break;
    case HYP_PENDING_CONSENT:
        /* The checks run again: the host had the CPU in between. */
        if (HYP_READ_ONCE(host->x[0]) == 0 && pkvm_guest_unshare_host(hyp, vcpu->vm, ipa >> HYP_PAGE_SHIFT) == 0)
            hyp_vcpu_answer(vcpu, SMCCC_RET_SUCCESS);
        else
            hyp_vcpu_answer(vcpu, SMCCC_RET_INVALID_PARAMETER);
        break;
    case HYP_PENDING_NONE:
        break;
    }
    vcpu->pending = HYP_PENDING_NONE;
}

int pkvm_vcpu_run(struct hyp *hyp, unsigned cpu, uint64_t host_vcpu)
{
    struct hyp_vcpu *vcpu = hyp->cpus[cpu].loaded;

    if (!vcpu || vcpu->host_vcpu != host_vcpu)
        return -HYP_EINVAL;
    complete_call(hyp, vcpu);
    return 0;
}

const struct hyp_guest_regs *hyp_guest_regs(const struct hyp *hyp, unsigned cpu)
{
    const struct hyp_vcpu *vcpu = cpu < hyp->nr_cpus ? hyp->cpus[cpu].loaded : NULL;

    return vcpu ? &vcpu->regs : NULL;
}
