/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Per-CPU TLBs: stage 1 only.  What EL2 invalidates goes through the machine's
 * queue, and the machine walks stage 2 for each access.
 */
#include "src/host/mm_internal.h"

#include <string.h>

void host_set_tlb_mode(struct host *host, enum tlb_mode mode)
{
    host->tlb_mode = mode;
}

static struct host_cpu *this_cpu(struct host *host)
{
    return &host->cpus[sched_cpu() % HOST_CPUS];
}

static struct tlb_entry *slot_of(struct host_cpu *cpu, uint64_t vpn)
{
    return &cpu->tlb[vpn % TLB_ENTRIES];
}

static struct tlb_entry *lookup(struct host_cpu *cpu, const struct mm *mm, uint64_t vpn)
{
    struct tlb_entry *e = slot_of(cpu, vpn);
    return e->mm == mm && e->vpn == vpn ? e : NULL;
}

bool mm_translate(struct mm *mm, uint64_t va, bool write, uint64_t *pfn)
{
    struct host_cpu *cpu = this_cpu(mm->host);
    const struct tlb_entry *e = lookup(cpu, mm, va >> HOST_PAGE_SHIFT);
    /* The first write through an entry walks: the PTE must become dirty. */
    if (e && (!write || e->dirty)) {
        *pfn = e->pfn;
        return true;
    }
    struct pte *pte = pte_at(mm, va);
    if (!pte)
        return false;
    pte->dirty = pte->dirty || write;
    *slot_of(cpu, pte->vpn) = (struct tlb_entry){
        .mm = mm, .vpn = pte->vpn, .pfn = pte->pfn, .gmem = pte->gmem, .index = pte->index, .dirty = pte->dirty};
    *pfn = pte->pfn;
    return true;
}

bool host_tlb_has(const struct host *host, unsigned cpu, uint64_t pfn)
{
    const struct host_cpu *c = &host->cpus[cpu % HOST_CPUS];
    for (unsigned i = 0; i < TLB_ENTRIES; i++)
        if (c->tlb[i].mm && c->tlb[i].pfn == pfn)
            return true;
    return false;
}

bool host_tlb_entry(const struct host *host, unsigned n, unsigned *cpu, uint64_t *pfn)
{
    *cpu = n / TLB_ENTRIES;
    if (*cpu >= HOST_CPUS)
        return false;
    *pfn = host->cpus[*cpu].tlb[n % TLB_ENTRIES].pfn;
    return true;
}

/* The CPU takes the IPI when it has its IRQs on again; a TLBI it does not even notice. */
static void wait_for_cpu(const struct host *host, struct host_cpu *cpu)
{
    while (host->tlb_mode == TLB_IPI && cpu->walkers)
        sched_wait_uncancelled(&cpu->irqs_on, SCHED_FOREVER);
}

void tlb_flush_file(struct gmem *gmem, uint64_t start, uint64_t end)
{
    for (unsigned c = 0; c < HOST_CPUS; c++) {
        struct host_cpu *cpu = &gmem->host->cpus[c];
        wait_for_cpu(gmem->host, cpu);
        for (unsigned i = 0; i < TLB_ENTRIES; i++) {
            struct tlb_entry *e = &cpu->tlb[i];
            if (e->gmem == gmem && e->index >= start && e->index < end)
                *e = (struct tlb_entry){0};
        }
    }
}

void tlb_flush_mm(struct mm *mm, uint64_t va, uint64_t length)
{
    uint64_t first = va >> HOST_PAGE_SHIFT, nr = length >> HOST_PAGE_SHIFT;
    for (unsigned c = 0; c < HOST_CPUS; c++) {
        struct host_cpu *cpu = &mm->host->cpus[c];
        wait_for_cpu(mm->host, cpu);
        for (unsigned i = 0; i < TLB_ENTRIES; i++) {
            struct tlb_entry *e = &cpu->tlb[i];
            if (e->mm == mm && e->vpn - first < nr)
                *e = (struct tlb_entry){0};
        }
    }
}

void irqs_off(struct host *host)
{
    this_cpu(host)->walkers++;
}

void irqs_on(struct host *host, unsigned cpu)
{
    struct host_cpu *c = &host->cpus[cpu % HOST_CPUS];
    if (--c->walkers == 0)
        sched_wake_all(&c->irqs_on);
}
