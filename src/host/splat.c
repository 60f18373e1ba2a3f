/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel's own detectors find: sleeps in atomic context, lock orders, dangling pointers. */
#include "src/host/internal.h"

#include <stdarg.h>
#include <stdio.h>

void host_splat(struct host *host, const char *format, ...)
{
    char *text = host->splats[host->nr_splats++ % HOST_MAX_SPLATS];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(host->splats[0]), format, args);
    va_end(args);
    struct host_event event = {.kind = HOST_EV_splat};
    snprintf(event.note, sizeof(event.note), "%.*s", (int)sizeof(event.note) - 1, text);
    host_trace(host, &event);
}

const char *host_next_splat(struct host *host)
{
    if (host->nr_splats - host->splats_told > HOST_MAX_SPLATS)
        host->splats_told = host->nr_splats - HOST_MAX_SPLATS;
    return host->splats_told < host->nr_splats ? host->splats[host->splats_told++ % HOST_MAX_SPLATS] : NULL;
}

void host_might_sleep(struct host *host, const char *what)
{
    if (host->in_irq)
        host_splat(host, "BUG: sleeping function called from invalid context: %s", what);
}

void gmem_unpin_irq(struct ref *ref)
{
    struct host *host = ref->host;
    host->in_irq++;
    gmem_unpin(ref);
    host->in_irq--;
}

/* Two locks are taken in one order everywhere, or two tasks may wait for each other. */
void host_lock_order(struct host *host, enum host_lock held, enum host_lock taken)
{
    static const char *const names[HOST_LOCK_COUNT] = {"mmap_lock", "invalidate_lock"};
    host->lock_order[held] |= 1u << taken;
    if (host->lock_order[taken] & 1u << held)
        host_splat(host, "possible circular locking dependency: %s -> %s, elsewhere %s -> %s", names[held],
                   names[taken], names[taken], names[held]);
}
