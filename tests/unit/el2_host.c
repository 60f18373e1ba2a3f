/* SPDX-License-Identifier: BSD-2-Clause */
/* Boot, the host's stage 2 on demand, and whether hyp_check() sees a broken invariant. */
#include "tests/unit/el2_harness.h"

#include <stdlib.h>
#include <string.h>

static int set_up(void **state)
{
    struct el2 *el2 = el2_new(NULL);

    el2->inner_calls = true;
    *state = el2;
    return 0;
}

static int tear_down(void **state)
{
    el2_free(*state);
    return 0;
}

static int host_level(struct el2 *el2, uint64_t pfn, uint64_t *pte)
{
    struct s2_walk walk;

    s2_walk_leaf(&el2->hyp->host, pfn << 12, &walk);
    *pte = walk.pte;
    return walk.level;
}

static void test_largest_block_in_region(void **state)
{
    struct el2 *el2 = *state;
    uint64_t pte, mmio = UINT64_C(5) << 18; /* a gap without end: 1 GiB blocks */

    /* Far from EL2's pool, inside one region. */
    assert_int_equal(el2_abort(el2, 0, ((EL2_BASE_PFN + 1024 + 7) << 12) + 5, true), HYP_ABORT_RETRY);
    assert_int_equal(host_level(el2, EL2_BASE_PFN + 1024, &pte), 2);
    assert_int_equal(pte, s2_leaf((EL2_BASE_PFN + 1024) << 12, s2_host_memory_attr(), 2));
    assert_int_equal(el2_abort(el2, 0, (EL2_BASE_PFN + 1024) << 12, true), HYP_ABORT_RETRY);
    /* The last region begins in the middle of a block. */
    assert_int_equal(el2_abort(el2, 0, el2->high_pfn << 12, false), HYP_ABORT_RETRY);
    assert_int_equal(host_level(el2, el2->high_pfn, &pte), 3);
    assert_int_equal(pte, s2_leaf(el2->high_pfn << 12, s2_host_memory_attr(), 3));
    /* MMIO and NOMAP memory. */
    assert_int_equal(el2_abort(el2, 0, el2->gap_pfn << 12, true), HYP_ABORT_RETRY);
    assert_int_equal(host_level(el2, el2->gap_pfn, &pte), 3);
    assert_int_equal(pte, s2_leaf(el2->gap_pfn << 12, s2_host_device_attr(), 3));
    assert_int_equal(el2_abort(el2, 0, el2->nomap_pfn << 12, true), HYP_ABORT_RETRY);
    assert_int_equal(el2_abort(el2, 0, mmio << 12, true), HYP_ABORT_RETRY);
    assert_int_equal(host_level(el2, mmio, &pte), 1);
    assert_int_equal(pte, s2_leaf(mmio << 12, s2_host_device_attr(), 1));
    /* EL2's own memory, and beyond the physical address space. */
    assert_int_equal(el2_abort(el2, 0, EL2_BASE_PFN << 12, false), HYP_ABORT_INJECT);
    assert_int_equal(el2_abort(el2, 0, UINT64_C(1) << 36, false), HYP_ABORT_INJECT);
    assert_int_equal(el2->nr_tlbi, 0);
    el2_check(el2);
}

static void test_donation_breaks_block(void **state)
{
    struct el2 *el2 = *state;
    uint64_t pfn = EL2_BASE_PFN + 1024 + 7, pte;

    el2_abort(el2, 0, pfn << 12, true);
    /* A shared page may sit inside a block. */
    assert_int_equal(EL2_CALL(el2, host_share_hyp, pfn), 0);
    assert_int_equal(host_level(el2, pfn, &pte), 2);
    assert_int_equal(EL2_CALL(el2, host_unshare_hyp, pfn), 0);
    assert_int_equal(el2_inner(el2, ORACLE_DONATE_HYP, pfn, 1), 0);
    assert_int_equal(el2->nr_tlbi, 1);
    assert_int_equal(el2->nr_yields, 1);
    assert_int_equal(el2->tlbi[0].nr, 512);
    assert_int_equal(host_level(el2, pfn, &pte), 3);
    assert_int_equal(pte, UINT64_C(0x2000000000000002));
    assert_int_equal(host_level(el2, pfn + 1, &pte), 3);
    assert_int_equal(pte, 0);
    el2_check(el2);
    /* Refaulted as a page: the table is there to stay. */
    el2_abort(el2, 0, (pfn + 1) << 12, true);
    host_level(el2, pfn + 1, &pte);
    assert_int_equal(pte, s2_leaf((pfn + 1) << 12, s2_host_memory_attr(), 3));
    el2->nr_tlbi = 0;
    assert_int_equal(el2_inner(el2, ORACLE_HYP_DONATE_HOST, pfn, 1), 0);
    assert_true(el2_flushed(el2, 0, pfn << 12));
    el2_check(el2);
}

