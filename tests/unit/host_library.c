/* SPDX-License-Identifier: BSD-2-Clause */
/* The library of RFC v2, and what happens around a file: initial images, the last close, a second VM. */
#include "src/host/library.h"

#include <errno.h>
#include <string.h>

#include "src/host/internal.h"
#include "src/host/mm.h"
#include "src/host/populate.h"
#include "tests/common/simworld.h"

#define P HOST_PAGE_SIZE

static struct library_counts counts(struct simworld *w, uint64_t page)
{
    struct library_counts c;
    library_counts(w->gmem, page, &c);
    return c;
}

static enum sim_access touch(struct simworld *w, uint64_t page)
{
    char byte;
    return sim_host_read(w->sim, w->mm, w->va + page * P, &byte, 1);
}

static uint64_t pfn_of(struct simworld *w, uint64_t page)
{
    struct page_report r;
    gmem_page_report(w->gmem, page, &r);
    return r.pfn;
}

static char problems[4][300];
static unsigned nr_problems;

static void note(void *ctx, const char *text)
{
    (void)ctx;
    snprintf(problems[nr_problems++ % 4], sizeof(problems[0]), "%s", text);
}

static void expect_problem(struct simworld *w, const char *words)
{
    bool found = false;
    nr_problems = 0;
    machine_audit(w->machine, note, NULL, NULL);
    for (unsigned i = 0; i < nr_problems && i < 4; i++)
        found = found || strstr(problems[i], words);
    if (!found)
        fail_msg("%u problems, none says \"%s\": %s", nr_problems, words, nr_problems ? problems[0] : "");
}

#define LIBRARY .no_vmm = true, .variant = {.policy = GMEM_POLICY_SAFE_COUNT, .rfc_library = true}

static void counters(struct simworld *w)
{
    struct ref *grab, *get;
    struct library_counts c;

    assert_int_equal(library_make_inaccessible(w->gmem, 0, &w->caller), -EINVAL); /* no folio */
    assert_int_equal(library_grab(w->gmem, 0, true, &grab, &w->caller), 0);
    c = counts(w, 0);
    assert_int_equal(c.accessible, 1);
    assert_int_equal(c.safe, 2);
    assert_int_equal(c.refcount, c.safe);
    library_put(grab, true);
    assert_int_equal(touch(w, 0), SIM_OK);
    c = counts(w, 0);
    assert_int_equal(c.accessible, 0);
    assert_int_equal(c.safe, 1);
    assert_int_equal(c.refcount, 2); /* the PTE's is not a safe one */
    assert_int_equal(library_make_inaccessible(w->gmem, 0, &w->caller), 0);
    c = counts(w, 0);
    assert_true(c.inaccessible && !c.direct_map);
    assert_int_equal(c.zaps, 1);
    assert_int_equal(library_make_inaccessible(w->gmem, 0, &w->caller), 0);
    assert_int_equal(counts(w, 0).zaps, 1);
    sw_audit(w);

    /* Somebody wants it accessible: nobody makes it inaccessible under him. */
    assert_int_equal(library_make_accessible(w->gmem, 0, &w->caller), 0);
    assert_int_equal(library_make_accessible(w->gmem, 0, &w->caller), 0);
    assert_int_equal(counts(w, 0).accessible, 2);
    assert_int_equal(library_make_inaccessible(w->gmem, 0, &w->caller), -EBUSY);
    assert_int_equal(counts(w, 0).accessible, 2);
    assert_int_equal(library_grab(w->gmem, 99, false, &grab, &w->caller), -EINVAL);

    assert_int_equal(touch(w, 1), SIM_OK);
    assert_int_equal(gmem_pin(w->gmem, P, P, REF_FOLL_GET, "vmsplice", &get, &w->caller), 0);
    uint64_t before = sched_now();
    assert_int_equal(library_make_accessible(w->gmem, 1, &w->caller), 0);
    assert_int_equal(library_make_inaccessible(w->gmem, 1, &w->caller), -EBUSY);
    assert_int_equal(sched_now() - before, 10000000);
    c = counts(w, 1);
    assert_true(!c.inaccessible && c.direct_map && c.accessible == 1 && c.zaps == 1);
    gmem_unpin(get);
    assert_int_equal(library_make_inaccessible(w->gmem, 1, &w->caller), 0);
    sw_audit(w);
}
SIMWORLD(counters, LIBRARY)

