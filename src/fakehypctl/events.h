/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Events of a trace, read back: from a file of JSON lines or from the daemon's
 * answer.  doc/protocol.md has the schema.
 */
#ifndef SRC_FAKEHYPCTL_EVENTS_H
#define SRC_FAKEHYPCTL_EVENTS_H

#include <jansson.h>

#include "src/fakehypctl/out.h"
#include "src/machine/trace.h"

struct event {
    struct trace_entry e; /* e.event.kind is HOST_EV_COUNT of an event that is newer than this program */
    char name[24];        /* what `ev` says */
    unsigned run;         /* of which trace of the file it is, from 0 */
    unsigned long line;   /* in the file, from 1 */
};

struct events {
    struct event *list;
    size_t nr, room;
    unsigned runs;      /* traces that have begun: each begins with a line of its own */
    unsigned long line; /* read last */
    char error[200];    /* what is wrong with that line */
};

/* One event; false with events->error. */
bool events_add(struct events *events, const json_t *object);
/*
 * All lines of a stream.  False with events->error and events->line at the
 * first that is no event; those before it are there.
 */
bool events_read(struct events *events, FILE *f);
/* As a command reads its input: `path`, or stdin for "-".  False after an explanation that begins with `who`. */
bool events_load(struct events *events, const char *path, const char *who, struct ctl_io *io);
/* Drops those that are not of this VM, nor of one of its files. */
void events_only_vm(struct events *events, uint64_t vm);
void events_free(struct events *events);

#endif
