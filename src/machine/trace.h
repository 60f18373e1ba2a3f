/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The trace: a ring of the last events, and JSON lines.
 *
 * One schema, version 1, an object a line: seq, t_ns, task, ev and, where they
 * are not zero, vm, gmem, off, len, a0, a1, pid, vcpu, rc, note.  HOST_EVENT_MAP in
 * src/host/host.h says what each event puts there, doc/protocol.md tells users.
 */
#ifndef SRC_MACHINE_TRACE_H
#define SRC_MACHINE_TRACE_H

#include <stdio.h>

#include "src/host/host.h"

#define TRACE_SCHEMA 1

struct trace;

struct trace_entry {
    uint64_t seq, t_ns, task;
    struct host_event event;
};

/* Keeps the last `capacity` events.  file may be NULL and stays the caller's.  NULL when out of memory. */
struct trace *trace_new(size_t capacity, FILE *file);
void trace_free(struct trace *trace);
/* Writes the line that tells a whole file from one that was cut off; trace_free() does too.  Nothing follows it. */
void trace_end(struct trace *trace);
void trace_add(struct trace *trace, uint64_t t_ns, uint64_t task, const struct host_event *event);
/* Sequence number of the next event; the first is 1. */
uint64_t trace_next(const struct trace *trace);
/* The entry with number seq, or the oldest that is kept when it is gone; NULL past the end. */
const struct trace_entry *trace_get(const struct trace *trace, uint64_t seq);
const char *trace_event_name(enum host_event_kind kind);
/* What a guest's function id is called; NULL: it has no name here. */
const char *trace_call_name(uint64_t id);
/* Words for people, one line without newline; returns the length. */
size_t trace_describe(const struct trace_entry *entry, char *buf, size_t size);
/* One JSON object without newline; none is longer than TRACE_JSON_MAX with its terminating 0. */
#define TRACE_JSON_MAX 1024
size_t trace_json(const struct trace_entry *entry, char *buf, size_t size);

#endif
