/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    int priority; /* of syslog(3), for the journal */
} levels[LOG_NR_LEVELS] = {
    [LOG_LEVEL_ERROR] = {"error", 3},
    [LOG_LEVEL_WARNING] = {"warning", 4},
    [LOG_LEVEL_INFO] = {"info", 6},
    [LOG_LEVEL_DEBUG] = {"debug", 7},
};

static enum log_level log_max = LOG_LEVEL_INFO;
static int log_fd = STDERR_FILENO;
static bool log_journal;

int log_level_of(const char *name)
{
    for (int i = 0; i < LOG_NR_LEVELS; i++)
        if (!strcmp(name, levels[i].name))
            return i;
    return -1;
}

const char *log_remedy(int rc)
{
    switch (rc) {
    case -EMFILE:
        return "; the limit of descriptors is too low (ulimit -n)";
    case -ENOMEM:
        return "; is there a limit of address space (ulimit -v)?";
    default:
        return "";
    }
}

int log_open(enum log_level level, const char *path)
{
    log_max = level;
    log_journal = !path && getenv("JOURNAL_STREAM");
    if (!path)
        return 0;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return -errno;
    log_fd = fd;
    return 0;
}

/* Where there is no journal to add the time, a file needs it. */
static size_t prefix(enum log_level level, char *buf, size_t size)
{
    int n = 0;

    if (log_journal)
        n = snprintf(buf, size, "<%d>", levels[level].priority);
    if (log_fd != STDERR_FILENO) {
        struct timespec now;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &tm);
        n = (int)strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ ", &tm);
    }
    return (size_t)n + (size_t)snprintf(buf + n, size - (size_t)n, "fakehypd: %s: ", levels[level].name);
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[1024];
    va_list args;

    if (level > log_max)
        return;
    size_t len = prefix(level, line, sizeof(line));
    va_start(args, format);
    int n = vsnprintf(line + len, sizeof(line) - len, format, args);
    va_end(args);
    len += n < 0 ? 0 : (size_t)n;
    if (len > sizeof(line) - 1)
        len = sizeof(line) - 1;
    for (size_t i = 0; i < len; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    line[len++] = '\n';
    /* One write a line: lines of several processes do not mix.  Nobody could be told of a failure. */
    while (write(log_fd, line, len) < 0 && errno == EINTR)
        ;
}
