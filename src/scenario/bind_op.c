/* SPDX-License-Identifier: BSD-2-Clause */
/* The names that a script has: calls that are under way. */
#include "src/scenario/bind.h"

#include <stdio.h>

#include "src/machine/points.h"

static void check_label(lua_State *L, const char *label)
{
    static char text[8000];
    if (sched_point_find(label) >= 0)
        return;
    sched_point_unknown(label, text, sizeof(text));
    luaL_error(L, "%s", text);
}

static enum sc_progress advance(lua_State *L, struct bind_op *op, const char *label)
{
    char words[300], result[700];
    enum sc_progress end;

    bind_world(L, op->world);
    bind_settle_claims(L);
    if (op->play->recording)
        luaL_error(L, "setup of an explore: a call that was started stays where it is");
    end = op->play->stage->go(op->op, label);
    if (end == SC_OP_ENDED) {
        bind_told_verdict(L, op->actor, op->world, &op->call, op->play->stage->verdict(op->op));
        return end;
    }
    const char *where = op->play->stage->where(op->op);
    sc_narrate_call(&op->call, words, sizeof(words));
    snprintf(result, sizeof(result), "%s %s", end == SC_OP_STOPPED ? "stopped at" : "waits after",
             *where ? where : "its start");
    bind_tell(L, op->actor, &op->call, NULL, words, result);
    sc_play_page(op->play, op->world, &op->call, NULL);
    sc_play_audit(op->play, op->world, bind_line(L));
    return end;
}

static int op_run_to(lua_State *L)
{
    struct bind_op *op = luaL_checkudata(L, 1, BIND_OP);
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
    struct bind_op *op = luaL_checkudata(L, 1, BIND_OP);
    const char *label = luaL_optstring(L, 2, NULL);

    if (label)
        check_label(L, label);
    lua_pushstring(L, words[advance(L, op, label)]);
    return 1;
}

static int op_finish(lua_State *L)
{
    struct bind_op *op = luaL_checkudata(L, 1, BIND_OP);

    if (advance(L, op, NULL) != SC_OP_ENDED)
        return luaL_error(L, "%s waits for ever, after %s", sc_verbs[op->call.verb].name,
                          op->play->stage->where(op->op));
    bind_push_verdict(L, op->world, &op->call)->v = *op->play->stage->verdict(op->op);
    return 1;
}

static int op_at(lua_State *L)
{
    struct bind_op *op = luaL_checkudata(L, 1, BIND_OP);
    lua_pushstring(L, op->play->stage->where(op->op));
    return 1;
}

const luaL_Reg bind_op_methods[] = {
    {"run_to", op_run_to}, {"run", op_run}, {"finish", op_finish}, {"at", op_at}, {NULL, NULL}};
