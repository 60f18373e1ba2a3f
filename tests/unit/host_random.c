/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random conversions under random holders, policy D, against an oracle that
 * knows of one page: whether it is private, whether it is there, who holds it.
 *
 * The oracle is written from the rules (guest_memfd.md 3) and shares no code
 * with EL1.  Size and seed: FAKEHYP_RANDOM_CONVERSIONS, FAKEHYP_RANDOM_SEED.
 */
#include "tests/common/simworld.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "src/host/mm_internal.h"

#define P HOST_PAGE_SIZE
#define NR 16u
#define FILES 2u /* of single pages, of folios of four */
#define PROCESSES 2u
#define HANDLES 24u
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define DEFAULT_COUNT 100000u
#define LOOK_EVERY 500u

static uint64_t rnd_state;

static unsigned rnd(unsigned below)
{
    rnd_state ^= rnd_state << 13;
    rnd_state ^= rnd_state >> 7;
    rnd_state ^= rnd_state << 17;
    return (unsigned)((rnd_state >> 11) % below);
}

/* ---- the oracle
 * ------------------------------------------------------------------------------------------------------ */

/* What is known of one page of one file. */
struct truth {
    bool private, there;
    unsigned life; /* counts holes: who holds an earlier page holds another one */
    bool mapped[PROCESSES];
};
static struct truth truth[FILES][NR];

enum how { BY_OFFSET, BY_ADDRESS, BY_PIPE, BY_DEVICE, BY_KERNEL };

/* Somebody who holds pages of a file. */
struct handle {
    bool used;
    enum how how;
    enum ref_kind kind;
    unsigned file, page, nr;
    unsigned life[NR];
    struct ref *ref;
    struct pipe *pipe;
    struct device *device;
};
static struct handle handles[HANDLES];

static unsigned folio_pages(unsigned file)
{
    return file ? 4 : 1;
}

static unsigned folio_first(unsigned file, unsigned page)
{
    return page - page % folio_pages(file);
}

static bool holds(const struct handle *h, unsigned file, unsigned page)
{
    return h->used && h->file == file && page >= h->page && page - h->page < h->nr &&
           h->life[page - h->page] == truth[file][page].life;
}

/* Somebody beside the page cache and the mappings of [start, end), which are gone when this is asked. */
static bool in_use(unsigned file, unsigned page, unsigned start, unsigned end)
{
    unsigned first = folio_first(file, page);
    for (unsigned p = first; p < first + folio_pages(file); p++) {
        for (unsigned i = 0; i < HANDLES; i++)
            if (holds(&handles[i], file, p))
                return true;
        for (unsigned i = 0; i < PROCESSES; i++)
            if ((p < start || p >= end) && truth[file][p].mapped[i])
                return true;
    }
    return false;
}

static void comes(unsigned file, unsigned page)
{
    unsigned first = folio_first(file, page);
    for (unsigned p = first; p < first + folio_pages(file); p++)
        truth[file][p].there = true;
}

static void unmapped(unsigned file, unsigned start, unsigned end)
{
    for (unsigned p = start; p < end; p++)
        memset(truth[file][p].mapped, 0, sizeof(truth[file][p].mapped));
}

/* What a conversion must answer; it also does to the truth what it does. */
static int expected(unsigned file, unsigned start, unsigned end, bool to_private, unsigned *offender)
{
    bool changes = false;
    for (unsigned p = start; p < end; p++)
        changes = changes || truth[file][p].private != to_private;
    if (!changes)
        return 0;
    if (to_private)
        unmapped(file, start, end);
    for (unsigned p = start; to_private && p < end; p++) {
        if (!truth[file][p].there || !in_use(file, p, start, end))
            continue;
        *offender = p;
        return -EAGAIN;
    }
    for (unsigned p = start; p < end; p++)
        truth[file][p].private = to_private;
    return 0;
}

/* A process touches a page: does it get it? */
static bool faults_in(unsigned file, unsigned process, unsigned page)
{
    struct truth *t = &truth[file][page];
    if (t->mapped[process])
        return true;
    if (t->private)
        return false;
    comes(file, page);
    t->mapped[process] = true;
    return true;
}

/* ---- what happens to the model -------------------------------------------------------------------------------------
 */

