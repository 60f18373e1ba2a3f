/* SPDX-License-Identifier: BSD-2-Clause */
/* fallocate(2) on a guest_memfd: the table of checks, allocation, and holes under pins, faults and guests. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fakehyp/hyp.h"

#define P INT64_C(4096)
#define KEEP FALLOC_FL_KEEP_SIZE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static uint64_t data_frames(struct simworld *w)
{
    struct host_counts c;
    host_counts(machine_host(w->machine), &c);
    return c.data_frames;
}

static struct page_report page_at(struct simworld *w, uint64_t index)
{
    struct page_report page;
    gmem_page_report(w->gmem, index, &page);
    return page;
}

static void table_on(struct simworld *w, struct gmem *gmem)
{
    static const struct {
        int mode;
        int64_t offset, length;
        int rc;
    } table[] = {
        {0, 0, P, -EOPNOTSUPP},
        {FALLOC_FL_PUNCH_HOLE, 0, P, -EOPNOTSUPP},
        {FALLOC_FL_ZERO_RANGE, 0, P, -EOPNOTSUPP},
        {FALLOC_FL_COLLAPSE_RANGE, 0, P, -EOPNOTSUPP},
        {FALLOC_FL_INSERT_RANGE, 0, P, -EOPNOTSUPP},
        {1 << 30, 0, P, -EOPNOTSUPP},
        {KEEP | FALLOC_FL_ZERO_RANGE, 0, P, -EOPNOTSUPP},
        {KEEP | FALLOC_FL_UNSHARE_RANGE, 0, P, -EOPNOTSUPP},
        {PUNCH | FALLOC_FL_ZERO_RANGE, 0, P, -EOPNOTSUPP},
        {PUNCH | (1 << 30), 0, P, -EOPNOTSUPP},
        {KEEP, 0, 5 * P, -EINVAL},
        {KEEP, 3 * P, 2 * P, -EINVAL},
        {KEEP, 4 * P, P, -EINVAL},
        {KEEP, 5 * P, P, -EINVAL},
        {KEEP, 1, P, -EINVAL},
        {KEEP, 0, P - 1, -EINVAL},
        {PUNCH, 1, P, -EINVAL},
        {PUNCH, 0, P + 1, -EINVAL},
        {PUNCH, 100 * P + 1, P, -EINVAL},
        {KEEP, 0, 0, -EINVAL},
        {PUNCH, 0, 0, -EINVAL},
        {PUNCH, -P, P, -EINVAL},
        {PUNCH, P, -P, -EINVAL},
        {PUNCH, P, INT64_MIN, -EINVAL},
        {PUNCH, INT64_MAX - P + 1, P, -EFBIG},
        {KEEP, P, INT64_MAX, -EFBIG},
        {KEEP, INT64_MAX, INT64_MAX, -EFBIG},
        /* The generic checks come first. */
        {0, -1, P, -EINVAL},
        {0, 0, 0, -EINVAL},
        {0, INT64_MAX, P, -EFBIG},
        {KEEP | FALLOC_FL_ZERO_RANGE, INT64_MAX, P, -EFBIG},
        {FALLOC_FL_COLLAPSE_RANGE, INT64_MAX, P, -EFBIG},
        {FALLOC_FL_PUNCH_HOLE, INT64_MAX, P, -EOPNOTSUPP},
        {KEEP | FALLOC_FL_INSERT_RANGE, INT64_MAX, P, -EOPNOTSUPP},
        {KEEP | (1 << 30), INT64_MAX, P, -EOPNOTSUPP},
        {1 << 30, -1, P, -EINVAL},
        {0, 1, 1, -EOPNOTSUPP},
        {PUNCH, 4 * P, P, 0},
        {PUNCH, 3 * P, 2 * P, 0},
        {PUNCH, INT64_C(1) << 50, P, 0},
        {PUNCH, 0, INT64_MAX & -P, 0},
        {KEEP, 0, 4 * P, 0},
        {KEEP, 1 * P, 2 * P, 0},
        {PUNCH, P, P, 0},
        {PUNCH, P, P, 0},
    };
    struct gmem_stats stats;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint64_t before = sw_hash(gmem);
        sw_must(gmem_fallocate(gmem, table[i].mode, table[i].offset, table[i].length, &w->caller), table[i].rc);
        if (table[i].rc)
            assert_true(sw_hash(gmem) == before);
    }
    gmem_stats(gmem, &stats);
    assert_int_equal(stats.allocated, 3);
}

