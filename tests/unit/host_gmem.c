/* SPDX-License-Identifier: BSD-2-Clause */
/* guest_memfd inodes: creation, bindings, attribute ranges, lifetime. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define P HOST_PAGE_SIZE
#define MMAP_SHARED (GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static struct host_counts counts(struct simworld *w)
{
    struct host_counts c;
    host_counts(machine_host(w->machine), &c);
    return c;
}

static void make_vm(struct simworld *w, struct vm **vm)
{
    const struct vm_config config = {.name = "test", .is_protected = true};
    assert_int_equal(vm_create(machine_host(w->machine), &config, vm, &w->caller), 0);
}

/* ---- creation -------------------------------------------------------------------------------------------------- */

static void creation_table(struct simworld *w)
{
    static const struct {
        uint64_t size, flags;
        int rc;
        const char *says;
    } table[] = {
        {4 * P, 0, 0, NULL},
        {4 * P, 1, 0, NULL},
        {4 * P, 2, 0, NULL},
        {4 * P, 3, 0, NULL},
        {4 * P, 4, -EINVAL, "flags"},
        {4 * P, UINT64_C(1) << 63, -EINVAL, "flags"},
        {4 * P, 3 | UINT64_C(1) << 32, -EINVAL, "flags"},
        {0, 0, -EINVAL, "size"},
        {1, 0, -EINVAL, "size"},
        {4095, 0, -EINVAL, "size"},
        {4097, 0, -EINVAL, "size"},
        {UINT64_C(1) << 63, 0, -EINVAL, "size"},
        {-P, 0, -EINVAL, "size"},
        {0, 4, -EINVAL, "flags"}, /* flags come first */
        {P, 0, 0, NULL},
        {UINT64_C(1) << 40, 3, 0, NULL},
        {UINT64_C(0x7ffffffffffff000), 3, 0, NULL},
    };
    struct gmem_stats stats;

    make_vm(w, &w->vm);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct gmem *gmem = NULL;
        w->caller.message[0] = '\0';
        assert_int_equal(gmem_create(w->vm, table[i].size, table[i].flags, &gmem, &w->caller), table[i].rc);
        if (table[i].rc) {
            assert_null(gmem);
            assert_non_null(strstr(w->caller.message, table[i].says));
            assert_int_equal(counts(w).gmems, 0);
            continue;
        }
        assert_int_equal(gmem_pages(gmem), table[i].size / P);
        assert_int_equal(gmem_flags(gmem), table[i].flags);
        assert_int_equal(gmem_vm_id(gmem), vm_id(w->vm));
        gmem_stats(gmem, &stats);
        bool shared = table[i].flags & GUEST_MEMFD_FLAG_INIT_SHARED;
        assert_int_equal(stats.shared_pages, shared ? table[i].size / P : 0);
        assert_int_equal(stats.private_pages, shared ? 0 : table[i].size / P);
        assert_int_equal(stats.ranges, 1);
        assert_int_equal(stats.allocated, 0);
        assert_int_equal(mmu_nr_sides(machine_file(gmem)), 1);
        assert_int_equal(mmu_side(machine_file(gmem), gmem_pages(gmem) - 1).private, !shared);
        assert_int_equal(counts(w).gmems, 1);
        assert_int_equal(counts(w).data_frames, 0);
        gmem_put(gmem);
    }
}

static void every_file_has_its_own_number(struct simworld *w)
{
    struct gmem *a, *b, *c;
    make_vm(w, &w->vm);
    assert_int_equal(gmem_create(w->vm, P, 0, &a, &w->caller), 0);
    assert_int_equal(gmem_create(w->vm, P, 0, &b, &w->caller), 0);
    assert_true(gmem_id(a) != gmem_id(b));
    uint32_t old = gmem_id(b);
    gmem_put(b);
    assert_int_equal(gmem_create(w->vm, P, 0, &c, &w->caller), 0);
    assert_true(gmem_id(c) != old && gmem_id(c) != gmem_id(a));
    gmem_put(a);
    gmem_put(c);
}

