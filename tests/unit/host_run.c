/* SPDX-License-Identifier: BSD-2-Clause */
/* KVM_RUN: exits and errors, several VMs and vCPUs at once, and the end of a VM under all of them. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fakehyp/hypercall.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE
#define MMAP_SHARED (GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

/* ---- work for tasks -----------------------------------------------------------------------------------------------
 */

struct run_job {
    struct vcpu *vcpu;
    struct run_record run;
    struct caller caller;
    int rc;
    bool done;
};

static void run_task(void *arg)
{
    struct run_job *job = arg;
    job->done = false;
    job->rc = vcpu_run(job->vcpu, &job->run, &job->caller);
    job->done = true;
}

static void start_run(struct simworld *w, struct run_job *job)
{
    sw_spawn(w, run_task, job);
    sw_settle(w);
}

struct guest_job {
    struct vcpu *vcpu;
    uint64_t gpa, x[4];
    char byte;
    bool write, done;
    int rc;
    int64_t x0;
};

static void guest_task(void *arg)
{
    struct guest_job *job = arg;
    job->done = false;
    if (job->x[0])
        job->rc = sim_guest_hvc(job->vcpu, job->x, &job->x0);
    else
        job->rc = job->write ? sim_guest_write(job->vcpu, job->gpa, &job->byte, 1)
                             : sim_guest_read(job->vcpu, job->gpa, &job->byte, 1);
    job->done = true;
}

static void start_guest(struct simworld *w, struct guest_job *job)
{
    sw_spawn(w, guest_task, job);
    sw_settle(w);
}

struct destroy_job {
    struct vm *vm;
    int rc;
    bool done;
};

static void destroy_task(void *arg)
{
    struct destroy_job *job = arg;
    struct caller caller = {0};
    job->rc = vm_destroy(job->vm, &caller);
    job->done = true;
}

/* While the jobs of the body are still there. */
static void end_vm(struct simworld *w)
{
    assert_int_equal(vm_destroy(w->vm, &w->caller), 0);
    w->vm = NULL;
    sw_settle(w);
    sw_audit(w);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void vcpu_table(struct simworld *w)
{
    static const struct {
        unsigned index;
        int rc;
    } table[] = {{1, -EINVAL}, {64, -EINVAL}, {UINT32_MAX, -EINVAL}, {0, 0}, {0, -EEXIST}, {2, -EINVAL}, {1, 0}};
    const struct vm_config config = {.name = "t", .is_protected = true};
    const struct vm_config bad[] = {{.ipa_bits = 31},
                                    {.ipa_bits = 41},
                                    {.ipa_bits = 64},
                                    {.unshare_mode = 2},
                                    {.is_protected = true, .ipa_bits = 1}};
    struct vcpu *vcpu;
    struct vm *vm;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(vm_create(machine_host(w->machine), &bad[i], &vm, &w->caller), -EINVAL);
    assert_int_equal(vm_create(machine_host(w->machine), &config, &w->vm, &w->caller), 0);
    assert_int_equal(vm_config(w->vm)->ipa_bits, 40);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        vcpu = NULL;
        assert_int_equal(vcpu_create(w->vm, table[i].index, &vcpu, &w->caller), table[i].rc);
        assert_int_equal(vcpu != NULL, table[i].rc == 0);
    }
    assert_int_equal(vm_nr_vcpus(w->vm), 2);
    assert_null(vm_vcpu(w->vm, 2));
    assert_ptr_equal(vm_vcpu(w->vm, 1), vcpu);
    assert_int_equal(vcpu_index(vcpu), 1);
    assert_ptr_equal(vcpu_vm(vcpu), w->vm);
    for (unsigned i = 2; i < 64; i++)
        assert_int_equal(vcpu_create(w->vm, i, &vcpu, &w->caller), 0);
    assert_int_equal(vcpu_create(w->vm, 64, &vcpu, &w->caller), -EINVAL);
    assert_int_equal(sim_guest_start(w->sim, w->vm), 0);
    assert_int_equal(vcpu_create(w->vm, 64, &vcpu, &w->caller), -EINVAL);
}

