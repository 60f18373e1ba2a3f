/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random conversions, FAKEHYP_SOAK_COUNT of them: two VMs, each one VMM
 * process with one guest, both sides touching without pause, every byte
 * checked on both sides, the audit always on.
 */
#include "tests/common/live_load.h"

#include <stdio.h>
#include <unistd.h>

#define AUDIT_MS 100
#ifdef __SANITIZE_THREAD__
#define CONVERSIONS 500 /* each task begins with a thread's worth of shadow that is cleared */
#else
#define CONVERSIONS 2000
#endif

static void print_totals(const struct load *load, double seconds, unsigned audits)
{
    for (unsigned i = 0; i < LOAD_VMMS; i++) {
        const struct load_vmm *v = &load->vmm[i];
        rig_note("VM %u (%s): %lu conversions for the guest, %lu of ranges; VMM: %lu touches, %lu SIGBUS; %lu EAGAIN, "
                 "%lu pins; guest: %lu + %lu accesses, %lu refusals; longest call %.1f ms",
                 i, i % 2 ? "unilateral" : "consent", atomic_load(&v->guest_conversions),
                 atomic_load(&v->bulk_conversions), atomic_load(&v->touches), atomic_load(&v->refused),
                 atomic_load(&v->busy), atomic_load(&v->pins), atomic_load(&v->guest_accesses),
                 atomic_load(&v->second_accesses), atomic_load(&v->guest_refused),
                 (double)atomic_load(&v->longest_call_ns) / 1e6);
    }
    rig_note("%llu conversions in %.2f s (%.0f/s), %u audits", (unsigned long long)load_conversions(load), seconds,
             (double)load_conversions(load) / seconds, audits);
}

static bool all_idle(const struct load *load)
{
    for (unsigned i = 0; i < LOAD_VMMS; i++)
        if (!atomic_load(&load->vmm[i].idle))
            return false;
    return true;
}

static void soak(void **state)
{
    uint64_t target = rig_env("FAKEHYP_SOAK_COUNT", CONVERSIONS), begin = rig_now_ns();
    struct load *load = load_new(rig.socket);
    pid_t pid[LOAD_VMMS];
    unsigned audits = 0;

    assert_non_null(load);
    rig_note("FAKEHYP_SOAK_SEED=%llu", (unsigned long long)load->seed);
    rig_watchdog(60 + (unsigned)(target / 200));
    for (unsigned i = 0; i < LOAD_VMMS; i++)
        pid[i] = load_vmm_start(load, i, -1);
    while (load_conversions(load) < target && !atomic_load(&load->failed)) {
        rig_sleep_ms(AUDIT_MS);
        if (!rig_audit_ok(*state))
            load_fail(load, "the audit found problems");
        audits++;
    }
    double seconds = (double)(rig_now_ns() - begin) / 1e9;
    atomic_store(&load->stop, true);
    for (unsigned i = 0; i < 10000 && !all_idle(load) && !atomic_load(&load->failed); i++)
        rig_sleep_ms(1);
    if (!all_idle(load))
        load_fail(load, "a VMM did not come to rest");
    /* With everything at rest, and still there. */
    if (!rig_audit_ok(*state))
        load_fail(load, "the audit found problems at rest");
    audits++;
    print_totals(load, seconds, audits);
    atomic_store(&load->leave, true);
    bool failed = atomic_load(&load->failed);
    if (failed)
        rig_note("%s", load->text);
    for (unsigned i = 0; i < LOAD_VMMS && !failed; i++)
        rig_child_ok(pid[i]);
    for (unsigned i = 0; i < LOAD_VMMS && failed; i++) {
        int status;
        if (!rig_wait_child(pid[i], 10000, &status))
            rig_note("VMM %u hangs", i);
    }
    assert_false(failed);
    assert_true(load_conversions(load) >= target);
    load_free(load);
}

static const struct CMUnitTest tests[] = {live_test(soak)};

RIG_MAIN(tests)
