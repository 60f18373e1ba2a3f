/* SPDX-License-Identifier: BSD-2-Clause */
/* struct live_io over the daemon's sockets. */
#ifndef SRC_FAKEHYPD_LIVE_IO_H
#define SRC_FAKEHYPD_LIVE_IO_H

#include "src/fakehypd/daemon.h"

void live_io_init(struct daemon *daemon);

#endif
