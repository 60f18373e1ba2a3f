/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's stage 2: an identity map that fills on demand.  A zero entry means
 * "the host's, not mapped yet", so it can be dropped at any time; an annotation
 * is the record of another owner.
 *
 * The boot check of the pool's size (hyp_host_tables) makes room for every RAM
 * page to have a leaf of its own, and mappings of MMIO give way when tables run
 * out.  Hence a change of ownership never lacks a table.
 */
#include "fakehyp/pkvm/internal.h"

/* Host and MMU take notice of a change at the frame, also where no live translation was replaced. */
static void notify(const struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    hyp_tlbi(&hyp->mm, hyp->host.vmid, hyp_pfn_to_phys(pfn), nr);
}

static void unmap_devices(struct hyp *hyp)
{
    uint64_t end = UINT64_C(1) << (hyp->pa_bits - HYP_PAGE_SHIFT);
    struct hyp_pfn_range range;

    for (uint64_t pfn = 0; pfn < end; pfn = range.end) {
        hyp_find_range(hyp, pfn, &range);
        if (range.end > end)
            range.end = end;
        if (!range.region)
            s2_unmap(&hyp->host, hyp_pfn_to_phys(pfn), hyp_pfn_to_phys(range.end - pfn));
    }
}

/* True when a live translation was there; break-before-make has flushed it unless it stays the same. */
static inline bool set_page(struct hyp *hyp, uint64_t pfn, uint64_t pte)
{
    uint64_t phys = hyp_pfn_to_phys(pfn);
    int ret = s2_set_page(&hyp->host, phys, pte, NULL);

    if (ret == -HYP_ENOMEM) {
        unmap_devices(hyp);
        ret = s2_set_page(&hyp->host, phys, pte, NULL);
    }
    hyp_warn_on(hyp, ret < 0, "host stage 2: no table for a page's entry");
    return ret;
}

void hyp_host_annotate(struct hyp *hyp, uint64_t pfn, uint64_t nr, uint64_t annotation)
{
    for (uint64_t i = 0; i < nr; i++)
        if (!set_page(hyp, pfn + i, s2_annotation(S2_TYPE_DONATION, annotation)))
            notify(hyp, pfn + i, 1);
}

void hyp_host_map(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++) {
        uint64_t leaf = s2_leaf(hyp_pfn_to_phys(pfn + i), s2_host_memory_attr(), S2_LAST_LEVEL);

        /* The leaf is there already when a guest had shared the page. */
        set_page(hyp, pfn + i, leaf);
    }
    notify(hyp, pfn, nr);
}

uint64_t hyp_host_leaf(const struct hyp *hyp, uint64_t pfn)
{
    struct s2_walk walk;

    if (!s2_gfn_range_ok(&hyp->host, pfn, 1))
        return 0;
    s2_walk_leaf(&hyp->host, hyp_pfn_to_phys(pfn), &walk);
    return walk.pte;
}

/* The largest block from `level` downward that lies inside the region or gap: a zero entry has no table below it. */
static int map_on_demand(struct hyp *hyp, uint64_t phys, int level)
{
    uint64_t pfn = phys >> HYP_PAGE_SHIFT, nr, base;
    struct hyp_pfn_range range;
    uint64_t attr;

    hyp_find_range(hyp, pfn, &range);
    attr = range.region ? s2_host_memory_attr() : s2_host_device_attr();
    for (level = level < 1 ? 1 : level;; level++) {
        nr = s2_granule(level) >> HYP_PAGE_SHIFT;
        base = pfn & ~(nr - 1);
        if (level == S2_LAST_LEVEL || (base >= range.start && base + nr <= range.end))
            break;
    }
    base = hyp_pfn_to_phys(base);
    return s2_map(&hyp->host, base, s2_granule(level), base, attr, false, NULL);
}

/* A guest's memory, and the VM is run as it was before EL2 injected aborts. */
static bool is_fatal(const struct hyp *hyp, uint64_t pte)
{
    const struct hyp_vm *vm;

    if (s2_annotation_type(pte) != S2_TYPE_DONATION || s2_annotation_owner(pte) != HYP_OWNER_GUEST)
        return false;
    vm = hyp_vm_find(hyp, s2_annotation_handle(pte));
    return vm && vm->errant_panics;
}

enum hyp_abort hyp_host_abort(struct hyp *hyp, unsigned cpu, uint64_t phys, bool is_write)
{
    struct s2_walk walk;
    int ret;

    /* A write to EL2's code faults for ever, as in the kernel: its leaf is valid. */
    (void)cpu;
    (void)is_write;
    if (!s2_range_ok(&hyp->host, phys, 1))
        return HYP_ABORT_INJECT;
    s2_walk_leaf(&hyp->host, phys, &walk);
    if (s2_pte_valid(walk.pte))
        return HYP_ABORT_RETRY;
    if (walk.pte) {
        if (is_fatal(hyp, walk.pte))
            hyp_panic(&hyp->mm, "host access to protected memory");
        return HYP_ABORT_INJECT;
    }
    ret = map_on_demand(hyp, phys, walk.level);
    if (ret == -HYP_ENOMEM) {
        unmap_devices(hyp);
        s2_walk_leaf(&hyp->host, phys, &walk);
        ret = map_on_demand(hyp, phys, walk.level);
    }
    hyp_warn_on(hyp, ret != 0, "host stage 2: abort cannot be resolved");
    return HYP_ABORT_RETRY;
}

uint64_t hyp_inject_esr(uint64_t esr_el2, bool from_el1)
{
    uint64_t ec = ESR_EC(esr_el2);

    /* "Same level" is the next class, of instruction and of data aborts. */
    if (from_el1 && (ec == ESR_EC_IABT_LOW || ec == ESR_EC_DABT_LOW))
        esr_el2 += UINT64_C(1) << ESR_EC_SHIFT;
    return esr_el2 | ESR_S1PTW;
}

uint64_t hyp_host_tables(const struct hyp_memory_region *memory, unsigned nr_memory, unsigned pa_bits)
{
    int start_level = (int)hyp_s2_start_level(pa_bits);
    uint64_t nr = hyp_s2_pgd_pages(pa_bits) + hyp_s2_min_pages(pa_bits);

    for (unsigned i = 0; i < nr_memory; i++) {
        uint64_t last = memory[i].base + memory[i].size - 1;

        for (int level = start_level + 1; level <= S2_LAST_LEVEL; level++) {
            unsigned shift = s2_level_shift(level - 1);

            nr += (last >> shift) - (memory[i].base >> shift) + 1;
        }
    }
    return nr;
}

uint64_t hyp_host_pool_pages(uint64_t nr_pages)
{
    uint64_t nr = 2 * 16 - 1 + S2_LAST_LEVEL; /* PGD with its alignment, and tables for one MMIO mapping */

    /* Each region may begin and end in the middle of a table, at each level. */
    for (int level = S2_LAST_LEVEL; level > 0; level--)
        nr += (nr_pages >> (9 * (S2_LAST_LEVEL + 1 - level))) + 2 * HYP_MAX_REGIONS;
    return nr;
}
