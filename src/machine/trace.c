/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/machine/trace.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct trace {
    FILE *file;
    size_t capacity;
    uint64_t next;
    struct trace_entry ring[];
};

struct trace *trace_new(size_t capacity, FILE *file)
{
    struct trace *t = calloc(1, sizeof(*t) + capacity * sizeof(t->ring[0]));
    if (!t)
        return NULL;
    t->file = file;
    t->capacity = capacity;
    t->next = 1;
    if (file)
        fprintf(file, "{\"schema\":%d}\n", TRACE_SCHEMA);
    return t;
}

static void write_line(const struct trace *t, const struct trace_entry *e)
{
    char line[TRACE_JSON_MAX];

    trace_json(e, line, sizeof(line));
    fprintf(t->file, "%s\n", line);
}

void trace_end(struct trace *t)
{
    uint64_t last = t->next - 1;
    const struct trace_entry end = {
        .seq = t->next, .t_ns = t->ring[last % t->capacity].t_ns, .event = {.kind = HOST_EV_end, .a0 = last}};

    if (!t->file)
        return;
    write_line(t, &end);
    fflush(t->file);
    t->file = NULL;
}

void trace_free(struct trace *t)
{
    if (t)
        trace_end(t);
    free(t);
}

void trace_add(struct trace *t, uint64_t t_ns, uint64_t task, const struct host_event *event)
{
    struct trace_entry *e = &t->ring[t->next % t->capacity];
    *e = (struct trace_entry){.seq = t->next++, .t_ns = t_ns, .task = task, .event = *event};
    if (t->file)
        write_line(t, e);
}

uint64_t trace_next(const struct trace *t)
{
    return t->next;
}

const struct trace_entry *trace_get(const struct trace *t, uint64_t seq)
{
    uint64_t oldest = t->next > t->capacity ? t->next - t->capacity : 1;
    if (seq < oldest)
        seq = oldest;
    return seq < t->next ? &t->ring[seq % t->capacity] : NULL;
}

const char *trace_event_name(enum host_event_kind kind)
{
    static const char *const names[] = {
#define X(name, doc) #name,
        HOST_EVENT_MAP(X)
#undef X
    };
    return (unsigned)kind < HOST_EV_COUNT ? names[kind] : "?";
}

struct out {
    char *buf;
    size_t size, len;
};

static void put(struct out *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct out *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(o->len < o->size ? o->buf + o->len : NULL, o->len < o->size ? o->size - o->len : 0, format, args);
    va_end(args);
    if (n > 0)
        o->len += (size_t)n;
}

/* Notes are program names and labels that clients chose. */
static void put_string(struct out *o, const char *text)
{
    put(o, "\"");
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            put(o, "\\%c", *p);
        else if (*p < 0x20 || *p >= 0x7f)
            put(o, "\\u%04x", *p);
        else
            put(o, "%c", *p);
    }
    put(o, "\"");
}

size_t trace_json(const struct trace_entry *e, char *buf, size_t size)
{
    struct out o = {buf, size, 0};
    const struct host_event *ev = &e->event;
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {{"vm", ev->vm}, {"gmem", ev->gmem}, {"off", ev->offset}, {"len", ev->size},
                  {"a0", ev->a0}, {"a1", ev->a1},     {"pid", ev->pid},    {"vcpu", ev->vcpu}};

    put(&o, "{\"seq\":%" PRIu64 ",\"t_ns\":%" PRIu64 ",\"task\":%" PRIu64 ",\"ev\":\"%s\"", e->seq, e->t_ns, e->task,
        trace_event_name(ev->kind));
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].value > INT64_MAX)
            /* What a guest passes may be any 64 bits; many readers of JSON have 63. */
            put(&o, ",\"%s\":\"0x%" PRIx64 "\"", fields[i].name, fields[i].value);
        else if (fields[i].value)
            put(&o, ",\"%s\":%" PRIu64, fields[i].name, fields[i].value);
    if (ev->rc)
        put(&o, ",\"rc\":%" PRId64, ev->rc);
    if (ev->note[0]) {
        put(&o, ",\"note\":");
        put_string(&o, ev->note);
    }
    put(&o, "}");
    return o.len;
}

static const char *result(const struct host_event *ev, char *buf, size_t size)
{
    if (!ev->rc)
        return "ok";
    if (ev->rc < 0 && ev->rc > -4096 && strerrorname_np((int)-ev->rc))
        return strerrorname_np((int)-ev->rc);
    snprintf(buf, size, "%" PRId64, ev->rc);
    return buf;
}

