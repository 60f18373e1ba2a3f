/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ways around the boundary by way of I/O: the kernel reads from views and writes
 * into them on behalf of system calls, and holds their pages while pages change
 * sides.
 */
#include "tests/common/live_escape.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif
#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif

static uint8_t *at(const struct escape *e, uint64_t page)
{
    return e->view + page * PAGE;
}

/* The end of a call that had the page as its buffer and copied it to where `copy` is now. */
static void came(struct escape *e, uint64_t page, ssize_t n, const void *copy)
{
    if (n > 0)
        escape_saw(e, page, copy, (size_t)n);
    else if (errno == EFAULT)
        escape_refused(e);
    else
        escape_broken(e, "a system call with a view as its buffer");
}

static void open_pipe(struct escape *e, int fds[2])
{
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        escape_broken(e, "pipe");
}

static void close_pipe(const int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

/* Stores that a system call makes; a secret takes none. */
static void stored(struct escape *e, uint64_t page, ssize_t n)
{
    if (n > 0 && arena_is_secret(page))
        escape_broken(e, "a system call stored into a secret");
}

/* ---- buffers --------------------------------------------------------------------------------------------------------
 */

static void through_pipe(struct escape *e)
{
    char copy[4096];
    int fds[2];

    open_pipe(e, fds);
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        uint64_t page = escape_page(i);
        ssize_t n = write(fds[1], at(e, page), PAGE);
        int err = errno;
        ssize_t got = n > 0 ? read(fds[0], copy, sizeof(copy)) : -1;
        errno = err;
        came(e, page, got, copy);
        if (write(fds[1], memset(copy, 0x11, 64), 64) != 64)
            escape_broken(e, "write to a pipe");
        stored(e, page, read(fds[0], at(e, page) + ARENA_SCRATCH, 64));
        while (read(fds[0], copy, sizeof(copy)) > 0)
            ;
    }
    close_pipe(fds);
}

static void through_socket(struct escape *e)
{
    char copy[4096];
    int socks[2];

    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, socks))
        escape_broken(e, "socketpair");
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        uint64_t page = escape_page(i);
        ssize_t n = send(socks[0], at(e, page), PAGE, 0);
        int err = errno;
        ssize_t got = n > 0 ? recv(socks[1], copy, sizeof(copy), 0) : -1;
        errno = err;
        came(e, page, got, copy);
        send(socks[0], memset(copy, 0x22, 64), 64, 0);
        stored(e, page, recv(socks[1], at(e, page) + ARENA_SCRATCH, 64, 0));
        while (recv(socks[1], copy, sizeof(copy), 0) > 0)
            ;
    }
    close(socks[0]);
    close(socks[1]);
}

static void as_argument(struct escape *e)
{
    struct timespec now = {0};

    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        uint64_t page = escape_page(i);
        /* What a wait on a word answers tells whether it is 0x33: one bit of it. */
        long rc = syscall(SYS_futex, at(e, page), FUTEX_WAIT, 0x33, &now, NULL, 0);
        if (rc < 0 && errno == EFAULT)
            escape_refused(e);
        else
            escape_saw(e, page, "", 1);
        stored(e, page, ioctl(0, FIONREAD, at(e, page) + ARENA_SCRATCH) ? 0 : 4);
        if (open((char *)at(e, page), O_RDONLY) >= 0 && arena_is_secret(page))
            escape_broken(e, "a path was read from a secret");
    }
}

static void random_into(struct escape *e)
{
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        /* Only where it must fail: its bytes have every bit. */
        if (arena_is_secret(escape_page(i))) {
            stored(e, escape_page(i), getrandom(at(e, escape_page(i)), 16, 0));
            escape_refused(e);
        }
}

/* ---- references -----------------------------------------------------------------------------------------------------
 */

static void vmspliced(struct escape *e)
{
    char copy[4096];
    int fds[2];

    open_pipe(e, fds);
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        struct iovec iov = {at(e, escape_page(i)), PAGE};
        ssize_t n = vmsplice(fds[1], &iov, 1, SPLICE_F_NONBLOCK | (i % 2 ? SPLICE_F_GIFT : 0));
        int err = errno;
        ssize_t got = n > 0 ? read(fds[0], copy, sizeof(copy)) : -1;
        errno = err;
        came(e, escape_page(i), got, copy);
    }
    close_pipe(fds);
}

