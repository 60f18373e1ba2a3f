/* SPDX-License-Identifier: BSD-2-Clause */
/* What a file has in a range: the same as lseek(2) says page by page, and never at the cost of the whole file. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/live/internal.h"

#define PAGES UINT64_C(12288) /* three times what is looked at at once */
#define FEW UINT64_C(600)
#define TRIES 60u

static unsigned nr_hole_seeks;
static uint64_t nr_looked_at;
static bool no_cachestat;

off_t __real_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence)
{
    nr_hole_seeks += whence == SEEK_HOLE;
    return __real_lseek(fd, offset, whence);
}

int __real_mincore(void *addr, size_t length, unsigned char *vec);
int __wrap_mincore(void *addr, size_t length, unsigned char *vec);
int __wrap_mincore(void *addr, size_t length, unsigned char *vec)
{
    nr_looked_at += length / PAGE;
    return __real_mincore(addr, length, vec);
}

long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
    if (no_cachestat && nr == 451) {
        errno = ENOSYS;
        return -1;
    }
    return __real_syscall(nr, a, b, c, d, e, f);
}

static uint64_t next(uint64_t below)
{
    static uint64_t x = 88172645463325252;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x % below;
}

/* Runs of holes, of pages that were only allocated, and of data. */
static int make_file(uint64_t pages, bool *data)
{
    int fd = memfd_create("data", MFD_CLOEXEC);
    char *p;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)(pages * PAGE)), 0);
    p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    for (uint64_t at = 0, past; at < pages; at = past) {
        /* Most are short, some longer than a look. */
        past = at + 1 + next(next(8) ? 40 : 3000);
        past = past < pages ? past : pages;
        unsigned kind = (unsigned)next(4);
        memset(data + at, kind >= 2, past - at);
        if (kind)
            assert_int_equal(fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)(at * PAGE), (off_t)((past - at) * PAGE)), 0);
        if (kind >= 2)
            memset(p + at * PAGE, 1, (past - at) * PAGE);
    }
    munmap(p, pages * PAGE);
    return fd;
}

static void compare(int fd, const bool *data, uint64_t start, uint64_t end)
{
    uint64_t first, past, told = 0, there = 0;
    bool all = true;

    for (uint64_t i = start; i < end; i++) {
        there += data[i];
        all = all && data[i];
    }
    for (uint64_t at = start; at < end; at = past) {
        bool found = fd_data(fd, at, end, &first, &past);
        assert_in_range(past, at + 1, end);
        for (uint64_t i = at; i < (found ? first : past); i++)
            assert_false(data[i]);
        for (uint64_t i = first; found && i < past; i++)
            assert_true(data[i]);
        told += found ? past - first : 0;
    }
    assert_int_equal(told, there);
    assert_int_equal(fd_data_pages(fd, start, end), there);
    assert_int_equal(fd_all_data(fd, start, end), all);
}

static void same_as_lseek(uint64_t pages)
{
    static bool data[PAGES];
    int fd = make_file(pages, data);

    compare(fd, data, 0, pages);
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t start = next(pages), nr = 1 + next(i % 2 ? 8 : pages);
        compare(fd, data, start, start + nr < pages ? start + nr : pages);
    }
    close(fd);
}

static void few_pages(void **state)
{
    same_as_lseek(FEW);
}

static void many_pages(void **state)
{
    nr_hole_seeks = 0;
    same_as_lseek(PAGES);
    assert_int_equal(nr_hole_seeks, 0);
}

static void many_pages_without_cachestat(void **state)
{
    no_cachestat = true;
    nr_hole_seeks = 0;
    same_as_lseek(PAGES);
    assert_int_equal(nr_hole_seeks, 0);
    no_cachestat = false;
}

/* A file so large that looking at each page would take a second; what it has is in its last pages. */
static void large_and_sparse(void **state)
{
    const uint64_t pages = UINT64_C(1) << 28, used = 5000;
    uint64_t first, past = 0;
    unsigned looks = 0;
    int fd = memfd_create("sparse", MFD_CLOEXEC);

    assert_int_equal(ftruncate(fd, (off_t)(pages * PAGE)), 0);
    assert_int_equal(fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)((pages - used) * PAGE), (off_t)(used * PAGE)), 0);
    assert_int_equal(pwrite(fd, "x", 1, (off_t)((pages - 1) * PAGE)), 1);
    while (!fd_data(fd, past, pages, &first, &past))
        looks++;
    assert_int_equal(first, pages - 1);
    assert_int_equal(past, pages);
    print_message("# 1 TiB: %u looks\n", looks);
    assert_in_range(looks, 0, 100);
    close(fd);
}

/* Runs of one page, each with a hole behind it: to find one must not cost what a look may take in. */
static void looked_at_once(bool known)
{
    uint64_t first, past, runs = 0;
    int fd = memfd_create("stripes", MFD_CLOEXEC);

    assert_int_equal(ftruncate(fd, (off_t)(PAGES * PAGE)), 0);
    for (uint64_t i = 0; i < PAGES; i += 2)
        assert_int_equal(pwrite(fd, "x", 1, (off_t)(i * PAGE)), 1);
    no_cachestat = !known;
    nr_looked_at = 0;
    for (uint64_t at = 0; at < PAGES; at = past)
        runs += fd_data(fd, at, PAGES, &first, &past);
    no_cachestat = false;
    assert_int_equal(runs, PAGES / 2);
    print_message("# %llu runs in %llu pages: %llu looked at\n", (unsigned long long)runs, (unsigned long long)PAGES,
                  (unsigned long long)nr_looked_at);
    assert_in_range(nr_looked_at, 0, 16 * PAGES);
    close(fd);
}

static void runs_of_one_page(void **state)
{
    looked_at_once(true);
    looked_at_once(false);
}

static void punch(bool known)
{
    static bool data[PAGES];
    struct live live = {.machine = NULL};
    int fd = make_file(PAGES, data);
    uint64_t start = 700, end = PAGES - 300;

    no_cachestat = !known;
    fd_punch_sliced(&live, fd, start, end);
    no_cachestat = false;
    memset(data + start, 0, end - start);
    compare(fd, data, 0, PAGES);
    assert_int_equal(fd_cached(fd, start, end), 0);
    assert_int_equal(fd_pages(fd), fd_cached(fd, 0, start) + fd_cached(fd, end, PAGES));
    close(fd);
}

static void punched(void **state)
{
    uint64_t range[2] = {0, PAGE}, counts[5];

    punch(false);
    if (syscall(451, 0, range, counts, 0) && errno == ENOSYS)
        print_message("# no cachestat(2) here\n");
    else
        punch(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_pages),
        cmocka_unit_test(many_pages),
        cmocka_unit_test(many_pages_without_cachestat),
        cmocka_unit_test(large_and_sparse),
        cmocka_unit_test(runs_of_one_page),
        cmocka_unit_test(punched),
    };

    return cmocka_run_group_tests_name("live_data", tests, NULL, NULL);
}
