/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 102 properties of pKVM's ownership selftest: one page, two adjacent IPAs
 * at half of the IPA space.  Each row is one call; the state of the page on all
 * sides is checked after each, so a failing call is also seen to change nothing.
 */
#include "tests/unit/el2_harness.h"

enum op {
    DONATE_HYP,
    HYP_DONATE_HOST,
    SHARE_HYP,
    UNSHARE_HYP,
    SHARE_FFA,
    UNSHARE_FFA,
    PIN,
    UNPIN,
    SHARE_GUEST,
    UNSHARE_GUEST,
    DONATE_GUEST,
    GUEST_SHARE,
    GUEST_UNSHARE,
    FORCE_RECLAIM,
    RECLAIM,
};

struct state {
    enum hyp_page_state host, hyp, guest[2];
    uint32_t count;
    uint16_t pins;
};

#define OWN PKVM_PAGE_OWNED
#define SHR PKVM_PAGE_SHARED_OWNED
#define BOR PKVM_PAGE_SHARED_BORROWED
#define NOP PKVM_PAGE_NOPAGE
#define POI PKVM_PAGE_POISON

enum letter { A, B, C, C_PINNED, C_PINNED_TWICE, D, E, E_BOTH, E_SECOND, F, G, H, H_REUSED, A_DEAD_IPA };

static const struct state states[] = {
    [A] = {NOP, OWN, {NOP, NOP}, 0, 0},
    [B] = {OWN, NOP, {NOP, NOP}, 0, 0},
    [C] = {SHR, BOR, {NOP, NOP}, 0, 0},
    [C_PINNED] = {SHR, BOR, {NOP, NOP}, 0, 1},
    [C_PINNED_TWICE] = {SHR, BOR, {NOP, NOP}, 0, 2},
    [D] = {SHR, NOP, {NOP, NOP}, 0, 0},
    [E] = {SHR, NOP, {BOR, NOP}, 1, 0},
    [E_BOTH] = {SHR, NOP, {BOR, BOR}, 2, 0},
    [E_SECOND] = {SHR, NOP, {NOP, BOR}, 1, 0},
    [F] = {NOP, NOP, {OWN, NOP}, 0, 0},
    [G] = {BOR, NOP, {SHR, NOP}, 0, 0},
    [H] = {OWN, NOP, {POI, NOP}, 0, 0},
    [H_REUSED] = {NOP, NOP, {POI, OWN}, 0, 0},
    [A_DEAD_IPA] = {NOP, OWN, {POI, NOP}, 0, 0},
};

struct row {
    int number;
    enum op op;
    unsigned ipa; /* 0: g0, 1: g1 */
    int errno_;
    enum letter after;
};

/* Properties 62 to 70, which come back after each change of a guest's page. */
#define NOBODY_ELSE(first, letter)                                                                                     \
    {(first), DONATE_GUEST, 0, HYP_EPERM, letter}, {(first) + 1, DONATE_GUEST, 1, HYP_EPERM, letter},                  \
        {(first) + 2, SHARE_GUEST, 0, HYP_EPERM, letter}, {(first) + 3, SHARE_GUEST, 1, HYP_EPERM, letter},            \
        {(first) + 4, SHARE_FFA, 0, HYP_EPERM, letter}, {(first) + 5, DONATE_HYP, 0, HYP_EPERM, letter},               \
        {(first) + 6, SHARE_HYP, 0, HYP_EPERM, letter}, {(first) + 7, UNSHARE_HYP, 0, HYP_EPERM, letter},              \
    {                                                                                                                  \
        (first) + 8, HYP_DONATE_HOST, 0, HYP_EPERM, letter                                                             \
    }

