/* SPDX-License-Identifier: BSD-2-Clause */
/* The two files behind a guest_memfd. */
#include "src/live/internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Sealed at once: a process that could add F_SEAL_WRITE would stop every later
 * punch, one that could shrink would take bytes away.
 */
static int file_open(const char *name, uint64_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

int fd_allocate(int fd, uint64_t start, uint64_t end)
{
    while (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)(start * PAGE), (off_t)((end - start) * PAGE)))
        if (errno != EINTR)
            return errno == ENOSPC ? -ENOMEM : -errno;
    return 0;
}

int live_file_create(void *ctx, struct mfile *mfile, bool in_host)
{
    struct live *live = ctx;
    struct live_file *f = calloc(1, sizeof(*f));
    char name[64];
    struct stat st;
    int rc;

    if (!f)
        return -ENOMEM;
    uint64_t bytes = mfile->nr_pages * PAGE;
    bool open = in_host && mfile->nr_pages >= OPEN_MIN_PAGES;
    f->live = live;
    f->mfile = mfile;
    f->private_fd = -1;
    snprintf(name, sizeof(name), "guest_memfd:%u", mfile->id);
    f->shared_fd = rc = file_open(name, bytes);
    if (rc >= 0) {
        snprintf(name, sizeof(name), "guest_memfd:%u:private", mfile->id);
        f->private_fd = rc = file_open(name, bytes);
    }
    if (rc >= 0)
        rc = fstat(f->shared_fd, &st) ? -errno : 0;
    if (!rc)
        rc = rangemap_init(&f->open, mfile->nr_pages, open ? VIEW_OPEN : VIEW_CLOSED);
    if (!rc && in_host && !open)
        rc = fd_allocate(f->shared_fd, 0, mfile->nr_pages);
    if (rc < 0) {
        if (f->shared_fd >= 0)
            close(f->shared_fd);
        if (f->private_fd >= 0)
            close(f->private_fd);
        rangemap_destroy(&f->open);
        free(f);
        return rc;
    }
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    f->next = live->files;
    if (f->next)
        f->next->prev = f;
    live->files = f;
    mfile->stage = f;
    return 0;
}

/* ---- the end of a file ---- */

/* The memory of a file that is no more. */
struct leftover {
    struct live *live;
    int fds[2]; /* shared, private */
    uint64_t nr_pages;
};

static void let_go(const struct leftover *l)
{
    /* Descriptors of the shared file may live on in clients; the memory need not. */
    fd_punch(l->live, l->fds[0], 0, l->nr_pages);
    close(l->fds[0]);
    close(l->fds[1]);
}

static void release_task(void *arg)
{
    struct leftover *l = arg;
    for (unsigned i = 0; i < 2; i++) {
        sched_point("release:file");
        fd_punch_sliced(l->live, l->fds[i], 0, l->nr_pages);
    }
    let_go(l);
    free(l);
}

/* Giving memory back takes its time: what is more than a slice goes slice by slice. */
static void release(struct live *live, int shared_fd, int private_fd, uint64_t nr_pages)
{
    const struct leftover now = {live, {shared_fd, private_fd}, nr_pages};
    struct leftover *later = fd_pages(shared_fd) + fd_pages(private_fd) <= SLICE_PAGES ? NULL : malloc(sizeof(*later));
    if (later) {
        *later = now;
        if (task_spawn(machine_sched(live->machine), "file-release", release_task, later))
            return;
        free(later);
    }
    let_go(&now);
}

void live_file_destroy(void *ctx, struct mfile *mfile)
{
    struct live *live = ctx;
    struct live_file *f = mfile->stage;

    assert(!f->transitions);
    if (f->direct_map)
        munmap(f->direct_map, mfile->nr_pages * PAGE);
    release(live, f->shared_fd, f->private_fd, mfile->nr_pages);
    rangemap_destroy(&f->open);
    if (f->prev)
        f->prev->next = f->next;
    else
        live->files = f->next;
    if (f->next)
        f->next->prev = f->prev;
    free(f);
}