static void table(struct simworld *w)
{
    for (uint64_t flags = 0; flags < 4; flags++) {
        struct gmem *gmem;
        assert_int_equal(gmem_create(w->vm, 4 * P, flags, &gmem, &w->caller), 0);
        table_on(w, gmem);
        gmem_put(gmem);
    }
}

static void allocation(struct simworld *w)
{
    char byte = 'q';
    struct gmem_stats stats;
    sw_must(sim_host_write(w->sim, w->mm, w->va + 2 * P, "k", 1), SIM_OK);
    sw_must(sw_convert(w, 3, 2, true), 0);
    sw_must(gmem_fallocate(w->gmem, KEEP, P, 5 * P, &w->caller), 0);
    assert_int_equal(data_frames(w), 5);
    /* What was there stays, what is new reads as zero, attributes are not its concern. */
    sw_must(sim_host_read(w->sim, w->mm, w->va + 2 * P, &byte, 1), SIM_OK);
    assert_int_equal(byte, 'k');
    sw_must(sim_host_read(w->sim, w->mm, w->va + P, &byte, 1), SIM_OK);
    assert_int_equal(byte, 0);
    gmem_stats(w->gmem, &stats);
    assert_int_equal(stats.private_pages, 2);
    assert_int_equal(stats.ranges, 3);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 3 * P, &byte, 1), SIM_SIGBUS);
    /* Again allocates nothing. */
    sw_must(gmem_fallocate(w->gmem, KEEP, P, 5 * P, &w->caller), 0);
    assert_int_equal(data_frames(w), 5);
}

/* The pinner keeps its page; everybody else sees a fresh one. */
static void pinned(struct simworld *w)
{
    char byte = 'q';
    struct ref *pin, *second;
    uint64_t pfn;
    struct holder_info holder;
    struct gmem *owner;
    uint64_t index;

    sw_must(sim_host_write(w->sim, w->mm, w->va + 2 * P, "k", 1), SIM_OK);
    sw_must(gmem_pin(w->gmem, P, 3 * P, REF_FOLL_PIN, "ring", &pin, &w->caller), 0);
    uint64_t held = page_at(w, 2).pfn;
    sw_must(gmem_fallocate(w->gmem, PUNCH, 2 * P, P, &w->caller), 0);
    assert_false(page_at(w, 2).allocated);
    assert_false(mm_pte_present(w->mm, w->va + 2 * P, &pfn));
    assert_int_equal(data_frames(w), 3);
    assert_false(host_frame_slot(machine_host(w->machine), held, &owner, &index));
    assert_int_equal(gmem_holders(w->gmem, 2, &holder, 1), 0);
    assert_int_equal(gmem_holders(w->gmem, 1, &holder, 1), 1);
    sw_audit(w);

    sw_must(sim_host_read(w->sim, w->mm, w->va + 2 * P, &byte, 1), SIM_OK);
    assert_int_equal(byte, 0);
    assert_true(page_at(w, 2).pfn != held);
    assert_int_equal(data_frames(w), 4);
    /* The new page is nobody's: it may become private while the old one is still pinned. */
    sw_must(sw_convert(w, 2, 1, true), 0);
    sw_must(sw_convert(w, 1, 2, true), -EAGAIN);
    assert_int_equal(w->busy.error_offset, P);
    sw_must(sw_convert(w, 2, 1, false), 0);
    /* A pin of the new page does not mix with that of the old one. */
    sw_must(gmem_pin(w->gmem, 2 * P, P, REF_FOLL_GET, "second", &second, &w->caller), 0);
    assert_int_equal(gmem_holders(w->gmem, 2, &holder, 1), 1);
    assert_string_equal(holder.what, "second");
    gmem_unpin(pin);
    assert_int_equal(data_frames(w), 3);
    sw_must(sw_convert(w, 2, 1, true), -EAGAIN);
    gmem_unpin(second);
    sw_must(sw_convert(w, 1, 3, true), 0);
}

