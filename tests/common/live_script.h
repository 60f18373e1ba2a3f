/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fixed script of all that a VMM does, one step at a time as it is told.
 *
 * It is a program of its own, so that errors can be injected into it: this
 * one, started again as `PROGRAM script SOCKET FD`.
 */
#ifndef TESTS_COMMON_LIVE_SCRIPT_H
#define TESTS_COMMON_LIVE_SCRIPT_H

#include "tests/common/inject.h"
#include "tests/common/live_rig.h"

struct script_step {
    const char *name;
    int expected;    /* rc when nothing fails */
    bool once;       /* it lets go of something: what it was is gone also when it fails */
    bool guest;      /* the guest runs in it */
    bool background; /* work goes on behind the answer */
};
extern const struct script_step script_steps[];
extern const unsigned script_nr_steps;

/* From the script to its driver, after each step. */
struct script_result {
    int rc;
    bool guest_ended;
    unsigned fds;    /* of the script's process */
    char text[300];  /* fakehyp_last_error() */
    char bytes[160]; /* what it sees in its pages; equal before and after a step that failed */
};

/* The driver sends a step's number; SCRIPT_LOOK looks only. */
#define SCRIPT_LOOK UINT32_MAX

/* When argv asks for it this is the script, and it does not return. */
void script_main_if_asked(int argc, char **argv);

#endif
