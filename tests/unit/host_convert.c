/* SPDX-License-Identifier: BSD-2-Clause */
/* KVM_SET_MEMORY_ATTRIBUTES2: arguments, references, all-or-nothing. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fakehyp/hypercall.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE
#define PRIVATE KVM_MEMORY_ATTRIBUTE_PRIVATE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* ---- allocations that fail ------------------------------------------------------------------------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t nmemb, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t nmemb, size_t size);
void *__wrap_realloc(void *p, size_t size);

static unsigned fail_in; /* the n-th allocation from now fails, 0 none */

static bool fails(void)
{
    return fail_in && --fail_in == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t nmemb, size_t size)
{
    return fails() ? NULL : __real_calloc(nmemb, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    return fails() ? NULL : __real_realloc(p, size);
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

struct arguments {
    uint64_t offset, size, attributes, flags;
    const char *says;
};

static void refused(struct simworld *w, struct gmem *gmem, const struct arguments *a)
{
    const struct gmem_attributes2 attr = {a->offset, a->size, a->attributes, a->flags};
    uint64_t before = sw_hash(gmem);
    /* An old error_offset must not look like an answer. */
    memset(&w->busy, 0x5a, sizeof(w->busy));
    w->caller.message[0] = '\0';
    assert_int_equal(gmem_set_attributes2(gmem, &attr, &w->caller, &w->busy), -EINVAL);
    assert_non_null(strstr(w->caller.message, a->says));
    assert_false(w->busy.error_offset_valid);
    assert_int_equal(w->busy.nr_holders, 0);
    assert_true(sw_hash(gmem) == before);
}

/* In the kernel's order: where two things are wrong the first one is named. */
static void argument_table(struct simworld *w)
{
    static const struct arguments table[] = {
        {0, P, PRIVATE, 1, "flags"},
        {0, P, 0, UINT64_C(1) << 63, "flags"},
        {1, 0, 1, 1, "flags"},
        {0, P, 1, 0, "attributes"},
        {0, P, PRIVATE | 4, 0, "attributes"},
        {0, P, UINT64_C(1) << 32, 0, "attributes"},
        {1, 0, 16, 0, "attributes"},
        {0, 0, PRIVATE, 0, "empty"},
        {1, 0, PRIVATE, 0, "empty"},
        {P, -P, PRIVATE, 0, "wraps"},
        {-P, 2 * P, PRIVATE, 0, "wraps"},
        {1, UINT64_MAX, 0, 0, "wraps"},
        {1, P, PRIVATE, 0, "multiples"},
        {0, P - 1, PRIVATE, 0, "multiples"},
        {16 * P + 1, P, PRIVATE, 0, "multiples"},
        {16 * P, P, PRIVATE, 0, "ends at"},
        {15 * P, 2 * P, 0, 0, "ends at"},
        {0, 17 * P, PRIVATE, 0, "ends at"},
        {UINT64_C(1) << 62, P, PRIVATE, 0, "ends at"},
        {0, UINT64_C(1) << 63, PRIVATE, 0, "ends at"},
        {-2 * P, P, PRIVATE, 0, "ends at"},
    };
    struct ref *pin;
    sw_must(sim_host_write(w->sim, w->mm, w->va, "x", 1), SIM_OK);
    sw_must(gmem_pin(w->gmem, P, P, REF_FOLL_PIN, "x", &pin, &w->caller), 0);
    sw_must(sw_convert(w, 4, 2, true), 0);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        refused(w, w->gmem, &table[i]);
    gmem_unpin(pin);
    sw_audit(w);
}

static void no_private_memory(struct simworld *w)
{
    refused(w, w->gmem, &(struct arguments){0, P, PRIVATE, 0, "no private memory"});
    /* Even when asked for shared, which it is; and before the attributes are looked at, after the flags. */
    refused(w, w->gmem, &(struct arguments){0, P, 0, 0, "no private memory"});
    refused(w, w->gmem, &(struct arguments){1, 0, 1, 0, "no private memory"});
    refused(w, w->gmem, &(struct arguments){1, 0, 1, 1, "flags"});
}

/* ---- what a conversion does ------------------------------------------------------------------------------------- */

static void idempotent(struct simworld *w)
{
    struct page_report page;
    struct ref *pin;
    uint64_t pfn;

    sw_must(sim_host_write(w->sim, w->mm, w->va, "x", 1), SIM_OK);
    sw_must(gmem_pin(w->gmem, P, P, REF_FOLL_PIN, "x", &pin, &w->caller), 0);
    uint64_t before = sw_hash(w->gmem);
    /* Already shared: no unmapping, no look at references, no record. */
    sw_must(sw_convert(w, 0, 16, false), 0);
    assert_true(mm_pte_present(w->mm, w->va, &pfn));
    assert_true(sw_hash(w->gmem) == before);
    gmem_unpin(pin);

    sw_must(sw_convert(w, 0, 4, true), 0);
    gmem_page_report(w->gmem, 0, &page);
    assert_true(page.converted && page.converted_private);
    assert_int_equal(page.converted_pid, 100);
    assert_string_equal(page.converted_by, "vmm");
    before = sw_hash(w->gmem);
    sw_must(sw_convert(w, 0, 4, true), 0);
    sw_must(sw_convert(w, 1, 2, true), 0);
    assert_true(sw_hash(w->gmem) == before);
    /* A mixed range is processed whole. */
    sw_must(sw_convert(w, 2, 6, true), 0);
    uint64_t seq = page.converted_seq;
    gmem_page_report(w->gmem, 3, &page);
    assert_true(page.converted_seq > seq);
    sw_must(sw_convert(w, 0, 16, false), 0);
    char byte;
    sw_must(sim_host_read(w->sim, w->mm, w->va, &byte, 1), SIM_OK);
    assert_int_equal(byte, 'x');
}

/* A refused conversion: offset, nothing changed but page tables, access goes on. */
static void refused_at(struct simworld *w, uint64_t start, uint64_t nr, uint64_t busy_page)
{
    struct page_report pages[16], now;
    uint64_t pfn;
    for (uint64_t i = 0; i < 16; i++)
        gmem_page_report(w->gmem, i, &pages[i]);
    memset(&w->busy, 0x5a, sizeof(w->busy));
    sw_must(sw_convert(w, start, nr, true), -EAGAIN);
    assert_true(w->busy.error_offset_valid);
    assert_int_equal(w->busy.error_offset, busy_page * P);
    for (uint64_t i = 0; i < 16; i++) {
        gmem_page_report(w->gmem, i, &now);
        bool inside = i >= start && i < start + nr;
        assert_int_equal(now.private, pages[i].private);
        assert_int_equal(now.pfn, pages[i].pfn);
        assert_int_equal(now.converted_seq, pages[i].converted_seq);
        assert_int_equal(now.mapcount, inside ? 0 : pages[i].mapcount);
        assert_int_equal(now.refcount, pages[i].refcount - (inside ? pages[i].mapcount : 0));
        if (inside)
            assert_false(mm_pte_present(w->mm, w->va + i * P, &pfn));
    }
}

static const char *const kinds[REF_USER_KINDS] = {"FOLL_GET", "FOLL_PIN", "FOLL_PIN|FOLL_LONGTERM"};

static void each_kind_of_pin(struct simworld *w)
{
    static const char contents[] = "all sixteen pages";
    for (uint64_t i = 0; i < 16; i++)
        sw_must(sim_host_write(w->sim, w->mm, w->va + i * P, &contents[i], 1), SIM_OK);
    for (unsigned kind = 0; kind < REF_USER_KINDS; kind++) {
        struct ref *late, *pin;
        char byte;
        sw_must(gmem_pin(w->gmem, 9 * P, P, REF_FOLL_GET, "later", &late, &w->caller), 0);
        w->caller.pid = 4711;
        sw_must(gmem_pin(w->gmem, 6 * P, 2 * P, (enum ref_kind)kind, "ring0", &pin, &w->caller), 0);
        w->caller.pid = 100;

        refused_at(w, 4, 8, 6);
        assert_int_equal(w->busy.nr_holders, 1);
        assert_string_equal(w->busy.holders[0].what, "ring0");
        assert_string_equal(w->busy.holders[0].kind, kinds[kind]);
        assert_int_equal(w->busy.holders[0].pid, 4711);
        assert_int_equal(w->busy.holders[0].index, 6);
        assert_int_equal(w->busy.holders[0].count, kind == REF_FOLL_GET ? 1 : FOLL_PIN_BIAS);
        assert_non_null(strstr(w->caller.message, "ring0"));
        assert_non_null(strstr(w->caller.message, "4711"));
        refused_at(w, 7, 2, 7);
        refused_at(w, 8, 8, 9);
        assert_string_equal(w->busy.holders[0].what, "later");

        /* The host goes on as before, clean pages can be converted one by one, then the rest. */
        for (uint64_t i = 0; i < 16; i++) {
            sw_must(sim_host_read(w->sim, w->mm, w->va + i * P, &byte, 1), SIM_OK);
            assert_int_equal(byte, contents[i]);
        }
        sw_must(sw_convert(w, 4, 2, true), 0);
        sw_must(sw_convert(w, 8, 1, true), 0);
        refused_at(w, 4, 8, 6);
        gmem_unpin(pin);
        refused_at(w, 4, 8, 9);
        gmem_unpin(late);
        sw_must(sw_convert(w, 4, 8, true), 0);
        assert_false(w->busy.error_offset_valid);
        sw_must(sim_host_read(w->sim, w->mm, w->va + 6 * P, &byte, 1), SIM_SIGBUS);
        /* To shared nobody looks at references. */
        sw_must(sw_convert(w, 0, 16, false), 0);
    }
}

/* folio_maybe_dma_pinned() begins at 1024; the count below it is as good a reason. */
static void many_plain_references(struct simworld *w)
{
    static struct ref *pins[FOLL_PIN_BIAS + 1];
    struct page_report page;
    sw_must(sim_host_write(w->sim, w->mm, w->va + 5 * P, "x", 1), SIM_OK);
    sw_must(sw_convert(w, 5, 1, true), 0);
    sw_must(sw_convert(w, 5, 1, false), 0);
    for (unsigned i = 0; i <= FOLL_PIN_BIAS; i++)
        assert_int_equal(gmem_pin(w->gmem, 5 * P, P, REF_FOLL_GET, "pipe", &pins[i], &w->caller), 0);
    for (unsigned left = FOLL_PIN_BIAS + 1; left; left--) {
        gmem_page_report(w->gmem, 5, &page);
        assert_int_equal(page.refcount, 1 + left);
        if (left >= FOLL_PIN_BIAS - 2 || left <= 2) {
            refused_at(w, 0, 16, 5);
            assert_int_equal(w->busy.nr_holders, left < BUSY_MAX_HOLDERS ? left : BUSY_MAX_HOLDERS);
            assert_int_equal(gmem_holders(w->gmem, 5, NULL, 0), left);
        }
        gmem_unpin(pins[left - 1]);
    }
    sw_must(sw_convert(w, 0, 16, true), 0);
}

/* Between the lookup and the PTE there is no mapping and no pin, only a reference: enough to refuse. */
static void fault_in_flight(struct simworld *w)
{
    struct sw_job job = {.w = w, .page = 3, .write = true, .byte = 'f'};
    uint64_t pfn;

    sw_stop_at(w, "fault:folio");
    sw_spawn(w, sw_touch_job, &job);
    sw_settle(w);
    assert_non_null(w->stopped);
    assert_false(mm_pte_present(w->mm, w->va + 3 * P, &pfn));
    refused_at(w, 0, 16, 3);
    assert_int_equal(w->busy.nr_holders, 1);
    assert_string_equal(w->busy.holders[0].kind, "fault in flight");
    assert_string_equal(w->busy.holders[0].what, "vmm");
    sw_go(w);
    sw_settle(w);
    assert_true(job.done);
    assert_int_equal(job.access, SIM_OK);
    assert_true(mm_pte_present(w->mm, w->va + 3 * P, &pfn));
    sw_must(sw_convert(w, 0, 16, true), 0);
    job = (struct sw_job){.w = w, .page = 3};
    sw_touch_job(&job);
    assert_int_equal(job.access, SIM_SIGBUS);
    sw_must(sw_convert(w, 3, 1, false), 0);
    sw_touch_job(&job);
    assert_int_equal(job.byte, 'f');
}

/* A fault that has looked but not yet taken its folio holds the lock: the conversion waits for it. */
static void fault_before_lookup(struct simworld *w)
{
    struct sw_job touch = {.w = w, .page = 3}, convert = {.w = w, .page = 0, .nr = 16, .to_private = true, .rc = 1};

    sw_stop_at(w, "fault:locked");
    sw_spawn(w, sw_touch_job, &touch);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    assert_false(convert.done);
    sw_go(w);
    sw_settle(w);
    assert_true(convert.done && touch.done);
    /* Either the fault was seen in flight, or it was over, or it came after: never a success for both. */
    assert_true(convert.rc == 0 || convert.rc == -EAGAIN);
    sw_audit(w);
    if (convert.rc == 0)
        sw_must(sim_host_read(w->sim, w->mm, w->va + 3 * P, &touch.byte, 1), SIM_SIGBUS);
}

/* A second mapping and a second process are unmapped as the first. */
static void every_mapping_goes(struct simworld *w)
{
    struct mm *child = mm_new(machine_host(w->machine), "child", 101);
    uint64_t va2, va3, pfn;
    char byte;
    assert_int_equal(mm_map(w->mm, w->gmem, 2 * P, 4 * P, &va2, &w->caller), 0);
    assert_int_equal(mm_map(child, w->gmem, 0, 16 * P, &va3, &w->caller), 0);
    sw_must(sim_host_write(w->sim, w->mm, w->va + 3 * P, "a", 1), SIM_OK);
    sw_must(sim_host_read(w->sim, w->mm, va2 + P, &byte, 1), SIM_OK);
    sw_must(sim_host_read(w->sim, child, va3 + 3 * P, &byte, 1), SIM_OK);
    sw_must(sim_host_read(w->sim, child, va3 + 4 * P, &byte, 1), SIM_OK);
    sw_must(sw_convert(w, 3, 1, true), 0);
    assert_false(mm_pte_present(w->mm, w->va + 3 * P, &pfn));
    assert_false(mm_pte_present(w->mm, va2 + P, &pfn));
    assert_false(mm_pte_present(child, va3 + 3 * P, &pfn));
    assert_true(mm_pte_present(child, va3 + 4 * P, &pfn));
    sw_must(sim_host_read(w->sim, child, va3 + 3 * P, &byte, 1), SIM_SIGBUS);
    mm_free(child);
}

/* ---- two at once ------------------------------------------------------------------------------------------------ */

static void converters_serialise(struct simworld *w)
{
    static const char *const points[] = {"convert:locked", "convert:unmapped", "convert:checked",
                                         "stage:begin",    "convert:stored",   "stage:moved"};
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        struct sw_job a = {.w = w, .page = 0, .nr = 8, .to_private = true, .rc = 1};
        struct sw_job b = {.w = w, .page = 4, .nr = 8, .to_private = false, .rc = 1};
        sw_must(sim_host_write(w->sim, w->mm, w->va + 5 * P, "v", 1), SIM_OK);
        sw_must(sw_convert(w, 8, 4, true), 0);
        sw_stop_at(w, points[i]);
        sw_spawn(w, sw_convert_job, &a);
        sw_settle(w);
        assert_non_null(w->stopped);
        sw_spawn(w, sw_convert_job, &b);
        sw_settle(w);
        assert_false(a.done || b.done);
        sw_audit(w);
        sw_go(w);
        sw_settle(w);
        assert_true(a.done && b.done);
        assert_int_equal(a.rc, 0);
        assert_int_equal(b.rc, 0);
        sw_audit(w);
        /* As if b had come after a. */
        for (unsigned page = 0; page < 16; page++)
            assert_int_equal(gmem_is_private(w->gmem, page), page < 4);
        char byte;
        sw_must(sim_host_read(w->sim, w->mm, w->va + 5 * P, &byte, 1), SIM_OK);
        assert_int_equal(byte, 'v');
        sw_must(sw_convert(w, 0, 16, false), 0);
    }
}

/* A pin that starts while a conversion stands between its check and its commit does not get in between. */
static void pin_against_conversion(struct simworld *w)
{
    struct sw_job a = {.w = w, .page = 0, .nr = 8, .to_private = true, .rc = 1};
    struct sw_job t = {.w = w, .page = 2, .access = SIM_OK};
    sw_must(sim_host_write(w->sim, w->mm, w->va + 2 * P, "v", 1), SIM_OK);
    sw_stop_at(w, "convert:checked");
    sw_spawn(w, sw_convert_job, &a);
    sw_settle(w);
    sw_spawn(w, sw_touch_job, &t);
    sw_settle(w);
    assert_false(t.done);
    sw_go(w);
    sw_settle(w);
    assert_true(a.done && t.done);
    assert_int_equal(a.rc, 0);
    assert_int_equal(t.access, SIM_SIGBUS);
    sw_audit(w);
}

/* ---- no memory --------------------------------------------------------------------------------------------------- */

/* Each allocation of a conversion fails once: either the call says so and nothing changed, or it did not need it. */
static void each_allocation_fails(struct simworld *w)
{
    unsigned refused_calls = 0;
    char byte;

    for (int to_private = 1; to_private >= 0; to_private--) {
        for (unsigned n = 1;; n++) {
            /* Fresh trees: what an earlier call left in reserve must not hide a failure. */
            struct gmem *gmem;
            uint64_t va;
            assert_int_equal(
                gmem_create(w->vm, 16 * P, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED, &gmem, &w->caller), 0);
            assert_int_equal(mm_map(w->mm, gmem, 0, 16 * P, &va, &w->caller), 0);
            for (uint64_t i = 0; i < 16; i += 3)
                assert_int_equal(sim_host_write(w->sim, w->mm, va + i * P, "m", 1), SIM_OK);
            struct gmem_attributes2 attr = {.offset = 4 * P, .size = 5 * P, .attributes = PRIVATE};
            if (!to_private) {
                attr = (struct gmem_attributes2){.size = 16 * P, .attributes = PRIVATE};
                assert_int_equal(gmem_set_attributes2(gmem, &attr, &w->caller, &w->busy), 0);
                attr = (struct gmem_attributes2){.offset = 4 * P, .size = 5 * P};
                gmem_put(gmem);
                mm_unmap(w->mm, va);
                assert_int_equal(gmem_create(w->vm, 16 * P, GUEST_MEMFD_FLAG_MMAP, &gmem, &w->caller), 0);
                assert_int_equal(mm_map(w->mm, gmem, 0, 16 * P, &va, &w->caller), 0);
                assert_int_equal(gmem_fallocate(gmem, FALLOC_FL_KEEP_SIZE, 0, 7 * P, &w->caller), 0);
            }
            uint64_t before = sw_hash(gmem);
            fail_in = n;
            int rc = gmem_set_attributes2(gmem, &attr, &w->caller, &w->busy);
            bool failed = !fail_in;
            fail_in = 0;
            sw_audit(w);
            if (rc) {
                assert_true(failed);
                assert_int_equal(rc, -ENOMEM);
                assert_true(w->busy.error_offset_valid);
                assert_int_equal(w->busy.error_offset, 4 * P);
                assert_true(sw_hash(gmem) == before);
                refused_calls++;
                /* And again, with memory. */
                assert_int_equal(gmem_set_attributes2(gmem, &attr, &w->caller, &w->busy), 0);
                assert_false(w->busy.error_offset_valid);
                sw_audit(w);
            }
            assert_int_equal(gmem_is_private(gmem, 4), to_private);
            assert_int_equal(gmem_is_private(gmem, 8), to_private);
            assert_int_equal(sim_host_read(w->sim, w->mm, va + 6 * P, &byte, 1), to_private ? SIM_SIGBUS : SIM_OK);
            mm_unmap(w->mm, va);
            gmem_put(gmem);
            if (!failed)
                break;
            assert_true(n < 100);
        }
    }
    assert_true(refused_calls >= 4);
}

static bool all_populated(void *ctx, struct mfile *file, bool in_host, uint64_t start, uint64_t end, uint64_t *first,
                          uint64_t *past)
{
    *first = start;
    *past = end;
    return true;
}

/* Processes have touched more than the machine has frames: found out at the conversion, which changes nothing. */
static void no_frames_for_what_was_touched(struct simworld *w)
{
    const struct stage_ops *sim = w->machine->config.stage;
    struct stage_ops touched = *sim;
    struct gmem *large;
    assert_int_equal(gmem_create(w->vm, UINT64_C(1) << 30, GUEST_MEMFD_FLAG_INIT_SHARED, &large, &w->caller), 0);
    assert_int_equal(gmem_fallocate(large, FALLOC_FL_KEEP_SIZE, 0, INT64_C(1) << 30, &w->caller), -ENOMEM);
    touched.populated = all_populated;
    w->machine->config.stage = &touched;
    w->caller.message[0] = '\0';
    assert_int_equal(sw_convert(w, 4, 2, true), -ENOMEM);
    assert_true(w->busy.error_offset_valid);
    assert_int_equal(w->busy.error_offset, 4 * P);
    assert_int_not_equal(w->caller.message[0], '\0');
    assert_false(gmem_is_private(w->gmem, 4));
    gmem_put(large);
    assert_int_equal(sw_convert(w, 4, 2, true), 0);
    assert_false(w->busy.error_offset_valid);
    w->machine->config.stage = sim;
    sw_audit(w);
}

/* The same for what surrounds conversions: a clear error, nothing half done, nothing leaked. */
static int one_call(struct simworld *w, unsigned which, struct gmem **gmem, struct ref **pin)
{
    uint64_t va;
    int rc;
    switch (which) {
    case 0:
        return gmem_create(w->vm, 8 * P, 0, gmem, &w->caller);
    case 1:
        return gmem_pin(w->gmem, 2 * P, 4 * P, REF_FOLL_PIN, "x", pin, &w->caller);
    case 2:
        return gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 0, 8 * P, &w->caller);
    case 3:
        rc = mm_map(w->mm, w->gmem, 0, 16 * P, &va, &w->caller);
        return rc;
    case 4:
        return mm_fault(w->mm, w->va + 9 * P, false, &va);
    default:
        return vm_set_memory_region(w->vm, 3, 0, 0x100000, P, *gmem, 0, &w->caller);
    }
}

