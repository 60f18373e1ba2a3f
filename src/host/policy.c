/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/policy.h"

#include "src/host/library_internal.h"

#include <errno.h>
#include <stdio.h>

/* The library waits so long for the references that it does not know of. */
#define SAFE_WAIT_NS UINT64_C(10000000)

int policy_busy(struct gmem *gmem, uint64_t index, uint64_t pfn, int rc, struct caller *caller, struct gmem_busy *busy)
{
    uint32_t refcount = folio_refcount(gmem->host, pfn), mapcount = folio_mapcount(gmem->host, pfn);
    busy->error_offset_valid = true;
    busy->error_offset = index << HOST_PAGE_SHIFT;
    unsigned nr = gmem_holders(gmem, index, busy->holders, BUSY_MAX_HOLDERS);
    busy->nr_holders = nr < BUSY_MAX_HOLDERS ? nr : BUSY_MAX_HOLDERS;
    if (nr)
        caller_explain(caller,
                       "page at offset 0x%llx is in use: refcount %u, held by %s (%s, pid %u)%s; drop that reference "
                       "and retry",
                       (unsigned long long)busy->error_offset, refcount, busy->holders[0].what, busy->holders[0].kind,
                       busy->holders[0].pid, nr > 1 ? " and others" : "");
    else
        caller_explain(caller, "page at offset 0x%llx is in use: refcount %u, mapcount %u; retry",
                       (unsigned long long)busy->error_offset, refcount, mapcount);
    struct host_event event = {.kind = HOST_EV_busy,
                               .vm = gmem->vm_id,
                               .gmem = gmem->id,
                               .offset = busy->error_offset,
                               .size = HOST_PAGE_SIZE,
                               .a0 = refcount,
                               .a1 = mapcount,
                               .pid = nr ? busy->holders[0].pid : 0};
    snprintf(event.note, sizeof(event.note), "%.*s", (int)sizeof(event.note) - 1, nr ? busy->holders[0].what : "");
    host_trace(gmem->host, &event);
    return rc;
}

/* The first page of the range that is in the way by the policy's own idea of it. */
static int first_in_use(struct gmem *gmem, uint64_t start, uint64_t end,
                        bool (*in_use)(const struct host *host, uint64_t pfn), int rc, struct caller *caller,
                        struct gmem_busy *busy)
{
    uint64_t index, pfn;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1) {
        sched_relax_due();
        if (in_use(gmem->host, pfn))
            return policy_busy(gmem, index, pfn, rc, caller, busy);
    }
    return 0;
}

/* ---- D: what was merged ----------------------------------------------------------------------------------------- */

static int check_upstream(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller,
                          struct gmem_busy *busy)
{
    struct lru_drained drained = {false, false};
    uint64_t index, pfn;
    if (gmem->config.bugs & HOST_BUG(D_NO_REFCHECK))
        return 0;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1) {
        sched_relax_due();
        if (folio_in_use(gmem, index, pfn, &drained))
            return policy_busy(gmem, index, pfn, -EAGAIN, caller, busy);
    }
    return 0;
}

/* ---- A: folio_mapped() || folio_maybe_dma_pinned() ----------------------------------------------------------------
 */

static bool is_mapped(const struct host *host, uint64_t pfn)
{
    return folio_mapcount(host, pfn) != 0;
}

static bool in_use_naive(const struct host *host, uint64_t pfn)
{
    return is_mapped(host, pfn) || folio_maybe_dma_pinned(host, pfn);
}

static bool wrong_order(const struct gmem *gmem)
{
    return gmem->config.bugs & HOST_BUG(NAIVE_CHECK_ORDER);
}

static int check_naive(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy)
{
    return first_in_use(gmem, start, end, wrong_order(gmem) ? is_mapped : in_use_naive, -EAGAIN, caller, busy);
}

static int check_naive_mapped(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller,
                              struct gmem_busy *busy)
{
    if (!wrong_order(gmem))
        return 0;
    int rc = first_in_use(gmem, start, end, folio_maybe_dma_pinned, -EAGAIN, caller, busy);
    sched_point("convert:pins-checked");
    return rc;
}

