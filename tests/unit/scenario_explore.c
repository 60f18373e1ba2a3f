/* SPDX-License-Identifier: BSD-2-Clause */
/* explore{}: the reduction loses no final state, what violates is found, printed, and plays again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "src/scenario/scenario.h"

#define REPLAYS 100
#define MAX_STATES 200

static char *out, *err;

static int run_path(struct sc_options options, char *path)
{
    size_t out_size, err_size;
    char *paths[] = {path};

    free(out);
    free(err);
    options.paths = paths;
    options.nr_paths = 1;
    options.out = open_memstream(&out, &out_size);
    options.err = open_memstream(&err, &err_size);
    int status = sc_run(&options);
    fclose(options.out);
    fclose(options.err);
    return status;
}

static int run_file(struct sc_options options, const char *file)
{
    const char *top = getenv("srcdir");
    char path[4096];

    snprintf(path, sizeof(path), "%s/tests/scenarios/%s", top ? top : ".", file);
    return run_path(options, path);
}

static int run_script(struct sc_options options, const char *body)
{
    char path[32], script[4096];
    int fd = memfd_create("script.lua", 0);

    snprintf(script, sizeof(script),
             "scenario { id = 'T1', title = 'a test', source = 'none', policies = 'D A', live = 'it is a test' }\n"
             "function play()\n%s\nend\n",
             body);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, script, strlen(script)), strlen(script));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int status = run_path(options, path);
    close(fd);
    return status;
}

/* ---- final states ------------------------------------------------------------------------------------------------ */

struct states {
    unsigned nr;
    char text[MAX_STATES][1200];
};

/* Those of all explorations of a run, each by the name of its exploration. */
static void read_states(struct states *s, bool more)
{
    char name[200] = "", *line, *at = out;

    s->nr = more ? s->nr : 0;
    while ((line = strsep(&at, "\n"))) {
        char *times = strstr(line, " times: "), *comma = strstr(line, ", any number of preemptions: ");
        if (comma) {
            *comma = '\0';
            snprintf(name, sizeof(name), "%s", line);
        }
        if (!times)
            continue;
        char text[1200];
        unsigned i = 0;
        snprintf(text, sizeof(text), "%.150s: %.1000s", name, times + 8);
        while (i < s->nr && strcmp(s->text[i], text))
            i++;
        if (i < s->nr)
            continue;
        assert_true(s->nr < MAX_STATES);
        snprintf(s->text[s->nr++], sizeof(text), "%s", text);
    }
}

static void same_states(const struct states *a, const struct states *b)
{
    for (unsigned i = 0; i < a->nr; i++) {
        unsigned j = 0;
        while (j < b->nr && strcmp(a->text[i], b->text[j]))
            j++;
        if (j == b->nr)
            fail_msg("only one of them reaches: %s", a->text[i]);
    }
}

/* The sum of a figure over all explorations: "N schedules", "N left out". */
static unsigned long sum_of(const char *text, const char *word)
{
    unsigned long sum = 0;
    for (const char *s = text; (s = strstr(s, word)); s += strlen(word)) {
        const char *number = s;
        while (number > text && number[-1] >= '0' && number[-1] <= '9')
            number--;
        sum += strtoul(number, NULL, 10);
    }
    return sum;
}

static const char *const explored[] = {"S11-gup-fast.lua", "S12-fault-in-flight.lua", "S54-guest-races-convert.lua",
                                       "S57-two-cpus.lua"};
#define NR_EXPLORED (sizeof(explored) / sizeof(explored[0]))

static void reduction_reaches_the_same_states(void **state)
{
    static const char *const policies[] = {"A", "D"};
    static struct states reduced, all;
    unsigned long left_out = 0;
    (void)state;

    for (unsigned i = 0; i < NR_EXPLORED; i++) {
        for (unsigned p = 0; p < 2; p++) {
            struct sc_options o = {.policy = policies[p], .exploring = {.exhaustive = true}};
            o.verbose = true;
            int status = run_file(o, explored[i]);
            if (status == 2)
                continue; /* not under this policy */
            assert_int_equal(status, 0);
            unsigned long run = sum_of(out, " schedules, "), pruned = sum_of(out, " left out");
            read_states(&reduced, false);
            o.exploring.unreduced = true;
            assert_int_equal(run_file(o, explored[i]), 0);
            printf("# %s, policy %s: %lu schedules, %lu broken off, of %lu; %u final states\n", explored[i],
                   policies[p], run, pruned, sum_of(out, " schedules, "), reduced.nr);
            left_out += sum_of(out, " schedules, ") - run;
            assert_int_equal(sum_of(out, " left out"), 0);
            read_states(&all, false);
            assert_true(reduced.nr > 0);
            same_states(&reduced, &all);
            same_states(&all, &reduced);
        }
    }
    assert_true(left_out > 0);
}