/* The pipe has the pages from before they changed sides, and gives them up after. */
static void vmsplice_held(struct escape *e)
{
    bool held[ARENA_FLIPS];
    char copy[4096];
    int fds[2], twin[2];

    open_pipe(e, fds);
    open_pipe(e, twin);
    for (unsigned i = 0; i < ARENA_FLIPS; i++) {
        struct iovec iov = {at(e, ARENA_FLIP + i), PAGE};
        held[i] = vmsplice(fds[1], &iov, 1, SPLICE_F_NONBLOCK) == (ssize_t)PAGE;
        if (!held[i])
            escape_refused(e);
    }
    tee(fds[0], twin[1], ARENA_FLIPS * PAGE, SPLICE_F_NONBLOCK);
    for (unsigned again = 0; again < 2; again++) {
        rig_sleep_ms(1);
        for (unsigned i = 0; i < ARENA_FLIPS; i++)
            if (held[i] && read(again ? twin[0] : fds[0], copy, sizeof(copy)) > 0)
                escape_saw(e, ARENA_FLIP + i, copy, sizeof(copy));
    }
    close_pipe(fds);
    close_pipe(twin);
}

static int direct_file(void)
{
    static int fd = -1;
    if (fd < 0)
        fd = escape_scratch(O_DIRECT);
    return fd;
}

static const char *no_direct_io(void)
{
    return direct_file() < 0 ? "no file system here takes O_DIRECT" : NULL;
}

static void direct_io(struct escape *e)
{
    static uint8_t copy[4096] __attribute__((aligned(4096)));
    int fd = direct_file();

    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        uint64_t page = escape_page(i);
        ssize_t n = pwrite(fd, at(e, page), PAGE, 0);
        int err = errno;
        if (n > 0 && pread(fd, copy, sizeof(copy), 0) != sizeof(copy))
            escape_broken(e, "read of a scratch file");
        errno = err;
        came(e, page, n, copy);
    }
    memset(copy, 0x44, sizeof(copy));
    if (pwrite(fd, copy, sizeof(copy), 0) != sizeof(copy))
        escape_broken(e, "write of a scratch file");
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        stored(e, escape_page(i), pread(fd, at(e, escape_page(i)) + ARENA_SCRATCH, 512, 0));
}

static void asynchronous(struct escape *e)
{
    static uint8_t copy[4096] __attribute__((aligned(4096)));
    struct io_event event;
    aio_context_t context = 0;

    if (syscall(SYS_io_setup, 4, &context))
        escape_broken(e, "io_setup");
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        struct iocb block = {.aio_lio_opcode = IOCB_CMD_PWRITE,
                             .aio_fildes = (uint32_t)direct_file(),
                             .aio_buf = (uintptr_t)at(e, escape_page(i)),
                             .aio_nbytes = PAGE},
                    *list = &block;
        if (syscall(SYS_io_submit, context, 1, &list) != 1 ||
            syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
            event.res = -errno;
        if (event.res > 0 && pread(direct_file(), copy, sizeof(copy), 0) != sizeof(copy))
            escape_broken(e, "read of a scratch file");
        errno = event.res < 0 ? (int)-event.res : 0;
        came(e, escape_page(i), event.res > 0 ? (ssize_t)event.res : -1, copy);
    }
    syscall(SYS_io_destroy, context);
}

static const char *no_aio(void)
{
    aio_context_t context = 0;
    const char *missing = no_direct_io();

    if (!missing && syscall(SYS_io_setup, 1, &context))
        missing = "no io_setup";
    if (context)
        syscall(SYS_io_destroy, context);
    return missing;
}

/* ---- zero-copy sockets ----------------------------------------------------------------------------------------------
 */

static int udp_to_itself(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    struct timeval patience = {.tv_sec = 1};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), one = 1;

    if (fd >= 0 && !bind(fd, (struct sockaddr *)&address, length) &&
        !getsockname(fd, (struct sockaddr *)&address, &length) && !connect(fd, (struct sockaddr *)&address, length) &&
        !setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) &&
        !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) && send(fd, "x", 1, 0) == 1 &&
        recv(fd, &one, sizeof(one), 0) == 1)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static const char *no_zero_copy(void)
{
    int fd = udp_to_itself();
    if (fd < 0)
        return "no loopback network, or no SO_ZEROCOPY";
    close(fd);
    return NULL;
}