/* The NOMAP region begins with a 2 MiB block and ends within it. */
static void test_no_block_beyond_region(void **state)
{
    struct el2 *el2 = *state;
    uint64_t pte;

    assert_int_equal(el2->nomap_pfn % 512, 0);
    assert_int_equal(el2_abort(el2, 0, el2->nomap_pfn << 12, true), HYP_ABORT_RETRY);
    assert_int_equal(host_level(el2, el2->nomap_pfn, &pte), 3);
    assert_int_equal(pte, s2_leaf(el2->nomap_pfn << 12, s2_host_memory_attr(), 3));
    host_level(el2, el2->gap_pfn, &pte);
    assert_int_equal(pte, 0);
    el2_check(el2);
}

/* MMIO mappings give way when the pool is empty: a donation never fails for lack of a table. */
static void test_mmio_gives_way(void **state)
{
    struct el2 *el2 = *state;
    struct hyp_pool *pool = &el2->hyp->host_pool;
    uint64_t mmio = (EL2_BASE_PFN - 1) << 12, pfn = EL2_BASE_PFN + 1024, pte;

    /* The GiB below RAM is MMIO to the last page, one block; a table for pages of it is made by hand. */
    assert_int_equal(s2_map(&el2->hyp->host, mmio, HYP_PAGE_SIZE, mmio, s2_host_device_attr(), true, NULL), 0);
    pool->fresh_end = pool->fresh;
    pool->free = (struct hyp_memcache){0};
    assert_int_equal(el2_inner(el2, ORACLE_DONATE_HYP, pfn, 1), 0);
    assert_int_equal(host_level(el2, pfn, &pte), 3);
    host_level(el2, mmio >> 12, &pte);
    assert_int_equal(pte, 0);
    el2_check(el2);
    /* And comes back on demand. */
    assert_int_equal(el2_abort(el2, 0, mmio, true), HYP_ABORT_RETRY);
    host_level(el2, mmio >> 12, &pte);
    assert_true(s2_pte_valid(pte));
    el2_check(el2);
}

/* One MMIO mapping makes room for another. */
static void test_mmio_for_mmio(void **state)
{
    struct el2 *el2 = *state;
    struct hyp_pool *pool = &el2->hyp->host_pool;
    uint64_t mmio = (EL2_BASE_PFN - 1) << 12, pte;

    assert_int_equal(s2_map(&el2->hyp->host, mmio, HYP_PAGE_SIZE, mmio, s2_host_device_attr(), true, NULL), 0);
    pool->fresh_end = pool->fresh;
    pool->free = (struct hyp_memcache){0};
    assert_int_equal(el2_abort(el2, 0, el2->gap_pfn << 12, true), HYP_ABORT_RETRY);
    assert_int_equal(host_level(el2, el2->gap_pfn, &pte), 3);
    assert_int_equal(pte, s2_leaf(el2->gap_pfn << 12, s2_host_device_attr(), 3));
    host_level(el2, mmio >> 12, &pte);
    assert_int_equal(pte, 0);
    el2_check(el2);
}

