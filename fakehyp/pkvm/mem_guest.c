/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transitions between the host and a guest.  The order of a commit is revoke
 * before grant: at no instant can both sides reach a page that is not shared.
 */
#include "fakehyp/pkvm/internal.h"

#define BLOCK_PAGES 512u

bool pkvm_guest_size_ok(uint64_t gfn, uint64_t nr)
{
    return nr == 1 || (nr == BLOCK_PAGES && gfn % BLOCK_PAGES == 0);
}

/* -ERANGE, -EPERM when any IPA of the range is mapped or dead. */
static int check_guest_nopage(const struct hyp_vm *vm, uint64_t gfn, uint64_t nr)
{
    uint64_t ipa = hyp_pfn_to_phys(gfn);
    struct s2_walk walk;

    if (!s2_gfn_range_ok(&vm->pgt, gfn, nr))
        return -HYP_ERANGE;
    for (uint64_t end = ipa + hyp_pfn_to_phys(nr); ipa < end; ipa = s2_walk_next(&walk)) {
        s2_walk_leaf(&vm->pgt, ipa, &walk);
        if (s2_guest_state(walk.pte) != PKVM_PAGE_NOPAGE)
            return -HYP_EPERM;
    }
    return 0;
}

static int check_tables(const struct hyp_vcpu *vcpu)
{
    return vcpu->memcache.nr_pages < hyp_s2_min_pages(vcpu->vm->pgt.ipa_bits) ? -HYP_ENOMEM : 0;
}

static void map_guest(struct hyp *hyp, struct hyp_vcpu *vcpu, uint64_t pfn, uint64_t gfn, uint64_t nr, uint64_t attr)
{
    int ret = s2_map(&vcpu->vm->pgt, hyp_pfn_to_phys(gfn), hyp_pfn_to_phys(nr), hyp_pfn_to_phys(pfn), attr, false,
                     &vcpu->memcache);

    hyp_warn_on(hyp, ret != 0, "guest stage 2: map failed after its checks");
    vcpu->vm->nr_mapped += nr;
}

int pkvm_host_donate_guest(struct hyp *hyp, struct hyp_vcpu *vcpu, uint64_t pfn, uint64_t gfn)
{
    int ret = HYP_MUTANT(GUEST_BEFORE_HOST) ? check_guest_nopage(vcpu->vm, gfn, 1) : 0;

    if (!ret)
        ret = hyp_check_host_state(hyp, pfn, 1, PKVM_PAGE_OWNED);
    if (!ret)
        ret = check_guest_nopage(vcpu->vm, gfn, 1);
    if (!ret && !HYP_MUTANT(MEMCACHE_LATE))
        ret = check_tables(vcpu);
    if (ret)
        return ret;
    if (HYP_MUTANT(GRANT_FIRST))
        map_guest(hyp, vcpu, pfn, gfn, 1, s2_guest_attr(HYP_PROT_RWX, PKVM_PAGE_OWNED));
    hyp_host_annotate(hyp, pfn, 1, s2_guest_annotation(vcpu->vm->handle, gfn));
    hyp_set_host_state(hyp, pfn, 1, PKVM_PAGE_NOPAGE);
    if (HYP_MUTANT(MEMCACHE_LATE) && check_tables(vcpu))
        return -HYP_ENOMEM;
    /* The contents stay: that is how the host loads the payload. */
    if (!HYP_MUTANT(GRANT_FIRST))
        map_guest(hyp, vcpu, pfn, gfn, 1, s2_guest_attr(HYP_PROT_RWX, PKVM_PAGE_OWNED));
    return 0;
}

static int check_host_shareable(const struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++) {
        uint32_t count = hyp_page(hyp, pfn + i)->host_share_guest_count;

        switch (hyp_host_state(hyp, pfn + i)) {
        case PKVM_PAGE_OWNED:
            break;
        case PKVM_PAGE_SHARED_OWNED:
            /* Count 0: shared with EL2 or with the secure world. */
            if (count == 0)
                return -HYP_EPERM;
            if (count == UINT32_MAX)
                return -HYP_EBUSY;
            break;
        default:
            return -HYP_EPERM;
        }
    }
    return 0;
}

int pkvm_host_share_guest(struct hyp *hyp, struct hyp_vcpu *vcpu, uint64_t pfn, uint64_t gfn, uint64_t nr,
                          uint64_t prot)
{
    int ret;

    if (prot & ~HYP_PROT_RWX)
        return -HYP_EINVAL;
    ret = hyp_check_pfn_range(hyp, pfn, nr);
    if (ret)
        return ret;
    if (!pkvm_guest_size_ok(gfn, nr) || !pkvm_guest_size_ok(pfn, nr))
        return -HYP_EINVAL;
    ret = hyp_check_allowed_range(hyp, pfn, nr);
    if (!ret)
        ret = check_guest_nopage(vcpu->vm, gfn, nr);
    if (!ret)
        ret = check_host_shareable(hyp, pfn, nr);
    if (!ret)
        ret = check_tables(vcpu);
    if (ret)
        return ret;
    for (uint64_t i = 0; i < nr; i++)
        hyp_page(hyp, pfn + i)->host_share_guest_count++;
    hyp_set_host_state(hyp, pfn, nr, PKVM_PAGE_SHARED_OWNED);
    map_guest(hyp, vcpu, pfn, gfn, nr, s2_guest_attr(prot, PKVM_PAGE_SHARED_BORROWED));
    return 0;
}

