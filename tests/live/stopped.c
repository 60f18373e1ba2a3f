/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes that are stopped, by a signal or by a debugger, while others convert the memory that they have mapped: they
 * keep what they have, and find it as it is when they go on.
 */
#include "tests/common/live_bystander.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Ranges that become shared by being opened, which each view's agent is asked for. */
#define RANGE (UINT64_C(2) << 20)
#define RANGES 4u
#define BYTES (RANGES * RANGE)
/* FAKEHYP_STOPPED_COUNT: another number.  1,300 requests are what a socket and the daemon's queue have room for. */
#define CONVERSIONS 160u
/* In each of them the daemon waits for an agent until it takes it for stopped. */
#define PAIRS 3u

/* Imports the file that it is sent and maps it; then it tells of each page that it is asked for: 'o' or 'r'. */
static _Noreturn void viewer(int sock)
{
    struct fakehyp_gmem *gmem;
    struct fakehyp *fh;
    uint64_t page;
    void *view;

    int fd = rig_receive_fd(sock);
    if (fd < 0 || fakehyp_connect(rig.socket, &fh) || fakehyp_gmem_import(fh, fd, &gmem) ||
        fakehyp_map(gmem, NULL, BYTES, PROT_READ, 0, &view) || write(sock, "m", 1) != 1)
        _exit(1);
    while (read(sock, &page, sizeof(page)) == sizeof(page)) {
        bool ok = fakehyp_touch_read((uint8_t *)view + page * PAGE, NULL, NULL, NULL) == FAKEHYP_TOUCH_OK;
        if (write(sock, ok ? "o" : "r", 1) != 1)
            _exit(2);
    }
    fakehyp_gmem_close(gmem);
    fakehyp_disconnect(fh);
    _exit(0);
}

static pid_t start_viewer(struct file *f, int *sock)
{
    char byte;
    pid_t pid = rig_fork_with_socket(sock);

    if (pid == 0)
        viewer(*sock);
    assert_true(pid > 0);
    assert_true(rig_send_fd(*sock, fakehyp_gmem_fd(f->gmem)));
    assert_int_equal(read(*sock, &byte, 1), 1);
    return pid;
}

static char look(int sock, uint64_t page)
{
    char answer = '?';

    assert_int_equal(write(sock, &page, sizeof(page)), sizeof(page));
    assert_int_equal(read(sock, &answer, 1), 1);
    return answer;
}

/* One that goes on is told what it has missed, and does it, behind our back. */
static char look_until(int sock, uint64_t page, char wanted)
{
    char answer = look(sock, page);

    for (unsigned i = 0; i < 2000 && answer != wanted; i++) {
        rig_sleep_ms(5);
        answer = look(sock, page);
    }
    return answer;
}

/* The state of each range after n conversions, of which the i-th is of range i % RANGES. */
static bool is_private(unsigned range, unsigned n)
{
    unsigned times = n / RANGES + (range < n % RANGES);
    return times % 2;
}

static void convert_many(struct file *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        must(fakehyp_convert(f->gmem, i % RANGES * RANGE, RANGE, i / RANGES % 2 ? FAKEHYP_SHARED : FAKEHYP_PRIVATE,
                             NULL));
}

struct viewing {
    struct file *f;
    pid_t pid;
    int sock;
    bool debugger, stopped;
};

static void stop_by_signal(pid_t pid)
{
    rig_stop_child(pid);
}

static void stop_by_debugger(pid_t pid)
{
    int status;

    /* Only the agent's thread: the process looks alive. */
    pid_t tid = rig_thread_named(pid, "fakehyp-agent");
    assert_true(tid > 0);
    assert_int_equal(ptrace(PTRACE_SEIZE, tid, NULL, NULL), 0);
    assert_int_equal(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL), 0);
    assert_int_equal(waitpid(tid, &status, __WALL), tid);
    assert_true(WIFSTOPPED(status));
}

