/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registrations at work: what refuses a host process its private pages, what
 * opens windows in the direct map, and what the guest's overlay stands on.
 */
#include "src/fakehypctl/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define NR_PAGES 8

/* Static: a probe has its process to itself, and the signal handler needs them. */
static sigjmp_buf touch_env;
static void *volatile fault_addr;
static volatile int fault_code;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    fault_addr = info->si_addr;
    fault_code = info->si_code;
    siglongjmp(touch_env, 1);
}

/* Loads one byte: its value, or -1 when that raised SIGBUS. */
static int touch(const volatile uint8_t *p)
{
    struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

    sigaction(SIGBUS, &sa, NULL);
    if (sigsetjmp(touch_env, 1))
        return -1;
    return *p;
}

/* A view of a memfd, registered in `mode`. */
struct setup {
    int uffd;
    int memfd;
    uint8_t *view;
};

static int set_up(struct setup *s, uint64_t features, uint64_t mode, struct probe_result *r)
{
    struct uffdio_register reg = {.range.len = NR_PAGES * PAGE, .mode = mode};

    s->uffd = probe_uffd_open(r, features);
    if (s->uffd < 0)
        return -1;
    s->memfd = memfd_create("fakehyp-doctor", MFD_CLOEXEC);
    if (s->memfd < 0 || ftruncate(s->memfd, NR_PAGES * PAGE)) {
        probe_fail_errno(r, "memfd_create");
        return -1;
    }
    s->view = mmap(NULL, NR_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, s->memfd, 0);
    if (s->view == MAP_FAILED) {
        probe_fail_errno(r, "mmap of a memfd");
        return -1;
    }
    reg.range.start = (uintptr_t)s->view;
    if (ioctl(s->uffd, UFFDIO_REGISTER, &reg)) {
        probe_fail_errno(r, "UFFDIO_REGISTER of a memfd");
        return -1;
    }
    return 0;
}

void probe_sigbus(struct probe_result *r, const struct probe_arg *arg)
{
    struct setup s;
    uint8_t *hole;

    if (set_up(&s, UFFD_FEATURE_SIGBUS, UFFDIO_REGISTER_MODE_MISSING, r))
        return;
    hole = s.view + 3 * PAGE + 0x123;
    if (touch(hole) != -1) {
        probe_fail(r, "a load from a hole went through");
        return;
    }
    if (fault_code != BUS_ADRERR || fault_addr != hole) {
        probe_fail(r, "si_code %d at offset 0x%tx of 0x%tx", fault_code, (uint8_t *)fault_addr - s.view, hole - s.view);
        return;
    }
    if (pwrite(s.memfd, "s", 1, 3 * PAGE + 0x123) != 1 || touch(hole) != 's')
        probe_fail(r, "a page that is there again cannot be loaded");
    else if (fallocate(s.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * PAGE, PAGE) || touch(hole) != -1)
        probe_fail(r, "a load from a punched page went through");
    else
        probe_ok(r, "BUS_ADRERR at the exact address");
}

void probe_efault(struct probe_result *r, const struct probe_arg *arg)
{
    struct setup s;
    ssize_t n;
    int p[2];

    if (set_up(&s, UFFD_FEATURE_SIGBUS, UFFDIO_REGISTER_MODE_MISSING, r))
        return;
    if (pipe2(p, O_CLOEXEC | O_NONBLOCK)) {
        probe_fail_errno(r, "pipe2");
        return;
    }
    n = write(p[1], s.view, 1);
    if (n != -1)
        probe_fail(r, "write(2) from a hole went through");
    else if (errno != EFAULT)
        probe_fail_errno(r, "write(2) from a hole");
    else
        probe_ok(r, "write(2) from a hole: EFAULT");
}

void probe_minor(struct probe_result *r, const struct probe_arg *arg)
{
    struct uffdio_continue cont = {.range.len = PAGE};
    struct setup s;
    uint8_t *page;

    if (set_up(&s, UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MINOR_SHMEM, UFFDIO_REGISTER_MODE_MINOR, r))
        return;
    page = s.view + 2 * PAGE;
    if (pwrite(s.memfd, "m", 1, 2 * PAGE) != 1) {
        probe_fail_errno(r, "pwrite");
        return;
    }
    if (touch(page) != -1) {
        probe_fail(r, "a load from a closed page went through");
        return;
    }
    cont.range.start = (uintptr_t)page;
    if (ioctl(s.uffd, UFFDIO_CONTINUE, &cont)) {
        probe_fail_errno(r, "UFFDIO_CONTINUE");
        return;
    }
    if (touch(page) != 'm')
        probe_fail(r, "a load from an opened page does not go through");
    else if (madvise(page, PAGE, MADV_DONTNEED) || touch(page) != -1)
        probe_fail(r, "a load from a page closed again went through");
    else
        probe_ok(r, "UFFDIO_CONTINUE opens, MADV_DONTNEED closes");
}

/* What the agent of a guest does: it reads events, and gives a page to a fault. */
struct agent {
    int uffd;
    uint8_t *target; /* where the overlay goes */
    uint8_t page[PAGE] __attribute__((aligned(PAGE)));
    volatile int remaps, faults;
};

static void *agent_main(void *arg)
{
    struct agent *a = arg;
    struct uffd_msg msg;

    while (read(a->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
        struct uffdio_copy copy = {.src = (uintptr_t)a->page, .dst = (uintptr_t)a->target, .len = PAGE};

        if (msg.event == UFFD_EVENT_REMAP && msg.arg.remap.to == (uintptr_t)a->target)
            a->remaps++;
        if (msg.event != UFFD_EVENT_PAGEFAULT)
            continue;
        a->faults++;
        ioctl(a->uffd, UFFDIO_COPY, &copy);
    }
    return NULL;
}

void probe_mremap(struct probe_result *r, const struct probe_arg *arg)
{
    static struct agent a;
    const size_t offset = 4 * PAGE, len = 2 * PAGE;
    struct setup template;
    pthread_t thread;
    uint8_t got = 0;

    if (set_up(&template, UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_MISSING_SHMEM, UFFDIO_REGISTER_MODE_MISSING, r))
        return;
    a.uffd = template.uffd;
    memset(a.page, 'g', sizeof(a.page));
    a.target = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a.target == MAP_FAILED || pthread_create(&thread, NULL, agent_main, &a)) {
        probe_fail(r, "no memory or no thread");
        return;
    }
    /* It ends only when the agent has read its event. */
    if (mremap(template.view + offset, 0, len, MREMAP_MAYMOVE | MREMAP_FIXED, a.target) != a.target) {
        probe_fail_errno(r, "mremap of a registered view");
        return;
    }
    if (touch(a.target) != 'g' || !a.faults)
        probe_fail(r, "the copy of the view is not registered");
    else if (!a.remaps)
        probe_fail(r, "no UFFD_EVENT_REMAP came");
    else if (pread(template.memfd, &got, 1, (off_t)offset) != 1 || got != 'g')
        probe_fail(r, "the copy of the view shows other pages");
    else
        probe_ok(r, "one call maps over a range, and it stays registered");
}
