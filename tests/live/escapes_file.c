/* SPDX-License-Identifier: BSD-2-Clause */
/* Ways around the boundary by way of the descriptor: all that a file can be asked for. */
#include "tests/common/live_escape.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

static const uint8_t nothing[4096];

static off_t offset_of(uint64_t page)
{
    return (off_t)(page * PAGE);
}

/* ---- reading --------------------------------------------------------------------------------------------------------
 */

static void read_it(struct escape *e)
{
    char buf[4096];

    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        ssize_t n = pread(e->fd, buf, sizeof(buf), offset_of(escape_page(i)));
        if (n > 0)
            escape_saw(e, escape_page(i), buf, (size_t)n);
        else
            escape_refused(e);
    }
}

/* What is in a pipe, a file of one page and so on: a page's bytes, if there are any. */
static void saw_in(struct escape *e, uint64_t page, int fd, size_t length)
{
    char buf[4096];
    size_t done = 0;

    while (done < length) {
        ssize_t n = read(fd, buf + done, length - done);
        if (n <= 0)
            escape_broken(e, "read of what was copied");
        done += (size_t)n;
    }
    escape_saw(e, page, buf, done);
}

static void open_pipe(struct escape *e, int fds[2])
{
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        escape_broken(e, "pipe");
}

static void close_pipe(const int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

static void spliced(struct escape *e)
{
    int fds[2], copy[2];

    open_pipe(e, fds);
    open_pipe(e, copy);
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        loff_t at = offset_of(escape_page(i));
        ssize_t n = splice(e->fd, &at, fds[1], NULL, PAGE, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (n <= 0) {
            escape_barred(e);
            continue;
        }
        ssize_t teed = tee(fds[0], copy[1], (size_t)n, SPLICE_F_NONBLOCK);
        saw_in(e, escape_page(i), fds[0], (size_t)n);
        if (teed > 0)
            saw_in(e, escape_page(i), copy[0], (size_t)teed);
    }
    close_pipe(fds);
    close_pipe(copy);
}

/* Pages go into a pipe while they are shared, perhaps, and come out when they have changed sides. */
static void splice_held(struct escape *e)
{
    size_t length[ARENA_FLIPS];
    int fds[2];

    open_pipe(e, fds);
    fcntl(fds[1], F_SETPIPE_SZ, 64 * 4096);
    for (unsigned i = 0; i < ARENA_FLIPS; i++) {
        loff_t at = offset_of(ARENA_FLIP + i);
        ssize_t n = splice(e->fd, &at, fds[1], NULL, PAGE, SPLICE_F_NONBLOCK);
        length[i] = n > 0 ? (size_t)n : 0;
    }
    rig_sleep_ms(1);
    for (unsigned i = 0; i < ARENA_FLIPS; i++)
        if (length[i])
            saw_in(e, ARENA_FLIP + i, fds[0], length[i]);
    close_pipe(fds);
}

static void sent(struct escape *e)
{
    int fds[2];

    open_pipe(e, fds);
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        off_t at = offset_of(escape_page(i));
        ssize_t n = sendfile(fds[1], e->fd, &at, PAGE);
        if (n > 0)
            saw_in(e, escape_page(i), fds[0], (size_t)n);
        else
            escape_barred(e);
    }
    close_pipe(fds);
}

static void copied(struct escape *e)
{
    int to = memfd_create("copy", MFD_CLOEXEC);

    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        loff_t at = offset_of(escape_page(i)), start = 0;
        ssize_t n = copy_file_range(e->fd, &at, to, &start, PAGE, 0);
        if (n <= 0) {
            escape_barred(e);
            continue;
        }
        lseek(to, 0, SEEK_SET);
        saw_in(e, escape_page(i), to, (size_t)n);
    }
    close(to);
}

static void data_sought(struct escape *e)
{
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        off_t at = offset_of(escape_page(i));
        if (lseek(e->fd, at, SEEK_DATA) == at)
            escape_saw(e, escape_page(i), nothing, 1);
        else
            escape_refused(e);
    }
}

