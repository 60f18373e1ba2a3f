/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/proto/chan.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* False when the patience is over. */
static bool wait_for_memory(unsigned *tries)
{
    if (++*tries > CHAN_PATIENCE_MS)
        return false;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return true;
}

void *chan_malloc(size_t size)
{
    unsigned tries = 0;
    void *p;

    while (!(p = malloc(size)) && wait_for_memory(&tries))
        ;
    return p;
}

static void *message_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return chan_malloc(size);
}

static void message_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

static ProtobufCAllocator message_allocator = {.alloc = message_alloc, .free = message_free};

Fakehyp__Request *chan_unpack_request(const struct chan_msg *msg)
{
    return fakehyp__request__unpack(&message_allocator, msg->len, msg->data);
}

Fakehyp__Reply *chan_unpack_reply(const struct chan_msg *msg)
{
    return fakehyp__reply__unpack(&message_allocator, msg->len, msg->data);
}

/* What sendmsg() and recvmsg() say when the kernel is short of memory; the frame is where it was. */
static bool is_shortage(int err)
{
    return err == ENOBUFS || err == ENOMEM;
}

int chan_send(int sock, const void *data, size_t len, const int *fds, unsigned nr_fds, int flags)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * CHAN_MAX_FDS)];
    } control;
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

    if (len > CHAN_MAX_FRAME || nr_fds > CHAN_MAX_FDS)
        return -EMSGSIZE;
    if (nr_fds) {
        hdr.msg_control = control.space;
        hdr.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
        memset(control.space, 0, hdr.msg_controllen);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nr_fds);
    }
    return chan_sendmsg(sock, &hdr, flags);
}

int chan_sendmsg(int sock, const struct msghdr *hdr, int flags)
{
    unsigned tries = 0;

    for (;;) {
        if (sendmsg(sock, hdr, MSG_NOSIGNAL | flags) >= 0)
            return 0;
        int err = errno;
        if (err != EINTR && !(is_shortage(err) && wait_for_memory(&tries)))
            return err == EWOULDBLOCK ? -EAGAIN : -err;
    }
}

void chan_close_fd(int fd)
{
    const struct linger none = {.l_onoff = 0};

    /* Of anything else it fails, which is as well. */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close(fd);
}

static void take_control(struct msghdr *hdr, struct chan_msg *msg)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(hdr); cmsg; cmsg = CMSG_NXTHDR(hdr, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET)
            continue;
        if (cmsg->cmsg_type == SCM_RIGHTS) {
            size_t nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < nr; i++) {
                int fd;
                memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
                if (msg->nr_fds < CHAN_MAX_FDS)
                    msg->fds[msg->nr_fds++] = fd;
                else {
                    /* There is room for some more where the credentials are not: as if they had not fitted. */
                    hdr->msg_flags |= MSG_CTRUNC;
                    chan_close_fd(fd);
                }
            }
        } else if (cmsg->cmsg_type == SCM_CREDENTIALS) {
            struct ucred cred;
            memcpy(&cred, CMSG_DATA(cmsg), sizeof(cred));
            msg->pid = cred.pid;
            msg->uid = cred.uid;
        }
    }
}

int chan_recv(int sock, struct chan_msg *msg, int flags)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * CHAN_MAX_FDS) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec iov = {.iov_base = msg->data, .iov_len = CHAN_MAX_FRAME};
    struct msghdr hdr = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    unsigned tries = 0;
    ssize_t n;

    msg->len = 0;
    msg->nr_fds = 0;
    msg->fds_lost = false;
    msg->pid = 0;
    msg->uid = (uid_t)-1;
    do
        n = recvmsg(sock, &hdr, MSG_CMSG_CLOEXEC | flags);
    while (n < 0 && (errno == EINTR || (is_shortage(errno) && wait_for_memory(&tries))));
    if (n < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    take_control(&hdr, msg);
    if (hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        /* The other reason is that there are more than anybody may send. */
        msg->fds_lost = hdr.msg_flags & MSG_CTRUNC && msg->nr_fds < CHAN_MAX_FDS;
        chan_msg_close_fds(msg);
        /* Without its descriptors the frame is whole: who runs out of them can still tell what it was. */
        if (!(hdr.msg_flags & MSG_TRUNC))
            msg->len = (size_t)n;
        return -EMSGSIZE;
    }
    if (n == 0) {
        /* A peer cannot send an empty frame through chan_send's callers: this is the end of the connection. */
        chan_msg_close_fds(msg);
        return 0;
    }
    msg->len = (size_t)n;
    return 1;
}

void chan_msg_close_fds(struct chan_msg *msg)
{
    for (unsigned i = 0; i < msg->nr_fds; i++)
        if (msg->fds[i] >= 0)
            chan_close_fd(msg->fds[i]);
    msg->nr_fds = 0;
}

int chan_msg_take_fd(struct chan_msg *msg, unsigned i)
{
    if (i >= msg->nr_fds || msg->fds[i] < 0)
        return -EBADF;
    int fd = msg->fds[i];
    msg->fds[i] = -1;
    return fd;
}

int chan_send_request(int sock, const Fakehyp__Request *request, const int *fds, unsigned nr_fds, int flags)
{
    size_t len = fakehyp__request__get_packed_size(request);
    if (len > CHAN_MAX_FRAME)
        return -EMSGSIZE;
    uint8_t *buf = chan_malloc(len + 1);
    if (!buf)
        return -ENOMEM;
    fakehyp__request__pack(request, buf);
    int rc = chan_send(sock, buf, len, fds, nr_fds, flags);
    free(buf);
    return rc;
}

int chan_send_reply(int sock, const Fakehyp__Reply *reply, const int *fds, unsigned nr_fds, int flags)
{
    size_t len = fakehyp__reply__get_packed_size(reply);
    if (len > CHAN_MAX_FRAME)
        return -EMSGSIZE;
    uint8_t *buf = chan_malloc(len + 1);
    if (!buf)
        return -ENOMEM;
    fakehyp__reply__pack(reply, buf);
    int rc = chan_send(sock, buf, len, fds, nr_fds, flags);
    free(buf);
    return rc;
}
