/* SPDX-License-Identifier: BSD-2-Clause */
/* The five policies, the same situations under each. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <string.h>

#include "src/host/internal.h"

#define P HOST_PAGE_SIZE

static struct page_report report(struct simworld *w, uint64_t page)
{
    struct page_report r;
    gmem_page_report(w->gmem, page, &r);
    return r;
}

static struct ref *pin(struct simworld *w, uint64_t page, enum ref_kind kind)
{
    struct ref *ref = NULL;
    assert_int_equal(gmem_pin(w->gmem, page * P, P, kind, "disk", &ref, &w->caller), 0);
    return ref;
}

static enum sim_access touch(struct simworld *w, uint64_t page)
{
    char byte;
    return sim_host_read(w->sim, w->mm, w->va + page * P, &byte, 1);
}

/* ---- A ------------------------------------------------------------------------------------------------------------
 */

static void naive_sees_pins_and_not_gets(struct simworld *w)
{
    struct ref *ref = pin(w, 3, REF_FOLL_PIN);
    sw_must(sw_convert(w, 3, 1, true), -EAGAIN);
    assert_int_equal(w->busy.error_offset, 3 * P);
    gmem_unpin(ref);
    ref = pin(w, 3, REF_FOLL_GET);
    /* The mistake: vmsplice holds the page, and it is private. */
    assert_int_equal(sw_convert(w, 3, 1, true), 0);
    assert_true(report(w, 3).private);
    assert_int_equal(report(w, 3).refcount, 2);
    gmem_unpin(ref);
    sw_must(sw_convert(w, 3, 1, false), 0);
}
SIMWORLD(naive_sees_pins_and_not_gets, .no_vmm = true, .variant.policy = GMEM_POLICY_NAIVE)

static void naive_takes_many_gets_for_a_pin(struct simworld *w)
{
    struct ref *refs[1023];
    sw_must(touch(w, 6), SIM_OK);
    for (unsigned i = 0; i < 1023; i++)
        refs[i] = pin(w, 6, REF_FOLL_GET);
    sw_must(sw_convert(w, 6, 1, true), -EAGAIN);
    assert_int_equal(report(w, 6).refcount, 1024);
    gmem_unpin(refs[0]);
    assert_int_equal(sw_convert(w, 6, 1, true), 0);
    for (unsigned i = 1; i < 1023; i++)
        gmem_unpin(refs[i]);
}
SIMWORLD(naive_takes_many_gets_for_a_pin, .no_vmm = true, .variant.policy = GMEM_POLICY_NAIVE)

/* ---- B ------------------------------------------------------------------------------------------------------------
 */

struct late_unpin {
    struct ref *ref;
    uint64_t after_ns;
};

static void unpin_late(void *arg)
{
    struct late_unpin *late = arg;
    struct waitq nobody = {0};
    sched_wait(&nobody, late->after_ns);
    gmem_unpin(late->ref);
}

static void safe_count_waits(struct simworld *w)
{
    struct late_unpin late = {pin(w, 3, REF_FOLL_GET), UINT64_C(4000000)};
    uint64_t before = sched_now();
    sw_spawn(w, unpin_late, &late);
    sw_must(sw_convert(w, 3, 1, true), 0);
    assert_int_equal(sched_now() - before, 4000000);
    sw_must(sw_convert(w, 3, 1, false), 0);
    late = (struct late_unpin){pin(w, 3, REF_FOLL_PIN), UINT64_C(30000000)};
    before = sched_now();
    sw_spawn(w, unpin_late, &late);
    uint64_t hash = sw_hash(w->gmem);
    sw_must(sw_convert(w, 2, 3, true), -EBUSY);
    assert_int_equal(sched_now() - before, 10000000);
    assert_int_equal(w->busy.error_offset, 3 * P);
    assert_string_equal(w->busy.holders[0].what, "disk");
    assert_true(sw_hash(w->gmem) == hash);
    struct waitq nobody = {0};
    sched_wait(&nobody, 30000000);
    sw_must(sw_convert(w, 2, 3, true), 0);
}
SIMWORLD(safe_count_waits, .no_vmm = true, .variant.policy = GMEM_POLICY_SAFE_COUNT)

struct guest_read {
    struct simworld *w;
    char byte;
    bool done;
};

static void guest_read_job(void *arg)
{
    struct guest_read *job = arg;
    assert_int_equal(sim_guest_read(job->w->vcpu, 3 * P, &job->byte, 1), 0);
    job->done = true;
}

/* A vCPU waits for the lock of whoever waits for the count: with the bug its reference is one that nobody vouches for.
 */
