/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a file has in a range, at a cost that the range bounds.
 *
 * lseek(2) has no end: SEEK_HOLE walks to the end of the run of data, SEEK_DATA
 * over all that was allocated and never touched, far beyond the range.  In
 * a file with many pages the range is looked at in the page cache instead,
 * where mincore(2) tells what lseek() would call data.
 */
#include "src/live/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/kernel/kernel.h"

/* A look takes in so many pages at most: less than half a millisecond. */
#define LOOK_PAGES UINT64_C(4096)
/* It begins with so few, and doubles them: where runs are short it must not cost what LOOK_PAGES do. */
#define FIRST_PAGES UINT64_C(16)
/* Empty ranges are passed over in steps of this at most, and so many of them in a look. */
#define SKIP_PAGES (16 * LOOK_PAGES)
#define SKIPS 512u

/* -1: Linux before 6.5. */
static int cachestat(int fd, uint64_t start, uint64_t end, struct kernel_cachestat *out)
{
    return kernel_cachestat(fd, start * PAGE, (end - start) * PAGE, out);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t fd_pages(int fd)
{
    struct stat st;
    return fstat(fd, &st) ? UINT64_MAX : (uint64_t)st.st_blocks * 512 / PAGE;
}

uint64_t fd_cached(int fd, uint64_t start, uint64_t end)
{
    struct kernel_cachestat in;
    return cachestat(fd, start, end, &in) ? 0 : in.cached;
}

static bool is_data(int fd, uint64_t index)
{
    return lseek(fd, (off_t)(index * PAGE), SEEK_DATA) == (off_t)(index * PAGE);
}

/* In a file of few pages: there is not much to walk over. */
static bool seek_data(int fd, uint64_t start, uint64_t end, uint64_t *first, uint64_t *past)
{
    off_t data = lseek(fd, (off_t)(start * PAGE), SEEK_DATA);
    *past = end;
    if (data < 0 || (uint64_t)data >= end * PAGE)
        return false;
    *first = (uint64_t)data / PAGE;
    off_t hole = *first + 1 < end ? lseek(fd, data, SEEK_HOLE) : -1;
    *past = hole < 0 ? *first + 1 : least(((uint64_t)hole + PAGE - 1) / PAGE, end);
    /* Punched between the two calls: still a page to look at. */
    if (*past <= *first)
        *past = *first + 1;
    return true;
}

/*
 * Passes over what is empty; false: *at is where the look ended.  *step: pages
 * to begin with at *at, in proportion to what was passed over.  *swapped: some
 * of them may be on a disk.
 */
static bool skip_empty(int fd, uint64_t *at, uint64_t end, uint64_t *step, bool *swapped)
{
    *step = FIRST_PAGES;
    for (unsigned i = 0; i < SKIPS && *at < end;) {
        struct kernel_cachestat in;
        uint64_t past = *at + least(end - *at, *step);
        *swapped = cachestat(fd, *at, past, &in) || in.evicted;
        if (*swapped || in.cached) {
            if (*step <= LOOK_PAGES)
                return true;
            *step = LOOK_PAGES;
            continue;
        }
        *at = past;
        *step = least(2 * *step, SKIP_PAGES);
        i++;
    }
    return false;
}

/* The first run of data in nr mapped pages, or where none is; false: the kernel does not say.  `step` doubles. */
static bool look(int fd, uint64_t start, char *p, uint64_t nr, uint64_t step, bool swapped, uint64_t *first,
                 uint64_t *past)
{
    unsigned char core[LOOK_PAGES]; /* one byte a page, as mincore() fills it */
    bool found = false;

    *first = *past = 0;
    for (uint64_t seen = 0; seen < nr; step *= 2) {
        uint64_t n = least(nr - seen, step);
        if (mincore(p + seen * PAGE, n * PAGE, core))
            return false;
        for (uint64_t i = 0; i < n; i++, seen++) {
            bool data = core[i] & 1 || (swapped && is_data(fd, start + seen));
            if (found && !data)
                return true;
            if (data && !found)
                *first = seen;
            found = found || data;
            *past = seen + 1;
        }
    }
    if (!found)
        *first = *past;
    return true;
}

bool fd_data(int fd, uint64_t start, uint64_t end, uint64_t *first, uint64_t *past)
{
    uint64_t step;
    bool swapped;

    if (fd_pages(fd) <= LOOK_PAGES)
        return seek_data(fd, start, end, first, past);
    if (!skip_empty(fd, &start, end, &step, &swapped)) {
        *past = start;
        return false;
    }
    if (swapped) {
        off_t data = lseek(fd, (off_t)(start * PAGE), SEEK_DATA);
        *past = end;
        if (data < 0 || (uint64_t)data >= end * PAGE)
            return false;
        start = (uint64_t)data / PAGE;
    }
    uint64_t nr = least(end - start, LOOK_PAGES);
    char *p = mmap(NULL, nr * PAGE, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)(start * PAGE));
    bool looked = p != MAP_FAILED && look(fd, start, p, nr, step, swapped, first, past);
    if (p != MAP_FAILED)
        munmap(p, nr * PAGE);
    if (!looked)
        return seek_data(fd, start, end, first, past);
    *first += start;
    *past += start;
    return *first < *past;
}

bool fd_all_data(int fd, uint64_t start, uint64_t end)
{
    uint64_t first, past;
    for (; start < end; start = past)
        if (!fd_data(fd, start, end, &first, &past) || first != start)
            return false;
    return true;
}

uint64_t fd_data_pages(int fd, uint64_t start, uint64_t end)
{
    uint64_t first, past, pages = 0;
    for (; start < end; start = past)
        if (fd_data(fd, start, end, &first, &past))
            pages += past - first;
    return pages;
}

void fd_punch(struct live *live, int fd, uint64_t start, uint64_t end)
{
    while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(start * PAGE),
                     (off_t)((end - start) * PAGE))) {
        if (errno == EINTR)
            continue;
        /* Nothing seals or shrinks these files: the kernel has no reason to refuse. */
        live_log(live, 0, "punching pages [0x%llx, 0x%llx): %s", (unsigned long long)start, (unsigned long long)end,
                 strerror(errno));
        return;
    }
}

void fd_punch_sliced(struct live *live, int fd, uint64_t start, uint64_t end)
{
    uint64_t step = SLICE_PAGES;
    while (end - start > SLICE_PAGES && fd_pages(fd) > SLICE_PAGES) {
        struct kernel_cachestat in;
        uint64_t past = start + least(end - start, step);
        bool known = !cachestat(fd, start, past, &in);
        if (step > SLICE_PAGES && known && in.cached > SLICE_PAGES) {
            step = SLICE_PAGES;
            continue;
        }
        fd_punch(live, fd, start, past);
        start = past;
        if (start == end)
            return;
        sched_relax_due();
        step = known ? least(2 * step, SKIP_PAGES) : 4 * SLICE_PAGES;
    }
    if (start < end)
        fd_punch(live, fd, start, end);
}
