/* SPDX-License-Identifier: BSD-2-Clause */
/* Says after two seconds what is waited for. */
#ifndef SRC_FAKEHYPCTL_PATIENCE_H
#define SRC_FAKEHYPCTL_PATIENCE_H

#include "src/fakehypctl/ctl.h"

struct patience;

/* Begins a wait for the daemon at this socket.  The path must outlive it.  NULL: the wait will be a silent one. */
struct patience *patience_begin(const char *path, struct ctl_io *io);
/* It has an end. */
void patience_end(struct patience *patience);

#endif
