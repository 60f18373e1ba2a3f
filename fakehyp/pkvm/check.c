/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The invariants I1..I12 of the page-state machine, checked over the tables
 * that exist; I13 and I14 are about transitions and are the tests' business.
 *
 * A frame is looked at from three sides: from the host's leaves (pages, and
 * 2 MiB blocks page by page), from each guest's leaves, and as a page that EL2
 * uses itself.  Frames below an empty entry or a 1 GiB block that nobody else
 * refers to are plain host memory; to read their records would cost time in
 * proportion to memory.
 *
 * The share counts (I7) are checked without memory for counting: each leaf of an
 * np-guest takes one off its frame's count, then every count must be zero, then
 * the leaves put them back.
 */
#include "fakehyp/pkvm/internal.h"

struct check {
    const struct hyp *hyp;
    void (*report)(void *ctx, const char *text);
    void *ctx;
    unsigned nr_violations;
    uint64_t host_borrowed; /* frames that the host borrows */
    uint64_t guest_shared;  /* leaves of guests that lend a page */
};

struct table_walk {
    const struct hyp_vm *vm; /* NULL: the host's table */
    uint64_t valid_pages, poisoned;
    void (*leaf)(struct check *check, struct table_walk *walk, uint64_t ipa, int level, uint64_t pte);
};

static char *put_text(char *at, const char *end, const char *text)
{
    while (*text && at < end)
        *at++ = *text++;
    return at;
}

static char *put_hex(char *at, const char *end, uint64_t value)
{
    int shift = 60;

    while (shift > 0 && value >> shift == 0)
        shift -= 4;
    for (at = put_text(at, end, "0x"); shift >= 0 && at < end; shift -= 4)
        *at++ = "0123456789abcdef"[value >> shift & 15];
    return at;
}

/* "I5: rule (pfn 0x80)" */
static void violation(struct check *check, const char *rule, const char *what, uint64_t value)
{
    char text[160] = "", *at = text, *end = text + sizeof(text) - 1;

    at = put_text(at, end, rule);
    at = put_text(at, end, " (");
    at = put_text(at, end, what);
    at = put_text(at, end, " ");
    at = put_hex(at, end, value);
    at = put_text(at, end, ")");
    *at = '\0';
    check->nr_violations++;
    if (check->report)
        check->report(check->ctx, text);
}

static void expect(struct check *check, bool holds, const char *rule, const char *what, uint64_t value)
{
    if (!holds)
        violation(check, rule, what, value);
}

/* A page that EL2 uses for itself. */
static void check_own_page(struct check *check, uint64_t phys, const char *rule)
{
    const struct hyp *hyp = check->hyp;
    uint64_t pfn = phys >> HYP_PAGE_SHIFT;
    uint64_t expected = (uint64_t)S2_TYPE_DONATION << S2_TYPE_SHIFT | s2_hyp_annotation();

    expect(check,
           hyp_has_page(&hyp->mm, pfn) && hyp_hyp_state(hyp, pfn) == PKVM_PAGE_OWNED &&
               hyp_host_state(hyp, pfn) == PKVM_PAGE_NOPAGE && hyp_host_leaf(hyp, pfn) == expected,
           rule, "pfn", pfn);
}

static void check_own_list(struct check *check, const struct hyp_memcache *list)
{
    struct hyp_memcache rest = *list;
    uint64_t phys;

    while ((phys = hyp_memcache_pop(&check->hyp->mm, &rest)) != 0)
        check_own_page(check, phys, "I4: free page of EL2 is not EL2's");
    expect(check, rest.nr_pages == 0 && rest.head == 0, "I4: list of free pages ends early or late", "head",
           list->head);
}

static void check_table(struct check *check, struct table_walk *walk, uint64_t table, int level, uint64_t ipa)
{
    const uint64_t *entries = hyp_virt(&check->hyp->mm, table);
    unsigned nr_used = 0;

    check_own_page(check, table, "I4: table page is not EL2's");
    for (unsigned i = 0; i < S2_ENTRIES; i++, ipa += s2_granule(level)) {
        uint64_t pte = entries[i];

        nr_used += pte != 0;
        if (s2_pte_is_table(pte, level)) {
            check_table(check, walk, pte & S2_PTE_ADDR, level + 1, ipa);
            continue;
        }
        expect(check, s2_annotation_type(pte) != S2_TYPE_LOCKED, "BBM: locked entry left behind", "ipa", ipa);
        expect(check, pte == 0 || s2_pte_valid(pte) || level == S2_LAST_LEVEL, "I12: annotation above level 3", "ipa",
               ipa);
        expect(check, !s2_pte_valid(pte) || level > 0, "I12: block at level 0", "ipa", ipa);
        if (pte || level == S2_LAST_LEVEL)
            walk->leaf(check, walk, ipa, level, pte);
    }
    expect(check, hyp_page(check->hyp, table >> HYP_PAGE_SHIFT)->refcount == 1 + nr_used,
           "table refcount is not 1 plus its used entries", "table", table);
}

