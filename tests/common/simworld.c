/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/simworld.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fakehyp/hypercall.h"

static void report(void *ctx, const char *text)
{
    (void)ctx;
    print_error("audit: %s\n", text);
}

void sw_audit(struct simworld *w)
{
    assert_int_equal(machine_audit(w->machine, report, NULL, NULL), 0);
}

int sw_convert(struct simworld *w, uint64_t page, uint64_t nr, bool to_private)
{
    const struct gmem_attributes2 attr = {.offset = page * HOST_PAGE_SIZE,
                                          .size = nr * HOST_PAGE_SIZE,
                                          .attributes = to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0};
    return gmem_set_attributes2(w->gmem, &attr, &w->caller, &w->busy);
}

/* The VMM's vCPU thread. */
static void vmm_task(void *arg)
{
    struct simworld *w = arg;
    for (;;) {
        w->run_rc = vcpu_run(w->vcpu, &w->run, &w->caller);
        if (w->run_rc == -EFAULT && w->run.exit_reason == KVM_EXIT_MEMORY_FAULT) {
            w->memory_faults++;
            w->last_convert = sw_convert(w, w->run.gpa / HOST_PAGE_SIZE, 1, true);
            continue;
        }
        if (w->run_rc || w->run.exit_reason != KVM_EXIT_HYPERCALL)
            break;
        if (w->convert_on_exit)
            w->last_convert = sw_convert(w, w->run.args[0] / HOST_PAGE_SIZE, 1, w->run.nr == SMCCC_MEM_UNSHARE);
    }
    w->vmm_done = true;
    /* A guest that cannot go on must not leave a test waiting for it. */
    sim_stage_ops.guest_stop(w->sim, w->vm);
}

/* ---- other tasks ------------------------------------------------------------------------------------------------ */

static void at_point(void *ctx, struct task *task, const char *label)
{
    struct simworld *w = ctx;
    if (!w->stop_label || strcmp(label, w->stop_label) || !strcmp(task_name(task), "world"))
        return;
    w->stop_label = NULL;
    w->stopped = task;
    task_pause();
}

void sw_stop_at(struct simworld *w, const char *label)
{
    w->stop_label = label;
    w->stopped = NULL;
}

void sw_go(struct simworld *w)
{
    struct task *task = w->stopped;
    assert_non_null(task);
    w->stopped = NULL;
    task_resume(task);
}

void sw_settle(struct simworld *w)
{
    /* A task that polls never settles: enough is enough. */
    for (unsigned i = 0; i < 1000 && sched_has_runnable(machine_sched(w->machine)); i++)
        sched_relax();
}

void sw_spawn(struct simworld *w, void (*fn)(void *arg), void *arg)
{
    assert_non_null(task_spawn(machine_sched(w->machine), "job", fn, arg));
}

void sw_convert_job(void *arg)
{
    struct sw_job *job = arg;
    const struct gmem_attributes2 attr = {.offset = job->page * HOST_PAGE_SIZE,
                                          .size = job->nr * HOST_PAGE_SIZE,
                                          .attributes = job->to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0};
    job->rc = gmem_set_attributes2(job->w->gmem, &attr, &job->caller, &job->busy);
    job->done = true;
}

void sw_touch_job(void *arg)
{
    struct sw_job *job = arg;
    struct simworld *w = job->w;
    uint64_t va = w->va + job->page * HOST_PAGE_SIZE;
    job->access =
        job->write ? sim_host_write(w->sim, w->mm, va, &job->byte, 1) : sim_host_read(w->sim, w->mm, va, &job->byte, 1);
    job->done = true;
}

/* ---- state ------------------------------------------------------------------------------------------------------ */

