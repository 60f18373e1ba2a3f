/* SPDX-License-Identifier: BSD-2-Clause */
/* Which addresses are memory, and the two state fields of each page. */
#include "fakehyp/pkvm/internal.h"

/* `inline` is advice for this file: the header declares these as any other function. */
inline void hyp_find_range(const struct hyp *hyp, uint64_t pfn, struct hyp_pfn_range *range)
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

inline int hyp_check_allowed_range(const struct hyp *hyp, uint64_t pfn, uint64_t nr)
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

int hyp_check_host_state(const struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    int ret = hyp_check_allowed_range(hyp, pfn, nr);

    if (ret)
        return ret;
    /* All memory that is allowed has a record: see the checks at boot. */
    for (uint64_t i = 0; i < nr; i++)
        if (hyp_page(hyp, pfn + i)->host_state != state)
            return -HYP_EPERM;
    return 0;
}

int hyp_check_hyp_state(const struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    for (uint64_t i = 0; i < nr; i++)
        if (hyp_hyp_state(hyp, pfn + i) != state)
            return -HYP_EPERM;
    return 0;
}
