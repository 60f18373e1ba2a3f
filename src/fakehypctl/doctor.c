/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/doctor.h"

#include <string.h>

const char *doctor_verdict(const struct doctor_row *row, const struct probe_result *result)
{
    static const char *const failed[] = {
        [DOCTOR_ESSENTIAL] = "missing",
        [DOCTOR_USEFUL] = "limited",
        [DOCTOR_OPTIONAL] = "absent",
    };

    switch (result->verdict) {
    case PROBE_OK:
        return "ok";
    case PROBE_INFO:
        return "info";
    case PROBE_FAIL:
        break;
    }
    return failed[row->need];
}

void doctor_examine(const struct doctor_row *rows, size_t n, struct probe_result *results)
{
    for (size_t i = 0; i < n; i++)
        probe_run(rows[i].probe, &rows[i].arg, PROBE_DEADLINE_MS, &results[i]);
}

struct doctor_tally doctor_count(const struct doctor_row *rows, const struct probe_result *results, size_t n)
{
    struct doctor_tally tally = {0};

    for (size_t i = 0; i < n; i++) {
        bool failed = results[i].verdict == PROBE_FAIL;

        tally.essential += rows[i].need == DOCTOR_ESSENTIAL;
        tally.missing += failed && rows[i].need == DOCTOR_ESSENTIAL;
        tally.limited += failed && rows[i].need == DOCTOR_USEFUL;
    }
    return tally;
}

static enum out_colour colour_of(const struct doctor_row *row, const struct probe_result *result)
{
    static const enum out_colour failed[] = {
        [DOCTOR_ESSENTIAL] = OUT_BAD,
        [DOCTOR_USEFUL] = OUT_WARN,
        [DOCTOR_OPTIONAL] = OUT_DIM,
    };

    if (result->verdict == PROBE_OK)
        return OUT_GOOD;
    return result->verdict == PROBE_INFO ? OUT_DIM : failed[row->need];
}

static void print_summary(const struct doctor_tally *t, struct ctl_io *io)
{
    fputc('\n', io->out);
    if (t->missing) {
        out_coloured(io, OUT_BAD, "The live stage cannot run here", 0);
        fprintf(io->out, ": %u of %u essential checks failed.\n", t->missing, t->essential);
    } else {
        out_coloured(io, OUT_GOOD, "The live stage can run here", 0);
        fprintf(io->out, ": all %u essential checks are ok.\n", t->essential);
    }
    if (t->limited)
        fprintf(io->out, "%u other check%s limited.\n", t->limited, t->limited == 1 ? " is" : "s are");
}

/* Rows that fail for one reason name its remedy once. */
static bool is_told(const struct probe_result *results, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (results[j].verdict == PROBE_FAIL && !strcmp(results[j].remedy, results[i].remedy))
            return true;
    return false;
}

void doctor_print(const struct doctor_row *rows, const struct probe_result *results, size_t n, struct ctl_io *io)
{
    struct doctor_tally tally = doctor_count(rows, results, n);
    int width = 0;

    for (size_t i = 0; i < n; i++)
        if ((int)strlen(rows[i].name) > width)
            width = (int)strlen(rows[i].name);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].group)
            fprintf(io->out, "%s%s%s%s\n", i ? "\n" : "", out_colour(io, OUT_BOLD), rows[i].group,
                    out_colour(io, OUT_PLAIN));
        fprintf(io->out, "  ");
        out_coloured(io, colour_of(&rows[i], &results[i]), doctor_verdict(&rows[i], &results[i]), 7);
        fprintf(io->out, "  %-*s  ", width, rows[i].name);
        out_clean(io->out, results[i].detail);
        fputc('\n', io->out);
        if (results[i].verdict == PROBE_FAIL && !is_told(results, i))
            fprintf(io->out, "           remedy: %s\n", results[i].remedy);
    }
    print_summary(&tally, io);
}

json_t *doctor_json(const struct doctor_row *rows, const struct probe_result *results, size_t n)
{
    struct doctor_tally tally = doctor_count(rows, results, n);
    json_t *checks = json_array();
    const char *group = "";

    for (size_t i = 0; i < n; i++) {
        const char *remedy = results[i].verdict == PROBE_FAIL ? results[i].remedy : NULL;

        if (rows[i].group)
            group = rows[i].group;
        /* A failure on the way leaves a short array: it is looked for at the end. */
        json_array_append_new(checks, json_pack("{s:s, s:s, s:s, s:b, s:s, s:s?}", "group", group, "name", rows[i].name,
                                                "verdict", doctor_verdict(&rows[i], &results[i]), "essential",
                                                rows[i].need == DOCTOR_ESSENTIAL, "detail", results[i].detail, "remedy",
                                                remedy));
    }
    if (json_array_size(checks) != n) {
        json_decref(checks);
        return NULL;
    }
    return json_pack("{s:b, s:i, s:i, s:i, s:o}", "ok", !tally.missing, "essential", (int)tally.essential, "missing",
                     (int)tally.missing, "limited", (int)tally.limited, "checks", checks);
}
