/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients that break the protocol, while an innocent one works: they are dropped, the log says why, and nobody else
 * notices.
 */
#include "src/proto/chan.h"
#include "tests/common/live_bystander.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Not a load, but a nuisance: so often. */
#define MISCHIEF_MS 5
#define UNREAD_REQUESTS 500u
#ifdef __SANITIZE_THREAD__
#define MANY_REQUESTS 500u /* each is a task, with a thread's worth of shadow to be cleared */
#else
#define MANY_REQUESTS 10000u
#endif
#define PATIENCE_MS 10000

/* ---- the protocol by hand, in a process that must not fail with cmocka's means -------------------------------- */

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, rig.socket, strlen(rig.socket));
    if (sock < 0 || connect(sock, (struct sockaddr *)&address, sizeof(address)))
        _exit(20);
    return sock;
}

static void fill_hello(Fakehyp__Request *request, Fakehyp__Hello *hello)
{
    *request = (Fakehyp__Request)FAKEHYP__REQUEST__INIT;
    *hello = (Fakehyp__Hello)FAKEHYP__HELLO__INIT;
    hello->version = PROTO_VERSION;
    hello->program = (char *)"rogue";
    request->id = 1;
    request->body_case = FAKEHYP__REQUEST__BODY_HELLO;
    request->hello = hello;
}

static void fill_query(Fakehyp__Request *request, Fakehyp__Query *query)
{
    *request = (Fakehyp__Request)FAKEHYP__REQUEST__INIT;
    *query = (Fakehyp__Query)FAKEHYP__QUERY__INIT;
    query->what = (char *)"capabilities";
    request->body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request->query = query;
}

/* 1: a frame came; 0: the end of the connection. */
static int receive(int sock, struct chan_msg *msg)
{
    struct pollfd pfd = {.fd = sock, .events = POLLIN};

    if (poll(&pfd, 1, PATIENCE_MS) != 1)
        _exit(21);
    int rc = chan_recv(sock, msg, MSG_DONTWAIT);
    if (rc > 0)
        chan_msg_close_fds(msg);
    return rc > 0;
}

static uint8_t buffer[CHAN_MAX_FRAME];

static void expect_end(int sock)
{
    struct chan_msg msg = {.data = buffer};

    while (receive(sock, &msg))
        ;
    close(sock);
}

static int greeted(void)
{
    struct chan_msg msg = {.data = buffer};
    Fakehyp__Request request;
    Fakehyp__Hello hello;
    int sock = dial();

    fill_hello(&request, &hello);
    if (chan_send_request(sock, &request, NULL, 0, 0) || !receive(sock, &msg))
        _exit(22);
    return sock;
}

/* ---- mischief: once each ----------------------------------------------------------------------------------------- */

/* As long as the daemon would keep it: it is dropped when it is followed by the next. */
static void reads_late(void)
{
    static int last = -1;
    Fakehyp__Request request;
    Fakehyp__Query query;
    int sock = greeted();

    fill_query(&request, &query);
    for (request.id = 2; request.id < UNREAD_REQUESTS; request.id++)
        if (chan_send_request(sock, &request, NULL, 0, 0))
            _exit(19);
    if (last >= 0)
        close(last);
    last = sock;
}

static void never_reads(void)
{
    Fakehyp__Request request;
    Fakehyp__Query query;
    int sock = greeted(), rc = 0;

    fill_query(&request, &query);
    fcntl(sock, F_SETFL, O_NONBLOCK);
    while (rc == 0 || rc == -EAGAIN) {
        struct pollfd pfd = {.fd = sock, .events = POLLOUT};
        request.id++;
        rc = chan_send_request(sock, &request, NULL, 0, 0);
        if (rc == -EAGAIN && poll(&pfd, 1, PATIENCE_MS) != 1)
            _exit(23);
    }
    if (rc != -EPIPE && rc != -ECONNRESET)
        _exit(24);
    close(sock);
}

static void garbage(void)
{
    static uint64_t seed = 4711;
    uint8_t frame[64];

    for (unsigned greet = 0; greet < 2; greet++) {
        int sock = greet ? greeted() : dial();
        for (size_t i = 0; i < sizeof(frame); i++)
            frame[i] = (uint8_t)rig_random(&seed);
        /* The first byte is that of no field. */
        frame[0] = 0xff;
        if (chan_send(sock, frame, sizeof(frame), NULL, 0, 0))
            _exit(25);
        expect_end(sock);
    }
}

/* A message that ends too early; and a connection with no message at all, which is somebody slow. */
static void half_a_message(void)
{
    uint8_t packed[128];
    Fakehyp__Request request;
    Fakehyp__Hello hello;
    int silent = dial(), sock = dial();

    fill_hello(&request, &hello);
    size_t len = fakehyp__request__pack(&request, packed);
    if (chan_send(sock, packed, len / 2, NULL, 0, 0))
        _exit(26);
    expect_end(sock);
    close(silent);
}

