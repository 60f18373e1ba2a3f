/* SPDX-License-Identifier: BSD-2-Clause */
/* Guests that are not protected: shared pages and blocks, counts, attributes, and calls that all go to the host. */
#include "tests/unit/el2_harness.h"

#define GFN UINT64_C(0x40000) /* aligned to 2 MiB */

struct fixture {
    struct el2 *el2;
    struct el2_vm vm[2];
};

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.el2 = el2_new(NULL)};
    for (unsigned i = 0; i < 2; i++) {
        el2_vm_new(f.el2, &f.vm[i], false, HYP_UNSHARE_CONSENT, 1);
        el2_topup(f.el2, &f.vm[i], 0, 6);
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

static int64_t share(struct fixture *f, unsigned vm, uint64_t pfn, uint64_t gfn, uint64_t nr, uint64_t prot)
{
    int64_t ret;

    EL2_CALL(f->el2, vcpu_load, f->vm[vm].handle, 0);
    ret = EL2_CALL(f->el2, host_share_guest, pfn, gfn, nr, prot);
    EL2_CALL(f->el2, vcpu_put);
    return ret;
}

static int64_t unshare(struct fixture *f, unsigned vm, uint64_t gfn, uint64_t nr)
{
    return EL2_CALL(f->el2, host_unshare_guest, f->vm[vm].handle, gfn, nr);
}

static uint64_t pte(struct fixture *f, unsigned vm, uint64_t gfn)
{
    struct hyp_guest_leaf leaf;

    assert_int_equal(hyp_guest_leaf(f->el2->hyp, (uint32_t)f->vm[vm].handle, gfn, &leaf), 0);
    return leaf.pte;
}

static void assert_host_shares(struct fixture *f, uint64_t pfn, uint32_t count)
{
    el2_assert_page(f->el2, pfn, count ? PKVM_PAGE_SHARED_OWNED : PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, count, 0);
}

static void test_one_page_in_two_guests(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = el2_frames(f->el2, 1, 1);

    assert_int_equal(share(f, 0, pfn, GFN, 1, HYP_PROT_RWX), 0);
    assert_int_equal(share(f, 0, pfn, GFN + 9, 1, HYP_PROT_R), 0);
    assert_int_equal(share(f, 1, pfn, GFN, 1, HYP_PROT_RWX), 0);
    assert_host_shares(f, pfn, 3);
    assert_int_equal(EL2_CALL(f->el2, host_share_hyp, pfn), -HYP_EPERM);
    assert_int_equal(el2_abort(f->el2, 0, pfn << 12, true), HYP_ABORT_RETRY);
    f->el2->nr_tlbi = 0;
    assert_int_equal(unshare(f, 0, GFN, 1), 0);
    assert_true(el2_flushed(f->el2, 1, GFN << 12));
    assert_int_equal(unshare(f, 1, GFN, 1), 0);
    assert_host_shares(f, pfn, 1);
    assert_int_equal(unshare(f, 0, GFN + 9, 1), 0);
    assert_host_shares(f, pfn, 0);
}

static void test_block(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = el2_frames(f->el2, 512, 512);
    struct hyp_guest_leaf leaf;

    /* Page k of n is bad: no count has changed. */
    assert_int_equal(EL2_CALL(f->el2, host_share_hyp, pfn + 511), 0);
    assert_int_equal(share(f, 0, pfn, GFN, 512, HYP_PROT_RWX), -HYP_EPERM);
    assert_host_shares(f, pfn, 0);
    assert_int_equal(EL2_CALL(f->el2, host_unshare_hyp, pfn + 511), 0);

    assert_int_equal(share(f, 0, pfn, GFN, 512, HYP_PROT_RWX), 0);
    assert_int_equal(hyp_guest_leaf(f->el2->hyp, (uint32_t)f->vm[0].handle, GFN + 77, &leaf), 0);
    assert_int_equal(leaf.level, 2);
    assert_int_equal(leaf.state, PKVM_PAGE_SHARED_BORROWED);
    assert_int_equal(leaf.pfn, pfn + 77);
    assert_host_shares(f, pfn + 511, 1);
    /* One of its pages again, elsewhere. */
    assert_int_equal(share(f, 1, pfn + 3, GFN, 1, HYP_PROT_RWX), 0);
    assert_host_shares(f, pfn + 3, 2);
    assert_int_equal(unshare(f, 0, GFN, 1), -HYP_E2BIG);
    assert_int_equal(unshare(f, 0, GFN + 3, 1), -HYP_E2BIG);
    f->el2->nr_tlbi = 0;
    assert_int_equal(unshare(f, 0, GFN, 512), 0);
    assert_true(el2_flushed(f->el2, 1, (GFN + 511) << 12));
    assert_host_shares(f, pfn, 0);
    assert_host_shares(f, pfn + 3, 1);
    assert_int_equal(unshare(f, 1, GFN, 1), 0);
}

static void test_count_is_full(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = el2_frames(f->el2, 1, 1);

    assert_int_equal(share(f, 0, pfn, GFN, 1, HYP_PROT_RWX), 0);
    f->el2->check = false;
    f->el2->inner_calls = true;
    hyp_page(f->el2->hyp, pfn)->host_share_guest_count = UINT32_MAX;
    assert_int_equal(share(f, 1, pfn, GFN, 1, HYP_PROT_RWX), -HYP_EBUSY);
    hyp_page(f->el2->hyp, pfn)->host_share_guest_count = 0;
    assert_int_equal(unshare(f, 0, GFN, 1), -HYP_EINVAL);
    hyp_page(f->el2->hyp, pfn)->host_share_guest_count = 1;
    el2_check(f->el2);
}

/* The memcache is the last check, and comes before the first count. */
static void test_too_few_tables(void **state)
{
    struct fixture *f = *state;
    struct hyp_memcache *mc = &el2_host_vcpu(f->el2, &f->vm[0], 0)->pkvm_memcache;
    uint64_t pfn = el2_frames(f->el2, 1, 1), shared = el2_shared_page(f->el2) >> 12;

    mc->nr_pages = 1;
    assert_int_equal(share(f, 0, shared, GFN, 1, HYP_PROT_RWX), -HYP_EPERM);
    assert_int_equal(share(f, 0, pfn, GFN, 1, HYP_PROT_RWX), -HYP_ENOMEM);
    assert_host_shares(f, pfn, 0);
    mc->nr_pages = hyp_s2_min_pages(EL2_IPA_BITS);
    assert_int_equal(share(f, 0, pfn, GFN, 1, HYP_PROT_RWX), 0);
    assert_host_shares(f, pfn, 1);
}

static void test_attributes(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = el2_frames(f->el2, 1, 1), handle = f->vm[0].handle;

    assert_int_equal(share(f, 0, pfn, GFN, 1, HYP_PROT_R), 0);
    assert_int_equal(pte(f, 0, GFN) & S2_PTE_PERM_MASK, S2_PTE_R | S2_PTE_XN);
    EL2_CALL(f->el2, vcpu_load, handle, 0);
    f->el2->nr_tlbi = 0;
    assert_int_equal(EL2_CALL(f->el2, relax_perms_guest, GFN, HYP_PROT_R | HYP_PROT_W), 0);
    assert_true(el2_flushed(f->el2, 1, GFN << 12));
    assert_int_equal(pte(f, 0, GFN) & S2_PTE_PERM_MASK, S2_PTE_R | S2_PTE_W | S2_PTE_XN);
    assert_int_equal(EL2_CALL(f->el2, relax_perms_guest, GFN, HYP_PROT_X), 0);
    assert_int_equal(pte(f, 0, GFN) & S2_PTE_PERM_MASK, S2_PTE_R | S2_PTE_W);

    /* The host batches: no flush until it asks for one. */
    f->el2->nr_tlbi = 0;
    assert_int_equal(EL2_CALL(f->el2, wrprotect_guest, handle, GFN, 512), 0);
    assert_int_equal(pte(f, 0, GFN) & S2_PTE_PERM_MASK, S2_PTE_R);
    assert_int_equal(EL2_CALL(f->el2, test_clear_young_guest, handle, GFN, 512, 0), 1);
    assert_int_equal(EL2_CALL(f->el2, test_clear_young_guest, handle, GFN, 1, 1), 1);
    assert_int_equal(EL2_CALL(f->el2, test_clear_young_guest, handle, GFN, 1, 1), 0);
    assert_int_equal(pte(f, 0, GFN) & S2_PTE_AF, 0);
    assert_int_equal(EL2_CALL(f->el2, mkyoung_guest, GFN), 0);
    assert_int_equal(EL2_CALL(f->el2, test_clear_young_guest, handle, GFN, 1, 1), 1);
    assert_int_equal(EL2_CALL(f->el2, relax_perms_guest, GFN, 0), 0);
    assert_int_equal(EL2_CALL(f->el2, test_clear_young_guest, handle, GFN, 1, 0), 1);
    assert_int_equal(f->el2->nr_tlbi, 1);
    assert_int_equal(s2_guest_state(pte(f, 0, GFN)), PKVM_PAGE_SHARED_BORROWED);
}

static void test_calls_go_to_the_host(void **state)
{
    struct fixture *f = *state;
    static const uint64_t ids[] = {SMCCC_VENDOR_HYP_UID, SMCCC_HYP_MEMINFO, SMCCC_MEM_SHARE, SMCCC_MEM_UNSHARE};

    EL2_CALL(f->el2, vcpu_load, f->vm[0].handle, 0);
    for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        el2_enter(f->el2, &f->vm[0], 0);
        assert_int_equal(el2_guest_hvc(f->el2, ids[i], GFN << 12, 0, 0), HYP_NEXT_HOST);
        el2_host_vcpu(f->el2, &f->vm[0], 0)->x[0] = (uint64_t)SMCCC_RET_NOT_SUPPORTED;
        assert_int_equal((int64_t)el2_enter(f->el2, &f->vm[0], 0)->x[0], SMCCC_RET_NOT_SUPPORTED);
    }
}

