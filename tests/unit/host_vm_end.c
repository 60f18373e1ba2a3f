/* SPDX-License-Identifier: BSD-2-Clause */
/* The end of a VM under all that may go on in it, and many VMs and vCPUs at once. */
#include "tests/common/simjobs.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fakehyp/hypercall.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE
#define MMAP_SHARED (GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

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

SIMWORLD(destroy_during_an_abort, .no_vmm = true)
SIMWORLD(conversion_of_a_dead_vms_file, .no_vmm = true)
SIMWORLD(destroy_by_a_cancelled_task, .no_vmm = true)
SIMWORLD(destroy_under_a_memslot_call, .bare = true)
SIMWORLD(vcpus_of_a_dying_vm, .bare = true)
SIMWORLD(vms_without_end, .bare = true)
SIMWORLD(a_slot_goes_during_an_abort, .no_vmm = true)
SIMWORLD(two_vms_at_once, .bare = true)
SIMWORLD(many_vms_and_vcpus, .bare = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversion_of_a_dead_vms_file),
        cmocka_unit_test(test_destroy_during_an_abort),
        cmocka_unit_test(test_many_vms_and_vcpus),
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
