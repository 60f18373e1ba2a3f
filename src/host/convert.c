/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * KVM_SET_MEMORY_ATTRIBUTES2: conversion between shared and private, policy D
 * (what was merged): unmap everybody, compare reference counts, never wait,
 * all or nothing.  Order of checks and steps: spec guest_memfd.md 1.3, 3.2, 3.3.
 */
#include "src/host/internal.h"

#include <errno.h>
#include <stdio.h>

static int check_arguments(const struct gmem *gmem, const struct gmem_attributes2 *a, struct caller *caller)
{
    unsigned long long offset = a->offset, size = a->size, end = gmem->nr_pages << HOST_PAGE_SHIFT;

    if (a->flags) {
        caller_explain(caller, "flags 0x%llx: must be 0 (content modes were dropped from the ABI)",
                       (unsigned long long)a->flags);
        return -EINVAL;
    }
    if (!gmem->private_memory) {
        caller_explain(caller, "the VM type of this guest_memfd has no private memory: create a protected VM");
        return -EINVAL;
    }
    if (a->attributes & ~KVM_MEMORY_ATTRIBUTE_PRIVATE) {
        caller_explain(caller, "attributes 0x%llx: only PRIVATE (0x8) exists", (unsigned long long)a->attributes);
        return -EINVAL;
    }
    if (!size || offset + size < offset) {
        caller_explain(caller, "range [0x%llx, +0x%llx): empty, or it wraps", offset, size);
        return -EINVAL;
    }
    if ((offset | size) & (HOST_PAGE_SIZE - 1)) {
        caller_explain(caller, "range [0x%llx, +0x%llx): offset and size must be multiples of 4096", offset, size);
        return -EINVAL;
    }
    if (offset >= end || offset + size > end) {
        caller_explain(caller, "range [0x%llx, +0x%llx): the file ends at 0x%llx", offset, size, end);
        return -EINVAL;
    }
    return 0;
}

static int check_references(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller,
                            struct gmem_busy *busy)
{
    struct lru_drained drained = {false, false};
    uint64_t index, pfn;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1) {
        sched_relax_due();
        if (!folio_in_use(gmem, index, pfn, &drained))
            continue;
        uint32_t refcount = folio_refcount(gmem->host, pfn), mapcount = folio_mapcount(gmem->host, pfn);
        busy->error_offset_valid = true;
        busy->error_offset = index << HOST_PAGE_SHIFT;
        unsigned nr = gmem_holders(gmem, index, busy->holders, BUSY_MAX_HOLDERS);
        busy->nr_holders = nr < BUSY_MAX_HOLDERS ? nr : BUSY_MAX_HOLDERS;
        if (nr)
            caller_explain(caller,
                           "page at offset 0x%llx is in use: refcount %u, held by %s (%s, pid %u)%s; drop that "
                           "reference and retry",
                           (unsigned long long)busy->error_offset, refcount, busy->holders[0].what,
                           busy->holders[0].kind, busy->holders[0].pid, nr > 1 ? " and others" : "");
        else
            caller_explain(caller, "page at offset 0x%llx is in use: refcount %u, mapcount %u; retry",
                           (unsigned long long)busy->error_offset, refcount, mapcount);
        struct host_event event = {.kind = HOST_EV_busy,
                                   .vm = gmem->vm_id,
                                   .gmem = gmem->id,
                                   .offset = busy->error_offset,
                                   .size = HOST_PAGE_SIZE,
                                   .a0 = refcount,
                                   .a1 = mapcount,
                                   .pid = nr ? busy->holders[0].pid : 0};
        snprintf(event.note, sizeof(event.note), "%.*s", (int)sizeof(event.note) - 1, nr ? busy->holders[0].what : "");
        host_trace(gmem->host, &event);
        return -EAGAIN;
    }
    return 0;
}

static void remember(struct gmem *gmem, uint64_t start, uint64_t end, bool to_private, const struct caller *caller)
{
    struct host *host = gmem->host;
    uint64_t seq = ++host->conv_seq;
    struct conversion *c = &host->history[seq % CONV_HISTORY];
    *c = (struct conversion){.seq = seq, .t_ns = sched_now(), .to_private = to_private};
    if (caller) {
        c->pid = caller->pid;
        snprintf(c->program, sizeof(c->program), "%s", caller->program ? caller->program : "");
    }
    rangemap_set(&gmem->last_conv, start, end, seq);
}

static int convert_locked(struct gmem *gmem, uint64_t start, uint64_t end, bool to_private, struct caller *caller,
                          struct gmem_busy *busy)
{
    const struct host_arch *arch = &gmem->host->arch;
    uint64_t want = to_private ? ATTR_PRIVATE : ATTR_SHARED;
    int rc;

    if (rangemap_all(&gmem->attr, start, end, want))
        return 0;
    if (rangemap_reserve(&gmem->attr) || rangemap_reserve(&gmem->last_conv)) {
        caller_explain(caller, "no memory for the attribute tree");
        return -ENOMEM;
    }
    if (to_private) {
        unmap_mapping_range(gmem, start, end);
        sched_point("convert:unmapped");
        /* Pages that processes populated on their own are pages of the model from here on. */
        rc = gmem_adopt(gmem, start, end);
        if (rc)
            caller_explain(caller, "pages of the range that processes have touched do not fit into the machine: start "
                                   "fakehypd with more --memory");
        else
            rc = check_references(gmem, start, end, caller, busy);
        if (rc)
            return rc;
        sched_point("convert:checked");
    }
    rc = arch->prepare(arch->ctx, gmem->file, start, end, !to_private, caller);
    if (rc)
        return rc;
    sched_point("convert:prepared");
    /* The point of no return: nothing below fails. */
    rangemap_set(&gmem->attr, start, end, want);
    remember(gmem, start, end, to_private, caller);
    sched_point("convert:stored");
    arch->commit(arch->ctx, gmem->file, start, end);
    return 0;
}

int gmem_set_attributes2(struct gmem *gmem, const struct gmem_attributes2 *attr, struct caller *caller,
                         struct gmem_busy *busy)
{
    *busy = (struct gmem_busy){0};
    int rc = check_arguments(gmem, attr, caller);
    if (!rc) {
        uint64_t start = attr->offset >> HOST_PAGE_SHIFT;
        task_lock_exclusive(&gmem->invalidate_lock);
        sched_point("convert:locked");
        rc = convert_locked(gmem, start, start + (attr->size >> HOST_PAGE_SHIFT),
                            attr->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE, caller, busy);
        task_unlock_exclusive(&gmem->invalidate_lock);
        if (rc == -ENOMEM) {
            busy->error_offset_valid = true;
            busy->error_offset = attr->offset;
        }
    }
    host_trace(gmem->host, &(struct host_event){.kind = HOST_EV_convert,
                                                .vm = gmem->vm_id,
                                                .gmem = gmem->id,
                                                .offset = attr->offset,
                                                .size = attr->size,
                                                .a0 = attr->attributes,
                                                .a1 = busy->error_offset,
                                                .rc = rc,
                                                .pid = caller ? caller->pid : 0});
    return rc;
}
