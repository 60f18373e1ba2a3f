/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs of a stage-2 table: what ends one, in the guest's table and in the host's, and a table that goes away. */
#include "tests/common/simworld.h"

#include <errno.h>

#include "fakehyp/hypercall.h"
#include "fakehyp/stage2/descriptor.h"
#include "src/host/internal.h"
#include "src/machine/internal.h"
#include "src/machine/ptdump.h"

#define P HOST_PAGE_SIZE
#define G (UINT64_C(1) << 30)
#define M (UINT64_C(1) << 20)

/* One expected run. */
struct row {
    uint64_t start, end;
    int level;
    bool valid, annotated;
    enum hyp_page_state state;
};

static void expect(struct simworld *w, uint64_t vm, bool states, const struct row *rows, size_t nr)
{
    struct ptdump dump;
    struct ptdump_run run;
    size_t i = 0;

    assert_int_equal(ptdump_open(&dump, w->machine, vm, states, 0), 0);
    for (uint64_t at = 0; ptdump_next(&dump, &run) == 1; i++, at = run.end) {
        /* Nothing is left out, nothing is told twice. */
        assert_int_equal(run.start, at);
        if (i >= nr)
            fail_msg("one more run: 0x%llx-0x%llx level %d pte 0x%llx", (unsigned long long)run.start,
                     (unsigned long long)run.end, run.level, (unsigned long long)run.pte);
        assert_int_equal(run.start, rows[i].start);
        assert_int_equal(run.end, rows[i].end);
        assert_int_equal(run.level, rows[i].level);
        assert_int_equal(s2_pte_valid(run.pte), rows[i].valid);
        assert_int_equal(!s2_pte_valid(run.pte) && run.pte, rows[i].annotated);
        if (states && run.has_state)
            assert_int_equal(run.state, rows[i].state);
    }
    assert_int_equal(i, nr);
    assert_int_equal(run.end, UINT64_C(1) << dump.ipa_bits);
}
#define VALID(start, end, level, state)                                                                                \
    {                                                                                                                  \
        start, end, level, true, false, PKVM_PAGE_##state                                                              \
    }
#define MARKED(start, end, level, state)                                                                               \
    {                                                                                                                  \
        start, end, level, false, true, PKVM_PAGE_##state                                                              \
    }
#define EMPTY(start, end, level)                                                                                       \
    {                                                                                                                  \
        start, end, level, false, false, PKVM_PAGE_NOPAGE                                                              \
    }
#define EXPECT(w, vm, states, ...)                                                                                     \
    do {                                                                                                               \
        const struct row rows[] = {__VA_ARGS__};                                                                       \
        expect(w, vm, states, rows, sizeof(rows) / sizeof(rows[0]));                                                   \
    } while (0)

static uint64_t pfn_of(struct simworld *w, uint64_t index)
{
    struct page_report page;
    gmem_page_report(w->gmem, index, &page);
    assert_true(page.allocated);
    return page.pfn;
}

/* Frames for pages of the file, one after the other. */
static void allocate(struct simworld *w, const uint64_t *pages, size_t nr)
{
    sw_must(sw_convert(w, 0, 16, true), 0);
    for (size_t i = 0; i < nr; i++)
        sw_must(gmem_fallocate(w->gmem, 1, (int64_t)(pages[i] * P), P, &w->caller), 0);
    for (size_t i = 0; i < nr; i++)
        assert_int_equal(pfn_of(w, pages[i]), pfn_of(w, pages[0]) + i);
    for (size_t i = 0; i < nr; i++)
        sw_must(sim_guest_write(w->vcpu, pages[i] * P, "x", 1), 0);
}

