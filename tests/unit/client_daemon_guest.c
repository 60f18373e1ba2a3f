/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's side of the stand-in daemon: attach, page faults, hypercalls as exits. */
#include "tests/unit/client_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fakehyp/fakehyp.h>

#define MAX_VCPUS 8
#define SYSTEM_OFF 0x84000008u

struct daemon_vcpu {
    int sock;
    bool ready;        /* it waits for its first entry */
    bool in_hypercall; /* it waits for the result */
    uint64_t ready_id;
};

struct daemon_guest {
    int sock, stop[2];
    int uffd;
    pid_t pid;
    uint64_t ram_base, ipa_size, next_id;
    unsigned faults;
    bool attached;
    sem_t started;      /* the attacher runs: a thread's start allocates, which must not be while the guest is forked */
    struct chan_msg in; /* the attacher's, allocated before the guest is forked */
    pthread_t attacher, pager;
    bool pager_runs;
    unsigned nr_vcpus;
    struct daemon_vcpu vcpu[MAX_VCPUS];
};

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

/* Resolves every fault: a page that has bytes is mapped, a hole becomes a zero page. */
static void resolve(struct fake_daemon *d, struct daemon_guest *guest, uint64_t addr, bool minor)
{
    uint64_t page = addr & ~(uint64_t)(FAKEHYP_PAGE_SIZE - 1);

    pthread_mutex_lock(&d->lock);
    guest->faults++;
    pthread_mutex_unlock(&d->lock);
    if (minor) {
        struct uffdio_continue c = {.range = {page, FAKEHYP_PAGE_SIZE}};
        ioctl(guest->uffd, UFFDIO_CONTINUE, &c);
    } else {
        struct uffdio_zeropage z = {.range = {page, FAKEHYP_PAGE_SIZE}};
        ioctl(guest->uffd, UFFDIO_ZEROPAGE, &z);
    }
}

static void *pager_main(void *arg)
{
    struct fake_daemon *d = arg;
    struct daemon_guest *guest = d->guest;
    struct uffd_msg msg;

    for (;;) {
        struct pollfd pfd[2] = {{.fd = guest->uffd, .events = POLLIN}, {.fd = guest->stop[0], .events = POLLIN}};
        if (poll(pfd, 2, -1) < 0)
            continue;
        if (pfd[1].revents || (pfd[0].revents & (POLLHUP | POLLERR)))
            return NULL;
        while (read(guest->uffd, &msg, sizeof(msg)) == (ssize_t)sizeof(msg))
            if (msg.event == UFFD_EVENT_PAGEFAULT)
                resolve(d, guest, msg.arg.pagefault.address, msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR);
    }
}

/* One request to the guest's agent; the pager runs meanwhile, so that mremap() can return. */
static int ask(struct daemon_guest *guest, Fakehyp__Request *request, const int *fds, unsigned nr_fds)
{
    struct chan_msg msg = {.data = malloc(CHAN_MAX_FRAME)};

    request->id = ++guest->next_id;
    int rc = chan_send_request(guest->sock, request, fds, nr_fds, 0);
    if (rc == 0)
        rc = chan_recv(guest->sock, &msg, 0) == 1 ? 0 : -ECONNRESET;
    if (rc == 0) {
        Fakehyp__Reply *reply = fakehyp__reply__unpack(NULL, msg.len, msg.data);
        must(reply && reply->id == request->id, "guest reply");
        rc = reply->error;
        fakehyp__reply__free_unpacked(reply, NULL);
    }
    free(msg.data);
    return rc;
}

static void add_slot(struct fake_daemon *d, struct daemon_guest *guest)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestSlotAdd body = FAKEHYP__GUEST_SLOT_ADD__INIT;
    struct daemon_gmem *gmem = daemon_find_gmem(d, d->slot_gmem);

    if (!gmem)
        return;
    body.slot = 1;
    body.gpa = d->slot_gpa;
    body.size = d->slot_size;
    body.offset = d->slot_offset;
    body.file_size = gmem->size;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_SLOT_ADD;
    request.guest_slot_add = &body;
    must(ask(guest, &request, (const int[]){gmem->private, gmem->shared}, 2) == 0, "slot add");
}

