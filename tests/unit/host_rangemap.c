/* SPDX-License-Identifier: BSD-2-Clause */
/* The range map against a plain array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "src/host/rangemap.h"

#define SIZE 257u

void *__real_calloc(size_t nmemb, size_t size);
void *__wrap_calloc(size_t nmemb, size_t size);

static int fail_in; /* the n-th allocation from now fails, 0 none */

void *__wrap_calloc(size_t nmemb, size_t size)
{
    if (fail_in && --fail_in == 0)
        return NULL;
    return __real_calloc(nmemb, size);
}

static uint64_t seed;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* The map says of every page what the array says, in maximal ranges and no others. */
static void compare(const struct rangemap *map, const uint64_t *model)
{
    size_t nr = 0;
    for (uint64_t i = 0; i < SIZE;) {
        uint64_t end = i + 1;
        while (end < SIZE && model[end] == model[i])
            end++;
        uint64_t inside = i + rnd() % (end - i);
        struct range r = rangemap_get(map, inside);
        assert_int_equal(r.start, i);
        assert_int_equal(r.end, end);
        assert_int_equal(r.value, model[i]);
        nr++;
        i = end;
    }
    assert_int_equal(map->nr_ranges, nr);
}

static void compare_window(const struct rangemap *map, const uint64_t *model, uint64_t start, uint64_t end)
{
    uint64_t at = start;
    for (struct range r = rangemap_first(map, start, end); r.start < end; r = rangemap_next(map, r, end)) {
        assert_int_equal(r.start, at);
        assert_true(r.end > r.start && r.end <= end);
        for (uint64_t i = r.start; i < r.end; i++)
            assert_int_equal(model[i], r.value);
        /* Not cut where nothing changes. */
        assert_true(r.end == end || model[r.end] != r.value);
        at = r.end;
    }
    assert_int_equal(at, end > start ? end : start);
    bool same = true;
    for (uint64_t i = start; i < end; i++)
        same = same && model[i] == model[start];
    if (start < end) {
        assert_int_equal(rangemap_all(map, start, end, model[start]), same);
        assert_false(rangemap_all(map, start, end, model[start] + 1));
    }
}

static void random_sets(void **state)
{
    uint64_t model[SIZE] = {0};
    struct rangemap map;
    size_t most = 0;

    seed = UINT64_C(0x5eed0001);
    assert_int_equal(rangemap_init(&map, SIZE, 0), 0);
    for (unsigned step = 0; step < 100000; step++) {
        uint64_t start = rnd() % SIZE, longest = step & 1 ? SIZE - start : 1 + rnd() % 8;
        uint64_t end = start + 1 + rnd() % longest, value = rnd() % 3;
        if (end > SIZE)
            end = SIZE;
        assert_int_equal(rangemap_reserve(&map), 0);
        rangemap_set(&map, start, end, value);
        for (uint64_t i = start; i < end; i++)
            model[i] = value;
        if (map.nr_ranges > most)
            most = map.nr_ranges;
        compare(&map, model);
        if (step % 16 == 0) {
            uint64_t a = rnd() % SIZE, b = a + rnd() % (SIZE + 1 - a);
            compare_window(&map, model, a, b);
        }
    }
    /* The walk was no idle one. */
    assert_true(most > 20);
    rangemap_destroy(&map);
    assert_int_equal(map.nr_ranges, 0);
}

static void set(struct rangemap *map, uint64_t start, uint64_t end, uint64_t value)
{
    assert_int_equal(rangemap_reserve(map), 0);
    rangemap_set(map, start, end, value);
}

static void merges(void **state)
{
    struct rangemap map;
    assert_int_equal(rangemap_init(&map, 100, 7), 0);
    assert_int_equal(map.nr_ranges, 1);
    set(&map, 0, 100, 7);
    assert_int_equal(map.nr_ranges, 1);
    set(&map, 40, 60, 8);
    assert_int_equal(map.nr_ranges, 3);
    set(&map, 60, 70, 8); /* grows to the right */
    set(&map, 30, 40, 8); /* and to the left */
    assert_int_equal(map.nr_ranges, 3);
    struct range r = rangemap_get(&map, 50);
    assert_int_equal(r.start, 30);
    assert_int_equal(r.end, 70);
    set(&map, 0, 10, 9);
    set(&map, 99, 100, 9);
    assert_int_equal(map.nr_ranges, 5);
    set(&map, 10, 99, 9); /* joins both neighbours */
    assert_int_equal(map.nr_ranges, 1);
    assert_true(rangemap_all(&map, 0, 100, 9));
    rangemap_destroy(&map);
}

static void no_size_is_too_large(void **state)
{
    struct rangemap map;
    uint64_t top = UINT64_MAX;
    assert_int_equal(rangemap_init(&map, top, 0), 0);
    set(&map, top - 1, top, 1);
    set(&map, 0, 1, 1);
    assert_int_equal(map.nr_ranges, 3);
    assert_int_equal(rangemap_get(&map, top - 1).start, top - 1);
    assert_int_equal(rangemap_get(&map, top / 2).end, top - 1);
    rangemap_destroy(&map);
}

/* After one reserve() a set() allocates nothing, even where it cuts a range in three. */
static void reserve_is_enough(void **state)
{
    struct rangemap map;
    assert_int_equal(rangemap_init(&map, 100, 0), 0);
    for (int n = 1; n <= 2; n++) {
        struct rangemap fresh;
        assert_int_equal(rangemap_init(&fresh, 100, 0), 0);
        fail_in = n;
        assert_int_equal(rangemap_reserve(&fresh), -ENOMEM);
        assert_int_equal(fail_in, 0);
        assert_int_equal(fresh.nr_ranges, 1);
        assert_true(rangemap_all(&fresh, 0, 100, 0));
        rangemap_destroy(&fresh);
    }
    assert_int_equal(rangemap_reserve(&map), 0);
    fail_in = 1;
    /* A second reserve finds both spares. */
    assert_int_equal(rangemap_reserve(&map), 0);
    rangemap_set(&map, 10, 20, 1);
    assert_int_equal(fail_in, 1);
    fail_in = 0;
    assert_int_equal(map.nr_ranges, 3);
    fail_in = 1;
    assert_int_equal(rangemap_init(&(struct rangemap){0}, 1, 0), -ENOMEM);
    rangemap_destroy(&map);
}

static void empty_windows(void **state)
{
    struct rangemap map;
    assert_int_equal(rangemap_init(&map, 10, 3), 0);
    assert_true(rangemap_first(&map, 4, 4).start >= 4);
    assert_true(rangemap_first(&map, 10, 10).start >= 10);
    struct range r = rangemap_first(&map, 2, 5);
    assert_int_equal(r.start, 2);
    assert_int_equal(r.end, 5);
    assert_int_equal(r.value, 3);
    assert_true(rangemap_next(&map, r, 5).start >= 5);
    rangemap_destroy(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_sets),          cmocka_unit_test(merges),        cmocka_unit_test(reserve_is_enough),
        cmocka_unit_test(no_size_is_too_large), cmocka_unit_test(empty_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
