/* SPDX-License-Identifier: BSD-2-Clause */
/* What becomes of a play's steps: narration, TAP, JSON lines, a matrix. */
#ifndef SRC_SCENARIO_OUTPUT_H
#define SRC_SCENARIO_OUTPUT_H

#include <stdio.h>

#include "src/scenario/call.h"

struct sc_play;

struct sc_step {
    const char *actor; /* "vmm", "guest", ... */
    const struct sc_call *call;
    const struct sc_verdict *verdict; /* NULL: it stands at a point, `words` say where */
    const char *words;                /* of the call */
    const char *result;               /* of the verdict */
    int line;
};

enum sc_end { SC_END_PASSED, SC_END_FAILED, SC_END_NOT_LIVE };

struct sc_totals {
    unsigned scenarios, runs, failed, not_live;
    unsigned long checks, steps;
};

struct sc_output;

struct sc_output_ops {
    void (*begin)(struct sc_output *out, const struct sc_play *play);
    void (*say)(struct sc_output *out, const char *text);
    void (*step)(struct sc_output *out, const struct sc_step *step);
    void (*violation)(struct sc_output *out, const char *text);
    void (*end)(struct sc_output *out, const struct sc_play *play, enum sc_end end, const char *reason);
    /* A line of the history of the page that a failure is about; after end(). */
    void (*history)(struct sc_output *out, const char *text);
    void (*total)(struct sc_output *out, const struct sc_totals *totals);
};

struct sc_output {
    const struct sc_output_ops *ops;
    FILE *f, *in; /* in: where --step and --predict read */
    bool narrate; /* each step; else only what fails */
    bool quiet;   /* nothing of what passes */
    bool step, predict;
    bool colour;
    unsigned nr_runs, guesses, right;
    void *data; /* of the matrix */
};

extern const struct sc_output_ops sc_text_output, sc_tap_output, sc_json_output, sc_matrix_output;

#endif
