/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/proto/chan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    for (;;) {
        if (sendmsg(sock, &hdr, MSG_NOSIGNAL | flags) >= 0)
            return 0;
        if (errno != EINTR)
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
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
    ssize_t n;

    msg->len = 0;
    msg->nr_fds = 0;
    msg->fds_lost = false;
    msg->pid = 0;
    msg->uid = (uid_t)-1;
    do
        n = recvmsg(sock, &hdr, MSG_CMSG_CLOEXEC | flags);
    while (n < 0 && errno == EINTR);
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
    uint8_t *buf = malloc(len + 1);
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
    uint8_t *buf = malloc(len + 1);
    if (!buf)
        return -ENOMEM;
    fakehyp__reply__pack(reply, buf);
    int rc = chan_send(sock, buf, len, fds, nr_fds, flags);
    free(buf);
    return rc;
}
