/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Traps of a guest.  Calls of a protected guest about its own memory are
 * answered here; everything else, and every call of a guest that is not
 * protected, is the host's business.
 */
#include "fakehyp/pkvm/internal.h"

/* UUID 28b46fb6-2ec5-11e9-a9ca-4b564d003a74 as four little-endian words. */
static const uint32_t vendor_hyp_uid[4] = {0xb66fb428, 0xe911c52e, 0x564bcaa9, 0x743a004d};

/* The features call itself, MEMINFO, MEM_SHARE, MEM_UNSHARE: each bit is the low byte of a function id. */
#define VENDOR_HYP_FEATURES (1u << 0 | 1u << 2 | 1u << 3 | 1u << 4)

static enum hyp_next exit_to_host(const struct hyp *hyp, struct hyp_vcpu *vcpu, uint64_t far, const uint64_t x[4],
                                  uint64_t host_regs[8])
{
    struct kvm_host_vcpu *host;

    host_regs[0] = 0;
    host_regs[1] = ARM_EXCEPTION_TRAP;
    host = hyp_host_vcpu(hyp, vcpu);
    host->esr = vcpu->esr;
    host->far = far;
    host->hpfar = vcpu->hpfar;
    /* The function id is W0.  The host is shown what EL2 acts on, so that both take it for the same call. */
    host->x[0] = (uint32_t)x[0];
    for (unsigned i = 1; i < 4; i++)
        host->x[i] = x[i];
    if (HYP_MUTANT(STRAY_WRITE))
        host->pkvm_memcache.nr_pages++;
    return HYP_NEXT_HOST;
}

/* Call exits show the host what the guest asked for, whatever the guest finds in its registers afterwards. */
static enum hyp_next exit_with_call(const struct hyp *hyp, struct hyp_vcpu *vcpu, const struct hyp_trap *trap,
                                    uint64_t host_regs[8])
{
    return exit_to_host(hyp, vcpu, trap->far, trap->x, host_regs);
}

static enum hyp_next answer(struct hyp_vcpu *vcpu, int64_t result)
{
    hyp_vcpu_answer(vcpu, result);
    return HYP_NEXT_GUEST;
}

static enum hyp_next answer_uid(struct hyp_vcpu *vcpu)
{
    for (unsigned i = 0; i < 4; i++)
        vcpu->regs.x[i] = vendor_hyp_uid[i];
    return HYP_NEXT_GUEST;
}

/*
 * The guest wants to share a page that it does not have yet.  Its PC goes back
 * to the HVC, and the host sees a write fault, for which it brings the page.
 */
static enum hyp_next fault_instead(const struct hyp *hyp, struct hyp_vcpu *vcpu, uint64_t ipa, uint64_t host_regs[8])
{
    static const uint64_t no_call[4];

    vcpu->regs.replay = true;
    vcpu->esr = ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_WNR | ESR_FSC_TRANS_L(3);
    vcpu->hpfar = HPFAR_FROM_IPA(ipa);
    return exit_to_host(hyp, vcpu, ipa, no_call, host_regs);
}

static bool ipa_argument_ok(const struct hyp_trap *trap)
{
    return trap->x[1] % HYP_PAGE_SIZE == 0 && trap->x[2] == 0 && trap->x[3] == 0;
}

static enum hyp_next mem_share(struct hyp *hyp, struct hyp_vcpu *vcpu, const struct hyp_trap *trap,
                               uint64_t host_regs[8])
{
    uint64_t ipa = trap->x[1];
    int ret = ipa_argument_ok(trap) ? pkvm_guest_share_host(hyp, vcpu->vm, ipa >> HYP_PAGE_SHIFT) : -HYP_EINVAL;

    if (ret == -HYP_ENOENT)
        return fault_instead(hyp, vcpu, ipa, host_regs);
    if (ret)
        return answer(vcpu, SMCCC_RET_INVALID_PARAMETER);
    /* The answer is settled before the host hears of it. */
    hyp_vcpu_answer(vcpu, SMCCC_RET_SUCCESS);
    return exit_with_call(hyp, vcpu, trap, host_regs);
}

static enum hyp_next mem_unshare(struct hyp *hyp, struct hyp_vcpu *vcpu, const struct hyp_trap *trap,
                                 uint64_t host_regs[8])
{
    uint64_t gfn = trap->x[1] >> HYP_PAGE_SHIFT;
    bool consent = vcpu->vm->unshare_mode == HYP_UNSHARE_CONSENT;
    int ret = -HYP_EINVAL;

    if (ipa_argument_ok(trap))
        ret = consent ? pkvm_check_guest_unshare(hyp, vcpu->vm, gfn) : pkvm_guest_unshare_host(hyp, vcpu->vm, gfn);
    if (ret)
        return answer(vcpu, SMCCC_RET_INVALID_PARAMETER);
    if (consent)
        vcpu->pending = HYP_PENDING_CONSENT;
    else
        hyp_vcpu_answer(vcpu, SMCCC_RET_SUCCESS);
    return exit_with_call(hyp, vcpu, trap, host_regs);
}

static enum hyp_next guest_call(struct hyp *hyp, struct hyp_vcpu *vcpu, const struct hyp_trap *trap,
                                uint64_t host_regs[8])
{
    if (vcpu->vm->is_protected) {
        switch ((uint32_t)trap->x[0]) {
        case SMCCC_VENDOR_HYP_UID:
            return answer_uid(vcpu);
        case SMCCC_VENDOR_HYP_FEATURES:
            return answer(vcpu, VENDOR_HYP_FEATURES);
        case SMCCC_HYP_MEMINFO:
            return answer(vcpu,
                          trap->x[1] | trap->x[2] | trap->x[3] ? SMCCC_RET_INVALID_PARAMETER : (int64_t)HYP_PAGE_SIZE);
        case SMCCC_MEM_SHARE:
            return mem_share(hyp, vcpu, trap, host_regs);
        case SMCCC_MEM_UNSHARE:
            return mem_unshare(hyp, vcpu, trap, host_regs);
        }
    }
    vcpu->pending = HYP_PENDING_FORWARDED;
    return exit_with_call(hyp, vcpu, trap, host_regs);
}

enum hyp_next hyp_guest_trap(struct hyp *hyp, unsigned cpu, const struct hyp_trap *trap, uint64_t host_regs[8])
{
    static const uint64_t no_call[4];
    struct hyp_vcpu *vcpu = cpu < hyp->nr_cpus ? hyp->cpus[cpu].loaded : NULL;

    if (!vcpu) {
        host_regs[0] = 0;
        host_regs[1] = (uint64_t)-HYP_EINVAL;
        return HYP_NEXT_HOST;
    }
    vcpu->pending = HYP_PENDING_NONE;
    vcpu->esr = trap->esr;
    vcpu->hpfar = trap->hpfar;
    vcpu->regs = (struct hyp_guest_regs){.x = {trap->x[0], trap->x[1], trap->x[2], trap->x[3]}};
    if (ESR_EC(trap->esr) == ESR_EC_HVC64)
        return guest_call(hyp, vcpu, trap, host_regs);
    return exit_to_host(hyp, vcpu, trap->far, no_call, host_regs);
}
