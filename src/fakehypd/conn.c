/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of one connection: who sends thousands of requests has one served where others have one served. */
#define FRAMES_PER_TURN 1
#define QUEUE_MAX_FRAMES 1024u
#define QUEUE_MAX_BYTES (8u << 20)
/* Long answers go on below this. */
#define QUEUE_LOW_BYTES (1u << 20)

struct frame_out {
    struct frame_out *next;
    size_t len;
    unsigned nr_fds;
    int *fds; /* duplicates, behind data */
    uint8_t data[];
};

struct conn {
    struct watch *watch;
    const struct conn_ops *ops;
    void *owner;
    int fd;
    unsigned refs;
    bool gone, paused;
    struct frame_out *head, **tail;
    unsigned nr_queued;
    size_t bytes_queued;
    struct waitq drained;
};

static void set_events(struct conn *conn)
{
    /* One that is not read from may be waiting for ever, so its end must be told otherwise. */
    if (conn->watch)
        watch_set(conn->watch, (conn->paused ? UV_DISCONNECT : UV_READABLE) | (conn->head ? UV_WRITABLE : 0));
}

static void free_frame(struct frame_out *frame)
{
    for (unsigned i = 0; i < frame->nr_fds; i++)
        close(frame->fds[i]);
    free(frame);
}

static void pop(struct conn *conn)
{
    struct frame_out *frame = conn->head;

    conn->head = frame->next;
    if (!conn->head)
        conn->tail = &conn->head;
    conn->nr_queued--;
    conn->bytes_queued -= frame->len;
    free_frame(frame);
}

/* After this nothing happens on the socket; it stays open until the owner closes it. */
static void shut(struct conn *conn)
{
    watch_free(conn->watch);
    conn->watch = NULL;
    while (conn->head)
        pop(conn);
    sched_wake_all(&conn->drained);
}

void conn_fail(struct conn *conn, const char *reason)
{
    if (conn->gone)
        return;
    conn->gone = true;
    shut(conn);
    conn->ops->gone(conn->owner, reason);
}

/* Queues a copy; the socket is full. */
static int push(struct conn *conn, const uint8_t *data, size_t len, const int *fds, unsigned nr_fds)
{
    if (conn->nr_queued >= QUEUE_MAX_FRAMES || conn->bytes_queued + len > QUEUE_MAX_BYTES) {
        conn_fail(conn, "it does not read what is sent to it");
        return -EPIPE;
    }
    size_t fds_at = (len + sizeof(int) - 1) / sizeof(int) * sizeof(int);
    struct frame_out *frame = calloc(1, sizeof(*frame) + fds_at + nr_fds * sizeof(int));
    if (!frame)
        return -ENOMEM;
    frame->len = len;
    frame->fds = (int *)(void *)(frame->data + fds_at);
    memcpy(frame->data, data, len);
    for (unsigned i = 0; i < nr_fds; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            free_frame(frame);
            return -EMFILE;
        }
        frame->fds[frame->nr_fds++] = fd;
    }
    *conn->tail = frame;
    conn->tail = &frame->next;
    conn->nr_queued++;
    conn->bytes_queued += len;
    set_events(conn);
    return 0;
}

static int send_frame(struct conn *conn, const uint8_t *data, size_t len, const int *fds, unsigned nr_fds)
{
    if (conn->gone)
        return -EPIPE;
    int rc = conn->head ? -EAGAIN : chan_send(conn->fd, data, len, fds, nr_fds, MSG_DONTWAIT);
    if (rc == -EAGAIN)
        return push(conn, data, len, fds, nr_fds);
    if (rc == -EPIPE || rc == -ECONNRESET) {
        conn_fail(conn, "it closed its socket");
        return -EPIPE;
    }
    return rc;
}

static void flush(struct conn *conn)
{
    while (conn->head) {
        struct frame_out *frame = conn->head;
        int rc = chan_send(conn->fd, frame->data, frame->len, frame->fds, frame->nr_fds, MSG_DONTWAIT);
        if (rc == -EAGAIN)
            break;
        if (rc) {
            conn_fail(conn, "it closed its socket");
            return;
        }
        pop(conn);
    }
    if (conn->bytes_queued <= QUEUE_LOW_BYTES)
        sched_wake_all(&conn->drained);
    set_events(conn);
}

