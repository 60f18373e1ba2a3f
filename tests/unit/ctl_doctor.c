/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl doctor: probes that hang or die, the verdicts, both outputs, and this machine. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/fakehypctl/ctl.h"
#include "src/fakehypctl/doctor.h"
#include "tests/unit/ctl_fake.h"

static void good(struct probe_result *r, const struct probe_arg *arg)
{
    probe_ok(r, "%s %d", arg->text ? arg->text : "-", (int)arg->number);
}

static void bad(struct probe_result *r, const struct probe_arg *arg)
{
    probe_fail(r, "no good");
    probe_remedy(r, "mend %d", (int)arg->number);
}

static void tells(struct probe_result *r, const struct probe_arg *arg)
{
    probe_info(r, "so it is");
}

static void hangs(struct probe_result *r, const struct probe_arg *arg)
{
    for (;;)
        pause();
}

static void dies(struct probe_result *r, const struct probe_arg *arg)
{
    signal(SIGBUS, SIG_DFL);
    raise(SIGBUS);
}

static void leaves(struct probe_result *r, const struct probe_arg *arg)
{
    _exit(0);
}

static void is_refused(struct probe_result *r, const struct probe_arg *arg)
{
    errno = (int)arg->number;
    probe_fail_errno(r, "call");
}

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void probes_are_contained(void **state)
{
    const struct probe_arg arg = {.number = 7, .text = "seven"};
    struct probe_result r;
    double begin;

    probe_run(good, &arg, 1000, &r);
    assert_int_equal(r.verdict, PROBE_OK);
    assert_string_equal(r.detail, "seven 7");
    assert_string_equal(r.remedy, "");

    begin = seconds();
    probe_run(hangs, &arg, 100, &r);
    assert_true(seconds() - begin < 5);
    assert_int_equal(r.verdict, PROBE_FAIL);
    assert_string_equal(r.detail, "no answer within 100 ms");

    probe_run(dies, &arg, 5000, &r);
    assert_int_equal(r.verdict, PROBE_FAIL);
    assert_non_null(strstr(r.detail, "died of signal 7"));

    probe_run(leaves, &arg, 5000, &r);
    assert_int_equal(r.verdict, PROBE_FAIL);
    assert_non_null(strstr(r.detail, "without an answer"));
}

static void refusals_name_a_remedy(void **state)
{
    static const int errnos[] = {EPERM, ENOSYS, EACCES, ENOMEM, EMFILE, EFBIG, EAGAIN, EINVAL, EIO};
    struct probe_result r;

    for (size_t i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++) {
        const struct probe_arg arg = {.number = (uint64_t)errnos[i]};

        probe_run(is_refused, &arg, 1000, &r);
        assert_int_equal(r.verdict, PROBE_FAIL);
        assert_non_null(strstr(r.detail, strerror(errnos[i])));
        assert_string_not_equal(r.remedy, "");
    }
}

static const struct doctor_row rows[] = {
    {"first", "essential, good", DOCTOR_ESSENTIAL, good, {0}},
    {NULL, "essential, bad", DOCTOR_ESSENTIAL, bad, {.number = 1}},
    {NULL, "also bad", DOCTOR_ESSENTIAL, bad, {.number = 1}},
    {"second", "useful", DOCTOR_USEFUL, bad, {.number = 2}},
    {NULL, "optional", DOCTOR_OPTIONAL, bad, {.number = 3}},
    {NULL, "told", DOCTOR_OPTIONAL, tells, {0}},
};
#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

static void text(void **state)
{
    struct probe_result results[NR_ROWS];
    struct ctl_io io = {0};
    char *out;
    size_t len;

    doctor_examine(rows, NR_ROWS, results);
    io.out = open_memstream(&out, &len);
    doctor_print(rows, results, NR_ROWS, &io);
    fclose(io.out);
    assert_string_equal(out, "first\n"
                             "  ok       essential, good  - 0\n"
                             "  missing  essential, bad   no good\n"
                             "           remedy: mend 1\n"
                             "  missing  also bad         no good\n"
                             "\n"
                             "second\n"
                             "  limited  useful           no good\n"
                             "           remedy: mend 2\n"
                             "  absent   optional         no good\n"
                             "           remedy: mend 3\n"
                             "  info     told             so it is\n"
                             "\n"
                             "The live stage cannot run here: 2 of 3 essential checks failed.\n"
                             "1 other check is limited.\n");
    free(out);
}