static void hypervisor_says_no(struct simworld *w)
{
    uint64_t pfn;
    char buf[8];
    struct host *host = machine_host(w->machine);
    assert_int_equal(touch(w, 0), SIM_OK);
    assert_int_equal(library_make_inaccessible(w->gmem, 0, &w->caller), 0);
    pfn = pfn_of(w, 0);
    /* No entry in the direct map: a stage-1 fault, of that task only. */
    assert_int_equal(sim_kernel_load(w->sim, pfn, false, buf, 8), SIM_OOPS);
    assert_int_equal(sim_kernel_load(w->sim, pfn, true, buf, 8), SIM_EFAULT);
    assert_int_equal(host_hyp_refuse(host, HYP_OP_MAKE_SHARED, pfn, true), 0);
    assert_int_equal(touch(w, 0), SIM_SIGBUS);
    struct library_counts c = counts(w, 0);
    assert_true(c.inaccessible && !c.direct_map);
    /* What was restored for the answer is zapped again. */
    assert_int_equal(c.restores, 1);
    assert_int_equal(c.zaps, 2);
    assert_int_equal(c.refcount, 1);
    assert_int_equal(host_hyp_refuse(host, HYP_OP_MAKE_SHARED, pfn, false), 0);
    assert_int_equal(host_hyp_refuse(host, HYP_OP_MAKE_SHARED, pfn, false), -ENOENT);
    assert_int_equal(touch(w, 0), SIM_OK);
    assert_true(!counts(w, 0).inaccessible && counts(w, 0).direct_map);
    /* And the other way. */
    assert_int_equal(host_hyp_refuse(host, HYP_OP_MAKE_PRIVATE, pfn, true), 0);
    assert_int_equal(library_make_inaccessible(w->gmem, 0, &w->caller), -EPERM);
    assert_true(!counts(w, 0).inaccessible && counts(w, 0).direct_map);
    sw_audit(w);
}
SIMWORLD(hypervisor_says_no, LIBRARY)

