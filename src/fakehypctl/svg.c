/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A trace as a sequence diagram: one SVG file that needs nothing else.  Time
 * runs downwards, not to scale: a row for each arrow.
 */
#include "src/fakehypctl/picture.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW = 26,         /* height of one */
    HEAD = 84,        /* above the first row */
    LANE_FIRST = 170, /* x of the first lane */
    LANE_STEP = 250,
    RIGHT = 330, /* for words that begin at the last lane */
};

enum arrow { CALL, REPLY, FAILED, HOLDER };

struct row {
    size_t from, to; /* lanes; the same: a note */
    enum arrow arrow;
    size_t event;
    uint64_t last; /* of several events that are one row: the offset of the last */
    size_t times;
    bool result; /* it tells what came of the event */
};

struct drawing {
    const struct events *events;
    struct lanes lanes;
    struct row *rows;
    size_t nr_rows;
    size_t *within; /* of the first event within a call: the one that ends it; else its own number */
    FILE *f;
};

/* ---- from events to rows ---------------------------------------------------------------------------------------- */

static void add(struct drawing *d, size_t event, size_t from, size_t to, enum arrow arrow, bool result)
{
    size_t last = d->lanes.nr - 1;

    d->rows[d->nr_rows++] = (struct row){.from = from > last ? d->lanes.el1 : from,
                                         .to = to > last ? d->lanes.el1 : to,
                                         .arrow = arrow,
                                         .event = event,
                                         .times = 1,
                                         .result = result};
}

/* Who asks whom; false where it is no call. */
static bool call_lanes(const struct drawing *d, const struct event *event, size_t *from, size_t *to)
{
    const struct host_event *ev = &event->e.event;

    *from = lane_of_process(&d->lanes, ev->pid);
    *to = d->lanes.el1;
    switch (ev->kind) {
    case HOST_EV_convert:
    case HOST_EV_punch:
    case HOST_EV_allocate:
    case HOST_EV_slot_set:
    case HOST_EV_pin:
    case HOST_EV_unpin:
    case HOST_EV_fault:
    case HOST_EV_stray:
        return true;
    case HOST_EV_guest_abort:
        *from = lane_of_guest(&d->lanes, event);
        return true;
    case HOST_EV_guest_call:
        *from = lane_of_guest(&d->lanes, event);
        *to = d->lanes.el2;
        return true;
    case HOST_EV_vm_create:
    case HOST_EV_vm_destroy:
    case HOST_EV_reclaim:
    case HOST_EV_hvc:
    case HOST_EV_move:
        *from = d->lanes.el1;
        *to = d->lanes.el2;
        return true;
    default:
        return false;
    }
}

static void add_request(struct drawing *d, size_t i)
{
    size_t from, to;

    call_lanes(d, &d->events->list[i], &from, &to);
    add(d, i, from, to, CALL, false);
}

static bool has_reply(const struct host_event *ev)
{
    switch (ev->kind) {
    case HOST_EV_convert:
    case HOST_EV_guest_call:
    case HOST_EV_stray:
        return true;
    default:
        return ev->rc < 0;
    }
}

static void add_ending(struct drawing *d, size_t i)
{
    const struct event *event = &d->events->list[i];
    const struct host_event *ev = &event->e.event;
    enum arrow failed = event_failed(event) ? FAILED : REPLY;
    size_t from, to, process = lane_of_process(&d->lanes, ev->pid);

    if (call_lanes(d, event, &from, &to)) {
        if (ev->kind == HOST_EV_guest_abort && ev->a1)
            add(d, i, d->lanes.el1, d->lanes.el2, CALL, true);
        else if (has_reply(ev))
            add(d, i, to, from, failed, true);
    } else if (ev->kind == HOST_EV_exit) {
        add(d, i, d->lanes.el1, process, REPLY, false);
    } else if (ev->kind == HOST_EV_busy) {
        add(d, i, d->lanes.el1, process, HOLDER, false);
    } else if (ev->kind == HOST_EV_host_abort) {
        add(d, i, d->lanes.el2, d->lanes.el1, FAILED, false);
    } else if (ev->kind == HOST_EV_client) {
        if (process < d->lanes.nr)
            add(d, i, process, process, REPLY, false);
    } else if (ev->kind == HOST_EV_guest_start || ev->kind == HOST_EV_guest_end) {
        size_t guest = lane_of_guest(&d->lanes, event);
        add(d, i, guest, guest, REPLY, false);
    } else if (ev->kind != HOST_EV_end) {
        add(d, i, d->lanes.el1, d->lanes.el1, failed, false);
    }
}

