/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/host/policy.h"
#include "src/host/tracker.h"

/*
 * KVM_X86_SW_PROTECTED_VM: nobody protects anything, the attribute alone keeps
 * host processes out.  The kernel itself reaches private memory as any other.
 */
const struct gmem_driver sw_protected_driver = {
    .name = "sw-protected",
    .private_memory = true,
    .plain_v5 = {CONTENT_SCRAMBLED, CONTENT_SCRAMBLED},
    .preserves = {true, true},
    PKVM_DRIVER_VM_OPS,
};

/*
 * In the manner of TDX and SNP: memory is encrypted with a key that a page has
 * or has not, so nothing survives a change, and an access with the wrong key
 * may end the host.  Pages come and go in stage 2 as the host likes.
 */
const struct gmem_driver firmware_driver = {
    .name = "firmware",
    .private_memory = true,
    .private_access_fatal = true,
    .guest_marks_shared = true,
    .plain = {CONTENT_ZEROED, CONTENT_ZEROED},
    .plain_v5 = {CONTENT_ZEROED, CONTENT_ZEROED},
    .preserves = {false, true},
    .preserve_needs_setup = true,
    PKVM_DRIVER_VM_OPS,
};

const struct gmem_driver *gmem_driver(enum gmem_hyp_id id)
{
    static const struct gmem_driver *const all[GMEM_HYP_COUNT] = {
        [GMEM_HYP_PKVM] = &pkvm_driver,
        [GMEM_HYP_SW_PROTECTED] = &sw_protected_driver,
        [GMEM_HYP_FIRMWARE] = &firmware_driver,
    };
    return all[id];
}

bool vm_private_memory(const struct vm *vm)
{
    return vm->config.is_protected || vm->driver->private_memory;
}

/* ---- contents ---------------------------------------------------------------------------------------------------- */

static bool set_up(const struct gmem *gmem)
{
    for (const struct memslot_link *l = gmem->bindings; l; l = l->next)
        if (l->vm->el2_ready)
            return false;
    return true;
}

int driver_content(const struct gmem *gmem, bool to_private, uint64_t flags, enum content_effect *effect,
                   struct caller *caller)
{
    const struct gmem_driver *d = gmem->driver;
    *effect = gmem->config.abi == 5 ? d->plain_v5[to_private] : d->plain[to_private];
    if (flags == CONTENT_ZERO) {
        *effect = CONTENT_ZEROED;
        if (!to_private)
            return 0;
        caller_explain(caller, "ZERO is for memory that becomes shared");
        return -EOPNOTSUPP;
    }
    if (flags == CONTENT_PRESERVE) {
        *effect = CONTENT_KEPT;
        if (d->preserves[to_private] && (!d->preserve_needs_setup || set_up(gmem)))
            return 0;
        caller_explain(caller, "hypervisor \"%s\" cannot preserve contents %s", d->name,
                       d->preserves[to_private] ? "once the VM has run" : "in this direction");
        return -EOPNOTSUPP;
    }
    return 0;
}

void driver_scramble(struct gmem *gmem, uint64_t start, uint64_t end)
{
    const struct host_arch *arch = &gmem->host->arch;
    uint64_t index, pfn;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1)
        arch->fill(arch->ctx, gmem->file, index, CONTENT_SCRAMBLE_BYTE);
}

/* ---- refusals that were asked for ----------------------------------------------------------------------------------
 */

static const char *const op_names[HYP_OP_COUNT] = {
#define X(id, name, doc) name,
    HYP_OP_MAP(X)
#undef X
};

const char *hyp_op_name(enum hyp_op op)
{
    return (unsigned)op < HYP_OP_COUNT ? op_names[op] : NULL;
}

static bool refuses(const struct host *host, enum hyp_op op, uint64_t pfn)
{
    for (unsigned i = 0; i < host->nr_refusals; i++)
        if (host->refusals[i].op == op && host->refusals[i].pfn == pfn)
            return true;
    return false;
}

int host_hyp_refuse(struct host *host, enum hyp_op op, uint64_t pfn, bool on)
{
    for (unsigned i = 0; i < host->nr_refusals; i++) {
        if (host->refusals[i].op != op || host->refusals[i].pfn != pfn)
            continue;
        if (!on)
            host->refusals[i] = host->refusals[--host->nr_refusals];
        return 0;
    }
    if (!on)
        return -ENOENT;
    if (host->nr_refusals == HOST_MAX_REFUSALS)
        return -ENOSPC;
    host->refusals[host->nr_refusals].op = op;
    host->refusals[host->nr_refusals++].pfn = pfn;
    return 0;
}

/* ---- guests and their pages
 * ------------------------------------------------------------------------------------------ */

bool guest_has(const struct memslot *slot, uint64_t index, const struct frame *f)
{
    uint64_t i = index - slot->index;
    return f->flags & FRAME_GUEST && (!slot->has || slot->has[i / 8] >> i % 8 & 1);
}

void guest_got(const struct memslot *slot, uint64_t index, struct frame *f)
{
    uint64_t i = index - slot->index;
    if (slot->has)
        slot->has[i / 8] |= (uint8_t)(1u << i % 8);
    f->flags |= FRAME_GUEST;
}

void guest_lost(const struct memslot *slot, uint64_t index, struct frame *f)
{
    uint64_t i = index - slot->index;
    if (slot->has)
        slot->has[i / 8] &= (uint8_t) ~(1u << i % 8);
    for (const struct memslot_link *l = slot->has ? slot->gmem->bindings : NULL; l; l = l->next)
        if (index >= l->slot->index && index - l->slot->index < l->slot->nr_pages && guest_has(l->slot, index, f))
            return;
    f->flags &= (uint16_t)~FRAME_GUEST;
}