const char *trace_call_name(uint64_t id)
{
    switch (id) {
    case 0xC6000002:
        return "HYP_MEMINFO";
    case 0xC6000003:
        return "MEM_SHARE";
    case 0xC6000004:
        return "MEM_UNSHARE";
    case 0x84000008:
        return "PSCI SYSTEM_OFF";
    default:
        return NULL;
    }
}

size_t trace_describe(const struct trace_entry *e, char *buf, size_t size)
{
    struct out o = {buf, size, 0};
    const struct host_event *ev = &e->event;
    char number[24];
    const char *res = result(ev, number, sizeof(number));

    switch (ev->kind) {
    case HOST_EV_gmem_create:
        put(&o, "guest_memfd of 0x%" PRIx64 " bytes, flags 0x%" PRIx64, ev->size, ev->a0);
        break;
    case HOST_EV_slot_set:
        put(&o, "memslot %" PRIu64 ": [0x%" PRIx64 ", +0x%" PRIx64 ") at gpa 0x%" PRIx64 " by pid %u: %s", ev->a1,
            ev->offset, ev->size, ev->a0, ev->pid, res);
        break;
    case HOST_EV_punch:
        put(&o, "hole punched in [0x%" PRIx64 ", +0x%" PRIx64 ") by pid %u: %s", ev->offset, ev->size, ev->pid, res);
        break;
    case HOST_EV_convert:
        put(&o, "convert [0x%" PRIx64 ", +0x%" PRIx64 ") to %s by pid %u: %s", ev->offset, ev->size,
            ev->a0 ? "private" : "shared", ev->pid, res);
        if (ev->rc == -11)
            put(&o, " at 0x%" PRIx64, ev->a1);
        break;
    case HOST_EV_busy:
        put(&o, "page 0x%" PRIx64 " in use: refcount %" PRIu64 ", mapcount %" PRIu64 ", first holder pid %u",
            ev->offset, ev->a0, ev->a1, ev->pid);
        break;
    case HOST_EV_guest_abort:
        put(&o, "guest stage-2 abort at gpa 0x%" PRIx64 " (%s): ", ev->offset, ev->a0 ? "write" : "read");
        if (ev->rc)
            put(&o, "%s", res);
        else if (ev->a1)
            put(&o, "pfn 0x%" PRIx64, ev->a1);
        else
            put(&o, "no memory slot");
        break;
    case HOST_EV_guest_call:
        put(&o, "guest %s(0x%" PRIx64 ") = %" PRId64, trace_call_name(ev->a0) ? trace_call_name(ev->a0) : "hypercall",
            ev->a1, ev->rc);
        break;
    case HOST_EV_pin:
        put(&o, "pin %" PRIu64 " of [0x%" PRIx64 ", +0x%" PRIx64 ") by pid %u", ev->a1, ev->offset, ev->size, ev->pid);
        break;
    case HOST_EV_unpin:
        put(&o, "unpin %" PRIu64 " of [0x%" PRIx64 ", +0x%" PRIx64 ")", ev->a1, ev->offset, ev->size);
        break;
    case HOST_EV_move:
        put(&o, "%" PRIu64 " populated page%s of [0x%" PRIx64 ", +0x%" PRIx64 ") moved %s", ev->a1,
            ev->a1 == 1 ? "" : "s", ev->offset, ev->size, ev->a0 ? "to the host's reach" : "out of the host's reach");
        break;
    case HOST_EV_dma:
        put(&o, "DMA %s at IOVA 0x%" PRIx64 ": %s", ev->a0 ? "write" : "read", ev->a1, ev->rc ? "IOMMU fault" : "ok");
        break;
    case HOST_EV_memory_failure:
        put(&o, "memory failure of pfn 0x%" PRIx64 " at 0x%" PRIx64 ": %s", ev->a1, ev->offset, res);
        break;
    case HOST_EV_stray:
        put(&o, "host access to private memory at address 0x%" PRIx64 ", PC 0x%" PRIx64 ", pid %u", ev->a0, ev->a1,
            ev->pid);
        break;
    default:
        put(&o, "%s", trace_event_name(ev->kind));
        if (ev->size)
            put(&o, " [0x%" PRIx64 ", +0x%" PRIx64 ")", ev->offset, ev->size);
        if (ev->a0)
            put(&o, " a0=0x%" PRIx64, ev->a0);
        if (ev->a1)
            put(&o, " a1=0x%" PRIx64, ev->a1);
        if (ev->pid)
            put(&o, " pid %u", ev->pid);
        if (ev->rc)
            put(&o, ": %s", res);
        break;
    }
    if (ev->note[0])
        put(&o, " (%s)", ev->note);
    return o.len;
}
