/* SPDX-License-Identifier: BSD-2-Clause */
/* Aborts that EL2 injects into the host, by where the access came from; and each errno of a guest's abort, in order. */
#include "tests/common/simjobs.h"

#include <errno.h>
#include <string.h>

#include "fakehyp/hypercall.h"
#include "src/host/internal.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE

static uint64_t pfn_of(struct simworld *w, uint64_t index)
{
    struct page_report page;
    gmem_page_report(w->gmem, index, &page);
    assert_true(page.allocated);
    return page.pfn;
}

static struct hyp_frame_info frame_info(struct simworld *w, uint64_t index)
{
    struct hyp_frame_info info;
    assert_int_equal(hyp_frame_info(w->machine->hyp, pfn_of(w, index), &info), 0);
    return info;
}

/* The last event of an injected abort: false when there is none from sequence number `since` on. */
static bool last_abort(struct simworld *w, uint64_t since, struct host_event *out)
{
    const struct trace_entry *entry;
    bool found = false;
    for (; (entry = trace_get(w->machine->trace, since)); since = entry->seq + 1) {
        if (entry->event.kind != HOST_EV_host_abort)
            continue;
        *out = entry->event;
        found = true;
    }
    return found;
}

static uint64_t now(struct simworld *w)
{
    return trace_next(w->machine->trace);
}

/* ---- the host's aborts --------------------------------------------------------------------------------------------
 */

static void injected_esr(void **state)
{
    static const struct {
        uint64_t ec;
        bool el1;
        uint64_t expected;
    } rows[] = {{0x24, false, 0x24}, {0x24, true, 0x25}, {0x20, false, 0x20}, {0x20, true, 0x21}, {0x25, true, 0x25}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t rest = ESR_WNR | ESR_FSC_TRANS_L(2), esr = hyp_inject_esr(rows[i].ec << 26 | rest, rows[i].el1);
        assert_int_equal(ESR_EC(esr), rows[i].expected);
        assert_int_equal(esr & ~(UINT64_C(0x3f) << 26), rest | ESR_S1PTW);
    }
}

/* Page 3 is the guest's, and the attribute of every page but 9 is shared: stage 2 alone refuses. */
static void guest_owns_page_3(struct simworld *w)
{
    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_must(sim_guest_write(w->vcpu, 3 * P, "secret", 7), 0);
    sw_must(sw_convert(w, 3, 1, false), 0);
    sw_must(sw_convert(w, 9, 1, true), 0);
}

static void assert_guest_keeps_page_3(struct simworld *w)
{
    char buf[7];
    assert_int_equal(frame_info(w, 3).host, PKVM_PAGE_NOPAGE);
    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_must(sim_guest_read(w->vcpu, 3 * P, buf, 7), 0);
    assert_string_equal(buf, "secret");
    sw_must(sw_convert(w, 3, 1, false), 0);
}

static void from_el0(struct simworld *w)
{
    struct host_event event;
    char buf[8];

    guest_owns_page_3(w);
    for (unsigned write = 0; write < 2; write++) {
        uint64_t since = now(w);
        if (write)
            sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "x", 1), SIM_SIGSEGV);
        else
            sw_must(sim_host_read(w->sim, w->mm, w->va + 3 * P, buf, 1), SIM_SIGSEGV);
        assert_true(last_abort(w, since, &event));
        assert_int_equal(event.a0, pfn_of(w, 3));
        assert_int_equal(event.a1, UINT64_C(0x24) << 26 | ESR_S1PTW | (write ? ESR_WNR : 0) | ESR_FSC_TRANS_L(3));
        assert_int_equal(event.offset, 3 * P);
        assert_int_equal(event.pid, mm_pid(w->mm));
        assert_string_equal(event.note, "SIGSEGV, SEGV_ACCERR: stage-2 fault");
    }
    assert_guest_keeps_page_3(w);
    /* Stage 1 comes first: nothing reaches EL2, and the signal is another. */
    uint64_t since = now(w);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 9 * P, buf, 1), SIM_SIGBUS);
    assert_false(last_abort(w, since, &event));
}

