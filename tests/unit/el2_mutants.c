/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * EL2 with one fault at a time: the oracle must see each of them, and none in
 * EL2 as it is.  All of them get the same script of calls; it ends with the
 * first report.
 */
#include "tests/unit/el2_harness.h"

#include <stdio.h>
#include <string.h>

#include "fakehyp/mutant.h"

#define GFN UINT64_C(0x40000)

enum hyp_mutant hyp_mutant;

struct run {
    struct el2 *el2;
    jmp_buf done;
    char call[256], first[256], detail[3][256]; /* the first lines of the report */
    unsigned nr_lines;
};

static void hear(void *ctx, const char *line)
{
    struct run *run = ctx;
    char *into[] = {run->call, run->first, run->detail[0], run->detail[1], run->detail[2]};

    if (run->nr_lines < 5)
        snprintf(into[run->nr_lines], sizeof(run->call), "%s", line + strspn(line, " "));
    run->nr_lines++;
}

/* What the call comes to is the oracle's business. */
static void call(struct run *run, enum hyp_host_call n, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4)
{
    el2_call(run->el2, 0, n, a1, a2, a3, a4);
    if (run->nr_lines)
        longjmp(run->done, 1);
}

static void guest(struct run *run, uint64_t id, uint64_t ipa)
{
    el2_guest_hvc(run->el2, id, ipa, 0, 0);
    if (run->nr_lines)
        longjmp(run->done, 1);
}

/* A protected guest: pages come, are shared and taken back, by force and at its end. */
static void play_protected(struct run *run)
{
    struct el2 *el2 = run->el2;
    uint64_t pfn = el2_frames(el2, 8, 8), shared = el2_shared_page(el2) >> 12;
    struct el2_vm vm;

    el2_vm_new(el2, &vm, true, HYP_UNSHARE_UNILATERAL, 1);
    call(run, HVC_vcpu_load, vm.handle, 0, 0, 0);
    /* Two things are wrong at once: which one is told is the order of checks. */
    call(run, HVC_host_donate_guest, shared, UINT64_C(1) << 40, 0, 0);
    /* A list that ends too early: all of it goes back. */
    el2_topup(el2, &vm, 0, 2);
    el2_host_vcpu(el2, &vm, 0)->pkvm_memcache.nr_pages = 5;
    call(run, HVC_host_donate_guest, pfn, GFN, 0, 0);
    el2_host_vcpu(el2, &vm, 0)->pkvm_memcache = (struct hyp_memcache){0};
    /* There is no page for tables yet. */
    call(run, HVC_host_donate_guest, pfn, GFN, 0, 0);
    el2_topup(el2, &vm, 0, 6);
    /* The host has touched the page, so that it has a translation to lose. */
    el2_abort(el2, 0, pfn << 12, true);
    for (unsigned i = 0; i < 4; i++)
        call(run, HVC_host_donate_guest, pfn + i, GFN + i, 0, 0);
    el2_enter(el2, &vm, 0);
    guest(run, SMCCC_MEM_SHARE, (GFN + 1) << 12);
    el2_enter(el2, &vm, 0);
    guest(run, SMCCC_MEM_SHARE, (GFN + 2) << 12);
    el2_enter(el2, &vm, 0);
    guest(run, SMCCC_MEM_UNSHARE, (GFN + 1) << 12);
    call(run, HVC_force_reclaim_guest_page, pfn << 12, 0, 0, 0);
    call(run, HVC_host_donate_guest, pfn, GFN, 0, 0);
    call(run, HVC_vcpu_put, 0, 0, 0, 0);
    call(run, HVC_host_unshare_hyp, vm.host_kvm >> 12, 0, 0, 0);
    call(run, HVC_start_teardown_vm, vm.handle, 0, 0, 0);
    call(run, HVC_vcpu_load, vm.handle, 0, 0, 0);
    for (unsigned i = 0; i < 4; i++)
        call(run, HVC_reclaim_dying_guest_page, vm.handle, GFN + i, 0, 0);
    call(run, HVC_finalize_teardown_vm, vm.handle, 0, 0, 0);
}

