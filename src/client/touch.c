/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Accesses that may fail: one byte with the signal caught, many bytes without
 * a signal.
 *
 * The handler is put in for the duration of a touch only (counted, since
 * several threads may touch at once).  A SIGBUS or SIGSEGV of another thread
 * meanwhile goes where it would have gone.
 */
#include "src/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct guard {
    sigjmp_buf out;
    void *addr;
    int code;
};

/* initial-exec: the handler must not be the first to allocate thread-local storage. */
static _Thread_local struct guard *volatile guard __attribute__((tls_model("initial-exec")));

static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users;
static struct sigaction saved_bus, saved_segv;

static void pass_on(int sig, siginfo_t *info, void *context)
{
    const struct sigaction *saved = sig == SIGBUS ? &saved_bus : &saved_segv;
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    bool sent = info->si_code <= 0;

    if (saved->sa_flags & SA_SIGINFO) {
        saved->sa_sigaction(sig, info, context);
    } else if (saved->sa_handler == SIG_DFL || (saved->sa_handler == SIG_IGN && !sent)) {
        /* The instruction faults again; a sent signal has to be sent again. */
        sigaction(sig, &dfl, NULL);
        if (sent)
            raise(sig);
    } else if (saved->sa_handler != SIG_IGN) {
        saved->sa_handler(sig);
    }
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    struct guard *mine = guard;

    if (!mine || info->si_code <= 0) {
        pass_on(sig, info, context);
        return;
    }
    mine->addr = info->si_addr;
    mine->code = info->si_code;
    siglongjmp(mine->out, sig);
}

static void begin(sigset_t *mask)
{
    struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigset_t faults;

    sigemptyset(&ours.sa_mask);
    pthread_mutex_lock(&users_lock);
    if (users++ == 0) {
        sigaction(SIGBUS, &ours, &saved_bus);
        sigaction(SIGSEGV, &ours, &saved_segv);
    }
    pthread_mutex_unlock(&users_lock);
    /* A fault whose signal is blocked kills the process. */
    sigemptyset(&faults);
    sigaddset(&faults, SIGBUS);
    sigaddset(&faults, SIGSEGV);
    pthread_sigmask(SIG_UNBLOCK, &faults, mask);
}

/* Puts the saved handler back unless somebody has set another meanwhile. */
static void restore(int sig, const struct sigaction *saved)
{
    struct sigaction now;

    sigaction(sig, NULL, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)
        sigaction(sig, saved, NULL);
}

static void end(const sigset_t *mask)
{
    pthread_sigmask(SIG_SETMASK, mask, NULL);
    pthread_mutex_lock(&users_lock);
    if (--users == 0) {
        restore(SIGBUS, &saved_bus);
        restore(SIGSEGV, &saved_segv);
    }
    pthread_mutex_unlock(&users_lock);
}

/* Out of the sanitizers' sight: the address may be any, and racing with the guest is what guest memory is for. */
__attribute__((noinline, no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined"))) static void
access_byte(volatile uint8_t *p, uint8_t *value, bool store)
{
    if (store)
        *p = *value;
    else
        *value = *p;
}

static enum fakehyp_touch touch(volatile uint8_t *p, uint8_t *value, bool store, void **fault_addr, int *fault_code)
{
    struct guard mine = {.addr = NULL};
    sigset_t mask;
    int sig;

    begin(&mask);
    sig = sigsetjmp(mine.out, 1);
    if (sig == 0) {
        guard = &mine;
        access_byte(p, value, store);
    }
    guard = NULL;
    end(&mask);
    if (fault_addr)
        *fault_addr = mine.addr;
    if (fault_code)
        *fault_code = mine.code;
    return sig == 0 ? FAKEHYP_TOUCH_OK : sig == SIGBUS ? FAKEHYP_TOUCH_SIGBUS : FAKEHYP_TOUCH_SIGSEGV;
}

enum fakehyp_touch fakehyp_touch_read(const volatile void *p, uint8_t *value, void **fault_addr, int *fault_code)
{
    uint8_t unused;

    return touch((volatile uint8_t *)p, value ? value : &unused, false, fault_addr, fault_code);
}

enum fakehyp_touch fakehyp_touch_write(volatile void *p, uint8_t value, void **fault_addr, int *fault_code)
{
    return touch(p, &value, true, fault_addr, fault_code);
}

void fh_touch_fork_prepare(void)
{
    pthread_mutex_lock(&users_lock);
}

void fh_touch_fork_done(void)
{
    pthread_mutex_unlock(&users_lock);
}

void fh_touch_fork_child(void)
{
    /* Threads that were touching are not in this process; the one that forked was not. */
    if (users) {
        users = 0;
        restore(SIGBUS, &saved_bus);
        restore(SIGSEGV, &saved_segv);
    }
    pthread_mutex_unlock(&users_lock);
}

/* ---- copies --------------------------------------------------------------------------------------------------------
 */

/* Where process_vm_readv() is forbidden: a pipe takes from and gives to any address without a signal. */
static ssize_t copy_through_pipe(char *to, const char *from, size_t length)
{
    size_t done = 0;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        return fh_fail(-errno, "copy: pipe: %s", strerror(errno));
    while (done < length) {
        /* Up to a page boundary on both sides, so that a short count ends exactly there. */
        size_t left = length - done;
        size_t to_room = FAKEHYP_PAGE_SIZE - (uintptr_t)(to + done) % FAKEHYP_PAGE_SIZE;
        size_t from_room = FAKEHYP_PAGE_SIZE - (uintptr_t)(from + done) % FAKEHYP_PAGE_SIZE;
        size_t n = left < to_room ? left : to_room;
        n = n < from_room ? n : from_room;
        if (write(fds[1], from + done, n) != (ssize_t)n || read(fds[0], to + done, n) != (ssize_t)n)
            break;
        done += n;
    }
    close(fds[0]);
    close(fds[1]);
    return done ? (ssize_t)done : -EFAULT;
}

static ssize_t copy(char *to, const char *from, size_t length, bool to_view)
{
    size_t done = 0;

    if (length > SSIZE_MAX)
        return fh_fail(-EINVAL, "copy: length %zu", length);
    while (done < length) {
        struct iovec dst = {.iov_base = to + done, .iov_len = length - done};
        struct iovec src = {.iov_base = (char *)from + done, .iov_len = length - done};
        ssize_t n = to_view ? process_vm_writev(getpid(), &src, 1, &dst, 1, 0)
                            : process_vm_readv(getpid(), &dst, 1, &src, 1, 0);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (done == 0 && n < 0 && errno != EFAULT) {
            ssize_t rc = copy_through_pipe(to, from, length);
            return rc >= 0 ? rc : fh_fail((int)rc, "copy: the first page is private or not mapped");
        }
        break;
    }
    if (done == 0 && length)
        return fh_fail(-EFAULT, "copy: the first page is private or not mapped");
    return (ssize_t)done;
}

ssize_t fakehyp_copy_from(void *to, const void *view, size_t length)
{
    return copy(to, view, length, false);
}

ssize_t fakehyp_copy_to(void *view, const void *from, size_t length)
{
    return copy(view, from, length, true);
}
