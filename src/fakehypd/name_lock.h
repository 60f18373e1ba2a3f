/* SPDX-License-Identifier: BSD-2-Clause */
/* NAME.lock: held while a name in the file system changes hands from one daemon to another. */
#ifndef SRC_FAKEHYPD_NAME_LOCK_H
#define SRC_FAKEHYPD_NAME_LOCK_H

#include <stdbool.h>

/*
 * Waits for the lock: a descriptor, for name_unlock().  -EPERM: the lock is another user's; -EBUSY, which is explained
 * in the log: its holder does not let go; others as open(2).
 */
int name_lock(const char *name);
/* `remove`: the name is free, or its lock is not to stay beside it. */
void name_unlock(const char *name, int lock, bool remove);

#endif
