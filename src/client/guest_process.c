/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a fork of the VMM to a guest.
 *
 * The child lets go of all that is the VMM's, reserves its IPA space under an
 * event-mode userfaultfd and attaches itself to the daemon, which answers with
 * one socket a vCPU.
 */
#include "src/client/guest.h"
#include "src/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_FREE_FD 3

struct vcpu_start {
    struct fakehyp_guest guest;
    guest_main_fn entry;
    void *arg;
};

static int compare_fds(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

void guest_close_all_but(unsigned first, const int *keep, size_t nr_keep)
{
    int sorted[4];

    memcpy(sorted, keep, nr_keep * sizeof(*sorted));
    qsort(sorted, nr_keep, sizeof(*sorted), compare_fds);
    for (size_t i = 0; i < nr_keep; i++) {
        if (sorted[i] < (int)first)
            continue;
        if (sorted[i] > (int)first)
            close_range(first, (unsigned)sorted[i] - 1, 0);
        first = (unsigned)sorted[i] + 1;
    }
    close_range(first, ~0u, 0);
}

/* The VMM may have closed its standard descriptors, so that ours sit there. */
static int move_up(int fd)
{
    if (fd >= FIRST_FREE_FD)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    if (moved >= 0)
        close(fd);
    return moved;
}

static void reset_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int sig = 1; sig <= SIGRTMAX; sig++)
        sigaction(sig, &dfl, NULL); /* fails for SIGKILL, SIGSTOP and libc's own, as it should */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int reserve_ipa_space(struct guest_process *process, uint32_t ipa_bits)
{
    if (ipa_bits < 12 || ipa_bits > 46)
        return fh_fail(-EINVAL, "an IPA space of %u bits does not fit into a process", ipa_bits);
    process->ipa_size = UINT64_C(1) << ipa_bits;
    /* Closed until it is registered: no touch may find it without. */
    void *p = mmap(NULL, process->ipa_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return fh_fail(
            -errno, "no room for an IPA space of %u bits (%s); is there a limit (ulimit -v)? A smaller ipa_bits helps",
            ipa_bits, strerror(errno));
    process->ram = p;
    /* The exact address is what an MMIO exit tells; before Linux 5.18 it is that of the page. */
    int fd = fh_uffd_open(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                              UFFD_FEATURE_THREAD_ID,
                          UFFD_FEATURE_EXACT_ADDRESS);
    if (fd < 0)
        return fd;
    process->uffd = fd;
    int rc = fh_uffd_register(fd, (uintptr_t)p, process->ipa_size, UFFDIO_REGISTER_MODE_MISSING);
    if (rc)
        return rc;
    if (mprotect(p, process->ipa_size, PROT_READ | PROT_WRITE))
        return fh_fail(-errno,
                       "the IPA space of %u bits cannot be opened: %s; vm.overcommit_memory=2 counts it as used",
                       ipa_bits, strerror(errno));
    return 0;
}

/* GuestAttach is the one message that carries credentials, which chan_send() does not. */
static int send_attach(const struct guest_process *process)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control = {.space = {0}};
    struct ucred cred = {.pid = getpid(), .uid = geteuid(), .gid = getegid()};
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestAttach body = FAKEHYP__GUEST_ATTACH__INIT;
    uint8_t packed[128];

    request.id = 1;
    body.ram_base = (uintptr_t)process->ram;
    body.ipa_size = process->ipa_size;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_ATTACH;
    request.guest_attach = &body;
    if (fakehyp__request__get_packed_size(&request) > sizeof(packed))
        return fh_fail(-EMSGSIZE, "the guest's attach message is too long");
    struct iovec iov = {.iov_base = packed, .iov_len = fakehyp__request__pack(&request, packed)};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &process->uffd, sizeof(int));
    cmsg = CMSG_NXTHDR(&msg, cmsg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_CREDENTIALS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(cred));
    memcpy(CMSG_DATA(cmsg), &cred, sizeof(cred));
    int rc = chan_sendmsg(process->sock, &msg, 0);
    return rc ? fh_fail(rc, "the guest could not attach itself: %s", strerrordesc_np(-rc)) : 0;
}

static int take_attach_reply(struct guest_process *process, struct chan_msg *msg, const Fakehyp__Reply *reply)
{
    if (reply->error)
        return fh_fail(reply->error, "%s", reply->message[0] ? reply->message : "fakehypd refused the guest");
    if (reply->body_case != FAKEHYP__REPLY__BODY_GUEST_ATTACH || reply->guest_attach->nr_vcpus != msg->nr_fds ||
        msg->nr_fds == 0)
        return fh_fail(-EPROTO, "fakehypd sent %u sockets for the guest's vCPUs", msg->nr_fds);
    process->nr_vcpus = msg->nr_fds;
    for (unsigned i = 0; i < process->nr_vcpus; i++)
        process->vcpu_sock[i] = chan_msg_take_fd(msg, i);
    return 0;
}

