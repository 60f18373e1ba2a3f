/* SPDX-License-Identifier: BSD-2-Clause */
/* Tasks: order, virtual time, cancellation, pausing. */
#include "tests/unit/machine_task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- order --------------------------------------------------------------------------------------------------------
 */

static void relax_three_times(void *arg)
{
    for (unsigned i = 0; i < 3; i++) {
        log_char(*(const char *)arg);
        sched_relax();
    }
}

static void relax_is_a_round_robin(void **state)
{
    spawn(relax_three_times, "a");
    spawn(relax_three_times, "b");
    spawn(relax_three_times, "c");
    assert_true(sched_has_runnable(s));
    assert_int_equal(sched_run(s, 4), 4);
    assert_string_equal(logbuf, "abca");
    assert_int_equal(sched_nr_tasks(s), 3);
    sched_run(s, 0);
    assert_string_equal(logbuf, "abcabcabc");
    assert_false(sched_has_runnable(s));
    assert_int_equal(sched_run(s, 0), 0);
}

static void wait_and_log(void *arg)
{
    assert_int_equal(sched_wait(&queue, SCHED_FOREVER), 0);
    log_char(*(const char *)arg);
}

static void waker(void *arg)
{
    sched_wake_one(&queue);
    log_char('1');
    sched_relax();
    sched_relax();
    sched_wake_all(&queue);
    log_char('*');
    /* Nobody waits any more: nothing happens, nothing is remembered. */
    sched_wake_all(&queue);
    sched_wake_one(&queue);
}

static void wakes_in_order(void **state)
{
    static const char names[] = "abcd";
    for (unsigned i = 0; i < 4; i++)
        spawn(wait_and_log, (void *)(uintptr_t)&names[i]);
    sched_run(s, 0);
    assert_int_equal(sched_nr_tasks(s), 4);
    assert_int_equal(sched_next_deadline(s), SCHED_FOREVER);
    spawn(waker, NULL);
    sched_run(s, 0);
    assert_string_equal(logbuf, "1a*bcd");
    assert_null(queue.head);
    assert_null(queue.tail);
}

static void who_am_i(void *arg)
{
    uint64_t *id = arg;
    *id = sched_task_id();
    assert_ptr_equal(task_name(task_current()), task_name(task_current()));
    assert_string_equal(task_name(task_current()), "t");
    assert_int_equal(task_id(task_current()), *id);
    assert_false(task_cancelled());
}

static void names_and_numbers(void **state)
{
    uint64_t ids[3] = {0};
    assert_int_equal(sched_task_id(), 0);
    assert_null(task_current());
    for (unsigned i = 0; i < 3; i++)
        spawn(who_am_i, &ids[i]);
    sched_run(s, 0);
    assert_true(ids[0] && ids[1] > ids[0] && ids[2] > ids[1]);
    assert_int_equal(sched_task_id(), 0);
    /* Outside of tasks a schedule point is nothing. */
    sched_point("nowhere");
}

/* ---- time ----------------------------------------------------------------------------------------------------------
 */

struct sleeper {
    uint64_t ns, woke_at;
    int rc;
    char name;
};

static void sleep_task(void *arg)
{
    struct sleeper *z = arg;
    struct waitq own = {0};
    z->rc = sched_wait(&own, z->ns);
    z->woke_at = sched_now();
    log_char(z->name);
    assert_null(own.head);
}

static void deadlines_in_virtual_time(void **state)
{
    struct sleeper z[] = {{.ns = 30 * MS, .name = '3'},
                          {.ns = 10 * MS, .name = '1'},
                          {.ns = 20 * MS, .name = '2'},
                          {.ns = 0, .name = '0'},
                          {.ns = 3600000 * MS, .name = '4'}};
    for (unsigned i = 0; i < 5; i++)
        spawn(sleep_task, &z[i]);
    sched_run(s, 0);
    assert_string_equal(logbuf, "01234");
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(z[i].rc, -ETIMEDOUT);
        assert_int_equal(z[i].woke_at, z[i].ns);
    }
}

static void wake_at_5ms(void *arg)
{
    struct waitq none = {0};
    sched_wait(&none, 5 * MS);
    sched_wake_all(&queue);
}

static void wait_10ms(void *arg)
{
    struct sleeper *z = arg;
    z->rc = sched_wait(&queue, z->ns);
    z->woke_at = sched_now();
}

static void a_wake_beats_the_deadline(void **state)
{
    struct sleeper late = {.ns = 10 * MS}, early = {.ns = 4 * MS}, forever = {.ns = SCHED_FOREVER - 1};
    spawn(wait_10ms, &late);
    spawn(wait_10ms, &early);
    spawn(wait_10ms, &forever);
    spawn(wake_at_5ms, NULL);
    sched_run(s, 0);
    assert_int_equal(late.rc, 0);
    assert_int_equal(late.woke_at, 5 * MS);
    assert_int_equal(early.rc, -ETIMEDOUT);
    assert_int_equal(early.woke_at, 4 * MS);
    assert_int_equal(forever.rc, 0);
}

static uint64_t real_now;

static uint64_t get_now(void *ctx)
{
    return real_now;
}

