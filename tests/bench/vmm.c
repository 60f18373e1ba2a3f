/* SPDX-License-Identifier: BSD-2-Clause */
/* The VMM's side: conversions, first touch, refused accesses. */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

static struct fakehyp *fh;
static struct fakehyp_vm *vm; /* made when a row needs it */

static void convert(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t size, uint64_t attributes)
{
    if (fakehyp_convert(gmem, offset, size, attributes, NULL))
        die("convert");
}

static struct fakehyp_gmem *file(uint64_t size, char **view)
{
    struct fakehyp_gmem *gmem;
    void *p;
    fh = daemon_connection();
    if (!vm && fakehyp_vm_create(fh, NULL, &vm))
        die("a VM");
    if (fakehyp_gmem_create(vm, size, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem) ||
        fakehyp_map(gmem, NULL, size, PROT_READ | PROT_WRITE, 0, &p))
        die("creating guest memory");
    *view = p;
    return gmem;
}

static void drop(struct fakehyp_gmem *gmem, char *view, uint64_t size)
{
    fakehyp_unmap(fh, view, size);
    fakehyp_gmem_close(gmem);
}

/* The two directions of a conversion are two rows. */
struct names {
    char to_private[64], to_shared[64];
};

/* "1 GiB <what> to private"; false: neither is wanted. */
static bool name_rows(struct names *names, uint64_t size, const char *what)
{
    bool gib = size % GIB == 0;
    unsigned long long n = size / (gib ? GIB : MIB);

    snprintf(names->to_private, sizeof(names->to_private), "%llu %s %s to private", n, gib ? "GiB" : "MiB", what);
    snprintf(names->to_shared, sizeof(names->to_shared), "%llu %s %s to shared", n, gib ? "GiB" : "MiB", what);
    return wanted(names->to_private) || wanted(names->to_shared);
}

/* ---- floors ----------------------------------------------------------------------------------------------------- */

static int bare[2], bare_pipe[2];

static int plain_memfd(uint64_t size)
{
    int fd = memfd_create("bench", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size))
        die("memfd");
    return fd;
}

/* What a move costs without anything around it: hold, punch, write out, in steps of 1 MiB. */
static void bare_move(int from, int to, uint64_t size)
{
    for (uint64_t at = 0; at < size;) {
        uint64_t step = size - at < MIB ? size - at : MIB;
        loff_t in = (loff_t)at, out = (loff_t)at;
        for (uint64_t held = 0; held < step;) {
            ssize_t n = splice(from, &in, bare_pipe[1], NULL, step - held, SPLICE_F_MOVE);
            if (n <= 0)
                die("splice");
            held += (uint64_t)n;
        }
        fallocate(from, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)step);
        for (uint64_t done = 0; done < step;) {
            ssize_t n = splice(bare_pipe[0], NULL, to, &out, step - done, SPLICE_F_MOVE);
            if (n <= 0)
                die("splice");
            done += (uint64_t)n;
        }
        at += step;
    }
}

/* The range is in that state already. */
double round_trip(struct fakehyp_gmem *gmem, uint64_t attributes)
{
    double t = now_us();
    convert(gmem, 0, PAGE, attributes);
    return now_us() - t;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

static void one_page(void)
{
    const char *private_row = "one populated page to private", *shared_row = "one populated page to shared";
    double to_private[PAIRS], to_shared[PAIRS], floor_private[PAIRS], floor_shared[PAIRS];
    char *view;
    if (!wanted(private_row) && !wanted(shared_row))
        return;
    struct fakehyp_gmem *gmem = file(16 * PAGE, &view);
    int side[2] = {plain_memfd(PAGE), plain_memfd(PAGE)};
    char *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, side[0], 0);

    for (unsigned i = 0; i < PAIRS; i++) {
        view[0] = 1;
        double t = now_us();
        convert(gmem, 0, PAGE, FAKEHYP_PRIVATE);
        to_private[i] = now_us() - t;
        map[0] = 1;
        floor_private[i] = round_trip(gmem, FAKEHYP_PRIVATE);
        t = now_us();
        bare_move(side[0], side[1], PAGE);
        floor_private[i] += now_us() - t;

        t = now_us();
        convert(gmem, 0, PAGE, FAKEHYP_SHARED);
        to_shared[i] = now_us() - t;
        floor_shared[i] = round_trip(gmem, FAKEHYP_SHARED);
        t = now_us();
        bare_move(side[1], side[0], PAGE);
        floor_shared[i] += now_us() - t;
    }
    result(private_row, "us", to_private, floor_private, 1.3);
    result(shared_row, "us", to_shared, floor_shared, 1.3);
    munmap(map, PAGE);
    close(side[0]);
    close(side[1]);
    drop(gmem, view, 16 * PAGE);
}

