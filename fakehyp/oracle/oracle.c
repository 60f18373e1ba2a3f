/* SPDX-License-Identifier: BSD-2-Clause */
/* Around each call: what EL2 does is watched, then judged. */
#include "fakehyp/oracle/oracle.h"
#include "fakehyp/oracle/state.h"
#include "fakehyp/string.h"

static size_t pages(size_t bytes)
{
    return (bytes + HYP_PAGE_SIZE - 1) / HYP_PAGE_SIZE * HYP_PAGE_SIZE;
}

static size_t nr_chunks(uint64_t nr_frames)
{
    return (nr_frames + CHUNK - 1) / CHUNK;
}

size_t oracle_size(const struct hyp_config *config)
{
    return pages(sizeof(struct oracle)) + pages(config->vmemmap_nr * sizeof(struct frame)) +
           pages(nr_chunks(config->vmemmap_nr)) + config->vmemmap_nr * HYP_PAGE_SIZE;
}

/* ---- EL2's platform, as EL2 sees it ---- */

static void note_look(struct oracle *o, uint64_t page)
{
    for (uint64_t i = page / HYP_PAGE_SIZE;; i++) {
        struct look *look = &o->looks[i % MAX_LOOKS];

        if (look->epoch == o->epoch && look->page == page)
            return;
        if (look->epoch == o->epoch)
            continue;
        if (o->nr_looks == MAX_LOOKS / 2) {
            o->too_much = true;
            return;
        }
        o->look_at[o->nr_looks++] = (uint32_t)(i % MAX_LOOKS);
        look->epoch = o->epoch;
        look->page = page;
        memcpy(look->words, o_page_now(o, page), sizeof(look->words));
        return;
    }
}

static void see_look(void *ctx, uint64_t phys)
{
    struct oracle *o = ctx;

    if (o->plat.look)
        o->plat.look(o->plat.ctx, phys);
    if (o->in_call)
        note_look(o, phys);
}

static uint64_t entry_now(const struct oracle *o, const struct tree *tree, uint64_t ipa)
{
    struct leaf leaf;

    o_walk(o, tree, NOW, ipa, &leaf);
    return leaf.pte;
}

static const struct tree *tree_of(const struct oracle *o, uint16_t vmid)
{
    if (vmid == 0)
        return &o->host;
    return vmid <= HYP_MAX_VMS && o->vms[vmid - 1].exists ? &o->vms[vmid - 1].tree : NULL;
}

static void note_event(struct oracle *o, struct event event)
{
    if (!o->in_call)
        return;
    if (o->nr_events == MAX_EVENTS) {
        o->too_much = true;
        return;
    }
    if (o->watch_vm) {
        event.host = entry_now(o, &o->host, o->watch_page);
        event.guest = entry_now(o, &o->watch_vm->tree, o->watch_ipa);
    }
    o->events[o->nr_events++] = event;
}

static void see_zero(void *ctx, uint64_t phys)
{
    struct oracle *o = ctx;

    note_event(o, (struct event){.kind = EVENT_ZERO, .addr = phys, .nr = 1});
    o->plat.zero_page(o->plat.ctx, phys);
}

static void see_flush(void *ctx, uint16_t vmid, uint64_t ipa, uint64_t nr_pages)
{
    struct oracle *o = ctx;
    const struct tree *tree = o->in_call ? tree_of(o, vmid) : NULL;
    struct event event = {.kind = EVENT_FLUSH, .vmid = vmid, .addr = ipa, .nr = nr_pages};

    if (tree && nr_pages && o_in_tree(tree, ipa / HYP_PAGE_SIZE, 1))
        event.broken = !(entry_now(o, tree, ipa) & PTE_VALID);
    note_event(o, event);
    o->plat.tlbi(o->plat.ctx, vmid, ipa, nr_pages);
}

static void see_window(void *ctx, const char *label)
{
    struct oracle *o = ctx;

    note_event(o, (struct event){.kind = EVENT_WINDOW});
    o->plat.yield(o->plat.ctx, label);
}

/* What a panic leaves behind is nobody's state: from here on nothing is judged. */
static void see_panic(void *ctx, const char *what)
{
    struct oracle *o = ctx;

    o->in_call = false;
    o->panicked = true;
    o->plat.panic(o->plat.ctx, what);
}

struct oracle *oracle_attach(void *memory, struct hyp_config *config, const struct oracle_options *options)
{
    struct oracle *o = memory;

