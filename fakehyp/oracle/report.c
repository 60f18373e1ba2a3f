/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Divergences for people:
 *
 *   oracle: host_donate_guest(pfn 0x80100, gfn 0x40000) on CPU 0
 *     the result is not as specified: x1: specified -EPERM, got 0
 *     page state: host pages [0x80100, 0x80101)
 *       before    SHARED_OWNED, EL2 borrows
 *       specified SHARED_OWNED, EL2 borrows
 *       got       NOPAGE, guest 0x1000 at gfn 0x40000
 */
#include "fakehyp/oracle/state.h"
#include "fakehyp/string.h"

/* ---- text ---- */

struct text {
    char line[256];
    size_t length;
};

static void put(struct text *text, const char *s)
{
    while (*s && text->length < sizeof(text->line) - 1)
        text->line[text->length++] = *s++;
    text->line[text->length] = '\0';
}

static void put_hex(struct text *text, uint64_t value)
{
    char digits[19], *at = digits + sizeof(digits);

    *--at = '\0';
    do {
        *--at = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value);
    *--at = 'x';
    *--at = '0';
    put(text, at);
}

static void put_decimal(struct text *text, uint64_t value)
{
    char digits[21], *at = digits + sizeof(digits);

    *--at = '\0';
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    put(text, at);
}

static void put_named(struct text *text, const char *name, uint64_t value)
{
    put(text, name);
    put_hex(text, value);
}

