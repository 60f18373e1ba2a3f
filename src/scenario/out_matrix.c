/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A table for each scenario: a column for each run of it, a row for each step
 * that several of them made and whose verdict is not the same in all of these.
 */
#include "src/scenario/play.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 64
#define WORD 24

/* A step is the same in two runs when it is the n-th that the line made. */
struct row {
    int line;
    unsigned nth;
    char actor[24], words[100];
    char word[COLUMNS][WORD];
};

struct column {
    struct sc_setting setting;
    enum sc_end end;
    char reason[200];
    char broken[WORD]; /* the invariants that did not hold, which the script may have expected */
};

struct matrix {
    char id[16], title[120];
    unsigned nr_columns;
    struct column column[COLUMNS];
    size_t nr_rows, allocated;
    struct row *rows;
    int width; /* of a column */
};

static struct matrix *matrix(struct sc_output *out)
{
    if (!out->data)
        out->data = calloc(1, sizeof(struct matrix));
    return out->data;
}

/* ---- printing --------------------------------------------------------------------------------------------------- */

/* What of the setting the columns do not share. */
static void head(const struct matrix *m, unsigned column, char *buf, size_t size)
{
    const struct sc_setting *s = &m->column[column].setting, *first = &m->column[0].setting;
    bool trackers = false, hyps = false;

    for (unsigned i = 0; i < m->nr_columns; i++) {
        trackers |= strcmp(m->column[i].setting.tracker, first->tracker) != 0;
        hyps |= strcmp(m->column[i].setting.hyp, first->hyp) != 0;
    }
    snprintf(buf, size, "%s%s%s%s%s", s->policy, trackers ? "/" : "", trackers ? s->tracker : "", hyps ? "/" : "",
             hyps ? s->hyp : "");
}

static bool differs(const struct matrix *m, const struct row *row)
{
    const char *first = NULL;
    for (unsigned i = 0; i < m->nr_columns; i++) {
        if (m->column[i].end == SC_END_NOT_LIVE || !*row->word[i])
            continue;
        if (first && strcmp(first, row->word[i]))
            return true;
        first = row->word[i];
    }
    return false;
}

static void print_row(const struct sc_output *out, const struct matrix *m, const char *left, const char (*word)[WORD])
{
    unsigned last = 0;

    for (unsigned i = 0; i < m->nr_columns; i++)
        last = *word[i] ? i : last;
    fprintf(out->f, "  %-46.46s", left);
    for (unsigned i = 0; i < last; i++)
        fprintf(out->f, "  %-*s", m->width, word[i]);
    fprintf(out->f, "  %s\n", word[last]);
}

static void widen(struct matrix *m, const char *word)
{
    if ((int)strlen(word) > m->width)
        m->width = (int)strlen(word);
}

static int by_line(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    return x->nth < y->nth ? -1 : x->nth > y->nth;
}

/* Runs that differ, that broke something, or that failed. */
static bool worth_telling(const struct matrix *m)
{
    for (size_t r = 0; r < m->nr_rows; r++)
        if (differs(m, &m->rows[r]))
            return true;
    for (unsigned i = 0; i < m->nr_columns; i++)
        if (m->column[i].end == SC_END_FAILED || *m->column[i].broken)
            return true;
    return false;
}

static void forget(struct matrix *m)
{
    free(m->rows);
    *m = (struct matrix){.nr_columns = 0};
}

static void flush(struct sc_output *out)
{
    static const char *const ends[] = {"passed", "FAILED", "not live"};
    struct matrix *m = out->data;
    char cells[COLUMNS][WORD], left[200];
    bool broken = false;

    if (!m || !m->nr_columns)
        return;
    if (out->quiet && !worth_telling(m)) {
        forget(m);
        return;
    }
    snprintf(left, sizeof(left), "%s  %s", m->id, m->title);
    m->width = (int)strlen(ends[SC_END_NOT_LIVE]);
    for (unsigned i = 0; i < m->nr_columns; i++) {
        head(m, i, cells[i], WORD);
        widen(m, cells[i]);
        broken |= *m->column[i].broken != '\0';
    }
    for (size_t r = 0; r < m->nr_rows; r++)
        for (unsigned i = 0; i < m->nr_columns && differs(m, &m->rows[r]); i++)
            widen(m, m->rows[r].word[i]);
    print_row(out, m, left, (const char(*)[WORD])cells);
    for (unsigned i = 0; i < m->nr_columns; i++)
        snprintf(cells[i], WORD, "%s", ends[m->column[i].end]);
    print_row(out, m, "", (const char(*)[WORD])cells);
    for (unsigned i = 0; i < m->nr_columns; i++)
        snprintf(cells[i], WORD, "%s", *m->column[i].broken ? m->column[i].broken : "-");
    if (broken)
        print_row(out, m, "      breaks", (const char(*)[WORD])cells);
    if (m->nr_rows)
        qsort(m->rows, m->nr_rows, sizeof(*m->rows), by_line);
    for (size_t r = 0; r < m->nr_rows; r++) {
        const struct row *row = &m->rows[r];
        if (!differs(m, row))
            continue;
        snprintf(left, sizeof(left), "%4d  %s: %s", row->line, row->actor, row->words);
        print_row(out, m, left, (const char(*)[WORD])row->word);
    }
    for (unsigned i = 0; i < m->nr_columns; i++)
        if (m->column[i].end == SC_END_FAILED)
            fprintf(out->f, "  %s: %s\n", ends[SC_END_FAILED], m->column[i].reason);
    fprintf(out->f, "\n");
    forget(m);
}