static void allocations_of_other_calls_fail(struct simworld *w)
{
    static const int allowed[] = {-ENOMEM, -ENOMEM, -ENOMEM, -ENOMEM, -ENOMEM, -ENOMEM};
    struct gmem *gmem = NULL;
    struct ref *pin = NULL;
    for (unsigned which = 0; which < sizeof(allowed) / sizeof(allowed[0]); which++) {
        unsigned n;
        for (n = 1;; n++) {
            struct host_counts before, after;
            host_counts(machine_host(w->machine), &before);
            fail_in = n;
            int rc = one_call(w, which, &gmem, &pin);
            bool failed = !fail_in;
            fail_in = 0;
            sw_audit(w);
            if (!rc)
                assert_false(failed);
            if (!failed) {
                assert_int_equal(rc, 0);
                break;
            }
            assert_int_equal(rc, allowed[which]);
            host_counts(machine_host(w->machine), &after);
            assert_int_equal(after.gmems, before.gmems);
            assert_int_equal(after.pins, before.pins);
            assert_null(which < 1 ? (void *)gmem : which < 2 ? (void *)pin : NULL);
        }
        /* There was something to fail. */
        assert_true(n > 1);
    }
    gmem_unpin(pin);
    assert_int_equal(vm_set_memory_region(w->vm, 3, 0, 0, 0, NULL, 0, &w->caller), 0);
    gmem_put(gmem);
}

