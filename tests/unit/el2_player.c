/* SPDX-License-Identifier: BSD-2-Clause */
/* Choices, and the record of what was played. */
#include "tests/unit/el2_player.h"

#include <stdlib.h>
#include <string.h>

#define NR_VMS 6u
#define NR_GFNS 24u
#define NR_FRAMES 192u
#define FIRST_GFN UINT64_C(0x40000)
#define BLOCK_GFN UINT64_C(0x40200)
#define BLOCK 512u

/* ---- names ------------------------------------------------------------------------------------------------------ */

const char *play_call_name(enum play_call call)
{
    static const char *const names[] = {
#define X(n, name, nargs) [PLAY_##name] = #name,
        HYP_HOST_CALL_MAP(X)
#undef X
#define X(name) [PLAY_##name] = #name,
            PLAY_OTHER_MAP(X)
#undef X
    };

    return call < NR_PLAY_CALLS ? names[call] : "?";
}

const char *play_outcome_name(enum play_outcome outcome)
{
    static const char *const names[] = {
#define X(name, text) [OUT_##name] = text,
        PLAY_OUTCOME_MAP(X)
#undef X
#define X(name, value) [OUT_##name] = "-" #name,
            HYP_ERRNO_MAP(X)
#undef X
    };

    return outcome < NR_PLAY_OUTCOMES ? names[outcome] : "did not come back";
}

enum play_outcome play_outcome_of(int64_t value)
{
    switch (-value) {
    case 0:
        return OUT_OK;
    case -1:
        return OUT_ONE;
#define X(name, number)                                                                                                \
    case number:                                                                                                       \
        return OUT_##name;
        HYP_ERRNO_MAP(X)
#undef X
    }
    fail_msg("a result that no call has: %ld", (long)value);
    return OUT_OK;
}

/* ---- record ----------------------------------------------------------------------------------------------------- */

static void tell(const struct played *played, FILE *out)
{
    fprintf(out, "# %8lu cpu %u %s(%#lx, %#lx, %#lx, %#lx) = %s\n", (unsigned long)played->index, played->cpu,
            play_call_name(played->call), (unsigned long)played->arg[0], (unsigned long)played->arg[1],
            (unsigned long)played->arg[2], (unsigned long)played->arg[3], play_outcome_name(played->outcome));
}

void play_begin(struct player *p, unsigned cpu, enum play_call call, const uint64_t arg[4])
{
    struct played *played = &p->last[p->nr_calls % PLAY_LAST];

    *played = (struct played){.index = ++p->nr_calls, .cpu = cpu, .call = call, .outcome = NR_PLAY_OUTCOMES};
    memcpy(played->arg, arg, sizeof(played->arg));
}

void play_done(struct player *p, enum play_outcome outcome)
{
    struct played *played = &p->last[(p->nr_calls - 1) % PLAY_LAST];

    played->outcome = outcome;
    p->hits[played->call][outcome]++;
    p->nr_ok += outcome == OUT_OK || outcome == OUT_ONE || outcome == OUT_EXIT;
    if (p->narrate)
        tell(played, p->narrate);
}

void player_tell(const struct player *p, FILE *out)
{
    for (uint64_t i = 0; i < PLAY_LAST; i++) {
        const struct played *played = &p->last[(p->nr_calls + i) % PLAY_LAST];

        if (played->index)
            tell(played, out);
    }
}

/* ---- choices ---------------------------------------------------------------------------------------------------- */

uint64_t play_draw(struct player *p, uint64_t n)
{
    return p->draw(p->draw_ctx, n);
}

bool play_one_in(struct player *p, uint64_t n)
{
    return play_draw(p, n) == n - 1;
}

/* Addresses with something wrong about them. */
static uint64_t odd_frame(struct player *p)
{
    const struct el2 *el2 = p->el2;
    const uint64_t odd[] = {
        el2->gap_pfn,       el2->nomap_pfn,
        el2->nomap_pfn - 1, el2->text_pfn,
        EL2_BASE_PFN,       EL2_BASE_PFN + el2->pool_nr - 1,
        UINT64_C(1) << 24,  0,
        UINT64_MAX,         el2->high_pfn,
    };
    uint64_t i = play_draw(p, sizeof(odd) / sizeof(odd[0]) + 1);

    return i < sizeof(odd) / sizeof(odd[0]) ? odd[i] : play_draw(p, 0) >> play_draw(p, 64);
}

uint64_t play_frame(struct player *p)
{
    if (play_one_in(p, 32))
        return odd_frame(p);
    return play_one_in(p, 64) ? p->block + play_draw(p, 2) : p->first + play_draw(p, p->nr);
}

uint64_t play_frame_in(struct player *p, enum hyp_page_state host, enum hyp_page_state hyp)
{
    uint64_t pfn = play_frame(p);

    if (pfn < p->first || pfn >= p->first + p->nr)
        return pfn;
    for (uint64_t i = 0; i < p->nr; i++) {
        if (hyp_host_state(p->el2->hyp, pfn) == host && hyp_hyp_state(p->el2->hyp, pfn) == hyp)
            break;
        pfn = pfn + 1 < p->first + p->nr ? pfn + 1 : p->first;
    }
    return pfn;
}

