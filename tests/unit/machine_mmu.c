/* SPDX-License-Identifier: BSD-2-Clause */
/* The MMU: effective access in every state, the invalidation queue, and an audit that sees what is wrong. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fakehyp/hypercall.h"
#include "src/host/internal.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE

void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);

static bool no_realloc;

void *__wrap_realloc(void *p, size_t size)
{
    return no_realloc ? NULL : __real_realloc(p, size);
}

static struct mfile_state *file_of(const struct gmem *gmem)
{
    return gmem_file(gmem);
}

static uint64_t pfn_of(struct simworld *w, uint64_t index)
{
    struct page_report page;
    gmem_page_report(w->gmem, index, &page);
    assert_true(page.allocated);
    return page.pfn;
}

/* ---- effective access ----------------------------------------------------------------------------------------- */

enum el2_state { HOLE, HOST_OWNED, GUEST_OWNED, GUEST_SHARED, GUEST_UNSHARED, RECLAIMED, NR_STATES };

/* Brings page `index` there; afterwards its attribute is private. */
static void bring(struct simworld *w, uint64_t index, enum el2_state to)
{
    int64_t x0;
    char byte;
    sw_must(sw_convert(w, index, 1, true), 0);
    if (to == HOLE)
        return;
    if (to == HOST_OWNED) {
        sw_must(gmem_fallocate(w->gmem, 1, (int64_t)(index * P), P, &w->caller), 0);
        return;
    }
    sw_must(sim_guest_write(w->vcpu, index * P, "x", 1), 0);
    if (to == GUEST_SHARED || to == GUEST_UNSHARED)
        sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, index * P, 0, 0}, &x0), 0);
    if (to == GUEST_UNSHARED)
        sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_UNSHARE, index * P, 0, 0}, &x0), 0);
    if (to == RECLAIMED)
        sw_must(sim_kernel_load(w->sim, pfn_of(w, index), false, &byte, 1), 0);
}

/* Stage 1 ∩ stage 2: the attribute says shared, and EL2 does not say no. */
static const bool el2_allows[NR_STATES] = {
    [HOLE] = true,         [HOST_OWNED] = true,      [GUEST_OWNED] = false,
    [GUEST_SHARED] = true, [GUEST_UNSHARED] = false, [RECLAIMED] = true,
};

static void all_combinations(struct simworld *w)
{
    struct s2_walk walk;
    char byte;

    /* Nobody converts but this test; the VM is a unilateral one, so that EL2 alone decides. */
    w->convert_on_exit = false;
    for (unsigned state = 0; state < NR_STATES; state++) {
        uint64_t page = 2 * state;
        bring(w, page, (enum el2_state)state);
        for (unsigned round = 0; round < 4; round++) {
            bool shared = round & 1;
            sw_must(sw_convert(w, page, 1, !shared), 0);
            bool reaches = shared && el2_allows[state];
            assert_int_equal(mmu_host_reaches(machine_file(w->gmem), page), reaches);
            assert_int_equal(mmu_side(machine_file(w->gmem), page).private, !reaches);
            if (state != HOLE) {
                mmu_walk_host(w->machine, pfn_of(w, page), &walk);
                assert_int_equal(walk.annotated, !el2_allows[state]);
            }
            mmu_walk_guest(w->machine, vm_handle(w->vm), page, &walk);
            assert_int_equal(walk.valid, state >= GUEST_OWNED && state <= GUEST_UNSHARED);
            if (walk.valid)
                assert_int_equal(walk.pfn, pfn_of(w, page));
            /* A hole becomes a page by being looked at: look at a copy of it, on the next page. */
            uint64_t at = page;
            if (state == HOLE) {
                at = page + 1;
                sw_must(sw_convert(w, at, 1, !shared), 0);
            }
            enum sim_access expected = reaches ? SIM_OK : shared ? SIM_SIGSEGV : SIM_SIGBUS;
            sw_must(sim_host_read(w->sim, w->mm, w->va + at * P, &byte, 1), expected);
            struct ref *pin;
            sw_must(gmem_pin(w->gmem, at * P, P, REF_FOLL_GET, "x", &pin, &w->caller), reaches ? 0 : -EFAULT);
            if (reaches)
                gmem_unpin(pin);
            if (state >= GUEST_OWNED && state <= GUEST_UNSHARED) {
                sw_must(sim_guest_read(w->vcpu, page * P, &byte, 1), 0);
                assert_int_equal(byte, 'x');
            }
        }
    }
}