static void ioctls(struct escape *e)
{
    struct fiemap map = {.fm_length = ESCAPE_BYTES};
    int to = escape_scratch(0), block = 0;

    if (ioctl(e->fd, FS_IOC_FIEMAP, &map) && ioctl(e->fd, FIBMAP, &block) && ioctl(to, FICLONE, e->fd))
        escape_barred(e);
    else
        escape_broken(e, "an ioctl of disk files");
    close(to);
}

static void cache_asked(struct escape *e)
{
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        const uint64_t range[2] = {escape_page(i) * PAGE, PAGE};
        uint64_t counts[5] = {0};
        syscall(SYS_cachestat, e->fd, range, counts, 0);
        if (counts[0])
            escape_saw(e, escape_page(i), nothing, 1);
        else
            escape_refused(e);
    }
}

static const char *no_cachestat(void)
{
    return syscall(SYS_cachestat, -1, NULL, NULL, 0) && errno == ENOSYS ? "no cachestat (Linux 6.5)" : NULL;
}

static void read_ahead(struct escape *e)
{
    posix_fadvise(e->fd, 0, ESCAPE_BYTES, POSIX_FADV_WILLNEED);
    readahead(e->fd, 0, ESCAPE_BYTES);
    sync_file_range(e->fd, 0, ESCAPE_BYTES, SYNC_FILE_RANGE_WRITE);
    posix_fadvise(e->fd, 0, ESCAPE_BYTES, POSIX_FADV_DONTNEED);
    fsync(e->fd);
    escape_look(e, e->view);
}

/* ---- writing --------------------------------------------------------------------------------------------------------
 */

static void write_it(struct escape *e)
{
    char bytes[64];

    memset(bytes, 0x55, sizeof(bytes));
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        if (pwrite(e->fd, bytes, sizeof(bytes), offset_of(escape_page(i)) + ARENA_SCRATCH) < 0)
            escape_barred(e);
    read_it(e);
}

static void splice_in(struct escape *e)
{
    char bytes[64];
    int fds[2];

    memset(bytes, 0x66, sizeof(bytes));
    open_pipe(e, fds);
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        loff_t at = offset_of(escape_page(i)) + ARENA_SCRATCH;
        if (write(fds[1], bytes, sizeof(bytes)) != sizeof(bytes))
            escape_broken(e, "write to a pipe");
        if (splice(fds[0], NULL, e->fd, &at, sizeof(bytes), SPLICE_F_MOVE) < 0)
            escape_broken(e, "splice into the file");
    }
    close_pipe(fds);
    read_it(e);
}

static void resized(struct escape *e)
{
    if (!ftruncate(e->fd, 0) || !ftruncate(e->fd, ESCAPE_BYTES / 2) || !ftruncate(e->fd, 2 * ESCAPE_BYTES))
        escape_broken(e, "ftruncate");
    escape_barred(e);
}

static void opened_truncating(struct escape *e)
{
    char path[40];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", e->fd);
    if (open(path, O_RDWR | O_TRUNC | O_CLOEXEC) >= 0)
        escape_broken(e, "O_TRUNC");
    escape_barred(e);
}

static void sealed(struct escape *e)
{
    static const int seals[] = {F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, F_SEAL_EXEC, F_SEAL_SHRINK, F_SEAL_GROW};

    for (size_t i = 0; i < sizeof(seals) / sizeof(seals[0]); i++) {
        if (!fcntl(e->fd, F_ADD_SEALS, seals[i]))
            escape_broken(e, "F_ADD_SEALS");
        escape_barred(e);
    }
}

static void allocated(struct escape *e)
{
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        if (fallocate(e->fd, FALLOC_FL_KEEP_SIZE, offset_of(escape_page(i)), PAGE))
            escape_broken(e, "fallocate");
    escape_look(e, e->view);
}

static void punched(struct escape *e)
{
    if (fallocate(e->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, ESCAPE_BYTES))
        escape_broken(e, "fallocate");
    escape_look(e, e->view);
}

static void shifted(struct escape *e)
{
    static const int modes[] = {FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_UNSHARE_RANGE};

    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (!fallocate(e->fd, modes[i], 0, PAGE))
            escape_broken(e, "fallocate");
        escape_barred(e);
    }
}

static void leased(struct escape *e)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    fcntl(e->fd, F_SETLK, &all);
    fcntl(e->fd, F_SETLEASE, F_WRLCK);
    escape_look(e, e->view);
    fcntl(e->fd, F_SETLEASE, F_UNLCK);
}

