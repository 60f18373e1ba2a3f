/* SPDX-License-Identifier: BSD-2-Clause */
/* References: what each holder adds to which count, who is named, and when it goes. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "src/host/mm_internal.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static struct page_report page_at(struct simworld *w, uint64_t index)
{
    struct page_report page;
    gmem_page_report(w->gmem, index, &page);
    return page;
}

static void counts(struct simworld *w, uint64_t index, uint32_t ref, uint32_t map)
{
    assert_int_equal(page_at(w, index).refcount, ref);
    assert_int_equal(page_at(w, index).mapcount, map);
    sw_audit(w);
}

static void busy_at(struct simworld *w, uint64_t page, uint64_t nr, uint64_t offender, const char *kind)
{
    sw_must(sw_convert(w, page, nr, true), -EAGAIN);
    assert_true(w->busy.error_offset_valid);
    assert_int_equal(w->busy.error_offset, offender * P);
    assert_true(w->busy.nr_holders > 0);
    assert_string_equal(w->busy.holders[0].kind, kind);
}

static void touch(struct simworld *w, struct mm *mm, uint64_t va, enum sim_access expected)
{
    char byte;
    sw_must(sim_host_read(w->sim, mm, va, &byte, 1), expected);
}

/* ---- the table ------------------------------------------------------------------------------------------------------
 */

static void each_kind(struct simworld *w)
{
    for (unsigned kind = 0; kind < REF_KINDS_COUNT; kind++) {
        struct holder_info holder;
        struct ref *ref = NULL;
        /* Those that belong to page tables are tested with them. */
        if (kind == REF_PTE || kind == REF_GATHER)
            continue;
        assert_int_equal(ref_take(w->gmem, 5, (enum ref_kind)kind, "x", 7, &ref), -ENOENT);
        sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 5 * P, P, &w->caller), 0);
        sw_must(ref_take(w->gmem, 5, (enum ref_kind)kind, "holder", 7, &ref), 0);
        counts(w, 5, ref_kinds[kind].pin ? 1 + FOLL_PIN_BIAS : 2, 0);
        assert_int_equal(gmem_holders(w->gmem, 5, &holder, 1), 1);
        assert_string_equal(holder.what, "holder");
        assert_string_equal(holder.kind, ref_kinds[kind].name);
        assert_int_equal(holder.pid, 7);
        assert_int_equal(holder.task, sched_task_id());
        assert_int_equal(holder.count, page_at(w, 5).refcount - 1);
        busy_at(w, 0, 16, 5, ref_kinds[kind].name);
        assert_true(ref_find(machine_host(w->machine), ref_id(ref)) == ref);
        uint64_t id = ref_id(ref);
        ref_drop(ref);
        assert_null(ref_find(machine_host(w->machine), id));
        counts(w, 5, 1, 0);
        sw_must(sw_convert(w, 0, 16, true), 0);
        sw_must(sw_convert(w, 0, 16, false), 0);
        sw_must(gmem_fallocate(w->gmem, PUNCH, 5 * P, P, &w->caller), 0);
    }
}

/* Where a reference was taken is told: the point that its task had passed last. */
static void says_where(struct simworld *w)
{
    struct sw_job job = {.w = w, .page = 3};
    struct holder_info holder;

    sw_stop_at(w, "fault:folio");
    sw_spawn(w, sw_touch_job, &job);
    sw_settle(w);
    assert_int_equal(gmem_holders(w->gmem, 3, &holder, 1), 1);
    assert_string_equal(holder.kind, "fault in flight");
    assert_string_equal(holder.point, "fault:locked");
    assert_int_equal(holder.task, task_id(w->stopped));
    sw_go(w);
    sw_settle(w);
    assert_int_equal(gmem_holders(w->gmem, 3, &holder, 1), 1);
    assert_string_equal(holder.kind, "PTE");
    assert_string_equal(holder.what, "vmm");
    assert_true(holder.va == w->va + 3 * P);
    counts(w, 3, 2, 1);
}

