/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/unit/client_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fakehyp/fakehyp.h>

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

/*
 * Held by the stand-in's threads while they work, and across fork(): the
 * allocator of AddressSanitizer does not survive a fork in the middle of a
 * malloc() of another thread.
 */
static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;

static void lock_busy(void)
{
    pthread_mutex_lock(&busy);
}

static void unlock_busy(void)
{
    pthread_mutex_unlock(&busy);
}

static void install_fork_handlers(void)
{
    pthread_atfork(lock_busy, unlock_busy, unlock_busy);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

void daemon_reply_body(struct daemon_client *client, Fakehyp__Reply *reply, const int *fds, unsigned nr_fds)
{
    chan_send_reply(client->control, reply, fds, nr_fds, 0);
}

void daemon_reply(struct daemon_client *client, const Fakehyp__Request *request, int error, const char *message)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;

    reply.id = request->id;
    reply.error = error;
    reply.message = (char *)message;
    reply.body_case = FAKEHYP__REPLY__BODY_ACK;
    reply.ack = &ack;
    daemon_reply_body(client, &reply, NULL, 0);
}

int daemon_agent_register(struct daemon_client *client, uint64_t gmem, bool refuse, uint64_t offset, uint64_t length)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__AgentRegister body = FAKEHYP__AGENT_REGISTER__INIT;
    Fakehyp__Range range = FAKEHYP__RANGE__INIT, *ranges[] = {&range};
    struct chan_msg msg = {.data = malloc(CHAN_MAX_FRAME)};

    range.offset = offset;
    range.length = length;
    body.gmem = gmem;
    body.refuse = refuse;
    body.n_range = 1;
    body.range = ranges;
    request.id = ++client->next_agent_id;
    request.body_case = FAKEHYP__REQUEST__BODY_AGENT_REGISTER;
    request.agent_register = &body;
    must(chan_send_request(client->agent, &request, NULL, 0, 0) == 0, "agent request");
    must(chan_recv(client->agent, &msg, 0) == 1, "agent reply");
    Fakehyp__Reply *reply = fakehyp__reply__unpack(NULL, msg.len, msg.data);
    must(reply && reply->id == request.id, "agent reply id");
    int rc = reply->error;
    fakehyp__reply__free_unpacked(reply, NULL);
    free(msg.data);
    return rc;
}

void daemon_send_event(struct daemon_client *client, const char *kind, uint64_t number)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Event body = FAKEHYP__EVENT__INIT;

    body.kind = (char *)kind;
    body.offset = number;
    body.text = (char *)"an event";
    request.body_case = FAKEHYP__REQUEST__BODY_EVENT;
    request.event = &body;
    chan_send_request(client->agent, &request, NULL, 0, 0);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static void hello(struct daemon_client *client, const Fakehyp__Request *request)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__HelloReply body = FAKEHYP__HELLO_REPLY__INIT;
    char *capabilities[] = {(char *)"stage:live", (char *)"hyp:pkvm"};
    int pair[2];

    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    client->agent = pair[0];
    body.version = request->hello->version;
    body.daemon = (char *)"0.1.0";
    body.client = 1;
    body.n_capability = 2;
    body.capability = capabilities;
    reply.id = request->id;
    reply.body_case = FAKEHYP__REPLY__BODY_HELLO;
    reply.hello = &body;
    daemon_reply_body(client, &reply, &pair[1], 1);
    close(pair[1]);
}

static void vm_create(struct daemon_client *client, const Fakehyp__Request *request)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__VmReply body = FAKEHYP__VM_REPLY__INIT;

    body.vm = 7;
    reply.id = request->id;
    reply.body_case = FAKEHYP__REPLY__BODY_VM;
    reply.vm = &body;
    daemon_reply_body(client, &reply, NULL, 0);
}

static void reply_gmem(struct daemon_client *client, uint64_t id, const struct daemon_gmem *gmem, bool with_fd)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__GmemReply body = FAKEHYP__GMEM_REPLY__INIT;

    body.gmem = gmem->id;
    body.size = gmem->size;
    body.flags = gmem->flags;
    reply.id = id;
    reply.body_case = FAKEHYP__REPLY__BODY_GMEM;
    reply.gmem = &body;
    daemon_reply_body(client, &reply, &gmem->shared, with_fd);
}

