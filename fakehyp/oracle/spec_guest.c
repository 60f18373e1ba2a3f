/* SPDX-License-Identifier: BSD-2-Clause */
/* Specification: frames between the host and guests. */
#include "fakehyp/oracle/state.h"

#define BLOCK 512u

static void leaf_before(const struct oracle *o, const struct vm *vm, uint64_t gfn, struct leaf *leaf)
{
    o_walk(o, &vm->tree, BEFORE, gfn * HYP_PAGE_SIZE, leaf);
}

/* One page, or a block that is aligned. */
static bool size_ok(uint64_t gfn, uint64_t nr)
{
    return nr == 1 || (nr == BLOCK && gfn % BLOCK == 0);
}

static struct vm *unprotected(struct oracle *o, uint64_t handle)
{
    struct vm *vm = o_vm_of(o, handle);

    return vm && !vm->is_protected ? vm : NULL;
}

static struct vcpu *loaded(struct oracle *o, unsigned cpu, bool is_protected, struct vm **vm)
{
    *vm = o->cpus[cpu].vm;
    return *vm && (*vm)->is_protected == is_protected ? o_vcpu_on(o, cpu) : NULL;
}

static int check_unmapped(const struct oracle *o, const struct vm *vm, uint64_t gfn, uint64_t nr)
{
    struct leaf leaf;

    if (!o_in_tree(&vm->tree, gfn, nr))
        return -HYP_ERANGE;
    for (uint64_t i = 0; i < nr; i++) {
        leaf_before(o, vm, gfn + i, &leaf);
        if (o_guest_state(leaf.pte) != PKVM_PAGE_NOPAGE)
            return -HYP_EPERM;
    }
    return 0;
}

/* Worst case: a table at each level below the first. */
static int check_cache(const struct vm *vm, const struct vcpu *vcpu)
{
    return vcpu->nr_cached < ORACLE_LEAF_LEVEL - o_tree_start_level(&vm->tree) ? -HYP_ENOMEM : 0;
}

static void map(struct oracle *o, struct vm *vm, uint64_t pfn, uint64_t gfn, uint64_t nr, uint64_t prot,
                enum hyp_page_state state)
{
    o->expect.guest = (struct guest_change){
        .what = LEAVES_MAP,
        .vm = vm,
        .gfn = gfn,
        .nr = nr,
        .pte = o_guest_entry(pfn * HYP_PAGE_SIZE, prot, state, nr == 1 ? ORACLE_LEAF_LEVEL : ORACLE_LEAF_LEVEL - 1)};
    vm->nr_mapped += nr;
}

static void set_bits(struct oracle *o, struct vm *vm, uint64_t gfn, uint64_t nr, uint64_t set, uint64_t clear)
{
    o->expect.guest =
        (struct guest_change){.what = LEAVES_BITS, .vm = vm, .gfn = gfn, .nr = nr, .set = set, .clear = clear};
}

static void set_state(struct oracle *o, struct vm *vm, uint64_t gfn, enum hyp_page_state state)
{
    set_bits(o, vm, gfn, 1, (uint64_t)state << 55, UINT64_C(3) << 55);
}

/* From here on the events of this call are judged by their order. */
static void in_order(struct oracle *o, int order, const struct vm *vm, uint64_t pfn, uint64_t gfn)
{
    o->expect.order = order;
    o->expect.order_vmid = vm->tree.vmid;
    o->expect.order_page = pfn * HYP_PAGE_SIZE;
    o->expect.order_ipa = gfn * HYP_PAGE_SIZE;
}

int64_t spec_donate_guest(struct oracle *o, unsigned cpu, uint64_t pfn, uint64_t gfn)
{
    struct vm *vm;
    struct vcpu *vcpu = loaded(o, cpu, true, &vm);
    int64_t ret = vcpu ? spec_refill(o, vm, vcpu) : -HYP_EINVAL;

    if (!ret)
        ret = o_check_host(o, pfn, 1, PKVM_PAGE_OWNED);
    if (!ret)
        ret = check_unmapped(o, vm, gfn, 1);
    if (!ret)
        ret = check_cache(vm, vcpu);
    if (ret)
        return ret;
    *o_change_frame(o, pfn) = (struct frame){.host = PKVM_PAGE_NOPAGE,
                                             .owner = HYP_OWNER_GUEST,
                                             .handle = vm->handle & 0xffffff,
                                             .gfn = gfn & ((UINT64_C(1) << 40) - 1)};
    map(o, vm, pfn, gfn, 1, HYP_PROT_RWX, PKVM_PAGE_OWNED);
    in_order(o, ORDER_HOST_TO_GUEST, vm, pfn, gfn);
    return 0;
}

