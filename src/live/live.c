/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/live/internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIPE_BYTES (1 << 20) /* what an unprivileged process may have */

const struct stage_ops live_stage_ops = {
    .name = "live",
    .file_create = live_file_create,
    .file_destroy = live_file_destroy,
    .begin = live_begin,
    .move = live_move,
    .end = live_end,
    .populated = live_populated,
    .allocate = live_allocate,
    .discard = live_discard,
    .read = live_read,
    .write = live_write,
    .slot_add = live_slot_add,
    .slot_remove = live_slot_remove,
    .guest_zap = live_guest_zap,
    .guest_resume = live_guest_resume,
    .guest_stop = live_guest_stop,
};

void live_log(struct live *live, int level, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    live->io.log(live->io.ctx, level, text);
}

struct live *live_new(const struct live_io *io)
{
    struct live *live = calloc(1, sizeof(*live));
    if (!live)
        return NULL;
    live->io = *io;
    live->pipe[0] = live->pipe[1] = -1;
    live->direct_map_uffd = -1;
    return live;
}

static uint64_t read_number(const char *path, uint64_t otherwise)
{
    unsigned long long n = otherwise;
    FILE *f = fopen(path, "re");
    if (f) {
        if (fscanf(f, "%llu", &n) != 1)
            n = otherwise;
        fclose(f);
    }
    return n;
}

int live_start(struct live *live, struct machine *machine)
{
    live->machine = machine;
    live->max_map_count = read_number("/proc/sys/vm/max_map_count", 65530);
    if (pipe2(live->pipe, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    int size = fcntl(live->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    if (size < 0)
        size = fcntl(live->pipe[1], F_GETPIPE_SZ);
    if (size < (int)PAGE)
        return -EIO;
    live->pipe_pages = (size_t)size / PAGE;
    live->copy = malloc(live->pipe_pages * PAGE);
    if (!live->copy)
        return -ENOMEM;
    int rc = direct_map_open(live);
    if (rc)
        live_log(live, 0, "userfaultfd: %s; `fakehypctl doctor` tells what this machine lacks", strerrordesc_np(-rc));
    return rc;
}

void live_free(struct live *live)
{
    if (!live)
        return;
    assert(!live->files && !live->guests && !live->views && !live->agents);
    for (unsigned i = 0; i < 2; i++)
        if (live->pipe[i] >= 0)
            close(live->pipe[i]);
    if (live->direct_map_uffd >= 0)
        close(live->direct_map_uffd);
    free(live->copy);
    free(live);
}
