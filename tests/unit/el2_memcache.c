/* SPDX-License-Identifier: BSD-2-Clause */
/* The host's memcache is hostile input: whatever is wrong with it, ENOMEM, and not one page or link has changed. */
#include "tests/unit/el2_harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GFN UINT64_C(0x40000)
#define NR 4

struct fixture {
    struct el2 *el2;
    struct el2_vm vm;
    uint64_t target;    /* pfn that the test tries to donate */
    uint64_t pages[NR]; /* physical */
};

static uint64_t *link_of(struct fixture *f, unsigned i)
{
    return el2_virt(f->el2, f->pages[i]);
}

static struct hyp_memcache *host_mc(struct fixture *f)
{
    return &el2_host_vcpu(f->el2, &f->vm, 0)->pkvm_memcache;
}

/* A good list of NR pages, which each test then spoils. */
static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.el2 = el2_new(NULL)};
    el2_vm_new(f.el2, &f.vm, true, HYP_UNSHARE_CONSENT, 1);
    EL2_CALL(f.el2, vcpu_load, f.vm.handle, 0);
    f.target = el2_frames(f.el2, 1, 1);
    for (unsigned i = 0; i < NR; i++)
        f.pages[i] = el2_frames(f.el2, 1, 1) << 12;
    for (unsigned i = 0; i < NR; i++)
        *link_of(&f, i) = i + 1 < NR ? f.pages[i + 1] : 0;
    *host_mc(&f) = (struct hyp_memcache){.head = f.pages[0], .nr_pages = NR};
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

static void assert_refused(struct fixture *f)
{
    size_t ram_size = f->el2->nr_frames << 12, records_size = f->el2->nr_frames * sizeof(struct hyp_page);
    uint64_t first = f->el2->pool_nr << 12; /* EL2's tables may split a block of the host */
    uint8_t *ram = malloc(ram_size), *records = malloc(records_size);

    assert_non_null(ram);
    assert_non_null(records);
    memcpy(ram, f->el2->ram, ram_size);
    memcpy(records, f->el2->vmemmap, records_size);
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->target, GFN), -HYP_ENOMEM);
    assert_memory_equal(ram + first, f->el2->ram + first, ram_size - first);
    assert_memory_equal(records + f->el2->pool_nr * sizeof(struct hyp_page), f->el2->vmemmap + f->el2->pool_nr,
                        records_size - f->el2->pool_nr * sizeof(struct hyp_page));
    assert_int_equal(hyp_vm_find(f->el2->hyp, f->vm.handle)->vcpus[0]->memcache.nr_pages, 0);
    free(ram);
    free(records);
}

static void test_good_list(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->target, GFN), 0);
    assert_int_equal(host_mc(f)->nr_pages, 0);
    assert_int_equal(host_mc(f)->head, 0);
    for (unsigned i = 0; i < NR; i++)
        el2_assert_page(f->el2, f->pages[i] >> 12, PKVM_PAGE_NOPAGE, PKVM_PAGE_OWNED, 0, 0);
    /* Two became tables, two are left: with two offered, EL2 takes none. */
    el2_topup(f->el2, &f->vm, 0, 2);
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, el2_frames(f->el2, 1, 1), GFN + 1), 0);
    assert_int_equal(host_mc(f)->nr_pages, 2);
    /* With three offered it takes one. */
    el2_topup(f->el2, &f->vm, 0, 1);
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, el2_frames(f->el2, 1, 1), GFN + 2), 0);
    assert_int_equal(host_mc(f)->nr_pages, 2);
}

static void test_too_few(void **state)
{
    struct fixture *f = *state;

    /* One page, and two tables may be needed: it stays with EL2 for the next time. */
    host_mc(f)->nr_pages = 1;
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->target, GFN), -HYP_ENOMEM);
    el2_assert_page(f->el2, f->target, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, 0, 0);
    assert_int_equal(host_mc(f)->nr_pages, 0);
    assert_int_equal(host_mc(f)->head, f->pages[1]);
}

static void test_empty(void **state)
{
    struct fixture *f = *state;

    *host_mc(f) = (struct hyp_memcache){0};
    assert_refused(f);
}

static void test_null_head(void **state)
{
    struct fixture *f = *state;

    host_mc(f)->head = 0;
    assert_refused(f);
}

static void test_count_too_high(void **state)
{
    struct fixture *f = *state;

    host_mc(f)->nr_pages = NR + 1;
    assert_refused(f);
    host_mc(f)->nr_pages = UINT64_MAX;
    assert_refused(f);
}

static void test_unaligned_head(void **state)
{
    struct fixture *f = *state;

    /* The word there is as good a link as the first: only the alignment is wrong. */
    *(uint64_t *)el2_virt(f->el2, f->pages[0] + 8) = f->pages[1];
    host_mc(f)->head += 8;
    assert_refused(f);
}

static void test_unaligned_link(void **state)
{
    struct fixture *f = *state;

    *(uint64_t *)el2_virt(f->el2, f->pages[2] + 0xff8) = f->pages[3];
    *link_of(f, 1) += 0xff8;
    assert_refused(f);
}

static void test_cycle(void **state)
{
    struct fixture *f = *state;

    host_mc(f)->nr_pages = 1000;
    *link_of(f, NR - 1) = f->pages[1];
    assert_refused(f);
    *link_of(f, 0) = f->pages[0];
    assert_refused(f);
}

