/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypd --pidfile: written when it is ready, gone at its end, one daemon a file. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/daemon_rig.h"

static char path[96], option[128];

static int set_up(void **state)
{
    static struct rig rig;

    rig_make_dir(&rig);
    snprintf(path, sizeof(path), "%s/pid", rig.dir);
    snprintf(option, sizeof(option), "--pidfile=%s", path);
    *state = &rig;
    return 0;
}

/* Fails if a lock or a half-written file is left: the folder must be empty. */
static int tear_down(void **state)
{
    unlink(path);
    rig_remove_dir(*state);
    return 0;
}

static void put(const char *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void put_pid(pid_t pid)
{
    char text[16];

    snprintf(text, sizeof(text), "%d\n", pid);
    put(text);
}

static void assert_holds(pid_t pid)
{
    char expected[16], text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    snprintf(expected, sizeof(expected), "%d\n", pid);
    assert_string_equal(text, expected);
}

static bool exists(const char *name)
{
    struct stat st;

    return lstat(name, &st) == 0;
}

/* A process that has ended. */
static pid_t dead_pid(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    return pid;
}

static void test_is_there_from_readiness_to_the_end(void **state)
{
    struct rig *rig = *state;
    struct stat st;

    rig_start(rig, option);
    assert_holds(rig->pid);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(rig_stop(rig), 0);
    assert_false(exists(path));
}

static void test_stale_one_is_replaced(void **state)
{
    struct rig *rig = *state;

    put_pid(dead_pid());
    rig_start(rig, option);
    assert_holds(rig->pid);
    assert_true(rig_logged(rig, "replaced"));
    /* And the one that a killed daemon leaves. */
    kill(rig->pid, SIGKILL);
    assert_int_equal(rig_wait(rig->pid), 128 + SIGKILL);
    assert_holds(rig->pid);
    rig_start(rig, option);
    assert_holds(rig->pid);
    assert_int_equal(rig_stop(rig), 0);
}

static void test_empty_one_is_replaced(void **state)
{
    struct rig *rig = *state;

    put("");
    rig_start(rig, option);
    assert_holds(rig->pid);
    assert_int_equal(rig_stop(rig), 0);
}

static void test_live_one_is_refused(void **state)
{
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, option, NULL};
    char words[64];

    put_pid(getpid());
    assert_int_equal(rig_wait(rig_spawn(rig, args)), 1);
    snprintf(words, sizeof(words), "process %d of ", getpid());
    assert_true(rig_logged(rig, words));
    assert_holds(getpid());
    assert_false(exists(rig->socket));
}

static void test_other_contents_are_left_alone(void **state)
{
    static const char *const contents[] = {"hello\n", "-1\n", "12 34\n", "99999999999999999999\n", "0\n"};
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, option, NULL};

    for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
        char text[32] = "";
        put(contents[i]);
        assert_int_equal(rig_wait(rig_spawn(rig, args)), 1);
        assert_true(rig_logged(rig, "holds no process id"));
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_int_equal(read(fd, text, sizeof(text) - 1), strlen(contents[i]));
        close(fd);
        assert_string_equal(text, contents[i]);
        unlink(rig->log);
    }
}

static void test_one_daemon_a_file(void **state)
{
    enum { NR = 6 };
    struct rig *rig = *state;
    char sockets[NR][112];
    pid_t pids[NR];
    int status, winner = -1;

    put_pid(dead_pid());
    for (int i = 0; i < NR; i++) {
        snprintf(sockets[i], sizeof(sockets[i]), "%s%d", rig->socket, i);
        const char *args[] = {"--socket", sockets[i], option, NULL};
        pids[i] = rig_spawn(rig, args);
    }
    for (int ended = 0; ended < NR - 1; ended++) {
        pid_t pid = waitpid(-1, &status, 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
        for (int i = 0; i < NR; i++)
            if (pids[i] == pid)
                pids[i] = 0;
    }
    for (int i = 0; i < NR; i++)
        if (pids[i])
            winner = i;
    /* The others have ended because its number was there. */
    assert_holds(pids[winner]);
    kill(pids[winner], SIGTERM);
    assert_int_equal(rig_wait(pids[winner]), 0);
    assert_false(exists(path));
}

/* Also where the other file has got the inode number of the first, as ext4 hands them out anew. */
static void test_of_somebody_else_by_then(void **state)
{
    enum { NR = 64 };
    struct rig *rig = *state;
    char names[NR][112];
    struct stat first, st;
    int same = 0;

    rig_start(rig, option);
    assert_int_equal(stat(path, &first), 0);
    unlink(path);
    for (int i = 0; i < NR; i++) {
        snprintf(names[i], sizeof(names[i]), "%s.%d", path, i);
        put_pid(getpid());
        assert_int_equal(rename(path, names[i]), 0);
        assert_int_equal(stat(names[i], &st), 0);
        if (st.st_ino == first.st_ino)
            same = i;
    }
    assert_int_equal(rename(names[same], path), 0);
    for (int i = 0; i < NR; i++)
        unlink(names[i]);
    assert_int_equal(rig_stop(rig), 0);
    assert_holds(getpid());
}

static void test_no_such_folder(void **state)
{
    struct rig *rig = *state;
    char other[128];

    snprintf(other, sizeof(other), "--pidfile=%s/none/pid", rig->dir);
    const char *args[] = {"--socket", rig->socket, other, NULL};
    assert_int_equal(rig_wait(rig_spawn(rig, args)), 1);
    assert_true(rig_logged(rig, "--pidfile: "));
    assert_true(rig_logged(rig, "No such file or directory"));
    assert_false(exists(rig->socket));
}

/* Somebody holds the lock and does not let go, as a daemon that was stopped at a bad moment. */
static void test_lock_that_is_not_let_go(void **state)
{
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, option, NULL};
    char lock[112];

    snprintf(lock, sizeof(lock), "%s.lock", path);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    alarm(30); /* a daemon that waits for ever ends with this test */
    assert_int_equal(rig_wait(rig_spawn(rig, args)), 1);
    alarm(0);
    assert_true(rig_logged(rig, "pid.lock: a process has held this lock"));
    assert_false(exists(path));
    assert_false(exists(rig->socket));
    close(fd);
    unlink(lock);
}

/* The number is that of the process that stays. */
static void test_in_the_background(void **state)
{
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, "--daemon", "--terminate", option, NULL};
    char lock[112];

    assert_int_equal(rig_wait(rig_spawn(rig, args)), 0);
    int sock = raw_client(rig, NULL);
    json_t *status = raw_query(sock, "status");
    assert_holds((pid_t)json_integer_value(json_object_get(status, "pid")));
    json_decref(status);
    close(sock);
    /* The lock of the file goes last. */
    snprintf(lock, sizeof(lock), "%s.lock", path);
    for (int i = 0; i < 500 && (exists(rig->socket) || exists(path) || exists(lock)); i++)
        usleep(10000);
    assert_false(exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_is_there_from_readiness_to_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stale_one_is_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_empty_one_is_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_live_one_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_contents_are_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_daemon_a_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_of_somebody_else_by_then, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_such_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lock_that_is_not_let_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_in_the_background, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("daemon_pidfile", tests, NULL, NULL);
}
