/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fakehypctl: the commands, what they are given and what they write to.
 *
 * Everything but main() is a library, so that tests run the tool that ships.
 */
#ifndef SRC_FAKEHYPCTL_CTL_H
#define SRC_FAKEHYPCTL_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/fakehypctl/options.h"
#include "src/fakehypctl/out.h"

enum ctl_exit {
    CTL_OK = 0,
    CTL_PROBLEM = 1, /* the answer is that something is wrong */
    CTL_FAILED = 2,  /* no answer: usage, no daemon, an answer that makes no sense */
};

struct fakehyp_query_args;

struct ctl_command {
    const char *name;
    const char *summary;  /* one line for the list of commands */
    const char *synopsis; /* its own arguments */
    const char *details;  /* further lines of its --help */
    uint64_t options;     /* CTL_OPT_BIT()s beyond CTL_COMMON_OPTIONS */
    bool operands;        /* it takes any */
    bool no_daemon;       /* it asks none that runs already: no --socket, no --timeout */
    enum ctl_exit (*run)(const struct ctl_args *args, struct ctl_io *io);
};

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_nr_commands;

/* Runs the tool on stdout and stderr; returns its exit status. */
int ctl_main(int argc, char **argv);
/* The same on streams of the caller's. */
enum ctl_exit ctl_run(int argc, char **argv, struct ctl_io *io);

enum ctl_exit ctl_doctor(const struct ctl_args *args, struct ctl_io *io);
enum ctl_exit ctl_status(const struct ctl_args *args, struct ctl_io *io);
enum ctl_exit ctl_page(const struct ctl_args *args, struct ctl_io *io);
enum ctl_exit ctl_ptdump(const struct ctl_args *args, struct ctl_io *io);
enum ctl_exit ctl_audit(const struct ctl_args *args, struct ctl_io *io);
enum ctl_exit ctl_kernel_load(const struct ctl_args *args, struct ctl_io *io);
enum ctl_exit ctl_scenarios(const struct ctl_args *args, struct ctl_io *io);
enum ctl_exit ctl_trace(const struct ctl_args *args, struct ctl_io *io);

/* The page that the options name, for a query; false after a complaint that begins with `who`. */
bool ctl_names_page(const struct ctl_args *args, const char *who, struct fakehyp_query_args *query, struct ctl_io *io);

#endif
