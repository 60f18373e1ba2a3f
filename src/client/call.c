/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls over the one control socket.
 *
 * Any number of threads may wait for replies.  One of them is the reader: it
 * receives and hands the replies to those they belong to.  When it has its own
 * it passes the role on.  So no further thread is on the path of a call.
 */
#include "src/client/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct fh_waiter {
    LIST_ENTRY(fh_waiter) link;
    uint64_t id;
    bool done;
    int timeout_ms;      /* -1: none */
    int64_t deadline_ms; /* CLOCK_MONOTONIC; INT64_MAX: none */
    pthread_cond_t wake;
    struct fh_answer answer;
    bool out_of_memory;
    bool fds_lost; /* this process had no descriptor left for those beside the reply */
    int *fd_to;
};

int64_t fh_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void fh_answer_free(struct fh_answer *answer)
{
    if (answer->reply)
        fakehyp__reply__free_unpacked(answer->reply, NULL);
    if (answer->fd >= 0)
        close(answer->fd);
    free(answer->json);
    *answer = (struct fh_answer){.fd = -1};
}

void fh_mark_dead(struct fakehyp *fh)
{
    int alive = 0;
    struct fh_waiter *w;

    if (!atomic_compare_exchange_strong(&fh->dead, &alive, -ECONNRESET))
        return;
    /* The reader sits in poll(): this ends it. */
    shutdown(fh->control, SHUT_RDWR);
    pthread_mutex_lock(&fh->lock);
    LIST_FOREACH(w, &fh->waiters, link)
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&fh->lock);
}

