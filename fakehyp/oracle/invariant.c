/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The invariants I1 to I12 over the recorded state, which was compared with
 * EL2's before.  I13 (a call that fails changes nothing) and I14 (contents) are
 * about calls, and judged with each.
 */
#include "fakehyp/oracle/state.h"

static void broken(struct oracle *o, const char *rule, const char *name, uint64_t value)
{
    o_diverge(o, rule, name, 0, value);
}

/* ---- frames ---- */

/* I5 and I6 from the host's side. */
static void check_guest_has(struct oracle *o, uint64_t pfn, const struct frame *frame)
{
    struct vm *vm = o_vm_of(o, frame->handle);
    struct leaf leaf;

    if (!vm || !o_in_tree(&vm->tree, frame->gfn, 1)) {
        broken(o, "I5: a page has a guest as owner that does not exist", "pfn", pfn);
        return;
    }
    o_walk(o, &vm->tree, BEFORE, frame->gfn * HYP_PAGE_SIZE, &leaf);
    if (leaf.level != ORACLE_LEAF_LEVEL || o_guest_state(leaf.pte) != PKVM_PAGE_OWNED ||
        (leaf.pte & PTE_OUTPUT) / HYP_PAGE_SIZE != pfn)
        broken(o, "I5: the owner of a page does not map it", "pfn", pfn);
}

static void check_frame(struct oracle *o, uint64_t pfn, const struct frame *frame)
{
    bool alone = frame->count == 0 && frame->pins == 0;

    switch (frame->host) {
    case PKVM_PAGE_OWNED:
        if (frame->el2 != EL2_NOTHING || !alone)
            broken(o, "I2: the host's own page is somebody else's too", "pfn", pfn);
        break;
    case PKVM_PAGE_SHARED_OWNED:
        if (frame->el2 == EL2_OWNS || (frame->el2 == EL2_BORROWS && frame->count) ||
            (frame->el2 == EL2_NOTHING && frame->pins))
            broken(o, "I8: shared with EL2 and with a guest, or pinned by nobody", "pfn", pfn);
        break;
    case PKVM_PAGE_SHARED_BORROWED:
        if (frame->el2 != EL2_NOTHING || !alone)
            broken(o, "I6: the host borrows a page that EL2 has", "pfn", pfn);
        break;
    case PKVM_PAGE_NOPAGE:
        if (frame->count || (frame->el2 == EL2_OWNS) != (frame->owner == HYP_OWNER_HYP) ||
            frame->owner == HYP_OWNER_HOST || frame->el2 == EL2_BORROWS)
            broken(o, "I3, I4: a page that is not the host's has no owner, or two", "pfn", pfn);
        else if (frame->owner == HYP_OWNER_GUEST)
            check_guest_has(o, pfn, frame);
        break;
    default:
        broken(o, "I1: the host has the page in no state", "pfn", pfn);
    }
}

/* ---- guests ---- */

struct guests {
    struct vm *vm;
    uint64_t nr_mapped;
    uint64_t lent; /* leaves of protected guests that the host borrows */
};

static void check_leaf(struct oracle *o, struct guests *g, const struct leaf *leaf)
{
    uint64_t pfn = (leaf->pte & PTE_OUTPUT) / HYP_PAGE_SIZE, nr = o_granule(leaf->level) / HYP_PAGE_SIZE;
    uint64_t gfn = leaf->base / HYP_PAGE_SIZE;
    enum hyp_page_state state = o_guest_state(leaf->pte);
    struct frame frame = o_frame_of(o, pfn);

    if (!(leaf->pte & PTE_VALID)) {
        if (leaf->pte != PTE_POISONED || !g->vm->is_protected || leaf->level != ORACLE_LEAF_LEVEL)
            broken(o, "I11, I12: an invalid entry of a guest that is not a poisoned page", "gfn", gfn);
        return;
    }
    g->nr_mapped += nr;
    if (o_check_memory(o, pfn, nr)) {
        broken(o, "I1: a guest maps what is not memory", "gfn", gfn);
        return;
    }
    if (!g->vm->is_protected) {
        if (state != PKVM_PAGE_SHARED_BORROWED)
            broken(o, "I11: an np-guest has more than it borrows", "gfn", gfn);
        /* Taken off here and put back by count_back(): each count must come out at 0 in between. */
        for (uint64_t i = 0; i < nr; i++)
            o->frames[pfn + i - o->base_pfn].count--;
        return;
    }
    if (leaf->level != ORACLE_LEAF_LEVEL)
        broken(o, "I11: a protected guest has a block", "gfn", gfn);
    if (state == PKVM_PAGE_OWNED && (frame.host != PKVM_PAGE_NOPAGE || frame.owner != HYP_OWNER_GUEST ||
                                     frame.handle != g->vm->handle || frame.gfn != gfn))
        broken(o, "I5: a guest owns a page that has another owner", "gfn", gfn);
    else if (state == PKVM_PAGE_SHARED_OWNED && frame.host != PKVM_PAGE_SHARED_BORROWED)
        broken(o, "I6: a guest lends a page that the host does not borrow", "gfn", gfn);
    else if (state != PKVM_PAGE_OWNED && state != PKVM_PAGE_SHARED_OWNED)
        broken(o, "I11: a protected guest borrows", "gfn", gfn);
    g->lent += state == PKVM_PAGE_SHARED_OWNED;
}

