/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/unit/el2_harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void look_at_ram(void *ctx, uint64_t phys)
{
    assert_non_null(el2_virt(ctx, phys));
}

static void notify_watch(struct el2 *el2, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr)
{
    if (el2->watch)
        el2->watch(el2->watch_ctx, event, vmid, addr, nr);
}

static void zero_page(void *ctx, uint64_t phys)
{
    struct el2 *el2 = ctx;

    notify_watch(el2, EL2_ZERO_PAGE, 0, phys, 1);
    memset(el2_virt(el2, phys), 0, HYP_PAGE_SIZE);
    el2->nr_zeroed++;
}

static void log_tlbi(void *ctx, uint16_t vmid, uint64_t ipa, uint64_t nr)
{
    struct el2 *el2 = ctx;

    notify_watch(el2, EL2_TLBI, vmid, ipa, nr);
    el2->tlbi[el2->nr_tlbi++ % EL2_TLBI_LOG] = (struct el2_tlbi){vmid, ipa, nr};
}

static void count_yield(void *ctx, const char *label)
{
    struct el2 *el2 = ctx;

    assert_string_equal(label, "s2:bbm");
    notify_watch(el2, EL2_YIELD, 0, 0, 0);
    el2->nr_yields++;
}

static void on_panic(void *ctx, const char *what)
{
    struct el2 *el2 = ctx;

    el2->panic = what;
    if (el2->on_panic)
        longjmp(*el2->on_panic, 1);
    fail_msg("EL2 panic: %s", what);
}

static void layout(struct el2 *el2, bool one_region)
{
    uint64_t nr_hole = one_region ? 0 : 64, end = EL2_BASE_PFN + el2->nr_frames;

    el2->high_pfn = one_region ? end : end - 896;
    el2->gap_pfn = el2->high_pfn - nr_hole;
    el2->nomap_pfn = el2->gap_pfn - nr_hole;
    el2->memory[0] = (struct hyp_memory_region){EL2_BASE_PFN << 12, (el2->nomap_pfn - EL2_BASE_PFN) << 12, false};
    el2->memory[1] = (struct hyp_memory_region){el2->nomap_pfn << 12, nr_hole << 12, true};
    el2->memory[2] = (struct hyp_memory_region){el2->high_pfn << 12, (end - el2->high_pfn) << 12, false};
}

static bool is_zero(void *ctx, uint64_t phys)
{
    return el2_is_zero(ctx, phys);
}

static void say(void *ctx, const char *line)
{
    struct el2 *el2 = ctx;

    if (el2->on_divergence)
        el2->on_divergence(el2->divergence_ctx, line);
    else
        fprintf(stderr, "%s\n", line);
}

struct el2 *el2_new(const struct el2_options *options)
{
    struct el2 *el2 = calloc(1, sizeof(*el2));
    const struct oracle_options oracle = {
        .strict = !options || !options->relaxed, .report = say, .is_zero = is_zero, .ctx = el2};
    struct hyp_config config;
    void *memory;

    assert_non_null(el2);
    el2->nr_frames = options && options->nr_frames ? options->nr_frames : 4096;
    layout(el2, options && options->one_region);
    el2->hyp = calloc(1, hyp_state_size());
    el2->ram = aligned_alloc(HYP_PAGE_SIZE, el2->nr_frames << 12);
    el2->vmemmap = calloc(el2->nr_frames, sizeof(*el2->vmemmap));
    assert_non_null(el2->hyp);
    assert_non_null(el2->ram);
    assert_non_null(el2->vmemmap);
    /* No page is zero by chance. */
    memset(el2->ram, 0xa5, el2->nr_frames << 12);
    el2->pool_nr = hyp_host_pool_pages(el2->nr_frames);
    el2->next_pfn = EL2_BASE_PFN + el2->pool_nr;
    if (options && options->text_nr) {
        el2->text_pfn = el2->next_pfn;
        el2->next_pfn += options->text_nr;
    }
    el2->check = true;
    config = (struct hyp_config){
        .plat = {.ctx = el2,
                 .physvirt_offset = (EL2_BASE_PFN << 12) - (uintptr_t)el2->ram,
                 .look = look_at_ram,
                 .zero_page = zero_page,
                 .tlbi = log_tlbi,
                 .yield = count_yield,
                 .panic = on_panic},
        .memory = el2->memory,
        .nr_memory = options && options->one_region ? 1 : 3,
        .pa_bits = 36,
        .vmemmap = el2->vmemmap,
        .vmemmap_base_pfn = EL2_BASE_PFN,
        .vmemmap_nr = el2->nr_frames,
        .pool_pfn = EL2_BASE_PFN,
        .pool_nr = el2->pool_nr,
        .text_pfn = el2->text_pfn,
        .text_nr = el2->next_pfn - EL2_BASE_PFN - el2->pool_nr,
        .nr_cpus = 4,
    };
    el2->oracle_size = oracle_size(&config);
    memory = mmap(NULL, el2->oracle_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    el2->relaxed = options && options->relaxed;
    el2->oracle = oracle_attach(memory, &config, &oracle);
    assert_int_equal(hyp_init(el2->hyp, &config), 0);
    assert_int_equal(oracle_boot(el2->oracle, el2->hyp), 0);
    if (!options || !options->not_finalized)
        assert_int_equal(EL2_CALL(el2, prot_finalize), 0);
    return el2;
}

void el2_free(struct el2 *el2)
{
    munmap(el2->oracle, el2->oracle_size);
    free(el2->vmemmap);
    free(el2->ram);
    free(el2->hyp);
    free(el2);
}

void *el2_virt(struct el2 *el2, uint64_t phys)
{
    assert_in_range(phys >> 12, EL2_BASE_PFN, EL2_BASE_PFN + el2->nr_frames - 1);
    return el2->ram + (phys - (EL2_BASE_PFN << 12));
}

static void report(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "hyp_check: %s\n", text);
}

