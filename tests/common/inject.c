/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library for LD_PRELOAD: see inject.h.
 *
 * What cannot fail is not here (lseek() on a memfd, UFFDIO_WAKE, a hole punch),
 * nor what two libraries cannot cope with: libuv's own allocations,
 * the pipe for its signals and epoll_ctl(), which it answers with abort(), and those of libseccomp, which
 * frees twice what it could not finish (2.5.4, while the daemon starts).
 */
#define _GNU_SOURCE
#include "tests/common/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static struct inject *shared;
static struct {
    uintptr_t start, end;
} spared[4];
static unsigned nr_spared;
/* Looking a symbol up, or telling what failed, may allocate. */
static __thread bool inside __attribute__((tls_model("initial-exec")));

/* ---- what failed --------------------------------------------------------------------------------------------------
 */

static void tell_stack(void)
{
    shared->depth = backtrace(shared->stack, INJECT_DEPTH);
    for (int i = 0; i < shared->depth; i++) {
        Dl_info info;
        if (!dladdr(shared->stack[i], &info) || !info.dli_fname)
            continue;
        const char *slash = strrchr(info.dli_fname, '/');
        snprintf(shared->where[i], sizeof(shared->where[i]), "%.40s+%#lx", slash ? slash + 1 : info.dli_fname,
                 (unsigned long)((char *)shared->stack[i] - (char *)info.dli_fbase));
    }
}

static bool fails(enum inject_kind kind, const char *name, int error, const void *caller)
{
    if (inside || !shared || !atomic_load(&shared->on))
        return false;
    bool fatal = kind == INJECT_MEMORY || !strcmp(name, "pipe2");
    for (unsigned i = 0; i < nr_spared; i++)
        if (fatal && (uintptr_t)caller >= spared[i].start && (uintptr_t)caller < spared[i].end)
            return false;
    unsigned long n = atomic_fetch_add(&shared->count[kind], 1) + 1;
    if (atomic_load(&shared->kind) != (int)kind || n != atomic_load(&shared->at))
        return false;
    inside = true;
    snprintf(shared->name, sizeof(shared->name), "%s", name);
    shared->error = error;
    shared->pid = getpid(); /* no system call that the daemon has not given up */
    tell_stack();
    atomic_store(&shared->hit, true);
    inside = false;
    errno = error;
    return true;
}

/* ---- the calls ------------------------------------------------------------------------------------------------------
 */

/* dlsym() may itself allocate, before there is anything to allocate with. */
static char early[16384];
static size_t early_used;

static void *early_alloc(size_t size)
{
    void *p = early + early_used;
    early_used += (size + 15) & ~(size_t)15;
    return early_used <= sizeof(early) ? p : NULL;
}

static bool is_early(const void *p)
{
    return (const char *)p >= early && (const char *)p < early + sizeof(early);
}

static void *next(const char *name)
{
    bool outer = inside;
    inside = true;
    void *p = dlsym(RTLD_NEXT, name);
    inside = outer;
    return p;
}

