/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/client/client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "0.1.0"
#endif

#define MAX_HOLDERS 64

static _Thread_local char last_error[1024];
static _Thread_local struct fakehyp_holder holders[MAX_HOLDERS];
static _Thread_local size_t nr_holders;

const char *fakehyp_version(void)
{
    return PACKAGE_VERSION;
}

const char *fakehyp_last_error(void)
{
    return last_error;
}

int fh_fail(int err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(last_error, sizeof(last_error), format, args);
    va_end(args);
    /* Which of the two had none left is not known here; the daemon's own text says. */
    size_t len = strlen(last_error);
    if (err == -EMFILE && !strstr(last_error, "RLIMIT_NOFILE"))
        snprintf(last_error + len, sizeof(last_error) - len,
                 "; the limit of descriptors (ulimit -n) of this program or of fakehypd is too low");
    return err;
}

void fh_note_holders(const Fakehyp__ConvertReply *convert)
{
    nr_holders = 0;
    if (!convert)
        return;
    for (size_t i = 0; i < convert->n_holder && nr_holders < MAX_HOLDERS; i++) {
        const Fakehyp__Holder *from = convert->holder[i];
        struct fakehyp_holder *to = &holders[nr_holders++];
        *to = (struct fakehyp_holder){
            .offset = from->offset, .count = from->count, .pid = (pid_t)from->pid, .age_ns = from->since_ns};
        snprintf(to->what, sizeof(to->what), "%s", from->what);
        snprintf(to->kind, sizeof(to->kind), "%s", from->kind);
    }
}

size_t fakehyp_last_holders(struct fakehyp_holder *out, size_t max)
{
    if (out)
        memcpy(out, holders, (max < nr_holders ? max : nr_holders) * sizeof(*out));
    return nr_holders;
}
