/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_bystander.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_ROUNDS 50000u
#define MIN_ROUNDS 60u
/* Of each half of a pair. */
#define PAIR_ROUNDS 25u
#define HANG_S 10u
/* What a daemon may keep of the memory that it once needed: task stacks and the allocator's. */
#define RSS_SLACK_KIB UINT64_C(24576)

enum phase { BEFORE, DURING, AFTER, NR_PHASES, END = NR_PHASES };

struct bystander_page {
    _Atomic int phase;
    _Atomic unsigned rounds[NR_PHASES];
    uint32_t ns[NR_PHASES][MAX_ROUNDS];
};

struct innocent {
    struct fakehyp_gmem *gmem;
    volatile uint8_t *view;
    uint8_t value;
};

/* 0, or what was wrong. */
static int round_trip(struct innocent *i)
{
    i->view[PAGE] = ++i->value;
    if (fakehyp_convert(i->gmem, PAGE, PAGE, FAKEHYP_PRIVATE, NULL))
        return 11;
    if (fakehyp_touch_read((const void *)(i->view + PAGE), NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS)
        return 12;
    if (fakehyp_convert(i->gmem, PAGE, PAGE, FAKEHYP_SHARED, NULL))
        return 13;
    return i->view[PAGE] == i->value && i->view[2 * PAGE] == 77 ? 0 : 14;
}

static _Noreturn void innocent_main(struct bystander_page *page)
{
    struct innocent i = {.value = 0};
    struct fakehyp_vm *vm;
    struct fakehyp *fh;
    void *view;

    if (fakehyp_connect(rig.socket, &fh) || fakehyp_vm_create(fh, NULL, &vm) ||
        fakehyp_gmem_create(vm, 16 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &i.gmem) ||
        fakehyp_map(i.gmem, NULL, 16 * PAGE, PROT_READ | PROT_WRITE, 0, &view))
        _exit(10);
    i.view = view;
    i.view[2 * PAGE] = 77;
    for (int phase; (phase = atomic_load(&page->phase)) != END;) {
        alarm(HANG_S);
        uint64_t begin = rig_now_ns();
        int rc = round_trip(&i);
        uint64_t ns = (rig_now_ns() - begin) / 2;
        if (rc) {
            printf("# the innocent client: %s\n", fakehyp_last_error());
            fflush(stdout);
            _exit(rc);
        }
        unsigned n = atomic_load(&page->rounds[phase]);
        if (n < MAX_ROUNDS) {
            page->ns[phase][n] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
            atomic_store(&page->rounds[phase], n + 1);
        }
        usleep(300);
    }
    fakehyp_disconnect(fh);
    _exit(0);
}

static uint64_t daemon_rss_kib(void)
{
    char path[64], line[256];
    unsigned long long kib = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)rig.pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "VmRSS: %llu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib;
}

static void await_rounds(const struct bystander *b, enum phase phase, unsigned nr)
{
    for (unsigned i = 0; i < 20000 && atomic_load(&b->shared->rounds[phase]) < nr; i++) {
        int status;
        if (rig_wait_child(b->pid, 0, &status))
            fail_msg("the innocent client ended, wait status 0x%x", (unsigned)status);
        rig_sleep_ms(1);
    }
    assert_true(atomic_load(&b->shared->rounds[phase]) >= nr);
}