/* A wide conversion to shared that EL2 honours for some pages only: every pattern of the guest's pages and holes. */
static void refused_pages_between_holes(struct simworld *w)
{
    char byte;
    for (unsigned pattern = 0; pattern < 64; pattern++) {
        struct gmem *gmem;
        uint64_t gpa = 0x1000000 + pattern * 0x10000;
        assert_int_equal(gmem_create(w->vm, 8 * P, GUEST_MEMFD_FLAG_MMAP, &gmem, &w->caller), 0);
        assert_int_equal(vm_set_memory_region(w->vm, 1 + pattern, 0, gpa, 8 * P, gmem, 0, &w->caller), 0);
        for (uint64_t i = 0; i < 6; i++)
            if (pattern >> i & 1)
                sw_must(sim_guest_write(w->vcpu, gpa + (i + 1) * P, "x", 1), 0);
        const struct gmem_attributes2 shared = {.size = 8 * P}, private = {.size = 8 * P, .attributes = 8};
        struct gmem_busy busy;
        sw_must(gmem_set_attributes2(gmem, &shared, &w->caller, &busy), 0);
        for (uint64_t i = 0; i < 8; i++)
            assert_int_equal(mmu_side(machine_file(gmem), i).private, i >= 1 && i < 7 && pattern >> (i - 1) & 1);
        sw_must(gmem_set_attributes2(gmem, &private, &w->caller, &busy), 0);
        assert_int_equal(mmu_nr_sides(machine_file(gmem)), 1);
        if (pattern)
            sw_must(sim_guest_read(w->vcpu, gpa + (1 + (uint64_t)__builtin_ctz(pattern)) * P, &byte, 1), 0);
        gmem_put(gmem);
    }
}

static void walks(struct simworld *w)
{
    struct s2_walk walk;
    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x3000, "x", 1), 0);
    mmu_walk_guest(w->machine, vm_handle(w->vm), 3, &walk);
    assert_true(walk.valid);
    assert_int_equal(walk.level, 3);
    assert_int_equal(walk.pfn, pfn_of(w, 3));
    mmu_walk_guest(w->machine, vm_handle(w->vm), 4, &walk);
    assert_false(walk.valid || walk.annotated);
    mmu_walk_guest(w->machine, vm_handle(w->vm), UINT64_C(1) << 28, &walk);
    assert_false(walk.valid || walk.annotated);
    mmu_walk_guest(w->machine, 0x4242, 3, &walk);
    assert_false(walk.valid || walk.annotated);
    mmu_walk_host(w->machine, pfn_of(w, 3), &walk);
    assert_true(!walk.valid && walk.annotated);
    assert_true(walk.pte != 0);
}

/* ---- the invalidation queue ------------------------------------------------------------------------------------- */

/* The stage's bytes and the machine's record of them are put where they ought not to be. */
static void misplace(struct gmem *gmem, uint64_t start, uint64_t end, bool to_host)
{
    struct mfile_state *f = file_of(gmem);
    sim_stage_ops.move(f->file.machine->config.stage_ctx, &f->file, start, end, to_host);
    assert_int_equal(rangemap_reserve(&f->side), 0);
    rangemap_set(&f->side, start, end, to_host ? SIDE_HOST : SIDE_GUEST);
}

#define SAID 2000

/* Into ctx, if there is one: all that an audit has to say, a line each. */
static void quiet(void *ctx, const char *text)
{
    char *said = ctx;
    if (said)
        snprintf(said + strlen(said), SAID - strlen(said), "%s\n", text);
}

