/* SPDX-License-Identifier: BSD-2-Clause */
/* KVM_RUN: exits, errors, and two vCPUs at one page. */
#include "tests/common/simjobs.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fakehyp/hypercall.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE
#define MMAP_SHARED (GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

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

/* What an unprotected VM has is shared with it: its slot can go, and another can take the place. */
static void a_slot_of_an_unprotected_vm_goes(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 3 * P, .write = true, .byte = 'g'};
    struct page_report page;
    struct hyp_frame_info info;
    char byte;

    start_run(w, &run);
    start_guest(w, &guest);
    assert_int_equal(guest.rc, 0);
    gmem_page_report(w->gmem, 3, &page);
    assert_int_equal(hyp_frame_info(w->machine->hyp, page.pfn, &info), 0);
    assert_int_equal(info.share_count, 1);
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 0, NULL, 0, &w->caller), 0);
    assert_int_equal(hyp_frame_info(w->machine->hyp, page.pfn, &info), 0);
    assert_int_equal(info.share_count, 0);
    assert_int_equal(info.host, PKVM_PAGE_OWNED);
    sw_audit(w);
    /* The guest finds a device where its memory was. */
    guest = (struct guest_job){.vcpu = w->vcpu, .gpa = 3 * P};
    start_guest(w, &guest);
    assert_true(run.done);
    assert_int_equal(run.run.exit_reason, KVM_EXIT_MMIO);
    assert_int_equal(vm_set_memory_region(w->vm, 5, 0, 0, 16 * P, w->gmem, 0, &w->caller), 0);
    start_run(w, &run);
    assert_true(guest.done);
    assert_int_equal(guest.byte, 'g');
    sw_must(sim_host_read(w->sim, w->mm, w->va + 3 * P, &byte, 1), SIM_OK);
    assert_int_equal(byte, 'g');
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

SIMWORLD(vcpu_table, .bare = true)
SIMWORLD(busy_and_dying, .no_vmm = true, .nr_vcpus = 2)
SIMWORLD(mmio, .no_vmm = true)
SIMWORLD(memslots_after_the_first_run, .no_vmm = true)
SIMWORLD(a_slot_of_an_unprotected_vm_goes, .no_vmm = true, .unprotected = true)
SIMWORLD(memory_fault, .no_vmm = true)
SIMWORLD(hypercalls_pass_through, .no_vmm = true)
SIMWORLD(a_vmm_that_only_claims_to_have_converted, .no_vmm = true)
SIMWORLD(psci_off, .no_vmm = true, .nr_vcpus = 2)
SIMWORLD(unprotected_vm, .no_vmm = true, .unprotected = true)
SIMWORLD(unprotected_calls, .no_vmm = true, .unprotected = true)
SIMWORLD(two_vcpus_fault_on_one_page, .no_vmm = true, .nr_vcpus = 2)
static void test_two_unprotected_vcpus_fault(void **state)
{
    simworld_run_with(&(struct simworld_options){
        .body = two_vcpus_fault_on_one_page, .no_vmm = true, .nr_vcpus = 2, .unprotected = true});
}
SIMWORLD(two_first_runs, .no_vmm = true, .nr_vcpus = 2)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vcpu_table),
        cmocka_unit_test(test_busy_and_dying),
        cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_memslots_after_the_first_run),
        cmocka_unit_test(test_a_slot_of_an_unprotected_vm_goes),
        cmocka_unit_test(test_memory_fault),
        cmocka_unit_test(test_hypercalls_pass_through),
        cmocka_unit_test(test_a_vmm_that_only_claims_to_have_converted),
        cmocka_unit_test(test_psci_off),
        cmocka_unit_test(test_unprotected_vm),
        cmocka_unit_test(test_unprotected_calls),
        cmocka_unit_test(test_two_vcpus_fault_on_one_page),
        cmocka_unit_test(test_two_unprotected_vcpus_fault),
        cmocka_unit_test(test_two_first_runs),
    };
    /* A task that spins stops everybody else. */
    alarm(30);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