static void attach(struct fake_daemon *d, struct daemon_guest *guest, struct chan_msg *msg)
{
    Fakehyp__Request *request = fakehyp__request__unpack(NULL, msg->len, msg->data);
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__GuestAttachReply body = FAKEHYP__GUEST_ATTACH_REPLY__INIT;
    int theirs[MAX_VCPUS];

    must(request && request->body_case == FAKEHYP__REQUEST__BODY_GUEST_ATTACH, "attach");
    guest->ram_base = request->guest_attach->ram_base;
    guest->ipa_size = request->guest_attach->ipa_size;
    guest->pid = msg->pid;
    guest->uffd = chan_msg_take_fd(msg, 0);
    guest->nr_vcpus = d->nr_vcpus;
    for (unsigned i = 0; i < guest->nr_vcpus; i++) {
        int pair[2];
        must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
        guest->vcpu[i].sock = pair[0];
        theirs[i] = pair[1];
    }
    must(pthread_create(&guest->pager, NULL, pager_main, d) == 0, "pthread_create");
    guest->pager_runs = true;
    body.nr_vcpus = guest->nr_vcpus;
    body.vm = 7;
    reply.id = request->id;
    reply.body_case = FAKEHYP__REPLY__BODY_GUEST_ATTACH;
    reply.guest_attach = &body;
    chan_send_reply(guest->sock, &reply, theirs, guest->nr_vcpus, 0);
    for (unsigned i = 0; i < guest->nr_vcpus; i++)
        close(theirs[i]);
    fakehyp__request__free_unpacked(request, NULL);
    add_slot(d, guest);
    pthread_mutex_lock(&d->lock);
    guest->attached = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

static void *attacher_main(void *arg)
{
    struct fake_daemon *d = arg;
    struct chan_msg *msg = &d->guest->in;

    sem_post(&d->guest->started);
    if (chan_recv(d->guest->sock, msg, 0) == 1)
        attach(d, d->guest, msg);
    chan_msg_close_fds(msg);
    return NULL;
}

void daemon_guest_prepare(struct daemon_client *client, const Fakehyp__Request *request)
{
    struct fake_daemon *d = client->daemon;
    /* One whose process never came is over. */
    daemon_guest_stop(d);
    struct daemon_guest *guest = calloc(1, sizeof(*guest));
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;
    int pair[2], one = 1;

    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    must(setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) == 0, "SO_PASSCRED");
    must(pipe2(guest->stop, O_CLOEXEC) == 0, "pipe");
    sem_init(&guest->started, 0, 0);
    guest->in.data = malloc(CHAN_MAX_FRAME);
    guest->sock = pair[0];
    guest->uffd = -1;
    d->guest = guest;
    must(pthread_create(&guest->attacher, NULL, attacher_main, d) == 0, "pthread_create");
    while (sem_wait(&guest->started))
        ;
    reply.id = request->id;
    reply.body_case = FAKEHYP__REPLY__BODY_ACK;
    reply.ack = &ack;
    daemon_reply_body(client, &reply, &pair[1], 1);
    close(pair[1]);
}

static void enter(struct daemon_vcpu *vcpu, uint64_t ret)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;
    Fakehyp__HypercallReply result = FAKEHYP__HYPERCALL_REPLY__INIT;

    if (!vcpu->ready && !vcpu->in_hypercall)
        return;
    reply.id = vcpu->ready_id;
    if (vcpu->ready) {
        reply.body_case = FAKEHYP__REPLY__BODY_ACK;
        reply.ack = &ack;
    } else {
        result.x0 = ret;
        reply.body_case = FAKEHYP__REPLY__BODY_HYPERCALL;
        reply.hypercall = &result;
    }
    vcpu->ready = vcpu->in_hypercall = false;
    chan_send_reply(vcpu->sock, &reply, NULL, 0, 0);
}

static bool next_request(struct daemon_vcpu *vcpu, struct chan_msg *msg, Fakehyp__Request **request)
{
    if (chan_recv(vcpu->sock, msg, 0) != 1)
        return false;
    *request = fakehyp__request__unpack(NULL, msg->len, msg->data);
    must(*request, "vCPU request");
    vcpu->ready_id = (*request)->id;
    return true;
}