void guests_keep(struct gmem *gmem, const struct folio *folio)
{
    for (uint64_t i = 0; i < folio->nr; i++) {
        struct frame *f = frame_of(gmem->host, folio->pfn + i);
        uint64_t index = folio->index + i;
        for (const struct memslot_link *l = f->flags & FRAME_GUEST ? gmem->bindings : NULL; l; l = l->next) {
            const struct memslot *s = l->slot;
            struct stray_page *stray;
            if (index < s->index || index - s->index >= s->nr_pages || !guest_has(s, index, f) ||
                !(stray = malloc(sizeof(*stray))))
                continue;
            *stray = (struct stray_page){s->gfn + (index - s->index), folio->pfn + i, l->vm->strays};
            l->vm->strays = stray;
        }
        f->flags &= (uint16_t)~FRAME_GUEST;
    }
}

uint64_t guests_kept_reclaim(struct vm *vm)
{
    uint64_t done = 0;
    while (vm->strays) {
        struct stray_page *stray = vm->strays;
        vm->strays = stray->next;
        done += vm->driver->teardown_page(vm, stray->gfn, stray->pfn) == 0;
        free(stray);
    }
    return done;
}

int driver_make_shared(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy)
{
    struct host *host = gmem->host;
    bool ask = gmem->config.ask_hyp && gmem->driver->make_shared;
    uint64_t index, pfn;
    if (!ask && !host->nr_refusals)
        return 0;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1) {
        int rc = refuses(host, HYP_OP_MAKE_SHARED, pfn) ? -EPERM
                 : ask                                  ? gmem->driver->make_shared(gmem, index, pfn)
                                                        : 0;
        if (!rc)
            continue;
        busy->error_offset_valid = true;
        busy->error_offset = index << HOST_PAGE_SHIFT;
        caller_explain(caller,
                       "page at offset 0x%llx: the hypervisor does not let the host have it: the guest must "
                       "share it first",
                       (unsigned long long)busy->error_offset);
        return rc;
    }
    return 0;
}

int driver_prepare_accessible(struct gmem *gmem, uint64_t index, uint64_t pfn)
{
    if (refuses(gmem->host, HYP_OP_MAKE_SHARED, pfn))
        return -EPERM;
    return gmem->driver->make_shared ? gmem->driver->make_shared(gmem, index, pfn) : 0;
}

int driver_prepare_inaccessible(struct gmem *gmem, uint64_t pfn)
{
    return refuses(gmem->host, HYP_OP_MAKE_PRIVATE, pfn) ? -EPERM : 0;
}

/* Every binding that covers the page and whose guest has it. */
static int unmap_from_guests(struct gmem *gmem, uint64_t index, uint64_t pfn,
                             int (*unmap)(struct vm *vm, uint64_t gfn, uint64_t pfn))
{
    struct frame *f = frame_of(gmem->host, pfn);
    for (struct memslot_link *l = gmem->bindings; l; l = l->next) {
        const struct memslot *s = l->slot;
        if (index < s->index || index - s->index >= s->nr_pages || !guest_has(s, index, f))
            continue;
        int rc = unmap(l->vm, s->gfn + (index - s->index), pfn);
        if (rc)
            return rc;
        guest_lost(s, index, f);
    }
    return f->flags & FRAME_GUEST ? -EBUSY : 0;
}

void driver_zap(struct gmem *gmem, uint64_t start, uint64_t end)
{
    uint64_t index, pfn;
    if (gmem->driver->el2_protects)
        return;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1)
        if (frame_of(gmem->host, pfn)->flags & FRAME_GUEST)
            unmap_from_guests(gmem, index, pfn, gmem->driver->teardown_page);
}

int driver_guest_map(struct vcpu *vcpu, unsigned cpu, uint64_t gfn, uint64_t pfn)
{
    if (refuses(vcpu->vm->host, HYP_OP_DONATE, pfn))
        return -EPERM;
    return vcpu->vm->driver->guest_map(vcpu, cpu, gfn, pfn);
}

int driver_reclaim_page(struct gmem *gmem, uint64_t index, uint64_t pfn)
{
    return refuses(gmem->host, HYP_OP_RECLAIM, pfn) ? -EBUSY
                                                    : unmap_from_guests(gmem, index, pfn, gmem->driver->reclaim_page);
}

int driver_teardown_page(struct vm *vm, uint64_t gfn, uint64_t pfn)
{
    return refuses(vm->host, HYP_OP_TEARDOWN, pfn) ? -EPERM : vm->driver->teardown_page(vm, gfn, pfn);
}

/* ---- the end of the host
 * ----------------------------------------------------------------------------------------------- */

int host_alive(const struct host *host, struct caller *caller)
{
    if (!host->dead[0])
        return 0;
    caller_explain(caller, "the host is dead: %s", host->dead);
    return -EIO;
}

bool host_access_is_fatal(struct host *host, uint64_t pfn)
{
    struct gmem *gmem;
    uint64_t index;
    if (!host_frame_slot(host, pfn, &gmem, &index) || !gmem->driver->private_access_fatal ||
        tracker_value(gmem, index) == ATTR_SHARED)
        return false;
    if (!host->dead[0])
        snprintf(host->dead, sizeof(host->dead),
                 "machine check: the kernel touched private page 0x%llx of guest_memfd %u, which hypervisor "
                 "\"firmware\" keeps encrypted",
                 (unsigned long long)index, gmem->id);
    host_splat(host, "I8: the host died: %s", host->dead);
    return true;
}

bool host_direct_map_hole(const struct host *host, uint64_t pfn)
{
    const struct frame *f = frame_of(host, pfn);
    return f && f->flags & FRAME_UNMAPPED;
}

const char *host_dead(const struct host *host)
{
    return host->dead[0] ? host->dead : NULL;
}
