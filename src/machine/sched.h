/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Schedule points, waits and task locks: a leaf interface that EL1 may include.
 *
 * Model code is straight-line C that runs in a task (a stackful coroutine of
 * the machine).  Only one task runs at a time and it runs until it waits, so
 * data needs no lock between two waits; a task_lock protects what must hold
 * across them.  All of this must be called from inside a task.
 */
#ifndef SRC_MACHINE_SCHED_H
#define SRC_MACHINE_SCHED_H

#include <stdbool.h>
#include <stdint.h>

struct task;

/* Zero-initialised is empty. */
struct waitq {
    struct task *head, *tail;
};

#define SCHED_FOREVER UINT64_MAX

/*
 * Marks a race window; points.h tells what each label means.  The task may be stopped here: by a scenario in
 * simulation, by a hold on the live stage, where it else costs a load.
 */
void sched_point(const char *label);

/*
 * Sleeps until the queue is woken, at most timeout_ns of stage time.
 * 0 woken, -ETIMEDOUT, -ECANCELED when the task was cancelled (its client went away).
 */
int sched_wait(struct waitq *queue, uint64_t timeout_ns);
/* The same for work that must see its answer even when its client went away: never -ECANCELED. */
int sched_wait_uncancelled(struct waitq *queue, uint64_t timeout_ns);
void sched_wake_all(struct waitq *queue);
void sched_wake_one(struct waitq *queue);

/* Lets other tasks and the event loop run: long work calls this about every millisecond. */
void sched_relax(void);
/*
 * The same for work of many small parts: gives way only when this task's turn has lasted half a millisecond.  In
 * virtual time, and outside of any task, it never has.
 */
void sched_relax_due(void);

/* Stage time in nanoseconds: CLOCK_MONOTONIC on the live stage, virtual in simulation. */
uint64_t sched_now(void);

/* Number of the running task, for reports; 0 outside any task. */
uint64_t sched_task_id(void);

/* The label that the running task passed last; NULL: none, or no task runs. */
const char *sched_last_point(void);

/*
 * The CPU that the running task is on: model code that keeps something for
 * each CPU (batches, TLBs) asks for it.  A task stays where it is until it says
 * otherwise; it starts on CPU 0.
 */
unsigned sched_cpu(void);
void sched_set_cpu(unsigned cpu);

/*
 * Readers-writer lock, first come, first served: neither a stream of writers
 * nor one of readers keeps others out.  Not recursive.  Waiting for it cannot
 * be cancelled.  Who takes it gives it back.
 */
struct task_lock {
    struct waitq waiters;
    unsigned readers;
    const struct task *writer; /* NULL: not held exclusively */
};
void task_lock_shared(struct task_lock *lock);
void task_unlock_shared(struct task_lock *lock);
void task_lock_exclusive(struct task_lock *lock);
void task_unlock_exclusive(struct task_lock *lock);

#endif