static int check_shareable(const struct oracle *o, uint64_t pfn, uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++) {
        struct frame frame = o_frame_of(o, pfn + i);

        if (frame.host == PKVM_PAGE_OWNED)
            continue;
        if (frame.host != PKVM_PAGE_SHARED_OWNED || frame.count == 0)
            return -HYP_EPERM;
        if (frame.count == UINT32_MAX)
            return -HYP_EBUSY;
    }
    return 0;
}

int64_t spec_share(struct oracle *o, struct vm *vm, const struct vcpu *vcpu, uint64_t pfn, uint64_t gfn, uint64_t nr,
                   uint64_t prot)
{
    int64_t ret = prot & ~HYP_PROT_RWX ? -HYP_EINVAL : 0;

    if (!ret)
        ret = o_check_pfns(o, pfn, nr);
    if (!ret && !(size_ok(pfn, nr) && size_ok(gfn, nr)))
        ret = -HYP_EINVAL;
    if (!ret)
        ret = o_check_memory(o, pfn, nr);
    /* The guest before the host, other than in a donation. */
    if (!ret)
        ret = check_unmapped(o, vm, gfn, nr);
    if (!ret)
        ret = check_shareable(o, pfn, nr);
    if (!ret)
        ret = check_cache(vm, vcpu);
    if (ret)
        return ret;
    for (uint64_t i = 0; i < nr; i++) {
        struct frame *frame = o_change_frame(o, pfn + i);

        frame->host = PKVM_PAGE_SHARED_OWNED;
        frame->count++;
    }
    map(o, vm, pfn, gfn, nr, prot, PKVM_PAGE_SHARED_BORROWED);
    return 0;
}

int64_t spec_share_guest(struct oracle *o, unsigned cpu, uint64_t pfn, uint64_t gfn, uint64_t nr, uint64_t prot)
{
    struct vm *vm;
    struct vcpu *vcpu = loaded(o, cpu, false, &vm);
    int64_t ret = vcpu ? spec_refill(o, vm, vcpu) : -HYP_EINVAL;

    return ret ? ret : spec_share(o, vm, vcpu, pfn, gfn, nr, prot);
}

int64_t spec_unshare_guest(struct oracle *o, uint64_t handle, uint64_t gfn, uint64_t nr)
{
    struct vm *vm = unprotected(o, handle);
    struct leaf leaf;
    uint64_t pfn;
    int ret;

    if (!vm || !size_ok(gfn, nr))
        return -HYP_EINVAL;
    if (!o_in_tree(&vm->tree, gfn, nr))
        return -HYP_ERANGE;
    leaf_before(o, vm, gfn, &leaf);
    if (!(leaf.pte & PTE_VALID))
        return -HYP_ENOENT;
    if (o_granule(leaf.level) != nr * HYP_PAGE_SIZE)
        return -HYP_E2BIG;
    if (o_guest_state(leaf.pte) != PKVM_PAGE_SHARED_BORROWED)
        return -HYP_EPERM;
    pfn = (leaf.pte & PTE_OUTPUT) / HYP_PAGE_SIZE;
    ret = o_check_host(o, pfn, nr, PKVM_PAGE_SHARED_OWNED);
    for (uint64_t i = 0; !ret && i < nr; i++)
        if (o_frame_of(o, pfn + i).count == 0)
            ret = -HYP_EINVAL;
    if (ret)
        return ret;
    for (uint64_t i = 0; i < nr; i++) {
        struct frame *frame = o_change_frame(o, pfn + i);

        if (--frame->count == 0)
            frame->host = PKVM_PAGE_OWNED;
    }
    o->expect.guest = (struct guest_change){.what = LEAVES_UNMAP, .vm = vm, .gfn = gfn, .nr = nr};
    vm->nr_mapped -= nr;
    return 0;
}

/* ---- permissions and access flags of np-guests ---- */

