/* SPDX-License-Identifier: BSD-2-Clause */
/* Telling others how far we are. */
#ifndef SRC_FAKEHYPD_NOTIFY_H
#define SRC_FAKEHYPD_NOTIFY_H

/* sd_notify(3): one line of state to $NOTIFY_SOCKET.  Without one nothing happens. */
void notify_service_manager(const char *state);
/* A newline to the descriptor, which is closed.  -1 is fine. */
void notify_fd(int fd);

#endif