static void gmem_create(struct daemon_client *client, const Fakehyp__Request *request)
{
    struct fake_daemon *d = client->daemon;

    if (request->gmem_create->size == 0) {
        daemon_reply(client, request, -EINVAL, "guest_memfd: the size is 0");
        return;
    }
    pthread_mutex_lock(&d->lock);
    struct daemon_gmem *gmem = &d->gmem[d->nr_gmems++];
    *gmem = (struct daemon_gmem){
        .id = 100 + d->nr_gmems, .size = request->gmem_create->size, .flags = request->gmem_create->flags};
    gmem->shared = memfd_create("shared", MFD_CLOEXEC);
    gmem->private = memfd_create("private", MFD_CLOEXEC);
    must(ftruncate(gmem->shared, (off_t)gmem->size) == 0 && ftruncate(gmem->private, (off_t)gmem->size) == 0, "memfd");
    pthread_mutex_unlock(&d->lock);
    reply_gmem(client, request->id, gmem, true);
}

struct daemon_gmem *daemon_find_gmem(struct fake_daemon *d, uint64_t id)
{
    for (unsigned i = 0; i < d->nr_gmems; i++)
        if (d->gmem[i].id == id)
            return &d->gmem[i];
    return NULL;
}

static void gmem_import(struct daemon_client *client, const Fakehyp__Request *request, int fd)
{
    struct stat asked, have;

    for (unsigned i = 0; fd >= 0 && fstat(fd, &asked) == 0 && i < client->daemon->nr_gmems; i++)
        if (fstat(client->daemon->gmem[i].shared, &have) == 0 && have.st_ino == asked.st_ino) {
            reply_gmem(client, request->id, &client->daemon->gmem[i], false);
            return;
        }
    daemon_reply(client, request, -EINVAL, "not a guest_memfd of this daemon");
}

static void view_add(struct daemon_client *client, const Fakehyp__Request *request)
{
    struct fake_daemon *d = client->daemon;
    const Fakehyp__ViewAdd *add = request->view_add;
    const struct daemon_gmem *gmem = daemon_find_gmem(d, add->gmem);

    pthread_mutex_lock(&d->lock);
    if (d->nr_views < DAEMON_MAX)
        d->view[d->nr_views++] = (struct daemon_view){add->gmem, add->addr, add->length, add->offset};
    pthread_mutex_unlock(&d->lock);
    /* As the daemon does it: what is shared is opened before the reply. */
    if (gmem && (gmem->flags & FAKEHYP_GMEM_INIT_SHARED))
        daemon_agent_register(client, add->gmem, false, 0, gmem->size);
    daemon_reply(client, request, 0, "");
}

static void convert(struct daemon_client *client, const Fakehyp__Request *request)
{
    static char zeros[FAKEHYP_PAGE_SIZE];
    struct fake_daemon *d = client->daemon;
    const Fakehyp__Convert *ask = request->convert;
    struct daemon_gmem *gmem = daemon_find_gmem(d, ask->gmem);
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__ConvertReply body = FAKEHYP__CONVERT_REPLY__INIT;
    Fakehyp__Holder holder = FAKEHYP__HOLDER__INIT, *holders[] = {&holder};

    reply.id = request->id;
    reply.body_case = FAKEHYP__REPLY__BODY_CONVERT;
    reply.convert = &body;
    if (ask->attributes == FAKEHYP_PRIVATE && d->pinned) {
        holder.what = (char *)"vmm/disk0";
        holder.kind = (char *)"FOLL_PIN|FOLL_LONGTERM";
        holder.offset = ask->offset + FAKEHYP_PAGE_SIZE;
        holder.count = 2;
        body.error_offset = holder.offset;
        body.error_offset_valid = true;
        body.n_holder = 1;
        body.holder = holders;
        reply.error = -EAGAIN;
        reply.message = (char *)"page is in use: vmm/disk0 holds FOLL_PIN|FOLL_LONGTERM";
    } else if (ask->attributes == FAKEHYP_PRIVATE) {
        daemon_agent_register(client, ask->gmem, true, ask->offset, ask->size);
        fallocate(gmem->shared, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)ask->offset, (off_t)ask->size);
    } else {
        for (uint64_t at = ask->offset; at < ask->offset + ask->size; at += FAKEHYP_PAGE_SIZE)
            must(pwrite(gmem->shared, zeros, sizeof(zeros), (off_t)at) == (ssize_t)sizeof(zeros), "pwrite");
    }
    daemon_reply_body(client, &reply, NULL, 0);
}

