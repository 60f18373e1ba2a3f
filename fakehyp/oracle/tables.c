/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What has changed in the tables.  Each table page that EL2 looked at is held
 * against its copy; a changed entry has to be one that the specification
 * changes, and to have gone through break-before-make.
 */
#include "fakehyp/oracle/state.h"
#include "fakehyp/string.h"

struct side {
    struct oracle *o;
    struct tree *tree;
    struct vm *vm; /* NULL: the host */
};

static bool covers(const struct event *event, uint16_t vmid, uint64_t ipa, uint64_t size)
{
    if (event->kind != EVENT_FLUSH || event->vmid != vmid)
        return false;
    return event->nr == 0 || (event->addr <= ipa && ipa + size <= event->addr + event->nr * HYP_PAGE_SIZE);
}

bool o_flushed(const struct oracle *o, uint16_t vmid, uint64_t ipa, uint64_t size, bool broken)
{
    for (unsigned i = 0; i < o->nr_events; i++)
        if (covers(&o->events[i], vmid, ipa, size) && (!broken || o->events[i].broken || o->events[i].nr == 0))
            return true;
    return false;
}

bool o_flushed_with(const struct oracle *o, uint16_t vmid, uint64_t ipa, uint64_t size, uint64_t pte)
{
    for (unsigned i = 0; i < o->nr_events; i++)
        if (covers(&o->events[i], vmid, ipa, size) && o->events[i].guest == pte)
            return true;
    return false;
}

static bool flushed_within(const struct oracle *o, uint16_t vmid, uint64_t ipa, uint64_t size)
{
    for (unsigned i = 0; i < o->nr_events; i++) {
        const struct event *event = &o->events[i];

        if (event->kind == EVENT_FLUSH && event->vmid == vmid &&
            (event->nr == 0 || (event->addr < ipa + size && ipa < event->addr + event->nr * HYP_PAGE_SIZE)))
            return true;
    }
    return false;
}

/* ---- the host's entries ---- */

static bool host_entry_ok(const struct oracle *o, uint64_t base, int level, uint64_t pte)
{
    uint64_t pfn = base / HYP_PAGE_SIZE, nr = o_granule(level) / HYP_PAGE_SIZE;
    struct range range = o_range_of(o, pfn);
    struct frame frame = o_frame_of(o, pfn);

    if (level == ORACLE_LEAF_LEVEL && frame.host == PKVM_PAGE_NOPAGE)
        return pte == o_lost_entry(o, pfn);
    if (pte != 0 && (level == 0 || pte != o_host_entry(o, base, level)))
        return false;
    if (pte != 0 && (pfn < range.start || nr > range.end - pfn))
        return false;
    for (uint64_t i = 0; level != ORACLE_LEAF_LEVEL && i < nr && o_tracked(o, pfn + i); i++)
        if (o_frame_of(o, pfn + i).host == PKVM_PAGE_NOPAGE)
            return false;
    return true;
}

static void judge_host_entry(struct oracle *o, uint64_t base, int level, uint64_t before, uint64_t now)
{
    struct frame frame = o_frame_of(o, base / HYP_PAGE_SIZE);
    struct leaf was = {base, before, level}, is = {base, now, level}, expected = {base, 0, level};

    if (host_entry_ok(o, base, level, now))
        return;
    if (frame.host == PKVM_PAGE_NOPAGE)
        expected.pte = o_lost_entry(o, base / HYP_PAGE_SIZE);
    o_diverge_leaf(o, "I3: the host's entry is not what its page state asks for", NULL, &was, &expected, &is);
}

void o_judge_host_leaf(struct oracle *o, uint64_t pfn)
{
    struct leaf was, is;

    o_walk(o, &o->host, BEFORE, pfn * HYP_PAGE_SIZE, &was);
    o_walk(o, &o->host, NOW, pfn * HYP_PAGE_SIZE, &is);
    if (is.level == ORACLE_LEAF_LEVEL || o_frame_of(o, pfn).host == PKVM_PAGE_NOPAGE)
        judge_host_entry(o, is.base, is.level, was.pte, is.pte);
}

/* ---- changed entries ---- */

