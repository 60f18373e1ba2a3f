/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An innocent client: a process with a VM of its own that converts a page to and fro while something else goes on.  Its
 * round trips before and meanwhile are printed, its data is checked, and no round may take ten seconds.
 */
#ifndef TESTS_COMMON_LIVE_BYSTANDER_H
#define TESTS_COMMON_LIVE_BYSTANDER_H

#include "tests/common/live_file.h"

#define BYSTANDER_PAIRS 11u

struct bystander_page;

struct bystander {
    struct bystander_page *shared;
    pid_t pid;
    uint64_t rss_kib;
    int64_t fds;
    unsigned nr_pairs;
    double ratio[BYSTANDER_PAIRS];
};

/* Starts it, and returns when its undisturbed round trips are known. */
void bystander_begin(struct bystander *b);
/* From now on it is disturbed. */
void bystander_during(struct bystander *b);
/*
 * Or it is disturbed and left alone by turns (`nr`, at most BYSTANDER_PAIRS), so that whatever else the machine is at
 * falls upon both: `nr` pairs of some rounds while set(arg, false) has returned last, and some while set(arg, true)
 * has.  Then the median of the pairs' ratios is what bystander_end() prints.
 */
void bystander_pairs(struct bystander *b, unsigned nr, void (*set)(void *arg, bool disturbs), void *arg);
/* Ends it and prints how it fared beside `what`; the daemon's log must have the text (NULL: nothing is to be told). */
void bystander_end(struct bystander *b, const char *what, const char *logged);
/* When that is gone, too: the daemon's memory and descriptors are what they were before bystander_begin(). */
void bystander_check_daemon(const struct bystander *b, const char *what);

#endif
