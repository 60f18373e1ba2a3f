/* SPDX-License-Identifier: BSD-2-Clause */
/* Specification: life cycle of VMs, vcpus. */
#include "fakehyp/oracle/state.h"
#include "fakehyp/string.h"

/* Slot of a handle, or NULL where no VM can be. */
static struct vm *slot_of(struct oracle *o, uint64_t handle)
{
    return handle >= HYP_HANDLE_OFFSET && handle - HYP_HANDLE_OFFSET < HYP_MAX_VMS ? &o->vms[handle - HYP_HANDLE_OFFSET]
                                                                                   : NULL;
}

struct vm *o_vm_of(struct oracle *o, uint64_t handle)
{
    struct vm *vm = slot_of(o, handle);

    return vm && vm->exists ? vm : NULL;
}

struct vcpu *o_vcpu_on(struct oracle *o, unsigned cpu)
{
    const struct cpu *c = &o->cpus[cpu];

    return c->vm ? &c->vm->vcpus[c->idx] : NULL;
}

static void touches(struct oracle *o, struct vm *vm, struct vcpu *vcpu)
{
    o->expect.vm = vm;
    o->expect.vcpu = vcpu;
}

/* Which of the free slots is taken is EL2's choice. */
int64_t spec_reserve_vm(struct oracle *o, int64_t got)
{
    struct vm *vm = got > 0 ? slot_of(o, (uint64_t)got) : NULL;

    if (vm && !vm->reserved) {
        vm->reserved = true;
        touches(o, vm, NULL);
        return got;
    }
    for (unsigned i = 0; i < HYP_MAX_VMS; i++)
        if (!o->vms[i].reserved)
            return HYP_HANDLE_OFFSET + i;
    return -HYP_ENOMEM;
}

void spec_unreserve_vm(struct oracle *o, uint64_t handle)
{
    struct vm *vm = slot_of(o, handle);

    if (!vm || vm->exists)
        return;
    vm->reserved = false;
    touches(o, vm, NULL);
}

static bool aligned(uint64_t phys)
{
    return phys % HYP_PAGE_SIZE == 0;
}

int64_t spec_init_vm(struct oracle *o, uint64_t host_kvm, uint64_t vm_page, uint64_t pgd)
{
    struct kvm_host_vm host;
    struct tree tree = {.pgd = pgd};
    uint64_t nr_pgd;
    struct vm *vm;

    if (!aligned(host_kvm))
        return -HYP_EINVAL;
    if (o_check_pin(o, host_kvm / HYP_PAGE_SIZE))
        return -HYP_EPERM;
    o_seen(o, host_kvm, &host, sizeof(host));
    if (host.created_vcpus < 1 || host.created_vcpus > HYP_VM_MAX_VCPUS || host.handle < HYP_HANDLE_OFFSET)
        return -HYP_EINVAL;
    if (host.ipa_bits < 32 || host.ipa_bits > 48 || host.unshare_mode > HYP_UNSHARE_UNILATERAL)
        return -HYP_EINVAL;
    tree.ipa_bits = host.ipa_bits;
    nr_pgd = o_nr_pgd_pages(&tree);
    if (!aligned(vm_page) || pgd % (nr_pgd * HYP_PAGE_SIZE) != 0)
        return -HYP_ENOMEM;
    if (o_check_donate_el2(o, vm_page / HYP_PAGE_SIZE, 1) || o_check_donate_el2(o, pgd / HYP_PAGE_SIZE, nr_pgd))
        return -HYP_ENOMEM;
    if (vm_page >= pgd && vm_page < pgd + nr_pgd * HYP_PAGE_SIZE) /* the same page cannot be donated twice */
        return -HYP_ENOMEM;
    vm = slot_of(o, host.handle);
    if (!vm || !vm->reserved || vm->exists)
        return -HYP_EINVAL;

    o_change_frame(o, host_kvm / HYP_PAGE_SIZE)->pins++;
    o_to_el2(o, vm_page / HYP_PAGE_SIZE, 1, host.handle);
    o_to_el2(o, pgd / HYP_PAGE_SIZE, nr_pgd, host.handle);
    vm->exists = true;
    vm->is_protected = host.is_protected != 0;
    vm->is_dying = false;
    vm->mode = (enum hyp_unshare_mode)host.unshare_mode;
    vm->handle = host.handle;
    vm->nr_vcpus = host.created_vcpus;
    vm->nr_loaded = 0;
    vm->page = vm_page;
    vm->host_kvm = host_kvm;
    tree.vmid = (uint16_t)(host.handle - HYP_HANDLE_OFFSET + 1);
    tree.nr_tables = nr_pgd;
    vm->tree = tree;
    vm->nr_mapped = vm->nr_cached = 0;
    vm->nr_donated = nr_pgd;
    memset(vm->vcpus, 0, vm->nr_vcpus * sizeof(vm->vcpus[0]));
    memset(o_copy_of(o, pgd), 0, nr_pgd * HYP_PAGE_SIZE);
    touches(o, vm, NULL);
    return 0;
}