static void shards_are_the_whole(void **state)
{
    static struct states whole, parts;
    struct sc_options o = {.policy = "D", .verbose = true, .exploring = {.exhaustive = true}};
    unsigned long sum = 0;
    (void)state;

    assert_int_equal(run_file(o, explored[0]), 0);
    unsigned long schedules = sum_of(out, " schedules, ");
    read_states(&whole, false);
    parts.nr = 0;
    o.exploring.shards = 3;
    for (unsigned i = 1; i <= 3; i++) {
        o.exploring.shard = i;
        assert_int_equal(run_file(o, explored[0]), 0);
        unsigned long part = sum_of(out, " schedules, ");
        assert_true(part > 0 && part < schedules);
        sum += part;
        read_states(&parts, true);
    }
    assert_int_equal(sum, schedules);
    same_states(&whole, &parts);
    same_states(&parts, &whole);
}

/* ---- what violates ----------------------------------------------------------------------------------------------- */

static bool labels_of(char *labels, size_t size)
{
    const char *s = strstr(out, "--replay '");
    if (!s)
        return false;
    s += strlen("--replay '");
    snprintf(labels, size, "%.*s", (int)strcspn(s, "'"), s);
    return true;
}

static void violation_of(const char *before, char *text, size_t size)
{
    const char *s = strstr(out, before);
    assert_non_null(s);
    s += strlen(before);
    snprintf(text, size, "%.*s", (int)strcspn(s, "\n"), s);
}

static unsigned count_labels(const char *labels)
{
    unsigned nr = 0;
    for (; (labels = strchr(labels, '@')); labels++)
        nr++;
    return nr;
}

/* The first schedule that is printed ends the same each time. */
static void plays_again(struct sc_options o, const char *file)
{
    char labels[2000], first[400], again[400];

    assert_true(labels_of(labels, sizeof(labels)));
    printf("# %s, policy %s, bugs %s: %s\n", file, o.policy, o.bugs ? o.bugs : "none", labels);
    assert_in_range(count_labels(labels), 2, 12);
    violation_of("It ends in: ", first, sizeof(first));
    assert_non_null(strstr(first, "I1: "));
    o.exploring.replay = labels;
    for (int i = 0; i < REPLAYS; i++) {
        run_file(o, file);
        violation_of("It ends in: ", again, sizeof(again));
        assert_string_equal(again, first);
    }
    /* Narrated: where each step comes to. */
    assert_non_null(strstr(out, "stopped at "));
}

static void policy_a_has_a_schedule_and_d_has_none(void **state)
{
    struct sc_options o = {.verbose = true};
    (void)state;

    for (unsigned i = 0; i < NR_EXPLORED; i++) {
        o.policy = "D";
        for (int exhaustive = 0; exhaustive < 2; exhaustive++) {
            o.exploring.exhaustive = exhaustive;
            assert_int_equal(run_file(o, explored[i]), 0);
            assert_true(sum_of(out, " schedules, ") > 0);
            assert_int_equal(sum_of(out, " schedules violate"), 0);
        }
        o.exploring.exhaustive = false;
        o.policy = "A";
        if (run_file(o, explored[i]) == 2)
            continue; /* not under this policy */
        assert_null(strstr(out, "FAILED"));
        assert_true(sum_of(out, " schedules violate") > 0);
        plays_again(o, explored[i]);
    }
}

static void mistakes_have_counterexamples(void **state)
{
    const struct sc_options o = {.policy = "D", .bugs = "d-no-refcheck", .verbose = true};
    (void)state;

    assert_int_equal(run_file(o, "S12-fault-in-flight.lua"), 1);
    plays_again(o, "S12-fault-in-flight.lua");
}

