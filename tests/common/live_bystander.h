/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An innocent client: a process with a VM of its own that converts a page to and fro while something else goes on.  Its
 * round trips before and meanwhile are printed, its data is checked, and no round may take ten seconds.
 */
#ifndef TESTS_COMMON_LIVE_BYSTANDER_H
#define TESTS_COMMON_LIVE_BYSTANDER_H

#include "tests/common/live_file.h"

struct bystander_page;

struct bystander {
    struct bystander_page *shared;
    pid_t pid;
    uint64_t rss_kib;
    int64_t fds;
};

/* Starts it, and returns when its undisturbed round trips are known. */
void bystander_begin(struct bystander *b);
/* From now on it is disturbed. */
void bystander_during(struct bystander *b);
/* Ends it and prints how it fared beside `what`; the daemon's log must have the text (NULL: nothing is to be told). */
void bystander_end(struct bystander *b, const char *what, const char *logged);
/* When that is gone, too: the daemon's memory and descriptors are what they were before bystander_begin(). */
void bystander_check_daemon(const struct bystander *b, const char *what);

#endif