static void attributes_stay(struct simworld *w)
{
    struct gmem_stats before, after;
    char byte = 'q';
    for (int64_t i = 0; i < 8; i++)
        sw_must(sim_host_write(w->sim, w->mm, w->va + (uint64_t)(i * P), "k", 1), SIM_OK);
    sw_must(sw_convert(w, 2, 3, true), 0);
    gmem_stats(w->gmem, &before);
    sw_must(gmem_fallocate(w->gmem, PUNCH, P, 3 * P, &w->caller), 0);
    gmem_stats(w->gmem, &after);
    assert_int_equal(after.private_pages, before.private_pages);
    assert_int_equal(after.ranges, before.ranges);
    assert_int_equal(after.allocated, before.allocated - 3);
    for (uint64_t i = 0; i < 16; i++)
        assert_int_equal(gmem_is_private(w->gmem, i), i >= 2 && i < 5);
    sw_must(sim_host_read(w->sim, w->mm, w->va + (uint64_t)P, &byte, 1), SIM_OK);
    assert_int_equal(byte, 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + (uint64_t)(2 * P), &byte, 1), SIM_SIGBUS);
    /* And bytes on the private side are as gone as those of the shared side. */
    sw_must(sw_convert(w, 2, 3, false), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + (uint64_t)(3 * P), &byte, 1), SIM_OK);
    assert_int_equal(byte, 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + (uint64_t)(4 * P), &byte, 1), SIM_OK);
    assert_int_equal(byte, 'k');
}

/* A page that a guest owns comes back zeroed, and its IPA is dead. */
static void guest_owned(struct simworld *w)
{
    char byte = 'q';
    struct hyp_frame_info info;
    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x5000, "secret", 7), 0);
    sw_must(sim_guest_write(w->vcpu, 0x6000, "other", 6), 0);
    uint64_t pfn = page_at(w, 5).pfn;
    assert_int_equal(hyp_frame_info(machine_hyp(w->machine), pfn, &info), 0);
    assert_int_equal(info.owner, HYP_OWNER_GUEST);
    sw_must(gmem_fallocate(w->gmem, PUNCH, 5 * P, P, &w->caller), 0);
    assert_int_equal(hyp_frame_info(machine_hyp(w->machine), pfn, &info), 0);
    assert_int_equal(info.owner, HYP_OWNER_HOST);
    assert_int_equal(info.host, PKVM_PAGE_OWNED);
    assert_int_equal(data_frames(w), 1);
    /* The frame is free: the next page may have it, and reads zero there. */
    sw_must(sw_convert(w, 9, 1, false), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + (uint64_t)(9 * P), &byte, 1), SIM_OK);
    assert_int_equal(byte, 0);
    assert_int_equal(page_at(w, 9).pfn, pfn);
    /* Its neighbour did not notice. */
    char other[6];
    sw_must(sim_guest_read(w->vcpu, 0x6000, other, 6), 0);
    assert_string_equal(other, "other");
    assert_int_equal(sim_guest_read(w->vcpu, 0x5000, &byte, 1), -ESRCH);
    assert_int_equal(w->run_rc, -EFAULT);
    assert_int_equal(w->run.exit_reason, 0);
}

/* pKVM lets nobody take a page that the guest shares with the host: the bytes go, the frame stays. */
static void guest_shared(struct simworld *w)
{
    char buf[8] = "q";
    int64_t x0;
    sw_must(sw_convert(w, 0, 16, true), 0);
    sw_must(sim_guest_write(w->vcpu, 0x5000, "shared", 7), 0);
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, 0x5000, 0, 0}, &x0), 0);
    assert_int_equal(x0, 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x5000, buf, 7), SIM_OK);
    assert_string_equal(buf, "shared");
    uint64_t pfn = page_at(w, 5).pfn;
    sw_must(gmem_fallocate(w->gmem, PUNCH, 5 * P, P, &w->caller), 0);
    assert_true(page_at(w, 5).allocated);
    assert_int_equal(page_at(w, 5).pfn, pfn);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x5000, buf, 7), SIM_OK);
    assert_int_equal(buf[0], 0);
    /* Both still look at one page. */
    sw_must(sim_guest_write(w->vcpu, 0x5000, "again", 6), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va + 0x5000, buf, 6), SIM_OK);
    assert_string_equal(buf, "again");
}

