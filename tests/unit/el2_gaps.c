/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What pKVM's ownership selftest leaves out: addresses that are no memory, the
 * rarer results of force reclaim, ranges of which one page is bad, blocks, pages
 * of another VM, and EL2's own code.  (Zeroing is in el2_order and
 * el2_lifecycle, share counts and 2 MiB shares in el2_np, memcaches in
 * el2_memcache, the errors of the life cycle in el2_errors.)
 */
#include "tests/unit/el2_harness.h"

#include <stdlib.h>
#include <string.h>

#define GFN UINT64_C(0x40000)
#define NR 5u
#define NR_TEXT 3u

#define OWN PKVM_PAGE_OWNED
#define SHR PKVM_PAGE_SHARED_OWNED
#define BOR PKVM_PAGE_SHARED_BORROWED
#define NOP PKVM_PAGE_NOPAGE

struct fixture {
    struct el2 *el2;
    struct hyp *hyp;
    struct el2_vm pvm, other, np;
    uint64_t pfn; /* a free frame */
};

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.el2 = el2_new(&(struct el2_options){.text_nr = NR_TEXT})};
    f.hyp = f.el2->hyp;
    el2_vm_new(f.el2, &f.pvm, true, HYP_UNSHARE_UNILATERAL, 1);
    el2_vm_new(f.el2, &f.other, true, HYP_UNSHARE_UNILATERAL, 1);
    el2_vm_new(f.el2, &f.np, false, HYP_UNSHARE_CONSENT, 1);
    el2_topup(f.el2, &f.pvm, 0, 6);
    el2_topup(f.el2, &f.other, 0, 6);
    el2_topup(f.el2, &f.np, 0, 6);
    f.pfn = el2_frames(f.el2, 1, 1);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

static int64_t donate(struct fixture *f, const struct el2_vm *vm, uint64_t pfn, uint64_t gfn)
{
    int64_t ret;

    EL2_CALL(f->el2, vcpu_load, vm->handle, 0);
    ret = EL2_CALL(f->el2, host_donate_guest, pfn, gfn);
    EL2_CALL(f->el2, vcpu_put);
    return ret;
}

static int64_t share(struct fixture *f, uint64_t pfn, uint64_t gfn, uint64_t nr)
{
    int64_t ret;

    EL2_CALL(f->el2, vcpu_load, f->np.handle, 0);
    ret = EL2_CALL(f->el2, host_share_guest, pfn, gfn, nr, HYP_PROT_RWX);
    EL2_CALL(f->el2, vcpu_put);
    return ret;
}

/* ---- what is no memory ------------------------------------------------------------------------------------------ */

static void test_mmio_and_nomap(void **state)
{
    struct fixture *f = *state;
    const struct el2 *el2 = f->el2;
    const struct {
        uint64_t pfn, nr;
        int ret;
    } ranges[] = {
        {el2->gap_pfn, 1, -HYP_EPERM},        {el2->nomap_pfn, 1, -HYP_EPERM},    {el2->gap_pfn, 4, -HYP_EPERM},
        {el2->nomap_pfn - 1, 2, -HYP_EINVAL}, {el2->gap_pfn - 1, 2, -HYP_EINVAL}, {el2->high_pfn - 1, 2, -HYP_EINVAL},
    };

    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        uint64_t pfn = ranges[i].pfn, nr = ranges[i].nr;
        int ret = ranges[i].ret;

        assert_int_equal(el2_inner(f->el2, ORACLE_DONATE_HYP, pfn, nr), ret);
        assert_int_equal(el2_inner(f->el2, ORACLE_SHARE_FFA, pfn, nr), ret);
        assert_int_equal(el2_inner(f->el2, ORACLE_UNSHARE_FFA, pfn, nr), ret);
        assert_int_equal(el2_inner(f->el2, ORACLE_PIN, pfn, nr), ret);
        /* EL2's own state comes first there. */
        assert_int_equal(el2_inner(f->el2, ORACLE_HYP_DONATE_HOST, pfn, nr), -HYP_EPERM);
        if (nr > 1)
            continue;
        assert_int_equal(EL2_CALL(f->el2, host_share_hyp, pfn), ret);
        assert_int_equal(EL2_CALL(f->el2, host_unshare_hyp, pfn), ret);
        assert_int_equal(donate(f, &f->pvm, pfn, GFN), ret);
        assert_int_equal(share(f, pfn, GFN, 1), ret);
    }
    /* Blocks are 512 pages: one that ends in another region. */
    assert_int_equal(share(f, el2->nomap_pfn, GFN, 512), -HYP_EINVAL);
    el2_check(f->el2);
}

