/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random calls over a small pool of frames, handles and IPAs.  No call has an
 * expected result: after each one every invariant must hold, and EL2 must not
 * panic.  At the end the host takes everything back.
 *
 * usage: el2_random [SEED [CALLS]]
 */
#include "tests/unit/el2_harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NR_VMS 4
#define NR_GFNS 12
#define NR_CPUS 4

static uint64_t seed = 314159;
static unsigned long nr_calls = 200000;

struct fixture {
    struct el2 *el2;
    uint64_t first, nr; /* frames to play with */
    unsigned long nr_ok[64];
};

static uint64_t next_random(void)
{
    /* xorshift64* */
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return seed * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t below(uint64_t n)
{
    return (next_random() >> 16) % n;
}

static bool one_in(uint64_t n)
{
    return below(n) == 0;
}

static uint64_t any_frame(struct fixture *f)
{
    return one_in(200) ? next_random() >> below(64) : f->first + below(f->nr);
}

/* A frame in this state if a few tries find one. */
static uint64_t frame_in(struct fixture *f, enum hyp_page_state host, enum hyp_page_state hyp)
{
    uint64_t pfn = any_frame(f);

    for (unsigned i = 0; i < 20 && hyp_is_allowed_memory(f->el2->hyp, pfn); i++) {
        if (hyp_host_state(f->el2->hyp, pfn) == host && hyp_hyp_state(f->el2->hyp, pfn) == hyp)
            break;
        pfn = f->first + below(f->nr);
    }
    return pfn;
}

static uint64_t free_frame(struct fixture *f)
{
    return frame_in(f, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE);
}

static uint64_t shared_frame(struct fixture *f)
{
    return frame_in(f, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_SHARED_BORROWED);
}

static uint64_t any_gfn(void)
{
    if (one_in(1000))
        return next_random() >> below(64);
    return UINT64_C(0x40000) + below(NR_GFNS);
}

static uint64_t any_handle(void)
{
    return one_in(100) ? next_random() >> below(64) : HYP_HANDLE_OFFSET + below(NR_VMS);
}

static uint64_t any_size(void)
{
    return one_in(20) ? below(600) : 1;
}

/* The host may write what it likes into pages that it reaches. */
static void *host_page(struct fixture *f, uint64_t pfn)
{
    if (!hyp_is_allowed_memory(f->el2->hyp, pfn) || hyp_host_state(f->el2->hyp, pfn) == PKVM_PAGE_NOPAGE)
        return NULL;
    return el2_virt(f->el2, pfn << 12);
}

static uint32_t any_ipa_bits(void)
{
    /* One or two PGD pages: more only make hyp_check() slow. */
    static const uint32_t good[] = {35, 36, 39, 40, 48};

    return one_in(20) ? (uint32_t)below(64) : good[below(sizeof(good) / sizeof(good[0]))];
}

static void fill_host_vm(struct fixture *f, uint64_t pfn)
{
    struct kvm_host_vm *host = host_page(f, pfn);

    if (host)
        *host = (struct kvm_host_vm){.handle = (uint32_t)any_handle(),
                                     .created_vcpus = 1 + (uint32_t)below(3),
                                     .is_protected = (uint32_t)below(2),
                                     .ipa_bits = any_ipa_bits(),
                                     .unshare_mode = one_in(50) ? 2 : (uint32_t)below(2)};
}

static void fill_host_vcpu(struct fixture *f, uint64_t pfn)
{
    struct kvm_host_vcpu *host = host_page(f, pfn);

    if (host)
        *host = (struct kvm_host_vcpu){.vcpu_idx = (uint32_t)below(3)};
}

/* A list of free frames for the vcpu on this CPU, spoilt now and then. */
static void fill_memcache(struct fixture *f, unsigned cpu)
{
    const struct hyp_vcpu *vcpu = f->el2->hyp->cpus[cpu].loaded;
    struct hyp_memcache *mc;

    if (!vcpu)
        return;
    mc = &hyp_host_vcpu(f->el2->hyp, vcpu)->pkvm_memcache;
    *mc = (struct hyp_memcache){0};
    for (uint64_t n = 2 + below(3); n > 0; n--) {
        uint64_t pfn = free_frame(f), *link = host_page(f, pfn);

        if (!link)
            continue;
        *link = one_in(50) ? next_random() >> below(64) : mc->head;
        mc->head = pfn << 12;
        mc->nr_pages += one_in(50) ? below(5) : 1;
    }
}

static void host_call(struct fixture *f, unsigned cpu, enum hyp_host_call n, uint64_t a1, uint64_t a2, uint64_t a3,
                      uint64_t a4)
{
    uint64_t regs[8] = {HVC_HOST_BASE + n, a1, a2, a3, a4};
    enum hyp_next next = el2_hvc(f->el2, cpu, regs);

    if (next == HYP_NEXT_GUEST || (int64_t)regs[1] >= 0)
        f->nr_ok[n]++;
}

static void guest_step(struct fixture *f, unsigned cpu)
{
    static const uint64_t ids[] = {SMCCC_MEM_SHARE,           SMCCC_MEM_SHARE,   SMCCC_MEM_UNSHARE,
                                   SMCCC_MEM_UNSHARE,         SMCCC_HYP_MEMINFO, SMCCC_VENDOR_HYP_UID,
                                   SMCCC_VENDOR_HYP_FEATURES, PSCI_SYSTEM_OFF};
    struct hyp_trap trap = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT,
                            .x = {ids[below(sizeof(ids) / sizeof(ids[0]))], any_gfn() << 12, one_in(30), one_in(30)}};
    uint64_t regs[8] = {0};

    if (one_in(4)) {
        trap.esr = ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_FSC_TRANS_L(below(4));
        trap.hpfar = HPFAR_FROM_IPA(trap.x[1]);
    }
    el2_trap(f->el2, cpu, &trap, regs);
}

