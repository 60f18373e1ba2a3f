/* SPDX-License-Identifier: BSD-2-Clause */
/* The report of a stray access: each test lets a child process die of one and reads what it printed. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <fakehyp/fakehyp.h>

#include "tests/unit/client_daemon.h"

#define PAGE ((size_t)FAKEHYP_PAGE_SIZE)

struct setting {
    char *p;
    struct fake_daemon daemon;
};

struct outcome {
    int status;
    char text[8192];
};

static void mute(void)
{
    struct rlimit none = {0, 0};
    struct sigaction dfl = {.sa_handler = SIG_DFL};

    setrlimit(RLIMIT_CORE, &none);
    /* cmocka catches these in the parent. */
    sigaction(SIGBUS, &dfl, NULL);
    sigaction(SIGSEGV, &dfl, NULL);
}

static void run_child(void (*fn)(struct setting *), struct outcome *outcome)
{
    int pipe_fds[2];
    size_t used = 0;
    ssize_t n;

    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        static struct setting setting;
        struct fakehyp *fh;
        struct fakehyp_vm *vm;
        struct fakehyp_gmem *gmem;
        void *p;
        dup2(pipe_fds[1], STDERR_FILENO);
        mute();
        daemon_start(&setting.daemon);
        if (fakehyp_connect(setting.daemon.name, &fh) || fakehyp_vm_create(fh, NULL, &vm) ||
            fakehyp_gmem_create(vm, 8 * PAGE, FAKEHYP_GMEM_MMAP, &gmem) ||
            fakehyp_map(gmem, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, 0, &p))
            _exit(100);
        setting.p = p;
        fn(&setting);
        _exit(0);
    }
    close(pipe_fds[1]);
    while (used < sizeof(outcome->text) - 1 &&
           (n = read(pipe_fds[0], outcome->text + used, sizeof(outcome->text) - 1 - used)) > 0)
        used += (size_t)n;
    outcome->text[used] = '\0';
    close(pipe_fds[0]);
    assert_int_equal(waitpid(pid, &outcome->status, 0), pid);
}

static void stray_load(struct setting *s)
{
    pthread_setname_np(pthread_self(), "stray-thread");
    *(volatile char *)(s->p + 3 * PAGE + 0x10);
}

static void test_report(void **state)
{
    struct outcome outcome;

    run_child(stray_load, &outcome);
    assert_true(WIFSIGNALED(outcome.status));
    assert_int_equal(WTERMSIG(outcome.status), SIGBUS);
    assert_non_null(strstr(outcome.text, "fakehyp: stray-thread touched offset 0x3010 of file 101\n"
                                         "fakehyp: with some frames, in a view\n"));
    assert_non_null(strstr(outcome.text, "client_sigbus")); /* the frames */
}

static void switched_off(struct setting *s)
{
    stray_load(s);
}

static void test_switched_off(void **state)
{
    struct outcome outcome;

    setenv("FAKEHYP_SIGBUS", "0", 1);
    run_child(switched_off, &outcome);
    unsetenv("FAKEHYP_SIGBUS");
    assert_true(WIFSIGNALED(outcome.status));
    assert_int_equal(WTERMSIG(outcome.status), SIGBUS);
    assert_string_equal(outcome.text, "");
}

static void other_sigbus(struct setting *s)
{
    int fd = memfd_create("empty", MFD_CLOEXEC);
    volatile char *q = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

    *q;
}

static void test_other_memory_is_not_reported(void **state)
{
    struct outcome outcome;

    run_child(other_sigbus, &outcome);
    assert_true(WIFSIGNALED(outcome.status));
    assert_int_equal(WTERMSIG(outcome.status), SIGBUS);
    assert_string_equal(outcome.text, "");
}

static void sent_sigbus(struct setting *s)
{
    raise(SIGBUS);
}

static void test_sent_signal_kills(void **state)
{
    struct outcome outcome;

    run_child(sent_sigbus, &outcome);
    assert_true(WIFSIGNALED(outcome.status));
    assert_int_equal(WTERMSIG(outcome.status), SIGBUS);
}

static bool silent(struct daemon_client *client, const Fakehyp__Request *request)
{
    return true;
}

static void stray_without_answer(struct setting *s)
{
    daemon_set_hook(&s->daemon, silent, NULL);
    stray_load(s);
}

static void test_mute_daemon_does_not_hold_up(void **state)
{
    struct outcome outcome;
    time_t start = time(NULL);

    run_child(stray_without_answer, &outcome);
    assert_true(time(NULL) - start < 10);
    assert_true(WIFSIGNALED(outcome.status));
    assert_int_equal(WTERMSIG(outcome.status), SIGBUS);
    assert_non_null(strstr(outcome.text, "fakehyp: SIGBUS: thread "));
    assert_non_null(strstr(outcome.text, "guest_memfd 101, offset 0x3010"));
}

static void stray_in_grandchild(struct setting *s)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        stray_load(s);
    waitpid(pid, &status, 0);
    /* No report, and the clean SIGSEGV of a mapping that a child does not have. */
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
        _exit(1);
}

static void test_child_of_fork(void **state)
{
    struct outcome outcome;

    run_child(stray_in_grandchild, &outcome);
    assert_int_equal(outcome.status, 0);
    assert_string_equal(outcome.text, "");
}

static void own_handler(int sig)
{
    _exit(42);
}

static void touch_keeps_reporting(struct setting *s)
{
    /* A touch in between must leave the reporting handler in place. */
    if (fakehyp_touch_read(s->p, NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS)
        _exit(1);
    stray_load(s);
}

static void test_touch_keeps_reporting(void **state)
{
    struct outcome outcome;

    run_child(touch_keeps_reporting, &outcome);
    assert_true(WIFSIGNALED(outcome.status));
    assert_non_null(strstr(outcome.text, "fakehyp: "));
}

static void set_own_handler(struct setting *s)
{
    signal(SIGBUS, own_handler);
    stray_load(s);
}

static void test_own_handler_wins(void **state)
{
    struct outcome outcome;

    run_child(set_own_handler, &outcome);
    assert_true(WIFEXITED(outcome.status));
    assert_int_equal(WEXITSTATUS(outcome.status), 42);
    assert_string_equal(outcome.text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_switched_off),
        cmocka_unit_test(test_other_memory_is_not_reported),
        cmocka_unit_test(test_sent_signal_kills),
        cmocka_unit_test(test_mute_daemon_does_not_hold_up),
        cmocka_unit_test(test_child_of_fork),
        cmocka_unit_test(test_touch_keeps_reporting),
        cmocka_unit_test(test_own_handler_wins),
    };

    return cmocka_run_group_tests_name("client SIGBUS report", tests, NULL, NULL);
}
