/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/dispatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct handler {
    const char *name;
    void (*handle)(struct req *req);
    unsigned nr_fds;
};

#define NO_FD_LEFT "fakehypd has no file descriptor left: raise its limit (ulimit -n)"
#define BODY(name) FAKEHYP__REQUEST__BODY_##name

static const struct handler handlers[] = {
    [BODY(HELLO)] = {"hello", req_hello, 0},
    [BODY(VM_CREATE)] = {"vm_create", req_vm_create, 0},
    [BODY(VM_DESTROY)] = {"vm_destroy", req_vm_destroy, 0},
    [BODY(GMEM_CREATE)] = {"gmem_create", req_gmem_create, 0},
    [BODY(GMEM_CLOSE)] = {"gmem_close", req_gmem_close, 0},
    [BODY(GMEM_IMPORT)] = {"gmem_import", req_gmem_import, 1},
    [BODY(VIEW_ADD)] = {"view_add", req_view_add, 0},
    [BODY(VIEW_REMOVE)] = {"view_remove", req_view_remove, 0},
    [BODY(CONVERT)] = {"convert", req_convert, 0},
    [BODY(FALLOCATE)] = {"fallocate", req_fallocate, 0},
    [BODY(MEMORY_REGION)] = {"memory_region", req_memory_region, 0},
    [BODY(PIN)] = {"pin", req_pin, 0},
    [BODY(UNPIN)] = {"unpin", req_unpin, 0},
    [BODY(VCPU_CREATE)] = {"vcpu_create", req_vcpu_create, 0},
    [BODY(GUEST_PREPARE)] = {"guest_prepare", req_guest_prepare, 0},
    [BODY(VCPU_RUN)] = {"vcpu_run", req_vcpu_run, 0},
    [BODY(QUERY)] = {"query", req_query, 0},
    [BODY(ACCESS_REPORT)] = {"access_report", req_access_report, 0},
    [BODY(SET_MEMORY_ATTRIBUTES)] = {"set_memory_attributes", req_set_memory_attributes, 0},
};

static const struct handler *handler_of(const Fakehyp__Request *request)
{
    size_t body = (size_t)request->body_case;

    return body < sizeof(handlers) / sizeof(handlers[0]) && handlers[body].handle ? &handlers[body] : NULL;
}

/* ---- replies ------------------------------------------------------------------------------------------------ */

void req_reply(struct req *req, Fakehyp__Reply *reply, const int *fds, unsigned nr_fds)
{
    struct client *client = req->client;
    const char *panic = machine_panicked(client->daemon->machine);

    if (client->dying)
        return;
    reply->id = req->request->id;
    if (reply->error == -EMFILE && !req->caller.message[0])
        caller_explain(&req->caller, NO_FD_LEFT);
    if (reply->error == -EIO && panic)
        caller_explain(&req->caller, "%s: the emulated machine stands still, start fakehypd anew", panic);
    if (reply->error && !reply->message[0])
        reply->message = req->caller.message;
    int rc = conn_send_reply(client->conn, reply, fds, nr_fds);
    if (rc == 0 || rc == -EPIPE)
        return;
    /* The request is done, but its result cannot be told. */
    Fakehyp__Reply failed = FAKEHYP__REPLY__INIT;
    failed.id = req->request->id;
    failed.error = rc;
    failed.message = (char *)"fakehypd could not send the reply";
    rc = conn_send_reply(client->conn, &failed, NULL, 0);
    if (rc && rc != -EPIPE)
        client_die(client, "a reply could not be sent to it");
}

void req_done(struct req *req, int rc)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;

    reply.error = rc;
    if (rc == 0) {
        reply.body_case = FAKEHYP__REPLY__BODY_ACK;
        reply.ack = &ack;
    }
    req_reply(req, &reply, NULL, 0);
}

/* A frame that has no task yet. */
static void refuse(struct client *client, uint64_t id, int error, const char *message)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;

    reply.id = id;
    reply.error = error;
    reply.message = (char *)message;
    conn_send_reply(client->conn, &reply, NULL, 0);
}

/* ---- objects ------------------------------------------------------------------------------------------------ */

struct gmem *req_gmem(struct req *req, uint64_t id)
{
    struct gmem_handle *handle = (struct gmem_handle *)handle_find(&req->client->gmems, id);