static void read_frames(struct conn *conn)
{
    /* One buffer for all connections: a frame is decoded before the next is received. */
    static uint8_t buffer[CHAN_MAX_FRAME];
    struct chan_msg msg = {.data = buffer};

    for (int i = 0; i < FRAMES_PER_TURN && !conn->gone && !conn->paused; i++) {
        int rc = chan_recv(conn->fd, &msg, MSG_DONTWAIT);
        if (rc == -EAGAIN)
            return;
        /* At our own limit of descriptors it is the failure of one request. */
        bool fds_lost = rc == -EMSGSIZE && msg.len && msg.fds_lost;
        if (rc <= 0 && !fds_lost) {
            conn_fail(conn, rc == 0                      ? "it closed its socket"
                            : rc == -EMSGSIZE && msg.len ? "it sent a wrong number of descriptors"
                            : rc == -EMSGSIZE            ? "it sent a frame that is too long"
                                                         : strerrordesc_np(-rc));
            return;
        }
        conn->ops->frame(conn->owner, &msg);
        chan_msg_close_fds(&msg);
    }
}

static void on_events(void *arg, int events)
{
    struct conn *conn = conn_get(arg);

    if (!events)
        conn_fail(conn, "its socket failed");
    if ((events & UV_WRITABLE) && !conn->gone)
        flush(conn);
    if ((events & UV_READABLE) && !conn->gone)
        read_frames(conn);
    if ((events & UV_DISCONNECT) && !conn->gone)
        conn_fail(conn, "it closed its socket");
    conn_put(conn);
}

struct conn *conn_new(struct loop *loop, int fd, const struct conn_ops *ops, void *owner)
{
    struct conn *conn = calloc(1, sizeof(*conn));

    if (!conn)
        return NULL;
    conn->fd = fd;
    conn->ops = ops;
    conn->owner = owner;
    conn->refs = 1;
    conn->tail = &conn->head;
    conn->watch = watch_new(loop, fd, on_events, conn);
    if (!conn->watch) {
        free(conn);
        return NULL;
    }
    set_events(conn);
    return conn;
}

void conn_close(struct conn *conn)
{
    if (!conn)
        return;
    conn->gone = true;
    shut(conn);
    close(conn->fd);
    conn->fd = -1;
    conn_put(conn);
}

struct conn *conn_get(struct conn *conn)
{
    conn->refs++;
    return conn;
}

void conn_put(struct conn *conn)
{
    if (--conn->refs == 0)
        free(conn);
}

unsigned conn_queued(const struct conn *conn)
{
    return conn->nr_queued;
}

void conn_pause(struct conn *conn, bool pause)
{
    if (conn->paused == pause)
        return;
    conn->paused = pause;
    set_events(conn);
}

bool conn_hung_up(const struct conn *conn)
{
    struct pollfd pfd = {.fd = conn->fd};

    return conn->gone || (poll(&pfd, 1, 0) > 0 && (pfd.revents & POLLHUP));
}

int conn_send_request(struct conn *conn, const Fakehyp__Request *request, const int *fds, unsigned nr_fds)
{
    size_t len = fakehyp__request__get_packed_size(request);
    if (len > CHAN_MAX_FRAME)
        return -EMSGSIZE;
    uint8_t *data = chan_malloc(len + 1);
    if (!data)
        return -ENOMEM;
    fakehyp__request__pack(request, data);
    int rc = send_frame(conn, data, len, fds, nr_fds);
    free(data);
    return rc;
}

int conn_send_reply(struct conn *conn, const Fakehyp__Reply *reply, const int *fds, unsigned nr_fds)
{
    size_t len = fakehyp__reply__get_packed_size(reply);
    if (len > CHAN_MAX_FRAME)
        return -EMSGSIZE;
    uint8_t *data = chan_malloc(len + 1);
    if (!data)
        return -ENOMEM;
    fakehyp__reply__pack(reply, data);
    int rc = send_frame(conn, data, len, fds, nr_fds);
    free(data);
    return rc;
}

int conn_wait_drained(struct conn *conn, uint64_t timeout_ns)
{
    int rc = 0;

    conn_get(conn);
    while (rc == 0 && !conn->gone && conn->bytes_queued > QUEUE_LOW_BYTES)
        rc = sched_wait(&conn->drained, timeout_ns);
    if (conn->gone)
        rc = -EPIPE;
    conn_put(conn);
    return rc;
}