/* The pinner keeps the page and its bytes; the file has a new one. */
static void outlives_its_file(struct simworld *w)
{
    struct ref *ref;
    struct gmem *gmem;
    uint64_t va;
    char buf[4] = "";

    sw_must(sim_host_write(w->sim, w->mm, w->va + 2 * P, "old", 4), SIM_OK);
    sw_must(gmem_pin(w->gmem, 2 * P, P, REF_LONGTERM, "ring", &ref, &w->caller), 0);
    uint64_t pfn = ref_pfn(ref, 0);
    sw_must(gmem_fallocate(w->gmem, PUNCH, 2 * P, P, &w->caller), 0);
    sw_must(sim_host_write(w->sim, w->mm, w->va + 2 * P, "new", 4), SIM_OK);
    assert_int_not_equal(page_at(w, 2).pfn, pfn);
    sw_must(sim_kernel_load(w->sim, pfn, false, buf, 4), SIM_OK);
    assert_string_equal(buf, "old");
    /* It stands in nobody's way, and the frame is free once it is dropped. */
    sw_must(sw_convert(w, 0, 16, true), 0);
    assert_int_equal(folio_refcount(machine_host(w->machine), pfn), FOLL_PIN_BIAS);
    gmem_unpin(ref);
    assert_int_equal(folio_refcount(machine_host(w->machine), pfn), 0);

    /* The same when the inode goes: GUP does not hold it. */
    sw_must(gmem_create(w->vm, 2 * P, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED, &gmem, &w->caller), 0);
    sw_must(mm_map(w->mm, gmem, 0, 2 * P, &va, &w->caller), 0);
    sw_must(sim_host_write(w->sim, w->mm, va, "end", 4), SIM_OK);
    sw_must(gmem_pin(gmem, 0, P, REF_FOLL_GET, "pipe", &ref, &w->caller), 0);
    pfn = ref_pfn(ref, 0);
    mm_unmap(w->mm, va);
    gmem_put(gmem);
    sw_audit(w);
    sw_must(sim_kernel_load(w->sim, pfn, false, buf, 4), SIM_OK);
    assert_string_equal(buf, "end");
    assert_true(ref_find(machine_host(w->machine), ref_id(ref)) == ref);
    gmem_unpin(ref);
    sw_audit(w);
}

/* ---- large folios --------------------------------------------------------------------------------------------------
 */

static struct gmem *large_file(struct simworld *w, unsigned order, uint64_t *va)
{
    struct gmem *old = w->gmem;
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 0, NULL, 0, &w->caller), 0);
    assert_int_equal(
        gmem_create(w->vm, 16 * P, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED, &w->gmem, &w->caller), 0);
    assert_int_equal(gmem_set_order(w->gmem, 5), -EINVAL);
    assert_int_equal(gmem_set_order(w->gmem, 10), -EINVAL);
    assert_int_equal(gmem_set_order(w->gmem, order), 0);
    assert_int_equal(mm_map(w->mm, w->gmem, 0, 16 * P, va, &w->caller), 0);
    return old;
}

