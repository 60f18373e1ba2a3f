/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What upstream's finalize_teardown_vm leaves behind when pages were never
 * reclaimed.  EL2 here refuses (EBUSY); the tests talk it into going on, and
 * show why it does not: the annotation outlives the VM that it names.
 */
#include "tests/unit/el2_harness.h"

#include <string.h>

#define GFN UINT64_C(0x40)

struct fixture {
    struct el2 *el2;
    struct el2_vm vm;
    uint64_t pfn; /* the page that nobody reclaimed */
};

static struct fixture fixture;

static void load(struct fixture *f, const struct el2_vm *vm)
{
    EL2_CALL(f->el2, vcpu_load, vm->handle, 0);
    el2_topup(f->el2, vm, 0, 3);
}

/* Past the oracle, which knows better. */
static int64_t unjudged(struct fixture *f, enum hyp_host_call n, uint64_t arg)
{
    uint64_t regs[8] = {HVC_HOST_BASE + n, arg};

    hyp_host_hvc(f->el2->hyp, 0, regs);
    return (int64_t)regs[1];
}

/* A VM whose one page is still donated when it is gone. */
static int set_up(void **state)
{
    struct fixture *f = *state = &fixture;

    f->el2 = el2_new(NULL);
    el2_vm_new(f->el2, &f->vm, true, HYP_UNSHARE_CONSENT, 1);
    load(f, &f->vm);
    f->pfn = el2_frames(f->el2, 1, 1);
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, f->pfn, GFN), 0);
    el2_fill(f->el2, f->pfn << 12, 0x5e);
    EL2_CALL(f->el2, vcpu_put);
    assert_int_equal(EL2_CALL(f->el2, start_teardown_vm, f->vm.handle), 0);
    assert_int_equal(EL2_CALL(f->el2, finalize_teardown_vm, f->vm.handle), -HYP_EBUSY);
    /* From here on as upstream, which keeps no count of a guest's pages; no check of the whole may look. */
    f->el2->check = false;
    f->el2->inner_calls = true;
    hyp_vm_find(f->el2->hyp, f->vm.handle)->nr_mapped = 0;
    assert_int_equal(unjudged(f, HVC_finalize_teardown_vm, f->vm.handle), 0);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    el2_free(f->el2);
    return 0;
}

static struct hyp_frame_info info(const struct fixture *f)
{
    struct hyp_frame_info out;
    assert_int_equal(hyp_frame_info(f->el2->hyp, f->pfn, &out), 0);
    return out;
}

/* Nobody's page: its owner is gone, its host cannot have it back, its contents stay. */
static void the_host_retries_for_ever(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(hyp_host_abort(f->el2->hyp, 0, f->pfn << 12, false), HYP_ABORT_INJECT);
        assert_int_equal(EL2_CALL(f->el2, force_reclaim_guest_page, f->pfn << 12), -HYP_EAGAIN);
    }
    assert_int_equal(EL2_CALL(f->el2, reclaim_dying_guest_page, f->vm.handle, GFN), -HYP_EINVAL);
    assert_int_equal(info(f).host, PKVM_PAGE_NOPAGE);
    assert_int_equal(info(f).handle, f->vm.handle);
    assert_int_equal(info(f).gfn, GFN);
    assert_int_equal(*(uint8_t *)el2_virt(f->el2, f->pfn << 12), 0x5e);
}

/* A new VM is given the handle, and with it what the annotation says. */
static void a_later_vm_seems_to_own_it(void **state)
{
    struct fixture *f = *state;
    struct el2_vm other;
    struct hyp_guest_leaf leaf;
    jmp_buf panic;

    el2_vm_new(f->el2, &other, true, HYP_UNSHARE_CONSENT, 1);
    assert_int_equal(other.handle, f->vm.handle);
    load(f, &other);
    assert_int_equal(info(f).handle, other.handle);
    assert_int_equal(hyp_guest_leaf(f->el2->hyp, (uint32_t)other.handle, GFN, &leaf), 0);
    assert_int_equal(leaf.state, PKVM_PAGE_NOPAGE);
    assert_int_equal(EL2_CALL(f->el2, force_reclaim_guest_page, f->pfn << 12), -HYP_ENOENT);
    /* It gets a page of its own there, and a stray access of the host to the old one ends EL2. */
    uint64_t own = el2_frames(f->el2, 1, 1);
    assert_int_equal(EL2_CALL(f->el2, host_donate_guest, own, GFN), 0);
    f->el2->on_panic = &panic;
    if (!setjmp(panic)) {
        unjudged(f, HVC_force_reclaim_guest_page, f->pfn << 12);
        fail_msg("EL2 goes on");
    }
    f->el2->on_panic = NULL;
    assert_non_null(strstr(f->el2->panic, "annotation and guest leaf disagree"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_host_retries_for_ever, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_later_vm_seems_to_own_it, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("el2_stale", tests, NULL, NULL);
}
