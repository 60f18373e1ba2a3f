/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The MMU: table walks over EL2's real descriptors, and the invalidation queue.
 *
 * EL2's tlbi only queues.  Nothing goes on in a guest or in EL1 before the
 * queue is drained, so a decision of EL2 takes effect on processes by the same
 * path as one of EL1.
 */
#include "src/machine/internal.h"

#include <stdlib.h>

#define PTE_VALID UINT64_C(1)
#define PTE_TABLE UINT64_C(2)
#define PTE_ADDR UINT64_C(0x0000fffffffff000)

static uint64_t read_pte(const struct machine *m, uint64_t table, uint64_t slot)
{
    uint64_t phys = table + slot * sizeof(uint64_t);
    if (phys < m->ram_base || phys - m->ram_base >= m->ram_bytes)
        return 0;
    return *(const volatile uint64_t *)(m->ram + (phys - m->ram_base));
}

/* Concatenated tables at the start level are one table with more than 512 entries. */
static void walk(const struct machine *m, const struct hyp_vttbr *vttbr, uint64_t ipa, struct s2_walk *out)
{
    uint64_t table = vttbr->pgd;
    *out = (struct s2_walk){0};
    if (ipa >> vttbr->ipa_bits)
        return;
    for (unsigned level = hyp_s2_start_level(vttbr->ipa_bits), first = 1; level < 4; level++, first = 0) {
        unsigned shift = 12 + 9 * (3 - level);
        uint64_t slot = first ? ipa >> shift : (ipa >> shift) & 511;
        uint64_t pte = read_pte(m, table, slot);
        out->level = (int)level;
        out->pte = pte;
        if (!(pte & PTE_VALID)) {
            out->annotated = pte != 0;
            return;
        }
        if (level == 3 || !(pte & PTE_TABLE)) {
            out->valid = true;
            out->pfn = ((pte & PTE_ADDR) >> 12) + ((ipa & ((UINT64_C(1) << shift) - 1)) >> 12);
            return;
        }
        table = pte & PTE_ADDR;
    }
}

void mmu_walk_guest(const struct machine *m, uint32_t handle, uint64_t gfn, struct s2_walk *out)
{
    struct hyp_vttbr vttbr;
    *out = (struct s2_walk){0};
    if (!hyp_vm_vttbr(m->hyp, handle, &vttbr))
        walk(m, &vttbr, gfn << 12, out);
}

void mmu_walk_host(const struct machine *m, uint64_t pfn, struct s2_walk *out)
{
    struct hyp_vttbr vttbr;
    hyp_host_vttbr(m->hyp, &vttbr);
    walk(m, &vttbr, pfn << 12, out);
}

/* ---- the invalidation queue ------------------------------------------------------------------------------------- */

void mmu_invalidate(struct machine *m, uint16_t vmid, uint64_t ipa, uint64_t nr_pages)
{
    if (m->nr_invals) {
        struct inval *last = &m->invals[m->nr_invals - 1];
        if (last->vmid == vmid && last->nr_pages && nr_pages && last->ipa + (last->nr_pages << 12) == ipa) {
            last->nr_pages += nr_pages;
            return;
        }
    }
    if (m->nr_invals == m->cap_invals) {
        size_t cap = m->cap_invals ? 2 * m->cap_invals : 64;
        struct inval *grown = realloc(m->invals, cap * sizeof(*grown));
        if (!grown) {
            m->inval_everything = true;
            return;
        }
        m->invals = grown;
        m->cap_invals = cap;
    }
    m->invals[m->nr_invals++] = (struct inval){vmid, ipa, nr_pages};
}

static void host_pages(struct machine *m, uint64_t pfn, uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++) {
        struct gmem *gmem;
        uint64_t index;
        if (!host_frame_slot(m->host, pfn + i, &gmem, &index))
            continue;
        gmem_get(gmem);
        uint64_t run = 1, next_index;
        struct gmem *next;
        while (i + run < nr && host_frame_slot(m->host, pfn + i + run, &next, &next_index) && next == gmem &&
               next_index == index + run)
            run++;
        file_commit(m, gmem_file(gmem), index, index + run);
        i += run - 1;
        gmem_put(gmem);
    }
}

