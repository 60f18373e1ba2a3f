/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/guest.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/fakehypd/client.h"
#include "src/fakehypd/guest_internal.h"

#define ATTACH_TIMEOUT_MS 10000
/* A killed process is gone in milliseconds, unless the machine is in trouble. */
#define DEATH_TIMEOUT_NS UINT64_C(5000000000)

static void on_deadline(void *arg)
{
    struct guest *guest = arg;

    guest->deadline = NULL;
    log_warning("the guest of VM %llu did not attach itself within %d s: forgotten",
                (unsigned long long)guest->vm->handle.id, ATTACH_TIMEOUT_MS / 1000);
    guest_forget(guest);
}

static bool is_dead(const struct guest *guest)
{
    struct pollfd pfd = {.fd = guest->pidfd, .events = POLLIN};

    return guest->dead || (guest->pidfd >= 0 ? poll(&pfd, 1, 0) > 0 : conn_hung_up(guest->conn));
}

int guest_prepare(struct vm_handle *vm, int *sock, struct caller *caller)
{
    int pair[2], on = 1;

    /* One that has failed to start is dead before we have heard of it. */
    if (vm->guest && is_dead(vm->guest))
        guest_end(vm);
    if (vm->guest) {
        caller_explain(caller, "VM %llu has a guest already", (unsigned long long)vm->handle.id);
        return -EBUSY;
    }
    if (vm->had_guest) {
        caller_explain(caller, "VM %llu had its guest, and its vCPUs are off: create another VM",
                       (unsigned long long)vm->handle.id);
        return -EBUSY;
    }
    if (vm_nr_vcpus(vm->vm) == 0) {
        caller_explain(caller, "VM %llu has no vCPU: fakehyp_vcpu_create() comes first",
                       (unsigned long long)vm->handle.id);
        return -ENOENT;
    }
    if (vm_nr_vcpus(vm->vm) > CHAN_MAX_FDS) {
        caller_explain(caller, "a guest can have %d vCPUs, VM %llu has %u", CHAN_MAX_FDS,
                       (unsigned long long)vm->handle.id, vm_nr_vcpus(vm->vm));
        return -E2BIG;
    }
    struct guest *guest = calloc(1, sizeof(*guest));
    if (!guest)
        return -ENOMEM;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        int err = -errno;
        free(guest);
        return err;
    }
    guest->daemon = vm->daemon;
    guest->pidfd = guest->uffd = -1;
    guest->vm = vm;
    if (setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0)
        guest->conn = conn_new(&vm->daemon->loop, pair[0], &guest_agent_ops, guest);
    guest->deadline = alarm_new(&vm->daemon->loop, ATTACH_TIMEOUT_MS, on_deadline, guest);
    if (!guest->conn || !guest->deadline) {
        if (guest->conn)
            conn_close(guest->conn);
        else
            close(pair[0]);
        close(pair[1]);
        alarm_free(guest->deadline);
        free(guest);
        return -ENOMEM;
    }
    guest->peer.conn = guest->conn;
    guest->peer.who = "guest agent";
    vm_handle_get(vm);
    vm->guest = guest;
    *sock = pair[1];
    return 0;
}

bool guest_attached(const struct guest *guest)
{
    return guest->state == GUEST_RUNNING;
}

pid_t guest_pid(const struct guest *guest)
{
    return guest->pid;
}

static void tell_owner(struct guest *guest)
{
    struct client *client = guest->vm->client;
    char text[96];

    if (!client)
        return;
    snprintf(text, sizeof(text), "the guest of VM %llu (pid %d) has ended", (unsigned long long)guest->vm->handle.id,
             guest->pid);
    client_event(client, &(struct client_event){.kind = "guest-exited", .vm = guest->vm->handle.id, .text = text});
}

void guest_forget(struct guest *guest)
{
    struct vm_handle *vm = guest->vm;

    peer_gone(&guest->peer);
    if (guest->state == GUEST_RUNNING) {
        live_guest_gone(guest->live, 0);
        guest->daemon->nr_guests--;
        log_info("guest of VM %llu (pid %d) has ended", (unsigned long long)vm->handle.id, guest->pid);
        tell_owner(guest);
    }
    alarm_free(guest->deadline);
    watch_free(guest->pid_watch);
    conn_close(guest->conn);
    for (unsigned i = 0; i < guest->nr_vcpus; i++)
        conn_close(guest->vcpus[i].conn);
    free(guest->vcpus);
    if (guest->pidfd >= 0)
        close(guest->pidfd);
    if (guest->uffd >= 0)
        close(guest->uffd);
    vm->guest = NULL;
    sched_wake_all(&vm->changed);
    vm_handle_put(vm);
    free(guest);
}

void guest_send_kill(struct guest *guest)
{
    if (guest->pidfd >= 0 && !guest->dead)
        pidfd_send_signal(guest->pidfd, SIGKILL, NULL, 0);
}

void guest_kill(void *guest_peer)
{
    guest_send_kill(guest_peer);
}

void guest_on_pidfd(void *arg, int events)
{
    struct guest *guest = arg;

    guest->dead = true;
    watch_set(guest->pid_watch, 0);
    peer_gone(&guest->peer);
    /* The task that attaches it finds out by itself. */
    if (guest->state != GUEST_ATTACHING)
        guest_forget(guest);
}

void guest_stop(struct guest *guest)
{
    if (!guest)
        return;
    guest_send_kill(guest);
    /* Nobody waits for its agent any more. */
    peer_gone(&guest->peer);
}

void guest_end(struct vm_handle *vm)
{
    uint64_t deadline = sched_now() + DEATH_TIMEOUT_NS;

    if (vm->guest && vm->guest->pidfd < 0)
        guest_forget(vm->guest);
    guest_stop(vm->guest);
    while (vm->guest) {
        uint64_t now = sched_now();
        int rc = now >= deadline ? -ETIMEDOUT : sched_wait_uncancelled(&vm->changed, deadline - now);
        if (rc) {
            log_warning("the guest of VM %llu (pid %d) was killed and does not die", (unsigned long long)vm->handle.id,
                        vm->guest->pid);
            return;
        }
    }
}
