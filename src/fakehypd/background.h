/* SPDX-License-Identifier: BSD-2-Clause */
/* --daemon: the parent waits until the child is ready, and tells its success by the exit status. */
#ifndef SRC_FAKEHYPD_BACKGROUND_H
#define SRC_FAKEHYPD_BACKGROUND_H

#include <stdbool.h>

/* Returns in the child only: what background_ready() wants, or -errno. */
int background_enter(void);
/* Lets the parent go; stdin, stdout and, unless kept, stderr become /dev/null.  -1: nothing. */
void background_ready(int background, bool keep_stderr);

#endif
