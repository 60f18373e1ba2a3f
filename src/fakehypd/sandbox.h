/* SPDX-License-Identifier: BSD-2-Clause */
/* --seccomp: the daemon keeps to the system calls that it needs. */
#ifndef SRC_FAKEHYPD_SANDBOX_H
#define SRC_FAKEHYPD_SANDBOX_H

enum sandbox {
    SANDBOX_DEFAULT, /* kill where this build and the kernel can, else none */
    SANDBOX_NONE,
    SANDBOX_LOG,  /* another call is logged, and made */
    SANDBOX_KILL, /* another call is logged, not made, and ends the daemon by SIGSYS */
};

/* "kill", "log" or "none"; -1: something else. */
int sandbox_of(const char *name);

/*
 * From now on, for good.  Log and descriptors of start-up must be open.  Explains a failure in the log.  0 or -errno:
 * -EOPNOTSUPP built without libseccomp; -EINVAL or -EBUSY the kernel refuses.  SANDBOX_DEFAULT does not fail.
 */
int sandbox_enter(enum sandbox mode);

#endif