/* Pages that are not the host's to give. */
static void test_wrong_pages(void **state)
{
    struct fixture *f = *state;
    const uint64_t wrong[] = {
        f->vm.vm_page,                 /* EL2's */
        f->vm.pgd,                     /* a table */
        EL2_BASE_PFN << 12,            /* EL2's pool */
        f->vm.host_vcpu[0],            /* shared with EL2: the very page that holds the list */
        f->el2->nomap_pfn << 12,       /* NOMAP */
        f->el2->gap_pfn << 12,         /* MMIO */
        HYP_PAGE_SIZE,                 /* below all memory */
        UINT64_C(1) << 40,             /* beyond the physical address space */
        UINT64_MAX & ~UINT64_C(0xfff), /* far beyond */
    };

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        *link_of(f, 2) = wrong[i];
        assert_refused(f);
        *link_of(f, 2) = f->pages[3];
    }
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->target, GFN), 0);
}

/* The page to donate is in the list as well: it is EL2's by then. */
static void test_target_in_list(void **state)
{
    struct fixture *f = *state;

    f->target = f->pages[1] >> 12;
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->target, GFN), -HYP_EPERM);
    el2_assert_page(f->el2, f->target, PKVM_PAGE_NOPAGE, PKVM_PAGE_OWNED, 0, 0);
}

/* Tables and unused pages alike come back in the end. */
static void test_returned(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->target, GFN), 0);
    EL2_CALL(f->el2, vcpu_put);
    assert_int_equal(EL2_CALL(f->el2, force_reclaim_guest_page, f->target << 12), 0);
    assert_int_equal(el2_vm_destroy(f->el2, &f->vm), 1 + 1 + hyp_s2_pgd_pages(EL2_IPA_BITS) + NR);
}

struct heard {
    unsigned nr_lines;
    char first[256];
};

static void hear(void *ctx, const char *line)
{
    struct heard *heard = ctx;

    if (heard->nr_lines++ == 0)
        snprintf(heard->first, sizeof(heard->first), "%s", line);
}

/* EL2's own list is shorter than what it was given and did not use: nobody's call, so the audit sees it. */
static void test_lost_page(void **state)
{
    struct fixture *f = *state;
    struct heard heard = {0};
    struct hyp_memcache *mc = &hyp_vm_find(f->el2->hyp, f->vm.handle)->vcpus[0]->memcache;

    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->target, GFN), 0);
    assert_int_equal(oracle_audit(f->el2->oracle), 0);
    f->el2->on_divergence = hear;
    f->el2->divergence_ctx = &heard;
    mc->nr_pages--;
    assert_int_equal(oracle_audit(f->el2->oracle), 1);
    assert_string_equal(heard.first, "oracle: audit");
    mc->nr_pages++;
}

#define NR_TOO_MANY UINT64_C(33000)

/* More pages than the oracle follows in one call: it says so, and judges what comes after. */
static void test_more_than_oracle_follows(void **state)
{
    const struct el2_options options = {.nr_frames = NR_TOO_MANY + 2000, .one_region = true, .relaxed = true};
    struct el2 *el2 = el2_new(&options);
    struct heard heard = {0};
    struct oracle_stats stats;
    struct el2_vm vm;
    uint64_t pfn = el2_frames(el2, 2, 1);
    uint64_t regs[8] = {HVC_HOST_BASE + HVC_host_donate_guest, pfn, GFN};

    (void)state;
    el2->check = false;
    el2_vm_new(el2, &vm, true, HYP_UNSHARE_CONSENT, 1);
    EL2_CALL(el2, vcpu_load, vm.handle, 0);
    el2_topup(el2, &vm, 0, NR_TOO_MANY);
    el2->on_divergence = hear;
    el2->divergence_ctx = &heard;
    assert_int_equal(oracle_host_hvc(el2->oracle, 0, regs), HYP_NEXT_HOST);
    assert_int_equal(regs[1], 0);
    assert_int_equal(heard.nr_lines, 1);
    assert_non_null(strstr(heard.first, "not judged"));
    memcpy(regs, (uint64_t[]){HVC_HOST_BASE + HVC_host_donate_guest, pfn + 1, GFN + 1}, 3 * sizeof(regs[0]));
    oracle_host_hvc(el2->oracle, 0, regs);
    assert_int_equal(regs[1], 0);
    oracle_stats(el2->oracle, &stats);
    assert_int_equal(stats.unjudged, 1);
    assert_int_equal(stats.divergences, 0);
    assert_int_equal(oracle_audit(el2->oracle), 0);
    el2_check(el2);
    el2_free(el2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_good_list),
        TEST(test_too_few),
        TEST(test_empty),
        TEST(test_null_head),
        TEST(test_count_too_high),
        TEST(test_unaligned_head),
        TEST(test_unaligned_link),
        TEST(test_cycle),
        TEST(test_wrong_pages),
        TEST(test_target_in_list),
        TEST(test_returned),
        TEST(test_lost_page),
        cmocka_unit_test(test_more_than_oracle_follows),
    };

    return cmocka_run_group_tests_name("el2_memcache", tests, NULL, NULL);
}
