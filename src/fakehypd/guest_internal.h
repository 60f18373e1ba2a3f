/* SPDX-License-Identifier: BSD-2-Clause */
/* What guest.c (life and death) and guest_attach.c (the way in, the vCPUs' sockets) share. */
#ifndef SRC_FAKEHYPD_GUEST_INTERNAL_H
#define SRC_FAKEHYPD_GUEST_INTERNAL_H

#include "src/fakehypd/daemon.h"
#include "src/fakehypd/handles.h"
#include "src/fakehypd/peer.h"

enum guest_state {
    GUEST_PREPARED,  /* waits for GuestAttach */
    GUEST_ATTACHING, /* the stage tells its agent of the memslots */
    GUEST_RUNNING,
};

struct guest_vcpu {
    struct guest *guest;
    struct conn *conn;
    unsigned index;
    uint64_t request; /* id of the request that waits for its reply */
    bool pending, ready;
};

struct guest {
    struct peer peer; /* first: the stage's guest_peer */
    struct daemon *daemon;
    struct vm_handle *vm;
    struct conn *conn;
    enum guest_state state;
    struct alarm *deadline; /* while prepared */
    pid_t pid;
    int pidfd;
    struct watch *pid_watch;
    bool dead; /* the process is */
    bool in_first_frame;
    struct live_guest *live;
    struct guest_vcpu *vcpus;
    unsigned nr_vcpus;
    /* While attaching. */
    int uffd;
    uint64_t ram_base, ipa_size;
    int answered; /* how the answer to GuestAttach was sent: 0 or -errno */
};

extern const struct conn_ops guest_agent_ops;

/* Ends a guest that the stage does not know, or whose process is dead. */
void guest_forget(struct guest *guest);
/* SIGKILL; guest_forget() follows when the process is dead. */
void guest_send_kill(struct guest *guest);
void guest_on_pidfd(void *arg, int events);

#endif
