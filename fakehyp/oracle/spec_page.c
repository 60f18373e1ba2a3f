/* SPDX-License-Identifier: BSD-2-Clause */
/* Specification: frames between the host and EL2, and the pages that the host lends for tables. */
#include "fakehyp/oracle/state.h"

/* ---- the state ---- */

/* What is not tracked (MMIO, NOMAP outside the records) is the host's for ever. */
struct frame o_frame_of(const struct oracle *o, uint64_t pfn)
{
    return o_tracked(o, pfn) ? o->frames[pfn - o->base_pfn] : (struct frame){0};
}

struct frame *o_change_frame(struct oracle *o, uint64_t pfn)
{
    struct frame *frame = &o->frames[pfn - o->base_pfn];

    o->used[(pfn - o->base_pfn) / CHUNK] = 1;
    if (o->nr_changed < MAX_CHANGED)
        o->changed[o->nr_changed++] = (struct changed_frame){pfn, *frame};
    else
        o->too_much = true;
    return frame;
}

/* ---- checks, each with its errno ---- */

int o_check_memory(const struct oracle *o, uint64_t pfn, uint64_t nr)
{
    struct range range = o_range_of(o, pfn);

    if (nr > range.end - pfn)
        return -HYP_EINVAL;
    return range.memory && !range.nomap ? 0 : -HYP_EPERM;
}

int o_check_pfns(const struct oracle *o, uint64_t pfn, uint64_t nr)
{
    uint64_t limit = UINT64_C(1) << (o->pa_bits - HYP_PAGE_SHIFT);

    return nr == 0 || pfn >= limit || nr > limit - pfn ? -HYP_EINVAL : 0;
}

int o_check_host(const struct oracle *o, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    int ret = o_check_memory(o, pfn, nr);

    if (ret)
        return ret;
    for (uint64_t i = 0; i < nr; i++)
        if (o_frame_of(o, pfn + i).host != state)
            return -HYP_EPERM;
    return 0;
}

int o_check_el2(const struct oracle *o, uint64_t pfn, uint64_t nr, enum el2_state state)
{
    for (uint64_t i = 0; i < nr; i++)
        if (o_frame_of(o, pfn + i).el2 != state)
            return -HYP_EPERM;
    return 0;
}

/* A pin count at its end is EBUSY, where the kernel's EL2 would panic. */
int o_check_pin(const struct oracle *o, uint64_t pfn)
{
    int ret = o_check_host(o, pfn, 1, PKVM_PAGE_SHARED_OWNED);

    if (!ret)
        ret = o_check_el2(o, pfn, 1, EL2_BORROWS);
    return !ret && o_frame_of(o, pfn).pins == UINT16_MAX ? -HYP_EBUSY : ret;
}

int o_check_donate_el2(const struct oracle *o, uint64_t pfn, uint64_t nr)
{
    int ret = o_check_pfns(o, pfn, nr);

    if (!ret)
        ret = o_check_host(o, pfn, nr, PKVM_PAGE_OWNED);
    if (!ret)
        ret = o_check_el2(o, pfn, nr, EL2_NOTHING);
    return ret;
}

/* ---- transitions ---- */

void o_to_el2(struct oracle *o, uint64_t pfn, uint64_t nr, uint32_t handle)
{
    for (uint64_t i = 0; i < nr; i++)
        *o_change_frame(o, pfn + i) = (struct frame){
            .host = PKVM_PAGE_NOPAGE, .el2 = EL2_OWNS, .owner = HYP_OWNER_HYP, .handle = handle & 0xffffff};
}

void o_to_host(struct oracle *o, uint64_t pfn)
{
    *o_change_frame(o, pfn) = (struct frame){.host = PKVM_PAGE_OWNED};
}

int64_t spec_host_may_access(const struct oracle *o, uint64_t pfn)
{
    int ret = o_check_memory(o, pfn, 1);

    return ret ? ret : o_frame_of(o, pfn).host != PKVM_PAGE_NOPAGE;
}

int64_t spec_host_share_hyp(struct oracle *o, uint64_t pfn)
{
    int ret = o_check_host(o, pfn, 1, PKVM_PAGE_OWNED);
    struct frame *frame;

    if (!ret)
        ret = o_check_el2(o, pfn, 1, EL2_NOTHING);
    if (ret)
        return ret;
    frame = o_change_frame(o, pfn);
    frame->host = PKVM_PAGE_SHARED_OWNED;
    frame->el2 = EL2_BORROWS;
    return 0;
}

int64_t spec_host_unshare_hyp(struct oracle *o, uint64_t pfn)
{
    int ret = o_check_host(o, pfn, 1, PKVM_PAGE_SHARED_OWNED);

    if (!ret)
        ret = o_check_el2(o, pfn, 1, EL2_BORROWS);
    if (ret)
        return ret;
    if (o_frame_of(o, pfn).pins)
        return -HYP_EBUSY;
    o_to_host(o, pfn);
    return 0;
}

/* ---- what is no call ---- */

/* A page that EL2 has in use, as a table or as a VM with loaded vcpus: how it counts its uses is its own business. */
static bool in_use(const struct oracle *o, uint64_t pfn)
{
    return o->records[pfn - o->base_pfn].refcount != 0;
}

static int64_t share_ffa(struct oracle *o, uint64_t pfn, uint64_t nr)
{
    int ret = o_check_pfns(o, pfn, nr);

    if (!ret)
        ret = o_check_host(o, pfn, nr, PKVM_PAGE_OWNED);
    for (uint64_t i = 0; !ret && i < nr; i++)
        o_change_frame(o, pfn + i)->host = PKVM_PAGE_SHARED_OWNED;
    return ret;
}

