/* SPDX-License-Identifier: BSD-2-Clause */
/* Traps and their ends: what EL2 refuses, when it panics, what is drained before anybody goes on, and by whom. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fakehyp/hypercall.h"
#include "src/host/driver.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE

static uint64_t pfn_of(struct simworld *w, uint64_t index)
{
    struct page_report page;
    gmem_page_report(w->gmem, index, &page);
    assert_true(page.allocated);
    return page.pfn;
}

/* ---- host hypercalls -------------------------------------------------------------------------------------------- */

static int64_t hvc(struct simworld *w, uint64_t number, uint64_t arg)
{
    return host_hvc(machine_host(w->machine), 0, number, arg, 0, 0, 0);
}

static void unknown_call(struct simworld *w)
{
    assert_int_equal(hvc(w, 9999, 0), -EOPNOTSUPP);
    sw_audit(w);
}

/* After a panic nothing enters EL2 any more, and everybody is told. */
static void after_a_panic(struct simworld *w)
{
    const struct vm_config config = {.name = "t", .is_protected = true};
    struct vm *vm = NULL;
    assert_null(machine_panicked(w->machine));
    w->machine->panicked = true;
    assert_int_equal(hvc(w, HVC_reserve_vm, 0), -EIO);
    assert_int_equal(vm_create(machine_host(w->machine), &config, &vm, &w->caller), -EIO);
    assert_null(vm);
    const struct host_access access = {.pfn = w->machine->ram_base >> 12, .el1 = true};
    assert_int_equal(machine_host_abort(w->machine, &access), HOST_ABORT_OOPS);
    assert_non_null(machine_panicked(w->machine));
    w->machine->panicked = false;
    sw_audit(w);
}

static uint64_t refused_number;
static unsigned refuse_in;

static int64_t refusing_hvc(void *ctx, unsigned cpu, uint64_t number, const uint64_t args[4])
{
    if (number == refused_number && refuse_in && --refuse_in == 0)
        return -EPERM;
    return cpu_hvc(ctx, cpu, number, args);
}

/* The first run tells EL2 of the VM and its vCPUs: what fails on the way is undone, and the next run finds it so. */
static void refused_first_runs(struct simworld *w)
{
    static const struct {
        uint64_t number;
        unsigned in;
    } table[] = {{HVC_host_share_hyp, 1}, {HVC_init_vm, 1},        {HVC_host_share_hyp, 2},
                 {HVC_init_vcpu, 1},      {HVC_host_share_hyp, 3}, {HVC_init_vcpu, 2}};
    const struct vm_config config = {.name = "t", .is_protected = true};
    struct host *host = machine_host(w->machine);
    struct run_record run = {0};
    struct vcpu *vcpu[2];

    host->arch.hvc = refusing_hvc;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (unsigned again = 0; again < 2; again++) {
            assert_int_equal(vm_create(host, &config, &w->vm, &w->caller), 0);
            for (unsigned k = 0; k < 2; k++)
                assert_int_equal(vcpu_create(w->vm, k, &vcpu[k], &w->caller), 0);
            refused_number = table[i].number;
            refuse_in = table[i].in;
            w->caller.message[0] = '\0';
            sw_must(vcpu_run(vcpu[0], &run, &w->caller), -EPERM);
            assert_int_not_equal(w->caller.message[0], '\0');
            assert_int_equal(refuse_in, 0);
            /* No guest: the run is over at once. */
            if (again)
                sw_must(vcpu_run(vcpu[1], &run, &w->caller), 0);
            sw_must(vm_destroy(w->vm, &w->caller), 0);
            w->vm = NULL;
            struct host_counts counts;
            host_counts(host, &counts);
            assert_int_equal(counts.ram_frames, 0);
            assert_int_equal(machine_el2_pages(w->machine), 0);
        }
    }
    host->arch.hvc = cpu_hvc;
}

/* An access of the kernel without a fixup, which EL2 has refused. */
static enum host_abort_end kernel_abort(struct simworld *w, uint64_t pfn)
{
    uint64_t esr = ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_FSC_TRANS_L(3);
    return host_mem_abort(machine_host(w->machine), &(struct host_abort){.esr = hyp_inject_esr(esr, true), .pfn = pfn});
}