/* Counts are the folio's and exact: 1024 plain references are no pin, and one pin is seen among them. */
static void large_folios(struct simworld *w)
{
    static struct ref *many[2 * FOLL_PIN_BIAS];
    struct host *host = machine_host(w->machine);
    uint64_t va;
    struct ref *pin;
    struct gmem *old = large_file(w, 2, &va);

    touch(w, w->mm, va + 5 * P, SIM_OK);
    assert_int_equal(gmem_set_order(w->gmem, 0), -EBUSY);
    struct page_report page = page_at(w, 6);
    assert_int_equal(page.order, 2);
    assert_int_equal(page.pfn & 3, 2);
    counts(w, 7, 4 + 1, 1);
    sw_must(gmem_pin(w->gmem, 5 * P, 2 * P, REF_FOLL_PIN, "dma", &pin, &w->caller), 0);
    counts(w, 4, 4 + 1 + 2, 1);
    assert_int_equal(page_at(w, 4).pincount, 2);
    /* The offender is the folio; its offset is clamped to the range. */
    busy_at(w, 0, 16, 4, "FOLL_PIN");
    assert_int_equal(w->busy.holders[0].count, 2);
    busy_at(w, 6, 10, 6, "FOLL_PIN");
    busy_at(w, 7, 1, 7, "FOLL_PIN");
    sw_must(sw_convert(w, 8, 8, true), 0);
    gmem_unpin(pin);
    for (unsigned i = 0; i < 2 * FOLL_PIN_BIAS; i++)
        assert_int_equal(gmem_pin(w->gmem, 4 * P, P, REF_FOLL_GET, "pipe", &many[i], &w->caller), 0);
    assert_false(folio_maybe_dma_pinned(host, page_at(w, 4).pfn));
    assert_int_equal(page_at(w, 4).pincount, 0);
    busy_at(w, 0, 8, 4, "FOLL_GET");
    sw_must(gmem_pin(w->gmem, 4 * P, P, REF_LONGTERM, "vfio", &pin, &w->caller), 0);
    assert_true(folio_maybe_dma_pinned(host, page_at(w, 4).pfn));
    gmem_unpin(pin);
    for (unsigned i = 0; i < 2 * FOLL_PIN_BIAS; i++)
        gmem_unpin(many[i]);
    counts(w, 4, 4, 0);
    /* A part of a folio is no hole: its bytes go, it stays. */
    sw_must(sim_host_write(w->sim, w->mm, va + 5 * P, "abc", 4), SIM_OK);
    sw_must(gmem_fallocate(w->gmem, PUNCH, 5 * P, P, &w->caller), 0);
    assert_true(page_at(w, 5).allocated);
    char buf[4];
    sw_must(sim_host_read(w->sim, w->mm, va + 5 * P, buf, 4), SIM_OK);
    assert_int_equal(buf[0], 0);
    /* All of it is; who holds it keeps all of it. */
    sw_must(gmem_pin(w->gmem, 6 * P, P, REF_FOLL_PIN, "dma", &pin, &w->caller), 0);
    sw_must(gmem_fallocate(w->gmem, PUNCH, 4 * P, 4 * P, &w->caller), 0);
    assert_false(page_at(w, 5).allocated);
    assert_int_equal(folio_refcount(host, ref_pfn(pin, 0)), 1);
    gmem_unpin(pin);
    mm_unmap(w->mm, va);
    gmem_put(w->gmem);
    w->gmem = old;
}

/* ---- LRU batches
 * ------------------------------------------------------------------------------------------------------ */

static void drains(struct simworld *w, uint64_t local, uint64_t all)
{
    static struct lru_counts before;
    struct lru_counts now;
    host_lru_counts(machine_host(w->machine), &now);
    assert_int_equal(now.local - before.local, local);
    assert_int_equal(now.all - before.all, all);
    before = now;
}

static void lru_batches(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    struct ref *ref;

    host_set_lru_batches(host, true);
    drains(w, 0, 0);
    /* In the batch of another CPU: this CPU's drain does not help, everybody's does. */
    sched_set_cpu(1);
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 7 * P, 2 * P, &w->caller), 0);
    sched_set_cpu(0);
    counts(w, 7, 2, 0);
    counts(w, 8, 2, 0);
    sw_must(sw_convert(w, 7, 2, true), 0);
    drains(w, 1, 1);
    counts(w, 7, 1, 0);
    /* In this CPU's. */
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 0, P, &w->caller), 0);
    sw_must(sw_convert(w, 0, 1, true), 0);
    drains(w, 1, 0);
    /* Once in a call, and in vain: the count is wrong for another reason. */
    sched_set_cpu(1);
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 2 * P, 3 * P, &w->caller), 0);
    sched_set_cpu(0);
    sw_must(gmem_pin(w->gmem, 2 * P, P, REF_FOLL_GET, "pipe", &ref, &w->caller), 0);
    busy_at(w, 0, 16, 2, "FOLL_GET");
    drains(w, 1, 1);
    gmem_unpin(ref);
    /* A pinned one is busy before anybody drains. */
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 5 * P, P, &w->caller), 0);
    sw_must(gmem_pin(w->gmem, 5 * P, P, REF_FOLL_PIN, "dma", &ref, &w->caller), 0);
    sw_must(sw_convert(w, 5, 1, true), -EAGAIN);
    drains(w, 0, 0);
    gmem_unpin(ref);
    /* A full batch goes to the LRU by itself. */
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 0, 16 * P, &w->caller), 0);
    for (unsigned i = 0; i < 3; i++) {
        sw_must(gmem_fallocate(w->gmem, PUNCH, 0, 16 * P, &w->caller), 0);
        sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 0, 16 * P, &w->caller), 0);
    }
    struct host_counts c;
    host_counts(host, &c);
    assert_true(c.refs < LRU_BATCH);
    host_lru_drain_all(host);
    host_counts(host, &c);
    assert_int_equal(c.refs, 0);
    host_set_lru_batches(host, false);
}

