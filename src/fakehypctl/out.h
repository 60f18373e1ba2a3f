/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Text for people: colour, sizes, ages, and tables whose columns line up.
 */
#ifndef SRC_FAKEHYPCTL_OUT_H
#define SRC_FAKEHYPCTL_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct ctl_io {
    FILE *out;
    FILE *err;
    bool colour; /* of out */
};

enum out_colour { OUT_PLAIN, OUT_BOLD, OUT_GOOD, OUT_BAD, OUT_WARN, OUT_DIM };

/* Whether colour is wanted on this descriptor: a terminal, not TERM=dumb, no NO_COLOR. */
bool out_wants_colour(int fd);
/* Escape sequence that begins the colour (OUT_PLAIN: ends any); "" without colour. */
const char *out_colour(const struct ctl_io *io, enum out_colour colour);
/* text in colour, padded with blanks to `width`. */
void out_coloured(const struct ctl_io *io, enum out_colour colour, const char *text, int width);

/* Small texts by value: enough for any number that they are made of. */
struct out_text {
    char s[64];
};
/* "2 MiB", "2044 KiB", "100 bytes": exact as long as four digits can be; else "1.5 GiB". */
struct out_text out_size(uint64_t bytes);
/* "850 ns", "12.3 us", "3.2 s", "4 min 12 s", "2 h 5 min", "3 d 4 h". */
struct out_text out_duration(uint64_t ns);
/* "3.2 s ago". */
struct out_text out_age(uint64_t ns);
/* Seconds with microseconds: "12.345678". */
struct out_text out_time(uint64_t ns);
struct out_text out_u64(uint64_t value);
struct out_text out_hex(uint64_t value);

/*
 * Writes text that another process chose (a program's name, a label): control
 * characters become '?', so that nobody writes to the terminal through us.
 */
void out_clean(FILE *f, const char *text);

/* A table is filled cell by cell, then printed; right-aligned columns are those of numbers. */
struct out_table;
struct out_column {
    const char *title;
    bool right;
};
struct out_table *out_table_new(const struct out_column *columns, size_t nr_columns);
void out_table_cell(struct out_table *t, const char *text);
/* Prints with `indent` blanks before each line and frees the table; says so where memory ran out on the way. */
void out_table_print(struct out_table *t, const struct ctl_io *io, int indent);
void out_table_free(struct out_table *t);

#endif
