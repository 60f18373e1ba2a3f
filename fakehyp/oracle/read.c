/* SPDX-License-Identifier: BSD-2-Clause */
/* The abstraction: what EL2's page records and tables say, decoded from their documented formats. */
#include "fakehyp/oracle/state.h"
#include "fakehyp/string.h"

#define ATTR_NORMAL UINT64_C(6) /* with FWB */
#define ATTR_DEVICE UINT64_C(1)
#define ATTR_AS_STAGE1 UINT64_C(7)
#define INNER_SHAREABLE (UINT64_C(3) << 8)
#define NOBODY_EXECUTES (UINT64_C(2) << 53)
#define STATE_SHIFT 55

/* ---- addresses ---- */

struct range o_range_of(const struct oracle *o, uint64_t pfn)
{
    struct range range = {.start = 0, .end = UINT64_MAX};

    for (unsigned i = 0; i < o->nr_memory; i++) {
        uint64_t first = o->memory[i].base / HYP_PAGE_SIZE, past = first + o->memory[i].size / HYP_PAGE_SIZE;

        if (pfn >= past) {
            range.start = past;
        } else if (pfn >= first) {
            return (struct range){first, past, .memory = true, .nomap = o->memory[i].nomap};
        } else if (first < range.end) {
            range.end = first;
        }
    }
    return range;
}

/* ---- tables ---- */

/* Concatenation: at most 16 tables at the start level, so that a level resolves up to 13 bits there. */
unsigned o_tree_start_level(const struct tree *tree)
{
    unsigned level = 3, bits = 12 + 9 + 4;

    while (bits < tree->ipa_bits) {
        bits += 9;
        level--;
    }
    return level;
}

/* Tables at the start level so that together they cover the IPA space. */
uint64_t o_nr_pgd_pages(const struct tree *tree)
{
    uint64_t span = o_granule((int)o_tree_start_level(tree)) * ORACLE_ENTRIES;
    uint64_t size = UINT64_C(1) << tree->ipa_bits;

    return size <= span ? 1 : size / span;
}

bool o_in_tree(const struct tree *tree, uint64_t gfn, uint64_t nr)
{
    uint64_t limit = UINT64_C(1) << (tree->ipa_bits - HYP_PAGE_SHIFT);

    return gfn < limit && nr <= limit - gfn;
}

void o_walk(const struct oracle *o, const struct tree *tree, enum source source, uint64_t ipa, struct leaf *leaf)
{
    int level = (int)o_tree_start_level(tree);
    /* The tables of the start level are contiguous: their index has more than nine bits. */
    uint64_t index = ipa / o_granule(level), table = tree->pgd + index / ORACLE_ENTRIES * HYP_PAGE_SIZE;

    for (;;) {
        const uint64_t *entries = source == NOW ? o_page_now(o, table) : o_copy_of(o, table);
        uint64_t pte = entries[index % ORACLE_ENTRIES];

        if (!o_is_table(pte, level)) {
            *leaf = (struct leaf){.base = ipa & ~(o_granule(level) - 1), .pte = pte, .level = level};
            return;
        }
        table = pte & PTE_OUTPUT;
        if (!o_tracked(o, table / HYP_PAGE_SIZE)) {
            *leaf = (struct leaf){.base = ipa & ~(o_granule(level) - 1), .pte = pte, .level = level};
            return;
        }
        level++;
        index = ipa / o_granule(level);
    }
}

uint64_t o_output(const struct leaf *leaf, uint64_t ipa)
{
    return (leaf->pte & PTE_OUTPUT) + (ipa - leaf->base) / HYP_PAGE_SIZE * HYP_PAGE_SIZE;
}

static uint64_t page_bit(int level)
{
    return level == ORACLE_LEAF_LEVEL ? PTE_TABLE_OR_PAGE : 0;
}

uint64_t o_host_entry(const struct oracle *o, uint64_t base, int level)
{
    uint64_t common = base | PTE_VALID | page_bit(level) | PTE_READ | INNER_SHAREABLE | PTE_ACCESSED;

    if (o_is_text(o, base / HYP_PAGE_SIZE))
        return common | ATTR_AS_STAGE1 << 2 | NOBODY_EXECUTES;
    common |= PTE_WRITE;
    if (o_range_of(o, base / HYP_PAGE_SIZE).memory)
        return common | ATTR_AS_STAGE1 << 2;
    return common | ATTR_DEVICE << 2 | NOBODY_EXECUTES;
}

