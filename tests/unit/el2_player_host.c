/* SPDX-License-Identifier: BSD-2-Clause */
/* What the host plays: the life of VMs, and the memory of guests. */
#include "tests/unit/el2_player.h"

#include <string.h>

#define BLOCK 512u
#define BLOCK_GFN UINT64_C(0x40200)

static bool is_pinned(struct player *p, uint64_t pfn)
{
    return hyp_is_allowed_memory(p->el2->hyp, pfn) && hyp_page(p->el2->hyp, pfn)->refcount != 0;
}

/* Shared with EL2, and mostly without pins. */
static uint64_t shared_frame(struct player *p)
{
    uint64_t pfn = play_frame_in(p, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_SHARED_BORROWED);

    for (unsigned i = 0; i < 8 && is_pinned(p, pfn) && !play_one_in(p, 16); i++)
        pfn = play_frame_in(p, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_SHARED_BORROWED);
    return pfn;
}

/* A page for a structure that the host shares with EL2. */
static void share_a_page(struct player *p, unsigned cpu)
{
    uint64_t pfn = shared_frame(p);

    if (!hyp_is_allowed_memory(p->el2->hyp, pfn) || is_pinned(p, pfn) ||
        hyp_hyp_state(p->el2->hyp, pfn) != PKVM_PAGE_SHARED_BORROWED)
        play_host_call(p, cpu, HVC_host_share_hyp, play_free_frame(p), 0, 0, 0);
}