static void busy_and_dying(struct simworld *w)
{
    struct vcpu *late;
    struct run_job first = {.vcpu = w->vcpu}, second = {.vcpu = w->vcpu}, other = {.vcpu = vm_vcpu(w->vm, 1)};
    struct destroy_job destroy = {.vm = w->vm};

    start_run(w, &first);
    assert_false(first.done);
    assert_true(machine_vcpu_in_guest(w->vcpu));
    start_run(w, &second);
    assert_true(second.done);
    assert_int_equal(second.rc, -EBUSY);
    assert_int_not_equal(second.caller.message[0], '\0');
    assert_int_equal(vcpu_create(w->vm, 2, &late, &w->caller), -EBUSY);

    /* One task a round: the destroyer waits for the vCPU, and who comes in that time is turned away. */
    sw_spawn(w, destroy_task, &destroy);
    sw_spawn(w, run_task, &other);
    struct destroy_job again = {.vm = w->vm};
    sw_spawn(w, destroy_task, &again);
    sw_settle(w);
    assert_true(destroy.done && other.done && again.done && first.done);
    assert_int_equal(destroy.rc, 0);
    assert_int_equal(other.rc, -EIO);
    assert_int_equal(again.rc, -EBUSY);
    assert_int_equal(first.rc, 0);
    assert_int_equal(first.run.exit_reason, KVM_EXIT_SYSTEM_EVENT);
    assert_int_equal(first.run.event_type, KVM_SYSTEM_EVENT_CRASH);
    w->vm = NULL;
    sw_audit(w);
}

/* ---- exits ------------------------------------------------------------------------------------------------------- */

static void mmio(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 0x1000104, .write = true, .byte = 'm'};
    struct gmem *gmem;

    start_run(w, &run);
    start_guest(w, &guest);
    assert_true(run.done);
    assert_int_equal(run.rc, 0);
    assert_int_equal(run.run.exit_reason, KVM_EXIT_MMIO);
    /* A device's register, not its page. */
    assert_int_equal(run.run.gpa, 0x1000104);
    assert_true(run.run.is_write);
    assert_false(guest.done);
    /* Nobody answered: the instruction is executed again, and exits again. */
    start_run(w, &run);
    assert_true(run.done);
    assert_int_equal(run.run.exit_reason, KVM_EXIT_MMIO);
    /* A slot may still be added, and then it is memory. */
    assert_int_equal(gmem_create(w->vm, P, 0, &gmem, &w->caller), 0);
    assert_int_equal(vm_set_memory_region(w->vm, 9, 0, 0x1000000, P, gmem, 0, &w->caller), 0);
    start_run(w, &run);
    assert_false(run.done);
    assert_true(guest.done);
    assert_int_equal(guest.rc, 0);
    gmem_put(gmem);
    sw_audit(w);
    guest = (struct guest_job){.vcpu = w->vcpu, .gpa = 0x2000000};
    start_guest(w, &guest);
    assert_true(run.done);
    assert_false(run.run.is_write);
    end_vm(w);
    assert_int_equal(guest.rc, -ESRCH);
}

static void memslots_after_the_first_run(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct gmem *gmem;

    assert_int_equal(gmem_create(w->vm, 4 * P, 0, &gmem, &w->caller), 0);
    assert_int_equal(vm_set_memory_region(w->vm, 1, 0, 0x100000, P, gmem, 0, &w->caller), 0);
    assert_int_equal(vm_set_memory_region(w->vm, 1, 0, 0, 0, NULL, 0, &w->caller), 0);
    assert_int_equal(vm_set_memory_region(w->vm, 1, 0, 0x100000, P, gmem, 0, &w->caller), 0);
    start_run(w, &run);
    assert_int_equal(vm_set_memory_region(w->vm, 1, 0, 0, 0, NULL, 0, &w->caller), -EPERM);
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 0, NULL, 0, &w->caller), -EPERM);
    assert_int_equal(vm_set_memory_region(w->vm, 1, 0, 0x200000, P, gmem, 0, &w->caller), -EINVAL);
    assert_non_null(vm_slot_at(w->vm, 0x100));
    assert_int_equal(vm_set_memory_region(w->vm, 2, 0, 0x200000, P, gmem, P, &w->caller), 0);
    gmem_put(gmem);
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 0x200000, .write = true};
    start_guest(w, &guest);
    assert_true(guest.done);
    assert_int_equal(guest.rc, 0);
    sw_audit(w);
    end_vm(w);
}

static void memory_fault(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 0x3123, .byte = 'g', .write = true};
    sw_must(sim_host_write(w->sim, w->mm, w->va + 0x3000, "host", 5), SIM_OK);
    start_run(w, &run);
    start_guest(w, &guest);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(run.done);
        assert_int_equal(run.rc, -EFAULT);
        assert_int_equal(run.run.exit_reason, KVM_EXIT_MEMORY_FAULT);
        assert_int_equal(run.run.flags, KVM_MEMORY_EXIT_FLAG_PRIVATE);
        assert_int_equal(run.run.gpa, 0x3000);
        assert_int_equal(run.run.size, P);
        /* KVM remembers nothing about the exit: who does not convert gets it again. */
        start_run(w, &run);
    }
    sw_must(sw_convert(w, 3, 1, true), 0);
    start_run(w, &run);
    assert_false(run.done);
    assert_true(guest.done);
    char buf[5];
    assert_int_equal(sim_guest_read(w->vcpu, 0x3000, buf, 5), 0);
    assert_string_equal(buf, "host");
    sw_audit(w);
    end_vm(w);
}

