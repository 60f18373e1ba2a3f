/* SPDX-License-Identifier: BSD-2-Clause */
/* A protected VM from reserve to finalize by hypercalls and guest traps alone, and the guest's own calls. */
#include "tests/unit/el2_harness.h"

#include <string.h>

#define GFN UINT64_C(0x40000)
#define IPA (GFN << HYP_PAGE_SHIFT)
#define INVALID ((uint64_t)SMCCC_RET_INVALID_PARAMETER)

struct fixture {
    struct el2 *el2;
    struct el2_vm vm;
};

static int set_up_mode(void **state, enum hyp_unshare_mode mode)
{
    static struct fixture f;

    f = (struct fixture){.el2 = el2_new(NULL)};
    el2_vm_new(f.el2, &f.vm, true, mode, 2);
    EL2_CALL(f.el2, vcpu_load, f.vm.handle, 0);
    el2_topup(f.el2, &f.vm, 0, 3);
    *state = &f;
    return 0;
}

static int set_up(void **state)
{
    return set_up_mode(state, HYP_UNSHARE_CONSENT);
}

static int set_up_unilateral(void **state)
{
    return set_up_mode(state, HYP_UNSHARE_UNILATERAL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

static uint64_t donate(struct fixture *f, uint64_t gfn)
{
    uint64_t pfn = el2_frames(f->el2, 1, 1);

    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, pfn, gfn), 0);
    return pfn;
}

static void assert_exit(struct fixture *f, uint64_t ec, uint64_t x0, uint64_t x1)
{
    const struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm, 0);

    assert_int_equal(ESR_EC(host->esr), ec);
    assert_int_equal(host->x[0], x0);
    assert_int_equal(host->x[1], x1);
}

static void assert_answer(struct fixture *f, uint64_t x0)
{
    const struct hyp_guest_regs *regs = hyp_guest_regs(f->el2->hyp, 0);

    assert_false(regs->replay);
    assert_int_equal(regs->x[0], x0);
    assert_int_equal(regs->x[1] | regs->x[2] | regs->x[3], 0);
}

static void enter(struct fixture *f)
{
    el2_enter(f->el2, &f->vm, 0);
}

static uint64_t put_and_destroy(struct fixture *f)
{
    EL2_CALL(f->el2, vcpu_put);
    return el2_vm_destroy(f->el2, &f->vm);
}

/* Everything that EL2 got for the VM is back; only its own pool is not the host's. */
static void assert_pristine(struct el2 *el2)
{
    for (uint64_t i = el2->pool_nr; i < el2->nr_frames; i++) {
        static const struct hyp_page zero;

        assert_memory_equal(&el2->vmemmap[i], &zero, sizeof(zero));
    }
}

