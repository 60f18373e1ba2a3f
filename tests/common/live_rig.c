/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SETTLE_MS 10000
#define WATCHDOG_S 120

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_MINOR_SHMEM
#define UFFD_FEATURE_MINOR_SHMEM (1 << 10)
#endif

struct rig_daemon rig;
struct fakehyp *rig_observer;

static unsigned fds_before;
static char *counts_before;

/* ---- small things ----------------------------------------------------------------------------------------------- */

void rig_note(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    va_start(args, format);
    char *text = NULL;
    if (vasprintf(&text, format, args) >= 0) {
        for (char *p = text; (p = strchr(p, '\n')); p++)
            *p = ' ';
        printf("# %s\n", text);
        free(text);
    }
    va_end(args);
    fflush(stdout);
}

const char *rig_unsupported(void)
{
    static char reason[160];
    struct uffdio_api api = {.api = UFFD_API, .features = 0};
    const uint64_t needed = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                            UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_THREAD_ID;
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    if (fd < 0) {
        snprintf(reason, sizeof(reason), "userfaultfd: %s; fakehypctl doctor tells the remedy", strerror(errno));
        return reason;
    }
    int rc = ioctl(fd, UFFDIO_API, &api);
    close(fd);
    if (rc || (api.features & needed) != needed) {
        snprintf(reason, sizeof(reason),
                 "this kernel's userfaultfd lacks features 0x%llx; fakehypctl doctor names them",
                 (unsigned long long)(needed & ~api.features));
        return reason;
    }
    return NULL;
}

static void on_alarm(int sig)
{
    static const char text[] = "Bail out! a live test hangs: the watchdog ends it\n";
    (void)sig;
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
        _exit(98);
    if (rig.pid > 0)
        kill(rig.pid, SIGKILL);
    _exit(99);
}

void rig_watchdog(unsigned seconds)
{
    struct sigaction action = {.sa_handler = on_alarm};

    sigaction(SIGALRM, &action, NULL);
    alarm(seconds);
}

uint64_t rig_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void rig_sleep_ms(unsigned ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

uint64_t rig_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    char *end;

    if (!text || !*text)
        return otherwise;
    unsigned long long n = strtoull(text, &end, 0);
    return *end ? otherwise : n;
}

/* xorshift64*: the state is never 0. */
uint64_t rig_random(uint64_t *state)
{
    uint64_t x = *state ? *state : 1;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (x * UINT64_C(0x2545F4914F6CDD1D)) >> 16;
}

/* ---- what the daemon says ------------------------------------------------------------------------------------------
 */

static json_t *ask(struct fakehyp *fh, const char *what, struct fakehyp_gmem *gmem, uint64_t offset)
{
    json_error_t error;
    char *text;
    int rc = fakehyp_query(fh, what, gmem, offset, &text);

    if (rc) {
        rig_note("query %s: %d: %s", what, rc, fakehyp_last_error());
        return NULL;
    }
    json_t *answer = json_loads(text, 0, &error);
    if (!answer)
        rig_note("query %s: no JSON: %s: %.300s", what, error.text, text);
    free(text);
    return answer;
}

json_t *rig_query(struct fakehyp *fh, const char *what)
{
    json_t *answer = ask(fh, what, NULL, 0);
    assert_non_null(answer);
    return answer;
}

json_t *rig_page(struct fakehyp *fh, struct fakehyp_gmem *gmem, uint64_t offset)
{
    json_t *answer = ask(fh, "page", gmem, offset);
    assert_non_null(answer);
    return answer;
}

int64_t rig_count(const char *name)
{
    json_t *status = ask(rig_observer, "status", NULL, 0);
    const json_t *count = json_object_get(json_object_get(status, "counts"), name);
    int64_t n = json_is_integer(count) ? json_integer_value(count) : -1;

    json_decref(status);
    return n;
}

bool rig_event(struct fakehyp *fh, const char *kind, struct fakehyp_event *event)
{
    uint64_t deadline = rig_now_ns() + SETTLE_MS * UINT64_C(1000000);

    for (;;) {
        struct pollfd pfd = {.fd = fakehyp_event_fd(fh), .events = POLLIN};
        while (fakehyp_next_event(fh, event) == 1)
            if (!strcmp(event->kind, kind))
                return true;
        uint64_t now = rig_now_ns();
        if (now >= deadline)
            return false;
        poll(&pfd, 1, (int)((deadline - now) / 1000000) + 1);
    }
}

bool rig_audit_ok(struct fakehyp *fh)
{
    json_t *answer = ask(fh, "audit", NULL, 0);
    const json_t *problem;
    size_t i;

    json_array_foreach(json_object_get(answer, "problems"), i, problem)
        rig_note("audit: %s", json_string_value(problem));
    bool ok = json_is_true(json_object_get(answer, "ok"));
    json_decref(answer);
    return ok;
}

void rig_audit(struct fakehyp *fh)
{
    assert_true(rig_audit_ok(fh));
}

/* ---- nothing is left behind ------------------------------------------------------------------------------------- */

unsigned rig_own_fds(void)
{
    unsigned nr = 0;
    DIR *dir = opendir("/proc/self/fd");

    while (dir && readdir(dir))
        nr++;
    if (dir)
        closedir(dir);
    return nr;
}

