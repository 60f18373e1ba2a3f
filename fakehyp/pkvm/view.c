/* SPDX-License-Identifier: BSD-2-Clause */
/* Read-only views for the MMU, reports and audits. */
#include "fakehyp/pkvm/internal.h"

static void fill_vttbr(const struct s2_pgtable *pgt, struct hyp_vttbr *out)
{
    *out = (struct hyp_vttbr){.pgd = pgt->pgd, .ipa_bits = pgt->ipa_bits, .vmid = pgt->vmid};
}

void hyp_host_vttbr(const struct hyp *hyp, struct hyp_vttbr *out)
{
    fill_vttbr(&hyp->host, out);
}

int hyp_vm_vttbr(const struct hyp *hyp, uint32_t handle, struct hyp_vttbr *out)
{
    const struct hyp_vm *vm = hyp_vm_find(hyp, handle);

    if (!vm)
        return -HYP_ENOENT;
    fill_vttbr(&vm->pgt, out);
    return 0;
}

uint32_t hyp_vmid_handle(const struct hyp *hyp, uint16_t vmid)
{
    uint32_t handle = HYP_HANDLE_OFFSET + vmid - 1u;

    return vmid && hyp_vm_find(hyp, handle) ? handle : 0;
}

const char *hyp_page_state_name(enum hyp_page_state state)
{
    switch (state) {
#define X(value, name)                                                                                                 \
    case PKVM_PAGE_##name:                                                                                             \
        return #name;
        HYP_PAGE_STATE_MAP(X)
#undef X
    }
    return "?";
}

int hyp_frame_info(const struct hyp *hyp, uint64_t pfn, struct hyp_frame_info *out)
{
    const struct hyp_page *page;

    if (!hyp_has_page(&hyp->mm, pfn))
        return -HYP_EINVAL;
    page = hyp_page(hyp, pfn);
    *out = (struct hyp_frame_info){.host = hyp_host_state(hyp, pfn),
                                   .hyp = hyp_hyp_state(hyp, pfn),
                                   .owner = HYP_OWNER_HOST,
                                   .share_count = page->host_share_guest_count,
                                   .host_pte = hyp_host_leaf(hyp, pfn)};
    /* The same field counts a table's entries or a VM's loaded vcpus on EL2's own pages. */
    if (out->hyp == PKVM_PAGE_SHARED_BORROWED)
        out->pins = page->refcount;
    if (out->host == PKVM_PAGE_SHARED_BORROWED)
        out->owner = HYP_OWNER_GUEST;
    if (out->host == PKVM_PAGE_NOPAGE)
        out->owner = hyp_is_text(hyp, pfn) ? HYP_OWNER_HYP : s2_annotation_owner(out->host_pte);
    if (out->host == PKVM_PAGE_NOPAGE && out->owner == HYP_OWNER_GUEST) {
        out->handle = s2_annotation_handle(out->host_pte);
        out->gfn = s2_annotation_gfn(out->host_pte);
    }
    return 0;
}

int hyp_guest_leaf(const struct hyp *hyp, uint32_t handle, uint64_t gfn, struct hyp_guest_leaf *out)
{
    const struct hyp_vm *vm = hyp_vm_find(hyp, handle);
    struct s2_walk walk;

    if (!vm)
        return -HYP_ENOENT;
    if (!s2_gfn_range_ok(&vm->pgt, gfn, 1))
        return -HYP_ERANGE;
    s2_walk_leaf(&vm->pgt, hyp_pfn_to_phys(gfn), &walk);
    *out = (struct hyp_guest_leaf){.state = s2_guest_state(walk.pte), .pte = walk.pte, .level = walk.level};
    if (s2_pte_valid(walk.pte)) {
        uint64_t offset = hyp_pfn_to_phys(gfn) & (s2_granule(walk.level) - 1);

        out->pfn = ((walk.pte & S2_PTE_ADDR) + offset) >> HYP_PAGE_SHIFT;
    }
    return 0;
}

void hyp_vm_info(const struct hyp *hyp, uint32_t handle, struct hyp_vm_info *out)
{
    const struct hyp_vm *vm = hyp_vm_find(hyp, handle);

    *out = (struct hyp_vm_info){.exists = vm != NULL};
    if (handle >= HYP_HANDLE_OFFSET && handle - HYP_HANDLE_OFFSET < HYP_MAX_VMS)
        out->reserved = hyp->vms[handle - HYP_HANDLE_OFFSET].reserved;
    if (!vm)
        return;
    out->is_protected = vm->is_protected;
    out->is_dying = vm->is_dying;
    out->unshare_mode = vm->unshare_mode;
    out->nr_vcpus = vm->nr_vcpus;
    out->phys = vm->phys;
    out->host_kvm = vm->host_kvm;
    out->pool = vm->pool.free;
}

void hyp_vcpu_info(const struct hyp *hyp, uint32_t handle, uint32_t idx, struct hyp_vcpu_info *out)
{
    const struct hyp_vm *vm = hyp_vm_find(hyp, handle);
    const struct hyp_vcpu *vcpu = vm && idx < vm->nr_vcpus ? vm->vcpus[idx] : NULL;

    *out = (struct hyp_vcpu_info){.exists = vcpu != NULL};
    if (!vcpu)
        return;
    out->loaded = vcpu->loaded;
    out->pending = vcpu->pending;
    out->phys = vcpu->phys;
    out->host_vcpu = vcpu->host_vcpu;
    out->memcache = vcpu->memcache;
    out->esr = vcpu->esr;
    out->hpfar = vcpu->hpfar;
    out->regs = vcpu->regs;
}

void hyp_cpu_info(const struct hyp *hyp, unsigned cpu, struct hyp_cpu_info *out)
{
    const struct hyp_cpu *c = cpu < hyp->nr_cpus ? &hyp->cpus[cpu] : NULL;

    *out = (struct hyp_cpu_info){.finalized = c && c->finalized};
    if (!c || !c->loaded)
        return;
    out->handle = c->loaded->vm->handle;
    out->vcpu_idx = c->loaded->idx;
}
