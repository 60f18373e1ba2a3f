/* SPDX-License-Identifier: BSD-2-Clause */
/* GuestAttach, and the requests of the vCPUs' threads. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/fakehypd/client.h"
#include "src/fakehypd/guest.h"
#include "src/fakehypd/guest_internal.h"

/* ---- sockets of the vCPUs ----------------------------------------------------------------------------------- */

static void bad_vcpu(struct guest_vcpu *vcpu, const char *what)
{
    struct guest *guest = vcpu->guest;

    log_warning("vCPU %u of VM %llu (pid %d) %s: the guest is killed", vcpu->index,
                (unsigned long long)guest->vm->handle.id, guest->pid, what);
    guest_send_kill(guest);
}

static const char *take_vcpu_request(struct guest_vcpu *vcpu, const Fakehyp__Request *request)
{
    struct guest *guest = vcpu->guest;

    if (vcpu->pending)
        return "sent a request while another waits";
    vcpu->request = request->id;
    switch (request->body_case) {
    case FAKEHYP__REQUEST__BODY_VCPU_READY:
        if (vcpu->ready)
            return "announced itself twice";
        vcpu->ready = vcpu->pending = true;
        guest->vm->had_guest = true;
        live_vcpu_ready(guest->live, vcpu->index, vcpu, request->vcpu_ready->tid);
        return NULL;
    case FAKEHYP__REQUEST__BODY_HYPERCALL:
        if (!vcpu->ready)
            return "made a hypercall before its first entry";
        vcpu->pending = true;
        live_vcpu_hypercall(guest->live, vcpu->index,
                            (const uint64_t[4]){request->hypercall->x0, request->hypercall->x1, request->hypercall->x2,
                                                request->hypercall->x3});
        return NULL;
    default:
        return "sent a request that is none of a vCPU's";
    }
}

static void on_vcpu_frame(void *owner, struct chan_msg *msg)
{
    struct guest_vcpu *vcpu = owner;
    Fakehyp__Request *request = chan_unpack_request(msg);
    const char *wrong = !request      ? "sent what is no request"
                        : msg->nr_fds ? "sent descriptors"
                                      : take_vcpu_request(vcpu, request);

    if (wrong)
        bad_vcpu(vcpu, wrong);
    if (request)
        fakehyp__request__free_unpacked(request, NULL);
}

static void on_vcpu_gone(void *owner, const char *reason)
{
    struct guest_vcpu *vcpu = owner;

    /* Mostly the process is just ending; a guest that closed its vCPU's socket is of no use any more. */
    log_debug("vCPU %u of VM %llu: %s", vcpu->index, (unsigned long long)vcpu->guest->vm->handle.id, reason);
    guest_send_kill(vcpu->guest);
}

static const struct conn_ops vcpu_ops = {.frame = on_vcpu_frame, .gone = on_vcpu_gone};

void guest_vcpu_reply(void *vcpu_peer, const uint64_t x[4])
{
    struct guest_vcpu *vcpu = vcpu_peer;
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__HypercallReply body = FAKEHYP__HYPERCALL_REPLY__INIT;

    if (!vcpu->pending)
        return;
    vcpu->pending = false;
    body.x0 = x[0];
    body.x1 = x[1];
    body.x2 = x[2];
    body.x3 = x[3];
    reply.id = vcpu->request;
    reply.body_case = FAKEHYP__REPLY__BODY_HYPERCALL;
    reply.hypercall = &body;
    int rc = conn_send_reply(vcpu->conn, &reply, NULL, 0);
    if (rc && rc != -EPIPE)
        bad_vcpu(vcpu, "could not be answered");
}