/* ---- scripts ----------------------------------------------------------------------------------------------------- */

#define TWO                                                                                                            \
    "local function two()\n local w = world {}\n"                                                                      \
    " return { a = w.vmm:start('touch', 1), b = w.vmm:start('convert', 1, 1, PRIVATE) }\nend\n"

static void wrong_scripts_are_told(void **state)
{
    static const struct {
        const char *body, *error;
    } wrong[] = {
        {"explore { name = 'x' }", "explore { setup }: a function that makes a world"},
        {"explore { setup = function() end }", "explore { name }: a text is wanted"},
        {"explore { name = 'x', setup = function() end, end_ = 1 }", "explore { end_ }: there is no such option"},
        {"explore { name = 'x', setup = function() return {} end }", "it makes a world and returns"},
        {"explore { name = 'x', setup = function() local w = world {} return { a = w.vmm:start('touch', 1) } end }",
         "two tasks at least"},
        {"explore { name = 'x', setup = function() local w = world {} world {} end }", "one world"},
        {"explore { name = 'x', setup = function() local w = world {} w.vmm:start('touch', 1):finish() end }",
         "stays where it is"},
        {"explore { name = 'x', setup = function() local w = world {} local c = w.vmm:start('touch', 1)\n"
         "return { a = c, b = c } end }",
         "a and b are the same call"},
        {"explore { name = 'x', setup = function() local w = world {} return { a = 1, b = 2 } end }",
         "is a call that actor:start() gave in setup"},
        {TWO "explore { name = 'x', setup = two, violates = 'I1' }", "x: no schedule violates I1"},
        {TWO "explore { name = 'x', setup = two, ends = function(e) check(e.a ~= '0', 'it got the page') end }",
         "check failed: it got the page; the shortest schedule that violates is --replay 'x: "},
    };
    (void)state;

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(run_script((struct sc_options){.policy = "D", .quiet = true}, wrong[i].body), 1);
        if (!strstr(out, wrong[i].error))
            fail_msg("\"%s\" is not in: %s", wrong[i].error, out);
    }
}

static void wrong_labels_are_told(void **state)
{
    static const struct {
        const char *labels, *error;
    } wrong[] = {
        {"x: c@end", "\"c@end\": a label is TASK@POINT, with a task of the exploration"},
        {"a", "\"a\": a label is TASK@POINT"},
        {"x: a@end a@end", "\"a@end\": a stands at end and cannot go on"},
        {"x: b@convert:lockde", "\"b@convert:lockde\": b stands at end and cannot go on"},
    };
    (void)state;

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const struct sc_options o = {.policy = "D", .quiet = true, .exploring = {.replay = wrong[i].labels}};
        assert_int_equal(run_script(o, TWO "explore { name = 'x', setup = two }"), 1);
        if (!strstr(out, wrong[i].error))
            fail_msg("\"%s\" is not in: %s", wrong[i].error, out);
    }
}

/* A call's CPU is that of its process when it was started, also when the process has moved since. */
static void a_call_keeps_its_cpu(void **state)
{
    (void)state;
    assert_int_equal(run_script((struct sc_options){.policy = "D", .quiet = true},
                                "local w = world {}\n"
                                "w.vmm:on_cpu(1)\n"
                                "local touch = w.vmm:start('touch', 3)\n"
                                "w.vmm:on_cpu(0)\n"
                                "touch:finish():expect '0'\n"
                                "equal(w.kern:tlb_has(1, 3).value, 1, 'CPU 1')\n"
                                "equal(w.kern:tlb_has(0, 3).value, 0, 'CPU 0')\n"),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reduction_reaches_the_same_states),
        cmocka_unit_test(shards_are_the_whole),
        cmocka_unit_test(policy_a_has_a_schedule_and_d_has_none),
        cmocka_unit_test(mistakes_have_counterexamples),
        cmocka_unit_test(wrong_scripts_are_told),
        cmocka_unit_test(wrong_labels_are_told),
        cmocka_unit_test(a_call_keeps_its_cpu),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(out);
    free(err);
    return failed;
}
