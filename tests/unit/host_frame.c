/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames of RAM: what is given out is aligned, disjoint and counted, and nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "src/host/internal.h"

#define NR 1000u

/* EL1 with frames and nothing else. */
static void start(struct host *host, uint64_t base, uint64_t nr)
{
    *host = (struct host){0};
    assert_int_equal(frames_init(&host->frames, base, nr), 0);
}

static void expect_counts(const struct host *host, uint64_t ram, uint64_t data)
{
    assert_int_equal(host->frames.nr_ram, ram);
    assert_int_equal(host->frames.nr_data, data);
}

static void sizes(void **state)
{
    struct frames frames;
    assert_int_equal(frames_init(&frames, 16, 0), -EINVAL);
    assert_int_equal(frames_init(&frames, 16, UINT32_MAX), -EINVAL);
    assert_int_equal(frames_init(&frames, 16, UINT64_C(1) << 40), -EINVAL);
    frames_destroy(&frames);
    /* 4 TiB of RAM costs address space only. */
    assert_int_equal(frames_init(&frames, 16, UINT64_C(1) << 30), 0);
    frames_destroy(&frames);
}

static void orders_and_alignment(void **state)
{
    static const unsigned wanted[] = {0, 3, 1, 4, 0, 2, 4, 1, 3, 0, 0, 4};
    uint8_t used[NR] = {0};
    uint64_t pfn[sizeof(wanted) / sizeof(wanted[0])], total = 0;
    struct host host;

    /* An odd base: alignment is that of the physical address, not of the index. */
    start(&host, 0x1003, NR);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        uint64_t n = UINT64_C(1) << wanted[i];
        assert_int_equal(ram_alloc(&host, wanted[i], &pfn[i]), 0);
        assert_int_equal(pfn[i] & (n - 1), 0);
        for (uint64_t p = pfn[i]; p < pfn[i] + n; p++) {
            assert_true(p >= 0x1003 && p < 0x1003 + NR);
            assert_int_equal(used[p - 0x1003]++, 0);
            assert_int_equal(frame_of(&host, p)->refcount, 1);
        }
        total += n;
        expect_counts(&host, total, 0);
    }
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        ram_free(&host, wanted[i], pfn[i]);
        total -= UINT64_C(1) << wanted[i];
        expect_counts(&host, total, 0);
        assert_int_equal(frame_of(&host, pfn[i])->refcount, 0);
    }
    frames_destroy(&host.frames);
}

/* Takes single frames until there is none; returns how many, each once. */
static uint64_t take_all(struct host *host, uint8_t *used)
{
    uint64_t n = 0, pfn;
    while (ram_alloc(host, 0, &pfn) == 0) {
        assert_int_equal(used[pfn - host->frames.base]++, 0);
        n++;
    }
    assert_int_equal(ram_alloc(host, 0, &pfn), -ENOMEM);
    return n;
}

static void exhaustion_loses_nothing(void **state)
{
    struct host host;
    uint64_t big[NR / 16 + 1], n = 0, singles;
    uint8_t used[NR] = {0};

    start(&host, 0x1003, NR);
    while (ram_alloc(&host, 4, &big[n]) == 0) {
        for (unsigned i = 0; i < 16; i++)
            used[big[n] + i - 0x1003]++;
        n++;
    }
    /* 13 frames before the first aligned one, 987 after: 61 blocks and a rest of 11. */
    assert_int_equal(n, 61);
    expect_counts(&host, 61 * 16, 0);
    /* What alignment skipped at the start, and the rest at the end, is still there. */
    singles = take_all(&host, used);
    assert_int_equal(singles, NR - 61 * 16);
    expect_counts(&host, NR, 0);
    for (unsigned i = 0; i < NR; i++)
        assert_int_equal(used[i], 1);

    uint64_t pfn = 0xdead;
    assert_int_equal(ram_alloc(&host, 4, &pfn), -ENOMEM);
    expect_counts(&host, NR, 0);
    ram_free(&host, 4, big[3]);
    assert_int_equal(ram_alloc(&host, 4, &pfn), 0);
    assert_int_equal(pfn, big[3]);
    frames_destroy(&host.frames);
}