/* ---- GUP-fast
 * ---------------------------------------------------------------------------------------------------------- */

struct gup_job {
    struct simworld *w;
    uint64_t page;
    enum ref_kind kind;
    int rc;
    bool done;
    struct ref *ref;
    struct caller caller;
};

static void gup_job(void *arg)
{
    struct gup_job *j = arg;
    sched_set_cpu(1);
    j->rc = mm_gup(j->w->mm, j->w->va + j->page * P, 1, j->kind, "O_DIRECT", &j->ref, &j->caller);
    j->done = true;
}

/* Starts a GUP that stops at the point. */
static void gup_until(struct simworld *w, struct gup_job *job, const char *point)
{
    job->w = w;
    touch(w, w->mm, w->va + job->page * P, SIM_OK);
    sw_stop_at(w, point);
    sw_spawn(w, gup_job, job);
    sw_settle(w);
    assert_non_null(w->stopped);
}

/* The PTE goes between its two readings: the reference that was taken in between is put, the slow path finds it
 * private. */
static void gup_loses(struct simworld *w, enum ref_kind kind)
{
    struct gup_job job = {.page = 8, .kind = kind};
    gup_until(w, &job, "gup:pte-read");
    sw_must(sw_convert(w, 8, 1, true), 0);
    struct task *gup = w->stopped;
    sw_stop_at(w, "gup:grabbed");
    task_resume(gup);
    sw_settle(w);
    /* For a moment there is a reference to a private page; nobody touches its bytes by it. */
    assert_non_null(w->stopped);
    counts(w, 8, kind == REF_FOLL_GET ? 2 : 1 + FOLL_PIN_BIAS, 0);
    sw_go(w);
    sw_settle(w);
    assert_true(job.done);
    assert_int_equal(job.rc, -EFAULT);
    counts(w, 8, 1, 0);
    sw_must(sw_convert(w, 8, 1, false), 0);
}

/* It has its reference before the check: EAGAIN, it sees that the PTE is gone and puts, the next conversion succeeds.
 */
static void gup_spurious(struct simworld *w, enum ref_kind kind)
{
    struct gup_job job = {.page = 8, .kind = kind};
    gup_until(w, &job, "gup:grabbed");
    busy_at(w, 8, 1, 8, kind == REF_FOLL_GET ? "GUP-fast" : "GUP-fast pin");
    sw_go(w);
    sw_settle(w);
    /* The slow path faulted it in again, as it is still shared. */
    assert_true(job.done);
    assert_int_equal(job.rc, 0);
    busy_at(w, 8, 1, 8, ref_kinds[kind].name);
    gmem_unpin(job.ref);
    sw_must(sw_convert(w, 8, 1, true), 0);
    sw_must(sw_convert(w, 8, 1, false), 0);
}

