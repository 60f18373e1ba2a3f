/* SPDX-License-Identifier: BSD-2-Clause */
/* A daemon on a private socket. */
#include "tests/common/live_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOTIFY_FD 3
#define POINTS_FD 4
#define FIRST_FREE_FD 5
#define READY_MS 10000
#define STOP_MS 10000

extern char **environ;

/*
 * In the child.  It goes with the test, also with one that is killed; whoever reads the test's output must not wait for
 * it.
 */
static _Noreturn void become(const struct rig_daemon *d, const char *binary, int notify, int points, pid_t parent)
{
    char *argv[] = {(char *)"fakehypd",
                    (char *)"--socket",
                    (char *)d->socket,
                    (char *)"--foreground",
                    (char *)"--notify-fd",
                    (char *)"3",
                    (char *)"--log-file",
                    (char *)d->log,
                    (char *)"--log-level",
                    (char *)"info",
                    NULL,
                    NULL,
                    NULL,
                    NULL,
                    NULL};
    sigset_t none;
    unsigned nr = 0;

    while (argv[nr])
        nr++;
    if (points >= 0) {
        argv[nr++] = (char *)"--points-fd";
        argv[nr++] = (char *)"4";
    }
    if (d->memory) {
        argv[nr++] = (char *)"--memory";
        argv[nr++] = (char *)d->memory;
    }

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (int sig = 1; sig <= SIGRTMAX; sig++)
        signal(sig, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Out of each other's way first. */
    notify = fcntl(notify, F_DUPFD, FIRST_FREE_FD);
    if (points >= 0)
        points = fcntl(points, F_DUPFD, FIRST_FREE_FD);
    int null = open("/dev/null", O_RDONLY), log = open(d->log, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0 ||
        dup2(notify, NOTIFY_FD) < 0 || (points >= 0 && dup2(points, POINTS_FD) < 0))
        _exit(1);
    close_range(points >= 0 ? POINTS_FD + 1 : NOTIFY_FD + 1, ~0u, 0);
    execve(binary, argv, d->environ ? d->environ : environ);
    dprintf(STDERR_FILENO, "%s: %s\n", binary, strerror(errno));
    _exit(127);
}

static void close_points(struct rig_daemon *d)
{
    if (d->points >= 0)
        close(d->points);
    d->points = -1;
}

int rig_daemon_start(struct rig_daemon *d)
{
    const char *binary = getenv("FAKEHYP_DAEMON");
    int notify[2], points[2] = {-1, -1};
    const pid_t self = getpid();
    char byte;

    if (!binary) {
        rig_note("FAKEHYP_DAEMON is not set: it names the fakehypd to test");
        return -1;
    }
    if (pipe2(notify, O_CLOEXEC))
        return -1;
    if (d->with_points && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, points)) {
        close(notify[0]);
        close(notify[1]);
        return -1;
    }
    fflush(stdout);
    d->pid = fork();
    if (d->pid == 0)
        become(d, binary, notify[1], points[1], self);
    close(notify[1]);
    if (points[1] >= 0)
        close(points[1]);
    d->points = points[0];
    if (d->pid < 0) {
        rig_note("fork: %s", strerror(errno));
        d->pid = 0;
        close(notify[0]);
        close_points(d);
        return -1;
    }
    struct pollfd pfd = {.fd = notify[0], .events = POLLIN};
    bool ready = poll(&pfd, 1, READY_MS) == 1 && read(notify[0], &byte, 1) == 1;
    close(notify[0]);
    if (!ready) {
        if (!d->quiet) {
            rig_note("fakehypd did not become ready");
            rig_daemon_print_log(d);
        }
        rig_daemon_kill(d);
        return -1;
    }
    return 0;
}

int rig_daemon_open(struct rig_daemon *d)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");

    if (!dir || !*dir || strlen(dir) > 60)
        dir = "/tmp";
    snprintf(d->dir, sizeof(d->dir), "%s/live-XXXXXX", dir);
    if (!mkdtemp(d->dir)) {
        rig_note("%s: %s", d->dir, strerror(errno));
        return -1;
    }
    snprintf(d->socket, sizeof(d->socket), "%s/socket", d->dir);
    snprintf(d->log, sizeof(d->log), "%s/log", d->dir);
    d->points = -1;
    return rig_daemon_start(d);
}

bool rig_daemon_alive(const struct rig_daemon *d)
{
    siginfo_t info = {.si_pid = 0};
    return d->pid && !waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG | WNOWAIT) && !info.si_pid;
}

int rig_daemon_stop(struct rig_daemon *d)
{
    int status = -1;

    kill(d->pid, SIGTERM);
    if (!rig_wait_child(d->pid, STOP_MS, &status)) {
        rig_note("fakehypd did not end within %d ms of SIGTERM", STOP_MS);
        rig_daemon_print_log(d);
        rig_daemon_kill(d);
        return -1;
    }
    d->pid = 0;
    close_points(d);
    return status;
}

void rig_daemon_kill(struct rig_daemon *d)
{
    kill(d->pid, SIGKILL);
    while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    d->pid = 0;
    close_points(d);
}

bool rig_logged(const char *text)
{
    char line[1024];
    bool found = false;
    FILE *f = fopen(rig.log, "re");

    while (f && !found && fgets(line, sizeof(line), f))
        found = strstr(line, text);
    if (f)
        fclose(f);
    return found;
}

bool rig_logs_within(const char *text, unsigned timeout_ms)
{
    for (unsigned i = 0; i < timeout_ms / 5 && !rig_logged(text); i++)
        rig_sleep_ms(5);
    return rig_logged(text);
}

void rig_daemon_print_log(const struct rig_daemon *d)
{
    char text[4096], *save = NULL;
    ssize_t n = -1;
    int fd = open(d->log, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    /* Its end is what matters. */
    if (lseek(fd, -(off_t)sizeof(text) + 1, SEEK_END) >= 0 || lseek(fd, 0, SEEK_SET) >= 0)
        n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        rig_note("fakehypd: %s", line);
}

void rig_daemon_close(struct rig_daemon *d)
{
    if (d->pid)
        rig_daemon_stop(d);
    unlink(d->socket);
    unlink(d->log);
    rmdir(d->dir);
}