struct world {
    struct simworld *w;
    struct gmem *file[FILES];
    struct mm *mm[PROCESSES];
    uint64_t va[FILES][PROCESSES];
    /* One operation at a time stands in the middle: a fault with its folio, or GUP-fast with its reference. */
    bool standing;
    struct handle *stands; /* what it holds */
    struct sw_job fault;
    bool is_gup, gup_done;
    int gup_rc;
    struct caller gup_caller;
    uint64_t busy, conversions, stood;
};

static struct handle *new_handle(enum how how, enum ref_kind kind, unsigned file, unsigned page, unsigned nr)
{
    for (unsigned i = 0; i < HANDLES; i++) {
        struct handle *h = &handles[i];
        if (h->used)
            continue;
        *h = (struct handle){.how = how, .kind = kind, .file = file, .page = page, .nr = nr};
        return h;
    }
    return NULL;
}

static void taken(struct handle *h)
{
    h->used = true;
    for (unsigned i = 0; i < h->nr; i++)
        h->life[i] = truth[h->file][h->page + i].life;
}

static void let_go(struct handle *h)
{
    switch (h->how) {
    case BY_OFFSET:
    case BY_ADDRESS:
        gmem_unpin(h->ref);
        break;
    case BY_PIPE:
        pipe_free(h->pipe);
        break;
    case BY_DEVICE:
        device_free(h->device);
        break;
    case BY_KERNEL:
        ref_drop(h->ref);
        break;
    }
    h->used = false;
}

/* GUP by address faults in page after page; one that it does not get ends it. */
static unsigned gup_gets(unsigned file, unsigned process, unsigned page, unsigned nr)
{
    unsigned got = 0;
    while (got < nr && faults_in(file, process, page + got))
        got++;
    return got;
}

static void take_something(struct world *x)
{
    struct simworld *w = x->w;
    enum how how = (enum how)rnd(5);
    unsigned file = rnd(FILES), process = rnd(PROCESSES), page = rnd(NR), nr = 1 + rnd(NR - page < 3 ? NR - page : 3);
    enum ref_kind kind = (enum ref_kind)rnd(REF_USER_KINDS);
    static const enum ref_kind kernels[] = {REF_SPECULATIVE, REF_ISOLATED, REF_WALKER, REF_MEMORY_FAILURE, REF_LEND};
    struct handle *h = new_handle(how, kind, file, page, nr);
    uint64_t va = x->va[file][process] + page * P;
    unsigned got = 0;
    int rc;

    if (!h)
        return;
    switch (how) {
    case BY_OFFSET:
        rc = gmem_pin(x->file[file], page * P, nr * P, kind, "pin", &h->ref, &w->caller);
        while (got < nr && !truth[file][page + got].private)
            comes(file, page + got++);
        break;
    case BY_ADDRESS:
        rc = mm_gup(x->mm[process], va, nr, kind, "gup", &h->ref, &w->caller);
        got = gup_gets(file, process, page, nr);
        break;
    case BY_PIPE:
        h->pipe = pipe_new(machine_host(w->machine), "pipe");
        rc = pipe_vmsplice(h->pipe, x->mm[process], va, nr, &w->caller);
        got = gup_gets(file, process, page, nr);
        assert_int_equal(pipe_buffers(h->pipe), got);
        h->nr = got; /* a short count is a success */
        break;
    case BY_DEVICE:
        h->device = device_new(machine_host(w->machine), "device");
        rc = device_map(h->device, x->mm[process], va, nr, 0, &w->caller);
        got = gup_gets(file, process, page, nr);
        break;
    default:
        h->nr = nr = 1;
        rc = ref_take(x->file[file], page, kernels[rnd(5)], "kernel", 0, &h->ref);
        assert_int_equal(rc, truth[file][page].there ? 0 : -ENOENT);
        got = rc == 0;
        break;
    }
    if (how == BY_PIPE)
        assert_int_equal(rc == 0, got > 0);
    else
        assert_int_equal(rc == 0, got == nr);
    if (rc == 0) {
        taken(h);
        return;
    }
    if (how == BY_PIPE)
        pipe_free(h->pipe);
    if (how == BY_DEVICE)
        device_free(h->device);
}