static void gup_fast(struct simworld *w)
{
    for (unsigned kind = 0; kind < REF_USER_KINDS; kind++) {
        struct gup_job job = {.page = 8, .kind = (enum ref_kind)kind};
        gup_loses(w, (enum ref_kind)kind);
        gup_spurious(w, (enum ref_kind)kind);
        /* And undisturbed. */
        gup_until(w, &job, "gup:rechecked");
        sw_go(w);
        sw_settle(w);
        assert_int_equal(job.rc, 0);
        assert_int_equal(ref_kind_of(job.ref), kind);
        counts(w, 8, 2 + (kind == REF_FOLL_GET ? 1 : FOLL_PIN_BIAS), 1);
        gmem_unpin(job.ref);
    }
    struct ref *ref;
    assert_int_equal(mm_gup(w->mm, 0x1000, 1, REF_FOLL_GET, "x", &ref, &w->caller), -EFAULT);
    assert_int_equal(mm_gup(w->mm, w->va + 15 * P, 2, REF_FOLL_GET, "x", &ref, &w->caller), -EFAULT);
    assert_int_equal(mm_gup(w->mm, w->va + 1, 1, REF_FOLL_GET, "x", &ref, &w->caller), -EINVAL);
    assert_int_equal(mm_gup(w->mm, w->va, 0, REF_FOLL_GET, "x", &ref, &w->caller), -EINVAL);
    assert_int_equal(mm_gup(w->mm, w->va, 1, REF_PIPE, "x", &ref, &w->caller), -EINVAL);
    sw_must(sw_convert(w, 5, 1, true), 0);
    assert_int_equal(mm_gup(w->mm, w->va + 4 * P, 3, REF_FOLL_GET, "x", &ref, &w->caller), -EFAULT);
    counts(w, 4, 2, 1);
}

/* A walk with IRQs off takes no IPI: the unmap waits for it.  A broadcast TLBI does not. */
static void gup_and_the_ipi(struct simworld *w)
{
    static const char *const points[] = {"gup:pte-read", "gup:grabbed", "gup:rechecked"};
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        for (int mode = TLB_BROADCAST; mode <= TLB_IPI; mode++) {
            struct gup_job job = {.page = 8, .kind = REF_FOLL_PIN};
            struct sw_job convert = {.w = w, .page = 8, .nr = 1, .to_private = true, .rc = 1};
            host_set_tlb_mode(machine_host(w->machine), (enum tlb_mode)mode);
            gup_until(w, &job, points[i]);
            sw_spawn(w, sw_convert_job, &convert);
            sw_settle(w);
            assert_int_equal(convert.done, mode == TLB_BROADCAST);
            sw_go(w);
            sw_settle(w);
            assert_true(convert.done && job.done);
            sw_audit(w);
            /* Whoever came first: never both. */
            assert_int_equal(convert.rc == 0, job.rc != 0);
            if (mode == TLB_IPI)
                assert_int_equal(job.rc == 0, i == 2 || convert.rc == -EAGAIN);
            if (!job.rc)
                gmem_unpin(job.ref);
            sw_must(sw_convert(w, 8, 1, false), 0);
        }
    }
    host_set_tlb_mode(machine_host(w->machine), TLB_BROADCAST);
}

/* ---- TLBs
 * ---------------------------------------------------------------------------------------------------------------- */

/* Between the PTE's end and the flush a CPU can still write, and what it writes is not lost; after it, it cannot. */
static void stale_entries(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    struct sw_job convert = {.w = w, .page = 3, .nr = 1, .to_private = true, .rc = 1};
    struct holder_info holder;
    uint64_t pfn;
    char byte = 'a';

    sched_set_cpu(2);
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, &byte, 1), SIM_OK);
    pfn = page_at(w, 3).pfn;
    assert_true(host_tlb_has(host, 2, pfn));
    assert_false(host_tlb_has(host, 1, pfn));
    sw_stop_at(w, "unmap:cleared");
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    assert_non_null(w->stopped);
    assert_false(mm_pte_present(w->mm, w->va + 3 * P, &pfn));
    assert_true(host_tlb_has(host, 2, pfn));
    counts(w, 3, 2, 0);
    assert_int_equal(gmem_holders(w->gmem, 3, &holder, 1), 1);
    assert_string_equal(holder.kind, "mmu_gather");
    assert_string_equal(holder.what, "vmm");
    byte = 'b';
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, &byte, 1), SIM_OK);
    sw_go(w);
    sw_settle(w);
    assert_true(convert.done);
    assert_int_equal(convert.rc, 0);
    assert_false(host_tlb_has(host, 2, pfn));
    touch(w, w->mm, w->va + 3 * P, SIM_SIGBUS);
    sw_must(sim_guest_read(w->vcpu, 3 * P, &byte, 1), 0);
    assert_int_equal(byte, 'b');
    sched_set_cpu(0);
}

