/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool wrong(struct events *events, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(struct events *events, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(events->error, sizeof(events->error), format, args);
    va_end(args);
    return false;
}

/* A number, or what does not fit in 63 bits as "0x...".  A key that is left out is 0. */
static bool read_u64(struct events *events, const json_t *object, const char *key, uint64_t *value)
{
    const json_t *v = json_object_get(object, key);
    const char *s = json_string_value(v);
    char *end = NULL;

    *value = 0;
    if (!v)
        return true;
    if (json_is_integer(v) && json_integer_value(v) >= 0) {
        *value = (uint64_t)json_integer_value(v);
        return true;
    }
    if (s && !strncmp(s, "0x", 2) && strlen(s) <= 18) {
        *value = strtoull(s, &end, 16);
        if (end != s && !*end)
            return true;
    }
    return wrong(events, "\"%s\" is no number from 0 on", key);
}

static bool read_u32(struct events *events, const json_t *object, const char *key, uint32_t *value)
{
    uint64_t wide;

    if (!read_u64(events, object, key, &wide))
        return false;
    *value = (uint32_t)wide;
    return wide <= UINT32_MAX ? true : wrong(events, "\"%s\" is above 32 bits", key);
}

static enum host_event_kind kind_of(const char *name)
{
    unsigned kind = 0;

    while (kind < HOST_EV_COUNT && strcmp(trace_event_name((enum host_event_kind)kind), name) != 0)
        kind++;
    return (enum host_event_kind)kind;
}

static bool read_event(struct events *events, const json_t *object, struct event *event)
{
    struct host_event *ev = &event->e.event;
    const json_t *rc = json_object_get(object, "rc"), *note = json_object_get(object, "note");
    const char *name = json_string_value(json_object_get(object, "ev"));

    if (!name)
        return wrong(events, "\"ev\" is missing");
    if (!read_u64(events, object, "seq", &event->e.seq) || !read_u64(events, object, "t_ns", &event->e.t_ns) ||
        !read_u64(events, object, "task", &event->e.task) || !read_u64(events, object, "vm", &ev->vm) ||
        !read_u64(events, object, "gmem", &ev->gmem) || !read_u64(events, object, "off", &ev->offset) ||
        !read_u64(events, object, "len", &ev->size) || !read_u64(events, object, "a0", &ev->a0) ||
        !read_u64(events, object, "a1", &ev->a1) || !read_u32(events, object, "pid", &ev->pid) ||
        !read_u32(events, object, "vcpu", &ev->vcpu))
        return false;
    if (!event->e.seq)
        return wrong(events, "\"seq\" is missing");
    if ((rc && !json_is_integer(rc)) || (note && !json_is_string(note)))
        return wrong(events, "\"%s\" is of the wrong type", rc && !json_is_integer(rc) ? "rc" : "note");
    ev->rc = json_integer_value(rc);
    snprintf(ev->note, sizeof(ev->note), "%s", note ? json_string_value(note) : "");
    snprintf(event->name, sizeof(event->name), "%s", name);
    ev->kind = kind_of(name);
    return true;
}

bool events_add(struct events *events, const json_t *object)
{
    if (events->nr == events->room) {
        size_t room = events->room ? 2 * events->room : 256;
        struct event *grown = reallocarray(events->list, room, sizeof(*grown));
        if (!grown)
            return wrong(events, "no memory");
        events->list = grown;
        events->room = room;
    }
    struct event *event = &events->list[events->nr];
    *event = (struct event){.line = events->line, .run = events->runs ? events->runs - 1 : 0};
    if (!json_is_object(object))
        return wrong(events, "no JSON object");
    if (!read_event(events, object, event))
        return false;
    events->nr++;
    return true;
}

static bool read_line(struct events *events, const char *line, size_t len)
{
    json_error_t error;
    json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
    const json_t *schema = json_object_get(object, "schema");
    bool ok;

    if (!object) {
        ok = wrong(events, "%s: %s", line[len - 1] == '\n' ? "no JSON" : "the line is cut off", error.text);
    } else if (!schema) {
        ok = events_add(events, object);
    } else if (json_integer_value(schema) == TRACE_SCHEMA) {
        events->runs++;
        ok = true;
    } else {
        ok = wrong(events, "schema %" JSON_INTEGER_FORMAT ": this program reads %d", json_integer_value(schema),
                   TRACE_SCHEMA);
    }
    json_decref(object);
    return ok;
}

bool events_read(struct events *events, FILE *f)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t len;
    bool ok = true;

    while (ok && (len = getline(&line, &size, f)) > 0) {
        events->line++;
        ok = read_line(events, line, (size_t)len);
    }
    if (ok && ferror(f))
        ok = wrong(events, "%s", strerror(errno));
    free(line);
    return ok;
}

bool events_load(struct events *events, const char *path, const char *who, struct ctl_io *io)
{
    bool standard = !strcmp(path, "-"), ok;
    FILE *f = standard ? stdin : fopen(path, "re");

    if (!f) {
        fprintf(io->err, "%s: %s: %s\n", who, path, strerror(errno));
        return false;
    }
    ok = events_read(events, f);
    if (!standard)
        fclose(f);
    if (!ok)
        fprintf(io->err, "%s: %s:%lu: %s\n", who, path, events->line, events->error);
    return ok;
}

void events_only_vm(struct events *events, uint64_t vm)
{
    size_t nr = 0;

    for (size_t i = 0; i < events->nr; i++) {
        const struct host_event *ev = &events->list[i].e.event;
        bool of_vm = ev->vm == vm;
        /* Some say only the file; what said its VM came before, and was kept. */
        for (size_t j = 0; j < nr && !of_vm && !ev->vm && ev->gmem; j++)
            of_vm = events->list[j].run == events->list[i].run && events->list[j].e.event.gmem == ev->gmem;
        if (of_vm || ev->kind == HOST_EV_client)
            events->list[nr++] = events->list[i];
    }
    events->nr = nr;
}

void events_free(struct events *events)
{
    free(events->list);
    *events = (struct events){.list = NULL};
}
