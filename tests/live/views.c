/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Views of guest memory: several at once, in parts, moved, and large ones that
 * the kernel populates.
 */
#include "tests/common/live_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LARGE (UINT64_C(8) << 20)
#define LARGE_PAGES (LARGE / PAGE)

/* Two bytes that tell pages and rounds apart. */
static void mark(uint8_t *p, uint64_t page, unsigned round)
{
    p[7] = (uint8_t)(page * 31 + round + 1);
    p[PAGE - 1] = (uint8_t)(page * 17 + round + 1);
}

static void assert_marked(const uint8_t *p, uint64_t page, unsigned round)
{
    assert_reads(p + 7, (uint8_t)(page * 31 + round + 1));
    assert_reads(p + PAGE - 1, (uint8_t)(page * 17 + round + 1));
}

/* ---- several views -------------------------------------------------------------------------------------------------
 */

static void two_views(void **state)
{
    struct file f;

    file_open(&f, state, 16 * PAGE);
    uint8_t *other = file_map(&f, NULL, 8 * PAGE, 4 * PAGE);
    f.view[5 * PAGE] = 'x';
    assert_reads(other + PAGE, 'x');
    must(file_convert(&f, 5, 1, FAKEHYP_PRIVATE));
    assert_refused(f.view + 5 * PAGE);
    assert_refused(other + PAGE);
    assert_reads(other, 0);
    must(file_convert(&f, 5, 1, FAKEHYP_SHARED));
    assert_reads(f.view + 5 * PAGE, 'x');
    assert_reads(other + PAGE, 'x');
    must(fakehyp_unmap(f.fh, other, 8 * PAGE));
    file_close(&f);
}

static void many_views(void **state)
{
    uint8_t *view[100];
    struct file f;

    file_open(&f, state, 16 * PAGE);
    for (unsigned i = 0; i < 100; i++)
        view[i] = file_map(&f, NULL, 16 * PAGE, 0);
    must(file_convert(&f, 3, 2, FAKEHYP_PRIVATE));
    for (unsigned i = 0; i < 100; i++)
        assert_refused(view[i] + 3 * PAGE);
    must(file_convert(&f, 3, 2, FAKEHYP_SHARED));
    f.view[3 * PAGE] = 9;
    for (unsigned i = 0; i < 100; i++) {
        assert_reads(view[i] + 3 * PAGE, 9);
        must(fakehyp_unmap(f.fh, view[i], 16 * PAGE));
    }
    file_close(&f);
}

static void at_an_address(void **state)
{
    struct file f;
    void *view;

    file_open(&f, state, 16 * PAGE);
    /* An address that is free: one that was just given back. */
    uint8_t *hint = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(hint, 4 * PAGE);
    uint8_t *p = file_map(&f, hint, 4 * PAGE, 0);
    assert_ptr_equal(p, hint);
    assert_int_equal(fakehyp_map(f.gmem, hint, PAGE, PROT_READ, 0, &view), -EEXIST);
    assert_int_equal(fakehyp_map(f.gmem, hint + 1, PAGE, PROT_READ, 0, &view), -EINVAL);
    assert_int_equal(fakehyp_map(f.gmem, NULL, 0, PROT_READ, 0, &view), -EINVAL);
    assert_int_equal(fakehyp_map(f.gmem, NULL, PAGE, PROT_READ, 1, &view), -EINVAL);
    assert_int_equal(fakehyp_map(f.gmem, NULL, PAGE, PROT_READ | PROT_EXEC, 0, &view), -EPERM);
    assert_int_equal(mprotect(p, PAGE, PROT_READ), 0);
    must(file_convert(&f, 0, 4, FAKEHYP_PRIVATE));
    assert_int_equal(fakehyp_touch_read(p, NULL, NULL, NULL), FAKEHYP_TOUCH_SIGBUS);
    must(fakehyp_unmap(f.fh, p, 4 * PAGE));
    file_close(&f);
}

