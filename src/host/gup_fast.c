/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * GUP by address: the fast walk takes no lock at all.  It reads a PTE, takes a
 * reference to the folio that it found there, and reads the PTE again: if that
 * changed, the reference is put (mm/gup.c, gup_fast_pte_range()).
 */
#include "src/host/mm_internal.h"
#include "src/host/policy.h"

#include <errno.h>

/* try_grab_folio_fast(): fails on a free frame, and on one that is no page of a file any more. */
static bool try_grab(struct ref *spec, struct mm *mm, uint64_t pfn, enum ref_kind kind, const char *label,
                     uint32_t *page)
{
    struct gmem *gmem;
    uint64_t index;
    if (!host_frame_slot(mm->host, pfn, &gmem, &index) ||
        (gmem->policy->gup && gmem->policy->gup(gmem, index, pfn, kind, NULL)))
        return false;
    ref_init(spec, gmem, index, ref_kinds[kind].pin ? REF_GUP_FAST_PIN : REF_GUP_FAST, label, mm->pid, page);
    if (ref_add_page(spec, pfn))
        return false;
    ref_link(spec);
    return true;
}

static bool fast_page_irqs_off(struct mm *mm, uint64_t va, struct ref *ref)
{
    struct ref spec;
    uint32_t page;
    const struct pte *pte = pte_at(mm, va);
    if (!pte)
        return false;
    uint64_t pfn = pte->pfn;
    sched_point("gup:pte-read");
    if (!try_grab(&spec, mm, pfn, ref->kind, ref->label, &page))
        return false;
    sched_point("gup:grabbed");
    pte = pte_at(mm, va);
    bool same = pte && pte->pfn == pfn;
    if (same) {
        sched_point("gup:rechecked");
        /* The speculation has become a reference: it changes hands, not the count. */
        ref->pfns[ref->nr++] = page;
    } else {
        ref_put_pages(&spec);
    }
    ref_unlink(&spec);
    return same;
}

static bool fast_page(struct mm *mm, uint64_t va, struct ref *ref)
{
    unsigned cpu = sched_cpu();
    irqs_off(mm->host);
    bool ok = fast_page_irqs_off(mm, va, ref);
    irqs_on(mm->host, cpu);
    return ok;
}

/* __get_user_pages(): faults the page in and takes it under the page-table lock, so without a wait in between. */
static int slow_page(struct mm *mm, uint64_t va, struct ref *ref, struct caller *caller)
{
    const struct host_arch *arch = &mm->host->arch;
    for (;;) {
        uint64_t pfn;
        int rc = mm_fault(mm, va, true, &pfn);
        if (rc) {
            caller_explain(caller, "address 0x%llx cannot be pinned: %s", (unsigned long long)va,
                           rc == -ENOENT ? "nothing is mapped there"
                                         : "a fault there is SIGBUS (private, or past the end)");
            return rc == -ENOMEM ? rc : -EFAULT;
        }
        const struct pte *pte = pte_at(mm, va);
        if (!pte)
            continue;
        if (!arch->stage2_allows(arch->ctx, pte->pfn)) {
            caller_explain(caller, "address 0x%llx: stage 2 refuses the host the page", (unsigned long long)va);
            return -EFAULT;
        }
        const struct gmem_policy *policy = ref->gmem->policy;
        rc = policy->gup ? policy->gup(ref->gmem, pte->index, pte->pfn, ref->kind, caller) : 0;
        return rc ? rc : ref_add_page(ref, pte->pfn);
    }
}

int mm_gup(struct mm *mm, uint64_t va, uint64_t nr, enum ref_kind kind, const char *label, struct ref **out,
           struct caller *caller)
{
    struct gmem *gmem, *last;
    uint64_t index, last_index;

    if ((unsigned)kind >= REF_USER_KINDS || !nr || va & (HOST_PAGE_SIZE - 1))
        return -EINVAL;
    if (!mm_find(mm, va, &gmem, &index) || !mm_find(mm, va + ((nr - 1) << HOST_PAGE_SHIFT), &last, &last_index) ||
        last != gmem || last_index != index + nr - 1) {
        caller_explain(caller, "[0x%llx, +%llu pages) is not one mapping", (unsigned long long)va,
                       (unsigned long long)nr);
        return -EFAULT;
    }
    struct ref *ref = ref_new(gmem, index, nr, kind, label, mm->pid);
    if (!ref)
        return -ENOMEM;
    gmem_get(gmem); /* the walk takes no lock that keeps the mapping */
    ref_link(ref);
    int rc = 0;
    while (ref->nr < nr && !rc) {
        uint64_t at = va + (ref->nr << HOST_PAGE_SHIFT);
        if (!fast_page(mm, at, ref))
            rc = slow_page(mm, at, ref, caller);
    }
    if (rc) {
        ref_drop(ref);
    } else {
        gup_trace(ref);
        *out = ref;
    }
    gmem_put(gmem);
    return rc;
}
