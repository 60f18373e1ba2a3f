/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that the host lends to EL2 for tables, and their way back.  The list
 * comes from the host and is hostile: it may hold misaligned links, pages that
 * are not the host's, one page twice, a cycle, or fewer pages than it says.
 */
#include "fakehyp/pkvm/internal.h"

/* A page that is in the list twice is EL2's the second time, so a cycle ends here too. */
static int admit_page(struct hyp *hyp, struct hyp_memcache *from, struct hyp_memcache *to)
{
    uint64_t phys = from->head;

    if (phys == 0 || phys % HYP_PAGE_SIZE != 0 || pkvm_host_donate_hyp(hyp, phys >> HYP_PAGE_SHIFT, 1))
        return -HYP_ENOMEM;
    /* Only now can the host no longer change the link. */
    from->head = *(const uint64_t *)hyp_virt(&hyp->mm, phys);
    from->nr_pages--;
    hyp_memcache_push(&hyp->mm, to, phys);
    return 0;
}

int hyp_refill_memcache(struct hyp *hyp, struct hyp_vcpu *vcpu)
{
    struct kvm_host_vcpu *host = hyp_host_vcpu(hyp, vcpu);
    struct hyp_memcache from = {.head = HYP_READ_ONCE(host->pkvm_memcache.head),
                                .nr_pages = HYP_READ_ONCE(host->pkvm_memcache.nr_pages)};
    uint64_t target = from.nr_pages, moved = 0;
    int ret = 0;

    while (!ret && vcpu->memcache.nr_pages < target) {
        ret = admit_page(hyp, &from, &vcpu->memcache);
        moved += !ret;
    }
    if (!ret) {
        host->pkvm_memcache = from;
        return 0;
    }
    if (HYP_MUTANT(ROLLBACK_SHORT))
        host->pkvm_memcache.nr_pages -= moved;
    /* Back in reverse order with the links as they were: the host's list is what it was before. */
    while (moved--) {
        uint64_t phys = hyp_memcache_pop(&hyp->mm, &vcpu->memcache);

        hyp_memcache_push(&hyp->mm, &from, phys);
        hyp_warn_on(hyp, pkvm_hyp_donate_host(hyp, phys >> HYP_PAGE_SHIFT, 1) != 0, "memcache: roll-back failed");
    }
    return ret;
}

void hyp_return_page(struct hyp *hyp, struct hyp_memcache *list, uint64_t phys)
{
    hyp_zero_page(&hyp->mm, phys);
    hyp_memcache_push(&hyp->mm, list, phys);
    hyp_warn_on(hyp, pkvm_hyp_donate_host(hyp, phys >> HYP_PAGE_SHIFT, 1) != 0, "page cannot be returned to the host");
}
