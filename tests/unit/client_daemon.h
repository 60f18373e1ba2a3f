/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stand-in for fakehypd that runs in threads of the test: it speaks the
 * protocol and keeps as much state as the client library can see, no more.
 */
#ifndef TESTS_UNIT_CLIENT_DAEMON_H
#define TESTS_UNIT_CLIENT_DAEMON_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/proto/chan.h"

#define DAEMON_MAX 64

struct fake_daemon;

struct daemon_client {
    struct fake_daemon *daemon;
    int control, agent;
    pthread_t thread;
    uint64_t next_agent_id;
};

struct daemon_gmem {
    uint64_t id, size, flags;
    int shared, private; /* the two files */
};

struct daemon_view {
    uint64_t gmem, addr, length, offset;
};

struct daemon_guest; /* client_daemon_guest.c */

/* Answers a request itself (true) or leaves it to the default.  Called with the daemon's lock held. */
typedef bool (*daemon_hook)(struct daemon_client *client, const Fakehyp__Request *request);

struct fake_daemon {
    char name[64]; /* for fakehyp_connect() */
    int listener;
    pthread_t acceptor;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t changed;
    daemon_hook hook;
    void *hook_arg;
    struct daemon_client *client[DAEMON_MAX];
    unsigned nr_clients;
    struct daemon_gmem gmem[DAEMON_MAX];
    unsigned nr_gmems;
    struct daemon_view view[DAEMON_MAX], removed[DAEMON_MAX];
    unsigned nr_views, nr_removed;
    unsigned nr_calls, nr_closed_gmems;
    bool pinned; /* a conversion to private answers EAGAIN */
    unsigned nr_vcpus;
    uint64_t slot_gpa, slot_size, slot_gmem, slot_offset;
    struct daemon_guest *guest;
};

void daemon_start(struct fake_daemon *daemon);
/* Closes everything, as the end of the process would, and waits for the threads. */
void daemon_stop(struct fake_daemon *daemon);
/* Cuts all connections without an answer. */
void daemon_die(struct fake_daemon *daemon);

void daemon_set_hook(struct fake_daemon *daemon, daemon_hook hook, void *arg);
void daemon_reply(struct daemon_client *client, const Fakehyp__Request *request, int error, const char *message);
void daemon_reply_body(struct daemon_client *client, Fakehyp__Reply *reply, const int *fds, unsigned nr_fds);
/* Asks the client's agent to register or open; returns its error. */
int daemon_agent_register(struct daemon_client *client, uint64_t gmem, bool refuse, uint64_t offset, uint64_t length);
void daemon_send_event(struct daemon_client *client, const char *kind, uint64_t number);
struct daemon_gmem *daemon_find_gmem(struct fake_daemon *daemon, uint64_t id);

/* Serves one control socket until its end: for a process that plays the daemon. */
void daemon_serve_listener(int listener);

/* client_daemon_guest.c */
void daemon_guest_prepare(struct daemon_client *client, const Fakehyp__Request *request);
void daemon_guest_run(struct daemon_client *client, const Fakehyp__Request *request);
void daemon_guest_stop(struct fake_daemon *daemon);
/* Lets the guest see the shared or the private file in part of its slot; returns its agent's error. */
int daemon_guest_overlay(struct fake_daemon *daemon, uint64_t gpa, uint64_t size, bool shared);
int daemon_guest_zap(struct fake_daemon *daemon, uint64_t gpa, uint64_t size);
int daemon_guest_remove_slot(struct fake_daemon *daemon);
unsigned daemon_guest_faults(struct fake_daemon *daemon);
pid_t daemon_guest_pid(struct fake_daemon *daemon);

#endif
