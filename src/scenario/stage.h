/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a stage offers to the runner: worlds, calls in them, and calls that are
 * stopped on their way.
 *
 * Everything here is called from the runner's own stack and returns: a call
 * that would wait for ever is a verdict (`broken`) that says where it stands.
 */
#ifndef SRC_SCENARIO_STAGE_H
#define SRC_SCENARIO_STAGE_H

#include <stdio.h>

#include "src/scenario/call.h"

/* Under what a scenario is played. */
struct sc_setting {
    char policy[2];   /* "A".."E" */
    char tracker[16]; /* inode, vm, folio, hyp */
    char hyp[24];     /* pkvm, sw-protected, firmware */
    char bugs[96];    /* of every world, names as in HOST_BUG_MAP; a world may add to them */
};

struct sc_world_config {
    struct sc_setting setting;
    uint64_t pages; /* of the file */
    uint64_t flags; /* GUEST_MEMFD_FLAG_* */
    bool private_;  /* all of it is converted before the script goes on */
    bool unilateral, unprotected, follow;
    bool ask_hyp, rfc_library; /* as of struct vm_config */
    bool small;                /* made many thousand times: 16 MiB */
    unsigned vcpus, order, abi;
    char bugs[200]; /* names, separated by blanks */
    FILE *trace;    /* gets the events when the world's machine has ended; NULL: nobody */
};

/* A call that was started; the stage frees it with its world. */
struct sc_op;

enum sc_progress {
    SC_OP_ENDED,   /* it has a verdict */
    SC_OP_STOPPED, /* at the point that was asked for */
    SC_OP_WAITS,   /* for something that nobody is about to do */
};

typedef void sc_report_fn(void *ctx, const char *text);

struct sc_stage {
    const char *name; /* "sim" or "live" */
    /* NULL, or why this machine cannot play on it.  May be NULL: it always can. */
    const char *(*lacks)(void);
    /* A VM, its file, its VMM that has it mapped.  NULL after words in `why`. */
    void *(*world_new)(const struct sc_world_config *config, char *why, size_t size);
    /* Lets what was started end, takes everything down and looks whether anything is left: reports each problem. */
    void (*world_free)(void *world, sc_report_fn *report, void *ctx);
    void (*perform)(void *world, const struct sc_call *call, struct sc_verdict *verdict);

    /* NULL: the stage cannot; `why` says so. */
    struct sc_op *(*start)(void *world, const struct sc_call *call, char *why, size_t size);
    /* Goes on: up to the next passage of `label`, or without one to the end. */
    enum sc_progress (*go)(struct sc_op *op, const char *label);
    /* The label that it passed last, "" when none yet. */
    const char *(*where)(const struct sc_op *op);
    const struct sc_verdict *(*verdict)(const struct sc_op *op);

    /* Every table against every other. */
    void (*audit)(void *world, sc_report_fn *report, void *ctx);
    /* The last events of a page of the file, oldest first. */
    void (*history)(void *world, int file, uint64_t page, sc_report_fn *report, void *ctx);
};

extern const struct sc_stage sc_sim_stage, sc_live_stage;

#endif