static void test_whole_life(void **state)
{
    struct fixture *f = *state;
    struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm, 0);
    struct hyp_frame_info info;
    struct hyp_vttbr vttbr;
    uint64_t pfn, owned;

    assert_int_equal(hyp_vm_vttbr(f->el2->hyp, (uint32_t)f->vm.handle, &vttbr), 0);
    assert_int_equal(vttbr.pgd, f->vm.pgd);
    assert_int_equal(hyp_vmid_handle(f->el2->hyp, vttbr.vmid), f->vm.handle);

    /* A first touch: abort, donation, and the host's bytes are there. */
    enter(f);
    assert_int_equal(el2_guest_abort(f->el2, IPA, true), HYP_NEXT_HOST);
    assert_int_equal(host->hpfar, HPFAR_FROM_IPA(IPA));
    assert_int_equal(host->far, IPA | 0x123);
    assert_int_equal(host->esr & ESR_FSC_MASK, ESR_FSC_TRANS_L(3));
    f->el2->nr_tlbi = 0;
    pfn = donate(f, GFN);
    assert_true(el2_flushed(f->el2, 0, pfn << 12));
    assert_int_equal(*(uint8_t *)el2_virt(f->el2, pfn << 12), 0xa5);
    el2_assert_page(f->el2, pfn, PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE, 0, 0);
    assert_int_equal(hyp_frame_info(f->el2->hyp, pfn, &info), 0);
    assert_int_equal(info.owner, HYP_OWNER_GUEST);
    assert_int_equal(info.handle, f->vm.handle);
    assert_int_equal(info.gfn, GFN);
    assert_int_equal(el2_abort(f->el2, 0, pfn << 12, false), HYP_ABORT_INJECT);

    /* Shared: the host gets in; the exit tells it, but cannot change the answer. */
    enter(f);
    f->el2->nr_tlbi = 0;
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_SHARE, IPA, 0, 0), HYP_NEXT_HOST);
    assert_exit(f, ESR_EC_HVC64, SMCCC_MEM_SHARE, IPA);
    assert_true(el2_flushed(f->el2, 0, pfn << 12));
    el2_assert_page(f->el2, pfn, PKVM_PAGE_SHARED_BORROWED, PKVM_PAGE_NOPAGE, 0, 0);
    assert_int_equal(el2_abort(f->el2, 0, pfn << 12, true), HYP_ABORT_RETRY);
    assert_int_equal(hyp_frame_info(f->el2->hyp, pfn, &info), 0);
    assert_int_equal(info.owner, HYP_OWNER_GUEST);
    assert_int_equal(info.handle, 0);
    host->x[0] = 1;
    enter(f);
    assert_answer(f, 0);
    /* Not idempotent. */
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_SHARE, IPA, 0, 0), HYP_NEXT_GUEST);
    assert_answer(f, INVALID);
    el2_fill(f->el2, pfn << 12, 0x77);

    /* A shared page is not zeroed when it goes back, an owned one is. */
    EL2_CALL(f->el2, vcpu_put);
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm.handle, GFN), -HYP_EINVAL);
    EL2_CALL(f->el2, vcpu_load, f->vm.handle, 0);
    el2_topup(f->el2, &f->vm, 0, 2);
    owned = donate(f, GFN + 1);
    EL2_CALL(f->el2, vcpu_put);
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->vm.handle), 0);
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->vm.handle), -HYP_EINVAL);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm.handle), -HYP_EBUSY);
    f->el2->nr_tlbi = 0;
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm.handle, GFN), 0);
    assert_true(el2_flushed(f->el2, vttbr.vmid, IPA));
    assert_true(el2_flushed(f->el2, 0, pfn << 12));
    assert_int_equal(*(uint8_t *)el2_virt(f->el2, pfn << 12), 0x77);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm.handle), -HYP_EBUSY);
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm.handle, GFN + 1), 0);
    assert_true(el2_is_zero(f->el2, owned << 12));
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm.handle, GFN + 1), -HYP_ENOENT);
}

static void test_everything_comes_back(void **state)
{
    struct fixture *f = *state;
    struct hyp_memcache *left = &el2_host_vcpu(f->el2, &f->vm, 0)->pkvm_memcache;
    uint64_t pfn = donate(f, GFN);

    assert_int_equal(left->nr_pages, 0);
    assert_int_equal(EL2_CALL(f->el2, force_reclaim_guest_page, pfn << 12), 0);
    /* VM, two vcpus, PGD, and the three pages of the memcache, two of which are tables. */
    assert_int_equal(put_and_destroy(f), 1 + 2 + hyp_s2_pgd_pages(EL2_IPA_BITS) + 3);
    assert_pristine(f->el2);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm.handle), -HYP_EINVAL);
    /* The slot is free again. */
    assert_int_equal(EL2_CALL(f->el2, reserve_vm), f->vm.handle);
    EL2_CALL(f->el2, unreserve_vm, f->vm.handle);
    assert_int_equal(EL2_CALL(f->el2, reserve_vm), f->vm.handle);
}

static void test_share_of_unmapped_ipa(void **state)
{
    struct fixture *f = *state;
    const struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm, 0);
    const struct hyp_guest_regs *regs;

    enter(f);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_SHARE, IPA, 0, 0), HYP_NEXT_HOST);
    assert_exit(f, ESR_EC_DABT_LOW, 0, 0);
    assert_int_equal(host->esr, ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_WNR | ESR_FSC_TRANS_L(3));
    assert_int_equal(host->hpfar, HPFAR_FROM_IPA(IPA));
    assert_int_equal(EL2_CALL(f->el2, vcpu_in_poison_fault), -HYP_EINVAL);
    donate(f, GFN);
    regs = el2_enter(f->el2, &f->vm, 0);
    assert_true(regs->replay);
    assert_int_equal(regs->x[0], SMCCC_MEM_SHARE);
    assert_int_equal(regs->x[1], IPA);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_SHARE, IPA, 0, 0), HYP_NEXT_HOST);
    enter(f);
    assert_answer(f, 0);
    assert_int_equal(el2_guest_state(f->el2, &f->vm, GFN), PKVM_PAGE_SHARED_OWNED);
}