/* ---- the host's own conversion
 * --------------------------------------------------------------------------------------- */

/* The guest owns these pages and has not shared them: EL1 may change its mind, EL2 does not. */
static void converted_alone(struct escape *e)
{
    for (uint64_t page = 0; page < ARENA_SECRETS; page += 5) {
        fakehyp_convert(e->gmem, page * PAGE, PAGE, FAKEHYP_SHARED, NULL);
        escape_look_at(e, e->view, page);
        if (fakehyp_convert(e->gmem, page * PAGE, PAGE, FAKEHYP_PRIVATE, NULL))
            escape_broken(e, "convert back");
        escape_look_at(e, e->view, page);
    }
}

static void pinned(struct escape *e)
{
    struct fakehyp_pin *pin;

    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        if (!arena_is_secret(escape_page(i)))
            continue;
        if (!fakehyp_pin(e->gmem, escape_page(i) * PAGE, PAGE, FAKEHYP_FOLL_LONGTERM, "attacker", &pin))
            escape_broken(e, "a secret was pinned");
        escape_refused(e);
    }
}

#define ZEROS "a hole reads as zeros, and stays a hole (guest_memfd: EINVAL); the signal is not concerned"
#define SEALED "EPERM: sealed"
#define STAYS "SIGBUS stays"
#define MADE "it makes a page where none may be; leave the descriptor alone but for fakehyp_map()"

static const struct escape_row rows[] = {
    ROW("read, pread", "of the descriptor", HARMLESS, ZEROS, read_it, .bare = true),
    ROW("splice, tee", "of the descriptor to pipes", HARMLESS, ZEROS, spliced, .bare = true),
    ROW("splice, held", "in a pipe while pages change sides", HARMLESS,
        "the pipe holds the page as it was when it was shared", splice_held, .bare = true),
    ROW("sendfile", "of the descriptor to a pipe", HARMLESS, ZEROS, sent, .bare = true),
    ROW("copy_file_range", "to another memfd", HARMLESS, ZEROS, copied, .bare = true),
    ROW("lseek, SEEK_DATA", "of the descriptor", HARMLESS, "a private page is a hole: where they are is no secret",
        data_sought, .bare = true),
    ROW("FIEMAP, FIBMAP, FICLONE", "of the descriptor", CLOSED, "not of this file system", ioctls, .bare = true),
    ROW("cachestat", "of the descriptor", HARMLESS, "a private page is not cached", cache_asked,
        .missing = no_cachestat, .bare = true),
    ROW("posix_fadvise, readahead, fsync", "of the descriptor", HARMLESS, STAYS, read_ahead),
    ROW("write, pwrite", "to private pages", DECLARED, MADE, write_it, .bare = true),
    ROW("splice into it", "to private pages", DECLARED, MADE, splice_in, .bare = true),
    ROW("ftruncate", "to 0, to half, to twice its size", CLOSED, SEALED, resized, .bare = true),
    ROW("open with O_TRUNC", "of /proc/self/fd/N", CLOSED, SEALED, opened_truncating, .bare = true),
    ROW("F_ADD_SEALS", "F_SEAL_WRITE, which would stop conversions, and others", CLOSED, SEALED, sealed, .bare = true),
    ROW("fallocate", "of private pages", DECLARED, MADE " and fakehyp_fallocate()", allocated),
    ROW("fallocate, PUNCH_HOLE", "of all of the file", HARMLESS,
        STAYS "; shared contents are gone, as with guest_memfd", punched, .wipes = true),
    ROW("fallocate, other modes", "ZERO_RANGE, COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE", CLOSED, "EOPNOTSUPP",
        shifted, .bare = true),
    ROW("F_SETLK, F_SETLEASE", "a lock on all of it", HARMLESS, STAYS, leased),
    ROW("conversion without the guest", "the host makes shared what the guest owns", HARMLESS,
        "stage 2 goes on refusing", converted_alone),
    ROW("fakehyp_pin", "FOLL_LONGTERM of private pages", HARMLESS, "EFAULT", pinned),
};

ESCAPE_MAIN("descriptor", rows)
