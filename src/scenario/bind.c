/* SPDX-License-Identifier: BSD-2-Clause */
/* The names that a script has: worlds, actors, verbs, verdicts, calls that are under way. */
#include "src/scenario/play.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "src/machine/points.h"

struct actor {
    struct sc_play *play;
    unsigned world;
    enum sc_actor class;
    int32_t number;
    char name[32];
};

struct verdict {
    struct sc_play *play;
    unsigned world;
    struct sc_call call;
    struct sc_verdict v;
};

struct op {
    struct sc_play *play;
    unsigned world;
    char actor[32];
    struct sc_call call;
    struct sc_op *op;
};

#define ACTOR "fakehyp.actor"
#define VERDICT "fakehyp.verdict"
#define OP "fakehyp.call"

static struct sc_play *play_of(lua_State *L)
{
    return *(struct sc_play **)lua_getextraspace(L);
}

/* The line of the script that called. */
static int line_of(lua_State *L)
{
    lua_Debug debug;
    if (!lua_getstack(L, 1, &debug) || !lua_getinfo(L, "l", &debug))
        return 0;
    return debug.currentline;
}

static void *world_of(lua_State *L, unsigned world)
{
    struct sc_play *play = play_of(L);
    if (!play->worlds[world])
        luaL_error(L, "the world is closed");
    return play->worlds[world];
}

/* ---- what depends on the setting -------------------------------------------------------------------------------- */

/*
 * Pushes the value at idx, or, where that is a table, its entry for the
 * policy, the tracker, the hypervisor or the stage of this play, in this
 * order, or "_" for all others.  Nil: the table has none.
 */