static void hypercalls_pass_through(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .x = {0xC6000042, 1, UINT64_MAX, 3}};
    start_run(w, &run);
    for (unsigned i = 0; i < 3; i++) {
        start_guest(w, &guest);
        assert_true(run.done);
        assert_int_equal(run.rc, 0);
        assert_int_equal(run.run.exit_reason, KVM_EXIT_HYPERCALL);
        assert_int_equal(run.run.nr, 0xC6000042);
        assert_int_equal(run.run.args[0], 1);
        assert_true(run.run.args[1] == UINT64_MAX);
        assert_int_equal(run.run.args[2], 3);
        assert_int_equal(run.run.ret, (uint64_t)SMCCC_RET_NOT_SUPPORTED);
        assert_false(guest.done);
        if (i)
            run.run.ret = UINT64_C(0x8000000000001234) + i;
        start_run(w, &run);
        assert_true(guest.done);
        assert_int_equal(guest.rc, 0);
        assert_true((uint64_t)guest.x0 == (i ? UINT64_C(0x8000000000001234) + i : (uint64_t)SMCCC_RET_NOT_SUPPORTED));
    }
    assert_false(run.done);
    sw_audit(w);
    end_vm(w);
}

/* Consent is read off the page, not off what the VMM says. */
static void a_vmm_that_only_claims_to_have_converted(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 0x1000, .write = true, .byte = 's'};
    sw_must(sw_convert(w, 0, 16, true), 0);
    start_run(w, &run);
    start_guest(w, &guest);
    assert_true(guest.done);
    guest = (struct guest_job){.vcpu = w->vcpu, .x = {SMCCC_MEM_SHARE, 0x1000}};
    start_guest(w, &guest);
    assert_int_equal(run.run.nr, SMCCC_MEM_SHARE);
    sw_must(sw_convert(w, 1, 1, false), 0);
    start_run(w, &run);
    assert_int_equal(guest.x0, 0);
    for (unsigned convert = 0; convert < 2; convert++) {
        guest = (struct guest_job){.vcpu = w->vcpu, .x = {SMCCC_MEM_UNSHARE, 0x1000}};
        start_guest(w, &guest);
        assert_true(run.done);
        assert_int_equal(run.run.nr, SMCCC_MEM_UNSHARE);
        if (convert)
            sw_must(sw_convert(w, 1, 1, true), 0);
        run.run.ret = convert ? 77 : 0;
        start_run(w, &run);
        assert_true(guest.done);
        assert_int_equal(guest.x0, convert ? SMCCC_RET_SUCCESS : SMCCC_RET_INVALID_PARAMETER);
        sw_audit(w);
    }
    end_vm(w);
}

static void psci_off(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu}, other = {.vcpu = vm_vcpu(w->vm, 1)};
    struct guest_job guest = {.vcpu = w->vcpu, .x = {PSCI_SYSTEM_OFF, 7}};
    start_run(w, &run);
    start_run(w, &other);
    start_guest(w, &guest);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(run.done);
        assert_int_equal(run.rc, 0);
        assert_int_equal(run.run.exit_reason, KVM_EXIT_SYSTEM_EVENT);
        assert_int_equal(run.run.event_type, KVM_SYSTEM_EVENT_SHUTDOWN);
        assert_int_equal(run.run.event_data, 7);
        start_run(w, &run);
    }
    assert_false(other.done);
    end_vm(w);
    assert_true(other.done && guest.done);
    assert_int_equal(guest.rc, -ESRCH);
}

static void unprotected_vm(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    char buf[8];
    start_run(w, &run);
    sw_must(sim_host_write(w->sim, w->mm, w->va, "host", 5), SIM_OK);
    sw_must(sim_guest_read(w->vcpu, 0, buf, 5), 0);
    assert_string_equal(buf, "host");
    sw_must(sim_guest_write(w->vcpu, 0x1000, "guest", 6), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x1000, buf, 6), SIM_OK);
    assert_string_equal(buf, "guest");
    sw_must(sim_host_write(w->sim, w->mm, w->va, "more", 5), SIM_OK);
    sw_must(sim_guest_read(w->vcpu, 0, buf, 5), 0);
    assert_string_equal(buf, "more");
    sw_must(sw_convert(w, 0, 1, true), -EINVAL);
    /* Taking a page back is polite here: the guest faults it in again. */
    sw_must(gmem_fallocate(w->gmem, 3, 0x1000, 0x1000, &w->caller), 0);
    sw_must(sim_guest_read(w->vcpu, 0x1000, buf, 6), 0);
    assert_int_equal(buf[0], 0);
    assert_false(run.done);
    end_vm(w);
}