static bool specified(const struct guest_change *change, const struct vm *vm, uint64_t base, int level)
{
    uint64_t gfn = base / HYP_PAGE_SIZE, nr = o_granule(level) / HYP_PAGE_SIZE;

    if (change->what == LEAVES_SAME || change->vm != vm)
        return false;
    /* An attribute call for one page changes the block that it lies in. */
    return change->what == LEAVES_BITS ? gfn < change->gfn + change->nr && change->gfn < gfn + nr
                                       : gfn >= change->gfn && gfn + nr <= change->gfn + change->nr;
}

/* A live translation must be invalid while it is flushed, but for software bits and for what is changed in place. */
static void judge_flush(const struct side *side, uint64_t base, int level, uint64_t before, uint64_t now)
{
    const struct guest_change *change = &side->o->expect.guest;
    struct leaf was = {base, before, level}, is = {base, now, level};
    bool in_place = side->vm && change->what == LEAVES_BITS && specified(change, side->vm, base, level) &&
                    (now & PTE_VALID) && ((before ^ now) & ~(change->set | change->clear)) == 0;

    if (!(before & PTE_VALID) || ((before ^ now) & ~PTE_SOFTWARE) == 0 || (in_place && !change->flush))
        return;
    if (!o_flushed(side->o, side->tree->vmid, base, o_granule(level), !in_place))
        o_diverge_leaf(side->o, "break-before-make: a live entry changed, and no TLBI covers it while it was invalid",
                       side->vm, &was, &is, &is);
}

static void leaf_changed(const struct side *side, uint64_t base, int level, uint64_t before, uint64_t now)
{
    struct oracle *o = side->o;
    struct leaf was = {base, before, level}, is = {base, now, level};

    judge_flush(side, base, level, before, now);
    if (!side->vm)
        judge_host_entry(o, base, level, before, now);
    else if (!specified(&o->expect.guest, side->vm, base, level))
        o_diverge_leaf(o, "a guest's entry changed without cause", side->vm, &was, &was, &is);
}

/* A table is gone: what its leaves said is gone too, or stands in another table now. */
static void forget_table(const struct side *side, uint64_t table, int level, uint64_t ipa)
{
    struct oracle *o = side->o;
    uint64_t *copy = o_copy_of(o, table), base = ipa;

    side->tree->nr_tables--;
    if (!flushed_within(o, side->tree->vmid, ipa, o_granule(level) * ORACLE_ENTRIES))
        o_diverge(o, "a table was freed and no TLBI is within its range", "ipa", ipa, ipa);
    for (unsigned i = 0; i < ORACLE_ENTRIES; i++, base += o_granule(level)) {
        struct leaf now;

        if (o_is_table(copy[i], level)) {
            forget_table(side, copy[i] & PTE_OUTPUT, level + 1, base);
        } else if (copy[i]) {
            o_walk(o, side->tree, NOW, base, &now);
            leaf_changed(side, base, level, copy[i], now.level == level ? now.pte : 0);
        }
    }
}

/* First the tables that are gone: their pages may be others' by now. */
static void drop_tables(const struct side *side, uint64_t table, int level, uint64_t ipa)
{
    uint64_t *copy = o_copy_of(side->o, table);
    const uint64_t *now;

    if (level == ORACLE_LEAF_LEVEL || !o_was_seen(side->o, table))
        return;
    now = o_page_now(side->o, table);
    if (level == ORACLE_LEAF_LEVEL - 1 && memcmp(copy, now, HYP_PAGE_SIZE) == 0)
        return;
    for (unsigned i = 0; i < ORACLE_ENTRIES; i++, ipa += o_granule(level)) {
        if (!o_is_table(copy[i], level))
            continue;
        if (copy[i] == now[i]) {
            drop_tables(side, copy[i] & PTE_OUTPUT, level + 1, ipa);
        } else {
            forget_table(side, copy[i] & PTE_OUTPUT, level + 1, ipa);
            copy[i] = 0;
        }
    }
}

static bool new_table_ok(const struct side *side, uint64_t table)
{
    struct frame frame = o_frame_of(side->o, table / HYP_PAGE_SIZE);

    return o_tracked(side->o, table / HYP_PAGE_SIZE) && frame.el2 == EL2_OWNS &&
           frame.handle == (side->vm ? side->vm->handle : 0);
}

