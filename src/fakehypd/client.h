/* SPDX-License-Identifier: BSD-2-Clause */
/* A client: its connection, its requests in flight, what it owns, and its end. */
#ifndef SRC_FAKEHYPD_CLIENT_H
#define SRC_FAKEHYPD_CLIENT_H

#include <sys/types.h>

#include "src/fakehypd/daemon.h"
#include "src/fakehypd/handles.h"
#include "src/fakehypd/peer.h"

#define CLIENT_MAX_REQUESTS 256u

struct req;

struct client {
    struct peer peer; /* its agent */
    struct daemon *daemon;
    struct client *next, *prev;
    uint64_t id;
    pid_t pid;
    uid_t uid;
    char program[32];
    struct conn *conn;
    int pidfd;
    struct watch *pid_watch;
    struct alarm *agent_lost; /* its agent is gone: is it gone itself? */
    bool greeted;             /* its first frame was a hello */
    bool ready;               /* which was accepted */
    bool dying;
    struct req *reqs;
    unsigned nr_reqs;
    struct waitq idle; /* no request is left */
    struct handle_tree gmems, pins, vms;
};

/* Takes a connected socket over, also when it fails. */
void client_new(struct daemon *daemon, int sock, pid_t pid, uid_t uid);
/* Gives the client up: its requests are cancelled, then everything of its is taken back. */
void client_die(struct client *client, const char *reason);
/* Its agent socket; the end to send is *theirs. */
int client_make_agent(struct client *client, int *theirs);

struct client_event {
    const char *kind;
    uint64_t vm, gmem, offset, size;
    const char *text;
};
/* To one client, if it has an agent. */
void client_event(struct client *client, const struct client_event *event);
/* To every client that has a handle of the guest_memfd or owns its VM, but for `except` (may be NULL). */
void client_event_gmem(struct daemon *daemon, const struct client *except, const struct client_event *event);

#endif
