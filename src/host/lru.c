/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Per-CPU LRU batches: a new folio waits in one before it gets onto the LRU,
 * and the batch holds a reference (mm/folio.c).  Large folios never do.
 */
#include "src/host/internal.h"

#include <stdio.h>

void host_set_lru_batches(struct host *host, bool on)
{
    host->lru_batches = on;
}

void host_lru_counts(const struct host *host, struct lru_counts *out)
{
    *out = host->lru;
}

static void drain_cpu(struct host_cpu *cpu)
{
    while (cpu->nr_lru)
        ref_drop(cpu->lru[--cpu->nr_lru]);
}

static void drain_local(struct host *host)
{
    host->lru.local++;
    drain_cpu(&host->cpus[sched_cpu() % HOST_CPUS]);
}

void host_lru_drain_all(struct host *host)
{
    host->lru.all++;
    for (unsigned c = 0; c < HOST_CPUS; c++)
        drain_cpu(&host->cpus[c]);
}

/* folio_add_lru(). */
int lru_add(struct gmem *gmem, uint64_t index)
{
    struct host *host = gmem->host;
    unsigned nr = sched_cpu() % HOST_CPUS;
    struct host_cpu *cpu = &host->cpus[nr];
    char label[24];
    if (!host->lru_batches || gmem->order)
        return 0;
    snprintf(label, sizeof(label), "CPU %u", nr);
    int rc = ref_take(gmem, index, REF_LRU_BATCH, label, 0, &cpu->lru[cpu->nr_lru]);
    if (!rc && ++cpu->nr_lru == LRU_BATCH)
        drain_cpu(cpu);
    return rc;
}

/*
 * As the kernel does before it believes a wrong count: this CPU's batches, then
 * everybody's, each at most once in a call.
 */
void lru_cache_drain_for_folio(struct host *host, uint64_t pfn, uint32_t expected, struct lru_drained *drained)
{
    if (folio_nr_pages(host, pfn) > 1)
        return;
    if (folio_refcount(host, pfn) != expected && !drained->local) {
        drain_local(host);
        drained->local = true;
    }
    if (folio_refcount(host, pfn) != expected && !drained->all) {
        host_lru_drain_all(host);
        drained->all = true;
        sched_point("lru:drained");
    }
}
