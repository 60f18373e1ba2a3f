/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stage-2 page tables: levels 0..3, concatenated tables at the start level.
 *
 * hyp_page.refcount of a table page is 1 plus the number of its non-zero
 * entries: annotations keep a table alive, as they are the only record of an
 * owner.  A valid entry changes by break-before-make only, but for its software
 * bits, which hardware does not look at.
 */
#ifndef FAKEHYP_STAGE2_PGTABLE_H
#define FAKEHYP_STAGE2_PGTABLE_H

#include "fakehyp/stage2/descriptor.h"
#include "fakehyp/stage2/pool.h"

struct s2_pgtable {
    const struct hyp_mm *mm;
    struct hyp_pool *pool; /* tables come from here and go back to it */
    uint64_t pgd;
    unsigned ipa_bits;
    int start_level;
    uint16_t vmid;
};

/* Where the walk for an IPA ended: entry and table of each level from the start level to `level`. */
struct s2_walk {
    uint64_t ipa;
    uint64_t pte;
    int level;
    uint64_t *ptep[S2_LAST_LEVEL + 1];
    uint64_t table[S2_LAST_LEVEL + 1];
};

/* The PGD pages must be zeroed, aligned to their size and owned by EL2. */
void s2_init(struct s2_pgtable *pgt, const struct hyp_mm *mm, struct hyp_pool *pool, uint64_t pgd, unsigned ipa_bits,
             uint16_t vmid);

/* False when [ipa, ipa + size) does not fit into the IPA space (the callers' ERANGE). */
static inline bool s2_range_ok(const struct s2_pgtable *pgt, uint64_t ipa, uint64_t size)
{
    uint64_t limit = UINT64_C(1) << pgt->ipa_bits;

    return ipa < limit && size <= limit - ipa;
}

static inline bool s2_gfn_range_ok(const struct s2_pgtable *pgt, uint64_t gfn, uint64_t nr_pages)
{
    uint64_t limit = UINT64_C(1) << (pgt->ipa_bits - HYP_PAGE_SHIFT);

    return gfn < limit && nr_pages <= limit - gfn;
}

/* Walks to the leaf or invalid entry for ipa, not below max_level.  The IPA must be in range. */
void s2_walk(const struct s2_pgtable *pgt, uint64_t ipa, int max_level, struct s2_walk *walk);

static inline void s2_walk_leaf(const struct s2_pgtable *pgt, uint64_t ipa, struct s2_walk *walk)
{
    s2_walk(pgt, ipa, S2_LAST_LEVEL, walk);
}

/* First IPA after the entry at which a walk ended. */
static inline uint64_t s2_walk_next(const struct s2_walk *walk)
{
    return (walk->ipa | (s2_granule(walk->level) - 1)) + 1;
}

/*
 * Maps [ipa, ipa + size) to phys with the largest blocks that fit, or pages
 * only with force_pte.  Tables come from the pool, then from mc (may be NULL).
 * -ENOMEM without tables, -ERANGE, -EAGAIN when a leaf is there already and
 * differs in its permissions at most.
 */
int s2_map(struct s2_pgtable *pgt, uint64_t ipa, uint64_t size, uint64_t phys, uint64_t attr, bool force_pte,
           struct hyp_memcache *mc);

/*
 * Makes `pte` the entry of the page at ipa, which must be in range; a block that is in the way is dropped, not split.
 * 1 when a live translation was there, which is flushed unless it stays the same, 0 when there was none, or -ENOMEM.
 */
int s2_set_page(struct s2_pgtable *pgt, uint64_t ipa, uint64_t pte, struct hyp_memcache *mc);

/*
 * Writes an invalid entry with a type at every page of the range; a block that
 * is in the way is dropped, not split.  Returns the number of pages for which a
 * live translation was flushed, or -EINVAL, -ERANGE, -ENOMEM.
 */
int s2_annotate(struct s2_pgtable *pgt, uint64_t ipa, uint64_t size, enum s2_invalid_type type, uint64_t annotation,
                struct hyp_memcache *mc);

/* Removes every entry that the range touches, whole blocks included, and the tables that get empty. */
int s2_unmap(struct s2_pgtable *pgt, uint64_t ipa, uint64_t size);

/* Replaces the leaf at which a walk ended by another non-zero entry. */
void s2_replace_leaf(struct s2_pgtable *pgt, const struct s2_walk *walk, uint64_t pte);

/* The MMU walks concurrently: an entry becomes visible as a whole, after what it points to. */
static inline void s2_write_pte(uint64_t *ptep, uint64_t pte)
{
    __atomic_store_n(ptep, pte, __ATOMIC_RELEASE);
}

/* Sets and clears bits of the leaf in place; the caller decides about TLB maintenance. */
static inline void s2_change_bits(const struct s2_walk *walk, uint64_t set, uint64_t clear)
{
    s2_write_pte(walk->ptep[walk->level], (walk->pte & ~clear) | set);
}

/* Frees all tables, the PGD included, into the pool. */
void s2_destroy(struct s2_pgtable *pgt);

#endif