uint64_t play_free_frame(struct player *p)
{
    return play_frame_in(p, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE);
}

void *play_host_page(struct player *p, uint64_t pfn)
{
    if (!hyp_is_allowed_memory(p->el2->hyp, pfn) || hyp_host_state(p->el2->hyp, pfn) == PKVM_PAGE_NOPAGE)
        return NULL;
    return el2_virt(p->el2, pfn << HYP_PAGE_SHIFT);
}

uint64_t play_gfn(struct player *p)
{
    if (play_one_in(p, 64))
        return play_one_in(p, 2) ? UINT64_MAX : UINT64_C(1) << 36; /* beyond any IPA space */
    return play_one_in(p, 32) ? BLOCK_GFN + play_draw(p, 3) : FIRST_GFN + play_draw(p, NR_GFNS);
}

uint64_t play_used_gfn(struct player *p, const struct hyp_vm *vm)
{
    uint64_t gfn = play_gfn(p);
    struct hyp_guest_leaf leaf;

    for (unsigned i = 0; vm && i < NR_GFNS; i++) {
        if (hyp_guest_leaf(p->el2->hyp, vm->handle, gfn, &leaf) != 0 || leaf.state != PKVM_PAGE_NOPAGE)
            break;
        gfn = FIRST_GFN + (gfn + 1 - FIRST_GFN) % NR_GFNS;
    }
    return gfn;
}

static bool is_kind(const struct hyp_vm *vm, enum play_kind kind)
{
    switch (kind) {
    case PLAY_PROTECTED:
        return vm->is_protected;
    case PLAY_NP:
        return !vm->is_protected;
    case PLAY_DYING:
        return vm->is_dying;
    case PLAY_ANY:
        break;
    }
    return true;
}

struct hyp_vm *play_vm(struct player *p, enum play_kind kind)
{
    uint64_t first = play_draw(p, NR_VMS);

    if (play_one_in(p, 10))
        kind = PLAY_ANY;
    for (uint64_t i = 0; i < NR_VMS; i++) {
        struct hyp_vm *vm = p->el2->hyp->vms[(first + i) % NR_VMS].vm;

        if (vm && is_kind(vm, kind))
            return vm;
    }
    return NULL;
}

uint64_t play_handle(struct player *p, enum play_kind kind)
{
    const struct hyp_vm *vm = play_vm(p, kind);

    if (play_one_in(p, 64))
        return play_draw(p, 0) >> play_draw(p, 64);
    return vm && !play_one_in(p, 16) ? vm->handle : HYP_HANDLE_OFFSET + play_draw(p, NR_VMS);
}

unsigned play_cpu(struct player *p, enum play_kind kind)
{
    unsigned first = (unsigned)play_draw(p, PLAY_NR_CPUS), any = PLAY_NR_CPUS;
    bool fussy = !play_one_in(p, 16);

    for (unsigned i = 0; i < PLAY_NR_CPUS; i++) {
        unsigned cpu = (first + i) % PLAY_NR_CPUS;
        const struct hyp_vcpu *vcpu = p->el2->hyp->cpus[cpu].loaded;

        if (p->in_guest[cpu])
            continue;
        any = cpu;
        if (!fussy || (vcpu && is_kind(vcpu->vm, kind)))
            return cpu;
    }
    return any;
}

/* ---- host calls ------------------------------------------------------------------------------------------------- */

static enum play_call call_of(enum hyp_host_call n)
{
    switch (n) {
#define X(number, name, nargs)                                                                                         \
    case HVC_##name:                                                                                                   \
        return PLAY_##name;
        HYP_HOST_CALL_MAP(X)
#undef X
    }
    return PLAY_unknown_call;
}

/* Calls without a result are judged by what they are for. */
struct effect {
    bool reserved, vm;
    const struct hyp_vcpu *loaded;
};

static struct effect look(const struct player *p, unsigned cpu, uint64_t handle)
{
    uint64_t slot = handle - HYP_HANDLE_OFFSET;

    return (struct effect){.reserved = slot < HYP_MAX_VMS && p->el2->hyp->vms[slot].reserved,
                           .vm = hyp_vm_find(p->el2->hyp, handle),
                           .loaded = p->el2->hyp->cpus[cpu].loaded};
}

static bool happened(enum hyp_host_call n, const struct effect *before, const struct effect *after)
{
    switch (n) {
    case HVC_unreserve_vm:
        return before->reserved && !after->reserved;
    case HVC_vcpu_load:
    case HVC_vcpu_put:
        return before->loaded != after->loaded;
    case HVC_tlb_flush_vmid:
        return before->vm;
    default:
        return true;
    }
}

