/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page has a record on each side, and by the invariants one often implies the
 * other.  EL2 does not count on that: each call looks at all of them.  So here
 * one record is made wrong by hand, and the call must still be refused, or EL2
 * panic where nothing but a fault of its own can be the reason.
 */
#include "tests/unit/el2_harness.h"

#define GFN UINT64_C(0x40000)

enum { OWNED, OTHER, LENT, NR_GUEST_PAGES };

struct fixture {
    struct el2 *el2;
    struct el2_vm pvm, np;
    struct hyp_vm *hyp_pvm, *hyp_np;
    uint64_t pfn[NR_GUEST_PAGES]; /* the pVM's at GFN and after it */
    uint64_t np_pfn;              /* the np-guest's at GFN */
    uint64_t free_pfn;
};

static int set_up(void **state)
{
    static struct fixture f;
    struct el2 *el2 = el2_new(NULL);

    f = (struct fixture){.el2 = el2};
    el2->inner_calls = true;
    el2_vm_new(el2, &f.pvm, true, HYP_UNSHARE_CONSENT, 1);
    el2_vm_new(el2, &f.np, false, HYP_UNSHARE_CONSENT, 1);
    f.hyp_pvm = hyp_vm_find(el2->hyp, f.pvm.handle);
    f.hyp_np = hyp_vm_find(el2->hyp, f.np.handle);
    el2_topup(el2, &f.pvm, 0, 5);
    el2_topup(el2, &f.np, 0, 4);
    EL2_CALL(el2, vcpu_load, f.pvm.handle, 0);
    for (unsigned i = 0; i < NR_GUEST_PAGES; i++) {
        f.pfn[i] = el2_frames(el2, 1, 1);
        assert_int_equal(EL2_CALL(el2, host_donate_guest, f.pfn[i], GFN + i), 0);
    }
    assert_int_equal(pkvm_guest_share_host(el2->hyp, f.hyp_pvm, GFN + LENT), 0);
    EL2_CALL(el2, vcpu_put);
    f.np_pfn = el2_frames(el2, 1, 1);
    EL2_CALL(el2, vcpu_load, f.np.handle, 0);
    assert_int_equal(EL2_CALL(el2, host_share_guest, f.np_pfn, GFN, 1, HYP_PROT_RWX), 0);
    EL2_CALL(el2, vcpu_put);
    f.free_pfn = el2_frames(el2, 1, 1);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

/* With one record wrong the call is refused; with it right again, all is as before. */
#define REFUSED(f, lvalue, value, call, error)                                                                         \
    do {                                                                                                               \
        __typeof__(lvalue) saved_ = (lvalue), wrong_ = (value);                                                        \
        (lvalue) = wrong_;                                                                                             \
        assert_int_equal(call, -(error));                                                                              \
        assert_true((lvalue) == wrong_);                                                                               \
        (lvalue) = saved_;                                                                                             \
        el2_check((f)->el2);                                                                                           \
    } while (0)

static struct hyp_page with_states(const struct fixture *f, uint64_t pfn, enum hyp_page_state host,
                                   enum hyp_page_state hyp)
{
    struct hyp_page page = *hyp_page(f->el2->hyp, pfn);

    page.host_state = host & 0xf;
    page.hyp_state_comp = (hyp ^ PKVM_PAGE_NOPAGE) & 0xf;
    return page;
}

/* As above for the states in a page's record, which are bit fields. */
#define REFUSED_STATES(f, pfn, host_state_, hyp_state_, call, error)                                                   \
    do {                                                                                                               \
        struct hyp_page *page_ = hyp_page((f)->el2->hyp, pfn), saved_ = *page_;                                        \
        struct hyp_page wrong_ = with_states(f, pfn, host_state_, hyp_state_);                                         \
        *page_ = wrong_;                                                                                               \
        assert_int_equal(call, -(error));                                                                              \
        assert_memory_equal(page_, &wrong_, sizeof(wrong_));                                                           \
        *page_ = saved_;                                                                                               \
        el2_check((f)->el2);                                                                                           \
    } while (0)

static uint64_t *guest_entry(const struct hyp_vm *vm, uint64_t gfn)
{
    struct s2_walk walk;

    s2_walk_leaf(&vm->pgt, gfn << 12, &walk);
    assert_int_equal(walk.level, 3);
    return walk.ptep[3];
}

static uint64_t *host_entry(const struct fixture *f, uint64_t pfn)
{
    struct s2_walk walk;

    s2_walk_leaf(&f->el2->hyp->host, pfn << 12, &walk);
    assert_int_equal(walk.level, 3);
    return walk.ptep[3];
}

static uint64_t in_state(uint64_t pte, enum hyp_page_state state)
{
    return (pte & ~S2_PTE_STATE_MASK) | (uint64_t)state << S2_PTE_SW_SHIFT;
}

#define OWN PKVM_PAGE_OWNED
#define SHR PKVM_PAGE_SHARED_OWNED
#define BOR PKVM_PAGE_SHARED_BORROWED
#define NOP PKVM_PAGE_NOPAGE

static void test_host_and_hyp(void **state)
{
    struct fixture *f = *state;
    struct hyp *hyp = f->el2->hyp;
    uint64_t own = f->pvm.vm_page >> 12, shared = f->pvm.host_kvm >> 12;

    REFUSED_STATES(f, f->free_pfn, OWN, OWN, pkvm_host_share_hyp(hyp, f->free_pfn), HYP_EPERM);
    REFUSED_STATES(f, f->free_pfn, OWN, OWN, pkvm_host_donate_hyp(hyp, f->free_pfn, 1), HYP_EPERM);
    REFUSED_STATES(f, f->free_pfn, SHR, NOP, pkvm_host_unshare_hyp(hyp, f->free_pfn), HYP_EPERM);
    REFUSED_STATES(f, f->free_pfn, OWN, BOR, pkvm_host_unshare_hyp(hyp, f->free_pfn), HYP_EPERM);
    REFUSED_STATES(f, shared, OWN, BOR, pkvm_pin_shared_mem(hyp, shared, 1), HYP_EPERM);
    REFUSED_STATES(f, shared, SHR, NOP, pkvm_pin_shared_mem(hyp, shared, 1), HYP_EPERM);
    REFUSED_STATES(f, own, OWN, OWN, pkvm_hyp_donate_host(hyp, own, 1), HYP_EPERM);
    REFUSED_STATES(f, own, NOP, NOP, pkvm_hyp_donate_host(hyp, own, 1), HYP_EPERM);
}

static void test_guest_share(void **state)
{
    struct fixture *f = *state;
    struct hyp *hyp = f->el2->hyp;
    uint64_t *owned = guest_entry(f->hyp_pvm, GFN + OWNED), *lent = guest_entry(f->hyp_pvm, GFN + LENT);

    REFUSED_STATES(f, f->pfn[OWNED], OWN, NOP, pkvm_guest_share_host(hyp, f->hyp_pvm, GFN + OWNED), HYP_EPERM);
    REFUSED(f, *owned, in_state(*owned, SHR), pkvm_guest_share_host(hyp, f->hyp_pvm, GFN + OWNED), HYP_EPERM);
    REFUSED_STATES(f, f->pfn[LENT], NOP, NOP, pkvm_guest_unshare_host(hyp, f->hyp_pvm, GFN + LENT), HYP_EPERM);
    REFUSED_STATES(f, f->pfn[LENT], OWN, NOP, pkvm_check_guest_unshare(hyp, f->hyp_pvm, GFN + LENT), HYP_EPERM);
    REFUSED(f, *lent, in_state(*lent, OWN), pkvm_guest_unshare_host(hyp, f->hyp_pvm, GFN + LENT), HYP_EPERM);
}

static void test_unshare_guest(void **state)
{
    struct fixture *f = *state;
    struct hyp *hyp = f->el2->hyp;
    uint64_t *leaf = guest_entry(f->hyp_np, GFN);

    /* The handler lets no protected VM in, so this takes no damage. */
    assert_int_equal(pkvm_host_unshare_guest(hyp, f->hyp_pvm, GFN + OWNED, 1), -HYP_EPERM);
    assert_int_equal(pkvm_host_unshare_guest(hyp, f->hyp_pvm, GFN + LENT, 1), -HYP_EPERM);
    REFUSED(f, *leaf, in_state(*leaf, OWN), pkvm_host_unshare_guest(hyp, f->hyp_np, GFN, 1), HYP_EPERM);
    REFUSED_STATES(f, f->np_pfn, OWN, NOP, pkvm_host_unshare_guest(hyp, f->hyp_np, GFN, 1), HYP_EPERM);
    REFUSED_STATES(f, f->np_pfn, BOR, NOP, pkvm_host_unshare_guest(hyp, f->hyp_np, GFN, 1), HYP_EPERM);
}

static void test_force_reclaim(void **state)
{
    struct fixture *f = *state;
    struct hyp *hyp = f->el2->hyp;
    uint64_t *host = host_entry(f, f->pfn[OWNED]), *guest = guest_entry(f->hyp_pvm, GFN + OWNED);
    uint64_t phys = f->pfn[OWNED] << 12, donation = (uint64_t)S2_TYPE_DONATION << S2_TYPE_SHIFT;

    REFUSED(f, *host, *host ^ donation ^ S2_PTE_POISON, pkvm_force_reclaim(hyp, phys), HYP_EINVAL);
    REFUSED(f, *host, 0, pkvm_force_reclaim(hyp, phys), HYP_EINVAL);
    REFUSED(f, *host, donation | s2_hyp_annotation(), pkvm_force_reclaim(hyp, phys), HYP_EPERM);
    REFUSED(f, *host, donation | s2_guest_annotation(HYP_HANDLE_OFFSET + 9, GFN), pkvm_force_reclaim(hyp, phys),
            HYP_EAGAIN);
    REFUSED(f, *host, donation | s2_guest_annotation((uint32_t)f->pvm.handle, GFN + NR_GUEST_PAGES),
            pkvm_force_reclaim(hyp, phys), HYP_ENOENT);
    REFUSED(f, *guest, S2_PTE_POISON, pkvm_force_reclaim(hyp, phys), HYP_EHWPOISON);
    REFUSED(f, *guest, in_state(*guest, SHR), pkvm_force_reclaim(hyp, phys), HYP_EPERM);
    assert_int_equal(f->el2->nr_zeroed, 0);
}

/* A vcpu of a dying VM cannot be loaded; if one were, its VM would not go away under it. */
static void test_finalize(void **state)
{
    struct fixture *f = *state;

    EL2_CALL(f->el2, vcpu_load, f->np.handle, 0);
    REFUSED(f, f->hyp_np->is_dying, true, pkvm_finalize_teardown_vm(f->el2->hyp, f->np.handle), HYP_EINVAL);
}

static void assert_panics(struct fixture *f, int (*call)(struct fixture *f))
{
    jmp_buf env;

    f->el2->panic = NULL;
    f->el2->on_panic = &env;
    if (setjmp(env) == 0) {
        call(f);
        fail();
    }
    f->el2->on_panic = NULL;
    assert_non_null(f->el2->panic);
    assert_int_equal(f->el2->nr_zeroed, 0);
}

static int force_reclaim(struct fixture *f)
{
    return pkvm_force_reclaim(f->el2->hyp, f->pfn[OWNED] << 12);
}

static int reclaim(struct fixture *f)
{
    return pkvm_reclaim_guest_page(f->el2->hyp, f->hyp_pvm, GFN + OWNED);
}

/* EL2's own records contradict each other: it stops before it zeroes or gives away anything. */
static void test_panics(void **state)
{
    struct fixture *f = *state;
    uint64_t *host = host_entry(f, f->pfn[OWNED]), saved = *host;
    struct hyp_page *page = hyp_page(f->el2->hyp, f->pfn[OWNED]), saved_page = *page;

    *host = *host_entry(f, f->pfn[OTHER]);
    assert_panics(f, force_reclaim);
    *host = saved;
    *page = with_states(f, f->pfn[OWNED], BOR, NOP);
    assert_panics(f, reclaim);
    *page = saved_page;
    el2_check(f->el2);
    assert_int_equal(force_reclaim(f), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_host_and_hyp),  TEST(test_guest_share), TEST(test_unshare_guest),
        TEST(test_force_reclaim), TEST(test_finalize),    TEST(test_panics),
    };

    return cmocka_run_group_tests_name("el2_records", tests, NULL, NULL);
}