static void a_drain_puts_right(struct simworld *w)
{
    struct machine *m = w->machine;
    for (uint64_t i = 0; i < 16; i++)
        sw_must(sim_host_write(w->sim, w->mm, w->va + i * P, "x", 1), SIM_OK);
    misplace(w->gmem, 4, 9, false);
    assert_true(machine_audit(m, quiet, NULL, NULL) > 0);
    mmu_invalidate(m, 0, pfn_of(w, 5) * P, 1);
    assert_int_equal(m->nr_invals, 1);
    mmu_drain(m);
    assert_int_equal(m->nr_invals, 0);
    /* Exactly what was asked for. */
    assert_false(mmu_side(machine_file(w->gmem), 5).private);
    assert_true(mmu_side(machine_file(w->gmem), 4).private);
    assert_true(mmu_side(machine_file(w->gmem), 6).private);
    for (uint64_t i = 4; i < 9; i++)
        mmu_invalidate(m, 0, pfn_of(w, i) * P, 1);
    mmu_drain(m);
    sw_audit(w);
    assert_int_equal(mmu_nr_sides(machine_file(w->gmem)), 1);
    /* A frame that is no page of a file, and RAM that does not exist, are nothing. */
    mmu_invalidate(m, 0, MACHINE_RAM_BASE, 1);
    mmu_invalidate(m, 0, UINT64_C(1) << 45, 7);
    mmu_invalidate(m, 4711, 0, 0);
    mmu_drain(m);
    sw_audit(w);
}

static void entries_merge(struct simworld *w)
{
    struct machine *m = w->machine;
    uint64_t ipa = MACHINE_RAM_BASE;
    mmu_invalidate(m, 0, ipa, 1);
    mmu_invalidate(m, 0, ipa + P, 3);
    assert_int_equal(m->nr_invals, 1);
    assert_int_equal(m->invals[0].nr_pages, 4);
    mmu_invalidate(m, 0, ipa + 5 * P, 1); /* a gap */
    assert_int_equal(m->nr_invals, 2);
    mmu_invalidate(m, 77, ipa + 6 * P, 1); /* another VMID */
    assert_int_equal(m->nr_invals, 3);
    mmu_invalidate(m, 77, ipa + 7 * P, 0); /* all of it: never merged */
    mmu_invalidate(m, 77, ipa + 7 * P, 1);
    assert_int_equal(m->nr_invals, 5);
    assert_int_equal(m->invals[3].nr_pages, 0);
    mmu_drain(m);
    assert_int_equal(m->nr_invals, 0);
}

static void the_queue_grows(struct simworld *w)
{
    struct machine *m = w->machine;
    for (uint64_t i = 0; i < 16; i++)
        sw_must(sim_host_write(w->sim, w->mm, w->va + i * P, "x", 1), SIM_OK);
    misplace(w->gmem, 0, 16, false);
    for (uint64_t i = 0; i < 1000; i++)
        mmu_invalidate(m, (uint16_t)(i % 2 ? 999 : 0), pfn_of(w, i % 16) * P, 1);
    assert_true(m->nr_invals > 500);
    assert_false(m->inval_everything);
    for (uint64_t i = 0; i < 16; i++)
        mmu_invalidate(m, 0, pfn_of(w, i) * P, 1);
    mmu_drain(m);
    sw_audit(w);
}

/* No memory for an entry: everything is looked at, nothing is missed. */
static void the_queue_cannot_grow(struct simworld *w)
{
    struct machine *m = w->machine;
    struct gmem *second;
    for (uint64_t i = 0; i < 16; i++)
        sw_must(sim_host_write(w->sim, w->mm, w->va + i * P, "x", 1), SIM_OK);
    assert_int_equal(gmem_create(w->vm, 4 * P, GUEST_MEMFD_FLAG_INIT_SHARED, &second, &w->caller), 0);
    misplace(w->gmem, 3, 12, false);
    misplace(second, 1, 2, false);
    no_realloc = true;
    for (uint64_t i = 0; i < 1000; i++)
        mmu_invalidate(m, 0, MACHINE_RAM_BASE + 2 * i * P, 1);
    assert_true(m->inval_everything);
    no_realloc = false;
    mmu_drain(m);
    assert_false(m->inval_everything);
    assert_int_equal(m->nr_invals, 0);
    sw_audit(w);
    gmem_put(second);
}

/* nr 0 means the whole VMID: the host's too. */
static void all_of_the_host(struct simworld *w)
{
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "x", 1), SIM_OK);
    misplace(w->gmem, 3, 4, false);
    mmu_invalidate(w->machine, 0, 0, 0);
    mmu_drain(w->machine);
    sw_audit(w);
}

struct drain_job {
    struct machine *m;
    uint64_t pfn[2];
    bool done;
};