/* copy_from_user() over pages 2..4: what is before the page that stage 2 refuses is copied. */
static void from_el1_with_a_fixup(struct simworld *w)
{
    static char buf[3 * P], out[3 * P];
    struct host_event event;

    guest_owns_page_3(w);
    memset(buf, 'b', sizeof(buf));
    sw_must(sim_host_write(w->sim, w->mm, w->va + 2 * P, buf, P), SIM_OK);
    sw_must(sim_host_write(w->sim, w->mm, w->va + 4 * P, buf, P), SIM_OK);
    uint64_t since = now(w);
    sw_must(sim_copy_from_user(w->sim, w->mm, w->va + 2 * P + 16, out, 2 * P), P + 16);
    assert_memory_equal(out, buf, P - 16);
    assert_int_equal(out[P - 16], 0);
    assert_true(last_abort(w, since, &event));
    assert_int_equal(ESR_EC(event.a1), ESR_EC_DABT_CUR);
    assert_string_equal(event.note, "exception table: EFAULT or a short copy");
    /* It begins with the page: nothing is copied, which is the system call's EFAULT. */
    sw_must(sim_copy_from_user(w->sim, w->mm, w->va + 3 * P, out, 8), 8);
    sw_must(sim_copy_to_user(w->sim, w->mm, w->va + 2 * P + 8, buf, P), 8);
    sw_must(sim_copy_to_user(w->sim, w->mm, w->va + 9 * P, buf, 1), 1);
    sw_must(sim_copy_from_user(w->sim, w->mm, w->va + 4 * P, out, P), 0);
    sw_must(sim_copy_from_user(w->sim, w->mm, UINT64_C(0x1000), out, 1), 1);
    /* The same through the direct map. */
    sw_must(sim_kernel_load(w->sim, pfn_of(w, 3), true, out, 8), SIM_EFAULT);
    assert_guest_keeps_page_3(w);
}

static void from_el1(struct simworld *w)
{
    struct run_job run = {.vcpu = w->vcpu};
    struct host_event event;
    char buf[8] = "x";

    start_run(w, &run);
    guest_owns_page_3(w);
    uint64_t since = now(w);
    sw_must(sim_kernel_load(w->sim, pfn_of(w, 3), false, buf, 7), SIM_OK);
    assert_memory_equal(buf, "\0\0\0\0\0\0\0", 7);
    assert_true(last_abort(w, since, &event));
    assert_string_equal(event.note, "forced reclaim: retried");
    assert_int_equal(event.rc, 0);
    assert_int_equal(frame_info(w, 3).host, PKVM_PAGE_OWNED);
    /* The second access has nothing in its way. */
    since = now(w);
    sw_must(sim_kernel_load(w->sim, pfn_of(w, 3), false, buf, 7), SIM_OK);
    assert_false(last_abort(w, since, &event));
    /* The guest's IPA is dead: a bare EFAULT, with no memory-fault record, however the attribute is. */
    sw_must(sw_convert(w, 3, 1, true), 0);
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 3 * P};
    start_guest(w, &guest);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(run.done);
        assert_int_equal(run.rc, -EFAULT);
        assert_int_equal(run.run.exit_reason, 0);
        start_run(w, &run);
    }
    end_vm(w);
}

static void by_pfn(struct simworld *w, uint64_t pfn, enum host_abort_end end, int64_t rc, const char *note)
{
    const struct host_access access = {.pfn = pfn, .el1 = true};
    const struct host_abort abort = {.esr = UINT64_C(0x25) << 26 | ESR_S1PTW, .pfn = pfn};
    struct host_event event;
    uint64_t since = now(w);

    sw_must(machine_host_abort(w->machine, &access), end);
    if (end == HOST_ABORT_RETRY) /* EL2 has it mapped: there is nothing to inject. */
        sw_must(host_mem_abort(machine_host(w->machine), &abort), end);
    assert_true(last_abort(w, since, &event));
    assert_int_equal(event.rc, rc);
    assert_string_equal(event.note, note);
}

static void what_cannot_be_taken(struct simworld *w)
{
    static const char oops[] = "Oops: access to hypervisor-protected memory";
    char byte;

    sw_must(sim_host_write(w->sim, w->mm, w->va, "h", 1), SIM_OK);
    by_pfn(w, pfn_of(w, 0), HOST_ABORT_RETRY, -EAGAIN, "would no longer fault: retried");
    by_pfn(w, w->machine->pool_pfn, HOST_ABORT_OOPS, -EPERM, oops);
    by_pfn(w, (UINT64_C(1) << 40) >> 12, HOST_ABORT_OOPS, -EFAULT, oops);
    sw_must(sim_kernel_load(w->sim, w->machine->pool_pfn, false, &byte, 1), SIM_OOPS);
    sw_must(sim_kernel_load(w->sim, w->machine->pool_pfn, true, &byte, 1), SIM_EFAULT);
}

/* ---- the guest's aborts -------------------------------------------------------------------------------------------
 */

static uint64_t spoiled_call;
static int64_t spoiled_rc;
static unsigned spoil_times, donations;

