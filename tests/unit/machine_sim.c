/* SPDX-License-Identifier: BSD-2-Clause */
/* The model end to end on the simulated stage: EL1, EL2 and MMU together. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <string.h>

#include "fakehyp/hypercall.h"

static void first_light(struct simworld *w)
{
    char buf[16];
    int64_t x0;

    /* The VMM loads an image into shared memory. */
    sw_must(sim_host_write(w->sim, w->mm, w->va, "image", 6), SIM_OK);
    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va, buf, 6), SIM_SIGBUS);

    /* The guest finds it in its own memory and writes a secret. */
    sw_must(sim_guest_read(w->vcpu, 0, buf, 6), 0);
    assert_string_equal(buf, "image");
    sw_must(sim_guest_write(w->vcpu, 0x1000, "secret", 7), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x1000, buf, 7), SIM_SIGBUS);

    /* Share: EL2 first, then the VMM's conversion; same frame before and after. */
    struct page_report before, after;
    gmem_page_report(w->gmem, 1, &before);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, 0x1000, 0, 0}, &x0), 0);
    assert_int_equal(x0, 0);
    gmem_page_report(w->gmem, 1, &after);
    assert_int_equal(before.pfn, after.pfn);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x1000, buf, 7), SIM_OK);
    assert_string_equal(buf, "secret");

    /* Consent mode: a pin stands in the way, the guest is refused and may retry. */
    struct ref *pin;
    sw_must(gmem_pin(w->gmem, 0x1000, 0x1000, REF_FOLL_PIN, "disk0", &pin, &w->caller), 0);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_UNSHARE, 0x1000, 0, 0}, &x0), 0);
    assert_int_equal(x0, SMCCC_RET_INVALID_PARAMETER);
    assert_int_equal(w->last_convert, -EAGAIN);
    assert_int_equal(w->busy.error_offset, 0x1000);
    assert_string_equal(w->busy.holders[0].what, "disk0");
    gmem_unpin(pin);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_UNSHARE, 0x1000, 0, 0}, &x0), 0);
    assert_int_equal(x0, 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x1000, buf, 7), SIM_SIGBUS);
}

static void unilateral(struct simworld *w)
{
    char buf[16];
    int64_t x0;
    struct ref *pin;

    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x2000, "mine", 5), 0);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, 0x2000, 0, 0}, &x0), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x2000, buf, 5), SIM_OK);
    sw_must(gmem_pin(w->gmem, 0x2000, 0x1000, REF_LONGTERM, "vfio", &pin, &w->caller), 0);
    w->convert_on_exit = false;
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_UNSHARE, 0x2000, 0, 0}, &x0), 0);
    assert_int_equal(x0, 0);
    /* The file still says shared; stage 2 alone refuses. */
    assert_false(gmem_is_private(w->gmem, 2));
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x2000, buf, 5), SIM_SIGSEGV);
    assert_int_equal(sw_convert(w, 2, 1, true), -EAGAIN);
    gmem_unpin(pin);
    sw_must(sw_convert(w, 2, 1, true), 0);
    sw_must(sim_guest_read(w->vcpu, 0x2000, buf, 5), 0);
    assert_string_equal(buf, "mine");
}

static void lying_vmm(struct simworld *w)
{
    char buf[16];

    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x3000, "secret", 7), 0);
    /* The attribute changes, EL2 does not honour it. */
    sw_must(sw_convert(w, 3, 1, false), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x3000, buf, 7), SIM_SIGSEGV);
    assert_int_equal(gmem_pin(w->gmem, 0x3000, 0x1000, REF_FOLL_PIN, "x", &(struct ref *){0}, &w->caller), -EFAULT);
    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_must(sim_guest_read(w->vcpu, 0x3000, buf, 7), 0);
    assert_string_equal(buf, "secret");
}

static void kernel_access_poisons(struct simworld *w)
{
    char buf[16] = "x";
    struct page_report page;

    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x4000, "secret", 7), 0);
    gmem_page_report(w->gmem, 4, &page);
    sw_must(sim_kernel_load(w->sim, page.pfn, false, buf, 7), 0);
    assert_int_equal(buf[0], 0);
    assert_int_equal(sim_guest_read(w->vcpu, 0x4000, buf, 7), -ESRCH);
    assert_int_equal(w->run_rc, -EFAULT);
    assert_int_equal(w->run.exit_reason, 0);
}

struct load_job {
    struct simworld *w;
    uint64_t pfn;
    char buf[8];
    int rc;
    bool done;
};

