/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every interleaving of a few calls.
 *
 * A recipe says how a world is made and which calls are under way in it; it is
 * plain data, which explore{} of a script has recorded once.  A run is one
 * schedule: the world as the recipe makes it, and one call after the other
 * that goes on to its next schedule point, its end, or a wait.  The search
 * runs each schedule from the beginning again: nothing is carried over from
 * one to the next, and the same choices have the same end.
 */
#ifndef SRC_SCENARIO_EXPLORE_H
#define SRC_SCENARIO_EXPLORE_H

#include <stdio.h>

#include "src/scenario/stage.h"

#define EX_MAX_TASKS 6u
#define EX_MAX_SETUP 64u
#define EX_MAX_PAGES 8u
#define EX_MAX_DEPTH 400u
#define EX_STATE_TEXT 1000u
#define EX_LABELS_TEXT 1200u

struct ex_item {
    int task; /* -1: it is performed; else the task that it is */
    struct sc_call call;
};

struct ex_recipe {
    char name[64];
    struct sc_world_config world;
    unsigned nr_items, nr_tasks;
    struct ex_item item[EX_MAX_SETUP];
    char task[EX_MAX_TASKS][24];
    uint64_t first[EX_MAX_TASKS], past[EX_MAX_TASKS]; /* the pages that a task is about */
};

/* ---- one run (explore_run.c) ------------------------------------------------------------------------------------- */

struct ex_run;

/* A world at its beginning; NULL after words in why. */
struct ex_run *ex_run_new(const struct ex_recipe *recipe, char *why, size_t size);
/* What the world leaves behind is reported. */
void ex_run_free(struct ex_run *run, sc_report_fn *report, void *ctx);
/* The tasks that could go on, one bit each; 0: the run is at its end. */
unsigned ex_run_enabled(struct ex_run *run);
/* One of these goes on.  Where it stands then ex_run_at() tells. */
void ex_run_step(struct ex_run *run, unsigned task);
/* EX_AT_START before its first step, a schedule point, EX_AT_END or EX_AT_WAIT. */
int ex_run_at(const struct ex_run *run, unsigned task);
/* What it is all about: the verdict of a task that has ended. */
const struct sc_verdict *ex_run_verdict(const struct ex_run *run, unsigned task);
/*
 * The final state in words: each verdict, the pages that the tasks are about.
 * What is wrong with it goes to report: a call that waits for ever, what the
 * audit of the machine finds.
 */
void ex_run_state(struct ex_run *run, char *text, size_t size, sc_report_fn *report, void *ctx);
/* A mistake of the script, which ends the exploration: NULL none. */
const char *ex_run_broken(const struct ex_run *run);

/* "start", "end", "waits" or the schedule point's label. */
const char *ex_label(int at);

/* ---- the search (explore.c) -------------------------------------------------------------------------------------- */

struct ex_options {
    int bound;              /* preemptions, -1 any number */
    bool reduce;            /* sleep sets; without a bound only */
    unsigned shard, shards; /* 1 of 1: everything */
    uint64_t max_schedules; /* 0 any number */
    FILE *progress;         /* NULL: nothing is told on the way */
};

struct ex_state {
    char text[EX_STATE_TEXT], violation[320];
    char word[EX_MAX_TASKS][48];
    uint64_t schedules;
};

struct ex_result {
    uint64_t schedules, pruned, steps, failing;
    double seconds;
    size_t nr_states;
    struct ex_state *states; /* in the order of their texts */
    /* Of a failure: the fewest preemptions, then the fewest labels; "" none. */
    char labels[EX_LABELS_TEXT], violation[320];
    unsigned nr_labels;
    char broken[320]; /* the exploration came to nothing */
};

/* Asked once for each new final state: words in why when it is wrong. */
typedef void ex_judge_fn(void *ctx, const struct ex_state *state, char *why, size_t size);

void ex_explore(const struct ex_recipe *recipe, const struct ex_options *options, ex_judge_fn *judge, void *ctx,
                struct ex_result *result);
void ex_result_free(struct ex_result *result);

/* Told of each step of a replay. */
typedef void ex_step_fn(void *ctx, const struct ex_run *run, unsigned task);
/* Runs the schedule of these labels; one that does not fit is `broken` in the result. */
void ex_replay(const struct ex_recipe *recipe, const char *labels, ex_step_fn *step, ex_judge_fn *judge, void *ctx,
               struct ex_result *result);

/* ---- what a step touches (explore_footprint.c) ------------------------------------------------------------------- */

/* A step: from where a task stood to where it came; places in the table of schedule points, or one of these. */
#define EX_AT_START (-1)
#define EX_AT_END (-2)
#define EX_AT_WAIT (-3)
struct ex_step {
    unsigned task;
    int from, to;
};
/* Whether the steps can change places and nobody notices. */
bool ex_independent(const struct ex_recipe *recipe, struct ex_step a, struct ex_step b);

#endif
