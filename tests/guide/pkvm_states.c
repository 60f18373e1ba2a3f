/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The drawing of page states in doc/guide/pkvm.md is EL2's: from each state
 * each call is tried, and exactly those succeed for which an arrow is drawn,
 * and lead where it points.
 */
#include "tests/unit/el2_harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUIDE "doc/guide/pkvm.md"
#define MAX_ARROWS 64

enum state { A, B, C, D, E, F, G, H, NR_STATES };

/* As the table under the drawing has them: host, EL2, the guest's IPA. */
static const struct {
    enum hyp_page_state host, hyp, guest;
    uint32_t count;
} states[NR_STATES] = {
    [A] = {PKVM_PAGE_NOPAGE, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, 0},
    [B] = {PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE, 0},
    [C] = {PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_SHARED_BORROWED, PKVM_PAGE_NOPAGE, 0},
    [D] = {PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE, 0},
    [E] = {PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_NOPAGE, PKVM_PAGE_SHARED_BORROWED, 1},
    [F] = {PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE, PKVM_PAGE_OWNED, 0},
    [G] = {PKVM_PAGE_SHARED_BORROWED, PKVM_PAGE_NOPAGE, PKVM_PAGE_SHARED_OWNED, 0},
    [H] = {PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, PKVM_PAGE_POISON, 0},
};

#define CALL_MAP(X)                                                                                                    \
    X(host_donate_hyp)                                                                                                 \
    X(hyp_donate_host)                                                                                                 \
    X(host_share_hyp)                                                                                                  \
    X(host_unshare_hyp)                                                                                                \
    X(host_share_ffa)                                                                                                  \
    X(host_unshare_ffa)                                                                                                \
    X(host_share_guest)                                                                                                \
    X(host_unshare_guest)                                                                                              \
    X(host_donate_guest)                                                                                               \
    X(guest_share_host)                                                                                                \
    X(guest_unshare_host)                                                                                              \
    X(force_reclaim)                                                                                                   \
    X(reclaim_dying)

enum call {
#define X(name) CALL_##name,
    CALL_MAP(X) NR_CALLS
#undef X
};
static const char *const call_names[NR_CALLS] = {
#define X(name) #name,
    CALL_MAP(X)
#undef X
};

/* Leads from A, where a fresh page is brought, to each state. */
static const enum call paths[NR_STATES][4] = {
    [A] = {NR_CALLS},
    [B] = {CALL_hyp_donate_host, NR_CALLS},
    [C] = {CALL_hyp_donate_host, CALL_host_share_hyp, NR_CALLS},
    [D] = {CALL_hyp_donate_host, CALL_host_share_ffa, NR_CALLS},
    [E] = {CALL_hyp_donate_host, CALL_host_share_guest, NR_CALLS},
    [F] = {CALL_hyp_donate_host, CALL_host_donate_guest, NR_CALLS},
    [G] = {CALL_hyp_donate_host, CALL_host_donate_guest, CALL_guest_share_host, NR_CALLS},
    [H] = {CALL_hyp_donate_host, CALL_host_donate_guest, CALL_force_reclaim, NR_CALLS},
};

struct arrow {
    enum state from, to;
    enum call call;
};

/* ---- the drawing ------------------------------------------------------------------------------------------------- */

static bool find_call(const char *text, enum call *call)
{
    char name[32] = "";
    const char *start = text + strcspn(text, "abcdefghijklmnopqrstuvwxyz");

    snprintf(name, sizeof(name), "%.*s", (int)strspn(start, "abcdefghijklmnopqrstuvwxyz_"), start);
    for (*call = 0; *call < NR_CALLS; ++*call)
        if (!strcmp(name, call_names[*call]))
            return true;
    return false;
}

