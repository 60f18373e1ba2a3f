/* SPDX-License-Identifier: BSD-2-Clause */
/* What is mapped at an address: by PROCMAP_QUERY (Linux 6.11) and by the text of /proc/self/maps, which must agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/client/client.h"

#define PAGE ((uintptr_t)FAKEHYP_PAGE_SIZE)
#define PAGES 8u
#define ROOM ((size_t)256 << 20)

/* No descriptor: the text is all that an older kernel has. */
#define BY_TEXT -1

struct place {
    int maps_fd, file;
    uintptr_t base; /* PAGES pages: [1, 3) the file from page 5 on, [4, 5) anonymous, else nothing */
    struct stat st;
};

static int set_up(void **state)
{
    static struct place p;

    p.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    /* A name as a line of maps might have to be cut at. */
    p.file = memfd_create("a b 1-2 00:01 7\n", MFD_CLOEXEC);
    if (p.maps_fd < 0 || p.file < 0 || ftruncate(p.file, (off_t)(16 * PAGE)) || fstat(p.file, &p.st))
        return -1;
    /* The kernel takes the highest free place for what others map meanwhile: the gaps here are far below it. */
    char *base = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || munmap(base, ROOM))
        return -1;
    p.base = (uintptr_t)base;
    if (mmap(base + PAGE, 2 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, p.file, (off_t)(5 * PAGE)) == MAP_FAILED ||
        mmap(base + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
            MAP_FAILED)
        return -1;
    *state = &p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;

    munmap((void *)p->base, PAGES * PAGE);
    close(p->file);
    close(p->maps_fd);
    return 0;
}

static void is_the_file(const struct place *p, const struct kernel_vma *vma)
{
    assert_true(vma->start == p->base + PAGE);
    assert_true(vma->end == p->base + 3 * PAGE);
    assert_int_equal(vma->offset, 5 * PAGE);
    assert_true(vma->dev == p->st.st_dev);
    assert_true(vma->ino == p->st.st_ino);
}

static void look(const struct place *p, int maps_fd)
{
    struct kernel_vma vma;

    /* The whole mapping, whichever page is asked for; before it: the next one. */
    for (unsigned page = 0; page < 3; page++) {
        assert_int_equal(fh_vma_at(maps_fd, p->base + page * PAGE, &vma), 1);
        is_the_file(p, &vma);
    }
    assert_int_equal(fh_vma_at(maps_fd, p->base + 3 * PAGE - 1, &vma), 1);
    is_the_file(p, &vma);
    for (unsigned page = 3; page < 5; page++) {
        assert_int_equal(fh_vma_at(maps_fd, p->base + page * PAGE, &vma), 1);
        assert_true(vma.start == p->base + 4 * PAGE);
        assert_int_equal(vma.ino, 0);
        assert_int_equal(vma.dev, 0);
    }
    assert_int_equal(fh_vma_at(maps_fd, UINTPTR_MAX, &vma), 0);
}

static void by_query(void **state)
{
    const struct place *p = *state;

    look(p, p->maps_fd);
}

static void by_text(void **state)
{
    look(*state, BY_TEXT);
}

/* A descriptor that knows nothing of the query, as /proc/self/maps of an older kernel: ENOTTY. */
static void by_text_after_enotty(void **state)
{
    const struct place *p = *state;

    look(p, p->file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(by_query, set_up, tear_down),
        cmocka_unit_test_setup_teardown(by_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(by_text_after_enotty, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
