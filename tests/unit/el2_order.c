/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What others can see while EL2 is at work.  Its result does not tell in which
 * order it came about, but a CPU that looks in between can: access goes from one
 * side before it comes to the other, a page is zero before the host has it, an
 * entry is broken and flushed before it is made, and a table is unhooked and
 * flushed before it is used again.
 */
#include "tests/unit/el2_harness.h"

#define GFN UINT64_C(0x40000)
#define IPA (GFN << HYP_PAGE_SHIFT)
#define VMID 1 /* of the only VM */

struct fixture {
    struct el2 *el2;
    struct el2_vm vm;
    uint64_t pfn; /* for the guest's page at GFN */
    unsigned nr_seen;
    uint64_t link; /* test_host_changes_list() */
};

static void set_up_vm(struct fixture *f, bool is_protected)
{
    *f = (struct fixture){.el2 = el2_new(NULL)};
    el2_vm_new(f->el2, &f->vm, is_protected, HYP_UNSHARE_UNILATERAL, 1);
    el2_topup(f->el2, &f->vm, 0, 4);
    f->pfn = el2_frames(f->el2, 1, 1);
    EL2_CALL(f->el2, vcpu_load, f->vm.handle, 0);
}

static int set_up(void **state)
{
    static struct fixture f;

    set_up_vm(&f, true);
    *state = &f;
    return 0;
}

static int set_up_np(void **state)
{
    static struct fixture f;

    set_up_vm(&f, false);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

typedef void watch_fn(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr);

static void watch(struct fixture *f, watch_fn *fn)
{
    f->nr_seen = 0;
    f->el2->watch = fn;
    f->el2->watch_ctx = f;
    f->el2->nr_tlbi = 0;
}

/* Ends the watch, which must have seen as many events. */
static void assert_seen(struct fixture *f, unsigned nr)
{
    f->el2->watch = NULL;
    assert_int_equal(f->nr_seen, nr);
    el2_check(f->el2);
}

static uint64_t host_pte(const struct fixture *f)
{
    return hyp_host_leaf(f->el2->hyp, f->pfn);
}

static struct hyp_guest_leaf guest_leaf(const struct fixture *f)
{
    struct hyp_guest_leaf leaf;

    assert_int_equal(hyp_guest_leaf(f->el2->hyp, (uint32_t)f->vm.handle, GFN, &leaf), 0);
    return leaf;
}

static bool host_owns_by_record(const struct fixture *f)
{
    return hyp_host_state(f->el2->hyp, f->pfn) == PKVM_PAGE_OWNED;
}

static void donate(struct fixture *f)
{
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->pfn, GFN), 0);
}

static struct hyp_vm *vm_of(const struct fixture *f)
{
    return hyp_vm_find(f->el2->hyp, f->vm.handle);
}

/* The host's block is broken and flushed while the guest has nothing. */
static void in_donation(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    struct fixture *f = ctx;

    f->nr_seen++;
    assert_int_equal(vmid, 0);
    assert_int_equal(guest_leaf(f).pte, 0);
    assert_int_equal(host_pte(f), S2_PTE_LOCKED);
    if (event == EL2_TLBI)
        assert_in_range(f->pfn, addr >> 12, (addr >> 12) + nr - 1);
    else
        assert_true(el2_flushed(f->el2, 0, f->pfn << 12));
}

static void test_donation(void **state)
{
    struct fixture *f = *state;

    /* Two pages go to tables first; the target lies elsewhere, in a block of its own. */
    f->pfn = el2_frames(f->el2, 512, 512) + 7;
    f->el2->inner_calls = true;
    assert_int_equal(hyp_refill_memcache(f->el2->hyp, vm_of(f)->vcpus[0]), 0);
    assert_int_equal(el2_abort(f->el2, 0, f->pfn << 12, true), HYP_ABORT_RETRY);
    watch(f, in_donation);
    donate(f);
    assert_seen(f, 2);
}

/* When the host hears of the page, the guest's record says that it is shared. */
static void in_share(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    struct fixture *f = ctx;

    f->nr_seen++;
    assert_int_equal(event, EL2_TLBI);
    assert_int_equal(vmid, 0);
    assert_int_equal(guest_leaf(f).state, PKVM_PAGE_SHARED_OWNED);
}

/* The guest's page is its own only when the host is out. */
static void in_unshare(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    struct fixture *f = ctx;

    f->nr_seen++;
    assert_int_equal(vmid, 0);
    assert_int_equal(host_pte(f), S2_PTE_LOCKED);
    assert_int_equal(guest_leaf(f).state, PKVM_PAGE_SHARED_OWNED);
    assert_true(event == EL2_TLBI || el2_flushed(f->el2, 0, f->pfn << 12));
}

static void test_share_and_unshare(void **state)
{
    struct fixture *f = *state;

    donate(f);
    watch(f, in_share);
    assert_int_equal(el2_inner(f->el2, ORACLE_GUEST_SHARE, f->vm.handle, GFN), 0);
    assert_seen(f, 1);
    watch(f, in_unshare);
    assert_int_equal(el2_inner(f->el2, ORACLE_GUEST_UNSHARE, f->vm.handle, GFN), 0);
    assert_seen(f, 2);
}

