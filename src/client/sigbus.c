/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The report of a stray access.
 *
 * Where SIGBUS has its default action, a handler hands what it knows to the
 * agent thread, which asks the daemon whose page it was and prints the answer;
 * then the default action is restored and the instruction faults again, so that
 * the core dump shows it.  The handler itself only stores, writes to a pipe and
 * waits on a futex.
 */
#include "src/client/client.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define MAX_FRAMES 16
#define NR_REPORTS 16
#define HANDLER_WAIT_NS 1000000000
#define DAEMON_WAIT_MS 800

/* Life of a report: filled by the handler, taken by the agent, freed by the last of both to need it. */
enum { REPORT_FREE, REPORT_FILLING, REPORT_READY, REPORT_TAKEN, REPORT_DONE, REPORT_ABANDONED };

struct report {
    _Atomic uint32_t state;
    uintptr_t addr, pc;
    pid_t tid;
    int nr_frames;
    void *frame[MAX_FRAMES];
};

static struct report reports[NR_REPORTS];
static atomic_int handlers_inside;
static pid_t installed_in;

/* ---- in the handler: async-signal-safe only ------------------------------------------------------------------------
 */

static uintptr_t program_counter(const ucontext_t *context)
{
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.pc;
#else
    (void)context;
    return 0;
#endif
}

static int report_fd_of(uintptr_t addr)
{
    for (struct fh_view *view = atomic_load(&fh_views); view; view = view->next) {
        uintptr_t start = atomic_load(&view->addr);
        size_t length = atomic_load(&view->length);
        if (length && addr >= start && addr - start < length)
            return atomic_load(&view->report_fd);
    }
    return -1;
}

static struct report *claim_report(void)
{
    for (unsigned i = 0; i < NR_REPORTS; i++) {
        uint32_t expected = REPORT_FREE;
        if (atomic_compare_exchange_strong(&reports[i].state, &expected, REPORT_FILLING))
            return &reports[i];
    }
    return NULL;
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void wait_for_agent(struct report *report)
{
    int64_t deadline = now_ns() + HANDLER_WAIT_NS, left;
    uint32_t state;

    while ((state = atomic_load(&report->state)) != REPORT_DONE && (left = deadline - now_ns()) > 0) {
        struct timespec timeout = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        syscall(SYS_futex, &report->state, FUTEX_WAIT_PRIVATE, state, &timeout, NULL, 0);
    }
    /* Not begun in time, or done: it is free.  Being worked on: the agent frees it. */
    state = REPORT_READY;
    if (atomic_compare_exchange_strong(&report->state, &state, REPORT_FREE))
        return;
    state = REPORT_TAKEN;
    if (!atomic_compare_exchange_strong(&report->state, &state, REPORT_ABANDONED))
        atomic_store(&report->state, REPORT_FREE);
}

static void tell(int fd, const siginfo_t *info, const ucontext_t *context)
{
    struct report *report = claim_report();

    if (!report)
        return;
    uint8_t number = (uint8_t)(report - reports);
    report->addr = (uintptr_t)info->si_addr;
    report->pc = program_counter(context);
    report->tid = (pid_t)syscall(SYS_gettid);
    report->nr_frames = backtrace(report->frame, MAX_FRAMES);
    atomic_store(&report->state, REPORT_READY);
    if (write(fd, &number, 1) == 1)
        wait_for_agent(report);
    else
        atomic_store(&report->state, REPORT_FREE);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    int saved = errno;

    atomic_fetch_add(&handlers_inside, 1);
    if (info->si_code > 0 && getpid() == installed_in) {
        int fd = report_fd_of((uintptr_t)info->si_addr);
        if (fd >= 0)
            tell(fd, info, context);
    }
    atomic_fetch_sub(&handlers_inside, 1);
    sigaction(sig, &dfl, NULL);
    /* A signal that was sent does not come again by itself. */
    if (info->si_code <= 0)
        raise(sig);
    errno = saved;
}

/* ---- elsewhere -------------------------------------------------------------------------------------------------- */

static void install(void)
{
    struct sigaction now, ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    const char *wanted = getenv("FAKEHYP_SIGBUS");
    void *frame[2];

    if (wanted && strcmp(wanted, "0") == 0)
        return;
    if (sigaction(SIGBUS, NULL, &now))
        return;
    /* Ours may be there already, inherited over a fork(). */
    bool inherited = (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus;
    if (!inherited && ((now.sa_flags & SA_SIGINFO) || now.sa_handler != SIG_DFL))
        return;
    /* The first backtrace() loads a library, which a signal handler must not. */
    backtrace(frame, 2);
    installed_in = getpid();
    sigemptyset(&ours.sa_mask);
    sigaction(SIGBUS, &ours, NULL);
}

void fh_sigbus_install(void)
{
    static pid_t asked_in;

    pthread_mutex_lock(&fh_lock);
    /* Once a process, so that a program's own choice afterwards stays. */
    if (asked_in != getpid()) {
        asked_in = getpid();
        install();
    }
    pthread_mutex_unlock(&fh_lock);
}

void fh_sigbus_quiesce(void)
{
    int64_t deadline = fh_now_ms() + 2000;
    struct timespec pause = {.tv_nsec = 1000000};

    while (atomic_load(&handlers_inside) && fh_now_ms() < deadline)
        nanosleep(&pause, NULL);
}

static void thread_name(pid_t tid, char *name, size_t size)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/task/%d/comm", (int)tid);
    snprintf(name, size, "?");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, name, size - 1);
    close(fd);
    if (n > 0) {
        name[n] = '\0';
        name[strcspn(name, "\n")] = '\0';
    }
}

