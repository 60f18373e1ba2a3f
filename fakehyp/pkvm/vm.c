/* SPDX-License-Identifier: BSD-2-Clause */
/* VM life cycle up to the vcpus.  All checks come before the first pin or donation, so there is nothing to roll back.
 */
#include "fakehyp/pkvm/internal.h"

struct hyp_vm *hyp_vm_find(const struct hyp *hyp, uint64_t handle)
{
    if (handle < HYP_HANDLE_OFFSET || handle - HYP_HANDLE_OFFSET >= HYP_MAX_VMS)
        return NULL;
    return hyp->vms[handle - HYP_HANDLE_OFFSET].vm;
}

uint16_t *hyp_vm_refcount(const struct hyp *hyp, const struct hyp_vm *vm)
{
    return &hyp_page(hyp, vm->phys >> HYP_PAGE_SHIFT)->refcount;
}

int64_t pkvm_reserve_vm(struct hyp *hyp)
{
    for (unsigned i = 0; i < HYP_MAX_VMS; i++) {
        if (!hyp->vms[i].reserved) {
            hyp->vms[i].reserved = true;
            return HYP_HANDLE_OFFSET + i;
        }
    }
    return -HYP_ENOMEM;
}

static struct hyp_vm_slot *find_reserved(struct hyp *hyp, uint64_t handle)
{
    struct hyp_vm_slot *slot;

    if (handle < HYP_HANDLE_OFFSET || handle - HYP_HANDLE_OFFSET >= HYP_MAX_VMS)
        return NULL;
    slot = &hyp->vms[handle - HYP_HANDLE_OFFSET];
    return slot->reserved && !slot->vm ? slot : NULL;
}

void pkvm_unreserve_vm(struct hyp *hyp, uint64_t handle)
{
    struct hyp_vm_slot *slot = find_reserved(hyp, handle);

    if (slot)
        slot->reserved = false;
}

static bool aligned(uint64_t phys, uint64_t size)
{
    return phys % size == 0;
}

static uint64_t pfn_of(uint64_t phys)
{
    return phys >> HYP_PAGE_SHIFT;
}

/* The host's page without the lists, read once. */
struct vm_params {
    uint32_t handle, nr_vcpus, is_protected, ipa_bits, unshare_mode, errant_panics;
};

static int read_params(const struct kvm_host_vm *host, struct vm_params *params)
{
    *params = (struct vm_params){.handle = HYP_READ_ONCE(host->handle),
                                 .nr_vcpus = HYP_READ_ONCE(host->created_vcpus),
                                 .is_protected = HYP_READ_ONCE(host->is_protected),
                                 .ipa_bits = HYP_READ_ONCE(host->ipa_bits),
                                 .unshare_mode = HYP_READ_ONCE(host->unshare_mode),
                                 .errant_panics = HYP_READ_ONCE(host->errant_panics)};
    if (params->nr_vcpus < 1 || params->nr_vcpus > HYP_VM_MAX_VCPUS || params->handle < HYP_HANDLE_OFFSET)
        return -HYP_EINVAL;
    if (params->ipa_bits < 32 || params->ipa_bits > 48)
        return -HYP_EINVAL;
    return params->unshare_mode == HYP_UNSHARE_CONSENT || params->unshare_mode == HYP_UNSHARE_UNILATERAL ? 0
                                                                                                         : -HYP_EINVAL;
}

/* Concatenated tables are aligned to their size; a bad address counts as a failed donation. */
static int check_vm_donations(const struct hyp *hyp, uint64_t vm_hva, uint64_t pgd_hva, uint64_t nr_pgd)
{
    if (!aligned(vm_hva, HYP_PAGE_SIZE) || !aligned(pgd_hva, nr_pgd * HYP_PAGE_SIZE))
        return -HYP_ENOMEM;
    if (pkvm_check_donate_hyp(hyp, pfn_of(vm_hva), HYP_VM_PAGES) || pkvm_check_donate_hyp(hyp, pfn_of(pgd_hva), nr_pgd))
        return -HYP_ENOMEM;
    return vm_hva >= pgd_hva && vm_hva - pgd_hva < nr_pgd * HYP_PAGE_SIZE ? -HYP_ENOMEM : 0;
}