/* Wrong ones, too few, too many, and some beside a message that takes none. */
static void wrong_descriptors(void)
{
    const Fakehyp__GmemImport import = FAKEHYP__GMEM_IMPORT__INIT;
    struct chan_msg msg = {.data = buffer};
    Fakehyp__Request request;
    Fakehyp__Query query;
    int pair[2], sock;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        _exit(27);
    const int fds[] = {pair[0], eventfd(0, EFD_CLOEXEC), memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING),
                       open("/dev/null", O_RDONLY | O_CLOEXEC)};
    for (unsigned i = 0; i < 7; i++) {
        sock = greeted();
        fill_query(&request, &query);
        if (i < 6) {
            request.body_case = FAKEHYP__REQUEST__BODY_GMEM_IMPORT;
            request.gmem_import = (Fakehyp__GmemImport *)&import;
        }
        if (chan_send_request(sock, &request, i < 4 ? &fds[i] : fds, i < 4 ? 1 : i == 4 ? 0 : 3, 0))
            _exit(28);
        if (i >= 4) {
            expect_end(sock);
            continue;
        }
        /* What is no guest_memfd is refused; the client may stay. */
        if (!receive(sock, &msg))
            _exit(29);
        Fakehyp__Reply *reply = fakehyp__reply__unpack(NULL, msg.len, msg.data);
        if (!reply || reply->error != -EINVAL)
            _exit(30);
        fakehyp__reply__free_unpacked(reply, NULL);
        close(sock);
    }
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        close(fds[i]);
    close(pair[1]);
}

/*
 * Ten thousand requests as fast as they go, answers being read when nothing more can be sent: each has its answer.
 * Never more unread than what the test above leaves: who leaves a thousand is dropped, whatever held him up.
 */
static void many_requests(void)
{
    struct chan_msg msg = {.data = buffer};
    unsigned sent = 0, answered = 0;
    Fakehyp__Request request;
    Fakehyp__Query query;
    int sock = greeted();

    fill_query(&request, &query);
    while (answered < MANY_REQUESTS) {
        request.id = sent;
        bool more = sent < MANY_REQUESTS && sent - answered < UNREAD_REQUESTS;
        int rc = more ? chan_send_request(sock, &request, NULL, 0, MSG_DONTWAIT) : -EAGAIN;
        if (rc == 0) {
            sent++;
        } else if (rc != -EAGAIN || !receive(sock, &msg)) {
            _exit(31);
        } else {
            answered++;
        }
    }
    close(sock);
}

/* ---- and who is beside ------------------------------------------------------------------------------------------- */

struct rogue {
    pid_t pid;
    int sock;
};

/* Again and again while it is told to ("d"); what it is told it answers when it is at rest. */
static _Noreturn void rogue_main(int sock, void (*mischief)(void))
{
    struct pollfd pfd = {.fd = sock, .events = POLLIN};
    char told = 'a';

    for (;;) {
        int n = poll(&pfd, 1, told == 'd' ? MISCHIEF_MS : -1);
        if (n > 0 && read(sock, &told, 1) != 1)
            _exit(0);
        if (n > 0 && write(sock, &told, 1) != 1)
            _exit(18);
        if (told == 'd')
            mischief();
    }
}

static void set_rogue(void *arg, bool disturbs)
{
    const struct rogue *rogue = arg;
    char told = disturbs ? 'd' : 'a', answer = '?';

    assert_int_equal(write(rogue->sock, &told, 1), 1);
    assert_int_equal(read(rogue->sock, &answer, 1), 1);
    assert_int_equal(answer, told);
}

static void rogue_start(struct rogue *rogue, void (*mischief)(void))
{
    rogue->pid = rig_fork_with_socket(&rogue->sock);
    if (rogue->pid == 0)
        rogue_main(rogue->sock, mischief);
    assert_true(rogue->pid > 0);
}

static void rogue_end(const struct rogue *rogue)
{
    close(rogue->sock);
    rig_child_ok(rogue->pid);
}

static void beside(const char *what, void (*mischief)(void), const char *logged)
{
    struct bystander by;
    struct rogue rogue;

    bystander_begin(&by);
    rogue_start(&rogue, mischief);
    bystander_pairs(&by, BYSTANDER_PAIRS, set_rogue, &rogue);
    rogue_end(&rogue);
    bystander_end(&by, what, logged);
    bystander_check_daemon(&by, what);
}

static void client_that_never_reads(void **state)
{
    struct rogue rogue;

    (void)state;
    beside("a client with 500 answers unread", reads_late, NULL);
    rogue_start(&rogue, never_reads);
    set_rogue(&rogue, true);
    rogue_end(&rogue);
    assert_true(rig_logs_within("it does not read what is sent to it", PATIENCE_MS));
}

static void client_of_garbage(void **state)
{
    (void)state;
    beside("garbage", garbage, "it sent what is no request");
}

static void client_of_half_messages(void **state)
{
    (void)state;
    beside("half messages", half_a_message, "dropped: it sent what is no request");
}

static void client_of_wrong_descriptors(void **state)
{
    (void)state;
    beside("wrong descriptors", wrong_descriptors, "it sent a wrong number of descriptors");
}

static void client_of_many_requests(void **state)
{
    (void)state;
    beside("10,000 requests at once", many_requests, NULL);
}

static const struct CMUnitTest tests[] = {
    live_test(client_that_never_reads),     live_test(client_of_garbage),       live_test(client_of_half_messages),
    live_test(client_of_wrong_descriptors), live_test(client_of_many_requests),
};

RIG_MAIN(tests)
