/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames and their descriptors over a socket pair: what arrives, what is refused, and that no descriptor is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/proto/chan.h"

struct pair {
    int sock[2];
    uint8_t data[CHAN_MAX_FRAME];
    struct chan_msg msg;
    unsigned fds_before;
};

static unsigned own_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned nr = 0;

    assert_non_null(dir);
    while (readdir(dir))
        nr++;
    closedir(dir);
    return nr;
}

static int set_up(void **state)
{
    struct pair *p = calloc(1, sizeof(*p));

    if (!p || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->sock))
        return -1;
    p->msg.data = p->data;
    p->fds_before = own_fds();
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *p = *state;
    int leaked = own_fds() != p->fds_before;

    close(p->sock[0]);
    close(p->sock[1]);
    free(p);
    return leaked ? -1 : 0;
}

static void same_file(int a, int b)
{
    struct stat sa, sb;

    assert_int_equal(fstat(a, &sa), 0);
    assert_int_equal(fstat(b, &sb), 0);
    assert_true(sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

static void frames_keep_their_borders(void **state)
{
    struct pair *p = *state;

    assert_int_equal(chan_send(p->sock[0], "one", 3, NULL, 0, 0), 0);
    assert_int_equal(chan_send(p->sock[0], "two two", 7, NULL, 0, 0), 0);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
    assert_int_equal(p->msg.len, 3);
    assert_memory_equal(p->msg.data, "one", 3);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
    assert_int_equal(p->msg.len, 7);
    assert_memory_equal(p->msg.data, "two two", 7);
    assert_int_equal(p->msg.nr_fds, 0);
}

static void longest_frame(void **state)
{
    struct pair *p = *state;
    static uint8_t big[CHAN_MAX_FRAME + 1];

    memset(big, 0x5a, sizeof(big));
    assert_int_equal(chan_send(p->sock[0], big, sizeof(big), NULL, 0, 0), -EMSGSIZE);
    assert_int_equal(chan_send(p->sock[0], big, CHAN_MAX_FRAME, NULL, 0, 0), 0);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
    assert_int_equal(p->msg.len, CHAN_MAX_FRAME);
    assert_memory_equal(p->msg.data, big, CHAN_MAX_FRAME);
    /* A peer that does not keep to the limit: what was cut is no frame, and its descriptors are not kept. */
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct iovec iov = {big, sizeof(big)};
    struct msghdr hdr = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &p->sock[0], sizeof(int));
    assert_int_equal(sendmsg(p->sock[0], &hdr, 0), (int)sizeof(big));
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), -EMSGSIZE);
    assert_int_equal(p->msg.len, 0);
    assert_int_equal(p->msg.nr_fds, 0);
}

