/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_points.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_MS 10000

static const char *receive(const struct rig_daemon *d, unsigned timeout_ms)
{
    static char text[NR_SCHED_POINTS * 200];
    struct pollfd pfd = {.fd = d->points, .events = POLLIN};

    if (poll(&pfd, 1, (int)timeout_ms) != 1)
        return NULL;
    ssize_t n = recv(d->points, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return NULL;
    text[n] = '\0';
    return text;
}

const char *points_ask(const struct rig_daemon *d, const char *command)
{
    const char *answer;

    assert_int_equal(send(d->points, command, strlen(command), MSG_NOSIGNAL), strlen(command));
    /* A task that was held meanwhile is not what was asked. */
    while ((answer = receive(d, ANSWER_MS)) && !strncmp(answer, "held ", 5))
        ;
    assert_non_null(answer);
    return answer;
}

void points_hold(const struct rig_daemon *d, const char *label, uint64_t n)
{
    char command[100];

    snprintf(command, sizeof(command), "hold %s:%" PRIu64, label, n);
    assert_string_equal(points_ask(d, command), "ok");
}

void points_release(const struct rig_daemon *d)
{
    assert_string_equal(points_ask(d, "release"), "ok");
}

bool points_wait_held(const struct rig_daemon *d, unsigned timeout_ms)
{
    const char *text = receive(d, timeout_ms);
    return text && !strncmp(text, "held ", 5);
}

void points_passed(const struct rig_daemon *d, uint64_t passed[NR_SCHED_POINTS])
{
    const char *line = points_ask(d, "points");

    for (int i = 0; i < NR_SCHED_POINTS; i++) {
        size_t len = strlen(sched_points[i].label);
        assert_memory_equal(line, sched_points[i].label, len);
        assert_int_equal(sscanf(line + len, " %" SCNu64, &passed[i]), 1);
        line = strchr(line, '\n');
        assert_non_null(line++);
    }
}