/* v4: a punch that the hypervisor does not allow truncates nothing. */
static void punch_is_refused(struct simworld *w)
{
    assert_int_equal(library_make_inaccessible(w->gmem, 2, &w->caller), -EINVAL);
    sw_must(sw_convert(w, 0, 4, true), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(sim_guest_write(w->vcpu, i * P, "guest", 6), 0);
    host_hyp_refuse(machine_host(w->machine), HYP_OP_RECLAIM, pfn_of(w, 2), true);
    assert_int_equal(gmem_fallocate(w->gmem, 3, 2 * P, 2 * P, &w->caller), -EBUSY);
    assert_int_not_equal(pfn_of(w, 3), 0);
    host_hyp_refuse(machine_host(w->machine), HYP_OP_RECLAIM, pfn_of(w, 2), false);
    sw_must(gmem_fallocate(w->gmem, 3, 2 * P, 2 * P, &w->caller), 0);
    assert_int_equal(pfn_of(w, 2), 0);
}
SIMWORLD(punch_is_refused, .variant = {.rfc_library = true})

/* RFC v2: the page is freed, though the guest has it still. */
static void punch_frees_a_guests_page(struct simworld *w)
{
    sw_must(sw_convert(w, 0, 4, true), 0);
    assert_int_equal(sim_guest_write(w->vcpu, 2 * P, "guest", 6), 0);
    host_hyp_refuse(machine_host(w->machine), HYP_OP_RECLAIM, pfn_of(w, 2), true);
    assert_int_equal(gmem_fallocate(w->gmem, 3, 2 * P, P, &w->caller), 0);
    assert_int_equal(pfn_of(w, 2), 0);
    expect_problem(w, "I3: free frame");
    /* The next owner of the frame cannot reach it. */
    assert_int_equal(touch(w, 4), SIM_SIGSEGV);
}
SIMWORLD(punch_frees_a_guests_page, .variant = {.bugs = HOST_BUG(PUNCH_IGNORES_INVALIDATE)})

static void last_close(struct simworld *w)
{
    bool buggy = w->variant.bugs != 0;
    sw_must(sw_convert(w, 0, 4, true), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(sim_guest_write(w->vcpu, i * P, "guest", 6), 0);
    uint64_t pfn = pfn_of(w, 0);
    gmem_release(w->gmem);
    assert_int_equal(pfn_of(w, 0), 0);
    struct s2_walk walk;
    mmu_walk_host(w->machine, pfn, &walk);
    /* A free frame that EL2 keeps for a guest. */
    assert_int_equal(walk.annotated, buggy);
}
SIMWORLD(last_close, .no_oracle = false)
static void last_close_buggy(struct simworld *w)
{
    last_close(w);
}
SIMWORLD(last_close_buggy, .variant = {.bugs = HOST_BUG(DETACH_BEFORE_TRUNCATE)})

/* ---- initial images ------------------------------------------------------------------------------------------------
 */

static void populate(struct simworld *w)
{
    assert_int_equal(sim_host_write(w->sim, w->mm, w->va + 8 * P, "image", 6), SIM_OK);
    assert_int_equal(sim_host_write(w->sim, w->mm, w->va + 3 * P, "inplace", 8), SIM_OK);
    assert_int_equal(gmem_populate(w->vm, 2, 1, w->mm, w->va + 8 * P, &w->caller), -EINVAL); /* shared still */
    sw_must(sw_convert(w, 0, 4, true), 0);
    assert_int_equal(gmem_populate(w->vm, 2, 1, w->mm, w->va + 8 * P + 16, &w->caller), -EINVAL);
    assert_int_equal(gmem_populate(w->vm, 99, 1, w->mm, w->va + 8 * P, &w->caller), -EINVAL);
    /* The source is in the same file. */
    sw_must(gmem_populate(w->vm, 2, 1, w->mm, w->va + 8 * P, &w->caller), 0);
    sw_must(gmem_populate(w->vm, 3, 1, NULL, 0, &w->caller), 0);
    assert_int_equal(gmem_populate(w->vm, 2, 1, w->mm, w->va + 3 * P, &w->caller), -EFAULT); /* private source */
}
SIMWORLD(populate, .no_vmm = true)

static void populate_wrong_order(struct simworld *w)
{
    assert_int_equal(touch(w, 8), SIM_OK);
    sw_must(sw_convert(w, 0, 4, true), 0);
    assert_int_equal(gmem_populate(w->vm, 2, 1, w->mm, w->va + 8 * P, &w->caller), -EDEADLK);
    expect_problem(w, "possible circular locking dependency: invalidate_lock -> mmap_lock");
}
SIMWORLD(populate_wrong_order, .no_vmm = true, .variant = {.bugs = HOST_BUG(POPULATE_LOCK_ORDER)})

/* ---- two VMs -------------------------------------------------------------------------------------------------------
 */

static void two_vms(struct simworld *w)
{
    struct vm *other, *foreign;
    struct vm_config config = w->variant, pkvm = {.is_protected = true};
    assert_int_equal(vm_create(machine_host(w->machine), &config, &other, &w->caller), 0);
    assert_int_equal(vm_create(machine_host(w->machine), &pkvm, &foreign, &w->caller), 0);
    assert_int_equal(vm_set_memory_region(other, 0, 0, 0, 16 * P, w->gmem, 0, &w->caller), -EINVAL);
    assert_int_equal(gmem_link(w->gmem, foreign, &w->caller), -EINVAL);
    assert_int_equal(gmem_link(w->gmem, other, &w->caller), 0);
    assert_int_equal(vm_set_memory_region(other, 0, 0, 0, 16 * P, w->gmem, 0, &w->caller), 0);
    /* The same range twice in one VM. */
    assert_int_equal(vm_set_memory_region(other, 1, 0, 32 * P, 4 * P, w->gmem, 0, &w->caller), -EEXIST);
    sw_audit(w);
    assert_int_equal(vm_destroy(foreign, &w->caller), 0);
    assert_int_equal(vm_destroy(other, &w->caller), 0);
}
SIMWORLD(two_vms, .variant = {.hyp = GMEM_HYP_SW_PROTECTED})

static void toggled_slot(struct simworld *w)
{
    bool buggy = w->variant.bugs != 0;
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 16 * P, NULL, 0, &w->caller), buggy ? 0 : -EINVAL);
    assert_int_equal(vm_set_memory_region(w->vm, 0, 1, 0, 16 * P, w->gmem, 0, &w->caller), -EINVAL);
    assert_int_equal(vm_set_memory_region(w->vm, 0, 2, 0, 16 * P, w->gmem, 0, &w->caller), -EINVAL);
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 0, NULL, 0, &w->caller), 0);
    mm_free(w->mm);
    w->mm = NULL;
    gmem_put(w->gmem);
    w->gmem = NULL;
    if (buggy)
        expect_problem(w, "use-after-free");
    sw_audit(w);
}
SIMWORLD(toggled_slot, .no_vmm = true)
static void toggled_slot_buggy(struct simworld *w)
{
    toggled_slot(w);
}
SIMWORLD(toggled_slot_buggy, .no_vmm = true, .variant = {.bugs = HOST_BUG(SLOT_TOGGLE)})

/* ---- interfaces ----------------------------------------------------------------------------------------------------
 */

