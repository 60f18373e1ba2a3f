/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 102 properties of pKVM's ownership selftest: one page, two adjacent IPAs
 * at half of the IPA space.  Each row is one call and one line of the report;
 * the state of the page on all sides is checked after each, so a failing call is
 * also seen to change nothing.  A property stands on those before it.
 *
 * Where a hypercall does what the kernel's function does it is the hypercall.
 * These ask for the kind of VM, so there are two, one protected and one not, and
 * g0 and g1 are IPAs of both.  What has no hypercall, or one that hides the
 * result, is EL2's function.  The oracle judges all of it.
 */
#include "tests/unit/el2_harness.h"

#include <stdio.h>

/* Names as in the kernel. */
#define OP_MAP(X)                                                                                                      \
    X(DONATE_HYP, "host_donate_hyp")                                                                                   \
    X(HYP_DONATE_HOST, "hyp_donate_host")                                                                              \
    X(SHARE_HYP, "host_share_hyp")                                                                                     \
    X(UNSHARE_HYP, "host_unshare_hyp")                                                                                 \
    X(SHARE_FFA, "host_share_ffa")                                                                                     \
    X(UNSHARE_FFA, "host_unshare_ffa")                                                                                 \
    X(PIN, "hyp_pin_shared_mem")                                                                                       \
    X(UNPIN, "hyp_unpin_shared_mem")                                                                                   \
    X(SHARE_GUEST, "host_share_guest")                                                                                 \
    X(UNSHARE_GUEST, "host_unshare_guest")                                                                             \
    X(DONATE_GUEST, "host_donate_guest")                                                                               \
    X(GUEST_SHARE, "guest_share_host")                                                                                 \
    X(GUEST_UNSHARE, "guest_unshare_host")                                                                             \
    X(FORCE_RECLAIM, "host_force_reclaim_page_guest")                                                                  \
    X(RECLAIM, "host_reclaim_page_guest")

enum op {
#define X(op, name) op,
    OP_MAP(X)
#undef X
};

