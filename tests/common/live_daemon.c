/* SPDX-License-Identifier: BSD-2-Clause */
/* A daemon on a private socket. */
#include "tests/common/live_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOTIFY_FD 3
#define READY_MS 10000
#define STOP_MS 10000

extern char **environ;

static int spawn(struct rig_daemon *d, const char *binary, int notify)
{
    char *argv[] = {(char *)"fakehypd",
                    (char *)"--socket",
                    d->socket,
                    (char *)"--foreground",
                    (char *)"--notify-fd",
                    (char *)"3",
                    (char *)"--log-file",
                    d->log,
                    (char *)"--log-level",
                    (char *)"info",
                    NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    /* Whoever reads this program's output must not wait for the daemon. */
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, notify, NOTIFY_FD);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, d->log, O_WRONLY | O_APPEND | O_CREAT, 0600);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&files, NOTIFY_FD + 1);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int rc = posix_spawn(&d->pid, binary, &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return rc;
}

int rig_daemon_start(struct rig_daemon *d)
{
    const char *binary = getenv("FAKEHYP_DAEMON");
    int notify[2];
    char byte;

    if (!binary) {
        rig_note("FAKEHYP_DAEMON is not set: it names the fakehypd to test");
        return -1;
    }
    if (pipe2(notify, O_CLOEXEC))
        return -1;
    d->pid = 0;
    int rc = spawn(d, binary, notify[1]);
    close(notify[1]);
    if (rc) {
        rig_note("%s: %s", binary, strerror(rc));
        d->pid = 0;
        close(notify[0]);
        return -1;
    }
    struct pollfd pfd = {.fd = notify[0], .events = POLLIN};
    bool ready = poll(&pfd, 1, READY_MS) == 1 && read(notify[0], &byte, 1) == 1;
    close(notify[0]);
    if (!ready) {
        rig_note("fakehypd did not become ready");
        rig_daemon_print_log(d);
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
    return status;
}

void rig_daemon_kill(struct rig_daemon *d)
{
    kill(d->pid, SIGKILL);
    while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    d->pid = 0;
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