/* ---- mmap and touch ------------------------------------------------------------------------------------------- */

static void mapping_table(struct simworld *w)
{
    uint64_t va;
    char byte = 0;
    make_vm(w, &w->vm);
    w->mm = mm_new(machine_host(w->machine), "vmm", 100);
    for (uint64_t flags = 0; flags < 4; flags++) {
        struct gmem *gmem;
        assert_int_equal(gmem_create(w->vm, 4 * P, flags, &gmem, &w->caller), 0);
        bool mappable = flags & GUEST_MEMFD_FLAG_MMAP;
        assert_int_equal(mm_map(w->mm, gmem, 0, 4 * P, &va, &w->caller), mappable ? 0 : -ENODEV);
        if (!mappable) {
            gmem_put(gmem);
            continue;
        }
        assert_int_equal(mm_map(w->mm, gmem, 1, P, &va, &w->caller), -EINVAL);
        assert_int_equal(mm_map(w->mm, gmem, 0, 0, &va, &w->caller), -EINVAL);
        assert_int_equal(mm_map(w->mm, gmem, 0, 100, &va, &w->caller), -EINVAL);
        mm_unmap(w->mm, va);
        /* Past the end of the file is mapped, and SIGBUS when touched. */
        assert_int_equal(mm_map(w->mm, gmem, 2 * P, 4 * P, &va, &w->caller), 0);
        bool shared = flags & GUEST_MEMFD_FLAG_INIT_SHARED;
        assert_int_equal(sim_host_read(w->sim, w->mm, va + P, &byte, 1), shared ? SIM_OK : SIM_SIGBUS);
        assert_int_equal(byte, 0);
        assert_int_equal(sim_host_read(w->sim, w->mm, va + 2 * P, &byte, 1), SIM_SIGBUS);
        assert_int_equal(sim_host_write(w->sim, w->mm, va + 3 * P, "x", 1), SIM_SIGBUS);
        assert_int_equal(sim_host_read(w->sim, w->mm, va + 4 * P, &byte, 1), SIM_SIGSEGV);
        assert_int_equal(counts(w).data_frames, shared);
        mm_unmap(w->mm, va);
        assert_int_equal(sim_host_read(w->sim, w->mm, va, &byte, 1), SIM_SIGSEGV);
        gmem_put(gmem);
        assert_int_equal(counts(w).data_frames, 0);
    }
}

/* ---- bindings --------------------------------------------------------------------------------------------------- */