/* Aborts and faults of neighbouring pages are one row. */
static bool joins(const struct drawing *d, size_t i)
{
    if (!i)
        return false;
    const struct event *a = &d->events->list[i - 1], *b = &d->events->list[i];
    const struct host_event *x = &a->e.event, *y = &b->e.event;
    return (y->kind == HOST_EV_guest_abort || y->kind == HOST_EV_fault || y->kind == HOST_EV_reclaim) &&
           x->kind == y->kind && a->run == b->run && x->vm == y->vm && x->gmem == y->gmem && x->pid == y->pid &&
           x->vcpu == y->vcpu && x->rc == y->rc && x->a0 == y->a0 && !x->a1 == !y->a1 &&
           y->offset == x->offset + HOST_PAGE_SIZE;
}

static void join(struct drawing *d, size_t i)
{
    for (size_t r = d->nr_rows; r-- > 0;) {
        struct row *row = &d->rows[r];
        row->times++;
        row->last = d->events->list[i].e.event.offset;
        if (!row->result)
            return;
    }
}

/* A call's own events come before it in the trace, and after its request in the picture. */
static void find_rows(struct drawing *d)
{
    size_t from, to;

    for (size_t i = 0; i < d->events->nr; i++) {
        d->within[i] = i;
        d->within[event_begins(d->events, i)] = i;
    }
    for (size_t i = 0; i < d->events->nr; i++) {
        if (joins(d, i)) {
            join(d, i);
            continue;
        }
        if (d->within[i] != i)
            add_request(d, d->within[i]);
        if (event_begins(d->events, i) == i && call_lanes(d, &d->events->list[i], &from, &to))
            add_request(d, i);
        add_ending(d, i);
    }
}

/* ---- drawing ---------------------------------------------------------------------------------------------------- */

/* Names and labels are what clients chose: text, and never markup. */
static void put_text(FILE *f, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        switch (*p) {
        case '<':
            fputs("&lt;", f);
            break;
        case '>':
            fputs("&gt;", f);
            break;
        case '&':
            fputs("&amp;", f);
            break;
        case '"':
            fputs("&quot;", f);
            break;
        case '\'':
            fputs("&#39;", f);
            break;
        default:
            fputc(*p < 0x20 || *p >= 0x7f ? '?' : *p, f);
        }
}

static int lane_x(size_t lane)
{
    return LANE_FIRST + (int)lane * LANE_STEP;
}

static int row_y(size_t row)
{
    return HEAD + (int)row * ROW + ROW;
}

static void put_head(const struct drawing *d, size_t i, int y)
{
    const struct lane *lane = &d->lanes.list[i];
    static const char *const classes[] = {"process", "el1", "el2", "guest"};
    char title[80], below[80];

    switch (lane->kind) {
    case LANE_PROCESS:
        snprintf(title, sizeof(title), "%s", lane->name[0] ? lane->name : "process");
        snprintf(below, sizeof(below), "EL0, pid %u", lane->id);
        break;
    case LANE_GUEST:
        snprintf(title, sizeof(title), "guest of VM %" PRIu64, lane->vm);
        snprintf(below, sizeof(below), "vCPU %u", lane->id);
        break;
    default:
        snprintf(title, sizeof(title), "%s", lane->kind == LANE_EL1 ? "EL1" : "EL2");
        snprintf(below, sizeof(below), "%s", lane->name);
        break;
    }
    fprintf(d->f, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"180\" height=\"40\" rx=\"5\"/>\n", classes[lane->kind],
            lane_x(i) - 90, y);
    fprintf(d->f, "<text class=\"name\" x=\"%d\" y=\"%d\">", lane_x(i), y + 17);
    put_text(d->f, title);
    fprintf(d->f, "</text>\n<text class=\"below\" x=\"%d\" y=\"%d\">", lane_x(i), y + 33);
    put_text(d->f, below);
    fprintf(d->f, "</text>\n");
}

