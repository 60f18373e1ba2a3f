/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memslots in guest processes: which of the two files is mapped where.
 *
 * A slot begins with the private file over all of it.  The shared file comes
 * over a range when the guest first touches it there, and goes before the
 * range leaves the host's side again: a conversion of memory that the guest
 * never touched asks nothing of the guest.
 */
#include "src/live/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/userfaultfd.h>

static int guest_call(struct live_guest *guest, Fakehyp__Request *request, const int *fds, unsigned nr_fds,
                      char *message, size_t size)
{
    struct live *live = guest->live;
    if (guest->dead)
        return -ECONNRESET;
    return live->io.call(live->io.ctx, guest->peer, request, fds, nr_fds, GUEST_AGENT_TIMEOUT_NS, message, size);
}

struct guest_slot *guest_slot_at(const struct live_guest *guest, uint64_t gfn)
{
    struct guest_slot *s = guest->slots;
    while (s && (gfn < s->gfn || gfn - s->gfn >= s->nr))
        s = s->next;
    return s;
}

static struct guest_slot **find_slot(struct live_guest *guest, uint32_t slot)
{
    struct guest_slot **at = &guest->slots;
    while (*at && (*at)->slot != slot)
        at = &(*at)->next;
    return at;
}

/* guest->lock is held, and so the slot stays: who deletes it waits for the lock. */
static int slot_add_locked(struct live_guest *guest, const struct memslot *slot, char *message, size_t size)
{
    struct live_file *f = machine_file(slot->gmem)->stage;
    const int fds[2] = {f->private_fd, f->shared_fd};
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestSlotAdd body = FAKEHYP__GUEST_SLOT_ADD__INIT;

    /* One that comes while the guest attaches itself is found there, too. */
    if (*find_slot(guest, slot->slot))
        return 0;
    if ((slot->gfn + slot->nr_pages) * PAGE > guest->ipa_size) {
        snprintf(
            message, size,
            "it ends beyond the 0x%llx bytes that guest process %u attached itself with; a guest reserves all of its "
            "VM's IPA space",
            (unsigned long long)guest->ipa_size, guest->pid);
        return -EINVAL;
    }
    struct guest_slot *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    int rc = rangemap_init(&s->shown, slot->nr_pages, SHOWN_PRIVATE);
    if (rc) {
        free(s);
        return rc;
    }
    s->slot = slot->slot;
    s->gfn = slot->gfn;
    s->nr = slot->nr_pages;
    s->index = slot->index;
    s->file = f;
    body.slot = slot->slot;
    body.gpa = slot->gfn * PAGE;
    body.size = slot->nr_pages * PAGE;
    body.offset = slot->index * PAGE;
    body.file_size = f->mfile->nr_pages * PAGE;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_SLOT_ADD;
    request.guest_slot_add = &body;
    rc = guest_call(guest, &request, fds, 2, message, size);
    if (!rc) {
        s->next = guest->slots;
        guest->slots = s;
    } else {
        /* It may yet map the slot: nobody would know. */
        if (rc == -ETIMEDOUT)
            guest_fail(guest, "its agent does not answer to a new memory slot");
        rangemap_destroy(&s->shown);
        free(s);
    }
    return rc;
}

static int slot_add(struct live_guest *guest, const struct memslot *slot, char *message, size_t size)
{
    guest_get(guest);
    task_lock_exclusive(&guest->lock);
    int rc = slot_add_locked(guest, slot, message, size);
    task_unlock_exclusive(&guest->lock);
    guest_put(guest);
    return rc;
}

static const struct memslot *next_slot(const struct vm *vm, uint64_t gfn)
{
    const struct memslot *next = NULL;
    for (const struct memslot *s = vm_slots(vm); s; s = s->next)
        if (s->gfn >= gfn && (!next || s->gfn < next->gfn))
            next = s;
    return next;
}

int guest_slots_add(struct live_guest *guest)
{
    int rc = 0;
    uint64_t gfn = 0;
    /* In between others get the lock: slots come and go, conversions need not wait for all of them. */
    for (bool more = true; more && !rc && !guest->dead;) {
        char message[200] = "";
        task_lock_exclusive(&guest->lock);
        const struct memslot *slot = guest->dead ? NULL : next_slot(guest->vm, gfn);
        more = slot != NULL;
        if (slot) {
            uint32_t nr = slot->slot;
            gfn = slot->gfn + slot->nr_pages;
            rc = slot_add_locked(guest, slot, message, sizeof(message));
            if (rc)
                live_log(guest->live, 1, "guest process %u, memory slot %u: %s%s%s", guest->pid, nr,
                         strerrordesc_np(-rc), message[0] ? ": " : "", message);
        }
        task_unlock_exclusive(&guest->lock);
    }
    return rc;
}

static void slot_free(struct guest_slot **at)
{
    struct guest_slot *s = *at;
    *at = s->next;
    rangemap_destroy(&s->shown);
    free(s);
}

void guest_slots_free(struct live_guest *guest)
{
    while (guest->slots)
        slot_free(&guest->slots);
}

int live_slot_add(void *ctx, struct vm *vm, const struct memslot *slot, struct caller *caller)
{
    (void)ctx;
    char message[200] = "the guest's agent did not answer";
    struct live_guest *guest = guest_of(vm);
    int rc = guest ? slot_add(guest, slot, message, sizeof(message)) : 0;
    if (rc)
        caller_explain(caller, "slot %u: %s", slot->slot, message);
    return rc;
}

