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

/* Whoever watches EL2 is told at the end of a walk which tables it was through. */
static void show_walk(const struct s2_pgtable *pgt, const struct s2_walk *walk)
{
    for (int level = pgt->start_level; level <= walk->level; level++)
        pgt->mm->plat.look(pgt->mm->plat.ctx, walk->table[level]);
}

/* `inline` is advice for this file: the header declares it as any other function. */
inline void s2_walk(const struct s2_pgtable *pgt, uint64_t ipa, int max_level, struct s2_walk *walk)
{
    int level = pgt->start_level;
    unsigned shift = s2_level_shift(level);
    uint64_t table = pgt->pgd + ((ipa >> shift) / S2_ENTRIES << HYP_PAGE_SHIFT);
    uint64_t pte;

    for (;; level++, shift -= 9) {
        uint64_t *ptep = hyp_phys_to_virt(&pgt->mm->plat, table);

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
    if (pgt->mm->plat.look)
        show_walk(pgt, walk);
}

static void flush_entry(const struct s2_pgtable *pgt, const struct s2_walk *walk)
{
    uint64_t granule = s2_granule(walk->level);

    hyp_tlbi(pgt->mm, pgt->vmid, walk->ipa & ~(granule - 1), granule >> HYP_PAGE_SHIFT);
}

static void break_entry(const struct s2_pgtable *pgt, const struct s2_walk *walk)
{
    s2_write_pte(walk->ptep[walk->level], S2_PTE_LOCKED);
    flush_entry(pgt, walk);
    pgt->mm->plat.yield(pgt->mm->plat.ctx, "s2:bbm");
}

static inline void replace(struct s2_pgtable *pgt, const struct s2_walk *walk, uint64_t pte)
{
    uint64_t old = walk->pte;

    if (s2_pte_valid(old)) {
        if (((old ^ pte) & ~S2_PTE_SW_MASK) != 0 && !HYP_MUTANT(NOT_BROKEN))
            break_entry(pgt, walk);
    } else if (old == 0) {
        table_page(pgt, walk->table[walk->level])->refcount++;
    }
    s2_write_pte(walk->ptep[walk->level], pte);
}

void s2_replace_leaf(struct s2_pgtable *pgt, const struct s2_walk *walk, uint64_t pte)
{
    replace(pgt, walk, pte);
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
 * Installs the tables between the end of a walk and the entry at `level`, and walks there.  A
 * block in the way goes: its other pages stay zero, to be mapped again on
 * demand, which is right for the only table that has such blocks, the host's.
 * 1 if there was a block, else 0, or -ENOMEM.
 */
static int add_tables(struct s2_pgtable *pgt, uint64_t ipa, int level, struct hyp_memcache *mc, struct s2_walk *walk)
{
    bool dropped = false;

    while (walk->level != level) {
        uint64_t table = hyp_pool_alloc(pgt->mm, pgt->pool, mc);

        if (!table)
            return -HYP_ENOMEM;
        dropped |= s2_pte_valid(walk->pte);
        replace(pgt, walk, table | S2_PTE_TABLE | S2_PTE_VALID);
        s2_walk(pgt, ipa, level, walk);
    }
    return dropped;
}

/* Walks to the entry at `level`, whatever is in the way; the results of add_tables(). */
static inline int descend(struct s2_pgtable *pgt, uint64_t ipa, int level, struct hyp_memcache *mc,
                          struct s2_walk *walk)
{
    s2_walk(pgt, ipa, level, walk);
    return walk->level == level ? 0 : add_tables(pgt, ipa, level, mc, walk);
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

int s2_set_page(struct s2_pgtable *pgt, uint64_t ipa, uint64_t pte, struct hyp_memcache *mc)
{
    struct s2_walk walk;
    int dropped = descend(pgt, ipa, S2_LAST_LEVEL, mc, &walk);

    if (dropped < 0)
        return dropped;
    replace(pgt, &walk, pte);
    return dropped || s2_pte_valid(walk.pte);
}

int s2_annotate(struct s2_pgtable *pgt, uint64_t ipa, uint64_t size, enum s2_invalid_type type, uint64_t annotation,
                struct hyp_memcache *mc)
{
    int nr_live = 0;

    if (type == S2_TYPE_NONE || type == S2_TYPE_LOCKED || (annotation & (S2_PTE_VALID | S2_TYPE_MASK)) != 0)
        return -HYP_EINVAL;
    if (!s2_range_ok(pgt, ipa, size))
        return -HYP_ERANGE;
    for (uint64_t end = ipa + size; ipa < end; ipa += HYP_PAGE_SIZE) {
        int ret = s2_set_page(pgt, ipa, s2_annotation(type, annotation), mc);

        if (ret < 0)
            return ret;
        nr_live += ret;
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

    s2_write_pte(walk->ptep[level], 0);
    while (--table_page(pgt, walk->table[level])->refcount == 1 && level > pgt->start_level)
        s2_write_pte(walk->ptep[--level], 0);
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
