/* SPDX-License-Identifier: BSD-2-Clause */
/* End of a VM: every page that was donated for it goes back to the host, zeroed. */
#include "fakehyp/pkvm/internal.h"

int pkvm_start_teardown_vm(struct hyp *hyp, uint64_t handle)
{
    struct hyp_vm *vm = hyp_vm_find(hyp, handle);

    if (!vm || *hyp_vm_refcount(hyp, vm) || vm->is_dying)
        return -HYP_EINVAL;
    vm->is_dying = true;
    return 0;
}

static void return_all(struct hyp *hyp, struct hyp_memcache *list, struct hyp_memcache *pages)
{
    uint64_t phys;

    while ((phys = hyp_memcache_pop(&hyp->mm, pages)) != 0)
        hyp_return_page(hyp, list, phys);
}

/*
 * Upstream goes ahead while the guest still has pages.  They then keep an
 * annotation with a handle that is gone: the host can never get them back, and
 * a VM that is given the handle again seems to own them.  Here the call is
 * refused until the last page is reclaimed (or unshared, for an np-guest),
 * which a correct host has done before anyway.
 */
int pkvm_finalize_teardown_vm(struct hyp *hyp, uint64_t handle)
{
    struct hyp_memcache structs = {0}, tables = {0};
    struct hyp_vm *vm = hyp_vm_find(hyp, handle);
    struct kvm_host_vm *host;
    uint64_t host_kvm;

    if (!vm || *hyp_vm_refcount(hyp, vm) || !vm->is_dying)
        return -HYP_EINVAL;
    if (vm->nr_mapped)
        return -HYP_EBUSY;

    hyp_tlbi(&hyp->mm, vm->pgt.vmid, 0, 0);
    hyp->vms[handle - HYP_HANDLE_OFFSET] = (struct hyp_vm_slot){0};
    host_kvm = vm->host_kvm;
    s2_destroy(&vm->pgt);
    return_all(hyp, &tables, &vm->pool.free);
    for (uint32_t i = 0; i < vm->nr_vcpus; i++) {
        struct hyp_vcpu *vcpu = vm->vcpus[i];

        if (!vcpu)
            continue;
        pkvm_unpin_shared_mem(hyp, vcpu->host_vcpu >> HYP_PAGE_SHIFT, 1);
        return_all(hyp, &tables, &vcpu->memcache);
        hyp_return_page(hyp, &structs, vcpu->phys);
    }
    hyp_return_page(hyp, &structs, vm->phys);
    host = hyp_virt(&hyp->mm, host_kvm);
    host->teardown_mc = structs;
    host->stage2_teardown_mc = tables;
    pkvm_unpin_shared_mem(hyp, host_kvm >> HYP_PAGE_SHIFT, 1);
    return 0;
}
