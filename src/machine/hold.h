/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hold: stops the task that is the n-th to pass a schedule point, until told.
 *
 * Everything else goes on, so whoever holds a task there can look at what its
 * operation has done so far, and do to it what the world could do.  Its owner
 * passes the calls of sched_config.point on to hold_pass().
 */
#ifndef SRC_MACHINE_HOLD_H
#define SRC_MACHINE_HOLD_H

#include "src/machine/points.h"
#include "src/machine/task.h"

struct hold {
    /* A task stands at a point (its own stack is left only after this has returned).  May be NULL. */
    void (*held)(void *ctx, const char *label, const struct task *task);
    void *ctx;

    int armed;                        /* index into sched_points; -1: none */
    uint64_t left;                    /* passages until it holds */
    struct task *task;                /* that is held */
    uint64_t passed[NR_SCHED_POINTS]; /* passages; the owner may set them to 0 */
};

void hold_init(struct hold *hold, void (*held)(void *ctx, const char *label, const struct task *task), void *ctx);

/*
 * Holds the task that passes `label` for the n-th time from now (n >= 1), once.  Replaces a hold that nobody has
 * reached.  -ENOENT: no such point; -EINVAL: n is 0; -EBUSY: a task is held.
 */
int hold_arm(struct hold *hold, const char *label, uint64_t n);
/* Lets the held task go on, and holds none from here on. */
void hold_release(struct hold *hold);
/* In the task, from sched_config.point. */
void hold_pass(struct hold *hold, struct task *task, const char *label);

#endif