int pkvm_host_unshare_guest(struct hyp *hyp, struct hyp_vm *vm, uint64_t gfn, uint64_t nr)
{
    struct s2_walk walk;
    uint64_t pfn;
    int ret;

    if (!pkvm_guest_size_ok(gfn, nr))
        return -HYP_EINVAL;
    if (!s2_gfn_range_ok(&vm->pgt, gfn, nr))
        return -HYP_ERANGE;
    s2_walk_leaf(&vm->pgt, hyp_pfn_to_phys(gfn), &walk);
    if (!s2_pte_valid(walk.pte))
        return -HYP_ENOENT;
    if (s2_granule(walk.level) >> HYP_PAGE_SHIFT != nr && !HYP_MUTANT(BLOCK_UNCHECKED))
        return -HYP_E2BIG;
    if (s2_guest_state(walk.pte) != PKVM_PAGE_SHARED_BORROWED)
        return -HYP_EPERM;
    pfn = (walk.pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT;
    ret = hyp_check_host_state(hyp, pfn, nr, PKVM_PAGE_SHARED_OWNED);
    if (ret)
        return ret;
    for (uint64_t i = 0; i < nr; i++)
        if (hyp_page(hyp, pfn + i)->host_share_guest_count == 0)
            return -HYP_EINVAL;
    s2_unmap(&vm->pgt, hyp_pfn_to_phys(gfn), hyp_pfn_to_phys(nr));
    if (HYP_MUTANT(BLOCK_LEFT) && nr > 1)
        s2_map(&vm->pgt, hyp_pfn_to_phys(gfn + 1), HYP_PAGE_SIZE, hyp_pfn_to_phys(pfn + 1),
               s2_guest_attr(HYP_PROT_R, PKVM_PAGE_SHARED_BORROWED), true, NULL);
    vm->nr_mapped -= nr;
    for (uint64_t i = 0; i < nr; i++) {
        if (HYP_MUTANT(COUNT_KEPT) && hyp_page(hyp, pfn + i)->host_share_guest_count > 1)
            continue;
        if (--hyp_page(hyp, pfn + i)->host_share_guest_count == 0)
            hyp_set_host_state(hyp, pfn + i, 1, PKVM_PAGE_OWNED);
    }
    return 0;
}

/* `inline` is advice for this file: the header declares it as any other function. */
inline int pkvm_guest_page_leaf(const struct hyp_vm *vm, uint64_t gfn, struct s2_walk *walk)
{
    if (!s2_gfn_range_ok(&vm->pgt, gfn, 1))
        return -HYP_ERANGE;
    s2_walk_leaf(&vm->pgt, hyp_pfn_to_phys(gfn), walk);
    if (!s2_pte_valid(walk->pte))
        return s2_guest_state(walk->pte) == PKVM_PAGE_POISON ? -HYP_EHWPOISON : -HYP_ENOENT;
    return walk->level == S2_LAST_LEVEL ? 0 : -HYP_E2BIG;
}

/* Leaf of gfn in state `guest`, with its frame's host state `host`. */
static int check_guest_and_host(const struct hyp *hyp, const struct hyp_vm *vm, uint64_t gfn, struct s2_walk *walk,
                                enum hyp_page_state guest, enum hyp_page_state host)
{
    int ret = pkvm_guest_page_leaf(vm, gfn, walk);

    if (ret)
        return ret;
    if (s2_guest_state(walk->pte) != guest)
        return -HYP_EPERM;
    return hyp_check_host_state(hyp, (walk->pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT, 1, host);
}

/* Only software bits change: written in place, nothing to flush. */
static void set_guest_state(const struct s2_walk *walk, enum hyp_page_state state)
{
    s2_change_bits(walk, (uint64_t)state << S2_PTE_SW_SHIFT, S2_PTE_STATE_MASK);
}

int pkvm_guest_share_host(struct hyp *hyp, struct hyp_vm *vm, uint64_t gfn)
{
    struct s2_walk walk;
    uint64_t pfn;
    int ret = check_guest_and_host(hyp, vm, gfn, &walk, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE);

    if (ret)
        return ret;
    pfn = (walk.pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT;
    set_guest_state(&walk, PKVM_PAGE_SHARED_OWNED);
    hyp_host_map(hyp, pfn, 1);
    hyp_set_host_state(hyp, pfn, 1, PKVM_PAGE_SHARED_BORROWED);
    return 0;
}

static int check_unshare(const struct hyp *hyp, const struct hyp_vm *vm, uint64_t gfn, struct s2_walk *walk)
{
    return check_guest_and_host(hyp, vm, gfn, walk, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_SHARED_BORROWED);
}

int pkvm_check_guest_unshare(const struct hyp *hyp, const struct hyp_vm *vm, uint64_t gfn)
{
    struct s2_walk walk;

    return check_unshare(hyp, vm, gfn, &walk);
}

int pkvm_guest_unshare_host(struct hyp *hyp, struct hyp_vm *vm, uint64_t gfn)
{
    struct s2_walk walk;
    uint64_t pfn;
    int ret = check_unshare(hyp, vm, gfn, &walk);

    if (ret)
        return ret;
    pfn = (walk.pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT;
    hyp_host_annotate(hyp, pfn, 1, s2_guest_annotation(vm->handle, gfn + HYP_MUTANT(WRONG_GFN)));
    hyp_set_host_state(hyp, pfn, 1, PKVM_PAGE_NOPAGE);
    set_guest_state(&walk, PKVM_PAGE_OWNED);
    return 0;
}
