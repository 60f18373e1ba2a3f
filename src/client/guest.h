/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the guest runtime share.  All but guest.c runs only inside
 * a guest process.
 */
#ifndef SRC_CLIENT_GUEST_H
#define SRC_CLIENT_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fakehyp/fakehyp.h>

#include "src/proto/chan.h"

struct guest_slot;

struct guest_process {
    char *ram; /* address of IPA 0 */
    uint64_t ipa_size;
    int sock; /* to the daemon */
    int uffd;
    unsigned nr_vcpus;
    int vcpu_sock[CHAN_MAX_FDS];
    struct guest_slot *slots; /* the agent's */
};

/* A vCPU: the thread that runs the guest function. */
struct fakehyp_guest {
    const struct guest_process *process;
    uint32_t index;
    int sock;
    uint64_t next_id;
    struct chan_msg in;
};

typedef int (*guest_main_fn)(struct fakehyp_guest *guest, void *arg);

/* guest_process.c: what the child of fork does.  status_fd: where to tell the parent. */
struct guest_status {
    int error;
    char text[256];
};
_Noreturn void guest_process_run(int sock, int status_fd, uint32_t ipa_bits, guest_main_fn entry, void *arg);
/* Closes all descriptors from first on but those in keep. */
void guest_close_all_but(unsigned first, const int *keep, size_t nr_keep);

/* guest_agent.c: starts agent and watcher.  *private_table: they have a descriptor table of their own.  0, -errno. */
int guest_agent_start(struct guest_process *process, bool *private_table);

/* guest_call.c */
/* Announces the vCPU, waits for its first entry, runs the guest function and powers the machine off. */
_Noreturn void guest_vcpu_run(struct fakehyp_guest *guest, guest_main_fn entry, void *arg);

#endif