/* ---- processes
 * ------------------------------------------------------------------------------------------------------------- */

static void fork_and_move(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    struct mm *child;
    uint64_t to, pfn, va2 = w->va + 2 * P;

    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "x", 1), SIM_OK);
    sw_must(mm_fork(w->mm, "child", 101, &child), 0);
    /* The child faults for itself. */
    counts(w, 3, 2, 1);
    touch(w, child, w->va + 3 * P, SIM_OK);
    counts(w, 3, 3, 2);
    /* A part of a mapping moves with its PTEs; where it was nothing is. */
    sw_must(mm_remap(w->mm, va2, 4 * P, &to), 0);
    counts(w, 3, 3, 2);
    assert_true(mm_pte_present(w->mm, to + P, &pfn));
    touch(w, w->mm, va2 + P, SIM_SIGSEGV);
    touch(w, w->mm, w->va + P, SIM_OK);
    touch(w, w->mm, w->va + 6 * P, SIM_OK);
    touch(w, w->mm, to + P, SIM_OK);
    assert_int_equal(mm_remap(w->mm, va2, P, &to), -EFAULT);
    assert_true(gmem_in_any_vma(w->gmem, 9));
    sw_must(sw_convert(w, 3, 1, true), 0);
    counts(w, 3, 1, 0);
    touch(w, child, w->va + 3 * P, SIM_SIGBUS);
    touch(w, w->mm, to + P, SIM_SIGBUS);
    touch(w, w->mm, to + 2 * P, SIM_OK);
    /* A hole through an address, private or not. */
    sw_must(mm_madvise_remove(child, w->va, 16 * P, &w->caller), 0);
    assert_false(page_at(w, 3).allocated || page_at(w, 6).allocated);
    assert_int_equal(mm_madvise_remove(child, w->va + 15 * P, 2 * P, &w->caller), -ENOMEM);
    /* The middle of a mapping. */
    sw_must(mm_munmap(child, w->va + 4 * P, 2 * P), 0);
    touch(w, child, w->va + 2 * P, SIM_OK);
    touch(w, child, w->va + 4 * P, SIM_SIGSEGV);
    touch(w, child, w->va + 6 * P, SIM_OK);
    counts(w, 6, 2, 1);
    assert_int_equal(mm_munmap(child, w->va + 1, P), -EINVAL);
    mm_free(child);
    counts(w, 6, 1, 0);
    struct host_counts c;
    host_counts(host, &c);
    assert_int_equal(c.refs, 0);
}

static void killed(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    struct mm *helper, *stuck;
    struct ref *ref, *second;
    struct device *nic = device_new(host, "nic");

    sw_must(mm_fork(w->mm, "helper", 102, &helper), 0);
    sw_must(mm_fork(w->mm, "stuck", 103, &stuck), 0);
    sw_must(mm_gup(helper, w->va + 3 * P, 1, REF_LONGTERM, "ring", &ref, &w->caller), 0);
    sw_must(device_map(nic, helper, w->va + 4 * P, 2, 0x100000, &w->caller), 0);
    busy_at(w, 0, 16, 3, "FOLL_PIN|FOLL_LONGTERM");
    sw_must(mm_kill(helper), 0);
    assert_true(mm_dead(helper));
    assert_int_equal(device_mapped(nic), 0);
    sw_must(sw_convert(w, 0, 16, true), 0);
    touch(w, helper, w->va + 3 * P, SIM_SIGSEGV);
    sw_must(sw_convert(w, 0, 16, false), 0);
    /* D state: the signal waits, and so does the reference. */
    sw_must(mm_gup(stuck, w->va + 3 * P, 1, REF_LONGTERM, "rdma", &second, &w->caller), 0);
    mm_set_d_state(stuck, true);
    assert_int_equal(mm_kill(stuck), -EBUSY);
    assert_false(mm_dead(stuck));
    for (unsigned i = 0; i < 10; i++)
        busy_at(w, 0, 16, 3, "FOLL_PIN|FOLL_LONGTERM");
    mm_set_d_state(stuck, false);
    assert_true(mm_dead(stuck));
    sw_must(sw_convert(w, 0, 16, true), 0);
    mm_free(helper);
    mm_free(stuck);
    device_free(nic);
}