/* kvm_gmem_fault_user_mapping() holds the folio: a punch in that window must not leave a PTE to a page that is gone. */
static void fault_in_flight(struct simworld *w)
{
    struct sw_job job = {.w = w, .page = 3};
    uint64_t pfn;
    sw_must(sim_host_write(w->sim, w->mm, w->va + (uint64_t)(3 * P), "k", 1), SIM_OK);
    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_must(sw_convert(w, 3, 1, false), 0);
    sw_stop_at(w, "fault:folio");
    sw_spawn(w, sw_touch_job, &job);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_must(gmem_fallocate(w->gmem, PUNCH, 3 * P, P, &w->caller), 0);
    sw_go(w);
    sw_settle(w);
    assert_true(job.done);
    assert_int_equal(job.access, SIM_OK);
    assert_int_equal(job.byte, 0);
    assert_true(mm_pte_present(w->mm, w->va + (uint64_t)(3 * P), &pfn));
    assert_int_equal(page_at(w, 3).pfn, pfn);
    assert_int_equal(data_frames(w), 1);
    sw_audit(w);
}

/* The same, but the page became private after the punch. */
static void fault_in_flight_then_private(struct simworld *w)
{
    struct sw_job job = {.w = w, .page = 3};
    uint64_t pfn;
    sw_stop_at(w, "fault:folio");
    sw_spawn(w, sw_touch_job, &job);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_must(sw_convert(w, 3, 1, true), -EAGAIN);
    sw_must(gmem_fallocate(w->gmem, PUNCH, 3 * P, P, &w->caller), 0);
    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_go(w);
    sw_settle(w);
    assert_true(job.done);
    assert_int_equal(job.access, SIM_SIGBUS);
    assert_false(mm_pte_present(w->mm, w->va + (uint64_t)(3 * P), &pfn));
    assert_int_equal(data_frames(w), 0);
    sw_audit(w);
}

static void unmap_task(void *arg)
{
    struct sw_job *job = arg;
    mm_unmap(job->w->mm, job->w->va);
    job->done = true;
}

/* munmap() waits for the faults of the VMA, as mmap_lock makes it. */
static void fault_in_flight_then_unmapped(struct simworld *w)
{
    struct sw_job job = {.w = w, .page = 3}, unmap = {.w = w};
    sw_stop_at(w, "fault:folio");
    sw_spawn(w, sw_touch_job, &job);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_spawn(w, unmap_task, &unmap);
    sw_settle(w);
    assert_false(unmap.done || job.done);
    sw_go(w);
    sw_settle(w);
    assert_true(unmap.done && job.done);
    assert_int_equal(job.access, SIM_OK);
    assert_int_equal(page_at(w, 3).mapcount, 0);
    assert_int_equal(page_at(w, 3).refcount, 1);
    sw_audit(w);
}

static void convert_against_punch(struct simworld *w)
{
    struct sw_job job = {.w = w, .page = 0, .nr = 16, .to_private = true, .rc = 1};
    struct ref *pin;
    sw_must(gmem_pin(w->gmem, 3 * (uint64_t)P, P, REF_FOLL_PIN, "x", &pin, &w->caller), 0);
    sw_stop_at(w, "convert:locked");
    sw_spawn(w, sw_convert_job, &job);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_go(w);
    /* The punch waits for the conversion, which still sees the pinned page. */
    sw_must(gmem_fallocate(w->gmem, PUNCH, 3 * P, P, &w->caller), 0);
    assert_true(job.done);
    assert_int_equal(job.rc, -EAGAIN);
    sw_must(sw_convert(w, 0, 16, true), 0);
    gmem_unpin(pin);
}

SIMWORLD(table, .no_vmm = true)
SIMWORLD(allocation, .no_vmm = true)
SIMWORLD(pinned, .no_vmm = true)
SIMWORLD(attributes_stay, .no_vmm = true)
SIMWORLD(guest_owned, .unilateral = false)
SIMWORLD(guest_shared, .unilateral = false)
SIMWORLD(fault_in_flight, .no_vmm = true)
SIMWORLD(fault_in_flight_then_private, .no_vmm = true)
SIMWORLD(fault_in_flight_then_unmapped, .no_vmm = true)
SIMWORLD(convert_against_punch, .no_vmm = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_allocation),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_attributes_stay),
        cmocka_unit_test(test_guest_owned),
        cmocka_unit_test(test_guest_shared),
        cmocka_unit_test(test_fault_in_flight),
        cmocka_unit_test(test_fault_in_flight_then_private),
        cmocka_unit_test(test_fault_in_flight_then_unmapped),
        cmocka_unit_test(test_convert_against_punch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
