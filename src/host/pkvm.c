/* SPDX-License-Identifier: BSD-2-Clause */
/* The pKVM driver of the guest_memfd library: arch/arm64/kvm/pkvm.c and the pVM half of mmu.c, by hypercalls. */
#include "src/host/driver.h"

#include <errno.h>
#include <string.h>

static uint64_t phys(uint64_t pfn)
{
    return pfn << HOST_PAGE_SHIFT;
}

static void *ram(struct host *host, uint64_t pfn)
{
    return host->arch.ram(host->arch.ctx, pfn);
}

static struct kvm_host_vcpu *host_vcpu(const struct vcpu *vcpu)
{
    return ram(vcpu->vm->host, vcpu->host_vcpu_pfn);
}

static unsigned order_of(unsigned pages)
{
    unsigned order = 0;
    while (1u << order < pages)
        order++;
    return order;
}

/*
 * Frees pages that EL2 returned, or never took, through a memcache.  Those of
 * [block, block + nr) are only counted: they were taken together.
 */
static unsigned drain_memcache(struct host *host, struct hyp_memcache *mc, uint64_t block, unsigned nr)
{
    unsigned found = 0;
    while (mc->nr_pages && mc->head) {
        uint64_t pfn = mc->head >> HOST_PAGE_SHIFT;
        memcpy(&mc->head, ram(host, pfn), sizeof(mc->head));
        mc->nr_pages--;
        if (pfn >= block && pfn - block < nr)
            found++;
        else
            ram_free(host, 0, pfn);
    }
    *mc = (struct hyp_memcache){0};
    return found;
}

/* topup_hyp_memcache(): enough for the tables of one mapping. */
int pkvm_guest_prepare(struct vcpu *vcpu)
{
    struct host *host = vcpu->vm->host;
    struct hyp_memcache *mc = &host_vcpu(vcpu)->pkvm_memcache;
    while (mc->nr_pages < hyp_s2_min_pages(vcpu->vm->config.ipa_bits)) {
        uint64_t pfn;
        int rc = ram_alloc(host, 0, &pfn);
        if (rc)
            return rc;
        memcpy(ram(host, pfn), &mc->head, sizeof(mc->head));
        mc->head = phys(pfn);
        mc->nr_pages++;
    }
    return 0;
}

int pkvm_vm_create(struct vm *vm, struct caller *caller)
{
    struct host *host = vm->host;
    int rc = ram_alloc(host, 0, &vm->host_vm_pfn);
    if (rc)
        return rc;
    memset(ram(host, vm->host_vm_pfn), 0, HOST_PAGE_SIZE);
    int64_t handle = host_hvc(host, 0, HVC_reserve_vm, 0, 0, 0, 0);
    if (handle < 0) {
        caller_explain(caller, "EL2 has no VM slot left (%u at most)", HYP_MAX_VMS);
        ram_free(host, 0, vm->host_vm_pfn);
        return (int)handle;
    }
    vm->handle = (uint32_t)handle;
    return 0;
}

static void free_host_pages(struct vm *vm)
{
    struct host *host = vm->host;
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        struct vcpu *vcpu = vm->vcpus[i];
        drain_memcache(host, &host_vcpu(vcpu)->pkvm_memcache, 0, 0);
        if (vcpu->el2_ready)
            host_hvc(host, 0, HVC_host_unshare_hyp, vcpu->host_vcpu_pfn, 0, 0, 0);
        ram_free(host, 0, vcpu->host_vcpu_pfn);
    }
    ram_free(host, 0, vm->host_vm_pfn);
}

void pkvm_vm_destroy_reserved(struct vm *vm)
{
    host_hvc(vm->host, 0, HVC_unreserve_vm, vm->handle, 0, 0, 0);
    free_host_pages(vm);
}

static int init_vcpu(struct vcpu *vcpu)
{
    struct host *host = vcpu->vm->host;
    uint64_t pfn;
    host_vcpu(vcpu)->vcpu_idx = vcpu->index;
    int rc = ram_alloc(host, 0, &pfn);
    if (rc)
        return rc;
    rc = (int)host_hvc(host, 0, HVC_host_share_hyp, vcpu->host_vcpu_pfn, 0, 0, 0);
    if (!rc) {
        rc = (int)host_hvc(host, 0, HVC_init_vcpu, vcpu->vm->handle, vcpu_host_phys(vcpu), phys(pfn), 0);
        if (!rc) {
            vcpu->el2_ready = true;
            return 0;
        }
        host_hvc(host, 0, HVC_host_unshare_hyp, vcpu->host_vcpu_pfn, 0, 0, 0);
    }
    ram_free(host, 0, pfn);
    return rc;
}