static void kernel_aborts(struct simworld *w)
{
    struct host_counts counts;
    char byte = 'h';
    sw_must(sim_host_write(w->sim, w->mm, w->va, &byte, 1), SIM_OK);
    /* Nothing in the way any more: the access is repeated. */
    sw_must(kernel_abort(w, pfn_of(w, 0)), HOST_ABORT_RETRY);
    sw_must(sim_host_read(w->sim, w->mm, w->va, &byte, 1), SIM_OK);
    assert_int_equal(byte, 'h');
    /* EL2's own, and no memory at all: the kernel would Oops. */
    sw_must(kernel_abort(w, w->machine->pool_pfn), HOST_ABORT_OOPS);
    sw_must(kernel_abort(w, 1), HOST_ABORT_OOPS);
    /* What was taken by force is the host's: it can be freed. */
    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 3 * P, "secret", 7), 0);
    sw_must(sim_kernel_load(w->sim, pfn_of(w, 3), false, &byte, 1), 0);
    sw_must(gmem_fallocate(w->gmem, 3, 0, 16 * P, &w->caller), 0);
    host_counts(machine_host(w->machine), &counts);
    assert_int_equal(counts.data_frames, 0);
}

/* ---- draining --------------------------------------------------------------------------------------------------- */

static struct machine *strict_machine;
static unsigned entries;

static void strict_resume(void *ctx, struct vcpu *vcpu, const struct hyp_trap *last, const struct hyp_guest_regs *regs)
{
    assert_int_equal(strict_machine->nr_invals, 0);
    entries++;
    sim_stage_ops.guest_resume(ctx, vcpu, last, regs);
}

static int64_t strict_hvc(void *ctx, unsigned cpu, uint64_t number, const uint64_t args[4])
{
    int64_t rc = cpu_hvc(ctx, cpu, number, args);
    assert_int_equal(strict_machine->nr_invals, 0);
    return rc;
}

/* What EL2 changed is true for everybody before guest or host go on. */
static void drained_before_anybody_goes_on(struct simworld *w)
{
    const struct stage_ops *sim = w->machine->config.stage;
    struct stage_ops strict = *sim;
    struct host *host = machine_host(w->machine);
    char byte;
    int64_t x0;
    strict_machine = w->machine;
    strict.guest_resume = strict_resume;
    w->machine->config.stage = &strict;
    host->arch.hvc = strict_hvc;
    entries = 0;
    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, P, "secret", 7), 0);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, P, 0, 0}, &x0), 0);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_UNSHARE, P, 0, 0}, &x0), 0);
    assert_int_equal(x0, 0);
    /* A page that the file calls shared and the guest owns: stage 2 alone decides when it comes back. */
    sw_must(sim_guest_write(w->vcpu, 2 * P, "secret", 7), 0);
    sw_must(sw_convert(w, 2, 1, false), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 2 * P, &byte, 1), SIM_SIGSEGV);
    sw_must(kernel_abort(w, pfn_of(w, 2)), HOST_ABORT_RETRY);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 2 * P, &byte, 1), SIM_OK);
    assert_int_equal(byte, 0);
    assert_true(entries > 2);
    host->arch.hvc = cpu_hvc;
    w->machine->config.stage = sim;
}

struct drain_job {
    struct machine *m;
    uint64_t pfn;
    bool done;
};

static void drain_task(void *arg)
{
    struct drain_job *job = arg;
    mmu_invalidate(job->m, 0, job->pfn * P, 1);
    mmu_drain(job->m);
    job->done = true;
}

/* Between prepare and commit the file is the converter's alone. */
static void a_trap_during_a_conversion(struct simworld *w)
{
    struct sw_job convert = {.w = w, .page = 3, .nr = 1, .to_private = true};
    struct drain_job drain = {.m = w->machine};
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "x", 1), SIM_OK);
    drain.pfn = pfn_of(w, 3);
    sw_stop_at(w, "convert:stored");
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_spawn(w, drain_task, &drain);
    sw_settle(w);
    assert_false(drain.done);
    assert_false(mmu_side(machine_file(w->gmem), 3).private);
    sw_go(w);
    sw_settle(w);
    assert_true(drain.done && convert.done);
    assert_int_equal(convert.rc, 0);
    assert_true(mmu_side(machine_file(w->gmem), 3).private);
    sw_audit(w);
}

static unsigned begins, ends;

