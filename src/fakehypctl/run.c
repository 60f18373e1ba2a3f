/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl run: plays scenarios. */
#include "src/fakehypctl/ctl.h"

#include <errno.h>
#include <string.h>

#include "src/scenario/scenario.h"

/* "2/4": false when it is no such thing. */
static bool read_shard(const char *text, unsigned *shard, unsigned *shards)
{
    int end = 0;
    return sscanf(text, "%4u/%4u%n", shard, shards, &end) == 2 && !text[end] && *shard >= 1 && *shard <= *shards;
}

enum ctl_exit ctl_scenarios(const struct ctl_args *args, struct ctl_io *io)
{
    struct sc_options options = {
        .paths = args->operands,
        .nr_paths = args->nr_operands,
        .policy = args->text[CTL_OPT_POLICY],
        .tracker = args->text[CTL_OPT_TRACKER],
        .hyp = args->text[CTL_OPT_HYP],
        .bugs = args->text[CTL_OPT_BUGS],
        .live = ctl_given(args, CTL_OPT_LIVE),
        .format = ctl_given(args, CTL_OPT_JSON)     ? SC_FORMAT_JSON
                  : ctl_given(args, CTL_OPT_TAP)    ? SC_FORMAT_TAP
                  : ctl_given(args, CTL_OPT_MATRIX) ? SC_FORMAT_MATRIX
                                                    : SC_FORMAT_TEXT,
        .step = ctl_given(args, CTL_OPT_STEP),
        .predict = ctl_given(args, CTL_OPT_PREDICT),
        .verbose = ctl_given(args, CTL_OPT_VERBOSE),
        .quiet = ctl_given(args, CTL_OPT_QUIET),
        .repeats = ctl_given(args, CTL_OPT_REPEAT) ? args->num[CTL_OPT_REPEAT] : 1,
        .exploring = {.exhaustive = ctl_given(args, CTL_OPT_EXHAUSTIVE),
                      .replay = args->text[CTL_OPT_REPLAY],
                      .progress = ctl_given(args, CTL_OPT_QUIET) ? NULL : io->err,
                      .figures = ctl_given(args, CTL_OPT_VERBOSE) ? io->err : NULL},
        .colour = io->colour,
        .out = io->out,
        .err = io->err,
        .in = stdin,
    };
    const char *shard = args->text[CTL_OPT_SHARD];
    if (shard && !read_shard(shard, &options.exploring.shard, &options.exploring.shards)) {
        fprintf(io->err, "fakehypctl run: --shard: \"%s\" is no part: 1/4 to 4/4 would be\n", shard);
        return CTL_FAILED;
    }
    if (!options.nr_paths) {
        fprintf(io->err, "fakehypctl run: which scenario?  Give a script or a folder of them\n");
        return CTL_FAILED;
    }
    if (!args->text[CTL_OPT_TRACE])
        return (enum ctl_exit)sc_run(&options);
    options.trace = fopen(args->text[CTL_OPT_TRACE], "we");
    if (!options.trace) {
        fprintf(io->err, "fakehypctl run: --trace: %s: %s\n", args->text[CTL_OPT_TRACE], strerror(errno));
        return CTL_FAILED;
    }
    enum ctl_exit status = (enum ctl_exit)sc_run(&options);
    bool written = !ferror(options.trace);
    if (fclose(options.trace) || !written) {
        fprintf(io->err, "fakehypctl run: --trace: %s: %s\n", args->text[CTL_OPT_TRACE], strerror(errno));
        return CTL_FAILED;
    }
    return status;
}