/* pkvm_create_hyp_vm(), at the first run because EL2 wants to know the number of vCPUs. */
int pkvm_vm_first_run(struct vm *vm, struct caller *caller)
{
    struct host *host = vm->host;
    struct kvm_host_vm *kvm = ram(host, vm->host_vm_pfn);
    unsigned pgd_order = order_of(hyp_s2_pgd_pages(vm->config.ipa_bits));
    uint64_t vm_pfn, pgd_pfn;

    if (!vm->el2_ready) {
        *kvm = (struct kvm_host_vm){.handle = vm->handle,
                                    .created_vcpus = vm->nr_vcpus,
                                    .is_protected = vm->el2_protected,
                                    .ipa_bits = vm->config.ipa_bits,
                                    .unshare_mode = vm->config.unshare_mode,
                                    .errant_panics = vm->config.bugs & HOST_BUG(HYP_2021) ? 1 : 0};
        int rc = ram_alloc(host, order_of(HYP_VM_PAGES), &vm_pfn);
        if (rc)
            return rc;
        rc = ram_alloc(host, pgd_order, &pgd_pfn);
        if (rc) {
            ram_free(host, order_of(HYP_VM_PAGES), vm_pfn);
            return rc;
        }
        rc = (int)host_hvc(host, 0, HVC_host_share_hyp, vm->host_vm_pfn, 0, 0, 0);
        if (!rc) {
            rc = (int)host_hvc(host, 0, HVC_init_vm, phys(vm->host_vm_pfn), phys(vm_pfn), phys(pgd_pfn), 0);
            if (rc)
                host_hvc(host, 0, HVC_host_unshare_hyp, vm->host_vm_pfn, 0, 0, 0);
        }
        if (rc) {
            caller_explain(caller, "EL2 refused to create the VM (errno %d)", -rc);
            ram_free(host, order_of(HYP_VM_PAGES), vm_pfn);
            ram_free(host, pgd_order, pgd_pfn);
            return rc;
        }
        vm->el2_ready = true;
        vm->pgd_pfn = pgd_pfn;
    }
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        int rc = vm->vcpus[i]->el2_ready ? 0 : init_vcpu(vm->vcpus[i]);
        if (rc) {
            caller_explain(caller, "EL2 refused to create vCPU %u (errno %d)", i, -rc);
            return rc;
        }
    }
    return 0;
}

int pkvm_teardown_begin(struct vm *vm)
{
    return (int)host_hvc(vm->host, 0, HVC_start_teardown_vm, vm->handle, 0, 0, 0);
}

int pkvm_teardown_page(struct vm *vm, uint64_t gfn, uint64_t pfn)
{
    (void)pfn;
    if (vm->el2_protected)
        return (int)host_hvc(vm->host, 0, HVC_reclaim_dying_guest_page, vm->handle, gfn, 0, 0);
    return (int)host_hvc(vm->host, 0, HVC_host_unshare_guest, vm->handle, gfn, 1, 0);
}

int pkvm_teardown_end(struct vm *vm)
{
    struct host *host = vm->host;
    int rc = (int)host_hvc(host, 0, HVC_finalize_teardown_vm, vm->handle, 0, 0, 0);
    if (rc)
        return rc;
    struct kvm_host_vm *kvm = ram(host, vm->host_vm_pfn);
    unsigned nr_pgd = hyp_s2_pgd_pages(vm->config.ipa_bits);
    drain_memcache(host, &kvm->teardown_mc, 0, 0);
    /* The PGD comes back page by page, and is freed as the block that it was: no other VM could get one otherwise. */
    if (drain_memcache(host, &kvm->stage2_teardown_mc, vm->pgd_pfn, nr_pgd) == nr_pgd)
        ram_free(host, order_of(nr_pgd), vm->pgd_pfn);
    host_hvc(host, 0, HVC_host_unshare_hyp, vm->host_vm_pfn, 0, 0, 0);
    free_host_pages(vm);
    return 0;
}

int pkvm_guest_map(struct vcpu *vcpu, unsigned cpu, uint64_t gfn, uint64_t pfn)
{
    struct host *host = vcpu->vm->host;
    if (vcpu->vm->el2_protected)
        return (int)host_hvc(host, cpu, HVC_host_donate_guest, pfn, gfn, 0, 0);
    return (int)host_hvc(host, cpu, HVC_host_share_guest, pfn, gfn, 1, HYP_PROT_RWX);
}

bool pkvm_fault_is_poison(struct vcpu *vcpu, unsigned cpu)
{
    return vcpu->vm->el2_protected && host_hvc(vcpu->vm->host, cpu, HVC_vcpu_in_poison_fault, 0, 0, 0, 0) > 0;
}

/*
 * Upstream pKVM has no call by which a host takes a live VM's page back
 * politely: a page that the guest owns is force-reclaimed and its IPA is dead;
 * one that the guest has shared stays the guest's (EAGAIN there: "would no
 * longer fault").
 */
int pkvm_reclaim_page(struct vm *vm, uint64_t gfn, uint64_t pfn)
{
    int64_t rc;
    if (!vm->el2_protected)
        return (int)host_hvc(vm->host, 0, HVC_host_unshare_guest, vm->handle, gfn, 1, 0);
    rc = host_hvc(vm->host, 0, HVC_force_reclaim_guest_page, phys(pfn), 0, 0, 0);
    if (!rc)
        vm->nr_poisoned++;
    return rc ? -EBUSY : 0;
}

/* A page that the guest owns is not the host's, whatever its VMM says. */
static int pkvm_make_shared(struct gmem *gmem, uint64_t index, uint64_t pfn)
{
    (void)index;
    return host_hvc(gmem->host, 0, HVC_host_may_access, pfn, 0, 0, 0) > 0 ? 0 : -EPERM;
}

const struct gmem_driver pkvm_driver = {
    .name = "pkvm",
    .el2_protects = true,
    .preserves = {true, true},
    PKVM_DRIVER_VM_OPS,
    .make_shared = pkvm_make_shared,
};
