/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One message and its descriptors over a SOCK_SEQPACKET socket.
 *
 * Both ends use it: libfakehyp with blocking sockets, fakehypd with
 * MSG_DONTWAIT under its event loop (libuv carries streams and UDP only).
 */
#ifndef SRC_PROTO_CHAN_H
#define SRC_PROTO_CHAN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <stdbool.h>

#include "src/proto/fakehyp.pb-c.h"

#define PROTO_VERSION 1u
/* Longest frame either side accepts; longer answers are cut into several Replies (QueryReply.more). */
#define CHAN_MAX_FRAME (96u * 1024)
#define CHAN_MAX_FDS 64

struct chan_msg {
    uint8_t *data; /* CHAN_MAX_FRAME bytes, owned by the caller */
    size_t len;
    int fds[CHAN_MAX_FDS]; /* received descriptors, O_CLOEXEC; the receiver owns those it leaves in here */
    unsigned nr_fds;
    bool fds_lost; /* this process had no descriptor left for those that came */
    pid_t pid;     /* sender, where SO_PASSCRED is on; 0 otherwise */
    uid_t uid;
};

/*
 * When memory is short for a moment, what a message says must not be lost: its
 * sender or receiver could not tell what has been done and what has not.  So
 * the functions below try again for CHAN_PATIENCE_MS before they fail, also
 * with MSG_DONTWAIT.
 */
#define CHAN_PATIENCE_MS 20

/* malloc() with that patience, for free(). */
void *chan_malloc(size_t size);
/* NULL: no such message, or no memory after all that. */
Fakehyp__Request *chan_unpack_request(const struct chan_msg *msg);
Fakehyp__Reply *chan_unpack_reply(const struct chan_msg *msg);

/*
 * Sends one frame; the descriptors stay the caller's.  flags: MSG_DONTWAIT or
 * 0 (MSG_NOSIGNAL is implied).  0; -EAGAIN when it would block; -EMSGSIZE over
 * CHAN_MAX_FRAME; -EPIPE/-ECONNRESET when the peer is gone; other -errno.
 */
int chan_send(int sock, const void *data, size_t len, const int *fds, unsigned nr_fds, int flags);
/* The same for one that is made up already. */
int chan_sendmsg(int sock, const struct msghdr *hdr, int flags);

/*
 * Receives one frame into msg.  1 when there is one, 0 at end of file, -EAGAIN
 * (MSG_DONTWAIT), -EMSGSIZE for a frame that was cut (its descriptors are
 * closed), other -errno.  One that lacks nothing but its descriptors is in msg,
 * with its length.
 */
int chan_recv(int sock, struct chan_msg *msg, int flags);

/* Closes a descriptor that somebody sent: without waiting for what a socket still has to send (SO_LINGER). */
void chan_close_fd(int fd);

/* Closes the descriptors that nobody took out of msg. */
void chan_msg_close_fds(struct chan_msg *msg);

/* Takes descriptor i out of msg: the caller owns it now.  -EBADF when there is none. */
int chan_msg_take_fd(struct chan_msg *msg, unsigned i);

/* Packs and sends.  Same errors as chan_send(), -ENOMEM. */
int chan_send_request(int sock, const Fakehyp__Request *request, const int *fds, unsigned nr_fds, int flags);
int chan_send_reply(int sock, const Fakehyp__Reply *reply, const int *fds, unsigned nr_fds, int flags);

#endif
