/* SPDX-License-Identifier: BSD-2-Clause */
/* KVM_SET_MEMORY_ATTRIBUTES: the VM's table of what its VMM wants, by gfn. */
#include <errno.h>

#include "src/host/driver.h"
#include "src/host/tracker.h"

static int check_arguments(const struct vm *vm, uint64_t address, uint64_t size, uint64_t attributes, uint64_t flags,
                           struct caller *caller)
{
    if (vm->config.tracker != GMEM_TRACKER_VM) {
        caller_explain(caller, "attributes are kept by file here: the call is KVM_SET_MEMORY_ATTRIBUTES2 on the "
                               "guest_memfd, or create the VM with tracker \"vm\"");
        return -ENOTTY;
    }
    if (flags) {
        caller_explain(caller, "flags 0x%llx: must be 0", (unsigned long long)flags);
        return -EINVAL;
    }
    if (attributes & ~(vm_private_memory(vm) ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0)) {
        caller_explain(caller, "attributes 0x%llx: only PRIVATE (0x8) exists, and for a VM with private memory",
                       (unsigned long long)attributes);
        return -EINVAL;
    }
    if (!size || address + size < address || (address | size) & (HOST_PAGE_SIZE - 1)) {
        caller_explain(caller, "range [0x%llx, +0x%llx): empty, wraps, or not of whole pages",
                       (unsigned long long)address, (unsigned long long)size);
        return -EINVAL;
    }
    if (address + size > UINT64_C(1) << vm->config.ipa_bits) {
        caller_explain(caller, "range [0x%llx, +0x%llx) ends beyond the %u-bit IPA space", (unsigned long long)address,
                       (unsigned long long)size, vm->config.ipa_bits);
        return -EINVAL;
    }
    return 0;
}

/* The lowest slot over a file of the VM's own that meets [gfn, end). */
static const struct memslot *next_slot(const struct vm *vm, uint64_t gfn, uint64_t end)
{
    const struct memslot *best = NULL;
    for (const struct memslot *s = vm->slots; s; s = s->next)
        if (s->gmem->vm_id == vm->id && s->gfn < end && s->gfn + s->nr_pages > gfn && (!best || s->gfn < best->gfn))
            best = s;
    return best;
}

static int set_unbound(struct vm *vm, uint64_t gfn, uint64_t end, uint64_t value)
{
    int rc = gfn < end ? rangemap_reserve(&vm->attr) : 0;
    if (!rc && gfn < end)
        rangemap_set(&vm->attr, gfn, end, value);
    return rc;
}

int vm_set_attributes(struct vm *vm, uint64_t address, uint64_t size, uint64_t attributes, uint64_t flags,
                      struct caller *caller, struct gmem_busy *busy)
{
    *busy = (struct gmem_busy){0};
    int rc = check_arguments(vm, address, size, attributes, flags, caller);
    if (rc)
        return rc;
    uint64_t gfn = address >> HOST_PAGE_SHIFT, end = gfn + (size >> HOST_PAGE_SHIFT);
    bool to_private = attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE;
    vm->nr_inside++;
    while (gfn < end && !rc) {
        const struct memslot *s = next_slot(vm, gfn, end);
        uint64_t from = s && s->gfn > gfn ? s->gfn : gfn;
        if (!s || from > gfn) {
            uint64_t past = s ? from : end;
            rc = set_unbound(vm, gfn, past, to_private ? ATTR_PRIVATE : ATTR_SHARED);
            gfn = past;
            continue;
        }
        uint64_t past = s->gfn + s->nr_pages < end ? s->gfn + s->nr_pages : end, index = s->index + (from - s->gfn);
        struct gmem *gmem = s->gmem;
        gmem_get(gmem);
        rc = gmem_convert(gmem, index, index + (past - from), to_private, CONTENT_PLAIN, caller, busy);
        gmem_put(gmem);
        gfn = past;
    }
    if (--vm->nr_inside == 0)
        sched_wake_all(&vm->idle);
    return rc;
}
