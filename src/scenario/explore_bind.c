/* SPDX-License-Identifier: BSD-2-Clause */
/* explore { } of a script: records its world and its calls, has them explored, and tells what came of it. */
#include "src/scenario/bind.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define PREEMPTIONS 2

struct exploration {
    struct ex_recipe recipe;
    struct ex_result result;
};

/* Lua's errors jump: what explore{} has is freed when its userdata is. */
static int collect(lua_State *L)
{
    struct exploration *e = lua_touserdata(L, 1);
    ex_result_free(&e->result);
    return 0;
}

static struct exploration *push_exploration(lua_State *L)
{
    struct exploration *e = lua_newuserdatauv(L, sizeof(*e), 0);
    memset(e, 0, sizeof(*e));
    lua_newtable(L);
    lua_pushcfunction(L, collect);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    return e;
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static void check_options(lua_State *L)
{
    static const char *const names[] = {"name", "setup", "ends", "violates"};

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        bool known = false;
        for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            known |= lua_type(L, -2) == LUA_TSTRING && !strcmp(lua_tostring(L, -2), names[i]);
        if (!known)
            luaL_error(L, "explore { %s }: there is no such option", luaL_tolstring(L, -2, NULL));
        lua_pop(L, 1);
    }
    if (lua_getfield(L, 1, "name") != LUA_TSTRING)
        luaL_error(L, "explore { name }: a text is wanted");
    if (lua_getfield(L, 1, "setup") != LUA_TFUNCTION)
        luaL_error(L, "explore { setup }: a function that makes a world and returns { NAME = actor:start(...), ... }");
    lua_settop(L, 1);
}

int bind_record(lua_State *L, const struct sc_call *call)
{
    struct ex_recipe *r = bind_play(L)->recording;

    if (!r)
        return -1;
    if (r->nr_items == EX_MAX_SETUP)
        luaL_error(L, "setup of an explore: more than %d calls", (int)EX_MAX_SETUP);
    r->item[r->nr_items] = (struct ex_item){.task = -1, .call = *call};
    return (int)r->nr_items++;
}

/* The call on the top of the stack: its number, -1 when it is none that was recorded. */
static int recorded(lua_State *L)
{
    const struct bind_op *op = luaL_testudata(L, -1, BIND_OP);
    return op ? op->recorded : -1;
}

static bool is_name(const char *s)
{
    size_t len = strlen(s);
    if (!len || len >= sizeof(((struct ex_recipe *)NULL)->task[0]))
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '_' && *s != '-')
            return false;
    return true;
}

/* The pages that a call names; one that names none is about all. */
static void find_pages(struct ex_recipe *r, unsigned task, const struct sc_call *call)
{
    struct sc_param params[SC_ARGS];
    unsigned nr = sc_params((enum sc_verb)call->verb, params);
    uint64_t count = 1;
    bool found = false;

    for (unsigned i = 0; i < nr; i++) {
        if (!strcmp(params[i].name, "nr"))
            count = (uint64_t)call->arg[i].n;
        if (strcmp(params[i].name, "page") && strcmp(params[i].name, "gfn"))
            continue;
        r->first[task] = (uint64_t)call->arg[i].n;
        found = true;
    }
    r->past[task] = r->first[task] + count;
    if (!found) {
        r->first[task] = 0;
        r->past[task] = r->world.pages;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* { NAME = call, ... } on the top of the stack. */
static void read_tasks(lua_State *L, struct ex_recipe *r)
{
    if (!lua_istable(L, -1) || !r->world.pages)
        luaL_error(L, "explore { setup }: it makes a world and returns { NAME = actor:start(...), ... }");
    int table = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, table)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        if (r->nr_tasks == EX_MAX_TASKS)
            luaL_error(L, "explore { setup }: more than %d tasks", (int)EX_MAX_TASKS);
        if (!is_name(name) || recorded(L) < 0)
            luaL_error(L,
                       "explore { setup }: \"%s\" is a call that actor:start() gave in setup, by a name of at most 23 "
                       "letters, digits, - and _",
                       name);
        snprintf(r->task[r->nr_tasks++], sizeof(r->task[0]), "%s", name);
        lua_pop(L, 1);
    }
    qsort(r->task, r->nr_tasks, sizeof(r->task[0]), by_name);
    for (unsigned i = 0; i < r->nr_tasks; i++) {
        lua_getfield(L, table, r->task[i]);
        struct ex_item *item = &r->item[recorded(L)];
        if (item->task >= 0)
            luaL_error(L, "explore { setup }: %s and %s are the same call", r->task[item->task], r->task[i]);
        item->task = (int)i;
        find_pages(r, i, &item->call);
        lua_pop(L, 1);
    }
    if (r->nr_tasks < 2)
        luaL_error(L, "explore { setup }: two tasks at least");
}