static void touch(struct world *x)
{
    unsigned file = rnd(FILES), process = rnd(PROCESSES), page = rnd(NR);
    char byte = 'x';
    uint64_t va = x->va[file][process] + page * P;
    enum sim_access end = rnd(2) ? sim_host_write(x->w->sim, x->mm[process], va, &byte, 1)
                                 : sim_host_read(x->w->sim, x->mm[process], va, &byte, 1);
    assert_int_equal(end, faults_in(file, process, page) ? SIM_OK : SIM_SIGBUS);
}

static void punch(struct world *x)
{
    unsigned file = rnd(FILES), start = rnd(NR), end = start + 1 + rnd(NR - start < 6 ? NR - start : 6);
    assert_int_equal(
        gmem_fallocate(x->file[file], PUNCH, (int64_t)(start * P), (int64_t)((end - start) * P), &x->w->caller), 0);
    unmapped(file, start, end);
    for (unsigned p = start; p < end; p++) {
        unsigned first = folio_first(file, p);
        if (first < start || first + folio_pages(file) > end || !truth[file][p].there)
            continue;
        truth[file][p].there = false;
        truth[file][p].life++;
    }
}

/* The second process maps its view anew: only its mappings go. */
static void map_anew(struct world *x)
{
    unsigned file = rnd(FILES);
    mm_unmap(x->mm[1], x->va[file][1]);
    for (unsigned p = 0; p < NR; p++)
        truth[file][p].mapped[1] = false;
    assert_int_equal(mm_map(x->mm[1], x->file[file], 0, NR * P, &x->va[file][1], &x->w->caller), 0);
}

/* ---- operations that stand in the middle
 * ----------------------------------------------------------------------------- */

static void gup_task(void *arg)
{
    struct world *x = arg;
    struct handle *h = x->stands;
    x->gup_rc = mm_gup(x->mm[0], x->va[h->file][0] + h->page * P, 1, h->kind, "gup", &h->ref, &x->gup_caller);
    x->gup_done = true;
}

static void fault_task(void *arg)
{
    struct world *x = arg;
    const struct handle *h = x->stands;
    x->fault.access = sim_host_read(x->w->sim, x->mm[0], x->va[h->file][0] + h->page * P, &x->fault.byte, 1);
    x->fault.done = true;
}

static void stand(struct world *x)
{
    unsigned file = rnd(FILES), page = rnd(NR);
    bool gup = rnd(2);
    const struct truth *t = &truth[file][page];
    /* GUP-fast needs the PTE, a fault needs that there is none. */
    if (gup ? !t->mapped[0] : t->mapped[0] || t->private)
        return;
    struct handle *h = new_handle(BY_ADDRESS, (enum ref_kind)rnd(REF_USER_KINDS), file, page, 1);
    if (!h)
        return;
    x->stands = h;
    x->standing = true;
    x->is_gup = gup;
    x->gup_done = x->fault.done = false;
    sw_stop_at(x->w, gup ? "gup:grabbed" : "fault:folio");
    sw_spawn(x->w, gup ? gup_task : fault_task, x);
    sw_settle(x->w);
    assert_non_null(x->w->stopped);
    comes(file, page);
    taken(h);
    x->stood++;
}

static void go_on(struct world *x)
{
    struct handle *h = x->stands;
    struct truth *t = &truth[h->file][h->page];
    bool same = h->life[0] == t->life && t->mapped[0];
    sw_go(x->w);
    sw_settle(x->w);
    x->standing = false;
    if (!x->is_gup) {
        assert_true(x->fault.done);
        h->used = false;
        assert_int_equal(x->fault.access, faults_in(h->file, 0, h->page) ? SIM_OK : SIM_SIGBUS);
        return;
    }
    assert_true(x->gup_done);
    /* It keeps the page if its PTE is what it was; else it asks again, and may be told that the page is private. */
    bool gets = same || faults_in(h->file, 0, h->page);
    assert_int_equal(x->gup_rc, gets ? 0 : -EFAULT);
    h->used = false;
    if (gets)
        taken(h);
}

/* ---- the run
 * ------------------------------------------------------------------------------------------------------------ */

