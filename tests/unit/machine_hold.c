/* SPDX-License-Identifier: BSD-2-Clause */
/* Holding a task at a schedule point, and the table of points. */
#include "tests/unit/machine_task.h"

#include <errno.h>
#include <stdbool.h>

#include "src/machine/hold.h"

static struct hold hold;
static const struct task *held_task;
static unsigned nr_held;

static void on_held(void *ctx, const char *label, const struct task *task)
{
    assert_ptr_equal(ctx, &hold);
    assert_string_equal(label, "convert:stored");
    held_task = task;
    nr_held++;
}

static void on_point(void *ctx, struct task *task, const char *label)
{
    hold_pass(ctx, task, label);
}

static int hold_setup(void **state)
{
    const struct sched_config config = {.ctx = &hold, .point = on_point};
    logbuf[0] = '\0';
    held_task = NULL;
    nr_held = 0;
    hold_init(&hold, on_held, &hold);
    s = sched_new(&config);
    return s ? 0 : -1;
}

#define HOLD_TEST(f) cmocka_unit_test_setup_teardown(f, hold_setup, teardown)

static void passes_twice(void *arg)
{
    char c = *(char *)arg;
    for (int i = 0; i < 2; i++) {
        log_char(c);
        sched_point("convert:checked");
        sched_point("convert:stored");
    }
    log_char('.');
}

static void the_nth_to_pass_is_held_and_others_go_on(void **state)
{
    char a = 'a', b = 'b';

    assert_int_equal(hold_arm(&hold, "convert:stored", 2), 0);
    struct task *t = spawn(passes_twice, &a);
    sched_run(s, 0);
    assert_string_equal(logbuf, "aa");
    assert_ptr_equal(held_task, t);
    assert_true(task_paused(t));
    spawn(passes_twice, &b);
    sched_run(s, 0);
    assert_string_equal(logbuf, "aabb.");
    assert_int_equal(nr_held, 1);
    hold_release(&hold);
    sched_run(s, 0);
    assert_string_equal(logbuf, "aabb..");
    assert_int_equal(hold.passed[sched_point_find("convert:stored")], 4);
    assert_int_equal(hold.passed[sched_point_find("convert:checked")], 4);
}

static void what_is_not_armed_only_counts(void **state)
{
    char a = 'a';

    spawn(passes_twice, &a);
    sched_run(s, 0);
    assert_string_equal(logbuf, "aa.");
    assert_int_equal(nr_held, 0);
    /* A hold that is taken back before anybody comes. */
    assert_int_equal(hold_arm(&hold, "convert:stored", 1), 0);
    hold_release(&hold);
    spawn(passes_twice, &a);
    sched_run(s, 0);
    assert_int_equal(nr_held, 0);
}

static void mistakes_are_refused(void **state)
{
    char a = 'a';

    assert_int_equal(hold_arm(&hold, "convert:nowhere", 1), -ENOENT);
    assert_int_equal(hold_arm(&hold, "convert:stored", 0), -EINVAL);
    assert_int_equal(hold_arm(&hold, "convert:stored", 1), 0);
    spawn(passes_twice, &a);
    sched_run(s, 0);
    assert_int_equal(hold_arm(&hold, "convert:stored", 1), -EBUSY);
    hold_release(&hold);
    sched_run(s, 0);
}

static void a_held_task_can_be_cancelled(void **state)
{
    char a = 'a';

    assert_int_equal(hold_arm(&hold, "convert:stored", 1), 0);
    struct task *t = spawn(passes_twice, &a);
    sched_run(s, 0);
    task_cancel(t);
    assert_true(task_paused(t));
    hold_release(&hold);
    sched_run(s, 0);
    assert_string_equal(logbuf, "aa.");
}

static void every_label_is_known_once(void **state)
{
    char text[64];

    for (int i = 0; i < NR_SCHED_POINTS; i++) {
        assert_int_equal(sched_point_find(sched_points[i].label), i);
        assert_true(sched_points[i].meaning[0]);
    }
    assert_int_equal(sched_point_find("convert"), -1);
    sched_point_unknown("x", text, sizeof(text));
    assert_string_equal(text, "unknown schedule point \"x\"; known are convert:locked, convert:u");
}

static const struct CMUnitTest tests[] = {
    HOLD_TEST(the_nth_to_pass_is_held_and_others_go_on),
    HOLD_TEST(what_is_not_armed_only_counts),
    HOLD_TEST(mistakes_are_refused),
    HOLD_TEST(a_held_task_can_be_cancelled),
    HOLD_TEST(every_label_is_known_once),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