/* With a clock of its own a scheduler does not jump. */
static void an_outside_clock(void **state)
{
    const struct sched_config config = {.now = get_now};
    struct sleeper z = {.ns = 10 * MS, .name = 'z'};
    struct sched *own = sched_new(&config);
    real_now = 100 * MS;
    assert_non_null(task_spawn(own, "t", sleep_task, &z));
    sched_run(own, 0);
    assert_int_equal(sched_nr_tasks(own), 1);
    assert_int_equal(sched_next_deadline(own), 110 * MS);
    real_now = 110 * MS - 1;
    sched_fire_timers(own);
    assert_false(sched_has_runnable(own));
    real_now = 110 * MS;
    sched_fire_timers(own);
    assert_true(sched_has_runnable(own));
    sched_run(own, 0);
    assert_int_equal(z.rc, -ETIMEDOUT);
    assert_int_equal(sched_nr_tasks(own), 0);
    sched_free(own);
}

static unsigned nr_told;

static void told(void *ctx)
{
    nr_told++;
}

static void tells_who_drives_it(void **state)
{
    const struct sched_config config = {.runnable = told};
    struct sched *own = sched_new(&config);
    nr_told = 0;
    assert_non_null(task_spawn(own, "t", wait_and_log, "a"));
    assert_int_equal(nr_told, 1);
    sched_run(own, 0);
    assert_int_equal(nr_told, 1);
    sched_wake_all(&queue); /* from an event of the loop */
    assert_int_equal(nr_told, 2);
    sched_run(own, 0);
    assert_string_equal(logbuf, "a");
    sched_free(own);
}

/* ---- cancellation ---- */

static void wait_until_cancelled(void *arg)
{
    int *rc = arg;
    rc[0] = sched_wait(&queue, SCHED_FOREVER);
    assert_true(task_cancelled());
    /* And every later one, at once. */
    rc[1] = sched_wait(&queue, SCHED_FOREVER);
    rc[2] = sched_wait(&queue, 0);
    uint64_t before = sched_now();
    rc[3] = sched_wait_uncancelled(&queue, 7 * MS);
    assert_int_equal(sched_now() - before, 7 * MS);
}

static void cancelled_waits(void **state)
{
    int rc[4] = {1, 1, 1, 1};
    struct task *t = spawn(wait_until_cancelled, rc);
    sched_run(s, 0);
    task_cancel(t);
    sched_run(s, 0);
    assert_int_equal(rc[0], -ECANCELED);
    assert_int_equal(rc[1], -ECANCELED);
    assert_int_equal(rc[2], -ECANCELED);
    assert_int_equal(rc[3], -ETIMEDOUT);
    assert_null(queue.head);
}

static void uncancelled(void *arg)
{
    struct sleeper *z = arg;
    z->rc = sched_wait_uncancelled(&queue, z->ns);
    z->woke_at = sched_now();
}

static void cancel_at_3ms(void *arg)
{
    struct waitq none = {0};
    sched_wait(&none, 3 * MS);
    task_cancel(arg);
}

static void a_wait_that_cannot_be_cancelled(void **state)
{
    struct sleeper bounded = {.ns = 10 * MS, .rc = 1}, woken = {.ns = SCHED_FOREVER, .rc = 1};
    spawn(cancel_at_3ms, spawn(uncancelled, &bounded));
    spawn(cancel_at_3ms, spawn(uncancelled, &woken));
    sched_run(s, 0);
    /* The whole time, not the time since the cancellation. */
    assert_int_equal(bounded.rc, -ETIMEDOUT);
    assert_int_equal(bounded.woke_at, 10 * MS);
    assert_int_equal(woken.rc, 1);
    spawn(waker, NULL);
    sched_run(s, 0);
    assert_int_equal(woken.rc, 0);
}

static void cancel_and_wake_all(void *arg)
{
    struct task **t = arg;
    task_cancel(t[0]);
    task_cancel(t[1]);
    sched_wake_all(&queue);
}

static void cancel_and_wake_one(void *arg)
{
    task_cancel(arg);
    sched_wake_one(&queue);
}

/* Cancelled, and woken before it could go back to sleep: the wake-up was meant for it. */
static void a_wake_after_a_cancellation_counts(void **state)
{
    struct sleeper bounded = {.ns = 10 * MS, .rc = 1}, forever = {.ns = SCHED_FOREVER, .rc = 1};
    struct task *t[2] = {spawn(uncancelled, &bounded), spawn(uncancelled, &forever)};
    spawn(cancel_and_wake_all, t);
    sched_run(s, 0);
    assert_int_equal(bounded.rc, 0);
    assert_int_equal(bounded.woke_at, 0);
    assert_int_equal(forever.rc, 0);
    forever.rc = 1;
    spawn(cancel_and_wake_one, spawn(uncancelled, &forever));
    sched_run(s, 0);
    assert_int_equal(forever.rc, 0);
}

static void wait_5ms(void *arg)
{
    int *rc = arg;
    *rc = sched_wait(&queue, 5 * MS);
}

