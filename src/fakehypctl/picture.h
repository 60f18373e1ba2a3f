/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pictures of a trace: a sequence diagram (svg.c) and the trace-event JSON
 * that Perfetto and chrome://tracing open (chrome.c).  Both have the same
 * lanes: the processes, EL1, EL2, and the vCPUs of the guests.
 */
#ifndef SRC_FAKEHYPCTL_PICTURE_H
#define SRC_FAKEHYPCTL_PICTURE_H

#include "src/fakehypctl/events.h"

enum lane_kind { LANE_PROCESS, LANE_EL1, LANE_EL2, LANE_GUEST };

struct lane {
    enum lane_kind kind;
    unsigned run;  /* of a guest: VMs of two traces have the same numbers */
    uint64_t vm;   /* of a guest */
    uint32_t id;   /* pid, or number of the vCPU */
    char name[64]; /* of a process what it said when it came, "" when it never came */
};

struct lanes {
    struct lane *list;
    size_t nr;
    size_t el1, el2;
};

/* The lanes from left to right: false when out of memory. */
bool lanes_find(const struct events *events, struct lanes *lanes);
/* Where an event's process and guest are, or lanes->nr: it has none. */
size_t lane_of_process(const struct lanes *lanes, uint32_t pid);
size_t lane_of_guest(const struct lanes *lanes, const struct event *event);
void lanes_free(struct lanes *lanes);

/* What was called, in a few words: "convert [0x0, +0x1000) to private". */
void event_words(const struct event *event, char *buf, size_t size);
/* What came of it: "0", "EAGAIN at 0x2000", "INVALID_PARAMETER". */
void event_result(const struct event *event, char *buf, size_t size);
/* True where the event says that something was refused or went wrong. */
bool event_failed(const struct event *event);
/*
 * Index of the first event that happened within the call that event i ends:
 * i when there is none.
 */
size_t event_begins(const struct events *events, size_t i);

/* Microseconds after the first event.  Where no time passes, as in most simulations, each event takes one. */
double event_us(const struct events *events, size_t i);
/* Whether any time passes. */
bool events_have_time(const struct events *events);

/* Both: false when out of memory.  Whether f could be written the caller looks. */
bool picture_svg(const struct events *events, FILE *f);
bool picture_chrome(const struct events *events, FILE *f);

#endif