static void test_boot_configurations(void **state)
{
    struct el2 *el2 = *state;
    struct hyp_memory_region memory[2] = {{EL2_BASE_PFN << 12, 2048 << 12, false},
                                          {(EL2_BASE_PFN + 2048) << 12, 2048 << 12, false}};
    const struct hyp_config good = {.plat = el2->hyp->mm.plat,
                                    .memory = memory,
                                    .nr_memory = 2,
                                    .pa_bits = 40,
                                    .vmemmap = calloc(4096, sizeof(struct hyp_page)),
                                    .vmemmap_base_pfn = EL2_BASE_PFN,
                                    .vmemmap_nr = 4096,
                                    .pool_pfn = EL2_BASE_PFN + 1,
                                    .pool_nr = hyp_host_pool_pages(4096),
                                    .nr_cpus = HYP_MAX_CPUS};
    struct hyp *hyp = calloc(1, hyp_state_size());
    struct hyp_config config;

#define BAD(field, value)                                                                                              \
    config = good;                                                                                                     \
    config.field = (value);                                                                                            \
    assert_int_equal(hyp_init(hyp, &config), -HYP_EINVAL)
    BAD(plat.physvirt_offset, good.plat.physvirt_offset + 8);
    BAD(plat.zero_page, NULL);
    BAD(plat.tlbi, NULL);
    BAD(plat.yield, NULL);
    BAD(plat.panic, NULL);
    BAD(memory, NULL);
    BAD(nr_memory, 0);
    BAD(nr_memory, HYP_MAX_REGIONS + 1);
    BAD(pa_bits, 31);
    BAD(pa_bits, 49);
    BAD(vmemmap, NULL);
    BAD(vmemmap_base_pfn, EL2_BASE_PFN + 1);
    BAD(vmemmap_nr, 4095);
    BAD(pool_pfn, EL2_BASE_PFN - 1);
    BAD(pool_pfn, EL2_BASE_PFN + 2048 - 1);
    BAD(pool_pfn, UINT64_MAX);
    BAD(pool_nr, 8);
    /* EL2's code in its pool, in the midst of two regions, and nowhere. */
    config = good;
    config.text_pfn = good.pool_pfn + good.pool_nr - 1;
    config.text_nr = 2;
    assert_int_equal(hyp_init(hyp, &config), -HYP_EINVAL);
    config.text_pfn = EL2_BASE_PFN + 2047;
    assert_int_equal(hyp_init(hyp, &config), -HYP_EINVAL);
    config.text_pfn = UINT64_MAX;
    assert_int_equal(hyp_init(hyp, &config), -HYP_EINVAL);
    BAD(nr_cpus, 0);
    BAD(nr_cpus, HYP_MAX_CPUS + 1);
#undef BAD
    memory[1].base -= HYP_PAGE_SIZE;
    assert_int_equal(hyp_init(hyp, &good), -HYP_EINVAL);
    memory[1].base += 1;
    assert_int_equal(hyp_init(hyp, &good), -HYP_EINVAL);
    memory[1].base = UINT64_C(1) << 40;
    assert_int_equal(hyp_init(hyp, &good), -HYP_EINVAL);
    memory[1].base = (EL2_BASE_PFN + 2048) << 12;
    memory[1].size = 0;
    assert_int_equal(hyp_init(hyp, &good), -HYP_EINVAL);
    memory[1].size = 2048 << 12;
    /* Address 0 ends a list of pages: a page there would be lost when EL2 gives it back. */
    memory[0].base = 0;
    memory[1].base = 2048 << 12;
    config = good;
    config.vmemmap_base_pfn = 0;
    config.pool_pfn = 1;
    assert_int_equal(hyp_init(hyp, &config), -HYP_EINVAL);
    memory[0].base = EL2_BASE_PFN << 12;
    memory[1].base = (EL2_BASE_PFN + 2048) << 12;

    /* NOMAP memory needs no records: it is the host's for ever, and nothing to give. */
    memory[1].nomap = true;
    config = good;
    config.vmemmap_nr = 2048;
    memset(config.vmemmap, 0, 4096 * sizeof(struct hyp_page));
    assert_int_equal(hyp_init(hyp, &config), 0);
    assert_int_equal(pkvm_force_reclaim(hyp, (EL2_BASE_PFN + 2048) << 12), -HYP_EAGAIN);
    assert_int_equal(pkvm_hyp_donate_host(hyp, EL2_BASE_PFN + 2048, 1), -HYP_EPERM);
    assert_int_equal(pkvm_host_share_hyp(hyp, EL2_BASE_PFN + 2048), -HYP_EPERM);
    assert_int_equal(hyp_check(hyp, NULL, NULL), 0);
    memory[1].nomap = false;

    for (unsigned pa_bits = 33; pa_bits <= 48; pa_bits++) {
        struct hyp_vttbr vttbr;

        config = good;
        config.pa_bits = pa_bits;
        memset(config.vmemmap, 0, 4096 * sizeof(struct hyp_page));
        assert_int_equal(hyp_init(hyp, &config), 0);
        hyp_host_vttbr(hyp, &vttbr);
        assert_int_equal(vttbr.pgd % (hyp_s2_pgd_pages(pa_bits) * HYP_PAGE_SIZE), 0);
        assert_int_equal(vttbr.ipa_bits, pa_bits);
        assert_int_equal(vttbr.vmid, 0);
        assert_int_equal(hyp_check(hyp, NULL, NULL), 0);
    }
    assert_true(hyp_vmid_handle(hyp, 0) == 0 && hyp_vmid_handle(hyp, 1) == 0);
    free(good.vmemmap);
    free(hyp);
}