/* ---- devices and pipes
 * ------------------------------------------------------------------------------------------------------- */

static void devices(struct simworld *w)
{
    struct device *nic = device_new(machine_host(w->machine), "nic");
    char buf[8];

    assert_int_equal(device_map(nic, w->mm, w->va + 1, 1, 0, &w->caller), -EINVAL);
    sw_must(device_map(nic, w->mm, w->va + 4 * P, 3, 0x100000, &w->caller), 0);
    assert_int_equal(device_map(nic, w->mm, w->va, 1, 0x102000, &w->caller), -EEXIST);
    counts(w, 5, 2 + FOLL_PIN_BIAS, 1);
    sw_must(sim_dma_write(w->sim, nic, 0x101000, "packet", 7), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 5 * P, buf, 7), SIM_OK);
    assert_string_equal(buf, "packet");
    assert_int_equal(sim_dma_read(w->sim, nic, 0x103000, buf, 1), -EFAULT);
    assert_int_equal(device_faults(nic), 1);
    busy_at(w, 0, 16, 4, "FOLL_PIN|FOLL_LONGTERM");
    /* What was mapped as one is unmapped as one. */
    assert_int_equal(device_unmap(nic, 0x100000, 2), 0);
    assert_int_equal(device_unmap(nic, 0x100000, 3), 3);
    sw_must(sw_convert(w, 0, 16, true), 0);
    assert_int_equal(sim_dma_write(w->sim, nic, 0x101000, "late", 5), -EFAULT);
    assert_int_equal(device_map(nic, w->mm, w->va + 4 * P, 1, 0x100000, &w->caller), -EFAULT);
    device_free(nic);
}

static void pipes(struct simworld *w)
{
    struct pipe *pipe = pipe_new(machine_host(w->machine), "logger");
    enum sim_access access;
    char buf[4] = "";

    sw_must(sim_host_write(w->sim, w->mm, w->va + 5 * P, "abc", 4), SIM_OK);
    sw_must(pipe_vmsplice(pipe, w->mm, w->va + 5 * P, 2, &w->caller), 0);
    assert_int_equal(pipe_buffers(pipe), 2);
    mm_unmap(w->mm, w->va);
    counts(w, 5, 2, 0);
    busy_at(w, 0, 16, 5, "pipe buffer");
    sw_must(sim_pipe_read(w->sim, pipe, buf, 4, &access), 0);
    assert_int_equal(access, SIM_OK);
    assert_string_equal(buf, "abc");
    busy_at(w, 0, 16, 6, "pipe buffer");
    sw_must(sim_pipe_read(w->sim, pipe, buf, 4, &access), 0);
    assert_int_equal(sim_pipe_read(w->sim, pipe, buf, 4, &access), -EAGAIN);
    sw_must(sw_convert(w, 0, 16, true), 0);
    assert_int_equal(mm_map(w->mm, w->gmem, 0, 16 * P, &w->va, &w->caller), 0);
    assert_int_equal(pipe_vmsplice(pipe, w->mm, w->va, 1, &w->caller), -EFAULT);
    pipe_free(pipe);
}

/* ---- memory failure
 * ------------------------------------------------------------------------------------------------------------ */