static void pick(lua_State *L, int idx)
{
    const struct sc_play *play = play_of(L);
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

static void push_setting(lua_State *L)
{
    const struct sc_play *play = play_of(L);
    lua_pushfstring(L, "policy %s, tracker %s, hyp %s, stage %s", play->setting.policy, play->setting.tracker,
                    play->setting.hyp, play->stage->name);
}

/* ---- actors and arguments --------------------------------------------------------------------------------------- */

static struct actor *push_actor(lua_State *L, unsigned world, enum sc_actor class, int number, const char *name)
{
    struct actor *a = lua_newuserdatauv(L, sizeof(*a), 0);
    *a = (struct actor){.play = play_of(L), .world = world, .class = class, .number = number};
    snprintf(a->name, sizeof(a->name), "%s", name);
    luaL_setmetatable(L, ACTOR);
    return a;
}

static int argument_error(lua_State *L, const struct sc_call *call, const struct sc_param *p, const char *want,
                          int index)
{
    const struct sc_verb_info *verb = &sc_verbs[call->verb];
    return luaL_error(L, "%s:%s(%s): %s is %s, not %s", sc_actor_names[verb->actor], verb->name, verb->signature,
                      p->name, want, index ? luaL_typename(L, index) : "nothing");
}

static int64_t handle_at(lua_State *L, const struct sc_call *call, const struct sc_param *p, int index)
{
    const struct verdict *x = luaL_testudata(L, index, VERDICT);
    if (lua_isinteger(L, index))
        return lua_tointeger(L, index);
    if (!x) {
        argument_error(L, call, p, "the verdict that made it", index);
        return 0;
    }
    if (!x->v.value)
        luaL_error(L, "%s: the verdict was \"%s\": it has made nothing", p->name, x->v.word);
    return x->v.value;
}

static void read_argument(lua_State *L, const struct actor *self, struct sc_call *call, const struct sc_param *p,
                          unsigned i, int index)
{
    const struct actor *other;
    const char *text;
    int is_number;

    switch (p->type) {
    case SC_TYPE_TEXT:
        if (lua_type(L, index) != LUA_TSTRING)
            argument_error(L, call, p, "a text", index);
        text = lua_tostring(L, index);
        if (strlen(text) >= SC_TEXT || strlen(text) != lua_rawlen(L, index))
            luaL_error(L, "%s: a text of at most %d bytes, none of them 0", p->name, SC_TEXT - 1);
        snprintf(call->arg[i].text, SC_TEXT, "%s", text);
        break;
    case SC_TYPE_HANDLE:
        call->arg[i].n = handle_at(L, call, p, index);
        break;
    case SC_TYPE_ACTOR:
        other = luaL_testudata(L, index, ACTOR);
        if (!other || other->class != p->actor || other->world != self->world)
            argument_error(L, call, p, lua_pushfstring(L, "a %s of this world", sc_actor_names[p->actor]), index);
        else
            call->arg[i].n = other->number;
        break;
    case SC_TYPE_INT:
    case SC_TYPE_ATTR:
        if (lua_isboolean(L, index)) {
            call->arg[i].n = lua_toboolean(L, index);
            break;
        }
        call->arg[i].n = lua_tointegerx(L, index, &is_number);
        if (!is_number || lua_type(L, index) != LUA_TNUMBER)
            argument_error(L, call, p, p->type == SC_TYPE_ATTR ? "SHARED or PRIVATE" : "an integer", index);
        break;
    }
}

/* Arguments from `first` on. */
static void read_call(lua_State *L, const struct actor *self, int verb, int first, struct sc_call *call)
{
    struct sc_param params[SC_ARGS];
    unsigned nr = sc_params((enum sc_verb)verb, params);
    int top = lua_gettop(L);

    memset(call, 0, sizeof(*call));
    call->verb = (uint32_t)verb;
    call->self = self->number;
    if (top - first + 1 > (int)nr)
        luaL_error(L, "%s:%s(%s): %d arguments are too many", sc_actor_names[self->class], sc_verbs[verb].name,
                   sc_verbs[verb].signature, top - first + 1);
    for (unsigned i = 0; i < nr; i++) {
        int index = first + (int)i;
        if (index <= top && !lua_isnil(L, index)) {
            read_argument(L, self, call, &params[i], i, index);
        } else if (!params[i].has_default) {
            argument_error(L, call, &params[i], "wanted", 0);
        } else {
            call->arg[i].n = strtoll(params[i].value, NULL, 0);
            snprintf(call->arg[i].text, SC_TEXT, "%s", params[i].type == SC_TYPE_TEXT ? params[i].value : "");
        }
    }
}

/* ---- performing ------------------------------------------------------------------------------------------------- */

static void error_at(lua_State *L, int line, const char *text)
{
    lua_pushfstring(L, "%s:%d: %s", play_of(L)->file, line, text);
    lua_error(L);
}

/* Before a step: what the one before it has broken is claimed by now, or the scenario fails there. */
static void settle_claims(lua_State *L)
{
    struct sc_play *play = play_of(L);
    const struct sc_violation *x = sc_play_unclaimed(play);
    if (x)
        error_at(L, play->violation_line, lua_pushfstring(L, "nobody claims this violation: %s", x->text));
}

static struct verdict *push_verdict(lua_State *L, unsigned world, const struct sc_call *call)
{
    struct verdict *x = lua_newuserdatauv(L, sizeof(*x), 0);
    memset(x, 0, sizeof(*x));
    x->play = play_of(L);
    x->world = world;
    x->call = *call;
    luaL_setmetatable(L, VERDICT);
    return x;
}

static void tell(lua_State *L, const char *actor, const struct sc_call *call, const struct sc_verdict *v,
                 const char *words, const char *result)
{
    struct sc_play *play = play_of(L);
    const struct sc_step step = {
        .actor = actor, .call = call, .verdict = v, .words = words, .result = result, .line = line_of(L)};
    play->nr_steps++;
    play->line = step.line;
    play->out->ops->step(play->out, &step);
}

static void told_verdict(lua_State *L, const char *actor, unsigned world, const struct sc_call *call,
                         const struct sc_verdict *v)
{
    struct sc_play *play = play_of(L);
    char words[300], result[700];

    sc_narrate_call(call, words, sizeof(words));
    sc_narrate_verdict(call, v, result, sizeof(result));
    tell(L, actor, call, v, words, result);
    sc_play_page(play, world, call, v);
    if (*v->broken)
        luaL_error(L, "%s: %s: %s", actor, words, v->broken);
    sc_play_audit(play, world, line_of(L));
}

static int call_verb(lua_State *L)
{
    int verb = (int)lua_tointeger(L, lua_upvalueindex(1));
    const struct sc_verb_info *info = &sc_verbs[verb];
    const struct actor *a = luaL_testudata(L, 1, ACTOR);
    struct sc_play *play = play_of(L);
    struct sc_call call;

    if (!a || a->class != info->actor)
        return luaL_error(L, "%s: call it as actor:%s(%s)", info->name, info->name, info->signature);
    read_call(L, a, verb, 2, &call);
    void *world = world_of(L, a->world);
    settle_claims(L);
    struct verdict *x = push_verdict(L, a->world, &call);
    play->stage->perform(world, &call, &x->v);
    told_verdict(L, a->name, a->world, &call, &x->v);
    if (info->result == SC_VERDICT)
        return 1;
    if (x->v.rc)
        return luaL_error(L, "%s is refused: %s", info->name, x->v.word);
    push_actor(L, a->world, (enum sc_actor)info->result, (int)x->v.value,
               *call.arg[0].text ? call.arg[0].text : sc_actor_names[info->result]);
    return 1;
}

/* actor:start("verb", ...) */
static int start(lua_State *L)
{
    struct actor *a = luaL_checkudata(L, 1, ACTOR);
    const char *name = luaL_checkstring(L, 2);
    int verb = sc_verb_find(a->class, name);
    struct sc_play *play = play_of(L);
    char why[200] = "";

    if (verb < 0 || sc_verbs[verb].result != SC_VERDICT)
        return luaL_error(L, "a %s has no verb \"%s\" that can be started", sc_actor_names[a->class], name);
    struct op *op = lua_newuserdatauv(L, sizeof(*op), 0);
    *op = (struct op){.play = play, .world = a->world};
    snprintf(op->actor, sizeof(op->actor), "%s", a->name);
    luaL_setmetatable(L, OP);
    lua_insert(L, 1);
    read_call(L, a, verb, 4, &op->call);
    lua_settop(L, 1);
    op->op = play->stage->start(world_of(L, a->world), &op->call, why, sizeof(why));
    if (!op->op)
        return luaL_error(L, "%s", why);
    return 1;
}

static int list_verbs(lua_State *L, enum sc_actor class, const char *key)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (int i = 0; i < SC_NR_VERBS; i++) {
        if (sc_verbs[i].actor != class)
            continue;
        luaL_addstring(&b, sc_verbs[i].name);
        luaL_addstring(&b, " ");
    }
    luaL_pushresult(&b);
    return luaL_error(L, "a %s has no verb \"%s\": it has %s", sc_actor_names[class], key, lua_tostring(L, -1));
}

