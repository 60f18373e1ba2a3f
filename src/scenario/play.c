/* SPDX-License-Identifier: BSD-2-Clause */
/* A play: the script's state and its limits, the oracle after each step, the end. */
#include "src/scenario/play.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#define LUA_BYTES_MAX (UINT64_C(64) << 20)
#define HOOK_EVERY 100000
#define HOOKS_MAX 500 /* 50 million instructions: a second or so */

/* ---- the oracle ------------------------------------------------------------------------------------------------- */

static void on_violation(void *ctx, const char *text)
{
    struct sc_play *play = ctx;
    struct sc_violation *x;

    if (play->nr_violations == SC_MAX_VIOLATIONS)
        return;
    x = &play->violation[play->nr_violations++];
    snprintf(x->text, sizeof(x->text), "%s", text);
    x->claimed = false;
}

void sc_play_audit(struct sc_play *play, unsigned world, int line)
{
    play->nr_violations = 0;
    play->violation_line = line;
    play->stage->audit(play->worlds[world], on_violation, play);
    for (unsigned i = 0; i < SC_NAMES; i++) {
        bool there = false;
        for (unsigned j = 0; *play->claims[i] && j < play->nr_violations; j++) {
            if (!strstr(play->violation[j].text, play->claims[i]))
                continue;
            play->violation[j].claimed = there = true;
        }
        /* Once it is gone it has to be claimed anew. */
        if (!there)
            play->claims[i][0] = '\0';
    }
    for (unsigned j = 0; j < play->nr_violations; j++)
        if (!play->violation[j].claimed)
            play->out->ops->violation(play->out, play->violation[j].text);
}

const struct sc_violation *sc_play_unclaimed(const struct sc_play *play)
{
    for (unsigned i = 0; i < play->nr_violations; i++)
        if (!play->violation[i].claimed)
            return &play->violation[i];
    return NULL;
}

bool sc_play_claim(struct sc_play *play, const char *name)
{
    bool there = false;

    for (unsigned i = 0; i < play->nr_violations; i++) {
        if (!strstr(play->violation[i].text, name))
            continue;
        play->violation[i].claimed = there = true;
    }
    for (unsigned i = 0; there && i < SC_NAMES; i++) {
        if (*play->claims[i] && strcmp(play->claims[i], name))
            continue;
        snprintf(play->claims[i], sizeof(play->claims[i]), "%s", name);
        break;
    }
    return there;
}

void sc_play_page(struct sc_play *play, unsigned world, const struct sc_call *call, const struct sc_verdict *verdict)
{
    struct sc_param params[SC_ARGS];
    unsigned nr = sc_params(call->verb, params);
    const char *at = verdict ? strchr(verdict->word, '@') : NULL;

    for (unsigned i = 0; i < nr; i++) {
        if (strcmp(params[i].name, "page") && strcmp(params[i].name, "gfn"))
            continue;
        play->page_world = (int)world;
        play->page_file = 0;
        play->page = (uint64_t)call->arg[i].n;
    }
    for (unsigned i = 0; i < nr; i++)
        if (params[i].type == SC_TYPE_ACTOR && params[i].actor == SC_FILE)
            play->page_file = (int)call->arg[i].n;
    if (at)
        play->page = strtoull(at + 1, NULL, 10);
}

/* ---- the script's state ----------------------------------------------------------------------------------------- */

static void *allocate(void *ctx, void *p, size_t old, size_t size)
{
    struct sc_play *play = ctx;
    size_t before = p ? old : 0;

    if (!size) {
        play->lua_bytes -= before;
        free(p);
        return NULL;
    }
    if (size > before && play->lua_bytes + (size - before) > LUA_BYTES_MAX)
        return NULL;
    void *q = realloc(p, size);
    if (q)
        play->lua_bytes += size - before;
    return q;
}

static void on_count(lua_State *L, lua_Debug *debug)
{
    struct sc_play *play = *(struct sc_play **)lua_getextraspace(L);
    (void)debug;
    if (++play->lua_steps <= HOOKS_MAX)
        return;
    luaL_where(L, 0);
    lua_pushfstring(L, "%sthe script does not end: %d instructions", lua_tostring(L, -1), HOOKS_MAX * HOOK_EVERY);
    lua_error(L);
}

/* The library as far as it is the same each time, and reaches nothing but the script. */
static const char *const allowed[] = {"assert", "error", "ipairs", "select", "tonumber", "tostring", "type", NULL};

static void open_libraries(lua_State *L)
{
    static const struct {
        const char *name;
        lua_CFunction open;
        const char *without[4];
    } libraries[] = {{"string", luaopen_string, {"dump", NULL}},
                     {"table", luaopen_table, {NULL}},
                     {"math", luaopen_math, {"random", "randomseed", NULL}},
                     {"utf8", luaopen_utf8, {NULL}}};

    luaL_requiref(L, "_G", luaopen_base, 0);
    lua_newtable(L);
    for (unsigned i = 0; allowed[i]; i++) {
        lua_getfield(L, -2, allowed[i]);
        lua_setfield(L, -2, allowed[i]);
    }
    for (unsigned i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
        luaL_requiref(L, libraries[i].name, libraries[i].open, 0);
        for (unsigned j = 0; libraries[i].without[j]; j++) {
            lua_pushnil(L);
            lua_setfield(L, -2, libraries[i].without[j]);
        }
        lua_setfield(L, -2, libraries[i].name);
    }
    /* The environment of scripts replaces the table of globals, which nobody can name any more. */
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_pop(L, 1);
}

