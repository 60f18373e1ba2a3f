/* SPDX-License-Identifier: BSD-2-Clause */
/* Which addresses are memory, and the two state fields of each page. */
#include "fakehyp/pkvm/internal.h"

void hyp_find_range(const struct hyp *hyp, uint64_t pfn, struct hyp_pfn_range *range)
{
    *range = (struct hyp_pfn_range){.start = 0, .end = UINT64_MAX};
    for (unsigned i = 0; i < hyp->nr_memory; i++) {
        const struct hyp_memory_region *region = &hyp->memory[i];
        uint64_t start = region->base >> HYP_PAGE_SHIFT, end = start + (region->size >> HYP_PAGE_SHIFT);

        if (pfn < start) {
            range->end = start;
            return;
        }
        if (pfn < end) {
            *range = (struct hyp_pfn_range){.start = start, .end = end, .region = region};
            return;
        }
        range->start = end;
    }
}

bool hyp_is_allowed_memory(const struct hyp *hyp, uint64_t pfn)
{
    struct hyp_pfn_range range;

    hyp_find_range(hyp, pfn, &range);
    return range.region && !range.region->nomap;
}

int hyp_check_allowed_range(const struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    struct hyp_pfn_range range;

    hyp_find_range(hyp, pfn, &range);
    if (nr > range.end - pfn)
        return -HYP_EINVAL;
    return range.region && !range.region->nomap ? 0 : -HYP_EPERM;
}

int hyp_check_pfn_range(const struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    uint64_t limit = UINT64_C(1) << (hyp->pa_bits - HYP_PAGE_SHIFT);

    return nr > 0 && pfn < limit && nr <= limit - pfn ? 0 : -HYP_EINVAL;
}

/* What is not tracked (MMIO, NOMAP memory outside vmemmap) stays the host's for ever. */
enum hyp_page_state hyp_host_state(const struct hyp *hyp, uint64_t pfn)
{
    if (!hyp_has_page(&hyp->mm, pfn))
        return PKVM_PAGE_OWNED;
    return (enum hyp_page_state)hyp_page(hyp, pfn)->host_state;
}

enum hyp_page_state hyp_hyp_state(const struct hyp *hyp, uint64_t pfn)
{
    if (!hyp_has_page(&hyp->mm, pfn))
        return PKVM_PAGE_NOPAGE;
    return (enum hyp_page_state)(hyp_page(hyp, pfn)->hyp_state_comp ^ PKVM_PAGE_NOPAGE);
}

int hyp_check_host_state(const struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    int ret = hyp_check_allowed_range(hyp, pfn, nr);

    for (uint64_t i = 0; !ret && i < nr; i++)
        if (hyp_host_state(hyp, pfn + i) != state)
            ret = -HYP_EPERM;
    return ret;
}

int hyp_check_hyp_state(const struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    for (uint64_t i = 0; i < nr; i++)
        if (hyp_hyp_state(hyp, pfn + i) != state)
            return -HYP_EPERM;
    return 0;
}

void hyp_set_host_state(struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    for (uint64_t i = 0; i < nr; i++)
        hyp_page(hyp, pfn + i)->host_state = state & 0xf;
}

void hyp_set_hyp_state(struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    for (uint64_t i = 0; i < nr; i++)
        hyp_page(hyp, pfn + i)->hyp_state_comp = (state ^ PKVM_PAGE_NOPAGE) & 0xf;
}
