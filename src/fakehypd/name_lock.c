/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/name_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/fakehypd/log.h"

/* A daemon holds it for the time of a few system calls: longer does one that is stopped. */
#define PATIENCE_MS 5000

static int lock_path(const char *name, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s.lock", name);

    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int take(int fd, const char *path)
{
    for (unsigned ms = 0; flock(fd, LOCK_EX | LOCK_NB); ms++) {
        if (errno != EWOULDBLOCK)
            return -errno;
        if (ms >= PATIENCE_MS) {
            log_error("%s: a process has held this lock for %d s: is another fakehypd stopped? Let it go on, or end it",
                      path, PATIENCE_MS / 1000);
            return -EBUSY;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return 0;
}

int name_lock(const char *name)
{
    char path[PATH_MAX];
    struct stat held, named;

    if (lock_path(name, path))
        return -ENAMETOOLONG;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return -errno;
        /* In /tmp anybody could make it, and hold it for ever. */
        if (fstat(fd, &held) || held.st_uid != geteuid()) {
            close(fd);
            return -EPERM;
        }
        int rc = take(fd, path);
        if (rc) {
            close(fd);
            return rc;
        }
        /* Another daemon may have removed the file while we waited for it. */
        if (fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
            held.st_ino == named.st_ino)
            return fd;
        close(fd);
    }
}

void name_unlock(const char *name, int lock, bool remove)
{
    char path[PATH_MAX];

    if (remove && lock_path(name, path) == 0)
        unlink(path);
    close(lock);
}
