/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Errors on purpose: a library for LD_PRELOAD (inject.c) counts what a program
 * asks of the system, and lets exactly one of these calls fail.
 *
 * The two sides share a file, which FAKEHYP_INJECT names: nothing else of the
 * program or of its environment changes.
 */
#ifndef TESTS_COMMON_INJECT_H
#define TESTS_COMMON_INJECT_H

#include <stdatomic.h>
#include <sys/types.h>

enum inject_kind {
    INJECT_MEMORY,  /* malloc() and the like */
    INJECT_CALL,    /* system calls that can fail, with an errno that they can have */
    INJECT_MESSAGE, /* sendmsg() and recvmsg() */
    NR_INJECT_KINDS
};

#define INJECT_DEPTH 24

struct inject {
    atomic_bool on; /* calls count, and fail, only while it is */
    atomic_int kind;
    atomic_ulong at; /* which call of that kind fails; 0: none */
    atomic_ulong count[NR_INJECT_KINDS];

    atomic_bool hit; /* it has failed; what follows is about it */
    char name[32];
    int error;
    pid_t pid;
    int depth;
    void *stack[INJECT_DEPTH];
    char where[INJECT_DEPTH][64]; /* object and offset, for addr2line */
};

#endif