static void query(struct daemon_client *client, const Fakehyp__Request *request)
{
    static const char *parts[] = {"{\"what\":", "\"status\"", "}"};

    for (int i = 0; i < 3; i++) {
        Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
        Fakehyp__QueryReply body = FAKEHYP__QUERY_REPLY__INIT;
        body.json.data = (uint8_t *)parts[i];
        body.json.len = strlen(parts[i]);
        body.more = i < 2;
        reply.id = request->id;
        reply.body_case = FAKEHYP__REPLY__BODY_QUERY;
        reply.query = &body;
        daemon_reply_body(client, &reply, NULL, 0);
    }
}

static void reply_pin(struct daemon_client *client, const Fakehyp__Request *request)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__PinReply body = FAKEHYP__PIN_REPLY__INIT;

    client->daemon->pinned = true;
    body.pin = 5;
    reply.id = request->id;
    reply.body_case = FAKEHYP__REPLY__BODY_PIN;
    reply.pin = &body;
    daemon_reply_body(client, &reply, NULL, 0);
}

static void access_report(struct daemon_client *client, const Fakehyp__Request *request)
{
    const Fakehyp__AccessReport *report = request->access_report;
    char text[256];

    snprintf(text, sizeof(text), "%s touched offset 0x%llx of file %llu\nwith %s frames, %s a view", report->thread,
             (unsigned long long)report->offset, (unsigned long long)report->gmem, report->n_frame ? "some" : "no",
             report->in_view ? "in" : "not in");
    daemon_reply(client, request, 0, text);
}

