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

#include <jansson.h>

#include "src/proto/chan.h"
#include "tests/bench/bench.h"

#define TOUCH 256       /* pages that are touched for one value of the time */
#define TOUCH_LONG 4096 /* for the memory, which comes in pieces */
#define TRACE_EVENTS 65536
#define WAIT_US 100

/* In memory that the processes share: who is told to measure, and what it measured. */
struct lap {
    _Atomic unsigned wanted, done;
    unsigned pages; /* of each of PAIRS laps */
    double us;      /* a page */
};

static struct lap *new_lap(unsigned pages)
{
    struct lap *lap = mmap(NULL, sizeof(*lap), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (lap == MAP_FAILED)
        die("mmap");
    lap->pages = pages;
    return lap;
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

static double next_lap(struct lap *lap)
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

struct bench_vm {
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    struct fakehyp_vcpu *vcpu;
};

/* A running guest that has touched nothing yet. */
static void start(struct bench_vm *b, struct fakehyp *fh, struct lap *lap)
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

static void stop(struct bench_vm *b)
{
    fakehyp_vm_destroy(b->vm);
    fakehyp_gmem_close(b->gmem);
}

void guest_aborts(struct fakehyp *fh)
{
    double ours[PAIRS], plain[PAIRS];
    struct lap *lap = new_lap(TOUCH), *floor = new_lap(TOUCH);
    struct bench_vm b;
    int pair[2];

    start(&b, fh, lap);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        die("socketpair");
    pid_t handler = child_of(floor, pair[0], pair[1], true), child = child_of(floor, pair[1], pair[0], false);
    close(pair[0]);
    close(pair[1]);
    for (unsigned i = 0; i < PAIRS; i++) {
        ours[i] = next_lap(lap);
        plain[i] = next_lap(floor);
    }
    result("guest stage-2 abort, populated, until it goes on", "us", ours, plain, 1.5);
    waitpid(child, NULL, 0);
    kill(handler, SIGKILL);
    waitpid(handler, NULL, 0);
    stop(&b);
    munmap(lap, sizeof(*lap));
    munmap(floor, sizeof(*floor));
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* What of the daemon's memory is state of the model: all but the guests' pages themselves.  Bytes. */
static double model_bytes(struct fakehyp *fh)
{
    char path[64], line[512], *text;
    bool guest_page = false;
    unsigned long kib, total = 0;

    if (fakehyp_query(fh, "status", NULL, 0, &text))
        die("status");
    json_t *status = json_loads(text, 0, NULL);
    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)json_integer_value(json_object_get(status, "pid")));
    json_decref(status);
    free(text);
    FILE *f = fopen(path, "re");
    if (!f)
        die("smaps of the daemon");
    while (fgets(line, sizeof(line), f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            guest_page = strstr(line, "memfd:guest_memfd") != NULL;
        else if (!guest_page && sscanf(line, "Rss: %lu kB", &kib) == 1)
            total += kib;
    }
    fclose(f);
    return (double)total * 1024;
}

/* The trace's ring costs the same whatever happens: once it is full it does not look like growth. */
static void fill_trace(struct fakehyp_gmem *gmem)
{
    struct fakehyp_pin *pin;

    for (unsigned i = 0; i < TRACE_EVENTS; i += 2)
        if (fakehyp_pin(gmem, GIB, PAGE, FAKEHYP_FOLL_PIN, "bench", &pin) || fakehyp_unpin(pin))
            die("pin");
}

void daemon_memory(struct fakehyp *fh)
{
    struct lap *lap = new_lap(TOUCH_LONG);
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    struct bench_vm b;
    double before = model_bytes(fh);

    if (fakehyp_vm_create(fh, NULL, &vm) ||
        fakehyp_gmem_create(vm, 1024 * GIB, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem) ||
        fakehyp_set_memory_region(vm, 0, 0, 512 * GIB, gmem, 0) || fakehyp_convert(gmem, 0, GIB, FAKEHYP_PRIVATE, NULL))
        die("a VM of 1 TiB");
    bounded("memory of a VM of 1 TiB, nothing populated", "MiB", (model_bytes(fh) - before) / (double)MIB, 16);
    fill_trace(gmem);
    fakehyp_vm_destroy(vm);
    fakehyp_gmem_close(gmem);

    start(&b, fh, lap);
    /* The first lap also pays for what a VM has once. */
    next_lap(lap);
    before = model_bytes(fh);
    for (unsigned i = 1; i < PAIRS; i++)
        next_lap(lap);
    bounded("memory of a donated page", "bytes", (model_bytes(fh) - before) / ((PAIRS - 1) * TOUCH_LONG), 44);
    stop(&b);
    munmap(lap, sizeof(*lap));
}
