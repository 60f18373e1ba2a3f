/* SPDX-License-Identifier: BSD-2-Clause */
/* TAP: one test a run. */
#include "src/scenario/play.h"

#include <stdio.h>
#include <string.h>

static void tap_begin(struct sc_output *out, const struct sc_play *play)
{
    (void)play;
    out->nr_runs++;
}

static void tap_say(struct sc_output *out, const char *text)
{
    if (out->narrate)
        fprintf(out->f, "# %s\n", text);
}

static void tap_step(struct sc_output *out, const struct sc_step *step)
{
    if (out->narrate)
        fprintf(out->f, "#   %s %s%s%s\n", step->actor, step->words, *step->result ? ": " : "", step->result);
}

static void tap_violation(struct sc_output *out, const char *text)
{
    if (out->narrate)
        fprintf(out->f, "#   oracle: %s\n", text);
}

static void tap_end(struct sc_output *out, const struct sc_play *play, enum sc_end end, const char *reason)
{
    if (end == SC_END_NOT_LIVE)
        out->nr_runs++;
    fprintf(out->f, "%s %u - %s %s %s %s: %s", end == SC_END_FAILED ? "not ok" : "ok", out->nr_runs, play->about.id,
            play->setting.policy, play->setting.tracker, play->setting.hyp, play->about.title);
    if (end == SC_END_NOT_LIVE)
        fprintf(out->f, " # SKIP not live: %s", reason);
    fprintf(out->f, "\n");
    if (end == SC_END_FAILED)
        fprintf(out->f, "# %s\n", reason);
    fflush(out->f);
}

static void tap_history(struct sc_output *out, const char *text)
{
    fprintf(out->f, "#     %s\n", text);
}

static void tap_total(struct sc_output *out, const struct sc_totals *t)
{
    fprintf(out->f, "# %u scenarios, %u runs, %lu steps, %lu checks: %u failed, %u not live\n1..%u\n", t->scenarios,
            t->runs, t->steps, t->checks, t->failed, t->not_live, out->nr_runs);
}

const struct sc_output_ops sc_tap_output = {
    .begin = tap_begin,
    .say = tap_say,
    .step = tap_step,
    .violation = tap_violation,
    .end = tap_end,
    .history = tap_history,
    .total = tap_total,
};
