/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl page: one page's state, owner, holders and history. */
#include <inttypes.h>
#include <string.h>

#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/ctl.h"

#define FRAMES_TEXT 400 /* of 16 frames, which are what a client tells */
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static void field(struct ctl_io *io, const char *name)
{
    fprintf(io->out, "  %s%-14s%s", out_colour(io, OUT_DIM), name, out_colour(io, OUT_PLAIN));
}

static void text_field(struct reader *r, const json_t *answer, const char *key, const char *name, struct ctl_io *io)
{
    field(io, name);
    out_clean(io->out, reader_string(r, answer, key));
    fputc('\n', io->out);
}

static void heading(const struct ctl_io *io, const char *text)
{
    fprintf(io->out, "\n%s%s%s\n", out_colour(io, OUT_BOLD), text, out_colour(io, OUT_PLAIN));
}

static void print_title(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    fprintf(io->out, "%spage 0x%" PRIx64 " of guest_memfd %" PRIu64, out_colour(io, OUT_BOLD),
            reader_u64(r, answer, "offset"), reader_u64(r, answer, "gmem"));
    if (!reader_is_null(r, answer, "vm"))
        fprintf(io->out, ", VM %" PRIu64, reader_u64(r, answer, "vm"));
    if (!reader_is_null(r, answer, "gpa"))
        fprintf(io->out, ", IPA 0x%" PRIx64, reader_u64(r, answer, "gpa"));
    fprintf(io->out, "%s\n", out_colour(io, OUT_PLAIN));
}

/* Which stage of translation refuses a process of the host, if any does. */
static void print_access(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    const json_t *stages = reader_array(r, answer, "refused_by");

    field(io, "host access");
    if (!json_array_size(stages))
        fprintf(io->out, "allowed");
    for (size_t i = 0; i < json_array_size(stages); i++) {
        const char *stage = reader_string_at(r, stages, "refused_by", i);
        fprintf(io->out, "%s", i ? " and by " : "refused by ");
        out_clean(io->out, stage);
        if (!strcmp(stage, "stage 1"))
            fprintf(io->out, " (attribute)");
        else if (!strcmp(stage, "stage 2"))
            fprintf(io->out, " (EL2's table)");
    }
    fputc('\n', io->out);
}

static void print_state(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    text_field(r, answer, "attribute", "attribute", io);
    field(io, "frame");
    if (!reader_bool(r, answer, "allocated"))
        fprintf(io->out, "not allocated\n");
    else if (reader_is_null(r, answer, "pfn"))
        fprintf(io->out, "allocated\n");
    else
        fprintf(io->out, "PFN 0x%" PRIx64 "\n", reader_u64(r, answer, "pfn"));
    text_field(r, answer, "bytes_in", "bytes in", io);
    text_field(r, answer, "owner", "owner", io);
    text_field(r, answer, "host_state", "host state", io);
    text_field(r, answer, "guest_state", "guest state", io);
    print_access(r, answer, io);
    field(io, "references");
    fprintf(io->out, "refcount %" PRIu64 ", mapcount %" PRIu64 "\n", reader_u64(r, answer, "refcount"),
            reader_u64(r, answer, "mapcount"));
}

static void print_last_conversion(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    const json_t *last;

    field(io, "last change");
    if (reader_is_null(r, answer, "last_conversion")) {
        fprintf(io->out, "none: as it was created\n");
        return;
    }
    last = reader_object(r, answer, "last_conversion");
    fprintf(io->out, "to ");
    out_clean(io->out, reader_string(r, last, "to"));
    fprintf(io->out, ", %s, by ", out_age(reader_u64(r, last, "age_ns")).s);
    out_clean(io->out, reader_string(r, last, "program"));
    fprintf(io->out, " (pid %" PRIu64 "), conversion %" PRIu64 "\n", reader_u64(r, last, "pid"),
            reader_u64(r, last, "seq"));
}

static void print_holders(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    static const struct out_column columns[] = {
        {"COUNT", true}, {"KIND", false}, {"PID", true}, {"SINCE", true}, {"HOLDER", false},
    };
    const json_t *holders = reader_array(r, answer, "holders"), *h;
    size_t n = json_array_size(holders);
    struct out_table *t;

    if (!n)
        return;
    heading(io, "held by");
    t = out_table_new(columns, ARRAY_SIZE(columns));
    for (size_t i = 0; i < n; i++) {
        h = reader_enter(r, holders, "holders", i);
        out_table_cell(t, out_u64(reader_u64(r, h, "count")).s);
        out_table_cell(t, reader_string(r, h, "kind"));
        out_table_cell(t, out_u64(reader_u64(r, h, "pid")).s);
        out_table_cell(t, out_age(reader_u64(r, h, "age_ns")).s);
        out_table_cell(t, reader_string(r, h, "what"));
        reader_leave(r);
    }
    out_table_print(t, io, 2);
}

