/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/fakehypd/log.h"

/* Ends the parent: 0 when the child is ready, else with the child's own status. */
static _Noreturn void wait_ready(pid_t child, int fd)
{
    char byte;
    ssize_t n;
    int status;

    while ((n = read(fd, &byte, 1)) < 0 && errno == EINTR)
        ;
    if (n == 1)
        _exit(EXIT_SUCCESS);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            _exit(EXIT_FAILURE);
    _exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
}

int background_enter(void)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC)) {
        int err = -errno;
        log_error("--daemon: %s%s", strerrordesc_np(-err), log_remedy(err));
        return err;
    }
    pid_t child = fork();
    if (child < 0) {
        int err = -errno;
        log_error("--daemon: fork: %s", strerrordesc_np(-err));
        close(fds[0]);
        close(fds[1]);
        return err;
    }
    if (child) {
        close(fds[1]);
        wait_ready(child, fds[0]);
    }
    close(fds[0]);
    setsid();
    return fds[1];
}

void background_ready(int background, bool keep_stderr)
{
    if (background < 0)
        return;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        for (int fd = STDIN_FILENO; fd <= (keep_stderr ? STDOUT_FILENO : STDERR_FILENO); fd++)
            dup2(null, fd);
        if (null > STDERR_FILENO)
            close(null);
    }
    while (write(background, "", 1) < 0 && errno == EINTR)
        ;
    close(background);
}
