/* SPDX-License-Identifier: BSD-2-Clause */
/* The names that a script has: what is global, and what all of them use. */
#include "src/scenario/bind.h"

#include <stdio.h>
#include <string.h>

#include <lualib.h>

struct sc_play *bind_play(lua_State *L)
{
    return *(struct sc_play **)lua_getextraspace(L);
}

int bind_line(lua_State *L)
{
    lua_Debug debug;
    if (!lua_getstack(L, 1, &debug) || !lua_getinfo(L, "l", &debug))
        return 0;
    return debug.currentline;
}

void *bind_world(lua_State *L, unsigned world)
{
    struct sc_play *play = bind_play(L);
    if (!play->worlds[world])
        luaL_error(L, "the world is closed");
    return play->worlds[world];
}

void bind_pick(lua_State *L, int idx)
{
    const struct sc_play *play = bind_play(L);
    const char *const keys[] = {play->setting.policy, play->setting.tracker, play->setting.hyp, play->stage->name, "_"};

    if (!lua_istable(L, idx)) {
        lua_pushvalue(L, idx);
        return;
    }
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (lua_getfield(L, idx, keys[i]) != LUA_TNIL)
            return;
        lua_pop(L, 1);
    }
    lua_pushnil(L);
}

void bind_push_setting(lua_State *L)
{
    const struct sc_play *play = bind_play(L);
    lua_pushfstring(L, "policy %s, tracker %s, hyp %s, stage %s", play->setting.policy, play->setting.tracker,
                    play->setting.hyp, play->stage->name);
}

/* ---- what is global --------------------------------------------------------------------------------------------- */

static void about_text(lua_State *L, const char *name, bool wanted, char *buf, size_t size)
{
    if (lua_getfield(L, 1, name) == LUA_TSTRING)
        snprintf(buf, size, "%s", lua_tostring(L, -1));
    else if (wanted || !lua_isnil(L, -1))
        luaL_error(L, "scenario { %s }: a text is wanted", name);
    lua_pop(L, 1);
}

static int scenario(lua_State *L)
{
    struct sc_about about = {.declared = true, .policies = "D", .trackers = "inode", .hyps = "pkvm"};

    luaL_checktype(L, 1, LUA_TTABLE);
    about_text(L, "id", true, about.id, sizeof(about.id));
    about_text(L, "title", true, about.title, sizeof(about.title));
    about_text(L, "source", true, about.source, sizeof(about.source));
    about_text(L, "policies", false, about.policies, sizeof(about.policies));
    about_text(L, "trackers", false, about.trackers, sizeof(about.trackers));
    about_text(L, "hyps", false, about.hyps, sizeof(about.hyps));
    lua_getfield(L, 1, "live");
    about.live = lua_isboolean(L, -1) && lua_toboolean(L, -1);
    if (!about.live) {
        if (lua_type(L, -1) != LUA_TSTRING)
            return luaL_error(L, "scenario { live }: true, or the reason why it has no live form");
        snprintf(about.not_live, sizeof(about.not_live), "%s", lua_tostring(L, -1));
    }
    bind_play(L)->about = about;
    return 0;
}

static int say(lua_State *L)
{
    struct sc_play *play = bind_play(L);
    luaL_Buffer b;
    int nr = lua_gettop(L);

    luaL_buffinit(L, &b);
    for (int i = 1; i <= nr; i++) {
        if (i > 1)
            luaL_addchar(&b, ' ');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    play->out->ops->say(play->out, lua_tostring(L, -1));
    return 0;
}

static int check(lua_State *L)
{
    bind_play(L)->nr_checks++;
    if (lua_toboolean(L, 1))
        return 0;
    return luaL_error(L, "check failed: %s", luaL_optstring(L, 2, "it is false"));
}

static int equal(lua_State *L)
{
    bind_play(L)->nr_checks++;
    if (lua_compare(L, 1, 2, LUA_OPEQ))
        return 0;
    return luaL_error(L, "%s: %s, expected %s", luaL_optstring(L, 3, "not equal"), luaL_tolstring(L, 1, NULL),
                      luaL_tolstring(L, 2, NULL));
}

/* pairs() in the order of its keys: numbers, then texts. */
static const char sorted_pairs[] = "local next, sort, type = ...\n"
                                   "return function(t)\n"
                                   "  local keys, n = {}, 0\n"
                                   "  for k in next, t do n = n + 1; keys[n] = k end\n"
                                   "  sort(keys, function(a, b)\n"
                                   "    local x, y = type(a), type(b)\n"
                                   "    if x ~= y then return x < y end\n"
                                   "    return a < b\n"
                                   "  end)\n"
                                   "  local i = 0\n"
                                   "  return function()\n"
                                   "    i = i + 1\n"
                                   "    if keys[i] ~= nil then return keys[i], t[keys[i]] end\n"
                                   "  end\n"
                                   "end\n";

static int next_(lua_State *L)
{
    lua_settop(L, 2);
    if (lua_next(L, 1))
        return 2;
    lua_pushnil(L);
    return 1;
}

static void add_pairs(lua_State *L)
{
    if (luaL_loadbuffer(L, sorted_pairs, sizeof(sorted_pairs) - 1, "=pairs"))
        lua_error(L);
    lua_pushcfunction(L, next_);
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "sort");
    lua_remove(L, -2);
    lua_getglobal(L, "type");
    lua_call(L, 3, 1);
    lua_setglobal(L, "pairs");
}

static int unknown_global(lua_State *L)
{
    return luaL_error(L, "unknown name \"%s\"", luaL_tolstring(L, 2, NULL));
}

static void add_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction index)
{
    luaL_newmetatable(L, name);
    if (index) {
        lua_pushcfunction(L, index);
    } else {
        lua_newtable(L);
        luaL_setfuncs(L, methods, 0);
    }
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

static void set_text(lua_State *L, const char *name, const char *value)
{
    lua_pushstring(L, value);
    lua_setglobal(L, name);
}

static void set_number(lua_State *L, const char *name, int64_t value)
{
    lua_pushinteger(L, value);
    lua_setglobal(L, name);
}

void sc_bind(struct sc_play *play)
{
    static const luaL_Reg functions[] = {
        {"scenario", scenario}, {"world", bind_new_world}, {"say", say}, {"print", say}, {"check", check},
        {"equal", equal},       {"explore", bind_explore}, {NULL, NULL}};
    lua_State *L = play->L;

    for (const luaL_Reg *f = functions; f->name; f++)
        lua_register(L, f->name, f->func);
    add_class(L, BIND_ACTOR, NULL, bind_actor_index);
    add_class(L, BIND_VERDICT, NULL, bind_verdict_index);
    add_class(L, BIND_OP, bind_op_methods, NULL);
    add_pairs(L);
    set_text(L, "policy", play->setting.policy);
    set_text(L, "tracker", play->setting.tracker);
    set_text(L, "hyp", play->setting.hyp);
    set_text(L, "stage", play->stage->name);
    set_number(L, "repeats", (int64_t)play->repeats);
    set_number(L, "SHARED", SC_ATTR_SHARED);
    set_number(L, "PRIVATE", SC_ATTR_PRIVATE);
    set_number(L, "MMAP", 1);
    set_number(L, "INIT_SHARED", 2);
    /* A misspelt name is an error, not nil. */
    lua_pushglobaltable(L);
    lua_newtable(L);
    lua_pushcfunction(L, unknown_global);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}