static void failing_shared_page(struct simworld *w, bool dirty, bool early, unsigned flags, bool signalled)
{
    struct host *host = machine_host(w->machine);
    unsigned before;
    uint64_t va;
    int code;

    before = mm_signals(w->mm, &code, &va);
    if (dirty)
        sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "x", 1), SIM_OK);
    else
        touch(w, w->mm, w->va + 3 * P, SIM_OK);
    uint64_t pfn = page_at(w, 3).pfn;
    mm_set_mce_early(w->mm, early);
    sw_must(host_memory_failure(host, pfn, flags), 0);
    assert_int_equal(mm_signals(w->mm, &code, &va), before + signalled);
    if (signalled) {
        assert_int_equal(code, flags ? BUS_MCEERR_AR : BUS_MCEERR_AO);
        assert_true(va == w->va + 3 * P);
    }
    assert_true(host_frame_poisoned(host, pfn));
    assert_int_equal(host_memory_failure(host, pfn, flags), -EHWPOISON);
    counts(w, 3, 2, 0);
    touch(w, w->mm, w->va + 3 * P, SIM_SIGBUS);
    busy_at(w, 3, 1, 3, "memory failure");
    /* A hole takes it out of the file; the frame is not used again before it is good again. */
    sw_must(gmem_fallocate(w->gmem, PUNCH, 3 * P, P, &w->caller), 0);
    touch(w, w->mm, w->va + 3 * P, SIM_OK);
    assert_int_not_equal(page_at(w, 3).pfn, pfn);
    assert_int_equal(folio_refcount(host, pfn), 1);
    assert_int_equal(host_unpoison(host, pfn), 0);
    assert_int_equal(folio_refcount(host, pfn), 0);
    assert_int_equal(host_unpoison(host, pfn), -ENOENT);
    sw_must(gmem_fallocate(w->gmem, PUNCH, 3 * P, P, &w->caller), 0);
}

static void memory_failure(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    failing_shared_page(w, true, false, MF_ACTION_REQUIRED, true);
    failing_shared_page(w, true, true, 0, true);
    failing_shared_page(w, true, false, 0, false);
    failing_shared_page(w, false, true, MF_ACTION_REQUIRED, false);
    /* Written through a PTE that is gone, read through another: dirty it is. */
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "x", 1), SIM_OK);
    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_must(sw_convert(w, 3, 1, false), 0);
    failing_shared_page(w, false, false, MF_ACTION_REQUIRED, true);
    assert_int_equal(host_memory_failure(host, 1, 0), -ENXIO);
    /* Unmapped: nobody to tell. */
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 3 * P, P, &w->caller), 0);
    int code;
    uint64_t va, pfn = page_at(w, 3).pfn;
    unsigned before = mm_signals(w->mm, &code, &va);
    sw_must(host_memory_failure(host, pfn, MF_ACTION_REQUIRED), 0);
    assert_int_equal(mm_signals(w->mm, &code, &va), before);
    sw_must(host_unpoison(host, pfn), 0);
    touch(w, w->mm, w->va + 3 * P, SIM_OK);
}

SIMWORLD(each_kind, .no_vmm = true)
SIMWORLD(says_where, .no_vmm = true)
SIMWORLD(outlives_its_file, .no_vmm = true)
SIMWORLD(large_folios, .no_vmm = true)
SIMWORLD(lru_batches, .no_vmm = true)
SIMWORLD(gup_fast, .no_vmm = true)
SIMWORLD(gup_and_the_ipi, .no_vmm = true)
SIMWORLD_TEST(stale_entries, false)
SIMWORLD(fork_and_move, .no_vmm = true)
SIMWORLD(killed, .no_vmm = true)
SIMWORLD(devices, .no_vmm = true)
SIMWORLD(pipes, .no_vmm = true)
SIMWORLD(memory_failure, .no_vmm = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind),         cmocka_unit_test(test_says_where),
        cmocka_unit_test(test_outlives_its_file), cmocka_unit_test(test_large_folios),
        cmocka_unit_test(test_lru_batches),       cmocka_unit_test(test_gup_fast),
        cmocka_unit_test(test_gup_and_the_ipi),   cmocka_unit_test(test_stale_entries),
        cmocka_unit_test(test_fork_and_move),     cmocka_unit_test(test_killed),
        cmocka_unit_test(test_devices),           cmocka_unit_test(test_pipes),
        cmocka_unit_test(test_memory_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
