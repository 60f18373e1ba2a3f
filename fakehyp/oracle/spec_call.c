/* SPDX-License-Identifier: BSD-2-Clause */
/* Specification: the three ways into EL2. */
#include "fakehyp/oracle/state.h"
#include "fakehyp/string.h"

/* ---- host calls ---- */

static int64_t prot_finalize(struct oracle *o, unsigned cpu)
{
    if (o->cpus[cpu].finalized)
        return -HYP_EPERM;
    o->cpus[cpu].finalized = o->finalized = true;
    return 0;
}

static int64_t tlb_flush_vmid(struct oracle *o, uint64_t handle)
{
    const struct vm *vm = o_vm_of(o, handle);

    o->expect.flush_vmid = vm != NULL;
    o->expect.flushed = vm ? vm->tree.vmid : 0;
    return 0;
}

/* False for a number that is no call. */
static bool host_call(struct oracle *o, const uint64_t a[8], int64_t *ret)
{
    unsigned cpu = o->call.cpu;

    *ret = 0;
    switch (o->call.n) {
    case HVC_prot_finalize:
        *ret = prot_finalize(o, cpu);
        return true;
    case HVC_vcpu_run:
        *ret = spec_vcpu_run(o, cpu, a[1]);
        o->expect.next = *ret ? HYP_NEXT_HOST : HYP_NEXT_GUEST;
        return true;
    case HVC_host_share_hyp:
        *ret = spec_host_share_hyp(o, a[1]);
        return true;
    case HVC_host_unshare_hyp:
        *ret = spec_host_unshare_hyp(o, a[1]);
        return true;
    case HVC_host_donate_guest:
        *ret = spec_donate_guest(o, cpu, a[1], a[2]);
        return true;
    case HVC_host_share_guest:
        *ret = spec_share_guest(o, cpu, a[1], a[2], a[3], a[4]);
        return true;
    case HVC_host_unshare_guest:
        *ret = spec_unshare_guest(o, a[1], a[2], a[3]);
        return true;
    case HVC_relax_perms_guest:
        *ret = spec_relax_perms(o, cpu, a[1], a[2]);
        return true;
    case HVC_wrprotect_guest:
        *ret = spec_wrprotect(o, a[1], a[2], a[3]);
        return true;
    case HVC_test_clear_young_guest:
        *ret = spec_test_clear_young(o, a[1], a[2], a[3], a[4] != 0);
        return true;
    case HVC_mkyoung_guest:
        *ret = spec_mkyoung(o, cpu, a[1]);
        return true;
    case HVC_reserve_vm:
        *ret = spec_reserve_vm(o, (int64_t)o->call.out[1]);
        return true;
    case HVC_unreserve_vm:
        spec_unreserve_vm(o, a[1]);
        return true;
    case HVC_init_vm:
        *ret = spec_init_vm(o, a[1], a[2], a[3]);
        return true;
    case HVC_init_vcpu:
        *ret = spec_init_vcpu(o, a[1], a[2], a[3]);
        return true;
    case HVC_vcpu_in_poison_fault:
        *ret = spec_poison_fault(o, cpu);
        return true;
    case HVC_force_reclaim_guest_page:
        *ret = spec_force_reclaim(o, a[1]);
        return true;
    case HVC_reclaim_dying_guest_page:
        *ret = spec_reclaim_dying(o, a[1], a[2]);
        return true;
    case HVC_start_teardown_vm:
        *ret = spec_start_teardown(o, a[1]);
        return true;
    case HVC_finalize_teardown_vm:
        *ret = spec_finalize_teardown(o, a[1]);
        return true;
    case HVC_vcpu_load:
        spec_vcpu_load(o, cpu, a[1], a[2]);
        return true;
    case HVC_vcpu_put:
        spec_vcpu_put(o, cpu);
        return true;
    case HVC_tlb_flush_vmid:
        *ret = tlb_flush_vmid(o, a[1]);
        return true;
    case HVC_host_may_access:
        *ret = spec_host_may_access(o, a[1]);
        return true;
    }
    return false;
}

void spec_host_call(struct oracle *o)
{
    /* pKVM's own calls wait for prot_finalize; what the kernel has below it is not here at all. */
    bool open = o->finalized || o->call.n < HVC_PKVM_ONLY;
    int64_t ret;

    o->expect.next = HYP_NEXT_HOST;
    if (o->call.cpu >= o->nr_cpus || !open || !host_call(o, o->call.in, &ret)) {
        o->expect.x0 = (uint64_t)SMCCC_RET_NOT_SUPPORTED;
        o->expect.x1 = o->call.in[1];
        return;
    }
    if (o->expect.next == HYP_NEXT_GUEST) {
        o->expect.x0 = o->call.in[0];
        o->expect.x1 = o->call.in[1];
        return;
    }
    o->expect.x0 = 0;
    o->expect.x1 = (uint64_t)ret;
}

/* ---- guest traps ---- */

/* The host gets the fault, and of a call its registers. */
static void exit_to_host(struct oracle *o, const struct vcpu *vcpu, uint64_t far, const uint64_t *x)
{
    o->expect.next = HYP_NEXT_HOST;
    o->expect.x0 = 0;
    o->expect.x1 = ARM_EXCEPTION_TRAP;
    o->expect.exit_to = vcpu->host_vcpu;
    o->expect.exit = (struct kvm_host_vcpu){.esr = vcpu->esr, .far = far, .hpfar = vcpu->hpfar};
    for (unsigned i = 0; x && i < 4; i++)
        o->expect.exit.x[i] = x[i];
}

