/* SPDX-License-Identifier: BSD-2-Clause */
/* VMs, memslots, vCPUs: creation and teardown. */
#include "src/host/driver.h"
#include "src/host/tracker.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VCPUS 64u
/* KVM_USER_MEM_SLOTS: lists of slots are walked at each fault. */
#define MAX_SLOTS 32767u
/* A guest that was told to end has this long before teardown gives up. */
#define STOP_TIMEOUT_NS UINT64_C(5000000000)

int vm_create(struct host *host, const struct vm_config *config, struct vm **out, struct caller *caller)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return -ENOMEM;
    vm->host = host;
    vm->config = *config;
    if (!vm->config.ipa_bits)
        vm->config.ipa_bits = 40;
    int rc = host_alive(host, caller);
    if (!rc &&
        (vm->config.ipa_bits < 32 || vm->config.ipa_bits > 40 || vm->config.unshare_mode > HYP_UNSHARE_UNILATERAL)) {
        caller_explain(caller, "ipa_bits %u: 32..40; unshare_mode %u: 0 consent, 1 unilateral", vm->config.ipa_bits,
                       vm->config.unshare_mode);
        rc = -EINVAL;
    }
    if (!rc && (!variant_get(VARIANT_POLICY, config->policy) || !variant_get(VARIANT_TRACKER, config->tracker) ||
                !variant_get(VARIANT_HYP, config->hyp) || config->bugs >> HOST_BUG_COUNT ||
                (config->abi && config->abi != 5 && config->abi != 13))) {
        caller_explain(
            caller, "policy %u, tracker %u, hypervisor %u or bugs 0x%llx beyond what there is, or abi %u not 5 or 13",
            config->policy, config->tracker, config->hyp, (unsigned long long)config->bugs, config->abi);
        rc = -EINVAL;
    }
    vm->id = host->next_vm++; /* before the wait for EL2 */
    if (!rc) {
        vm->driver = gmem_driver(config->hyp);
        vm->el2_protected = config->is_protected && vm->driver->el2_protects;
        rc = vm_attributes_init(vm);
    }
    if (!rc) {
        rc = vm->driver->vm_create(vm, caller);
        if (rc)
            vm_attributes_destroy(vm);
    }
    if (rc) {
        free(vm);
        return rc;
    }
    vm->next = host->vms;
    if (vm->next)
        vm->next->prev = vm;
    host->vms = vm;
    host->nr_vms++;
    host_trace(host, &(struct host_event){.kind = HOST_EV_vm_create, .vm = vm->id, .a0 = vm->handle});
    *out = vm;
    return 0;
}

static void unlink_slot(struct vm *vm, struct memslot *slot)
{
    struct gmem *gmem = slot->gmem;
    for (struct memslot_link **at = &gmem->bindings; *at; at = &(*at)->next) {
        if ((*at)->slot != slot)
            continue;
        struct memslot_link *link = *at;
        *at = link->next;
        free(link);
        break;
    }
    for (struct memslot **at = &vm->slots; *at; at = &(*at)->next) {
        if (*at != slot)
            continue;
        *at = slot->next;
        break;
    }
    free(slot->has);
    free(slot);
    gmem_put(gmem);
}

void slot_unbind(struct vm *vm, struct memslot *slot)
{
    const struct host_arch *arch = &vm->host->arch;
    struct gmem *gmem = slot->gmem;
    uint64_t start = slot->index, end = slot->index + slot->nr_pages;
    gmem_get(gmem);
    arch->slot_remove(arch->ctx, vm, slot);
    gmem->dangling = gmem->dangling || slot->toggled;
    unlink_slot(vm, slot);
    sched_point("teardown:slot");
    /* Pages are the host's again where the attribute says shared; who keeps attributes by VM knows nothing of them. */
    arch->commit(arch->ctx, gmem->file, start, end);
    gmem_put(gmem);
}

