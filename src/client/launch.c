/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reaching a daemon: by the name of its socket, or by starting a private one.
 *
 * A private daemon gets a listening socket that this process made: it needs no
 * name in the file system, and the first connection waits in the socket's
 * queue before the daemon exists.
 */
#include "src/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef FAKEHYPD_PATH
#define FAKEHYPD_PATH "/usr/local/bin/fakehypd"
#endif

extern char **environ;

/* The private daemon of this process and of those that fork from it; length 0: none.  Under fh_lock. */
static struct sockaddr_un private_address;
static socklen_t private_length;

static int open_socket(int *sock)
{
    pthread_mutex_lock(&fh_lock);
    *sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int err = errno;
    pthread_mutex_unlock(&fh_lock);
    if (*sock < 0)
        return fh_fail(-err, "connect: socket(AF_UNIX): %s%s", strerror(err),
                       err == EMFILE ? ": close some descriptors, or raise the limit (ulimit -n)" : "");
    return 0;
}

static void close_socket(int *sock)
{
    pthread_mutex_lock(&fh_lock);
    close(*sock);
    *sock = -1;
    pthread_mutex_unlock(&fh_lock);
}

static int dial(struct fakehyp *fh, const struct sockaddr_un *address, socklen_t length, const char *name)
{
    int err = open_socket(&fh->control);

    if (err)
        return err;
    if (connect(fh->control, (const struct sockaddr *)address, length) == 0)
        return 0;
    err = -errno;
    close_socket(&fh->control);
    switch (err) {
    case -ENOENT:
        return fh_fail(err,
                       "connect: no socket %s; start fakehypd --socket %s, or unset FAKEHYP_SOCKET for a private one",
                       name, name);
    case -ECONNREFUSED:
        return fh_fail(err,
                       "connect: nobody listens at %s; if its fakehypd has ended, start it again: fakehypd --socket %s",
                       name, name);
    case -EACCES:
        return fh_fail(err, "connect: %s is another user's; start a fakehypd of your own", name);
    case -EPROTOTYPE:
        return fh_fail(err, "connect: %s is a socket of another type; it is not fakehypd's", name);
    default:
        return fh_fail(err, "connect: %s: %s", name, strerrordesc_np(-err));
    }
}

int fh_dial(struct fakehyp *fh, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);

    if (length == 0)
        return fh_fail(-ENOENT, "connect: the socket's path is empty");
    if (length >= sizeof(address.sun_path))
        return fh_fail(-ENAMETOOLONG, "connect: %s is longer than the %zu bytes that a socket's name can have", path,
                       sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, length);
    socklen_t total = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    if (path[0] == '@') {
        /* An abstract name, as ss(8) and systemd write it. */
        address.sun_path[0] = '\0';
        total--;
    }
    return dial(fh, &address, total, path);
}

static const char *daemon_binary(void)
{
    const char *binary = getenv("FAKEHYP_DAEMON");

    if (binary && *binary)
        return binary;
    return access(FAKEHYPD_PATH, X_OK) == 0 ? FAKEHYPD_PATH : "fakehypd";
}

static int prepare_spawn(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, int listener)
{
    sigset_t none, all;
    int err = posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

    sigemptyset(&none);
    sigfillset(&all);
    if (!err)
        err = posix_spawn_file_actions_adddup2(files, listener, 3);
    /* Whoever reads this program's output must not wait for the daemon to end. */
    if (!err)
        err = posix_spawn_file_actions_addopen(files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (!err)
        err = posix_spawn_file_actions_addclosefrom_np(files, 4);
    if (!err)
        err = posix_spawnattr_setsigmask(attr, &none);
    if (!err)
        err = posix_spawnattr_setsigdefault(attr, &all);
    if (!err)
        err = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    return err;
}

/* False: the process is still there after timeout_ms.  Does not reap it. */
static bool wait_exit(pid_t pid, int timeout_ms)
{
    int64_t deadline = fh_now_ms() + timeout_ms;
    int pidfd = pidfd_open(pid, 0), n = 1;

    if (pidfd < 0)
        return true; /* reaped by somebody already, or no descriptor left: wait(2) has the word */
    do {
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        int64_t left = deadline - fh_now_ms();
        n = poll(&pfd, 1, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    close(pidfd);
    return n != 0;
}

/* Starts the daemon and waits until it has put itself into the background, which says that it is ready. */
static int start_daemon(int listener, int timeout_ms)
{
    const char *binary = daemon_binary();
    char *argv[] = {(char *)"fakehypd", (char *)"--listen-fd=3",       (char *)"--terminate",
                    (char *)"--daemon", (char *)"--log-level=warning", NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    pid_t pid;
    int status;

    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    int err = prepare_spawn(&files, &attr, listener);
    if (!err)
        err = posix_spawnp(&pid, binary, &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    if (err)
        return fh_fail(-EPROTO, "connect: %s could not be started: %s; FAKEHYP_DAEMON names the program to start",
                       binary, strerror(err));
    if (!wait_exit(pid, timeout_ms)) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return fh_fail(-ETIMEDOUT,
                       "connect: %s was not ready within %d ms; FAKEHYP_DAEMON names the program to start, "
                       "FAKEHYP_TIMEOUT_MS another limit",
                       binary, timeout_ms);
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno == EINTR)
            continue;
        /* The program ignores SIGCHLD or reaps everything: the hello will tell. */
        return 0;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFSIGNALED(status))
        return fh_fail(-EPROTO, "connect: %s was ended by signal %d (%s)", binary, WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    return fh_fail(-EPROTO, "connect: %s ended with status %d; what it says is on standard error", binary,
                   WEXITSTATUS(status));
}

static int launch(struct fakehyp *fh, struct sockaddr_un *address, socklen_t *length)
{
    int rc = open_socket(&fh->listener);

    if (rc)
        return rc;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *length = sizeof(*address);
    /* Only the family: the kernel chooses an abstract name. */
    if (bind(fh->listener, (const struct sockaddr *)address, sizeof(sa_family_t)) ||
        getsockname(fh->listener, (struct sockaddr *)address, length) || listen(fh->listener, SOMAXCONN))
        rc = fh_fail(-errno, "connect: a socket for a private fakehypd: %s", strerror(errno));
    if (rc == 0)
        rc = dial(fh, address, *length, "the private fakehypd's socket");
    if (rc == 0) {
        rc = start_daemon(fh->listener, fh->timeout_ms);
        if (rc)
            close_socket(&fh->control);
    }
    close_socket(&fh->listener);
    return rc;
}

int fh_dial_private(struct fakehyp *fh, bool *again)
{
    struct sockaddr_un address;
    socklen_t length;

    pthread_mutex_lock(&fh_lock);
    address = private_address;
    length = private_length;
    pthread_mutex_unlock(&fh_lock);
    *again = false;
    if (length && dial(fh, &address, length, "the private fakehypd's socket") == 0) {
        *again = true;
        return 0;
    }
    int rc = launch(fh, &address, &length);
    if (rc == 0) {
        pthread_mutex_lock(&fh_lock);
        private_address = address;
        private_length = length;
        pthread_mutex_unlock(&fh_lock);
    }
    return rc;
}

void fh_forget_private(void)
{
    pthread_mutex_lock(&fh_lock);
    private_length = 0;
    pthread_mutex_unlock(&fh_lock);
}
