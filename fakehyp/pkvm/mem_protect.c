/* SPDX-License-Identifier: BSD-2-Clause */
/* Transitions between the host, EL2 and the secure world. */
#include "fakehyp/pkvm/internal.h"

/* 1 for what is the host's or is lent to it, 0 for another's; the errors of memory that nobody can be given. */
int pkvm_host_may_access(const struct hyp *hyp, uint64_t pfn)
{
    int ret = hyp_check_allowed_range(hyp, pfn, 1);

    return ret ? ret : hyp_host_state(hyp, pfn) != PKVM_PAGE_NOPAGE;
}

int pkvm_host_share_hyp(struct hyp *hyp, uint64_t pfn)
{
    int ret = hyp_check_host_state(hyp, pfn, 1, PKVM_PAGE_OWNED);

    if (!ret)
        ret = hyp_check_hyp_state(hyp, pfn, 1, PKVM_PAGE_NOPAGE);
    if (ret)
        return ret;
    hyp_set_hyp_state(hyp, pfn, 1, PKVM_PAGE_SHARED_BORROWED);
    hyp_set_host_state(hyp, pfn, 1, PKVM_PAGE_SHARED_OWNED);
    return 0;
}

int pkvm_host_unshare_hyp(struct hyp *hyp, uint64_t pfn)
{
    int ret = hyp_check_host_state(hyp, pfn, 1, PKVM_PAGE_SHARED_OWNED);

    if (!ret)
        ret = hyp_check_hyp_state(hyp, pfn, 1, PKVM_PAGE_SHARED_BORROWED);
    if (ret)
        return ret;
    if (hyp_page(hyp, pfn)->refcount && !HYP_MUTANT(PINS_UNCHECKED))
        return -HYP_EBUSY;
    hyp_set_hyp_state(hyp, pfn, 1, PKVM_PAGE_NOPAGE);
    hyp_set_host_state(hyp, pfn, 1, PKVM_PAGE_OWNED);
    return 0;
}

int pkvm_check_pin(const struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    int ret = hyp_check_host_state(hyp, pfn, nr, PKVM_PAGE_SHARED_OWNED);

    if (!ret)
        ret = hyp_check_hyp_state(hyp, pfn, nr, PKVM_PAGE_SHARED_BORROWED);
    /*
     * The kernel's EL2 panics when the pin count overflows.  Here the host can
     * get there, with one page as the host vcpu of 65535 vcpus, so it is an error.
     */
    for (uint64_t i = 0; !ret && i < nr; i++)
        if (hyp_page(hyp, pfn + i)->refcount == UINT16_MAX)
            ret = -HYP_EBUSY;
    return ret;
}

int pkvm_pin_shared_mem(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    int ret = pkvm_check_pin(hyp, pfn, nr);

    for (uint64_t i = 0; !ret && i < nr; i++)
        hyp_page(hyp, pfn + i)->refcount++;
    return ret;
}

void pkvm_unpin_shared_mem(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++) {
        struct hyp_page *page = hyp_page(hyp, pfn + i);

        hyp_warn_on(hyp, page->refcount == 0, "unpin of a page without pins");
        page->refcount--;
    }
}

int pkvm_check_donate_hyp(const struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    int ret = hyp_check_pfn_range(hyp, pfn, nr);

    if (!ret)
        ret = hyp_check_host_state(hyp, pfn, nr, PKVM_PAGE_OWNED);
    if (!ret)
        ret = hyp_check_hyp_state(hyp, pfn, nr, PKVM_PAGE_NOPAGE);
    return ret;
}

int pkvm_host_donate_hyp(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    int ret = pkvm_check_donate_hyp(hyp, pfn, nr);

    if (ret)
        return ret;
    hyp_set_hyp_state(hyp, pfn, nr, PKVM_PAGE_OWNED);
    hyp_host_annotate(hyp, pfn, nr, s2_hyp_annotation());
    hyp_set_host_state(hyp, pfn, nr, PKVM_PAGE_NOPAGE);
    return 0;
}

int pkvm_hyp_donate_host(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    int ret = hyp_check_pfn_range(hyp, pfn, nr);

    if (!ret)
        ret = hyp_check_hyp_state(hyp, pfn, nr, PKVM_PAGE_OWNED);
    if (!ret)
        ret = hyp_check_host_state(hyp, pfn, nr, PKVM_PAGE_NOPAGE);
    /* A page that EL2 still uses, as a table or a VM with loaded vcpus. */
    for (uint64_t i = 0; !ret && i < nr; i++)
        if (hyp_page(hyp, pfn + i)->refcount)
            ret = -HYP_EBUSY;
    if (ret)
        return ret;
    hyp_set_hyp_state(hyp, pfn, nr, PKVM_PAGE_NOPAGE);
    hyp_host_map(hyp, pfn, nr);
    hyp_set_host_state(hyp, pfn, nr, PKVM_PAGE_OWNED);
    return 0;
}

int pkvm_host_share_ffa(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    int ret = hyp_check_pfn_range(hyp, pfn, nr);

    if (!ret)
        ret = hyp_check_host_state(hyp, pfn, nr, PKVM_PAGE_OWNED);
    if (ret)
        return ret;
    hyp_set_host_state(hyp, pfn, nr, PKVM_PAGE_SHARED_OWNED);
    return 0;
}

/*
 * The kernel looks at the host state only and trusts its FF-A proxy to pass
 * nothing but pages that the secure world has.  There is no proxy here, so that
 * EL2 tells the three kinds of SHARED_OWNED apart itself: otherwise a page that
 * a guest or EL2 borrows would become OWNED under them.
 */
int pkvm_host_unshare_ffa(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    int ret = hyp_check_pfn_range(hyp, pfn, nr);

    if (!ret)
        ret = hyp_check_host_state(hyp, pfn, nr, PKVM_PAGE_SHARED_OWNED);
    if (!ret)
        ret = hyp_check_hyp_state(hyp, pfn, nr, PKVM_PAGE_NOPAGE);
    for (uint64_t i = 0; !ret && i < nr; i++)
        if (hyp_page(hyp, pfn + i)->host_share_guest_count)
            ret = -HYP_EPERM;
    if (ret)
        return ret;
    hyp_set_host_state(hyp, pfn, nr, PKVM_PAGE_OWNED);
    return 0;
}
