/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs of host processes, in the process: fork, and system calls that the kernel holds pages for. */
#include "src/scenario/live.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- processes -------------------------------------------------------------------------------------------------- */

/*
 * In the child, which has neither connection nor views (libfakehyp's fork handlers see to both): it connects and maps
 * each view again, at the address where its parent has it.
 */
static bool become_child(struct live_actor *a, int file_fd)
{
    /* Kept free: the library's thread needs room for a stack, too. */
    for (unsigned i = 0; i < a->nr_views; i++)
        if (!a->view[i].gone)
            mmap(a->view[i].addr, a->view[i].nr * SC_PAGE, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (fakehyp_connect(a->daemon_socket, &a->fh) || fakehyp_gmem_import(a->fh, file_fd, &a->file[0]))
        return false;
    for (unsigned i = 0; i < a->nr_views; i++) {
        struct live_view *x = &a->view[i];
        void *addr;
        if (!x->gone)
            munmap(x->addr, x->nr * SC_PAGE);
        if (!x->gone &&
            fakehyp_map(a->file[0], x->addr, x->nr * SC_PAGE, PROT_READ | PROT_WRITE, x->page * SC_PAGE, &addr))
            return false;
    }
    return true;
}

static _Noreturn void child(struct live_actor *parent, const char *name, int sock, int file_fd)
{
    static struct live_actor a;

    a.nr_files = 1;
    a.nr_views = parent->nr_views;
    memcpy(a.view, parent->view, sizeof(a.view));
    a.daemon_socket = parent->daemon_socket;
    close(parent->sock);
    if (!become_child(&a, file_fd)) {
        fprintf(stderr, "%s\n", fakehyp_last_error());
        _exit(1);
    }
    close(file_fd);
    live_actor_loop(&a, name, sock);
}

void live_PROCESS_fork(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    int socks[2], file_fd = a->nr_files ? fcntl(fakehyp_gmem_fd(a->file[0]), F_DUPFD_CLOEXEC, 3) : -1;

    if (file_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks)) {
        sc_broken(v, "fork: no file to inherit, or no socket");
        return;
    }
    pid_t pid = fork();
    if (!pid) {
        close(socks[0]);
        child(a, c->arg[0].text, socks[1], file_fd);
    }
    close(file_fd);
    close(socks[1]);
    sc_rc(v, pid < 0 ? -errno : 0);
    v->value = pid;
    if (pid < 0)
        close(socks[0]);
    else
        v->fd = socks[0]; /* for the runner */
}

void live_PROCESS_kill(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    (void)a;
    (void)c;
    (void)v;
    raise(SIGKILL);
}

/* ---- mappings --------------------------------------------------------------------------------------------------- */

void live_PROCESS_mremap(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n;
    void *addr;

    if (n < 1 || n > a->nr_views || a->view[n - 1].gone || a->nr_views == LIVE_MAX_VIEWS) {
        sc_broken(v, "process %s has no such view", a->name);
        return;
    }
    struct live_view old = a->view[n - 1];
    /* One page more, beyond the end of the file: what grows is moved. */
    live_rc(v, fakehyp_remap(a->fh, old.addr, old.nr * SC_PAGE, (old.nr + 1) * SC_PAGE, &addr));
    if (v->rc)
        return;
    pthread_mutex_lock(&a->lock);
    a->view[n - 1].gone = true;
    old.addr = addr;
    a->view[a->nr_views++] = old;
    v->value = a->nr_views;
    pthread_mutex_unlock(&a->lock);
}

void live_PROCESS_madvise_remove(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    uint8_t *addr = live_address(a, c->arg[0].n, c->arg[2].n, v);

    if (addr)
        sc_rc(v, madvise(addr, (size_t)c->arg[1].n * SC_PAGE, MADV_REMOVE) ? -errno : 0);
}

/* ---- system calls that hold pages ---------------------------------------------------------------------------------
 */

/* A file that takes O_DIRECT, without a name; -1: no file system here has one. */
static int direct_file(size_t bytes)
{
    const char *const folders[] = {getenv("TMPDIR"), ".", "/tmp", "/var/tmp", "/dev/shm"};

    for (unsigned i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        int fd = folders[i] ? open(folders[i], O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600) : -1;
        if (fd >= 0 && !ftruncate(fd, (off_t)bytes))
            return fd;
        if (fd >= 0)
            close(fd);
    }
    return -1;
}

void live_PROCESS_direct_read(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    uint8_t *addr = live_address(a, c->arg[0].n, c->arg[2].n, v);
    size_t bytes = (size_t)c->arg[1].n * SC_PAGE;
    int fd = addr ? direct_file(bytes) : -1;

    if (!addr)
        return;
    /* Without such a file system the same pages are looked up by the same code of the kernel, for a pipe. */
    ssize_t n = fd >= 0 ? read(fd, addr, bytes) : -1;
    if (fd < 0) {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK)) {
            sc_broken(v, "no pipe");
            return;
        }
        n = vmsplice(fds[1], &(struct iovec){.iov_base = addr, .iov_len = bytes}, 1, SPLICE_F_NONBLOCK);
        close(fds[0]);
        close(fds[1]);
    }
    sc_rc(v, n < 0 ? -errno : 0);
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return;
    v->value = n;
    sc_word(v, "%zd", n);
}

/*
 * The pages go into a real pipe; the model is told of the references that it
 * holds, since the real ones are to pages that it does not see.
 */
void live_PROCESS_vmsplice(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    uint8_t *addr = live_address(a, c->arg[0].n, c->arg[2].n, v);
    size_t bytes = (size_t)c->arg[1].n * SC_PAGE;
    struct live_pipe *pipe = &a->pipe[a->nr_pipes];

    if (addr && (!a->nr_files || a->nr_pipes == LIVE_MAX_PIPES || pipe2(pipe->fds, O_CLOEXEC | O_NONBLOCK)))
        sc_broken(v, "no pipe for it");
    if (!addr || *v->broken)
        return;
    ssize_t n = vmsplice(pipe->fds[1], &(struct iovec){.iov_base = addr, .iov_len = bytes}, 1, SPLICE_F_NONBLOCK);
    sc_rc(v, n < 0 ? -errno : n < (ssize_t)bytes ? -EFAULT : 0);
    if (!v->rc)
        live_rc(v, fakehyp_pin(a->file[0], (uint64_t)c->arg[0].n * SC_PAGE, bytes, FAKEHYP_FOLL_GET, "vmsplice",
                               &pipe->pin));
    if (v->rc) {
        close(pipe->fds[0]);
        close(pipe->fds[1]);
        return;
    }
    v->value = ++a->nr_pipes;
}

void live_PROCESS_pipe_read(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n;
    char page[SC_PAGE];

    if (n < 1 || n > a->nr_pipes) {
        sc_broken(v, "no such pipe");
        return;
    }
    struct live_pipe *pipe = &a->pipe[n - 1];
    ssize_t got = read(pipe->fds[0], page, sizeof(page));
    sc_rc(v, got < 0 ? -errno : 0);
    if (got < 0)
        return;
    memcpy(v->bytes, page, 16);
    v->nr_bytes = 16;
    /* With the last page of it the pipe lets go. */
    int left = 0;
    if (pipe->pin && !ioctl(pipe->fds[0], FIONREAD, &left) && !left) {
        fakehyp_unpin(pipe->pin);
        pipe->pin = NULL;
    }
}