/* The actors that each world has. */
static bool push_member(lua_State *L, const struct actor *w, const char *key)
{
    static const struct {
        const char *name;
        enum sc_actor class;
    } members[] = {{"vmm", SC_PROCESS}, {"guest", SC_GUEST}, {"kern", SC_KERN},
                   {"hyp", SC_HYP},     {"file", SC_FILE},   {"vm", SC_VM}};
    for (unsigned i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (strcmp(members[i].name, key))
            continue;
        push_actor(L, w->world, members[i].class, 0, key);
        return true;
    }
    return false;
}

static void close_report(void *ctx, const char *text)
{
    char *first = ctx;
    if (!*first)
        snprintf(first, 320, "%s", text);
}

/* w:close(): the world ends here, and nothing of it may be left. */
static int close_world(lua_State *L)
{
    struct actor *a = luaL_checkudata(L, 1, ACTOR);
    struct sc_play *play = play_of(L);
    void *world = world_of(L, a->world);
    char first[320] = "";

    settle_claims(L);
    play->nr_violations = 0;
    play->worlds[a->world] = NULL;
    play->page_world = -1;
    play->stage->world_free(world, close_report, first);
    if (*first)
        return luaL_error(L, "%s", first);
    return 0;
}

/* w:vcpu(n), vm:vcpu(n): a guest's further vCPUs. */
static int push_vcpu(lua_State *L)
{
    struct actor *a = luaL_checkudata(L, 1, ACTOR);
    int n = (int)luaL_checkinteger(L, 2), vm = a->class == SC_VM ? a->number : 0;
    char name[32];

    snprintf(name, sizeof(name), vm ? "guest%d.%d" : "vcpu%.0d%d", vm, n);
    if (n < 0 || n >= SC_MAX_VCPUS)
        return luaL_error(L, "vcpu(%d): 0 to %d", n, SC_MAX_VCPUS - 1);
    push_actor(L, a->world, SC_GUEST, vm * SC_MAX_VCPUS + n, name);
    return 1;
}