/*
 * Every page of a slot that the guest has comes back; lost ones EL2 did not
 * give.  Under the file's lock, held exclusively: a conversion of another
 * client may be moving these very bytes.
 */
static void reclaim_slot(struct vm *vm, const struct memslot *s, uint64_t *done, uint64_t *lost)
{
    uint64_t index, pfn, end = s->index + s->nr_pages;

    for (uint64_t at = s->index; gmem_next_folio(s->gmem, at, end, &index, &pfn); at = index + 1) {
        struct frame *f = frame_of(vm->host, pfn);
        if (!guest_has(s, index, f))
            continue;
        if (driver_teardown_page(vm, s->gfn + (index - s->index), pfn)) {
            ++*lost;
            continue;
        }
        guest_lost(s, index, f);
        sched_point("teardown:page");
        if (++*done % 256 == 0)
            sched_relax();
    }
}

/* pkvm_destroy_hyp_vm(): before EL2 forgets the VM. */
static uint64_t reclaim_all(struct vm *vm)
{
    uint64_t done = 0, lost = 0;
    for (struct memslot *s = vm->slots; s; s = s->next) {
        task_lock_exclusive(&s->gmem->invalidate_lock);
        reclaim_slot(vm, s, &done, &lost);
        task_unlock_exclusive(&s->gmem->invalidate_lock);
    }
    done += guests_kept_reclaim(vm);
    if (lost)
        host_trace(vm->host, &(struct host_event){.kind = HOST_EV_reclaim,
                                                  .vm = vm->id,
                                                  .a1 = lost,
                                                  .rc = -EPERM,
                                                  .note = "pages that EL2 did not give back"});
    return done;
}

int vm_destroy(struct vm *vm, struct caller *caller)
{
    struct host *host = vm->host;
    uint64_t reclaimed = 0;

    if (vm->dying) {
        caller_explain(caller, "the VM is being destroyed already");
        return -EBUSY;
    }
    vm->dying = true;
    host->arch.guest_stop(host->arch.ctx, vm);
    uint64_t deadline = sched_now() + STOP_TIMEOUT_NS;
    while (vm->nr_inside && sched_now() < deadline)
        sched_wait_uncancelled(&vm->idle, deadline - sched_now());
    if (vm->nr_inside) {
        caller_explain(caller, "a vCPU of VM %llu does not return", (unsigned long long)vm->id);
        vm->dying = false;
        return -EBUSY;
    }
    sched_point("teardown:idle");
    if (vm->el2_ready) {
        /* After an attempt that EL2 stopped in the middle its side is dying already. */
        int rc = vm->el2_dying ? 0 : vm->driver->teardown_begin(vm);
        if (!rc) {
            vm->el2_dying = true;
            sched_point("teardown:begun");
            reclaimed = reclaim_all(vm);
            rc = vm->driver->teardown_end(vm);
        }
        /* What a dead EL2 has is lost for good; what is EL1's own need not be. */
        if (rc && !host->arch.stands_still(host->arch.ctx)) {
            caller_explain(caller, "EL2 did not let VM %llu go (errno %d)", (unsigned long long)vm->id, -rc);
            vm->dying = false;
            return -EBUSY;
        }
    } else {
        vm->driver->vm_destroy_reserved(vm);
    }
    sched_point("teardown:ended");
    while (vm->slots) {
        struct memslot *slot = vm->slots;
        struct gmem *gmem = slot->gmem;
        gmem_get(gmem);
        task_lock_exclusive(&gmem->invalidate_lock);
        slot_unbind(vm, slot);
        task_unlock_exclusive(&gmem->invalidate_lock);
        gmem_put(gmem);
    }
    host_trace(host, &(struct host_event){.kind = HOST_EV_vm_destroy, .vm = vm->id, .a0 = vm->handle, .a1 = reclaimed});
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        host->arch.vcpu_free(host->arch.ctx, vm->vcpus[i]);
        free(vm->vcpus[i]);
    }
    free(vm->vcpus);
    vm_attributes_destroy(vm);
    if (vm->prev)
        vm->prev->next = vm->next;
    else
        host->vms = vm->next;
    if (vm->next)
        vm->next->prev = vm->prev;
    host->nr_vms--;
    guests_kept_reclaim(vm);
    free(vm);
    return 0;
}

