/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order of events within a call.  A flush is noted before it takes effect:
 * until then the side that loses a page may still reach it through its TLB, so
 * the side that gains it must not have it yet.
 */
#include "fakehyp/oracle/state.h"

static bool flushes(const struct event *event, uint16_t vmid, uint64_t ipa)
{
    return event->kind == EVENT_FLUSH && event->vmid == vmid &&
           (event->nr == 0 || (event->addr <= ipa && ipa - event->addr < event->nr * HYP_PAGE_SIZE));
}

static bool reaches(uint64_t pte)
{
    return pte & PTE_VALID;
}

static void judge_donation(struct oracle *o, const struct event *event)
{
    if (flushes(event, 0, o->expect.order_page) && reaches(event->guest))
        o_diverge(o, "grant before revoke: the guest has the page while the host is flushed", "page", 0,
                  o->expect.order_page);
}

static void judge_unshare(struct oracle *o, const struct event *event)
{
    if (flushes(event, 0, o->expect.order_page) && o_guest_state(event->guest) == PKVM_PAGE_OWNED)
        o_diverge(o, "grant before revoke: the guest owns the page while the host is flushed", "page", 0,
                  o->expect.order_page);
}

static void judge_reclaim(struct oracle *o, const struct event *event, bool *flushed)
{
    const struct expectation *e = &o->expect;

    if (flushes(event, e->order_vmid, e->order_ipa)) {
        *flushed = true;
        if (reaches(event->host))
            o_diverge(o, "grant before revoke: the host has the page while the guest is flushed", "page", 0,
                      e->order_page);
    }
    if (event->kind != EVENT_ZERO || event->addr != e->order_page)
        return;
    if (reaches(event->host))
        o_diverge(o, "I14: the host reaches the page before it is zeroed", "page", 0, e->order_page);
    if (e->alive && (reaches(event->guest) || !*flushed))
        o_diverge(o, "I14: the guest may write the page while it is zeroed", "page", 0, e->order_page);
}

static void judge_zeroing(struct oracle *o)
{
    unsigned nr_expected = 0;

    for (unsigned i = 0; i < o->nr_events; i++) {
        if (o->events[i].kind != EVENT_ZERO)
            continue;
        if (o->expect.zero && o->events[i].addr == o->expect.zero)
            nr_expected++;
        else
            o_diverge(o, "I14: a page was zeroed whose contents have to stay", "page", 0, o->events[i].addr);
    }
    if (!o->expect.zero)
        return;
    if (nr_expected == 0)
        o_diverge(o, "I14: the guest's page went to the host and was not zeroed", "page", o->expect.zero, 0);
    else if (o->options.is_zero && !o->options.is_zero(o->options.ctx, o->expect.zero))
        o_diverge(o, "I14: the guest's page is the host's and is not zero", "page", 0, o->expect.zero);
}

void o_judge_order(struct oracle *o)
{
    bool flushed = false;

    for (unsigned i = 0; i < o->nr_events; i++) {
        switch (o->expect.order) {
        case ORDER_NONE:
            break;
        case ORDER_HOST_TO_GUEST:
            judge_donation(o, &o->events[i]);
            break;
        case ORDER_BORROWED_BACK:
            judge_unshare(o, &o->events[i]);
            break;
        case ORDER_GUEST_TO_HOST:
            judge_reclaim(o, &o->events[i], &flushed);
            break;
        }
    }
    judge_zeroing(o);
    if (o->expect.flush_vmid && !o_flushed(o, o->expect.flushed, 0, UINT64_MAX, false))
        o_diverge(o, "the whole VMID has to be flushed", "VMID", o->expect.flushed, 0);
}