static void binding_table(struct simworld *w)
{
    struct vm *other;
    struct gmem *foreign, *second;
    make_vm(w, &w->vm);
    make_vm(w, &other);
    assert_int_equal(gmem_create(w->vm, 16 * P, MMAP_SHARED, &w->gmem, &w->caller), 0);
    assert_int_equal(gmem_create(w->vm, 16 * P, MMAP_SHARED, &second, &w->caller), 0);
    assert_int_equal(gmem_create(other, 16 * P, MMAP_SHARED, &foreign, &w->caller), 0);

    const struct {
        uint32_t slot, flags;
        uint64_t gpa, size;
        struct gmem *gmem;
        uint64_t offset;
        int rc;
    } table[] = {
        {0, 0, 0x10000, 4 * P, foreign, 0, -EINVAL},
        {0, 0, 0x10000, 4 * P, NULL, 0, -EINVAL},
        {0, 1, 0x10000, 4 * P, w->gmem, 0, -EINVAL}, /* LOG_DIRTY_PAGES */
        {0, 2, 0x10000, 4 * P, w->gmem, 0, -EINVAL}, /* READONLY */
        {0, 0, 0x10001, 4 * P, w->gmem, 0, -EINVAL},
        {0, 0, 0x10000, 4 * P + 1, w->gmem, 0, -EINVAL},
        {0, 0, 0x10000, 4 * P, w->gmem, 1, -EINVAL},
        {0, 0, 0x10000, 17 * P, w->gmem, 0, -EINVAL},
        {0, 0, 0x10000, 4 * P, w->gmem, 13 * P, -EINVAL},
        {0, 0, 0x10000, P, w->gmem, 16 * P, -EINVAL},
        {0, 0, 0x10000, 4 * P, w->gmem, UINT64_C(0x7ffffffffffff000), -EINVAL},
        {0, 0, 0x10000, 4 * P, w->gmem, -P, -EINVAL},
        {0, 0, UINT64_C(1) << 40, 4 * P, w->gmem, 0, -EFAULT}, /* arm64's answer, after all other checks */
        {0, 0, (UINT64_C(1) << 40) - P, 2 * P, w->gmem, 0, -EFAULT},
        {0, 0, UINT64_C(1) << 50, 4 * P, foreign, 0, -EINVAL},
        {0, 0, -2 * P, P, w->gmem, 0, -EFAULT},
        {0, 0, -P, 2 * P, w->gmem, 0, -EINVAL},              /* wraps */
        {0, 0, 0x10000, 0, w->gmem, 0, -EINVAL},             /* deletes what is not there */
        {32767, 0, 0x10000, 4 * P, w->gmem, 2 * P, -EINVAL}, /* KVM_USER_MEM_SLOTS */
        {0x10000, 0, 0x10000, 4 * P, w->gmem, 2 * P, -EINVAL},
        {UINT32_MAX, 0, 0x10000, 4 * P, w->gmem, 2 * P, -EINVAL},
        {0, 0, 0x10000, 4 * P, w->gmem, 2 * P, 0},
        {1, 0, 0x13000, 4 * P, second, 0, -EEXIST}, /* gpa */
        {1, 0, 0xf000, 2 * P, second, 0, -EEXIST},
        {1, 0, 0x20000, 4 * P, w->gmem, 5 * P, -EEXIST}, /* file */
        {1, 0, 0x20000, 4 * P, w->gmem, 0, -EEXIST},
        {0, 0, 0x10000, 4 * P, w->gmem, 2 * P, -EINVAL}, /* identical */
        {0, 0, 0x30000, 4 * P, w->gmem, 8 * P, -EINVAL}, /* moved */
        {1, 0, 0x14000, 4 * P, w->gmem, 6 * P, 0},       /* touches slot 0 on both axes */
        {32766, 0, (UINT64_C(1) << 40) - P, P, w->gmem, 15 * P, 0},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        unsigned before = 0, after = 0;
        for (const struct memslot *s = vm_slots(w->vm); s; s = s->next)
            before++;
        w->caller.message[0] = '\0';
        assert_int_equal(vm_set_memory_region(w->vm, table[i].slot, table[i].flags, table[i].gpa, table[i].size,
                                              table[i].gmem, table[i].offset, &w->caller),
                         table[i].rc);
        for (const struct memslot *s = vm_slots(w->vm); s; s = s->next)
            after++;
        assert_int_equal(after, before + !table[i].rc);
        /* Who is refused is told why. */
        assert_int_equal(w->caller.message[0] != '\0', table[i].rc != 0);
    }
    const struct memslot *s = vm_slot_at(w->vm, 0x11);
    assert_non_null(s);
    assert_int_equal(s->slot, 0);
    assert_int_equal(s->index, 2);
    assert_int_equal(vm_slot_at(w->vm, 0x14)->slot, 1);
    assert_null(vm_slot_at(w->vm, 0x18));
    assert_null(vm_slot_at(w->vm, 0xf));

    struct page_report page;
    gmem_page_report(w->gmem, 3, &page);
    assert_ptr_equal(page.vm, w->vm);
    assert_int_equal(page.gpa, 0x11000);
    gmem_page_report(w->gmem, 0, &page);
    assert_null(page.vm);

    /* A deleted slot's range is free again, also when the descriptor is long closed. */
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 0, NULL, 0, &w->caller), 0);
    assert_null(vm_slot_at(w->vm, 0x11));
    assert_int_equal(vm_set_memory_region(w->vm, 7, 0, 0x12000, 2 * P, second, 0, &w->caller), 0);
    gmem_put(second);
    assert_int_equal(counts(w).gmems, 3);
    assert_int_equal(vm_set_memory_region(w->vm, 7, 0, 0, 0, NULL, 0, &w->caller), 0);
    assert_int_equal(counts(w).gmems, 2);
    gmem_put(foreign);
    assert_int_equal(vm_destroy(other, &w->caller), 0);
}