/* ---- force reclaim ---------------------------------------------------------------------------------------------- */

static int64_t force_reclaim(struct fixture *f, uint64_t pfn)
{
    return EL2_CALL(f->el2, force_reclaim_guest_page, pfn << HYP_PAGE_SHIFT);
}

static void test_force_reclaim_results(void **state)
{
    struct fixture *f = *state;
    uint64_t shared = el2_frames(f->el2, 1, 1);
    struct hyp_vm_slot *slot = &f->hyp->vms[f->pvm.handle - HYP_HANDLE_OFFSET], saved = *slot;

    assert_int_equal(force_reclaim(f, f->el2->gap_pfn), -HYP_EFAULT);
    assert_int_equal(force_reclaim(f, UINT64_C(1) << 35), -HYP_EFAULT);
    /* The access would not fault any more: the host has it, alone or not. */
    assert_int_equal(force_reclaim(f, f->pfn), -HYP_EAGAIN);
    assert_int_equal(force_reclaim(f, f->pvm.host_kvm >> 12), -HYP_EAGAIN);
    assert_int_equal(force_reclaim(f, f->el2->nomap_pfn), -HYP_EAGAIN);
    /* Mapped, and yet not the host's. */
    assert_int_equal(force_reclaim(f, f->el2->text_pfn), -HYP_EINVAL);
    assert_int_equal(force_reclaim(f, f->pvm.pgd >> 12), -HYP_EPERM);
    /* Lent by the guest: no owner is recorded, and the host has access anyway. */
    assert_int_equal(donate(f, &f->pvm, shared, GFN + 1), 0);
    assert_int_equal(el2_inner(f->el2, ORACLE_GUEST_SHARE, f->pvm.handle, GFN + 1), 0);
    assert_int_equal(force_reclaim(f, shared), -HYP_EAGAIN);
    /* A handle that is gone.  finalize_teardown does not let it come to that. */
    assert_int_equal(donate(f, &f->pvm, f->pfn, GFN), 0);
    f->el2->check = false;
    f->el2->inner_calls = true;
    slot->vm = NULL;
    assert_int_equal(force_reclaim(f, f->pfn), -HYP_EAGAIN);
    *slot = saved;
    f->el2->check = true;
    assert_int_equal(force_reclaim(f, f->pfn), 0);
    assert_true(el2_is_zero(f->el2, f->pfn << 12));
}

/* A kernel of the host can take a page of a VM that ends; what it took is done with when the VMM's turn comes. */
static void test_force_reclaim_of_dying_vm(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(donate(f, &f->pvm, f->pfn, GFN), 0);
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->pvm.handle), 0);
    assert_int_equal(force_reclaim(f, f->pfn), 0);
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->pvm.handle, GFN), 0);
    el2_assert_page(f->el2, f->pfn, OWN, NOP, 0, 0);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->pvm.handle), 0);
}

/* ---- ranges ----------------------------------------------------------------------------------------------------- */

/* All of EL2's memory and all page records; EL2 has no other state that these calls could touch. */
struct snapshot {
    uint8_t *ram;
    struct hyp_page *records;
    size_t ram_size, records_size;
};

static void take(const struct fixture *f, struct snapshot *s)
{
    s->ram_size = f->el2->nr_frames << HYP_PAGE_SHIFT;
    s->records_size = f->el2->nr_frames * sizeof(*s->records);
    s->ram = malloc(s->ram_size);
    s->records = malloc(s->records_size);
    assert_non_null(s->ram);
    assert_non_null(s->records);
    memcpy(s->ram, f->el2->ram, s->ram_size);
    memcpy(s->records, f->el2->vmemmap, s->records_size);
}

static void assert_unchanged(const struct fixture *f, struct snapshot *s)
{
    assert_memory_equal(s->ram, f->el2->ram, s->ram_size);
    assert_memory_equal(s->records, f->el2->vmemmap, s->records_size);
    free(s->ram);
    free(s->records);
}

typedef int range_fn(struct el2 *el2, uint64_t pfn, uint64_t nr);