/* To a guest that is not protected these are calls like any other: the VMM answers, and nothing was done. */
static void unprotected_calls(struct simworld *w)
{
    static const uint64_t numbers[] = {SMCCC_MEM_SHARE, SMCCC_MEM_UNSHARE};
    for (unsigned i = 0; i < 2; i++) {
        struct run_job run = {.vcpu = w->vcpu};
        struct guest_job guest = {.vcpu = w->vcpu, .x = {numbers[i], 0x1000}};
        start_run(w, &run);
        sw_spawn(w, guest_task, &guest);
        sw_settle(w);
        assert_true(run.done);
        assert_int_equal(run.rc, 0);
        assert_int_equal(run.run.exit_reason, KVM_EXIT_HYPERCALL);
        assert_int_equal(run.run.nr, numbers[i]);
        run.run.ret = 77;
        start_run(w, &run);
        assert_true(guest.done);
        assert_int_equal(guest.x0, 77);
        sw_must(vcpu_run(w->vcpu, &run.run, &w->caller), -EBUSY);
    }
    end_vm(w);
}

/* ---- two vCPUs, one page ------------------------------------------------------------------------------------------
 */

/* The slower one finds the page mapped; for it that is no error. */
static void two_vcpus_fault_on_one_page(struct simworld *w)
{
    struct run_job run[2] = {{.vcpu = w->vcpu}, {.vcpu = vm_vcpu(w->vm, 1)}};
    struct guest_job guest[2] = {{.vcpu = w->vcpu, .gpa = 0x2000, .write = true, .byte = 'a'},
                                 {.vcpu = run[1].vcpu, .gpa = 0x2001, .write = true, .byte = 'b'}};
    char buf[2];
    if (!w->unprotected)
        sw_must(sw_convert(w, 0, 16, true), 0);
    start_run(w, &run[0]);
    start_run(w, &run[1]);
    sw_stop_at(w, "abort:folio");
    start_guest(w, &guest[0]);
    assert_non_null(w->stopped);
    start_guest(w, &guest[1]);
    sw_go(w);
    sw_settle(w);
    for (unsigned i = 0; i < 2; i++) {
        assert_false(run[i].done);
        assert_true(guest[i].done);
        assert_int_equal(guest[i].rc, 0);
    }
    sw_audit(w);
    assert_int_equal(sim_guest_read(w->vcpu, 0x2000, buf, 2), 0);
    assert_memory_equal(buf, "ab", 2);
    end_vm(w);
}

/* EL2 learns of the VM once, however many vCPUs come to tell it. */
static void two_first_runs(struct simworld *w)
{
    struct run_job run[2] = {{.vcpu = w->vcpu}, {.vcpu = vm_vcpu(w->vm, 1)}};
    task_lock_exclusive(&w->machine->el2_lock);
    sw_spawn(w, run_task, &run[0]);
    sw_spawn(w, run_task, &run[1]);
    sw_settle(w);
    task_unlock_exclusive(&w->machine->el2_lock);
    sw_settle(w);
    for (unsigned i = 0; i < 2; i++) {
        assert_false(run[i].done);
        assert_true(machine_vcpu_in_guest(run[i].vcpu));
    }
    end_vm(w);
}

/* ---- the end of a VM ----------------------------------------------------------------------------------------------
 */

static void destroy_at(struct simworld *w, const char *point)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 0x2000, .write = true};
    struct destroy_job destroy = {.vm = w->vm};
    sw_must(sw_convert(w, 0, 16, true), 0);
    start_run(w, &run);
    sw_stop_at(w, point);
    start_guest(w, &guest);
    assert_non_null(w->stopped);
    sw_spawn(w, destroy_task, &destroy);
    sw_settle(w);
    assert_false(destroy.done);
    sw_go(w);
    sw_settle(w);
    assert_true(destroy.done && run.done && guest.done);
    assert_int_equal(destroy.rc, 0);
    w->vm = NULL;
    sw_audit(w);
}

static void destroy_during_an_abort(struct simworld *w)
{
    destroy_at(w, "abort:folio");
}

