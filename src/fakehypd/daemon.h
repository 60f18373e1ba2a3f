/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon: one loop, one machine, its clients. */
#ifndef SRC_FAKEHYPD_DAEMON_H
#define SRC_FAKEHYPD_DAEMON_H

#include "src/fakehypd/log.h"
#include "src/fakehypd/loop.h"
#include "src/fakehypd/options.h"
#include "src/fakehypd/pidfile.h"
#include "src/live/live.h"

struct client;
struct listener;
struct points;
struct uffd_watch;

#define STRAY_RING 64
#define STRAY_FRAMES 16
#define DAEMON_NR_SIGNALS 3

/* An access to private memory that a client's SIGBUS handler told of. */
struct stray {
    uint64_t gmem, offset, addr, pc, t_ns;
    uint32_t pid, tid;
    char thread[32];
    unsigned nr_frames;
    uint64_t frame[STRAY_FRAMES]; /* return addresses, innermost first */
};

struct daemon {
    struct options options;
    struct loop loop;
    struct machine *machine;
    struct live *live;
    struct live_io io;
    struct uffd_watch *uffd_watches;
    struct listener *listener;
    struct pidfile pidfile;
    struct points *points; /* --points-fd; else NULL */
    struct client *clients;
    uint64_t last_client;
    unsigned nr_ready; /* clients whose hello was accepted */
    unsigned nr_guests;
    uint64_t start_ns;
    struct alarm *lonely; /* --terminate: nobody has come yet */
    struct alarm *hurry;  /* bounds the orderly stop */
    bool stopping;
    uv_signal_t signals[DAEMON_NR_SIGNALS];
    struct stray strays[STRAY_RING];
    uint64_t nr_strays; /* ever */
};

int fakehypd_main(int argc, char **argv);

/* Orderly stop: no new clients, those there are cleaned up, then the loop ends. */
void daemon_stop(struct daemon *daemon, const char *why);
/* A client was forgotten: ends the daemon when it was to go with its last client. */
void daemon_client_left(struct daemon *daemon, bool was_ready);
void daemon_client_ready(struct daemon *daemon);

#endif