SIMWORLD(argument_table, .no_vmm = true)
SIMWORLD(no_private_memory, .no_vmm = true, .unprotected = true)
SIMWORLD(idempotent, .no_vmm = true)
SIMWORLD(each_kind_of_pin, .no_vmm = true)
SIMWORLD(many_plain_references, .no_vmm = true)
SIMWORLD(fault_in_flight, .no_vmm = true)
SIMWORLD(fault_before_lookup, .no_vmm = true)
SIMWORLD(every_mapping_goes, .no_vmm = true)
SIMWORLD(converters_serialise, .no_vmm = true)
SIMWORLD(pin_against_conversion, .no_vmm = true)
SIMWORLD(each_allocation_fails, .no_vmm = true)
SIMWORLD(no_frames_for_what_was_touched, .no_vmm = true, .memory_bytes = UINT64_C(16) << 20)
SIMWORLD(allocations_of_other_calls_fail, .no_vmm = true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_argument_table),
        cmocka_unit_test(test_no_private_memory),
        cmocka_unit_test(test_idempotent),
        cmocka_unit_test(test_each_kind_of_pin),
        cmocka_unit_test(test_many_plain_references),
        cmocka_unit_test(test_fault_in_flight),
        cmocka_unit_test(test_fault_before_lookup),
        cmocka_unit_test(test_every_mapping_goes),
        cmocka_unit_test(test_converters_serialise),
        cmocka_unit_test(test_pin_against_conversion),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_no_frames_for_what_was_touched),
        cmocka_unit_test(test_allocations_of_other_calls_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
