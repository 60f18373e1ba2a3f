/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/patience.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 2

struct patience {
    const char *path;
    struct ctl_io *io;
    sem_t ended;
    pthread_t thread;
};

/* Whose socket it is: the kernel knows without asking.  0: nobody's that can be seen. */
static pid_t listener_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred cred = {.pid = 0};
    socklen_t size = sizeof(cred);
    size_t len = strlen(path);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (len < sizeof(address.sun_path)) {
        memcpy(address.sun_path, path, len);
        /* An abstract name has a NUL in front and none behind. */
        if (path[0] == '@')
            address.sun_path[0] = '\0';
        else
            len++;
        if (sock >= 0 &&
            connect(sock, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) == 0)
            getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size);
    }
    if (sock >= 0)
        close(sock);
    return cred.pid;
}

static bool is_stopped(pid_t pid)
{
    char path[48], line[256] = "";

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    const char *state = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
    fclose(f);
    /* "PID (NAME) STATE ...", and any character may be in a name. */
    return state && (!strncmp(state, ") T", 3) || !strncmp(state, ") t", 3));
}

static void *wait_and_say(void *arg)
{
    struct patience *p = arg;
    struct timespec until;
    int rc;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_S;
    while ((rc = sem_clockwait(&p->ended, CLOCK_MONOTONIC, &until)) && errno == EINTR)
        ;
    if (rc == 0)
        return NULL;
    pid_t pid = listener_of(p->path);
    if (pid > 0 && is_stopped(pid))
        fprintf(p->io->err,
                "fakehypctl: fakehypd (pid %d) does not answer: it is stopped, kill -CONT %d lets it go on; "
                "--timeout limits the wait\n",
                (int)pid, (int)pid);
    else if (pid > 0)
        fprintf(p->io->err, "fakehypctl: fakehypd (pid %d) does not answer; --timeout limits the wait\n", (int)pid);
    else
        fprintf(p->io->err, "fakehypctl: %s does not answer; --timeout limits the wait\n", p->path);
    fflush(p->io->err);
    return NULL;
}

struct patience *patience_begin(const char *path, struct ctl_io *io)
{
    struct patience *p = malloc(sizeof(*p));

    if (!p)
        return NULL;
    p->path = path;
    p->io = io;
    sem_init(&p->ended, 0, 0);
    if (pthread_create(&p->thread, NULL, wait_and_say, p)) {
        sem_destroy(&p->ended);
        free(p);
        return NULL;
    }
    return p;
}

void patience_end(struct patience *p)
{
    if (!p)
        return;
    sem_post(&p->ended);
    pthread_join(p->thread, NULL);
    sem_destroy(&p->ended);
    free(p);
}