void el2_check(struct el2 *el2)
{
    assert_int_equal(hyp_check(el2->hyp, report, el2), 0);
}

static void before_call(struct el2 *el2)
{
    if (el2->inner_calls)
        oracle_resync(el2->oracle);
}

static void after_call(struct el2 *el2)
{
    struct oracle_stats stats;

    oracle_stats(el2->oracle, &stats);
    assert_true(stats.divergences == 0 || el2->on_divergence);
    assert_int_equal(stats.unjudged, 0);
    if (el2->check && el2->relaxed)
        assert_int_equal(oracle_audit(el2->oracle), 0);
    if (el2->check)
        el2_check(el2);
}

enum hyp_next el2_hvc(struct el2 *el2, unsigned cpu, uint64_t regs[8])
{
    enum hyp_next next;

    before_call(el2);
    next = oracle_host_hvc(el2->oracle, cpu, regs);
    after_call(el2);
    return next;
}

enum hyp_next el2_trap(struct el2 *el2, unsigned cpu, const struct hyp_trap *trap, uint64_t regs[8])
{
    enum hyp_next next;

    before_call(el2);
    next = oracle_guest_trap(el2->oracle, cpu, trap, regs);
    after_call(el2);
    return next;
}

enum hyp_abort el2_abort(struct el2 *el2, unsigned cpu, uint64_t phys, bool is_write)
{
    enum hyp_abort verdict;

    before_call(el2);
    verdict = oracle_host_abort(el2->oracle, cpu, phys, is_write);
    after_call(el2);
    return verdict;
}

static int do_inner(struct hyp *hyp, enum oracle_inner inner, uint64_t a1, uint64_t a2)
{
    switch (inner) {
    case ORACLE_SHARE_FFA:
        return pkvm_host_share_ffa(hyp, a1, a2);
    case ORACLE_UNSHARE_FFA:
        return pkvm_host_unshare_ffa(hyp, a1, a2);
    case ORACLE_PIN:
        return pkvm_pin_shared_mem(hyp, a1, a2);
    case ORACLE_UNPIN:
        pkvm_unpin_shared_mem(hyp, a1, a2);
        return 0;
    case ORACLE_DONATE_HYP:
        return pkvm_host_donate_hyp(hyp, a1, a2);
    case ORACLE_HYP_DONATE_HOST:
        return pkvm_hyp_donate_host(hyp, a1, a2);
    case ORACLE_SHARE_GUEST:
        return pkvm_host_share_guest(hyp, hyp->cpus[0].loaded, a1, a2, 1, HYP_PROT_RWX);
    case ORACLE_GUEST_SHARE:
        return pkvm_guest_share_host(hyp, hyp_vm_find(hyp, a1), a2);
    case ORACLE_GUEST_UNSHARE:
        return pkvm_guest_unshare_host(hyp, hyp_vm_find(hyp, a1), a2);
    case ORACLE_RECLAIM_GUEST:
        return pkvm_reclaim_guest_page(hyp, hyp_vm_find(hyp, a1), a2);
    }
    fail_msg("no transition %d", inner);
    return -1;
}