/* Page k of what a call names may be one that spoils it; mostly they are free. */
static uint64_t free_phys(struct player *p)
{
    uint64_t phys = play_free_frame(p) << HYP_PAGE_SHIFT;

    return play_one_in(p, 40) ? phys + play_draw(p, HYP_PAGE_SIZE) : phys;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

/* All slots, and back to few: else the table would never be full, or always. */
static void reserve_all(struct player *p)
{
    while (play_host_call(p, play_cpu(p, PLAY_ANY), HVC_reserve_vm, 0, 0, 0, 0) == OUT_OK)
        ;
    for (uint64_t i = 8; i < HYP_MAX_VMS; i++)
        if (p->el2->hyp->vms[i].reserved)
            play_host_call(p, 0, HVC_unreserve_vm, HYP_HANDLE_OFFSET + i, 0, 0, 0);
}

static uint32_t any_ipa_bits(struct player *p)
{
    /* One or two PGD pages: more only make the checks slow. */
    static const uint32_t good[] = {36, 39, 40, 48};

    return play_one_in(p, 40) ? (uint32_t)play_draw(p, 64) : good[play_draw(p, sizeof(good) / sizeof(good[0]))];
}

static uint32_t reserved_handle(struct player *p)
{
    uint64_t first = play_draw(p, 8);

    for (uint64_t i = 0; i < 8 && !play_one_in(p, 16); i++) {
        uint64_t slot = (first + i) % 8;

        if (p->el2->hyp->vms[slot].reserved && !p->el2->hyp->vms[slot].vm)
            return (uint32_t)(HYP_HANDLE_OFFSET + slot);
    }
    return (uint32_t)play_handle(p, PLAY_ANY);
}

static void init_vm(struct player *p, unsigned cpu)
{
    uint64_t pfn = play_one_in(p, 16) ? play_frame(p) : shared_frame(p), pgd = play_free_frame(p);
    struct kvm_host_vm *host = play_host_page(p, pfn);
    uint32_t ipa_bits = any_ipa_bits(p);

    if (host && !is_pinned(p, pfn))
        *host = (struct kvm_host_vm){.handle = reserved_handle(p),
                                     .created_vcpus = (uint32_t)play_draw(p, 16) / 6 + 1,
                                     .is_protected = (uint32_t)play_draw(p, 2),
                                     .ipa_bits = ipa_bits,
                                     .unshare_mode = play_one_in(p, 50) ? 2 : (uint32_t)play_draw(p, 2)};
    if (host && play_one_in(p, 30))
        host->created_vcpus = 0;
    if (ipa_bits == 40 && pgd % 2)
        pgd++;
    play_host_call(p, cpu, HVC_init_vm, (pfn << HYP_PAGE_SHIFT) + 8 * play_one_in(p, 50), free_phys(p),
                   pgd << HYP_PAGE_SHIFT, 0);
}

static void init_vcpu(struct player *p, unsigned cpu)
{
    const struct hyp_vm *vm = play_vm(p, PLAY_ANY);
    uint64_t pfn = play_one_in(p, 16) ? play_frame(p) : shared_frame(p), handle = play_handle(p, PLAY_ANY);
    struct kvm_host_vcpu *host = play_host_page(p, pfn);
    uint32_t idx = (uint32_t)play_draw(p, 3);

    if (vm && !play_one_in(p, 6)) {
        handle = vm->handle;
        for (idx = 0; idx < vm->nr_vcpus && vm->vcpus[idx]; idx++)
            ;
    }
    if (host && !is_pinned(p, pfn))
        *host = (struct kvm_host_vcpu){.vcpu_idx = idx};
    play_host_call(p, cpu, HVC_init_vcpu, handle, (pfn << HYP_PAGE_SHIFT) + 8 * play_one_in(p, 50), free_phys(p), 0);
}

/* A vcpu that is free, on a CPU that is free, most of the time. */
static void load(struct player *p)
{
    const struct hyp_vm *vm = play_vm(p, PLAY_ANY);
    uint64_t idx = play_draw(p, 3);
    unsigned cpu = play_cpu(p, PLAY_ANY);

    for (unsigned i = 0; i < PLAY_NR_CPUS && !play_one_in(p, 8); i++)
        if (!p->in_guest[i] && !p->el2->hyp->cpus[i].loaded)
            cpu = i;
    if (vm && !play_one_in(p, 8))
        for (idx = 0; idx < vm->nr_vcpus && (!vm->vcpus[idx] || vm->vcpus[idx]->loaded); idx++)
            ;
    play_host_call(p, cpu, HVC_vcpu_load, vm ? vm->handle : play_handle(p, PLAY_ANY), idx, 0, 0);
}

/* What a host does that wants a VM. */
static void new_vm(struct player *p, unsigned cpu)
{
    play_host_call(p, cpu, HVC_reserve_vm, 0, 0, 0, 0);
    share_a_page(p, cpu);
    init_vm(p, cpu);
    for (uint64_t n = 1 + play_draw(p, 2); n > 0; n--) {
        share_a_page(p, cpu);
        init_vcpu(p, cpu);
        load(p);
    }
}

static void start_teardown(struct player *p, unsigned cpu)
{
    const struct hyp_vm *vm = play_vm(p, PLAY_ANY);

    for (unsigned i = 0; vm && i < PLAY_NR_CPUS && !play_one_in(p, 8); i++)
        if (!p->in_guest[i] && p->el2->hyp->cpus[i].loaded && p->el2->hyp->cpus[i].loaded->vm == vm)
            play_host_call(p, i, HVC_vcpu_put, 0, 0, 0, 0);
    play_host_call(p, cpu, HVC_start_teardown_vm, vm ? vm->handle : play_handle(p, PLAY_ANY), 0, 0, 0);
}

static void unknown_call(struct player *p, unsigned cpu)
{
    uint64_t n = play_draw(p, 2) ? play_draw(p, HVC_prot_finalize) : HVC_host_may_access + 1 + play_draw(p, 100);

    play_host_call(p, cpu, (enum hyp_host_call)n, play_frame(p), play_gfn(p), 0, 0);
}

void play_life(struct player *p)
{
    unsigned cpu = play_cpu(p, PLAY_ANY);

    switch (play_draw(p, 32)) {
    case 0:
    case 1:
    case 2:
        play_host_call(p, cpu, HVC_reserve_vm, 0, 0, 0, 0);
        break;
    case 3:
        play_host_call(p, cpu, HVC_unreserve_vm, play_handle(p, PLAY_ANY), 0, 0, 0);
        if (play_one_in(p, 256))
            reserve_all(p);
        break;
    case 4:
    case 5:
    case 6:
        new_vm(p, cpu);
        break;
    case 7:
        play_host_call(p, cpu, HVC_prot_finalize, 0, 0, 0, 0);
        break;
    case 8:
        unknown_call(p, cpu);
        break;
    case 9:
        play_host_call(p, cpu, HVC_vcpu_put, 0, 0, 0, 0);
        break;
    case 10:
        start_teardown(p, cpu);
        break;
    case 11:
    case 12:
        play_host_call(p, cpu, HVC_finalize_teardown_vm, play_handle(p, PLAY_DYING), 0, 0, 0);
        break;
    case 13:
        play_host_call(p, cpu, HVC_tlb_flush_vmid, play_handle(p, PLAY_ANY), 0, 0, 0);
        break;
    case 14:
    case 15:
        init_vm(p, cpu);
        break;
    case 16:
    case 17:
        init_vcpu(p, cpu);
        break;
    case 18:
    case 19:
    case 20:
    case 21:
    case 22:
    case 23:
        play_host_call(p, cpu, HVC_host_unshare_hyp, play_one_in(p, 4) ? play_frame(p) : shared_frame(p), 0, 0, 0);
        break;
    case 24:
        play_host_call(p, cpu, HVC_host_may_access, play_frame(p), 0, 0, 0);
        break;
    case 25:
        play_host_call(p, cpu, HVC_host_share_hyp, play_one_in(p, 4) ? play_frame(p) : play_free_frame(p), 0, 0, 0);
        break;
    default:
        load(p);
    }
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* A list for the vcpu on this CPU, spoilt now and then. */
static void fill_memcache(struct player *p, unsigned cpu)
{
    const struct hyp_vcpu *vcpu = p->el2->hyp->cpus[cpu].loaded;
    struct hyp_memcache *mc;

    if (!vcpu || play_one_in(p, 30))
        return;
    mc = &hyp_host_vcpu(p->el2->hyp, vcpu)->pkvm_memcache;
    *mc = (struct hyp_memcache){0};
    for (uint64_t n = 3 + play_draw(p, 2) - 3 * play_one_in(p, 30); n > 0; n--) {
        uint64_t pfn = play_free_frame(p), *link = play_host_page(p, pfn);

        if (!link || pfn << HYP_PAGE_SHIFT == mc->head)
            continue;
        *link = play_one_in(p, 64) ? play_draw(p, 0) >> play_draw(p, 64) : mc->head;
        mc->head = (pfn << HYP_PAGE_SHIFT) + 8 * play_one_in(p, 200);
        mc->nr_pages += play_one_in(p, 64) ? play_draw(p, 5) : 1;
    }
}

/* Where the guest faulted last, or anywhere. */
static uint64_t wanted_gfn(struct player *p, unsigned cpu)
{
    const struct hyp_vcpu *vcpu = p->el2->hyp->cpus[cpu].loaded;

    return vcpu && vcpu->hpfar && play_one_in(p, 3) ? IPA_FROM_HPFAR(vcpu->hpfar) >> HYP_PAGE_SHIFT : play_gfn(p);
}

static void donate_guest(struct player *p)
{
    unsigned cpu = play_cpu(p, PLAY_PROTECTED);

    fill_memcache(p, cpu);
    play_host_call(p, cpu, HVC_host_donate_guest, play_one_in(p, 8) ? play_frame(p) : play_free_frame(p),
                   wanted_gfn(p, cpu), 0, 0);
}

static void share_guest(struct player *p)
{
    unsigned cpu = play_cpu(p, PLAY_NP);
    uint64_t pfn = play_one_in(p, 4) ? play_frame(p) : play_free_frame(p), gfn = wanted_gfn(p, cpu), nr = 1;

    if (play_one_in(p, 16)) {
        pfn = p->block + play_draw(p, BLOCK);
    } else if (play_one_in(p, 10)) {
        pfn = play_one_in(p, 8) ? pfn : p->block;
        gfn = play_one_in(p, 8) ? gfn : BLOCK_GFN;
        nr = play_one_in(p, 8) ? play_draw(p, 600) : BLOCK;
    }
    fill_memcache(p, cpu);
    play_host_call(p, cpu, HVC_host_share_guest, pfn, gfn, nr, play_one_in(p, 30) ? 8 : play_draw(p, 8));
}

/* One page or a block, as the leaf is, or as it is not. */
static uint64_t any_size(struct player *p, const struct hyp_vm *vm, uint64_t gfn)
{
    struct hyp_guest_leaf leaf;

    if (play_one_in(p, 16))
        return play_draw(p, 600);
    if (vm && hyp_guest_leaf(p->el2->hyp, vm->handle, gfn, &leaf) == 0 && leaf.level == 2)
        return play_one_in(p, 4) ? 1 : BLOCK;
    return play_one_in(p, 16) ? BLOCK : 1;
}

static void unshare_guest(struct player *p, unsigned cpu)
{
    const struct hyp_vm *vm = play_vm(p, PLAY_NP);
    uint64_t gfn = play_one_in(p, 8) ? BLOCK_GFN : play_used_gfn(p, vm);

    play_host_call(p, cpu, HVC_host_unshare_guest, vm ? vm->handle : play_handle(p, PLAY_NP), gfn, any_size(p, vm, gfn),
                   0);
}

static void attributes(struct player *p)
{
    const struct hyp_vm *vm = play_vm(p, PLAY_NP);
    unsigned cpu = play_cpu(p, PLAY_NP);
    const struct hyp_vcpu *vcpu = p->el2->hyp->cpus[cpu].loaded;
    uint64_t gfn = play_used_gfn(p, vm), handle = vm ? vm->handle : play_handle(p, PLAY_NP);

    switch (play_draw(p, 4)) {
    case 0:
        play_host_call(p, cpu, HVC_wrprotect_guest, handle, gfn, any_size(p, vm, gfn), 0);
        break;
    case 1:
        play_host_call(p, cpu, HVC_test_clear_young_guest, handle, gfn, any_size(p, vm, gfn), play_draw(p, 2));
        break;
    case 2:
        play_host_call(p, cpu, HVC_mkyoung_guest, play_used_gfn(p, vcpu ? vcpu->vm : NULL), 0, 0, 0);
        break;
    default:
        play_host_call(p, cpu, HVC_relax_perms_guest, play_used_gfn(p, vcpu ? vcpu->vm : NULL),
                       play_one_in(p, 16) ? 8 : play_draw(p, 8), 0, 0);
    }
}

static void reclaim(struct player *p, unsigned cpu)
{
    const struct hyp_vm *vm = play_vm(p, PLAY_DYING);

    play_host_call(p, cpu, HVC_reclaim_dying_guest_page, vm ? vm->handle : play_handle(p, PLAY_DYING),
                   play_one_in(p, 8) ? BLOCK_GFN : play_used_gfn(p, vm), 0, 0);
    if (vm && vm->is_dying && vm->nr_mapped == 0)
        play_host_call(p, cpu, HVC_finalize_teardown_vm, vm->handle, 0, 0, 0);
}

static void host_abort(struct player *p, unsigned cpu)
{
    uint64_t pfn = play_frame(p), phys = pfn << HYP_PAGE_SHIFT | play_draw(p, HYP_PAGE_SIZE);
    bool mapped = s2_pte_valid(hyp_host_leaf(p->el2->hyp, pfn));

    play_begin(p, cpu, PLAY_host_abort, (const uint64_t[4]){phys});
    if (el2_abort(p->el2, cpu, phys, play_draw(p, 2)) == HYP_ABORT_INJECT)
        play_done(p, OUT_EPERM);
    else
        play_done(p, mapped ? OUT_EEXIST : OUT_OK);
}

static void ffa(struct player *p, unsigned cpu)
{
    bool share = play_one_in(p, 3);
    uint64_t pfn = share ? play_free_frame(p) : play_frame_in(p, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_NOPAGE);
    uint64_t nr = play_one_in(p, 8) ? play_draw(p, 3) : 1;

    play_begin(p, cpu, share ? PLAY_host_share_ffa : PLAY_host_unshare_ffa, (const uint64_t[4]){pfn, nr});
    play_done(p, play_outcome_of(el2_inner(p->el2, share ? ORACLE_SHARE_FFA : ORACLE_UNSHARE_FFA, pfn, nr)));
}

void play_memory(struct player *p)
{
    unsigned cpu = play_cpu(p, PLAY_ANY);

    switch (play_draw(p, 32)) {
    case 0:
        play_host_call(p, cpu, HVC_force_reclaim_guest_page,
                       play_frame_in(p, PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE) << HYP_PAGE_SHIFT | play_draw(p, 2), 0, 0,
                       0);
        break;
    case 1:
    case 2:
        play_host_call(p, play_cpu(p, PLAY_PROTECTED), HVC_vcpu_in_poison_fault, 0, 0, 0, 0);
        break;
    case 3:
    case 4:
        host_abort(p, cpu);
        break;
    case 5:
    case 6:
        ffa(p, cpu);
        break;
    case 7:
    case 8:
    case 9:
    case 10:
        unshare_guest(p, cpu);
        break;
    case 11:
    case 12:
    case 13:
        attributes(p);
        break;
    case 14:
    case 15:
    case 16:
    case 17:
        reclaim(p, cpu);
        break;
    case 18:
    case 19:
    case 20:
    case 21:
    case 22:
    case 23:
        share_guest(p);
        break;
    default:
        donate_guest(p);
    }
}