static const struct row rows[] = {
    {1, DONATE_HYP, 0, HYP_EPERM, A},
    {2, SHARE_HYP, 0, HYP_EPERM, A},
    {3, UNSHARE_HYP, 0, HYP_EPERM, A},
    {4, SHARE_FFA, 0, HYP_EPERM, A},
    {5, UNSHARE_FFA, 0, HYP_EPERM, A},
    {6, PIN, 0, HYP_EPERM, A},
    {7, SHARE_GUEST, 0, HYP_EPERM, A},
    {8, UNSHARE_GUEST, 0, HYP_ENOENT, A},
    {9, DONATE_GUEST, 0, HYP_EPERM, A},
    {10, HYP_DONATE_HOST, 0, 0, B},

    {11, HYP_DONATE_HOST, 0, HYP_EPERM, B},
    {12, UNSHARE_HYP, 0, HYP_EPERM, B},
    {13, UNSHARE_FFA, 0, HYP_EPERM, B},
    {14, UNSHARE_GUEST, 0, HYP_ENOENT, B},
    {15, PIN, 0, HYP_EPERM, B},
    {16, SHARE_HYP, 0, 0, C},

    {17, SHARE_HYP, 0, HYP_EPERM, C},
    {18, DONATE_HYP, 0, HYP_EPERM, C},
    {19, SHARE_FFA, 0, HYP_EPERM, C},
    {20, HYP_DONATE_HOST, 0, HYP_EPERM, C},
    {21, SHARE_GUEST, 0, HYP_EPERM, C},
    {22, UNSHARE_GUEST, 0, HYP_ENOENT, C},
    {23, DONATE_GUEST, 0, HYP_EPERM, C},
    {24, PIN, 0, 0, C_PINNED},
    {25, PIN, 0, 0, C_PINNED_TWICE},
    {26, UNPIN, 0, 0, C_PINNED},

    {27, UNSHARE_HYP, 0, HYP_EBUSY, C_PINNED},
    {28, SHARE_HYP, 0, HYP_EPERM, C_PINNED},
    {29, DONATE_HYP, 0, HYP_EPERM, C_PINNED},
    {30, SHARE_FFA, 0, HYP_EPERM, C_PINNED},
    {31, HYP_DONATE_HOST, 0, HYP_EPERM, C_PINNED},
    {32, SHARE_GUEST, 0, HYP_EPERM, C_PINNED},
    {33, UNSHARE_GUEST, 0, HYP_ENOENT, C_PINNED},
    {34, DONATE_GUEST, 0, HYP_EPERM, C_PINNED},
    {35, UNPIN, 0, 0, C},
    {36, UNSHARE_HYP, 0, 0, B},
    {37, SHARE_FFA, 0, 0, D},

    {38, SHARE_FFA, 0, HYP_EPERM, D},
    {39, DONATE_HYP, 0, HYP_EPERM, D},
    {40, SHARE_HYP, 0, HYP_EPERM, D},
    {41, UNSHARE_HYP, 0, HYP_EPERM, D},
    {42, HYP_DONATE_HOST, 0, HYP_EPERM, D},
    {43, SHARE_GUEST, 0, HYP_EPERM, D},
    {44, UNSHARE_GUEST, 0, HYP_ENOENT, D},
    {45, DONATE_GUEST, 0, HYP_EPERM, D},
    {46, PIN, 0, HYP_EPERM, D},
    {47, UNSHARE_FFA, 0, 0, B},
    {48, UNSHARE_FFA, 0, HYP_EPERM, B},
    {49, SHARE_GUEST, 0, 0, E},

    {50, SHARE_GUEST, 0, HYP_EPERM, E},
    {51, SHARE_FFA, 0, HYP_EPERM, E},
    {52, DONATE_HYP, 0, HYP_EPERM, E},
    {53, SHARE_HYP, 0, HYP_EPERM, E},
    {54, UNSHARE_HYP, 0, HYP_EPERM, E},
    {55, HYP_DONATE_HOST, 0, HYP_EPERM, E},
    {56, DONATE_GUEST, 0, HYP_EPERM, E},
    {57, PIN, 0, HYP_EPERM, E},
    {58, SHARE_GUEST, 1, 0, E_BOTH},
    {59, UNSHARE_GUEST, 0, 0, E_SECOND},
    {60, UNSHARE_GUEST, 1, 0, B},
    {61, DONATE_GUEST, 0, 0, F},

    NOBODY_ELSE(62, F),
    {71, GUEST_SHARE, 0, 0, G},
    {72, GUEST_SHARE, 0, HYP_EPERM, G},
    NOBODY_ELSE(73, G),
    {82, GUEST_UNSHARE, 0, 0, F},
    {83, GUEST_UNSHARE, 0, HYP_EPERM, F},
    NOBODY_ELSE(84, F),
    {93, FORCE_RECLAIM, 0, 0, H},

    {94, DONATE_GUEST, 0, HYP_EPERM, H},
    {95, SHARE_GUEST, 0, HYP_EPERM, H},
    {96, GUEST_SHARE, 0, HYP_EHWPOISON, H},
    {97, GUEST_UNSHARE, 0, HYP_EHWPOISON, H},
    {98, DONATE_GUEST, 1, 0, H_REUSED},
    {99, RECLAIM, 1, 0, H},
    {100, DONATE_GUEST, 0, HYP_EPERM, H},
    {101, SHARE_GUEST, 0, HYP_EPERM, H},
    {102, DONATE_HYP, 0, 0, A_DEAD_IPA},
};