/* The chain of return addresses in one cell. */
static void frames_cell(struct reader *r, const json_t *stray, struct out_table *t)
{
    const json_t *frames = reader_array(r, stray, "frames");
    char text[FRAMES_TEXT] = "";
    size_t len = 0;

    for (size_t i = 0; i < json_array_size(frames) && len < sizeof(text); i++) {
        const json_t *frame = json_array_get(frames, i);
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s0x%" PRIx64, i ? " " : "",
                                (uint64_t)json_integer_value(frame));
    }
    out_table_cell(t, text);
}

static void print_strays(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    static const struct out_column columns[] = {
        {"WHEN", true}, {"PID", true}, {"ADDRESS", true}, {"PC", true}, {"THREAD", false}, {"CALLED FROM", false},
    };
    const json_t *strays = reader_array(r, answer, "strays"), *s;
    size_t n = json_array_size(strays);
    struct out_table *t;

    if (!n)
        return;
    heading(io, "stray accesses while private");
    t = out_table_new(columns, ARRAY_SIZE(columns));
    for (size_t i = 0; i < n; i++) {
        s = reader_enter(r, strays, "strays", i);
        out_table_cell(t, out_age(reader_u64(r, s, "age_ns")).s);
        out_table_cell(t, out_u64(reader_u64(r, s, "pid")).s);
        out_table_cell(t, out_hex(reader_u64(r, s, "addr")).s);
        out_table_cell(t, out_hex(reader_u64(r, s, "pc")).s);
        out_table_cell(t, reader_string(r, s, "thread"));
        frames_cell(r, s, t);
        reader_leave(r);
    }
    out_table_print(t, io, 2);
}

static void print_history(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    static const struct out_column columns[] = {{"EVENT", true}, {"TIME", true}, {"WHAT", false}};
    const json_t *history = reader_array(r, answer, "history"), *h;
    size_t n = json_array_size(history);
    struct out_table *t;

    if (!n)
        return;
    heading(io, "history");
    t = out_table_new(columns, ARRAY_SIZE(columns));
    for (size_t i = 0; i < n; i++) {
        h = reader_enter(r, history, "history", i);
        out_table_cell(t, out_u64(reader_u64(r, h, "seq")).s);
        out_table_cell(t, out_time(reader_u64(r, h, "t_ns")).s);
        out_table_cell(t, reader_string(r, h, "text"));
        reader_leave(r);
    }
    out_table_print(t, io, 2);
}

static void print_page(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    print_title(r, answer, io);
    print_state(r, answer, io);
    print_last_conversion(r, answer, io);
    print_holders(r, answer, io);
    print_strays(r, answer, io);
    print_history(r, answer, io);
}

bool ctl_names_page(const struct ctl_args *args, const char *who, struct fakehyp_query_args *query, struct ctl_io *io)
{
    const unsigned by_file = CTL_OPT_BIT(CTL_OPT_GMEM) | CTL_OPT_BIT(CTL_OPT_OFFSET);
    const unsigned by_gpa = CTL_OPT_BIT(CTL_OPT_VM) | CTL_OPT_BIT(CTL_OPT_GPA);
    const unsigned named = args->given & (by_file | by_gpa);

    query->vm = args->num[CTL_OPT_VM];
    query->gmem = args->num[CTL_OPT_GMEM];
    query->offset = args->num[CTL_OPT_OFFSET];
    query->gpa = args->num[CTL_OPT_GPA];
    query->by_gpa = named == by_gpa;
    if (named == by_file || named == by_gpa)
        return true;
    fprintf(io->err, "%s: which page? Either --gmem ID --offset BYTES, or --vm ID --gpa ADDR\n", who);
    return false;
}

enum ctl_exit ctl_page(const struct ctl_args *args, struct ctl_io *io)
{
    struct fakehyp_query_args query = {.what = "page"};

    if (!ctl_names_page(args, "fakehypctl page", &query, io))
        return CTL_FAILED;
    return ask_and_print(args, &query, print_page, io, NULL);
}