static void vm_attributes(struct simworld *w)
{
    struct gmem_busy busy;
    struct ref *ref;
    assert_int_equal(sw_convert(w, 3, 1, true), -ENOTTY);
    assert_int_equal(vm_set_attributes(w->vm, 3 * P, P, 8, 1, &w->caller, &busy), -EINVAL);
    assert_int_equal(vm_set_attributes(w->vm, 3 * P, P, 4, 0, &w->caller, &busy), -EINVAL);
    assert_int_equal(vm_set_attributes(w->vm, 3 * P, 0, 8, 0, &w->caller, &busy), -EINVAL);
    assert_int_equal(vm_set_attributes(w->vm, 3 * P + 1, P, 8, 0, &w->caller, &busy), -EINVAL);
    assert_int_equal(vm_set_attributes(w->vm, UINT64_C(1) << 40, P, 8, 0, &w->caller, &busy), -EINVAL);
    sw_must(vm_set_attributes(w->vm, 3 * P, P, 8, 0, &w->caller, &busy), 0);
    assert_int_equal(touch(w, 3), SIM_SIGBUS);
    assert_int_equal(touch(w, 4), SIM_OK);
    /* Beyond the slot it is a wish for memory that is not there yet. */
    sw_must(vm_set_attributes(w->vm, 14 * P, 8 * P, 8, 0, &w->caller, &busy), 0);
    assert_int_equal(touch(w, 15), SIM_SIGBUS);
    assert_int_equal(gmem_pin(w->gmem, 5 * P, P, REF_FOLL_GET, "x", &ref, &w->caller), 0);
    sw_must(vm_set_attributes(w->vm, 4 * P, 4 * P, 8, 0, &w->caller, &busy), -EAGAIN);
    assert_int_equal(busy.error_offset, 5 * P);
    gmem_unpin(ref);
    /* The VM goes, and what it knew of the file goes with it. */
    assert_int_equal(vm_destroy(w->vm, &w->caller), 0);
    w->vm = NULL;
    sw_audit(w);
    assert_int_equal(touch(w, 3), SIM_OK);
}
SIMWORLD(vm_attributes, .no_vmm = true, .variant = {.tracker = GMEM_TRACKER_VM})

static void hyp_tracker(struct simworld *w)
{
    struct host_counts before, after;
    char seen[8] = "";
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "hello", 6), SIM_OK);
    sw_must(sw_convert(w, 3, 1, true), 0);
    /* The hypervisor knows of no change: the host faults the page in again. */
    host_counts(machine_host(w->machine), &before);
    assert_int_equal(touch(w, 3), SIM_OK);
    host_counts(machine_host(w->machine), &after);
    assert_int_equal(after.hyp_asked, before.hyp_asked + 1);
    sw_must(sw_convert(w, 3, 1, true), 0);
    assert_int_equal(sim_guest_read(w->vcpu, 3 * P, seen, 6), 0);
    assert_string_equal(seen, "hello");
    sw_audit(w);
    assert_int_not_equal(touch(w, 3), SIM_OK);
}
SIMWORLD(hyp_tracker, .variant = {.tracker = GMEM_TRACKER_HYP})

static void firmware_kills_the_host(struct simworld *w)
{
    char buf[16];
    sw_must(sw_convert(w, 3, 1, true), 0);
    assert_int_equal(sim_guest_write(w->vcpu, 3 * P, "secret", 7), 0);
    assert_null(host_dead(machine_host(w->machine)));
    assert_int_equal(sim_kernel_load(w->sim, pfn_of(w, 3), true, buf, 16), SIM_OOPS);
    assert_non_null(host_dead(machine_host(w->machine)));
    expect_problem(w, "machine check");
    assert_int_equal(sw_convert(w, 4, 1, true), -EIO);
    assert_non_null(strstr(w->caller.message, "the host is dead"));
    assert_int_equal(gmem_fallocate(w->gmem, 3, 0, P, &w->caller), -EIO);
}
SIMWORLD(firmware_kills_the_host, .variant = {.hyp = GMEM_HYP_FIRMWARE})

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_hypervisor_says_no),
        cmocka_unit_test(test_punch_is_refused),
        cmocka_unit_test(test_punch_frees_a_guests_page),
        cmocka_unit_test(test_last_close),
        cmocka_unit_test(test_last_close_buggy),
        cmocka_unit_test(test_populate),
        cmocka_unit_test(test_populate_wrong_order),
        cmocka_unit_test(test_two_vms),
        cmocka_unit_test(test_toggled_slot),
        cmocka_unit_test(test_toggled_slot_buggy),
        cmocka_unit_test(test_vm_attributes),
        cmocka_unit_test(test_hyp_tracker),
        cmocka_unit_test(test_firmware_kills_the_host),
    };
    return cmocka_run_group_tests_name("host_library", tests, NULL, NULL);
}
