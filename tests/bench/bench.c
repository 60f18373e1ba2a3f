/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * make bench: each figure of the design beside its floor, both measured in the
 * same run as the median of 11 interleaved pairs.  Absolute times belong to
 * the machine; the ratios travel.
 *
 * Writes a table to the terminal and bench.json to the working directory: an
 * array of {name, unit, value, floor, ratio, goal}; floor and ratio are null
 * where the goal is a bound of the value itself.
 *
 * All processes share one CPU: what a wake-up costs depends on where the other
 * side happens to sleep, and would say more of the scheduler than of us.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include <jansson.h>

#include "tests/bench/bench.h"

static struct fakehyp *fh;
static struct fakehyp_vm *vm;
static json_t *results;

_Noreturn void die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, fakehyp_last_error());
    exit(1);
}

double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, PAIRS, sizeof(*v), by_value);
    return v[PAIRS / 2];
}

void result(const char *name, const char *unit, double *values, double *floors, double goal)
{
    double value = median(values), floor = median(floors), ratio = value / floor;
    printf("%-58s %10.2f %10.2f %-10s %6.2f x  goal %4.2f x  %s\n", name, value, floor, unit, ratio, goal,
           ratio <= goal ? "" : "MISSED");
    fflush(stdout);
    json_array_append_new(results, json_pack("{s:s,s:s,s:f,s:f,s:f,s:f}", "name", name, "unit", unit, "value", value,
                                             "floor", floor, "ratio", ratio, "goal", goal));
}

void bounded(const char *name, const char *unit, double value, double bound)
{
    printf("%-58s %10.2f %10s %-10s %8s  goal %.0f  %s\n", name, value, "-", unit, "", bound,
           value <= bound ? "" : "MISSED");
    fflush(stdout);
    json_array_append_new(results, json_pack("{s:s,s:s,s:f,s:n,s:n,s:f}", "name", name, "unit", unit, "value", value,
                                             "floor", "ratio", "goal", bound));
}

static void convert(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t size, uint64_t attributes)
{
    if (fakehyp_convert(gmem, offset, size, attributes, NULL))
        die("convert");
}

static struct fakehyp_gmem *file(uint64_t size, char **view)
{
    struct fakehyp_gmem *gmem;
    void *p;
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

/* ---- floors ---- */

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

/* A request that the daemon answers without doing anything: the range is in that state already. */
static double round_trip(struct fakehyp_gmem *gmem, uint64_t attributes)
{
    double t = now_us();
    convert(gmem, 0, PAGE, attributes);
    return now_us() - t;
}

/* ---- rows ---- */

static void one_page(void)
{
    double to_private[PAIRS], to_shared[PAIRS], floor_private[PAIRS], floor_shared[PAIRS];
    char *view;
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
    result("one populated page to private", "us", to_private, floor_private, 1.3);
    result("one populated page to shared", "us", to_shared, floor_shared, 1.3);
    munmap(map, PAGE);
    close(side[0]);
    close(side[1]);
    drop(gmem, view, 16 * PAGE);
}

static void populated(uint64_t size)
{
    double to_private[PAIRS], to_shared[PAIRS], floor_private[PAIRS], floor_shared[PAIRS];
    char name[64], *view;
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
    snprintf(name, sizeof(name), "%llu MiB populated to private", (unsigned long long)(size / MIB));
    result(name, "us/page", to_private, floor_private, 1.15);
    snprintf(name, sizeof(name), "%llu MiB populated to shared", (unsigned long long)(size / MIB));
    result(name, "us/page", to_shared, floor_shared, 1.15);
    munmap(map, size);
    close(bare[0]);
    close(bare[1]);
    drop(gmem, view, size);
}

/* REGISTER or UNREGISTER of a range of this process, as the agent does it. */
static double registration(uint64_t size, bool on)
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
    char name[64], *view;
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
    snprintf(name, sizeof(name), "%llu MiB not populated to private", (unsigned long long)(size / MIB));
    result(name, "us", to_private, floor_private, 1.5);
    snprintf(name, sizeof(name), "%llu MiB not populated to shared", (unsigned long long)(size / MIB));
    result(name, "us", to_shared, floor_shared, 1.5);
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
    double ours[PAIRS], plain[PAIRS];
    const uint64_t size = 16 * MIB;
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
    result(write ? "first write of a shared page" : "first read of a shared page", "us/page", ours, plain, 1.05);
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
    double ours[PAIRS], plain[PAIRS];
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
    result("refused access, caught", "us", ours, plain, 1.3);
    munmap(map, PAGE);
    close(fd);
    drop(gmem, view, 16 * PAGE);
}

/* The private daemon and the guests inherit it. */
static void stay_on_one_cpu(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();

    CPU_ZERO(&set);
    CPU_SET(cpu < 0 ? 0 : cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        die("sched_setaffinity");
}

int main(int argc, char **argv)
{
    uint64_t bulk = argc > 1 ? strtoull(argv[1], NULL, 0) * MIB : 256 * MIB;

    results = json_array();
    stay_on_one_cpu();
    if (fakehyp_connect(NULL, &fh) || fakehyp_vm_create(fh, NULL, &vm))
        die("starting");
    if (pipe2(bare_pipe, O_CLOEXEC) || fcntl(bare_pipe[1], F_SETPIPE_SZ, (int)MIB) < 0)
        die("pipe");
    printf("%-58s %10s %10s\n", "what", "value", "floor");
    /* First: memory that something else has used before would not show as growth. */
    daemon_memory(fh);
    one_page();
    populated(bulk);
    unpopulated(MIB * 2);
    unpopulated(GIB);
    unpopulated(64 * GIB);
    first_touch(false);
    first_touch(true);
    refused();
    fakehyp_vm_destroy(vm);
    guest_aborts(fh);
    fakehyp_disconnect(fh);
    if (json_dump_file(results, "bench.json", JSON_INDENT(2) | JSON_REAL_PRECISION(6)))
        return 1;
    json_decref(results);
    return 0;
}
