/* SPDX-License-Identifier: BSD-2-Clause */
/* The world on the simulated stage: machine, VMM and guest in tasks of this process. */
#include "tests/common/world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fakehyp/hypercall.h"
#include "src/machine/sim.h"

/* More than any verb needs; a play that waits longer waits for nothing. */
#define MAX_TURNS 100000

struct sim_world {
    struct world *world;
    void (*play)(struct world *w);
    struct sim *sim;
    struct machine *machine;
    struct caller caller;
    struct vm *vm;
    struct vcpu *vcpu;
    struct gmem *gmem;
    struct mm *mm;
    uint64_t va;
    struct ref *pins[WORLD_PINS];

    /* The VMM's vCPU thread. */
    struct waitq wanted;
    bool vmm_alive, resume, running, exited, leave;
    int rc;
    struct run_record run;

    /* The guest's instruction. */
    enum world_insn insn;
    uint64_t gpa, value;
    uint8_t byte;
    bool executing, done;
    int64_t result;
    bool finished;
};

static struct sim_world *backend(struct world *w)
{
    return w->backend;
}

static void vmm_task(void *arg)
{
    struct sim_world *s = arg;

    while (!s->leave) {
        if (!s->resume) {
            sched_wait(&s->wanted, SCHED_FOREVER);
            continue;
        }
        s->resume = false;
        s->running = true;
        s->rc = vcpu_run(s->vcpu, &s->run, &s->caller);
        s->running = false;
        s->exited = true;
    }
    s->vmm_alive = false;
}

static void insn_task(void *arg)
{
    struct sim_world *s = arg;
    int rc;

    s->result = 0;
    s->byte = (uint8_t)s->value;
    if (s->insn == WORLD_HVC) {
        rc = sim_guest_hvc(s->vcpu, (uint64_t[4]){s->value, s->gpa, 0, 0}, &s->result);
    } else if (s->insn == WORLD_READ) {
        rc = sim_guest_read(s->vcpu, s->gpa, &s->byte, 1);
        s->result = s->byte;
    } else {
        rc = sim_guest_write(s->vcpu, s->gpa, &s->byte, 1);
    }
    s->done = !rc;
    s->executing = false;
}

static void until(const bool *flag, bool value)
{
    for (unsigned i = 0; i < MAX_TURNS && *flag != value; i++)
        sched_relax();
}

static bool build(struct sim_world *s)
{
    struct host *host = machine_host(s->machine);
    const struct vm_config config = {.name = "world", .is_protected = true, .unshare_mode = s->world->unilateral};
    uint64_t bytes = WORLD_PAGES * HOST_PAGE_SIZE;

    if (vm_create(host, &config, &s->vm, &s->caller) || vcpu_create(s->vm, 0, &s->vcpu, &s->caller) ||
        gmem_create(s->vm, bytes, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED, &s->gmem, &s->caller) ||
        vm_set_memory_region(s->vm, 0, 0, 0, bytes, s->gmem, 0, &s->caller))
        return false;
    s->mm = mm_new(host, "vmm", s->caller.pid);
    if (!s->mm || mm_map(s->mm, s->gmem, 0, bytes, &s->va, &s->caller) || sim_guest_start(s->sim, s->vm))
        return false;
    s->leave = s->resume = s->exited = false;
    s->vmm_alive = true;
    return task_spawn(machine_sched(s->machine), "vmm", vmm_task, s);
}

static void sim_unpin(struct world *w, unsigned slot)
{
    struct sim_world *s = backend(w);
    if (s->pins[slot])
        gmem_unpin(s->pins[slot]);
    s->pins[slot] = NULL;
}

static void take_apart(struct sim_world *s)
{
    for (unsigned i = 0; i < WORLD_PINS; i++)
        sim_unpin(s->world, i);
    s->leave = true;
    int rc = vm_destroy(s->vm, &s->caller);
    if (rc)
        world_note(s->world, true, "vm_destroy: %d %s", rc, s->caller.message);
    sched_wake_all(&s->wanted);
    until(&s->vmm_alive, false);
    until(&s->executing, false);
    mm_free(s->mm);
    gmem_put(s->gmem);
}

static void sim_rebuild(struct world *w)
{
    take_apart(backend(w));
    if (!build(backend(w)))
        world_note(w, true, "the world could not be built: %s", backend(w)->caller.message);
}

static void world_task(void *arg)
{
    struct sim_world *s = arg;

    if (build(s)) {
        s->play(s->world);
        take_apart(s);
        s->finished = true;
    }
}