static int64_t spoiling_hvc(void *ctx, unsigned cpu, uint64_t number, const uint64_t args[4])
{
    donations += number == HVC_host_donate_guest;
    if (number != spoiled_call || !spoil_times)
        return cpu_hvc(ctx, cpu, number, args);
    spoil_times--;
    return spoiled_rc;
}

/* What the donation answers goes out of KVM_RUN as it is, but for EAGAIN, which is tried again. */
static void answers_of_el2(struct simworld *w)
{
    static const int errnos[] = {EPERM, ENOMEM, EFAULT, EINVAL, ERANGE, EHWPOISON};
    struct host *host = machine_host(w->machine);
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 5 * P};

    sw_must(sw_convert(w, 0, 16, true), 0);
    host->arch.hvc = spoiling_hvc;
    spoiled_call = HVC_host_donate_guest;
    spoil_times = 0;
    start_run(w, &run);
    for (size_t i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++) {
        spoiled_rc = -errnos[i];
        spoil_times = 1;
        if (i == 0)
            start_guest(w, &guest);
        else
            start_run(w, &run);
        assert_true(run.done);
        assert_int_equal(run.rc, -errnos[i]);
        assert_int_equal(run.run.exit_reason, 0);
        assert_false(guest.done);
        assert_int_equal(frame_info(w, 5).host, PKVM_PAGE_OWNED);
        sw_audit(w);
    }
    spoiled_rc = -EAGAIN;
    spoil_times = 3;
    donations = 0;
    start_run(w, &run);
    assert_int_equal(donations, 4);
    assert_false(run.done);
    assert_true(guest.done);
    assert_int_equal(guest.rc, 0);
    host->arch.hvc = cpu_hvc;
    end_vm(w);
}

/* A page that the host has shared with EL2 is not the host's to give. */
static void a_page_in_another_state(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 5 * P};

    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(gmem_fallocate(w->gmem, 1, 5 * P, P, &w->caller), 0);
    assert_int_equal(host_hvc(host, 0, HVC_host_share_hyp, pfn_of(w, 5), 0, 0, 0), 0);
    start_run(w, &run);
    start_guest(w, &guest);
    assert_true(run.done);
    assert_int_equal(run.rc, -EPERM);
    assert_int_equal(run.run.exit_reason, 0);
    assert_int_equal(host_hvc(host, 0, HVC_host_unshare_hyp, pfn_of(w, 5), 0, 0, 0), 0);
    start_run(w, &run);
    assert_true(guest.done);
    assert_int_equal(guest.rc, 0);
    end_vm(w);
}

/* What EL2 asks for its tables is paid first: without it nothing is allocated. */
static void memcache_comes_first(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    struct run_job run = {.vcpu = w->vcpu};
    struct guest_job guest = {.vcpu = w->vcpu, .gpa = 6 * P};
    struct frames *frames = &host->frames, saved;
    struct page_report page;

    sw_must(sw_convert(w, 0, 16, true), 0);
    start_run(w, &run);
    saved = *frames;
    /* No frame is left, neither fresh nor freed. */
    frames->bump = frames->nr;
    memset(frames->free_head, 0, sizeof(frames->free_head));
    start_guest(w, &guest);
    assert_true(run.done);
    assert_int_equal(run.rc, -ENOMEM);
    assert_int_equal(run.run.exit_reason, 0);
    gmem_page_report(w->gmem, 6, &page);
    assert_false(page.allocated);
    frames->bump = saved.bump;
    memcpy(frames->free_head, saved.free_head, sizeof(frames->free_head));
    sw_audit(w);
    start_run(w, &run);
    assert_true(guest.done);
    assert_int_equal(guest.rc, 0);
    end_vm(w);
}

SIMWORLD(from_el0, .unilateral = false)
SIMWORLD(from_el1_with_a_fixup, .unilateral = false)
SIMWORLD(from_el1, .no_vmm = true)
SIMWORLD(what_cannot_be_taken, .unilateral = false)
SIMWORLD(answers_of_el2, .no_vmm = true)
SIMWORLD(a_page_in_another_state, .no_vmm = true)
SIMWORLD(memcache_comes_first, .no_vmm = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(injected_esr),
        cmocka_unit_test(test_from_el0),
        cmocka_unit_test(test_from_el1_with_a_fixup),
        cmocka_unit_test(test_from_el1),
        cmocka_unit_test(test_what_cannot_be_taken),
        cmocka_unit_test(test_answers_of_el2),
        cmocka_unit_test(test_a_page_in_another_state),
        cmocka_unit_test(test_memcache_comes_first),
    };

    return cmocka_run_group_tests_name("host_abort", tests, NULL, NULL);
}