/* A trap: EL2 queues, then the queue is drained before its task goes on. */
static void drain_task(void *arg)
{
    struct drain_job *job = arg;
    for (unsigned i = 0; i < 2; i++)
        if (job->pfn[i])
            mmu_invalidate(job->m, 0, job->pfn[i] * P, 1);
    mmu_drain(job->m);
    job->done = true;
}

/* While everything is looked at, files come and go. */
static void a_file_goes_during_a_drain(struct simworld *w)
{
    struct gmem *gmem[3];
    struct drain_job job = {.m = w->machine};
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(gmem_create(w->vm, 4 * P, GUEST_MEMFD_FLAG_INIT_SHARED, &gmem[i], &w->caller), 0);
    struct mfile_state *f = file_of(gmem[1]);
    task_lock_exclusive(&f->lock);
    w->machine->inval_everything = true;
    sw_spawn(w, drain_task, &job);
    sw_settle(w);
    assert_false(job.done);
    /* The list runs from the newest to the oldest: it waits at the middle one. All three go meanwhile. */
    for (unsigned i = 0; i < 3; i++)
        gmem_put(gmem[i]);
    task_unlock_exclusive(&f->lock);
    sw_settle(w);
    assert_true(job.done);
    sw_audit(w);
}

static struct waitq zap_queue;
static bool zap_waits;

static void slow_zap(void *ctx, struct vm *vm, uint64_t gfn, uint64_t nr)
{
    if (!zap_waits)
        return;
    zap_waits = false;
    sched_wait(&zap_queue, SCHED_FOREVER);
}

static void destroy_task(void *arg)
{
    struct simworld *w = arg;
    struct caller caller = {0};
    assert_int_equal(vm_destroy(w->vm, &caller), 0);
    w->vm = NULL;
}

/* A guest's agent may be slow; its VM may be gone when it answers. */
static void a_vm_goes_during_a_drain(struct simworld *w)
{
    struct machine *m = w->machine;
    const struct stage_ops *sim = m->config.stage;
    struct stage_ops slow = *sim;
    struct vcpu *vcpu;
    const struct vm_config config = {.name = "t", .is_protected = true};

    slow.guest_zap = slow_zap;
    for (unsigned everything = 0; everything < 2; everything++) {
        assert_int_equal(vm_create(machine_host(m), &config, &w->vm, &w->caller), 0);
        assert_int_equal(vcpu_create(w->vm, 0, &vcpu, &w->caller), 0);
        assert_int_equal(gmem_create(w->vm, 16 * P, 0, &w->gmem, &w->caller), 0);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(vm_set_memory_region(w->vm, i, 0, i * 0x100000, 4 * P, w->gmem, i * 4 * P, &w->caller), 0);
        struct run_record run = {0};
        /* No guest: it ends at once, and EL2 knows the VM from here on. */
        assert_int_equal(vcpu_run(vcpu, &run, &w->caller), 0);
        m->config.stage = &slow;
        zap_waits = true;
        struct drain_job job = {.m = m};
        if (everything) {
            m->inval_everything = true;
        } else {
            struct hyp_vttbr vttbr;
            assert_int_equal(hyp_vm_vttbr(m->hyp, vm_handle(w->vm), &vttbr), 0);
            mmu_invalidate(m, vttbr.vmid, 0, 0);
        }
        sw_spawn(w, drain_task, &job);
        sw_settle(w);
        assert_false(job.done || zap_waits);
        sw_spawn(w, destroy_task, w);
        sw_settle(w);
        assert_null(w->vm);
        sched_wake_all(&zap_queue);
        sw_settle(w);
        assert_true(job.done);
        m->config.stage = sim;
        gmem_put(w->gmem);
        w->gmem = NULL;
        sw_audit(w);
    }
}