int pkvm_init_vm(struct hyp *hyp, uint64_t host_kvm, uint64_t vm_hva, uint64_t pgd_hva)
{
    struct vm_params params;
    struct hyp_vm_slot *slot;
    struct hyp_vm *vm;
    uint64_t nr_pgd;
    int ret;

    if (!aligned(host_kvm, HYP_PAGE_SIZE))
        return -HYP_EINVAL;
    if (pkvm_check_pin(hyp, pfn_of(host_kvm), 1))
        return -HYP_EPERM;
    ret = read_params(hyp_virt(&hyp->mm, host_kvm), &params);
    if (ret)
        return ret;
    nr_pgd = hyp_s2_pgd_pages(params.ipa_bits);
    ret = check_vm_donations(hyp, vm_hva, pgd_hva, nr_pgd);
    if (ret)
        return ret;
    slot = find_reserved(hyp, params.handle);
    if (!slot)
        return -HYP_EINVAL;

    ret = pkvm_pin_shared_mem(hyp, pfn_of(host_kvm), 1);
    hyp_warn_on(hyp, ret != 0, "init_vm: pin failed after its check");
    ret = pkvm_host_donate_hyp(hyp, pfn_of(vm_hva), HYP_VM_PAGES);
    hyp_warn_on(hyp, ret != 0, "init_vm: donation failed after its check");
    ret = pkvm_host_donate_hyp(hyp, pfn_of(pgd_hva), nr_pgd);
    hyp_warn_on(hyp, ret != 0, "init_vm: donation failed after its check");
    for (uint64_t i = 0; i < nr_pgd; i++)
        hyp_zero_page(&hyp->mm, pgd_hva + i * HYP_PAGE_SIZE);
    hyp_zero_page(&hyp->mm, vm_hva);
    vm = hyp_virt(&hyp->mm, vm_hva);
    vm->handle = params.handle;
    vm->nr_vcpus = params.nr_vcpus;
    vm->is_protected = params.is_protected != 0;
    vm->unshare_mode = (enum hyp_unshare_mode)params.unshare_mode;
    vm->errant_panics = params.errant_panics != 0;
    vm->phys = vm_hva;
    vm->host_kvm = host_kvm;
    s2_init(&vm->pgt, &hyp->mm, &vm->pool, pgd_hva, params.ipa_bits, (uint16_t)(params.handle - HYP_HANDLE_OFFSET + 1));
    slot->vm = vm;
    return 0;
}

int pkvm_init_vcpu(struct hyp *hyp, uint64_t handle, uint64_t host_vcpu, uint64_t vcpu_hva)
{
    const struct kvm_host_vcpu *host;
    struct hyp_vcpu *vcpu;
    struct hyp_vm *vm;
    uint32_t idx;
    int ret;

    if (!aligned(host_vcpu, HYP_PAGE_SIZE))
        return -HYP_EINVAL;
    if (!aligned(vcpu_hva, HYP_PAGE_SIZE) || pkvm_check_donate_hyp(hyp, pfn_of(vcpu_hva), HYP_VCPU_PAGES))
        return -HYP_ENOMEM;
    vm = hyp_vm_find(hyp, handle);
    if (!vm)
        return -HYP_ENOENT;
    if (pkvm_check_pin(hyp, pfn_of(host_vcpu), 1))
        return -HYP_EBUSY;
    host = hyp_virt(&hyp->mm, host_vcpu);
    idx = HYP_READ_ONCE(host->vcpu_idx);
    if (idx >= vm->nr_vcpus || vm->vcpus[idx])
        return -HYP_EINVAL;

    ret = pkvm_pin_shared_mem(hyp, pfn_of(host_vcpu), 1);
    hyp_warn_on(hyp, ret != 0, "init_vcpu: pin failed after its check");
    ret = pkvm_host_donate_hyp(hyp, pfn_of(vcpu_hva), HYP_VCPU_PAGES);
    hyp_warn_on(hyp, ret != 0, "init_vcpu: donation failed after its check");
    hyp_zero_page(&hyp->mm, vcpu_hva);
    vcpu = hyp_virt(&hyp->mm, vcpu_hva);
    vcpu->vm = vm;
    vcpu->idx = idx;
    vcpu->phys = vcpu_hva;
    vcpu->host_vcpu = host_vcpu;
    /* Published when it is complete. */
    __atomic_store_n(&vm->vcpus[idx], vcpu, __ATOMIC_RELEASE);
    return 0;
}
