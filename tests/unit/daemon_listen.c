/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypd: its socket, readiness and end. */
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/fakehypd/daemon.h"
#include "tests/unit/daemon_rig.h"

static int set_up(void **state)
{
    static struct rig rig;

    rig_make_dir(&rig);
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    rig_remove_dir(*state);
    return 0;
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static void test_socket_is_private_and_goes_with_the_daemon(void **state)
{
    struct rig *rig = *state;
    struct stat st;

    rig_start(rig, NULL);
    assert_int_equal(lstat(rig->socket, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(rig_stop(rig), 0);
    assert_false(exists(rig->socket));
}

static void test_second_daemon_is_refused(void **state)
{
    struct rig *rig = *state;
    char words[64];

    rig_start(rig, NULL);
    const char *args[] = {"--socket", rig->socket, NULL};
    assert_int_equal(rig_wait(rig_spawn(rig, args)), 1);
    snprintf(words, sizeof(words), "another fakehypd (pid %d) listens", rig->pid);
    assert_true(rig_logged(rig, words));
    /* The first one is unharmed. */
    int sock = raw_client(rig, NULL);
    close(sock);
    assert_int_equal(rig_stop(rig), 0);
}

static void test_stale_socket_is_taken_over(void **state)
{
    struct rig *rig = *state;

    rig_start(rig, NULL);
    kill(rig->pid, SIGKILL);
    assert_int_equal(rig_wait(rig->pid), 128 + SIGKILL);
    assert_true(exists(rig->socket));
    rig_start(rig, NULL);
    assert_true(rig_logged(rig, "taken over"));
    close(raw_client(rig, NULL));
    assert_int_equal(rig_stop(rig), 0);
}

static void test_race_for_a_stale_socket_has_one_winner(void **state)
{
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, "--terminate", NULL};
    pid_t pids[6];
    int winners = 0;

    rig_start(rig, NULL);
    kill(rig->pid, SIGKILL);
    rig_wait(rig->pid);
    for (int i = 0; i < 6; i++)
        pids[i] = rig_spawn(rig, args);
    /* Five of them end at once. */
    for (int ended = 0; ended < 5; ended++) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        for (int i = 0; i < 6; i++)
            if (pids[i] == pid)
                pids[i] = 0;
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    }
    for (int i = 0; i < 6; i++) {
        if (!pids[i])
            continue;
        winners++;
        /* Ends with its only client. */
        close(raw_client(rig, NULL));
        assert_int_equal(rig_wait(pids[i]), 0);
    }
    assert_int_equal(winners, 1);
}

/* In a folder that all may write to, somebody else may have been there first. */
static void test_lock_of_another_user(void **state)
{
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, NULL};
    char lock[128];
    int status = -1;

    snprintf(lock, sizeof(lock), "%s.lock", rig->socket);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(fchown(fd, 65534, 65534), 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    pid_t pid = rig_spawn(rig, args);
    for (int i = 0; i < 300 && waitpid(pid, &status, WNOHANG) == 0; i++)
        usleep(10000);
    close(fd);
    if (status == -1)
        kill(pid, SIGKILL);
    unlink(lock);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_true(rig_logged(rig, "--socket chooses another path"));
}

/* Whoever takes the name over while its daemon is about to let it go keeps it, whatever number its inode gets. */
static void test_name_taken_over_at_the_end(void **state)
{
    struct rig *rig = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat before, after;
    char lock_name[sizeof(rig->socket) + 8];

    rig_start(rig, NULL);
    assert_int_equal(lstat(rig->socket, &before), 0);
    snprintf(lock_name, sizeof(lock_name), "%s.lock", rig->socket);
    int lock = open(lock_name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    kill(rig->pid, SIGTERM);
    strcpy(address.sun_path, rig->socket);
    /* Until nobody listens. */
    for (unsigned ms = 0; ms < 10000; ms++) {
        int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        int rc = connect(sock, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;
        close(sock);
        if (rc == ECONNREFUSED)
            break;
        usleep(1000);
    }
    assert_int_equal(unlink(rig->socket), 0);
    int ours = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(ours, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(lstat(rig->socket, &after), 0);
    print_message("# the socket's inode was %llu, that of the next one is %llu\n", (unsigned long long)before.st_ino,
                  (unsigned long long)after.st_ino);
    close(lock);
    assert_int_equal(rig_wait(rig->pid), 0);
    assert_true(exists(rig->socket));
    assert_true(after.st_ino != before.st_ino);
    close(ours);
    unlink(rig->socket);
    unlink(lock_name);
}

static void test_other_files_are_left_alone(void **state)
{
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, NULL};
    int fd = open(rig->socket, O_CREAT | O_WRONLY, 0600);

    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
    assert_int_equal(rig_wait(rig_spawn(rig, args)), 1);
    assert_true(rig_logged(rig, "is no socket"));
    assert_true(exists(rig->socket));
    unlink(rig->socket);
    /* The lock goes with the name, and no name was made. */
    char lock[128];
    snprintf(lock, sizeof(lock), "%s.lock", rig->socket);
    unlink(lock);
}

/* 5 and 6: too few for libuv's loop, which aborts; 12: enough for the socket, too few for the rest. */
static void test_lack_of_descriptors_names_the_limit(void **state)
{
    static const rlim_t limits[] = {5, 6, 8, 12, 31};
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, NULL};

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        const struct rlimit few = {limits[i], limits[i]};
        /* The daemon raises its soft limit, so the hard one is lowered, for good: in a process of its own. */
        pid_t pid = fork();
        if (pid == 0)
            _exit(setrlimit(RLIMIT_NOFILE, &few) ? 99 : rig_wait(rig_spawn(rig, args)));
        assert_int_equal(rig_wait(pid), 1);
        assert_true(rig_logged(rig, "(ulimit -n)"));
        assert_false(exists(rig->socket));
        unlink(rig->log);
    }
}

static void test_terminate_ends_with_the_last_client(void **state)
{
    struct rig *rig = *state;

    rig_start(rig, "--terminate");
    int a = raw_client(rig, NULL), b = raw_client(rig, NULL);
    close(a);
    json_t *status = raw_query(b, "status");
    assert_non_null(status);
    json_decref(status);
    close(b);
    assert_int_equal(rig_wait(rig->pid), 0);
    assert_false(exists(rig->socket));
}

static void test_inherited_socket(void **state)
{
    struct rig *rig = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET, 0), stream = socket(AF_UNIX, SOCK_STREAM, 0);
    char number[16];

    memcpy(address.sun_path, rig->socket, strlen(rig->socket));
    assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(sock, 5), 0);
    snprintf(number, sizeof(number), "%d", stream);
    const char *wrong[] = {"--listen-fd", number, NULL};
    assert_int_equal(rig_wait(rig_spawn(rig, wrong)), 2);
    assert_true(rig_logged(rig, "no listening Unix socket"));
    close(stream);

    snprintf(number, sizeof(number), "%d", sock);
    const char *args[] = {"--listen-fd", number, "--terminate", NULL};
    /* The connection waits in the queue before the daemon exists. */
    int client = raw_connect(rig->socket);
    pid_t pid = rig_spawn(rig, args);
    close(client);
    client = raw_client(rig, NULL);
    close(client);
    assert_int_equal(rig_wait(pid), 0);
    /* Not the daemon's name to remove. */
    assert_true(exists(rig->socket));
    close(sock);
}

