/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypd --seccomp: a call that the daemon does not need, made inside of the running daemon. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"
#include "tests/unit/daemon_rig.h"

#define TEST_SIGNAL SIGUSR2

/* ---- what somebody could have the daemon do ----------------------------------------------------------------- */

static pid_t parent;     /* of the daemon: this process */
static char folder[128]; /* made by a call that is not on the list */

static void make_folder(void)
{
    syscall(SYS_mkdirat, AT_FDCWD, folder, 0700);
}

#ifdef HAVE_LIBSECCOMP

static void start_program(void)
{
    char *argv[] = {(char *)"true", NULL};

    execve("/bin/true", argv, NULL);
}

static void start_process(void)
{
    if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0)
        _exit(0);
}

static void trace_parent(void)
{
    ptrace(PTRACE_ATTACH, parent, NULL, NULL);
}

static void read_parent(void)
{
    char here[8];
    struct iovec to = {here, sizeof(here)}, from = {folder, sizeof(here)};

    process_vm_readv(parent, &to, 1, &from, 1, 0);
}

static void kill_parent(void)
{
    kill(parent, 0);
}

static void reach_network(void)
{
    close(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
}

static void map_code(void)
{
    mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void make_code(void)
{
    static char page[8192];
    uintptr_t start = ((uintptr_t)page + 4095) & ~(uintptr_t)4095;

    mprotect((void *)start, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
}

/* Whoever could would take the handler away, and try again. */
static void ignore_sigsys(void)
{
    signal(SIGSYS, SIG_IGN);
}

static void type_at_terminal(void)
{
    syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x");
}

#endif

static void (*volatile misdeed)(void);

static void on_test_signal(int signum)
{
    (void)signum;
    misdeed();
}

/* ---- a daemon that does it ---------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    static struct rig rig;

    rig_make_dir(&rig);
    snprintf(folder, sizeof(folder), "%s/folder", rig.dir);
    parent = getpid();
    misdeed = make_folder;
    signal(TEST_SIGNAL, on_test_signal); /* which the daemon inherits */
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    const struct rig *rig = *state;
    char lock[128];

    /* A killed daemon leaves them. */
    snprintf(lock, sizeof(lock), "%s.lock", rig->socket);
    unlink(lock);
    rmdir(folder);
    rig_remove_dir(*state);
    return 0;
}

static bool has_folder(void)
{
    struct stat st;

    return stat(folder, &st) == 0;
}

/* The daemon has done it and is as it was. */
static void assert_done_and_well(struct rig *rig)
{
    kill(rig->pid, TEST_SIGNAL);
    for (int i = 0; i < 500 && !has_folder(); i++)
        usleep(10000);
    assert_true(has_folder());
    close(raw_client(rig, NULL));
    assert_int_equal(rig_stop(rig), 0);
}

static void test_none(void **state)
{
    struct rig *rig = *state;

    rig_start(rig, "--seccomp=none");
    assert_done_and_well(rig);
    assert_false(rig_logged(rig, "seccomp"));
}

#ifdef HAVE_LIBSECCOMP

static void test_log(void **state)
{
    struct rig *rig = *state;

    rig_start(rig, "--seccomp=log");
    assert_done_and_well(rig);
    assert_true(rig_logged(rig, "warning: seccomp: the system call mkdirat ("));
    assert_true(rig_logged(rig, "let pass"));
}

static void assert_killed(struct rig *rig, const char *extra, const char *call)
{
    char words[96];

    rig_start(rig, extra);
    close(raw_client(rig, NULL));
    kill(rig->pid, TEST_SIGNAL);
    assert_int_equal(rig_wait(rig->pid), 128 + SIGSYS);
    snprintf(words, sizeof(words), "error: seccomp: the system call %s (", call);
#ifndef __SANITIZE_THREAD__ /* which puts the handler of SIGSYS off until the process is gone */
    assert_true(rig_logged(rig, words));
    assert_true(rig_logged(rig, "--seccomp=log lets such calls pass"));
#endif
}

static void test_kill(void **state)
{
    assert_killed(*state, "--seccomp=kill", "mkdirat");
    assert_false(has_folder());
}

/* The runtime of a sanitizer or of coverage makes calls of its own. */
static void test_default(void **state)
{
#ifdef FAKEHYP_INSTRUMENTED
    rig_start(*state, NULL);
    assert_done_and_well(*state);
#else
    assert_killed(*state, NULL, "mkdirat");
    assert_false(has_folder());
#endif
}

static void test_misdeeds(void **state)
{
    static const struct {
        void (*misdeed)(void);
        const char *call;
    } cases[] = {
        {start_program, "execve"},
        {start_process, "clone"},
        {trace_parent, "ptrace"},
        {read_parent, "process_vm_readv"},
        {kill_parent, "kill"},
        {reach_network, "socket"},
        {map_code, "mmap"},
        {make_code, "mprotect"},
        {ignore_sigsys, "rt_sigaction"},
        {type_at_terminal, "ioctl"},
    };
    struct rig *rig = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        misdeed = cases[i].misdeed;
        assert_killed(rig, "--seccomp=kill", cases[i].call);
        unlink(rig->log);
    }
}

#else

static void test_built_without(void **state)
{
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, "--seccomp=kill", NULL};

    assert_int_equal(rig_wait(rig_spawn(rig, args)), 1);
    assert_true(rig_logged(rig, "libseccomp-dev"));
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_none, set_up, tear_down),
#ifdef HAVE_LIBSECCOMP
        cmocka_unit_test_setup_teardown(test_log, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kill, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_default, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_misdeeds, set_up, tear_down),
#else
        cmocka_unit_test_setup_teardown(test_built_without, set_up, tear_down),
#endif
    };

    return cmocka_run_group_tests_name("daemon_sandbox", tests, NULL, NULL);
}
