/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that EL2 owns and has no use for at the moment, and EL2's way to reach
 * page contents and page records.  Free pages are linked through their first
 * word, so that a pool needs no memory of its own.
 */
#ifndef FAKEHYP_STAGE2_POOL_H
#define FAKEHYP_STAGE2_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "fakehyp/hyp.h"

/* Contents and records of frames. */
struct hyp_mm {
    struct hyp_platform plat;
    struct hyp_page *vmemmap;
    uint64_t base_pfn, nr_pfns;
};

struct hyp_pool {
    struct hyp_memcache free;  /* zero but for the link word */
    uint64_t fresh, fresh_end; /* physical range that was never used and is not zeroed yet */
};

static inline void *hyp_virt(const struct hyp_mm *mm, uint64_t phys)
{
    if (mm->plat.look)
        mm->plat.look(mm->plat.ctx, phys);
    return hyp_phys_to_virt(&mm->plat, phys);
}

static inline bool hyp_has_page(const struct hyp_mm *mm, uint64_t pfn)
{
    return pfn >= mm->base_pfn && pfn - mm->base_pfn < mm->nr_pfns;
}

static inline struct hyp_page *hyp_page_of(const struct hyp_mm *mm, uint64_t pfn)
{
    return &mm->vmemmap[pfn - mm->base_pfn];
}

static inline void hyp_tlbi(const struct hyp_mm *mm, uint16_t vmid, uint64_t ipa, uint64_t nr_pages)
{
    mm->plat.tlbi(mm->plat.ctx, vmid, ipa, nr_pages);
}

/* The real EL2 would take a BRK here; the platform stops the machine and does not come back. */
_Noreturn void hyp_panic(const struct hyp_mm *mm, const char *what);

void hyp_memcache_push(const struct hyp_mm *mm, struct hyp_memcache *mc, uint64_t phys);
/* 0 when empty. */
uint64_t hyp_memcache_pop(const struct hyp_mm *mm, struct hyp_memcache *mc);

void hyp_zero_page(const struct hyp_mm *mm, uint64_t phys);

/* A zeroed page with refcount 1, from the pool or else from mc (may be NULL); 0 when both are empty. */
uint64_t hyp_pool_alloc(const struct hyp_mm *mm, struct hyp_pool *pool, struct hyp_memcache *mc);
/* Zeroes the page, drops its refcount to 0 and keeps it. */
void hyp_pool_free(const struct hyp_mm *mm, struct hyp_pool *pool, uint64_t phys);

#endif