/* What a trap has queued is in force when the trap returns, whoever else is draining. */
static void nobody_returns_too_early(struct simworld *w)
{
    struct machine *m = w->machine;
    struct gmem *second;
    struct ref *pin;
    uint64_t index, pfn;
    for (uint64_t i = 0; i < 16; i++)
        sw_must(sim_host_write(w->sim, w->mm, w->va + i * P, "x", 1), SIM_OK);
    assert_int_equal(gmem_create(w->vm, 4 * P, GUEST_MEMFD_FLAG_INIT_SHARED, &second, &w->caller), 0);
    assert_int_equal(gmem_pin(second, 0, P, REF_FOLL_GET, "x", &pin, &w->caller), 0);
    gmem_unpin(pin);
    assert_true(gmem_next_folio(second, 0, 1, &index, &pfn));
    misplace(second, 0, 1, false);

    /* Both wait for the first file; the second file's entry stays in the queue meanwhile. */
    struct drain_job a = {.m = m, .pfn = {pfn_of(w, 1)}}, b = {.m = m, .pfn = {pfn, pfn_of(w, 3)}};
    struct drain_job c = {.m = m, .pfn = {pfn_of(w, 3), pfn}};
    struct drain_job *const second_trap[] = {&b, &c};
    for (unsigned i = 0; i < 2; i++) {
        a.done = false;
        if (i)
            misplace(second, 0, 1, false);
        task_lock_exclusive(&file_of(w->gmem)->lock);
        sw_spawn(w, drain_task, &a);
        sw_settle(w);
        sw_stop_at(w, "stage:moved");
        sw_spawn(w, drain_task, second_trap[i]);
        sw_settle(w);
        task_unlock_exclusive(&file_of(w->gmem)->lock);
        sw_settle(w);
        /* Stopped in the middle of the second file's move. */
        if (w->stopped) {
            assert_false(second_trap[i]->done);
            sw_go(w);
        }
        sw_settle(w);
        assert_true(a.done && second_trap[i]->done);
        assert_false(mmu_side(machine_file(second), 0).private);
        sw_audit(w);
    }
    gmem_put(second);
}

/* ---- the audit --------------------------------------------------------------------------------------------------- */

static void found(struct simworld *w, const char *says)
{
    char said[SAID] = "";
    uint64_t pages = 0;
    unsigned n = machine_audit(w->machine, quiet, said, &pages);
    assert_true(n >= 1);
    assert_true(pages >= 5);
    if (!strstr(said, says))
        print_error("\"%s\" does not say \"%s\"\n", said, says);
    assert_non_null(strstr(said, says));
}

static void plant_side(struct simworld *w, uint64_t index, uint64_t side)
{
    struct rangemap *map = &file_of(w->gmem)->side;
    assert_int_equal(rangemap_reserve(map), 0);
    rangemap_set(map, index, index + 1, side);
}

static void plant_attr(struct simworld *w, uint64_t index, uint64_t attr)
{
    assert_int_equal(rangemap_reserve(&w->gmem->attr), 0);
    rangemap_set(&w->gmem->attr, index, index + 1, attr);
}

/* Pages: 0 shared and mapped, 1 shared hole, 2 private and the guest's, 3 private hole, 4 the guest's and shared, 5
 * pinned. */