static void record(lua_State *L, struct ex_recipe *r)
{
    struct sc_play *play = bind_play(L);

    lua_getfield(L, 1, "name");
    snprintf(r->name, sizeof(r->name), "%s", lua_tostring(L, -1));
    lua_getfield(L, 1, "setup");
    play->recording = r;
    int rc = lua_pcall(L, 0, 1, 0);
    play->recording = NULL;
    if (rc)
        lua_error(L);
    read_tasks(L, r);
    lua_settop(L, 2);
}

/* ---- judging ----------------------------------------------------------------------------------------------------- */

static void push_end(lua_State *L, const struct ex_recipe *r, const struct ex_state *state)
{
    lua_createtable(L, 0, (int)r->nr_tasks + 1);
    for (unsigned i = 0; i < r->nr_tasks; i++) {
        lua_pushstring(L, state->word[i]);
        lua_setfield(L, -2, r->task[i]);
    }
    lua_pushstring(L, state->text);
    lua_setfield(L, -2, "state");
}

/* ends(e) of the script, whose errors are violations. */
static void judge(void *ctx, const struct ex_state *state, char *why, size_t size)
{
    lua_State *L = ctx;
    const struct exploration *e = lua_touserdata(L, 2);

    bind_play(L)->nr_checks++;
    if (lua_getfield(L, 1, "ends") == LUA_TFUNCTION) {
        push_end(L, &e->recipe, state);
        if (lua_pcall(L, 1, 0, 0))
            snprintf(why, size, "%s", luaL_tolstring(L, -1, NULL));
    }
    lua_settop(L, 2);
}

/* ---- telling ----------------------------------------------------------------------------------------------------- */

static void say(lua_State *L)
{
    struct sc_play *play = bind_play(L);
    play->out->ops->say(play->out, lua_tostring(L, -1));
    lua_pop(L, 1);
}

static void on_step(void *ctx, const struct ex_run *run, unsigned task)
{
    lua_State *L = ctx;
    const struct exploration *e = lua_touserdata(L, 2);
    const struct sc_call *call = NULL;
    char words[300], result[700];
    int at = ex_run_at(run, task);

    for (unsigned i = 0; i < e->recipe.nr_items; i++)
        if (e->recipe.item[i].task == (int)task)
            call = &e->recipe.item[i].call;
    if (!call)
        return;
    sc_narrate_call(call, words, sizeof(words));
    if (at == EX_AT_END)
        sc_narrate_verdict(call, ex_run_verdict(run, task), result, sizeof(result));
    else
        snprintf(result, sizeof(result), at == EX_AT_WAIT ? "%s" : "stopped at %s", ex_label(at));
    bind_tell(L, e->recipe.task[task], call, at == EX_AT_END ? ex_run_verdict(run, task) : NULL, words, result);
}

static void tell(lua_State *L, const struct exploration *e, const struct ex_options *o)
{
    const struct ex_result *r = &e->result;
    const struct sc_play *play = bind_play(L);
    char bound[40] = "any number of preemptions";

    if (o->bound >= 0)
        snprintf(bound, sizeof(bound), "at most %d preemptions", o->bound);
    lua_pushfstring(L, "%s, %s: %I schedules, %I left out as the same, %d final states, %I schedules violate.",
                    e->recipe.name, bound, (LUAI_UACINT)r->schedules, (LUAI_UACINT)r->pruned, (int)r->nr_states,
                    (LUAI_UACINT)r->failing);
    say(L);
    for (size_t i = 0; i < r->nr_states; i++) {
        lua_pushfstring(L, "  %I times: %s", (LUAI_UACINT)r->states[i].schedules, r->states[i].text);
        say(L);
    }
    if (play->exploring.figures)
        fprintf(play->exploring.figures,
                "%s %s %s, %s: %llu schedules, %llu left out, %llu steps, %.3f s, %.0f a second\n", play->about.id,
                play->setting.policy, e->recipe.name, bound, (unsigned long long)r->schedules,
                (unsigned long long)r->pruned, (unsigned long long)r->steps, r->seconds,
                r->seconds > 0 ? (double)(r->schedules + r->pruned) / r->seconds : 0);
    if (!r->nr_labels)
        return;
    lua_pushfstring(L, "The shortest, %d labels: --replay '%s: %s'", (int)r->nr_labels, e->recipe.name, r->labels);
    say(L);
    lua_pushfstring(L, "It ends in: %s", r->violation);
    say(L);
}