static void safe_count_race(struct simworld *w)
{
    bool buggy = w->variant.bugs != 0;
    struct sw_job convert = {.w = w, .page = 3, .nr = 1, .to_private = true};
    struct guest_read guest = {.w = w};
    char x = 'x';
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, &x, 1), SIM_OK);
    sw_stop_at(w, "convert:unmapped");
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_spawn(w, guest_read_job, &guest);
    sw_settle(w);
    assert_false(guest.done);
    sw_go(w);
    struct waitq nobody = {0};
    sched_wait(&nobody, 20000000);
    assert_true(convert.done && guest.done);
    assert_int_equal(convert.rc, buggy ? -EBUSY : 0);
    if (buggy)
        assert_string_equal(convert.busy.holders[0].what, "vCPU waiting for the folio lock");
    assert_int_equal(guest.byte, 'x');
    sw_audit(w);
}
SIMWORLD(safe_count_race, .variant = {.policy = GMEM_POLICY_SAFE_COUNT})
static void safe_count_race_buggy(struct simworld *w)
{
    safe_count_race(w);
}
SIMWORLD(safe_count_race_buggy, .variant = {.policy = GMEM_POLICY_SAFE_COUNT, .bugs = HOST_BUG(SAFE_COUNT_RACE)})

/* ---- C ------------------------------------------------------------------------------------------------------------
 */

static void transient_until_the_last_put(struct simworld *w)
{
    sw_must(touch(w, 3), SIM_OK);
    struct ref *a = pin(w, 3, REF_FOLL_PIN), *b = pin(w, 3, REF_FOLL_GET);
    sw_must(sw_convert(w, 2, 3, true), 0);
    assert_int_equal(w->busy.transient, 1);
    assert_int_equal(w->busy.error_offset, 3 * P);
    assert_true(report(w, 3).none && report(w, 3).private);
    assert_false(report(w, 2).none);
    /* The page cache's reference is off the count, so that the last foreign one ends at 0. */
    assert_int_equal(report(w, 3).refcount, FOLL_PIN_BIAS + 1);
    sw_must(touch(w, 3), SIM_SIGBUS);
    gmem_unpin(a);
    sw_settle(w);
    assert_true(report(w, 3).none);
    gmem_unpin(b);
    sw_settle(w);
    sw_audit(w);
    assert_true(!report(w, 3).none && report(w, 3).private);
    assert_int_equal(report(w, 3).refcount, 1);
}
SIMWORLD(transient_until_the_last_put, .no_vmm = true, .variant.policy = GMEM_POLICY_TRANSIENT)

static void transient_is_cancelled(struct simworld *w)
{
    struct ref *ref = pin(w, 3, REF_FOLL_GET);
    sw_must(sw_convert(w, 3, 1, true), 0);
    assert_true(report(w, 3).none);
    sw_must(sw_convert(w, 3, 1, false), 0);
    assert_false(report(w, 3).private);
    assert_int_equal(report(w, 3).refcount, 2);
    gmem_unpin(ref);
    sw_settle(w);
    assert_false(report(w, 3).private);
    sw_must(touch(w, 3), SIM_OK);
    /* Registration by itself: a mapped page cannot have a page type. */
    assert_int_equal(gmem_register_callback(w->gmem, 3, &w->caller), -EAGAIN);
    assert_int_equal(gmem_register_callback(w->gmem, 9, &w->caller), -EINVAL);
    /* A hole punched over a typed page. */
    ref = pin(w, 3, REF_FOLL_GET);
    sw_must(sw_convert(w, 3, 1, true), 0);
    assert_int_equal(gmem_register_callback(w->gmem, 3, &w->caller), 0);
    sw_must(gmem_fallocate(w->gmem, 3, 3 * P, P, &w->caller), 0);
    gmem_unpin(ref);
    sw_settle(w);
    sw_audit(w);
}
SIMWORLD(transient_is_cancelled, .no_vmm = true, .variant.policy = GMEM_POLICY_TRANSIENT)

static unsigned splats;
static char splat_text[300];

static void count_splat(void *ctx, const char *text)
{
    (void)ctx;
    splats++;
    snprintf(splat_text, sizeof(splat_text), "%s", text);
}

static unsigned audit_says(struct simworld *w)
{
    splats = 0;
    machine_audit(w->machine, count_splat, NULL, NULL);
    return splats;
}