static void ends(void **state)
{
    struct pair *p = *state;

    assert_int_equal(chan_recv(p->sock[1], &p->msg, MSG_DONTWAIT), -EAGAIN);
    int rc = 0;
    for (unsigned i = 0; i < 100000 && rc == 0; i++)
        rc = chan_send(p->sock[0], "x", 1, NULL, 0, MSG_DONTWAIT);
    assert_int_equal(rc, -EAGAIN);
    /* What was sent before the end arrives before it. */
    assert_int_equal(shutdown(p->sock[0], SHUT_WR), 0);
    while ((rc = chan_recv(p->sock[1], &p->msg, MSG_DONTWAIT)) == 1)
        assert_int_equal(p->msg.len, 1);
    assert_int_equal(rc, 0);
    /* No SIGPIPE. */
    assert_int_equal(chan_send(p->sock[0], "x", 1, NULL, 0, 0), -EPIPE);
    assert_int_equal(chan_recv(-1, &p->msg, 0), -EBADF);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------ */

static void descriptors_in_their_order(void **state)
{
    struct pair *p = *state;
    int sent[2] = {open("/dev/null", O_RDONLY | O_CLOEXEC), open("/dev/zero", O_RDONLY | O_CLOEXEC)};

    assert_true(sent[0] >= 0 && sent[1] >= 0);
    assert_int_equal(chan_send(p->sock[0], "x", 1, sent, 2, 0), 0);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
    assert_int_equal(p->msg.nr_fds, 2);
    int zero = chan_msg_take_fd(&p->msg, 1);
    assert_true(zero >= 0 && fcntl(zero, F_GETFD) & FD_CLOEXEC);
    same_file(zero, sent[1]);
    same_file(p->msg.fds[0], sent[0]);
    assert_int_equal(chan_msg_take_fd(&p->msg, 1), -EBADF);
    assert_int_equal(chan_msg_take_fd(&p->msg, 2), -EBADF);
    /* What was taken stays open. */
    chan_msg_close_fds(&p->msg);
    assert_int_equal(p->msg.nr_fds, 0);
    assert_int_equal(chan_msg_take_fd(&p->msg, 0), -EBADF);
    assert_true(fcntl(zero, F_GETFD) >= 0);
    close(zero);
    close(sent[0]);
    close(sent[1]);
}

static void as_many_as_fit(void **state)
{
    struct pair *p = *state;
    int fds[CHAN_MAX_FDS + 1];

    for (unsigned i = 0; i <= CHAN_MAX_FDS; i++)
        fds[i] = p->sock[i % 2];
    assert_int_equal(chan_send(p->sock[0], "x", 1, fds, CHAN_MAX_FDS + 1, 0), -EMSGSIZE);
    assert_int_equal(chan_send(p->sock[0], "x", 1, fds, CHAN_MAX_FDS, 0), 0);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
    assert_int_equal(p->msg.nr_fds, CHAN_MAX_FDS);
    for (unsigned i = 0; i < CHAN_MAX_FDS; i++)
        same_file(p->msg.fds[i], fds[i]);
    chan_msg_close_fds(&p->msg);
}

/* A peer that does not keep to it: not a frame with some of them. */
static void more_than_fit(void **state)
{
    struct pair *p = *state;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * (CHAN_MAX_FDS + 1))];
    } control = {.space = {0}};
    struct iovec iov = {"x", 1};
    struct msghdr hdr = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * (CHAN_MAX_FDS + 1));
    for (unsigned i = 0; i <= CHAN_MAX_FDS; i++)
        memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &p->sock[0], sizeof(int));
    assert_int_equal(sendmsg(p->sock[0], &hdr, 0), 1);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), -EMSGSIZE);
    assert_int_equal(p->msg.nr_fds, 0);
    assert_false(p->msg.fds_lost);
}