static const char *const op_names[] = {
#define X(op, name) name,
    OP_MAP(X)
#undef X
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

#define PVM_CPU 0
#define NP_CPU 1

struct fixture {
    struct el2 *el2;
    struct el2_vm pvm, np; /* each with its vcpu loaded */
    uint64_t pfn, gfn;
};

static struct fixture fixture;

static void new_vm(struct el2 *el2, struct el2_vm *vm, bool is_protected, unsigned cpu)
{
    el2_vm_new(el2, vm, is_protected, HYP_UNSHARE_UNILATERAL, 1);
    el2_topup(el2, vm, 0, 4);
    el2_call(el2, cpu, HVC_vcpu_load, vm->handle, 0, 0, 0);
}

/* The page in state A. */
static int set_up(void **state)
{
    struct fixture *f = &fixture;

    f->el2 = el2_new(NULL);
    new_vm(f->el2, &f->pvm, true, PVM_CPU);
    new_vm(f->el2, &f->np, false, NP_CPU);
    f->pfn = el2_frames(f->el2, 1, 1);
    f->gfn = UINT64_C(1) << (EL2_IPA_BITS - 1 - HYP_PAGE_SHIFT);
    assert_int_equal(el2_inner(f->el2, ORACLE_DONATE_HYP, f->pfn, 1), 0);
    return 0;
}

static int tear_down(void **state)
{
    el2_free(fixture.el2);
    return 0;
}

/* No IPA of an unprotected VM is ever dead, so that there the transition itself is asked. */
static int64_t share_guest(struct fixture *f, uint64_t gfn)
{
    if (el2_guest_state(f->el2, &f->pvm, gfn) == PKVM_PAGE_POISON)
        return el2_inner(f->el2, ORACLE_SHARE_GUEST, f->pfn, gfn);
    return el2_call(f->el2, NP_CPU, HVC_host_share_guest, f->pfn, gfn, 1, HYP_PROT_RWX);
}

static int64_t apply(struct fixture *f, enum op op, unsigned ipa)
{
    struct el2 *el2 = f->el2;
    uint64_t gfn = f->gfn + ipa;

    switch (op) {
    case DONATE_HYP:
        return el2_inner(el2, ORACLE_DONATE_HYP, f->pfn, 1);
    case HYP_DONATE_HOST:
        return el2_inner(el2, ORACLE_HYP_DONATE_HOST, f->pfn, 1);
    case SHARE_HYP:
        return EL2_CALL(el2, host_share_hyp, f->pfn);
    case UNSHARE_HYP:
        return EL2_CALL(el2, host_unshare_hyp, f->pfn);
    case SHARE_FFA:
        return el2_inner(el2, ORACLE_SHARE_FFA, f->pfn, 1);
    case UNSHARE_FFA:
        return el2_inner(el2, ORACLE_UNSHARE_FFA, f->pfn, 1);
    case PIN:
        return el2_inner(el2, ORACLE_PIN, f->pfn, 1);
    case UNPIN:
        return el2_inner(el2, ORACLE_UNPIN, f->pfn, 1);
    case SHARE_GUEST:
        return share_guest(f, gfn);
    case UNSHARE_GUEST:
        return EL2_CALL(el2, host_unshare_guest, f->np.handle, gfn, 1);
    case DONATE_GUEST:
        return el2_call(el2, PVM_CPU, HVC_host_donate_guest, f->pfn, gfn, 0, 0);
    case GUEST_SHARE:
        return el2_inner(el2, ORACLE_GUEST_SHARE, f->pvm.handle, gfn);
    case GUEST_UNSHARE:
        return el2_inner(el2, ORACLE_GUEST_UNSHARE, f->pvm.handle, gfn);
    case FORCE_RECLAIM:
        return EL2_CALL(el2, force_reclaim_guest_page, f->pfn << HYP_PAGE_SHIFT);
    case RECLAIM:
        return el2_inner(el2, ORACLE_RECLAIM_GUEST, f->pvm.handle, gfn);
    }
    return -1;
}

static void assert_guest(struct fixture *f, const struct el2_vm *vm, unsigned i, enum hyp_page_state expected)
{
    enum hyp_page_state state = el2_guest_state(f->el2, vm, f->gfn + i);

    if (state != expected)
        fail_msg("g%u is %s, not %s", i, hyp_page_state_name(state), hyp_page_state_name(expected));
}

static void assert_state(struct fixture *f, enum letter letter)
{
    const struct state *s = &states[letter];

    el2_assert_page(f->el2, f->pfn, s->host, s->hyp, s->count, s->pins);
    for (unsigned i = 0; i < 2; i++) {
        assert_guest(f, &f->np, i, s->guest[i] == BOR ? BOR : NOP);
        assert_guest(f, &f->pvm, i, s->guest[i] == BOR ? NOP : s->guest[i]);
    }
}

static void test_property(void **state)
{
    const struct row *row = *state;
    struct fixture *f = &fixture;
    struct oracle_stats before, after;
    int64_t ret;

    oracle_stats(f->el2->oracle, &before);
    ret = apply(f, row->op, row->ipa);
    oracle_stats(f->el2->oracle, &after);
    if (ret != -row->errno_)
        fail_msg("result %d instead of %d", (int)ret, -row->errno_);
    assert_state(f, row->after);
    assert_int_equal(after.calls, before.calls + 1);
    assert_int_equal(after.divergences, 0);
}

static const char *result_name(int errno_)
{
    switch (errno_) {
#define X(name, value)                                                                                                 \
    case value:                                                                                                        \
        return "-" #name;
        HYP_ERRNO_MAP(X)
#undef X
    }
    return "0";
}

#define NR_PROPERTIES (sizeof(rows) / sizeof(rows[0]))
_Static_assert(NR_PROPERTIES == 102, "as many as upstream has");

int main(void)
{
    static char names[NR_PROPERTIES][200];
    static struct CMUnitTest tests[NR_PROPERTIES];

    for (unsigned i = 0; i < NR_PROPERTIES; i++) {
        const struct row *row = &rows[i];
        const struct state *s = &states[row->after];
        bool by_ipa = row->op >= SHARE_GUEST && row->op != FORCE_RECLAIM;

        if (row->number != (int)i + 1)
            return 1;
        snprintf(names[i], sizeof(names[i]), "property %d: %s%s = %s; host %s, hyp %s, g0 %s, g1 %s, count %u, pins %u",
                 row->number, op_names[row->op],
                 !by_ipa    ? ""
                 : row->ipa ? " g1"
                            : " g0",
                 result_name(row->errno_), hyp_page_state_name(s->host), hyp_page_state_name(s->hyp),
                 hyp_page_state_name(s->guest[0]), hyp_page_state_name(s->guest[1]), s->count, s->pins);
        tests[i] =
            (struct CMUnitTest){.name = names[i], .test_func = test_property, .initial_state = (void *)(uintptr_t)row};
    }
    return cmocka_run_group_tests_name("el2_selftest", tests, set_up, tear_down);
}
