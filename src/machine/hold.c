/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/machine/hold.h"

#include <assert.h>
#include <errno.h>

void hold_init(struct hold *hold, void (*held)(void *ctx, const char *label, const struct task *task), void *ctx)
{
    *hold = (struct hold){.held = held, .ctx = ctx, .armed = -1};
}

int hold_arm(struct hold *hold, const char *label, uint64_t n)
{
    int point = sched_point_find(label);

    if (point < 0)
        return -ENOENT;
    if (!n)
        return -EINVAL;
    if (hold->task)
        return -EBUSY;
    hold->armed = point;
    hold->left = n;
    return 0;
}

void hold_release(struct hold *hold)
{
    struct task *task = hold->task;

    hold->armed = -1;
    hold->task = NULL;
    if (task)
        task_resume(task);
}

void hold_pass(struct hold *hold, struct task *task, const char *label)
{
    int point = sched_point_find(label);

    assert(point >= 0);
    hold->passed[point]++;
    if (point != hold->armed || --hold->left)
        return;
    hold->armed = -1;
    hold->task = task;
    if (hold->held)
        hold->held(hold->ctx, label, task);
    /* It may have been let go already. */
    if (hold->task)
        task_pause();
}
