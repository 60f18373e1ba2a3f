/* SPDX-License-Identifier: BSD-2-Clause */
/* The load's guest: shares, unshares, touches, and knows what each page must hold. */
#include "tests/common/live_load.h"

#include "tests/common/live_puppet.h"

#define SHARED_PAGES (LOAD_PAGES - LOAD_SECRETS)

struct mine {
    bool shared;
    uint64_t host, guest, canary;
};

struct player {
    struct load *load;
    struct load_vmm *vmm;
    unsigned index;
    struct fakehyp_guest *guest;
    uint64_t random;
    struct mine page[LOAD_PAGES];
};

static volatile uint64_t *words(const struct player *p, uint64_t page)
{
    return fakehyp_guest_ptr(p->guest, page * PAGE);
}

static void check(struct player *p, uint64_t page)
{
    volatile uint64_t *w = words(p, page);
    struct mine *m = &p->page[page];
    uint64_t magic = w[LOAD_WORD_MAGIC], end = w[LOAD_WORD_MAGIC_END], guest = w[LOAD_WORD_GUEST];
    uint64_t canary = w[LOAD_WORD_CANARY], host = w[LOAD_WORD_HOST];

    if (magic != load_magic(p->index, page) || end != magic)
        load_fail(p->load, "guest %u page %u (%s): magic words 0x%llx 0x%llx", p->index, (unsigned)page,
                  m->shared ? "shared" : "private", (unsigned long long)magic, (unsigned long long)end);
    if (guest != m->guest)
        load_fail(p->load, "guest %u page %u (%s): a store was lost: guest counter %llu, expected %llu", p->index,
                  (unsigned)page, m->shared ? "shared" : "private", (unsigned long long)guest,
                  (unsigned long long)m->guest);
    if (canary != m->canary)
        load_fail(p->load, "guest %u page %u (%s): canary 0x%llx, expected 0x%llx", p->index, (unsigned)page,
                  m->shared ? "shared" : "private", (unsigned long long)canary, (unsigned long long)m->canary);
    if (host < m->host)
        load_fail(p->load, "guest %u page %u (%s): host counter went from %llu back to %llu", p->index, (unsigned)page,
                  m->shared ? "shared" : "private", (unsigned long long)m->host, (unsigned long long)host);
    m->host = host;
    atomic_fetch_add_explicit(&p->vmm->guest_accesses, 5, memory_order_relaxed);
}

static void count(struct player *p, uint64_t page)
{
    words(p, page)[LOAD_WORD_GUEST] = ++p->page[page].guest;
    atomic_fetch_add_explicit(&p->vmm->guest_accesses, 1, memory_order_relaxed);
}

static void share(struct player *p, uint64_t page)
{
    struct mine *m = &p->page[page];

    words(p, page)[LOAD_WORD_CANARY] = m->canary = 0;
    int64_t rc = fakehyp_guest_mem_share(p->guest, page * PAGE);
    if (rc)
        load_fail(p->load, "guest %u page %u: MEM_SHARE returned %lld", p->index, (unsigned)page, (long long)rc);
    m->shared = true;
}

static void unshare(struct player *p, uint64_t page)
{
    struct mine *m = &p->page[page];
    int64_t rc = fakehyp_guest_mem_unshare(p->guest, page * PAGE);

    if (rc == -3) {
        /* Somebody holds the page; it is still shared. */
        atomic_fetch_add_explicit(&p->vmm->guest_refused, 1, memory_order_relaxed);
        return;
    }
    if (rc)
        load_fail(p->load, "guest %u page %u: MEM_UNSHARE returned %lld", p->index, (unsigned)page, (long long)rc);
    m->shared = false;
    words(p, page)[LOAD_WORD_CANARY] = m->canary = rig_random(&p->random) | 1;
}

/* The second vCPU asks for nothing: it touches, and no store of it may be lost whatever the first one is at. */
static int second_main(struct fakehyp_guest *guest, const struct load_guest_arg *a)
{
    static uint64_t counter[LOAD_PAGES];
    struct load_vmm *vmm = &a->load->vmm[a->index];
    uint64_t random = a->load->seed + 99 * (a->index + 1);

    while (!atomic_load(&a->load->stop)) {
        for (unsigned i = 0; i < 64; i++) {
            uint64_t page = rig_random(&random) % LOAD_PAGES;
            volatile uint64_t *w = fakehyp_guest_ptr(guest, page * PAGE);
            uint64_t magic = w[LOAD_WORD_MAGIC], count = w[LOAD_WORD_SECOND];
            if (magic != load_magic(a->index, page) || count != counter[page])
                load_fail(a->load, "guest %u, second vCPU, page %u: magic word 0x%llx, counter %llu instead of %llu",
                          a->index, (unsigned)page, (unsigned long long)magic, (unsigned long long)count,
                          (unsigned long long)counter[page]);
            w[LOAD_WORD_SECOND] = ++counter[page];
        }
        atomic_fetch_add_explicit(&vmm->second_accesses, 3 * 64, memory_order_relaxed);
    }
    return 0;
}

int load_guest_main(struct fakehyp_guest *guest, void *arg)
{
    static struct player player;
    const struct load_guest_arg *a = arg;
    struct player *p = &player;

    if (fakehyp_guest_vcpu(guest) > 0)
        return second_main(guest, a);

    p->load = a->load;
    p->index = a->index;
    p->vmm = &a->load->vmm[a->index];
    p->guest = guest;
    p->random = a->load->seed + 77 * (a->index + 1);
    fakehyp_guest_hypercall(guest, HVC_PUPPET_NEXT, 0, 0, 0);
    /* The VMM wrote the magic words; the secrets are the guest's from the start. */
    for (uint64_t i = 0; i < LOAD_PAGES; i++)
        if (i >= SHARED_PAGES)
            words(p, i)[LOAD_WORD_CANARY] = p->page[i].canary = rig_random(&p->random) | 1;
    atomic_store(&p->vmm->running, true);
    while (!atomic_load(&p->load->stop)) {
        uint64_t page = rig_random(&p->random) % LOAD_PAGES;
        check(p, page);
        count(p, page);
        if (page >= SHARED_PAGES || rig_random(&p->random) % 4)
            continue;
        if (p->page[page].shared)
            unshare(p, page);
        else
            share(p, page);
    }
    for (uint64_t i = 0; i < LOAD_PAGES; i++)
        check(p, i);
    return 0;
}