static void check_tables(struct check *check, struct table_walk *walk, const struct s2_pgtable *pgt)
{
    uint64_t span = s2_granule(pgt->start_level) * S2_ENTRIES;

    for (unsigned i = 0; i < hyp_s2_pgd_pages(pgt->ipa_bits); i++)
        check_table(check, walk, pgt->pgd + i * HYP_PAGE_SIZE, pgt->start_level, i * span);
}

/* Rules between the fields of one record: I1, I2, I8. */
static void check_frame(struct check *check, uint64_t pfn)
{
    const struct hyp_page *page = hyp_page(check->hyp, pfn);
    enum hyp_page_state hyp_state = hyp_hyp_state(check->hyp, pfn);
    bool no_pins = page->refcount == 0, no_share = page->host_share_guest_count == 0;

    switch (hyp_host_state(check->hyp, pfn)) {
    case PKVM_PAGE_OWNED:
        expect(check, hyp_state == PKVM_PAGE_NOPAGE && no_share && no_pins, "I2: host OWNED, yet EL2 or a guest has it",
               "pfn", pfn);
        break;
    case PKVM_PAGE_SHARED_OWNED:
        if (hyp_state == PKVM_PAGE_SHARED_BORROWED)
            expect(check, no_share, "I8: shared with EL2 and with a guest", "pfn", pfn);
        else
            expect(check, hyp_state == PKVM_PAGE_NOPAGE && no_pins, "I8: pins without sharing with EL2", "pfn", pfn);
        break;
    case PKVM_PAGE_SHARED_BORROWED:
        check->host_borrowed++;
        expect(check, hyp_state == PKVM_PAGE_NOPAGE && no_share && no_pins, "I6: host borrows what EL2 has", "pfn",
               pfn);
        break;
    case PKVM_PAGE_NOPAGE:
        expect(check, hyp_state == PKVM_PAGE_OWNED || (hyp_state == PKVM_PAGE_NOPAGE && no_pins),
               "I1: host NOPAGE, and the hyp state is neither OWNED nor NOPAGE without pins", "pfn", pfn);
        expect(check, no_share, "I7: share count on a page that is not the host's", "pfn", pfn);
        break;
    case PKVM_PAGE_POISON:
    default:
        violation(check, "I1: host state does not exist", "pfn", pfn);
    }
}

