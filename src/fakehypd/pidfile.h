/* SPDX-License-Identifier: BSD-2-Clause */
/* --pidfile: this process's number in a file, from readiness until the end. */
#ifndef SRC_FAKEHYPD_PIDFILE_H
#define SRC_FAKEHYPD_PIDFILE_H

#include <stdbool.h>
#include <sys/types.h>

struct pidfile {
    const char *path; /* NULL: none */
    bool written;
    int fd; /* of what was written, to know it by: as long as it is open no other file gets its inode number */
};

/*
 * Puts the number into `path` (NULL: does nothing) in one step: whoever reads the file finds a whole one.  A file that
 * names a process which has ended is replaced.  Explains a failure in the log.  0 or -errno:
 * -EEXIST the file's process lives, or its contents are no process id.
 */
int pidfile_write(struct pidfile *file, const char *path);
/* The process of such a file's text.  -EEXIST: it is no process id. */
int pidfile_number(const char *text, pid_t *pid);
/* Removes it if it is still ours. */
void pidfile_remove(struct pidfile *file);

#endif
