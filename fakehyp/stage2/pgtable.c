/* SPDX-License-Identifier: BSD-2-Clause */
#include "fakehyp/stage2/pgtable.h"
#include "fakehyp/mutant.h"

static struct hyp_page *table_page(const struct s2_pgtable *pgt, uint64_t table)
{
    return hyp_page_of(pgt->mm, table >> HYP_PAGE_SHIFT);
}

static uint64_t read_pte(const uint64_t *ptep)
{
    return __atomic_load_n(ptep, __ATOMIC_RELAXED);
}

/* The MMU walks concurrently: an entry becomes visible as a whole, after what it points to. */
static void write_pte(uint64_t *ptep, uint64_t pte)
{
    __atomic_store_n(ptep, pte, __ATOMIC_RELEASE);
}

void s2_init(struct s2_pgtable *pgt, const struct hyp_mm *mm, struct hyp_pool *pool, uint64_t pgd, unsigned ipa_bits,
             uint16_t vmid)
{
    *pgt = (struct s2_pgtable){.mm = mm,
                               .pool = pool,
                               .pgd = pgd,
                               .ipa_bits = ipa_bits,
                               .start_level = (int)hyp_s2_start_level(ipa_bits),
                               .vmid = vmid};
    for (unsigned i = 0; i < hyp_s2_pgd_pages(ipa_bits); i++)
        table_page(pgt, pgd + i * HYP_PAGE_SIZE)->refcount = 1;
}

bool s2_range_ok(const struct s2_pgtable *pgt, uint64_t ipa, uint64_t size)
{
    uint64_t limit = UINT64_C(1) << pgt->ipa_bits;

    return ipa < limit && size <= limit - ipa;
}

bool s2_gfn_range_ok(const struct s2_pgtable *pgt, uint64_t gfn, uint64_t nr_pages)
{
    uint64_t limit = UINT64_C(1) << (pgt->ipa_bits - HYP_PAGE_SHIFT);

    return gfn < limit && nr_pages <= limit - gfn;
}

void s2_walk(const struct s2_pgtable *pgt, uint64_t ipa, int max_level, struct s2_walk *walk)
{
    int level = pgt->start_level;
    unsigned shift = s2_level_shift(level);
    uint64_t table = pgt->pgd + ((ipa >> shift) / S2_ENTRIES << HYP_PAGE_SHIFT);
    uint64_t pte;

    for (;; level++, shift -= 9) {
        uint64_t *ptep = hyp_virt(pgt->mm, table);

        ptep += (ipa >> shift) % S2_ENTRIES;
        pte = read_pte(ptep);
        walk->table[level] = table;
        walk->ptep[level] = ptep;
        if (level >= max_level || (pte & S2_PTE_TYPE_MASK) != S2_PTE_TYPE_MASK)
            break;
        table = pte & S2_PTE_ADDR;
    }
    walk->ipa = ipa;
    walk->level = level;
    walk->pte = pte;
}

static void flush_entry(const struct s2_pgtable *pgt, const struct s2_walk *walk)
{
    uint64_t granule = s2_granule(walk->level);

    hyp_tlbi(pgt->mm, pgt->vmid, walk->ipa & ~(granule - 1), granule >> HYP_PAGE_SHIFT);
}

static void replace(struct s2_pgtable *pgt, const struct s2_walk *walk, uint64_t pte)
{
    uint64_t *ptep = walk->ptep[walk->level];
    uint64_t old = walk->pte;

    if (s2_pte_valid(old)) {
        if (((old ^ pte) & ~S2_PTE_SW_MASK) != 0 && !HYP_MUTANT(NOT_BROKEN)) {
            write_pte(ptep, S2_PTE_LOCKED);
            flush_entry(pgt, walk);
            pgt->mm->plat.yield(pgt->mm->plat.ctx, "s2:bbm");
        }
    } else if (old == 0) {
        table_page(pgt, walk->table[walk->level])->refcount++;
    }
    write_pte(ptep, pte);
}

void s2_replace_leaf(struct s2_pgtable *pgt, const struct s2_walk *walk, uint64_t pte)
{
    replace(pgt, walk, pte);
}

void s2_change_bits(const struct s2_walk *walk, uint64_t set, uint64_t clear)
{
    write_pte(walk->ptep[walk->level], (walk->pte & ~clear) | set);
}

static void free_table(struct s2_pgtable *pgt, uint64_t table, int level)
{
    const uint64_t *entries = hyp_virt(pgt->mm, table);

    for (unsigned i = 0; level < S2_LAST_LEVEL && i < S2_ENTRIES; i++) {
        uint64_t pte = read_pte(&entries[i]);

        if (s2_pte_is_table(pte, level))
            free_table(pgt, pte & S2_PTE_ADDR, level + 1);
    }
    hyp_pool_free(pgt->mm, pgt->pool, table);
}