struct fixture {
    struct el2 *el2;
    struct el2_vm vm;
    struct hyp_vm *hyp_vm;
    uint64_t pfn, gfn;
};

/* One page of the VM, with the memcache filled and the page in state A. */
static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.el2 = el2_new(NULL)};
    el2_vm_new(f.el2, &f.vm, true, HYP_UNSHARE_CONSENT, 1);
    f.hyp_vm = hyp_vm_find(f.el2->hyp, f.vm.handle);
    el2_topup(f.el2, &f.vm, 0, 4);
    assert_int_equal(hyp_refill_memcache(f.el2->hyp, f.hyp_vm->vcpus[0]), 0);
    f.pfn = el2_frames(f.el2, 1, 1);
    f.gfn = UINT64_C(1) << (EL2_IPA_BITS - 1 - HYP_PAGE_SHIFT);
    assert_int_equal(pkvm_host_donate_hyp(f.el2->hyp, f.pfn, 1), 0);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

static int apply(struct fixture *f, enum op op, unsigned ipa)
{
    struct hyp *hyp = f->el2->hyp;
    struct hyp_vcpu *vcpu = f->hyp_vm->vcpus[0];
    uint64_t gfn = f->gfn + ipa;

    switch (op) {
    case DONATE_HYP:
        return pkvm_host_donate_hyp(hyp, f->pfn, 1);
    case HYP_DONATE_HOST:
        return pkvm_hyp_donate_host(hyp, f->pfn, 1);
    case SHARE_HYP:
        return pkvm_host_share_hyp(hyp, f->pfn);
    case UNSHARE_HYP:
        return pkvm_host_unshare_hyp(hyp, f->pfn);
    case SHARE_FFA:
        return pkvm_host_share_ffa(hyp, f->pfn, 1);
    case UNSHARE_FFA:
        return pkvm_host_unshare_ffa(hyp, f->pfn, 1);
    case PIN:
        return pkvm_pin_shared_mem(hyp, f->pfn, 1);
    case UNPIN:
        pkvm_unpin_shared_mem(hyp, f->pfn, 1);
        return 0;
    case SHARE_GUEST:
        return pkvm_host_share_guest(hyp, vcpu, f->pfn, gfn, 1, HYP_PROT_RWX);
    case UNSHARE_GUEST:
        return pkvm_host_unshare_guest(hyp, f->hyp_vm, gfn, 1);
    case DONATE_GUEST:
        return pkvm_host_donate_guest(hyp, vcpu, f->pfn, gfn);
    case GUEST_SHARE:
        return pkvm_guest_share_host(hyp, f->hyp_vm, gfn);
    case GUEST_UNSHARE:
        return pkvm_guest_unshare_host(hyp, f->hyp_vm, gfn);
    case FORCE_RECLAIM:
        return pkvm_force_reclaim(hyp, f->pfn << HYP_PAGE_SHIFT);
    case RECLAIM:
        return pkvm_reclaim_guest_page(hyp, f->hyp_vm, gfn);
    }
    return -1;
}

static void assert_state(struct fixture *f, const struct row *row)
{
    const struct state *s = &states[row->after];

    el2_assert_page(f->el2, f->pfn, s->host, s->hyp, s->count, s->pins);
    for (unsigned i = 0; i < 2; i++) {
        enum hyp_page_state guest = el2_guest_state(f->el2, &f->vm, f->gfn + i);

        if (guest != s->guest[i])
            fail_msg("property %d: g%u is %s", row->number, i, hyp_page_state_name(guest));
    }
}

static void test_properties(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *row = &rows[i];
        int ret;

        assert_int_equal(row->number, i + 1);
        ret = apply(f, row->op, row->ipa);
        if (ret != -row->errno_)
            fail_msg("property %d: %d instead of %d", row->number, ret, -row->errno_);
        assert_state(f, row);
        /* The inner functions do not care for the kind of VM; the invariants do. */
        f->hyp_vm->is_protected = states[row->after].count == 0;
        el2_check(f->el2);
    }
    assert_int_equal(sizeof(rows) / sizeof(rows[0]), 102);
}

