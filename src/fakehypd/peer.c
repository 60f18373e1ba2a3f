/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/peer.h"

#include <errno.h>
#include <stdio.h>

#include "src/fakehypd/log.h"
#include "src/fakehypd/text.h"
#include "src/machine/sched.h"

/* On the stack of the task that waits. */
struct peer_wait {
    struct peer_wait *next;
    uint64_t id;
    struct waitq queue;
    bool done;
    int error;
    char message[256];
};

static struct peer_wait **find_wait(struct peer *peer, uint64_t id)
{
    struct peer_wait **link = &peer->waits;

    while (*link && (*link)->id != id)
        link = &(*link)->next;
    return link;
}

/* Takes the wait off the peer: from here on its task does not touch the peer any more. */
static void end_wait(struct peer_wait **link, int error)
{
    struct peer_wait *wait = *link;

    *link = wait->next;
    wait->error = error;
    wait->done = true;
    sched_wake_all(&wait->queue);
}

int peer_call(struct peer *peer, Fakehyp__Request *request, const int *fds, unsigned nr_fds, uint64_t timeout_ns,
              char *message, size_t size)
{
    struct peer_wait wait = {.next = peer->waits};

    if (size)
        message[0] = '\0';
    if (peer->gone || !peer->conn)
        return -ECONNRESET;
    wait.id = request->id = ++peer->last_id;
    peer->waits = &wait;
    sched_point("agent:asking");
    int rc = wait.done ? 0 : conn_send_request(peer->conn, request, fds, nr_fds);
    sched_point("agent:asked");
    /* Sending may have found the peer gone, which ended the wait. */
    if (!wait.done && rc == 0)
        rc = sched_wait_uncancelled(&wait.queue, timeout_ns);
    sched_point("agent:answered");
    if (!wait.done) {
        *find_wait(peer, wait.id) = wait.next;
        return rc == -EPIPE ? -ECONNRESET : rc;
    }
    if (size)
        text_copy(message, size, wait.message);
    return wait.error;
}

int peer_frame(struct peer *peer, const struct chan_msg *msg)
{
    Fakehyp__Reply *reply = chan_unpack_reply(msg);

    if (!reply)
        return -EPROTO;
    struct peer_wait **link = find_wait(peer, reply->id);
    int late = !*link;
    if (!late) {
        snprintf((*link)->message, sizeof((*link)->message), "%s", reply->message);
        end_wait(link, reply->error > 0 ? -EPROTO : reply->error);
    } else {
        log_debug("%s (pid %u) answers request %llu too late", peer->who, peer->pid, (unsigned long long)reply->id);
    }
    fakehyp__reply__free_unpacked(reply, NULL);
    return late;
}

void peer_gone(struct peer *peer)
{
    peer->gone = true;
    while (peer->waits)
        end_wait(&peer->waits, -ECONNRESET);
}