void daemon_guest_run(struct daemon_client *client, const Fakehyp__Request *request)
{
    struct fake_daemon *d = client->daemon;
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__VcpuExit exit = FAKEHYP__VCPU_EXIT__INIT;
    struct chan_msg msg = {.data = malloc(CHAN_MAX_FRAME)};
    Fakehyp__Request *call;

    pthread_mutex_lock(&d->lock);
    while (d->guest && !d->guest->attached)
        pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
    must(d->guest && request->vcpu_run->index < d->guest->nr_vcpus, "no such vCPU");
    struct daemon_vcpu *vcpu = &d->guest->vcpu[request->vcpu_run->index];
    enter(vcpu, request->vcpu_run->hypercall_ret);
    bool alive = next_request(vcpu, &msg, &call);
    if (alive && call->body_case == FAKEHYP__REQUEST__BODY_VCPU_READY) {
        vcpu->ready = true;
        fakehyp__request__free_unpacked(call, NULL);
        enter(vcpu, 0);
        alive = next_request(vcpu, &msg, &call);
    }
    if (!alive) {
        exit.exit_reason = FAKEHYP_EXIT_SYSTEM_EVENT;
        exit.event_type = FAKEHYP_SYSTEM_EVENT_CRASH;
    } else {
        const Fakehyp__Hypercall *hypercall = call->hypercall;
        if (hypercall->x0 == SYSTEM_OFF) {
            exit.exit_reason = FAKEHYP_EXIT_SYSTEM_EVENT;
            exit.event_type = FAKEHYP_SYSTEM_EVENT_SHUTDOWN;
            exit.event_data = hypercall->x1;
        } else {
            vcpu->in_hypercall = true;
            exit.exit_reason = FAKEHYP_EXIT_HYPERCALL;
            exit.nr = hypercall->x0;
            exit.args0 = hypercall->x1;
            exit.args1 = hypercall->x2;
            exit.args2 = hypercall->x3;
        }
        fakehyp__request__free_unpacked(call, NULL);
    }
    free(msg.data);
    reply.id = request->id;
    reply.body_case = FAKEHYP__REPLY__BODY_VCPU_EXIT;
    reply.vcpu_exit = &exit;
    daemon_reply_body(client, &reply, NULL, 0);
}

int daemon_guest_overlay(struct fake_daemon *d, uint64_t gpa, uint64_t size, bool shared)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestOverlay body = FAKEHYP__GUEST_OVERLAY__INIT;

    body.slot = 1;
    body.gpa = gpa;
    body.size = size;
    body.shared = shared;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_OVERLAY;
    request.guest_overlay = &body;
    return ask(d->guest, &request, NULL, 0);
}

int daemon_guest_zap(struct fake_daemon *d, uint64_t gpa, uint64_t size)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestZap body = FAKEHYP__GUEST_ZAP__INIT;

    body.gpa = gpa;
    body.size = size;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_ZAP;
    request.guest_zap = &body;
    return ask(d->guest, &request, NULL, 0);
}

int daemon_guest_remove_slot(struct fake_daemon *d)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestSlotRemove body = FAKEHYP__GUEST_SLOT_REMOVE__INIT;

    body.slot = 1;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_SLOT_REMOVE;
    request.guest_slot_remove = &body;
    return ask(d->guest, &request, NULL, 0);
}

unsigned daemon_guest_faults(struct fake_daemon *d)
{
    pthread_mutex_lock(&d->lock);
    unsigned faults = d->guest->faults;
    pthread_mutex_unlock(&d->lock);
    return faults;
}

pid_t daemon_guest_pid(struct fake_daemon *d)
{
    pthread_mutex_lock(&d->lock);
    while (!d->guest->attached)
        pthread_cond_wait(&d->changed, &d->lock);
    pid_t pid = d->guest->pid;
    pthread_mutex_unlock(&d->lock);
    return pid;
}

void daemon_guest_stop(struct fake_daemon *d)
{
    struct daemon_guest *guest = d->guest;

    if (!guest)
        return;
    /* The end of its socket is what ends a guest. */
    shutdown(guest->sock, SHUT_RDWR);
    pthread_join(guest->attacher, NULL);
    if (guest->pager_runs) {
        must(write(guest->stop[1], "", 1) == 1, "stop");
        pthread_join(guest->pager, NULL);
    }
    for (unsigned i = 0; i < guest->nr_vcpus; i++)
        close(guest->vcpu[i].sock);
    if (guest->uffd >= 0)
        close(guest->uffd);
    close(guest->sock);
    close(guest->stop[0]);
    close(guest->stop[1]);
    sem_destroy(&guest->started);
    free(guest->in.data);
    free(guest);
    d->guest = NULL;
}
