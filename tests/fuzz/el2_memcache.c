/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memcache of a vcpu, a linked list in pages that the host writes: any
 * head, count and links, over pages of any owner.  Whatever it is, a refusal
 * leaves it as it was, and no page is ever lost.
 *
 * Input: for each of the pages one byte for what it is and its link, then head
 * and count, then calls that need tables and changes to the list.  A link is a
 * byte, and eight more for one that is a number like any other.
 */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/el2_harness.h"

#define NR_PAGES 12u
#define GFN UINT64_C(0x40000)

struct game {
    struct el2 *el2;
    struct el2_vm vm;
    uint64_t pages; /* the first, physical */
    uint64_t targets, nr_donated;
    struct fuzz_input in;
};

static uint64_t any_link(struct game *g)
{
    uint8_t byte = fuzz_u8(&g->in);
    uint64_t page = g->pages + byte % NR_PAGES * HYP_PAGE_SIZE;

    switch (byte / NR_PAGES) {
    case 10:
        return 0;
    case 11:
        return page + 8;
    case 12:
        return page + HYP_PAGE_SIZE - 8;
    case 13:
        return g->vm.vm_page;
    case 14:
        return g->vm.host_vcpu[0]; /* the very page that holds the list */
    case 15:
        return EL2_BASE_PFN << HYP_PAGE_SHIFT;
    case 16:
        return (EL2_BASE_PFN + g->el2->nr_frames) << HYP_PAGE_SHIFT;
    case 17:
        return g->targets + g->nr_donated * HYP_PAGE_SIZE; /* what is to be donated next */
    case 18:
    case 19:
    case 20:
    case 21:
        return fuzz_uint(&g->in, 8);
    default:
        return page;
    }
}

static void set_link(struct game *g, unsigned i, uint64_t link)
{
    uint64_t phys = g->pages + i * HYP_PAGE_SIZE;

    if (hyp_host_state(g->el2->hyp, phys >> HYP_PAGE_SHIFT) != PKVM_PAGE_NOPAGE)
        *(uint64_t *)el2_virt(g->el2, phys) = link;
}

static uint64_t nr_host_pages(const struct game *g)
{
    uint64_t nr = 0;

    for (unsigned i = 0; i < NR_PAGES; i++)
        nr += hyp_host_state(g->el2->hyp, (g->pages >> HYP_PAGE_SHIFT) + i) != PKVM_PAGE_NOPAGE;
    return nr;
}

/* A donation takes tables from the list, or is refused and takes none for itself. */
static void donate(struct game *g)
{
    const struct hyp_memcache *mc = &el2_host_vcpu(g->el2, &g->vm, 0)->pkvm_memcache, before = *mc;
    const struct hyp_vcpu *vcpu = hyp_vm_find(g->el2->hyp, g->vm.handle)->vcpus[0];
    uint64_t pfn = (g->targets >> HYP_PAGE_SHIFT) + g->nr_donated, had = vcpu->memcache.nr_pages;
    uint64_t host_had = nr_host_pages(g), offered = before.nr_pages;
    int64_t ret = EL2_CALL(g->el2, host_donate_guest, pfn, GFN + (g->nr_donated << 9));

    FUZZ_CHECK(ret == 0 || ret == -HYP_ENOMEM || ret == -HYP_EPERM);
    if (ret == 0)
        g->nr_donated++;
    else if (mc->head == before.head && mc->nr_pages == before.nr_pages)
        FUZZ_CHECK(vcpu->memcache.nr_pages == had && nr_host_pages(g) == host_had);
    /* EL2 takes no more than it wants, which is as many as the host has. */
    FUZZ_CHECK(vcpu->memcache.nr_pages <= (had > offered ? had : offered));
}

static void set_up(struct game *g)
{
    struct el2 *el2 = el2_new(&(struct el2_options){.nr_frames = 512, .one_region = true});
    struct hyp_memcache *mc;

    g->el2 = el2;
    el2_vm_new(el2, &g->vm, true, HYP_UNSHARE_CONSENT, 1);
    EL2_CALL(el2, vcpu_load, g->vm.handle, 0);
    g->targets = el2_frames(el2, 16, 1) << HYP_PAGE_SHIFT;
    g->pages = el2_frames(el2, NR_PAGES, 1) << HYP_PAGE_SHIFT;
    for (unsigned i = 0; i < NR_PAGES; i++) {
        uint8_t what = fuzz_u8(&g->in);

        set_link(g, i, any_link(g));
        if (what % 16 == 15)
            EL2_CALL(el2, host_share_hyp, (g->pages >> HYP_PAGE_SHIFT) + i);
    }
    mc = &el2_host_vcpu(el2, &g->vm, 0)->pkvm_memcache;
    mc->head = any_link(g);
    mc->nr_pages = fuzz_u8(&g->in) % 32;
    if (mc->nr_pages == 31)
        mc->nr_pages = UINT64_MAX;
}

/* All of it goes back: what the guest had, what EL2 made tables of, and what it did not use. */
static void tear_down(struct game *g)
{
    struct el2 *el2 = g->el2;
    unsigned nr;

    EL2_CALL(el2, vcpu_put);
    for (uint64_t i = 0; i < g->nr_donated; i++)
        FUZZ_CHECK(EL2_CALL(el2, force_reclaim_guest_page, g->targets + i * HYP_PAGE_SIZE) == 0);
    nr = el2_vm_destroy(el2, &g->vm);
    FUZZ_CHECK(nr >= 1 + 1 + hyp_s2_pgd_pages(EL2_IPA_BITS));
    for (uint64_t i = el2->pool_nr; i < el2->nr_frames; i++) {
        uint64_t pfn = EL2_BASE_PFN + i;

        if (hyp_hyp_state(el2->hyp, pfn) == PKVM_PAGE_SHARED_BORROWED)
            FUZZ_CHECK(EL2_CALL(el2, host_unshare_hyp, pfn) == 0);
        FUZZ_CHECK(hyp_host_state(el2->hyp, pfn) == PKVM_PAGE_OWNED);
    }
    el2_free(el2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct game g = {.in = {.data = data, .left = size}};

    /* A failed assertion outside of a test. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    set_up(&g);
    do {
        struct hyp_memcache *mc = &el2_host_vcpu(g.el2, &g.vm, 0)->pkvm_memcache;
        uint8_t what = fuzz_u8(&g.in);

        if (what % 4 == 1)
            mc->head = any_link(&g);
        else if (what % 4 == 2)
            mc->nr_pages = what / 4 % 16;
        else if (what % 4 == 3)
            set_link(&g, what / 4 % NR_PAGES, any_link(&g));
        donate(&g);
    } while (g.in.left && g.nr_donated < 16);
    tear_down(&g);
    return 0;
}