    if (!handle) {
        caller_explain(&req->caller, "this process has no guest_memfd %llu", (unsigned long long)id);
        return NULL;
    }
    gmem_get(handle->gmem);
    req->gmem = handle->gmem;
    return handle->gmem;
}

struct vm_handle *req_vm(struct req *req, uint64_t id)
{
    struct vm_handle *vm = (struct vm_handle *)handle_find(&req->client->vms, id);

    if (!vm || !vm_handle_use(vm)) {
        caller_explain(&req->caller, "this process has no VM %llu", (unsigned long long)id);
        return NULL;
    }
    req->vm = vm;
    return vm;
}

/* ---- tasks -------------------------------------------------------------------------------------------------- */

static void free_req(struct req *req)
{
    if (req->fd >= 0)
        chan_close_fd(req->fd);
    fakehyp__request__free_unpacked(req->request, NULL);
    free(req);
}

static void unlink_req(struct req *req)
{
    struct client *client = req->client;

    if (req->prev)
        req->prev->next = req->next;
    else
        client->reqs = req->next;
    if (req->next)
        req->next->prev = req->prev;
    client->nr_reqs--;
    if (!client->dying && client->nr_reqs < CLIENT_MAX_REQUESTS)
        conn_pause(client->conn, false);
    if (client->nr_reqs == 0)
        sched_wake_all(&client->idle);
}

static void req_task(void *arg)
{
    struct req *req = arg;
    struct client *client = req->client;

    if (!client->dying && !client->ready && req->handler->handle != req_hello)
        client_die(client, "it sent a request before an accepted hello");
    if (!client->dying)
        req->handler->handle(req);
    if (req->gmem)
        gmem_put(req->gmem);
    if (req->vm)
        vm_handle_unuse(req->vm);
    unlink_req(req);
    free_req(req);
}

static int start(struct client *client, const struct handler *handler, Fakehyp__Request *request, struct chan_msg *msg)
{
    struct req *req = calloc(1, sizeof(*req));

    if (!req)
        return -ENOMEM;
    req->client = client;
    req->daemon = client->daemon;
    req->handler = handler;
    req->request = request;
    req->caller = (struct caller){.pid = (uint32_t)client->pid, .program = client->program};
    req->task = task_spawn(client->daemon->loop.sched, handler->name, req_task, req);
    if (!req->task) {
        free(req);
        return -ENOMEM;
    }
    req->fd = handler->nr_fds ? chan_msg_take_fd(msg, 0) : -1;
    req->next = client->reqs;
    if (req->next)
        req->next->prev = req;
    client->reqs = req;
    if (++client->nr_reqs >= CLIENT_MAX_REQUESTS)
        conn_pause(client->conn, true);
    return 0;
}

/* Returns why the client is to be dropped, or NULL. */
static const char *take(struct client *client, Fakehyp__Request *request, struct chan_msg *msg, bool *taken)
{
    const struct handler *handler = handler_of(request);

    if (!client->greeted && (!handler || handler->handle != req_hello))
        return "its first message is no hello";
    if (!handler) {
        refuse(client, request->id, -ENOSYS, "unknown request: is the client newer than fakehypd?");
        return NULL;
    }
    if (msg->fds_lost) {
        log_warning("process %d: no descriptor left for what it sent with %s; the limit is too low (ulimit -n)",
                    client->pid, handler->name);
        refuse(client, request->id, -EMFILE, NO_FD_LEFT);
        return NULL;
    }
    if (msg->nr_fds != handler->nr_fds)
        return "it sent a wrong number of descriptors";
    client->greeted = true;
    int rc = start(client, handler, request, msg);
    if (rc)
        refuse(client, request->id, rc, "fakehypd is out of memory");
    *taken = rc == 0;
    return NULL;
}

void dispatch_frame(void *owner, struct chan_msg *msg)
{
    struct client *client = owner;
    Fakehyp__Request *request = chan_unpack_request(msg);
    bool taken = false;
    const char *wrong = request ? take(client, request, msg, &taken) : "it sent what is no request";

    if (request && !taken)
        fakehyp__request__free_unpacked(request, NULL);
    if (wrong)
        client_die(client, wrong);
}

void dispatch_cancel_all(struct client *client)
{
    for (struct req *req = client->reqs; req; req = req->next)
        task_cancel(req->task);
}
