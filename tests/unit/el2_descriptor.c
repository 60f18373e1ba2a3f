/* SPDX-License-Identifier: BSD-2-Clause */
/* Worked values of descriptors and annotations, and the walker on tables of its own. */
#include "tests/unit/el2_harness.h"

#include <string.h>

#define PA UINT64_C(0x123400000)

static void test_leaf_values(void **state)
{
    assert_int_equal(s2_leaf(PA, s2_guest_attr(HYP_PROT_RWX, PKVM_PAGE_OWNED), 3), PA | 0x7db);
    assert_int_equal(s2_leaf(PA, s2_guest_attr(HYP_PROT_RWX, PKVM_PAGE_SHARED_OWNED), 3),
                     PA | UINT64_C(0x00800000000007db));
    assert_int_equal(s2_leaf(PA, s2_guest_attr(HYP_PROT_RWX, PKVM_PAGE_SHARED_BORROWED), 3),
                     PA | UINT64_C(0x01000000000007db));
    assert_int_equal(s2_leaf(PA, s2_host_memory_attr(), 2), PA | 0x7dd);
    assert_int_equal(s2_leaf(PA, s2_host_memory_attr(), 3), PA | 0x7df);
    /* Device memory: RW, and no execution at any level. */
    assert_int_equal(s2_leaf(PA, s2_host_device_attr(), 3), PA | UINT64_C(0x00400000000007c7));
    assert_int_equal(s2_perm_bits(HYP_PROT_R), S2_PTE_R | S2_PTE_XN);
}

static void test_annotation_values(void **state)
{
    uint64_t donation = (uint64_t)S2_TYPE_DONATION << S2_TYPE_SHIFT;
    uint64_t pte = donation | s2_guest_annotation(0x1000, 0x80000);

    assert_int_equal(donation | s2_hyp_annotation(), UINT64_C(0x2000000000000002));
    assert_int_equal(pte, UINT64_C(0x2000008000010004));
    assert_int_equal(S2_PTE_POISON, UINT64_C(0x3000000000000000));
    assert_int_equal(s2_annotation_type(pte), S2_TYPE_DONATION);
    assert_int_equal(s2_annotation_owner(pte), HYP_OWNER_GUEST);
    assert_int_equal(s2_annotation_handle(pte), 0x1000);
    assert_int_equal(s2_annotation_gfn(pte), 0x80000);
    pte = donation | s2_guest_annotation(0xffff, (UINT64_C(1) << 40) - 1);
    assert_int_equal(s2_annotation_handle(pte), 0xffff);
    assert_int_equal(s2_annotation_gfn(pte), (UINT64_C(1) << 40) - 1);
    assert_int_equal(s2_annotation_owner(pte), HYP_OWNER_GUEST);
    assert_false(s2_pte_valid(pte));
}

static void test_guest_states(void **state)
{
    assert_int_equal(s2_guest_state(0), PKVM_PAGE_NOPAGE);
    assert_int_equal(s2_guest_state(S2_PTE_POISON), PKVM_PAGE_POISON);
    assert_int_equal(s2_guest_state(S2_PTE_LOCKED), PKVM_PAGE_NOPAGE);
    for (unsigned i = PKVM_PAGE_OWNED; i <= PKVM_PAGE_SHARED_BORROWED; i++)
        assert_int_equal(s2_guest_state(s2_leaf(PA, s2_guest_attr(HYP_PROT_RWX, (enum hyp_page_state)i), 3)), i);
}

static void test_geometry(void **state)
{
    static const struct {
        unsigned ipa_bits, start_level, pgd_pages, min_pages;
    } cases[] = {{32, 2, 4, 1}, {34, 2, 16, 1}, {35, 1, 1, 2}, {39, 1, 1, 2},
                 {40, 1, 2, 2}, {43, 1, 16, 2}, {44, 0, 1, 3}, {48, 0, 1, 3}};

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(hyp_s2_start_level(cases[i].ipa_bits), cases[i].start_level);
        assert_int_equal(hyp_s2_pgd_pages(cases[i].ipa_bits), cases[i].pgd_pages);
        assert_int_equal(hyp_s2_min_pages(cases[i].ipa_bits), cases[i].min_pages);
    }
}