/* One line: boxes and what is between them.  A box keeps its letter over the lines that it is high. */
static void read_line(char *line, int letters[8], struct arrow *arrows, unsigned *nr)
{
    char *part[16];
    unsigned nr_parts = 0;

    /* │ cuts the line; strtok() would join empty parts. */
    for (char *at = line, *bar; at && nr_parts < 16; at = bar ? bar + strlen("│") : NULL) {
        bar = strstr(at, "│");
        if (bar)
            *bar = '\0';
        part[nr_parts++] = at;
    }
    for (unsigned i = 1; i < nr_parts && i < 8; i += 2)
        for (const char *c = part[i]; *c; c++)
            if (*c >= 'A' && *c <= 'H')
                letters[i] = *c - 'A';
    for (unsigned i = 2; i + 1 < nr_parts && i + 1 < 8; i += 2) {
        bool left = strstr(part[i], "◀"), right = strstr(part[i], "▶");
        if (!left && !right)
            continue;
        assert_true(left != right);
        assert_true(*nr < MAX_ARROWS);
        struct arrow *arrow = &arrows[(*nr)++];
        if (!find_call(part[i], &arrow->call))
            fail_msg(GUIDE ": an arrow without a known call: %s", part[i]);
        arrow->from = (enum state)letters[left ? i + 1 : i - 1];
        arrow->to = (enum state)letters[left ? i - 1 : i + 1];
    }
}

static unsigned read_drawing(struct arrow *arrows)
{
    const char *dir = getenv("srcdir");
    char path[4096], line[512];
    unsigned nr = 0;
    int letters[8] = {0};
    bool inside = false;

    snprintf(path, sizeof(path), "%s/" GUIDE, dir ? dir : ".");
    FILE *f = fopen(path, "re");
    if (!f)
        fail_msg("%s cannot be read", path);
    while (fgets(line, sizeof(line), f)) {
        if (!strncmp(line, "```", 3))
            inside = !strncmp(line, "```states", 9);
        else if (inside && (strstr(line, "◀") || strstr(line, "▶")))
            read_line(line, letters, arrows, &nr);
    }
    fclose(f);
    return nr;
}

/* ---- EL2 -----------------------------------------------------------------------------------------------------------
 */

struct page {
    struct el2 *el2;
    struct el2_vm vm;
    struct hyp_vm *hyp_vm;
    uint64_t pfn, gfn;
};

static int do_call(struct page *p, enum call call)
{
    struct hyp *hyp = p->el2->hyp;
    struct hyp_vcpu *vcpu = p->hyp_vm->vcpus[0];

    switch (call) {
    case CALL_host_donate_hyp:
        return pkvm_host_donate_hyp(hyp, p->pfn, 1);
    case CALL_hyp_donate_host:
        return pkvm_hyp_donate_host(hyp, p->pfn, 1);
    case CALL_host_share_hyp:
        return pkvm_host_share_hyp(hyp, p->pfn);
    case CALL_host_unshare_hyp:
        return pkvm_host_unshare_hyp(hyp, p->pfn);
    case CALL_host_share_ffa:
        return pkvm_host_share_ffa(hyp, p->pfn, 1);
    case CALL_host_unshare_ffa:
        return pkvm_host_unshare_ffa(hyp, p->pfn, 1);
    case CALL_host_share_guest:
        return pkvm_host_share_guest(hyp, vcpu, p->pfn, p->gfn, 1, HYP_PROT_RWX);
    case CALL_host_unshare_guest:
        return pkvm_host_unshare_guest(hyp, p->hyp_vm, p->gfn, 1);
    case CALL_host_donate_guest:
        return pkvm_host_donate_guest(hyp, vcpu, p->pfn, p->gfn);
    case CALL_guest_share_host:
        return pkvm_guest_share_host(hyp, p->hyp_vm, p->gfn);
    case CALL_guest_unshare_host:
        return pkvm_guest_unshare_host(hyp, p->hyp_vm, p->gfn);
    case CALL_force_reclaim:
        return pkvm_force_reclaim(hyp, p->pfn << HYP_PAGE_SHIFT);
    case CALL_reclaim_dying:
        return pkvm_reclaim_guest_page(hyp, p->hyp_vm, p->gfn);
    default:
        return -HYP_EINVAL;
    }
}