#define REAL(name)                                                                                                     \
    static __typeof__(&name) real;                                                                                     \
    if (!real && !(real = (__typeof__(&name))(uintptr_t)next(#name)))                                                  \
    _exit(126)

/* A call that fails with -1 (or `failure`) and this errno, when `can` is true. */
#define CALL_IF(can, kind, type, failure, name, params, args, error)                                                   \
    type name params                                                                                                   \
    {                                                                                                                  \
        REAL(name);                                                                                                    \
        if ((can) && fails(kind, #name, error, __builtin_return_address(0)))                                           \
            return failure;                                                                                            \
        return real args;                                                                                              \
    }
#define CALL(type, name, params, args, error) CALL_IF(true, INJECT_CALL, type, -1, name, params, args, error)

#define ALLOCATION(name, size, params, args)                                                                           \
    void *name params                                                                                                  \
    {                                                                                                                  \
        static __typeof__(&name) real;                                                                                 \
        static __thread bool looking __attribute__((tls_model("initial-exec")));                                       \
        if (looking)                                                                                                   \
            return early_alloc(size);                                                                                  \
        if (!real) {                                                                                                   \
            looking = true;                                                                                            \
            real = (__typeof__(&name))(uintptr_t)next(#name);                                                          \
            looking = false;                                                                                           \
        }                                                                                                              \
        if (fails(INJECT_MEMORY, #name, ENOMEM, __builtin_return_address(0)))                                          \
            return NULL;                                                                                               \
        return real args;                                                                                              \
    }

ALLOCATION(malloc, size, (size_t size), (size))
ALLOCATION(calloc, nr *size, (size_t nr, size_t size), (nr, size))
ALLOCATION(aligned_alloc, size, (size_t align, size_t size), (align, size))

void *realloc(void *p, size_t size)
{
    REAL(realloc);
    if (fails(INJECT_MEMORY, "realloc", ENOMEM, __builtin_return_address(0)))
        return NULL;
    return real(p, size);
}

void free(void *p)
{
    static void (*real)(void *);
    if (!p || is_early(p))
        return;
    if (!real)
        real = (void (*)(void *))(uintptr_t)next("free");
    real(p);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    REAL(posix_memalign);
    return fails(INJECT_MEMORY, "posix_memalign", ENOMEM, __builtin_return_address(0)) ? ENOMEM
                                                                                       : real(out, align, size);
}

CALL_IF(true, INJECT_MEMORY, void *, MAP_FAILED, mmap,
        (void *addr, size_t length, int prot, int flags, int fd, off_t offset), (addr, length, prot, flags, fd, offset),
        ENOMEM)

CALL(int, memfd_create, (const char *name, unsigned flags), (name, flags), EMFILE)
CALL(int, ftruncate, (int fd, off_t length), (fd, length), ENOMEM)
CALL_IF(!(mode & FALLOC_FL_PUNCH_HOLE), INJECT_CALL, int, -1, fallocate, (int fd, int mode, off_t offset, off_t length),
        (fd, mode, offset, length), ENOSPC)
CALL(ssize_t, splice, (int in, off64_t *off_in, int out, off64_t *off_out, size_t length, unsigned flags),
     (in, off_in, out, off_out, length, flags), ENOMEM)
CALL(ssize_t, pread, (int fd, void *buf, size_t n, off_t offset), (fd, buf, n, offset), ENOMEM)
CALL(ssize_t, pwrite, (int fd, const void *buf, size_t n, off_t offset), (fd, buf, n, offset), ENOSPC)
CALL(ssize_t, preadv2, (int fd, const struct iovec *iov, int nr, off_t offset, int flags), (fd, iov, nr, offset, flags),
     ENOMEM)
CALL(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n), EINTR)
CALL(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n), EINTR)
CALL(int, madvise, (void *addr, size_t length, int advice), (addr, length, advice), ENOMEM)
CALL(int, mprotect, (void *addr, size_t length, int prot), (addr, length, prot), ENOMEM)
CALL(int, socket, (int domain, int type, int protocol), (domain, type, protocol), EMFILE)
CALL(int, socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds), EMFILE)
CALL(int, bind, (int fd, const struct sockaddr *addr, socklen_t length), (fd, addr, length), ENOMEM)
CALL(int, listen, (int fd, int backlog), (fd, backlog), ENOBUFS)
CALL(int, connect, (int fd, const struct sockaddr *addr, socklen_t length), (fd, addr, length), ENOBUFS)
CALL(int, accept4, (int fd, struct sockaddr *restrict addr, socklen_t *restrict length, int flags),
     (fd, addr, length, flags), EMFILE)
CALL(int, poll, (struct pollfd * fds, nfds_t nr, int timeout), (fds, nr, timeout), EINTR)
CALL(int, pipe2, (int fds[2], int flags), (fds, flags), EMFILE)
CALL(int, eventfd, (unsigned value, int flags), (value, flags), EMFILE)
CALL(int, epoll_create1, (int flags), (flags), EMFILE)
CALL(int, pidfd_open, (pid_t pid, unsigned flags), (pid, flags), EMFILE)
CALL(pid_t, fork, (void), (), EAGAIN)
CALL_IF(true, INJECT_CALL, int, EAGAIN, pthread_create,
        (pthread_t *restrict thread, const pthread_attr_t *restrict attr, void *(*fn)(void *), void *restrict arg),
        (thread, attr, fn, arg), EAGAIN)
CALL_IF(true, INJECT_MESSAGE, ssize_t, -1, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags),
        ENOBUFS)
CALL_IF(true, INJECT_MESSAGE, ssize_t, -1, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags), ENOMEM)

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return fails(INJECT_CALL, "open", EMFILE, NULL) ? -1 : real(path, flags, mode);
}

int fcntl(int fd, int cmd, ...)
{
    REAL(fcntl);
    va_list args;
    va_start(args, cmd);
    void *arg = va_arg(args, void *);
    va_end(args);
    if ((cmd == F_DUPFD_CLOEXEC || cmd == F_DUPFD) && fails(INJECT_CALL, "fcntl(F_DUPFD)", EMFILE, NULL))
        return -1;
    if (cmd == F_SETPIPE_SZ && fails(INJECT_CALL, "fcntl(F_SETPIPE_SZ)", EPERM, NULL))
        return -1;
    return real(fd, cmd, arg);
}

int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl);
    va_list args;
    va_start(args, request);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (request != UFFDIO_WAKE && fails(INJECT_CALL,
                                        request == UFFDIO_REGISTER     ? "ioctl(UFFDIO_REGISTER)"
                                        : request == UFFDIO_UNREGISTER ? "ioctl(UFFDIO_UNREGISTER)"
                                                                       : "ioctl",
                                        ENOMEM, NULL))
        return -1;
    return real(fd, request, arg);
}

void *mremap(void *old, size_t old_size, size_t new_size, int flags, ...)
{
    REAL(mremap);
    va_list args;
    va_start(args, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(args, void *) : NULL;
    va_end(args);
    return fails(INJECT_MEMORY, "mremap", ENOMEM, NULL) ? MAP_FAILED : real(old, old_size, new_size, flags, to);
}

long syscall(long number, ...)
{
    REAL(syscall);
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_userfaultfd && fails(INJECT_CALL, "userfaultfd", EMFILE, NULL))
        return -1;
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- beginning ------------------------------------------------------------------------------------------------------
 */

static int find_spared(struct dl_phdr_info *info, size_t size, void *arg)
{
    const char *name = info->dlpi_name ? info->dlpi_name : "";
    (void)size;
    (void)arg;
    if (!strstr(name, "/libuv.so") && !strstr(name, "/libseccomp.so"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum && nr_spared < sizeof(spared) / sizeof(spared[0]); i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        spared[nr_spared].start = info->dlpi_addr + p->p_vaddr;
        spared[nr_spared].end = spared[nr_spared].start + p->p_memsz;
        nr_spared++;
    }
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    void *warm[1];
    const char *path = getenv("FAKEHYP_INJECT");
    if (!path)
        return;
    inside = true;
    dl_iterate_phdr(find_spared, NULL);
    backtrace(warm, 1); /* it loads a library the first time */
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        dprintf(STDERR_FILENO, "FAKEHYP_INJECT: %s: %s\n", path, strerror(errno));
        _exit(125);
    }
    close(fd);
    inside = false;
    shared = p;
}