static int setup(lua_State *L)
{
    struct sc_play *play = lua_touserdata(L, 1);
    open_libraries(L);
    sc_bind(play);
    return 0;
}

static void fail(struct sc_play *play, const char *text)
{
    play->failed = true;
    snprintf(play->failure, sizeof(play->failure), "%s", text);
}

static void fail_with_top(struct sc_play *play)
{
    const char *text = lua_tostring(play->L, -1);
    size_t len = strlen(play->file);

    if (!text)
        text = "an error that is no text";
    /* What Lua itself says of memory has no line. */
    if (!strncmp(text, play->file, len))
        fail(play, text);
    else
        fail(play, lua_pushfstring(play->L, "%s:%d: at this step or after it: %s", play->file, play->line, text));
    lua_settop(play->L, 0);
}

static bool load(struct sc_play *play)
{
    char name[80];

    play->L = lua_newstate(allocate, play);
    if (!play->L) {
        fail(play, "no memory for the script");
        return false;
    }
    *(struct sc_play **)lua_getextraspace(play->L) = play;
    lua_pushcfunction(play->L, setup);
    lua_pushlightuserdata(play->L, play);
    if (lua_pcall(play->L, 1, 0, 0)) {
        fail_with_top(play);
        return false;
    }
    FILE *f = fopen(play->path, "re");
    char *text = NULL;
    size_t length = 0;
    if (f) {
        ssize_t n = getdelim(&text, &length, '\0', f);
        length = n > 0 ? (size_t)n : 0;
        fclose(f);
    }
    if (!f || !text) {
        snprintf(play->failure, sizeof(play->failure), "%s cannot be read: %m", play->path);
        play->failed = true;
        free(text);
        return false;
    }
    snprintf(name, sizeof(name), "=%s", play->file);
    /* Text only: precompiled code is not checked by Lua. */
    bool ok = !luaL_loadbufferx(play->L, text, length, name, "t");
    free(text);
    lua_sethook(play->L, on_count, LUA_MASKCOUNT, HOOK_EVERY);
    ok = ok && !lua_pcall(play->L, 0, 0, 0);
    if (!ok)
        fail_with_top(play);
    else if (!play->about.declared) {
        snprintf(play->failure, sizeof(play->failure), "%s:1: the script does not say scenario { id = ... }",
                 play->file);
        play->failed = true;
        ok = false;
    }
    return ok;
}

/* As it is: the name may be missing, and nobody is there to catch an error. */
static bool push_play(struct sc_play *play)
{
    lua_pushglobaltable(play->L);
    lua_pushliteral(play->L, "play");
    lua_rawget(play->L, -2);
    lua_remove(play->L, -2);
    return lua_isfunction(play->L, -1);
}

static void unload(struct sc_play *play)
{
    if (play->L)
        lua_close(play->L);
    play->L = NULL;
}

bool sc_play_declare(struct sc_play *play)
{
    play->declaring = true;
    bool ok = load(play);
    if (ok && !push_play(play)) {
        snprintf(play->failure, sizeof(play->failure), "%s:1: the script has no function play()", play->file);
        play->failed = true;
        ok = false;
    }
    unload(play);
    play->declaring = false;
    return ok;
}

struct at_end {
    struct sc_play *play;
    bool report;
};

static void on_left(void *ctx, const char *text)
{
    struct at_end *end = ctx;
    struct sc_play *play = end->play;
    if (!end->report || play->failed)
        return;
    for (unsigned i = 0; i < SC_NAMES; i++)
        if (*play->claims[i] && strstr(text, play->claims[i]))
            return;
    play->out->ops->violation(play->out, text);
    snprintf(play->failure, sizeof(play->failure), "%s: at the end: %s", play->file, text);
    play->failed = true;
}

static void on_history(void *ctx, const char *text)
{
    struct sc_play *play = ctx;
    play->out->ops->history(play->out, text);
}

void sc_play_run(struct sc_play *play)
{
    play->page_world = -1;
    bool ok = load(play);
    if (ok) {
        push_play(play);
        ok = !lua_pcall(play->L, 0, 0, 0);
        if (!ok)
            fail_with_top(play);
    }
    const struct sc_violation *x = ok ? sc_play_unclaimed(play) : NULL;
    if (x) {
        snprintf(play->failure, sizeof(play->failure), "%s:%d: nobody claims this violation: %s", play->file,
                 play->violation_line, x->text);
        play->failed = true;
    }
    if (ok && !play->nr_checks && !play->failed) {
        snprintf(play->failure, sizeof(play->failure), "%s: the script has checked nothing", play->file);
        play->failed = true;
    }
    bool told = play->failed;
    if (told)
        play->out->ops->end(play->out, play, SC_END_FAILED, play->failure);
    if (told && play->page_world >= 0 && play->worlds[play->page_world])
        play->stage->history(play->worlds[play->page_world], play->page_file, play->page, on_history, play);
    struct at_end end = {play, !told};
    for (unsigned i = 0; i < play->nr_worlds; i++)
        if (play->worlds[i])
            play->stage->world_free(play->worlds[i], on_left, &end);
    if (!told)
        play->out->ops->end(play->out, play, play->failed ? SC_END_FAILED : SC_END_PASSED, play->failure);
    unload(play);
}