/* Every page of RAM at page granularity out of the pool that hyp_host_pool_pages() asks for, MMIO in between. */
static void test_pool_is_enough(void **state)
{
    struct el2 *el2 = *state;

    el2->check = false; /* once, at the end */
    for (uint64_t pfn = EL2_BASE_PFN + el2->pool_nr; pfn < EL2_BASE_PFN + el2->nr_frames; pfn++) {
        if (hyp_is_allowed_memory(el2->hyp, pfn)) {
            assert_int_equal(pkvm_host_donate_hyp(el2->hyp, pfn, 1), 0);
            el2_abort(el2, 0, pfn << 30 & ((UINT64_C(1) << 36) - 1), true);
        }
    }
    el2_check(el2);
}

static void test_views_refuse(void **state)
{
    struct el2 *el2 = *state;
    struct hyp_frame_info info;
    struct hyp_guest_leaf leaf;
    struct hyp_vttbr vttbr;

    assert_int_equal(hyp_frame_info(el2->hyp, EL2_BASE_PFN - 1, &info), -HYP_EINVAL);
    assert_int_equal(hyp_frame_info(el2->hyp, EL2_BASE_PFN + el2->nr_frames, &info), -HYP_EINVAL);
    assert_int_equal(hyp_frame_info(el2->hyp, el2->gap_pfn, &info), 0);
    assert_int_equal(info.owner, HYP_OWNER_HOST);
    assert_int_equal(hyp_frame_info(el2->hyp, EL2_BASE_PFN, &info), 0);
    assert_int_equal(info.owner, HYP_OWNER_HYP);
    assert_int_equal(hyp_guest_leaf(el2->hyp, 0x1000, 0, &leaf), -HYP_ENOENT);
    assert_int_equal(hyp_vm_vttbr(el2->hyp, 0x1000, &vttbr), -HYP_ENOENT);
    assert_string_equal(hyp_page_state_name(PKVM_PAGE_SHARED_BORROWED), "SHARED_BORROWED");
    assert_string_equal(hyp_page_state_name((enum hyp_page_state)9), "?");
}

/* One kind of damage a row; each must be reported under its rule and repaired without a trace. */
struct damage {
    const char *rule;
    bool found;
};

static void look_for(void *ctx, const char *text)
{
    struct damage *damage = ctx;

    damage->found |= strncmp(text, damage->rule, strlen(damage->rule)) == 0;
}

static void assert_found(struct el2 *el2, const char *rule)
{
    struct damage damage = {.rule = rule};

    assert_true(hyp_check(el2->hyp, look_for, &damage) > 0);
    if (!damage.found)
        fail_msg("%s not reported", rule);
}

#define DAMAGE(el2, lvalue, value, rule)                                                                               \
    do {                                                                                                               \
        __typeof__(lvalue) saved_ = (lvalue);                                                                          \
        (lvalue) = (value);                                                                                            \
        assert_found(el2, rule);                                                                                       \
        (lvalue) = saved_;                                                                                             \
        el2_check(el2);                                                                                                \
    } while (0)

#define DAMAGE_STATE(el2, page, value, rule)                                                                           \
    do {                                                                                                               \
        struct hyp_page saved_ = *(page);                                                                              \
        (page)->host_state = (value);                                                                                  \
        assert_found(el2, rule);                                                                                       \
        *(page) = saved_;                                                                                              \
        el2_check(el2);                                                                                                \
    } while (0)

#define DAMAGE_HYP(el2, page, value, rule)                                                                             \
    do {                                                                                                               \
        struct hyp_page saved_ = *(page);                                                                              \
        (page)->hyp_state_comp = (value) ^ PKVM_PAGE_NOPAGE;                                                           \
        assert_found(el2, rule);                                                                                       \
        *(page) = saved_;                                                                                              \
        el2_check(el2);                                                                                                \
    } while (0)