static void row_words(const struct drawing *d, const struct row *row, char *buf, size_t size)
{
    const struct event *event = &d->events->list[row->event];

    if (row->result && event->e.event.kind == HOST_EV_guest_abort && event->e.event.a1)
        snprintf(buf, size,
                 row->times > 1 ? "donates %2$zu pages, the first PFN 0x%1$" PRIx64 : "donates PFN 0x%" PRIx64,
                 event->e.event.a1, row->times);
    else if (row->result)
        event_result(event, buf, size);
    else
        event_words(event, buf, size);
    size_t len = strlen(buf);
    if (!row->result && row->times > 1 && len < size)
        snprintf(buf + len, size - len, ", and up to 0x%" PRIx64 " (%zu times)", row->last, row->times);
}

static void put_arrow(const struct drawing *d, const struct row *row, int y, const char *words)
{
    static const char *const classes[] = {"call", "reply", "failed", "holder"};
    int from = lane_x(row->from), to = lane_x(row->to), left = from < to ? from : to;

    fprintf(d->f, "<line class=\"%s\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" marker-end=\"url(#%s)\"/>\n",
            classes[row->arrow], from, y, to > from ? to - 2 : to + 2, y, classes[row->arrow]);
    fprintf(d->f, "<text class=\"%s-words\" x=\"%d\" y=\"%d\">", classes[row->arrow], left + 10, y - 6);
    put_text(d->f, words);
    fprintf(d->f, "</text>\n");
}

static void put_note(const struct drawing *d, const struct row *row, int y, const char *words)
{
    int x = lane_x(row->from);

    fprintf(d->f, "<circle class=\"%s\" cx=\"%d\" cy=\"%d\" r=\"4\"/>\n", row->arrow == FAILED ? "bad" : "dot", x,
            y - 6);
    fprintf(d->f, "<text class=\"%s-words\" x=\"%d\" y=\"%d\">", row->arrow == FAILED ? "failed" : "call", x + 10,
            y - 2);
    put_text(d->f, words);
    fprintf(d->f, "</text>\n");
}

static void put_row(const struct drawing *d, size_t r)
{
    const struct row *row = &d->rows[r];
    const struct event *event = &d->events->list[row->event];
    char words[300], all[400];
    int y = row_y(r);

    row_words(d, row, words, sizeof(words));
    trace_describe(&event->e, all, sizeof(all));
    fprintf(d->f, "<g><title>%" PRIu64 ": ", event->e.seq);
    put_text(d->f, all);
    fprintf(d->f, "</title>\n");
    if (!r || d->rows[r - 1].event != row->event) {
        fprintf(d->f, "<text class=\"time\" x=\"70\" y=\"%d\">", y - 2);
        if (events_have_time(d->events))
            fprintf(d->f, "%.3f ms</text>\n", event_us(d->events, row->event) / 1000);
        else
            fprintf(d->f, "#%" PRIu64 "</text>\n", event->e.seq);
    }
    if (row->from == row->to)
        put_note(d, row, y, words);
    else
        put_arrow(d, row, y, words);
    fprintf(d->f, "</g>\n");
}

/* How long a process holds a page: a bar on its lane, from the pin to the unpin. */
static void put_holders(const struct drawing *d)
{
    for (size_t r = 0; r < d->nr_rows; r++) {
        const struct event *pin = &d->events->list[d->rows[r].event];
        size_t end = r + 1, lane = lane_of_process(&d->lanes, pin->e.event.pid);

        if (pin->e.event.kind != HOST_EV_pin || lane == d->lanes.nr)
            continue;
        for (; end < d->nr_rows; end++) {
            const struct event *event = &d->events->list[d->rows[end].event];
            if (event->run != pin->run ||
                (event->e.event.kind == HOST_EV_unpin && event->e.event.a1 == pin->e.event.a1))
                break;
        }
        fprintf(d->f, "<rect class=\"held\" x=\"%d\" y=\"%d\" width=\"10\" height=\"%d\"><title>", lane_x(lane) - 5,
                row_y(r), (int)(end - r) * ROW);
        put_text(d->f, pin->e.event.note);
        fprintf(d->f, "</title></rect>\n");
    }
}