int el2_inner(struct el2 *el2, enum oracle_inner inner, uint64_t a1, uint64_t a2)
{
    int ret;

    before_call(el2);
    oracle_inner_begin(el2->oracle, inner, a1, a2);
    ret = do_inner(el2->hyp, inner, a1, a2);
    oracle_inner_end(el2->oracle, ret);
    after_call(el2);
    return ret;
}

int64_t el2_call(struct el2 *el2, unsigned cpu, enum hyp_host_call n, uint64_t a1, uint64_t a2, uint64_t a3,
                 uint64_t a4)
{
    uint64_t regs[8] = {HVC_HOST_BASE + n, a1, a2, a3, a4};

    assert_int_equal(el2_hvc(el2, cpu, regs), HYP_NEXT_HOST);
    assert_int_equal(regs[0], 0);
    return (int64_t)regs[1];
}

uint64_t el2_frames(struct el2 *el2, uint64_t nr, uint64_t align)
{
    uint64_t pfn = (el2->next_pfn + align - 1) / align * align;

    el2->next_pfn = pfn + nr;
    assert_true(el2->next_pfn <= el2->nomap_pfn);
    return pfn;
}

uint64_t el2_shared_page(struct el2 *el2)
{
    uint64_t pfn = el2_frames(el2, 1, 1);

    memset(el2_virt(el2, pfn << 12), 0, HYP_PAGE_SIZE);
    assert_int_equal(EL2_CALL(el2, host_share_hyp, pfn), 0);
    return pfn << 12;
}

bool el2_is_zero(struct el2 *el2, uint64_t phys)
{
    const uint8_t *bytes = el2_virt(el2, phys);

    for (unsigned i = 0; i < HYP_PAGE_SIZE; i++)
        if (bytes[i])
            return false;
    return true;
}

void el2_fill(struct el2 *el2, uint64_t phys, uint8_t byte)
{
    memset(el2_virt(el2, phys), byte, HYP_PAGE_SIZE);
}

bool el2_flushed(const struct el2 *el2, uint16_t vmid, uint64_t ipa)
{
    assert_true(el2->nr_tlbi <= EL2_TLBI_LOG);
    for (unsigned i = 0; i < el2->nr_tlbi; i++) {
        const struct el2_tlbi *t = &el2->tlbi[i];

        if (t->vmid == vmid && (t->nr == 0 || (ipa >= t->ipa && ipa - t->ipa < t->nr << 12)))
            return true;
    }
    return false;
}

void el2_vm_new(struct el2 *el2, struct el2_vm *vm, bool is_protected, enum hyp_unshare_mode mode, unsigned nr_vcpus)
{
    unsigned nr_pgd = hyp_s2_pgd_pages(EL2_IPA_BITS);
    struct kvm_host_vm *host;
    int64_t handle = EL2_CALL(el2, reserve_vm);

    assert_true(handle >= HYP_HANDLE_OFFSET);
    *vm = (struct el2_vm){.handle = (uint64_t)handle, .nr_vcpus = nr_vcpus};
    vm->host_kvm = el2_shared_page(el2);
    vm->vm_page = el2_frames(el2, 1, 1) << 12;
    vm->pgd = el2_frames(el2, nr_pgd, nr_pgd) << 12;
    host = el2_virt(el2, vm->host_kvm);
    host->handle = (uint32_t)handle;
    host->created_vcpus = nr_vcpus;
    host->is_protected = is_protected;
    host->ipa_bits = EL2_IPA_BITS;
    host->unshare_mode = mode;
    assert_int_equal(EL2_CALL(el2, init_vm, vm->host_kvm, vm->vm_page, vm->pgd), 0);
    for (unsigned i = 0; i < nr_vcpus; i++) {
        vm->host_vcpu[i] = el2_shared_page(el2);
        vm->vcpu_page[i] = el2_frames(el2, 1, 1) << 12;
        el2_host_vcpu(el2, vm, i)->vcpu_idx = i;
        assert_int_equal(EL2_CALL(el2, init_vcpu, vm->handle, vm->host_vcpu[i], vm->vcpu_page[i]), 0);
    }
}

/* Number of pages of a list; each must be the host's, and zero but for its link. */
static unsigned drain(struct el2 *el2, struct hyp_memcache *list)
{
    unsigned nr = 0;

    while (list->head) {
        uint64_t phys = list->head;
        uint64_t *link = el2_virt(el2, phys);

        list->head = *link;
        list->nr_pages--;
        *link = 0;
        assert_true(el2_is_zero(el2, phys));
        el2_assert_page(el2, phys >> 12, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, 0, 0);
        nr++;
    }
    assert_int_equal(list->nr_pages, 0);
    return nr;
}