/* As the service manager starts it: the socket is descriptor 3, and the environment says so. */
static void test_socket_activation(void **state)
{
    struct rig *rig = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, rig->socket, strlen(rig->socket));
    assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(sock, 5), 0);
    int queued = raw_connect(rig->socket);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char *argv[] = {(char *)"fakehypd", (char *)"--terminate", NULL}, number[16];
        int log = open(rig->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        snprintf(number, sizeof(number), "%d", getpid());
        setenv("LISTEN_PID", number, 1);
        setenv("LISTEN_FDS", "1", 1);
        setenv("LISTEN_FDNAMES", "fakehypd.socket", 1);
        dup2(log, STDERR_FILENO);
        if (sock == 3)
            fcntl(sock, F_SETFD, 0);
        else
            dup2(sock, 3);
        _exit(fakehypd_main(2, argv));
    }
    close(queued);
    int client = raw_client(rig, NULL);
    json_t *status = raw_query(client, "status");
    assert_int_equal(json_integer_value(json_object_get(status, "pid")), pid);
    assert_string_equal(json_string_value(json_object_get(status, "socket")), rig->socket);
    json_decref(status);
    close(client);
    assert_int_equal(rig_wait(pid), 0);
    /* The service manager keeps it, for the next client. */
    assert_true(exists(rig->socket));
    close(sock);
}

