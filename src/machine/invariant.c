/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The invariants of background.md 0.6 and the table of 7.3, which must hold
 * between any two steps.  Each report begins with the invariant's name.
 *
 * I6 is in audit.c, beside the other counts.  I7 and I9 are about calls and
 * accesses: who sees one broken says so (host_violation()).  I8 is about the
 * host's own death.
 */
#include "src/machine/audit.h"

#include <inttypes.h>

#include "fakehyp/stage2/descriptor.h"

/* EL2's word on a frame, as 7.3 has it. */
static const char *hyp_state(const struct machine *m, uint64_t pfn)
{
    struct s2_walk w;
    mmu_walk_host(m, pfn, &w);
    if (!w.annotated)
        return hyp_page_state_name((enum hyp_page_state)m->vmemmap[pfn - (m->ram_base >> 12)].host_state);
    return s2_annotation_owner(w.pte) == HYP_OWNER_GUEST ? "guest-OWNED" : "EL2's";
}

/* ---- I1 and 7.3 -----------------------------------------------------------------------------------------------------
 */

/* Policy E leaves mappings where they are, and trusts stage 2 alone: it is not I1's for PTEs. */
static bool mappings_stay(const struct gmem *g)
{
    return gmem_policy_id(g) == GMEM_POLICY_EXCLUSIVE;
}

/* Of (attribute, hypervisor, host reachability) the host's reach of a PRIVATE page is the one that is never legal. */
static void reached(struct audit *a, const struct gmem *g, uint64_t index, uint64_t pfn, const char *who,
                    const char *how)
{
    audit_problem(a, "I1: guest_memfd %u page 0x%" PRIx64 " is within the host's reach: (PRIVATE, %s, %s of %s)",
                  gmem_id(g), index, hyp_state(a->m, pfn), how, who);
}

static void check_reach(struct audit *a, const struct gmem *g, uint64_t index, uint64_t pfn)
{
    struct page_report page;
    struct holder_info holders[16];

    gmem_page_report(g, index, &page);
    if (!page.private || page.none || page.refcount == UINT64_C(1) << page.order)
        return;
    unsigned nr = gmem_holders(g, index, holders, 16);
    for (unsigned i = 0; i < nr && i < 16; i++) {
        const struct holder_info *h = &holders[i];
        /* Of a large folio another page may be meant. */
        if (!ref_kinds[h->ref].touches || index - h->index >= h->pages)
            continue;
        if (h->ref != REF_PTE || !mappings_stay(g))
            reached(a, g, index, pfn, h->what, h->kind);
    }
}

/* TLBs are in no table: all that they have is looked at. */
void invariant_tlbs(struct audit *a)
{
    struct gmem *g;
    uint64_t pfn, index;
    unsigned cpu;
    char who[16];

    for (unsigned n = 0; host_tlb_entry(a->m->host, n, &cpu, &pfn); n++) {
        if (!pfn || !host_frame_slot(a->m->host, pfn, &g, &index) || !gmem_is_private(g, index) || mappings_stay(g))
            continue;
        snprintf(who, sizeof(who), "CPU %u", cpu);
        reached(a, g, index, pfn, who, "a TLB entry");
    }
}

/* ---- I2 and I4 ------------------------------------------------------------------------------------------------------
 */

static void check_guest(struct audit *a, const struct gmem *g, uint64_t index, uint64_t pfn)
{
    struct page_report page;
    struct s2_walk guest, host;

    gmem_page_report(g, index, &page);
    if (!page.vm)
        return;
    mmu_walk_guest(a->m, vm_handle(page.vm), page.gpa >> HOST_PAGE_SHIFT, &guest);
    if (!guest.valid || guest.pfn != pfn)
        return;
    mmu_walk_host(a->m, pfn, &host);
    if (vm_config(page.vm)->is_protected && s2_guest_state(guest.pte) == PKVM_PAGE_OWNED && host.valid)
        audit_problem(a, "I2: guest_memfd %u page 0x%" PRIx64 " is guest-OWNED, and the host's stage 2 maps it",
                      gmem_id(g), index);
    if (guest.level < 3 && !page.private)
        audit_problem(a, "I4: guest_memfd %u page 0x%" PRIx64 " is shared inside a block that a guest maps", gmem_id(g),
                      index);
}

void invariant_page(struct audit *a, const struct gmem *g, uint64_t index, uint64_t pfn)
{
    check_reach(a, g, index, pfn);
    check_guest(a, g, index, pfn);
}

/* ---- I3
 * --------------------------------------------------------------------------------------------------------------- */

/*
 * A free frame is the host's at EL2 and no device reaches it.  Its bytes need
 * no look: EL2 wipes what it takes from a guest, and a stage keeps bytes by
 * file, which this frame has none of.
 */
void invariant_free_frames(struct audit *a)
{
    for (uint64_t pfn = 0; host_next_free_frame(a->m->host, &pfn); pfn++) {
        struct s2_walk w;
        mmu_walk_host(a->m, pfn, &w);
        if (w.annotated)
            audit_problem(a, "I3: free frame 0x%" PRIx64 " is not the host's: %s", pfn, hyp_state(a->m, pfn));
        const char *device = host_iommu_has(a->m->host, pfn);
        if (device)
            audit_problem(a, "I3: free frame 0x%" PRIx64 " is mapped for device %s", pfn, device);
        sched_relax_due();
    }
}

/* ---- I5
 * --------------------------------------------------------------------------------------------------------------- */

void invariant_ranges(struct audit *a, const struct gmem *g)
{
    uint64_t nr = gmem_pages(g);
    struct gmem_range before = {.end = 0};
    enum gmem_tracker_id tracker = gmem_vm_config(g)->tracker;
    /* Where each folio has its own state there are no ranges to merge. */
    bool merges = tracker == GMEM_TRACKER_INODE || tracker == GMEM_TRACKER_VM;

    for (uint64_t at = 0; at < nr;) {
        struct gmem_range r = gmem_attr_range(g, at);
        if (r.start != at || r.end <= at || r.end > nr) {
            audit_problem(a, "I5: guest_memfd %u: attribute range [0x%" PRIx64 ", 0x%" PRIx64 ") at page 0x%" PRIx64,
                          gmem_id(g), r.start, r.end, at);
            return;
        }
        if (at && merges && r.private == before.private && r.none == before.none)
            audit_problem(a, "I5: guest_memfd %u: two ranges meet at page 0x%" PRIx64 " that should be one", gmem_id(g),
                          at);
        before = r;
        at = r.end;
    }
}
