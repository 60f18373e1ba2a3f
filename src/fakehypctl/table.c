/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/out.h"

#include <stdlib.h>
#include <string.h>

struct out_table {
    const struct out_column *columns;
    size_t nr_columns;
    char **cells;
    size_t nr_cells, max_cells;
    bool failed;
};

struct out_table *out_table_new(const struct out_column *columns, size_t nr_columns)
{
    struct out_table *t = calloc(1, sizeof(*t));

    if (t) {
        t->columns = columns;
        t->nr_columns = nr_columns;
    }
    return t;
}

void out_table_cell(struct out_table *t, const char *text)
{
    size_t max;
    char **cells;

    if (!t || t->failed)
        return;
    if (t->nr_cells == t->max_cells) {
        max = t->max_cells ? 2 * t->max_cells : 64;
        cells = reallocarray(t->cells, max, sizeof(*cells));
        if (!cells) {
            t->failed = true;
            return;
        }
        t->cells = cells;
        t->max_cells = max;
    }
    t->cells[t->nr_cells] = strdup(text);
    if (t->cells[t->nr_cells])
        t->nr_cells++;
    else
        t->failed = true;
}

/* Columns on a terminal: characters, not bytes. */
static size_t width_of(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

static size_t column_width(const struct out_table *t, size_t column)
{
    size_t width = width_of(t->columns[column].title), w;

    for (size_t i = column; i < t->nr_cells; i += t->nr_columns) {
        w = width_of(t->cells[i]);
        if (w > width)
            width = w;
    }
    return width;
}

static void print_line(const struct out_table *t, const size_t *widths, char *const *cells, FILE *f, int indent)
{
    for (size_t c = 0; c < t->nr_columns; c++) {
        const char *text = cells ? cells[c] : t->columns[c].title;
        int pad = (int)(widths[c] - width_of(text)), last = c + 1 == t->nr_columns;

        fprintf(f, "%*s", c ? 2 : indent, "");
        if (t->columns[c].right)
            fprintf(f, "%*s", pad, "");
        out_clean(f, text);
        if (!t->columns[c].right && !last)
            fprintf(f, "%*s", pad, "");
    }
}

static void print_all(const struct out_table *t, const size_t *widths, const struct ctl_io *io, int indent)
{
    fputs(out_colour(io, OUT_DIM), io->out);
    print_line(t, widths, NULL, io->out, indent);
    fprintf(io->out, "%s\n", out_colour(io, OUT_PLAIN));
    for (size_t i = 0; i + t->nr_columns <= t->nr_cells; i += t->nr_columns) {
        print_line(t, widths, t->cells + i, io->out, indent);
        fputc('\n', io->out);
    }
}

void out_table_free(struct out_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->nr_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

void out_table_print(struct out_table *t, const struct ctl_io *io, int indent)
{
    size_t *widths = t && !t->failed ? calloc(t->nr_columns, sizeof(*widths)) : NULL;

    if (widths) {
        for (size_t c = 0; c < t->nr_columns; c++)
            widths[c] = column_width(t, c);
        print_all(t, widths, io, indent);
    } else {
        fprintf(io->out, "%*s(out of memory)\n", indent, "");
    }
    free(widths);
    out_table_free(t);
}