/* Page k is bad, whichever k: not one byte changes. */
static void assert_all_or_nothing(struct fixture *f, range_fn *call, uint64_t pfn, range_fn *spoil, range_fn *mend)
{
    for (unsigned k = 0; k < NR; k++) {
        struct snapshot before;

        assert_int_equal(spoil(f->el2, pfn + k, 1), 0);
        take(f, &before);
        assert_int_equal(call(f->el2, pfn, NR), -HYP_EPERM);
        assert_unchanged(f, &before);
        assert_int_equal(mend(f->el2, pfn + k, 1), 0);
    }
    assert_int_equal(call(f->el2, pfn, NR), 0);
    el2_check(f->el2);
}

static int share_hyp(struct el2 *el2, uint64_t pfn, uint64_t nr)
{
    return (int)EL2_CALL(el2, host_share_hyp, pfn + nr - 1);
}

static int unshare_hyp(struct el2 *el2, uint64_t pfn, uint64_t nr)
{
    return (int)EL2_CALL(el2, host_unshare_hyp, pfn + nr - 1);
}

#define RANGE_FN(name, inner)                                                                                          \
    static int name(struct el2 *el2, uint64_t pfn, uint64_t nr)                                                        \
    {                                                                                                                  \
        return el2_inner(el2, inner, pfn, nr);                                                                         \
    }
RANGE_FN(donate_hyp, ORACLE_DONATE_HYP)
RANGE_FN(donate_host, ORACLE_HYP_DONATE_HOST)
RANGE_FN(share_ffa, ORACLE_SHARE_FFA)
RANGE_FN(unshare_ffa, ORACLE_UNSHARE_FFA)
RANGE_FN(pin, ORACLE_PIN)

static void test_one_bad_page(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = el2_frames(f->el2, NR, 1), shared = el2_frames(f->el2, NR, 1);

    assert_all_or_nothing(f, donate_hyp, pfn, share_hyp, unshare_hyp);
    assert_all_or_nothing(f, donate_host, pfn, donate_host, donate_hyp);
    assert_all_or_nothing(f, share_ffa, pfn, share_hyp, unshare_hyp);
    assert_all_or_nothing(f, unshare_ffa, pfn, unshare_ffa, share_ffa);
    for (unsigned i = 0; i < NR; i++)
        assert_int_equal(EL2_CALL(f->el2, host_share_hyp, shared + i), 0);
    assert_all_or_nothing(f, pin, shared, unshare_hyp, share_hyp);
    for (unsigned i = 0; i < NR; i++)
        el2_assert_page(f->el2, shared + i, SHR, BOR, 0, 1);
}

static void test_bounds_of_ranges(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = el2_frames(f->el2, NR, 1);

    assert_int_equal(el2_inner(f->el2, ORACLE_DONATE_HYP, pfn, 0), -HYP_EINVAL);
    assert_int_equal(el2_inner(f->el2, ORACLE_DONATE_HYP, UINT64_C(1) << 24, 1), -HYP_EINVAL);
    assert_int_equal(el2_inner(f->el2, ORACLE_DONATE_HYP, pfn, UINT64_MAX), -HYP_EINVAL);
    assert_int_equal(el2_inner(f->el2, ORACLE_HYP_DONATE_HOST, UINT64_C(1) << 24, 1), -HYP_EINVAL);
    assert_int_equal(el2_inner(f->el2, ORACLE_SHARE_FFA, UINT64_MAX, 1), -HYP_EINVAL);
    assert_int_equal(el2_inner(f->el2, ORACLE_UNSHARE_FFA, UINT64_MAX, 1), -HYP_EINVAL);
    /* A page in use by EL2 does not go back, though all states are right. */
    assert_int_equal(el2_inner(f->el2, ORACLE_DONATE_HYP, pfn, NR), 0);
    f->el2->inner_calls = true;
    hyp_page(f->hyp, pfn + 2)->refcount = 1;
    assert_int_equal(el2_inner(f->el2, ORACLE_HYP_DONATE_HOST, pfn, NR), -HYP_EBUSY);
    hyp_page(f->hyp, pfn + 2)->refcount = 0;
    assert_int_equal(el2_inner(f->el2, ORACLE_HYP_DONATE_HOST, pfn, NR), 0);
    el2_check(f->el2);
}

