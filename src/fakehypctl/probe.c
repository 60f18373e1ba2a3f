/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(struct probe_result *r, enum probe_verdict verdict, const char *format, va_list ap)
{
    r->verdict = verdict;
    vsnprintf(r->detail, sizeof(r->detail), format, ap);
    r->remedy[0] = '\0';
}

void probe_ok(struct probe_result *r, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    say(r, PROBE_OK, format, ap);
    va_end(ap);
}

void probe_info(struct probe_result *r, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    say(r, PROBE_INFO, format, ap);
    va_end(ap);
}

void probe_fail(struct probe_result *r, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    say(r, PROBE_FAIL, format, ap);
    va_end(ap);
    probe_remedy(r, "%sapt install linux-image-$(dpkg --print-architecture) && %sreboot", probe_sudo(), probe_sudo());
}

void probe_remedy(struct probe_result *r, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(r->remedy, sizeof(r->remedy), format, ap);
    va_end(ap);
}

void probe_remedy_sandbox(struct probe_result *r)
{
    probe_remedy(r, "allow the call in the sandbox's seccomp profile; docker run --security-opt seccomp=unconfined");
}

void probe_fail_errno(struct probe_result *r, const char *what)
{
    int err = errno;

    probe_fail(r, "%s: %s", what, strerror(err));
    switch (err) {
    case EPERM:
    case EACCES:
    case ENOSYS:
        probe_remedy_sandbox(r);
        break;
    case ENOMEM:
        probe_remedy(r, "ulimit -v unlimited");
        break;
    case EMFILE:
        probe_remedy(r, "ulimit -n 1024");
        break;
    case EFBIG:
        probe_remedy(r, "ulimit -f unlimited");
        break;
    case EAGAIN: /* fork, pthread_create */
        probe_remedy(r, "ulimit -u unlimited");
        break;
    }
}

const char *probe_sudo(void)
{
    return geteuid() ? "sudo " : "";
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void child_main(probe_fn *probe, const struct probe_arg *arg, int fd, pid_t parent)
{
    struct probe_result result = {.verdict = PROBE_FAIL, .detail = "the probe said nothing"};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    if (null >= 0)
        dup2(null, STDERR_FILENO); /* what a dying probe says is in its result */
    probe(&result, arg);
    _exit(write(fd, &result, sizeof(result)) != sizeof(result));
}

/* A result is smaller than PIPE_BUF: it comes in one piece or not at all. */
static ssize_t read_result(int fd, int64_t deadline, struct probe_result *result)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    int64_t left;
    int n;

    do {
        left = deadline - now_ms();
        n = poll(&pfd, 1, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        return -ETIMEDOUT;
    return n < 0 ? -errno : read(fd, result, sizeof(*result));
}

void probe_run(probe_fn *probe, const struct probe_arg *arg, unsigned deadline_ms, struct probe_result *result)
{
    pid_t pid, parent = getpid();
    int fds[2], status = 0;
    ssize_t n;

    if (pipe2(fds, O_CLOEXEC)) {
        probe_fail_errno(result, "pipe2");
        return;
    }
    pid = fork();
    if (pid < 0) {
        probe_fail_errno(result, "fork");
        close(fds[0]);
        close(fds[1]);
        return;
    }
    if (!pid) {
        close(fds[0]);
        child_main(probe, arg, fds[1], parent);
    }
    close(fds[1]);
    n = read_result(fds[0], now_ms() + deadline_ms, result);
    close(fds[0]);
    if (n != sizeof(*result))
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (n == sizeof(*result))
        return;
    if (n == -ETIMEDOUT)
        probe_fail(result, "no answer within %u ms", deadline_ms);
    else if (WIFSIGNALED(status))
        probe_fail(result, "the probe died of signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        probe_fail(result, "the probe ended without an answer");
}