uint64_t o_guest_entry(uint64_t phys, uint64_t prot, enum hyp_page_state state, int level)
{
    uint64_t pte = phys | PTE_VALID | page_bit(level) | INNER_SHAREABLE | PTE_ACCESSED | ATTR_NORMAL << 2;

    if (prot & HYP_PROT_R)
        pte |= PTE_READ;
    if (prot & HYP_PROT_W)
        pte |= PTE_WRITE;
    if (!(prot & HYP_PROT_X))
        pte |= NOBODY_EXECUTES;
    return pte | (uint64_t)state << STATE_SHIFT;
}

enum hyp_page_state o_guest_state(uint64_t pte)
{
    if (pte & PTE_VALID)
        return (enum hyp_page_state)(pte >> STATE_SHIFT & 3);
    return pte >> 60 == 3 ? PKVM_PAGE_POISON : PKVM_PAGE_NOPAGE;
}

/* Type 2, the owner's id in bits 3:1, a guest's handle in 19:4 and its gfn in 59:20. */
uint64_t o_lost_entry(const struct oracle *o, uint64_t pfn)
{
    struct frame frame = o_frame_of(o, pfn);

    if (o_is_text(o, pfn))
        return o_host_entry(o, pfn * HYP_PAGE_SIZE, ORACLE_LEAF_LEVEL);
    if (frame.owner == HYP_OWNER_HYP)
        return PTE_OF_EL2;
    return UINT64_C(2) << 60 | (uint64_t)frame.gfn << 20 | (uint64_t)frame.handle << 4 | HYP_OWNER_GUEST << 1;
}

/* ---- page records ---- */

static enum el2_state el2_state_of(const struct hyp_page *record)
{
    switch (record->hyp_state_comp ^ PKVM_PAGE_NOPAGE) {
    case PKVM_PAGE_OWNED:
        return EL2_OWNS;
    case PKVM_PAGE_SHARED_BORROWED:
        return EL2_BORROWS;
    default:
        return EL2_NOTHING;
    }
}

struct frame o_frame_now(const struct oracle *o, uint64_t pfn)
{
    const struct hyp_page *record = &o->records[pfn - o->base_pfn];
    struct frame frame = {
        .host = record->host_state, .el2 = el2_state_of(record) & 3, .count = record->host_share_guest_count};
    struct leaf leaf;

    /* On EL2's own pages the same field counts entries, or the vcpus that are loaded. */
    if (frame.el2 != EL2_OWNS)
        frame.pins = record->refcount;
    if (frame.host != PKVM_PAGE_NOPAGE)
        return frame;
    if (o_is_text(o, pfn)) {
        frame.owner = HYP_OWNER_HYP;
        return frame;
    }
    o_walk(o, &o->host, NOW, pfn * HYP_PAGE_SIZE, &leaf);
    if ((leaf.pte & PTE_VALID) || leaf.pte >> 60 != 2 || leaf.level != ORACLE_LEAF_LEVEL)
        return frame; /* no owner: a divergence, wherever it is looked at */
    frame.owner = leaf.pte >> 1 & 7;
    if (frame.owner == HYP_OWNER_GUEST) {
        frame.handle = leaf.pte >> 4 & 0xffff;
        frame.gfn = leaf.pte >> 20 & ((UINT64_C(1) << 40) - 1);
    } else {
        /* Not in EL2's records: for whom a page was donated is the oracle's own knowledge. */
        frame.handle = o->frames[pfn - o->base_pfn].handle;
    }
    return frame;
}

/* ---- what EL2 read ---- */

static const struct look *find_look(const struct oracle *o, uint64_t page)
{
    for (uint64_t i = page / HYP_PAGE_SIZE;; i++) {
        const struct look *look = &o->looks[i % MAX_LOOKS];

        if (look->epoch != o->epoch)
            return NULL;
        if (look->page == page)
            return look;
    }
}

bool o_was_seen(const struct oracle *o, uint64_t page)
{
    return o->everything || find_look(o, page);
}

void o_seen(const struct oracle *o, uint64_t page, void *out, size_t size)
{
    const struct look *look = find_look(o, page);

    memcpy(out, look ? look->words : o_page_now(o, page), size);
}
