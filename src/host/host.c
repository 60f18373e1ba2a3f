/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void caller_explain(struct caller *caller, const char *format, ...)
{
    if (!caller)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(caller->message, sizeof(caller->message), format, args);
    va_end(args);
}

struct host *host_new(const struct host_arch *arch)
{
    struct host *host = calloc(1, sizeof(*host));
    if (!host)
        return NULL;
    host->arch = *arch;
    host->next_vm = 1;
    host->next_ref = 1;
    host->next_gmem = 1;
    host->history = calloc(CONV_HISTORY, sizeof(*host->history));
    if (!host->history || frames_init(&host->frames, arch->base_pfn, arch->nr_pfns)) {
        free(host->history);
        free(host);
        return NULL;
    }
    return host;
}

void host_free(struct host *host)
{
    if (!host)
        return;
    frames_destroy(&host->frames);
    free(host->history);
    free(host);
}

void host_counts(const struct host *host, struct host_counts *out)
{
    *out = (struct host_counts){
        .vms = host->nr_vms,
        .gmems = host->nr_gmems,
        .pins = host->nr_pins,
        .refs = host->nr_refs,
        .hyp_asked = host->hyp_asked,
        .ram_frames = host->frames.nr_ram,
        .data_frames = host->frames.nr_data,
        .base_pfn = host->frames.base,
        .top_pfn = host->frames.base + host->frames.bump,
    };
}

struct vm *host_vm_next(const struct host *host, const struct vm *after)
{
    return after ? after->next : host->vms;
}

struct gmem *host_gmem_next(const struct host *host, const struct gmem *after)
{
    return after ? after->next : host->gmems;
}

void host_trace(struct host *host, const struct host_event *event)
{
    host->arch.trace(host->arch.ctx, event);
}

int64_t host_hvc(struct host *host, unsigned cpu, uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
    const uint64_t args[4] = {a0, a1, a2, a3};
    int64_t rc = host->arch.hvc(host->arch.ctx, cpu, number, args);
    if (rc < 0)
        host_trace(host, &(struct host_event){.kind = HOST_EV_hvc, .a0 = number, .a1 = a0, .rc = rc});
    return rc;
}

bool host_frame_slot(const struct host *host, uint64_t pfn, struct gmem **gmem, uint64_t *index)
{
    const struct frame *f = frame_of(host, pfn);
    if (!f || !f->owner)
        return false;
    *gmem = gmem_by_id(host, f->owner);
    *index = f->index;
    return *gmem != NULL;
}

bool host_next_free_frame(const struct host *host, uint64_t *pfn)
{
    const struct frames *fr = &host->frames;
    for (uint64_t p = *pfn > fr->base ? *pfn : fr->base; p < fr->base + fr->bump; p++) {
        const struct frame *f = &fr->table[p - fr->base];
        /* Of a large folio the first frame alone is counted. */
        if (f->owner || f->flags & FRAME_ORPHAN || fr->table[folio_head(host, p) - fr->base].refcount)
            continue;
        *pfn = p;
        return true;
    }
    return false;
}
