/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The filter in front of the daemon's system calls.
 *
 * A client can make the daemon do nothing that is not here, whatever it finds in the daemon: no program is started, no
 * memory becomes executable, no other process is read or written, no network is reached.
 *
 * A call that is not on the list is logged by its name in both modes, and without the kernel's audit log, which only
 * root can read.  kill: the kernel makes a SIGSYS of the call, whose handler writes the line and lets the signal end
 * the process.  log: the kernel asks a thread of ours, which stands outside the filter, writes the line and lets the
 * call pass.
 */
#include "src/fakehypd/sandbox.h"

#include "config.h"

#include <errno.h>
#include <string.h>

#include "src/fakehypd/log.h"

static const char *const names[] = {[SANDBOX_NONE] = "none", [SANDBOX_LOG] = "log", [SANDBOX_KILL] = "kill"};

int sandbox_of(const char *name)
{
    for (int i = SANDBOX_NONE; i <= SANDBOX_KILL; i++)
        if (!strcmp(name, names[i]))
            return i;
    return -1;
}

#ifndef HAVE_LIBSECCOMP

int sandbox_enter(enum sandbox mode)
{
    if (mode == SANDBOX_DEFAULT || mode == SANDBOX_NONE)
        return 0;
    log_error(
        "--seccomp=%s: this fakehypd was built without libseccomp (Debian: libseccomp-dev); --seccomp=none starts "
        "it",
        names[mode]);
    return -EOPNOTSUPP;
}

#else

#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_cachestat /* newer than Debian 12's headers; one number for all architectures */
#define SYS_cachestat 451
#endif

/* ---- the list ----------------------------------------------------------------------------------------------- */

/*
 * What the daemon's code and the C library under it call after start-up.  Both generations of a call are here, such as
 * epoll_wait and epoll_pwait: which one glibc and libuv take depends on their version and on the machine (arm64 has the
 * newer ones only; libseccomp passes over those that an architecture lacks).
 */
static const int calls[] = {
    /* memory: of the allocator, of the direct map and of the aliases (mmap and mprotect: see below) */
    SCMP_SYS(brk),
    SCMP_SYS(madvise),
    SCMP_SYS(mincore),
    SCMP_SYS(mremap),
    SCMP_SYS(munmap),
    /* files: guest memory, /proc of this process and of clients, log, trace */
    SYS_cachestat,
    SCMP_SYS(close),
    SCMP_SYS(close_range),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    SCMP_SYS(fallocate),
    SCMP_SYS(fcntl),
    SCMP_SYS(flock),
    SCMP_SYS(fstat),
    SCMP_SYS(ftruncate),
    SCMP_SYS(getdents64),
    SCMP_SYS(lseek),
    SCMP_SYS(lstat),
    SCMP_SYS(memfd_create),
    SCMP_SYS(newfstatat),
    SCMP_SYS(open),
    SCMP_SYS(openat),
    SCMP_SYS(pipe2),
    SCMP_SYS(pread64),
    SCMP_SYS(preadv2),
    SCMP_SYS(pwrite64),
    SCMP_SYS(read),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(readv),
    SCMP_SYS(splice),
    SCMP_SYS(stat),
    SCMP_SYS(statx),
    SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    /* clients, guests and the loop (socket: see below) */
    SCMP_SYS(accept4),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(eventfd2),
    SCMP_SYS(getsockname),
    SCMP_SYS(getsockopt),
    SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(setsockopt),
    SCMP_SYS(shutdown),
    SCMP_SYS(socketpair),
    SCMP_SYS(userfaultfd),
    /* this process, its signals, time and end */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(futex),
    SCMP_SYS(getegid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getpid),
    SCMP_SYS(getrandom),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(nanosleep),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sched_yield),
    SCMP_SYS(setitimer),
};

struct rule {
    int call;
    struct scmp_arg_cmp only; /* the call is allowed with that argument */
};

/* A call is allowed if any of its rules is met.  Not const: one of them has our process id. */
static int add_narrow_rules(scmp_filter_ctx filter)
{
    const scmp_datum_t self = (scmp_datum_t)getpid();
    const struct rule rules[] = {
        /* Nothing that was data becomes code. */
        {SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        {SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        /* The service manager is told of the end. */
        {SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0)},
        /* The handler that writes the line stays. */
        {SCMP_SYS(rt_sigaction), SCMP_A0(SCMP_CMP_NE, SIGSYS, 0)},
        /* abort() and raise(); guests are killed by their pidfd. */
        {SCMP_SYS(kill), SCMP_A0(SCMP_CMP_EQ, self, 0)},
        {SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, self, 0)},
        /* userfaultfd; PAGEMAP_SCAN and what else /proc answers; is a stream a terminal? */
        {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, 0xaa00)},
        {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, 'f' << 8)},
        {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, TCGETS, 0)},
        {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONBIO, 0)},
    };

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        int rc = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call, 1, &rules[i].only);
        if (rc)
            return rc;
    }
    return 0;
}

