/* SPDX-License-Identifier: BSD-2-Clause */
/* The threads of a load's VMM that look at its memory. */
#include <errno.h>
#include <stdlib.h>

#include "tests/common/live_guard.h"
#include "tests/common/live_load_vmm.h"

#define SHARED_PAGES (LOAD_PAGES - LOAD_SECRETS)
/* Bulk conversions are cheap: they wait for the guest's, so that the total is a mix. */
#define BULK_AHEAD 50u

uint64_t load_bulk_magic(unsigned vmm, uint64_t page)
{
    return page % 2 ? 0 : UINT64_C(0xb01c) << 48 | (uint64_t)(vmm + 1) << 32 | (page + 1);
}

/* ---- the thread that touches ------------------------------------------------------------------------------------ */

struct toucher {
    struct vmm *v;
    uint64_t random, touches, refused;
    uint64_t host[LOAD_PAGES], guest[LOAD_PAGES];
};

/* One load: true when it succeeded. */
static bool look(struct toucher *t, uint64_t page, unsigned word, uint64_t *value)
{
    bool ok = guard_load(t->v->view_a + page * (PAGE / 8) + word, value);

    t->touches += ok;
    t->refused += !ok;
    if (ok && page >= SHARED_PAGES)
        load_fail(t->v->load, "VMM %u read 0x%llx from page %u, which was never shared", t->v->index,
                  (unsigned long long)*value, (unsigned)page);
    return ok;
}

static void touch(struct toucher *t, uint64_t page)
{
    const struct vmm *v = t->v;
    uint64_t value, magic = load_magic(v->index, page);

    if (look(t, page, LOAD_WORD_MAGIC, &value) && value != magic)
        load_fail(v->load, "VMM %u page %u: magic word 0x%llx", v->index, (unsigned)page, (unsigned long long)value);
    if (look(t, page, LOAD_WORD_MAGIC_END, &value) && value != magic)
        load_fail(v->load, "VMM %u page %u: last word 0x%llx", v->index, (unsigned)page, (unsigned long long)value);
    if (look(t, page, LOAD_WORD_CANARY, &value) && value)
        load_fail(v->load, "VMM %u page %u: read the guest's canary 0x%llx", v->index, (unsigned)page,
                  (unsigned long long)value);
    if (look(t, page, LOAD_WORD_GUEST, &value)) {
        if (value < t->guest[page])
            load_fail(v->load, "VMM %u page %u: guest counter went from %llu back to %llu", v->index, (unsigned)page,
                      (unsigned long long)t->guest[page], (unsigned long long)value);
        t->guest[page] = value;
    }
    if (look(t, page, LOAD_WORD_HOST, &value) && value != t->host[page])
        load_fail(v->load, "VMM %u page %u: a store was lost: host counter %llu, expected %llu", v->index,
                  (unsigned)page, (unsigned long long)value, (unsigned long long)t->host[page]);
    if (guard_store(v->view_a + page * (PAGE / 8) + LOAD_WORD_HOST, t->host[page] + 1))
        t->host[page]++;
    else
        t->refused++;
}

void *load_toucher_main(void *arg)
{
    struct vmm *v = arg;
    struct toucher *t = calloc(1, sizeof(*t));

    t->v = v;
    t->random = v->load->seed + 1000 * (v->index + 1);
    while (!load_stopping(v)) {
        for (unsigned i = 0; i < 16; i++)
            touch(t, rig_random(&t->random) % LOAD_PAGES);
        atomic_store_explicit(&v->stat->touches, t->touches, memory_order_relaxed);
        atomic_store_explicit(&v->stat->refused, t->refused, memory_order_relaxed);
    }
    free(t);
    return NULL;
}

/* ---- the thread that converts ranges ---------------------------------------------------------------------------- */

struct bulk {
    struct vmm *v;
    uint64_t random;
    bool private[LOAD_BULK_PAGES];
    uint64_t counter[LOAD_BULK_PAGES];
};

