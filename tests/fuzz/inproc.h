/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fakehypd in this process, turned by hand: its loop, its machine on the live
 * stage, and clients at the other ends of socket pairs.
 *
 * The agents of clients and guests answer by themselves, as the script says.
 * Time is the machine's own: it jumps to the next deadline when nothing else
 * is left to do, so that no timeout is waited for.
 */
#ifndef TESTS_FUZZ_INPROC_H
#define TESTS_FUZZ_INPROC_H

#include "src/fakehypd/daemon.h"

#define INPROC_CLIENTS 3
#define INPROC_FILES 4
#define INPROC_VCPUS 4
#define INPROC_SCRIPT 8

struct inproc_client {
    int sock, agent;         /* -1: none */
    int files[INPROC_FILES]; /* guest_memfds that it got, the newest at nr_files - 1 */
    unsigned nr_files;
    int guest; /* its guest's agent socket */
    pid_t guest_pid;
    int vcpus[INPROC_VCPUS];
    unsigned nr_vcpus;
    uint64_t nr_replies;
};

struct inproc {
    struct daemon daemon;
    struct inproc_client clients[INPROC_CLIENTS];
    /* What the agents answer next: an errno, or INPROC_SILENT. */
    int script[INPROC_SCRIPT];
    unsigned nr_script;
    uint64_t silent; /* requests that got no answer */
};

#define INPROC_SILENT 1

void inproc_start(struct inproc *in);
/* Connects client i anew. */
void inproc_connect(struct inproc *in, unsigned i);
void inproc_disconnect(struct inproc *in, unsigned i);
/* A frame from a client, a guest's agent or a vCPU; sock -1 is fine.  The descriptors stay the caller's. */
void inproc_send(int sock, const uint8_t *data, size_t len, const int *fds, unsigned nr_fds);
/* GuestAttach by a process of its own, which then does nothing any more. */
void inproc_guest_attach(struct inproc *in, unsigned i, uint64_t ram_base, uint64_t ipa_size);
/* Runs the daemon until it has nothing to do but to wait. */
void inproc_settle(struct inproc *in);
/* Lets the next deadline come.  false: there is none. */
bool inproc_pass_time(struct inproc *in);
/* The model's tables against each other; kernel: the kernel's truth too. */
void inproc_audit(struct inproc *in, bool kernel);
/* All clients go: nothing of theirs may stay. */
void inproc_finish(struct inproc *in);

#endif