struct bind_job {
    struct simworld *w;
    uint32_t slot;
    uint64_t gpa, size, offset;
    int rc;
};

static void bind_task(void *arg)
{
    struct bind_job *job = arg;
    struct caller caller = {0};
    job->rc = vm_set_memory_region(job->w->vm, job->slot, 0, job->gpa, job->size, job->w->gmem, job->offset, &caller);
}

/* Two requests that wait for the same conversion: what the first one does counts for the second. */
static void bindings_race(struct simworld *w)
{
    make_vm(w, &w->vm);
    assert_int_equal(gmem_create(w->vm, 16 * P, MMAP_SHARED, &w->gmem, &w->caller), 0);
    struct bind_job same[2] = {{w, 0, 0, 4 * P, 0, 1}, {w, 0, 0, 4 * P, 0, 1}};
    struct bind_job overlap[2] = {{w, 1, 0x10000, 4 * P, 4 * P, 1}, {w, 2, 0x20000, 4 * P, 6 * P, 1}};
    struct bind_job delete[2] = {{w, 0, 0, 0, 0, 1}, {w, 0, 0, 0, 0, 1}};
    const struct {
        struct bind_job *jobs;
        int second;
    } rounds[] = {{same, -EINVAL}, {overlap, -EEXIST}, {delete, -EINVAL}};

    for (size_t i = 0; i < sizeof(rounds) / sizeof(rounds[0]); i++) {
        struct sw_job convert = {.w = w, .page = 15, .nr = 1, .to_private = i % 2 == 0};
        sw_stop_at(w, "convert:locked");
        sw_spawn(w, sw_convert_job, &convert);
        sw_settle(w);
        sw_spawn(w, bind_task, &rounds[i].jobs[0]);
        sw_spawn(w, bind_task, &rounds[i].jobs[1]);
        sw_settle(w);
        assert_int_equal(rounds[i].jobs[0].rc, 1);
        assert_int_equal(rounds[i].jobs[1].rc, 1);
        sw_go(w);
        sw_settle(w);
        assert_int_equal(rounds[i].jobs[0].rc, 0);
        assert_int_equal(rounds[i].jobs[1].rc, rounds[i].second);
    }
    assert_null(vm_slot_at(w->vm, 0));
    assert_non_null(vm_slot_at(w->vm, 0x10));
    assert_null(vm_slot_at(w->vm, 0x20));
}

/* ---- attribute ranges (S18) ------------------------------------------------------------------------------------- */

static void ranges_and_holes(struct simworld *w)
{
    static const unsigned touched[] = {0, 2, 5};
    struct gmem_stats stats;
    struct page_report page;
    char byte;

    for (size_t i = 0; i < 3; i++)
        sw_must(sim_host_write(w->sim, w->mm, w->va + touched[i] * P, "x", 1), SIM_OK);
    assert_int_equal(counts(w).data_frames, 3);
    sw_must(sw_convert(w, 0, 16, true), 0);
    gmem_stats(w->gmem, &stats);
    assert_int_equal(stats.private_pages, 16);
    assert_int_equal(stats.ranges, 1);
    assert_int_equal(stats.allocated, 3);
    assert_int_equal(counts(w).data_frames, 3);

    /* The guest's first touch of a hole: a new zero page, private. */
    byte = 'q';
    sw_must(sim_guest_read(w->vcpu, 3 * P, &byte, 1), 0);
    assert_int_equal(byte, 0);
    assert_int_equal(counts(w).data_frames, 4);
    sw_must(sim_guest_read(w->vcpu, 5 * P, &byte, 1), 0);
    assert_int_equal(byte, 'x');

    sw_must(sw_convert(w, 7, 1, false), 0);
    gmem_stats(w->gmem, &stats);
    assert_int_equal(stats.ranges, 3);
    assert_int_equal(stats.private_pages, 15);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(gmem_is_private(w->gmem, i), i != 7);
    assert_int_equal(gmem_attr_range(w->gmem, 2).end, 7);
    assert_int_equal(gmem_attr_range(w->gmem, 9).start, 8);
    assert_int_equal(counts(w).data_frames, 4);
    gmem_page_report(w->gmem, 7, &page);
    assert_false(page.allocated);

    sw_must(sw_convert(w, 7, 1, true), 0);
    gmem_stats(w->gmem, &stats);
    assert_int_equal(stats.ranges, 1);
    assert_int_equal(mmu_nr_sides(machine_file(w->gmem)), 1);
    assert_int_equal(counts(w).data_frames, 4);
}

