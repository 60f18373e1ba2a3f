/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/loop.h"

#include <errno.h>
#include <stdlib.h>

/* Between two looks at the sockets: task switches, and time, of which one that moves memory can take all. */
#define SWITCHES_PER_TURN 64
#define TURN_NS UINT64_C(1000000)

static void run_tasks(uv_idle_t *handle);

static void arm_timer(struct loop *loop);

static void settle(struct loop *loop)
{
    if (loop->closing)
        return;
    if (sched_has_runnable(loop->sched))
        uv_idle_start(&loop->idle, run_tasks);
    else
        uv_idle_stop(&loop->idle);
    arm_timer(loop);
}

static void on_timer(uv_timer_t *handle)
{
    struct loop *loop = handle->data;

    sched_fire_timers(loop->sched);
    settle(loop);
}

/* libuv's clock is in milliseconds and as old as the loop's turn: an early ring arms again. */
static void arm_timer(struct loop *loop)
{
    uint64_t deadline = sched_next_deadline(loop->sched);

    if (deadline == SCHED_FOREVER) {
        uv_timer_stop(&loop->timer);
        return;
    }
    uint64_t now = uv_hrtime();
    uint64_t ms = deadline <= now ? 0 : (deadline - now + 999999) / 1000000;
    uv_update_time(&loop->uv);
    uv_timer_start(&loop->timer, on_timer, ms, 0);
}

static void run_tasks(uv_idle_t *handle)
{
    struct loop *loop = handle->data;

    const uint64_t end = uv_hrtime() + TURN_NS;

    for (unsigned i = 0; i < SWITCHES_PER_TURN && sched_run(loop->sched, 1); i++)
        if (uv_hrtime() >= end)
            break;
    settle(loop);
}

static void before_sleep(uv_prepare_t *handle)
{
    struct loop *loop = handle->data;

    if (loop->trace_file)
        fflush(loop->trace_file);
}

static uint64_t monotonic(void *ctx)
{
    return uv_hrtime();
}

static void on_runnable(void *ctx)
{
    struct loop *loop = ctx;

    if (!loop->closing)
        uv_idle_start(&loop->idle, run_tasks);
}

static void on_point(void *ctx, struct task *task, const char *label)
{
    struct loop *loop = ctx;

    hold_pass(loop->hold, task, label);
}

int loop_init(struct loop *loop)
{
    *loop = (struct loop){.sched = NULL};
    int rc = uv_loop_init(&loop->uv);
    if (rc)
        return rc;
    uv_idle_init(&loop->uv, &loop->idle);
    uv_timer_init(&loop->uv, &loop->timer);
    uv_prepare_init(&loop->uv, &loop->prepare);
    loop->idle.data = loop->timer.data = loop->prepare.data = loop;
    uv_prepare_start(&loop->prepare, before_sleep);
    return 0;
}

void loop_sched_config(struct loop *loop, struct sched_config *config)
{
    *config = (struct sched_config){
        .ctx = loop, .now = monotonic, .runnable = on_runnable, .point = loop->hold ? on_point : NULL};
}

void loop_run(struct loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *loop)
{
    uv_stop(&loop->uv);
}

void loop_close(struct loop *loop)
{
    loop->closing = true;
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    /* What is closed is freed in the next turn; what is not must not keep us here. */
    for (int i = 0; i < 4; i++)
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    uv_loop_close(&loop->uv);
}

/* ---- descriptors -------------------------------------------------------------------------------------------- */

struct watch {
    uv_poll_t poll;
    void (*fn)(void *arg, int events);
    void *arg;
};

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;

    watch->fn(watch->arg, status < 0 ? 0 : events);
}

struct watch *watch_new(struct loop *loop, int fd, void (*fn)(void *arg, int events), void *arg)
{
    struct watch *watch = calloc(1, sizeof(*watch));

    if (!watch)
        return NULL;
    if (uv_poll_init(&loop->uv, &watch->poll, fd)) {
        free(watch);
        return NULL;
    }
    watch->poll.data = watch;
    watch->fn = fn;
    watch->arg = arg;
    return watch;
}

void watch_set(struct watch *watch, int events)
{
    if (events)
        uv_poll_start(&watch->poll, events, on_poll);
    else
        uv_poll_stop(&watch->poll);
}

static void free_data(uv_handle_t *handle)
{
    free(handle->data);
}

void watch_free(struct watch *watch)
{
    if (watch)
        uv_close((uv_handle_t *)&watch->poll, free_data);
}

/* ---- alarms ------------------------------------------------------------------------------------------------- */

struct alarm {
    uv_timer_t timer;
    void (*fn)(void *arg);
    void *arg;
};

static void on_alarm(uv_timer_t *timer)
{
    struct alarm *alarm = timer->data;

    uv_close((uv_handle_t *)timer, free_data);
    alarm->fn(alarm->arg);
}

struct alarm *alarm_new(struct loop *loop, uint64_t ms, void (*fn)(void *arg), void *arg)
{
    struct alarm *alarm = calloc(1, sizeof(*alarm));

    if (!alarm)
        return NULL;
    uv_timer_init(&loop->uv, &alarm->timer);
    alarm->timer.data = alarm;
    alarm->fn = fn;
    alarm->arg = arg;
    uv_update_time(&loop->uv);
    uv_timer_start(&alarm->timer, on_alarm, ms, 0);
    return alarm;
}

void alarm_free(struct alarm *alarm)
{
    if (alarm)
        uv_close((uv_handle_t *)&alarm->timer, free_data);
}
