/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/tracker.h"

#include "src/host/driver.h"

#include <errno.h>

static uint64_t initial(const struct gmem *g)
{
    return g->flags & GUEST_MEMFD_FLAG_INIT_SHARED ? ATTR_SHARED : ATTR_PRIVATE;
}

/* ---- inode: a tree over all offsets ---------------------------------------------------------------------------- */

static struct range inode_range(const struct gmem *g, uint64_t index)
{
    return rangemap_get(&g->attr, index);
}

static int inode_reserve(struct gmem *g)
{
    return rangemap_reserve(&g->attr);
}

static void inode_set(struct gmem *g, uint64_t start, uint64_t end, uint64_t value)
{
    rangemap_set(&g->attr, start, end, value);
}

/* ---- vm: the attributes of the VM that created the file -------------------------------------------------------- */

static struct vm *creator(const struct gmem *g)
{
    struct vm *vm = g->host->vms;
    while (vm && vm->id != g->vm_id)
        vm = vm->next;
    return vm;
}

/* Where nothing is bound, or the VM is gone, nobody knows: what the file began with. */
static struct range vm_range(const struct gmem *g, uint64_t index)
{
    struct range gap = {0, g->nr_pages, initial(g)};
    const struct vm *vm = creator(g);
    for (const struct memslot_link *l = vm ? g->bindings : NULL; l; l = l->next) {
        const struct memslot *s = l->slot;
        if (l->vm != vm)
            continue;
        if (index >= s->index && index - s->index < s->nr_pages) {
            struct range r = rangemap_first(&vm->attr, s->gfn, s->gfn + s->nr_pages);
            while (r.end <= s->gfn + (index - s->index))
                r = rangemap_next(&vm->attr, r, s->gfn + s->nr_pages);
            return (struct range){s->index + (r.start - s->gfn), s->index + (r.end - s->gfn), r.value};
        }
        if (s->index > index && s->index < gap.end)
            gap.end = s->index;
        if (s->index + s->nr_pages <= index && s->index + s->nr_pages > gap.start)
            gap.start = s->index + s->nr_pages;
    }
    return gap;
}

static int vm_reserve(struct gmem *g)
{
    struct vm *vm = creator(g);
    return vm ? rangemap_reserve(&vm->attr) : 0;
}

static void vm_set(struct gmem *g, uint64_t start, uint64_t end, uint64_t value)
{
    struct vm *vm = creator(g);
    for (const struct memslot_link *l = vm ? g->bindings : NULL; l; l = l->next) {
        const struct memslot *s = l->slot;
        uint64_t from = start > s->index ? start : s->index, to = s->index + s->nr_pages;
        if (to > end)
            to = end;
        if (l->vm != vm || from >= to)
            continue;
        while (rangemap_reserve(&vm->attr))
            sched_relax();
        rangemap_set(&vm->attr, s->gfn + (from - s->index), s->gfn + (to - s->index), value);
    }
}

int vm_attributes_init(struct vm *vm)
{
    uint64_t nr = UINT64_C(1) << (vm->config.ipa_bits - HOST_PAGE_SHIFT);
    int rc = vm->config.tracker == GMEM_TRACKER_VM ? rangemap_init(&vm->attr, nr, ATTR_SHARED) : 0;
    if (!rc && vm->driver->guest_marks_shared) {
        rc = rangemap_init(&vm->marked, nr, 0);
        if (rc)
            vm_attributes_destroy(vm);
    }
    return rc;
}

void vm_attributes_destroy(struct vm *vm)
{
    if (vm->attr.size)
        rangemap_destroy(&vm->attr);
    if (vm->marked.size)
        rangemap_destroy(&vm->marked);
}

int vm_attributes_bind(struct vm *vm, const struct memslot *slot)
{
    if (slot->gmem->tracker != gmem_tracker(GMEM_TRACKER_VM) || slot->gmem->vm_id != vm->id)
        return 0;
    int rc = rangemap_reserve(&vm->attr);
    if (!rc)
        rangemap_set(&vm->attr, slot->gfn, slot->gfn + slot->nr_pages, initial(slot->gmem));
    return rc;
}

/* ---- folio: a flag of what is allocated -------------------------------------------------------------------------- */