static void cancel_at_5ms(void *arg)
{
    struct waitq none = {0};
    sched_wait(&none, 5 * MS);
    task_cancel(arg);
}

/* At the deadline and at the same moment cancelled: cancelled, whatever was first. */
static void cancelled_at_the_deadline(void **state)
{
    int rc[2] = {1, 1};
    struct task *t = spawn(wait_5ms, &rc[0]);
    spawn(cancel_at_5ms, t);
    spawn(cancel_at_5ms, spawn(wait_5ms, &rc[1]));
    sched_run(s, 0);
    assert_int_equal(rc[0], -ECANCELED);
}

static void waits_once(void *arg)
{
    int *rc = arg;
    *rc = sched_wait(&queue, SCHED_FOREVER);
}

static void cancelled_before_it_waits(void **state)
{
    int rc[2] = {1, 1};
    task_cancel(spawn(waits_once, &rc[0]));
    sched_run(s, 0);
    assert_int_equal(rc[0], -ECANCELED);
    /* Woken first, cancelled second: the wake-up is not lost. */
    struct task *t = spawn(waits_once, &rc[1]);
    sched_run(s, 0);
    sched_wake_all(&queue);
    task_cancel(t);
    sched_run(s, 0);
    assert_int_equal(rc[1], 0);
}

/* ---- pausing ---- */

static const char *stop_at;
static struct task *stopped;

static void at_point(void *ctx, struct task *task, const char *label)
{
    log_char(*label);
    if (stop_at && !strcmp(label, stop_at)) {
        stopped = task;
        task_pause();
    }
}

static void three_points(void *arg)
{
    sched_point("1");
    sched_point("2");
    sched_point("3");
}

static void stops_at_a_label(void **state)
{
    const struct sched_config config = {.point = at_point};
    struct sched *own = sched_new(&config);
    stop_at = "2";
    struct task *t = task_spawn(own, "t", three_points, NULL);
    sched_run(own, 0);
    assert_string_equal(logbuf, "12");
    assert_ptr_equal(stopped, t);
    assert_true(task_paused(t));
    assert_false(sched_has_runnable(own));
    /* Neither time nor cancellation moves it. */
    task_cancel(t);
    sched_fire_timers(own);
    assert_int_equal(sched_run(own, 0), 0);
    assert_true(task_paused(t));
    task_resume(t);
    assert_false(task_paused(t));
    sched_run(own, 0);
    assert_string_equal(logbuf, "123");
    assert_int_equal(sched_nr_tasks(own), 0);
    sched_free(own);
}

/* ---- many ---- */

static void deep(unsigned depth, unsigned char fill)
{
    volatile unsigned char frame[512];
    memset((void *)(uintptr_t)frame, fill, sizeof(frame));
    if (depth)
        deep(depth - 1, fill);
    else
        sched_relax();
    for (size_t i = 0; i < sizeof(frame); i++)
        assert_int_equal(frame[i], fill);
}

static void use_the_stack(void *arg)
{
    unsigned *done = arg;
    deep(40, (unsigned char)(sched_task_id() & 0xff));
    ++*done;
}

/* Stacks are used again by later tasks, and their frames do not mix. */
static void many_tasks(void **state)
{
    unsigned done = 0;
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 300; i++)
            spawn(use_the_stack, &done);
        assert_int_equal(sched_nr_tasks(s), 300);
        sched_run(s, 0);
        assert_int_equal(done, 300 * (round + 1));
    }
}

static void look_below(void *arg)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), before = 0, start = 0, end = 0;
    char line[512], access[5], guard[5] = "";
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) &&
           sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &start, &end, access) == 3 && end <= here) {
        before = end;
        memcpy(guard, access, sizeof(guard));
    }
    fclose(maps);
    assert_true(start <= here && here < end);
    assert_string_equal(access, "rw-p");
    /* What runs over faults, and writes into nobody's memory. */
    assert_true(before == start);
    assert_string_equal(guard, "---p");
}

static void guard_page(void **state)
{
    for (unsigned i = 0; i < 3; i++)
        spawn(look_below, NULL);
    sched_run(s, 0);
}

static void spawner(void *arg)
{
    unsigned *left = arg;
    if (*left) {
        --*left;
        spawn(spawner, left);
    }
}

static void tasks_make_tasks(void **state)
{
    unsigned left = 1000;
    spawn(spawner, &left);
    sched_run(s, 0);
    assert_int_equal(left, 0);
    assert_int_equal(sched_nr_tasks(s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(relax_is_a_round_robin),
        TEST(wakes_in_order),
        TEST(names_and_numbers),
        TEST(deadlines_in_virtual_time),
        TEST(a_wake_beats_the_deadline),
        TEST(an_outside_clock),
        TEST(tells_who_drives_it),
        TEST(cancelled_waits),
        TEST(a_wait_that_cannot_be_cancelled),
        TEST(a_wake_after_a_cancellation_counts),
        TEST(cancelled_at_the_deadline),
        TEST(cancelled_before_it_waits),
        TEST(stops_at_a_label),
        TEST(guard_page),
        TEST(many_tasks),
        TEST(tasks_make_tasks),
    };
    /* What waits for ever must not take the whole run with it. */
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