static void vcpu_run(struct fixture *f, unsigned cpu)
{
    const struct hyp_vcpu *vcpu = f->el2->hyp->cpus[cpu].loaded;

    if (vcpu)
        hyp_host_vcpu(f->el2->hyp, vcpu)->x[0] = one_in(4);
    host_call(f, cpu, HVC_vcpu_run, vcpu && !one_in(20) ? vcpu->host_vcpu : any_frame(f) << 12, 0, 0, 0);
    if (vcpu)
        guest_step(f, cpu);
}

static void init_vm(struct fixture *f)
{
    uint64_t pfn = shared_frame(f);

    fill_host_vm(f, pfn);
    host_call(f, 0, HVC_init_vm, pfn << 12, free_frame(f) << 12, (free_frame(f) & ~UINT64_C(15)) << 12, 0);
}

static void init_vcpu(struct fixture *f)
{
    uint64_t pfn = shared_frame(f);

    fill_host_vcpu(f, pfn);
    host_call(f, 0, HVC_init_vcpu, any_handle(), pfn << 12, free_frame(f) << 12, 0);
}

/* What a well-behaved host does to end a VM; false when pages are left at IPAs that only the guest knew. */
static bool end_vm(struct fixture *f, uint64_t handle)
{
    struct el2 *el2 = f->el2;

    if (!hyp_vm_find(el2->hyp, handle))
        return true;
    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++)
        if (el2->hyp->cpus[cpu].loaded && el2->hyp->cpus[cpu].loaded->vm->handle == handle)
            host_call(f, cpu, HVC_vcpu_put, 0, 0, 0, 0);
    host_call(f, 0, HVC_start_teardown_vm, handle, 0, 0, 0);
    for (uint64_t gfn = 0x40000; gfn < 0x40000 + NR_GFNS; gfn++) {
        host_call(f, 0, HVC_reclaim_dying_guest_page, handle, gfn, 0, 0);
        host_call(f, 0, HVC_host_unshare_guest, handle, gfn, 1, 0);
    }
    host_call(f, 0, HVC_finalize_teardown_vm, handle, 0, 0, 0);
    return !hyp_vm_find(el2->hyp, handle);
}