static void guest_table(struct simworld *w)
{
    static const uint64_t pages[] = {1, 2, 3, 4, 0, 8};
    uint64_t vm = vm_id(w->vm);
    int64_t x0;
    char byte;

    allocate(w, pages, 6);
    /* Output addresses and page states are not shown: one run. */
    EXPECT(w, vm, false, VALID(0, 5 * P, 3, OWNED), EMPTY(5 * P, 8 * P, 3), VALID(8 * P, 9 * P, 3, OWNED),
           EMPTY(9 * P, 2 * M, 3), EMPTY(2 * M, G, 2), EMPTY(G, 1024 * G, 1));
    EXPECT(w, vm, true, VALID(0, P, 3, OWNED), VALID(P, 5 * P, 3, OWNED), EMPTY(5 * P, 8 * P, 3),
           VALID(8 * P, 9 * P, 3, OWNED), EMPTY(9 * P, 2 * M, 3), EMPTY(2 * M, G, 2), EMPTY(G, 1024 * G, 1));
    sw_must(sim_guest_hvc(w->vcpu, (uint64_t[4]){SMCCC_MEM_SHARE, 2 * P, 0, 0}, &x0), 0);
    sw_must(sim_kernel_load(w->sim, pfn_of(w, 8), false, &byte, 1), 0);
    EXPECT(w, vm, false, VALID(0, 5 * P, 3, OWNED), EMPTY(5 * P, 8 * P, 3), MARKED(8 * P, 9 * P, 3, POISON),
           EMPTY(9 * P, 2 * M, 3), EMPTY(2 * M, G, 2), EMPTY(G, 1024 * G, 1));
    EXPECT(w, vm, true, VALID(0, P, 3, OWNED), VALID(P, 2 * P, 3, OWNED), VALID(2 * P, 3 * P, 3, SHARED_OWNED),
           VALID(3 * P, 5 * P, 3, OWNED), EMPTY(5 * P, 8 * P, 3), MARKED(8 * P, 9 * P, 3, POISON),
           EMPTY(9 * P, 2 * M, 3), EMPTY(2 * M, G, 2), EMPTY(G, 1024 * G, 1));
}

/* Annotations of neighbours are one run only where gfns follow each other, as the frames do. */
static void host_annotations(struct simworld *w)
{
    struct ptdump dump;
    struct ptdump_run run;
    uint64_t seen = 0;

    allocate(w, (const uint64_t[]){1, 2, 0}, 3);
    uint64_t first = pfn_of(w, 1) * P;
    assert_int_equal(ptdump_open(&dump, w->machine, 0, true, first), 0);
    assert_int_equal(ptdump_next(&dump, &run), 1);
    assert_int_equal(run.end, first + 2 * P);
    assert_int_equal(run.state, PKVM_PAGE_NOPAGE);
    assert_int_equal(s2_annotation_owner(run.pte), HYP_OWNER_GUEST);
    assert_int_equal(s2_annotation_handle(run.pte), vm_handle(w->vm));
    assert_int_equal(s2_annotation_gfn(run.pte), 1);
    /* Every frame of RAM is in one run, with the state that EL2 has for it. */
    assert_int_equal(ptdump_open(&dump, w->machine, 0, true, 0), 0);
    while (ptdump_next(&dump, &run) == 1) {
        bool ram = run.start >= w->machine->ram_base && run.start < w->machine->ram_base + w->machine->ram_bytes;
        assert_int_equal(run.has_state, ram);
        for (uint64_t at = run.start; ram && at < run.end; at += P, seen++) {
            struct hyp_frame_info info;
            assert_int_equal(hyp_frame_info(w->machine->hyp, at / P, &info), 0);
            assert_int_equal(info.host, run.state);
        }
    }
    assert_int_equal(seen, w->machine->ram_bytes / P);
}