enum play_outcome play_host_call(struct player *p, unsigned cpu, enum hyp_host_call n, uint64_t a1, uint64_t a2,
                                 uint64_t a3, uint64_t a4)
{
    bool early = !p->el2->hyp->finalized && n >= HVC_PKVM_ONLY;
    uint64_t regs[8] = {HVC_HOST_BASE + n, a1, a2, a3, a4};
    struct effect before = look(p, cpu, a1), after;
    enum play_outcome outcome;
    enum hyp_next next;

    play_begin(p, cpu, early ? PLAY_early_call : call_of(n), &regs[1]);
    next = el2_hvc(p->el2, cpu, regs);
    after = look(p, cpu, a1);
    if (next == HYP_NEXT_GUEST) {
        p->in_guest[cpu] = true;
        outcome = OUT_OK;
    } else if (regs[0]) {
        assert_int_equal((int64_t)regs[0], SMCCC_RET_NOT_SUPPORTED);
        outcome = OUT_NOT_SUPPORTED;
    } else if (n == HVC_reserve_vm && (int64_t)regs[1] >= HYP_HANDLE_OFFSET) {
        outcome = OUT_OK;
    } else {
        outcome = happened(n, &before, &after) ? play_outcome_of((int64_t)regs[1]) : OUT_IGNORED;
    }
    play_done(p, outcome);
    return outcome;
}

/* ---- the game --------------------------------------------------------------------------------------------------- */

struct player *player_new(uint64_t (*draw)(void *ctx, uint64_t n), void *draw_ctx, bool relaxed)
{
    struct player *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    p->draw = draw;
    p->draw_ctx = draw_ctx;
    p->el2 = el2_new(&(struct el2_options){.nr_frames = 2048, .text_nr = 3, .not_finalized = true, .relaxed = relaxed});
    p->first = p->el2->next_pfn;
    p->nr = NR_FRAMES;
    p->block = EL2_BASE_PFN + BLOCK;
    assert_true(p->first + p->nr <= p->block && p->block + BLOCK <= p->el2->nomap_pfn);
    return p;
}

void player_free(struct player *p)
{
    el2_free(p->el2);
    free(p);
}

void player_step(struct player *p)
{
    unsigned cpu = (unsigned)play_draw(p, PLAY_NR_CPUS);
    bool host = false;

    for (unsigned i = 0; i < PLAY_NR_CPUS; i++)
        host |= !p->in_guest[i];
    if (!host || p->in_guest[cpu]) {
        play_trap(p, cpu);
        return;
    }
    switch (play_draw(p, 8)) {
    case 0:
        play_life(p);
        break;
    case 1:
    case 2:
        play_run(p);
        break;
    default:
        play_memory(p);
        break;
    }
}

static void end_vm(struct player *p, uint64_t handle)
{
    for (unsigned cpu = 0; cpu < PLAY_NR_CPUS; cpu++)
        if (p->el2->hyp->cpus[cpu].loaded && p->el2->hyp->cpus[cpu].loaded->vm->handle == handle)
            play_host_call(p, cpu, HVC_vcpu_put, 0, 0, 0, 0);
    play_host_call(p, 0, HVC_start_teardown_vm, handle, 0, 0, 0);
    for (uint64_t i = 0; i < NR_GFNS + 3; i++) {
        uint64_t gfn = i < NR_GFNS ? FIRST_GFN + i : BLOCK_GFN + i - NR_GFNS;

        play_host_call(p, 0, HVC_reclaim_dying_guest_page, handle, gfn, 0, 0);
        if (play_host_call(p, 0, HVC_host_unshare_guest, handle, gfn, 1, 0) == OUT_E2BIG)
            play_host_call(p, 0, HVC_host_unshare_guest, handle, gfn, BLOCK, 0);
    }
    assert_int_equal(play_host_call(p, 0, HVC_finalize_teardown_vm, handle, 0, 0, 0), OUT_OK);
}

void player_end(struct player *p)
{
    struct hyp *hyp = p->el2->hyp;

    for (unsigned cpu = 0; cpu < PLAY_NR_CPUS; cpu++)
        if (p->in_guest[cpu])
            play_guest_ends(p, cpu);
    play_host_call(p, 0, HVC_prot_finalize, 0, 0, 0, 0);
    for (uint64_t handle = HYP_HANDLE_OFFSET; handle < HYP_HANDLE_OFFSET + HYP_MAX_VMS; handle++)
        if (hyp_vm_find(hyp, handle))
            end_vm(p, handle);
    for (uint64_t pfn = EL2_BASE_PFN + p->el2->pool_nr; pfn < EL2_BASE_PFN + p->el2->nr_frames; pfn++) {
        if (!hyp_is_allowed_memory(hyp, pfn) || hyp_is_text(hyp, pfn))
            continue;
        if (hyp_hyp_state(hyp, pfn) == PKVM_PAGE_SHARED_BORROWED)
            play_host_call(p, 0, HVC_host_unshare_hyp, pfn, 0, 0, 0);
        else if (hyp_host_state(hyp, pfn) == PKVM_PAGE_SHARED_OWNED)
            assert_int_equal(el2_inner(p->el2, ORACLE_UNSHARE_FFA, pfn, 1), 0);
        el2_assert_page(p->el2, pfn, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, 0, 0);
    }
    el2_check(p->el2);
}
