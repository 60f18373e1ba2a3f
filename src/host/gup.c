/* SPDX-License-Identifier: BSD-2-Clause */
/* References to pages, each with its holder: what GUP does in the kernel. */
#include "src/host/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t bias(enum pin_kind kind)
{
    return kind == PIN_FOLL_GET ? 1 : FOLL_PIN_BIAS;
}

static struct pin *pin_new(struct gmem *gmem, uint64_t index, uint64_t nr, enum pin_kind kind, const char *label,
                           uint32_t pid)
{
    struct pin *pin = calloc(1, sizeof(*pin) + nr * sizeof(pin->pfns[0]));
    if (!pin)
        return NULL;
    pin->host = gmem->host;
    pin->gmem = gmem;
    pin->index = index;
    pin->kind = kind;
    pin->pid = pid;
    pin->task = sched_task_id();
    pin->since_ns = sched_now();
    snprintf(pin->label, sizeof(pin->label), "%s", label && *label ? label : "unnamed");
    return pin;
}

static void pin_link(struct pin *pin)
{
    struct gmem *gmem = pin->gmem;
    pin->id = pin->host->next_pin++;
    pin->next = gmem->pins;
    if (pin->next)
        pin->next->prev = pin;
    gmem->pins = pin;
    pin->host->nr_pins += !pin->in_flight;
}

/* Gives back what was pinned. */
static void pin_drop(struct pin *pin)
{
    struct host *host = pin->host;

    /* From its end: what others find of it meanwhile is what is still held. */
    while (pin->nr) {
        frame_put(host, host->frames.base + pin->pfns[pin->nr - 1], bias(pin->kind));
        if (--pin->nr)
            sched_relax_due();
    }
    if (pin->prev)
        pin->prev->next = pin->next;
    else if (pin->gmem)
        pin->gmem->pins = pin->next;
    if (pin->next)
        pin->next->prev = pin->prev;
    host->nr_pins -= !pin->in_flight;
    free(pin);
}

int gmem_pin(struct gmem *gmem, uint64_t offset, uint64_t size, enum pin_kind kind, const char *label, struct pin **out,
             struct caller *caller)
{
    struct host *host = gmem->host;

    if ((unsigned)kind >= PIN_KIND_COUNT || !size || (offset | size) & (HOST_PAGE_SIZE - 1)) {
        caller_explain(caller,
                       "pin [0x%llx, +0x%llx) kind %u: offset and size are multiples of 4096, size > 0, kind 0..2",
                       (unsigned long long)offset, (unsigned long long)size, kind);
        return -EINVAL;
    }
    uint64_t start = offset >> HOST_PAGE_SHIFT, nr = size >> HOST_PAGE_SHIFT;
    if (start >= gmem->nr_pages || nr > gmem->nr_pages - start) {
        caller_explain(caller, "pin [0x%llx, +0x%llx): beyond the end of the file (0x%llx): a fault there is SIGBUS",
                       (unsigned long long)offset, (unsigned long long)size,
                       (unsigned long long)gmem->nr_pages << HOST_PAGE_SHIFT);
        return -EFAULT;
    }
    struct pin *pin = pin_new(gmem, start, nr, kind, label, caller ? caller->pid : 0);
    if (!pin)
        return -ENOMEM;
    /* GUP finds no PTE and faults each page in, under the lock that a conversion holds exclusively. */
    task_lock_shared(&gmem->invalidate_lock);
    /* Each reference has a known holder from the start. */
    pin_link(pin);
    int rc = 0;
    while (pin->nr < nr) {
        uint64_t pfn, index = start + pin->nr;
        if (gmem_is_private(gmem, index)) {
            caller_explain(caller, "page at offset 0x%llx is private: only shared memory can be pinned",
                           (unsigned long long)index << HOST_PAGE_SHIFT);
            rc = -EFAULT;
            break;
        }
        rc = gmem_get_folio(gmem, index, &pfn);
        if (rc)
            break;
        if (!host->arch.stage2_allows(host->arch.ctx, pfn)) {
            caller_explain(caller,
                           "page at offset 0x%llx is marked shared, but stage 2 refuses the host: the guest has not "
                           "shared it",
                           (unsigned long long)index << HOST_PAGE_SHIFT);
            rc = -EFAULT;
            break;
        }
        struct frame *f = frame_of(host, pfn);
        if (f->refcount > UINT32_MAX - bias(kind)) {
            rc = -ENOMEM;
            break;
        }
        f->refcount += bias(kind);
        pin->pfns[pin->nr++] = (uint32_t)(pfn - host->frames.base);
        sched_point("gup:pinned");
        if (pin->nr % RELAX_EVERY == 0)
            sched_relax();
    }
    if (rc) {
        pin_drop(pin);
    } else {
        struct host_event event = {.kind = HOST_EV_pin,
                                   .vm = gmem->vm_id,
                                   .gmem = gmem->id,
                                   .offset = offset,
                                   .size = size,
                                   .a0 = kind,
                                   .a1 = pin->id,
                                   .pid = pin->pid};
        snprintf(event.note, sizeof(event.note), "%s", pin->label);
        host_trace(host, &event);
        *out = pin;
    }
    task_unlock_shared(&gmem->invalidate_lock);
    return rc;
}

struct pin *fault_ref_get(struct gmem *gmem, uint64_t index, uint64_t pfn, const char *who, uint32_t pid)
{
    struct pin *pin = pin_new(gmem, index, 1, PIN_FOLL_GET, who, pid);
    if (!pin)
        return NULL;
    pin->in_flight = true;
    pin->nr = 1;
    pin->pfns[0] = (uint32_t)(pfn - gmem->host->frames.base);
    frame_of(gmem->host, pfn)->refcount++;
    pin_link(pin);
    return pin;
}

void gmem_unpin(struct pin *pin)
{
    if (!pin->in_flight)
        host_trace(pin->host, &(struct host_event){.kind = HOST_EV_unpin,
                                                   .gmem = pin->gmem ? pin->gmem->id : 0,
                                                   .offset = pin->index << HOST_PAGE_SHIFT,
                                                   .size = pin->nr << HOST_PAGE_SHIFT,
                                                   .a1 = pin->id,
                                                   .pid = pin->pid});
    pin_drop(pin);
}

uint64_t pin_id(const struct pin *pin)
{
    return pin->id;
}