static void load_task(void *arg)
{
    struct load_job *job = arg;
    job->rc = sim_kernel_load(job->w->sim, job->pfn, false, job->buf, sizeof(job->buf));
    job->done = true;
}

struct hvc_job {
    struct simworld *w;
    uint64_t x[4];
    int rc;
    bool done;
};

static void hvc_task(void *arg)
{
    struct hvc_job *job = arg;
    int64_t x0;
    job->rc = sim_guest_hvc(job->w->vcpu, job->x, &x0);
    job->done = true;
}

/* EL2 gave the page to the guest and takes it away again while its bytes are still on the way: none may survive. */
static void kernel_access_during_a_move(struct simworld *w)
{
    struct hvc_job unshare = {.w = w, .x = {SMCCC_MEM_UNSHARE, 0x2000}};
    struct load_job load = {.w = w, .buf = "x"};
    struct page_report page;
    char buf[8];
    int64_t x0;

    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x2000, "secret", 7), 0);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, 0x2000, 0, 0}, &x0), 0);
    gmem_page_report(w->gmem, 2, &page);
    load.pfn = page.pfn;
    w->convert_on_exit = false;
    sw_stop_at(w, "stage:moved");
    sw_spawn(w, hvc_task, &unshare);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_spawn(w, load_task, &load);
    sw_settle(w);
    sw_go(w);
    sw_settle(w);
    assert_true(unshare.done && load.done);
    assert_int_equal(load.rc, 0);
    assert_memory_equal(load.buf, "\0\0\0\0\0\0\0", 8);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x2000, buf, 8), SIM_OK);
    assert_memory_equal(buf, "\0\0\0\0\0\0\0", 8);
}

static void punch_task(void *arg)
{
    struct simworld *w = arg;
    struct caller caller = {0};
    assert_int_equal(gmem_fallocate(w->gmem, 3, 0x2000, 0x1000, &caller), 0);
}

/* The page has left the file, and the guest, by the time that the access gets the file's lock: it is only repeated. */
static void kernel_access_behind_a_punch(struct simworld *w)
{
    struct sw_job convert = {.w = w, .page = 15, .nr = 1};
    struct load_job load = {.w = w, .buf = "x"};
    const struct trace_entry *e;
    struct page_report page;

    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x2000, "secret", 7), 0);
    gmem_page_report(w->gmem, 2, &page);
    load.pfn = page.pfn;
    sw_stop_at(w, "convert:locked");
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_spawn(w, punch_task, w);
    sw_settle(w);
    sw_spawn(w, load_task, &load);
    sw_settle(w);
    uint64_t seq = trace_next(machine_trace(w->machine));
    sw_go(w);
    sw_settle(w);
    assert_true(convert.done && load.done);
    assert_int_equal(load.rc, 0);
    assert_int_equal(load.buf[0], 0);
    for (; (e = trace_get(machine_trace(w->machine), seq)); seq++)
        assert_int_not_equal(e->event.kind, HOST_EV_hvc);
    sw_audit(w);
}

static void punch_of_owned_page(struct simworld *w)
{
    char buf[16];

    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x5000, "secret", 7), 0);
    sw_must(gmem_fallocate(w->gmem, 3, 0x5000, 0x1000, &w->caller), 0);
    assert_int_equal(sim_guest_read(w->vcpu, 0x5000, buf, 7), -ESRCH);
    assert_int_equal(w->run_rc, -EFAULT);
}

static void guest_touches_shared(struct simworld *w)
{
    char buf[4];
    /* INIT_SHARED: the first guest access exits with a memory fault, the VMM converts, the guest goes on. */
    sw_must(sim_guest_read(w->vcpu, 0x6000, buf, 1), 0);
    assert_int_equal(w->memory_faults, 1);
    assert_true(gmem_is_private(w->gmem, 6));
}

SIMWORLD_TEST(first_light, false)
SIMWORLD_TEST(unilateral, true)
SIMWORLD_TEST(lying_vmm, false)
SIMWORLD_TEST(kernel_access_poisons, false)
SIMWORLD_TEST(kernel_access_during_a_move, true)
SIMWORLD_TEST(kernel_access_behind_a_punch, false)
SIMWORLD_TEST(punch_of_owned_page, false)
SIMWORLD_TEST(guest_touches_shared, false)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_light),
        cmocka_unit_test(test_unilateral),
        cmocka_unit_test(test_lying_vmm),
        cmocka_unit_test(test_kernel_access_poisons),
        cmocka_unit_test(test_kernel_access_during_a_move),
        cmocka_unit_test(test_kernel_access_behind_a_punch),
        cmocka_unit_test(test_punch_of_owned_page),
        cmocka_unit_test(test_guest_touches_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