static void serve(struct daemon_client *client, const Fakehyp__Request *request, struct chan_msg *msg)
{
    struct fake_daemon *d = client->daemon;

    pthread_mutex_lock(&d->lock);
    d->nr_calls++;
    bool answered = d->hook && d->hook(client, request);
    pthread_mutex_unlock(&d->lock);
    if (answered)
        return;
    switch (request->body_case) {
    case FAKEHYP__REQUEST__BODY_HELLO:
        hello(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_VM_CREATE:
        vm_create(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_VM_DESTROY:
        daemon_guest_stop(d);
        daemon_reply(client, request, 0, "");
        break;
    case FAKEHYP__REQUEST__BODY_GMEM_CREATE:
        gmem_create(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_GMEM_CLOSE:
        d->nr_closed_gmems++;
        daemon_reply(client, request, 0, "");
        break;
    case FAKEHYP__REQUEST__BODY_GMEM_IMPORT:
        gmem_import(client, request, msg->nr_fds ? msg->fds[0] : -1);
        break;
    case FAKEHYP__REQUEST__BODY_VIEW_ADD:
        view_add(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_VIEW_REMOVE:
        pthread_mutex_lock(&d->lock);
        if (d->nr_removed < DAEMON_MAX)
            d->removed[d->nr_removed++] =
                (struct daemon_view){.addr = request->view_remove->addr, .length = request->view_remove->length};
        pthread_mutex_unlock(&d->lock);
        daemon_reply(client, request, 0, "");
        break;
    case FAKEHYP__REQUEST__BODY_CONVERT:
        convert(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_PIN:
        reply_pin(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_UNPIN:
        d->pinned = false;
        daemon_reply(client, request, 0, "");
        break;
    case FAKEHYP__REQUEST__BODY_QUERY:
        query(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_ACCESS_REPORT:
        access_report(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_MEMORY_REGION:
        d->slot_gpa = request->memory_region->gpa;
        d->slot_size = request->memory_region->size;
        d->slot_gmem = request->memory_region->gmem;
        d->slot_offset = request->memory_region->gmem_offset;
        daemon_reply(client, request, 0, "");
        break;
    case FAKEHYP__REQUEST__BODY_VCPU_CREATE:
        d->nr_vcpus++;
        daemon_reply(client, request, 0, "");
        break;
    case FAKEHYP__REQUEST__BODY_GUEST_PREPARE:
        daemon_guest_prepare(client, request);
        break;
    case FAKEHYP__REQUEST__BODY_VCPU_RUN:
        daemon_guest_run(client, request);
        break;
    default:
        daemon_reply(client, request, 0, "");
        break;
    }
}

/* ---- sockets --------------------------------------------------------------------------------------------------- */

static void *client_main(void *arg)
{
    struct daemon_client *client = arg;
    struct chan_msg msg = {.data = malloc(CHAN_MAX_FRAME)};

    while (chan_recv(client->control, &msg, 0) == 1) {
        lock_busy();
        Fakehyp__Request *request = fakehyp__request__unpack(NULL, msg.len, msg.data);
        must(request, "request");
        serve(client, request, &msg);
        chan_msg_close_fds(&msg);
        fakehyp__request__free_unpacked(request, NULL);
        unlock_busy();
    }
    free(msg.data);
    shutdown(client->control, SHUT_RDWR);
    if (client->agent >= 0)
        shutdown(client->agent, SHUT_RDWR);
    return NULL;
}

void daemon_set_hook(struct fake_daemon *d, daemon_hook hook, void *arg)
{
    pthread_mutex_lock(&d->lock);
    d->hook = hook;
    d->hook_arg = arg;
    pthread_mutex_unlock(&d->lock);
}

static struct daemon_client *add_client(struct fake_daemon *d, int control)
{
    struct daemon_client *client = calloc(1, sizeof(*client));

    client->daemon = d;
    client->control = control;
    client->agent = -1;
    pthread_mutex_lock(&d->lock);
    d->client[d->nr_clients++] = client;
    pthread_mutex_unlock(&d->lock);
    return client;
}

static void *acceptor_main(void *arg)
{
    struct fake_daemon *d = arg;

    for (;;) {
        int sock = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);
        if (sock < 0)
            return NULL;
        struct daemon_client *client = add_client(d, sock);
        must(pthread_create(&client->thread, NULL, client_main, client) == 0, "pthread_create");
    }
}

static void init_daemon(struct fake_daemon *d)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, install_fork_handlers);
    memset(d, 0, sizeof(*d));
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->changed, NULL);
}

void daemon_start(struct fake_daemon *d)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(address);

    init_daemon(d);
    d->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    must(bind(d->listener, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0, "bind");
    must(getsockname(d->listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
    must(listen(d->listener, 16) == 0, "listen");
    snprintf(d->name, sizeof(d->name), "@%.*s", (int)(length - offsetof(struct sockaddr_un, sun_path) - 1),
             address.sun_path + 1);
    must(pthread_create(&d->acceptor, NULL, acceptor_main, d) == 0, "pthread_create");
}

void daemon_die(struct fake_daemon *d)
{
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->nr_clients; i++) {
        shutdown(d->client[i]->control, SHUT_RDWR);
        if (d->client[i]->agent >= 0)
            shutdown(d->client[i]->agent, SHUT_RDWR);
    }
    pthread_mutex_unlock(&d->lock);
}

void daemon_stop(struct fake_daemon *d)
{
    shutdown(d->listener, SHUT_RDWR);
    pthread_join(d->acceptor, NULL);
    daemon_die(d);
    daemon_guest_stop(d);
    for (unsigned i = 0; i < d->nr_clients; i++) {
        pthread_join(d->client[i]->thread, NULL);
        close(d->client[i]->control);
        if (d->client[i]->agent >= 0)
            close(d->client[i]->agent);
        free(d->client[i]);
    }
    for (unsigned i = 0; i < d->nr_gmems; i++) {
        close(d->gmem[i].shared);
        close(d->gmem[i].private);
    }
    close(d->listener);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->changed);
}

void daemon_serve_listener(int listener)
{
    static struct fake_daemon d;

    init_daemon(&d);
    int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    must(sock >= 0, "accept");
    client_main(add_client(&d, sock));
}
