/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/points.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/fakehypd/log.h"
#include "src/machine/hold.h"
#include "src/proto/chan.h"

#define COMMAND_MAX 128
#define ANSWER_MAX (NR_SCHED_POINTS * 160 + 256)

struct points {
    struct hold hold;
    struct watch *watch;
    int fd; /* -1: closed, passages are only counted */
};

static void say(struct points *points, const char *text)
{
    /* Who does not read is told nothing; a test that waits for it has a limit. */
    if (points->fd >= 0 && chan_send(points->fd, text, strlen(text), NULL, 0, MSG_DONTWAIT))
        log_warning("--points-fd: \"%.40s\" could not be told", text);
}

static void on_held(void *ctx, const char *label, const struct task *task)
{
    char text[COMMAND_MAX];

    snprintf(text, sizeof(text), "held %s %" PRIu64 " %s", label, task_id(task), task_name(task));
    say(ctx, text);
}

/* A line a point: label, passages since the last time, meaning. */
static void tell_points(struct points *points)
{
    char text[ANSWER_MAX];
    size_t used = 0;

    for (int i = 0; i < NR_SCHED_POINTS; i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %" PRIu64 " %s\n", sched_points[i].label,
                                 points->hold.passed[i], sched_points[i].meaning);
        points->hold.passed[i] = 0;
    }
    say(points, text);
}

static void arm(struct points *points, char *label)
{
    char text[ANSWER_MAX], *number = strrchr(label, ':'), *end = NULL;
    uint64_t n = 1;

    /* The labels have a colon of their own. */
    if (number && number[1] >= '0' && number[1] <= '9') {
        n = strtoull(number + 1, &end, 10);
        *number = '\0';
        if (*end)
            n = 0;
    }
    switch (hold_arm(&points->hold, label, n)) {
    case 0:
        say(points, "ok");
        break;
    case -ENOENT:
        memcpy(text, "error: ", 7);
        sched_point_unknown(label, text + 7, sizeof(text) - 7);
        say(points, text);
        break;
    case -EBUSY:
        say(points, "error: a task is held already: release it first");
        break;
    default:
        say(points, "error: which passage? as in hold convert:stored:2, the first is 1");
    }
}

static void obey(struct points *points, char *command)
{
    if (!strcmp(command, "points")) {
        tell_points(points);
    } else if (!strcmp(command, "release")) {
        hold_release(&points->hold);
        say(points, "ok");
    } else if (!strncmp(command, "release ", 8)) {
        /* In one: the task that was held passes no point in between. */
        hold_release(&points->hold);
        arm(points, command + 8);
    } else if (!strncmp(command, "hold ", 5)) {
        arm(points, command + 5);
    } else {
        say(points, "error: the commands are \"points\", \"hold LABEL[:N]\" and \"release [LABEL[:N]]\"");
    }
}

static void on_command(void *arg, int events)
{
    struct points *points = arg;
    char command[COMMAND_MAX];

    ssize_t n = events ? read(points->fd, command, sizeof(command) - 1) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        points_close(points);
        return;
    }
    command[n] = '\0';
    obey(points, command);
}

int points_open(struct loop *loop, int fd, struct points **out)
{
    int type = -1;
    socklen_t size = sizeof(type);
    struct points *points = calloc(1, sizeof(*points));

    if (!points)
        return -ENOMEM;
    points->fd = fd;
    hold_init(&points->hold, on_held, points);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_SEQPACKET || fcntl(fd, F_SETFD, FD_CLOEXEC) ||
        fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK)) {
        log_error("--points-fd: descriptor %d is no socket of type SOCK_SEQPACKET", fd);
        free(points);
        return -EINVAL;
    }
    points->watch = watch_new(loop, fd, on_command, points);
    if (!points->watch) {
        free(points);
        return -ENOMEM;
    }
    watch_set(points->watch, UV_READABLE);
    loop->hold = &points->hold;
    *out = points;
    return 0;
}

void points_close(struct points *points)
{
    if (!points || points->fd < 0)
        return;
    hold_release(&points->hold);
    watch_free(points->watch);
    points->watch = NULL;
    close(points->fd);
    points->fd = -1;
}

void points_free(struct points *points)
{
    points_close(points);
    free(points);
}