static enum state state_of(const struct page *p)
{
    struct hyp_frame_info frame;
    struct hyp_guest_leaf leaf;

    assert_int_equal(hyp_frame_info(p->el2->hyp, p->pfn, &frame), 0);
    assert_int_equal(hyp_guest_leaf(p->el2->hyp, (uint32_t)p->vm.handle, p->gfn, &leaf), 0);
    for (unsigned s = 0; s < NR_STATES; s++)
        if (states[s].host == frame.host && states[s].hyp == frame.hyp && states[s].guest == leaf.state &&
            states[s].count == frame.share_count)
            return (enum state)s;
    return NR_STATES;
}

/* A world of its own for each call, with its page in that state. */
static void bring(struct page *p, enum state to)
{
    p->el2 = el2_new(&(struct el2_options){.nr_frames = 512, .one_region = true});
    el2_vm_new(p->el2, &p->vm, true, HYP_UNSHARE_CONSENT, 1);
    p->hyp_vm = hyp_vm_find(p->el2->hyp, p->vm.handle);
    el2_topup(p->el2, &p->vm, 0, 4);
    assert_int_equal(hyp_refill_memcache(p->el2->hyp, p->hyp_vm->vcpus[0]), 0);
    p->pfn = el2_frames(p->el2, 1, 1);
    p->gfn = 0x1234;
    assert_int_equal(pkvm_host_donate_hyp(p->el2->hyp, p->pfn, 1), 0);
    for (unsigned i = 0; paths[to][i] != NR_CALLS; i++)
        assert_int_equal(do_call(p, paths[to][i]), 0);
    assert_int_equal(state_of(p), to);
}

static void the_drawing_is_true(void **state)
{
    struct arrow arrows[MAX_ARROWS];
    bool drawn[NR_STATES][NR_CALLS] = {{false}};
    enum state target[NR_STATES][NR_CALLS];
    unsigned nr = read_drawing(arrows);

    (void)state;
    assert_true(nr >= 10);
    for (unsigned i = 0; i < nr; i++) {
        if (drawn[arrows[i].from][arrows[i].call])
            fail_msg("%s from %c is drawn twice", call_names[arrows[i].call], 'A' + arrows[i].from);
        drawn[arrows[i].from][arrows[i].call] = true;
        target[arrows[i].from][arrows[i].call] = arrows[i].to;
    }
    /* H is of an IPA.  Its frame is the host's as in B, and what the host does with it is drawn there. */
    for (unsigned from = A; from <= H; from++) {
        for (unsigned call = 0; call < NR_CALLS; call++) {
            bool of_the_frame = call <= CALL_host_unshare_ffa;
            struct page p;
            if (from == H && of_the_frame)
                continue;
            bring(&p, (enum state)from);
            int rc = do_call(&p, (enum call)call);
            enum state to = state_of(&p);
            /* The inner functions do not care for the kind of VM; the invariants do. */
            p.hyp_vm->is_protected = to == NR_STATES || !states[to].count;
            el2_check(p.el2);
            if (drawn[from][call] && (rc || to != target[from][call]))
                fail_msg("%s from %c: drawn to %c, it answers %d and leads to %c", call_names[call], 'A' + (int)from,
                         'A' + (int)target[from][call], rc, 'A' + (int)to);
            /* A success that changes nothing is no arrow. */
            if (!drawn[from][call] && to != from)
                fail_msg("%s from %c leads to %c, which is not drawn", call_names[call], 'A' + (int)from,
                         'A' + (int)to);
            el2_free(p.el2);
        }
    }
    printf("# %u arrows, %u states, %u calls\n", nr, (unsigned)NR_STATES, (unsigned)NR_CALLS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_drawing_is_true)};

    return cmocka_run_group_tests_name("pkvm_states", tests, NULL, NULL);
}