/* Errno and small numbers as people write them. */
static void put_value(struct text *text, uint64_t value)
{
    switch (-(int64_t)value) {
#define X(name, number)                                                                                                \
    case number:                                                                                                       \
        put(text, "-" #name);                                                                                          \
        return;
        HYP_ERRNO_MAP(X)
#undef X
    }
    if (value < 1000)
        put_decimal(text, value);
    else
        put_hex(text, value);
}

static void emit(struct oracle *o, const struct text *text)
{
    if (o->options.report)
        o->options.report(o->options.ctx, text->line);
}

/* ---- the call ---- */

struct call_name {
    uint64_t n;
    unsigned nr_args;
    char name[28];
    char args[4][10];
};

static const struct call_name call_names[] = {
    {HVC_prot_finalize, 0, "prot_finalize", {""}},
    {HVC_vcpu_run, 1, "vcpu_run", {"vcpu"}},
    {HVC_host_share_hyp, 1, "host_share_hyp", {"pfn"}},
    {HVC_host_unshare_hyp, 1, "host_unshare_hyp", {"pfn"}},
    {HVC_host_donate_guest, 2, "host_donate_guest", {"pfn", "gfn"}},
    {HVC_host_share_guest, 4, "host_share_guest", {"pfn", "gfn", "nr", "prot"}},
    {HVC_host_unshare_guest, 3, "host_unshare_guest", {"handle", "gfn", "nr"}},
    {HVC_relax_perms_guest, 2, "relax_perms_guest", {"gfn", "prot"}},
    {HVC_wrprotect_guest, 3, "wrprotect_guest", {"handle", "gfn", "nr"}},
    {HVC_test_clear_young_guest, 4, "test_clear_young_guest", {"handle", "gfn", "nr", "mkold"}},
    {HVC_mkyoung_guest, 1, "mkyoung_guest", {"gfn"}},
    {HVC_reserve_vm, 0, "reserve_vm", {""}},
    {HVC_unreserve_vm, 1, "unreserve_vm", {"handle"}},
    {HVC_init_vm, 3, "init_vm", {"host_kvm", "vm_hva", "pgd_hva"}},
    {HVC_init_vcpu, 3, "init_vcpu", {"handle", "host_vcpu", "vcpu_hva"}},
    {HVC_vcpu_in_poison_fault, 0, "vcpu_in_poison_fault", {""}},
    {HVC_force_reclaim_guest_page, 1, "force_reclaim_guest_page", {"phys"}},
    {HVC_reclaim_dying_guest_page, 2, "reclaim_dying_guest_page", {"handle", "gfn"}},
    {HVC_start_teardown_vm, 1, "start_teardown_vm", {"handle"}},
    {HVC_finalize_teardown_vm, 1, "finalize_teardown_vm", {"handle"}},
    {HVC_vcpu_load, 3, "vcpu_load", {"handle", "idx", "hcr"}},
    {HVC_vcpu_put, 0, "vcpu_put", {""}},
    {HVC_tlb_flush_vmid, 1, "tlb_flush_vmid", {"handle"}},
    {HVC_host_may_access, 1, "host_may_access", {"pfn"}},
};

static const struct {
    char name[20];
    char args[2][7];
} inner_names[] = {
    [ORACLE_SHARE_FFA] = {"host_share_ffa", {"pfn", "nr"}},
    [ORACLE_UNSHARE_FFA] = {"host_unshare_ffa", {"pfn", "nr"}},
    [ORACLE_PIN] = {"pin_shared_mem", {"pfn", "nr"}},
    [ORACLE_UNPIN] = {"unpin_shared_mem", {"pfn", "nr"}},
    [ORACLE_DONATE_HYP] = {"host_donate_hyp", {"pfn", "nr"}},
    [ORACLE_HYP_DONATE_HOST] = {"hyp_donate_host", {"pfn", "nr"}},
    [ORACLE_SHARE_GUEST] = {"host_share_guest", {"pfn", "gfn"}},
    [ORACLE_GUEST_SHARE] = {"guest_share_host", {"handle", "gfn"}},
    [ORACLE_GUEST_UNSHARE] = {"guest_unshare_host", {"handle", "gfn"}},
    [ORACLE_RECLAIM_GUEST] = {"reclaim_page_guest", {"handle", "gfn"}},
};

static void put_arg(struct text *text, bool first, const char *name, uint64_t value)
{
    put(text, first ? "" : ", ");
    put(text, name);
    put(text, " ");
    put_hex(text, value);
}

static void put_hvc(struct text *text, const struct call *call)
{
    for (unsigned i = 0; i < sizeof(call_names) / sizeof(call_names[0]); i++) {
        if (call_names[i].n != call->n)
            continue;
        put(text, call_names[i].name);
        put(text, "(");
        for (unsigned a = 0; a < call_names[i].nr_args; a++)
            put_arg(text, a == 0, call_names[i].args[a], call->in[1 + a]);
        put(text, ")");
        return;
    }
    put_named(text, "unknown call ", call->n);
}

static void put_trap(struct text *text, const struct hyp_trap *trap)
{
    bool hvc = ESR_EC(trap->esr) == ESR_EC_HVC64;

    put_named(text, hvc ? "guest HVC(" : "guest trap(ESR ", hvc ? trap->x[0] : trap->esr);
    if (hvc) {
        put_arg(text, false, "x1", trap->x[1]);
        put_arg(text, false, "x2", trap->x[2]);
        put_arg(text, false, "x3", trap->x[3]);
    } else {
        put_arg(text, false, "IPA", IPA_FROM_HPFAR(trap->hpfar));
    }
    put(text, ")");
}

static void put_call(struct text *text, const struct call *call)
{
    put(text, "oracle: ");
    switch (call->kind) {
    case CALL_HVC:
        put_hvc(text, call);
        break;
    case CALL_TRAP:
        put_trap(text, &call->trap);
        break;
    case CALL_ABORT:
        put_named(text, call->is_write ? "host abort (write to " : "host abort (read of ", call->in[0]);
        put(text, ")");
        break;
    case CALL_INNER:
        put(text, inner_names[call->n].name);
        put(text, "(");
        put_arg(text, true, inner_names[call->n].args[0], call->in[1]);
        put_arg(text, false, inner_names[call->n].args[1], call->in[2]);
        put(text, ")");
        return;
    case CALL_NONE:
        put(text, "audit");
        return;
    }
    put(text, " on CPU ");
    put_decimal(text, call->cpu);
}

/* The first line of a report; the others are indented below it. */
static void begin_report(struct oracle *o)
{
    struct text text = {.length = 0};

    if (o->diverged)
        return;
    o->diverged = true;
    o->stats.divergences++;
    put_call(&text, &o->call);
    emit(o, &text);
}

void o_say_unjudged(struct oracle *o)
{
    struct text text = {.length = 0};

    put_call(&text, &o->call);
    put(&text, " touched more than the oracle follows in one call: not judged, and EL2's state is taken over");
    emit(o, &text);
}

void o_diverge(struct oracle *o, const char *what, const char *name, uint64_t expected, uint64_t got)
{
    struct text text = {.length = 0};

    begin_report(o);
    if (o->nr_lines >= MAX_FINDINGS) {
        o->nr_more++;
        return;
    }
    o->nr_lines++;
    put(&text, "  ");
    put(&text, what);
    put(&text, ": ");
    put(&text, name);
    put(&text, ": specified ");
    put_value(&text, expected);
    put(&text, ", got ");
    put_value(&text, got);
    emit(o, &text);
}

/* ---- states ---- */

static struct finding *add_finding(struct oracle *o, const char *what, const struct vm *vm, uint64_t start, uint64_t nr)
{
    struct finding *finding;

    begin_report(o);
    if (o->nr_findings == MAX_FINDINGS) {
        o->nr_more++;
        return NULL;
    }
    finding = &o->findings[o->nr_findings++];
    *finding = (struct finding){.what = what, .vm = vm, .start = start, .nr = nr};
    return finding;
}

/* Frames that follow each other and read alike, a guest's with its gfns in step. */
static bool continues(const struct finding *last, const char *what, uint64_t pfn, const struct frame frame[3])
{
    if (last->what != what || last->vm || last->is_leaf || last->start + last->nr != pfn)
        return false;
    for (unsigned i = 0; i < 3; i++) {
        struct frame next = last->frame[i];

        if (next.owner == HYP_OWNER_GUEST)
            next.gfn = (next.gfn + last->nr) & ((UINT64_C(1) << 40) - 1);
        if (memcmp(&next, &frame[i], sizeof(next)) != 0)
            return false;
    }
    return true;
}

void o_diverge_frame(struct oracle *o, const char *what, uint64_t pfn, const struct frame *before,
                     const struct frame *expected, const struct frame *got)
{
    const struct frame frame[3] = {before ? *before : *expected, *expected, *got};
    struct finding *finding = o->nr_findings ? &o->findings[o->nr_findings - 1] : NULL;

    for (unsigned i = 0; i < o->nr_findings; i++)
        if (!o->findings[i].is_leaf && pfn - o->findings[i].start < o->findings[i].nr)
            return; /* known already */
    if (finding && continues(finding, what, pfn, frame)) {
        finding->nr++;
        return;
    }
    finding = add_finding(o, what, NULL, pfn, 1);
    if (finding)
        memcpy(finding->frame, frame, sizeof(frame));
}

void o_diverge_leaf(struct oracle *o, const char *what, const struct vm *vm, const struct leaf *before,
                    const struct leaf *expected, const struct leaf *got)
{
    const struct leaf leaf[3] = {*before, *expected, *got};
    struct finding *finding = o->nr_findings ? &o->findings[o->nr_findings - 1] : NULL;
    uint64_t start = got->base / HYP_PAGE_SIZE, nr = o_granule(got->level) / HYP_PAGE_SIZE;
    bool follows = finding && finding->is_leaf && finding->what == what && finding->vm == vm &&
                   finding->start + finding->nr == start;

    for (unsigned i = 0; follows && i < 3; i++) {
        uint64_t step = finding->leaf[i].pte & PTE_VALID ? finding->nr * HYP_PAGE_SIZE : 0;

        follows = finding->leaf[i].level == leaf[i].level && finding->leaf[i].pte + step == leaf[i].pte;
    }
    if (follows) {
        finding->nr += nr;
        return;
    }
    finding = add_finding(o, what, vm, start, nr);
    if (!finding)
        return;
    finding->is_leaf = true;
    memcpy(finding->leaf, leaf, sizeof(leaf));
}

static void put_frame(struct text *text, const struct frame *frame)
{
    put(text, frame->host <= PKVM_PAGE_NOPAGE ? hyp_page_state_name((enum hyp_page_state)frame->host) : "no state");
    if (frame->el2 == EL2_BORROWS)
        put(text, ", EL2 borrows");
    if (frame->el2 == EL2_OWNS)
        put(text, ", EL2 owns");
    if (frame->count) {
        put(text, ", share count ");
        put_decimal(text, frame->count);
    }
    if (frame->pins) {
        put(text, ", pins ");
        put_decimal(text, frame->pins);
    }
    if (frame->host == PKVM_PAGE_NOPAGE && frame->owner == HYP_OWNER_GUEST) {
        put_named(text, ", guest ", frame->handle);
        put_named(text, " at gfn ", frame->gfn);
    }
    if (frame->host == PKVM_PAGE_NOPAGE && frame->owner == HYP_OWNER_HOST)
        put(text, ", no owner");
}

static void put_leaf(struct text *text, const struct vm *vm, const struct leaf *leaf)
{
    static const char size[4][5] = {"512G", "1G", "2M", "4K"};

    if (!(leaf->pte & PTE_VALID)) {
        put_named(text, leaf->pte ? "invalid, annotated " : "empty ", leaf->pte);
        return;
    }
    put(text, vm ? hyp_page_state_name(o_guest_state(leaf->pte)) : "mapped");
    put_named(text, " to pfn ", (leaf->pte & PTE_OUTPUT) / HYP_PAGE_SIZE);
    put(text, leaf->pte & PTE_READ ? " R" : " -");
    put(text, leaf->pte & PTE_WRITE ? "W" : "-");
    put(text, leaf->pte & PTE_NO_EXEC ? "-" : "X");
    put(text, leaf->pte & PTE_ACCESSED ? " AF " : " old ");
    put(text, size[leaf->level & 3]);
    put_named(text, " ", leaf->pte);
}

static void emit_finding(struct oracle *o, const struct finding *finding)
{
    static const char label[3][16] = {"    before    ", "    specified ", "    got       "};
    struct text text = {.length = 0};

    put(&text, "  ");
    put(&text, finding->what);
    if (finding->vm)
        put_named(&text, ": gfns of guest ", finding->vm->handle);
    else
        put(&text, ": host pages");
    put_named(&text, " [", finding->start);
    put_named(&text, ", ", finding->start + finding->nr);
    put(&text, ")");
    emit(o, &text);
    for (unsigned i = 0; i < 3; i++) {
        text.length = 0;
        put(&text, label[i]);
        if (finding->is_leaf)
            put_leaf(&text, finding->vm, &finding->leaf[i]);
        else
            put_frame(&text, &finding->frame[i]);
        emit(o, &text);
    }
}

void o_end_report(struct oracle *o)
{
    struct text text = {.length = 0};

    for (unsigned i = 0; i < o->nr_findings; i++)
        emit_finding(o, &o->findings[i]);
    if (o->nr_more) {
        put(&text, "  and ");
        put_decimal(&text, o->nr_more);
        put(&text, " more");
        emit(o, &text);
    }
    o->nr_findings = o->nr_lines = 0;
    o->nr_more = 0;
    if (o->diverged)
        o_adopt(o);
    o->diverged = false;
}