    o->plat = config->plat;
    o->options = *options;
    o->nr_memory = config->nr_memory < HYP_MAX_REGIONS ? config->nr_memory : HYP_MAX_REGIONS;
    memcpy(o->memory, config->memory, o->nr_memory * sizeof(o->memory[0]));
    o->pa_bits = config->pa_bits;
    o->nr_cpus = config->nr_cpus;
    o->records = config->vmemmap;
    o->base_pfn = config->vmemmap_base_pfn;
    o->nr_frames = config->vmemmap_nr;
    o->pool_pfn = config->pool_pfn;
    o->pool_nr = config->pool_nr;
    o->text_pfn = config->text_pfn;
    o->text_nr = config->text_nr;
    o->frames = (struct frame *)(void *)((char *)memory + pages(sizeof(*o)));
    o->used = (uint8_t *)o->frames + pages(o->nr_frames * sizeof(struct frame));
    o->copies = (char *)o->used + pages(nr_chunks(o->nr_frames));
    for (unsigned i = 0; i < HYP_MAX_VMS; i++)
        o->vms[i].vcpus = o->vcpus[i];
    config->plat = (struct hyp_platform){.ctx = o,
                                         .physvirt_offset = o->plat.physvirt_offset,
                                         .look = see_look,
                                         .zero_page = see_zero,
                                         .tlbi = see_flush,
                                         .yield = see_window,
                                         .panic = see_panic};
    return o;
}

/* ---- a call ---- */

/* The frame that a call is about, when it is about a guest's page too: how both look is noted with each event. */
static void watch(struct oracle *o, uint64_t pfn, struct vm *vm, uint64_t gfn)
{
    if (!vm || !o_tracked(o, pfn) || !o_in_tree(&vm->tree, gfn, 1))
        return;
    o->watch_vm = vm;
    o->watch_page = pfn * HYP_PAGE_SIZE;
    o->watch_ipa = gfn * HYP_PAGE_SIZE;
}

static void watch_leaf(struct oracle *o, struct vm *vm, uint64_t gfn)
{
    struct leaf leaf;

    if (!vm || !o_in_tree(&vm->tree, gfn, 1))
        return;
    o_walk(o, &vm->tree, BEFORE, gfn * HYP_PAGE_SIZE, &leaf);
    if (leaf.pte & PTE_VALID)
        watch(o, o_output(&leaf, gfn * HYP_PAGE_SIZE) / HYP_PAGE_SIZE, vm, gfn);
}

static void choose_watch(struct oracle *o)
{
    const struct call *call = &o->call;
    struct vcpu *vcpu = call->cpu < o->nr_cpus ? o_vcpu_on(o, call->cpu) : NULL;
    struct vm *vm = vcpu ? o->cpus[call->cpu].vm : NULL;
    struct frame frame;

    o->watch_vm = NULL;
    if (call->kind == CALL_TRAP) {
        watch_leaf(o, vm, call->trap.x[1] / HYP_PAGE_SIZE);
        return;
    }
    if (call->kind == CALL_INNER && call->n >= ORACLE_GUEST_SHARE)
        watch_leaf(o, o_vm_of(o, call->in[1]), call->in[2]);
    if (call->kind != CALL_HVC)
        return;
    switch (call->n) {
    case HVC_host_donate_guest:
        watch(o, call->in[1], vm, call->in[2]);
        break;
    case HVC_relax_perms_guest:
        watch_leaf(o, vm, call->in[1]);
        break;
    case HVC_host_unshare_guest:
        watch_leaf(o, o_vm_of(o, call->in[1]), call->in[2]);
        break;
    case HVC_force_reclaim_guest_page:
        frame = o_frame_of(o, call->in[1] / HYP_PAGE_SIZE);
        if (frame.owner == HYP_OWNER_GUEST)
            watch(o, call->in[1] / HYP_PAGE_SIZE, o_vm_of(o, frame.handle), frame.gfn);
        break;
    case HVC_reclaim_dying_guest_page:
        watch_leaf(o, o_vm_of(o, call->in[1]), call->in[2]);
        break;
    case HVC_vcpu_run:
        if (vcpu && vcpu->wait == WAIT_CONSENT)
            watch_leaf(o, vm, vcpu->regs.x[1] / HYP_PAGE_SIZE);
        break;
    }
}

static bool begin(struct oracle *o)
{
    if (o->panicked || !o->hyp)
        return false;
    o->epoch++;
    o->nr_looks = o->nr_events = o->nr_changed = 0;
    o->too_much = o->diverged = false;
    o->expect = (struct expectation){0};
    o_compare_before(o);
    choose_watch(o);
    o->in_call = true;
    return true;
}

/* Judges the call; then the oracle's state is EL2's, whatever the judgement. */
static void end(struct oracle *o)
{
    o->in_call = false;
    o->stats.calls++;
    switch (o->call.kind) {
    case CALL_HVC:
        spec_host_call(o);
        break;
    case CALL_TRAP:
        spec_guest_trap(o);
        break;
    case CALL_ABORT:
        spec_host_abort(o);
        break;
    case CALL_INNER:
        spec_inner(o);
        break;
    case CALL_NONE:
        break;
    }
    if (o->too_much) {
        o->stats.unjudged++;
        o_say_unjudged(o);
        oracle_resync(o);
        return;
    }
    o_compare_after(o);
    o_end_report(o);
}