static void conversion_of_a_dead_vms_file(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    char byte = 'q';
    sw_must(sw_convert(w, 0, 16, true), 0);
    start_run(w, &run);
    sw_must(sim_guest_write(w->vcpu, 0x2000, "secret", 7), 0);
    /* One page that the VMM calls shared and the guest does not: the host gets at it when EL2 gives it back. */
    sw_must(sim_guest_write(w->vcpu, 0x4000, "secret", 7), 0);
    sw_must(sw_convert(w, 4, 1, false), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x4000, &byte, 1), SIM_SIGSEGV);
    assert_int_equal(vm_destroy(w->vm, &w->caller), 0);
    w->vm = NULL;
    sw_audit(w);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x4000, &byte, 1), SIM_OK);
    assert_int_equal(byte, 0);
    byte = 'q';
    /* The descriptor still works; what the guest wrote is gone. */
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x2000, &byte, 1), SIM_SIGBUS);
    sw_must(sw_convert(w, 0, 16, false), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x2000, &byte, 1), SIM_OK);
    assert_int_equal(byte, 0);
    sw_must(sw_convert(w, 2, 1, true), 0);
}

/* The client of a vm_destroy() goes away while that waits: the VM must still end, and others must get to run. */
static void cancelled_task(void *arg)
{
    task_cancel(task_current());
    destroy_task(arg);
}

static void destroy_by_a_cancelled_task(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct destroy_job destroy = {.vm = w->vm};
    start_run(w, &run);
    sw_spawn(w, cancelled_task, &destroy);
    sw_settle(w);
    assert_true(destroy.done && run.done);
    assert_int_equal(destroy.rc, 0);
    w->vm = NULL;
}

struct bind_job {
    struct simworld *w;
    struct vm *vm;
    int rc;
};

static void bind_task(void *arg)
{
    struct bind_job *job = arg;
    struct caller caller = {0};
    job->rc = vm_set_memory_region(job->vm, 5, 0, 0x100000, P, job->w->gmem, 15 * P, &caller);
}

struct unbind_job {
    struct simworld *w;
    uint32_t slot;
    int rc;
};

static void unbind_task(void *arg)
{
    struct unbind_job *job = arg;
    struct caller caller = {0};
    job->rc = vm_set_memory_region(job->w->vm, job->slot, 0, 0, 0, NULL, 0, &caller);
}

/* A memslot that waits for its file's lock must not find its VM gone. */
static void destroy_under_a_memslot_call(struct simworld *w)
{
    struct sw_job convert = {.w = w, .page = 0, .nr = 1, .to_private = true};
    struct bind_job bind = {w, NULL, 1};
    struct vm *vm;
    const struct vm_config config = {.name = "t", .is_protected = true};

    assert_int_equal(vm_create(machine_host(w->machine), &config, &vm, &w->caller), 0);
    struct destroy_job destroy = {.vm = vm};
    assert_int_equal(gmem_create(vm, 16 * P, MMAP_SHARED, &w->gmem, &w->caller), 0);
    bind.vm = vm;
    sw_stop_at(w, "convert:locked");
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    sw_spawn(w, bind_task, &bind);
    sw_settle(w);
    sw_spawn(w, destroy_task, &destroy);
    sw_settle(w);
    assert_int_equal(bind.rc, 1);
    sw_go(w);
    sw_settle(w);
    assert_true(destroy.done);
    assert_int_equal(destroy.rc, 0);
    /* Before the end or too late for it. */
    assert_true(bind.rc == 0 || bind.rc == -EIO);
    sw_audit(w);
}

/* Too late for a VM that is going. */
static void vcpus_of_a_dying_vm(struct simworld *w)
{
    struct sw_job convert = {.w = w, .page = 0, .nr = 1, .to_private = true};
    struct bind_job bind = {w, NULL, 1};
    struct vcpu *vcpu = NULL;
    const struct vm_config config = {.name = "t", .is_protected = true};

    assert_int_equal(vm_create(machine_host(w->machine), &config, &bind.vm, &w->caller), 0);
    struct destroy_job destroy = {.vm = bind.vm};
    assert_int_equal(gmem_create(bind.vm, 16 * P, MMAP_SHARED, &w->gmem, &w->caller), 0);
    bind_task(&bind);
    assert_int_equal(bind.rc, 0);
    sw_stop_at(w, "convert:locked");
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    sw_spawn(w, destroy_task, &destroy);
    sw_settle(w);
    assert_false(destroy.done);
    assert_int_equal(vcpu_create(bind.vm, 0, &vcpu, &w->caller), -EIO);
    assert_null(vcpu);
    sw_go(w);
    sw_settle(w);
    assert_true(destroy.done);
    assert_int_equal(destroy.rc, 0);
}

