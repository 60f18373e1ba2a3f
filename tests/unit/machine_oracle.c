/* SPDX-License-Identifier: BSD-2-Clause */
/* What the machine does when EL2 is not as the oracle specifies it: a page record is falsified behind EL2's back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "src/machine/internal.h"
#include "src/machine/sim.h"

#define PFN (MACHINE_RAM_BASE >> 12)

struct rig {
    struct sim *sim;
    struct machine *m;
    char log[8192], problems[8192];
    bool done;
    void (*body)(struct rig *rig);
};

static void add_line(char *to, size_t size, const char *line)
{
    size_t used = strlen(to);
    snprintf(to + used, size - used, "%s\n", line);
}

static void take_log(void *ctx, int level, const char *text)
{
    struct rig *rig = ctx;
    assert_int_equal(level, 0);
    add_line(rig->log, sizeof(rig->log), text);
}

static void take_problem(void *ctx, const char *text)
{
    struct rig *rig = ctx;
    add_line(rig->problems, sizeof(rig->problems), text);
}

static void run_body(void *ctx)
{
    struct rig *rig = ctx;
    rig->body(rig);
    rig->done = true;
}

static void play(enum machine_oracle mode, void (*body)(struct rig *rig))
{
    struct rig rig = {.sim = sim_new(), .body = body};
    const struct machine_config config = {.stage = &sim_stage_ops,
                                          .stage_ctx = rig.sim,
                                          .memory_bytes = UINT64_C(16) << 20,
                                          .oracle = mode,
                                          .log = take_log,
                                          .log_ctx = &rig};

    assert_int_equal(machine_new(&config, &rig.m), 0);
    sim_attach(rig.sim, rig.m);
    assert_non_null(task_spawn(machine_sched(rig.m), "body", run_body, &rig));
    sched_run(machine_sched(rig.m), 0);
    assert_true(rig.done);
    machine_free(rig.m);
    sim_free(rig.sim);
}

static int64_t share_hyp(struct rig *rig, uint64_t pfn)
{
    return cpu_hvc(rig->m, 0, HVC_host_share_hyp, (const uint64_t[4]){pfn});
}

static int64_t unshare_hyp(struct rig *rig, uint64_t pfn)
{
    return cpu_hvc(rig->m, 0, HVC_host_unshare_hyp, (const uint64_t[4]){pfn});
}

/* A record that says shared, and an oracle that knows better. */
static void falsify(struct rig *rig)
{
    assert_int_equal(share_hyp(rig, PFN), 0);
    assert_int_equal(unshare_hyp(rig, PFN), 0);
    rig->m->vmemmap[0].host_state = PKVM_PAGE_SHARED_OWNED;
}

static void body_on(struct rig *rig)
{
    struct oracle_stats stats;

    falsify(rig);
    assert_int_equal(share_hyp(rig, PFN), -HYP_EPERM);
    assert_true(machine_oracle_stats(rig->m, &stats));
    assert_int_equal(stats.divergences, 1);
    assert_int_equal(stats.unjudged, 0);
    assert_non_null(strstr(rig->log, "oracle: host_share_hyp(pfn 0x80000) on CPU 0"));
    assert_non_null(strstr(rig->log, "changed between two calls: host pages [0x80000, 0x80001)"));
    assert_non_null(strstr(rig->log, "specified OWNED"));
    assert_non_null(strstr(rig->log, "got       SHARED_OWNED"));
    assert_null(machine_panicked(rig->m));
    /* It goes on from the state that EL2 is in. */
    assert_int_equal(share_hyp(rig, PFN + 1), 0);
    machine_oracle_stats(rig->m, &stats);
    assert_int_equal(stats.divergences, 1);
    assert_true(machine_audit(rig->m, take_problem, rig, NULL) > 0);
    assert_non_null(strstr(rig->problems, "the oracle saw 1 divergences"));
}

static void body_audit(struct rig *rig)
{
    falsify(rig);
    assert_true(machine_audit(rig->m, take_problem, rig, NULL) > 0);
    assert_non_null(strstr(rig->problems, "oracle: audit"));
    assert_non_null(strstr(rig->problems, "host pages [0x80000, 0x80001)"));
    assert_string_equal(rig->log, "");
}

static void body_panic(struct rig *rig)
{
    falsify(rig);
    assert_int_equal(share_hyp(rig, PFN), -EIO);
    assert_non_null(strstr(machine_panicked(rig->m), "not as the oracle specifies"));
    assert_int_equal(share_hyp(rig, PFN + 1), -EIO);
    assert_non_null(strstr(rig->log, "the machine stands still"));
}

static void body_off(struct rig *rig)
{
    struct oracle_stats stats;

    falsify(rig);
    assert_int_equal(share_hyp(rig, PFN), -HYP_EPERM);
    assert_false(machine_oracle_stats(rig->m, &stats));
    assert_string_equal(rig->log, "");
}

static void test_on(void **state)
{
    play(MACHINE_ORACLE_ON, body_on);
}

static void test_audit(void **state)
{
    play(MACHINE_ORACLE_ON, body_audit);
}

static void test_panic(void **state)
{
    play(MACHINE_ORACLE_PANIC, body_panic);
}

static void test_off(void **state)
{
    play(MACHINE_ORACLE_OFF, body_off);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_on),
        cmocka_unit_test(test_audit),
        cmocka_unit_test(test_panic),
        cmocka_unit_test(test_off),
    };

    return cmocka_run_group_tests_name("machine_oracle", tests, NULL, NULL);
}