static void populated(uint64_t size)
{
    double to_private[PAIRS], to_shared[PAIRS], floor_private[PAIRS], floor_shared[PAIRS];
    struct names names;
    char *view;
    if (!name_rows(&names, size, "populated"))
        return;
    struct fakehyp_gmem *gmem = file(size, &view);
    char *map;

    bare[0] = plain_memfd(size);
    bare[1] = plain_memfd(size);
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bare[0], 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        memset(view, 1, size);
        double t = now_us();
        convert(gmem, 0, size, FAKEHYP_PRIVATE);
        to_private[i] = (now_us() - t) / (double)(size / PAGE);
        memset(map, 1, size);
        t = now_us();
        bare_move(bare[0], bare[1], size);
        floor_private[i] = (now_us() - t) / (double)(size / PAGE);
        t = now_us();
        convert(gmem, 0, size, FAKEHYP_SHARED);
        to_shared[i] = (now_us() - t) / (double)(size / PAGE);
        t = now_us();
        bare_move(bare[1], bare[0], size);
        floor_shared[i] = (now_us() - t) / (double)(size / PAGE);
    }
    result(names.to_private, "us/page", to_private, floor_private, 1.15);
    result(names.to_shared, "us/page", to_shared, floor_shared, 1.15);
    munmap(map, size);
    close(bare[0]);
    close(bare[1]);
    drop(gmem, view, size);
}

double registration(uint64_t size, bool on)
{
    static int uffd = -1;
    static char *range;
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
    if (uffd < 0) {
        int fd = plain_memfd(64 * GIB);
        uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1);
        range = mmap(NULL, 64 * GIB, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || range == MAP_FAILED)
            die("userfaultfd");
        close(fd);
    }
    struct uffdio_register reg = {.range = {(uint64_t)(uintptr_t)range, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    double t = now_us();
    if (on ? ioctl(uffd, UFFDIO_REGISTER, &reg) : ioctl(uffd, UFFDIO_UNREGISTER, &reg.range))
        die("UFFDIO_REGISTER");
    return now_us() - t;
}

static void unpopulated(uint64_t size)
{
    double to_private[PAIRS], to_shared[PAIRS], floor_private[PAIRS], floor_shared[PAIRS];
    struct names names;
    char *view;
    if (!name_rows(&names, size, "not populated"))
        return;
    struct fakehyp_gmem *gmem = file(size, &view);

    for (unsigned i = 0; i < PAIRS; i++) {
        double t = now_us();
        convert(gmem, 0, size, FAKEHYP_PRIVATE);
        to_private[i] = now_us() - t;
        floor_private[i] =
            round_trip(gmem, FAKEHYP_PRIVATE) + round_trip(gmem, FAKEHYP_PRIVATE) + registration(size, true);
        t = now_us();
        convert(gmem, 0, size, FAKEHYP_SHARED);
        to_shared[i] = now_us() - t;
        floor_shared[i] =
            round_trip(gmem, FAKEHYP_SHARED) + round_trip(gmem, FAKEHYP_SHARED) + registration(size, false);
    }
    result(names.to_private, "us", to_private, floor_private, 1.5);
    result(names.to_shared, "us", to_shared, floor_shared, 1.5);
    drop(gmem, view, size);
}

static double touch_all(volatile char *p, uint64_t size, bool write)
{
    double t = now_us();
    for (uint64_t at = 0; at < size; at += PAGE) {
        if (write)
            p[at] = 1;
        else
            (void)p[at];
    }
    return (now_us() - t) / (double)(size / PAGE);
}

static void first_touch(bool write)
{
    const char *name = write ? "first write of a shared page" : "first read of a shared page";
    double ours[PAIRS], plain[PAIRS];
    const uint64_t size = 16 * MIB;
    if (!wanted(name))
        return;
    for (unsigned i = 0; i < PAIRS; i++) {
        char *view;
        struct fakehyp_gmem *gmem = file(size, &view);
        int fd = plain_memfd(size);
        char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        madvise(map, size, MADV_NOHUGEPAGE);
        ours[i] = touch_all(view, size, write);
        plain[i] = touch_all(map, size, write);
        munmap(map, size);
        close(fd);
        drop(gmem, view, size);
    }
    result(name, "us/page", ours, plain, 1.05);
}

static sigjmp_buf jump;

static void on_sigbus(int sig)
{
    (void)sig;
    siglongjmp(jump, 1);
}

static double refused_access(volatile char *p)
{
    enum { TRIES = 2000 };
    double t = now_us();
    for (volatile int i = 0; i < TRIES; i++)
        if (!sigsetjmp(jump, 0))
            (void)*p;
    return (now_us() - t) / TRIES;
}

static void refused(void)
{
    const char *name = "refused access, caught";
    double ours[PAIRS], plain[PAIRS];
    if (!wanted(name))
        return;
    struct sigaction action = {.sa_handler = on_sigbus, .sa_flags = SA_NODEFER}, old;
    char *view;
    struct fakehyp_gmem *gmem = file(16 * PAGE, &view);
    int fd = plain_memfd(0);
    char *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

    convert(gmem, 0, 16 * PAGE, FAKEHYP_PRIVATE);
    sigaction(SIGBUS, &action, &old);
    for (unsigned i = 0; i < PAIRS; i++) {
        ours[i] = refused_access(view);
        plain[i] = refused_access(map);
    }
    sigaction(SIGBUS, &old, NULL);
    result(name, "us", ours, plain, 1.3);
    munmap(map, PAGE);
    close(fd);
    drop(gmem, view, 16 * PAGE);
}

void vmm_rows(uint64_t bulk)
{
    if (pipe2(bare_pipe, O_CLOEXEC) || fcntl(bare_pipe[1], F_SETPIPE_SZ, (int)MIB) < 0)
        die("pipe");
    one_page();
    populated(bulk);
    unpopulated(MIB);
    unpopulated(GIB);
    unpopulated(64 * GIB);
    first_touch(false);
    first_touch(true);
    refused();
    close(bare_pipe[0]);
    close(bare_pipe[1]);
    fakehyp_vm_destroy(vm);
}
