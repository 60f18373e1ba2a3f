/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every live test stands on: a daemon of its own, an observer's
 * connection, a watchdog, and the check that nothing is left behind.
 *
 * A program is one cmocka group: RIG_MAIN(tests) with live_test(f) entries.
 * The state of a test is its connection (struct fakehyp *), opened before it
 * and closed after it; then descriptors of this process and the daemon's
 * counts must be what they were.
 */
#ifndef TESTS_COMMON_LIVE_RIG_H
#define TESTS_COMMON_LIVE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <cmocka.h>
#include <jansson.h>

#include <fakehyp/fakehyp.h>

#define PAGE ((uint64_t)FAKEHYP_PAGE_SIZE)

/* A daemon on a private socket. */
struct rig_daemon {
    pid_t pid; /* 0: not running */
    char dir[80], socket[104], log[104];
    bool quiet;       /* one that does not start is no news */
    bool with_points; /* wanted: set before it is opened, as is environ (NULL: this process's) */
    char **environ;
    const char *memory; /* --memory, set before it is opened; NULL: its default */
    int points;         /* --points-fd's other end; -1: none */
};

/* Makes the directory and starts the daemon: 0, or -1 after saying why. */
int rig_daemon_open(struct rig_daemon *d);
/* Starts it again in the same place. */
int rig_daemon_start(struct rig_daemon *d);
/* SIGTERM: its wait status, -1 when it did not end within two seconds (it is killed then). */
int rig_daemon_stop(struct rig_daemon *d);
void rig_daemon_kill(struct rig_daemon *d);
bool rig_daemon_alive(const struct rig_daemon *d);
/* Stops it if it runs and removes the directory. */
void rig_daemon_close(struct rig_daemon *d);
/* The log of the group's daemon has the text, or will have it soon. */
bool rig_logged(const char *text);
bool rig_logs_within(const char *text, unsigned timeout_ms);
/* Its log as TAP diagnostics. */
void rig_daemon_print_log(const struct rig_daemon *d);

/* The daemon of the group. */
extern struct rig_daemon rig;
/* A connection that outlives the tests of the group. */
extern struct fakehyp *rig_observer;

/* NULL, or why live tests cannot run here. */
const char *rig_unsupported(void);

/* A TAP diagnostic. */
void rig_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Returns from a test that cannot be tried here, and says why: cmocka's skip() would be a failure under TAP. */
#define rig_not_here(...)                                                                                              \
    do {                                                                                                               \
        rig_note(__VA_ARGS__);                                                                                         \
        return;                                                                                                        \
    } while (0)

/* Ends the process, loudly, when the time is over. */
void rig_watchdog(unsigned seconds);

uint64_t rig_now_ns(void);
void rig_sleep_ms(unsigned ms);
/* getenv() as a number. */
uint64_t rig_env(const char *name, uint64_t otherwise);
uint64_t rig_random(uint64_t *state);

/* The report as JSON; the test fails when there is none. */
json_t *rig_query(struct fakehyp *fh, const char *what);
json_t *rig_page(struct fakehyp *fh, struct fakehyp_gmem *gmem, uint64_t offset);
/* An own count of the daemon, from its status. */
int64_t rig_count(const char *name);
/* Waits for the next event of this kind, passing over others: false when none came within two seconds. */
bool rig_event(struct fakehyp *fh, const char *kind, struct fakehyp_event *event);
/* The audit is clean; prints its problems. */
bool rig_audit_ok(struct fakehyp *fh);
void rig_audit(struct fakehyp *fh);

/* Descriptors of this process. */
unsigned rig_own_fds(void);
/* The daemon's counts, clients excepted, as text that can be compared.  NULL: no answer. */
char *rig_counts(struct fakehyp *fh);
/* Waits for the counts to be these: false after two seconds; *waited_ns (may be NULL) how long it took. */
bool rig_counts_return_to(struct fakehyp *fh, const char *counts, uint64_t *waited_ns);

/* Over a socket between processes.  -1: none came. */
bool rig_send_fd(int sock, int fd);
int rig_receive_fd(int sock);

/* First thing in a process that a test forks: default signals, ends with its parent. */
void rig_child(void);
/* Forks a process that talks to this one over *sock: 0 in the child, where it is the first thing. */
pid_t rig_fork_with_socket(int *sock);
/* A thread of a process, by the name that the kernel has for it; 0: there is none. */
pid_t rig_thread_named(pid_t pid, const char *name);
/* Waits for a child: true with its status, false after timeout_ms. */
bool rig_wait_child(pid_t pid, unsigned timeout_ms, int *status);
/* Stops a child, and returns when it has stopped. */
void rig_stop_child(pid_t pid);
/* The child must have exited with 0. */
void rig_child_ok(pid_t pid);

int rig_group_setup(void **state);
int rig_group_teardown(void **state);
int rig_test_setup(void **state);
int rig_test_teardown(void **state);

#define live_test(f) cmocka_unit_test_setup_teardown(f, rig_test_setup, rig_test_teardown)

/* The test fails with the library's words for it. */
#define must(call)                                                                                                     \
    do {                                                                                                               \
        int must_rc = (call);                                                                                          \
        if (must_rc)                                                                                                   \
            rig_note("%s: %d: %s", #call, must_rc, fakehyp_last_error());                                              \
        assert_int_equal(must_rc, 0);                                                                                  \
    } while (0)

/* The end of main(). */
#define RIG_RUN(tests)                                                                                                 \
    do {                                                                                                               \
        const char *reason = rig_unsupported();                                                                        \
        if (reason) {                                                                                                  \
            printf("1..0 # SKIP %s\n", reason);                                                                        \
            return 0;                                                                                                  \
        }                                                                                                              \
        return cmocka_run_group_tests(tests, rig_group_setup, rig_group_teardown);                                     \
    } while (0)

#define RIG_MAIN(tests)                                                                                                \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        RIG_RUN(tests);                                                                                                \
    }

#endif