static void zero_copied(struct escape *e)
{
    char copy[4096];
    int fd = udp_to_itself();

    if (fd < 0)
        escape_broken(e, "a UDP socket");
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        ssize_t n = send(fd, at(e, escape_page(i)), PAGE, MSG_ZEROCOPY);
        int err = errno;
        ssize_t got = n > 0 ? recv(fd, copy, sizeof(copy), 0) : -1;
        if (n < 0)
            errno = err;
        /* Notices that nobody reads use up a limit. */
        struct msghdr notice = {.msg_flags = 0};
        while (recvmsg(fd, &notice, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
            ;
        errno = err;
        if (n > 0 && got <= 0)
            continue; /* dropped by a full queue */
        came(e, escape_page(i), got, copy);
    }
    close(fd);
}

/* ---- io_uring -------------------------------------------------------------------------------------------------------
 */

struct ring {
    int fd;
    uint8_t *sq, *cq;
    struct io_uring_sqe *sqes;
    struct io_uring_params params;
};

static bool ring_open(struct ring *r)
{
    *r = (struct ring){.fd = -1};
    r->fd = (int)syscall(SYS_io_uring_setup, 4, &r->params);
    if (r->fd < 0)
        return false;
    r->sq = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
    r->cq = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
    r->sqes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
    return r->sq != MAP_FAILED && r->cq != MAP_FAILED && r->sqes != MAP_FAILED;
}

static void ring_close(struct ring *r)
{
    munmap(r->sq, PAGE);
    munmap(r->cq, PAGE);
    munmap(r->sqes, PAGE);
    close(r->fd);
}

static _Atomic uint32_t *ring_word(uint8_t *ring, uint32_t offset)
{
    return (_Atomic uint32_t *)(void *)(ring + offset);
}

/* One request, waited for: its result. */
static int ring_do(struct escape *e, struct ring *r, uint8_t opcode, int fd, const uint8_t *buf, uint32_t length,
                   uint16_t index)
{
    uint32_t tail = atomic_load(ring_word(r->sq, r->params.sq_off.tail)), slot = tail & (r->params.sq_entries - 1);

    r->sqes[slot] = (struct io_uring_sqe){
        .opcode = opcode, .fd = fd, .addr = (uintptr_t)buf, .len = length, .off = 0, .buf_index = index};
    atomic_store(ring_word(r->sq, r->params.sq_off.array + slot * 4), slot);
    atomic_store(ring_word(r->sq, r->params.sq_off.tail), tail + 1);
    if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
        escape_broken(e, "io_uring_enter");
    uint32_t head = atomic_load(ring_word(r->cq, r->params.cq_off.head));
    const struct io_uring_cqe *cqes = (const void *)(r->cq + r->params.cq_off.cqes);
    int res = cqes[head & (r->params.cq_entries - 1)].res;
    atomic_store(ring_word(r->cq, r->params.cq_off.head), head + 1);
    return res;
}

static const char *no_io_uring(void)
{
    struct ring r;
    if (!ring_open(&r))
        return "io_uring is not to be had (kernel.io_uring_disabled, or no io_uring)";
    ring_close(&r);
    return NULL;
}

/* From the view to a memfd. */
static void uring_plain(struct escape *e)
{
    int file = memfd_create("io_uring", MFD_CLOEXEC);
    char copy[4096];
    struct ring r;

    if (!ring_open(&r))
        escape_broken(e, "io_uring_setup");
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        uint64_t page = escape_page(i);
        int n = ring_do(e, &r, IORING_OP_WRITE, file, at(e, page), PAGE, 0);
        if (n > 0 && pread(file, copy, (size_t)n, 0) != n)
            escape_broken(e, "read of a memfd");
        errno = n < 0 ? -n : 0;
        came(e, page, n, copy);
        if (ftruncate(file, 0) || pwrite(file, memset(copy, 0x55, 64), 64, 0) != 64)
            escape_broken(e, "write of a memfd");
        stored(e, page, ring_do(e, &r, IORING_OP_READ, file, at(e, page) + ARENA_SCRATCH, 64, 0));
    }
    ring_close(&r);
    close(file);
}