static int ask_daemon(struct fakehyp *fh, const struct report *report, char *name, uint64_t gmem, uint64_t offset,
                      struct fh_answer *answer)
{
    struct fh_call_options options = {
        .what = "access report", .expect = FAKEHYP__REPLY__BODY_ACK, .fd = -1, .timeout_ms = DAEMON_WAIT_MS};
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__AccessReport body = FAKEHYP__ACCESS_REPORT__INIT;
    uint64_t frames[MAX_FRAMES];

    for (int i = 0; i < report->nr_frames; i++)
        frames[i] = (uintptr_t)report->frame[i];
    body.addr = report->addr;
    body.pc = report->pc;
    body.tid = (uint32_t)report->tid;
    body.thread = name;
    body.n_frame = (size_t)report->nr_frames;
    body.frame = frames;
    body.gmem = gmem;
    body.offset = offset;
    body.in_view = true;
    request.body_case = FAKEHYP__REQUEST__BODY_ACCESS_REPORT;
    request.access_report = &body;
    return fh_call(fh, &options, &request, answer);
}

static void print_lines(const char *text)
{
    while (*text) {
        size_t length = strcspn(text, "\n");
        dprintf(STDERR_FILENO, "fakehyp: %.*s\n", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

static void explain(struct fakehyp *fh, const struct report *report)
{
    char name[32];
    uint64_t gmem, offset;
    struct fh_answer answer;

    if (!fh_view_find(fh, report->addr, &gmem, &offset))
        return;
    thread_name(report->tid, name, sizeof(name));
    int rc = ask_daemon(fh, report, name, gmem, offset, &answer);
    if (rc == 0 && answer.reply->message[0]) {
        print_lines(answer.reply->message);
    } else {
        dprintf(STDERR_FILENO,
                "fakehyp: SIGBUS: thread %d \"%s\" at PC %#lx touched %#lx: guest_memfd %llu, offset %#llx\n",
                (int)report->tid, name, (unsigned long)report->pc, (unsigned long)report->addr,
                (unsigned long long)gmem, (unsigned long long)offset);
        if (rc)
            print_lines(fakehyp_last_error());
    }
    fh_answer_free(&answer);
    if (report->nr_frames > 0)
        backtrace_symbols_fd(report->frame, report->nr_frames, STDERR_FILENO);
}

void fh_sigbus_serve(struct fakehyp *fh, unsigned number)
{
    uint32_t state = REPORT_READY;

    if (number >= NR_REPORTS)
        return;
    struct report *report = &reports[number];
    if (!atomic_compare_exchange_strong(&report->state, &state, REPORT_TAKEN))
        return;
    explain(fh, report);
    state = REPORT_TAKEN;
    if (atomic_compare_exchange_strong(&report->state, &state, REPORT_DONE))
        syscall(SYS_futex, &report->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    else
        atomic_store(&report->state, REPORT_FREE);
}