/* I5 from the host's side; the guest's leaves are the other one. */
static void check_guest_donation(struct check *check, uint64_t pfn, uint64_t pte)
{
    const struct hyp_vm *vm = hyp_vm_find(check->hyp, s2_annotation_handle(pte));
    uint64_t gfn = s2_annotation_gfn(pte);
    struct s2_walk walk;

    if (!vm || pkvm_guest_page_leaf(vm, gfn, &walk) != 0 || s2_guest_state(walk.pte) != PKVM_PAGE_OWNED ||
        (walk.pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT != pfn)
        violation(check, "I5: annotated for a guest that does not own it", "pfn", pfn);
    expect(check, hyp_hyp_state(check->hyp, pfn) == PKVM_PAGE_NOPAGE, "I4: a guest's page is EL2's", "pfn", pfn);
}

static void check_host_page(struct check *check, uint64_t pfn, uint64_t pte)
{
    bool donated = s2_annotation_type(pte) == S2_TYPE_DONATION;
    bool hyp_owned = hyp_hyp_state(check->hyp, pfn) == PKVM_PAGE_OWNED;

    if (hyp_is_text(check->hyp, pfn)) {
        expect(check, pte == s2_leaf(hyp_pfn_to_phys(pfn), s2_host_text_attr(), S2_LAST_LEVEL),
               "I3: EL2's code is not readable and no more", "pfn", pfn);
        expect(check, hyp_owned && hyp_host_state(check->hyp, pfn) == PKVM_PAGE_NOPAGE, "I4: EL2's code is not EL2's",
               "pfn", pfn);
        return;
    }
    expect(check, pte == 0 || s2_pte_valid(pte) || donated, "I3: invalid host leaf of another type", "pfn", pfn);
    expect(check, !s2_pte_valid(pte) || pte == s2_leaf(hyp_pfn_to_phys(pfn), s2_host_memory_attr(), S2_LAST_LEVEL),
           "I12: host page is not an identity RWX leaf", "pfn", pfn);
    expect(check, donated == (hyp_host_state(check->hyp, pfn) == PKVM_PAGE_NOPAGE),
           "I3: host NOPAGE and annotation do not go together", "pfn", pfn);
    if (!donated) {
        expect(check, !hyp_owned, "I4: EL2's page has no annotation", "pfn", pfn);
    } else if (s2_annotation_owner(pte) == HYP_OWNER_GUEST) {
        check_guest_donation(check, pfn, pte);
    } else {
        expect(check, s2_annotation_owner(pte) == HYP_OWNER_HYP, "I3: annotation without an owner", "pfn", pfn);
        expect(check, hyp_owned, "I4: annotated for EL2, which does not own it", "pfn", pfn);
    }
    check_frame(check, pfn);
}

static void check_host_leaf(struct check *check, struct table_walk *walk, uint64_t ipa, int level, uint64_t pte)
{
    uint64_t pfn = ipa >> HYP_PAGE_SHIFT;
    struct hyp_pfn_range range;

    hyp_find_range(check->hyp, pfn, &range);
    if (!range.region || range.region->nomap) {
        uint64_t attr = range.region ? s2_host_memory_attr() : s2_host_device_attr();

        expect(check, pte == 0 || pte == s2_leaf(ipa, attr, level), "I12: leaf outside tracked memory", "ipa", ipa);
        return;
    }
    walk->valid_pages += s2_pte_valid(pte) ? s2_granule(level) >> HYP_PAGE_SHIFT : 0;
    if (level == S2_LAST_LEVEL) {
        check_host_page(check, pfn, pte);
        return;
    }
    expect(check, pte == s2_leaf(ipa, s2_host_memory_attr(), level), "I12: host block is not an identity RWX leaf",
           "pfn", pfn);
    expect(check, range.end - pfn >= s2_granule(level) >> HYP_PAGE_SHIFT, "I12: host block leaves its region", "pfn",
           pfn);
    for (uint64_t i = 0; level == 2 && i < S2_ENTRIES && pfn + i < range.end; i++) {
        enum hyp_page_state host = hyp_host_state(check->hyp, pfn + i);

        expect(check, host == PKVM_PAGE_OWNED || host == PKVM_PAGE_SHARED_OWNED,
               "I3: host block over a page that is not the host's", "pfn", pfn + i);
        check_frame(check, pfn + i);
    }
}

static void check_protected_leaf(struct check *check, const struct hyp_vm *vm, uint64_t gfn, int level, uint64_t pte)
{
    uint64_t pfn = (pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT;
    uint64_t host_pte = hyp_host_leaf(check->hyp, pfn);
    enum hyp_page_state host = hyp_host_state(check->hyp, pfn);

    expect(check, level == S2_LAST_LEVEL, "I11: block in a protected guest", "gfn", gfn);
    switch (s2_guest_state(pte)) {
    case PKVM_PAGE_OWNED:
        expect(check,
               host == PKVM_PAGE_NOPAGE &&
                   host_pte == ((uint64_t)S2_TYPE_DONATION << S2_TYPE_SHIFT | s2_guest_annotation(vm->handle, gfn)),
               "I5: guest owns a page that is not annotated for it", "pfn", pfn);
        break;
    case PKVM_PAGE_SHARED_OWNED:
        check->guest_shared++;
        expect(check, host == PKVM_PAGE_SHARED_BORROWED && (host_pte == 0 || s2_pte_valid(host_pte)),
               "I6: guest lends a page that the host does not borrow", "pfn", pfn);
        break;
    case PKVM_PAGE_SHARED_BORROWED:
    case PKVM_PAGE_NOPAGE:
    case PKVM_PAGE_POISON:
        violation(check, "I11: protected guest's leaf is neither OWNED nor SHARED_OWNED", "gfn", gfn);
    }
}

static void check_np_leaf(struct check *check, uint64_t gfn, uint64_t pfn, uint64_t nr, uint64_t pte)
{
    expect(check, s2_guest_state(pte) == PKVM_PAGE_SHARED_BORROWED, "I11: np-guest's leaf is not SHARED_BORROWED",
           "gfn", gfn);
    for (uint64_t i = 0; i < nr; i++)
        expect(check,
               hyp_host_state(check->hyp, pfn + i) == PKVM_PAGE_SHARED_OWNED &&
                   hyp_page(check->hyp, pfn + i)->host_share_guest_count > 0,
               "I7: np-guest maps a page that the host does not share", "pfn", pfn + i);
}

static void check_guest_leaf(struct check *check, struct table_walk *walk, uint64_t ipa, int level, uint64_t pte)
{
    uint64_t gfn = ipa >> HYP_PAGE_SHIFT, pfn = (pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT;
    uint64_t nr = s2_granule(level) >> HYP_PAGE_SHIFT;

    if (!s2_pte_valid(pte)) {
        expect(check, pte == 0 || pte == S2_PTE_POISON, "I10: invalid guest leaf is not a poison", "gfn", gfn);
        expect(check, pte == 0 || walk->vm->is_protected, "I11: poison in an np-guest", "gfn", gfn);
        walk->poisoned += pte != 0;
        return;
    }
    walk->valid_pages += nr;
    if (hyp_check_allowed_range(check->hyp, pfn, nr) != 0)
        violation(check, "I1: guest maps what is not memory", "pfn", pfn);
    else if (walk->vm->is_protected)
        check_protected_leaf(check, walk->vm, gfn, level, pte);
    else
        check_np_leaf(check, gfn, pfn, nr, pte);
}

static void check_pinned(struct check *check, uint64_t phys)
{
    uint64_t pfn = phys >> HYP_PAGE_SHIFT;

    expect(check,
           hyp_host_state(check->hyp, pfn) == PKVM_PAGE_SHARED_OWNED &&
               hyp_hyp_state(check->hyp, pfn) == PKVM_PAGE_SHARED_BORROWED && hyp_page(check->hyp, pfn)->refcount > 0,
           "I8: page that EL2 relies on is not pinned", "pfn", pfn);
}

static void check_vm(struct check *check, const struct hyp_vm *vm)
{
    struct table_walk walk = {.vm = vm, .leaf = check_guest_leaf};
    unsigned nr_loaded = 0;

    check_own_page(check, vm->phys, "I4: VM structure is not EL2's");
    check_own_list(check, &vm->pool.free);
    check_pinned(check, vm->host_kvm);
    for (uint32_t i = 0; i < vm->nr_vcpus; i++) {
        const struct hyp_vcpu *vcpu = vm->vcpus[i];

        if (!vcpu)
            continue;
        check_own_page(check, vcpu->phys, "I4: vcpu structure is not EL2's");
        check_own_list(check, &vcpu->memcache);
        check_pinned(check, vcpu->host_vcpu);
        nr_loaded += vcpu->loaded;
    }
    expect(check, *hyp_vm_refcount(check->hyp, vm) == nr_loaded, "VM refcount is not its number of loaded vcpus",
           "handle", vm->handle);
    expect(check, nr_loaded == 0 || !vm->is_dying, "vcpu of a dying VM is loaded", "handle", vm->handle);
    check_tables(check, &walk, &vm->pgt);
    expect(check, walk.valid_pages == vm->nr_mapped, "VM's count of mapped pages is wrong", "handle", vm->handle);
    expect(check, walk.poisoned == vm->nr_poisoned, "I10: a poisoned IPA came back", "handle", vm->handle);
}

static void take_share(struct check *check, struct table_walk *walk, uint64_t ipa, int level, uint64_t pte)
{
    uint64_t nr = s2_granule(level) >> HYP_PAGE_SHIFT, pfn = (pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT;

    for (uint64_t i = 0; s2_pte_valid(pte) && i < nr; i++)
        if (hyp_has_page(&check->hyp->mm, pfn + i))
            hyp_page(check->hyp, pfn + i)->host_share_guest_count--;
}

static void put_share(struct check *check, struct table_walk *walk, uint64_t ipa, int level, uint64_t pte)
{
    uint64_t nr = s2_granule(level) >> HYP_PAGE_SHIFT, pfn = (pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT;

    for (uint64_t i = 0; s2_pte_valid(pte) && i < nr; i++)
        if (hyp_has_page(&check->hyp->mm, pfn + i))
            hyp_page(check->hyp, pfn + i)->host_share_guest_count++;
}

static void no_share_left(struct check *check, uint64_t pfn)
{
    if (hyp_is_allowed_memory(check->hyp, pfn))
        expect(check, hyp_page(check->hyp, pfn)->host_share_guest_count == 0,
               "I7: share count is not the number of guest leaves", "pfn", pfn);
}

static void no_share_left_guest(struct check *check, struct table_walk *walk, uint64_t ipa, int level, uint64_t pte)
{
    uint64_t nr = s2_granule(level) >> HYP_PAGE_SHIFT, pfn = (pte & S2_PTE_ADDR) >> HYP_PAGE_SHIFT;

    for (uint64_t i = 0; s2_pte_valid(pte) && i < nr; i++)
        no_share_left(check, pfn + i);
}

static void no_share_left_host(struct check *check, struct table_walk *walk, uint64_t ipa, int level, uint64_t pte)
{
    uint64_t nr = s2_granule(level) >> HYP_PAGE_SHIFT;

    for (uint64_t i = 0; level >= 2 && i < nr; i++)
        no_share_left(check, (ipa >> HYP_PAGE_SHIFT) + i);
}

/* Walks leaves alone: the rules about tables were checked before. */
static void visit_table(struct check *check, struct table_walk *walk, uint64_t table, int level, uint64_t ipa)
{
    const uint64_t *entries = hyp_virt(&check->hyp->mm, table);

    for (unsigned i = 0; i < S2_ENTRIES; i++, ipa += s2_granule(level)) {
        if (s2_pte_is_table(entries[i], level))
            visit_table(check, walk, entries[i] & S2_PTE_ADDR, level + 1, ipa);
        else if (entries[i] || level == S2_LAST_LEVEL)
            walk->leaf(check, walk, ipa, level, entries[i]);
    }
}

static void visit_tables(struct check *check, struct table_walk *walk, const struct s2_pgtable *pgt)
{
    uint64_t span = s2_granule(pgt->start_level) * S2_ENTRIES;

    for (unsigned i = 0; i < hyp_s2_pgd_pages(pgt->ipa_bits); i++)
        visit_table(check, walk, pgt->pgd + i * HYP_PAGE_SIZE, pgt->start_level, i * span);
}

static void visit_np_guests(struct check *check, struct table_walk *walk)
{
    for (unsigned i = 0; i < HYP_MAX_VMS; i++) {
        const struct hyp_vm *vm = check->hyp->vms[i].vm;

        if (!vm || vm->is_protected)
            continue;
        visit_tables(check, walk, &vm->pgt);
    }
}

static void check_share_counts(struct check *check)
{
    struct table_walk walk = {.leaf = take_share};

    visit_np_guests(check, &walk);
    walk.leaf = no_share_left_guest;
    visit_np_guests(check, &walk);
    walk.leaf = no_share_left_host;
    visit_tables(check, &walk, &check->hyp->host);
    walk.leaf = put_share;
    visit_np_guests(check, &walk);
}

static void check_cpus(struct check *check)
{
    for (unsigned i = 0; i < check->hyp->nr_cpus; i++) {
        const struct hyp_vcpu *vcpu = check->hyp->cpus[i].loaded;

        expect(check, !vcpu || vcpu->loaded, "CPU holds a vcpu that is not loaded", "cpu", i);
    }
}

unsigned hyp_check(const struct hyp *hyp, void (*report)(void *ctx, const char *text), void *ctx)
{
    struct check check = {.hyp = hyp, .report = report, .ctx = ctx};
    struct table_walk host = {.leaf = check_host_leaf};

    check_tables(&check, &host, &hyp->host);
    check_own_list(&check, &hyp->host_pool.free);
    for (unsigned i = 0; i < HYP_MAX_VMS; i++)
        if (hyp->vms[i].vm)
            check_vm(&check, hyp->vms[i].vm);
    expect(&check, check.host_borrowed == check.guest_shared, "I6: host borrows more or fewer pages than guests lend",
           "borrowed", check.host_borrowed);
    check_share_counts(&check);
    check_cpus(&check);
    return check.nr_violations;
}