/* A daemon that serves a test suite makes VMs without end: the frames of the last one are those of the next. */
static void vms_without_end(struct simworld *w)
{
    const struct vm_config config = {.name = "t", .is_protected = true};
    struct host_counts counts;
    uint64_t top = 0;

    for (unsigned i = 0; i < 20; i++) {
        struct run_record run = {0};
        struct vcpu *vcpu;
        struct vm *vm;
        assert_int_equal(vm_create(machine_host(w->machine), &config, &vm, &w->caller), 0);
        assert_int_equal(vcpu_create(vm, 0, &vcpu, &w->caller), 0);
        assert_int_equal(vcpu_run(vcpu, &run, &w->caller), 0);
        assert_int_equal(vm_destroy(vm, &w->caller), 0);
        host_counts(machine_host(w->machine), &counts);
        assert_int_equal(counts.ram_frames, 0);
        if (!top)
            top = counts.top_pfn;
        assert_int_equal(counts.top_pfn, top);
    }
}

static struct waitq agent;
static int agent_answer;

static int slow_slot_add(void *ctx, struct vm *vm, const struct memslot *slot, struct caller *caller)
{
    sched_wait(&agent, SCHED_FOREVER);
    return agent_answer;
}

static void slow_slot_remove(void *ctx, struct vm *vm, const struct memslot *slot)
{
    sched_wait(&agent, SCHED_FOREVER);
}

/* A guest touches a slot that its agent then refuses, or is about to give up: what the abort found is gone. */
static void a_slot_goes_during_an_abort(struct simworld *w)
{
    const struct stage_ops *sim = w->machine->config.stage;
    struct stage_ops slow = *sim;
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 0x100000, .write = true};
    struct bind_job bind = {w, w->vm, 1};
    struct gmem *first = w->gmem, *second;

    slow.slot_add = slow_slot_add;
    slow.slot_remove = slow_slot_remove;
    assert_int_equal(gmem_create(w->vm, 16 * P, 0, &second, &w->caller), 0);
    w->gmem = second;
    /* Deleted while the VM runs for the first time. */
    assert_int_equal(vm_set_memory_region(w->vm, 6, 0, 0x100000, P, second, 0, &w->caller), 0);
    w->machine->config.stage = &slow;
    struct unbind_job unbind = {w, 6, 1};
    sw_spawn(w, unbind_task, &unbind);
    sw_settle(w);
    start_run(w, &run);
    start_guest(w, &guest);
    assert_int_equal(unbind.rc, 1);
    assert_false(run.done);
    sched_wake_all(&agent);
    sw_settle(w);
    assert_int_equal(unbind.rc, 0);
    for (unsigned i = 0; i < 2; i++) {
        /* No slot: MMIO; as a guest that insists it goes on with the access. */
        assert_true(run.done);
        assert_int_equal(run.rc, 0);
        assert_int_equal(run.run.exit_reason, KVM_EXIT_MMIO);
        assert_int_equal(run.run.gpa, 0x100000);
        assert_false(guest.done);
        agent_answer = i ? 0 : -ENOMEM;
        sw_spawn(w, bind_task, &bind);
        sw_settle(w);
        start_run(w, &run);
        assert_false(run.done);
        sched_wake_all(&agent);
        sw_settle(w);
        assert_int_equal(bind.rc, agent_answer);
    }
    assert_false(run.done);
    assert_true(guest.done);
    assert_int_equal(guest.rc, 0);
    w->machine->config.stage = sim;
    w->gmem = first;
    end_vm(w);
    gmem_put(second);
}

/* ---- many ---------------------------------------------------------------------------------------------------------
 */

struct create_job {
    struct simworld *w;
    struct vm *vm;
};

static void create_task(void *arg)
{
    struct create_job *job = arg;
    struct caller caller = {0};
    const struct vm_config config = {.name = "t", .is_protected = true};
    assert_int_equal(vm_create(machine_host(job->w->machine), &config, &job->vm, &caller), 0);
}

static void two_vms_at_once(struct simworld *w)
{
    struct create_job a = {.w = w}, b = {.w = w};
    /* EL2 is busy: both wait at its door. */
    task_lock_exclusive(&w->machine->el2_lock);
    sw_spawn(w, create_task, &a);
    sw_spawn(w, create_task, &b);
    sw_settle(w);
    assert_true(!a.vm && !b.vm);
    task_unlock_exclusive(&w->machine->el2_lock);
    sw_settle(w);
    assert_true(a.vm && b.vm);
    assert_true(vm_handle(a.vm) != vm_handle(b.vm));
    assert_true(vm_id(a.vm) != vm_id(b.vm));
    assert_int_equal(vm_destroy(a.vm, &w->caller), 0);
    assert_int_equal(vm_destroy(b.vm, &w->caller), 0);
}