static void json(void **state)
{
    struct probe_result results[NR_ROWS];
    struct doctor_tally tally;
    json_t *root, *check;

    doctor_examine(rows, NR_ROWS, results);
    tally = doctor_count(rows, results, NR_ROWS);
    assert_int_equal(tally.essential, 3);
    assert_int_equal(tally.missing, 2);
    assert_int_equal(tally.limited, 1);

    root = doctor_json(rows, results, NR_ROWS);
    assert_non_null(root);
    assert_true(json_is_false(json_object_get(root, "ok")));
    assert_int_equal(json_integer_value(json_object_get(root, "missing")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "checks")), NR_ROWS);
    check = json_array_get(json_object_get(root, "checks"), 2);
    assert_string_equal(json_string_value(json_object_get(check, "group")), "first");
    assert_string_equal(json_string_value(json_object_get(check, "verdict")), "missing");
    assert_string_equal(json_string_value(json_object_get(check, "remedy")), "mend 1");
    assert_true(json_is_true(json_object_get(check, "essential")));
    check = json_array_get(json_object_get(root, "checks"), 5);
    assert_true(json_is_null(json_object_get(check, "remedy")));
    json_decref(root);
}

static void choices(void **state)
{
    char buf[8];

    assert_int_equal(probe_choice("always [advise] never", buf, sizeof(buf)), 0);
    assert_string_equal(buf, "advise");
    assert_int_equal(probe_choice("[a]", buf, sizeof(buf)), 0);
    assert_string_equal(buf, "a");
    assert_int_equal(probe_choice("[within_size]", buf, sizeof(buf)), -EINVAL);
    assert_int_equal(probe_choice("[]", buf, sizeof(buf)), -EINVAL);
    assert_int_equal(probe_choice("always advise", buf, sizeof(buf)), -EINVAL);
    assert_int_equal(probe_choice("]a[", buf, sizeof(buf)), -EINVAL);
}

static const char *verdict_of(const json_t *root, const char *name, const char **detail)
{
    const json_t *checks = json_object_get(root, "checks");

    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *check = json_array_get(checks, i);

        if (!strcmp(json_string_value(json_object_get(check, "name")), name)) {
            *detail = json_string_value(json_object_get(check, "detail"));
            return json_string_value(json_object_get(check, "verdict"));
        }
    }
    return "";
}

/* Whatever this machine can do: the tool says it whole, in time, and its exit status agrees. */
static void this_machine(void **state)
{
    const struct ctl_output *o = ctl_fake_run("doctor", "--json", "--socket", "/nonexistent/x", NULL);
    json_t *root = json_loads(o->out, 0, NULL), *check;
    const char *detail, *verdict;
    size_t i;

    assert_string_equal(o->err, "");
    assert_non_null(root);
    assert_int_equal(o->status, json_is_true(json_object_get(root, "ok")) ? CTL_OK : CTL_PROBLEM);
    json_array_foreach(json_object_get(root, "checks"), i, check)
    {
        verdict = json_string_value(json_object_get(check, "verdict"));
        assert_string_not_equal(json_string_value(json_object_get(check, "detail")), "");
        assert_int_equal(json_is_string(json_object_get(check, "remedy")),
                         strcmp(verdict, "ok") && strcmp(verdict, "info"));
        if (strcmp(verdict, "missing") == 0)
            print_message("# missing here: %s\n", json_string_value(json_object_get(check, "name")));
    }
    assert_string_equal(verdict_of(root, "version", &detail), "ok");
    assert_string_equal(verdict_of(root, "running daemon", &detail), "info");
    assert_string_equal(detail, "none at /nonexistent/x");
    json_decref(root);

    int status = o->status;
    assert_int_equal(ctl_fake_run("doctor", NULL)->status, status);
}

static void running_daemon(void **state)
{
    struct ctl_fake *fake = ctl_fake_start();
    const struct ctl_output *o;
    char expected[256];

    assert_non_null(fake);
    ctl_fake_answer(fake,
                    "{\"version\":\"0.1.0\",\"stage\":\"live\",\"protocol\":1,\"capabilities\":[],\"limits\":{}}");
    o = ctl_fake_run("doctor", "--socket", fake->path, NULL);
    snprintf(expected, sizeof(expected), "fakehypd 0.1.0, stage live, at %s\n", fake->path);
    assert_non_null(strstr(o->out, expected));
    assert_string_equal(fake->query.what, "capabilities");
    ctl_fake_stop(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probes_are_contained),
        cmocka_unit_test(refusals_name_a_remedy),
        cmocka_unit_test(text),
        cmocka_unit_test(json),
        cmocka_unit_test(choices),
        cmocka_unit_test(this_machine),
        cmocka_unit_test(running_daemon),
    };

    return cmocka_run_group_tests_name("ctl_doctor", tests, NULL, NULL);
}
