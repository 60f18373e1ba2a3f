/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wire decoder: a frame as a peer may send it, any bytes and any number of
 * descriptors, through a socket into chan_recv() and the protobuf decoder.
 *
 * Input: which message the receiver expects, a descriptor count, how much
 * padding makes it (too) long; then the frame.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "src/proto/chan.h"
#include "tests/fuzz/fuzz.h"

#define MOST_FDS 253 /* SCM_MAX_FD of Linux */

static int socks[2] = {-1, -1};

static void open_sockets(void)
{
    int size = 1 << 20;

    if (socks[0] >= 0)
        return;
    FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks));
    FUZZ_CHECK(!setsockopt(socks[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
}

static int lowest_fd(void)
{
    int fd = fcntl(socks[0], F_DUPFD_CLOEXEC, 0);

    FUZZ_CHECK(fd >= 0);
    close(fd);
    return fd;
}

/* As chan_send(), but with what that refuses to send. */
static void send_frame(const uint8_t *data, size_t len, unsigned nr_fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * MOST_FDS)];
    } control = {.space = ""};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

    if (nr_fds) {
        hdr.msg_control = control.space;
        hdr.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
        for (unsigned i = 0; i < nr_fds; i++)
            memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &socks[0], sizeof(int));
    }
    FUZZ_CHECK(sendmsg(socks[0], &hdr, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len);
}

static void check_message(const ProtobufCMessage *message);

static void check_member(const ProtobufCFieldDescriptor *field, const void *at)
{
    if (field->type == PROTOBUF_C_TYPE_STRING)
        FUZZ_CHECK(*(char *const *)at && strlen(*(char *const *)at) <= CHAN_MAX_FRAME);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        check_message(*(ProtobufCMessage *const *)at);
}

/* What the handlers rely on: a string is a string, and a member that is there, is. */
static void check_message(const ProtobufCMessage *message)
{
    FUZZ_CHECK(message);
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const void *at = (const char *)message + field->offset;
        const void *quantifier = (const char *)message + field->quantifier_offset;
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && *(const uint32_t *)quantifier != field->id)
            continue;
        if (field->label != PROTOBUF_C_LABEL_REPEATED)
            check_member(field, at);
        else if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE)
            for (size_t j = 0; j < *(const size_t *)quantifier; j++)
                check_member(field, *(void *const *const *)at + j);
    }
}

static void decode(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len)
{
    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, len, data);

    if (!message)
        return;
    check_message(message);
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(size + 1);
    FUZZ_CHECK(packed && protobuf_c_message_pack(message, packed) == size);
    free(packed);
    protobuf_c_message_free_unpacked(message, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t frame[CHAN_MAX_FRAME + 4096], buffer[CHAN_MAX_FRAME];
    struct fuzz_input in = {.data = data, .left = size};
    struct chan_msg msg = {.data = buffer};
    const uint8_t what = fuzz_u8(&in), nr_fds = fuzz_u8(&in) % (MOST_FDS + 1);
    size_t padding = fuzz_u8(&in) * (size_t)1024, len;

    open_sockets();
    const int before = lowest_fd();
    const uint8_t *bytes = fuzz_bytes(&in, sizeof(frame), &len);
    memcpy(frame, bytes, len);
    if (padding > sizeof(frame) - len)
        padding = sizeof(frame) - len;
    memset(frame + len, 0, padding);
    send_frame(frame, len + padding, nr_fds);

    int rc = chan_recv(socks[1], &msg, MSG_DONTWAIT);
    if (len + padding > CHAN_MAX_FRAME || nr_fds > CHAN_MAX_FDS)
        FUZZ_CHECK(rc == -EMSGSIZE && msg.nr_fds == 0);
    else if (len + padding == 0)
        FUZZ_CHECK(rc == 0 && msg.nr_fds == 0);
    else
        FUZZ_CHECK(rc == 1 && msg.len == len + padding && msg.nr_fds == nr_fds && !memcmp(buffer, frame, msg.len));
    if (rc == 1)
        decode(what & 1 ? &fakehyp__reply__descriptor : &fakehyp__request__descriptor, msg.data, msg.len);
    int taken = chan_msg_take_fd(&msg, what >> 1);
    FUZZ_CHECK(taken >= 0 ? what >> 1 < nr_fds : taken == -EBADF);
    if (taken >= 0)
        close(taken);
    chan_msg_close_fds(&msg);
    FUZZ_CHECK(lowest_fd() == before);
    return 0;
}
