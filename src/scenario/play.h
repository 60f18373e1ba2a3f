/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One play of a scenario: a script, a stage, a setting; what it did, and how
 * it ended.  Lua runs on the runner's stack only; a verb is performed by the
 * stage and has ended, or stands at a point, when Lua goes on.
 */
#ifndef SRC_SCENARIO_PLAY_H
#define SRC_SCENARIO_PLAY_H

#include "src/scenario/explore.h"
#include "src/scenario/output.h"
#include "src/scenario/scenario.h"
#include "src/scenario/stage.h"

struct lua_State;

#define SC_MAX_WORLDS 1024
#define SC_MAX_VIOLATIONS 16
#define SC_NAMES 8

/* What a script says of itself: scenario { ... }. */
struct sc_about {
    bool declared;
    char id[16], title[120], source[200];
    char policies[32], trackers[64], hyps[96];
    bool live;
    char not_live[200]; /* why not */
};

struct sc_violation {
    char text[320];
    bool claimed;
};

struct sc_play {
    const char *path, *file; /* file: as the script's lines are named */
    const struct sc_stage *stage;
    struct sc_setting setting;
    struct sc_output *out;
    struct sc_about about;
    unsigned long repeats;
    FILE *trace; /* struct sc_options */
    struct sc_exploring exploring;
    struct ex_recipe *recording; /* while setup() of an explore{} runs */
    bool declaring;              /* the script is only asked what it is */

    struct lua_State *L;
    size_t lua_bytes;
    uint64_t lua_steps; /* instructions so far, in units of the hook's count */
    void *worlds[SC_MAX_WORLDS];
    unsigned nr_worlds;

    unsigned nr_steps, nr_checks;
    int line; /* of the last step */
    /* What the audit found after the last step, and which names the script has claimed. */
    unsigned nr_violations;
    struct sc_violation violation[SC_MAX_VIOLATIONS];
    int violation_line;
    char claims[SC_NAMES][48];

    /* The page whose history explains a failure; world -1: none. */
    int page_world, page_file;
    uint64_t page;
    bool failed;
    char failure[1200];
};

/* Reads what the script declares: false with play->failure. */
bool sc_play_declare(struct sc_play *play);
/* Plays it; play->failed tells. */
void sc_play_run(struct sc_play *play);

/* ---- for the bindings ------------------------------------------------------------------------------------------- */

/* After a step of a world: audits it, and reports what it finds to the output. */
void sc_play_audit(struct sc_play *play, unsigned world, int line);
/* The first violation that nobody claimed, or NULL. */
const struct sc_violation *sc_play_unclaimed(const struct sc_play *play);
/* Claims those with this name: false when there is none. */
bool sc_play_claim(struct sc_play *play, const char *name);
/* Remembers the page that a call is about. */
void sc_play_page(struct sc_play *play, unsigned world, const struct sc_call *call, const struct sc_verdict *verdict);

/* Opens the names that a script has; bind.c. */
void sc_bind(struct sc_play *play);

#endif
