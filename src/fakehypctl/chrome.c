/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A trace as trace-event JSON, which https://ui.perfetto.dev and
 * chrome://tracing open: each lane is a track, a call is a slice from the
 * first event within it, and a reference is a slice of its own from pin to
 * unpin.
 */
#include "src/fakehypctl/picture.h"

#include <inttypes.h>
#include <stdlib.h>

struct timeline {
    const struct events *events;
    struct lanes lanes;
    json_t *list;
};

/* The number of a lane is that of its process and its thread there. */
static json_t *item(const struct timeline *t, const char *phase, size_t lane, size_t i)
{
    /* Numbers as the format has them: microseconds, and fractions are allowed. */
    return json_pack("{s:s, s:I, s:I, s:f}", "ph", phase, "pid", (json_int_t)lane + 1, "tid", (json_int_t)lane + 1,
                     "ts", event_us(t->events, i));
}

static void name_lane(const struct timeline *t, size_t i)
{
    const struct lane *lane = &t->lanes.list[i];
    static const char *const levels[] = {"EL0", "EL1", "EL2", "EL1 of the guest"};
    char name[128];

    if (lane->kind == LANE_PROCESS)
        snprintf(name, sizeof(name), "%s (pid %u)", lane->name[0] ? lane->name : "process", lane->id);
    else if (lane->kind == LANE_GUEST)
        snprintf(name, sizeof(name), "guest of VM %" PRIu64 ", vCPU %u", lane->vm, lane->id);
    else
        snprintf(name, sizeof(name), "%s", lane->name);
    json_array_append_new(t->list, json_pack("{s:s, s:s, s:I, s:{s:s}}", "ph", "M", "name", "process_name", "pid",
                                             (json_int_t)i + 1, "args", "name", name));
    json_array_append_new(t->list,
                          json_pack("{s:s, s:s, s:I, s:I, s:{s:s}}", "ph", "M", "name", "thread_name", "pid",
                                    (json_int_t)i + 1, "tid", (json_int_t)i + 1, "args", "name", levels[lane->kind]));
    json_array_append_new(t->list, json_pack("{s:s, s:s, s:I, s:{s:I}}", "ph", "M", "name", "process_sort_index", "pid",
                                             (json_int_t)i + 1, "args", "sort_index", (json_int_t)i));
}

static size_t lane_of(const struct timeline *t, const struct event *event)
{
    const struct host_event *ev = &event->e.event;
    size_t lane;

    switch (ev->kind) {
    case HOST_EV_guest_abort:
    case HOST_EV_guest_call:
    case HOST_EV_guest_start:
    case HOST_EV_guest_end:
        lane = lane_of_guest(&t->lanes, event);
        break;
    case HOST_EV_hvc:
    case HOST_EV_move:
    case HOST_EV_reclaim:
    case HOST_EV_host_abort:
        lane = t->lanes.el2;
        break;
    case HOST_EV_busy:
        lane = t->lanes.el1;
        break;
    default:
        lane = lane_of_process(&t->lanes, ev->pid);
        break;
    }
    return lane < t->lanes.nr ? lane : t->lanes.el1;
}

static json_t *arguments(const struct event *event)
{
    char line[TRACE_JSON_MAX], result[80];
    json_t *args;

    trace_json(&event->e, line, sizeof(line));
    args = json_loads(line, 0, NULL);
    event_result(event, result, sizeof(result));
    json_object_set_new(args, "result", json_string(result));
    return args;
}

static void add_event(const struct timeline *t, size_t i)
{
    const struct event *event = &t->events->list[i];
    size_t begins = event_begins(t->events, i);
    char name[300];
    json_t *slice = item(t, begins < i ? "X" : "i", lane_of(t, event), begins);

    event_words(event, name, sizeof(name));
    if (begins < i)
        json_object_set_new(slice, "dur", json_real(event_us(t->events, i) - event_us(t->events, begins)));
    else
        json_object_set_new(slice, "s", json_string("t"));
    json_object_set_new(slice, "name", json_string(name));
    json_object_set_new(slice, "cat", json_string(event_failed(event) ? "refused" : event->name));
    json_object_set_new(slice, "args", arguments(event));
    json_array_append_new(t->list, slice);
}

/* One end of a reference's life. */
static void add_holder(const struct timeline *t, size_t i)
{
    const struct event *event = &t->events->list[i];
    const struct host_event *ev = &event->e.event;
    bool pin = ev->kind == HOST_EV_pin;
    json_t *end;
    char id[40], name[64];

    if (!pin && ev->kind != HOST_EV_unpin)
        return;
    end = item(t, pin ? "b" : "e", lane_of(t, event), i);
    snprintf(id, sizeof(id), "%u.%" PRIu64, event->run, ev->a1);
    snprintf(name, sizeof(name), "reference %" PRIu64, ev->a1);
    json_object_set_new(end, "cat", json_string("holder"));
    json_object_set_new(end, "id", json_string(id));
    json_object_set_new(end, "name", json_string(name));
    json_array_append_new(t->list, end);
}

bool picture_chrome(const struct events *events, FILE *f)
{
    struct timeline t = {.events = events, .list = json_array()};
    json_t *all = json_object();
    bool ok = t.list && all && lanes_find(events, &t.lanes);

    for (size_t i = 0; ok && i < t.lanes.nr; i++)
        name_lane(&t, i);
    for (size_t i = 0; ok && i < events->nr; i++) {
        add_event(&t, i);
        add_holder(&t, i);
    }
    if (ok) {
        json_object_set(all, "traceEvents", t.list);
        json_object_set_new(all, "displayTimeUnit", json_string("ns"));
        json_dumpf(all, f, JSON_COMPACT);
        fputc('\n', f);
    }
    json_decref(t.list);
    json_decref(all);
    lanes_free(&t.lanes);
    return ok;
}
