/* SPDX-License-Identifier: BSD-2-Clause */
/* What guests play, from the host's vcpu_run to the trap that ends it. */
#include "tests/unit/el2_player.h"

static struct hyp_vcpu *vcpu_on(const struct player *p, unsigned cpu)
{
    return p->el2->hyp->cpus[cpu].loaded;
}

/* The guest's page as a call of it would find it; there is no call that only asks. */
static enum hyp_page_state guest_state(const struct player *p, const struct hyp_vm *vm, uint64_t gfn)
{
    struct hyp_guest_leaf leaf;

    return hyp_guest_leaf(p->el2->hyp, vm->handle, gfn, &leaf) == 0 ? leaf.state : PKVM_PAGE_NOPAGE;
}

/* ---- run -------------------------------------------------------------------------------------------------------- */

void play_run(struct player *p)
{
    unsigned cpu = play_cpu(p, PLAY_ANY);
    const struct hyp_vcpu *vcpu = vcpu_on(p, cpu);
    bool asked = vcpu && vcpu->pending == HYP_PENDING_CONSENT;
    uint64_t ipa = vcpu ? vcpu->regs.x[1] : 0;
    enum play_outcome ran;

    for (unsigned i = 0; vcpu && i < 4; i++)
        hyp_host_vcpu(p->el2->hyp, vcpu)->x[i] = i ? play_draw(p, 3) : play_one_in(p, 4);
    ran = play_host_call(p, cpu, HVC_vcpu_run,
                         vcpu && !play_one_in(p, 20) ? vcpu->host_vcpu : play_frame(p) << HYP_PAGE_SHIFT, 0, 0, 0);
    if (ran != OUT_OK || !asked)
        return;
    /* The host's answer to a MEM_UNSHARE that waited for it. */
    play_begin(p, cpu, PLAY_MEM_UNSHARE, (const uint64_t[4]){ipa});
    switch ((int64_t)hyp_guest_regs(p->el2->hyp, cpu)->x[0]) {
    case SMCCC_RET_SUCCESS:
        play_done(p, OUT_OK);
        break;
    case SMCCC_RET_INVALID_PARAMETER:
        play_done(p, OUT_REFUSED);
        break;
    default:
        fail_msg("an answer that MEM_UNSHARE does not have");
    }
}

/* ---- traps ------------------------------------------------------------------------------------------------------ */

static enum hyp_next trap(struct player *p, unsigned cpu, const struct hyp_trap *t)
{
    uint64_t regs[8] = {~0ull, ~0ull};
    enum hyp_next next = el2_trap(p->el2, cpu, t, regs);

    if (next == HYP_NEXT_HOST) {
        assert_int_equal(regs[0], 0);
        assert_int_equal(regs[1], ARM_EXCEPTION_TRAP);
        p->in_guest[cpu] = false;
    }
    return next;
}

/* Why EL2 said no.  It is told to nobody, but a call that failed has changed nothing, so it fails again. */
static enum play_outcome reason(struct player *p, const struct hyp_vm *vm, const uint64_t x[4], bool share)
{
    uint64_t gfn = x[1] >> HYP_PAGE_SHIFT;
    int ret = -HYP_EINVAL;

    if (x[1] % HYP_PAGE_SIZE == 0 && x[2] == 0 && x[3] == 0)
        ret = share ? pkvm_guest_share_host(p->el2->hyp, hyp_vm_find(p->el2->hyp, vm->handle), gfn)
                    : pkvm_check_guest_unshare(p->el2->hyp, vm, gfn);
    assert_int_not_equal(ret, 0);
    return play_outcome_of(ret);
}

static void mem_call(struct player *p, unsigned cpu, const struct hyp_trap *t, bool share)
{
    const struct hyp_vcpu *vcpu = vcpu_on(p, cpu);
    enum hyp_next next;
    int64_t x0;

    play_begin(p, cpu, share ? PLAY_MEM_SHARE : PLAY_MEM_UNSHARE, t->x);
    next = trap(p, cpu, t);
    x0 = (int64_t)vcpu->regs.x[0];
    if (next == HYP_NEXT_GUEST) {
        assert_int_equal(x0, SMCCC_RET_INVALID_PARAMETER);
        play_done(p, reason(p, vcpu->vm, t->x, share));
    } else {
        /* Either it is done and the host is told, or the host has something to do first. */
        play_done(p, vcpu->regs.replay || vcpu->pending == HYP_PENDING_CONSENT ? OUT_EXIT : OUT_OK);
    }
}