static void answer(struct oracle *o, struct vcpu *vcpu, uint64_t x0, uint64_t x1, uint64_t x2, uint64_t x3)
{
    o->expect.next = HYP_NEXT_GUEST;
    vcpu->regs = (struct hyp_guest_regs){.x = {x0, x1, x2, x3}};
}

static bool only_an_ipa(const uint64_t x[4])
{
    return x[1] % HYP_PAGE_SIZE == 0 && x[2] == 0 && x[3] == 0;
}

static void mem_share(struct oracle *o, struct vm *vm, struct vcpu *vcpu, const uint64_t x[4])
{
    int64_t ret = only_an_ipa(x) ? spec_guest_share(o, vm, x[1] / HYP_PAGE_SIZE) : -HYP_EINVAL;

    if (ret == -HYP_ENOENT) {
        /* The host sees a write fault at level 3, and the guest calls again afterwards. */
        vcpu->regs.replay = true;
        vcpu->esr = ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_WNR | ESR_FSC_TRANS_L(3);
        vcpu->hpfar = HPFAR_FROM_IPA(x[1]);
        exit_to_host(o, vcpu, x[1], NULL);
        return;
    }
    answer(o, vcpu, (uint64_t)(ret ? SMCCC_RET_INVALID_PARAMETER : SMCCC_RET_SUCCESS), 0, 0, 0);
    if (!ret)
        exit_to_host(o, vcpu, o->call.trap.far, x);
}

static void mem_unshare(struct oracle *o, struct vm *vm, struct vcpu *vcpu, const uint64_t x[4])
{
    bool at_once = vm->mode == HYP_UNSHARE_UNILATERAL;
    int64_t ret = only_an_ipa(x) ? spec_guest_unshare(o, vm, x[1] / HYP_PAGE_SIZE, at_once) : -HYP_EINVAL;

    if (ret || at_once)
        answer(o, vcpu, (uint64_t)(ret ? SMCCC_RET_INVALID_PARAMETER : SMCCC_RET_SUCCESS), 0, 0, 0);
    else
        vcpu->wait = WAIT_CONSENT;
    if (!ret)
        exit_to_host(o, vcpu, o->call.trap.far, x);
}

static void guest_call(struct oracle *o, struct vm *vm, struct vcpu *vcpu)
{
    /* A function id is 32 bits wide. */
    const uint64_t x[4] = {o->call.trap.x[0] & UINT32_MAX, o->call.trap.x[1], o->call.trap.x[2], o->call.trap.x[3]};

    switch (vm->is_protected ? x[0] : 0) {
    case SMCCC_VENDOR_HYP_UID: /* 28b46fb6-2ec5-11e9-a9ca-4b564d003a74 */
        answer(o, vcpu, 0xb66fb428, 0xe911c52e, 0x564bcaa9, 0x743a004d);
        return;
    case SMCCC_VENDOR_HYP_FEATURES:
        answer(o, vcpu, 0x1d, 0, 0, 0);
        return;
    case SMCCC_HYP_MEMINFO:
        answer(o, vcpu, x[1] | x[2] | x[3] ? (uint64_t)SMCCC_RET_INVALID_PARAMETER : HYP_PAGE_SIZE, 0, 0, 0);
        return;
    case SMCCC_MEM_SHARE:
        mem_share(o, vm, vcpu, x);
        return;
    case SMCCC_MEM_UNSHARE:
        mem_unshare(o, vm, vcpu, x);
        return;
    }
    vcpu->wait = WAIT_ANSWER;
    exit_to_host(o, vcpu, o->call.trap.far, x);
}

void spec_guest_trap(struct oracle *o)
{
    const struct hyp_trap *trap = &o->call.trap;
    struct vcpu *vcpu = o->call.cpu < o->nr_cpus ? o_vcpu_on(o, o->call.cpu) : NULL;

    o->expect.x0 = o->call.in[0];
    o->expect.x1 = o->call.in[1];
    if (!vcpu) {
        o->expect.next = HYP_NEXT_HOST;
        o->expect.x0 = 0;
        o->expect.x1 = (uint64_t)-HYP_EINVAL;
        return;
    }
    o->expect.vm = o->cpus[o->call.cpu].vm;
    o->expect.vcpu = vcpu;
    vcpu->wait = WAIT_NOTHING;
    vcpu->esr = trap->esr;
    vcpu->hpfar = trap->hpfar;
    vcpu->regs = (struct hyp_guest_regs){.x = {trap->x[0], trap->x[1], trap->x[2], trap->x[3]}};
    if (ESR_EC(trap->esr) == ESR_EC_HVC64)
        guest_call(o, o->expect.vm, vcpu);
    else
        exit_to_host(o, vcpu, trap->far, NULL);
}

/* ---- host aborts ---- */

/* A page of somebody else is an injected abort; everything else is or gets mapped.  How is judged with the tables. */
void spec_host_abort(struct oracle *o)
{
    uint64_t phys = o->call.in[0], pfn = phys / HYP_PAGE_SIZE;
    bool mapped = o_frame_of(o, pfn).host != PKVM_PAGE_NOPAGE || o_is_text(o, pfn);

    o->expect.next = phys >> o->pa_bits == 0 && mapped ? HYP_ABORT_RETRY : HYP_ABORT_INJECT;
}
