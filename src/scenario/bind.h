/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files that bind names for scripts share.  Functions of these raise Lua errors, which do not return. */
#ifndef SRC_SCENARIO_BIND_H
#define SRC_SCENARIO_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "src/scenario/play.h"

/* The userdata of a script's values. */
struct bind_actor {
    struct sc_play *play;
    unsigned world;
    enum sc_actor class;
    int32_t number;
    char name[32];
};

struct bind_verdict {
    struct sc_play *play;
    unsigned world;
    struct sc_call call;
    struct sc_verdict v;
};

struct bind_op {
    struct sc_play *play;
    unsigned world;
    char actor[32];
    struct sc_call call;
    struct sc_op *op;
    int recorded; /* its number in the recipe of an explore{}, -1 none */
};

#define BIND_ACTOR "fakehyp.actor"
#define BIND_VERDICT "fakehyp.verdict"
#define BIND_OP "fakehyp.call"

/* ---- bind.c ---- */
struct sc_play *bind_play(lua_State *L);
/* The line of the script that called. */
int bind_line(lua_State *L);
/* The stage's world of that number; an error when it is closed. */
void *bind_world(lua_State *L, unsigned world);
/*
 * Pushes the value at idx, or, where that is a table, its entry for the
 * policy, the tracker, the hypervisor or the stage of this play, in this
 * order, or "_" for all others.  Nil: the table has none.
 */
void bind_pick(lua_State *L, int idx);
/* Pushes the setting of this play in words. */
void bind_push_setting(lua_State *L);

/* ---- bind_actor.c ---- */
int bind_actor_index(lua_State *L);
int bind_new_world(lua_State *L);
/* An error at a line of the script that is not the one that runs. */
void bind_error_at(lua_State *L, int line, const char *text);
/* Before the next step: whatever the last one broke must have been claimed. */
void bind_settle_claims(lua_State *L);
struct bind_verdict *bind_push_verdict(lua_State *L, unsigned world, const struct sc_call *call);
/* Narrates a step; of one that has ended, with its verdict, and audits the world. */
void bind_tell(lua_State *L, const char *actor, const struct sc_call *call, const struct sc_verdict *v,
               const char *words, const char *result);
void bind_told_verdict(lua_State *L, const char *actor, unsigned world, const struct sc_call *call,
                       const struct sc_verdict *v);

/* explore { }; explore_bind.c. */
int bind_explore(lua_State *L);
/* While the setup of an explore{} is recorded: the call's number there; else -1. */
int bind_record(lua_State *L, const struct sc_call *call);

/* ---- bind_verdict.c, bind_op.c ---- */
int bind_verdict_index(lua_State *L);
extern const luaL_Reg bind_op_methods[];

#endif
