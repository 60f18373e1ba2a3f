/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's requests to somebody's agent, and the waits for the replies. */
#ifndef SRC_FAKEHYPD_PEER_H
#define SRC_FAKEHYPD_PEER_H

#include "src/fakehypd/conn.h"

struct peer_wait;

struct peer {
    struct conn *conn; /* the owner's; NULL: there is no agent */
    const char *who;   /* for the log */
    uint32_t pid;
    uint64_t last_id;
    struct peer_wait *waits;
    bool gone;
    bool is_client; /* an agent of a client, not of a guest */
};

/* (task) live_io.call: see src/live/live.h. */
int peer_call(struct peer *peer, Fakehyp__Request *request, const int *fds, unsigned nr_fds, uint64_t timeout_ns,
              char *message, size_t size);
/* A frame from the agent.  -EPROTO when it is no Reply; 1 when nobody waits for it any more. */
int peer_frame(struct peer *peer, const struct chan_msg *msg);
/* All waits end with -ECONNRESET, and so do later calls. */
void peer_gone(struct peer *peer);

#endif
