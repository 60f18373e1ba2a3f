/* SPDX-License-Identifier: BSD-2-Clause */
/* JSON lines: an object for each run that begins, each step, each end, and one for the totals. */
#include "src/scenario/play.h"

#include <jansson.h>
#include <string.h>

static void print(struct sc_output *out, json_t *object)
{
    if (object)
        json_dumpf(object, out->f, JSON_COMPACT);
    fprintf(out->f, "\n");
    json_decref(object);
}

/* Texts of a script, and bytes that a step read, may be no UTF-8. */
static json_t *text(const char *s)
{
    json_t *string = json_string(s);
    return string ? string : json_string("(not UTF-8)");
}

static json_t *setting(const char *type, const struct sc_play *play)
{
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:s}", "type", type, "scenario", play->about.id, "title",
                     text(play->about.title), "policy", play->setting.policy, "tracker", play->setting.tracker, "hyp",
                     play->setting.hyp, "stage", play->stage->name);
}

static void json_begin(struct sc_output *out, const struct sc_play *play)
{
    json_t *o = setting("run", play);
    json_object_set_new(o, "source", text(play->about.source));
    print(out, o);
}

static void json_say(struct sc_output *out, const char *words)
{
    print(out, json_pack("{s:s, s:o}", "type", "say", "text", text(words)));
}

static json_t *holders(const struct sc_verdict *v)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < v->nr_holders; i++)
        json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:i}", "who", text(v->holders[i].who), "kind",
                                              v->holders[i].kind, "what", text(v->holders[i].what), "count",
                                              (int)v->holders[i].count));
    return list;
}

static void json_step(struct sc_output *out, const struct sc_step *step)
{
    json_t *o =
        json_pack("{s:s, s:i, s:o, s:s, s:o, s:o}", "type", "step", "line", step->line, "actor", text(step->actor),
                  "verb", sc_verbs[step->call->verb].name, "words", text(step->words), "result", text(step->result));
    if (step->verdict) {
        json_object_set_new(o, "verdict", text(step->verdict->word));
        json_object_set_new(o, "value", json_integer(step->verdict->value));
        if (step->verdict->nr_holders)
            json_object_set_new(o, "holders", holders(step->verdict));
        for (unsigned i = 0; i < step->verdict->nr_fields; i++)
            json_object_set_new(o, step->verdict->fields[i].name, json_integer(step->verdict->fields[i].value));
    }
    print(out, o);
}

static void json_violation(struct sc_output *out, const char *words)
{
    print(out, json_pack("{s:s, s:o}", "type", "violation", "text", text(words)));
}

static void json_end(struct sc_output *out, const struct sc_play *play, enum sc_end end, const char *reason)
{
    static const char *const words[] = {"passed", "failed", "not live"};
    json_t *o = setting("end", play);
    json_object_set_new(o, "result", json_string(words[end]));
    json_object_set_new(o, "steps", json_integer(play->nr_steps));
    json_object_set_new(o, "checks", json_integer(play->nr_checks));
    if (end != SC_END_PASSED)
        json_object_set_new(o, "reason", text(reason));
    print(out, o);
}

static void json_history(struct sc_output *out, const char *words)
{
    print(out, json_pack("{s:s, s:o}", "type", "history", "text", text(words)));
}

static void json_total(struct sc_output *out, const struct sc_totals *t)
{
    print(out, json_pack("{s:s, s:i, s:i, s:I, s:I, s:i, s:i}", "type", "total", "scenarios", (int)t->scenarios, "runs",
                         (int)t->runs, "steps", (json_int_t)t->steps, "checks", (json_int_t)t->checks, "failed",
                         (int)t->failed, "not_live", (int)t->not_live));
}

const struct sc_output_ops sc_json_output = {
    .begin = json_begin,
    .say = json_say,
    .step = json_step,
    .violation = json_violation,
    .end = json_end,
    .history = json_history,
    .total = json_total,
};
