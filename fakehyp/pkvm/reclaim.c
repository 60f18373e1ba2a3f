/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that go back from a protected guest to the host, zeroed unless the guest had shared them. */
#include "fakehyp/pkvm/internal.h"

static void zero_guest_page(const struct hyp *hyp, uint64_t phys)
{
    hyp->mm.plat.zero_page(hyp->mm.plat.ctx, phys);
}

static void give_to_host(struct hyp *hyp, uint64_t pfn)
{
    hyp_host_map(hyp, pfn, 1);
    hyp_set_host_state(hyp, pfn, 1, PKVM_PAGE_OWNED);
}

int pkvm_force_reclaim(struct hyp *hyp, uint64_t phys)
{
    uint64_t pfn = phys >> HYP_PAGE_SHIFT, pte, gfn;
    struct hyp_pfn_range range;
    struct s2_walk walk;
    struct hyp_vm *vm;
    int ret;

    phys = hyp_pfn_to_phys(pfn);
    hyp_find_range(hyp, pfn, &range);
    if (!range.region)
        return -HYP_EFAULT;
    /* The access would not fault any more. */
    if (hyp_host_state(hyp, pfn) != PKVM_PAGE_NOPAGE)
        return -HYP_EAGAIN;
    pte = hyp_host_leaf(hyp, pfn);
    if (s2_annotation_type(pte) != S2_TYPE_DONATION)
        return -HYP_EINVAL;
    if (s2_annotation_owner(pte) != HYP_OWNER_GUEST)
        return -HYP_EPERM;
    vm = hyp_vm_find(hyp, s2_annotation_handle(pte));
    if (!vm)
        return -HYP_EAGAIN;
    gfn = s2_annotation_gfn(pte);
    ret = pkvm_guest_page_leaf(vm, gfn, &walk);
    if (ret)
        return ret;
    if (s2_guest_state(walk.pte) != PKVM_PAGE_OWNED)
        return -HYP_EPERM;
    hyp_warn_on(hyp, (walk.pte & S2_PTE_ADDR) != phys, "force reclaim: annotation and guest leaf disagree");

    if (HYP_MUTANT(NOT_POISONED))
        s2_unmap(&vm->pgt, hyp_pfn_to_phys(gfn), HYP_PAGE_SIZE);
    else
        s2_replace_leaf(&vm->pgt, &walk, S2_PTE_POISON);
    vm->nr_mapped--;
    vm->nr_poisoned++;
    if (!HYP_MUTANT(NOT_ZEROED) && !HYP_MUTANT(ZEROED_LATE))
        zero_guest_page(hyp, phys);
    give_to_host(hyp, pfn);
    if (HYP_MUTANT(ZEROED_LATE))
        zero_guest_page(hyp, phys);
    return 0;
}

/* The caller has made sure that the guest does not run: the page is zeroed while its leaf is still there. */
int pkvm_reclaim_guest_page(struct hyp *hyp, struct hyp_vm *vm, uint64_t gfn)
{
    struct s2_walk walk;
    enum hyp_page_state state;
    uint64_t phys;
    int ret = pkvm_guest_page_leaf(vm, gfn, &walk);

    /* Reclaimed by force before: the host may drop its reference. */
    if (ret == -HYP_EHWPOISON)
        return 0;
    if (ret)
        return ret;
    state = s2_guest_state(walk.pte);
    if (state != PKVM_PAGE_OWNED && state != PKVM_PAGE_SHARED_OWNED)
        return -HYP_EPERM;
    phys = walk.pte & S2_PTE_ADDR;
    hyp_warn_on(hyp,
                hyp_host_state(hyp, phys >> HYP_PAGE_SHIFT) !=
                    (state == PKVM_PAGE_OWNED ? PKVM_PAGE_NOPAGE : PKVM_PAGE_SHARED_BORROWED),
                "reclaim: host and guest state disagree");
    if (state == PKVM_PAGE_OWNED || HYP_MUTANT(SHARED_ZEROED))
        zero_guest_page(hyp, phys);
    s2_unmap(&vm->pgt, hyp_pfn_to_phys(gfn), HYP_PAGE_SIZE);
    vm->nr_mapped--;
    give_to_host(hyp, phys >> HYP_PAGE_SHIFT);
    return 0;
}

/* Uses EL2's own copy of the fault: with the host's the call would be an oracle for any IPA. */
int pkvm_vcpu_in_poison_fault(const struct hyp_vcpu *vcpu)
{
    uint64_t ec = ESR_EC(vcpu->esr), fsc = vcpu->esr & ESR_FSC_MASK;
    uint64_t ipa = IPA_FROM_HPFAR(vcpu->hpfar);
    struct s2_walk walk;

    if (ec != ESR_EC_IABT_LOW && ec != ESR_EC_DABT_LOW)
        return -HYP_EINVAL;
    if (fsc < ESR_FSC_TRANS_L(0) || fsc > ESR_FSC_TRANS_L(S2_LAST_LEVEL))
        return -HYP_EINVAL;
    if (!s2_range_ok(&vcpu->vm->pgt, ipa, HYP_PAGE_SIZE))
        return -HYP_ERANGE;
    s2_walk_leaf(&vcpu->vm->pgt, ipa, &walk);
    if (walk.level != S2_LAST_LEVEL)
        return -HYP_EINVAL;
    return s2_guest_state(walk.pte) == PKVM_PAGE_POISON;
}
