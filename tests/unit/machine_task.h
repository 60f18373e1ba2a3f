/* SPDX-License-Identifier: BSD-2-Clause */
/* A scheduler for each test, and a log of who ran: for the tests of tasks and of their locks. */
#ifndef TESTS_UNIT_MACHINE_TASK_H
#define TESTS_UNIT_MACHINE_TASK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "src/machine/task.h"

#define MS UINT64_C(1000000)

static struct sched *s;
static char logbuf[4096];
static __attribute__((unused)) struct waitq queue;
static struct task_lock lock;

static __attribute__((unused)) void log_char(char c)
{
    size_t n = strlen(logbuf);
    assert_true(n + 1 < sizeof(logbuf));
    logbuf[n] = c;
    logbuf[n + 1] = '\0';
}

static __attribute__((unused)) int setup(void **state)
{
    const struct sched_config config = {0};
    logbuf[0] = '\0';
    queue = (struct waitq){0};
    lock = (struct task_lock){0};
    s = sched_new(&config);
    return s ? 0 : -1;
}

static int teardown(void **state)
{
    size_t left = sched_nr_tasks(s);
    if (!left)
        sched_free(s);
    return left ? -1 : 0;
}

static __attribute__((unused)) struct task *spawn(void (*fn)(void *arg), void *arg)
{
    struct task *t = task_spawn(s, "t", fn, arg);
    assert_non_null(t);
    return t;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
