/* SPDX-License-Identifier: BSD-2-Clause */
/* The process behind an actor. */
#include "src/scenario/live.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- messages --------------------------------------------------------------------------------------------------- */

union fd_space {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

bool live_send(int sock, const void *message, size_t size, int fd)
{
    union fd_space space = {.bytes = {0}};
    struct iovec iov = {.iov_base = (void *)message, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        msg.msg_control = &space;
        msg.msg_controllen = sizeof(space);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    ssize_t n;
    while ((n = sendmsg(sock, &msg, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    return n == (ssize_t)size;
}

int live_receive(int sock, void *message, size_t size, int *fd, int timeout_ms)
{
    union fd_space space;
    struct iovec iov = {.iov_base = message, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space)};
    struct pollfd pfd = {.fd = sock, .events = POLLIN};
    int ready;

    *fd = -1;
    while ((ready = poll(&pfd, 1, timeout_ms)) < 0 && errno == EINTR)
        ;
    if (ready <= 0)
        return ready;
    ssize_t n;
    while ((n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (n != (ssize_t)size)
        return -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(c), sizeof(*fd));
    return 1;
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

typedef void verb_fn(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v);

#define FN_LIVE(actor, name) live_##actor##_##name
#define FN_NOT_LIVE(actor, name) NULL
static verb_fn *const verbs[SC_NR_VERBS] = {
#define X(actor, name, sig, say, result, stage, live, meaning) [SC_##actor##_##name] = FN_##stage(actor, name),
    SC_ACTOR_VERBS(X)
#undef X
        /* Of the world, passed on to the VMM. */
        [SC_WORLD_follow] = live_vmm_follow,
    [SC_WORLD_storm] = live_vmm_storm,
};

struct job {
    struct live_actor *a;
    struct live_request request;
};

static void *call_thread(void *arg)
{
    struct job *job = arg;
    struct live_reply reply = {.id = job->request.id};

    verbs[job->request.call.verb](job->a, &job->request.call, &reply.verdict);
    atomic_fetch_sub(&job->a->calls, 1);
    live_send(job->a->sock, &reply, sizeof(reply), reply.verdict.fd > 0 ? reply.verdict.fd : -1);
    if (reply.verdict.fd > 0)
        close(reply.verdict.fd);
    free(job);
    return NULL;
}

static void call(struct live_actor *a, const struct live_request *request)
{
    struct job *job = malloc(sizeof(*job));
    struct live_reply reply = {.id = request->id};
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    atomic_fetch_add(&a->calls, 1);
    if (job)
        *job = (struct job){a, *request};
    if (!job || pthread_create(&thread, &attr, call_thread, job)) {
        atomic_fetch_sub(&a->calls, 1);
        free(job);
        sc_broken(&reply.verdict, "no thread for the call");
        live_send(a->sock, &reply, sizeof(reply), -1);
    }
    pthread_attr_destroy(&attr);
}

/* ---- the process ------------------------------------------------------------------------------------------------ */

static void build(struct live_actor *a, const struct live_request *request)
{
    struct live_reply reply = {.id = request->id};
    const char *why = live_build_vm(a, &request->config);

    if (why)
        sc_broken(&reply.verdict, "%s", why);
    else
        reply.verdict.value = (int64_t)fakehyp_gmem_id(a->file[0]);
    live_send(a->sock, &reply, sizeof(reply), why ? -1 : fakehyp_gmem_fd(a->file[0]));
}

static void join(struct live_actor *a, const struct live_request *request, int fd)
{
    struct live_reply reply = {.id = request->id};

    if (fakehyp_gmem_import(a->fh, fd, &a->file[0]))
        sc_broken(&reply.verdict, "%s", fakehyp_last_error());
    else
        a->nr_files = 1;
    live_send(a->sock, &reply, sizeof(reply), -1);
}

_Noreturn void live_actor_main(const char *name, const char *daemon_socket, int sock)
{
    static struct live_actor a;
    static char daemon[64];

    snprintf(daemon, sizeof(daemon), "%s", daemon_socket);
    a.daemon_socket = daemon;
    if (fakehyp_connect(daemon, &a.fh))
        _exit(1);
    live_actor_loop(&a, name, sock);
}

_Noreturn void live_actor_loop(struct live_actor *a, const char *name, int sock)
{
    struct live_request request;
    int fd;

    snprintf(a->name, sizeof(a->name), "%s", name);
    prctl(PR_SET_NAME, name);
    a->sock = sock;
    pthread_mutex_init(&a->lock, NULL);
    while (live_receive(sock, &request, sizeof(request), &fd, -1) > 0 && request.ask != LIVE_QUIT) {
        if (request.ask == LIVE_BUILD)
            build(a, &request);
        else if (request.ask == LIVE_JOIN)
            join(a, &request, fd);
        else
            call(a, &request);
        if (fd >= 0)
            close(fd);
    }
    /* With a call under way the daemon has to do without a farewell. */
    if (!atomic_load(&a->calls))
        fakehyp_disconnect(a->fh);
    _exit(0);
}
