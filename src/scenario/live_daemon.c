/* SPDX-License-Identifier: BSD-2-Clause */
/* The runner's own daemon: it has no name in the file system and ends with the runner. */
#include "src/scenario/live.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/scenario/recording.h"

#ifndef FAKEHYPD_PATH
#define FAKEHYPD_PATH "/usr/local/bin/fakehypd"
#endif

enum { LISTEN_FD = 3, POINTS_FD, NOTIFY_FD, TRACE_FD, FIRST_FREE_FD };

extern char **environ;

/* $FAKEHYP_DAEMON, the one beside this program, the installed one. */
static void find_binary(char *buf, size_t size)
{
    const char *named = getenv("FAKEHYP_DAEMON");
    char self[900];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;

    snprintf(buf, size, "%s", named && *named ? named : FAKEHYPD_PATH);
    if ((named && *named) || !slash)
        return;
    *slash = '\0';
    snprintf(self + strlen(self), sizeof(self) - strlen(self), "/fakehypd");
    if (!access(self, X_OK))
        snprintf(buf, size, "%s", self);
}

static _Noreturn void become(const char *binary, int listener, int points, int notify, int log, int trace, pid_t parent)
{
    char *argv[] = {(char *)"fakehypd",
                    (char *)"--listen-fd=3",
                    (char *)"--points-fd=4",
                    (char *)"--notify-fd=5",
                    (char *)"--oracle=on",
                    (char *)"--foreground",
                    (char *)"--log-level=warning",
                    trace >= 0 ? (char *)"--trace=/proc/self/fd/6" : NULL,
                    NULL};
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (int sig = 1; sig <= SIGRTMAX; sig++)
        signal(sig, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Out of each other's way first. */
    listener = fcntl(listener, F_DUPFD, FIRST_FREE_FD);
    points = fcntl(points, F_DUPFD, FIRST_FREE_FD);
    notify = fcntl(notify, F_DUPFD, FIRST_FREE_FD);
    log = fcntl(log, F_DUPFD, FIRST_FREE_FD);
    if (trace >= 0)
        trace = fcntl(trace, F_DUPFD, FIRST_FREE_FD);
    int null = open("/dev/null", O_RDONLY);
    if (dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0 ||
        dup2(listener, LISTEN_FD) < 0 || dup2(points, POINTS_FD) < 0 || dup2(notify, NOTIFY_FD) < 0 ||
        (trace >= 0 && dup2(trace, TRACE_FD) < 0))
        _exit(1);
    close_range(trace >= 0 ? FIRST_FREE_FD : TRACE_FD, ~0u, 0);
    execve(binary, argv, environ);
    dprintf(STDERR_FILENO, "%s: %s\n", binary, strerror(errno));
    _exit(127);
}

static int listen_somewhere(char *name, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(address);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    /* Only the family: the kernel chooses an abstract name. */
    if (sock < 0 || bind(sock, (const struct sockaddr *)&address, sizeof(sa_family_t)) ||
        getsockname(sock, (struct sockaddr *)&address, &length) || listen(sock, SOMAXCONN)) {
        if (sock >= 0)
            close(sock);
        return -1;
    }
    snprintf(name, size, "@%.*s", (int)(length - offsetof(struct sockaddr_un, sun_path) - 1), address.sun_path + 1);
    return sock;
}

static bool spawn(struct live_daemon *d, const char *binary)
{
    int listener = listen_somewhere(d->socket, sizeof(d->socket)), points[2] = {-1, -1}, notify[2] = {-1, -1};
    const pid_t self = getpid();
    bool ready = false;
    char byte;

    d->log = memfd_create("fakehypd-log", MFD_CLOEXEC);
    if (listener >= 0 && d->log >= 0 && !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, points) &&
        !pipe2(notify, O_CLOEXEC)) {
        d->pid = fork();
        if (!d->pid)
            become(binary, listener, points[1], notify[1], d->log, d->trace ? fileno(d->trace) : -1, self);
        close(notify[1]);
        struct pollfd pfd = {.fd = notify[0], .events = POLLIN};
        ready = d->pid > 0 && poll(&pfd, 1, LIVE_ANSWER_MS) == 1 && read(notify[0], &byte, 1) == 1;
        close(notify[0]);
        close(points[1]);
    }
    if (listener >= 0)
        close(listener);
    d->points = points[0];
    if (d->pid < 0)
        d->pid = 0;
    return ready;
}

const char *live_daemon_start(struct live_daemon *d, FILE *trace)
{
    static char why[1200];
    char binary[1000], log[160] = "";

    find_binary(binary, sizeof(binary));
    *d = (struct live_daemon){.points = -1, .log = -1, .trace = trace ? recording_new() : NULL, .trace_to = trace};
    if (spawn(d, binary)) {
        int rc = fakehyp_connect(d->socket, &d->observer);
        if (!rc)
            return NULL;
        snprintf(why, sizeof(why), "%s", fakehyp_last_error());
    } else {
        ssize_t n = d->log >= 0 ? pread(d->log, log, sizeof(log) - 1, 0) : 0;
        log[n > 0 ? strcspn(log, "\n") : 0] = '\0';
        snprintf(why, sizeof(why), "%s does not start: %s; FAKEHYP_DAEMON names another", binary, log);
    }
    live_daemon_stop(d);
    return why;
}

void live_daemon_stop(struct live_daemon *d)
{
    fakehyp_disconnect(d->observer);
    d->observer = NULL;
    if (d->pid) {
        kill(d->pid, SIGTERM);
        for (unsigned i = 0; i < LIVE_ANSWER_MS && waitpid(d->pid, NULL, WNOHANG) == 0; i++) {
            if (i == LIVE_ANSWER_MS / 2)
                kill(d->pid, SIGKILL);
            usleep(1000);
        }
    }
    d->pid = 0;
    recording_end(d->trace, d->trace_to);
    d->trace = NULL;
    d->spoilt = false;
    if (d->points >= 0)
        close(d->points);
    if (d->log >= 0)
        close(d->log);
    d->points = d->log = -1;
}

void live_daemon_log(const struct live_daemon *d, sc_report_fn *report, void *ctx)
{
    char text[2048], *save = NULL;
    off_t size = lseek(d->log, 0, SEEK_END), from = size > (off_t)sizeof(text) - 1 ? size - (off_t)sizeof(text) + 1 : 0;
    ssize_t n = pread(d->log, text, sizeof(text) - 1, from);

    text[n > 0 ? n : 0] = '\0';
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        report(ctx, line);
}

const char *live_daemon_points(struct live_daemon *d, const char *command)
{
    static char text[16384];
    struct pollfd pfd = {.fd = d->points, .events = POLLIN};
    ssize_t n;

    if (send(d->points, command, strlen(command), MSG_NOSIGNAL) < 0)
        return "the daemon is gone";
    do {
        if (poll(&pfd, 1, LIVE_ANSWER_MS) != 1 || (n = recv(d->points, text, sizeof(text) - 1, 0)) <= 0)
            return "the daemon does not answer";
        text[n] = '\0';
        /* A task that was held meanwhile is not what was asked. */
    } while (!strncmp(text, "held ", 5));
    return text;
}

json_t *live_query(struct live_daemon *d, const char *what, uint64_t gmem, uint64_t offset, int *rc)
{
    char *text = NULL;
    json_t *answer;

    *rc = fakehyp_query_raw(d->observer, &(struct fakehyp_query_args){.what = what, .gmem = gmem, .offset = offset},
                            &text);
    if (*rc)
        return NULL;
    answer = json_loads(text, 0, NULL);
    free(text);
    if (!answer)
        *rc = -EPROTO;
    return answer;
}