static int actor_index(lua_State *L)
{
    const struct actor *a = luaL_checkudata(L, 1, ACTOR);
    const char *key = luaL_checkstring(L, 2);
    int verb = sc_verb_find(a->class, key);
    bool has_vcpus = a->class == SC_WORLD || a->class == SC_VM;

    if (verb >= 0) {
        lua_pushinteger(L, verb);
        lua_pushcclosure(L, call_verb, 1);
    } else if (!strcmp(key, "start")) {
        lua_pushcfunction(L, start);
    } else if (!strcmp(key, "name")) {
        lua_pushstring(L, a->name);
    } else if (a->class == SC_WORLD && !strcmp(key, "close")) {
        lua_pushcfunction(L, close_world);
    } else if (a->class == SC_WORLD && !strcmp(key, "view")) {
        lua_pushinteger(L, 1); /* the VMM's first */
    } else if (has_vcpus && !strcmp(key, "vcpu")) {
        lua_pushcfunction(L, push_vcpu);
    } else if (a->class != SC_WORLD || !push_member(L, a, key)) {
        return list_verbs(L, a->class, key);
    }
    return 1;
}

/* ---- worlds ----------------------------------------------------------------------------------------------------- */

static int64_t option(lua_State *L, const char *name, int64_t otherwise)
{
    int type = lua_getfield(L, 1, name), ok = 1;
    int64_t n = otherwise;

    if (type == LUA_TBOOLEAN)
        n = lua_toboolean(L, -1);
    else if (type != LUA_TNIL)
        n = lua_tointegerx(L, -1, &ok);
    if (!ok)
        luaL_error(L, "world { %s }: an integer", name);
    lua_pop(L, 1);
    return n;
}

static void check_option_names(lua_State *L)
{
    static const char *const names[] = {"pages",   "flags", "private", "order",   "vcpus", "unprotected",
                                        "unshare", "bugs",  "ask_hyp", "library", "abi",   "follow"};
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        bool known = false;
        for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            known |= lua_type(L, -2) == LUA_TSTRING && !strcmp(lua_tostring(L, -2), names[i]);
        if (!known)
            luaL_error(L, "world { %s }: there is no such option", luaL_tolstring(L, -2, NULL));
        lua_pop(L, 1);
    }
}

static void option_text(lua_State *L, const char *name, char *buf, size_t size)
{
    if (lua_getfield(L, 1, name) != LUA_TNIL)
        snprintf(buf, size, "%s", luaL_checkstring(L, -1));
    lua_pop(L, 1);
}