static void mix(uint64_t *hash, uint64_t value)
{
    *hash = (*hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    *hash ^= *hash >> 29;
}

uint64_t sw_hash(const struct gmem *gmem)
{
    uint64_t hash = 1;
    struct gmem_stats stats;
    gmem_stats(gmem, &stats);
    mix(&hash, stats.ranges);
    mix(&hash, stats.allocated);
    mix(&hash, mmu_nr_sides(machine_file(gmem)));
    for (uint64_t i = 0; i < gmem_pages(gmem); i++) {
        struct page_report page;
        gmem_page_report(gmem, i, &page);
        mix(&hash, page.private);
        mix(&hash, page.pfn);
        mix(&hash, page.refcount);
        mix(&hash, page.mapcount);
        mix(&hash, page.converted_seq);
        mix(&hash, mmu_side(machine_file(gmem), i).private);
    }
    return hash;
}

/* ---- the world -------------------------------------------------------------------------------------------------- */

static void build(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    struct vm_config config = w->variant;
    struct vcpu *vcpu;

    snprintf(config.name, sizeof(config.name), "test");
    config.is_protected = !w->unprotected;
    config.unshare_mode = w->unilateral;
    assert_int_equal(vm_create(host, &config, &w->vm, &w->caller), 0);
    assert_int_equal(vcpu_create(w->vm, 0, &w->vcpu, &w->caller), 0);
    for (unsigned i = 1; i < w->nr_vcpus; i++)
        assert_int_equal(vcpu_create(w->vm, i, &vcpu, &w->caller), 0);
    assert_int_equal(gmem_create(w->vm, 16 * HOST_PAGE_SIZE, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
                                 &w->gmem, &w->caller),
                     0);
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 16 * HOST_PAGE_SIZE, w->gmem, 0, &w->caller), 0);
    w->mm = mm_new(host, "vmm", 100);
    assert_non_null(w->mm);
    assert_int_equal(mm_map(w->mm, w->gmem, 0, 16 * HOST_PAGE_SIZE, &w->va, &w->caller), 0);
    assert_int_equal(sim_guest_start(w->sim, w->vm), 0);
    if (w->no_vmm)
        return;
    assert_non_null(task_spawn(machine_sched(w->machine), "vmm", vmm_task, w));
    sched_relax();
}

static void world_task(void *arg)
{
    struct simworld *w = arg;

    if (!w->bare)
        build(w);

    w->body(w);

    if (w->vm)
        assert_int_equal(vm_destroy(w->vm, &w->caller), 0);
    assert_true(w->vmm_done || w->bare || w->no_vmm);
    sw_audit(w);
    if (w->mm)
        mm_free(w->mm);
    if (w->gmem)
        gmem_put(w->gmem);
    sw_audit(w);
    w->finished = true;
}

/* What the oracle has to say, before the test fails for it. */
static void say(void *ctx, int level, const char *text)
{
    (void)ctx;
    if (level == 0)
        fprintf(stderr, "# %s\n", text);
}

void simworld_run_with(const struct simworld_options *options)
{
    struct simworld w = {.caller = {.pid = 100, .program = "vmm"},
                         .unilateral = options->unilateral,
                         .unprotected = options->unprotected,
                         .variant = options->variant,
                         .bare = options->bare,
                         .no_vmm = options->no_vmm,
                         .nr_vcpus = options->nr_vcpus ? options->nr_vcpus : 1,
                         .convert_on_exit = true,
                         .body = options->body};
    struct host_counts counts;

    w.sim = sim_new();
    assert_non_null(w.sim);
    const struct machine_config config = {
        .stage = &sim_stage_ops,
        .stage_ctx = w.sim,
        .memory_bytes = options->memory_bytes ? options->memory_bytes : UINT64_C(64) << 20,
        .sched = {.ctx = &w, .point = at_point},
        .log = say,
        .oracle = options->no_oracle ? MACHINE_ORACLE_OFF : MACHINE_ORACLE_PANIC,
    };
    assert_int_equal(machine_new(&config, &w.machine), 0);
    sim_attach(w.sim, w.machine);
    assert_non_null(task_spawn(machine_sched(w.machine), "world", world_task, &w));
    sched_run(machine_sched(w.machine), 0);
    assert_true(w.finished);
    assert_int_equal(sched_nr_tasks(machine_sched(w.machine)), 0);
    host_counts(machine_host(w.machine), &counts);
    assert_int_equal(counts.vms + counts.gmems + counts.pins, 0);
    assert_int_equal(counts.ram_frames, 0);
    assert_int_equal(counts.data_frames, 0);
    assert_int_equal(machine_el2_pages(w.machine), 0);
    machine_free(w.machine);
    sim_free(w.sim);
}

void simworld_run(void (*body)(struct simworld *), bool unilateral)
{
    simworld_run_with(&(struct simworld_options){.body = body, .unilateral = unilateral});
}