static int second_begin_fails(void *ctx, struct mfile *file, uint64_t start, uint64_t end, bool to_host,
                              struct caller *caller)
{
    return ++begins == 2 ? -EPROTO : 0;
}

static void count_end(void *ctx, struct mfile *file, uint64_t start, uint64_t end)
{
    assert_int_equal(start, 0);
    assert_int_equal(end, 16);
    ends++;
}

/* The stage refuses the second of two ranges: what it opened for the first is closed, and nothing has changed. */
static void a_stage_that_refuses(struct simworld *w)
{
    const struct stage_ops *sim = w->machine->config.stage;
    struct stage_ops refusing = *sim;
    sw_must(sw_convert(w, 4, 1, true), 0);
    uint64_t before = sw_hash(w->gmem);
    refusing.begin = second_begin_fails;
    refusing.end = count_end;
    w->machine->config.stage = &refusing;
    begins = ends = 0;
    sw_must(sw_convert(w, 0, 16, true), -EPROTO);
    assert_int_equal(begins, 2);
    assert_int_equal(ends, 1);
    assert_false(w->busy.error_offset_valid);
    assert_true(sw_hash(w->gmem) == before);
    w->machine->config.stage = sim;
    sw_must(sw_convert(w, 0, 16, true), 0);
}

/* fallocate() puts pages where the bytes are: it waits for a conversion. */
static void allocate_task(void *arg)
{
    struct sw_job *job = arg;
    job->rc = gmem_fallocate(job->w->gmem, 1, 0, 16 * P, &job->caller);
    job->done = true;
}

static void allocation_during_a_conversion(struct simworld *w)
{
    struct sw_job convert = {.w = w, .nr = 16, .to_private = true}, allocate = {.w = w};
    sw_stop_at(w, "convert:stored");
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_spawn(w, allocate_task, &allocate);
    sw_settle(w);
    assert_false(allocate.done);
    sw_go(w);
    sw_settle(w);
    assert_true(allocate.done && convert.done);
    assert_int_equal(allocate.rc, 0);
    sw_audit(w);
}

/* ---- the end of a run ------------------------------------------------------------------------------------------- */

struct run_job {
    struct vcpu *vcpu;
    struct task *task;
    struct run_record run;
    struct caller caller;
    int rc;
    bool done;
};

static void run_task(void *arg)
{
    struct run_job *job = arg;
    job->task = task_current();
    job->rc = vcpu_run(job->vcpu, &job->run, &job->caller);
    job->done = true;
}

static void guest_task(void *arg)
{
    struct sw_job *job = arg;
    job->rc = sim_guest_hvc(job->w->vcpu, (uint64_t[4]){0xC6000042}, &(int64_t){0});
    job->done = true;
}

/* Nobody waits for the exit any more: the guest ends, all of it, and the VM can be destroyed. */
static void cancelled_run(struct simworld *w)
{
    struct run_job run[2] = {{.vcpu = w->vcpu}, {.vcpu = vm_vcpu(w->vm, 1)}};
    struct sw_job guest = {.w = w};
    for (unsigned i = 0; i < 2; i++)
        sw_spawn(w, run_task, &run[i]);
    sw_settle(w);
    assert_true(machine_vcpu_in_guest(run[0].vcpu) && machine_vcpu_in_guest(run[1].vcpu));
    task_cancel(run[1].task);
    sw_settle(w);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(run[i].done);
        assert_int_equal(run[i].rc, 0);
        assert_int_equal(run[i].run.exit_reason, KVM_EXIT_SYSTEM_EVENT);
        assert_int_equal(run[i].run.event_type, KVM_SYSTEM_EVENT_CRASH);
    }
    sw_spawn(w, guest_task, &guest);
    sw_settle(w);
    assert_true(guest.done);
    assert_int_equal(guest.rc, -ESRCH);
    sw_audit(w);
}

/* An answer is given once: later runs neither answer nor report it again. */
static void one_answer(struct simworld *w)
{
    const struct trace_entry *e;
    unsigned calls = 0;
    int64_t x0;
    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, P, "secret", 7), 0);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, P, 0, 0}, &x0), 0);
    uint64_t seq = trace_next(machine_trace(w->machine));
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_UNSHARE, P, 0, 0}, &x0), 0);
    sw_must(sw_convert(w, 5, 1, false), 0);
    /* Leaves KVM_RUN, and enters it again. */
    sw_must(sim_guest_write(w->vcpu, 5 * P, "x", 1), 0);
    assert_int_equal(w->memory_faults, 1);
    for (; (e = trace_get(machine_trace(w->machine), seq)); seq++)
        calls += e->event.kind == HOST_EV_guest_call;
    assert_int_equal(calls, 1);
}

