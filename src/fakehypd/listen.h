/* SPDX-License-Identifier: BSD-2-Clause */
/* The listening socket: one daemon a path, only for its own user. */
#ifndef SRC_FAKEHYPD_LISTEN_H
#define SRC_FAKEHYPD_LISTEN_H

#include "src/fakehypd/daemon.h"

/*
 * Opens what the options say; explains a failure in the log.  0 or -errno:
 * -EADDRINUSE another daemon listens there, or the path is taken by something else.
 */
int listener_open(const struct options *options, struct listener **out);
/* Accepts clients from now on.  -ENOMEM. */
int listener_start(struct listener *listener, struct daemon *daemon);
/* Stops accepting; removes the socket's name if it is still ours.  NULL is fine. */
void listener_close(struct listener *listener);
const char *listener_name(const struct listener *listener);

#endif
