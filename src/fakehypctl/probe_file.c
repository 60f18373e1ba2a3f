/* SPDX-License-Identifier: BSD-2-Clause */
/* memfds: the two files of a guest_memfd, and how bytes move between them. */
#include "src/fakehypctl/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define NR_PAGES 8
/* Both files of a guest_memfd have these from the start. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static void fail_memfd(struct probe_result *r)
{
    int err = errno;

    probe_fail_errno(r, "memfd_create");
    if (err == EACCES)
        probe_remedy(r, "%ssysctl -w vm.memfd_noexec=1", probe_sudo());
}

static int new_memfd(struct probe_result *r)
{
    int fd = memfd_create("fakehyp-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0) {
        fail_memfd(r);
        return -1;
    }
    if (ftruncate(fd, NR_PAGES * PAGE)) {
        probe_fail_errno(r, "ftruncate of a memfd");
        close(fd);
        return -1;
    }
    return fd;
}

static int punch(int fd, off_t offset, off_t length)
{
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

void probe_memfd(struct probe_result *r, const struct probe_arg *arg)
{
    int fd = new_memfd(r);

    if (fd < 0)
        return;
    if (fcntl(fd, F_ADD_SEALS, SEALS) || fcntl(fd, F_GET_SEALS) != SEALS)
        probe_fail_errno(r, "F_ADD_SEALS");
    else if (!ftruncate(fd, PAGE) || !ftruncate(fd, 2 * NR_PAGES * PAGE))
        probe_fail(r, "a sealed memfd changed its size");
    else if (!fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE))
        probe_fail(r, "a sealed memfd took another seal");
    else
        probe_ok(r, "size and seals are fixed");
    close(fd);
}

void probe_punch_hole(struct probe_result *r, const struct probe_arg *arg)
{
    const char text[] = "private";
    volatile char *view;
    int fd = new_memfd(r);

    if (fd < 0)
        return;
    view = mmap(NULL, NR_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (view == MAP_FAILED) {
        probe_fail_errno(r, "mmap of a memfd");
        return;
    }
    memcpy((char *)view + PAGE, text, sizeof(text));
    if (fcntl(fd, F_ADD_SEALS, SEALS) || punch(fd, PAGE, PAGE)) {
        probe_fail_errno(r, "FALLOC_FL_PUNCH_HOLE");
        return;
    }
    if (lseek(fd, 0, SEEK_DATA) >= 0 || errno != ENXIO)
        probe_fail(r, "a punched page is data still");
    else if (view[PAGE])
        probe_fail(r, "a punched page is mapped still");
    else
        probe_ok(r, "a punched page leaves file and views");
}

void probe_splice(struct probe_result *r, const struct probe_arg *arg)
{
    char sent[PAGE], got[PAGE];
    off_t in = 2 * PAGE, out = 2 * PAGE;
    int from = new_memfd(r), to = from < 0 ? -1 : new_memfd(r), p[2];

    if (to < 0)
        return;
    memset(sent, 0x5a, sizeof(sent));
    if (pipe2(p, O_CLOEXEC) || pwrite(from, sent, PAGE, 2 * PAGE) != PAGE) {
        probe_fail_errno(r, "pipe2 or pwrite");
        return;
    }
    if (splice(from, &in, p[1], NULL, PAGE, 0) != PAGE || punch(from, 2 * PAGE, PAGE) ||
        splice(p[0], NULL, to, &out, PAGE, 0) != PAGE) {
        probe_fail_errno(r, "splice");
        return;
    }
    if (pread(to, got, PAGE, 2 * PAGE) == PAGE && !memcmp(sent, got, PAGE))
        probe_ok(r, "the pipe keeps a punched page's bytes");
    else
        probe_fail(r, "bytes were lost on the way");
}

void probe_seek_data(struct probe_result *r, const struct probe_arg *arg)
{
    int fd = new_memfd(r);

    if (fd < 0)
        return;
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, PAGE, PAGE) || pwrite(fd, "x", 1, 5 * PAGE) != 1) {
        probe_fail_errno(r, "fallocate or pwrite");
        return;
    }
    if (lseek(fd, 0, SEEK_DATA) != 5 * PAGE)
        probe_fail(r, "an allocated page that nobody wrote counts as data");
    else if (lseek(fd, 5 * PAGE, SEEK_HOLE) != 6 * PAGE)
        probe_fail(r, "data does not end with its page");
    else
        probe_ok(r, "exact to the page; allocated but unwritten is a hole");
}
