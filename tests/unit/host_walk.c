/* SPDX-License-Identifier: BSD-2-Clause */
/* A long random walk of conversions, pins, accesses and punches, against an oracle. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define P HOST_PAGE_SIZE
#define PRIVATE KVM_MEMORY_ATTRIBUTE_PRIVATE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

#define STEPS 100000
#define MAX_PINS 24

static uint64_t seed;

static unsigned rnd(unsigned below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 11) % below);
}

/* What the specification says of one page, written without a look at the implementation. */
struct oracle_page {
    bool is_private, allocated;
    unsigned references;
    unsigned generation; /* a punched page is another page from then on */
    char byte;
};

struct oracle_pin {
    struct ref *pin;
    unsigned start, nr;
    unsigned generation[16];
};

static bool oracle_page_refuses(const struct oracle_page *page, bool to_private)
{
    return to_private && page->allocated && page->references;
}

static void oracle_convert(struct simworld *w, struct oracle_page *pages, unsigned start, unsigned nr, bool to_private)
{
    int expected = 0;
    unsigned at = 0;
    bool all = true;
    for (unsigned i = start; i < start + nr; i++)
        all = all && pages[i].is_private == to_private;
    for (unsigned i = start + nr; i-- > start && !all;) {
        if (oracle_page_refuses(&pages[i], to_private)) {
            expected = -EAGAIN;
            at = i;
        }
    }
    assert_int_equal(sw_convert(w, start, nr, to_private), expected);
    assert_int_equal(w->busy.error_offset_valid, expected != 0);
    if (expected) {
        assert_int_equal(w->busy.error_offset, at * P);
        unsigned expect_holders = pages[at].references;
        assert_int_equal(w->busy.nr_holders, expect_holders < BUSY_MAX_HOLDERS ? expect_holders : BUSY_MAX_HOLDERS);
    } else {
        for (unsigned i = start; i < start + nr; i++)
            pages[i].is_private = to_private;
    }
}

static void oracle_pin(struct simworld *w, struct oracle_page *pages, struct oracle_pin *p, unsigned start, unsigned nr)
{
    bool refused_pin = false;
    for (unsigned i = start; i < start + nr && !refused_pin; i++) {
        refused_pin = pages[i].is_private;
        pages[i].allocated |= !pages[i].is_private;
    }
    int rc = gmem_pin(w->gmem, start * P, nr * P, (enum ref_kind)rnd(REF_USER_KINDS), "walk", &p->pin, &w->caller);
    assert_int_equal(rc, refused_pin ? -EFAULT : 0);
    if (rc)
        return;
    p->start = start;
    p->nr = nr;
    for (unsigned i = 0; i < nr; i++) {
        pages[start + i].references++;
        p->generation[i] = pages[start + i].generation;
    }
}

static void oracle_unpin(struct oracle_page *pages, struct oracle_pin *p)
{
    gmem_unpin(p->pin);
    p->pin = NULL;
    for (unsigned i = 0; i < p->nr; i++)
        if (pages[p->start + i].generation == p->generation[i])
            pages[p->start + i].references--;
}

static void oracle_access(struct simworld *w, struct oracle_page *page, unsigned i, bool write)
{
    char byte = (char)('a' + rnd(26));
    enum sim_access expected = page->is_private ? SIM_SIGBUS : SIM_OK;
    if (write) {
        assert_int_equal(sim_host_write(w->sim, w->mm, w->va + i * P, &byte, 1), expected);
    } else {
        char got = 0;
        assert_int_equal(sim_host_read(w->sim, w->mm, w->va + i * P, &got, 1), expected);
        if (expected == SIM_OK)
            assert_int_equal(got, page->byte);
    }
    if (expected == SIM_OK) {
        page->allocated = true;
        page->byte = write ? byte : page->byte;
    }
}

static void oracle_punch(struct simworld *w, struct oracle_page *pages, unsigned start, unsigned nr)
{
    assert_int_equal(gmem_fallocate(w->gmem, PUNCH, (int64_t)(start * P), (int64_t)(nr * P), &w->caller), 0);
    for (unsigned i = start; i < start + nr; i++)
        pages[i] = (struct oracle_page){.is_private = pages[i].is_private, .generation = pages[i].generation + 1};
}

static void random_walk(struct simworld *w)
{
    struct oracle_page pages[16] = {0};
    struct oracle_pin pins[MAX_PINS] = {0};
    unsigned refusals = 0, successes = 0;

    seed = UINT64_C(0x5eed0003);
    for (unsigned conversions = 0; conversions < STEPS;) {
        unsigned start = rnd(16), nr = 1 + rnd(rnd(2) ? 16 - start : 1);
        struct oracle_pin *p = &pins[rnd(MAX_PINS)];
        switch (rnd(16)) {
        case 0:
            if (!p->pin)
                oracle_pin(w, pages, p, start, nr < 4 ? nr : 1 + rnd(3 < 16 - start ? 3 : 16 - start));
            break;
        case 1:
        case 2:
            if (p->pin)
                oracle_unpin(pages, p);
            break;
        case 3:
        case 4:
        case 5:
            oracle_access(w, &pages[start], start, rnd(2));
            break;
        case 6:
            if (rnd(4) == 0)
                oracle_punch(w, pages, start, nr);
            break;
        default:
            oracle_convert(w, pages, start, nr, rnd(2));
            conversions++;
            refusals += w->busy.error_offset_valid;
            successes += !w->busy.error_offset_valid;
            break;
        }
        if (conversions % 1024 == 0)
            sw_audit(w);
        for (unsigned i = 0; i < 16; i++)
            assert_int_equal(gmem_is_private(w->gmem, i), pages[i].is_private);
    }
    for (unsigned i = 0; i < 16; i++) {
        struct page_report page;
        gmem_page_report(w->gmem, i, &page);
        assert_int_equal(page.allocated, pages[i].allocated);
    }
    for (unsigned i = 0; i < MAX_PINS; i++)
        if (pins[i].pin)
            gmem_unpin(pins[i].pin);
    sw_audit(w);
    /* Both answers were common. */
    assert_true(refusals > STEPS / 20 && successes > STEPS / 20);
}

SIMWORLD(random_walk, .no_vmm = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