/* One socket a vCPU; theirs[] are the guest's ends.  All or nothing. */
static int make_vcpus(struct guest *guest, int *theirs)
{
    unsigned nr = vm_nr_vcpus(guest->vm->vm), made = 0;
    int pair[2];

    guest->vcpus = calloc(nr, sizeof(*guest->vcpus));
    if (!guest->vcpus)
        return -ENOMEM;
    for (unsigned i = 0; i < nr; i++) {
        struct guest_vcpu *vcpu = &guest->vcpus[i];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
            break;
        vcpu->guest = guest;
        vcpu->index = i;
        vcpu->conn = conn_new(&guest->daemon->loop, pair[0], &vcpu_ops, vcpu);
        if (!vcpu->conn) {
            close(pair[0]);
            close(pair[1]);
            break;
        }
        /* Not before the stage knows the guest. */
        conn_pause(vcpu->conn, true);
        theirs[made++] = pair[1];
        guest->nr_vcpus = made;
    }
    if (made == nr)
        return 0;
    while (made)
        close(theirs[--made]);
    return -EMFILE;
}

/* ---- attach ------------------------------------------------------------------------------------------------- */

static void attach_task(void *arg)
{
    struct guest *guest = arg;
    struct vm_handle *vm = guest->vm;
    int rc = guest->answered;

    if (rc == 0)
        rc = live_guest_attach(guest->daemon->live, vm->vm, &guest->peer, (uint32_t)guest->pid, guest->uffd,
                               guest->ram_base, guest->ipa_size, &guest->live);
    if (rc == 0) {
        guest->uffd = -1;
        guest->state = GUEST_RUNNING;
        guest->daemon->nr_guests++;
        log_info("guest of VM %llu: pid %d, %u vCPUs", (unsigned long long)vm->handle.id, guest->pid, guest->nr_vcpus);
        for (unsigned i = 0; i < guest->nr_vcpus; i++)
            conn_pause(guest->vcpus[i].conn, false);
    } else {
        log_warning("guest of VM %llu (pid %d) could not be attached: %s", (unsigned long long)vm->handle.id,
                    guest->pid, strerrordesc_np(-rc));
        guest_send_kill(guest);
        guest->state = GUEST_PREPARED; /* the stage does not know it */
    }
    if (guest->dead)
        guest_forget(guest);
    sched_wake_all(&vm->changed);
    vm_handle_unuse(vm);
}

/* Who is it?  Returns what is wrong. */
static const char *check_sender(const struct guest *guest, const struct chan_msg *msg)
{
    const struct client *client = guest->vm->client;

    if (msg->pid <= 0)
        return "the message has no credentials: is the guest in another PID namespace?";
    if (!client || msg->uid != client->uid)
        return "the guest process belongs to another user than its VMM";
    if (msg->pid == client->pid)
        return "the guest must be a process of its own: its VMM's private memory would be the guest's";
    return NULL;
}

/* Anything else could make a read() or ioctl() of ours wait. */
static bool is_userfaultfd(int fd)
{
    char path[32], target[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    if (n < 0)
        return false;
    target[n] = '\0';
    return !strcmp(target, "anon_inode:[userfaultfd]");
}

static int watch_process(struct guest *guest)
{
    guest->pidfd = pidfd_open(guest->pid, 0);
    if (guest->pidfd < 0)
        return -errno;
    guest->pid_watch = watch_new(&guest->daemon->loop, guest->pidfd, guest_on_pidfd, guest);
    if (!guest->pid_watch)
        return -ENOMEM;
    watch_set(guest->pid_watch, UV_READABLE);
    return 0;
}

static int answer(struct guest *guest, uint64_t id, int error, const char *message, const int *fds, unsigned nr_fds)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__GuestAttachReply body = FAKEHYP__GUEST_ATTACH_REPLY__INIT;

    reply.id = id;
    reply.error = error;
    reply.message = (char *)message;
    if (!error) {
        body.nr_vcpus = nr_fds;
        body.vm = guest->vm->handle.id;
        reply.body_case = FAKEHYP__REPLY__BODY_GUEST_ATTACH;
        reply.guest_attach = &body;
    }
    return conn_send_reply(guest->conn, &reply, fds, nr_fds);
}