/* What one page of B must be. */
static void bulk_check(struct bulk *b, uint64_t page)
{
    const struct vmm *v = b->v;
    volatile uint64_t *w = v->view_b + page * (PAGE / 8);
    uint64_t counter = 0, magic = 0;

    if (b->private[page]) {
        if (guard_load(w, &counter) || guard_store(w, 1))
            load_fail(v->load, "VMM %u: page %u of B is private and was reached", v->index, (unsigned)page);
        return;
    }
    if (!guard_load(w + LOAD_WORD_MAGIC, &magic) || !guard_load(w, &counter) || !guard_store(w, counter + 1))
        load_fail(v->load, "VMM %u: page %u of B is shared and was refused", v->index, (unsigned)page);
    else if (magic != load_bulk_magic(v->index, page) || counter != b->counter[page])
        load_fail(v->load, "VMM %u: page %u of B: magic 0x%llx, counter %llu instead of %llu", v->index, (unsigned)page,
                  (unsigned long long)magic, (unsigned long long)counter, (unsigned long long)b->counter[page]);
    else
        b->counter[page]++;
}

static void bulk_sample(struct bulk *b, uint64_t start, uint64_t nr)
{
    bulk_check(b, start);
    bulk_check(b, start + nr - 1);
    for (unsigned i = 0; i < 2; i++)
        bulk_check(b, rig_random(&b->random) % LOAD_BULK_PAGES);
}

static bool bulk_step(struct bulk *b)
{
    struct vmm *v = b->v;
    uint64_t dice = rig_random(&b->random) % 100;
    uint64_t nr = 1 + rig_random(&b->random) % (dice < 80 ? 16 : dice < 97 ? 200 : LOAD_BULK_PAGES);
    uint64_t start = rig_random(&b->random) % (LOAD_BULK_PAGES - nr + 1);
    uint64_t pinned = start + rig_random(&b->random) % nr;
    bool to_private = rig_random(&b->random) % 2, changes = false;

    if (to_private && !b->private[pinned] && rig_random(&b->random) % 8 == 0) {
        if (!load_refuse_once(v, v->b, pinned, start, nr))
            return false;
        bulk_sample(b, start, nr);
    }
    for (uint64_t i = start; i < start + nr; i++)
        changes |= b->private[i] != to_private;
    int rc = load_convert(v, v->b, start, nr, to_private, NULL);
    if (rc) {
        if (!load_lost(v, rc))
            load_unexpected(v, "convert of a range", start, rc);
        return false;
    }
    for (uint64_t i = start; i < start + nr; i++)
        b->private[i] = to_private;
    atomic_fetch_add(&v->stat->bulk_conversions, changes);
    bulk_sample(b, start, nr);
    /* A pin on what the guest shares, for a moment: its MEM_UNSHARE may meet it. */
    if (dice == 50) {
        struct fakehyp_pin *pin;
        rc = fakehyp_pin(v->a, pinned % SHARED_PAGES * PAGE, PAGE, FAKEHYP_FOLL_PIN, "load-bulk", &pin);
        if (rc == 0) {
            atomic_fetch_add(&v->stat->pins, 1);
            rig_sleep_ms(1);
            rc = fakehyp_unpin(pin);
        }
        if (rc && rc != -EFAULT) {
            if (!load_lost(v, rc))
                load_unexpected(v, "pin of what the guest shares", pinned % SHARED_PAGES, rc);
            return false;
        }
    }
    return true;
}

void *load_bulk_main(void *arg)
{
    struct vmm *v = arg;
    struct bulk *b = calloc(1, sizeof(*b));

    b->v = v;
    b->random = v->load->seed + 5000 * (v->index + 1);
    while (!load_stopping(v)) {
        if (atomic_load(&v->stat->bulk_conversions) > atomic_load(&v->stat->guest_conversions) + BULK_AHEAD &&
            !v->guest_died) {
            rig_sleep_ms(1);
            /* Also without work it must learn of the daemon's end. */
            if (!atomic_load(&v->load->killed))
                continue;
        }
        if (!bulk_step(b))
            break;
    }
    for (uint64_t i = 0; i < LOAD_BULK_PAGES && !atomic_load(&v->resets); i++)
        bulk_check(b, i);
    free(b);
    return NULL;
}