static void test_background_parent_waits_for_readiness(void **state)
{
    struct rig *rig = *state;
    const char *args[] = {"--socket", rig->socket, "--daemon", "--terminate", NULL};

    assert_int_equal(rig_wait(rig_spawn(rig, args)), 0);
    /* It listens: no waiting here. */
    int sock = raw_client(rig, NULL);
    json_t *status = raw_query(sock, "status");
    pid_t pid = (pid_t)json_integer_value(json_object_get(status, "pid"));
    assert_true(pid > 0);
    json_decref(status);
    const char *again[] = {"--socket", rig->socket, "--daemon", NULL};
    assert_int_equal(rig_wait(rig_spawn(rig, again)), 1);
    close(sock);
    for (int i = 0; i < 500 && exists(rig->socket); i++)
        usleep(10000);
    assert_false(exists(rig->socket));
}

static void test_notify_socket(void **state)
{
    struct rig *rig = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[128], words[64] = "";
    int sock = socket(AF_UNIX, SOCK_DGRAM, 0);

    snprintf(path, sizeof(path), "%s/notify", rig->dir);
    memcpy(address.sun_path, path, strlen(path));
    assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", path, 1);
    rig_start(rig, NULL);
    assert_int_equal(recv(sock, words, sizeof(words) - 1, 0), 7);
    assert_string_equal(words, "READY=1");
    assert_int_equal(rig_stop(rig), 0);
    assert_int_equal(recv(sock, words, sizeof(words) - 1, 0), 10);
    assert_memory_equal(words, "STOPPING=1", 10);
    /* In the background it may be a program's private one, and the socket for what that program tells. */
    const char *args[] = {"--socket", rig->socket, "--daemon", "--terminate", NULL};
    assert_int_equal(rig_wait(rig_spawn(rig, args)), 0);
    close(raw_client(rig, NULL));
    for (int i = 0; i < 500 && exists(rig->socket); i++)
        usleep(10000);
    assert_false(exists(rig->socket));
    assert_int_equal(recv(sock, words, sizeof(words) - 1, MSG_DONTWAIT), -1);
    unsetenv("NOTIFY_SOCKET");
    close(sock);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_socket_is_private_and_goes_with_the_daemon, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_second_daemon_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stale_socket_is_taken_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_race_for_a_stale_socket_has_one_winner, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_name_taken_over_at_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_files_are_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lack_of_descriptors_names_the_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_terminate_ends_with_the_last_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_inherited_socket, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_socket_activation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_background_parent_waits_for_readiness, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_notify_socket, set_up, tear_down),
        /* Last: only root can give a file away. */
        cmocka_unit_test_setup_teardown(test_lock_of_another_user, set_up, tear_down),
    };
    const size_t nr = sizeof(tests) / sizeof(tests[0]);

    if (geteuid() == 0)
        return cmocka_run_group_tests_name("daemon_listen", tests, NULL, NULL);
    print_message("# test_lock_of_another_user needs root\n");
    return _cmocka_run_group_tests("daemon_listen", tests, nr - 1, NULL, NULL);
}
