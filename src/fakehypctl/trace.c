/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl trace: the daemon's events, or those of a file, one a line or as a picture. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/ctl.h"
#include "src/fakehypctl/picture.h"

#define FOLLOW_INTERVAL_MS 100

#define UNLIMITED UINT64_MAX

struct follow {
    uint64_t next;    /* first event not seen yet */
    uint64_t left;    /* events still wanted, or UNLIMITED */
    bool newest;      /* of the next answer the newest are wanted, and then what follows them */
    uint64_t dropped; /* as last told */
};

static bool is_address(const char *key)
{
    static const char *const keys[] = {"a0", "a1", "addr", "gpa", "ipa", "len", "off", "offset", "pc", "pfn", "size"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (!strcmp(key, keys[i]))
            return true;
    return false;
}

static bool is_header(const char *key)
{
    return !strcmp(key, "seq") || !strcmp(key, "t_ns") || !strcmp(key, "ev");
}

static void print_value(FILE *f, const char *key, const json_t *value)
{
    const char *s = json_string_value(value);
    char *text;

    if (s && *s && !strpbrk(s, " \t\n\"=")) {
        out_clean(f, s);
        return;
    }
    if (json_is_integer(value) && is_address(key) && json_integer_value(value) >= 0) {
        fprintf(f, "0x%" PRIx64, (uint64_t)json_integer_value(value));
        return;
    }
    text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    out_clean(f, text ? text : "?");
    free(text);
}

static void print_event(struct reader *r, const json_t *event, struct ctl_io *io)
{
    uint64_t seq = reader_u64(r, event, "seq"), t = reader_u64(r, event, "t_ns");
    const char *ev = reader_string(r, event, "ev"), *key;
    const json_t *value;

    if (r->failed)
        return;
    fprintf(io->out, "%8" PRIu64 "  %12s  %s", seq, out_time(t).s, out_colour(io, OUT_BOLD));
    out_clean(io->out, ev);
    fprintf(io->out, "%s", out_colour(io, OUT_PLAIN));
    json_object_foreach((json_t *)event, key, value)
    {
        if (is_header(key))
            continue;
        fputc(' ', io->out);
        out_clean(io->out, key);
        fputc('=', io->out);
        print_value(io->out, key, value);
    }
    fputc('\n', io->out);
}

static void print_event_json(const json_t *event, struct ctl_io *io)
{
    json_dumpf(event, io->out, JSON_COMPACT);
    fputc('\n', io->out);
}

/* All events or none: the first pass looks for what is malformed. */
static void print_events(struct reader *r, const json_t *events, size_t first, size_t end, bool json, struct ctl_io *io)
{
    for (size_t i = first; i < end; i++) {
        const json_t *event = reader_enter(r, events, "events", i);

        reader_u64(r, event, "seq");
        reader_u64(r, event, "t_ns");
        reader_string(r, event, "ev");
        reader_leave(r);
    }
    for (size_t i = first; i < end && !r->failed; i++) {
        const json_t *event = json_array_get(events, i);

        if (json)
            print_event_json(event, io);
        else
            print_event(r, event, io);
    }
}

static enum ctl_exit print_answer(const json_t *answer, const struct ctl_args *args, struct follow *f,
                                  struct ctl_io *io)
{
    struct reader r = {0};
    uint64_t schema = reader_u64(&r, answer, "schema"), dropped = reader_u64(&r, answer, "dropped");
    uint64_t next = reader_u64(&r, answer, "next");
    const json_t *events = reader_array(&r, answer, "events");
    size_t n = json_array_size(events), first = 0, end = n;

    if (!r.failed && schema != TRACE_SCHEMA) {
        fprintf(io->err, "fakehypctl: trace: fakehypd speaks schema %" PRIu64 ", fakehypctl %d\n", schema,
                TRACE_SCHEMA);
        return CTL_FAILED;
    }
    if (!r.failed && next < f->next) {
        fprintf(io->err, "fakehypctl: trace: fakehypd's events go backwards: %" PRIu64 " after %" PRIu64 "\n", next,
                f->next);
        return CTL_FAILED;
    }
    if (n > f->left && f->newest)
        first = n - f->left;
    else if (n > f->left)
        end = f->left;
    print_events(&r, events, first, end, ctl_given(args, CTL_OPT_JSON), io);
    if (r.failed) {
        fprintf(io->err, "fakehypctl: trace: fakehypd's answer is malformed: %s\n", r.error);
        return CTL_FAILED;
    }
    if (dropped > f->dropped)
        fprintf(io->err, "fakehypctl: trace: %" PRIu64 " older events are kept no more\n", dropped);
    f->dropped = dropped;
    f->next = next;
    if (f->newest)
        f->left = UNLIMITED;
    else if (f->left != UNLIMITED)
        f->left -= end - first;
    f->newest = false;
    return ask_flush(io);
}

static enum ctl_exit ask_events(struct fakehyp *fh, const struct ctl_args *args, struct follow *f, struct ctl_io *io)
{
    const struct fakehyp_query_args query = {
        .what = "trace",
        .vm = args->num[CTL_OPT_VM],
        .any = !ctl_given(args, CTL_OPT_VM),
        .since = f->next,
        .limit = f->newest || f->left == UNLIMITED ? 0 : (uint32_t)f->left,
    };
    json_t *answer = ask(fh, &query, io);
    enum ctl_exit status;

    if (!answer)
        return CTL_FAILED;
    status = print_answer(answer, args, f, io);
    json_decref(answer);
    return status;
}

/* Waits for the next round.  False: nobody reads any more, which without new events no write would tell. */
static bool reader_waits(struct ctl_io *io)
{
    struct pollfd out = {.fd = fileno(io->out)};

    if (poll(&out, 1, FOLLOW_INTERVAL_MS) <= 0 || !(out.revents & POLLERR))
        return true;
    raise(SIGPIPE);
    fprintf(io->err, "fakehypctl: write error: %s\n", strerror(EPIPE));
    return false;
}

/* ---- of a file, and pictures ------------------------------------------------------------------------------------ */

/* Of more nobody sees anything. */
#define PICTURE_EVENTS 1000u

/* The first N from --since on; without it the newest N. */
static void choose(struct events *events, const struct ctl_args *args)
{
    uint64_t limit = ctl_given(args, CTL_OPT_LIMIT) ? args->num[CTL_OPT_LIMIT] : UNLIMITED;
    size_t nr = 0, skip;

    for (size_t i = 0; i < events->nr; i++)
        if (events->list[i].e.seq >= args->num[CTL_OPT_SINCE])
            events->list[nr++] = events->list[i];
    skip = nr > limit && !ctl_given(args, CTL_OPT_SINCE) ? nr - (size_t)limit : 0;
    events->nr = nr > limit ? (size_t)limit : nr;
    if (events->nr)
        memmove(events->list, events->list + skip, events->nr * sizeof(events->list[0]));
}

static bool load_from_daemon(struct events *events, const struct ctl_args *args, struct ctl_io *io)
{
    const struct fakehyp_query_args query = {.what = "trace",
                                             .vm = args->num[CTL_OPT_VM],
                                             .any = !ctl_given(args, CTL_OPT_VM),
                                             .since = args->num[CTL_OPT_SINCE]};
    struct fakehyp *fh = ask_connect(args, io);
    json_t *answer = fh ? ask(fh, &query, io) : NULL;
    const json_t *list = json_object_get(answer, "events");
    bool ok = answer;

    if (fh)
        fakehyp_disconnect(fh);
    for (size_t i = 0; ok && i < json_array_size(list); i++) {
        ok = events_add(events, json_array_get(list, i));
        if (!ok)
            fprintf(io->err, "fakehypctl: trace: fakehypd's answer is malformed: %s\n", events->error);
    }
    json_decref(answer);
    return ok;
}

static void print_loaded(const struct events *events, bool json, struct ctl_io *io)
{
    struct reader r = {0};

    for (size_t i = 0; i < events->nr; i++) {
        char line[TRACE_JSON_MAX];
        json_t *event;

        trace_json(&events->list[i].e, line, sizeof(line));
        event = json_loads(line, 0, NULL);
        json_object_set_new(event, "ev", json_string(events->list[i].name));
        if (json)
            print_event_json(event, io);
        else
            print_event(&r, event, io);
        json_decref(event);
    }
}

static enum ctl_exit show(const struct events *events, const struct ctl_args *args, struct ctl_io *io)
{
    bool ok = true;

    if (ctl_given(args, CTL_OPT_SVG) && events->nr > PICTURE_EVENTS && !ctl_given(args, CTL_OPT_LIMIT)) {
        fprintf(io->err,
                "fakehypctl trace: %zu events are no picture that anybody can read: choose some with --since and "
                "--limit, or take --chrome\n",
                events->nr);
        return CTL_FAILED;
    }
    if (!events->nr) {
        fprintf(io->err, "fakehypctl trace: no event to show\n");
        return CTL_FAILED;
    }
    if (ctl_given(args, CTL_OPT_SVG))
        ok = picture_svg(events, io->out);
    else if (ctl_given(args, CTL_OPT_CHROME))
        ok = picture_chrome(events, io->out);
    else
        print_loaded(events, ctl_given(args, CTL_OPT_JSON), io);
    if (!ok)
        fprintf(io->err, "fakehypctl trace: no memory\n");
    return ok ? ask_flush(io) : CTL_FAILED;
}

static enum ctl_exit trace_all(const struct ctl_args *args, struct ctl_io *io)
{
    const char *path = args->text[CTL_OPT_FILE];
    struct events events = {.list = NULL};
    enum ctl_exit status = CTL_FAILED;

    if (path ? events_load(&events, path, "fakehypctl trace", io) : load_from_daemon(&events, args, io)) {
        if (path && ctl_given(args, CTL_OPT_VM))
            events_only_vm(&events, args->num[CTL_OPT_VM]);
        choose(&events, args);
        status = show(&events, args, io);
    }
    events_free(&events);
    return status;
}

/* Options that do not go together. */
static const char *contradiction(const struct ctl_args *args)
{
    bool file = ctl_given(args, CTL_OPT_FILE), svg = ctl_given(args, CTL_OPT_SVG);
    bool chrome = ctl_given(args, CTL_OPT_CHROME);

    if (ctl_given(args, CTL_OPT_JSON) + svg + chrome > 1)
        return "--json, --svg and --chrome are three ways to show events: choose one";
    if (ctl_given(args, CTL_OPT_FOLLOW) && (file || svg || chrome))
        return "--follow prints a running daemon's events: not with --file, --svg or --chrome";
    if (file && args->socket)
        return "the events come from --file or from the daemon at --socket: choose one";
    return NULL;
}

enum ctl_exit ctl_trace(const struct ctl_args *args, struct ctl_io *io)
{
    struct follow f = {
        .next = args->num[CTL_OPT_SINCE],
        .left = ctl_given(args, CTL_OPT_LIMIT) ? args->num[CTL_OPT_LIMIT] : UNLIMITED,
        .newest = !ctl_given(args, CTL_OPT_SINCE),
    };
    struct fakehyp *fh;
    enum ctl_exit status;

    const char *wrong = contradiction(args);

    if (wrong) {
        fprintf(io->err, "fakehypctl trace: %s\n", wrong);
        return CTL_FAILED;
    }
    if (!f.left) {
        fprintf(io->err, "fakehypctl trace: --limit: at least 1\n");
        return CTL_FAILED;
    }
    if (ctl_given(args, CTL_OPT_FILE) || ctl_given(args, CTL_OPT_SVG) || ctl_given(args, CTL_OPT_CHROME))
        return trace_all(args, io);
    fh = ask_connect(args, io);
    if (!fh)
        return CTL_FAILED;
    status = ask_events(fh, args, &f, io);
    while (status == CTL_OK && ctl_given(args, CTL_OPT_FOLLOW) && f.left) {
        status = reader_waits(io) ? ask_events(fh, args, &f, io) : CTL_FAILED;
    }
    fakehyp_disconnect(fh);
    return status;
}