/* A TCP socket with bytes that nobody reads: -1 where there is no such thing. */
static int stuck_socket(int *listener, int *other)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct linger long_time = {.l_onoff = 1, .l_linger = 60};
    socklen_t len = sizeof(address);
    static const char bytes[65536];

    *listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*listener < 0 || bind(*listener, (struct sockaddr *)&address, len) || listen(*listener, 1) ||
        getsockname(*listener, (struct sockaddr *)&address, &len))
        return -1;
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(sock, (struct sockaddr *)&address, len)) {
        close(sock);
        return -1;
    }
    *other = accept(*listener, NULL, NULL);
    while (send(sock, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        ;
    setsockopt(sock, SOL_SOCKET, SO_LINGER, &long_time, sizeof(long_time));
    return sock;
}

/* Whoever closes such a socket last waits: not the one to whom it was sent. */
static void socket_that_lingers(void **state)
{
    struct pair *p = *state;
    int listener = -1, other = -1, sock = stuck_socket(&listener, &other);

    if (sock >= 0) {
        assert_int_equal(chan_send(p->sock[0], "x", 1, &sock, 1, 0), 0);
        close(sock);
        assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
        time_t begin = time(NULL);
        chan_msg_close_fds(&p->msg);
        assert_in_range(time(NULL) - begin, 0, 10);
        close(other);
    } else {
        print_message("# not tried: socket_that_lingers: no TCP here\n");
    }
    if (listener >= 0)
        close(listener);
}

/* Without room for the descriptors the frame can still be read: its receiver can say which call it was. */
static void no_room_for_descriptors(void **state)
{
    struct pair *p = *state;
    struct rlimit limit, none;

    assert_int_equal(chan_send(p->sock[0], "whole", 5, p->sock, 2, 0), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = chan_recv(p->sock[1], &p->msg, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(rc, -EMSGSIZE);
    assert_int_equal(p->msg.nr_fds, 0);
    assert_true(p->msg.fds_lost);
    assert_int_equal(p->msg.len, 5);
    assert_memory_equal(p->msg.data, "whole", 5);
}

static void who_sent_it(void **state)
{
    struct pair *p = *state;
    int on = 1;

    assert_int_equal(chan_send(p->sock[0], "x", 1, NULL, 0, 0), 0);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
    assert_int_equal(p->msg.pid, 0);
    assert_int_equal(p->msg.uid, (uid_t)-1);
    assert_int_equal(setsockopt(p->sock[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    assert_int_equal(chan_send(p->sock[0], "x", 1, &p->sock[0], 1, 0), 0);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
    assert_int_equal(p->msg.pid, getpid());
    assert_int_equal(p->msg.uid, getuid());
    assert_int_equal(p->msg.nr_fds, 1);
    chan_msg_close_fds(&p->msg);
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static void messages_arrive_as_they_were(void **state)
{
    struct pair *p = *state;
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Query query = FAKEHYP__QUERY__INIT;
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;

    query.what = (char *)"page";
    query.offset = UINT64_MAX;
    request.id = 7;
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &query;
    assert_int_equal(chan_send_request(p->sock[0], &request, NULL, 0, 0), 0);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, 0), 1);
    Fakehyp__Request *in = fakehyp__request__unpack(NULL, p->msg.len, p->msg.data);
    assert_non_null(in);
    assert_int_equal(in->id, 7);
    assert_int_equal(in->body_case, FAKEHYP__REQUEST__BODY_QUERY);
    assert_string_equal(in->query->what, "page");
    assert_true(in->query->offset == UINT64_MAX);
    fakehyp__request__free_unpacked(in, NULL);

    reply.id = 7;
    reply.error = -EAGAIN;
    reply.message = (char *)"held by virtio-blk";
    assert_int_equal(chan_send_reply(p->sock[1], &reply, &p->sock[0], 1, 0), 0);
    assert_int_equal(chan_recv(p->sock[0], &p->msg, 0), 1);
    Fakehyp__Reply *out = fakehyp__reply__unpack(NULL, p->msg.len, p->msg.data);
    assert_non_null(out);
    assert_int_equal(out->error, -EAGAIN);
    assert_string_equal(out->message, "held by virtio-blk");
    assert_int_equal(p->msg.nr_fds, 1);
    fakehyp__reply__free_unpacked(out, NULL);
    chan_msg_close_fds(&p->msg);
}

static void messages_that_are_too_long(void **state)
{
    struct pair *p = *state;
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Query query = FAKEHYP__QUERY__INIT;
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    char *text = malloc(CHAN_MAX_FRAME + 1);

    assert_non_null(text);
    memset(text, 'a', CHAN_MAX_FRAME);
    text[CHAN_MAX_FRAME] = '\0';
    query.what = reply.message = text;
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &query;
    assert_int_equal(chan_send_request(p->sock[0], &request, NULL, 0, 0), -EMSGSIZE);
    assert_int_equal(chan_send_reply(p->sock[0], &reply, NULL, 0, 0), -EMSGSIZE);
    assert_int_equal(chan_recv(p->sock[1], &p->msg, MSG_DONTWAIT), -EAGAIN);
    free(text);
}

#define chan_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        chan_test(frames_keep_their_borders),  chan_test(longest_frame),       chan_test(ends),
        chan_test(descriptors_in_their_order), chan_test(as_many_as_fit),      chan_test(more_than_fit),
        chan_test(no_room_for_descriptors),    chan_test(who_sent_it),         chan_test(messages_arrive_as_they_were),
        chan_test(messages_that_are_too_long), chan_test(socket_that_lingers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
