/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine's side of tasks: creating, running and cancelling them.
 *
 * A scheduler owns its tasks.  The live stage runs sched_run() from its event
 * loop, the simulated stage from its own; neither is re-entrant, and a
 * scheduler belongs to one thread.
 */
#ifndef SRC_MACHINE_TASK_H
#define SRC_MACHINE_TASK_H

#include <stddef.h>

#include "src/machine/sched.h"

struct sched;

struct sched_config {
    void *ctx;
    uint64_t (*now)(void *ctx);  /* NULL: virtual time, which jumps to the next deadline when all tasks wait */
    void (*runnable)(void *ctx); /* a task became runnable outside sched_run(); may be NULL */
    /* Called at each schedule point, in the task; may call task_pause().  May be NULL. */
    void (*point)(void *ctx, struct task *task, const char *label);
};

/* NULL when out of memory. */
struct sched *sched_new(const struct sched_config *config);
/* All tasks must have ended. */
void sched_free(struct sched *sched);

/*
 * Creates a task that runs fn(arg) at the next sched_run().  It frees itself
 * when fn returns.  NULL when out of memory.  name is not copied.
 */
struct task *task_spawn(struct sched *sched, const char *name, void (*fn)(void *arg), void *arg);

/* Runs what is runnable, each task until it waits or relaxes, at most max task switches (0: until none is runnable). */
size_t sched_run(struct sched *sched, size_t max);
bool sched_has_runnable(const struct sched *sched);
/* The tasks that could run now, one after the other: NULL gives the first, NULL comes after the last. */
struct task *sched_next_runnable(const struct sched *sched, const struct task *task);
/* Runs that one of them, until it waits or relaxes, out of its turn. */
void sched_run_task(struct sched *sched, struct task *task);
/* Absolute stage time before which no timed wait ends; SCHED_FOREVER when none. */
uint64_t sched_next_deadline(const struct sched *sched);
/* Wakes the waits whose deadline has come. */
void sched_fire_timers(struct sched *sched);
size_t sched_nr_tasks(const struct sched *sched);

/* The task's present and later sched_wait()s return -ECANCELED. */
void task_cancel(struct task *task);
bool task_cancelled(void);
struct task *task_current(void);
const char *task_name(const struct task *task);
uint64_t task_id(const struct task *task);

/* Stops the running task until task_resume(), for simulation and holds. */
void task_pause(void);
void task_resume(struct task *task);
bool task_paused(const struct task *task);

#endif
