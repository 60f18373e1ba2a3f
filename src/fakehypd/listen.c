/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/fakehypd/client.h"
#include "src/fakehypd/name_lock.h"

#define ACCEPTS_PER_TURN 16
#define NO_FD_PAUSE_MS 100

struct listener {
    struct daemon *daemon;
    int fd;
    struct watch *watch;
    struct alarm *pause;
    char name[sizeof(((struct options *)0)->socket)];
    int bound; /* O_PATH: the socket's file that it made, to know it by: nothing else gets its inode number.  -1: none
                */
};

/* ---- making the socket -------------------------------------------------------------------------------------- */

static socklen_t fill_address(struct sockaddr_un *address, const char *name)
{
    size_t len = strlen(name);

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, name, len);
    if (name[0] != '@')
        return sizeof(*address);
    address->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

/* Is somebody there?  0: the name is free or stale. */
static int probe(const char *name)
{
    struct sockaddr_un address;
    socklen_t len = fill_address(&address, name);
    struct ucred cred = {.pid = 0};
    socklen_t size = sizeof(cred);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (sock < 0)
        return -errno;
    int err = connect(sock, (struct sockaddr *)&address, len) ? errno : 0;
    if (err == 0)
        getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size);
    close(sock);
    switch (err) {
    case ENOENT:
    case ECONNREFUSED:
        return 0;
    case 0:
        log_error("another fakehypd (pid %d) listens at %s: use it, end it, or choose another path with --socket",
                  cred.pid, name);
        return -EADDRINUSE;
    case EAGAIN:
        log_error("another fakehypd listens at %s and is busy", name);
        return -EADDRINUSE;
    case EPROTOTYPE:
        log_error("%s is another program's socket: choose another path with --socket", name);
        return -EADDRINUSE;
    default:
        log_error("%s: %s", name, strerror(err));
        return -err;
    }
}

/* Removes the name that a dead daemon left.  Anything else there is not ours to remove. */
static int take_over(const char *path)
{
    struct stat st;

    if (lstat(path, &st))
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode)) {
        log_error("%s exists and is no socket: remove it, or choose another path with --socket", path);
        return -EADDRINUSE;
    }
    int rc = probe(path);
    if (rc)
        return rc;
    log_info("%s was left by a daemon that has ended: taken over", path);
    return unlink(path) && errno != ENOENT ? -errno : 0;
}

static int bind_and_listen(struct listener *listener)
{
    struct sockaddr_un address;
    socklen_t len = fill_address(&address, listener->name);

    listener->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return -errno;
    /* 0600 from its first moment. */
    mode_t before = umask(0177);
    int rc = bind(listener->fd, (struct sockaddr *)&address, len) ? -errno : 0;
    umask(before);
    if (rc)
        return rc;
    if (listener->name[0] != '@') {
        listener->bound = open(listener->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (listener->bound < 0) {
            rc = -errno;
            unlink(listener->name);
            return rc;
        }
    }
    return listen(listener->fd, SOMAXCONN) ? -errno : 0;
}

static int open_path(struct listener *listener)
{
    int lock = name_lock(listener->name);

    if (lock < 0) {
        log_error("%s.lock: %s; --socket chooses another path", listener->name, strerrordesc_np(-lock));
        return lock;
    }
    int rc = take_over(listener->name);
    if (rc == 0) {
        rc = bind_and_listen(listener);
        if (rc)
            log_error("%s: %s%s", listener->name, strerrordesc_np(-rc), log_remedy(rc));
    }
    name_unlock(listener->name, lock, false);
    return rc;
}

static int open_abstract(struct listener *listener)
{
    int rc = bind_and_listen(listener);

    if (rc == -EADDRINUSE && probe(listener->name) != 0)
        return rc;
    if (rc)
        log_error("%s: %s", listener->name, strerrordesc_np(-rc));
    return rc;
}

static int option_of(int fd, int option)
{
    int value = -1;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &size) ? -errno : value;
}