static void judge_use_count(const struct side *side, uint64_t table, const uint64_t *entries)
{
    uint64_t used = 1;

    for (unsigned i = 0; i < ORACLE_ENTRIES; i++)
        used += entries[i] != 0;
    if (side->o->records[table / HYP_PAGE_SIZE - side->o->base_pfn].refcount != used)
        o_diverge(side->o, "a table's count is not 1 and its used entries", "refcount", used,
                  side->o->records[table / HYP_PAGE_SIZE - side->o->base_pfn].refcount);
}

static void compare_table(const struct side *side, uint64_t table, int level, uint64_t ipa, bool fresh)
{
    struct oracle *o = side->o;
    uint64_t *copy = o_copy_of(o, table), base = ipa;
    const uint64_t *now;
    bool differs;

    if (!fresh && !o_was_seen(o, table))
        return;
    now = o_page_now(o, table);
    differs = memcmp(copy, now, HYP_PAGE_SIZE) != 0;
    if (!differs && !fresh) {
        for (unsigned i = 0; level < ORACLE_LEAF_LEVEL && i < ORACLE_ENTRIES; i++)
            if (o_is_table(now[i], level))
                compare_table(side, now[i] & PTE_OUTPUT, level + 1, ipa + i * o_granule(level), false);
        return;
    }
    for (unsigned i = 0; i < ORACLE_ENTRIES; i++, base += o_granule(level)) {
        uint64_t before = copy[i], pte = now[i], below = pte & PTE_OUTPUT;

        copy[i] = pte;
        if (!o_is_table(pte, level)) {
            if (before != pte)
                leaf_changed(side, base, level, before, pte);
            continue;
        }
        if (before == pte) {
            compare_table(side, below, level + 1, base, false);
            continue;
        }
        /* A block gives way to a table, whose entries are judged below. */
        if (before)
            judge_flush(side, base, level, before, 0);
        if (!new_table_ok(side, below)) {
            o_diverge(o, "a table is linked that is no page donated for it", "table", 0, below);
            copy[i] = 0;
            continue;
        }
        memset(o_copy_of(o, below), 0, HYP_PAGE_SIZE);
        side->tree->nr_tables++;
        compare_table(side, below, level + 1, base, true);
    }
    judge_use_count(side, table, now);
}

static void each_root(const struct side *side, bool drop)
{
    int level = (int)o_tree_start_level(side->tree);
    uint64_t span = o_granule(level) * ORACLE_ENTRIES;

    for (uint64_t i = 0; i < o_nr_pgd_pages(side->tree); i++) {
        if (drop)
            drop_tables(side, side->tree->pgd + i * HYP_PAGE_SIZE, level, i * span);
        else
            compare_table(side, side->tree->pgd + i * HYP_PAGE_SIZE, level, i * span, false);
    }
}

void o_compare_tables(struct oracle *o)
{
    struct side sides[2] = {{o, &o->host, NULL}, {o, NULL, NULL}};

    for (int drop = 1; drop >= 0; drop--) {
        each_root(&sides[0], drop);
        for (unsigned i = 0; i < HYP_MAX_VMS; i++) {
            if (!o->vms[i].exists)
                continue;
            sides[1].vm = &o->vms[i];
            sides[1].tree = &o->vms[i].tree;
            each_root(&sides[1], drop);
        }
    }
}

/* ---- taking over ---- */

static void adopt_table(struct oracle *o, struct tree *tree, uint32_t handle, uint64_t table, int level)
{
    uint64_t *copy = o_copy_of(o, table);

    tree->nr_tables++;
    o->frames[table / HYP_PAGE_SIZE - o->base_pfn].handle = handle & 0xffffff;
    memcpy(copy, o_page_now(o, table), HYP_PAGE_SIZE);
    for (unsigned i = 0; level < ORACLE_LEAF_LEVEL && i < ORACLE_ENTRIES; i++)
        if (o_is_table(copy[i], level) && o_tracked(o, (copy[i] & PTE_OUTPUT) / HYP_PAGE_SIZE))
            adopt_table(o, tree, handle, copy[i] & PTE_OUTPUT, level + 1);
}

void o_adopt_tree(struct oracle *o, struct tree *tree, uint32_t handle)
{
    tree->nr_tables = 0;
    for (uint64_t i = 0; i < o_nr_pgd_pages(tree); i++)
        adopt_table(o, tree, handle, tree->pgd + i * HYP_PAGE_SIZE, (int)o_tree_start_level(tree));
}
