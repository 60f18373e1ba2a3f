/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/fakehypd/dispatch.h"
#include "src/fakehypd/guest.h"

#define AGENT_LOST_MS 500
#define CLEANUP_RETRY_MS 100
#define EVENTS_MAX_QUEUED 256u
#define DESTROY_TRIES 600u
#define DESTROY_PAUSE_NS UINT64_C(100000000)

/* ---- sockets ------------------------------------------------------------------------------------------------ */

static void on_gone(void *owner, const char *reason)
{
    client_die(owner, reason);
}

static const struct conn_ops control_ops = {.frame = dispatch_frame, .gone = on_gone};

static void on_agent_frame(void *owner, struct chan_msg *msg)
{
    struct client *client = owner;

    int rc = msg->nr_fds ? -EPROTO : peer_frame(&client->peer, msg);

    if (rc < 0)
        client_die(client, "its agent sent what is no reply");
    else if (rc)
        live_agent_answers(client->daemon->live, &client->peer);
}

static void on_agent_lost(void *arg)
{
    struct client *client = arg;

    client->agent_lost = NULL;
    log_warning("client %llu (%s, pid %d) lives without its agent: pages that become private from now on give it zeros "
                "instead of SIGBUS, until it connects anew",
                (unsigned long long)client->id, client->program, client->pid);
}

/* A process that ends closes its sockets in any order: whether it just lost its signal its control socket tells. */
static void on_agent_gone(void *owner, const char *reason)
{
    struct client *client = owner;

    log_debug("client %llu: its agent is gone: %s", (unsigned long long)client->id, reason);
    peer_gone(&client->peer);
    conn_close(client->peer.conn);
    client->peer.conn = NULL;
    client->agent_lost = alarm_new(&client->daemon->loop, AGENT_LOST_MS, on_agent_lost, client);
}

static const struct conn_ops agent_ops = {.frame = on_agent_frame, .gone = on_agent_gone};

int client_make_agent(struct client *client, int *theirs)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    client->peer.conn = conn_new(&client->daemon->loop, pair[0], &agent_ops, client);
    if (!client->peer.conn) {
        close(pair[0]);
        close(pair[1]);
        return -ENOMEM;
    }
    *theirs = pair[1];
    return 0;
}

/* ---- coming ------------------------------------------------------------------------------------------------- */

static void on_pidfd(void *arg, int events)
{
    client_die(arg, "its process has ended");
}

/* A process of another PID namespace has no number here: its socket alone tells of its end. */
static int watch_process(struct client *client)
{
    if (client->pid <= 0)
        return 0;
    client->pidfd = pidfd_open(client->pid, 0);
    if (client->pidfd < 0)
        return -errno;
    client->pid_watch = watch_new(&client->daemon->loop, client->pidfd, on_pidfd, client);
    if (!client->pid_watch)
        return -ENOMEM;
    watch_set(client->pid_watch, UV_READABLE);
    return 0;
}

void client_new(struct daemon *daemon, int sock, pid_t pid, uid_t uid)
{
    struct client *client = calloc(1, sizeof(*client));
    int rc = client ? 0 : -ENOMEM;

    if (client) {
        client->daemon = daemon;
        client->pid = pid;
        client->uid = uid;
        client->pidfd = -1;
        client->peer.who = "agent";
        client->peer.pid = (uint32_t)pid;
        client->peer.is_client = true;
        client->conn = conn_new(&daemon->loop, sock, &control_ops, client);
        rc = client->conn ? watch_process(client) : -ENOMEM;
    }
    if (rc) {
        /* A second daemon that looks whether there is one is gone again. */
        log_line(rc == -ESRCH ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING, "process %d dropped: %s%s", pid,
                 strerrordesc_np(-rc), log_remedy(rc));
        if (client) {
            if (client->conn)
                conn_close(client->conn);
            else
                close(sock);
            watch_free(client->pid_watch);
            if (client->pidfd >= 0)
                close(client->pidfd);
            free(client);
        } else {
            close(sock);
        }
        return;
    }
    client->id = ++daemon->last_client;
    client->next = daemon->clients;
    if (client->next)
        client->next->prev = client;
    daemon->clients = client;
    log_debug("client %llu: process %d connected", (unsigned long long)client->id, pid);
}

/* ---- going -------------------------------------------------------------------------------------------------- */

static void drop_pins(struct client *client)
{
    struct handle *handle;

    while ((handle = handle_first(&client->pins))) {
        struct pin_handle *pin = (struct pin_handle *)handle;
        handle_remove(&client->pins, handle);
        gmem_unpin(pin->pin);
        free(pin);
    }
}