struct fixture {
    struct el2 *el2;
    struct hyp_pool pool;
    struct s2_pgtable pgt;
    uint64_t nr_free; /* pages of the pool at the beginning */
};

#define VMID 77
#define NR_TABLES 24
#define ATTR s2_guest_attr(HYP_PROT_RWX, PKVM_PAGE_OWNED)

static uint64_t nr_free(const struct fixture *f)
{
    return f->pool.free.nr_pages + (f->pool.fresh_end - f->pool.fresh) / HYP_PAGE_SIZE;
}

static int set_up(void **state)
{
    static struct fixture f;
    uint64_t pfn, nr_pgd = hyp_s2_pgd_pages(EL2_IPA_BITS);

    f = (struct fixture){.el2 = el2_new(NULL)};
    pfn = el2_frames(f.el2, NR_TABLES, nr_pgd);
    assert_int_equal(pkvm_host_donate_hyp(f.el2->hyp, pfn, NR_TABLES), 0);
    f.pool.fresh = (pfn + nr_pgd) << 12;
    f.pool.fresh_end = (pfn + NR_TABLES) << 12;
    memset(el2_virt(f.el2, pfn << 12), 0, nr_pgd << 12);
    s2_init(&f.pgt, &f.el2->hyp->mm, &f.pool, pfn << 12, EL2_IPA_BITS, VMID);
    f.nr_free = nr_free(&f);
    f.el2->nr_tlbi = 0;
    f.el2->nr_yields = 0;
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

static uint64_t leaf(const struct fixture *f, uint64_t ipa, int level)
{
    struct s2_walk walk;

    s2_walk_leaf(&f->pgt, ipa, &walk);
    assert_int_equal(walk.level, level);
    return walk.pte;
}

static void test_largest_blocks(void **state)
{
    struct fixture *f = *state;
    uint64_t ipa = (UINT64_C(1) << 30) - HYP_PAGE_SIZE;

    /* One page, a 1 GiB block, a 2 MiB block, one page. */
    assert_int_equal(s2_map(&f->pgt, ipa, (UINT64_C(1) << 30) + (2 << 20) + 2 * HYP_PAGE_SIZE, ipa, ATTR, false, NULL),
                     0);
    assert_int_equal(leaf(f, ipa, 3), s2_leaf(ipa, ATTR, 3));
    assert_int_equal(leaf(f, UINT64_C(1) << 30, 1), s2_leaf(UINT64_C(1) << 30, ATTR, 1));
    assert_int_equal(leaf(f, UINT64_C(2) << 30, 2), s2_leaf(UINT64_C(2) << 30, ATTR, 2));
    leaf(f, (UINT64_C(2) << 30) + (2 << 20), 3);
    assert_int_equal(f->el2->nr_tlbi, 0);
    /* Physical alignment counts as well. */
    assert_int_equal(s2_map(&f->pgt, UINT64_C(4) << 30, 2 << 20, HYP_PAGE_SIZE, ATTR, false, NULL), 0);
    assert_int_equal(leaf(f, UINT64_C(4) << 30, 3), s2_leaf(HYP_PAGE_SIZE, ATTR, 3));
}

static void test_force_pte_and_unmap_free_tables(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(s2_map(&f->pgt, 0, 4 << 20, 0, ATTR, true, NULL), 0);
    leaf(f, 0, 3);
    leaf(f, 2 << 20, 3);
    assert_int_equal(nr_free(f), f->nr_free - 3);
    assert_int_equal(s2_unmap(&f->pgt, 0, 4 << 20), 0);
    assert_int_equal(nr_free(f), f->nr_free);
    assert_int_equal(leaf(f, 0, 1), 0);
    assert_int_equal(f->el2->nr_tlbi, 1024);
    assert_int_equal(f->el2->nr_yields, 0);
}

static void test_second_pgd_page(void **state)
{
    struct fixture *f = *state;
    uint64_t ipa = (UINT64_C(1) << EL2_IPA_BITS) - HYP_PAGE_SIZE;

    assert_int_equal(s2_map(&f->pgt, ipa, HYP_PAGE_SIZE, PA, ATTR, false, NULL), 0);
    assert_int_equal(leaf(f, ipa, 3), s2_leaf(PA, ATTR, 3));
    assert_int_equal(hyp_page(f->el2->hyp, (f->pgt.pgd >> 12) + 1)->refcount, 2);
    assert_int_equal(s2_map(&f->pgt, ipa, 2 * HYP_PAGE_SIZE, PA, ATTR, false, NULL), -HYP_ERANGE);
    assert_int_equal(s2_map(&f->pgt, ipa + HYP_PAGE_SIZE, HYP_PAGE_SIZE, PA, ATTR, false, NULL), -HYP_ERANGE);
    assert_int_equal(s2_unmap(&f->pgt, UINT64_MAX & ~UINT64_C(0xfff), HYP_PAGE_SIZE), -HYP_ERANGE);
    assert_int_equal(s2_unmap(&f->pgt, ipa, HYP_PAGE_SIZE), 0);
    assert_int_equal(nr_free(f), f->nr_free);
}

static void test_break_before_make(void **state)
{
    struct fixture *f = *state;
    uint64_t shared = s2_guest_attr(HYP_PROT_RWX, PKVM_PAGE_SHARED_OWNED);

    assert_int_equal(s2_map(&f->pgt, PA, HYP_PAGE_SIZE, PA, ATTR, false, NULL), 0);
    /* The same again, or other permissions: somebody was faster. */
    assert_int_equal(s2_map(&f->pgt, PA, HYP_PAGE_SIZE, PA, ATTR, false, NULL), -HYP_EAGAIN);
    assert_int_equal(s2_map(&f->pgt, PA, HYP_PAGE_SIZE, PA, s2_guest_attr(HYP_PROT_R, PKVM_PAGE_OWNED), false, NULL),
                     -HYP_EAGAIN);
    /* Software bits change in place. */
    assert_int_equal(s2_map(&f->pgt, PA, HYP_PAGE_SIZE, PA, shared, false, NULL), 0);
    assert_int_equal(leaf(f, PA, 3), s2_leaf(PA, shared, 3));
    assert_int_equal(f->el2->nr_tlbi, 0);
    /* Another address: break before make. */
    assert_int_equal(s2_map(&f->pgt, PA, HYP_PAGE_SIZE, PA + HYP_PAGE_SIZE, shared, false, NULL), 0);
    assert_int_equal(f->el2->nr_tlbi, 1);
    assert_int_equal(f->el2->nr_yields, 1);
    assert_true(el2_flushed(f->el2, VMID, PA));
    assert_int_equal(leaf(f, PA, 3), s2_leaf(PA + HYP_PAGE_SIZE, shared, 3));
}

static void test_annotation_drops_block(void **state)
{
    struct fixture *f = *state;
    uint64_t ipa = PA + 5 * HYP_PAGE_SIZE;

    assert_int_equal(s2_map(&f->pgt, PA, 2 << 20, PA, ATTR, false, NULL), 0);
    leaf(f, PA, 2);
    assert_int_equal(s2_annotate(&f->pgt, ipa, HYP_PAGE_SIZE, S2_TYPE_DONATION, s2_hyp_annotation(), NULL), 1);
    assert_int_equal(leaf(f, ipa, 3), UINT64_C(0x2000000000000002));
    /* The other pages of the block are filled in again on demand. */
    assert_int_equal(leaf(f, PA, 3), 0);
    assert_int_equal(f->el2->nr_yields, 1);
    assert_int_equal(f->el2->tlbi[0].ipa, PA);
    assert_int_equal(f->el2->tlbi[0].nr, 512);
    /* An annotation keeps its tables; without it they go. */
    assert_int_equal(nr_free(f), f->nr_free - 2);
    f->el2->nr_tlbi = 0;
    assert_int_equal(s2_unmap(&f->pgt, ipa, HYP_PAGE_SIZE), 0);
    assert_int_equal(nr_free(f), f->nr_free);
    /* No leaf was live, but a walk cache may hold the tables. */
    assert_int_equal(f->el2->nr_tlbi, 1);
    assert_true(el2_flushed(f->el2, VMID, ipa));
}

static void test_block_over_table(void **state)
{
    struct fixture *f = *state;

    /* Not the first entry, where a free page has its link. */
    assert_int_equal(s2_map(&f->pgt, PA + 5 * HYP_PAGE_SIZE, HYP_PAGE_SIZE, PA, ATTR, false, NULL), 0);
    assert_int_equal(nr_free(f), f->nr_free - 2);
    assert_int_equal(s2_map(&f->pgt, PA, 2 << 20, PA, ATTR, false, NULL), 0);
    leaf(f, PA, 2);
    assert_int_equal(nr_free(f), f->nr_free - 1);
    assert_int_equal(f->el2->nr_yields, 1);
    /* The table that went comes back empty. */
    assert_int_equal(s2_map(&f->pgt, PA + (4 << 20), HYP_PAGE_SIZE, PA, ATTR, false, NULL), 0);
    for (unsigned i = 1; i < S2_ENTRIES; i++)
        assert_int_equal(leaf(f, PA + (4 << 20) + i * HYP_PAGE_SIZE, 3), 0);
    s2_destroy(&f->pgt);
    /* The PGD as well. */
    assert_int_equal(nr_free(f), f->nr_free + hyp_s2_pgd_pages(EL2_IPA_BITS));
}

static void test_annotation_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(s2_annotate(&f->pgt, 0, HYP_PAGE_SIZE, S2_TYPE_NONE, 4, NULL), -HYP_EINVAL);
    assert_int_equal(s2_annotate(&f->pgt, 0, HYP_PAGE_SIZE, S2_TYPE_LOCKED, 4, NULL), -HYP_EINVAL);
    assert_int_equal(s2_annotate(&f->pgt, 0, HYP_PAGE_SIZE, S2_TYPE_DONATION, 5, NULL), -HYP_EINVAL);
    assert_int_equal(s2_annotate(&f->pgt, 0, HYP_PAGE_SIZE, S2_TYPE_DONATION, UINT64_C(1) << 60, NULL), -HYP_EINVAL);
    assert_int_equal(s2_annotate(&f->pgt, UINT64_C(1) << EL2_IPA_BITS, HYP_PAGE_SIZE, S2_TYPE_DONATION, 4, NULL),
                     -HYP_ERANGE);
    assert_int_equal(nr_free(f), f->nr_free);
}