/* One call, or a few that belong together. */
static void step(struct fixture *f)
{
    unsigned cpu = (unsigned)below(NR_CPUS);

    switch (below(26)) {
    case 0:
        host_call(f, cpu, HVC_reserve_vm, 0, 0, 0, 0);
        break;
    case 1:
        if (one_in(10))
            host_call(f, cpu, HVC_unreserve_vm, any_handle(), 0, 0, 0);
        break;
    case 2:
        host_call(f, cpu, HVC_host_share_hyp, free_frame(f), 0, 0, 0);
        break;
    case 3:
        host_call(f, cpu, HVC_host_unshare_hyp, shared_frame(f), 0, 0, 0);
        break;
    case 4:
        init_vm(f);
        break;
    case 5:
        init_vcpu(f);
        break;
    case 6:
        host_call(f, cpu, HVC_vcpu_load, any_handle(), below(3), 0, 0);
        break;
    case 7:
        if (one_in(6))
            host_call(f, cpu, HVC_vcpu_put, 0, 0, 0, 0);
        break;
    case 8:
    case 9:
    case 10:
        fill_memcache(f, cpu);
        host_call(f, cpu, HVC_host_donate_guest, free_frame(f), any_gfn(), 0, 0);
        break;
    case 11:
    case 12:
    case 13:
        fill_memcache(f, cpu);
        host_call(f, cpu, HVC_host_share_guest, one_in(3) ? any_frame(f) : free_frame(f), any_gfn(), any_size(),
                  below(9));
        break;
    case 14:
        host_call(f, cpu, HVC_host_unshare_guest, any_handle(), any_gfn(), any_size(), 0);
        break;
    case 15:
        host_call(f, cpu, HVC_relax_perms_guest, any_gfn(), below(9), 0, 0);
        break;
    case 16:
        host_call(f, cpu, HVC_wrprotect_guest, any_handle(), any_gfn(), any_size(), 0);
        break;
    case 17:
        host_call(f, cpu, HVC_test_clear_young_guest, any_handle(), any_gfn(), any_size(), below(2));
        host_call(f, cpu, HVC_mkyoung_guest, any_gfn(), 0, 0, 0);
        break;
    case 18:
        host_call(f, cpu, HVC_force_reclaim_guest_page, frame_in(f, PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE) << 12, 0, 0, 0);
        break;
    case 19:
        host_call(f, cpu, HVC_reclaim_dying_guest_page, any_handle(), any_gfn(), 0, 0);
        break;
    case 20:
        if (one_in(10))
            end_vm(f, any_handle());
        if (one_in(30))
            host_call(f, cpu, HVC_start_teardown_vm, any_handle(), 0, 0, 0);
        host_call(f, cpu, HVC_finalize_teardown_vm, any_handle(), 0, 0, 0);
        host_call(f, cpu, HVC_tlb_flush_vmid, any_handle(), 0, 0, 0);
        break;
    case 21:
        host_call(f, cpu, HVC_vcpu_in_poison_fault, 0, 0, 0, 0);
        break;
    case 22:
        el2_abort(f->el2, cpu, any_frame(f) << 12, true);
        break;
    default:
        vcpu_run(f, cpu);
        break;
    }
}

static void test_random(void **state)
{
    struct fixture f = {.el2 = el2_new(&(struct el2_options){.nr_frames = 512, .one_region = true})};
    unsigned long nr_zeroed;
    bool none_left = true;

    f.first = f.el2->next_pfn;
    f.nr = EL2_BASE_PFN + f.el2->nr_frames - f.first;
    for (unsigned long i = 0; i < nr_calls; i++) {
        step(&f);
    }
    nr_zeroed = f.el2->nr_zeroed;
    for (uint64_t handle = HYP_HANDLE_OFFSET; handle < HYP_HANDLE_OFFSET + HYP_MAX_VMS; handle++)
        none_left &= end_vm(&f, handle);
    el2_check(f.el2);
    for (uint64_t pfn = f.first; none_left && pfn < f.first + f.nr; pfn++)
        assert_int_not_equal(hyp_host_state(f.el2->hyp, pfn), PKVM_PAGE_NOPAGE);
        /* It was not all refusals. */
#define X(n, name, nargs)                                                                                              \
    print_message("%-28s %lu\n", #name, f.nr_ok[n]);                                                                   \
    if ((n) != HVC_prot_finalize && nr_calls >= 100000)                                                                \
        assert_true(f.nr_ok[n] > 0);
    HYP_HOST_CALL_MAP(X)
#undef X
    assert_true(nr_calls < 100000 || nr_zeroed > 0);
    el2_free(f.el2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    if (argc > 2)
        nr_calls = strtoul(argv[2], NULL, 0);
    print_message("seed %lu, %lu calls\n", (unsigned long)seed, nr_calls);
    return cmocka_run_group_tests_name("el2_random", tests, NULL, NULL);
}