uint64_t vm_id(const struct vm *vm)
{
    return vm->id;
}

uint32_t vm_handle(const struct vm *vm)
{
    return vm->handle;
}

const struct vm_config *vm_config(const struct vm *vm)
{
    return &vm->config;
}

unsigned vm_nr_vcpus(const struct vm *vm)
{
    return vm->nr_vcpus;
}

struct vcpu *vm_vcpu(const struct vm *vm, unsigned index)
{
    return index < vm->nr_vcpus_alloc ? vm->vcpus[index] : NULL;
}

void vm_set_guest(struct vm *vm, void *guest)
{
    vm->guest = guest;
}

void *vm_guest(const struct vm *vm)
{
    return vm->guest;
}

const struct memslot *vm_slots(const struct vm *vm)
{
    return vm->slots;
}

const struct memslot *vm_slot_at(const struct vm *vm, uint64_t gfn)
{
    for (const struct memslot *s = vm->slots; s; s = s->next)
        if (gfn >= s->gfn && gfn - s->gfn < s->nr_pages)
            return s;
    return NULL;
}

static bool overlap(uint64_t a, uint64_t na, uint64_t b, uint64_t nb)
{
    return a < b + nb && b < a + na;
}

static struct memslot *find_slot(const struct vm *vm, uint32_t slot_nr)
{
    struct memslot *slot = vm->slots;
    while (slot && slot->slot != slot_nr)
        slot = slot->next;
    return slot;
}

static int delete_region(struct vm *vm, uint32_t slot_nr, struct caller *caller)
{
    struct memslot *slot = find_slot(vm, slot_nr);
    int rc = 0;
    if (!slot) {
        caller_explain(caller, "slot %u does not exist", slot_nr);
        return -EINVAL;
    }
    struct gmem *gmem = slot->gmem;
    gmem_get(gmem);
    task_lock_exclusive(&gmem->invalidate_lock);
    /* Somebody else may have deleted it while this waited for the lock. */
    slot = find_slot(vm, slot_nr);
    if (!slot || slot->gmem != gmem) {
        caller_explain(caller, "slot %u was deleted meanwhile", slot_nr);
        rc = -EINVAL;
    } else if (vm->el2_ready && vm->el2_protected) {
        /* What is donated could not come back (mmu.c). */
        caller_explain(caller, "slot %u: memslots of a protected VM are fixed after its first run", slot_nr);
        rc = -EPERM;
    } else {
        uint64_t done = 0, lost = 0;
        /* What an unprotected VM has is shared with it, and is unshared; the file's lock keeps new faults out. */
        reclaim_slot(vm, slot, &done, &lost);
        if (lost) {
            caller_explain(caller, "slot %u: EL2 did not unshare %llu of its pages", slot_nr, (unsigned long long)lost);
            rc = -EIO;
        } else {
            sched_point("slot:removing");
            slot_unbind(vm, slot);
        }
    }
    task_unlock_exclusive(&gmem->invalidate_lock);
    gmem_put(gmem);
    return rc;
}

/* What does not change while the call waits for the file's lock. */
static int check_arguments(const struct vm *vm, uint64_t gpa, uint64_t size, const struct gmem *gmem, uint64_t offset,
                           struct caller *caller)
{
    if ((gpa | size | offset) & (HOST_PAGE_SIZE - 1)) {
        caller_explain(caller, "gpa, size and offset must be multiples of 4096");
        return -EINVAL;
    }
    if (gpa + size < gpa) {
        caller_explain(caller, "gpa + size wraps around");
        return -EINVAL;
    }
    if (!gmem || (gmem->vm_id != vm->id && !gmem_is_linked(gmem, vm->id))) {
        caller_explain(caller, "the guest_memfd belongs to another VM");
        return -EINVAL;
    }
    uint64_t bytes = gmem->nr_pages << HOST_PAGE_SHIFT;
    if (offset > bytes || size > bytes - offset) {
        caller_explain(caller, "range [0x%llx, +0x%llx) beyond the file's end (0x%llx)", (unsigned long long)offset,
                       (unsigned long long)size, (unsigned long long)bytes);
        return -EINVAL;
    }
    return 0;
}

