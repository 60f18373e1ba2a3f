/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * --points-fd: whoever started the daemon holds its tasks at schedule points.
 *
 * One command a packet, each answered by one packet: "points", "hold LABEL[:N]",
 * "release".  A packet "held LABEL TASK NAME" follows when a task stands there.
 */
#ifndef SRC_FAKEHYPD_POINTS_H
#define SRC_FAKEHYPD_POINTS_H

#include "src/fakehypd/loop.h"

struct points;

/* Before the scheduler is made.  Takes fd over.  -EINVAL: it is no socket of type SOCK_SEQPACKET; -ENOMEM. */
int points_open(struct loop *loop, int fd, struct points **out);
/* Lets what is held go on; no task is held from here on.  NULL is fine. */
void points_close(struct points *points);
/* When no task is left that could pass a point. */
void points_free(struct points *points);

#endif
