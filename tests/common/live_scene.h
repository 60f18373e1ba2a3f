/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One operation of a VMM, in a scene that can be stopped and killed anywhere.
 *
 * The VMM process has a guest, which keeps secrets in pages that are never
 * shared, and carries out one operation when told.  The reader is a process
 * that has both files mapped and reads them without pause, with its views and
 * with pread(): no byte that the guest keeps secret may ever be seen by it.
 */
#ifndef TESTS_COMMON_LIVE_SCENE_H
#define TESTS_COMMON_LIVE_SCENE_H

#include <stdatomic.h>

#include "tests/common/live_rig.h"

/* What the VMM does. */
struct scene_vmm;
struct scene_op {
    const char *name;
    int (*prepare)(struct scene_vmm *v); /* before anybody is held; may be NULL */
    int (*run)(struct scene_vmm *v);
    /* Pages of file `keep` that are the guest's alone when run has succeeded: it writes secrets there. */
    unsigned keep, keep_page, keep_nr;
    const char *policy, *bugs; /* of the VM; NULL: upstream's, none */
};
extern const struct scene_op scene_ops[];
extern const unsigned scene_nr_ops;

/* The steps of an agent, the library's and the guest's. */
enum scene_step { STEP_VMM_TAKEN, STEP_VMM_DONE, STEP_GUEST_TAKEN, STEP_GUEST_DONE, NR_SCENE_STEPS };
extern const char *const scene_step_names[NR_SCENE_STEPS];

/* What the processes of a scene share. */
struct scene_shared {
    char socket[104];
    char failure[300]; /* of the scene itself */
    atomic_bool failed;
    pid_t guest;
    /* the guest's command */
    unsigned guest_op;
    uint64_t ipa, nr, value;
    int64_t guest_result;
    /* agents */
    atomic_int step_armed; /* enum scene_step, -1: none */
    atomic_uint step_left, step_passed[NR_SCENE_STEPS];
    atomic_bool step_held, step_go;
    /* the operation's result */
    atomic_bool done;
    int rc;
    char text[300];
    /* the reader */
    atomic_bool reader_ready, reader_stop;
    atomic_ulong scans, refused, leaks;
};

struct scene {
    struct scene_shared *sh;
    const struct scene_op *op;
    pid_t vmm, reader;
    int vmm_sock;
    int guest_pidfd;
};

/* Everything up to the operation.  Fails the test when it cannot be set up. */
void scene_begin(struct scene *s, const char *socket, const struct scene_op *op);
/* The VMM begins with the operation. */
void scene_go(struct scene *s);
/* The VMM takes down what it has, in order, and ends; not when it was killed. */
void scene_leave(struct scene *s);
/* The reader has looked at every page since: then it ends, and has its say. */
void scene_end(struct scene *s);

#endif