#define NR_VMS 6
#define NR_VCPUS 4

struct one_vm;

struct one_vcpu {
    struct one_vm *owner;
    struct vcpu *vcpu;
    unsigned nr, rounds;
    bool vmm_done, guest_done;
};

struct one_vm {
    struct simworld *w;
    unsigned nr;
    struct vm *vm;
    struct gmem *gmem;
    uint64_t va;
    struct one_vcpu vcpus[NR_VCPUS];
};

/* A VMM thread: does what the guest asks for. */
static void vmm_of(void *arg)
{
    struct one_vcpu *v = arg;
    struct run_record run = {0};
    struct caller caller = {0};
    struct gmem_busy busy;
    for (;;) {
        int rc = vcpu_run(v->vcpu, &run, &caller);
        struct gmem_attributes2 attr = {.size = P};
        if (rc == -EFAULT && run.exit_reason == KVM_EXIT_MEMORY_FAULT) {
            attr.offset = run.gpa;
            attr.attributes = KVM_MEMORY_ATTRIBUTE_PRIVATE;
        } else if (rc == 0 && run.exit_reason == KVM_EXIT_HYPERCALL) {
            attr.offset = run.args[0];
            attr.attributes = run.nr == SMCCC_MEM_UNSHARE ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
        } else {
            assert_int_equal(rc, 0);
            assert_int_equal(run.exit_reason, KVM_EXIT_SYSTEM_EVENT);
            break;
        }
        int done = gmem_set_attributes2(v->owner->gmem, &attr, &caller, &busy);
        assert_true(done == 0 || done == -EAGAIN);
        sched_relax();
    }
    v->vmm_done = true;
}

/* Each vCPU has two pages of its own, and shares one of them with its VMM for a while, again and again. */
static void guest_of(void *arg)
{
    struct one_vcpu *v = arg;
    struct one_vm *o = v->owner;
    uint64_t page = 2 * v->nr;
    for (unsigned round = 0; round < 40; round++) {
        unsigned char mine = (unsigned char)(o->nr * 37 + v->nr * 11 + round), got;
        int64_t x0;
        assert_int_equal(sim_guest_write(v->vcpu, page * P + round, &mine, 1), 0);
        assert_int_equal(sim_guest_write(v->vcpu, (page + 1) * P, &mine, 1), 0);
        sched_relax();
        assert_int_equal(sim_guest_hvc(v->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, (page + 1) * P, 0, 0}, &x0), 0);
        assert_int_equal(x0, 0);
        assert_int_equal(sim_host_read(o->w->sim, o->w->mm, o->va + (page + 1) * P, &got, 1), SIM_OK);
        assert_int_equal(got, mine);
        sched_relax();
        assert_int_equal(sim_host_read(o->w->sim, o->w->mm, o->va + page * P, &got, 1), SIM_SIGBUS);
        assert_int_equal(sim_guest_hvc(v->vcpu, (uint64_t[4]){SMCCC_MEM_UNSHARE, (page + 1) * P, 0, 0}, &x0), 0);
        assert_int_equal(x0, 0);
        assert_int_equal(sim_host_read(o->w->sim, o->w->mm, o->va + (page + 1) * P, &got, 1), SIM_SIGBUS);
        assert_int_equal(sim_guest_read(v->vcpu, page * P + round, &got, 1), 0);
        assert_int_equal(got, mine);
        v->rounds++;
    }
    v->guest_done = true;
}