/* What the script expects of the exploration, and what it was. */
static void settle(lua_State *L, const struct exploration *e, bool all)
{
    const struct ex_result *r = &e->result;

    lua_getfield(L, 1, "violates");
    bind_pick(L, lua_gettop(L));
    const char *wanted = lua_isnil(L, -1) ? NULL : luaL_checkstring(L, -1);
    bind_play(L)->nr_checks++;
    for (size_t i = 0; i < r->nr_states; i++)
        if (*r->states[i].violation && (!wanted || !strstr(r->states[i].violation, wanted)))
            luaL_error(L, "%s: %s; the shortest schedule that violates is --replay '%s: %s'", e->recipe.name,
                       r->states[i].violation, e->recipe.name, r->labels);
    if (wanted && !r->failing && all)
        luaL_error(L, "%s: no schedule violates %s", e->recipe.name, wanted);
    lua_pop(L, 2);
}

static int push_result(lua_State *L, const struct exploration *e)
{
    const struct {
        const char *name;
        uint64_t n;
    } numbers[] = {{"schedules", e->result.schedules}, {"pruned", e->result.pruned},
                   {"steps", e->result.steps},         {"failing", e->result.failing},
                   {"states", e->result.nr_states},    {"labels", e->result.nr_labels}};

    lua_newtable(L);
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        lua_pushinteger(L, (lua_Integer)numbers[i].n);
        lua_setfield(L, -2, numbers[i].name);
    }
    lua_pushstring(L, e->result.labels);
    lua_setfield(L, -2, "schedule");
    lua_pushstring(L, e->result.violation);
    lua_setfield(L, -2, "violation");
    lua_newtable(L);
    for (size_t i = 0; i < e->result.nr_states; i++) {
        push_end(L, &e->recipe, &e->result.states[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "ends");
    return 1;
}

/* The labels, when they are for this exploration. */
static const char *replay_of(const struct sc_play *play, const char *name)
{
    const char *replay = play->exploring.replay, *colon = replay ? strstr(replay, ": ") : NULL;
    size_t len = strlen(name);

    if (!colon)
        return replay;
    return (size_t)(colon - replay) == len && !strncmp(replay, name, len) ? colon + 2 : NULL;
}

int bind_explore(lua_State *L)
{
    struct sc_play *play = bind_play(L);
    const struct sc_exploring *how = &play->exploring;
    const struct ex_options options = {.bound = how->exhaustive ? -1 : PREEMPTIONS,
                                       .reduce = !how->unreduced,
                                       .shard = how->shards ? how->shard : 1,
                                       .shards = how->shards ? how->shards : 1,
                                       .progress = how->progress};

    if (play->stage != &sc_sim_stage)
        return luaL_error(L, "explore: in simulation only; real processes stop for nobody");
    if (play->recording)
        return luaL_error(L, "explore: not within another one's setup");
    lua_settop(L, 1);
    check_options(L);
    struct exploration *e = push_exploration(L);
    record(L, &e->recipe);
    const char *replay = replay_of(play, e->recipe.name);
    if (replay)
        ex_replay(&e->recipe, replay, on_step, judge, L, &e->result);
    else if (how->replay)
        return push_result(L, e);
    else
        ex_explore(&e->recipe, &options, judge, L, &e->result);
    if (*e->result.broken)
        return luaL_error(L, "%s: %s", e->recipe.name, e->result.broken);
    tell(L, e, &options);
    settle(L, e, !replay && options.shards == 1);
    return push_result(L, e);
}
