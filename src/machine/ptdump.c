/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/machine/ptdump.h"

#include <errno.h>

#include "fakehyp/stage2/descriptor.h"
#include "src/machine/internal.h"

#define ENTRIES_A_SLICE 4096u
/* What the kernel's ptdump.c shows of a descriptor, the type bit apart: it is the same for leaves of one level. */
#define SHOWN (S2_PTE_VALID | S2_PTE_PERM_MASK | S2_PTE_AF)

static struct vm *find_vm(const struct machine *m, uint64_t id)
{
    struct vm *vm = host_vm_next(m->host, NULL);

    while (vm && vm_id(vm) != id)
        vm = host_vm_next(m->host, vm);
    return vm;
}

int ptdump_open(struct ptdump *dump, struct machine *machine, uint64_t id, bool states, uint64_t from)
{
    const struct vm *vm = id ? find_vm(machine, id) : NULL;
    struct hyp_vttbr vttbr;

    if (id && !vm)
        return -ENOENT;
    if (!vm)
        hyp_host_vttbr(machine->hyp, &vttbr);
    else if (hyp_vm_vttbr(machine->hyp, vm_handle(vm), &vttbr))
        return -ENXIO;
    *dump = (struct ptdump){.machine = machine,
                            .vm = id,
                            .states = states,
                            .handle = vm ? vm_handle(vm) : 0,
                            .ipa_bits = vttbr.ipa_bits,
                            .start_level = hyp_s2_start_level(vttbr.ipa_bits),
                            .at = from & ~(HYP_PAGE_SIZE - 1),
                            .end = UINT64_C(1) << vttbr.ipa_bits};
    return dump->at < dump->end ? 0 : -ERANGE;
}

/* The host's state is in vmemmap and not in its table: one entry may cover pages of several states. */
static void host_state(const struct ptdump *dump, struct ptdump_run *run)
{
    const struct machine *m = dump->machine;
    uint64_t ram_end = m->ram_base + m->ram_bytes;
    struct hyp_frame_info info;
    struct host_counts counts;

    host_counts(m->host, &counts);
    if (run->start < m->ram_base || run->start >= ram_end) {
        if (run->start < m->ram_base && run->end > m->ram_base)
            run->end = m->ram_base;
        return;
    }
    run->has_state = true;
    run->state = PKVM_PAGE_OWNED;
    if (run->end > ram_end)
        run->end = ram_end;
    if (!s2_pte_valid(run->pte) && run->pte) {
        run->state = PKVM_PAGE_NOPAGE;
    } else if (run->start >> HYP_PAGE_SHIFT < counts.top_pfn) {
        run->end = run->start + HYP_PAGE_SIZE;
        if (!hyp_frame_info(m->hyp, run->start >> HYP_PAGE_SHIFT, &info))
            run->state = info.host;
    }
}

/* The entry at dump->at, or as much of it as has one state. */
static void look(const struct ptdump *dump, struct ptdump_run *run)
{
    uint64_t page = dump->at >> HYP_PAGE_SHIFT;
    struct s2_walk walk;

    if (dump->vm)
        mmu_walk_guest(dump->machine, dump->handle, page, &walk);
    else
        mmu_walk_host(dump->machine, page, &walk);
    *run = (struct ptdump_run){.start = dump->at,
                               .end = (dump->at | (s2_granule(walk.level) - 1)) + 1,
                               .level = walk.level,
                               .pte = walk.pte,
                               .pfn = walk.pfn};
    if (run->end > dump->end)
        run->end = dump->end;
    if (!dump->states)
        return;
    if (!dump->vm) {
        host_state(dump, run);
        return;
    }
    run->has_state = true;
    run->state = s2_guest_state(run->pte);
}

/* An annotation is no permission: the bits that a handle or a gfn has there are not shown as such. */
static uint64_t shown(uint64_t pte)
{
    return s2_pte_valid(pte) ? pte & SHOWN : pte ? S2_PTE_POISON : 0;
}

static bool goes_on(const struct ptdump *dump, const struct ptdump_run *run, const struct ptdump_run *next)
{
    uint64_t pages = (run->end - run->start) >> HYP_PAGE_SHIFT, expected = run->pte;

    if (run->level != next->level || shown(run->pte) != shown(next->pte))
        return false;
    if (!dump->states)
        return true;
    if (run->has_state != next->has_state || run->state != next->state)
        return false;
    if (s2_pte_valid(run->pte))
        return next->pfn == run->pfn + pages;
    if (s2_annotation_owner(run->pte) == HYP_OWNER_GUEST)
        expected += pages << S2_GFN_SHIFT;
    return next->pte == expected;
}

int ptdump_next(struct ptdump *dump, struct ptdump_run *run)
{
    struct ptdump_run next;

    if (dump->at >= dump->end)
        return 0;
    look(dump, run);
    for (dump->at = run->end; dump->at < dump->end; dump->at = run->end) {
        if (++dump->seen % ENTRIES_A_SLICE == 0) {
            sched_relax();
            if (dump->vm && !find_vm(dump->machine, dump->vm))
                return -ENOENT;
        }
        look(dump, &next);
        if (!goes_on(dump, run, &next))
            break;
        run->end = next.end;
    }
    return 1;
}