static void put_from_interrupt(struct simworld *w)
{
    struct ref *ref = pin(w, 3, REF_FOLL_GET);
    sw_must(sw_convert(w, 3, 1, true), 0);
    gmem_unpin_irq(ref);
    bool buggy = w->variant.bugs != 0;
    assert_int_equal(audit_says(w), buggy);
    if (buggy)
        assert_non_null(strstr(splat_text, "sleeping function called from invalid context"));
    /* Told once. */
    sw_audit(w);
    sw_settle(w);
    assert_true(report(w, 3).private && !report(w, 3).none);
}
SIMWORLD(put_from_interrupt, .no_vmm = true, .variant.policy = GMEM_POLICY_TRANSIENT)
static void put_from_interrupt_buggy(struct simworld *w)
{
    put_from_interrupt(w);
}
SIMWORLD(put_from_interrupt_buggy, .no_vmm = true, .variant.policy = GMEM_POLICY_TRANSIENT,
         .variant.bugs = HOST_BUG(ATOMIC_PUT))

/* ---- D ------------------------------------------------------------------------------------------------------------
 */

static void upstream_without_its_check(struct simworld *w)
{
    struct ref *ref = pin(w, 3, REF_FOLL_PIN);
    assert_int_equal(sw_convert(w, 3, 1, true), 0);
    assert_true(report(w, 3).private);
    gmem_unpin(ref);
}
SIMWORLD(upstream_without_its_check, .no_vmm = true, .variant.bugs = HOST_BUG(D_NO_REFCHECK))

/* ---- E ------------------------------------------------------------------------------------------------------------
 */

static void exclusive_pins(struct simworld *w)
{
    struct ref *ref = pin(w, 3, REF_FOLL_PIN), *other;
    uint64_t pfn;
    sw_must(sw_convert(w, 3, 1, true), -EBUSY);
    gmem_unpin(ref);
    sw_must(touch(w, 3), SIM_OK);
    sw_must(sw_convert(w, 3, 1, true), 0);
    assert_true(report(w, 3).private);
    /* Nobody is unmapped: before the page is the guest's in stage 2 the process reaches it still. */
    assert_true(mm_pte_present(w->mm, w->va + 3 * P, &pfn));
    assert_int_equal(touch(w, 3), SIM_OK);
    assert_int_equal(gmem_pin(w->gmem, 3 * P, P, REF_FOLL_PIN, "O_DIRECT", &other, &w->caller), -EBUSY);
    assert_int_equal(gmem_pin(w->gmem, 3 * P, P, REF_LONGTERM, "VFIO", &other, &w->caller), -EBUSY);
    /* The hole that ended the proposal. */
    assert_int_equal(gmem_pin(w->gmem, 3 * P, P, REF_FOLL_GET, "vmsplice", &other, &w->caller), 0);
    gmem_unpin(other);
    sw_must(sw_convert(w, 3, 1, false), 0);
    assert_int_equal(touch(w, 3), SIM_OK);
    ref = pin(w, 3, REF_FOLL_PIN);
    gmem_unpin(ref);
}
SIMWORLD(exclusive_pins, .no_vmm = true, .variant.policy = GMEM_POLICY_EXCLUSIVE)

/* ---- all ----------------------------------------------------------------------------------------------------------
 */

/* Nobody holds anything: all agree, mappings or not, and a round trip keeps the bytes. */
static void no_holder(struct simworld *w)
{
    char text[8] = "";
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "hello", 6), SIM_OK);
    assert_int_equal(sw_convert(w, 0, 16, true), 0);
    assert_int_equal(sw_convert(w, 0, 16, true), 0);
    assert_true(report(w, 3).private && !report(w, 3).none);
    assert_int_equal(sw_convert(w, 0, 16, false), 0);
    assert_int_equal(sim_host_read(w->sim, w->mm, w->va + 3 * P, text, 6), SIM_OK);
    assert_string_equal(text, "hello");
    sw_audit(w);
}

static void agree_without_holders(void **state)
{
    (void)state;
    for (unsigned policy = 0; policy < GMEM_POLICY_COUNT; policy++)
        for (unsigned tracker = 0; tracker < GMEM_TRACKER_VM; tracker++)
            simworld_run_with(&(struct simworld_options){
                .body = no_holder,
                .no_vmm = true,
                .variant = {.policy = (enum gmem_policy_id)policy, .tracker = (enum gmem_tracker_id)tracker}});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naive_sees_pins_and_not_gets),
        cmocka_unit_test(test_naive_takes_many_gets_for_a_pin),
        cmocka_unit_test(test_safe_count_waits),
        cmocka_unit_test(test_safe_count_race),
        cmocka_unit_test(test_safe_count_race_buggy),
        cmocka_unit_test(test_transient_until_the_last_put),
        cmocka_unit_test(test_transient_is_cancelled),
        cmocka_unit_test(test_put_from_interrupt),
        cmocka_unit_test(test_put_from_interrupt_buggy),
        cmocka_unit_test(test_upstream_without_its_check),
        cmocka_unit_test(test_exclusive_pins),
        cmocka_unit_test(agree_without_holders),
    };
    return cmocka_run_group_tests_name("host_policy", tests, NULL, NULL);
}
