/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fakehypctl doctor: a table of probes, run and judged.
 */
#ifndef SRC_FAKEHYPCTL_DOCTOR_H
#define SRC_FAKEHYPCTL_DOCTOR_H

#include <jansson.h>
#include <stddef.h>

#include "src/fakehypctl/ctl.h"
#include "src/fakehypctl/probe.h"

enum doctor_need {
    DOCTOR_ESSENTIAL, /* without it the live stage does not run */
    DOCTOR_USEFUL,    /* without it something is slower or smaller */
    DOCTOR_OPTIONAL,  /* told, because people ask */
};

struct doctor_row {
    const char *group; /* heading; NULL: as the row before */
    const char *name;
    enum doctor_need need;
    probe_fn *probe;
    struct probe_arg arg;
};

struct doctor_tally {
    unsigned essential, missing; /* essential rows, and those of them that failed */
    unsigned limited;            /* useful rows that failed */
};

/* "ok", "missing", "limited", "absent" or "info". */
const char *doctor_verdict(const struct doctor_row *row, const struct probe_result *result);
/* Runs all rows in order. */
void doctor_examine(const struct doctor_row *rows, size_t n, struct probe_result *results);
struct doctor_tally doctor_count(const struct doctor_row *rows, const struct probe_result *results, size_t n);
void doctor_print(const struct doctor_row *rows, const struct probe_result *results, size_t n, struct ctl_io *io);
/* NULL: out of memory. */
json_t *doctor_json(const struct doctor_row *rows, const struct probe_result *results, size_t n);

#endif