static struct vm *vm_by_handle(const struct machine *m, uint32_t handle)
{
    struct vm *vm = NULL;
    while ((vm = host_vm_next(m->host, vm)) && vm_handle(vm) != handle)
        ;
    return vm;
}

/*
 * The stage may wait for a guest's agent, and what was found before a wait may
 * be gone after it: VMs and slots are looked up by number each time.
 */
static void guest_pages(struct machine *m, uint32_t handle, uint64_t gfn, uint64_t nr)
{
    /* Only what is gone must go; a leaf that changed and still maps is looked up anew at the next fault. */
    uint64_t start = gfn, end = gfn + nr;
    while (start < end) {
        struct s2_walk w;
        mmu_walk_guest(m, handle, start, &w);
        uint64_t run = start;
        while (run < end && !w.valid) {
            run++;
            if (run < end)
                mmu_walk_guest(m, handle, run, &w);
        }
        struct vm *vm = vm_by_handle(m, handle);
        if (!vm)
            return;
        if (run > start)
            m->config.stage->guest_zap(m->config.stage_ctx, vm, start, run - start);
        start = run > start ? run : start + 1;
    }
}

static void guest_slots(struct machine *m, uint32_t handle)
{
    uint64_t from = 0;
    for (;;) {
        struct vm *vm = vm_by_handle(m, handle);
        const struct memslot *next = NULL;
        for (const struct memslot *s = vm ? vm_slots(vm) : NULL; s; s = s->next)
            if (s->gfn >= from && (!next || s->gfn < next->gfn))
                next = s;
        if (!next)
            return;
        from = next->gfn + next->nr_pages;
        guest_pages(m, handle, next->gfn, next->nr_pages);
    }
}

static void guest_range(struct machine *m, uint16_t vmid, uint64_t ipa, uint64_t nr)
{
    uint32_t handle = hyp_vmid_handle(m->hyp, vmid);
    if (!handle)
        return;
    if (nr)
        guest_pages(m, handle, ipa >> 12, nr);
    else
        guest_slots(m, handle);
}

static void every_file(struct machine *m)
{
    struct gmem *g = host_gmem_next(m->host, NULL);
    if (g)
        gmem_get(g);
    while (g) {
        file_commit(m, gmem_file(g), 0, gmem_pages(g));
        struct gmem *next = host_gmem_next(m->host, g);
        if (next)
            gmem_get(next);
        gmem_put(g);
        g = next;
    }
}

static void everything(struct machine *m)
{
    every_file(m);
    for (uint64_t id = UINT64_MAX;;) {
        struct vm *next = NULL;
        for (struct vm *vm = NULL; (vm = host_vm_next(m->host, vm));)
            if (vm_id(vm) < id && (!next || vm_id(vm) > vm_id(next)))
                next = vm;
        if (!next)
            return;
        id = vm_id(next);
        guest_slots(m, vm_handle(next));
    }
}

/*
 * A trap finishes what it has queued itself, and is not held up by another
 * task's: so it takes the whole queue away before the first wait.
 */
void mmu_drain(struct machine *m)
{
    while (m->nr_invals || m->inval_everything) {
        struct inval *batch = m->invals;
        size_t nr = m->nr_invals, cap = m->cap_invals;
        bool all = m->inval_everything;
        m->invals = NULL;
        m->nr_invals = m->cap_invals = 0;
        m->inval_everything = false;
        if (all)
            everything(m);
        for (size_t i = 0; i < nr && !all; i++) {
            const struct inval *v = &batch[i];
            if (v->vmid)
                guest_range(m, v->vmid, v->ipa, v->nr_pages);
            else if (v->nr_pages)
                host_pages(m, v->ipa >> 12, v->nr_pages);
            else
                every_file(m);
        }
        if (m->invals) {
            free(batch);
        } else {
            m->invals = batch;
            m->cap_invals = cap;
        }
    }
}
