/* SPDX-License-Identifier: BSD-2-Clause */
/* What the specification says against what EL2 did. */
#include "fakehyp/oracle/state.h"
#include "fakehyp/string.h"

static void same(struct oracle *o, const char *what, const char *name, uint64_t expected, uint64_t got)
{
    if (expected != got)
        o_diverge(o, what, name, expected, got);
}

/* ---- results ---- */

static void compare_results(struct oracle *o)
{
    const char *what = "the result is not as specified";
    const struct expectation *e = &o->expect;

    same(o, what, "next", (uint64_t)e->next, (uint64_t)o->call.next);
    if (o->call.kind == CALL_ABORT)
        return;
    same(o, what, "x0", e->x0, o->call.out[0]);
    same(o, what, "x1", e->x1, o->call.out[1]);
    for (unsigned i = 2; i < 8; i++)
        same(o, "a register changed that is no result", "x", o->call.in[i], o->call.out[i]);
}

/* ---- frames ---- */

static bool same_frame(const struct frame *a, const struct frame *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static void compare_frame(struct oracle *o, const char *what, uint64_t pfn, const struct frame *before)
{
    struct frame now;

    if (!o_tracked(o, pfn))
        return;
    now = o_frame_now(o, pfn);
    if (!same_frame(&now, &o->frames[pfn - o->base_pfn]))
        o_diverge_frame(o, what, pfn, before, &o->frames[pfn - o->base_pfn], &now);
}

static void compare_changed_frames(struct oracle *o)
{
    for (unsigned i = 0; i < o->nr_changed; i++) {
        compare_frame(o, "page state", o->changed[i].pfn, &o->changed[i].before);
        o_judge_host_leaf(o, o->changed[i].pfn);
    }
}

/* Frames of which nothing is known but that they are the host's are passed over quickly. */
static bool all_plain(const struct oracle *o, uint64_t i)
{
    static const struct frame plain;
    const uint64_t *record = (const void *)&o->records[i];

    return *record == 0 && memcmp(&o->frames[i], &plain, sizeof(plain)) == 0;
}

/* Where no frame ever was anything but plain host memory EL2's records are looked at in strict mode only. */
static void compare_every_frame(struct oracle *o, const char *what)
{
    for (uint64_t i = 0; i < o->nr_frames; i++) {
        if (i % CHUNK == 0 && !o->options.strict && !o->used[i / CHUNK])
            i += CHUNK - 1;
        else if (!all_plain(o, i))
            compare_frame(o, what, o->base_pfn + i, NULL);
    }
}

void o_compare_all_frames(struct oracle *o)
{
    compare_every_frame(o, "page state");
}

/* ---- records of VMs and CPUs ---- */

static void compare_vm(struct oracle *o, const struct vm *vm)
{
    const char *what = "the VM is not as specified";
    uint32_t handle = HYP_HANDLE_OFFSET + (uint32_t)(vm - o->vms);
    struct hyp_vm_info info;
    struct hyp_vttbr vttbr;

    hyp_vm_info(o->hyp, handle, &info);
    same(o, what, "reserved", vm->reserved, info.reserved);
    same(o, what, "exists", vm->exists, info.exists);
    if (!vm->exists || !info.exists)
        return;
    same(o, what, "protected", vm->is_protected, info.is_protected);
    same(o, what, "dying", vm->is_dying, info.is_dying);
    same(o, what, "unshare mode", vm->mode, info.unshare_mode);
    same(o, what, "vcpus", vm->nr_vcpus, info.nr_vcpus);
    same(o, what, "page", vm->page, info.phys);
    same(o, what, "host page", vm->host_kvm, info.host_kvm);
    same(o, what, "loaded vcpus", vm->nr_loaded, o->records[vm->page / HYP_PAGE_SIZE - o->base_pfn].refcount);
    hyp_vm_vttbr(o->hyp, handle, &vttbr);
    same(o, what, "PGD", vm->tree.pgd, vttbr.pgd);
    same(o, what, "IPA bits", vm->tree.ipa_bits, vttbr.ipa_bits);
    same(o, what, "VMID", vm->tree.vmid, vttbr.vmid);
}

static void compare_vcpu(struct oracle *o, const struct vm *vm, const struct vcpu *vcpu)
{
    const char *what = "the vcpu is not as specified";
    struct hyp_vcpu_info info;

    hyp_vcpu_info(o->hyp, vm->handle, (uint32_t)(vcpu - vm->vcpus), &info);
    same(o, what, "exists", vcpu->exists, info.exists);
    if (!vcpu->exists || !info.exists)
        return;
    same(o, what, "loaded", vcpu->loaded, info.loaded);
    same(o, what, "page", vcpu->page, info.phys);
    same(o, what, "host page", vcpu->host_vcpu, info.host_vcpu);
    same(o, what, "waits for", vcpu->wait, info.pending);
    same(o, what, "ESR", vcpu->esr, info.esr);
    same(o, what, "HPFAR", vcpu->hpfar, info.hpfar);
    same(o, what, "replay", vcpu->regs.replay, info.regs.replay);
    for (unsigned i = 0; i < 4; i++)
        same(o, "the guest's registers are not as specified", "x", vcpu->regs.x[i], info.regs.x[i]);
}

static void compare_cpu(struct oracle *o, unsigned cpu)
{
    const char *what = "the CPU is not as specified";
    const struct cpu *c = &o->cpus[cpu];
    struct hyp_cpu_info info;

    hyp_cpu_info(o->hyp, cpu, &info);
    same(o, what, "finalized", c->finalized, info.finalized);
    same(o, what, "loaded VM", c->vm ? c->vm->handle : 0, info.handle);
    if (c->vm)
        same(o, what, "loaded vcpu", c->idx, info.vcpu_idx);
}

static void compare_every_vm(struct oracle *o)
{
    for (unsigned i = 0; i < HYP_MAX_VMS; i++) {
        const struct vm *vm = &o->vms[i];

        compare_vm(o, vm);
        for (uint32_t v = 0; vm->exists && v < vm->nr_vcpus; v++)
            compare_vcpu(o, vm, &vm->vcpus[v]);
    }
    for (unsigned i = 0; i < o->nr_cpus; i++)
        compare_cpu(o, i);
}

/*
 * A new table is from the VM's pool or from the memcache of the vcpu that
 * needed it, and a table that is no longer needed goes to the pool: none gets
 * lost, and no other memcache changes.
 */
static void compare_pages(struct oracle *o, struct vm *vm, struct vcpu *vcpu, uint64_t tables_before)
{
    struct hyp_vcpu_info vcpu_info = {.exists = false};
    struct hyp_vm_info info;
    uint64_t grown = vm->tree.nr_tables > tables_before ? vm->tree.nr_tables - tables_before : 0, taken;

    hyp_vm_info(o->hyp, vm->handle, &info);
    if (vcpu && vcpu->exists)
        hyp_vcpu_info(o->hyp, vm->handle, (uint32_t)(vcpu - vm->vcpus), &vcpu_info);
    if (vcpu_info.exists) {
        taken = vcpu->nr_cached - vcpu_info.memcache.nr_pages;
        if (taken > grown)
            o_diverge(o, "the memcache has other pages than those that were donated and not used", "pages",
                      vcpu->nr_cached, vcpu_info.memcache.nr_pages);
        vcpu->nr_cached -= taken;
        vm->nr_cached -= taken;
    }
    same(o, "pages of the VM in tables, pool and memcaches are not those that were donated", "pages", vm->nr_donated,
         vm->tree.nr_tables + info.pool.nr_pages + vm->nr_cached);
}

/* The same of each VM, at rest. */
static void compare_every_account(struct oracle *o)
{
    for (unsigned i = 0; i < HYP_MAX_VMS; i++) {
        struct vm *vm = &o->vms[i];
        struct hyp_vcpu_info info;

        if (!vm->exists)
            continue;
        for (uint32_t v = 0; v < vm->nr_vcpus; v++) {
            if (!vm->vcpus[v].exists)
                continue;
            hyp_vcpu_info(o->hyp, vm->handle, v, &info);
            same(o, "a vcpu's memcache is not as specified", "pages", vm->vcpus[v].nr_cached, info.memcache.nr_pages);
        }
        compare_pages(o, vm, NULL, vm->tree.nr_tables);
    }
}

/* ---- guest leaves ---- */

static void compare_leaf(struct oracle *o, const struct guest_change *g, uint64_t gfn, uint64_t nr)
{
    struct leaf before, expected, now;

    o_walk(o, &g->vm->tree, BEFORE, gfn * HYP_PAGE_SIZE, &before);
    o_walk(o, &g->vm->tree, NOW, gfn * HYP_PAGE_SIZE, &now);
    expected = before;
    switch (g->what) {
    case LEAVES_MAP:
        expected.level = nr == 1 ? ORACLE_LEAF_LEVEL : ORACLE_LEAF_LEVEL - 1;
        expected.base = gfn * HYP_PAGE_SIZE;
        expected.pte = g->pte;
        break;
    case LEAVES_UNMAP:
        expected = now; /* a table may be gone */
        expected.pte = 0;
        break;
    case LEAVES_POISON:
        expected.pte = PTE_POISONED;
        break;
    case LEAVES_BITS:
        if (before.pte & PTE_VALID)
            expected.pte = (before.pte & ~g->clear) | g->set;
        break;
    case LEAVES_SAME:
        break;
    }
    if (expected.pte != now.pte || expected.level != now.level)
        o_diverge_leaf(o, "guest mapping", g->vm, &before, &expected, &now);
}

static void compare_guest(struct oracle *o)
{
    const struct guest_change *g = &o->expect.guest;
    /* One leaf is mapped; what is unmapped or changed is looked at page by page, whatever leaves there are now. */
    uint64_t step = g->what == LEAVES_MAP ? g->nr : 1;
    struct leaf now;

    for (uint64_t i = 0; g->what != LEAVES_SAME && i < g->nr; i += step)
        compare_leaf(o, g, g->gfn + i, step);
    if (g->what == LEAVES_BITS && g->flush) {
        o_walk(o, &g->vm->tree, NOW, g->gfn * HYP_PAGE_SIZE, &now);
        if (!o_flushed_with(o, g->vm->tree.vmid, now.base, o_granule(now.level), now.pte))
            o_diverge_leaf(o, "permissions changed without a TLBI after it", g->vm, &now, &now, &now);
    }
}

/* ---- the host's memory ---- */

static void compare_host_memory(struct oracle *o)
{
    const struct expectation *e = &o->expect;
    const struct kvm_host_vcpu *host;

    if (e->refilled) {
        host = (const void *)o_page_now(o, e->refilled);
        same(o, "the host's memcache is not what is left of it", "head", e->rest.head, host->pkvm_memcache.head);
        same(o, "the host's memcache is not what is left of it", "pages", e->rest.nr_pages,
             host->pkvm_memcache.nr_pages);
    }
    if (e->exit_to) {
        const char *what = "the exit record is not as specified";

        host = (const void *)o_page_now(o, e->exit_to);
        same(o, what, "ESR", e->exit.esr, host->esr);
        same(o, what, "FAR", e->exit.far, host->far);
        same(o, what, "HPFAR", e->exit.hpfar, host->hpfar);
        for (unsigned i = 0; i < 4; i++)
            same(o, what, "x", e->exit.x[i], host->x[i]);
    }
}

/*
 * Of a page of the host that EL2 looked at nothing changed but what is judged
 * above; so the links of a list that was refused are what they were, too.
 */
static void compare_host_page(struct oracle *o, const struct look *look)
{
    const struct expectation *e = &o->expect;
    const uint64_t *now = o_page_now(o, look->page);
    struct kvm_host_vcpu host, host_now;
    uint64_t words[10];

    _Static_assert(sizeof(host) == sizeof(words) && sizeof(words) == sizeof(look->words), "a look shows all of it");
    memcpy(&host, look->words, sizeof(host));
    memcpy(&host_now, now, sizeof(host_now));
    if (look->page == e->refilled)
        host.pkvm_memcache = host_now.pkvm_memcache;
    if (look->page == e->exit_to) {
        host.esr = host_now.esr;
        host.far = host_now.far;
        host.hpfar = host_now.hpfar;
        memcpy(host.x, host_now.x, sizeof(host.x));
    }
    memcpy(words, &host, sizeof(words));
    for (unsigned i = 0; i < 10; i++)
        same(o, "EL2 wrote to a page of the host", "word", words[i], now[i]);
}

/* Not after a VM's end: what its pages hold when they come back is judged with the lists. */
static void compare_host_pages(struct oracle *o)
{
    for (unsigned i = 0; i < o->nr_looks && !o->expect.ended; i++) {
        const struct look *look = &o->looks[o->look_at[i]];
        uint64_t pfn = look->page / HYP_PAGE_SIZE;

        if (o_tracked(o, pfn) && o_frame_of(o, pfn).el2 != EL2_OWNS)
            compare_host_page(o, look);
    }
}

static bool zero_but_link(const struct oracle *o, uint64_t page)
{
    const uint64_t *words = o_page_now(o, page);
    uint64_t any = 0;

    for (unsigned i = 1; i < HYP_PAGE_SIZE / sizeof(*words); i++)
        any |= words[i];
    return any == 0;
}

static bool is_struct_of(const struct vm *vm, uint64_t page)
{
    bool found = page == vm->page;

    for (uint32_t i = 0; i < vm->nr_vcpus; i++)
        found |= vm->vcpus[i].exists && vm->vcpus[i].page == page;
    return found;
}

/* Pages of an ended VM that come back in one list, each the VM's until now and each once. */
static uint64_t take_back(struct oracle *o, const struct vm *vm, struct hyp_memcache list, bool structs)
{
    uint64_t nr = 0;

    while (list.head && nr <= o->nr_frames) {
        struct frame frame = o_frame_of(o, list.head / HYP_PAGE_SIZE);

        if (frame.el2 != EL2_OWNS || frame.handle != vm->handle || is_struct_of(vm, list.head) != structs) {
            o_diverge(o, "a page comes back that was not donated for this VM, or not in this list", "page", 0,
                      list.head);
            break;
        }
        if (!zero_but_link(o, list.head))
            o_diverge(o, "I14: a page comes back with contents", "page", 0, list.head);
        o_to_host(o, list.head / HYP_PAGE_SIZE);
        nr++;
        list.head = *o_page_now(o, list.head);
    }
    same(o, "a list of returned pages is not as long as it says", "pages", list.nr_pages, nr);
    return nr;
}

static void spec_returned_pages(struct oracle *o)
{
    const struct vm *vm = o->expect.ended;
    const struct kvm_host_vm *host;
    uint64_t nr_structs = 1;

    if (!vm || o->call.out[1] != 0)
        return;
    host = (const void *)o_page_now(o, vm->host_kvm);
    for (uint32_t i = 0; i < vm->nr_vcpus; i++)
        nr_structs += vm->vcpus[i].exists;
    same(o, "not every structure of the VM came back", "pages", nr_structs, take_back(o, vm, host->teardown_mc, true));
    same(o, "not every page donated for tables came back", "pages", vm->nr_donated,
         take_back(o, vm, host->stage2_teardown_mc, false));
}

/* ---- host aborts ---- */

/* An empty entry gets the largest block that is inside its region; a valid one is left alone. */
static void compare_abort(struct oracle *o)
{
    uint64_t phys = o->call.in[0], pfn = phys / HYP_PAGE_SIZE;
    struct range range = o_range_of(o, pfn);
    struct leaf before, now, expected;

    if (o->expect.next != HYP_ABORT_RETRY || o->call.next != HYP_ABORT_RETRY)
        return;
    o_walk(o, &o->host, BEFORE, phys, &before);
    o_walk(o, &o->host, NOW, phys, &now);
    expected = before;
    if (!(before.pte & PTE_VALID)) {
        for (expected.level = before.level > 1 ? before.level : 1;; expected.level++) {
            uint64_t nr = o_granule(expected.level) / HYP_PAGE_SIZE;

            expected.base = pfn / nr * nr * HYP_PAGE_SIZE;
            if (nr == 1 || (pfn / nr * nr >= range.start && pfn / nr * nr + nr <= range.end))
                break;
        }
        expected.pte = o_host_entry(o, expected.base, expected.level);
    }
    /* Where device mappings had to go the walk may have ended higher up, at a larger block. */
    if (now.level < expected.level && o->nr_events > 0 && now.pte == o_host_entry(o, now.base, now.level))
        return;
    if (now.pte != expected.pte || now.level != expected.level)
        o_diverge_leaf(o, "mapping on demand", NULL, &before, &expected, &now);
}

/* ---- all of it ---- */

static void each_named_frame(struct oracle *o, const char *what)
{
    const uint64_t *a = o->call.in;

    if (o->call.kind == CALL_ABORT)
        compare_frame(o, what, a[0] / HYP_PAGE_SIZE, NULL);
    if (o->watch_vm)
        compare_frame(o, what, o->watch_page / HYP_PAGE_SIZE, NULL);
    if (o->call.kind != CALL_HVC)
        return;
    switch (o->call.n) {
    case HVC_host_share_guest:
        for (uint64_t i = 1; i < a[3] && i < ORACLE_ENTRIES; i++)
            compare_frame(o, what, a[1] + i, NULL);
        /* fall through */
    case HVC_host_share_hyp:
    case HVC_host_unshare_hyp:
    case HVC_host_donate_guest:
    case HVC_host_may_access:
        compare_frame(o, what, a[1], NULL);
        break;
    case HVC_force_reclaim_guest_page:
        compare_frame(o, what, a[1] / HYP_PAGE_SIZE, NULL);
        break;
    case HVC_init_vm:
        compare_frame(o, what, a[1] / HYP_PAGE_SIZE, NULL);
        /* fall through */
    case HVC_init_vcpu:
        compare_frame(o, what, a[2] / HYP_PAGE_SIZE, NULL);
        compare_frame(o, what, a[3] / HYP_PAGE_SIZE, NULL);
        break;
    }
}

static void compare_named_records(struct oracle *o)
{
    unsigned cpu = o->call.cpu;
    struct vm *vm = cpu < o->nr_cpus ? o->cpus[cpu].vm : NULL;

    if (cpu < o->nr_cpus)
        compare_cpu(o, cpu);
    if (vm) {
        compare_vm(o, vm);
        compare_vcpu(o, vm, o_vcpu_on(o, cpu));
    }
    if (o->expect.vm)
        compare_vm(o, o->expect.vm);
    if (o->expect.vcpu && o->expect.vm->exists)
        compare_vcpu(o, o->expect.vm, o->expect.vcpu);
}

void o_compare_before(struct oracle *o)
{
    const char *what = "changed between two calls";

    if (o->options.strict) {
        o->everything = true;
        o_compare_tables(o);
        o->everything = false;
        compare_every_frame(o, what);
        compare_every_vm(o);
        if (!o->diverged)
            compare_every_account(o);
    } else {
        o->watch_vm = NULL;
        each_named_frame(o, what);
        compare_named_records(o);
    }
    if (!o->diverged)
        return;
    o_end_report(o);
    o->epoch++;
    o->nr_looks = o->nr_events = o->nr_changed = 0;
}

static struct vm *vm_with_tables(struct oracle *o)
{
    struct vm *vm = o->expect.guest.what != LEAVES_SAME ? o->expect.guest.vm : o->expect.vm;

    if (!vm && o->expect.refilled)
        vm = o->cpus[o->call.cpu].vm;
    return vm && vm->exists ? vm : NULL;
}

void o_compare_after(struct oracle *o)
{
    struct vm *vm = vm_with_tables(o);
    uint64_t tables = vm ? vm->tree.nr_tables : 0;

    compare_results(o);
    spec_returned_pages(o);
    if (o->options.strict)
        compare_every_vm(o);
    else
        compare_named_records(o);
    /* A VM that should not be there has no tables that could be read. */
    if (o->diverged && o->expect.vm)
        return;
    compare_changed_frames(o);
    each_named_frame(o, "page state");
    if (o->options.strict)
        compare_every_frame(o, "page state");
    compare_guest(o);
    if (o->call.kind == CALL_ABORT)
        compare_abort(o);
    o->everything = o->options.strict;
    o_compare_tables(o);
    o->everything = false;
    if (vm)
        compare_pages(o, vm,
                      o->call.cpu < o->nr_cpus && o->cpus[o->call.cpu].vm == vm ? o_vcpu_on(o, o->call.cpu) : NULL,
                      tables);
    compare_host_memory(o);
    compare_host_pages(o);
    o_judge_order(o);
}

void o_compare_all(struct oracle *o)
{
    compare_every_vm(o);
    if (o->diverged)
        return;
    compare_every_account(o);
    o_compare_all_frames(o);
    o->everything = true;
    o_compare_tables(o);
    o->everything = false;
}