/* Upstream asks for SHARED_OWNED and no more; here a page that EL2 or a guest borrows is refused. */
static int64_t unshare_ffa(struct oracle *o, uint64_t pfn, uint64_t nr)
{
    int ret = o_check_pfns(o, pfn, nr);

    if (!ret)
        ret = o_check_host(o, pfn, nr, PKVM_PAGE_SHARED_OWNED);
    if (!ret)
        ret = o_check_el2(o, pfn, nr, EL2_NOTHING);
    for (uint64_t i = 0; !ret && i < nr; i++)
        if (o_frame_of(o, pfn + i).count)
            ret = -HYP_EPERM;
    for (uint64_t i = 0; !ret && i < nr; i++)
        o_to_host(o, pfn + i);
    return ret;
}

static int64_t pin(struct oracle *o, uint64_t pfn, uint64_t nr)
{
    int ret = o_check_host(o, pfn, nr, PKVM_PAGE_SHARED_OWNED);

    if (!ret)
        ret = o_check_el2(o, pfn, nr, EL2_BORROWS);
    for (uint64_t i = 0; !ret && i < nr; i++)
        ret = o_check_pin(o, pfn + i);
    for (uint64_t i = 0; !ret && i < nr; i++)
        o_change_frame(o, pfn + i)->pins++;
    return ret;
}

static int64_t hyp_donate_host(struct oracle *o, uint64_t pfn, uint64_t nr)
{
    int ret = o_check_pfns(o, pfn, nr);

    if (!ret)
        ret = o_check_el2(o, pfn, nr, EL2_OWNS);
    if (!ret)
        ret = o_check_host(o, pfn, nr, PKVM_PAGE_NOPAGE);
    for (uint64_t i = 0; !ret && i < nr; i++)
        if (in_use(o, pfn + i))
            ret = -HYP_EBUSY;
    for (uint64_t i = 0; !ret && i < nr; i++)
        o_to_host(o, pfn + i);
    return ret;
}

void spec_inner(struct oracle *o)
{
    uint64_t pfn = o->call.in[1], nr = o->call.in[2];
    struct vm *vm = o_vm_of(o, o->call.in[1]); /* of those that name a guest */
    uint64_t gfn = o->call.in[2];
    int64_t ret = 0;

    switch ((enum oracle_inner)o->call.n) {
    case ORACLE_SHARE_FFA:
        ret = share_ffa(o, pfn, nr);
        break;
    case ORACLE_UNSHARE_FFA:
        ret = unshare_ffa(o, pfn, nr);
        break;
    case ORACLE_PIN:
        ret = pin(o, pfn, nr);
        break;
    case ORACLE_UNPIN:
        for (uint64_t i = 0; i < nr; i++)
            o_change_frame(o, pfn + i)->pins--;
        break;
    case ORACLE_DONATE_HYP:
        ret = o_check_donate_el2(o, pfn, nr);
        if (!ret)
            o_to_el2(o, pfn, nr, 0);
        break;
    case ORACLE_HYP_DONATE_HOST:
        ret = hyp_donate_host(o, pfn, nr);
        break;
    case ORACLE_SHARE_GUEST:
        ret = spec_share(o, o->cpus[0].vm, o_vcpu_on(o, 0), pfn, gfn, 1, HYP_PROT_RWX);
        break;
    case ORACLE_GUEST_SHARE:
        ret = spec_guest_share(o, vm, gfn);
        break;
    case ORACLE_GUEST_UNSHARE:
        ret = spec_guest_unshare(o, vm, gfn, true);
        break;
    case ORACLE_RECLAIM_GUEST:
        ret = spec_reclaim(o, vm, gfn);
        break;
    }
    o->expect.x1 = (uint64_t)ret;
}

/* ---- memcache ---- */

static bool acceptable(const struct oracle *o, uint64_t page)
{
    return page && page % HYP_PAGE_SIZE == 0 && o_check_donate_el2(o, page / HYP_PAGE_SIZE, 1) == 0;
}

/* The link as EL2 read it once the page was its own. */
static uint64_t link_of(const struct oracle *o, uint64_t page)
{
    uint64_t link;

    o_seen(o, page, &link, sizeof(link));
    return link;
}

/*
 * The host's list is taken page by page until the vcpu has as many as the host
 * says; the first page that is no good is ENOMEM, and then all are back.
 */
int64_t spec_refill(struct oracle *o, struct vm *vm, struct vcpu *vcpu)
{
    struct kvm_host_vcpu host;
    struct hyp_memcache list;
    uint64_t target, nr = 0;

    o_seen(o, vcpu->host_vcpu, &host, sizeof(host));
    list = host.pkvm_memcache;
    for (target = list.nr_pages; vcpu->nr_cached + nr < target; nr++) {
        if (!acceptable(o, list.head)) {
            for (uint64_t page = host.pkvm_memcache.head; nr > 0; nr--, page = link_of(o, page))
                o_to_host(o, page / HYP_PAGE_SIZE);
            return -HYP_ENOMEM;
        }
        o_to_el2(o, list.head / HYP_PAGE_SIZE, 1, vm->handle);
        list.head = link_of(o, list.head);
        list.nr_pages--;
    }
    vcpu->nr_cached += nr;
    vm->nr_cached += nr;
    vm->nr_donated += nr;
    o->expect.refilled = vcpu->host_vcpu;
    o->expect.rest = list;
    return 0;
}