static void share(struct fixture *f)
{
    enter(f);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_SHARE, IPA, 0, 0), HYP_NEXT_HOST);
    enter(f);
    assert_answer(f, 0);
}

static void test_unshare_by_consent(void **state)
{
    struct fixture *f = *state;
    struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm, 0);
    uint64_t pfn = donate(f, GFN);

    enter(f);
    /* Not shared: no exit. */
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA, 0, 0), HYP_NEXT_GUEST);
    assert_answer(f, INVALID);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA + HYP_PAGE_SIZE, 0, 0), HYP_NEXT_GUEST);
    assert_answer(f, INVALID);
    share(f);
    el2_fill(f->el2, pfn << 12, 0x5c);

    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA, 0, 0), HYP_NEXT_HOST);
    assert_exit(f, ESR_EC_HVC64, SMCCC_MEM_UNSHARE, IPA);
    el2_assert_page(f->el2, pfn, PKVM_PAGE_SHARED_BORROWED, PKVM_PAGE_NOPAGE, 0, 0);
    host->x[0] = (uint64_t)-HYP_EAGAIN;
    enter(f);
    assert_answer(f, INVALID);
    el2_assert_page(f->el2, pfn, PKVM_PAGE_SHARED_BORROWED, PKVM_PAGE_NOPAGE, 0, 0);

    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA, 0, 0), HYP_NEXT_HOST);
    host->x[0] = 0;
    host->x[1] = 0; /* what the host writes here means nothing */
    f->el2->nr_tlbi = 0;
    enter(f);
    assert_answer(f, 0);
    assert_true(el2_flushed(f->el2, 0, pfn << 12));
    el2_assert_page(f->el2, pfn, PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE, 0, 0);
    assert_int_equal(el2_guest_state(f->el2, &f->vm, GFN), PKVM_PAGE_OWNED);
    assert_int_equal(*(uint8_t *)el2_virt(f->el2, pfn << 12), 0x5c);
}

/* Consent counts once: a second run without a new call does nothing. */
static void test_consent_is_used_up(void **state)
{
    struct fixture *f = *state;
    struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm, 0);

    donate(f, GFN);
    share(f);
    /* Shared too: after the answer the registers, zeroes, name this page. */
    el2_topup(f->el2, &f->vm, 0, 3);
    donate(f, 0);
    assert_int_equal(el2_inner(f->el2, ORACLE_GUEST_SHARE, f->vm.handle, 0), 0);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA, 0, 0), HYP_NEXT_HOST);
    host->x[0] = 1;
    /* The vcpu may move in between. */
    EL2_CALL(f->el2, vcpu_put);
    EL2_CALL(f->el2, vcpu_load, f->vm.handle, 0);
    enter(f);
    host->x[0] = 0;
    enter(f);
    assert_answer(f, INVALID);
    assert_int_equal(el2_guest_state(f->el2, &f->vm, GFN), PKVM_PAGE_SHARED_OWNED);
    assert_int_equal(el2_guest_state(f->el2, &f->vm, 0), PKVM_PAGE_SHARED_OWNED);
}

/* Whoever does not answer does not consent; and what happened to the page in between counts. */
static void test_consent_is_not_enough(void **state)
{
    struct fixture *f = *state;
    struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm, 0);

    donate(f, GFN);
    share(f);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA, 0, 0), HYP_NEXT_HOST);
    enter(f);
    assert_answer(f, INVALID);
    assert_int_equal(el2_guest_state(f->el2, &f->vm, GFN), PKVM_PAGE_SHARED_OWNED);

    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA, 0, 0), HYP_NEXT_HOST);
    assert_int_equal(el2_inner(f->el2, ORACLE_GUEST_UNSHARE, f->vm.handle, GFN), 0);
    host->x[0] = 0;
    enter(f);
    assert_answer(f, INVALID);
}

