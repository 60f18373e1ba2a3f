/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl ptdump: a stage-2 table in the format of the kernel's debugfs file stage2_page_tables. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/ctl.h"

/* Tokens of XN[1:0], as arch/arm64/kvm/ptdump.c has them. */
static const char *const execute[] = {"px ux ", "PXNux ", "PXNUXN", "px UXN"};

static void print_range(uint64_t start, uint64_t end, uint64_t level, struct ctl_io *io)
{
    static const char units[] = "KMGTPE";
    uint64_t size = (end - start) >> 10;
    unsigned unit = 0;

    for (; !(size & 1023) && units[unit + 1]; unit++)
        size >>= 10;
    fprintf(io->out, "0x%016" PRIx64 "-0x%016" PRIx64 "   %9" PRIu64 "%c %" PRIu64, start, end, size, units[unit],
            level);
}

/* The kernel pads each token; an entry of which no bit is shown has none of them. */
static void print_bits(struct reader *r, const json_t *run, struct ctl_io *io)
{
    bool valid = reader_bool(r, run, "valid"), annotated = reader_bool(r, run, "annotated");
    bool read = reader_bool(r, run, "r"), write = reader_bool(r, run, "w"), af = reader_bool(r, run, "af");
    bool block = reader_bool(r, run, "block");
    uint64_t xn = reader_u64(r, run, "xn");

    if (!valid && !annotated)
        return;
    fprintf(io->out, " %s %s %s %s %s %s", valid ? " " : "F", read ? "R" : " ", write ? "W" : " ",
            valid ? execute[xn & 3] : "      ", af ? "AF" : "  ", block ? "BLK" : "   ");
}

static void print_annotation(struct reader *r, const json_t *run, struct ctl_io *io)
{
    const json_t *a = reader_object(r, run, "annotation");
    const char *type = reader_string(r, a, "type");

    /* The state has said so. */
    if (!strcmp(type, "poison"))
        return;
    fputc(' ', io->out);
    out_clean(io->out, type);
    if (!json_object_get(a, "owner"))
        return;
    fprintf(io->out, " to ");
    out_clean(io->out, reader_string(r, a, "owner"));
    if (json_object_get(a, "handle"))
        fprintf(io->out, " 0x%" PRIx64 " gfn 0x%" PRIx64, reader_u64(r, a, "handle"), reader_u64(r, a, "gfn"));
}

static void print_state(struct reader *r, const json_t *run, struct ctl_io *io)
{
    bool no_tokens = !reader_bool(r, run, "valid") && !reader_bool(r, run, "annotated");

    fprintf(io->out, "%*s ", no_tokens ? 20 : 0, "");
    out_clean(io->out, reader_is_null(r, run, "state") ? "-" : reader_string(r, run, "state"));
    if (!reader_is_null(r, run, "pa"))
        fprintf(io->out, " pa 0x%" PRIx64, reader_u64(r, run, "pa"));
    if (!reader_is_null(r, run, "annotation"))
        print_annotation(r, run, io);
}

static void print_run(struct reader *r, const json_t *run, bool state, struct ctl_io *io)
{
    uint64_t start = reader_u64(r, run, "start"), end = reader_u64(r, run, "end");

    print_range(start, end, reader_u64(r, run, "level"), io);
    print_bits(r, run, io);
    if (state)
        print_state(r, run, io);
    fputc('\n', io->out);
}

static void print_runs(struct reader *r, const json_t *answer, bool state, struct ctl_io *io)
{
    const json_t *runs = reader_array(r, answer, "runs");

    for (size_t i = 0; i < json_array_size(runs); i++) {
        print_run(r, reader_enter(r, runs, "runs", i), state, io);
        reader_leave(r);
    }
}

static void print_json(const json_t *answer, struct ctl_io *io)
{
    const json_t *runs = json_object_get(answer, "runs");

    for (size_t i = 0; i < json_array_size(runs); i++) {
        json_dumpf(json_array_get(runs, i), io->out, JSON_COMPACT);
        fputc('\n', io->out);
    }
}

/* All of an answer or nothing.  *next is where to go on, 0 after the last one. */
static enum ctl_exit print_answer(const json_t *answer, const struct ctl_args *args, uint64_t *next, struct ctl_io *io)
{
    struct ctl_io mem = {.err = io->err, .colour = io->colour};
    struct reader r = {0};
    uint64_t from = *next;
    char *text = NULL;
    size_t len = 0;

    mem.out = open_memstream(&text, &len);
    if (!mem.out) {
        fprintf(io->err, "fakehypctl: %s\n", strerror(errno));
        return CTL_FAILED;
    }
    *next = reader_is_null(&r, answer, "next") ? 0 : reader_u64(&r, answer, "next");
    if (!from)
        fprintf(mem.out, "---[ %s IPA ]---\n", ctl_given(args, CTL_OPT_HOST) ? "Host" : "Guest");
    /* The text is made for JSON too: it finds what is malformed. */
    print_runs(&r, answer, ctl_given(args, CTL_OPT_STATE), &mem);
    if (fclose(mem.out)) {
        fprintf(io->err, "fakehypctl: %s\n", strerror(errno));
        free(text);
        return CTL_FAILED;
    }
    bool good = !r.failed && (!*next || *next > from);
    if (good && ctl_given(args, CTL_OPT_JSON))
        print_json(answer, io);
    else if (good)
        fwrite(text, 1, len, io->out);
    else
        fprintf(io->err, "fakehypctl: ptdump: fakehypd's answer is malformed: %s\n",
                r.failed ? r.error : "the table goes backwards");
    free(text);
    return good ? ask_flush(io) : CTL_FAILED;
}

enum ctl_exit ctl_ptdump(const struct ctl_args *args, struct ctl_io *io)
{
    struct fakehyp_query_args query = {
        .what = "ptdump",
        .vm = args->num[CTL_OPT_VM],
        .state = ctl_given(args, CTL_OPT_STATE),
    };
    enum ctl_exit status = CTL_OK;
    struct fakehyp *fh;

    if (ctl_given(args, CTL_OPT_VM) == ctl_given(args, CTL_OPT_HOST) || (ctl_given(args, CTL_OPT_VM) && !query.vm)) {
        fprintf(io->err, "fakehypctl ptdump: whose table? Either --vm ID, from 1 on, or --host\n");
        return CTL_FAILED;
    }
    fh = ask_connect(args, io);
    if (!fh)
        return CTL_FAILED;
    do {
        json_t *answer = ask(fh, &query, io);
        status = answer ? print_answer(answer, args, &query.gpa, io) : CTL_FAILED;
        json_decref(answer);
    } while (status == CTL_OK && query.gpa);
    fakehyp_disconnect(fh);
    return status;
}