int64_t spec_init_vcpu(struct oracle *o, uint64_t handle, uint64_t host_vcpu, uint64_t page)
{
    struct kvm_host_vcpu host;
    struct vm *vm;

    if (!aligned(host_vcpu))
        return -HYP_EINVAL;
    if (!aligned(page) || o_check_donate_el2(o, page / HYP_PAGE_SIZE, 1))
        return -HYP_ENOMEM;
    vm = o_vm_of(o, handle);
    if (!vm)
        return -HYP_ENOENT;
    if (o_check_pin(o, host_vcpu / HYP_PAGE_SIZE))
        return -HYP_EBUSY;
    o_seen(o, host_vcpu, &host, sizeof(host));
    if (host.vcpu_idx >= vm->nr_vcpus || vm->vcpus[host.vcpu_idx].exists)
        return -HYP_EINVAL;

    o_change_frame(o, host_vcpu / HYP_PAGE_SIZE)->pins++;
    o_to_el2(o, page / HYP_PAGE_SIZE, 1, vm->handle);
    vm->vcpus[host.vcpu_idx] = (struct vcpu){.exists = true, .page = page, .host_vcpu = host_vcpu};
    touches(o, vm, &vm->vcpus[host.vcpu_idx]);
    return 0;
}

int64_t spec_start_teardown(struct oracle *o, uint64_t handle)
{
    struct vm *vm = o_vm_of(o, handle);

    if (!vm || vm->nr_loaded || vm->is_dying)
        return -HYP_EINVAL;
    vm->is_dying = true;
    touches(o, vm, NULL);
    return 0;
}

/*
 * With pages left in the guest this is EBUSY, other than upstream, where they
 * would keep the annotation of a handle that is gone.  What comes back, and in
 * which list, is in the host's page afterwards; compare_ended() follows it.
 */
int64_t spec_finalize_teardown(struct oracle *o, uint64_t handle)
{
    struct vm *vm = o_vm_of(o, handle);

    if (!vm || vm->nr_loaded || !vm->is_dying)
        return -HYP_EINVAL;
    if (vm->nr_mapped)
        return -HYP_EBUSY;
    for (uint32_t i = 0; i < vm->nr_vcpus; i++)
        if (vm->vcpus[i].exists)
            o_change_frame(o, vm->vcpus[i].host_vcpu / HYP_PAGE_SIZE)->pins--;
    o_change_frame(o, vm->host_kvm / HYP_PAGE_SIZE)->pins--;
    o->expect.ended = vm;
    o->expect.flush_vmid = true;
    o->expect.flushed = vm->tree.vmid;
    vm->exists = vm->reserved = false;
    touches(o, vm, NULL);
    return 0;
}

/* ---- vcpus ---- */

void spec_vcpu_load(struct oracle *o, unsigned cpu, uint64_t handle, uint64_t idx)
{
    struct vm *vm = o_vm_of(o, handle);

    if (o->cpus[cpu].vm || !vm || vm->is_dying || idx >= vm->nr_vcpus)
        return;
    if (!vm->vcpus[idx].exists || vm->vcpus[idx].loaded)
        return;
    vm->vcpus[idx].loaded = true;
    vm->nr_loaded++;
    o->cpus[cpu].vm = vm;
    o->cpus[cpu].idx = (uint32_t)idx;
    touches(o, vm, &vm->vcpus[idx]);
}

void spec_vcpu_put(struct oracle *o, unsigned cpu)
{
    struct vcpu *vcpu = o_vcpu_on(o, cpu);

    if (!vcpu)
        return;
    touches(o, o->cpus[cpu].vm, vcpu);
    vcpu->loaded = false;
    o->cpus[cpu].vm->nr_loaded--;
    o->cpus[cpu].vm = NULL;
}

static void answer(struct vcpu *vcpu, int64_t result)
{
    vcpu->regs = (struct hyp_guest_regs){.x = {(uint64_t)result}};
}

/* The guest's call that made it exit ends with what the host has left in x[0]. */
int64_t spec_vcpu_run(struct oracle *o, unsigned cpu, uint64_t host_vcpu)
{
    struct vcpu *vcpu = o_vcpu_on(o, cpu);
    struct kvm_host_vcpu host;

    if (!vcpu || vcpu->host_vcpu != host_vcpu)
        return -HYP_EINVAL;
    o_seen(o, host_vcpu, &host, sizeof(host));
    if (vcpu->wait == WAIT_ANSWER) {
        memcpy(vcpu->regs.x, host.x, sizeof(host.x));
    } else if (vcpu->wait == WAIT_CONSENT) {
        bool done =
            host.x[0] == 0 && spec_guest_unshare(o, o->cpus[cpu].vm, vcpu->regs.x[1] / HYP_PAGE_SIZE, true) == 0;
        answer(vcpu, done ? SMCCC_RET_SUCCESS : SMCCC_RET_INVALID_PARAMETER);
    }
    vcpu->wait = WAIT_NOTHING;
    touches(o, o->cpus[cpu].vm, vcpu);
    return 0;
}