static int attach(struct guest *guest, const Fakehyp__Request *request, struct chan_msg *msg, const char **message)
{
    const Fakehyp__GuestAttach *body = request->guest_attach;
    int theirs[CHAN_MAX_FDS];

    *message = check_sender(guest, msg);
    if (*message)
        return -EPERM;
    if (!is_userfaultfd(msg->fds[0])) {
        *message = "the descriptor of GuestAttach is no userfaultfd";
        return -EINVAL;
    }
    if (!vm_handle_use(guest->vm)) {
        *message = "the VM is being destroyed";
        return -ENOENT;
    }
    guest->pid = msg->pid;
    guest->peer.pid = (uint32_t)msg->pid;
    int rc = watch_process(guest);
    /* A sender that is gone already may have left its number to somebody else, whom we must not kill. */
    if (rc == 0 && conn_hung_up(guest->conn))
        rc = -ESRCH;
    if (rc == 0)
        rc = make_vcpus(guest, theirs);
    if (rc == 0) {
        guest->uffd = chan_msg_take_fd(msg, 0);
        guest->ram_base = body->ram_base;
        guest->ipa_size = body->ipa_size;
        guest->state = GUEST_ATTACHING;
        /* The task runs after this: a guest that has its answer finds it there. */
        bool spawned = task_spawn(guest->daemon->loop.sched, "guest_attach", attach_task, guest);
        if (spawned)
            guest->answered = answer(guest, request->id, 0, "", theirs, guest->nr_vcpus);
        for (unsigned i = 0; i < guest->nr_vcpus; i++)
            close(theirs[i]);
        if (spawned)
            return 0;
        guest->state = GUEST_PREPARED;
        rc = -ENOMEM;
    }
    *message = strerrordesc_np(-rc);
    vm_handle_unuse(guest->vm);
    return rc;
}

static void first_frame(struct guest *guest, struct chan_msg *msg)
{
    Fakehyp__Request *request = chan_unpack_request(msg);
    const char *message = "the first message must be GuestAttach with one descriptor, the guest's userfaultfd";
    int rc = -EPROTO;

    if (msg->fds_lost) {
        message = "fakehypd has no file descriptor left: raise its limit (ulimit -n)";
        rc = -EMFILE;
    } else if (request && request->body_case == FAKEHYP__REQUEST__BODY_GUEST_ATTACH && msg->nr_fds == 1) {
        alarm_free(guest->deadline);
        guest->deadline = NULL;
        guest->in_first_frame = true;
        rc = attach(guest, request, msg, &message);
    }
    if (rc) {
        guest->in_first_frame = true;
        log_warning("guest of VM %llu refused: %s", (unsigned long long)guest->vm->handle.id, message);
        if (request)
            answer(guest, request->id, rc, message, NULL, 0);
        guest_forget(guest);
    } else {
        guest->in_first_frame = false;
    }
    if (request)
        fakehyp__request__free_unpacked(request, NULL);
}

static void on_agent_frame(void *owner, struct chan_msg *msg)
{
    struct guest *guest = owner;

    if (guest->state == GUEST_PREPARED && guest->pidfd < 0)
        first_frame(guest, msg);
    else if (peer_frame(&guest->peer, msg) < 0) {
        log_warning("the agent of VM %llu's guest (pid %d) sent what is no reply: the guest is killed",
                    (unsigned long long)guest->vm->handle.id, guest->pid);
        guest_send_kill(guest);
    }
}

static void on_agent_gone(void *owner, const char *reason)
{
    struct guest *guest = owner;

    peer_gone(&guest->peer);
    if (guest->in_first_frame)
        return;
    if (guest->pidfd >= 0) {
        guest_send_kill(guest);
        return;
    }
    log_info("VM %llu: nobody became its guest: %s", (unsigned long long)guest->vm->handle.id, reason);
    guest_forget(guest);
}

const struct conn_ops guest_agent_ops = {.frame = on_agent_frame, .gone = on_agent_gone};