/* The results of a call are x0..x3: KVM answers the UID call, for one, with four words. */
static void test_host_answers_with_four_registers(void **state)
{
    struct fixture *f = *state;
    struct kvm_host_vcpu *host = el2_host_vcpu(f->el2, &f->vm[0], 0);
    const struct hyp_guest_regs *regs;

    EL2_CALL(f->el2, vcpu_load, f->vm[0].handle, 0);
    el2_enter(f->el2, &f->vm[0], 0);
    assert_int_equal(el2_guest_hvc(f->el2, SMCCC_VENDOR_HYP_UID, 1, 2, 3), HYP_NEXT_HOST);
    for (unsigned i = 0; i < 4; i++)
        host->x[i] = 100 + i;
    regs = el2_enter(f->el2, &f->vm[0], 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(regs->x[i], 100 + i);
    /* A host that writes x0 alone leaves the others to the guest. */
    assert_int_equal(el2_guest_hvc(f->el2, PSCI_SYSTEM_OFF, 5, 6, 7), HYP_NEXT_HOST);
    host->x[0] = 42;
    regs = el2_enter(f->el2, &f->vm[0], 0);
    assert_int_equal(regs->x[0], 42);
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(regs->x[i], 4 + i);
}

static void test_teardown(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = el2_frames(f->el2, 1, 1), block = el2_frames(f->el2, 512, 512);

    assert_int_equal(share(f, 0, pfn, GFN, 1, HYP_PROT_RWX), 0);
    assert_int_equal(share(f, 0, block, GFN + 512, 512, HYP_PROT_RWX), 0);
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->vm[0].handle), 0);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm[0].handle), -HYP_EBUSY);
    /* Not this call's pages. */
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm[0].handle, GFN), -HYP_EPERM);
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm[0].handle, GFN + 512 + 3), -HYP_E2BIG);
    /* On a dying VM, without a vcpu. */
    assert_int_equal(unshare(f, 0, GFN, 1), 0);
    assert_int_equal(unshare(f, 0, GFN + 512, 512), 0);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm[0].handle), 0);
    assert_int_equal(EL2_CALL(f->el2, host_share_hyp, pfn), 0);
    assert_int_equal(el2_vm_destroy(f->el2, &f->vm[1]), 1 + 1 + hyp_s2_pgd_pages(EL2_IPA_BITS));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_one_page_in_two_guests),
        TEST(test_block),
        TEST(test_count_is_full),
        TEST(test_too_few_tables),
        TEST(test_attributes),
        TEST(test_calls_go_to_the_host),
        TEST(test_host_answers_with_four_registers),
        TEST(test_teardown),
    };

    return cmocka_run_group_tests_name("el2_np", tests, NULL, NULL);
}
