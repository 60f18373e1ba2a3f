/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs in simulation: what only the model has, its CPUs, devices, the kernel's own references, memory that fails. */
#include "src/scenario/sim_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- processes -------------------------------------------------------------------------------------------------- */

void sim_PROCESS_gup(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    static const char *const names[REF_USER_KINDS] = {"FOLL_GET", "FOLL_PIN", "FOLL_LONGTERM"};
    struct sim_process *p = sim_self_process(w, c, v);
    struct ref *ref = NULL;
    unsigned kind = 0;
    uint64_t va;

    while (kind < REF_USER_KINDS && strcmp(c->arg[2].text, names[kind]))
        kind++;
    if (kind == REF_USER_KINDS)
        sc_broken(v, "gup of kind \"%s\": FOLL_GET, FOLL_PIN or FOLL_LONGTERM", c->arg[2].text);
    if (!p || *v->broken || !sim_address(w, c, c->arg[0].n, c->arg[4].n, &va, v))
        return;
    /* The call may stop on its way: its place among the pins is taken when it has ended. */
    sc_rc(v, mm_gup(p->mm, va, (uint64_t)c->arg[1].n, (enum ref_kind)kind, c->arg[3].text, &ref, &p->caller));
    if (v->rc) {
        sc_detail(v, "%s", p->caller.message);
    } else if (w->nr_pins == SIM_MAX_PINS) {
        gmem_unpin(ref);
        sc_broken(v, "more than %u pins", SIM_MAX_PINS);
    } else {
        w->pin[w->nr_pins++] = (struct sim_pin){.ref = ref, .process = c->self};
        v->value = w->nr_pins;
    }
}

void sim_PROCESS_on_cpu(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);

    if (c->arg[0].n < 0 || c->arg[0].n >= HOST_CPUS)
        sc_broken(v, "CPU %lld: there are 0 to %u", (long long)c->arg[0].n, HOST_CPUS - 1);
    if (!p || *v->broken)
        return;
    p->cpu = (unsigned)c->arg[0].n;
    sc_rc(v, 0);
}

void sim_PROCESS_mce_kill(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);

    if (!p)
        return;
    mm_set_mce_early(p->mm, c->arg[0].n != 0);
    sc_rc(v, 0);
}

void sim_PROCESS_signals(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    uint64_t va;
    int code;

    if (!p)
        return;
    sc_rc(v, 0);
    sc_field(v, "signals", mm_signals(p->mm, &code, &va));
    sc_field(v, "code", code);
}

void sim_PROCESS_d_state(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);

    if (!p)
        return;
    mm_set_d_state(p->mm, c->arg[0].n != 0);
    sim_forget_dead(w);
    sc_rc(v, 0);
}

/* ---- the kernel ------------------------------------------------------------------------------------------------- */

static int kind_by_name(const char *name)
{
    for (int kind = 0; kind < REF_KINDS_COUNT; kind++)
        if (!strcmp(ref_kinds[kind].name, name))
            return kind;
    return -1;
}

static void put_refs(struct sim_refs *refs, uint64_t left)
{
    while (refs->nr > left)
        ref_drop(refs->ref[--refs->nr]);
    if (!left) {
        free(refs->ref);
        refs->ref = NULL;
    }
}

void sim_KERN_ref(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->arg[4].n, v);
    int kind = kind_by_name(c->arg[1].text);
    int64_t count = c->arg[2].n;

    if (kind < 0 || kind == REF_PTE || kind == REF_GATHER)
        sc_broken(v, "\"%s\" is no kind of reference that can be taken", c->arg[1].text);
    else if (count < 1 || count > 100000)
        sc_broken(v, "%lld references: 1 to 100000", (long long)count);
    else if (w->nr_refs == SIM_MAX_REFS)
        sc_broken(v, "more than %u times", SIM_MAX_REFS);
    if (!gmem || *v->broken)
        return;
    struct sim_refs *refs = &w->refs[w->nr_refs];
    *refs = (struct sim_refs){.ref = calloc((size_t)count, sizeof(struct ref *))};
    int rc = refs->ref ? 0 : -ENOMEM;
    while (!rc && refs->nr < (uint64_t)count) {
        rc = ref_take(gmem, (uint64_t)c->arg[0].n, (enum ref_kind)kind, c->arg[3].text, 0, &refs->ref[refs->nr]);
        refs->nr += rc == 0;
    }
    if (rc)
        put_refs(refs, 0);
    else
        v->value = ++w->nr_refs;
    sc_rc(v, rc);
}

void sim_KERN_put(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n, count = c->arg[1].n;

    if (n < 1 || n > w->nr_refs || !w->refs[n - 1].nr || count < 0 || (uint64_t)count > w->refs[n - 1].nr) {
        sc_broken(v, "there are not so many of these references");
        return;
    }
    put_refs(&w->refs[n - 1], count ? w->refs[n - 1].nr - (uint64_t)count : 0);
    sc_rc(v, 0);
}

void sim_KERN_lru_batches(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    host_set_lru_batches(machine_host(w->machine), c->arg[0].n != 0);
    sc_rc(v, 0);
}