static int add_rules(scmp_filter_ctx filter)
{
    int rc = add_narrow_rules(filter);

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]) && rc == 0; i++)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
    return rc;
}

static void say(enum log_level level, int call, const char *what)
{
    char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call);

    log_line(level, "seccomp: the system call %s (%d) is not on the list of what fakehypd needs: %s",
             name ? name : "without a name", call, what);
    free(name);
}

/* ---- kill --------------------------------------------------------------------------------------------------- */

/* What is on the list includes all that malloc() and the like call, so none of them is interrupted here. */
static void on_sigsys(int signum, siginfo_t *info, void *context)
{
    (void)context;
    say(LOG_LEVEL_ERROR, info->si_syscall, "fakehypd ends here; --seccomp=log lets such calls pass, and names them");
    raise(signum); /* the handler is gone with its first use */
}

static int handle_sigsys(void)
{
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = (int)(SA_SIGINFO | SA_RESETHAND | SA_NODEFER)};

    sigemptyset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL) ? -errno : 0;
}

/* ---- log ---------------------------------------------------------------------------------------------------- */

struct clerk {
    pthread_mutex_t lock;
    pthread_cond_t started;
    int fd; /* of the kernel's questions; -1: not yet */
};
static struct clerk clerk = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, -1};

/* Answers until the process ends. */
static void *answer(void *arg)
{
    struct seccomp_notif *question;
    struct seccomp_notif_resp *reply;

    (void)arg;
    pthread_mutex_lock(&clerk.lock);
    while (clerk.fd < 0)
        pthread_cond_wait(&clerk.started, &clerk.lock);
    pthread_mutex_unlock(&clerk.lock);
    if (seccomp_notify_alloc(&question, &reply))
        abort(); /* the daemon would wait for an answer for ever */
    for (;;) {
        memset(question, 0, sizeof(*question));
        if (seccomp_notify_receive(clerk.fd, question))
            continue; /* the caller was killed meanwhile */
        say(LOG_LEVEL_WARNING, question->data.nr, "let pass (--seccomp=log)");
        memset(reply, 0, sizeof(*reply));
        reply->id = question->id;
        reply->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        seccomp_notify_respond(clerk.fd, reply);
    }
    return NULL;
}

/* Before the filter, which it is not to stand under. */
static int hire_clerk(void)
{
    sigset_t all, before;
    pthread_t thread;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = -pthread_create(&thread, NULL, answer, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_detach(thread);
    return rc;
}

static void put_clerk_to_work(int fd)
{
    pthread_mutex_lock(&clerk.lock);
    clerk.fd = fd;
    pthread_cond_signal(&clerk.started);
    pthread_mutex_unlock(&clerk.lock);
}

/* ---- entering ----------------------------------------------------------------------------------------------- */

static int load(enum sandbox mode)
{
    scmp_filter_ctx filter = seccomp_init(mode == SANDBOX_LOG ? SCMP_ACT_NOTIFY : SCMP_ACT_TRAP);

    if (!filter)
        return -EINVAL;
    int rc = add_rules(filter);
    if (rc == 0)
        rc = mode == SANDBOX_LOG ? hire_clerk() : handle_sigsys();
    /* A binary search: no call pays for the length of the list. */
    if (rc == 0)
        rc = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (rc == 0)
        rc = seccomp_load(filter);
    if (rc == 0 && mode == SANDBOX_LOG)
        put_clerk_to_work(seccomp_notify_fd(filter));
    seccomp_release(filter);
    return rc;
}

/* The runtime of a sanitizer or of coverage has system calls of its own. */
static enum sandbox default_mode(void)
{
#ifdef FAKEHYP_INSTRUMENTED
    return SANDBOX_NONE;
#else
    return SANDBOX_KILL;
#endif
}

int sandbox_enter(enum sandbox mode)
{
    enum sandbox chosen = mode == SANDBOX_DEFAULT ? default_mode() : mode;

    if (chosen == SANDBOX_NONE)
        return 0;
    int rc = load(chosen);
    if (rc == 0)
        return 0;
    if (mode == SANDBOX_DEFAULT) {
        log_info("no filter of system calls: seccomp: %s", strerrordesc_np(-rc));
        return 0;
    }
    log_error("--seccomp=%s: the kernel refuses the filter: %s; --seccomp=none starts fakehypd without it",
              names[chosen], strerrordesc_np(-rc));
    return rc;
}

#endif
