/* SPDX-License-Identifier: BSD-2-Clause */
/* The VMM's side of a guest: it forks the guest process and reaps it. */
#include "src/client/guest.h"
#include "src/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long a guest may take to end by itself after its VM is gone. */
#define REAP_MS 2000
/* fakehypd kills a guest that it cannot use; how long its end may take. */
#define ENDING_MS 200

static int prepare(struct fakehyp_vm *vm, int *sock)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestPrepare body = FAKEHYP__GUEST_PREPARE__INIT;
    struct fh_call_options options = {.what = "guest_start", .expect = FAKEHYP__REPLY__BODY_ACK, .fd = -1};
    struct fh_answer answer;

    body.vm = vm->id;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_PREPARE;
    request.guest_prepare = &body;
    int rc = fh_call(vm->object.fh, &options, &request, &answer);
    if (rc == 0 && answer.fd < 0)
        rc = fh_fail(-EPROTO, "guest_start: fakehypd sent no socket for the guest");
    if (rc == 0) {
        *sock = answer.fd;
        answer.fd = -1;
    }
    fh_answer_free(&answer);
    return rc;
}

static bool wait_exit(int pidfd, int timeout_ms)
{
    int64_t deadline = fh_now_ms() + timeout_ms;

    for (;;) {
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        int64_t left = deadline - fh_now_ms();
        int n = poll(&pfd, 1, left > 0 ? (int)left : 0);
        if (n > 0)
            return true;
        if (n == 0 || errno != EINTR)
            return false;
    }
}

int fh_guest_wait_status(const struct fakehyp_vm *vm)
{
    siginfo_t info = {0};

    /* Only looks: the guest is reaped with its VM. */
    if (vm->guest_pidfd < 0 || !wait_exit(vm->guest_pidfd, REAP_MS) ||
        waitid(P_PIDFD, (id_t)vm->guest_pidfd, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == 0)
        return 0;
    if (info.si_code == CLD_EXITED)
        return (info.si_status & 0xff) << 8;
    return info.si_status | (info.si_code == CLD_DUMPED ? 0x80 : 0);
}

void fh_guest_reap(struct fakehyp_vm *vm)
{
    int pidfd = vm->guest_pidfd;

    if (pidfd < 0)
        return;
    /* In a process that forked from the VMM the guest is not a child. */
    if (vm->object.fh->pid == getpid()) {
        if (!wait_exit(pidfd, REAP_MS))
            pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
        while (waitpid(vm->guest_pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    close(pidfd);
    vm->guest_pidfd = -1;
    vm->guest_pid = 0;
}

/* A guest process that ends without a word: all that is known is how it ended. */
static int ended_early(const struct fakehyp_vm *vm)
{
    int status = fh_guest_wait_status(vm);

    if (WIFSIGNALED(status))
        return fh_fail(-ECHILD, "guest_start: the guest process was ended by signal %d (%s) before it was attached",
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
    return fh_fail(-ECHILD, "guest_start: the guest process exited with status %d before it was attached",
                   WEXITSTATUS(status));
}

/*
 * Waits until the guest process has attached itself to the daemon, or has failed to.  That it is gone the pipe may not
 * tell: what another thread forked meanwhile has the other end, too.
 */
static int await_attach(const struct fakehyp_vm *vm, int status_fd)
{
    struct fakehyp *fh = vm->object.fh;
    struct guest_status status;
    int64_t deadline = fh_now_ms() + fh->timeout_ms;

    for (;;) {
        struct pollfd pfd[] = {{.fd = status_fd, .events = POLLIN}, {.fd = vm->guest_pidfd, .events = POLLIN}};
        int64_t left = deadline - fh_now_ms();
        int n = poll(pfd, 2, left > 0 ? (int)left : 0);
        if (n == 0)
            return fh_fail(-ETIMEDOUT, "guest_start: the guest process did not attach within %d ms", fh->timeout_ms);
        if (n > 0 && !pfd[0].revents)
            return ended_early(vm);
        if (n > 0)
            break;
        if (errno != EINTR)
            return fh_fail(-errno, "guest_start: poll: %s", strerror(errno));
    }
    ssize_t n;
    while ((n = read(status_fd, &status, sizeof(status))) < 0 && errno == EINTR)
        ;
    if (n != (ssize_t)sizeof(status))
        return ended_early(vm);
    if (status.error) {
        status.text[sizeof(status.text) - 1] = '\0';
        return fh_fail(status.error, "guest_start: %s", status.text);
    }
    return 0;
}

/* spare: a descriptor that makes room for the pidfd: once it has attached itself, the guest cannot be started again. */
static int launch(struct fakehyp_vm *vm, int sock, const int status[2], int spare, guest_main_fn entry, void *arg)
{
    /* What is buffered would be written twice. */
    fflush(stdout);
    fflush(stderr);
    pid_t pid = fork();
    int err = errno;
    if (pid != 0)
        close(spare);
    if (pid < 0)
        return fh_fail(-err, "guest_start: fork: %s", strerror(err));
    if (pid == 0) {
        close(status[0]);
        guest_process_run(sock, status[1], vm->ipa_bits, entry, arg);
    }
    int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        err = errno;
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return fh_fail(-err, "guest_start: pidfd_open: %s", strerror(err));
    }
    vm->guest_pid = pid;
    vm->guest_pidfd = pidfd;
    return 0;
}

int fakehyp_guest_start(struct fakehyp_vm *vm, int (*entry)(struct fakehyp_guest *guest, void *arg), void *arg)
{
    int sock = -1, status[2], rc = fh_usable(vm->object.fh);

    if (rc)
        return rc;
    /* Whether there may be another is for fakehypd to say. */
    if (vm->guest_pidfd >= 0 && wait_exit(vm->guest_pidfd, ENDING_MS))
        fh_guest_reap(vm);
    if (vm->guest_pidfd >= 0)
        return fh_fail(-EBUSY, "guest_start: the guest of this VM was started already (process %d)",
                       (int)vm->guest_pid);
    if (pipe2(status, O_CLOEXEC))
        return fh_fail(-errno, "guest_start: pipe: %s", strerror(errno));
    int spare = fcntl(status[0], F_DUPFD_CLOEXEC, 0);
    rc = spare < 0 ? fh_fail(-errno, "guest_start: %s: close some descriptors, or raise the limit (ulimit -n)",
                             strerror(errno))
                   : prepare(vm, &sock);
    if (rc == 0) {
        rc = launch(vm, sock, status, spare, entry, arg);
        close(sock);
    } else if (spare >= 0) {
        close(spare);
    }
    close(status[1]);
    if (rc == 0) {
        rc = await_attach(vm, status[0]);
        if (rc) {
            pidfd_send_signal(vm->guest_pidfd, SIGKILL, NULL, 0);
            fh_guest_reap(vm);
        }
    }
    close(status[0]);
    return rc;
}

pid_t fakehyp_guest_pid(const struct fakehyp_vm *vm)
{
    return vm->guest_pid;
}
