/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's log: one line a message, "fakehypd: LEVEL: text". */
#ifndef SRC_FAKEHYPD_LOG_H
#define SRC_FAKEHYPD_LOG_H

/* The numbers that live_io.log and machine_config.log use. */
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG, LOG_NR_LEVELS };

/* The level of that name, or -1. */
int log_level_of(const char *name);

/*
 * Lines go to stderr, or are appended to `path`, which stays open to the end: the thread of --seccomp=log may still
 * have something to say.  0 or -errno.
 */
int log_open(enum log_level level, const char *path);

/* What a user can do about that error, to be put after its text; "" when it says so itself. */
const char *log_remedy(int rc);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