static int new_world(lua_State *L)
{
    struct sc_play *play = play_of(L);
    char why[320], unshare[32] = "consent";

    if (play->declaring)
        return luaL_error(L, "a world before play(): only play() acts");
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    check_option_names(L);
    option_text(L, "unshare", unshare, sizeof(unshare));
    struct sc_world_config config = {
        .setting = play->setting,
        .pages = (uint64_t)option(L, "pages", 16),
        .flags = (uint64_t)option(L, "flags", 3),
        .private_ = option(L, "private", 0),
        .unilateral = !strcmp(unshare, "unilateral"),
        .unprotected = option(L, "unprotected", 0),
        .follow = option(L, "follow", 0),
        .ask_hyp = option(L, "ask_hyp", 0),
        .library = option(L, "library", 0),
        .vcpus = (unsigned)option(L, "vcpus", 1),
        .order = (unsigned)option(L, "order", 0),
        .abi = (unsigned)option(L, "abi", 0),
    };
    char bugs[96] = "";
    option_text(L, "bugs", bugs, sizeof(bugs));
    snprintf(config.bugs, sizeof(config.bugs), "%s %s", play->setting.bugs, bugs);
    if (!config.unilateral && strcmp(unshare, "consent"))
        return luaL_error(L, "world { unshare }: \"consent\" or \"unilateral\"");
    if (config.vcpus < 1 || config.vcpus > SC_MAX_VCPUS)
        return luaL_error(L, "world { vcpus }: 1 to %d", SC_MAX_VCPUS);
    if (play->nr_worlds == SC_MAX_WORLDS)
        return luaL_error(L, "more than %d worlds", SC_MAX_WORLDS);
    settle_claims(L);
    play->line = line_of(L);
    void *world = play->stage->world_new(&config, why, sizeof(why));
    if (!world)
        return luaL_error(L, "no world: %s", why);
    play->worlds[play->nr_worlds++] = world;
    push_actor(L, play->nr_worlds - 1, SC_WORLD, 0, "world");
    sc_play_audit(play, play->nr_worlds - 1, line_of(L));
    return 1;
}

/* ---- verdicts --------------------------------------------------------------------------------------------------- */

static struct verdict *check_verdict(lua_State *L)
{
    struct verdict *x = luaL_checkudata(L, 1, VERDICT);
    play_of(L)->nr_checks++;
    sc_play_page(x->play, x->world, &x->call, &x->v);
    return x;
}

/* "EAGAIN" is any EAGAIN, "EAGAIN@3" that one. */
static bool word_is(const char *word, const char *wanted)
{
    size_t len = strlen(wanted);
    return !strcmp(word, wanted) || (!strchr(wanted, '@') && !strncmp(word, wanted, len) && word[len] == '@');
}

static int wrong(lua_State *L, const struct verdict *x, const char *wanted, const char *got)
{
    char words[300];
    sc_narrate_call(&x->call, words, sizeof(words));
    push_setting(L);
    return luaL_error(L, "%s: expected %s, got %s (%s)", words, wanted, got, lua_tostring(L, -1));
}

