/* SPDX-License-Identifier: BSD-2-Clause */
/* Narration for people, one step a line, or one line a run. */
#include "src/scenario/play.h"

#include <stdio.h>
#include <string.h>

static const char *colour(const struct sc_output *out, const char *code)
{
    return out->colour ? code : "";
}

#define GOOD "\033[32m"
#define BAD "\033[31m"
#define DIM "\033[2m"
#define BOLD "\033[1m"
#define PLAIN "\033[0m"

static void text_begin(struct sc_output *out, const struct sc_play *play)
{
    if (!out->narrate)
        return;
    fprintf(out->f, "%s%s  %s%s\n%s    policy %s, tracker %s, hypervisor %s, %s%s\n", colour(out, BOLD), play->about.id,
            play->about.title, colour(out, PLAIN), colour(out, DIM), play->setting.policy, play->setting.tracker,
            play->setting.hyp, !strcmp(play->stage->name, "sim") ? "simulated" : "real processes", colour(out, PLAIN));
}

static void text_say(struct sc_output *out, const char *text)
{
    if (out->narrate)
        fprintf(out->f, "%s    %s%s%s\n", *text == ' ' ? "" : "\n", colour(out, BOLD), text, colour(out, PLAIN));
}

static bool read_line(struct sc_output *out, char *buf, size_t size)
{
    fflush(out->f);
    if (!out->in || !fgets(buf, (int)size, out->in)) {
        out->step = out->predict = false;
        return false;
    }
    buf[strcspn(buf, "\n")] = '\0';
    return true;
}

/* True when the answer was right. */
static void ask(struct sc_output *out, const struct sc_step *step)
{
    char answer[80];
    const char *word = step->verdict->word;
    size_t len = strcspn(word, "@");

    fprintf(out->f, "    %-8s %s: ? ", step->actor, step->words);
    if (!read_line(out, answer, sizeof(answer)))
        return;
    bool right = !strcasecmp(answer, word) || (strlen(answer) == len && !strncasecmp(answer, word, len));
    out->guesses++;
    out->right += right;
    fprintf(out->f, "    %s%s%s\n", colour(out, right ? GOOD : BAD), right ? "yes" : "no", colour(out, PLAIN));
}

static void text_step(struct sc_output *out, const struct sc_step *step)
{
    char ignored[16];

    if (!out->narrate)
        return;
    if (out->predict && step->verdict && !step->verdict->nr_fields)
        ask(out, step);
    fprintf(out->f, "    %-8s %s%s%s\n", step->actor, step->words, *step->result ? ": " : "", step->result);
    if (out->step)
        read_line(out, ignored, sizeof(ignored));
}

static void text_violation(struct sc_output *out, const char *text)
{
    if (out->narrate)
        fprintf(out->f, "    %soracle%s   %s\n", colour(out, BAD), colour(out, PLAIN), text);
}

static void one_line(const struct sc_output *out, const struct sc_play *play, const char *word, const char *code)
{
    char setting[64];
    snprintf(setting, sizeof(setting), "%s %s %s", play->setting.policy, play->setting.tracker, play->setting.hyp);
    fprintf(out->f, "%s%-8s%s %-4s %-22s %s", colour(out, code), word, colour(out, PLAIN), play->about.id, setting,
            play->about.title);
}

static void text_end(struct sc_output *out, const struct sc_play *play, enum sc_end end, const char *reason)
{
    switch (end) {
    case SC_END_PASSED:
        if (out->narrate)
            fprintf(out->f, "    %spassed%s: %u steps, %u checks\n\n", colour(out, GOOD), colour(out, PLAIN),
                    play->nr_steps, play->nr_checks);
        else if (!out->quiet)
            one_line(out, play, "ok", GOOD), fprintf(out->f, ": %u checks\n", play->nr_checks);
        break;
    case SC_END_FAILED:
        one_line(out, play, "FAILED", BAD);
        fprintf(out->f, "\n    %s\n", reason);
        break;
    case SC_END_NOT_LIVE:
        if (!out->quiet)
            one_line(out, play, "not live", DIM), fprintf(out->f, ": %s\n", reason);
        break;
    }
}

static void text_history(struct sc_output *out, const char *text)
{
    fprintf(out->f, "        %s\n", text);
}

static void text_total(struct sc_output *out, const struct sc_totals *t)
{
    if (out->guesses)
        fprintf(out->f, "predicted %u of %u verdicts\n", out->right, out->guesses);
    fprintf(out->f, "%u scenarios, %u runs, %lu steps, %lu checks: %u failed", t->scenarios, t->runs, t->steps,
            t->checks, t->failed);
    if (t->not_live)
        fprintf(out->f, ", %u not live", t->not_live);
    fprintf(out->f, "\n");
}

const struct sc_output_ops sc_text_output = {
    .begin = text_begin,
    .say = text_say,
    .step = text_step,
    .violation = text_violation,
    .end = text_end,
    .history = text_history,
    .total = text_total,
};
