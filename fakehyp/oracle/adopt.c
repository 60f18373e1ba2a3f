/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking over EL2's state as it is, after a divergence or a change on purpose. */
#include "fakehyp/oracle/state.h"
#include "fakehyp/string.h"

static void adopt_vcpu(struct oracle *o, struct vm *vm, uint32_t idx)
{
    struct vcpu *vcpu = &vm->vcpus[idx];
    struct hyp_vcpu_info info;

    hyp_vcpu_info(o->hyp, vm->handle, idx, &info);
    *vcpu = (struct vcpu){.exists = info.exists};
    if (!info.exists)
        return;
    vcpu->loaded = info.loaded;
    vcpu->wait = (enum guest_wait)info.pending;
    vcpu->page = info.phys;
    vcpu->host_vcpu = info.host_vcpu;
    vcpu->nr_cached = info.memcache.nr_pages;
    vcpu->esr = info.esr;
    vcpu->hpfar = info.hpfar;
    vcpu->regs = info.regs;
    vm->nr_loaded += info.loaded;
    vm->nr_cached += info.memcache.nr_pages;
}

static void adopt_vm(struct oracle *o, struct vm *vm)
{
    uint32_t handle = HYP_HANDLE_OFFSET + (uint32_t)(vm - o->vms);
    struct hyp_vm_info info;
    struct hyp_vttbr vttbr;

    hyp_vm_info(o->hyp, handle, &info);
    vm->reserved = info.reserved;
    vm->exists = info.exists;
    if (!info.exists)
        return;
    hyp_vm_vttbr(o->hyp, handle, &vttbr);
    vm->is_protected = info.is_protected;
    vm->is_dying = info.is_dying;
    vm->mode = info.unshare_mode;
    vm->handle = handle;
    vm->nr_vcpus = info.nr_vcpus;
    vm->page = info.phys;
    vm->host_kvm = info.host_kvm;
    vm->nr_loaded = 0;
    vm->nr_cached = 0;
    for (uint32_t i = 0; i < vm->nr_vcpus; i++)
        adopt_vcpu(o, vm, i);
    vm->tree = (struct tree){.pgd = vttbr.pgd, .ipa_bits = vttbr.ipa_bits, .vmid = vttbr.vmid};
}

/* For whom a page of EL2 was donated is in no record of EL2: it is where the page is found. */
static uint64_t mark_list(struct oracle *o, struct hyp_memcache list, uint32_t handle)
{
    uint64_t nr = 0;

    for (; nr < list.nr_pages && o_tracked(o, list.head / HYP_PAGE_SIZE); nr++) {
        o->frames[list.head / HYP_PAGE_SIZE - o->base_pfn].handle = handle & 0xffffff;
        list.head = *o_page_now(o, list.head);
    }
    return nr;
}

static void mark_page(struct oracle *o, uint64_t page, uint32_t handle)
{
    mark_list(o, (struct hyp_memcache){.head = page, .nr_pages = 1}, handle);
}

static void count_mapped(const struct oracle *o, struct vm *vm, uint64_t table, int level)
{
    const uint64_t *copy = o_copy_of(o, table);

    for (unsigned i = 0; i < ORACLE_ENTRIES; i++) {
        if (o_is_table(copy[i], level))
            count_mapped(o, vm, copy[i] & PTE_OUTPUT, level + 1);
        else if (copy[i] & PTE_VALID)
            vm->nr_mapped += o_granule(level) / HYP_PAGE_SIZE;
    }
}

static void mark_vm(struct oracle *o, struct vm *vm)
{
    struct hyp_vcpu_info vcpu;
    struct hyp_vm_info info;

    hyp_vm_info(o->hyp, vm->handle, &info);
    o_adopt_tree(o, &vm->tree, vm->handle);
    mark_page(o, vm->page, vm->handle);
    vm->nr_donated = vm->tree.nr_tables + vm->nr_cached + mark_list(o, info.pool, vm->handle);
    for (uint32_t i = 0; i < vm->nr_vcpus; i++) {
        if (!vm->vcpus[i].exists)
            continue;
        mark_page(o, vm->vcpus[i].page, vm->handle);
        hyp_vcpu_info(o->hyp, vm->handle, i, &vcpu);
        mark_list(o, vcpu.memcache, vm->handle);
    }
    vm->nr_mapped = 0;
    for (uint64_t i = 0; i < o_nr_pgd_pages(&vm->tree); i++)
        count_mapped(o, vm, vm->tree.pgd + i * HYP_PAGE_SIZE, (int)o_tree_start_level(&vm->tree));
}

void o_adopt(struct oracle *o)
{
    struct hyp_cpu_info cpu;

    for (unsigned i = 0; i < HYP_MAX_VMS; i++)
        adopt_vm(o, &o->vms[i]);
    o->finalized = false;
    for (unsigned i = 0; i < o->nr_cpus; i++) {
        hyp_cpu_info(o->hyp, i, &cpu);
        o->cpus[i] = (struct cpu){.finalized = cpu.finalized, .idx = cpu.vcpu_idx};
        if (cpu.handle)
            o->cpus[i].vm = &o->vms[cpu.handle - HYP_HANDLE_OFFSET];
        o->finalized |= cpu.finalized;
    }
    for (uint64_t i = 0; i < o->nr_frames; i++) {
        struct frame now = o_frame_now(o, o->base_pfn + i);

        if (now.el2 == EL2_OWNS)
            now.handle = 0; /* what a VM has is marked below */
        if (memcmp(&now, &o->frames[i], sizeof(now)) == 0)
            continue;
        o->frames[i] = now;
        o->used[i / CHUNK] = 1;
    }
    o_adopt_tree(o, &o->host, 0);
    for (unsigned i = 0; i < HYP_MAX_VMS; i++)
        if (o->vms[i].exists)
            mark_vm(o, &o->vms[i]);
}