static const char style[] =
    "<style>\n"
    "text{font:12px \"DejaVu Sans\",Verdana,Arial,sans-serif;fill:#222;paint-order:stroke;stroke:#fff;"
    "stroke-width:3px}\n"
    ".name,.below{text-anchor:middle;stroke:none}.name{font-weight:bold;font-size:13px}.below{fill:#555;"
    "font-size:11px}\n"
    ".time{text-anchor:end;fill:#888;font-size:10px}.title{font-weight:bold;font-size:15px}\n"
    ".process{fill:#e3f0ff;stroke:#3b78b8}.el1{fill:#fff3d6;stroke:#b8860b}.el2{fill:#f3e2f7;stroke:#8a3fa0}"
    ".guest{fill:#e2f5e4;stroke:#2e8b45}\n"
    ".life{stroke:#bbb;stroke-dasharray:2 3}.line{stroke:#ddd}\n"
    ".held{fill:#ffb84d;stroke:#b36b00;fill-opacity:.75}.dot{fill:#555}.bad{fill:#c62828}\n"
    ".call{stroke:#222;stroke-width:1.4}.reply{stroke:#2e7d32;stroke-width:1.4;stroke-dasharray:6 3}\n"
    ".failed{stroke:#c62828;stroke-width:1.8;stroke-dasharray:6 3}.holder{stroke:#b36b00;stroke-width:1.8;"
    "stroke-dasharray:2 2}\n"
    ".reply-words{fill:#2e7d32}.failed-words{fill:#c62828;font-weight:bold}.holder-words{fill:#8a5200;"
    "font-weight:bold}\n"
    "</style>\n";

static void put_markers(FILE *f)
{
    static const struct {
        const char *id, *colour;
    } markers[] = {{"call", "#222"}, {"reply", "#2e7d32"}, {"failed", "#c62828"}, {"holder", "#b36b00"}};

    fprintf(f, "<defs>\n");
    for (size_t i = 0; i < sizeof(markers) / sizeof(markers[0]); i++)
        fprintf(f,
                "<marker id=\"%s\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"9\" markerHeight=\"9\" "
                "markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L10 5L0 10z\" fill=\"%s\"/></marker>\n",
                markers[i].id, markers[i].colour);
    fprintf(f, "</defs>\n");
}

/* Where another trace of the same file begins. */
static void put_line(const struct drawing *d, size_t r, int width)
{
    if (r && d->events->list[d->rows[r].event].run != d->events->list[d->rows[r - 1].event].run)
        fprintf(d->f, "<line class=\"line\" x1=\"0\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n", row_y(r) - ROW + 4, width,
                row_y(r) - ROW + 4);
}

static void draw(const struct drawing *d)
{
    int width = lane_x(d->lanes.nr - 1) + RIGHT, foot = row_y(d->nr_rows), height = foot + 60;

    fprintf(d->f,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
            "<title>fakehyp: sequence of %zu events</title>\n",
            width, height, width, height, d->events->nr);
    fputs(style, d->f);
    put_markers(d->f);
    fprintf(d->f, "<rect x=\"0\" y=\"0\" width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", width, height);
    fprintf(d->f, "<text class=\"title\" x=\"10\" y=\"22\">fakehyp: guest private memory, %zu events</text>\n",
            d->events->nr);
    for (size_t i = 0; i < d->lanes.nr; i++) {
        fprintf(d->f, "<line class=\"life\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n", lane_x(i), HEAD - 10,
                lane_x(i), foot);
        put_head(d, i, HEAD - 50);
        put_head(d, i, foot);
    }
    put_holders(d);
    for (size_t r = 0; r < d->nr_rows; r++) {
        put_line(d, r, width);
        put_row(d, r);
    }
    fprintf(d->f, "</svg>\n");
}

bool picture_svg(const struct events *events, FILE *f)
{
    struct drawing d = {.events = events,
                        .f = f,
                        .rows = calloc(2 * events->nr + 1, sizeof(struct row)),
                        .within = calloc(events->nr + 1, sizeof(size_t))};
    bool ok = d.rows && d.within && lanes_find(events, &d.lanes);

    if (ok) {
        find_rows(&d);
        draw(&d);
    }
    lanes_free(&d.lanes);
    free(d.rows);
    free(d.within);
    return ok;
}