/* Guest out, page zeroed, host in. */
static void in_force_reclaim(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    struct fixture *f = ctx;

    switch (f->nr_seen++) {
    case 0:
    case 1:
        assert_int_equal(event, f->nr_seen == 1 ? EL2_TLBI : EL2_YIELD);
        assert_true(event == EL2_YIELD || (vmid == VMID && addr == IPA && nr == 1));
        assert_true(event == EL2_TLBI || el2_flushed(f->el2, VMID, IPA));
        assert_int_equal(guest_leaf(f).pte, S2_PTE_LOCKED);
        assert_int_equal(s2_annotation_owner(host_pte(f)), HYP_OWNER_GUEST);
        break;
    case 2:
        assert_int_equal(event, EL2_ZERO_PAGE);
        assert_int_equal(addr, f->pfn << 12);
        assert_int_equal(guest_leaf(f).pte, S2_PTE_POISON);
        assert_int_equal(s2_annotation_owner(host_pte(f)), HYP_OWNER_GUEST);
        break;
    default:
        assert_int_equal(event, EL2_TLBI);
        assert_int_equal(vmid, 0);
        assert_true(el2_is_zero(f->el2, f->pfn << 12));
    }
    assert_false(host_owns_by_record(f));
}

static void test_force_reclaim(void **state)
{
    struct fixture *f = *state;

    donate(f);
    watch(f, in_force_reclaim);
    assert_int_equal(EL2_CALL(f->el2, force_reclaim_guest_page, f->pfn << 12), 0);
    assert_seen(f, 4);
}

/* The guest cannot run any more, so that its leaf may go after the zeroing; the host's access comes last. */
static void in_reclaim(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    struct fixture *f = ctx;

    switch (f->nr_seen++) {
    case 0:
        assert_int_equal(event, EL2_ZERO_PAGE);
        assert_int_equal(addr, f->pfn << 12);
        assert_int_equal(s2_annotation_owner(host_pte(f)), HYP_OWNER_GUEST);
        break;
    case 1:
        assert_int_equal(event, EL2_TLBI);
        assert_int_equal(vmid, VMID);
        assert_int_equal(addr, IPA);
        assert_int_equal(guest_leaf(f).pte, 0);
        assert_int_equal(s2_annotation_owner(host_pte(f)), HYP_OWNER_GUEST);
        /* The tables that got empty are not free before the flush. */
        assert_int_equal(vm_of(f)->pool.free.nr_pages, 0);
        break;
    default:
        assert_int_equal(event, EL2_TLBI);
        assert_int_equal(vmid, 0);
        assert_true(el2_is_zero(f->el2, f->pfn << 12));
    }
    assert_false(host_owns_by_record(f));
}

/* The whole VMID is flushed while EL2 still has all of its tables. */
static void in_finalize(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    struct fixture *f = ctx;

    if (f->nr_seen++)
        return;
    assert_int_equal(event, EL2_TLBI);
    assert_int_equal(vmid, VMID);
    assert_int_equal(nr, 0);
    assert_int_equal(hyp_hyp_state(f->el2->hyp, f->vm.pgd >> 12), PKVM_PAGE_OWNED);
}

static void test_teardown(void **state)
{
    struct fixture *f = *state;

    donate(f);
    EL2_CALL(f->el2, vcpu_put);
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->vm.handle), 0);
    watch(f, in_reclaim);
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm.handle, GFN), 0);
    assert_seen(f, 3);
    assert_int_equal(vm_of(f)->pool.free.nr_pages, 2);
    watch(f, in_finalize);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm.handle), 0);
    f->el2->watch = NULL;
    assert_true(f->nr_seen > 1);
}

/* The host is the only one again after the guest's translation is gone. */
static void in_unshare_guest(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    struct fixture *f = ctx;

    f->nr_seen++;
    assert_int_equal(event, EL2_TLBI);
    assert_int_equal(vmid, VMID);
    assert_int_equal(guest_leaf(f).pte, 0);
    assert_false(host_owns_by_record(f));
}

static void test_unshare_guest(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(EL2_CALL(f->el2, host_share_guest, f->pfn, GFN, 1, HYP_PROT_RWX), 0);
    watch(f, in_unshare_guest);
    assert_int_equal(EL2_CALL(f->el2, host_unshare_guest, f->vm.handle, GFN, 1), 0);
    assert_seen(f, 1);
}

/* Another CPU of the host writes the link of the first page at the last moment at which it can. */
static void change_link(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    struct fixture *f = ctx;
    uint64_t first = el2_host_vcpu(f->el2, &f->vm, 0)->pkvm_memcache.head;

    if (f->nr_seen++ == 0)
        *(uint64_t *)el2_virt(f->el2, first) = f->link;
}

/* EL2 follows the link that it finds when the page is its own, not one that it read before. */
static void test_host_changes_list(void **state)
{
    struct fixture *f = *state;
    struct hyp_memcache *mc = &el2_host_vcpu(f->el2, &f->vm, 0)->pkvm_memcache;
    const uint64_t *old;

    old = el2_virt(f->el2, mc->head);
    old = el2_virt(f->el2, *old);
    f->link = *old; /* leaves out the second page */
    mc->nr_pages = 3;
    watch(f, change_link);
    donate(f);
    f->el2->watch = NULL;
    assert_true(f->nr_seen > 0);
    el2_check(f->el2);
    assert_int_equal(mc->nr_pages, 0);
    assert_int_equal(hyp_host_state(f->el2->hyp, f->link >> 12), PKVM_PAGE_NOPAGE);
    assert_int_equal(mc->head, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_donation),
        TEST(test_share_and_unshare),
        TEST(test_force_reclaim),
        TEST(test_teardown),
        cmocka_unit_test_setup_teardown(test_unshare_guest, set_up_np, tear_down),
        TEST(test_host_changes_list),
    };

    return cmocka_run_group_tests_name("el2_order", tests, NULL, NULL);
}