/* Bookkeeping costs by what happened, not by the size of the file. */
static void a_large_file(struct simworld *w)
{
    const uint64_t pages = UINT64_C(1) << 28;
    uint64_t index, pfn;

    make_vm(w, &w->vm);
    assert_int_equal(gmem_create(w->vm, pages * P, MMAP_SHARED, &w->gmem, &w->caller), 0);
    sw_must(sw_convert(w, 0, pages, true), 0);
    sw_must(sw_convert(w, pages - 1, 1, false), 0);
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, (int64_t)((pages - 1) * P), P, &w->caller), 0);
    assert_true(gmem_next_folio(w->gmem, 0, pages, &index, &pfn));
    assert_int_equal(index, pages - 1);
    assert_false(gmem_next_folio(w->gmem, 0, pages - 1, &index, &pfn));
    sw_must(gmem_fallocate(w->gmem, PUNCH, 0, INT64_MAX & -(int64_t)P, &w->caller), 0);
    assert_int_equal(counts(w).data_frames, 0);
}

static void pages_beyond_what_frames_name(struct simworld *w)
{
    const int64_t far = (INT64_C(1) << 44) + 5 * (int64_t)P;
    char byte;
    make_vm(w, &w->vm);
    assert_int_equal(gmem_create(w->vm, UINT64_C(0x7ffffffffffff000), MMAP_SHARED, &w->gmem, &w->caller), 0);
    w->mm = mm_new(machine_host(w->machine), "vmm", 100);
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, far, P, &w->caller), -EFBIG);
    assert_int_equal(mm_map(w->mm, w->gmem, (uint64_t)far, P, &w->va, &w->caller), 0);
    sw_must(sim_host_read(w->sim, w->mm, w->va, &byte, 1), SIM_SIGBUS);
    assert_int_equal(counts(w).data_frames, 0);
    sw_must(sw_convert(w, (uint64_t)far / P, 1, true), 0);
}

/* ---- lifetime --------------------------------------------------------------------------------------------------- */

static void views_and_slots_hold_the_inode(struct simworld *w)
{
    uint64_t va;
    char byte = 0;
    make_vm(w, &w->vm);
    struct mm *mm = mm_new(machine_host(w->machine), "a", 1), *child = mm_new(machine_host(w->machine), "b", 2);
    struct gmem *gmem;
    uint64_t va2;
    assert_int_equal(gmem_create(w->vm, 4 * P, MMAP_SHARED, &gmem, &w->caller), 0);
    assert_int_equal(mm_map(mm, gmem, 0, 4 * P, &va, &w->caller), 0);
    assert_int_equal(mm_map(child, gmem, 0, 4 * P, &va2, &w->caller), 0);
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 4 * P, gmem, 0, &w->caller), 0);
    gmem_put(gmem); /* close(fd) */

    /* Still faults new pages in, coherent in both. */
    assert_int_equal(sim_host_write(w->sim, mm, va, "q", 1), SIM_OK);
    assert_int_equal(sim_host_read(w->sim, child, va2, &byte, 1), SIM_OK);
    assert_int_equal(byte, 'q');
    struct page_report page;
    gmem_page_report(gmem, 0, &page);
    assert_int_equal(page.mapcount, 2);
    assert_int_equal(page.refcount, 3);
    sw_audit(w);
    mm_unmap(mm, va);
    gmem_page_report(gmem, 0, &page);
    assert_int_equal(page.mapcount, 1);
    mm_free(child);
    assert_int_equal(counts(w).gmems, 1);
    assert_int_equal(counts(w).data_frames, 1);
    assert_int_equal(vm_set_memory_region(w->vm, 0, 0, 0, 0, NULL, 0, &w->caller), 0);
    assert_int_equal(counts(w).gmems, 0);
    assert_int_equal(counts(w).data_frames, 0);
    mm_free(mm);
}