/* A buffer is pinned while its page is shared, and read when the page has changed sides. */
static void uring_registered(struct escape *e)
{
    int file = memfd_create("io_uring", MFD_CLOEXEC);
    char copy[4096];
    struct ring r;

    if (!ring_open(&r))
        escape_broken(e, "io_uring_setup");
    for (unsigned i = 0; i < ARENA_FLIPS; i++) {
        uint64_t page = ARENA_FLIP + i;
        struct iovec iov = {at(e, page), PAGE};
        if (syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &iov, 1)) {
            errno == EFAULT ? escape_refused(e) : escape_broken(e, "IORING_REGISTER_BUFFERS");
            continue;
        }
        for (unsigned again = 0; again < 4; again++) {
            int n = ring_do(e, &r, IORING_OP_WRITE_FIXED, file, iov.iov_base, PAGE, 0);
            if (n > 0 && pread(file, copy, (size_t)n, 0) != n)
                escape_broken(e, "read of a memfd");
            errno = n < 0 ? -n : 0;
            came(e, page, n, copy);
            rig_sleep_ms(again % 2);
        }
        syscall(SYS_io_uring_register, r.fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
    }
    ring_close(&r);
    close(file);
}

/* ---- swap -----------------------------------------------------------------------------------------------------------
 */

static const char *no_swap(void)
{
    char text[400];
    int fd = open("/proc/swaps", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *line = strchr(text, '\n');
    return line && line[1] ? NULL : "no swap";
}

/* A page in swap is not missing: it is shared, and comes back. */
static void swapped_out(struct escape *e)
{
    for (uint64_t page = ARENA_SHARED; page < ARENA_SHARED + ARENA_SHARED_PAGES; page++)
        memset(at(e, page), (int)page & 0x7f, PAGE);
    madvise(e->view, ESCAPE_BYTES, MADV_PAGEOUT);
    escape_look(e, e->view);
    for (uint64_t page = ARENA_SHARED; page < ARENA_SHARED + ARENA_SHARED_PAGES; page++)
        if (at(e, page)[7] != (page & 0x7f))
            escape_broken(e, "a page that was swapped out is not what it was");
}

#define FAULT "EFAULT"
#define OLD_PAGE "what is held is the page as it was when it was shared; it is guest memory no more"

static const struct escape_row rows[] = {
    ROW("read and write", "a view as the buffer, to and from a pipe", HARMLESS, FAULT, through_pipe),
    ROW("send and recv", "a view as the buffer", HARMLESS, FAULT, through_socket),
    ROW("futex, ioctl, open", "a view as the argument", HARMLESS, FAULT, as_argument),
    ROW("getrandom", "into a view", HARMLESS, FAULT, random_into),
    ROW("vmsplice", "of a view, with and without SPLICE_F_GIFT", HARMLESS, FAULT, vmspliced),
    ROW("vmsplice, held, and tee", "in pipes while pages change sides", HARMLESS, OLD_PAGE, vmsplice_held),
    ROW("O_DIRECT", "reads and writes while pages change sides", HARMLESS, FAULT, direct_io, .missing = no_direct_io),
    ROW("io_submit", "O_DIRECT writes while pages change sides", HARMLESS, FAULT, asynchronous, .missing = no_aio),
    ROW("MSG_ZEROCOPY", "of a view, over UDP", HARMLESS, FAULT, zero_copied, .missing = no_zero_copy),
    ROW("io_uring", "READ and WRITE, a view as the buffer", HARMLESS, FAULT, uring_plain, .missing = no_io_uring),
    ROW("io_uring, registered buffers", "WRITE_FIXED while pages change sides", HARMLESS, FAULT ", or: " OLD_PAGE,
        uring_registered, .missing = no_io_uring),
    ROW("swap", "MADV_PAGEOUT with swap on", HARMLESS, "a shared page comes back from swap, a private one stays away",
        swapped_out, .missing = no_swap, .wipes = true),
};

ESCAPE_MAIN("input and output", rows)