/* And what may: under the lock, and without a wait before the slot is linked. */
static int check_overlap(const struct vm *vm, uint32_t slot_nr, uint64_t gpa, uint64_t size, const struct gmem *gmem,
                         uint64_t offset, struct caller *caller)
{
    if (find_slot(vm, slot_nr)) {
        caller_explain(caller, "slot %u exists: a guest_memfd slot cannot be changed, delete it first", slot_nr);
        return -EINVAL;
    }
    uint64_t gfn = gpa >> HOST_PAGE_SHIFT, nr = size >> HOST_PAGE_SHIFT, index = offset >> HOST_PAGE_SHIFT;
    for (const struct memslot *s = vm->slots; s; s = s->next) {
        if (overlap(s->gfn, s->nr_pages, gfn, nr)) {
            caller_explain(caller, "overlaps slot %u in the IPA space", s->slot);
            return -EEXIST;
        }
    }
    for (const struct memslot_link *l = gmem->bindings; l; l = l->next) {
        /* Of a file that is linked into several VMs each has its own bindings. */
        if ((!gmem->nr_linked || l->vm == vm) && overlap(l->slot->index, l->slot->nr_pages, index, nr)) {
            caller_explain(caller, "slot %u binds part of this range of the file already", l->slot->slot);
            return -EEXIST;
        }
    }
    /* kvm_arch_prepare_memory_region() of arm64 comes last, and has an errno of its own. */
    if (gpa + size > UINT64_C(1) << vm->config.ipa_bits) {
        caller_explain(caller, "slot ends beyond the %u-bit IPA space", vm->config.ipa_bits);
        return -EFAULT;
    }
    return 0;
}

static int add_region(struct vm *vm, uint32_t slot_nr, uint64_t gpa, uint64_t size, struct gmem *gmem, uint64_t offset,
                      struct caller *caller)
{
    struct host *host = vm->host;
    struct memslot *old = find_slot(vm, slot_nr);
    if (!gmem && old && vm->config.bugs & HOST_BUG(SLOT_TOGGLE)) {
        /* The slot is an ordinary one from now on, and nobody unbinds it when it goes. */
        old->toggled = true;
        return 0;
    }
    int rc = check_arguments(vm, gpa, size, gmem, offset, caller);
    if (rc)
        return rc;
    struct memslot_link *link = calloc(1, sizeof(*link));
    struct memslot *slot = calloc(1, sizeof(*slot));
    if (!link || !slot) {
        free(link);
        free(slot);
        return -ENOMEM;
    }
    *slot = (struct memslot){.slot = slot_nr,
                             .gfn = gpa >> HOST_PAGE_SHIFT,
                             .nr_pages = size >> HOST_PAGE_SHIFT,
                             .gmem = gmem,
                             .index = offset >> HOST_PAGE_SHIFT};
    if (gmem->nr_linked && !(slot->has = calloc((slot->nr_pages + 7) / 8, 1))) {
        free(link);
        free(slot);
        return -ENOMEM;
    }
    gmem_get(gmem); /* the slot's reference */
    task_lock_exclusive(&gmem->invalidate_lock);
    rc = check_overlap(vm, slot_nr, gpa, size, gmem, offset, caller);
    if (rc) {
        task_unlock_exclusive(&gmem->invalidate_lock);
        gmem_put(gmem);
        free(link);
        free(slot->has);
        free(slot);
        return rc;
    }
    slot->next = vm->slots;
    vm->slots = slot;
    link->vm = vm;
    link->slot = slot;
    link->next = gmem->bindings;
    gmem->bindings = link;
    sched_point("slot:linked");
    rc = vm_attributes_bind(vm, slot);
    if (!rc)
        rc = host->arch.slot_add(host->arch.ctx, vm, slot, caller);
    sched_point("slot:added");
    if (rc)
        unlink_slot(vm, slot);
    task_unlock_exclusive(&gmem->invalidate_lock);
    host_trace(host, &(struct host_event){.kind = HOST_EV_slot_set,
                                          .vm = vm->id,
                                          .gmem = gmem->id,
                                          .offset = offset,
                                          .size = size,
                                          .a0 = gpa,
                                          .a1 = slot_nr,
                                          .rc = rc,
                                          .pid = caller ? caller->pid : 0});
    return rc;
}