void live_slot_remove(void *ctx, struct vm *vm, const struct memslot *slot)
{
    (void)ctx;
    struct live_guest *guest = guest_of(vm);
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestSlotRemove body = FAKEHYP__GUEST_SLOT_REMOVE__INIT;
    char message[200] = "";

    if (!guest)
        return;
    body.slot = slot->slot;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_SLOT_REMOVE;
    request.guest_slot_remove = &body;
    guest_get(guest);
    task_lock_exclusive(&guest->lock);
    struct guest_slot **at = find_slot(guest, slot->slot);
    if (*at) {
        if (guest_call(guest, &request, NULL, 0, message, sizeof(message)))
            guest_fail(guest, "its agent did not give up a memory slot");
        slot_free(at);
    }
    task_unlock_exclusive(&guest->lock);
    guest_put(guest);
}

int guest_show(struct live_guest *guest, struct guest_slot *slot, uint64_t gfn, uint64_t nr, uint64_t shown)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestOverlay body = FAKEHYP__GUEST_OVERLAY__INIT;
    char message[200] = "";
    uint64_t start = gfn - slot->gfn, end = start + nr;
    int rc = 0;

    for (struct range r = rangemap_first(&slot->shown, start, end); r.start < end && !rc;
         r = rangemap_next(&slot->shown, r, end)) {
        if (r.value == shown)
            continue;
        if (rangemap_reserve(&slot->shown))
            return -ENOMEM;
        body.slot = slot->slot;
        body.gpa = (slot->gfn + r.start) * PAGE;
        body.size = (r.end - r.start) * PAGE;
        body.shared = shown == SHOWN_SHARED;
        request.body_case = FAKEHYP__REQUEST__BODY_GUEST_OVERLAY;
        request.guest_overlay = &body;
        rc = guest_call(guest, &request, NULL, 0, message, sizeof(message));
        if (!rc)
            rangemap_set(&slot->shown, r.start, r.end, shown);
        else if (rc == -ETIMEDOUT)
            /* Requests are served in order, so a later one for this range has the last word. */
            rangemap_set(&slot->shown, r.start, r.end, SHOWN_UNKNOWN);
        if (rc && rc != -ECONNRESET)
            live_log(guest->live, 1, "guest %u: overlay of [0x%llx, +0x%llx): %s%s%s", guest->pid,
                     (unsigned long long)body.gpa, (unsigned long long)body.size, strerrordesc_np(-rc),
                     message[0] ? ": " : "", message);
    }
    return rc;
}

void live_guest_zap(void *ctx, struct vm *vm, uint64_t gfn, uint64_t nr)
{
    (void)ctx;
    struct live_guest *guest = guest_of(vm);
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestZap body = FAKEHYP__GUEST_ZAP__INIT;
    char message[200] = "";

    if (!guest || !guest_slot_at(guest, gfn))
        return;
    body.gpa = gfn * PAGE;
    body.size = nr * PAGE;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_ZAP;
    request.guest_zap = &body;
    guest_get(guest);
    int rc = guest_call(guest, &request, NULL, 0, message, sizeof(message));
    if (rc && rc != -ECONNRESET)
        guest_fail(guest, "its agent did not drop page tables that stage 2 has withdrawn");
    guest_put(guest);
}

/* The part of [start, end) of the file that a slot covers, as gfns. */
static bool cover(const struct guest_slot *s, const struct live_file *f, uint64_t start, uint64_t end, uint64_t *gfn,
                  uint64_t *nr)
{
    uint64_t from = start > s->index ? start : s->index, to = end < s->index + s->nr ? end : s->index + s->nr;
    if (s->file != f || from >= to)
        return false;
    *gfn = s->gfn + (from - s->index);
    *nr = to - from;
    return true;
}

int guests_show_private(struct live_file *f, uint64_t start, uint64_t end, struct caller *caller)
{
    int rc = 0;
    for (struct live_guest *guest = f->live->guests, *next; guest && !rc; guest = next) {
        guest_get(guest);
        task_lock_exclusive(&guest->lock);
        for (struct guest_slot *s = guest->slots; s && !rc && !guest->dead; s = s->next) {
            uint64_t gfn, nr;
            if (cover(s, f, start, end, &gfn, &nr))
                rc = guest_show(guest, s, gfn, nr, SHOWN_PRIVATE);
        }
        task_unlock_exclusive(&guest->lock);
        if (rc == -ECONNRESET || guest->dead)
            rc = 0; /* a dead guest sees nothing */
        if (rc && !caller) {
            /* EL2 has decided already; a guest that cannot follow its own hypervisor ends. */
            guest_fail(guest, "its agent does not follow a change of its memory");
            rc = 0;
        }
        if (rc)
            caller_explain(caller, "guest process %u does not answer (stopped?): nothing changed, retry", guest->pid);
        next = guest->next;
        guest_put(guest);
    }
    return rc;
}

bool guests_have_room(struct live_file *f)
{
    for (const struct live_guest *guest = f->live->guests; guest; guest = guest->next) {
        uint64_t extents = 2;
        bool concerned = false;
        /* A dead one may outlive the files of its slots, while a task still holds it. */
        if (guest->dead)
            continue;
        /* Each range of one side may be shown as an extent of its own. */
        for (const struct guest_slot *s = guest->slots; s; s = s->next) {
            concerned |= s->file == f;
            extents += mmu_nr_sides(s->file->mfile);
        }
        if (concerned && extents + VMA_RESERVE > f->live->max_map_count)
            return false;
    }
    return true;
}

void guests_wake(struct live_file *f, uint64_t start, uint64_t end)
{
    for (struct live_guest *guest = f->live->guests; guest; guest = guest->next) {
        for (const struct guest_slot *s = guest->slots; s && !guest->dead; s = s->next) {
            uint64_t gfn, nr;
            if (!cover(s, f, start, end, &gfn, &nr))
                continue;
            struct uffdio_range range = {.start = guest->base + gfn * PAGE, .len = nr * PAGE};
            ioctl(guest->uffd, UFFDIO_WAKE, &range);
        }
    }
}