enum hyp_next oracle_host_hvc(struct oracle *o, unsigned cpu, uint64_t regs[8])
{
    bool judge;
    enum hyp_next next;

    o->call = (struct call){.kind = CALL_HVC, .cpu = cpu, .n = regs[0] - HVC_HOST_BASE};
    memcpy(o->call.in, regs, sizeof(o->call.in));
    judge = begin(o);
    next = hyp_host_hvc(o->hyp, cpu, regs);
    o->call.next = (int)next;
    memcpy(o->call.out, regs, sizeof(o->call.out));
    if (judge)
        end(o);
    return next;
}

enum hyp_next oracle_guest_trap(struct oracle *o, unsigned cpu, const struct hyp_trap *trap, uint64_t host_regs[8])
{
    bool judge;
    enum hyp_next next;

    o->call = (struct call){.kind = CALL_TRAP, .cpu = cpu, .trap = *trap};
    memcpy(o->call.in, host_regs, sizeof(o->call.in));
    judge = begin(o);
    next = hyp_guest_trap(o->hyp, cpu, trap, host_regs);
    o->call.next = (int)next;
    memcpy(o->call.out, host_regs, sizeof(o->call.out));
    if (judge)
        end(o);
    return next;
}

enum hyp_abort oracle_host_abort(struct oracle *o, unsigned cpu, uint64_t phys, bool is_write)
{
    bool judge;
    enum hyp_abort verdict;

    o->call = (struct call){.kind = CALL_ABORT, .cpu = cpu, .in = {phys}, .is_write = is_write};
    judge = begin(o);
    verdict = hyp_host_abort(o->hyp, cpu, phys, is_write);
    o->call.next = (int)verdict;
    if (judge)
        end(o);
    return verdict;
}

void oracle_inner_begin(struct oracle *o, enum oracle_inner inner, uint64_t a1, uint64_t a2)
{
    o->call = (struct call){.kind = CALL_INNER, .n = inner, .in = {0, a1, a2}};
    o->judge_inner = begin(o);
}

void oracle_inner_end(struct oracle *o, int64_t result)
{
    memcpy(o->call.out, o->call.in, sizeof(o->call.out));
    o->call.out[1] = (uint64_t)result;
    if (o->judge_inner)
        end(o);
}

/* ---- everything ---- */

unsigned oracle_boot(struct oracle *o, struct hyp *hyp)
{
    struct hyp_vttbr vttbr;
    bool diverged;

    o->hyp = hyp;
    hyp_host_vttbr(hyp, &vttbr);
    o->host = (struct tree){.pgd = vttbr.pgd, .ipa_bits = vttbr.ipa_bits, .vmid = vttbr.vmid};
    o->host.nr_tables = o_nr_pgd_pages(&o->host);
    o->call = (struct call){.kind = CALL_NONE};
    o->epoch++;
    o->nr_changed = o->nr_events = 0;
    o->expect = (struct expectation){0};
    o->diverged = o->too_much = false;
    if (vttbr.vmid != 0 || vttbr.ipa_bits != o->pa_bits)
        o_diverge(o, "boot: the host's stage 2 is not VMID 0 over the physical address space", "ipa_bits", o->pa_bits,
                  vttbr.ipa_bits);
    /* The host has everything but EL2's carve-out and code. */
    o_to_el2(o, o->pool_pfn, o->pool_nr, 0);
    o_to_el2(o, o->text_pfn, o->text_nr, 0);
    o->nr_changed = 0;
    o->too_much = false;
    o->everything = true;
    o_compare_tables(o);
    o->everything = false;
    o_compare_all_frames(o);
    diverged = o->diverged;
    o_end_report(o);
    return diverged;
}

unsigned oracle_audit(struct oracle *o)
{
    uint64_t before = o->stats.divergences;

    if (o->panicked || !o->hyp || o->in_call)
        return 0;
    o->call = (struct call){.kind = CALL_NONE};
    o->epoch++;
    o->nr_looks = o->nr_events = o->nr_changed = 0;
    o->expect = (struct expectation){0};
    o->diverged = o->too_much = false;
    o_compare_all(o);
    o_check_invariants(o);
    o_end_report(o);
    return (unsigned)(o->stats.divergences - before);
}

void oracle_resync(struct oracle *o)
{
    if (!o->hyp || o->panicked)
        return;
    o->call = (struct call){.kind = CALL_NONE};
    o->epoch++;
    o->nr_looks = o->nr_events = o->nr_changed = 0;
    o->expect = (struct expectation){0};
    o->diverged = false;
    o_adopt(o);
}

void oracle_stats(const struct oracle *o, struct oracle_stats *out)
{
    *out = o->stats;
}