static void parts(void **state)
{
    struct file f;

    file_open(&f, state, 16 * PAGE);
    for (unsigned i = 0; i < 16; i++)
        mark(f.view + i * PAGE, i, 0);
    /* The middle goes; both ends stay views. */
    must(fakehyp_unmap(f.fh, f.view + 6 * PAGE, 4 * PAGE));
    assert_int_equal(fakehyp_touch_read(f.view + 6 * PAGE, NULL, NULL, NULL), FAKEHYP_TOUCH_SIGSEGV);
    must(file_convert(&f, 0, 16, FAKEHYP_PRIVATE));
    assert_refused(f.view + 5 * PAGE);
    assert_refused(f.view + 10 * PAGE);
    must(file_convert(&f, 0, 16, FAKEHYP_SHARED));
    for (unsigned i = 0; i < 16; i++)
        if (i < 6 || i >= 10)
            assert_marked(f.view + i * PAGE, i, 0);
    rig_audit(f.fh);
    /* One call over all that is left, and what is no view. */
    file_close(&f);
}

/* A program may map what it wants over its view: the audit asks there for nothing. */
static void mapped_over(void **state)
{
    struct file f;

    file_open(&f, state, 16 * PAGE);
    uint8_t *over = f.view + 6 * PAGE;
    assert_ptr_equal(mmap(over, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     over);
    over[0] = 5;
    rig_audit(f.fh);
    must(file_convert(&f, 0, 16, FAKEHYP_PRIVATE));
    rig_audit(f.fh);
    assert_reads(over, 5);
    assert_refused(f.view + 5 * PAGE);
    assert_refused(f.view + 10 * PAGE);
    must(file_convert(&f, 0, 16, FAKEHYP_SHARED));
    rig_audit(f.fh);
    file_close(&f);
}

static void moved(void **state)
{
    struct file f;
    void *to;

    file_open(&f, state, 16 * PAGE);
    uint8_t *p = file_map(&f, NULL, 4 * PAGE, 4 * PAGE);
    for (unsigned i = 0; i < 16; i++)
        mark(f.view + i * PAGE, i, 3);
    must(file_convert(&f, 9, 1, FAKEHYP_PRIVATE));
    assert_int_equal(fakehyp_remap(f.fh, p + PAGE, PAGE, 2 * PAGE, &to), -EFAULT);
    must(fakehyp_remap(f.fh, p, 4 * PAGE, 8 * PAGE, &to));
    uint8_t *q = to;
    for (unsigned i = 0; i < 8; i++) {
        if (i + 4 == 9)
            assert_refused(q + i * PAGE);
        else
            assert_marked(q + i * PAGE, i + 4, 3);
    }
    must(fakehyp_remap(f.fh, q, 8 * PAGE, 2 * PAGE, &to));
    assert_ptr_equal(to, q);
    assert_int_equal(fakehyp_touch_read(q + 2 * PAGE, NULL, NULL, NULL), FAKEHYP_TOUCH_SIGSEGV);
    must(fakehyp_unmap(f.fh, q, 2 * PAGE));
    file_close(&f);
}

/* ---- large files, which are not populated --------------------------------------------------------------------------
 */

static void large_and_empty(void **state)
{
    const uint64_t middle = LARGE_PAGES / 2;
    struct file f;

    file_open(&f, state, LARGE);
    /* The kernel allocates at the first touch; nobody refuses anything. */
    assert_reads(f.view, 0);
    mark(f.view + middle * PAGE, middle, 1);
    mark(f.view + (middle + 1) * PAGE, middle + 1, 1);
    must(file_convert(&f, middle, 1, FAKEHYP_PRIVATE));
    assert_refused(f.view + middle * PAGE);
    assert_reads(f.view + (middle - 1) * PAGE, 0);
    assert_marked(f.view + (middle + 1) * PAGE, middle + 1, 1);
    /* Not touched before: still populated by a first touch. */
    mark(f.view + (middle + 2) * PAGE, middle + 2, 1);
    assert_marked(f.view + (middle + 2) * PAGE, middle + 2, 1);
    assert_reads(f.view + LARGE - 1, 0);
    rig_audit(f.fh);
    must(file_convert(&f, middle, 1, FAKEHYP_SHARED));
    assert_marked(f.view + middle * PAGE, middle, 1);
    file_close(&f);
}

static void large_to_and_fro(void **state)
{
    const uint64_t start = 100, nr = (UINT64_C(3) << 20) / PAGE; /* 3 MiB, not aligned to 2 MiB */
    struct file f;

    file_open(&f, state, LARGE);
    uint8_t *second = file_map(&f, NULL, LARGE / 2, LARGE / 4);
    for (unsigned round = 0; round < 3; round++) {
        /* Every third page has bytes. */
        for (uint64_t i = 0; i < LARGE_PAGES; i += 3)
            mark(f.view + i * PAGE, i, round);
        must(file_convert(&f, start, nr, FAKEHYP_PRIVATE));
        rig_audit(f.fh);
        for (uint64_t i = 0; i < LARGE_PAGES; i += 37) {
            bool inside = i >= start && i < start + nr;
            if (inside)
                assert_refused(f.view + i * PAGE);
            else
                assert_int_equal(fakehyp_touch_read(f.view + i * PAGE, NULL, NULL, NULL), FAKEHYP_TOUCH_OK);
        }
        assert_refused(f.view + start * PAGE);
        assert_refused(f.view + (start + nr) * PAGE - 1);
        assert_refused(second + (start + nr - LARGE_PAGES / 4 - 1) * PAGE);
        must(file_convert(&f, start, nr, FAKEHYP_SHARED));
        rig_audit(f.fh);
        for (uint64_t i = 0; i < LARGE_PAGES; i += 3)
            assert_marked(f.view + i * PAGE, i, round);
        for (uint64_t i = 1; i < LARGE_PAGES; i += 3)
            assert_reads(f.view + i * PAGE + 7, 0);
    }
    must(fakehyp_unmap(f.fh, second, LARGE / 2));
    file_close(&f);
}

static void large_in_holes(void **state)
{
    struct file f;

    file_open(&f, state, LARGE);
    for (uint64_t i = 0; i < LARGE_PAGES; i++)
        mark(f.view + i * PAGE, i, 7);
    must(file_convert(&f, 0, LARGE_PAGES, FAKEHYP_PRIVATE));
    for (uint64_t i = 0; i < 64; i += 2)
        must(file_convert(&f, i, 1, FAKEHYP_SHARED));
    for (uint64_t i = 0; i < 64; i++) {
        if (i % 2)
            assert_refused(f.view + i * PAGE);
        else
            assert_marked(f.view + i * PAGE, i, 7);
    }
    rig_audit(f.fh);
    /* A range that is shared here and private there. */
    must(file_convert(&f, 0, LARGE_PAGES, FAKEHYP_SHARED));
    for (uint64_t i = 0; i < LARGE_PAGES; i++)
        assert_marked(f.view + i * PAGE, i, 7);
    must(fakehyp_punch(f.gmem, 0, LARGE));
    assert_reads(f.view + 11 * PAGE + 7, 0);
    file_close(&f);
}

static void mapped_late(void **state)
{
    struct file f;

    file_open(&f, state, LARGE);
    must(file_convert(&f, 10, 600, FAKEHYP_PRIVATE));
    must(file_convert(&f, 1000, 1, FAKEHYP_PRIVATE));
    /* A view that comes later finds every page as it is now. */
    uint8_t *late = file_map(&f, NULL, LARGE, 0);
    assert_reads(late + 9 * PAGE, 0);
    assert_refused(late + 10 * PAGE);
    assert_refused(late + 609 * PAGE);
    assert_reads(late + 610 * PAGE, 0);
    assert_refused(late + 1000 * PAGE);
    assert_reads(late + 1001 * PAGE, 0);
    rig_audit(f.fh);
    must(fakehyp_unmap(f.fh, late, LARGE));
    file_close(&f);
}

static const struct CMUnitTest tests[] = {
    live_test(two_views),      live_test(many_views),  live_test(at_an_address),   live_test(parts),
    live_test(mapped_over),    live_test(moved),       live_test(large_and_empty), live_test(large_to_and_fro),
    live_test(large_in_holes), live_test(mapped_late),
};

RIG_MAIN(tests)