static void convert(struct world *x)
{
    unsigned file = rnd(FILES), start = rnd(NR), end = start + 1 + rnd(NR - start), offender = 0;
    bool to_private = rnd(5) < 3;
    const struct gmem_attributes2 attr = {
        .offset = start * P, .size = (end - start) * P, .attributes = to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0};
    struct gmem_busy busy;
    sched_set_cpu(rnd(HOST_CPUS));
    int rc = gmem_set_attributes2(x->file[file], &attr, &x->w->caller, &busy);
    assert_int_equal(rc, expected(file, start, end, to_private, &offender));
    assert_int_equal(busy.error_offset_valid, rc == -EAGAIN);
    if (rc) {
        assert_int_equal(busy.error_offset, offender * P);
        assert_true(busy.nr_holders > 0);
        x->busy++;
    }
    for (unsigned p = start; p < end; p++)
        assert_int_equal(gmem_is_private(x->file[file], p), truth[file][p].private);
    x->conversions++;
}

/* Everything that the oracle knows, and the audit. */
static void look(struct world *x)
{
    sw_audit(x->w);
    for (unsigned file = 0; file < FILES; file++)
        for (unsigned p = 0; p < NR; p++) {
            struct page_report page;
            uint32_t maps = 0;
            unsigned first = folio_first(file, p);
            for (unsigned q = first; q < first + folio_pages(file); q++)
                maps += truth[file][q].mapped[0] + truth[file][q].mapped[1];
            gmem_page_report(x->file[file], p, &page);
            assert_int_equal(page.private, truth[file][p].private);
            assert_int_equal(page.allocated, truth[file][p].there);
            assert_int_equal(page.mapcount, maps);
        }
}

static void step(struct world *x)
{
    static const uint8_t wish[] = {0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 5};
    sched_set_cpu(rnd(HOST_CPUS));
    switch (wish[rnd(sizeof(wish))]) {
    case 0:
        take_something(x);
        break;
    case 1: {
        struct handle *h = &handles[rnd(HANDLES)];
        if (h->used && !(x->standing && h == x->stands))
            let_go(h);
        break;
    }
    case 2:
        punch(x);
        break;
    case 3:
        map_anew(x);
        break;
    case 4:
        if (x->standing)
            go_on(x);
        else
            stand(x);
        break;
    default:
        touch(x);
        break;
    }
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static void random_conversions(struct simworld *w)
{
    struct world x = {.w = w};
    uint64_t count = from_environment("FAKEHYP_RANDOM_CONVERSIONS", DEFAULT_COUNT);
    uint64_t seed = from_environment("FAKEHYP_RANDOM_SEED", 20240918);

    rnd_state = seed ? seed : 1;
    memset(truth, 0, sizeof(truth));
    memset(handles, 0, sizeof(handles));
    host_set_lru_batches(machine_host(w->machine), true);
    x.mm[0] = w->mm;
    x.mm[1] = mm_new(machine_host(w->machine), "second", 101);
    for (unsigned i = 0; i < FILES; i++) {
        assert_int_equal(
            gmem_create(w->vm, NR * P, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED, &x.file[i], &w->caller),
            0);
        assert_int_equal(gmem_set_order(x.file[i], i ? 2 : 0), 0);
        for (unsigned m = 0; m < PROCESSES; m++)
            assert_int_equal(mm_map(x.mm[m], x.file[i], 0, NR * P, &x.va[i][m], &w->caller), 0);
    }
    while (x.conversions < count) {
        step(&x);
        convert(&x);
        if (x.conversions % LOOK_EVERY == 0)
            look(&x);
    }
    if (x.standing)
        go_on(&x);
    look(&x);
    for (unsigned i = 0; i < HANDLES; i++)
        if (handles[i].used)
            let_go(&handles[i]);
    for (unsigned i = 0; i < FILES; i++) {
        assert_int_equal(
            gmem_set_attributes2(x.file[i],
                                 &(struct gmem_attributes2){.size = NR * P, .attributes = KVM_MEMORY_ATTRIBUTE_PRIVATE},
                                 &w->caller, &w->busy),
            0);
        mm_unmap(w->mm, x.va[i][0]);
    }
    mm_free(x.mm[1]);
    host_lru_drain_all(machine_host(w->machine));
    for (unsigned i = 0; i < FILES; i++)
        gmem_put(x.file[i]);
    printf("# %llu conversions, seed %llu: %llu refused with EAGAIN; %llu operations stood in the middle\n",
           (unsigned long long)x.conversions, (unsigned long long)seed, (unsigned long long)x.busy,
           (unsigned long long)x.stood);
    /* Both verdicts are met often enough to mean something. */
    assert_true(x.busy > count / 50 && x.busy < count - count / 50);
}
SIMWORLD(random_conversions, .no_vmm = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_conversions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