/* ---- references ------------------------------------------------------------------------------------------------- */

/* try_grab_folio() refuses before a count wraps. */
static void a_count_does_not_wrap(struct simworld *w)
{
    static const uint32_t bias[] = {1, FOLL_PIN_BIAS, FOLL_PIN_BIAS};
    struct ref *pin;
    sw_must(sim_host_write(w->sim, w->mm, w->va, "x", 1), SIM_OK);
    struct frame *f = frame_of(machine_host(w->machine), pfn_of(w, 0));
    uint32_t count = f->refcount;
    for (unsigned kind = 0; kind < REF_USER_KINDS; kind++) {
        f->refcount = UINT32_MAX - bias[kind] + 1;
        assert_int_equal(gmem_pin(w->gmem, 0, P, (enum ref_kind)kind, "x", &pin, &w->caller), -ENOMEM);
        assert_int_equal(f->refcount, UINT32_MAX - bias[kind] + 1);
        f->refcount--;
        assert_int_equal(gmem_pin(w->gmem, 0, P, (enum ref_kind)kind, "x", &pin, &w->caller), 0);
        assert_int_equal(f->refcount, UINT32_MAX);
        gmem_unpin(pin);
    }
    f->refcount = count;
    sw_audit(w);
}

static unsigned keep;

static int keeps_its_pages(struct vm *vm, uint64_t gfn, uint64_t pfn)
{
    if (!keep)
        return pkvm_driver.teardown_page(vm, gfn, pfn);
    keep--;
    return -EPERM;
}

/* EL2 forgets no VM that has pages yet: the second attempt goes on where the first one stopped. */
static void destroyed_at_the_second_attempt(struct simworld *w)
{
    struct gmem_driver greedy = pkvm_driver;
    struct run_record run = {0};
    greedy.teardown_page = keeps_its_pages;
    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, P, "secret", 7), 0);
    sw_must(sim_guest_write(w->vcpu, 2 * P, "secret", 7), 0);
    w->vm->driver = &greedy;
    keep = 1;
    w->caller.message[0] = '\0';
    sw_must(vm_destroy(w->vm, &w->caller), -EBUSY);
    assert_int_not_equal(w->caller.message[0], '\0');
    sw_settle(w);
    /* It is no VM to run any more. */
    assert_true(vcpu_run(vm_vcpu(w->vm, 1), &run, &w->caller) < 0);
    sw_must(vm_destroy(w->vm, &w->caller), 0);
    w->vm = NULL;
}

SIMWORLD(unknown_call, .bare = true)
SIMWORLD(after_a_panic, .bare = true)
SIMWORLD(refused_first_runs, .bare = true)
SIMWORLD(kernel_aborts, .unilateral = false)
SIMWORLD(drained_before_anybody_goes_on, .unilateral = false)
SIMWORLD(a_trap_during_a_conversion, .no_vmm = true)
SIMWORLD(a_stage_that_refuses, .no_vmm = true)
SIMWORLD(allocation_during_a_conversion, .no_vmm = true)
SIMWORLD(cancelled_run, .no_vmm = true, .nr_vcpus = 2)
SIMWORLD(one_answer, .unilateral = false)
SIMWORLD(a_count_does_not_wrap, .no_vmm = true)
SIMWORLD(destroyed_at_the_second_attempt, .nr_vcpus = 2)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_call),
        cmocka_unit_test(test_after_a_panic),
        cmocka_unit_test(test_refused_first_runs),
        cmocka_unit_test(test_kernel_aborts),
        cmocka_unit_test(test_drained_before_anybody_goes_on),
        cmocka_unit_test(test_a_trap_during_a_conversion),
        cmocka_unit_test(test_a_stage_that_refuses),
        cmocka_unit_test(test_allocation_during_a_conversion),
        cmocka_unit_test(test_cancelled_run),
        cmocka_unit_test(test_one_answer),
        cmocka_unit_test(test_a_count_does_not_wrap),
        cmocka_unit_test(test_destroyed_at_the_second_attempt),
    };
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
