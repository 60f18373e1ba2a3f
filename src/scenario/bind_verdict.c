/* SPDX-License-Identifier: BSD-2-Clause */
/* The names that a script has: what a verdict can be held against. */
#include "src/scenario/bind.h"

#include <string.h>

static struct bind_verdict *check_verdict(lua_State *L)
{
    struct bind_verdict *x = luaL_checkudata(L, 1, BIND_VERDICT);
    bind_play(L)->nr_checks++;
    sc_play_page(x->play, x->world, &x->call, &x->v);
    return x;
}

/* "EAGAIN" is any EAGAIN, "EAGAIN@3" that one. */
static bool word_is(const char *word, const char *wanted)
{
    size_t len = strlen(wanted);
    return !strcmp(word, wanted) || (!strchr(wanted, '@') && !strncmp(word, wanted, len) && word[len] == '@');
}

static int wrong(lua_State *L, const struct bind_verdict *x, const char *wanted, const char *got)
{
    char words[300];
    sc_narrate_call(&x->call, words, sizeof(words));
    bind_push_setting(L);
    return luaL_error(L, "%s: expected %s, got %s (%s)", words, wanted, got, lua_tostring(L, -1));
}

static int verdict_expect(lua_State *L)
{
    struct bind_verdict *x = check_verdict(L);
    char result[700];

    bind_pick(L, 2);
    if (lua_isnil(L, -1)) {
        bind_push_setting(L);
        return luaL_error(L, "expect: no verdict for %s", lua_tostring(L, -1));
    }
    const char *wanted = luaL_tolstring(L, -1, NULL);
    sc_narrate_verdict(&x->call, &x->v, result, sizeof(result));
    if (!word_is(x->v.word, wanted))
        return wrong(L, x, wanted,
                     strcmp(result, x->v.word) ? lua_pushfstring(L, "%s: %s", x->v.word, result) : result);
    lua_settop(L, 1);
    return 1;
}

static int verdict_holder(lua_State *L)
{
    struct bind_verdict *x = check_verdict(L);
    char result[700];

    bind_pick(L, 2);
    if (!lua_isnil(L, -1)) {
        const char *wanted = luaL_checkstring(L, -1);
        bool there = false;
        for (unsigned i = 0; i < x->v.nr_holders; i++)
            there |= strstr(x->v.holders[i].what, wanted) || strstr(x->v.holders[i].kind, wanted) ||
                     !strcmp(x->v.holders[i].who, wanted);
        sc_narrate_verdict(&x->call, &x->v, result, sizeof(result));
        if (!there)
            return wrong(L, x, lua_pushfstring(L, "\"%s\" among the holders", wanted), result);
    }
    lua_settop(L, 1);
    return 1;
}

static int verdict_reads(lua_State *L)
{
    struct bind_verdict *x = check_verdict(L);

    bind_pick(L, 2);
    if (!lua_isnil(L, -1)) {
        size_t length;
        const char *wanted = luaL_checklstring(L, -1, &length);
        bool zero = !length; /* "": the page begins with a 0 */
        if (x->v.nr_bytes < length + zero || memcmp(x->v.bytes, wanted, length + zero))
            return wrong(L, x, lua_pushfstring(L, "to read \"%s\"", wanted),
                         x->v.nr_bytes ? lua_pushfstring(L, "\"%s\"", x->v.bytes) : x->v.word);
    }
    lua_settop(L, 1);
    return 1;
}

static int verdict_has(lua_State *L)
{
    struct bind_verdict *x = check_verdict(L);

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        const int64_t *value = sc_field_get(&x->v, name);
        if (!value)
            return luaL_error(L, "has: %s gives no \"%s\"", sc_verbs[x->call.verb].name, name);
        bind_pick(L, lua_gettop(L));
        if (!lua_isnil(L, -1) && luaL_checkinteger(L, -1) != *value) {
            const char *wanted = lua_pushfstring(L, "%s = %I", name, (LUAI_UACINT)lua_tointeger(L, -1));
            return wrong(L, x, wanted, lua_pushfstring(L, "%I", (LUAI_UACINT)*value));
        }
        lua_pop(L, 2);
    }
    lua_settop(L, 1);
    return 1;
}

static int verdict_violates(lua_State *L)
{
    struct bind_verdict *x = check_verdict(L);

    bind_pick(L, 2);
    if (!lua_isnil(L, -1) && !sc_play_claim(bind_play(L), luaL_checkstring(L, -1)))
        return wrong(L, x, lua_pushfstring(L, "a violation of %s", lua_tostring(L, -1)), "none");
    lua_settop(L, 1);
    return 1;
}

int bind_verdict_index(lua_State *L)
{
    static const luaL_Reg methods[] = {{"expect", verdict_expect},     {"holder", verdict_holder},
                                       {"reads", verdict_reads},       {"has", verdict_has},
                                       {"violates", verdict_violates}, {NULL, NULL}};
    const struct bind_verdict *x = luaL_checkudata(L, 1, BIND_VERDICT);
    const char *key = luaL_checkstring(L, 2);
    const int64_t *field = sc_field_get(&x->v, key);

    for (const luaL_Reg *m = methods; m->name; m++) {
        if (strcmp(m->name, key))
            continue;
        lua_pushcfunction(L, m->func);
        return 1;
    }
    if (field)
        lua_pushinteger(L, *field);
    else if (!strcmp(key, "word"))
        lua_pushstring(L, x->v.word);
    else if (!strcmp(key, "value"))
        lua_pushinteger(L, x->v.value);
    else if (!strcmp(key, "rc"))
        lua_pushinteger(L, x->v.rc);
    else if (!strcmp(key, "bytes"))
        lua_pushlstring(L, x->v.bytes, x->v.nr_bytes);
    else if (!strcmp(key, "detail"))
        lua_pushstring(L, x->v.detail);
    else
        return luaL_error(L, "a verdict of %s has no \"%s\"", sc_verbs[x->call.verb].name, key);
    return 1;
}