int64_t spec_relax_perms(struct oracle *o, unsigned cpu, uint64_t gfn, uint64_t prot)
{
    struct vm *vm;
    struct leaf leaf;
    uint64_t set = PTE_ACCESSED;

    if (!loaded(o, cpu, false, &vm) || prot & ~HYP_PROT_RWX)
        return -HYP_EINVAL;
    if (!o_in_tree(&vm->tree, gfn, 1))
        return -HYP_ERANGE;
    leaf_before(o, vm, gfn, &leaf);
    if (!(leaf.pte & PTE_VALID))
        return -HYP_EAGAIN;
    if (prot & HYP_PROT_R)
        set |= PTE_READ;
    if (prot & HYP_PROT_W)
        set |= PTE_WRITE;
    set_bits(o, vm, gfn, 1, set, prot & HYP_PROT_X ? PTE_NO_EXEC : 0);
    o->expect.guest.flush = true;
    return 0;
}

static int check_attr_range(const struct vm *vm, uint64_t gfn, uint64_t nr)
{
    if (!vm || !size_ok(gfn, nr))
        return -HYP_EINVAL;
    return o_in_tree(&vm->tree, gfn, nr) ? 0 : -HYP_ERANGE;
}

int64_t spec_wrprotect(struct oracle *o, uint64_t handle, uint64_t gfn, uint64_t nr)
{
    struct vm *vm = unprotected(o, handle);
    int ret = check_attr_range(vm, gfn, nr);

    /* Not flushed: the host ends a batch of these with tlb_flush_vmid. */
    if (!ret)
        set_bits(o, vm, gfn, nr, 0, PTE_WRITE);
    return ret;
}

int64_t spec_test_clear_young(struct oracle *o, uint64_t handle, uint64_t gfn, uint64_t nr, bool mkold)
{
    struct vm *vm = unprotected(o, handle);
    struct leaf leaf;
    int ret = check_attr_range(vm, gfn, nr);

    if (ret)
        return ret;
    for (uint64_t i = 0; i < nr; i++) {
        leaf_before(o, vm, gfn + i, &leaf);
        if ((leaf.pte & PTE_VALID) && (leaf.pte & PTE_ACCESSED))
            ret = 1;
    }
    if (mkold)
        set_bits(o, vm, gfn, nr, 0, PTE_ACCESSED);
    return ret;
}

int64_t spec_mkyoung(struct oracle *o, unsigned cpu, uint64_t gfn)
{
    struct vm *vm;

    if (!loaded(o, cpu, false, &vm))
        return -HYP_EINVAL;
    if (o_in_tree(&vm->tree, gfn, 1))
        set_bits(o, vm, gfn, 1, PTE_ACCESSED, 0);
    return 0;
}

/* ---- a protected guest and its host ---- */

static int page_leaf(const struct oracle *o, const struct vm *vm, uint64_t gfn, struct leaf *leaf)
{
    if (!o_in_tree(&vm->tree, gfn, 1))
        return -HYP_ERANGE;
    leaf_before(o, vm, gfn, leaf);
    if (o_guest_state(leaf->pte) == PKVM_PAGE_POISON)
        return -HYP_EHWPOISON;
    if (!(leaf->pte & PTE_VALID))
        return -HYP_ENOENT;
    return leaf->level == ORACLE_LEAF_LEVEL ? 0 : -HYP_E2BIG;
}

static int check_both(const struct oracle *o, const struct vm *vm, uint64_t gfn, enum hyp_page_state guest,
                      enum hyp_page_state host, uint64_t *pfn)
{
    struct leaf leaf;
    int ret = page_leaf(o, vm, gfn, &leaf);

    if (ret)
        return ret;
    *pfn = (leaf.pte & PTE_OUTPUT) / HYP_PAGE_SIZE;
    return o_guest_state(leaf.pte) == guest ? o_check_host(o, *pfn, 1, host) : -HYP_EPERM;
}

int64_t spec_guest_share(struct oracle *o, struct vm *vm, uint64_t gfn)
{
    uint64_t pfn;
    int ret = check_both(o, vm, gfn, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, &pfn);

    if (ret)
        return ret;
    *o_change_frame(o, pfn) = (struct frame){.host = PKVM_PAGE_SHARED_BORROWED};
    set_state(o, vm, gfn, PKVM_PAGE_SHARED_OWNED);
    return 0;
}