unsigned el2_vm_destroy(struct el2 *el2, struct el2_vm *vm)
{
    struct kvm_host_vm *host = el2_virt(el2, vm->host_kvm);
    unsigned nr;

    assert_int_equal(EL2_CALL(el2, start_teardown_vm, vm->handle), 0);
    assert_int_equal(EL2_CALL(el2, finalize_teardown_vm, vm->handle), 0);
    assert_int_equal(host->teardown_mc.nr_pages, 1 + vm->nr_vcpus);
    nr = drain(el2, &host->teardown_mc) + drain(el2, &host->stage2_teardown_mc);
    for (unsigned i = 0; i < vm->nr_vcpus; i++)
        assert_int_equal(EL2_CALL(el2, host_unshare_hyp, vm->host_vcpu[i] >> 12), 0);
    assert_int_equal(EL2_CALL(el2, host_unshare_hyp, vm->host_kvm >> 12), 0);
    return nr;
}

struct kvm_host_vcpu *el2_host_vcpu(struct el2 *el2, const struct el2_vm *vm, unsigned idx)
{
    return el2_virt(el2, vm->host_vcpu[idx]);
}

void el2_topup(struct el2 *el2, const struct el2_vm *vm, unsigned idx, unsigned nr)
{
    struct hyp_memcache *mc = &el2_host_vcpu(el2, vm, idx)->pkvm_memcache;

    while (nr--) {
        uint64_t phys = el2_frames(el2, 1, 1) << 12;

        *(uint64_t *)el2_virt(el2, phys) = mc->head;
        mc->head = phys;
        mc->nr_pages++;
    }
}

const struct hyp_guest_regs *el2_enter(struct el2 *el2, const struct el2_vm *vm, unsigned idx)
{
    uint64_t regs[8] = {HVC_HOST_BASE + HVC_vcpu_run, vm->host_vcpu[idx]};

    assert_int_equal(el2_hvc(el2, 0, regs), HYP_NEXT_GUEST);
    return hyp_guest_regs(el2->hyp, 0);
}

static enum hyp_next trap(struct el2 *el2, const struct hyp_trap *trap)
{
    uint64_t regs[8] = {~0ull, ~0ull};
    enum hyp_next next = el2_trap(el2, 0, trap, regs);

    if (next == HYP_NEXT_HOST) {
        assert_int_equal(regs[0], 0);
        assert_int_equal(regs[1], ARM_EXCEPTION_TRAP);
    }
    return next;
}

enum hyp_next el2_guest_hvc(struct el2 *el2, uint64_t x0, uint64_t x1, uint64_t x2, uint64_t x3)
{
    return trap(el2, &(struct hyp_trap){.esr = ESR_EC_HVC64 << ESR_EC_SHIFT, .x = {x0, x1, x2, x3}});
}

enum hyp_next el2_guest_abort(struct el2 *el2, uint64_t ipa, bool is_write)
{
    return trap(
        el2, &(struct hyp_trap){.esr = ESR_EC_DABT_LOW << ESR_EC_SHIFT | (is_write ? ESR_WNR : 0) | ESR_FSC_TRANS_L(3),
                                .far = ipa | 0x123,
                                .hpfar = HPFAR_FROM_IPA(ipa)});
}

void el2_assert_page_at(struct el2 *el2, uint64_t pfn, enum hyp_page_state host, enum hyp_page_state hyp,
                        uint32_t count, uint16_t pins, const char *file, int line)
{
    struct hyp_frame_info info;

    assert_int_equal(hyp_frame_info(el2->hyp, pfn, &info), 0);
    if (info.host != host || info.hyp != hyp || info.share_count != count || info.pins != pins)
        fail_msg("%s:%d: pfn %#lx is host %s, hyp %s, count %u, pins %u", file, line, (unsigned long)pfn,
                 hyp_page_state_name(info.host), hyp_page_state_name(info.hyp), info.share_count, info.pins);
}

enum hyp_page_state el2_guest_state(struct el2 *el2, const struct el2_vm *vm, uint64_t gfn)
{
    struct hyp_guest_leaf leaf;

    assert_int_equal(hyp_guest_leaf(el2->hyp, (uint32_t)vm->handle, gfn, &leaf), 0);
    return leaf.state;
}