static int open_inherited(struct listener *listener, int fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(address);

    if (option_of(fd, SO_DOMAIN) != AF_UNIX || option_of(fd, SO_TYPE) != SOCK_SEQPACKET ||
        option_of(fd, SO_ACCEPTCONN) != 1) {
        log_error("descriptor %d is no listening Unix socket of type SOCK_SEQPACKET", fd);
        return -EINVAL;
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) ||
        getsockname(fd, (struct sockaddr *)&address, &len)) {
        int err = -errno;
        log_error("descriptor %d: %s", fd, strerrordesc_np(-err));
        return err;
    }
    listener->fd = fd;
    size_t n = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;
    memcpy(listener->name, address.sun_path, n);
    if (n && !listener->name[0])
        listener->name[0] = '@';
    return 0;
}

int listener_open(const struct options *options, struct listener **out)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    int rc;

    if (!listener)
        return -ENOMEM;
    listener->fd = listener->bound = -1;
    if (options->listen_fd >= 0) {
        rc = open_inherited(listener, options->listen_fd);
    } else {
        memcpy(listener->name, options->socket, sizeof(listener->name));
        rc = listener->name[0] == '@' ? open_abstract(listener) : open_path(listener);
    }
    if (rc) {
        listener_close(listener);
        return rc;
    }
    *out = listener;
    return 0;
}

void listener_close(struct listener *listener)
{
    struct stat made, named;

    if (!listener)
        return;
    watch_free(listener->watch);
    alarm_free(listener->pause);
    /* First: at the limit of descriptors the lock needs this one. */
    if (listener->fd >= 0)
        close(listener->fd);
    int lock = listener->bound >= 0 ? name_lock(listener->name) : -1;
    if (lock >= 0) {
        /* Since it was closed another daemon may have taken the name over. */
        bool ours = fstat(listener->bound, &made) == 0 && lstat(listener->name, &named) == 0 &&
                    made.st_dev == named.st_dev && made.st_ino == named.st_ino;
        if (ours)
            unlink(listener->name);
        name_unlock(listener->name, lock, ours);
    }
    if (listener->bound >= 0)
        close(listener->bound);
    free(listener);
}

const char *listener_name(const struct listener *listener)
{
    return listener->name;
}

/* ---- accepting ---------------------------------------------------------------------------------------------- */

static void resume(void *arg)
{
    struct listener *listener = arg;

    listener->pause = NULL;
    watch_set(listener->watch, UV_READABLE);
}

/* Without a descriptor left the connection stays in the queue: looking again at once would only burn the CPU. */
static void pause_accepting(struct listener *listener, int err)
{
    log_warning("a client waits: %s (limit: ulimit -n)", strerror(err));
    listener->pause = alarm_new(&listener->daemon->loop, NO_FD_PAUSE_MS, resume, listener);
    if (listener->pause)
        watch_set(listener->watch, 0);
}

static void admit(struct daemon *daemon, int sock)
{
    struct ucred cred;
    socklen_t size = sizeof(cred);

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size)) {
        log_warning("a client without credentials dropped: %s", strerror(errno));
        close(sock);
    } else if (cred.uid != geteuid() && cred.uid != 0) {
        log_warning("process %d dropped: it belongs to user %u, fakehypd to user %u", cred.pid, cred.uid, geteuid());
        close(sock);
    } else {
        client_new(daemon, sock, cred.pid, cred.uid);
    }
}

static void on_connection(void *arg, int events)
{
    struct listener *listener = arg;

    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int sock = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (sock >= 0) {
            admit(listener->daemon, sock);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(listener, errno);
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

int listener_start(struct listener *listener, struct daemon *daemon)
{
    listener->daemon = daemon;
    listener->watch = watch_new(&daemon->loop, listener->fd, on_connection, listener);
    if (!listener->watch)
        return -ENOMEM;
    watch_set(listener->watch, UV_READABLE);
    return 0;
}