static int verdict_expect(lua_State *L)
{
    struct verdict *x = check_verdict(L);
    char result[700];

    pick(L, 2);
    if (lua_isnil(L, -1)) {
        push_setting(L);
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
    struct verdict *x = check_verdict(L);
    char result[700];

    pick(L, 2);
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
    struct verdict *x = check_verdict(L);

    pick(L, 2);
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
    struct verdict *x = check_verdict(L);

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        const int64_t *value = sc_field_get(&x->v, name);
        if (!value)
            return luaL_error(L, "has: %s gives no \"%s\"", sc_verbs[x->call.verb].name, name);
        pick(L, lua_gettop(L));
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
    struct verdict *x = check_verdict(L);

    pick(L, 2);
    if (!lua_isnil(L, -1) && !sc_play_claim(play_of(L), luaL_checkstring(L, -1)))
        return wrong(L, x, lua_pushfstring(L, "a violation of %s", lua_tostring(L, -1)), "none");
    lua_settop(L, 1);
    return 1;
}

static int verdict_index(lua_State *L)
{
    static const luaL_Reg methods[] = {{"expect", verdict_expect},     {"holder", verdict_holder},
                                       {"reads", verdict_reads},       {"has", verdict_has},
                                       {"violates", verdict_violates}, {NULL, NULL}};
    const struct verdict *x = luaL_checkudata(L, 1, VERDICT);
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

/* ---- calls under way -------------------------------------------------------------------------------------------- */

static void check_label(lua_State *L, const char *label)
{
    static char text[8000];
    if (sched_point_find(label) >= 0)
        return;
    sched_point_unknown(label, text, sizeof(text));
    luaL_error(L, "%s", text);
}

static enum sc_progress advance(lua_State *L, struct op *op, const char *label)
{
    char words[300], result[700];
    enum sc_progress end;

    world_of(L, op->world);
    settle_claims(L);
    end = op->play->stage->go(op->op, label);
    if (end == SC_OP_ENDED) {
        told_verdict(L, op->actor, op->world, &op->call, op->play->stage->verdict(op->op));
        return end;
    }
    const char *where = op->play->stage->where(op->op);
    sc_narrate_call(&op->call, words, sizeof(words));
    snprintf(result, sizeof(result), "%s %s", end == SC_OP_STOPPED ? "stopped at" : "waits after",
             *where ? where : "its start");
    tell(L, op->actor, &op->call, NULL, words, result);
    sc_play_page(op->play, op->world, &op->call, NULL);
    sc_play_audit(op->play, op->world, line_of(L));
    return end;
}

static int op_run_to(lua_State *L)
{
    struct op *op = luaL_checkudata(L, 1, OP);
    const char *label = luaL_checkstring(L, 2);

    check_label(L, label);
    op->play->nr_checks++;
    switch (advance(L, op, label)) {
    case SC_OP_ENDED:
        return luaL_error(L, "%s ended with %s and did not come to %s", sc_verbs[op->call.verb].name,
                          op->play->stage->verdict(op->op)->word, label);
    case SC_OP_WAITS:
        return luaL_error(L, "%s waits after %s and does not come to %s", sc_verbs[op->call.verb].name,
                          op->play->stage->where(op->op), label);
    case SC_OP_STOPPED:
        break;
    }
    lua_settop(L, 1);
    return 1;
}

/* c:run([label]) -> "ended", "waits", or "stopped" at the label */
static int op_run(lua_State *L)
{
    static const char *const words[] = {[SC_OP_ENDED] = "ended", [SC_OP_WAITS] = "waits", [SC_OP_STOPPED] = "stopped"};
    struct op *op = luaL_checkudata(L, 1, OP);
    const char *label = luaL_optstring(L, 2, NULL);

    if (label)
        check_label(L, label);
    lua_pushstring(L, words[advance(L, op, label)]);
    return 1;
}

static int op_finish(lua_State *L)
{
    struct op *op = luaL_checkudata(L, 1, OP);

    if (advance(L, op, NULL) != SC_OP_ENDED)
        return luaL_error(L, "%s waits for ever, after %s", sc_verbs[op->call.verb].name,
                          op->play->stage->where(op->op));
    push_verdict(L, op->world, &op->call)->v = *op->play->stage->verdict(op->op);
    return 1;
}

static int op_at(lua_State *L)
{
    struct op *op = luaL_checkudata(L, 1, OP);
    lua_pushstring(L, op->play->stage->where(op->op));
    return 1;
}

/* ---- the rest --------------------------------------------------------------------------------------------------- */

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
    play_of(L)->about = about;
    return 0;
}

static int say(lua_State *L)
{
    struct sc_play *play = play_of(L);
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
    play_of(L)->nr_checks++;
    if (lua_toboolean(L, 1))
        return 0;
    return luaL_error(L, "check failed: %s", luaL_optstring(L, 2, "it is false"));
}

static int equal(lua_State *L)
{
    play_of(L)->nr_checks++;
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
    static const luaL_Reg functions[] = {{"scenario", scenario}, {"world", new_world}, {"say", say}, {"print", say},
                                         {"check", check},       {"equal", equal},     {NULL, NULL}};
    static const luaL_Reg op_methods[] = {
        {"run_to", op_run_to}, {"run", op_run}, {"finish", op_finish}, {"at", op_at}, {NULL, NULL}};
    lua_State *L = play->L;

    for (const luaL_Reg *f = functions; f->name; f++)
        lua_register(L, f->name, f->func);
    add_class(L, ACTOR, NULL, actor_index);
    add_class(L, VERDICT, NULL, verdict_index);
    add_class(L, OP, op_methods, NULL);
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