void bystander_begin(struct bystander *b)
{
    b->shared = mmap(NULL, sizeof(*b->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(b->shared, MAP_FAILED);
    b->rss_kib = daemon_rss_kib();
    b->fds = rig_count("fds");
    b->nr_pairs = 0;
    fflush(stdout);
    b->pid = fork();
    if (b->pid == 0) {
        rig_child();
        innocent_main(b->shared);
    }
    assert_true(b->pid > 0);
    await_rounds(b, BEFORE, MIN_ROUNDS);
}

void bystander_during(struct bystander *b)
{
    atomic_store(&b->shared->phase, DURING);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int compare_ratios(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median of so many rounds from now on. */
static uint32_t next_rounds(struct bystander *b, enum phase phase)
{
    uint32_t ns[PAIR_ROUNDS];
    unsigned first = atomic_load(&b->shared->rounds[phase]);

    atomic_store(&b->shared->phase, phase);
    assert_true(first + PAIR_ROUNDS <= MAX_ROUNDS);
    await_rounds(b, phase, first + PAIR_ROUNDS);
    memcpy(ns, b->shared->ns[phase] + first, sizeof(ns));
    qsort(ns, PAIR_ROUNDS, sizeof(ns[0]), compare);
    return ns[PAIR_ROUNDS / 2];
}

void bystander_pairs(struct bystander *b, unsigned nr, void (*set)(void *arg, bool disturbs), void *arg)
{
    assert_true(nr > 0 && nr <= BYSTANDER_PAIRS);
    for (unsigned i = 0; i < nr; i++) {
        set(arg, false);
        uint32_t alone = next_rounds(b, BEFORE);
        set(arg, true);
        b->ratio[i] = (double)next_rounds(b, DURING) / alone;
    }
    atomic_store(&b->shared->phase, AFTER);
    set(arg, false);
    qsort(b->ratio, nr, sizeof(b->ratio[0]), compare_ratios);
    b->nr_pairs = nr;
}

/* Microseconds: the median, and the longest. */
static double sorted(struct bystander_page *page, enum phase phase, double *most)
{
    unsigned n = atomic_load(&page->rounds[phase]);

    qsort(page->ns[phase], n, sizeof(page->ns[phase][0]), compare);
    *most = page->ns[phase][n - 1] / 1e3;
    return page->ns[phase][n / 2] / 1e3;
}

void bystander_check_daemon(const struct bystander *b, const char *what)
{
    uint64_t kib = 0;
    int64_t fds = -1;

    /* What has just ended is cleaned up behind our back. */
    for (unsigned i = 0; i < 5000; i++) {
        kib = daemon_rss_kib();
        fds = rig_count("fds");
        if (fds <= b->fds && kib <= b->rss_kib + RSS_SLACK_KIB)
            break;
        rig_sleep_ms(2);
    }
    rig_note("%s: fakehypd's VmRSS %" PRIu64 " KiB before, %" PRIu64 " after; descriptors %" PRId64 " and %" PRId64,
             what, b->rss_kib, kib, b->fds, fds);
    assert_true(fds <= b->fds);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* which keep what was freed */
    assert_true(kib <= b->rss_kib + RSS_SLACK_KIB);
#endif
}

void bystander_end(struct bystander *b, const char *what, const char *logged)
{
    double before, during, most_before, most_during;

    await_rounds(b, DURING, MIN_ROUNDS);
    atomic_store(&b->shared->phase, END);
    rig_child_ok(b->pid);
    before = sorted(b->shared, BEFORE, &most_before);
    during = sorted(b->shared, DURING, &most_during);
    if (b->nr_pairs)
        rig_note(
            "beside %s: round trip %.0f us alone, %.0f us beside: ratio %.2fx (2.0x allowed), the median of %u pairs "
            "from %.2f to %.2f; longest %.0f and %.0f us",
            what, before, during, b->ratio[b->nr_pairs / 2], b->nr_pairs, b->ratio[0], b->ratio[b->nr_pairs - 1],
            most_before, most_during);
    else
        rig_note(
            "beside %s: round trip %.0f us before, %.0f us during: ratio %.2fx, of which the CPUs are a part; longest "
            "%.0f and %.0f us; %u rounds",
            what, before, during, during / before, most_before, most_during, atomic_load(&b->shared->rounds[DURING]));
    munmap(b->shared, sizeof(*b->shared));
    if (logged)
        assert_true(rig_logs_within(logged, 10000));
}