static void count_back(struct oracle *o, struct guests *g, const struct leaf *leaf)
{
    uint64_t pfn = (leaf->pte & PTE_OUTPUT) / HYP_PAGE_SIZE, nr = o_granule(leaf->level) / HYP_PAGE_SIZE;

    if (!(leaf->pte & PTE_VALID) || g->vm->is_protected || o_check_memory(o, pfn, nr))
        return;
    for (uint64_t i = 0; i < nr; i++)
        o->frames[pfn + i - o->base_pfn].count++;
}

typedef void leaf_fn(struct oracle *o, struct guests *g, const struct leaf *leaf);

static void each_leaf(struct oracle *o, struct guests *g, uint64_t table, int level, uint64_t ipa, leaf_fn *fn)
{
    const uint64_t *copy = o_copy_of(o, table);

    for (unsigned i = 0; i < ORACLE_ENTRIES; i++, ipa += o_granule(level)) {
        if (o_is_table(copy[i], level))
            each_leaf(o, g, copy[i] & PTE_OUTPUT, level + 1, ipa, fn);
        else if (copy[i])
            fn(o, g, &(struct leaf){ipa, copy[i], level});
    }
}

static void each_guest(struct oracle *o, struct guests *g, leaf_fn *fn)
{
    for (unsigned v = 0; v < HYP_MAX_VMS; v++) {
        const struct tree *tree = &o->vms[v].tree;

        if (!o->vms[v].exists)
            continue;
        g->vm = &o->vms[v];
        g->nr_mapped = 0;
        for (uint64_t i = 0; i < o_nr_pgd_pages(tree); i++)
            each_leaf(o, g, tree->pgd + i * HYP_PAGE_SIZE, (int)o_tree_start_level(tree),
                      i * ORACLE_ENTRIES * o_granule((int)o_tree_start_level(tree)), fn);
        if (fn == check_leaf && g->nr_mapped != g->vm->nr_mapped)
            broken(o, "the guest's pages are not as many as were mapped", "handle", g->vm->handle);
    }
}

/* The first frame from i on that may be other than plain. */
static uint64_t next_used(const struct oracle *o, uint64_t i)
{
    while (i < o->nr_frames && !o->used[i / CHUNK])
        i = (i / CHUNK + 1) * CHUNK;
    return i;
}

void o_check_invariants(struct oracle *o)
{
    struct guests g = {.vm = NULL};
    uint64_t borrowed = 0;

    for (uint64_t i = next_used(o, 0); i < o->nr_frames; i = next_used(o, i + 1)) {
        const struct frame *frame = &o->frames[i];

        if (frame->host || frame->el2 || frame->count || frame->pins)
            check_frame(o, o->base_pfn + i, frame);
        borrowed += frame->host == PKVM_PAGE_SHARED_BORROWED;
    }
    each_guest(o, &g, check_leaf);
    for (uint64_t i = next_used(o, 0); i < o->nr_frames; i = next_used(o, i + 1))
        if (o->frames[i].count)
            broken(o, "I7: the share count is not the number of guest leaves", "pfn", o->base_pfn + i);
    each_guest(o, &g, count_back);
    if (borrowed != g.lent)
        o_diverge(o, "I6: the host borrows more or fewer pages than guests lend", "pages", g.lent, borrowed);
}