void sim_KERN_lru(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct lru_counts counts;

    (void)c;
    host_lru_counts(machine_host(w->machine), &counts);
    sc_rc(v, 0);
    sc_field(v, "here", (int64_t)counts.local);
    sc_field(v, "all", (int64_t)counts.all);
}

void sim_KERN_tlb(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    bool ipi = !strcmp(c->arg[0].text, "ipi");

    if (!ipi && strcmp(c->arg[0].text, "broadcast") != 0) {
        sc_broken(v, "TLBs are flushed by \"ipi\" or \"broadcast\"");
        return;
    }
    host_set_tlb_mode(machine_host(w->machine), ipi ? TLB_IPI : TLB_BROADCAST);
    sc_rc(v, 0);
}

static bool page_of(struct sc_sim *w, int64_t file, int64_t index, struct page_report *page, struct sc_verdict *v)
{
    const struct gmem *gmem = sim_file_of(w, file, v);

    if (gmem && (index < 0 || (uint64_t)index >= gmem_pages(gmem)))
        sc_broken(v, "page %lld is past the end of the file", (long long)index);
    if (!gmem || *v->broken)
        return false;
    gmem_page_report(gmem, (uint64_t)index, page);
    return true;
}

void sim_KERN_tlb_has(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct page_report page;

    if (!page_of(w, c->arg[2].n, c->arg[1].n, &page, v))
        return;
    sc_rc(v, 0);
    v->value = page.allocated && host_tlb_has(machine_host(w->machine), (unsigned)c->arg[0].n, page.pfn);
}

void sim_KERN_memory_failure(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct page_report page;

    if (!page_of(w, c->arg[2].n, c->arg[0].n, &page, v))
        return;
    if (w->nr_failed == SIM_MAX_FAILED) {
        sc_broken(v, "more than %u failures", SIM_MAX_FAILED);
        return;
    }
    sc_rc(v, page.allocated
                 ? host_memory_failure(machine_host(w->machine), page.pfn, c->arg[1].n ? MF_ACTION_REQUIRED : 0)
                 : -ENXIO);
    if (page.allocated)
        w->failed[w->nr_failed++] = page.pfn;
    sc_field(v, "pfn", (int64_t)page.pfn);
}

void sim_KERN_unpoison(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    sc_rc(v, host_unpoison(machine_host(w->machine), (uint64_t)c->arg[0].n));
}

/* ---- devices ---------------------------------------------------------------------------------------------------- */

void sim_WORLD_device(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct device *device =
        w->nr_devices < SIM_MAX_DEVICES ? device_new(machine_host(w->machine), c->arg[0].text) : NULL;

    if (!device) {
        sc_broken(v, "more than %u devices, or no memory", SIM_MAX_DEVICES);
        return;
    }
    v->value = w->nr_devices;
    w->device[w->nr_devices++] = device;
    sc_rc(v, 0);
}

void sim_DEVICE_map(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    const struct sc_call of_process = {.verb = c->verb, .self = (int32_t)c->arg[0].n};
    struct sim_process *p = sim_self_process(w, &of_process, v);
    uint64_t va;

    if (!p || !sim_address(w, &of_process, c->arg[1].n, c->arg[4].n, &va, v))
        return;
    sc_rc(v, device_map(w->device[c->self], p->mm, va, (uint64_t)c->arg[2].n, (uint64_t)c->arg[3].n * SC_PAGE,
                        &p->caller));
    if (v->rc)
        sc_detail(v, "%s", p->caller.message);
}

void sim_DEVICE_unmap(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    sc_rc(v, 0);
    v->value = (int64_t)device_unmap(w->device[c->self], (uint64_t)c->arg[0].n * SC_PAGE, (uint64_t)c->arg[1].n);
}

void sim_DEVICE_dma_read(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t bytes = c->arg[1].n;

    if (bytes < 1 || bytes > SC_BYTES) {
        sc_broken(v, "%lld bytes: 1 to %u", (long long)bytes, SC_BYTES);
        return;
    }
    sc_rc(v, sim_dma_read(w->sim, w->device[c->self], (uint64_t)c->arg[0].n * SC_PAGE, v->bytes, (size_t)bytes));
    v->nr_bytes = v->rc ? 0 : (uint32_t)bytes;
}

void sim_DEVICE_dma_write(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    const char *text = c->arg[1].text;

    sc_rc(v, sim_dma_write(w->sim, w->device[c->self], (uint64_t)c->arg[0].n * SC_PAGE, text, strlen(text) + 1));
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

void sim_model_end(struct sc_sim *w)
{
    struct host *host = machine_host(w->machine);

    for (unsigned i = 0; i < w->nr_devices; i++)
        device_free(w->device[i]);
    for (unsigned i = 0; i < w->nr_refs; i++)
        put_refs(&w->refs[i], 0);
    for (unsigned i = 0; i < w->nr_failed; i++)
        host_unpoison(host, w->failed[i]);
    host_lru_drain_all(host);
}