static void drop_vms(struct client *client)
{
    struct caller caller = {.pid = (uint32_t)client->pid, .program = client->program};
    struct waitq never = {0};
    struct handle *handle;
    unsigned tries = 0;

    while ((handle = handle_first(&client->vms))) {
        struct vm_handle *vm = (struct vm_handle *)handle;
        int rc = vm_handle_destroy(vm, &caller);
        if (rc == 0)
            continue;
        /* A guest that is slow to die, a vCPU behind a client that does not answer: it comes to an end. */
        if (rc == -EBUSY && tries++ < DESTROY_TRIES) {
            sched_wait_uncancelled(&never, DESTROY_PAUSE_NS);
            continue;
        }
        log_error("VM %llu of process %d could not be destroyed: %s (%s)", (unsigned long long)handle->id, client->pid,
                  strerrordesc_np(-rc), caller.message);
        handle_remove(&client->vms, handle);
        vm->client = NULL;
        vm_handle_put(vm);
    }
}

static void drop_gmems(struct client *client)
{
    struct handle *handle;

    while ((handle = handle_first(&client->gmems))) {
        struct gmem_handle *gmem = (struct gmem_handle *)handle;
        handle_remove(&client->gmems, handle);
        while (gmem->opens--)
            gmem_put(gmem->gmem);
        free(gmem);
    }
}

static void forget(struct client *client)
{
    struct daemon *daemon = client->daemon;
    bool was_ready = client->ready;

    if (client->prev)
        client->prev->next = client->next;
    else
        daemon->clients = client->next;
    if (client->next)
        client->next->prev = client->prev;
    free(client);
    daemon_client_left(daemon, was_ready);
}

static void cleanup_task(void *arg)
{
    struct client *client = arg;

    sched_point("cleanup:begin");
    /* Before all else, so that no request waits for a guest that has no VMM. */
    for (struct handle *vm = handle_first(&client->vms); vm; vm = handle_next(vm))
        guest_stop(((struct vm_handle *)vm)->guest);
    while (client->nr_reqs)
        sched_wait_uncancelled(&client->idle, SCHED_FOREVER);
    drop_pins(client);
    sched_point("cleanup:pins");
    live_peer_gone(client->daemon->live, &client->peer);
    sched_point("cleanup:views");
    drop_vms(client);
    sched_point("cleanup:vms");
    drop_gmems(client);
    if (client->ready)
        machine_record(client->daemon->machine,
                       &(struct host_event){
                           .kind = HOST_EV_client, .a0 = (uint64_t)client->pid, .rc = 1, .pid = (uint32_t)client->pid});
    forget(client);
}

static void start_cleanup(void *arg)
{
    struct client *client = arg;

    if (task_spawn(client->daemon->loop.sched, "client_cleanup", cleanup_task, client))
        return;
    if (!alarm_new(&client->daemon->loop, CLEANUP_RETRY_MS, start_cleanup, client))
        log_error("out of memory: what process %d had is lost", client->pid);
}

void client_die(struct client *client, const char *reason)
{
    if (client->dying)
        return;
    client->dying = true;
    if (client->greeted)
        log_info("client %llu (%s, pid %d) is gone: %s", (unsigned long long)client->id, client->program, client->pid,
                 reason);
    else
        log_info("process %d dropped: %s", client->pid, reason);
    peer_gone(&client->peer);
    conn_close(client->peer.conn);
    client->peer.conn = NULL;
    conn_close(client->conn);
    client->conn = NULL;
    watch_free(client->pid_watch);
    alarm_free(client->agent_lost);
    client->agent_lost = NULL;
    if (client->pidfd >= 0)
        close(client->pidfd);
    dispatch_cancel_all(client);
    start_cleanup(client);
}

/* ---- events ------------------------------------------------------------------------------------------------- */

void client_event(struct client *client, const struct client_event *event)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Event body = FAKEHYP__EVENT__INIT;

    /* A process that is stopped loses events, not its agent. */
    if (client->dying || !client->peer.conn || conn_queued(client->peer.conn) >= EVENTS_MAX_QUEUED)
        return;
    body.kind = (char *)event->kind;
    body.vm = event->vm;
    body.gmem = event->gmem;
    body.offset = event->offset;
    body.size = event->size;
    body.text = (char *)(event->text ? event->text : "");
    /* id 0: no receipt is wanted. */
    request.body_case = FAKEHYP__REQUEST__BODY_EVENT;
    request.event = &body;
    conn_send_request(client->peer.conn, &request, NULL, 0);
}

void client_event_gmem(struct daemon *daemon, const struct client *except, const struct client_event *event)
{
    /* Sending may find a client gone; its memory goes later, in its cleanup task. */
    for (struct client *client = daemon->clients; client; client = client->next) {
        bool concerned = (event->gmem && handle_find(&client->gmems, event->gmem)) ||
                         (event->vm && handle_find(&client->vms, event->vm));
        if (client != except && concerned)
            client_event(client, event);
    }
}