static void other_call(struct player *p, unsigned cpu, const struct hyp_trap *t)
{
    enum play_call call = PLAY_call_for_the_host;
    enum hyp_next next;

    if (vcpu_on(p, cpu)->vm->is_protected) {
        call = t->x[0] == SMCCC_HYP_MEMINFO           ? PLAY_HYP_MEMINFO
               : t->x[0] == SMCCC_VENDOR_HYP_FEATURES ? PLAY_VENDOR_HYP_FEATURES
               : t->x[0] == SMCCC_VENDOR_HYP_UID      ? PLAY_VENDOR_HYP_UID
                                                      : call;
    }
    play_begin(p, cpu, call, t->x);
    next = trap(p, cpu, t);
    if (next == HYP_NEXT_HOST)
        play_done(p, OUT_EXIT);
    else
        play_done(p,
                  (int64_t)hyp_guest_regs(p->el2->hyp, cpu)->x[0] == SMCCC_RET_INVALID_PARAMETER ? OUT_EINVAL : OUT_OK);
}

static void guest_call(struct player *p, unsigned cpu)
{
    static const uint64_t ids[] = {SMCCC_MEM_SHARE,      SMCCC_MEM_SHARE,           SMCCC_MEM_SHARE,
                                   SMCCC_MEM_UNSHARE,    SMCCC_MEM_UNSHARE,         SMCCC_HYP_MEMINFO,
                                   SMCCC_VENDOR_HYP_UID, SMCCC_VENDOR_HYP_FEATURES, PSCI_SYSTEM_OFF};
    const struct hyp_vm *vm = vcpu_on(p, cpu)->vm;
    struct hyp_trap t = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT, .x = {ids[play_draw(p, sizeof(ids) / sizeof(ids[0]))]}};
    const struct hyp_guest_regs *regs = hyp_guest_regs(p->el2->hyp, cpu);

    if (regs->replay && !play_one_in(p, 8)) {
        for (unsigned i = 0; i < 4; i++)
            t.x[i] = regs->x[i];
    } else if (t.x[0] != SMCCC_HYP_MEMINFO || play_one_in(p, 2)) {
        t.x[1] = play_used_gfn(p, vm) << HYP_PAGE_SHIFT | 8 * play_one_in(p, 30);
        /* What is shared is what can be taken back. */
        for (unsigned i = 0; t.x[0] == SMCCC_MEM_UNSHARE && i < 16 && !play_one_in(p, 8); i++) {
            if (guest_state(p, vm, t.x[1] >> HYP_PAGE_SHIFT) == PKVM_PAGE_SHARED_OWNED)
                break;
            t.x[1] = play_used_gfn(p, vm) << HYP_PAGE_SHIFT;
        }
        t.x[2] = play_one_in(p, 30);
        t.x[3] = play_one_in(p, 30);
    }
    if (vm->is_protected && (t.x[0] == SMCCC_MEM_SHARE || t.x[0] == SMCCC_MEM_UNSHARE))
        mem_call(p, cpu, &t, t.x[0] == SMCCC_MEM_SHARE);
    else
        other_call(p, cpu, &t);
}

static void guest_abort(struct player *p, unsigned cpu)
{
    uint64_t ipa = (play_draw(p, 2) ? play_gfn(p) : play_used_gfn(p, vcpu_on(p, cpu)->vm)) << HYP_PAGE_SHIFT;
    struct hyp_trap t = {.esr = ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_FSC_TRANS_L(3), .far = ipa};

    if (play_one_in(p, 4))
        t.esr = (play_draw(p, 2) ? ESR_EC_IABT_LOW : ESR_EC_DABT_CUR) << ESR_EC_SHIFT |
                (play_draw(p, 2) ? ESR_FSC_TRANS_L(play_draw(p, 4)) : ESR_FSC_PERM_L(play_draw(p, 4)));
    if (play_draw(p, 2))
        t.esr |= ESR_WNR;
    t.hpfar = HPFAR_FROM_IPA(ipa);
    play_begin(p, cpu, PLAY_guest_abort, (const uint64_t[4]){ipa, t.esr});
    assert_int_equal(trap(p, cpu, &t), HYP_NEXT_HOST);
    play_done(p, OUT_EXIT);
    /* What the host asks when it has a page there already. */
    if (play_draw(p, 2))
        play_host_call(p, cpu, HVC_vcpu_in_poison_fault, 0, 0, 0, 0);
}

void play_trap(struct player *p, unsigned cpu)
{
    if (play_one_in(p, 4))
        guest_abort(p, cpu);
    else
        guest_call(p, cpu);
}

void play_guest_ends(struct player *p, unsigned cpu)
{
    const struct hyp_trap t = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT, .x = {PSCI_SYSTEM_OFF}};

    other_call(p, cpu, &t);
    assert_false(p->in_guest[cpu]);
}