/* ---- collecting ------------------------------------------------------------------------------------------------- */

static struct column *open_column(struct sc_output *out, const struct sc_play *play)
{
    struct matrix *m = matrix(out);

    if (m && (strcmp(m->id, play->about.id) || m->nr_columns == COLUMNS))
        flush(out);
    if (!m)
        return NULL;
    snprintf(m->id, sizeof(m->id), "%s", play->about.id);
    snprintf(m->title, sizeof(m->title), "%s", play->about.title);
    m->column[m->nr_columns].setting = play->setting;
    return &m->column[m->nr_columns++];
}

static void matrix_begin(struct sc_output *out, const struct sc_play *play)
{
    open_column(out, play);
}

static void matrix_say(struct sc_output *out, const char *text)
{
    (void)out;
    (void)text;
}

static struct row *find_row(struct matrix *m, const struct sc_step *step, unsigned nth)
{
    for (size_t i = 0; i < m->nr_rows; i++)
        if (m->rows[i].line == step->line && m->rows[i].nth == nth)
            return &m->rows[i];
    if (m->nr_rows == m->allocated) {
        size_t wanted = m->allocated ? 2 * m->allocated : 64;
        struct row *rows = realloc(m->rows, wanted * sizeof(*rows));
        if (!rows)
            return NULL;
        m->rows = rows;
        m->allocated = wanted;
    }
    struct row *row = &m->rows[m->nr_rows++];
    *row = (struct row){.line = step->line, .nth = nth};
    snprintf(row->actor, sizeof(row->actor), "%s", step->actor);
    snprintf(row->words, sizeof(row->words), "%s", step->words);
    return row;
}

static void matrix_step(struct sc_output *out, const struct sc_step *step)
{
    struct matrix *m = out->data;
    unsigned column = m ? m->nr_columns - 1 : 0, nth = 0;

    if (!m || !step->verdict)
        return;
    for (size_t i = 0; i < m->nr_rows; i++)
        nth += m->rows[i].line == step->line && *m->rows[i].word[column];
    struct row *row = find_row(m, step, nth);
    if (row)
        snprintf(row->word[column], WORD, "%.*s", WORD - 1, step->verdict->word);
}

/* "I1: ..." */
static void matrix_violation(struct sc_output *out, const char *text)
{
    struct matrix *m = out->data;
    struct column *c = m && m->nr_columns ? &m->column[m->nr_columns - 1] : NULL;
    char name[WORD];

    snprintf(name, sizeof(name), "%.*s", (int)strcspn(text, ":"), text);
    if (!c || strstr(c->broken, name))
        return;
    size_t len = strlen(c->broken);
    snprintf(c->broken + len, sizeof(c->broken) - len, "%s%s", len ? " " : "", name);
}

static void matrix_end(struct sc_output *out, const struct sc_play *play, enum sc_end end, const char *reason)
{
    struct matrix *m = out->data;
    struct column *c = end == SC_END_NOT_LIVE ? open_column(out, play) : m ? &m->column[m->nr_columns - 1] : NULL;

    if (!c)
        return;
    c->end = end;
    snprintf(c->reason, sizeof(c->reason), "%s", reason);
}

static void matrix_total(struct sc_output *out, const struct sc_totals *t)
{
    flush(out);
    free(out->data);
    out->data = NULL;
    sc_text_output.total(out, t);
}

const struct sc_output_ops sc_matrix_output = {
    .begin = matrix_begin,
    .say = matrix_say,
    .step = matrix_step,
    .violation = matrix_violation,
    .end = matrix_end,
    .history = matrix_say,
    .total = matrix_total,
};
