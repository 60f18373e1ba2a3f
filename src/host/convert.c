/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * KVM_SET_MEMORY_ATTRIBUTES2: conversion between shared and private, all or
 * nothing.  Order of checks and steps: spec guest_memfd.md 1.3, 3.2, 3.3.  What
 * differs between the designs is in the policy (policy.h), the tracker
 * (tracker.h) and the hypervisor's driver (driver.h).
 */
#include <errno.h>
#include <stdio.h>

#include "src/host/driver.h"
#include "src/host/policy.h"
#include "src/host/tracker.h"

static int check_arguments(const struct gmem *gmem, const struct gmem_attributes2 *a, struct caller *caller)
{
    unsigned long long offset = a->offset, size = a->size, end = gmem->nr_pages << HOST_PAGE_SHIFT;

    if (gmem->tracker == gmem_tracker(GMEM_TRACKER_VM)) {
        caller_explain(caller, "attributes are kept by the VM here: the call is KVM_SET_MEMORY_ATTRIBUTES on the VM");
        return -ENOTTY;
    }
    if (gmem->config.abi == 5 ? a->flags & ~CONTENT_FLAGS || a->flags == CONTENT_FLAGS : a->flags) {
        caller_explain(caller,
                       gmem->config.abi == 5 ? "flags 0x%llx: ZERO (1) or PRESERVE (2) or none"
                                             : "flags 0x%llx: must be 0 (content modes were dropped from the ABI)",
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

/* Who is in the way?  Unmaps the range, whatever comes of it: what is mapped there faults back in. */
static int get_host_out(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy)
{
    const struct gmem_policy *policy = gmem->policy;
    int rc = policy->check_mapped ? policy->check_mapped(gmem, start, end, caller, busy) : 0;
    if (rc)
        return rc;
    if (!policy->keeps_mappings)
        unmap_mapping_range(gmem, start, end);
    sched_point("convert:unmapped");
    /* Pages that processes populated on their own are pages of the model from here on. */
    rc = gmem_adopt(gmem, start, end);
    if (rc) {
        caller_explain(caller, "pages of the range that processes have touched do not fit into the machine: start "
                               "fakehypd with more --memory");
        return rc;
    }
    rc = policy->check(gmem, start, end, caller, busy);
    if (!rc)
        sched_point("convert:checked");
    return rc;
}

/* What the conversion does to bytes, while they are where neither side's accesses change them. */
static void change_contents(struct gmem *gmem, uint64_t start, uint64_t end, enum content_effect effect)
{
    const struct host_arch *arch = &gmem->host->arch;
    if (effect == CONTENT_ZEROED)
        arch->discard(arch->ctx, gmem->file, start, end);
    else if (effect == CONTENT_SCRAMBLED)
        driver_scramble(gmem, start, end);
}

static int convert_locked(struct gmem *gmem, uint64_t start, uint64_t end, bool to_private, uint64_t flags,
                          struct caller *caller, struct gmem_busy *busy)
{
    const struct host_arch *arch = &gmem->host->arch;
    uint64_t want = to_private ? ATTR_PRIVATE : ATTR_SHARED;
    enum content_effect effect;
    int rc = driver_content(gmem, to_private, flags, &effect, caller);

    if (rc)
        return rc;
    if (tracker_all(gmem, start, end, want)) {
        /* An explicit mode is carried out all the same. */
        if (flags)
            change_contents(gmem, start, end, effect);
        return 0;
    }
    if (gmem->tracker->reserve(gmem) || rangemap_reserve(&gmem->last_conv)) {
        caller_explain(caller, "no memory for the attribute tree");
        return -ENOMEM;
    }
    rc = to_private ? get_host_out(gmem, start, end, caller, busy) : driver_make_shared(gmem, start, end, caller, busy);
    if (rc)
        return rc;
    driver_zap(gmem, start, end);
    rc = arch->prepare(arch->ctx, gmem->file, start, end, !to_private, caller);
    if (rc)
        return rc;
    sched_point("convert:prepared");
    /* The point of no return: nothing below fails. */
    if (!to_private && gmem->policy->leaving_private)
        gmem->policy->leaving_private(gmem, start, end);
    change_contents(gmem, start, end, effect);
    gmem->tracker->set(gmem, start, end, want);
    if (to_private && gmem->policy->made_private)
        gmem->policy->made_private(gmem, start, end, busy);
    remember(gmem, start, end, to_private, caller);
    sched_point("convert:stored");
    arch->commit(arch->ctx, gmem->file, start, end);
    return 0;
}

/* I7: who fails has changed nothing but mappings, and says where within the range. */
static void check_failure(struct gmem *gmem, uint64_t start, uint64_t end, int rc, uint64_t changes,
                          const struct gmem_busy *busy)
{
    uint64_t at = busy->error_offset >> HOST_PAGE_SHIFT;
    if (rc && gmem->attr.changes != changes)
        host_splat(gmem->host, "I7: guest_memfd %u: a conversion failed with %d and changed attributes", gmem->id, rc);
    if (rc == -EAGAIN && (!busy->error_offset_valid || at < start || at >= end))
        host_splat(gmem->host, "I7: guest_memfd %u: EAGAIN at page 0x%llx, asked for [0x%llx, 0x%llx)", gmem->id,
                   (unsigned long long)at, (unsigned long long)start, (unsigned long long)end);
}

int gmem_convert(struct gmem *gmem, uint64_t start, uint64_t end, bool to_private, uint64_t flags,
                 struct caller *caller, struct gmem_busy *busy)
{
    task_lock_exclusive(&gmem->invalidate_lock);
    sched_point("convert:locked");
    uint64_t changes = gmem->attr.changes;
    int rc = convert_locked(gmem, start, end, to_private, flags, caller, busy);
    check_failure(gmem, start, end, rc, changes, busy);
    task_unlock_exclusive(&gmem->invalidate_lock);
    if (rc == -ENOMEM) {
        busy->error_offset_valid = true;
        busy->error_offset = start << HOST_PAGE_SHIFT;
    }
    return rc;
}

int gmem_set_attributes2(struct gmem *gmem, const struct gmem_attributes2 *attr, struct caller *caller,
                         struct gmem_busy *busy)
{
    *busy = (struct gmem_busy){0};
    int rc = host_alive(gmem->host, caller);
    if (!rc)
        rc = check_arguments(gmem, attr, caller);
    if (!rc) {
        uint64_t start = attr->offset >> HOST_PAGE_SHIFT;
        rc = gmem_convert(gmem, start, start + (attr->size >> HOST_PAGE_SHIFT),
                          attr->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE, attr->flags, caller, busy);
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
