/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/name_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int lock_path(const char *name, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s.lock", name);

    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
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
        while (flock(fd, LOCK_EX))
            if (errno != EINTR) {
                int err = -errno;
                close(fd);
                return err;
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
