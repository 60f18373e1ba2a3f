/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The options of all commands: one table names, describes and types them; a
 * command lists which of them it takes.
 */
#ifndef SRC_FAKEHYPCTL_OPTIONS_H
#define SRC_FAKEHYPCTL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/fakehypctl/out.h"

struct ctl_command;

enum ctl_opt {
    CTL_OPT_JSON,
    CTL_OPT_SOCKET,
    CTL_OPT_TIMEOUT,
    CTL_OPT_HELP,
    CTL_OPT_VERSION,
    CTL_OPT_GMEM,
    CTL_OPT_OFFSET,
    CTL_OPT_VM,
    CTL_OPT_GPA,
    CTL_OPT_SINCE,
    CTL_OPT_LIMIT,
    CTL_OPT_FOLLOW,
    CTL_OPT_HOST,
    CTL_OPT_STATE,
    CTL_OPT_FIXUP,
    CTL_OPT_LIVE,
    CTL_OPT_POLICY,
    CTL_OPT_TRACKER,
    CTL_OPT_HYP,
    CTL_OPT_BUGS,
    CTL_OPT_TAP,
    CTL_OPT_MATRIX,
    CTL_OPT_STEP,
    CTL_OPT_PREDICT,
    CTL_OPT_VERBOSE,
    CTL_OPT_QUIET,
    CTL_OPT_REPEAT,
    CTL_OPT_FILE,
    CTL_OPT_SVG,
    CTL_OPT_CHROME,
    CTL_OPT_TRACE,
    CTL_OPT_EXHAUSTIVE,
    CTL_OPT_SHARD,
    CTL_OPT_REPLAY,
    CTL_NR_OPTS,
};

#define CTL_OPT_BIT(opt) (UINT64_C(1) << (opt))
#define CTL_COMMON_OPTIONS                                                                                             \
    (CTL_OPT_BIT(CTL_OPT_JSON) | CTL_OPT_BIT(CTL_OPT_SOCKET) | CTL_OPT_BIT(CTL_OPT_TIMEOUT) | CTL_OPT_BIT(CTL_OPT_HELP))

struct ctl_args {
    uint64_t given;                /* CTL_OPT_BIT()s */
    const char *socket;            /* as given; NULL: the default */
    uint64_t num[CTL_NR_OPTS];     /* values of the numeric options, 0 where not given */
    const char *text[CTL_NR_OPTS]; /* values of those that take a text, NULL where not given */
    char *const *operands;         /* of a command that has any */
    size_t nr_operands;
};

static inline bool ctl_given(const struct ctl_args *args, enum ctl_opt opt)
{
    return args->given & CTL_OPT_BIT(opt);
}

/*
 * A decimal or 0x number; with `suffixes`, K, M, G or T multiplies it by a
 * power of 1024.  0; -EINVAL not such a number; -ERANGE above `max`.
 */
int ctl_parse_number(const char *text, bool suffixes, uint64_t max, uint64_t *value);

/*
 * Parses argv[1..] with the options of `allowed`.  Stops at the first operand;
 * `mixed`: operands may stand among options, and argv is sorted so that they
 * come last.  Returns the index of the first operand (argc: there is none), or
 * -EINVAL after an explanation on io->err that begins with `who`.
 */
int ctl_parse_options(int argc, char **argv, uint64_t allowed, bool mixed, const char *who, struct ctl_args *args,
                      struct ctl_io *io);

/* One line for each option of `allowed`. */
void ctl_print_options(struct ctl_io *io, uint64_t allowed);

#endif