static struct range folio_range(const struct gmem *g, uint64_t index)
{
    uint64_t found, pfn;
    if (!gmem_next_folio(g, index, g->nr_pages, &found, &pfn))
        return (struct range){index, g->nr_pages, initial(g)};
    if (found > index)
        return (struct range){index, found, initial(g)};
    uint16_t flags = frame_of(g->host, pfn)->flags;
    uint64_t value = flags & FRAME_NONE ? ATTR_NONE : flags & FRAME_FLIPPED ? !initial(g) : initial(g);
    return (struct range){index, index + 1, value};
}

static int folio_reserve(struct gmem *g)
{
    (void)g;
    return 0;
}

static void folio_set(struct gmem *g, uint64_t start, uint64_t end, uint64_t value)
{
    uint64_t index, pfn;
    for (uint64_t at = start; gmem_next_folio(g, at, end, &index, &pfn); at = index + 1) {
        struct frame *f = frame_of(g->host, pfn);
        f->flags &= (uint16_t) ~(FRAME_NONE | FRAME_FLIPPED);
        if (value == ATTR_NONE)
            f->flags |= FRAME_NONE;
        else if (value != initial(g))
            f->flags |= FRAME_FLIPPED;
    }
}

/* ---------------------------------------------------------------------------------------------------------------------
 */

/* With HYP the file's tree holds no more than the VMM's wish. */
static const struct gmem_tracker trackers[GMEM_TRACKER_COUNT] = {
    [GMEM_TRACKER_INODE] = {inode_range, inode_reserve, inode_set, false},
    [GMEM_TRACKER_VM] = {vm_range, vm_reserve, vm_set, false},
    [GMEM_TRACKER_FOLIO] = {folio_range, folio_reserve, folio_set, true},
    [GMEM_TRACKER_HYP] = {inode_range, inode_reserve, inode_set, false},
};

const struct gmem_tracker *gmem_tracker(enum gmem_tracker_id id)
{
    return &trackers[id];
}

static bool asks_hyp(const struct gmem *g)
{
    return g->tracker == &trackers[GMEM_TRACKER_HYP];
}

uint64_t tracker_value(const struct gmem *g, uint64_t index)
{
    return g->tracker->range(g, index).value;
}

void tracker_store(struct gmem *g, uint64_t start, uint64_t end, uint64_t value)
{
    while (g->tracker->reserve(g))
        sched_relax();
    g->tracker->set(g, start, end, value);
}

bool tracker_refuses_host(struct gmem *g, uint64_t index)
{
    uint64_t pfn;
    if (!asks_hyp(g))
        return tracker_value(g, index) != ATTR_SHARED;
    g->host->hyp_asked++;
    pfn = cache_lookup(g, index);
    return pfn && host_hvc(g->host, 0, HVC_host_may_access, pfn, 0, 0, 0) == 0;
}

/* What the host may reach, without a question that counts; a run of it that need not be the longest. */
static struct range fact(const struct gmem *g, uint64_t index)
{
    if (!asks_hyp(g))
        return g->tracker->range(g, index);
    struct range r = folio_range(g, index);
    uint64_t pfn = cache_lookup(g, index);
    r.value = pfn && !g->host->arch.stage2_allows(g->host->arch.ctx, pfn) ? ATTR_PRIVATE : ATTR_SHARED;
    return r;
}

/* Where the hypervisor alone knows, a wish that was made before is no reason to do nothing. */
bool tracker_all(const struct gmem *g, uint64_t start, uint64_t end, uint64_t value)
{
    while (start < end) {
        struct range r = g->tracker->range(g, start), f = fact(g, start);
        if (r.value != value || f.value != value)
            return false;
        start = r.end < f.end ? r.end : f.end;
    }
    return true;
}

bool gmem_is_private(const struct gmem *g, uint64_t index)
{
    return fact(g, index).value != ATTR_SHARED;
}

struct gmem_range gmem_attr_range(const struct gmem *g, uint64_t index)
{
    struct range r = fact(g, index);
    while (r.end < g->nr_pages) {
        struct range next = fact(g, r.end);
        if (next.value != r.value)
            break;
        r.end = next.end;
    }
    return (struct gmem_range){r.start, r.end, r.value != ATTR_SHARED, r.value == ATTR_NONE};
}