/*
 * Walks to the entry at `level` and installs the tables that are missing.  A
 * block in the way goes: its other pages stay zero, to be mapped again on
 * demand, which is right for the only table that has such blocks, the host's.
 * 1 if there was a block, else 0, or -ENOMEM.
 */
static int descend(struct s2_pgtable *pgt, uint64_t ipa, int level, struct hyp_memcache *mc, struct s2_walk *walk)
{
    bool dropped = false;

    for (;;) {
        uint64_t table;

        s2_walk(pgt, ipa, level, walk);
        if (walk->level == level)
            return dropped;
        table = hyp_pool_alloc(pgt->mm, pgt->pool, mc);
        if (!table)
            return -HYP_ENOMEM;
        dropped |= s2_pte_valid(walk->pte);
        replace(pgt, walk, table | S2_PTE_TABLE | S2_PTE_VALID);
    }
}

/* The largest leaf that may start at ipa; level 0 has no blocks. */
static int leaf_level(const struct s2_pgtable *pgt, uint64_t ipa, uint64_t phys, uint64_t size, bool force_pte)
{
    int level = pgt->start_level > 1 ? pgt->start_level : 1;

    if (force_pte || size < s2_granule(S2_LAST_LEVEL - 1))
        return S2_LAST_LEVEL;
    while (level < S2_LAST_LEVEL && (size < s2_granule(level) || ((ipa | phys) & (s2_granule(level) - 1)) != 0))
        level++;
    return level;
}

int s2_map(struct s2_pgtable *pgt, uint64_t ipa, uint64_t size, uint64_t phys, uint64_t attr, bool force_pte,
           struct hyp_memcache *mc)
{
    if (!s2_range_ok(pgt, ipa, size))
        return -HYP_ERANGE;
    while (size) {
        int level = leaf_level(pgt, ipa, phys, size, force_pte);
        uint64_t pte = s2_leaf(phys, attr, level);
        struct s2_walk walk;
        int ret = descend(pgt, ipa, level, mc, &walk);

        if (ret < 0)
            return ret;
        if (s2_pte_valid(walk.pte) && ((walk.pte ^ pte) & ~S2_PTE_PERM_MASK) == 0)
            return -HYP_EAGAIN;
        replace(pgt, &walk, pte);
        if (s2_pte_is_table(walk.pte, level))
            free_table(pgt, walk.pte & S2_PTE_ADDR, level + 1);
        ipa += s2_granule(level);
        phys += s2_granule(level);
        size -= s2_granule(level);
    }
    return 0;
}

int s2_annotate(struct s2_pgtable *pgt, uint64_t ipa, uint64_t size, enum s2_invalid_type type, uint64_t annotation,
                struct hyp_memcache *mc)
{
    uint64_t pte = (uint64_t)type << S2_TYPE_SHIFT | annotation;
    int nr_live = 0;

    if (type == S2_TYPE_NONE || type == S2_TYPE_LOCKED || (annotation & (S2_PTE_VALID | S2_TYPE_MASK)) != 0)
        return -HYP_EINVAL;
    if (!s2_range_ok(pgt, ipa, size))
        return -HYP_ERANGE;
    for (uint64_t end = ipa + size; ipa < end; ipa += HYP_PAGE_SIZE) {
        struct s2_walk walk;
        int ret = descend(pgt, ipa, S2_LAST_LEVEL, mc, &walk);

        if (ret < 0)
            return ret;
        nr_live += ret || s2_pte_valid(walk.pte);
        replace(pgt, &walk, pte);
    }
    return nr_live;
}

/*
 * Tables that get empty are unhooked before the flush, which by architecture
 * also drops the walk caches for the IPA, and freed after it.
 */
static void clear_entry(struct s2_pgtable *pgt, const struct s2_walk *walk)
{
    int level = walk->level;

    write_pte(walk->ptep[level], 0);
    while (--table_page(pgt, walk->table[level])->refcount == 1 && level > pgt->start_level)
        write_pte(walk->ptep[--level], 0);
    if ((s2_pte_valid(walk->pte) || level < walk->level) && !HYP_MUTANT(NOT_FLUSHED))
        flush_entry(pgt, walk);
    for (int freed = walk->level; freed > level; freed--)
        hyp_pool_free(pgt->mm, pgt->pool, walk->table[freed]);
}

int s2_unmap(struct s2_pgtable *pgt, uint64_t ipa, uint64_t size)
{
    struct s2_walk walk;

    if (!s2_range_ok(pgt, ipa, size))
        return -HYP_ERANGE;
    for (uint64_t end = ipa + size; ipa < end; ipa = s2_walk_next(&walk)) {
        s2_walk_leaf(pgt, ipa, &walk);
        if (walk.pte)
            clear_entry(pgt, &walk);
    }
    return 0;
}

void s2_destroy(struct s2_pgtable *pgt)
{
    for (unsigned i = 0; i < hyp_s2_pgd_pages(pgt->ipa_bits); i++)
        free_table(pgt, pgt->pgd + i * HYP_PAGE_SIZE, pgt->start_level);
}
