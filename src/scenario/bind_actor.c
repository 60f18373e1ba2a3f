/* SPDX-License-Identifier: BSD-2-Clause */
/* The names that a script has: worlds, their actors, and the verbs of these. */
#include "src/scenario/bind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- actors and arguments --------------------------------------------------------------------------------------- */

static struct bind_actor *push_actor(lua_State *L, unsigned world, enum sc_actor class, int number, const char *name)
{
    struct bind_actor *a = lua_newuserdatauv(L, sizeof(*a), 0);
    *a = (struct bind_actor){.play = bind_play(L), .world = world, .class = class, .number = number};
    snprintf(a->name, sizeof(a->name), "%s", name);
    luaL_setmetatable(L, BIND_ACTOR);
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
    const struct bind_verdict *x = luaL_testudata(L, index, BIND_VERDICT);
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

static void read_argument(lua_State *L, const struct bind_actor *self, struct sc_call *call, const struct sc_param *p,
                          unsigned i, int index)
{
    const struct bind_actor *other;
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
        other = luaL_testudata(L, index, BIND_ACTOR);
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
static void read_call(lua_State *L, const struct bind_actor *self, int verb, int first, struct sc_call *call)
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

void bind_error_at(lua_State *L, int line, const char *text)
{
    lua_pushfstring(L, "%s:%d: %s", bind_play(L)->file, line, text);
    lua_error(L);
}

/* Before a step: what the one before it has broken is claimed by now, or the scenario fails there. */
void bind_settle_claims(lua_State *L)
{
    struct sc_play *play = bind_play(L);
    const struct sc_violation *x = sc_play_unclaimed(play);
    if (x)
        bind_error_at(L, play->violation_line, lua_pushfstring(L, "nobody claims this violation: %s", x->text));
}

struct bind_verdict *bind_push_verdict(lua_State *L, unsigned world, const struct sc_call *call)
{
    struct bind_verdict *x = lua_newuserdatauv(L, sizeof(*x), 0);
    memset(x, 0, sizeof(*x));
    x->play = bind_play(L);
    x->world = world;
    x->call = *call;
    luaL_setmetatable(L, BIND_VERDICT);
    return x;
}

void bind_tell(lua_State *L, const char *actor, const struct sc_call *call, const struct sc_verdict *v,
               const char *words, const char *result)
{
    struct sc_play *play = bind_play(L);
    const struct sc_step step = {
        .actor = actor, .call = call, .verdict = v, .words = words, .result = result, .line = bind_line(L)};
    play->nr_steps++;
    play->line = step.line;
    play->out->ops->step(play->out, &step);
}

void bind_told_verdict(lua_State *L, const char *actor, unsigned world, const struct sc_call *call,
                       const struct sc_verdict *v)
{
    struct sc_play *play = bind_play(L);
    char words[300], result[700];

    sc_narrate_call(call, words, sizeof(words));
    sc_narrate_verdict(call, v, result, sizeof(result));
    bind_tell(L, actor, call, v, words, result);
    sc_play_page(play, world, call, v);
    if (*v->broken)
        luaL_error(L, "%s: %s: %s", actor, words, v->broken);
    sc_play_audit(play, world, bind_line(L));
}

static int call_verb(lua_State *L)
{
    int verb = (int)lua_tointeger(L, lua_upvalueindex(1));
    const struct sc_verb_info *info = &sc_verbs[verb];
    const struct bind_actor *a = luaL_testudata(L, 1, BIND_ACTOR);
    struct sc_play *play = bind_play(L);
    struct sc_call call;

    if (!a || a->class != info->actor)
        return luaL_error(L, "%s: call it as actor:%s(%s)", info->name, info->name, info->signature);
    read_call(L, a, verb, 2, &call);
    void *world = bind_world(L, a->world);
    bind_settle_claims(L);
    struct bind_verdict *x = bind_push_verdict(L, a->world, &call);
    bind_record(L, &call);
    play->stage->perform(world, &call, &x->v);
    bind_told_verdict(L, a->name, a->world, &call, &x->v);
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
    struct bind_actor *a = luaL_checkudata(L, 1, BIND_ACTOR);
    const char *name = luaL_checkstring(L, 2);
    int verb = sc_verb_find(a->class, name);
    struct sc_play *play = bind_play(L);
    char why[200] = "";

    if (verb < 0 || sc_verbs[verb].result != SC_VERDICT)
        return luaL_error(L, "a %s has no verb \"%s\" that can be started", sc_actor_names[a->class], name);
    struct bind_op *op = lua_newuserdatauv(L, sizeof(*op), 0);
    *op = (struct bind_op){.play = play, .world = a->world, .recorded = -1};
    snprintf(op->actor, sizeof(op->actor), "%s", a->name);
    luaL_setmetatable(L, BIND_OP);
    lua_insert(L, 1);
    read_call(L, a, verb, 4, &op->call);
    lua_settop(L, 1);
    op->op = play->stage->start(bind_world(L, a->world), &op->call, why, sizeof(why));
    if (!op->op)
        return luaL_error(L, "%s", why);
    op->recorded = bind_record(L, &op->call);
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
static bool push_member(lua_State *L, const struct bind_actor *w, const char *key)
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
    struct bind_actor *a = luaL_checkudata(L, 1, BIND_ACTOR);
    struct sc_play *play = bind_play(L);
    void *world = bind_world(L, a->world);
    char first[320] = "";

    bind_settle_claims(L);
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
    struct bind_actor *a = luaL_checkudata(L, 1, BIND_ACTOR);
    int n = (int)luaL_checkinteger(L, 2), vm = a->class == SC_VM ? a->number : 0;
    char name[32];

    snprintf(name, sizeof(name), vm ? "guest%d.%d" : "vcpu%.0d%d", vm, n);
    if (n < 0 || n >= SC_MAX_VCPUS)
        return luaL_error(L, "vcpu(%d): 0 to %d", n, SC_MAX_VCPUS - 1);
    push_actor(L, a->world, SC_GUEST, vm * SC_MAX_VCPUS + n, name);
    return 1;
}

int bind_actor_index(lua_State *L)
{
    const struct bind_actor *a = luaL_checkudata(L, 1, BIND_ACTOR);
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

int bind_new_world(lua_State *L)
{
    struct sc_play *play = bind_play(L);
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
        .rfc_library = option(L, "library", 0),
        .vcpus = (unsigned)option(L, "vcpus", 1),
        .order = (unsigned)option(L, "order", 0),
        .abi = (unsigned)option(L, "abi", 0),
        .trace = play->trace,
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
    bind_settle_claims(L);
    if (play->recording && play->recording->world.pages)
        return luaL_error(L, "setup of an explore: one world");
    if (play->recording) {
        config.small = true;
        play->recording->world = config;
    }
    play->line = bind_line(L);
    void *world = play->stage->world_new(&config, why, sizeof(why));
    if (!world)
        return luaL_error(L, "no world: %s", why);
    play->worlds[play->nr_worlds++] = world;
    push_actor(L, play->nr_worlds - 1, SC_WORLD, 0, "world");
    sc_play_audit(play, play->nr_worlds - 1, bind_line(L));
    return 1;
}