/* ---- B: all references are known ----------------------------------------------------------------------------------
 */

/* The page cache's; the library's own are in its counters. */
static int wait_safe(struct gmem *gmem, uint64_t index, uint64_t pfn, uint64_t deadline, struct caller *caller,
                     struct gmem_busy *busy)
{
    struct frame *f = frame_of(gmem->host, folio_head(gmem->host, pfn));
    while (f->refcount != folio_nr_pages(gmem->host, pfn) + library_grabs(gmem, index)) {
        uint64_t now = sched_now();
        if (now >= deadline)
            return policy_busy(gmem, index, pfn, -EBUSY, caller, busy);
        sched_point("convert:waiting");
        if (f->refcount == folio_nr_pages(gmem->host, pfn))
            break;
        f->flags |= FRAME_WATCHED;
        sched_wait_uncancelled(&gmem->host->put, deadline - now);
        f->flags &= (uint16_t)~FRAME_WATCHED;
    }
    return 0;
}

int policy_wait_safe(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy)
{
    uint64_t index, pfn, deadline = sched_now() + SAFE_WAIT_NS;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1) {
        sched_relax_due();
        int rc = wait_safe(gmem, index, pfn, deadline, caller, busy);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- E: an exclusive pin ------------------------------------------------------------------------------------------
 */

static int check_exclusive(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller,
                           struct gmem_busy *busy)
{
    /* A page that is pinned exclusively already stays so; references of other kinds are not looked at. */
    return first_in_use(gmem, start, end, folio_maybe_dma_pinned, -EBUSY, caller, busy);
}

static void set_exclusive(struct gmem *gmem, uint64_t start, uint64_t end, bool on)
{
    uint64_t index, pfn;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1) {
        struct frame *f = frame_of(gmem->host, folio_head(gmem->host, pfn));
        f->flags = (uint16_t)(on ? f->flags | FRAME_EXCLUSIVE : f->flags & ~FRAME_EXCLUSIVE);
    }
}

static void take_exclusive(struct gmem *gmem, uint64_t start, uint64_t end, struct gmem_busy *busy)
{
    (void)busy;
    set_exclusive(gmem, start, end, true);
}

static void drop_exclusive(struct gmem *gmem, uint64_t start, uint64_t end)
{
    set_exclusive(gmem, start, end, false);
}

static int gup_exclusive(const struct gmem *gmem, uint64_t index, uint64_t pfn, enum ref_kind kind,
                         struct caller *caller)
{
    /* FOLL_GET is no pin, so nothing stops it: the hole that ended this proposal. */
    if (kind == REF_FOLL_GET || !(frame_of(gmem->host, folio_head(gmem->host, pfn))->flags & FRAME_EXCLUSIVE))
        return 0;
    caller_explain(caller, "page at offset 0x%llx is pinned exclusively", (unsigned long long)index << HOST_PAGE_SHIFT);
    return -EBUSY;
}

const struct gmem_policy *gmem_policy(enum gmem_policy_id id)
{
    static const struct gmem_policy upstream = {.check = check_upstream};
    static const struct gmem_policy naive = {.check = check_naive, .check_mapped = check_naive_mapped};
    static const struct gmem_policy safe_count = {.check = policy_wait_safe};
    static const struct gmem_policy exclusive = {.check = check_exclusive,
                                                 .keeps_mappings = true,
                                                 .made_private = take_exclusive,
                                                 .leaving_private = drop_exclusive,
                                                 .gup = gup_exclusive};
    static const struct gmem_policy *const all[GMEM_POLICY_COUNT] = {
        [GMEM_POLICY_UPSTREAM] = &upstream,     [GMEM_POLICY_NAIVE] = &naive,
        [GMEM_POLICY_SAFE_COUNT] = &safe_count, [GMEM_POLICY_TRANSIENT] = &policy_transient,
        [GMEM_POLICY_EXCLUSIVE] = &exclusive,
    };
    return all[id];
}