static void test_out_of_tables(void **state)
{
    struct fixture *f = *state;
    struct hyp_memcache mc = {0};

    f->pool.fresh = f->pool.fresh_end;
    assert_int_equal(s2_map(&f->pgt, 0, HYP_PAGE_SIZE, 0, ATTR, false, NULL), -HYP_ENOMEM);
    assert_int_equal(s2_map(&f->pgt, 0, HYP_PAGE_SIZE, 0, ATTR, false, &mc), -HYP_ENOMEM);
    /* The pool is asked first, the memcache pays for the rest. */
    for (unsigned i = 3; i > 0; i--)
        hyp_memcache_push(&f->el2->hyp->mm, &mc, f->pool.fresh_end - i * HYP_PAGE_SIZE);
    assert_int_equal(s2_map(&f->pgt, 0, HYP_PAGE_SIZE, 0, ATTR, false, &mc), 0);
    assert_int_equal(mc.nr_pages, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaf_values),
        cmocka_unit_test(test_annotation_values),
        cmocka_unit_test(test_guest_states),
        cmocka_unit_test(test_geometry),
        cmocka_unit_test_setup_teardown(test_largest_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_force_pte_and_unmap_free_tables, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_second_pgd_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_break_before_make, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_annotation_drops_block, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_block_over_table, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_annotation_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_out_of_tables, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("el2_descriptor", tests, NULL, NULL);
}
