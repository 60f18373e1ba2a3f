/* SPDX-License-Identifier: BSD-2-Clause */
/* Permissions and access flags in the stage 2 of a guest that is not protected. */
#include "fakehyp/pkvm/internal.h"

int pkvm_relax_perms(struct hyp_vm *vm, uint64_t gfn, uint64_t prot)
{
    struct s2_walk walk;
    uint64_t granule;

    if (vm->is_protected)
        return -HYP_EPERM;
    if (prot & ~HYP_PROT_RWX)
        return -HYP_EINVAL;
    if (!s2_gfn_range_ok(&vm->pgt, gfn, 1))
        return -HYP_ERANGE;
    s2_walk_leaf(&vm->pgt, hyp_pfn_to_phys(gfn), &walk);
    if (!s2_pte_valid(walk.pte))
        return -HYP_EAGAIN;
    granule = s2_granule(walk.level);
    if (HYP_MUTANT(FLUSHED_EARLY))
        hyp_tlbi(vm->pgt.mm, vm->pgt.vmid, walk.ipa & ~(granule - 1), granule >> HYP_PAGE_SHIFT);
    s2_change_bits(&walk, (s2_perm_bits(prot) & ~S2_PTE_XN_MASK) | S2_PTE_AF, prot & HYP_PROT_X ? S2_PTE_XN_MASK : 0);
    if (!HYP_MUTANT(FLUSHED_EARLY))
        hyp_tlbi(vm->pgt.mm, vm->pgt.vmid, walk.ipa & ~(granule - 1), granule >> HYP_PAGE_SHIFT);
    return 0;
}

static int check_range(const struct hyp_vm *vm, uint64_t gfn, uint64_t nr)
{
    if (vm->is_protected)
        return -HYP_EPERM;
    if (!pkvm_guest_size_ok(gfn, nr))
        return -HYP_EINVAL;
    return s2_gfn_range_ok(&vm->pgt, gfn, nr) ? 0 : -HYP_ERANGE;
}

/* No TLB maintenance: the host batches its calls and ends them with tlb_flush_vmid. */
int pkvm_wrprotect(struct hyp_vm *vm, uint64_t gfn, uint64_t nr)
{
    uint64_t ipa = hyp_pfn_to_phys(gfn);
    struct s2_walk walk;
    int ret = check_range(vm, gfn, nr);

    if (ret)
        return ret;
    for (uint64_t end = ipa + hyp_pfn_to_phys(nr); ipa < end; ipa = s2_walk_next(&walk)) {
        s2_walk_leaf(&vm->pgt, ipa, &walk);
        if (s2_pte_valid(walk.pte))
            s2_change_bits(&walk, 0, S2_PTE_W);
    }
    return 0;
}

int pkvm_test_clear_young(struct hyp_vm *vm, uint64_t gfn, uint64_t nr, bool mkold)
{
    uint64_t ipa = hyp_pfn_to_phys(gfn);
    struct s2_walk walk;
    int ret = check_range(vm, gfn, nr);

    if (ret)
        return ret;
    for (uint64_t end = ipa + hyp_pfn_to_phys(nr); ipa < end; ipa = s2_walk_next(&walk)) {
        s2_walk_leaf(&vm->pgt, ipa, &walk);
        if (!s2_pte_valid(walk.pte) || !(walk.pte & S2_PTE_AF))
            continue;
        ret = 1;
        if (mkold)
            s2_change_bits(&walk, 0, S2_PTE_AF);
    }
    return ret;
}

int pkvm_mkyoung(struct hyp_vm *vm, uint64_t gfn)
{
    struct s2_walk walk;

    if (vm->is_protected)
        return -HYP_EPERM;
    if (!s2_gfn_range_ok(&vm->pgt, gfn, 1))
        return 0;
    s2_walk_leaf(&vm->pgt, hyp_pfn_to_phys(gfn), &walk);
    if (s2_pte_valid(walk.pte))
        s2_change_bits(&walk, S2_PTE_AF, 0);
    return 0;
}