static int until(int64_t deadline_ms)
{
    if (deadline_ms == INT64_MAX)
        return -1;
    int64_t left = deadline_ms - fh_now_ms();
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

/* Waits for the socket.  0 when it is ready or broken, -ETIMEDOUT. */
static int wait_socket(int sock, short events, int64_t deadline_ms)
{
    for (;;) {
        struct pollfd pfd = {.fd = sock, .events = events};
        int n = poll(&pfd, 1, until(deadline_ms));
        if (n > 0)
            return 0;
        if (n == 0 && deadline_ms != INT64_MAX && fh_now_ms() >= deadline_ms)
            return -ETIMEDOUT;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

static bool append_json(struct fh_answer *answer, const ProtobufCBinaryData *part)
{
    char *grown = realloc(answer->json, answer->json_length + part->len + 1);
    if (!grown)
        return false;
    if (part->len)
        memcpy(grown + answer->json_length, part->data, part->len);
    answer->json = grown;
    answer->json_length += part->len;
    grown[answer->json_length] = '\0';
    return true;
}

/* Gives the reply to whoever waits for it; the answer to a call that timed out is dropped.  fh->lock is held. */
static void dispatch(struct fakehyp *fh, Fakehyp__Reply *reply, bool fds_lost)
{
    struct fh_waiter *w;

    LIST_FOREACH(w, &fh->waiters, link)
    if (w->id == reply->id && !w->done)
        break;
    if (!w) {
        fakehyp__reply__free_unpacked(reply, NULL);
        return;
    }
    if (reply->body_case == FAKEHYP__REPLY__BODY_QUERY && reply->error == 0) {
        if (!append_json(&w->answer, &reply->query->json))
            w->out_of_memory = true;
        if (reply->query->more) {
            if (w->timeout_ms >= 0)
                w->deadline_ms = fh_now_ms() + w->timeout_ms;
            fakehyp__reply__free_unpacked(reply, NULL);
            return;
        }
    }
    w->answer.reply = reply;
    w->fds_lost = fds_lost;
    if (fh->in.nr_fds)
        *(w->fd_to ? w->fd_to : &w->answer.fd) = chan_msg_take_fd(&fh->in, 0);
    w->done = true;
    pthread_cond_signal(&w->wake);
}

/* The reader's turn: waits for one frame and dispatches it.  Called with fh->lock held, which it drops meanwhile. */
static int read_one(struct fakehyp *fh, int64_t deadline_ms)
{
    fh->has_reader = true;
    pthread_mutex_unlock(&fh->lock);

    Fakehyp__Reply *reply = NULL;
    bool fds_lost = false;
    int rc = wait_socket(fh->control, POLLIN, deadline_ms);

    /* From here to its place no fork finds a descriptor that came with the reply. */
    pthread_mutex_lock(&fh->lock);
    if (rc == 0) {
        rc = chan_recv(fh->control, &fh->in, MSG_DONTWAIT);
        /* At the limit of descriptors that is the failure of one call, not of the connection. */
        fds_lost = rc == -EMSGSIZE && fh->in.len;
        if (rc > 0 || fds_lost) {
            reply = chan_unpack_reply(&fh->in);
            rc = reply ? 0 : -EPROTO;
        } else if (rc == 0) {
            rc = -ECONNRESET;
        } else if (rc == -EAGAIN) {
            rc = 0;
        }
    }
    if (reply)
        dispatch(fh, reply, fds_lost);
    chan_msg_close_fds(&fh->in);
    fh->has_reader = false;
    return rc;
}

static void follow(struct fakehyp *fh, struct fh_waiter *w)
{
    if (w->deadline_ms == INT64_MAX) {
        pthread_cond_wait(&w->wake, &fh->lock);
        return;
    }
    struct timespec at = {.tv_sec = w->deadline_ms / 1000, .tv_nsec = w->deadline_ms % 1000 * 1000000};
    pthread_cond_timedwait(&w->wake, &fh->lock, &at);
}

/* fh->lock is held.  0 when the answer is there. */
static int await(struct fakehyp *fh, struct fh_waiter *w)
{
    int rc = 0;

    while (!w->done && rc == 0) {
        if (atomic_load(&fh->dead)) {
            rc = -ECONNRESET;
        } else if (fh_now_ms() >= w->deadline_ms) {
            rc = -ETIMEDOUT;
        } else if (fh->has_reader) {
            follow(fh, w);
        } else {
            int got = read_one(fh, w->deadline_ms);
            if (got < 0 && got != -ETIMEDOUT) {
                pthread_mutex_unlock(&fh->lock);
                fh_mark_dead(fh);
                pthread_mutex_lock(&fh->lock);
            }
        }
    }
    return w->done ? 0 : rc;
}

static void pass_reader_role_on(struct fakehyp *fh)
{
    struct fh_waiter *w;

    if (fh->has_reader)
        return;
    LIST_FOREACH(w, &fh->waiters, link)
    if (!w->done) {
        pthread_cond_signal(&w->wake);
        return;
    }
}

static int send_request(struct fakehyp *fh, const Fakehyp__Request *request, int fd, int64_t deadline_ms)
{
    for (;;) {
        int rc = chan_send_request(fh->control, request, &fd, fd >= 0, MSG_DONTWAIT);
        /* The last two: this program closed our descriptor (close_range()), and may have another under its number. */
        if (rc == -EPIPE || rc == -ECONNRESET || rc == -ENOTCONN || rc == -EBADF || rc == -ENOTSOCK) {
            fh_mark_dead(fh);
            return -ECONNRESET;
        }
        if (rc != -EAGAIN)
            return rc;
        rc = wait_socket(fh->control, POLLOUT, deadline_ms);
        if (rc)
            return rc;
    }
}

static int transport_failure(const char *what, int rc, int timeout_ms)
{
    switch (rc) {
    case -ECONNRESET:
        return fh_fail(rc, "%s: " FH_GONE, what);
    case -ETIMEDOUT:
        return fh_fail(rc,
                       "%s: fakehypd did not answer within %d ms; is it stopped (SIGSTOP, a debugger) or overloaded? "
                       "FAKEHYP_TIMEOUT_MS sets another limit",
                       what, timeout_ms);
    default:
        return fh_fail(rc, "%s: request could not be sent: %s", what, strerrordesc_np(-rc));
    }
}

static int exchange(struct fakehyp *fh, const struct fh_call_options *options, int timeout_ms,
                    Fakehyp__Request *request, struct fh_answer *answer)
{
    struct fh_waiter w = {.timeout_ms = timeout_ms, .answer.fd = -1, .fd_to = options->fd_to};
    pthread_condattr_t attr;

    w.deadline_ms = timeout_ms < 0 ? INT64_MAX : fh_now_ms() + timeout_ms;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w.wake, &attr);
    pthread_condattr_destroy(&attr);

    /* The waiter is listed before the request leaves: another thread may receive the reply before this one waits. */
    pthread_mutex_lock(&fh->lock);
    request->id = w.id = ++fh->next_id;
    LIST_INSERT_HEAD(&fh->waiters, &w, link);
    pthread_mutex_unlock(&fh->lock);

    int rc = send_request(fh, request, options->fd, w.deadline_ms);

    pthread_mutex_lock(&fh->lock);
    if (rc == 0)
        rc = await(fh, &w);
    LIST_REMOVE(&w, link);
    pass_reader_role_on(fh);
    pthread_mutex_unlock(&fh->lock);

    pthread_cond_destroy(&w.wake);
    *answer = w.answer;
    if (rc)
        return transport_failure(options->what, rc, timeout_ms);
    if (w.out_of_memory)
        return fh_fail(-ENOMEM, "%s: no memory for the answer", options->what);
    if (w.fds_lost)
        return fh_fail(-EMFILE,
                       "%s: no descriptor left for what fakehypd sent: close some, or raise the limit (ulimit -n)",
                       options->what);
    return 0;
}

/* The verdict of a reply. */
static int judge(const struct fh_call_options *options, const struct fh_answer *answer)
{
    const Fakehyp__Reply *reply = answer->reply;

    if (reply->error) {
        int err = reply->error < 0 && reply->error > -4096 ? reply->error : -EPROTO;
        if (reply->message[0])
            return fh_fail(err, "%s", reply->message);
        const char *text = strerrordesc_np(-err);
        return fh_fail(err, "%s: %s", options->what, text ? text : "unknown error");
    }
    if (options->expect != FAKEHYP__REPLY__BODY_ACK && reply->body_case != options->expect)
        return fh_fail(-EPROTO,
                       "%s: fakehypd answered with message %d where %d was due; are library and daemon of one release?",
                       options->what, (int)reply->body_case, (int)options->expect);
    return 0;
}

int fh_call(struct fakehyp *fh, const struct fh_call_options *options, Fakehyp__Request *request,
            struct fh_answer *answer)
{
    struct fh_answer own = {.fd = -1};
    struct fh_answer *to = answer ? answer : &own;
    int timeout_ms = options->timeout_ms ? options->timeout_ms : fh->timeout_ms;

    *to = (struct fh_answer){.fd = -1};
    int rc = fh_usable(fh);
    if (rc)
        return rc;
    rc = exchange(fh, options, timeout_ms, request, to);
    if (rc == 0)
        rc = judge(options, to);
    if (!answer)
        fh_answer_free(&own);
    return rc;
}

int fh_call_ack(struct fakehyp *fh, const char *what, Fakehyp__Request *request)
{
    struct fh_call_options options = {.what = what, .expect = FAKEHYP__REPLY__BODY_ACK, .fd = -1};

    return fh_call(fh, &options, request, NULL);
}