static int side_fd(const struct live_file *f, bool in_host)
{
    return in_host ? f->shared_fd : f->private_fd;
}

bool live_populated(void *ctx, struct mfile *mfile, bool in_host, uint64_t start, uint64_t end, uint64_t *first,
                    uint64_t *past)
{
    (void)ctx;
    int fd = side_fd(mfile->stage, in_host);
    for (uint64_t at = start; at < end; at = *past) {
        if (fd_data(fd, at, end, first, past))
            return true;
        sched_relax_due();
    }
    return false;
}

int live_allocate(void *ctx, struct mfile *mfile, bool in_host, uint64_t start, uint64_t end)
{
    (void)ctx;
    const struct live_file *f = mfile->stage;
    /* On the guest's side pages come with the guest's first touch; fallocate() there would buy nothing. */
    return in_host ? fd_allocate(f->shared_fd, start, end) : 0;
}

/* A page that is changing sides stays data of the file that it is in: the move relies on what it has seen. */
static void zero_moving(const struct live_file *f, int fd, uint64_t index)
{
    static const char zeros[PAGE];
    uint64_t first, past;

    if (fd_data(fd, index, index + 1, &first, &past) && pwrite(fd, zeros, PAGE, (off_t)(index * PAGE)) != (ssize_t)PAGE)
        live_log(f->live, 0, "zeroing page 0x%llx: %s", (unsigned long long)index, strerror(errno));
}

void live_discard(void *ctx, struct mfile *mfile, bool in_host, uint64_t start, uint64_t end)
{
    struct live *live = ctx;
    struct live_file *f = mfile->stage;

    /* Everybody but EL2, which has single pages, waits for the end of a change of sides. */
    if (end - start == 1 && in_transition(f, start)) {
        zero_moving(f, side_fd(f, in_host), start);
        return;
    }
    /* EL2 may also name the side on which the page is not: there is nothing to keep. */
    bool keep = in_host && !mmu_side(mfile, start).private;
    while (start < end) {
        uint64_t past = end - start > SLICE_PAGES ? start + SLICE_PAGES : end;
        fd_punch(live, side_fd(f, in_host), start, past);
        /* Where views are registered a hole would answer SIGBUS, and this memory is shared. */
        for (struct range r = rangemap_first(&f->open, start, past); keep && r.start < past;
             r = rangemap_next(&f->open, r, past)) {
            int rc = r.value == VIEW_CLOSED ? fd_allocate(f->shared_fd, r.start, r.end) : 0;
            if (rc)
                live_log(live, 0, "no memory to keep punched shared pages reachable: accesses will answer SIGBUS");
        }
        start = past;
        /* The caller of a long one holds the file's lock.  EL2 discards single pages and must not be left. */
        if (start < end)
            sched_relax();
    }
}

int live_read(void *ctx, struct mfile *mfile, bool in_host, uint64_t offset, void *buf, size_t length)
{
    (void)ctx;
    ssize_t n = pread(side_fd(mfile->stage, in_host), buf, length, (off_t)offset);
    return n == (ssize_t)length ? 0 : n < 0 ? -errno : -EIO;
}

int live_write(void *ctx, struct mfile *mfile, bool in_host, uint64_t offset, const void *buf, size_t length)
{
    (void)ctx;
    ssize_t n = pwrite(side_fd(mfile->stage, in_host), buf, length, (off_t)offset);
    return n == (ssize_t)length ? 0 : n < 0 ? -errno : -EIO;
}

int live_file_fd(const struct gmem *gmem)
{
    const struct live_file *f = machine_file(gmem)->stage;
    return f->shared_fd;
}

struct gmem *live_file_of_fd(struct live *live, int fd)
{
    struct stat st;
    /* It may be anything, such as a file of a server that does not answer: only memfds and the like have seals. */
    if (fcntl(fd, F_GET_SEALS) < 0 || fstat(fd, &st))
        return NULL;
    for (struct live_file *f = live->files; f; f = f->next)
        if (f->dev == st.st_dev && f->ino == st.st_ino)
            return f->mfile->gmem;
    return NULL;
}