static void many_vms_and_vcpus(struct simworld *w)
{
    static struct one_vm vms[NR_VMS];
    memset(vms, 0, sizeof(vms));
    w->mm = mm_new(machine_host(w->machine), "vmm", 100);
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct one_vm *o = &vms[i];
        const struct vm_config config = {.name = "t", .is_protected = true, .unshare_mode = i % 2};
        o->w = w;
        o->nr = i;
        assert_int_equal(vm_create(machine_host(w->machine), &config, &o->vm, &w->caller), 0);
        for (unsigned k = 0; k < NR_VCPUS; k++) {
            o->vcpus[k] = (struct one_vcpu){.owner = o, .nr = k};
            assert_int_equal(vcpu_create(o->vm, k, &o->vcpus[k].vcpu, &w->caller), 0);
        }
        assert_int_equal(gmem_create(o->vm, 8 * P, MMAP_SHARED, &o->gmem, &w->caller), 0);
        assert_int_equal(vm_set_memory_region(o->vm, 0, 0, 0, 8 * P, o->gmem, 0, &w->caller), 0);
        assert_int_equal(mm_map(w->mm, o->gmem, 0, 8 * P, &o->va, &w->caller), 0);
        assert_int_equal(sim_guest_start(w->sim, o->vm), 0);
        for (unsigned k = 0; k < NR_VCPUS; k++) {
            sw_spawn(w, vmm_of, &o->vcpus[k]);
            sw_spawn(w, guest_of, &o->vcpus[k]);
        }
    }
    for (unsigned i = 0; i < 30; i++) {
        for (unsigned k = 0; k < 20; k++)
            sched_relax();
        sw_audit(w);
    }
    while (sched_has_runnable(machine_sched(w->machine)))
        sw_settle(w);
    sw_audit(w);
    for (unsigned i = 0; i < NR_VMS; i++) {
        for (unsigned k = 0; k < NR_VCPUS; k++) {
            assert_true(vms[i].vcpus[k].guest_done);
            assert_int_equal(vms[i].vcpus[k].rounds, 40);
        }
        assert_int_equal(vm_destroy(vms[i].vm, &w->caller), 0);
        sw_settle(w);
        for (unsigned k = 0; k < NR_VCPUS; k++)
            assert_true(vms[i].vcpus[k].vmm_done);
        sw_audit(w);
        gmem_put(vms[i].gmem);
    }
}

#define WORLD(name, ...)                                                                                               \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        simworld_run_with(&(struct simworld_options){.body = name, __VA_ARGS__});                                      \
    }
WORLD(vcpu_table, .bare = true)
WORLD(busy_and_dying, .no_vmm = true, .nr_vcpus = 2)
WORLD(mmio, .no_vmm = true)
WORLD(memslots_after_the_first_run, .no_vmm = true)
WORLD(memory_fault, .no_vmm = true)
WORLD(hypercalls_pass_through, .no_vmm = true)
WORLD(a_vmm_that_only_claims_to_have_converted, .no_vmm = true)
WORLD(psci_off, .no_vmm = true, .nr_vcpus = 2)
WORLD(unprotected_vm, .no_vmm = true, .unprotected = true)
WORLD(unprotected_calls, .no_vmm = true, .unprotected = true)
WORLD(two_vcpus_fault_on_one_page, .no_vmm = true, .nr_vcpus = 2)
static void test_two_unprotected_vcpus_fault(void **state)
{
    simworld_run_with(&(struct simworld_options){
        .body = two_vcpus_fault_on_one_page, .no_vmm = true, .nr_vcpus = 2, .unprotected = true});
}
WORLD(two_first_runs, .no_vmm = true, .nr_vcpus = 2)
WORLD(destroy_during_an_abort, .no_vmm = true)
WORLD(conversion_of_a_dead_vms_file, .no_vmm = true)
WORLD(destroy_by_a_cancelled_task, .no_vmm = true)
WORLD(destroy_under_a_memslot_call, .bare = true)
WORLD(vcpus_of_a_dying_vm, .bare = true)
WORLD(vms_without_end, .bare = true)
WORLD(a_slot_goes_during_an_abort, .no_vmm = true)
WORLD(two_vms_at_once, .bare = true)
WORLD(many_vms_and_vcpus, .bare = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vcpu_table),
        cmocka_unit_test(test_busy_and_dying),
        cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_memslots_after_the_first_run),
        cmocka_unit_test(test_memory_fault),
        cmocka_unit_test(test_hypercalls_pass_through),
        cmocka_unit_test(test_a_vmm_that_only_claims_to_have_converted),
        cmocka_unit_test(test_psci_off),
        cmocka_unit_test(test_unprotected_vm),
        cmocka_unit_test(test_unprotected_calls),
        cmocka_unit_test(test_conversion_of_a_dead_vms_file),
        cmocka_unit_test(test_destroy_during_an_abort),
        cmocka_unit_test(test_many_vms_and_vcpus),
        cmocka_unit_test(test_two_vcpus_fault_on_one_page),
        cmocka_unit_test(test_two_unprotected_vcpus_fault),
        cmocka_unit_test(test_two_first_runs),
        cmocka_unit_test(test_vcpus_of_a_dying_vm),
        cmocka_unit_test(test_vms_without_end),
        cmocka_unit_test(test_a_slot_goes_during_an_abort),
        cmocka_unit_test(test_two_vms_at_once),
        cmocka_unit_test(test_destroy_under_a_memslot_call),
        cmocka_unit_test(test_destroy_by_a_cancelled_task),
    };
    /* A task that spins stops everybody else. */
    alarm(30);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
