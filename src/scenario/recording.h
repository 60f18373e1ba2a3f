/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The trace of one machine, until it has ended: several run at a time, and each
 * one's events are to be together in the file that the user named.
 */
#ifndef SRC_SCENARIO_RECORDING_H
#define SRC_SCENARIO_RECORDING_H

#include <stdio.h>

/* In memory only; its descriptor can be opened again through /proc.  NULL: no memory. */
FILE *recording_new(void);
/* Appends all of it to `to`, and closes it.  Either may be NULL. */
void recording_end(FILE *recording, FILE *to);

#endif