static void test_unshare_unilateral(void **state)
{
    struct fixture *f = *state;
    struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm, 0);
    uint64_t pfn = donate(f, GFN);

    share(f);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA, 0, 0), HYP_NEXT_HOST);
    assert_exit(f, ESR_EC_HVC64, SMCCC_MEM_UNSHARE, IPA);
    el2_assert_page(f->el2, pfn, PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE, 0, 0);
    host->x[0] = 1;
    enter(f);
    assert_answer(f, 0);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_UNSHARE, IPA, 0, 0), HYP_NEXT_GUEST);
    assert_answer(f, INVALID);
}

static void test_answers_without_exit(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint64_t x[4], answer;
    } cases[] = {
        {{SMCCC_VENDOR_HYP_FEATURES}, 0x1d},
        {{SMCCC_HYP_MEMINFO}, HYP_PAGE_SIZE},
        {{SMCCC_HYP_MEMINFO | UINT64_MAX << 32}, HYP_PAGE_SIZE}, /* the function id is W0 */
        {{SMCCC_HYP_MEMINFO, 1}, INVALID},
        {{SMCCC_HYP_MEMINFO, 0, 1}, INVALID},
        {{SMCCC_HYP_MEMINFO, 0, 0, 1}, INVALID},
        {{SMCCC_MEM_SHARE, IPA + 1}, INVALID},
        {{SMCCC_MEM_SHARE, IPA, 1}, INVALID},
        {{SMCCC_MEM_SHARE, IPA, 0, 1}, INVALID},
        {{SMCCC_MEM_SHARE, UINT64_C(1) << EL2_IPA_BITS}, INVALID},
        {{SMCCC_MEM_UNSHARE, IPA + 8}, INVALID},
        {{SMCCC_MEM_UNSHARE, IPA, 1}, INVALID},
        {{SMCCC_MEM_UNSHARE, IPA, 0, 1}, INVALID},
        {{SMCCC_MEM_UNSHARE, UINT64_MAX & ~UINT64_C(0xfff)}, INVALID},
    };

    enter(f);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const uint64_t *x = cases[i].x;

        assert_int_equal(el2_guest_hvc(f->el2, x[0], x[1], x[2], x[3]), HYP_NEXT_GUEST);
        assert_answer(f, cases[i].answer);
    }
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_VENDOR_HYP_UID, 0, 0, 0), HYP_NEXT_GUEST);
    assert_memory_equal(
        hyp_guest_regs(f->el2->hyp, 0)->x,
        ((const uint64_t[4]){UINT64_C(0xb66fb428), UINT64_C(0xe911c52e), UINT64_C(0x564bcaa9), UINT64_C(0x743a004d)}),
        sizeof(uint64_t[4]));
}

static void test_other_calls_go_to_the_host(void **state)
{
    struct fixture *f = *state;
    struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm, 0);
    static const uint64_t ids[] = {PSCI_SYSTEM_OFF, UINT64_C(0xC6000007), UINT64_C(0x80000000), 0, UINT64_MAX};

    for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        const struct hyp_guest_regs *regs;

        enter(f);
        assert_int_equal(el2_guest_hvc(f->el2, ids[i], 11, 12, 13), HYP_NEXT_HOST);
        assert_exit(f, ESR_EC_HVC64, (uint32_t)ids[i], 11);
        assert_int_equal(host->x[2], 12);
        assert_int_equal(host->x[3], 13);
        host->x[0] = 4711;
        regs = el2_enter(f->el2, &f->vm, 0);
        assert_int_equal(regs->x[0], 4711);
        assert_int_equal(regs->x[1], 11);
        /* One answer a call. */
        host->x[0] = 4712;
        assert_int_equal(el2_enter(f->el2, &f->vm, 0)->x[0], 4711);
    }
}

/* A trap with this syndrome, and what vcpu_in_poison_fault makes of it. */
static int64_t poison_fault(struct fixture *f, uint64_t ec, uint64_t fsc, uint64_t ipa)
{
    const struct hyp_trap trap = {.esr = ec << ESR_EC_SHIFT | fsc, .hpfar = HPFAR_FROM_IPA(ipa)};
    uint64_t regs[8];

    enter(f);
    assert_int_equal(el2_trap(f->el2, 0, &trap, regs), HYP_NEXT_HOST);
    return EL2_CALL(f->el2, vcpu_in_poison_fault);
}

