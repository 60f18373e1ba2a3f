/* SPDX-License-Identifier: BSD-2-Clause */
/* The locks of tasks: readers, writers, the order of asking. */
#include "tests/unit/machine_task.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void reader(void *arg)
{
    task_lock_shared(&lock);
    log_char(*(const char *)arg);
    sched_relax();
    log_char(*(const char *)arg);
    task_unlock_shared(&lock);
}

static void writer(void *arg)
{
    task_lock_exclusive(&lock);
    log_char(*(const char *)arg);
    sched_relax();
    sched_relax();
    log_char(*(const char *)arg);
    task_unlock_exclusive(&lock);
}

static void readers_share(void **state)
{
    spawn(reader, "a");
    spawn(reader, "b");
    sched_run(s, 0);
    assert_string_equal(logbuf, "abab");
}

static void first_come_first_served(void **state)
{
    spawn(reader, "a");
    spawn(writer, "W");
    spawn(reader, "b"); /* came after the writer: waits for it */
    spawn(writer, "X");
    spawn(reader, "c");
    spawn(reader, "d");
    sched_run(s, 0);
    assert_string_equal(logbuf, "aaWWbbXXcdcd");
    assert_null(lock.writer);
    assert_int_equal(lock.readers, 0);
    assert_null(lock.waiters.head);
}

/* A client may ask for one conversion after the other; the guest's fault must get its turn all the same. */
static void writer_for_ever(void *arg)
{
    bool *reader_done = arg;
    for (unsigned i = 0; i < 1000 && !*reader_done; i++) {
        task_lock_exclusive(&lock);
        sched_relax();
        task_unlock_exclusive(&lock);
        sched_relax();
    }
    log_char('W');
}

static void reader_for_ever(void *arg)
{
    bool *writer_done = arg;
    for (unsigned i = 0; i < 1000 && !*writer_done; i++) {
        task_lock_shared(&lock);
        sched_relax();
        sched_relax();
        task_unlock_shared(&lock);
    }
    log_char('R');
}

static void one_reader(void *arg)
{
    sched_relax();
    sched_relax();
    task_lock_shared(&lock);
    log_char('r');
    *(bool *)arg = true;
    task_unlock_shared(&lock);
}

static void one_writer(void *arg)
{
    sched_relax();
    sched_relax();
    task_lock_exclusive(&lock);
    log_char('w');
    *(bool *)arg = true;
    task_unlock_exclusive(&lock);
}

static void nobody_starves(void **state)
{
    bool done = false;
    for (unsigned i = 0; i < 3; i++)
        spawn(writer_for_ever, &done);
    spawn(one_reader, &done);
    sched_run(s, 0);
    assert_string_equal(logbuf, "rWWW");
    done = false;
    logbuf[0] = '\0';
    for (unsigned i = 0; i < 3; i++)
        spawn(reader_for_ever, &done);
    spawn(one_writer, &done);
    sched_run(s, 0);
    assert_string_equal(logbuf, "wRRR");
}

/* Who gives a lock back and wants it again stands behind those who wait already. */
static void again_and_again(void *arg)
{
    for (unsigned i = 0; i < 2; i++) {
        task_lock_exclusive(&lock);
        log_char(*(const char *)arg);
        sched_relax();
        task_unlock_exclusive(&lock);
    }
}

static void no_overtaking(void **state)
{
    spawn(again_and_again, "a");
    spawn(again_and_again, "b");
    sched_run(s, 0);
    assert_string_equal(logbuf, "abab");
}

static void a_cancelled_task_still_gets_its_lock(void **state)
{
    spawn(writer, "A");
    struct task *w = spawn(writer, "B"), *r = spawn(reader, "c");
    sched_run(s, 3);
    task_cancel(w);
    task_cancel(r);
    sched_run(s, 0);
    assert_string_equal(logbuf, "AABBcc");
}

/* It keeps its place in the queue, and those behind it keep theirs. */
static void a_cancelled_writer_behind_a_reader(void **state)
{
    spawn(reader, "a");
    struct task *w = spawn(writer, "W");
    spawn(reader, "b");
    spawn(reader, "c");
    sched_run(s, 4);
    assert_string_equal(logbuf, "a");
    task_cancel(w);
    sched_run(s, 0);
    assert_string_equal(logbuf, "aaWWbcbc");
}

#define LOCK_TASKS 200
#define LOCK_ROUNDS 50

static uint64_t seed;
static unsigned inside_readers, inside_writers, entries;

static unsigned rnd(unsigned below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 11) % below);
}

static void somewhere(void)
{
    struct waitq none = {0};
    if (rnd(2))
        sched_relax();
    else if (rnd(2))
        sched_wait(&none, rnd(5) * MS);
}

static void contender(void *arg)
{
    for (unsigned i = 0; i < LOCK_ROUNDS; i++) {
        somewhere();
        if (rnd(3)) {
            task_lock_shared(&lock);
            inside_readers++;
            assert_int_equal(inside_writers, 0);
            somewhere();
            inside_readers--;
            task_unlock_shared(&lock);
        } else {
            task_lock_exclusive(&lock);
            inside_writers++;
            assert_int_equal(inside_writers, 1);
            assert_int_equal(inside_readers, 0);
            somewhere();
            assert_int_equal(inside_readers, 0);
            inside_writers--;
            task_unlock_exclusive(&lock);
        }
        entries++;
    }
}

/* A lost wake-up would leave tasks behind; teardown counts them. */
static void no_wake_up_is_lost(void **state)
{
    seed = UINT64_C(0x5eed0007);
    entries = 0;
    for (unsigned i = 0; i < LOCK_TASKS; i++) {
        struct task *t = spawn(contender, NULL);
        if (i % 7 == 0)
            task_cancel(t);
    }
    sched_run(s, 0);
    assert_int_equal(entries, LOCK_TASKS * LOCK_ROUNDS);
    assert_false(lock.writer || lock.readers || lock.waiters.head);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(readers_share),
        TEST(first_come_first_served),
        TEST(nobody_starves),
        TEST(no_overtaking),
        TEST(a_cancelled_task_still_gets_its_lock),
        TEST(a_cancelled_writer_behind_a_reader),
        TEST(no_wake_up_is_lost),
    };
    /* What waits for ever must not take the whole run with it. */
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