int64_t spec_guest_unshare(struct oracle *o, struct vm *vm, uint64_t gfn, bool commit)
{
    uint64_t pfn;
    int ret = check_both(o, vm, gfn, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_SHARED_BORROWED, &pfn);

    if (ret || !commit)
        return ret;
    *o_change_frame(o, pfn) = (struct frame){.host = PKVM_PAGE_NOPAGE,
                                             .owner = HYP_OWNER_GUEST,
                                             .handle = vm->handle & 0xffffff,
                                             .gfn = gfn & ((UINT64_C(1) << 40) - 1)};
    set_state(o, vm, gfn, PKVM_PAGE_OWNED);
    in_order(o, ORDER_BORROWED_BACK, vm, pfn, gfn);
    return 0;
}

int64_t spec_force_reclaim(struct oracle *o, uint64_t phys)
{
    uint64_t pfn = phys / HYP_PAGE_SIZE, gfn;
    struct frame frame = o_frame_of(o, pfn);
    struct leaf leaf;
    struct vm *vm;
    int ret;

    if (!o_range_of(o, pfn).memory)
        return -HYP_EFAULT;
    if (frame.host != PKVM_PAGE_NOPAGE)
        return -HYP_EAGAIN;
    if (frame.owner == HYP_OWNER_HOST || o_is_text(o, pfn)) /* no annotation */
        return -HYP_EINVAL;
    if (frame.owner != HYP_OWNER_GUEST)
        return -HYP_EPERM;
    gfn = frame.gfn;
    vm = o_vm_of(o, frame.handle);
    if (!vm)
        return -HYP_EAGAIN;
    ret = page_leaf(o, vm, gfn, &leaf);
    if (ret)
        return ret;
    if (o_guest_state(leaf.pte) != PKVM_PAGE_OWNED)
        return -HYP_EPERM;
    o_to_host(o, pfn);
    o->expect.guest = (struct guest_change){.what = LEAVES_POISON, .vm = vm, .gfn = gfn, .nr = 1};
    vm->nr_mapped--;
    o->expect.zero = pfn * HYP_PAGE_SIZE;
    o->expect.alive = true;
    in_order(o, ORDER_GUEST_TO_HOST, vm, pfn, gfn);
    return 0;
}

int64_t spec_reclaim(struct oracle *o, struct vm *vm, uint64_t gfn)
{
    enum hyp_page_state state;
    struct leaf leaf;
    uint64_t pfn;
    int ret = page_leaf(o, vm, gfn, &leaf);

    if (ret)
        return ret == -HYP_EHWPOISON ? 0 : ret; /* taken by force before */
    state = o_guest_state(leaf.pte);
    if (state != PKVM_PAGE_OWNED && state != PKVM_PAGE_SHARED_OWNED)
        return -HYP_EPERM;
    pfn = (leaf.pte & PTE_OUTPUT) / HYP_PAGE_SIZE;
    o_to_host(o, pfn);
    o->expect.guest = (struct guest_change){.what = LEAVES_UNMAP, .vm = vm, .gfn = gfn, .nr = 1};
    vm->nr_mapped--;
    if (state == PKVM_PAGE_OWNED) {
        o->expect.zero = pfn * HYP_PAGE_SIZE;
        in_order(o, ORDER_GUEST_TO_HOST, vm, pfn, gfn);
    }
    return 0;
}

int64_t spec_reclaim_dying(struct oracle *o, uint64_t handle, uint64_t gfn)
{
    struct vm *vm = o_vm_of(o, handle);

    return vm && vm->is_dying ? spec_reclaim(o, vm, gfn) : -HYP_EINVAL;
}

/* The fault is the one that EL2 saw itself. */
int64_t spec_poison_fault(struct oracle *o, unsigned cpu)
{
    struct vm *vm;
    const struct vcpu *vcpu = loaded(o, cpu, true, &vm);
    uint64_t class, status, ipa;
    struct leaf leaf;

    if (!vcpu)
        return -HYP_EINVAL;
    class = ESR_EC(vcpu->esr);
    status = vcpu->esr & ESR_FSC_MASK;
    ipa = IPA_FROM_HPFAR(vcpu->hpfar);
    if ((class != ESR_EC_IABT_LOW && class != ESR_EC_DABT_LOW) || status < 4 || status > 7)
        return -HYP_EINVAL;
    if (!o_in_tree(&vm->tree, ipa / HYP_PAGE_SIZE, 1))
        return -HYP_ERANGE;
    leaf_before(o, vm, ipa / HYP_PAGE_SIZE, &leaf);
    if (leaf.level != ORACLE_LEAF_LEVEL)
        return -HYP_EINVAL;
    return o_guest_state(leaf.pte) == PKVM_PAGE_POISON;
}