/* What upstream's unshare_ffa would allow: a page that EL2 or a guest borrows becomes OWNED. */
static void test_unshare_ffa_tells_counterparts_apart(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(EL2_CALL(f->el2, host_share_hyp, f->pfn), 0);
    assert_int_equal(el2_inner(f->el2, ORACLE_UNSHARE_FFA, f->pfn, 1), -HYP_EPERM);
    assert_int_equal(EL2_CALL(f->el2, host_unshare_hyp, f->pfn), 0);
    assert_int_equal(share(f, f->pfn, GFN, 1), 0);
    assert_int_equal(el2_inner(f->el2, ORACLE_UNSHARE_FFA, f->pfn, 1), -HYP_EPERM);
    assert_int_equal(EL2_CALL(f->el2, host_unshare_guest, f->np.handle, GFN, 1), 0);
    assert_int_equal(el2_inner(f->el2, ORACLE_SHARE_FFA, f->pfn, 1), 0);
    /* With the secure world, and nobody else: every other call leaves it alone. */
    assert_int_equal(share(f, f->pfn, GFN, 1), -HYP_EPERM);
    assert_int_equal(donate(f, &f->pvm, f->pfn, GFN), -HYP_EPERM);
    assert_int_equal(force_reclaim(f, f->pfn), -HYP_EAGAIN);
    assert_int_equal(el2_inner(f->el2, ORACLE_UNSHARE_FFA, f->pfn, 1), 0);
}

/* ---- pins ------------------------------------------------------------------------------------------------------- */

/* The host can pin without end, by way of init_vcpu: an error here, not a panic. */
static void test_pin_count_saturates(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(EL2_CALL(f->el2, host_share_hyp, f->pfn), 0);
    f->el2->inner_calls = true;
    hyp_page(f->hyp, f->pfn)->refcount = UINT16_MAX;
    assert_int_equal(el2_inner(f->el2, ORACLE_PIN, f->pfn, 1), -HYP_EBUSY);
    assert_int_equal(EL2_CALL(f->el2, init_vcpu, f->pvm.handle, f->pfn << 12, el2_frames(f->el2, 1, 1) << 12),
                     -HYP_EBUSY);
    el2_inner(f->el2, ORACLE_UNPIN, f->pfn, 1);
    assert_int_equal(el2_inner(f->el2, ORACLE_PIN, f->pfn, 1), 0);
}

static void test_unpin_below_zero_panics(void **state)
{
    struct fixture *f = *state;
    jmp_buf env;

    f->el2->on_panic = &env;
    if (setjmp(env) == 0) {
        pkvm_unpin_shared_mem(f->hyp, f->pfn, 1);
        fail();
    }
    assert_non_null(f->el2->panic);
}

/* ---- several VMs ------------------------------------------------------------------------------------------------ */

/* A page is in one protected guest, at one IPA (I9), whoever asks. */
static void test_page_of_another_vm(void **state)
{
    struct fixture *f = *state;
    uint64_t lent = el2_frames(f->el2, 1, 1);

    assert_int_equal(donate(f, &f->pvm, f->pfn, GFN), 0);
    assert_int_equal(donate(f, &f->other, f->pfn, GFN), -HYP_EPERM);
    assert_int_equal(share(f, f->pfn, GFN, 1), -HYP_EPERM);
    assert_int_equal(donate(f, &f->pvm, lent, GFN + 1), 0);
    assert_int_equal(el2_inner(f->el2, ORACLE_GUEST_SHARE, f->pvm.handle, GFN + 1), 0);
    /* Borrowed is not owned: the host has nothing to give on. */
    assert_int_equal(donate(f, &f->other, lent, GFN), -HYP_EPERM);
    assert_int_equal(share(f, lent, GFN, 1), -HYP_EPERM);
    assert_int_equal(EL2_CALL(f->el2, host_share_hyp, lent), -HYP_EPERM);
    /* One VM's end does not touch the other's page. */
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->other.handle), 0);
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->other.handle, GFN), -HYP_ENOENT);
    el2_assert_page(f->el2, f->pfn, NOP, NOP, 0, 0);
    assert_int_equal(el2_guest_state(f->el2, &f->pvm, GFN), OWN);
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

static uint64_t pte_at(struct fixture *f, uint64_t gfn)
{
    struct hyp_guest_leaf leaf;

    assert_int_equal(hyp_guest_leaf(f->hyp, (uint32_t)f->np.handle, gfn, &leaf), 0);
    return leaf.pte;
}