static int attach(struct guest_process *process)
{
    struct chan_msg msg = {.data = malloc(CHAN_MAX_FRAME)};

    if (!msg.data)
        return fh_fail(-ENOMEM, "out of memory");
    int rc = send_attach(process);
    if (rc == 0) {
        rc = chan_recv(process->sock, &msg, 0);
        if (rc <= 0) {
            rc = fh_fail(-ECONNRESET, "fakehypd closed the guest's socket");
        } else {
            Fakehyp__Reply *reply = chan_unpack_reply(&msg);
            rc = reply ? take_attach_reply(process, &msg, reply) : fh_fail(-EPROTO, "fakehypd sent no reply");
            if (reply)
                fakehyp__reply__free_unpacked(reply, NULL);
            chan_msg_close_fds(&msg);
        }
    }
    free(msg.data);
    return rc;
}

static void tell_parent(int status_fd, int error)
{
    struct guest_status status = {.error = error};

    if (error)
        snprintf(status.text, sizeof(status.text), "%s", fakehyp_last_error());
    ssize_t n;
    while ((n = write(status_fd, &status, sizeof(status))) < 0 && errno == EINTR)
        ;
    /* Without a reader the parent is gone, and the guest soon too. */
    if (n != (ssize_t)sizeof(status))
        _exit(1);
    close(status_fd);
}

static void *vcpu_thread(void *arg)
{
    struct vcpu_start *start = arg;

    guest_vcpu_run(&start->guest, start->entry, start->arg);
}

static int start_other_vcpus(const struct guest_process *process, struct vcpu_start *start)
{
    for (unsigned i = 1; i < process->nr_vcpus; i++) {
        pthread_t thread;
        char name[16];
        int err = pthread_create(&thread, NULL, vcpu_thread, &start[i]);
        if (err)
            return fh_fail(-err, "a thread for vCPU %u: %s", i, strerror(err));
        snprintf(name, sizeof(name), "vcpu%u", i);
        pthread_setname_np(thread, name);
    }
    return 0;
}

static struct vcpu_start *make_vcpus(const struct guest_process *process, guest_main_fn entry, void *arg)
{
    struct vcpu_start *start = calloc(process->nr_vcpus, sizeof(*start));

    for (unsigned i = 0; start && i < process->nr_vcpus; i++) {
        start[i].guest.process = process;
        start[i].guest.index = i;
        start[i].guest.sock = process->vcpu_sock[i];
        start[i].guest.in.data = malloc(CHAN_MAX_FRAME);
        start[i].entry = entry;
        start[i].arg = arg;
        if (!start[i].guest.in.data)
            return NULL;
    }
    return start;
}

/* Everything up to the point where only vCPUs are left to start. */
static int set_up(struct guest_process *process, uint32_t ipa_bits)
{
    bool private_table = false;
    int rc = reserve_ipa_space(process, ipa_bits);

    if (rc == 0)
        rc = attach(process);
    if (rc == 0)
        rc = guest_agent_start(process, &private_table);
    if (rc == 0 && private_table) {
        /* The guest function can neither use nor lose what only the agent's table has. */
        close(process->sock);
        close(process->uffd);
    }
    return rc;
}

_Noreturn void guest_process_run(int sock, int status_fd, uint32_t ipa_bits, guest_main_fn entry, void *arg)
{
    struct guest_process *process = calloc(1, sizeof(*process));
    struct vcpu_start *vcpus;
    int rc;

    reset_signals();
    prctl(PR_SET_NAME, "fakehyp-guest");
    /* Guest memory is not to be read through ptrace or /proc by other processes of this user. */
    prctl(PR_SET_DUMPABLE, 0);
    sock = move_up(sock);
    status_fd = move_up(status_fd);
    if (!process || sock < 0 || status_fd < 0)
        _exit(1);
    guest_close_all_but(FIRST_FREE_FD, (const int[]){sock, status_fd}, 2);
    process->sock = sock;
    rc = set_up(process, ipa_bits);
    vcpus = rc ? NULL : make_vcpus(process, entry, arg);
    if (rc == 0 && !vcpus)
        rc = fh_fail(-ENOMEM, "out of memory");
    if (rc == 0)
        rc = start_other_vcpus(process, vcpus);
    tell_parent(status_fd, rc);
    if (rc)
        _exit(1);
    guest_vcpu_run(&vcpus[0].guest, entry, arg);
}