/* Two pins of one inode, to see their list survive it. */
static void pins_outlive_the_inode(struct simworld *w)
{
    struct ref *a, *b, *c;
    struct gmem *gmem;
    make_vm(w, &w->vm);
    assert_int_equal(gmem_create(w->vm, 4 * P, MMAP_SHARED, &gmem, &w->caller), 0);
    assert_int_equal(gmem_pin(gmem, 0, 2 * P, REF_FOLL_PIN, "a", &a, &w->caller), 0);
    assert_int_equal(gmem_pin(gmem, P, 2 * P, REF_FOLL_GET, "b", &b, &w->caller), 0);
    assert_int_equal(gmem_pin(gmem, 0, P, REF_LONGTERM, "c", &c, &w->caller), 0);
    assert_true(ref_id(a) != ref_id(b) && ref_id(b) != ref_id(c));
    assert_int_equal(counts(w).pins, 3);
    assert_int_equal(counts(w).data_frames, 3);
    sw_audit(w);
    gmem_put(gmem);
    assert_int_equal(counts(w).gmems, 0);
    assert_int_equal(counts(w).data_frames, 3);
    gmem_unpin(b); /* p1 is held by a still */
    assert_int_equal(counts(w).data_frames, 2);
    gmem_unpin(c);
    assert_int_equal(counts(w).data_frames, 2);
    gmem_unpin(a);
    assert_int_equal(counts(w).data_frames, 0);
    assert_int_equal(counts(w).pins, 0);
}

static void pin_arguments(struct simworld *w)
{
    static const struct {
        uint64_t offset, size;
        int kind, rc;
    } table[] = {
        {0, 0, 0, -EINVAL},          {1, P, 0, -EINVAL},  {0, P + 1, 0, -EINVAL},
        {0, P, 3, -EINVAL},          {0, P, -1, -EINVAL}, {16 * P, P, 0, -EFAULT},
        {15 * P, 2 * P, 1, -EFAULT}, {-P, P, 2, -EFAULT}, {0, UINT64_C(1) << 63, 1, -EFAULT},
        {3 * P, 3 * P, 1, -EFAULT}, /* p5 is private */
    };
    struct ref *pin = NULL;
    sw_must(sw_convert(w, 5, 1, true), 0);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        w->caller.message[0] = '\0';
        sw_must(gmem_pin(w->gmem, table[i].offset, table[i].size, (enum ref_kind)table[i].kind, "x", &pin, &w->caller),
                table[i].rc);
        assert_null(pin);
        assert_int_not_equal(w->caller.message[0], '\0');
        assert_int_equal(counts(w).pins, 0);
    }
    /* What the failed pin took before it failed, it gave back. */
    struct page_report page;
    gmem_page_report(w->gmem, 3, &page);
    assert_true(page.allocated);
    assert_int_equal(page.refcount, 1);
}

/* The machine is not large enough: a clear error, and all that was taken for the call is usable again. */
static void out_of_frames(struct simworld *w)
{
    struct ref *pin;
    make_vm(w, &w->vm);
    assert_int_equal(gmem_create(w->vm, UINT64_C(1) << 30, MMAP_SHARED, &w->gmem, &w->caller), 0);
    sw_must(gmem_pin(w->gmem, 0, UINT64_C(1) << 30, REF_FOLL_PIN, "x", &pin, &w->caller), -ENOMEM);
    uint64_t full = counts(w).data_frames;
    assert_true(full > 3000 && full <= 4096);
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, INT64_C(1) << 29, P, &w->caller), -ENOMEM);
    assert_int_equal(counts(w).data_frames, full);
    sw_must(sw_convert(w, 0, UINT64_C(1) << 18, true), 0); /* no frame needed, no reference left */
    sw_must(gmem_fallocate(w->gmem, PUNCH, 0, 5 * P, &w->caller), 0);
    assert_int_equal(counts(w).data_frames, full - 5);
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, INT64_C(1) << 29, 5 * P, &w->caller), 0);
    assert_int_equal(counts(w).data_frames, full);
}

