/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's side: what a stage-2 abort costs, from the guest's access until
 * it goes on, and what the daemon keeps for each page.
 *
 * The floor of an abort is the same without a model: another process reads the
 * event of the fault and fills the page by UFFDIO_COPY.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/proto/chan.h"
#include "tests/bench/bench.h"

#define TOUCH 256      /* pages that are touched for one value of the time */
#define DONATED 65536u /* pages that are converted together: 256 MiB */
#define WAIT_US 100

/* In memory that the processes share: who is told to measure, and what it measured. */
struct lap {
    _Atomic unsigned wanted, done;
    unsigned pages; /* of each of PAIRS laps */
    double us;      /* a page */
};

struct lap *lap_new(unsigned pages)
{
    struct lap *lap = mmap(NULL, sizeof(*lap), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (lap == MAP_FAILED)
        die("mmap");
    lap->pages = pages;
    return lap;
}

void lap_free(struct lap *lap)
{
    munmap(lap, sizeof(*lap));
}

static uint64_t lap_bytes(const struct lap *lap)
{
    return PAIRS * lap->pages * PAGE;
}

static double touch(volatile char *p, unsigned pages)
{
    double t = now_us();

    for (unsigned i = 0; i < pages; i++)
        p[i * PAGE] = 1;
    return (now_us() - t) / pages;
}

/* Touches a fresh batch whenever it is told to. */
static void touch_when_told(struct lap *lap, volatile char *base)
{
    for (unsigned n = 0; n < PAIRS; n++) {
        while (atomic_load(&lap->wanted) <= n)
            usleep(WAIT_US);
        lap->us = touch(base + n * lap->pages * PAGE, lap->pages);
        atomic_store(&lap->done, n + 1);
    }
}

double lap_next(struct lap *lap)
{
    unsigned n = atomic_fetch_add(&lap->wanted, 1) + 1;

    while (atomic_load(&lap->done) < n)
        usleep(WAIT_US);
    return lap->us;
}

/* ---- the floor: two processes and a userfaultfd ------------------------------------------------------------------ */

static _Noreturn void floor_child(struct lap *lap, int sock)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    uint64_t size = lap_bytes(lap);
    int file = memfd_create("bench", MFD_CLOEXEC), uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
    char *p = file < 0 || ftruncate(file, (off_t)size) ? MAP_FAILED
                                                       : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    struct uffdio_register reg = {.range = {(uint64_t)(uintptr_t)p, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};

    if (p == MAP_FAILED || uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg) ||
        chan_send(sock, (const uint8_t *)"u", 1, &uffd, 1, 0))
        _exit(1);
    touch_when_told(lap, p);
    _exit(0);
}

static _Noreturn void floor_handler(int sock)
{
    uint8_t byte[CHAN_MAX_FRAME];
    struct chan_msg msg = {.data = byte};
    char *page = calloc(1, PAGE);
    struct uffd_msg event;

    if (!page || chan_recv(sock, &msg, 0) <= 0 || msg.nr_fds != 1)
        _exit(1);
    int uffd = chan_msg_take_fd(&msg, 0);
    for (;;) {
        struct pollfd pfd = {.fd = uffd, .events = POLLIN};
        if (poll(&pfd, 1, -1) < 0 || read(uffd, &event, sizeof(event)) != (ssize_t)sizeof(event))
            continue;
        struct uffdio_copy copy = {
            .dst = event.arg.pagefault.address & ~(PAGE - 1), .src = (uint64_t)(uintptr_t)page, .len = PAGE};
        ioctl(uffd, UFFDIO_COPY, &copy);
    }
}

static pid_t child_of(struct lap *lap, int sock, int other, bool handler)
{
    pid_t pid = fork();

    if (pid < 0)
        die("fork");
    if (pid)
        return pid;
    close(other);
    if (handler)
        floor_handler(sock);
    floor_child(lap, sock);
}

/* ---- guests ------------------------------------------------------------------------------------------------------ */