static void test_poison(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = donate(f, GFN);
    struct hyp_vttbr vttbr;

    hyp_vm_vttbr(f->el2->hyp, (uint32_t)f->vm.handle, &vttbr);
    el2_fill(f->el2, pfn << 12, 0x42);
    f->el2->nr_tlbi = 0;
    f->el2->nr_yields = 0;
    assert_int_equal(EL2_CALL(f->el2, force_reclaim_guest_page, (pfn << 12) + 99), 0);
    assert_int_equal(f->el2->nr_yields, 1);
    assert_true(el2_is_zero(f->el2, pfn << 12));
    assert_true(el2_flushed(f->el2, vttbr.vmid, IPA));
    assert_true(el2_flushed(f->el2, 0, pfn << 12));
    el2_assert_page(f->el2, pfn, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, 0, 0);
    assert_int_equal(el2_abort(f->el2, 0, pfn << 12, true), HYP_ABORT_RETRY);

    enter(f);
    assert_int_equal(el2_guest_abort(f->el2, IPA, false), HYP_NEXT_HOST);
    assert_int_equal(EL2_CALL(f->el2, vcpu_in_poison_fault), 1);
    /* The host's copy of the fault is not what counts. */
    el2_host_vcpu(f->el2, &f->vm, 0)->hpfar = HPFAR_FROM_IPA(IPA + HYP_PAGE_SIZE);
    assert_int_equal(EL2_CALL(f->el2, vcpu_in_poison_fault), 1);
    enter(f);
    assert_int_equal(el2_guest_abort(f->el2, IPA + HYP_PAGE_SIZE, false), HYP_NEXT_HOST);
    assert_int_equal(EL2_CALL(f->el2, vcpu_in_poison_fault), 0);
    enter(f);
    assert_int_equal(el2_guest_abort(f->el2, 0, false), HYP_NEXT_HOST);
    assert_int_equal(EL2_CALL(f->el2, vcpu_in_poison_fault), -HYP_EINVAL);
    assert_int_equal(poison_fault(f, ESR_EC_IABT_LOW, ESR_FSC_TRANS_L(3), IPA), 1);
    assert_int_equal(poison_fault(f, ESR_EC_IABT_LOW, ESR_FSC_TRANS_L(0), IPA), 1);
    assert_int_equal(poison_fault(f, ESR_EC_DABT_CUR, ESR_FSC_TRANS_L(3), IPA), -HYP_EINVAL);
    assert_int_equal(poison_fault(f, ESR_EC_DABT_LOW, ESR_FSC_PERM_L(3), IPA), -HYP_EINVAL);
    assert_int_equal(poison_fault(f, ESR_EC_DABT_LOW, ESR_FSC_TRANS_L(0) - 1, IPA), -HYP_EINVAL);
    assert_int_equal(poison_fault(f, ESR_EC_DABT_LOW, ESR_FSC_TRANS_L(3), UINT64_C(1) << EL2_IPA_BITS), -HYP_ERANGE);
    enter(f);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_MEM_SHARE, IPA, 0, 0), HYP_NEXT_GUEST);
    assert_answer(f, INVALID);
    assert_int_equal(el2_guest_hvc(f->el2, PSCI_SYSTEM_OFF, 0, 0, 0), HYP_NEXT_HOST);
    assert_int_equal(EL2_CALL(f->el2, vcpu_in_poison_fault), -HYP_EINVAL);

    /* The IPA is dead, the frame is not. */
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, pfn, GFN), -HYP_EPERM);
    el2_topup(f->el2, &f->vm, 0, 2);
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, pfn, GFN + 1), 0);
    EL2_CALL(f->el2, vcpu_put);
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->vm.handle), 0);
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm.handle, GFN), 0);
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm.handle, GFN + 1), 0);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm.handle), 0);
}