int vm_set_memory_region(struct vm *vm, uint32_t slot_nr, uint32_t flags, uint64_t gpa, uint64_t size,
                         struct gmem *gmem, uint64_t offset, struct caller *caller)
{
    if (vm->dying) {
        caller_explain(caller, "the VM is being destroyed");
        return -EIO;
    }
    if (slot_nr >= MAX_SLOTS) {
        caller_explain(caller, "slot %u: a VM has slots 0..%u", slot_nr, MAX_SLOTS - 1);
        return -EINVAL;
    }
    if (flags) {
        caller_explain(caller, "flags 0x%x: neither READONLY nor dirty logging goes with guest_memfd", flags);
        return -EINVAL;
    }
    /* The VM must outlive the wait for the file's lock. */
    vm->nr_inside++;
    int rc = size ? add_region(vm, slot_nr, gpa, size, gmem, offset, caller) : delete_region(vm, slot_nr, caller);
    if (--vm->nr_inside == 0)
        sched_wake_all(&vm->idle);
    return rc;
}

int vcpu_create(struct vm *vm, unsigned index, struct vcpu **out, struct caller *caller)
{
    struct host *host = vm->host;
    if (vm->dying) {
        caller_explain(caller, "the VM is being destroyed");
        return -EIO;
    }
    if (index >= MAX_VCPUS || index > vm->nr_vcpus) {
        caller_explain(caller, "vCPU index %u: indexes are given without a gap, at most %u", index, MAX_VCPUS - 1);
        return -EINVAL;
    }
    if (index < vm->nr_vcpus) {
        caller_explain(caller, "vCPU %u exists", index);
        return -EEXIST;
    }
    if (vm->el2_ready || vm->guest) {
        caller_explain(caller, "vCPUs are created before the guest starts");
        return -EBUSY;
    }
    if (index >= vm->nr_vcpus_alloc) {
        struct vcpu **grown = realloc(vm->vcpus, (index + 1) * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        grown[index] = NULL;
        vm->vcpus = grown;
        vm->nr_vcpus_alloc = index + 1;
    }
    struct vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu)
        return -ENOMEM;
    int rc = ram_alloc(host, 0, &vcpu->host_vcpu_pfn);
    if (rc) {
        free(vcpu);
        return rc;
    }
    memset(host->arch.ram(host->arch.ctx, vcpu->host_vcpu_pfn), 0, HOST_PAGE_SIZE);
    vcpu->vm = vm;
    vcpu->index = index;
    vm->vcpus[index] = vcpu;
    vm->nr_vcpus++;
    *out = vcpu;
    return 0;
}

unsigned vcpu_index(const struct vcpu *vcpu)
{
    return vcpu->index;
}

struct vm *vcpu_vm(const struct vcpu *vcpu)
{
    return vcpu->vm;
}

uint64_t vcpu_host_phys(const struct vcpu *vcpu)
{
    return vcpu->host_vcpu_pfn << HOST_PAGE_SHIFT;
}

void vcpu_set_machine(struct vcpu *vcpu, void *machine)
{
    vcpu->machine = machine;
}

void *vcpu_machine(const struct vcpu *vcpu)
{
    return vcpu->machine;
}