static void test_check_sees_damage(void **state)
{
    struct el2 *el2 = *state;
    struct hyp *hyp = el2->hyp;
    struct el2_vm pvm, np;
    struct hyp_vm *vm;
    struct s2_walk owned, lent, np_leaf, host, dead;
    uint64_t pfn[4], gfn = 0x40000;

    el2_vm_new(el2, &pvm, true, HYP_UNSHARE_UNILATERAL, 1);
    el2_vm_new(el2, &np, false, HYP_UNSHARE_CONSENT, 1);
    el2_topup(el2, &pvm, 0, 5);
    el2_topup(el2, &np, 0, 5);
    for (unsigned i = 0; i < 4; i++)
        pfn[i] = el2_frames(el2, 1, 1);
    EL2_CALL(el2, vcpu_load, pvm.handle, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(EL2_CALL(el2, host_donate_guest, pfn[i], gfn + i), 0);
    vm = hyp_vm_find(hyp, pvm.handle);
    assert_int_equal(pkvm_guest_share_host(hyp, vm, gfn + 1), 0);
    assert_int_equal(EL2_CALL(el2, force_reclaim_guest_page, pfn[2] << 12), 0);
    EL2_CALL(el2, vcpu_put);
    EL2_CALL(el2, vcpu_load, np.handle, 0);
    assert_int_equal(EL2_CALL(el2, host_share_guest, pfn[3], gfn, 1, 7), 0);
    s2_walk_leaf(&vm->pgt, gfn << 12, &owned);
    s2_walk_leaf(&vm->pgt, (gfn + 1) << 12, &lent);
    s2_walk_leaf(&vm->pgt, (gfn + 2) << 12, &dead);
    s2_walk_leaf(&hyp_vm_find(hyp, np.handle)->pgt, gfn << 12, &np_leaf);
    s2_walk_leaf(&hyp->host, pfn[0] << 12, &host);

    DAMAGE_STATE(el2, hyp_page(hyp, pfn[0]), 9, "I1:");
    DAMAGE_STATE(el2, hyp_page(hyp, pfn[3]), PKVM_PAGE_OWNED, "I2:");
    DAMAGE_STATE(el2, hyp_page(hyp, pfn[0]), PKVM_PAGE_OWNED, "I3:");
    DAMAGE_STATE(el2, hyp_page(hyp, pfn[1]), PKVM_PAGE_OWNED, "I6:");
    DAMAGE(el2, hyp_page(hyp, pfn[2])->refcount, 1, "I2:");
    DAMAGE(el2, hyp_page(hyp, pvm.host_kvm >> 12)->refcount, 0, "I8:");
    DAMAGE(el2, hyp_page(hyp, pvm.host_kvm >> 12)->host_share_guest_count, 1, "I8:");
    DAMAGE(el2, hyp_page(hyp, pfn[3])->host_share_guest_count, 2, "I7:");
    DAMAGE(el2, hyp_page(hyp, pfn[3])->host_share_guest_count, 0, "I7:");
    DAMAGE(el2, hyp_page(hyp, pvm.vm_page >> 12)->refcount, 1, "VM refcount");
    DAMAGE(el2, hyp_page(hyp, pvm.pgd >> 12)->refcount, 9, "table refcount");
    DAMAGE(el2, *owned.ptep[3], 0, "I5:");
    DAMAGE(el2, *owned.ptep[3], S2_PTE_LOCKED, "BBM:");
    DAMAGE(el2, *owned.ptep[3], *lent.ptep[3], "I6:");
    DAMAGE(el2, *owned.ptep[3], *np_leaf.ptep[3], "I11:");
    DAMAGE(el2, *np_leaf.ptep[3], *owned.ptep[3], "I11:");
    DAMAGE(el2, *np_leaf.ptep[3], 0, "I7:");
    DAMAGE(el2, *dead.ptep[3], 0, "I10:");
    DAMAGE(el2, *host.ptep[3], *host.ptep[3] + (UINT64_C(1) << S2_GFN_SHIFT), "I5:");
    DAMAGE(el2, *host.ptep[3], 0, "I3:");
    DAMAGE(el2, *host.ptep[3], UINT64_C(0x2000000000000002), "I4:");
    DAMAGE(el2, *host.ptep[3], s2_leaf(pfn[0] << 12, s2_host_device_attr(), 3), "I12:");
    DAMAGE(el2, vm->nr_mapped, 7, "VM's count");
    /* Each side of each rule, one record at a time. */
    DAMAGE_HYP(el2, hyp_page(hyp, pfn[2]), PKVM_PAGE_OWNED, "I2:");
    DAMAGE_HYP(el2, hyp_page(hyp, pfn[0]), PKVM_PAGE_OWNED, "I4:");
    DAMAGE_HYP(el2, hyp_page(hyp, pfn[0]), PKVM_PAGE_SHARED_BORROWED, "I1:");
    DAMAGE_HYP(el2, hyp_page(hyp, pfn[1]), PKVM_PAGE_SHARED_BORROWED, "I6:");
    DAMAGE_HYP(el2, hyp_page(hyp, pfn[3]), PKVM_PAGE_OWNED, "I8:");
    DAMAGE_HYP(el2, hyp_page(hyp, pvm.host_kvm >> 12), PKVM_PAGE_NOPAGE, "I8:");
    DAMAGE_HYP(el2, hyp_page(hyp, pvm.pgd >> 12), PKVM_PAGE_NOPAGE, "I4:");
    DAMAGE_STATE(el2, hyp_page(hyp, pvm.pgd >> 12), PKVM_PAGE_OWNED, "I4:");
    DAMAGE_STATE(el2, hyp_page(hyp, pvm.host_kvm >> 12), PKVM_PAGE_OWNED, "I8:");
    DAMAGE_STATE(el2, hyp_page(hyp, pfn[0]), PKVM_PAGE_POISON, "I1:");
    DAMAGE(el2, hyp_page(hyp, pfn[0])->refcount, 1, "I1:");
    DAMAGE(el2, hyp_page(hyp, pfn[1])->refcount, 1, "I6:");
    DAMAGE(el2, hyp_page(hyp, pfn[3])->refcount, 1, "I8:");
    DAMAGE(el2, hyp_page(hyp, pfn[0])->host_share_guest_count, 1, "I7:");
    DAMAGE(el2, hyp_page(hyp, pfn[1])->host_share_guest_count, 1, "I6:");
    DAMAGE(el2, hyp_page(hyp, pfn[2])->host_share_guest_count, 1, "I2:");
    DAMAGE(el2, *np_leaf.ptep[3], S2_PTE_POISON, "I11:");
    DAMAGE(el2, *owned.ptep[3], (*owned.ptep[3] & ~S2_PTE_ADDR) | el2->gap_pfn << 12, "I1:");
    DAMAGE(el2, *owned.ptep[3], *owned.ptep[3] + (UINT64_C(64) << 12), "I5:");
    DAMAGE(el2, *owned.ptep[3], *owned.ptep[3] | S2_PTE_STATE_MASK, "I11:");
    DAMAGE(el2, *owned.ptep[3], S2_PTE_POISON, "I5:");
    DAMAGE(el2, *host.ptep[3], S2_PTE_POISON, "I3:");
    DAMAGE(el2, *host.ptep[3], (uint64_t)S2_TYPE_DONATION << S2_TYPE_SHIFT, "I3:");
    DAMAGE(el2, *host.ptep[3], *host.ptep[3] ^ UINT64_C(7) << S2_HANDLE_SHIFT, "I5:");
    DAMAGE(el2, *host.ptep[2], UINT64_C(0x2000000000000002), "I12: annotation above level 3");
    DAMAGE(el2, hyp->host_pool.free.head, HYP_PAGE_SIZE, "I4: list");
    DAMAGE(el2, hyp->cpus[0].loaded->loaded, false, "CPU holds");
    DAMAGE(el2, hyp->cpus[0].loaded->vm->is_dying, true, "vcpu of a dying VM");
    s2_walk_leaf(&hyp->host, el2->gap_pfn << 12, &host);
    DAMAGE(el2, *host.ptep[host.level], s2_leaf(el2->gap_pfn << 12, s2_host_memory_attr(), host.level),
           "I12: leaf outside");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_largest_block_in_region), TEST(test_no_block_beyond_region), TEST(test_donation_breaks_block),
        TEST(test_mmio_gives_way),          TEST(test_mmio_for_mmio),          TEST(test_boot_configurations),
        TEST(test_pool_is_enough),          TEST(test_views_refuse),           TEST(test_check_sees_damage),
    };

    return cmocka_run_group_tests_name("el2_host", tests, NULL, NULL);
}