static void pin_task(void *arg)
{
    struct sw_job *job = arg;
    struct ref *pin;
    job->rc = gmem_pin(job->w->gmem, 0, job->nr * P, REF_FOLL_PIN, "bulk", &pin, &job->caller);
    job->done = true;
    if (!job->rc)
        gmem_unpin(pin);
}

/* Nobody waits long for it, and what it has so far is accounted for at every moment. */
static void a_large_pin(struct simworld *w)
{
    struct holder_info holder;
    make_vm(w, &w->vm);
    assert_int_equal(gmem_create(w->vm, UINT64_C(1) << 30, MMAP_SHARED, &w->gmem, &w->caller), 0);
    for (unsigned i = 0; i < 2; i++) {
        /* The second one does not fit into the machine. */
        struct sw_job job = {.w = w, .nr = i ? 1u << 18 : 10000};
        unsigned turns = 0;
        sw_spawn(w, pin_task, &job);
        for (sched_relax(); !job.done; sched_relax(), turns++) {
            sw_audit(w);
            assert_int_equal(gmem_holders(w->gmem, 4000, &holder, 1), 1);
            assert_string_equal(holder.what, "bulk");
        }
        assert_int_equal(job.rc, i ? -ENOMEM : 0);
        assert_in_range(turns, 2, 10);
        assert_int_equal(gmem_holders(w->gmem, 4000, &holder, 1), 0);
        assert_int_equal(counts(w).pins, 0);
        sw_audit(w);
    }
    /* Stopped in the middle. */
    struct sw_job job = {.w = w, .nr = 4}, convert = {.w = w, .nr = 4, .to_private = true};
    sw_stop_at(w, "gup:pinned");
    sw_spawn(w, pin_task, &job);
    sw_settle(w);
    assert_non_null(w->stopped);
    sw_audit(w);
    sw_spawn(w, sw_convert_job, &convert);
    sw_settle(w);
    assert_false(convert.done);
    sw_go(w);
    sw_settle(w);
    assert_true(job.done && convert.done);
    assert_int_equal(job.rc, 0);
}

SIMWORLD(creation_table, .bare = true)
SIMWORLD(every_file_has_its_own_number, .bare = true)
SIMWORLD(mapping_table, .bare = true)
SIMWORLD(binding_table, .bare = true)
SIMWORLD(bindings_race, .bare = true)
SIMWORLD(ranges_and_holes, .bare = false)
SIMWORLD(a_large_file, .bare = true)
SIMWORLD(pages_beyond_what_frames_name, .bare = true)
SIMWORLD(views_and_slots_hold_the_inode, .bare = true)
SIMWORLD(pins_outlive_the_inode, .bare = true)
SIMWORLD(pin_arguments, .no_vmm = true)
SIMWORLD(a_large_pin, .bare = true)
SIMWORLD(out_of_frames, .bare = true, .memory_bytes = UINT64_C(16) << 20)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_creation_table),
        cmocka_unit_test(test_every_file_has_its_own_number),
        cmocka_unit_test(test_mapping_table),
        cmocka_unit_test(test_binding_table),
        cmocka_unit_test(test_bindings_race),
        cmocka_unit_test(test_ranges_and_holes),
        cmocka_unit_test(test_a_large_file),
        cmocka_unit_test(test_pages_beyond_what_frames_name),
        cmocka_unit_test(test_views_and_slots_hold_the_inode),
        cmocka_unit_test(test_pins_outlive_the_inode),
        cmocka_unit_test(test_pin_arguments),
        cmocka_unit_test(test_a_large_pin),
        cmocka_unit_test(test_out_of_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