static int guest_main(struct fakehyp_guest *guest, void *arg)
{
    touch_when_told(arg, fakehyp_guest_ptr(guest, 0));
    return 0;
}

/* A running guest that has touched nothing yet. */
void guest_start(struct bench_vm *b, struct fakehyp *fh, struct lap *lap)
{
    uint64_t size = lap_bytes(lap);

    if (fakehyp_vm_create(fh, NULL, &b->vm) || fakehyp_gmem_create(b->vm, size, 0, &b->gmem) ||
        fakehyp_set_memory_region(b->vm, 0, 0, size, b->gmem, 0) || fakehyp_vcpu_create(b->vm, 0, &b->vcpu) ||
        fakehyp_guest_start(b->vm, guest_main, lap))
        die("a guest");
    /* It goes on after the time-out. */
    int rc = fakehyp_vcpu_run(b->vcpu, 0);
    if (rc && rc != -ETIMEDOUT)
        die("running the guest");
}

void guest_stop(struct bench_vm *b)
{
    fakehyp_vm_destroy(b->vm);
    fakehyp_gmem_close(b->gmem);
}

static void aborts(void)
{
    const char *name = "guest stage-2 abort, populated, until it goes on";
    double ours[PAIRS], plain[PAIRS];
    struct bench_vm b;
    int pair[2];

    if (!wanted(name))
        return;
    struct lap *lap = lap_new(TOUCH), *floor = lap_new(TOUCH);
    guest_start(&b, daemon_connection(), lap);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        die("socketpair");
    pid_t handler = child_of(floor, pair[0], pair[1], true), child = child_of(floor, pair[1], pair[0], false);
    close(pair[0]);
    close(pair[1]);
    for (unsigned i = 0; i < PAIRS; i++) {
        ours[i] = lap_next(lap);
        plain[i] = lap_next(floor);
    }
    result(name, "us", ours, plain, 1.5);
    waitpid(child, NULL, 0);
    kill(handler, SIGKILL);
    waitpid(handler, NULL, 0);
    guest_stop(&b);
    lap_free(lap);
    lap_free(floor);
}

/*
 * Pages that the guest owns, one EL2 entry each: a conversion moves no bytes, but must ask of each page whose it is.
 * The floor is what a range without any pages costs, and one call into EL2 for each.
 */
static void donated(void)
{
    const char *private_row = "256 MiB donated in 4K pages to private",
               *shared_row = "256 MiB donated in 4K pages to shared";
    double to_private[PAIRS], to_shared[PAIRS], floor_private[PAIRS], floor_shared[PAIRS];
    struct bench_vm b;

    if (!wanted(private_row) && !wanted(shared_row))
        return;
    struct lap *lap = lap_new(DONATED / PAIRS + 1);
    uint64_t size = DONATED * PAGE;
    guest_start(&b, daemon_connection(), lap);
    for (unsigned i = 0; i < PAIRS; i++)
        lap_next(lap);
    for (unsigned i = 0; i < PAIRS; i++) {
        double t = now_us();
        if (fakehyp_convert(b.gmem, 0, size, FAKEHYP_SHARED, NULL))
            die("convert");
        to_shared[i] = now_us() - t;
        floor_shared[i] = round_trip(b.gmem, FAKEHYP_SHARED) + round_trip(b.gmem, FAKEHYP_SHARED) +
                          registration(size, false) + DONATED * el2_call_us();
        t = now_us();
        if (fakehyp_convert(b.gmem, 0, size, FAKEHYP_PRIVATE, NULL))
            die("convert");
        to_private[i] = now_us() - t;
        floor_private[i] = round_trip(b.gmem, FAKEHYP_PRIVATE) + round_trip(b.gmem, FAKEHYP_PRIVATE) +
                           registration(size, true) + DONATED * el2_call_us();
    }
    result(private_row, "us", to_private, floor_private, 1.2);
    result(shared_row, "us", to_shared, floor_shared, 1.2);
    guest_stop(&b);
    lap_free(lap);
}

void guest_rows(void)
{
    aborts();
    donated();
}
