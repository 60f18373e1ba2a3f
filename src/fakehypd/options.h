/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of fakehypd, and what it inherits from a service manager. */
#ifndef SRC_FAKEHYPD_OPTIONS_H
#define SRC_FAKEHYPD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "src/fakehypd/log.h"
#include "src/machine/machine.h"
#include "src/fakehypd/sandbox.h"

struct options {
    char socket[128]; /* path, or "@name" for an abstract one; unused with listen_fd */
    int listen_fd;    /* -1: none */
    int notify_fd;    /* -1: none */
    int points_fd;    /* -1: none */
    bool daemonise;
    bool terminate;
    bool print_capabilities;
    enum log_level log_level;
    const char *log_file, *trace_file, *pidfile; /* NULL: none */
    enum sandbox seccomp;
    enum machine_oracle oracle;
    uint64_t memory;
};

enum options_result {
    OPTIONS_RUN,
    OPTIONS_DONE, /* --help, --version: exit 0 */
    OPTIONS_BAD,  /* explained on err: exit 2 */
};

/* The strings in `options` are those of argv. */
enum options_result options_parse(int argc, char **argv, struct options *options, FILE *out, FILE *err);

/* "512M", "256G"...: bytes.  0, -EINVAL no such number, -ERANGE beyond 64 bits. */
int options_parse_size(const char *text, uint64_t *value);

#endif
