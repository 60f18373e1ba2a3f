/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/fakehypd/log.h"
#include "src/fakehypd/name_lock.h"

static int failed(const char *path, int rc)
{
    log_error("--pidfile: %s: %s", path, strerrordesc_np(-rc));
    return rc;
}

int pidfile_number(const char *text, pid_t *pid)
{
    char *end;

    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno || end[strspn(end, " \n")] || number <= 0 || number > INT_MAX)
        return -EEXIST;
    *pid = (pid_t)number;
    return 0;
}

/* The number in the file; 0: it is empty, or there is no file.  -EEXIST: something else is in it. */
static int read_pid(const char *path, pid_t *pid)
{
    char text[32];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    *pid = 0;
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    int err = n < 0 ? -errno : 0;
    close(fd);
    if (n <= 0)
        return err;
    text[n] = '\0';
    return pidfile_number(text, pid);
}

/* In a container the daemon may get the number again that its predecessor had. */
static bool is_another_alive(pid_t pid)
{
    return pid > 0 && pid != getpid() && (kill(pid, 0) == 0 || errno == EPERM);
}

/* Under the lock of the name: 0 when the name may be taken. */
static int check_free(const char *path)
{
    pid_t pid;
    int rc = read_pid(path, &pid);

    if (rc == -EEXIST) {
        log_error("--pidfile: %s holds no process id: remove it, or choose another file", path);
        return rc;
    }
    if (rc)
        return failed(path, rc);
    if (is_another_alive(pid)) {
        log_error("--pidfile: process %d of %s is running: end it, or, if it is no fakehypd, remove the file", pid,
                  path);
        return -EEXIST;
    }
    if (pid)
        log_info("%s was left by process %d, which has ended: replaced", path, pid);
    return 0;
}

/* Writes a file beside it and gives it the name. */
static int replace(struct pidfile *file)
{
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", file->path);

    if (n < 0 || (size_t)n >= sizeof(temporary))
        return -ENAMETOOLONG;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fchmod(fd, 0644) || dprintf(fd, "%d\n", getpid()) < 0 ? -errno : 0;
    if (rc == 0 && rename(temporary, file->path))
        rc = -errno;
    if (rc) {
        unlink(temporary);
        close(fd);
        return rc;
    }
    file->fd = fd;
    file->written = true;
    return 0;
}

int pidfile_write(struct pidfile *file, const char *path)
{
    *file = (struct pidfile){.path = path};
    if (!path)
        return 0;
    int lock = name_lock(path);
    if (lock < 0)
        return failed(path, lock);
    int rc = check_free(path);
    if (rc == 0) {
        rc = replace(file);
        if (rc)
            failed(path, rc);
    }
    name_unlock(path, lock, true);
    return rc;
}

void pidfile_remove(struct pidfile *file)
{
    struct stat ours, named;

    if (!file->written)
        return;
    file->written = false;
    int lock = name_lock(file->path);
    if (lock >= 0) {
        if (fstat(file->fd, &ours) == 0 && lstat(file->path, &named) == 0 && named.st_dev == ours.st_dev &&
            named.st_ino == ours.st_ino)
            unlink(file->path);
        name_unlock(file->path, lock, true);
    }
    close(file->fd);
}