char *rig_counts(struct fakehyp *fh)
{
    json_t *status = ask(fh, "status", NULL, 0), *counts = json_object_get(status, "counts");
    char *text = NULL;

    if (counts) {
        json_object_del(counts, "clients");
        text = json_dumps(counts, JSON_SORT_KEYS);
    }
    json_decref(status);
    return text;
}

bool rig_counts_return_to(struct fakehyp *fh, const char *counts, uint64_t *waited_ns)
{
    uint64_t start = rig_now_ns(), waited;
    bool same;

    for (;;) {
        char *now = rig_counts(fh);
        waited = rig_now_ns() - start;
        same = now && !strcmp(now, counts);
        bool late = waited > SETTLE_MS * UINT64_C(1000000);
        if (!same && (late || !now))
            rig_note("the daemon's counts were %s and are %s after %d ms", counts, now ? now : "unknown", SETTLE_MS);
        free(now);
        if (same || late || !now)
            break;
        rig_sleep_ms(5);
    }
    if (waited_ns)
        *waited_ns = waited;
    return same;
}

/* ---- children --------------------------------------------------------------------------------------------------- */

void rig_child(void)
{
    static const int caught[] = {SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGSYS, SIGALRM, SIGPIPE};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
        signal(caught[i], SIG_DFL);
}

pid_t rig_fork_with_socket(int *sock)
{
    int socks[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
        return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        rig_child();
    *sock = socks[pid == 0];
    close(socks[pid != 0]);
    return pid;
}

pid_t rig_thread_named(pid_t pid, const char *name)
{
    char path[64], line[64];
    struct dirent *entry;
    pid_t found = 0;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    while (dir && !found && (entry = readdir(dir))) {
        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", (int)pid, entry->d_name);
        FILE *f = fopen(path, "re");
        if (f && fgets(line, sizeof(line), f) && !strncmp(line, name, strlen(name)))
            found = (pid_t)atoi(entry->d_name);
        if (f)
            fclose(f);
    }
    if (dir)
        closedir(dir);
    return found;
}

bool rig_wait_child(pid_t pid, unsigned timeout_ms, int *status)
{
    int pidfd = pidfd_open(pid, 0);
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};

    if (pidfd < 0)
        return false;
    int n;
    while ((n = poll(&pfd, 1, (int)timeout_ms)) < 0 && errno == EINTR)
        ;
    close(pidfd);
    return n == 1 && waitpid(pid, status, 0) == pid;
}

void rig_stop_child(pid_t pid)
{
    int status;

    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
}

void rig_child_ok(pid_t pid)
{
    int status;

    assert_true(pid > 0);
    if (!rig_wait_child(pid, 20000, &status)) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        fail_msg("a child process hung");
    }
    if (WIFSIGNALED(status))
        fail_msg("a child process was ended by signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- fixtures --------------------------------------------------------------------------------------------------- */

/* One conversion: with it the daemon opens what it then keeps. */
static int warm_up(void)
{
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    int rc = fakehyp_vm_create(rig_observer, NULL, &vm);

    if (rc)
        return rc;
    rc = fakehyp_gmem_create(vm, PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem);
    if (!rc) {
        rc = fakehyp_convert(gmem, 0, PAGE, FAKEHYP_PRIVATE, NULL);
        fakehyp_gmem_close(gmem);
    }
    return fakehyp_vm_destroy(vm) ? -1 : rc;
}

int rig_group_setup(void **state)
{
    (void)state;
    rig_watchdog(WATCHDOG_S);
    if (rig_daemon_open(&rig))
        return -1;
    int rc = fakehyp_connect(rig.socket, &rig_observer);
    if (!rc)
        rc = warm_up();
    if (rc)
        rig_note("the first use of fakehypd: %d: %s", rc, fakehyp_last_error());
    return rc;
}

int rig_group_teardown(void **state)
{
    (void)state;
    fakehyp_disconnect(rig_observer);
    rig_observer = NULL;
    bool alive = rig_daemon_alive(&rig);
    int status = alive ? rig_daemon_stop(&rig) : -1;
    if (status) {
        rig_note("fakehypd %s, wait status 0x%x", alive ? "was stopped" : "has died", (unsigned)status);
        rig_daemon_print_log(&rig);
    }
    rig.pid = 0;
    rig_daemon_close(&rig);
    return status ? -1 : 0;
}

int rig_test_setup(void **state)
{
    struct fakehyp *fh;

    rig_watchdog(WATCHDOG_S);
    free(counts_before);
    counts_before = rig_counts(rig_observer);
    fds_before = rig_own_fds();
    int rc = counts_before ? fakehyp_connect(rig.socket, &fh) : -1;
    if (rc) {
        rig_note("connecting to fakehypd: %d: %s", rc, fakehyp_last_error());
        return -1;
    }
    *state = fh;
    return 0;
}

int rig_test_teardown(void **state)
{
    fakehyp_disconnect(*state);
    *state = NULL;
    bool ok = rig_daemon_alive(&rig) && rig_counts_return_to(rig_observer, counts_before, NULL);
    unsigned fds = rig_own_fds();
    if (fds != fds_before)
        rig_note("this process had %u descriptors before the test and has %u", fds_before, fds);
    ok = rig_audit_ok(rig_observer) && fds == fds_before && ok;
    if (!ok)
        rig_daemon_print_log(&rig);
    free(counts_before);
    counts_before = NULL;
    return ok ? 0 : -1;
}
