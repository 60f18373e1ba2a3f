/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scenario runner: `fakehypctl run`.
 *
 * Plays Lua scripts (fakehyp-scenario(5)) under each policy, tracker and
 * hypervisor that they name, on the simulated stage or with real processes.
 */
#ifndef SRC_SCENARIO_SCENARIO_H
#define SRC_SCENARIO_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum sc_format { SC_FORMAT_TEXT, SC_FORMAT_TAP, SC_FORMAT_JSON, SC_FORMAT_MATRIX };

/* How explore{} explores. */
struct sc_exploring {
    bool exhaustive;        /* no bound on preemptions */
    bool unreduced;         /* no sleep sets */
    unsigned shard, shards; /* 0 of 0: everything */
    const char *replay;     /* "[NAME: ]LABELS": no search, but this schedule */
    FILE *progress, *figures;
};

struct sc_options {
    char *const *paths; /* scripts, or folders of them */
    size_t nr_paths;
    const char *policy, *tracker, *hyp; /* NULL: all that a scenario names */
    const char *bugs;                   /* bug modes of every world, NULL: those that a script asks for */
    bool live;
    enum sc_format format;
    bool step;    /* wait for a line of `in` after each step */
    bool predict; /* ask for each verdict before it is shown */
    bool verbose; /* narrate, also more than one script */
    bool quiet;   /* nothing of what passes */
    bool colour;
    unsigned long repeats; /* how many times as long storms last; 0: 1 */
    /* What explore { } does. */
    struct sc_exploring exploring;
    FILE *out, *err, *in;
    FILE *trace; /* the events of all that is played, one trace after the other; NULL: nowhere */
};

/* 0: all that was played passed; 1: something failed; 2: nothing could be played, after an explanation on err. */
int sc_run(const struct sc_options *options);

#endif