/* A guest that is not protected: one page twice, a block, and everything back. */
static void play_np(struct run *run)
{
    struct el2 *el2 = run->el2;
    uint64_t pfn = el2_frames(el2, 1, 1), block = el2_frames(el2, 512, 512);
    struct el2_vm vm;

    el2_vm_new(el2, &vm, false, HYP_UNSHARE_CONSENT, 1);
    el2_topup(el2, &vm, 0, 6);
    call(run, HVC_vcpu_load, vm.handle, 0, 0, 0);
    call(run, HVC_host_share_guest, pfn, GFN, 1, HYP_PROT_R);
    call(run, HVC_host_share_guest, pfn, GFN + 1, 1, HYP_PROT_RWX);
    call(run, HVC_host_share_guest, block, GFN + 512, 512, HYP_PROT_RWX);
    call(run, HVC_relax_perms_guest, GFN, HYP_PROT_R | HYP_PROT_W, 0, 0);
    call(run, HVC_wrprotect_guest, vm.handle, GFN, 512, 0);
    call(run, HVC_test_clear_young_guest, vm.handle, GFN, 1, 1);
    /* A table comes to be free. */
    call(run, HVC_host_share_guest, pfn, GFN + 1024, 1, HYP_PROT_RWX);
    call(run, HVC_host_unshare_guest, vm.handle, GFN + 1024, 1, 0);
    call(run, HVC_vcpu_put, 0, 0, 0, 0);
    call(run, HVC_host_unshare_guest, vm.handle, GFN + 512, 1, 0);
    call(run, HVC_host_unshare_guest, vm.handle, GFN + 512, 512, 0);
    call(run, HVC_host_unshare_guest, vm.handle, GFN, 1, 0);
    call(run, HVC_host_unshare_guest, vm.handle, GFN + 1, 1, 0);
    call(run, HVC_start_teardown_vm, vm.handle, 0, 0, 0);
    call(run, HVC_finalize_teardown_vm, vm.handle, 0, 0, 0);
}

static void play(struct run *run, enum hyp_mutant mutant)
{
    *run = (struct run){.el2 = el2_new(NULL)};
    run->el2->check = false;
    run->el2->on_divergence = hear;
    run->el2->divergence_ctx = run;
    hyp_mutant = mutant;
    if (!setjmp(run->done)) {
        play_protected(run);
        play_np(run);
    }
    hyp_mutant = HYP_MUTANT_NONE;
    el2_free(run->el2);
}

static void test_none(void **state)
{
    static struct run run;

    play(&run, HYP_MUTANT_NONE);
    if (run.nr_lines)
        fail_msg("%s: %s", run.call, run.first);
}

static const char *const texts[] = {
#define X(name, text) [HYP_MUTANT_##name] = text,
    HYP_MUTANT_MAP(X)
#undef X
};

static void test_mutant(void **state)
{
    enum hyp_mutant mutant = *(const enum hyp_mutant *)*state;
    static struct run run;

    play(&run, mutant);
    print_message("# %s\n#   %s\n#   %s\n", texts[mutant], run.call, run.first);
    for (unsigned i = 0; i < 3 && run.detail[i][0]; i++)
        print_message("#     %s\n", run.detail[i]);
    assert_true(run.nr_lines > 0);
}

int main(void)
{
#define X(name, text) static const enum hyp_mutant state_##name = HYP_MUTANT_##name;
    HYP_MUTANT_MAP(X)
#undef X
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_none),
#define X(name, text) {#name, test_mutant, NULL, NULL, (void *)(uintptr_t)&state_##name},
                                       HYP_MUTANT_MAP(X)
#undef X
    };

    return cmocka_run_group_tests_name("el2_mutants", tests, NULL, NULL);
}