static void sim_run(struct world *w, void (*play)(struct world *w))
{
    struct sim_world s = {.world = w, .play = play, .caller = {.pid = 100, .program = "vmm"}, .sim = sim_new()};
    const struct machine_config config = {
        .stage = &sim_stage_ops, .stage_ctx = s.sim, .memory_bytes = UINT64_C(64) << 20};

    w->backend = &s;
    assert_non_null(s.sim);
    assert_int_equal(machine_new(&config, &s.machine), 0);
    sim_attach(s.sim, s.machine);
    assert_non_null(task_spawn(machine_sched(s.machine), "world", world_task, &s));
    sched_run(machine_sched(s.machine), 0);
    assert_true(s.finished);
    assert_int_equal(sched_nr_tasks(machine_sched(s.machine)), 0);
    machine_free(s.machine);
    sim_free(s.sim);
}

static bool sim_touch(struct world *w, uint64_t page, bool write, uint8_t *value)
{
    struct sim_world *s = backend(w);
    uint64_t va = s->va + page * HOST_PAGE_SIZE;
    return (write ? sim_host_write(s->sim, s->mm, va, value, 1) : sim_host_read(s->sim, s->mm, va, value, 1)) == SIM_OK;
}

static int sim_world_kernel_load(struct world *w, uint64_t page, bool fixup, uint8_t *value)
{
    struct sim_world *s = backend(w);
    struct page_report report;

    gmem_page_report(s->gmem, page, &report);
    if (!report.allocated)
        return -ENOENT;
    switch (sim_kernel_load(s->sim, report.pfn, fixup, value, 1)) {
    case SIM_OK:
        return 0;
    case SIM_EFAULT:
        return -EFAULT;
    default:
        return -EPERM;
    }
}

static int sim_convert(struct world *w, uint64_t offset, uint64_t size, uint64_t attributes, uint64_t *error_offset,
                       char *holder, size_t holder_size)
{
    struct sim_world *s = backend(w);
    const struct gmem_attributes2 attr = {.offset = offset, .size = size, .attributes = attributes};
    struct gmem_busy busy;
    int rc = gmem_set_attributes2(s->gmem, &attr, &s->caller, &busy);

    if (busy.error_offset_valid)
        *error_offset = busy.error_offset;
    if (rc && busy.nr_holders)
        snprintf(holder, holder_size, "%s", busy.holders[0].what);
    return rc;
}

static int sim_pin(struct world *w, uint64_t page, uint64_t nr, enum world_pin kind, const char *label, unsigned slot)
{
    struct sim_world *s = backend(w);
    return gmem_pin(s->gmem, page * HOST_PAGE_SIZE, nr * HOST_PAGE_SIZE, (enum ref_kind)kind, label, &s->pins[slot],
                    &s->caller);
}

static int sim_fallocate(struct world *w, int mode, int64_t offset, int64_t length)
{
    return gmem_fallocate(backend(w)->gmem, mode, offset, length, &backend(w)->caller);
}

static void sim_guest_give(struct world *w, enum world_insn insn, uint64_t gpa, uint64_t value)
{
    struct sim_world *s = backend(w);

    s->insn = insn;
    s->gpa = gpa;
    s->value = value;
    s->done = false;
    s->executing = true;
    if (!task_spawn(machine_sched(s->machine), "insn", insn_task, s))
        s->executing = false;
}

static void sim_guest_run(struct world *w, struct world_exit *e)
{
    struct sim_world *s = backend(w);

    s->exited = false;
    if (!s->running) {
        s->resume = true;
        sched_wake_all(&s->wanted);
    }
    for (unsigned i = 0; i < MAX_TURNS && s->executing && !s->exited; i++)
        sched_relax();
    e->done = s->done;
    e->result = s->result;
    e->rc = s->exited ? s->rc : -ETIMEDOUT;
    e->reason = s->run.exit_reason;
    e->nr = s->run.nr;
    e->gpa = s->run.exit_reason == KVM_EXIT_HYPERCALL ? s->run.args[0] : s->run.gpa;
}

static void sim_page(struct world *w, uint64_t page, struct world_page *out)
{
    struct holder_info holders[8];
    unsigned nr = gmem_holders(backend(w)->gmem, page, holders, 8);

    *out = (struct world_page){.private = gmem_is_private(backend(w)->gmem, page)};
    for (unsigned i = 0; i < nr && i < 8; i++) {
        /* Of a real process the real kernel has the PTEs. */
        if (holders[i].ref == REF_PTE)
            continue;
        out->holders++;
        out->refs += holders[i].count;
    }
}

static void report(void *ctx, const char *text)
{
    (void)ctx;
    printf("# sim audit: %s\n", text);
}

static unsigned sim_audit(struct world *w)
{
    return machine_audit(backend(w)->machine, report, NULL, NULL);
}

const struct world_ops world_sim = {
    .name = "sim",
    .run = sim_run,
    .rebuild = sim_rebuild,
    .touch = sim_touch,
    .kernel_load = sim_world_kernel_load,
    .convert = sim_convert,
    .pin = sim_pin,
    .unpin = sim_unpin,
    .fallocate = sim_fallocate,
    .guest_give = sim_guest_give,
    .guest_run = sim_guest_run,
    .page = sim_page,
    .audit = sim_audit,
};