/* What upstream's unshare_ffa would allow: a page that EL2 or a guest borrows becomes OWNED. */
static void test_unshare_ffa_tells_counterparts_apart(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(apply(f, HYP_DONATE_HOST, 0), 0);
    assert_int_equal(apply(f, SHARE_HYP, 0), 0);
    assert_int_equal(apply(f, UNSHARE_FFA, 0), -HYP_EPERM);
    assert_int_equal(apply(f, UNSHARE_HYP, 0), 0);
    assert_int_equal(apply(f, SHARE_GUEST, 0), 0);
    assert_int_equal(apply(f, UNSHARE_FFA, 0), -HYP_EPERM);
    assert_int_equal(apply(f, UNSHARE_GUEST, 0), 0);
    el2_check(f->el2);
}

/* Page k of n is bad: nothing changes. */
static void test_multi_page_donation(void **state)
{
    struct fixture *f = *state;
    struct hyp *hyp = f->el2->hyp;
    uint64_t pfn = el2_frames(f->el2, 4, 1);

    assert_int_equal(pkvm_host_share_hyp(hyp, pfn + 3), 0);
    assert_int_equal(pkvm_host_donate_hyp(hyp, pfn, 4), -HYP_EPERM);
    for (unsigned i = 0; i < 3; i++)
        el2_assert_page(f->el2, pfn + i, OWN, NOP, 0, 0);
    assert_int_equal(pkvm_host_unshare_hyp(hyp, pfn + 3), 0);
    assert_int_equal(pkvm_host_share_ffa(hyp, pfn, 4), 0);
    assert_int_equal(pkvm_host_unshare_ffa(hyp, pfn, 4), 0);
    assert_int_equal(pkvm_host_donate_hyp(hyp, pfn, 4), 0);
    for (unsigned i = 0; i < 4; i++)
        el2_assert_page(f->el2, pfn + i, NOP, OWN, 0, 0);
    /* A page in use by EL2 does not go back. */
    hyp_page(hyp, pfn + 2)->refcount = 1;
    assert_int_equal(pkvm_hyp_donate_host(hyp, pfn, 4), -HYP_EBUSY);
    hyp_page(hyp, pfn + 2)->refcount = 0;
    assert_int_equal(pkvm_hyp_donate_host(hyp, pfn, 4), 0);
    el2_check(f->el2);

    assert_int_equal(pkvm_host_donate_hyp(hyp, pfn, 0), -HYP_EINVAL);
    assert_int_equal(pkvm_host_donate_hyp(hyp, UINT64_C(1) << 24, 1), -HYP_EINVAL);
    assert_int_equal(pkvm_host_donate_hyp(hyp, pfn, UINT64_MAX), -HYP_EINVAL);
    assert_int_equal(pkvm_host_donate_hyp(hyp, f->el2->nomap_pfn - 1, 2), -HYP_EINVAL);
    assert_int_equal(pkvm_host_donate_hyp(hyp, f->el2->nomap_pfn, 1), -HYP_EPERM);
    assert_int_equal(pkvm_host_donate_hyp(hyp, f->el2->gap_pfn, 1), -HYP_EPERM);
}

/* The host can pin without end, by way of init_vcpu: an error here, not a panic. */
static void test_pin_count_saturates(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(apply(f, HYP_DONATE_HOST, 0), 0);
    assert_int_equal(apply(f, SHARE_HYP, 0), 0);
    hyp_page(f->el2->hyp, f->pfn)->refcount = UINT16_MAX;
    assert_int_equal(apply(f, PIN, 0), -HYP_EBUSY);
    apply(f, UNPIN, 0);
    assert_int_equal(apply(f, PIN, 0), 0);
}

static void test_unpin_below_zero_panics(void **state)
{
    struct fixture *f = *state;
    jmp_buf env;

    f->el2->on_panic = &env;
    if (setjmp(env) == 0) {
        apply(f, UNPIN, 0);
        fail();
    }
    assert_non_null(f->el2->panic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_properties, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unshare_ffa_tells_counterparts_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_multi_page_donation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pin_count_saturates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unpin_below_zero_panics, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("el2_selftest", tests, NULL, NULL);
}
