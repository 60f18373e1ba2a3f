/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A SOCK_SEQPACKET socket under the event loop: frames in, frames out.
 *
 * Sending never waits: what the socket does not take is queued, and a peer
 * that lets the queue grow beyond its bound is given up.
 */
#ifndef SRC_FAKEHYPD_CONN_H
#define SRC_FAKEHYPD_CONN_H

#include "src/fakehypd/loop.h"
#include "src/proto/chan.h"

struct conn;

struct conn_ops {
    /* A frame came, perhaps without its descriptors (msg->fds_lost).  Those left in msg are closed afterwards. */
    void (*frame)(void *owner, struct chan_msg *msg);
    /*
     * The peer is gone or misbehaves.  Called once, perhaps from inside
     * conn_send_*(); nothing is sent or received any more.
     */
    void (*gone)(void *owner, const char *reason);
};

/* Owns fd on success.  Reads from the start.  NULL: out of memory. */
struct conn *conn_new(struct loop *loop, int fd, const struct conn_ops *ops, void *owner);
/* Closes the socket; the memory lives until the last conn_put().  NULL is fine. */
void conn_close(struct conn *conn);

struct conn *conn_get(struct conn *conn);
void conn_put(struct conn *conn);

/* Frames that the socket has not taken yet. */
unsigned conn_queued(const struct conn *conn);
/* Stops and resumes reading. */
void conn_pause(struct conn *conn, bool pause);
/* True when nobody has the other end any more, whatever is still to be read. */
bool conn_hung_up(const struct conn *conn);
/* Gives the peer up: ops->gone(reason). */
void conn_fail(struct conn *conn, const char *reason);

/*
 * Descriptors stay the caller's.  0 sent or queued; -EPIPE when the peer is
 * gone; -EMSGSIZE, -ENOMEM: not sent.
 */
int conn_send_request(struct conn *conn, const Fakehyp__Request *request, const int *fds, unsigned nr_fds);
int conn_send_reply(struct conn *conn, const Fakehyp__Reply *reply, const int *fds, unsigned nr_fds);
/* (task) Waits until the queue is short again: for answers of many frames.  -ECANCELED, -EPIPE, -ETIMEDOUT. */
int conn_wait_drained(struct conn *conn, uint64_t timeout_ns);

#endif