/* Pages of one block, of which the host shares one: the table has one entry, the states are three runs. */
static void host_block(struct simworld *w)
{
    struct ptdump dump;
    struct ptdump_run run;
    char byte = 1;

    sw_must(sim_host_write(w->sim, w->mm, w->va, &byte, 1), SIM_OK);
    sw_must(sim_host_write(w->sim, w->mm, w->va + P, &byte, 1), SIM_OK);
    sw_must(sim_host_write(w->sim, w->mm, w->va + 2 * P, &byte, 1), SIM_OK);
    uint64_t pa = pfn_of(w, 1) * P;
    int level;
    assert_int_equal(ptdump_open(&dump, w->machine, 0, false, pa), 0);
    assert_int_equal(ptdump_next(&dump, &run), 1);
    assert_true(s2_pte_valid(run.pte) && run.level < 3);
    assert_true(run.end > pa + P);
    level = run.level;
    assert_int_equal(host_hvc(machine_host(w->machine), 0, HVC_host_share_hyp, pa / P, 0, 0, 0), 0);
    assert_int_equal(ptdump_open(&dump, w->machine, 0, true, pa), 0);
    assert_int_equal(ptdump_next(&dump, &run), 1);
    assert_int_equal(run.level, level);
    assert_int_equal(run.end, pa + P);
    assert_int_equal(run.state, PKVM_PAGE_SHARED_OWNED);
    assert_int_equal(ptdump_next(&dump, &run), 1);
    assert_int_equal(run.pfn, pa / P + 1);
    assert_int_equal(run.state, PKVM_PAGE_OWNED);
    assert_int_equal(host_hvc(machine_host(w->machine), 0, HVC_host_unshare_hyp, pa / P, 0, 0, 0), 0);
}

static void errors(struct simworld *w)
{
    struct ptdump dump;

    assert_int_equal(ptdump_open(&dump, w->machine, 99, false, 0), -ENOENT);
    /* Before its first run EL2 knows no more of it than a number. */
    assert_int_equal(ptdump_open(&dump, w->machine, vm_id(w->vm), false, 0), -ENXIO);
    assert_int_equal(ptdump_open(&dump, w->machine, 0, false, UINT64_C(1) << 40), -ERANGE);
    assert_int_equal(ptdump_open(&dump, w->machine, 0, false, (UINT64_C(1) << 40) - 1), 0);
    assert_int_equal(dump.at, (UINT64_C(1) << 40) - P);
}

struct dump_job {
    struct simworld *w;
    uint64_t vm;
    int rc;
    bool done;
};

static void dump_task(void *arg)
{
    struct dump_job *job = arg;
    struct ptdump dump;
    struct ptdump_run run;

    job->rc = ptdump_open(&dump, job->w->machine, job->vm, true, 0);
    while (job->rc == 0 && (job->rc = ptdump_next(&dump, &run)) == 1)
        job->rc = 0;
    job->done = true;
}

static void a_vm_goes_meanwhile(struct simworld *w)
{
    struct dump_job whole = {.w = w, .vm = vm_id(w->vm)}, half = whole;

    /* A page in each of 64 GiB: the tables for them have some 65,000 entries, which is many slices. */
    for (uint64_t i = 1; i <= 64; i++) {
        struct gmem *gmem;
        assert_int_equal(gmem_create(w->vm, P, 0, &gmem, &w->caller), 0);
        assert_int_equal(vm_set_memory_region(w->vm, (uint32_t)i, 0, i * G, P, gmem, 0, &w->caller), 0);
        gmem_put(gmem);
        sw_must(sim_guest_write(w->vcpu, i * G, "x", 1), 0);
    }
    sw_spawn(w, dump_task, &whole);
    sw_settle(w);
    assert_true(whole.done);
    assert_int_equal(whole.rc, 0);
    sw_spawn(w, dump_task, &half);
    sched_relax();
    assert_false(half.done);
    assert_int_equal(vm_destroy(w->vm, &w->caller), 0);
    w->vm = NULL;
    sw_settle(w);
    assert_true(half.done);
    assert_int_equal(half.rc, -ENOENT);
}

SIMWORLD(guest_table, .unilateral = false)
SIMWORLD(host_annotations, .unilateral = false)
SIMWORLD(host_block, .no_vmm = true)
SIMWORLD(errors, .no_vmm = true)
SIMWORLD(a_vm_goes_meanwhile, .unilateral = false)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest_table),         cmocka_unit_test(test_host_annotations),
        cmocka_unit_test(test_host_block),          cmocka_unit_test(test_errors),
        cmocka_unit_test(test_a_vm_goes_meanwhile),
    };

    return cmocka_run_group_tests_name("machine_ptdump", tests, NULL, NULL);
}