/* A refused request must not use up what smaller ones could have had. */
static void refused_request(void **state)
{
    struct host host;
    uint8_t used[24] = {0};
    uint64_t pfn;

    start(&host, 0x1001, 24);
    assert_int_equal(ram_alloc(&host, 4, &pfn), -ENOMEM);
    expect_counts(&host, 0, 0);
    assert_int_equal(take_all(&host, used), 24);
    frames_destroy(&host.frames);
}

static void reuse(void **state)
{
    struct host host;
    uint64_t a, b, c;

    start(&host, 0x1000, NR);
    assert_int_equal(ram_alloc(&host, 0, &a), 0);
    assert_int_equal(ram_alloc(&host, 2, &b), 0);
    uint64_t top = host.frames.bump;
    for (unsigned i = 0; i < 10000; i++) {
        ram_free(&host, 0, a);
        ram_free(&host, 2, b);
        assert_int_equal(ram_alloc(&host, 2, &b), 0);
        assert_int_equal(ram_alloc(&host, 0, &a), 0);
    }
    assert_int_equal(host.frames.bump, top);
    /* Last in, first out, by order. */
    ram_free(&host, 0, a);
    assert_int_equal(ram_alloc(&host, 0, &c), 0);
    assert_int_equal(c, a);
    expect_counts(&host, 5, 0);
    frames_destroy(&host.frames);
}

static void data_frames(void **state)
{
    struct host host;
    struct gmem gmem = {.id = 7};
    struct gmem *owner;
    uint64_t pfn, index;

    start(&host, 0x1000, NR);
    gmem.host = &host;
    host.gmems = &gmem;
    assert_int_equal(data_alloc(&host, &gmem, 0x123, &pfn), 0);
    expect_counts(&host, 0, 1);
    assert_true(host_frame_slot(&host, pfn, &owner, &index));
    assert_ptr_equal(owner, &gmem);
    assert_int_equal(index, 0x123);

    frame_of(&host, pfn)->refcount += FOLL_PIN_BIAS;
    frame_put(&host, pfn, 1);
    expect_counts(&host, 0, 1);
    assert_int_equal(frame_of(&host, pfn)->refcount, FOLL_PIN_BIAS);
    frame_put(&host, pfn, FOLL_PIN_BIAS);
    expect_counts(&host, 0, 0);
    assert_false(host_frame_slot(&host, pfn, &owner, &index));
    assert_int_equal(frame_of(&host, pfn)->flags, 0);

    assert_null(frame_of(&host, 0xfff));
    assert_null(frame_of(&host, 0x1000 + NR));
    assert_false(host_frame_slot(&host, 0xfff, &owner, &index));
    frames_destroy(&host.frames);
}

/* A frame tells its page exactly, or is not given out for it. */
static void far_pages(void **state)
{
    static const uint64_t indexes[] = {UINT32_MAX - 1, UINT32_MAX, UINT64_C(1) << 32, (UINT64_C(1) << 32) + 5,
                                       (UINT64_C(1) << 51) - 1};
    struct host host;
    struct gmem gmem = {.id = 7};
    struct gmem *owner;
    uint64_t pfn, index;

    start(&host, 0x1000, NR);
    gmem.host = &host;
    host.gmems = &gmem;
    for (size_t i = 0; i < sizeof(indexes) / sizeof(indexes[0]); i++) {
        int rc = data_alloc(&host, &gmem, indexes[i], &pfn);
        if (indexes[i] > UINT32_MAX) {
            assert_int_equal(rc, -EFBIG);
            continue;
        }
        assert_int_equal(rc, 0);
        assert_true(host_frame_slot(&host, pfn, &owner, &index));
        assert_int_equal(index, indexes[i]);
        frame_put(&host, pfn, 1);
    }
    expect_counts(&host, 0, 0);
    frames_destroy(&host.frames);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(orders_and_alignment),
        cmocka_unit_test(exhaustion_loses_nothing),
        cmocka_unit_test(refused_request),
        cmocka_unit_test(reuse),
        cmocka_unit_test(data_frames),
        cmocka_unit_test(far_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
