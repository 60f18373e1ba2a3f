/* SPDX-License-Identifier: BSD-2-Clause */
/* Holding a daemon's tasks at schedule points: the other end of --points-fd. */
#ifndef TESTS_COMMON_LIVE_POINTS_H
#define TESTS_COMMON_LIVE_POINTS_H

#include "src/machine/points.h"
#include "tests/common/live_rig.h"

/* One packet there and one back; the answer is in a buffer that the next call uses again. */
const char *points_ask(const struct rig_daemon *d, const char *command);
/* The n-th passage from now of a point that must exist. */
void points_hold(const struct rig_daemon *d, const char *label, uint64_t n);
void points_release(const struct rig_daemon *d);
/* False: no task stands there after timeout_ms. */
bool points_wait_held(const struct rig_daemon *d, unsigned timeout_ms);
/* How often each was passed since the last time; in the order of the table. */
void points_passed(const struct rig_daemon *d, uint64_t passed[NR_SCHED_POINTS]);

#endif
