/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For the tests of fakehypctl: a daemon that answers with what the test says,
 * and runs of the tool whose output is kept.
 */
#ifndef TESTS_UNIT_CTL_FAKE_H
#define TESTS_UNIT_CTL_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#define CTL_FAKE_ANSWERS 4
#define CTL_FAKE_TEXT 65536

/*
 * Shared with the daemon's process.  It gives answer[0], answer[1]... to the
 * queries of one connection, and hangs up after the last one.
 */
struct ctl_fake {
    char path[108];
    uint32_t version; /* of the protocol, that it says it speaks */
    unsigned nr_answers;
    char answer[CTL_FAKE_ANSWERS][CTL_FAKE_TEXT];
    unsigned pieces; /* frames that an answer is cut into */
    int error;       /* answered instead of them, unless 0 */
    char message[128];
    /* The last query that came. */
    unsigned nr_queries;
    struct {
        char what[16];
        uint64_t vm, gmem, offset, gpa, since;
        uint32_t limit;
        bool by_gpa, any, state;
    } query;
};

/* Starts the daemon; it listens when this returns.  NULL: it could not be started. */
struct ctl_fake *ctl_fake_start(void);
/* Ends it and removes its socket. */
void ctl_fake_stop(struct ctl_fake *fake);
/* The daemon's answer to the next queries, whatever they ask for. */
void ctl_fake_answer(struct ctl_fake *fake, const char *json);
/* As the above, after those set so far. */
void ctl_fake_answer_next(struct ctl_fake *fake, const char *json);

struct ctl_output {
    int status;
    char out[CTL_FAKE_TEXT], err[CTL_FAKE_TEXT];
};
/* Runs `fakehypctl` with these arguments, NULL at the end; the output is valid until the next run. */
const struct ctl_output *ctl_fake_run(const char *arg, ...) __attribute__((sentinel));

#endif
