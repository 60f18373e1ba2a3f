/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop: libuv with the machine's tasks in it.
 *
 * Watches and alarms are on the heap and free themselves when libuv is done
 * with them, so their owners may drop them at any moment.
 */
#ifndef SRC_FAKEHYPD_LOOP_H
#define SRC_FAKEHYPD_LOOP_H

#include <stdint.h>
#include <stdio.h>
#include <uv.h>

#include "src/machine/hold.h"

struct loop {
    uv_loop_t uv;
    uv_idle_t idle;       /* active while a task is runnable */
    uv_timer_t timer;     /* next deadline of a task's wait */
    uv_prepare_t prepare; /* before the loop sleeps */
    struct sched *sched;
    struct hold *hold; /* of tasks at schedule points, for tests; NULL: none.  Before the scheduler is made */
    FILE *trace_file;  /* flushed before the loop sleeps; may be NULL */
    bool closing;
};

int loop_init(struct loop *loop);
/* For machine_new(), which makes the scheduler; then set loop->sched. */
void loop_sched_config(struct loop *loop, struct sched_config *config);
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* All watches and alarms must have been dropped. */
void loop_close(struct loop *loop);

struct watch;
/* Calls fn(arg, events) with UV_READABLE, UV_WRITABLE...; 0 with an error of the descriptor.  NULL: -ENOMEM or a
 * descriptor that cannot be polled. */
struct watch *watch_new(struct loop *loop, int fd, void (*fn)(void *arg, int events), void *arg);
/* events 0: none. */
void watch_set(struct watch *watch, int events);
/* The descriptor may be closed right afterwards.  NULL is fine. */
void watch_free(struct watch *watch);

struct alarm;
/* Calls fn(arg) once; the alarm is freed after that.  NULL when out of memory. */
struct alarm *alarm_new(struct loop *loop, uint64_t ms, void (*fn)(void *arg), void *arg);
/* Before it has rung.  NULL is fine. */
void alarm_free(struct alarm *alarm);

#endif