/* The leaf is what changes, however many pages it maps and whichever of them is named. */
static void test_attributes_of_a_block(void **state)
{
    struct fixture *f = *state;
    uint64_t pfn = el2_frames(f->el2, 512, 512), handle = f->np.handle;

    assert_int_equal(share(f, pfn, GFN, 512), 0);
    f->el2->nr_tlbi = 0;
    assert_int_equal(EL2_CALL(f->el2, wrprotect_guest, handle, GFN + 5, 1), 0);
    assert_int_equal(pte_at(f, GFN) & S2_PTE_PERM_MASK, S2_PTE_R);
    assert_int_equal(EL2_CALL(f->el2, test_clear_young_guest, handle, GFN, 512, 1), 1);
    assert_int_equal(EL2_CALL(f->el2, test_clear_young_guest, handle, GFN + 511, 1, 0), 0);
    assert_int_equal(f->el2->nr_tlbi, 0);
    EL2_CALL(f->el2, vcpu_load, handle, 0);
    assert_int_equal(EL2_CALL(f->el2, mkyoung_guest, GFN + 9), 0);
    assert_int_equal(EL2_CALL(f->el2, test_clear_young_guest, handle, GFN, 512, 1), 1);
    assert_int_equal(EL2_CALL(f->el2, relax_perms_guest, GFN + 7, HYP_PROT_W), 0);
    assert_int_equal(pte_at(f, GFN), s2_leaf(pfn << 12, s2_guest_attr(HYP_PROT_RWX, BOR), 2));
    assert_int_equal(f->el2->nr_tlbi, 1);
    assert_int_equal(f->el2->tlbi[0].ipa, GFN << 12);
    assert_int_equal(f->el2->tlbi[0].nr, 512);
    /* An IPA in the midst of it is taken. */
    assert_int_equal(EL2_CALL(f->el2, host_share_guest, f->pfn, GFN + 7, 1, HYP_PROT_R), -HYP_EPERM);
}

/* ---- EL2's code ------------------------------------------------------------------------------------------------- */

/* The host may read it, page by page; it is EL2's, and a write to it faults again and again. */
static void test_text(void **state)
{
    struct fixture *f = *state;
    uint64_t text = f->el2->text_pfn;
    struct hyp_frame_info info;

    for (unsigned i = 0; i < NR_TEXT; i++) {
        assert_int_equal(hyp_frame_info(f->hyp, text + i, &info), 0);
        assert_int_equal(info.host, NOP);
        assert_int_equal(info.hyp, OWN);
        assert_int_equal(info.owner, HYP_OWNER_HYP);
        assert_int_equal(info.host_pte, s2_leaf((text + i) << 12, s2_host_text_attr(), S2_LAST_LEVEL));
        assert_int_equal(el2_abort(f->el2, 0, (text + i) << 12, true), HYP_ABORT_RETRY);
        assert_int_equal(hyp_host_leaf(f->hyp, text + i), info.host_pte);
        assert_int_equal(EL2_CALL(f->el2, host_share_hyp, text + i), -HYP_EPERM);
        assert_int_equal(donate(f, &f->pvm, text + i, GFN), -HYP_EPERM);
    }
    assert_int_equal(hyp_frame_info(f->hyp, text + NR_TEXT, &info), 0);
    assert_int_equal(info.owner, HYP_OWNER_HOST);
}

static void test_text_is_checked(void **state)
{
    struct fixture *f = *state;
    struct s2_walk walk;
    struct hyp_page *page = hyp_page(f->hyp, f->el2->text_pfn);

    s2_walk_leaf(&f->hyp->host, f->el2->text_pfn << 12, &walk);
    *walk.ptep[S2_LAST_LEVEL] |= S2_PTE_W;
    assert_int_equal(hyp_check(f->hyp, NULL, NULL), 1);
    *walk.ptep[S2_LAST_LEVEL] = walk.pte;
    page->host_state = OWN;
    assert_int_equal(hyp_check(f->hyp, NULL, NULL), 1);
    page->host_state = NOP;
    el2_check(f->el2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_mmio_and_nomap),
        TEST(test_force_reclaim_results),
        TEST(test_force_reclaim_of_dying_vm),
        TEST(test_one_bad_page),
        TEST(test_bounds_of_ranges),
        TEST(test_unshare_ffa_tells_counterparts_apart),
        TEST(test_pin_count_saturates),
        TEST(test_unpin_below_zero_panics),
        TEST(test_page_of_another_vm),
        TEST(test_attributes_of_a_block),
        TEST(test_text),
        TEST(test_text_is_checked),
    };

    return cmocka_run_group_tests_name("el2_gaps", tests, NULL, NULL);
}