static void test_loading(void **state)
{
    struct fixture *f = *state;
    struct el2 *el2 = f->el2;

    /* vcpu 0 is loaded on CPU 0. */
    assert_int_equal(el2_call(el2, 1, HVC_vcpu_run, f->vm.host_vcpu[0], 0, 0, 0), -HYP_EINVAL);
    el2_call(el2, 1, HVC_vcpu_load, f->vm.handle, 0, 0, 0);
    assert_null(hyp_guest_regs(el2->hyp, 1));
    el2_call(el2, 1, HVC_vcpu_load, f->vm.handle, 2, 0, 0);
    assert_null(hyp_guest_regs(el2->hyp, 1));
    el2_call(el2, 1, HVC_vcpu_load, f->vm.handle + 1, 1, 0, 0);
    assert_null(hyp_guest_regs(el2->hyp, 1));
    el2_call(el2, 1, HVC_vcpu_load, f->vm.handle, 1, 0, 0);
    assert_non_null(hyp_guest_regs(el2->hyp, 1));
    el2_call(el2, 0, HVC_vcpu_load, f->vm.handle, 1, 0, 0);
    assert_int_equal(EL2_CALL(el2, vcpu_run, f->vm.host_vcpu[1]), -HYP_EINVAL);
    /* A free vcpu does not push the loaded one off its CPU. */
    el2_call(el2, 1, HVC_vcpu_put, 0, 0, 0, 0);
    el2_call(el2, 0, HVC_vcpu_load, f->vm.handle, 1, 0, 0);
    assert_int_equal(EL2_CALL(el2, vcpu_run, f->vm.host_vcpu[1]), -HYP_EINVAL);
    el2_call(el2, 1, HVC_vcpu_load, f->vm.handle, 1, 0, 0);
    assert_non_null(hyp_guest_regs(el2->hyp, 1));
    enter(f);
    assert_int_equal(EL2_CALL(el2, start_teardown_vm, f->vm.handle), -HYP_EINVAL);
    el2_call(el2, 1, HVC_vcpu_put, 0, 0, 0, 0);
    el2_call(el2, 1, HVC_vcpu_put, 0, 0, 0, 0);
    assert_int_equal(EL2_CALL(el2, start_teardown_vm, f->vm.handle), -HYP_EINVAL);
    assert_int_equal(EL2_CALL(el2, finalize_teardown_vm, f->vm.handle), -HYP_EINVAL);
    EL2_CALL(el2, vcpu_put);
    assert_int_equal(EL2_CALL(el2, finalize_teardown_vm, f->vm.handle), -HYP_EINVAL);
    assert_int_equal(EL2_CALL(el2, start_teardown_vm, f->vm.handle), 0);
    EL2_CALL(el2, vcpu_load, f->vm.handle, 0);
    assert_null(hyp_guest_regs(el2->hyp, 0));
    /* A trap without a vcpu. */
    uint64_t regs[8] = {0};
    assert_int_equal(el2_trap(el2, 0, &(struct hyp_trap){0}, regs), HYP_NEXT_HOST);
    assert_int_equal((int64_t)regs[1], -HYP_EINVAL);
}

static void test_tlb_flush_vmid(void **state)
{
    struct fixture *f = *state;

    f->el2->nr_tlbi = 0;
    EL2_CALL(f->el2, tlb_flush_vmid, f->vm.handle + 1);
    assert_int_equal(f->el2->nr_tlbi, 0);
    EL2_CALL(f->el2, tlb_flush_vmid, f->vm.handle);
    assert_int_equal(f->el2->nr_tlbi, 1);
    assert_int_equal(f->el2->tlbi[0].vmid, 1);
    assert_int_equal(f->el2->tlbi[0].nr, 0);
}

/* Upstream lets a VM go that still has pages; the annotation that stays behind would then name whoever gets the handle.
 */
static void test_finalize_keeps_reverse_map(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = donate(f, GFN);

    EL2_CALL(f->el2, vcpu_put);
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->vm.handle), 0);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm.handle), -HYP_EBUSY);
    assert_int_equal(EL2_CALL(f->el2, force_reclaim_guest_page, pfn << 12), 0);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm.handle), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_whole_life),
        TEST(test_everything_comes_back),
        TEST(test_share_of_unmapped_ipa),
        TEST(test_unshare_by_consent),
        TEST(test_consent_is_used_up),
        TEST(test_consent_is_not_enough),
        cmocka_unit_test_setup_teardown(test_unshare_unilateral, set_up_unilateral, tear_down),
        TEST(test_answers_without_exit),
        TEST(test_other_calls_go_to_the_host),
        TEST(test_poison),
        TEST(test_loading),
        TEST(test_tlb_flush_vmid),
        TEST(test_finalize_keeps_reverse_map),
    };

    return cmocka_run_group_tests_name("el2_lifecycle", tests, NULL, NULL);
}