static void planted_damage(struct simworld *w)
{
    int64_t x0;
    struct ref *pin;
    sw_must(sim_host_write(w->sim, w->mm, w->va, "x", 1), SIM_OK);
    sw_must(sw_convert(w, 2, 3, true), 0);
    sw_must(sim_guest_write(w->vcpu, 2 * P, "x", 1), 0);
    sw_must(sim_guest_write(w->vcpu, 4 * P, "x", 1), 0);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, 4 * P, 0, 0}, &x0), 0);
    sw_must(gmem_pin(w->gmem, 5 * P, P, REF_FOLL_PIN, "x", &pin, &w->caller), 0);
    /* Lying VMM: legal, and the audit has nothing to say. */
    sw_must(sw_convert(w, 10, 1, true), 0);
    sw_must(sim_guest_write(w->vcpu, 10 * P, "x", 1), 0);
    sw_must(sw_convert(w, 10, 1, false), 0);

    static const struct {
        uint64_t page, side, right;
        const char *says;
    } sides[] = {
        {0, SIDE_GUEST, SIDE_HOST, "out of reach"},
        {1, SIDE_GUEST, SIDE_HOST, "out of reach"},
        {2, SIDE_HOST, SIDE_GUEST, "within the host's reach"},
        {3, SIDE_HOST, SIDE_GUEST, "within the host's reach"},
        {4, SIDE_GUEST, SIDE_HOST, "out of reach"},
        {15, SIDE_GUEST, SIDE_HOST, "out of reach"},
        {10, SIDE_HOST, SIDE_GUEST, "stage 2 refuses"},
    };
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        plant_side(w, sides[i].page, sides[i].side);
        found(w, sides[i].says);
        plant_side(w, sides[i].page, sides[i].right);
        sw_audit(w);
    }
    static const struct {
        uint64_t page, attr;
        const char *says;
    } attrs[] = {
        {0, ATTR_PRIVATE, "are private"}, {1, ATTR_PRIVATE, "are private"},  {3, ATTR_SHARED, "out of reach"},
        {4, ATTR_PRIVATE, "are private"}, {15, ATTR_PRIVATE, "are private"},
    };
    for (size_t i = 0; i < sizeof(attrs) / sizeof(attrs[0]); i++) {
        plant_attr(w, attrs[i].page, attrs[i].attr);
        found(w, attrs[i].says);
        plant_attr(w, attrs[i].page, !attrs[i].attr);
        sw_audit(w);
    }
    static const uint64_t counted[] = {0, 2, 4, 5};
    for (size_t i = 0; i < sizeof(counted) / sizeof(counted[0]); i++) {
        struct frame *f = frame_of(machine_host(w->machine), pfn_of(w, counted[i]));
        f->refcount++;
        found(w, "refcount");
        f->refcount -= 2;
        found(w, "refcount");
        f->refcount++;
        f->mapcount++;
        found(w, "I6");
        found(w, "mapcount");
        f->mapcount--;
        f->index++;
        found(w, "does not know it");
        f->index--;
        f->owner++;
        found(w, "does not know it");
        f->owner--;
        sw_audit(w);
    }
    /* EL2's own records. */
    static const uint64_t states[] = {0, 2, 4};
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        struct hyp_page *page = &w->machine->vmemmap[pfn_of(w, states[i]) - (MACHINE_RAM_BASE >> 12)];
        unsigned right = page->host_state;
        page->host_state = right == PKVM_PAGE_SHARED_BORROWED ? PKVM_PAGE_NOPAGE : PKVM_PAGE_SHARED_BORROWED;
        found(w, "EL2");
        page->host_state = right & 15;
        sw_audit(w);
    }
    gmem_unpin(pin);
    sw_audit(w);
}

/* A file in the middle of a change of side promises nothing; once it is through, it does. */
static void the_audit_waits_for_no_one(struct simworld *w)
{
    struct sw_job job = {.w = w, .page = 0, .nr = 4, .to_private = true};
    sw_must(sim_host_write(w->sim, w->mm, w->va, "x", 1), SIM_OK);
    sw_stop_at(w, "stage:moved");
    sw_spawn(w, sw_convert_job, &job);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_audit(w);
    sw_go(w);
    sw_settle(w);
    assert_true(job.done);
    sw_audit(w);
}

SIMWORLD(all_combinations, .unilateral = true)
SIMWORLD(refused_pages_between_holes, .unilateral = false)
SIMWORLD(walks, .unilateral = false)
SIMWORLD(a_drain_puts_right, .no_vmm = true)
SIMWORLD(entries_merge, .no_vmm = true)
SIMWORLD(the_queue_grows, .no_vmm = true)
SIMWORLD(the_queue_cannot_grow, .no_vmm = true)
SIMWORLD(all_of_the_host, .no_vmm = true)
SIMWORLD(a_file_goes_during_a_drain, .no_vmm = true)
SIMWORLD(a_vm_goes_during_a_drain, .bare = true)
SIMWORLD(nobody_returns_too_early, .no_vmm = true)
SIMWORLD(planted_damage, .no_oracle = true)
SIMWORLD(the_audit_waits_for_no_one, .no_vmm = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_combinations),
        cmocka_unit_test(test_refused_pages_between_holes),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_a_drain_puts_right),
        cmocka_unit_test(test_entries_merge),
        cmocka_unit_test(test_the_queue_grows),
        cmocka_unit_test(test_the_queue_cannot_grow),
        cmocka_unit_test(test_planted_damage),
        cmocka_unit_test(test_the_audit_waits_for_no_one),
        cmocka_unit_test(test_all_of_the_host),
        cmocka_unit_test(test_nobody_returns_too_early),
        cmocka_unit_test(test_a_vm_goes_during_a_drain),
        cmocka_unit_test(test_a_file_goes_during_a_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