static void go_on(pid_t pid, bool debugger)
{
    if (debugger)
        assert_int_equal(ptrace(PTRACE_DETACH, rig_thread_named(pid, "fakehyp-agent"), NULL, NULL), 0);
    else
        assert_int_equal(kill(pid, SIGCONT), 0);
}

/* Stopped, and with a request that it does not answer; or as any other, with nothing left to answer. */
static void set_viewing(void *arg, bool disturbs)
{
    struct viewing *v = arg;

    if (disturbs == v->stopped)
        return;
    if (disturbs)
        (v->debugger ? stop_by_debugger : stop_by_signal)(v->pid);
    else
        go_on(v->pid, v->debugger);
    v->stopped = disturbs;
    must(fakehyp_convert(v->f->gmem, 0, RANGE, disturbs ? FAKEHYP_PRIVATE : FAKEHYP_SHARED, NULL));
    if (!disturbs)
        assert_int_equal(look_until(v->sock, 0, 'o'), 'o');
}

/* More requests than any queue has room for; then all of them have their effect, and only their last one. */
static void missed(void **state, bool debugger)
{
    struct viewing v = {.debugger = debugger};
    struct bystander by;
    char told[96];
    struct file f;
    int sock;

    file_open(&f, state, BYTES);
    bystander_begin(&by);
    const char *what = debugger ? "a client in a debugger" : "a stopped client";
    pid_t pid = start_viewer(&f, &sock);
    v.f = &f;
    v.pid = pid;
    v.sock = sock;
    bystander_pairs(&by, PAIRS, set_viewing, &v);
    (debugger ? stop_by_debugger : stop_by_signal)(pid);
    /* Of the first two ranges each ends as private, the others as shared. */
    unsigned n = (unsigned)rig_env("FAKEHYP_STOPPED_COUNT", CONVERSIONS) / (2 * RANGES) * (2 * RANGES) + RANGES / 2;
    convert_many(&f, n);
    bystander_end(&by, what, "(stopped?)");
    assert_false(rig_logged("lives without its agent"));
    go_on(pid, debugger);
    snprintf(told, sizeof(told), "agent of process %d answers again and was told what it has missed", (int)pid);
    assert_true(rig_logs_within(told, 10000));
    for (unsigned i = 0; i < RANGES; i++)
        for (unsigned page = 0; page < 3; page++)
            assert_int_equal(look_until(sock, (i * RANGE) / PAGE + page * 200, is_private(i, n) ? 'r' : 'o'),
                             is_private(i, n) ? 'r' : 'o');
    /* What the kernel says of its registrations is what the daemon believes. */
    rig_audit(f.fh);
    /* From now on it is told as any other. */
    must(fakehyp_convert(f.gmem, 0, BYTES, FAKEHYP_PRIVATE, NULL));
    assert_int_equal(look(sock, 5), 'r');
    must(fakehyp_convert(f.gmem, 0, BYTES, FAKEHYP_SHARED, NULL));
    assert_int_equal(look(sock, 5), 'o');
    assert_int_equal(look(sock, 3 * RANGE / PAGE), 'o');
    close(sock);
    rig_child_ok(pid);
    bystander_check_daemon(&by, what);
    file_close(&f);
}

static void stopped_by_a_signal(void **state)
{
    missed(state, false);
}

/* A container's seccomp profile or Yama may say no. */
static bool can_trace(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        rig_child();
        pause();
        _exit(0);
    }
    bool can = !ptrace(PTRACE_SEIZE, pid, NULL, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return can;
}

static void stopped_by_a_debugger(void **state)
{
    if (!can_trace())
        rig_not_here("not tried: stopped_by_a_debugger: ptrace(2) is refused here");
    missed(state, true);
}

static const struct CMUnitTest tests[] = {
    live_test(stopped_by_a_signal),
    live_test(stopped_by_a_debugger),
};

RIG_MAIN(tests)
