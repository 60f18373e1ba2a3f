/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Policy C: three states (background.md 2.4).  A page that somebody still
 * refers to when it is to become private is nobody's until the last such
 * reference is dropped.  For that it gets a page type and loses the page
 * cache's reference, so that the last foreign put finds a count of 0.
 */
#include "src/host/policy.h"

#include <errno.h>

#include "src/host/tracker.h"

static int check_nothing(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy)
{
    (void)gmem;
    (void)start;
    (void)end;
    (void)caller;
    (void)busy;
    return 0;
}

static struct frame *head_of(const struct host *host, uint64_t pfn)
{
    return frame_of(host, folio_head(host, pfn));
}

static bool typed(const struct host *host, uint64_t pfn)
{
    return head_of(host, pfn)->flags & FRAME_TYPED;
}

/* folio_ref_freeze() would succeed: nobody but the page cache refers to the folio. */
static bool unused(const struct host *host, uint64_t pfn)
{
    return !typed(host, pfn) && folio_refcount(host, pfn) == folio_nr_pages(host, pfn);
}

static void set_type(struct host *host, uint64_t pfn)
{
    struct frame *head = head_of(host, pfn);
    head->flags |= FRAME_TYPED;
    head->refcount -= (uint32_t)folio_nr_pages(host, pfn);
}

void folio_untype(struct host *host, uint64_t pfn)
{
    struct frame *head = head_of(host, pfn);
    if (!typed(host, pfn))
        return;
    head->flags &= (uint16_t)~FRAME_TYPED;
    head->refcount += (uint32_t)folio_nr_pages(host, pfn);
}

static void clear_shared(struct gmem *gmem, uint64_t start, uint64_t end, struct gmem_busy *busy)
{
    uint64_t index, pfn;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1) {
        if (unused(gmem->host, pfn))
            continue;
        if (busy->transient++ == 0)
            policy_busy(gmem, index, pfn, 0, NULL, busy);
        tracker_store(gmem, index, index + 1, ATTR_NONE);
        /* Storage of the type is shared with the mapcount: a mapped page has to wait for gmem_register_callback(). */
        if (!typed(gmem->host, pfn) && !folio_mapcount(gmem->host, pfn))
            set_type(gmem->host, pfn);
    }
}

/* The guest has changed its mind. */
static void cancel(struct gmem *gmem, uint64_t start, uint64_t end)
{
    uint64_t index, pfn;
    for (uint64_t at = start; gmem_next_folio(gmem, at, end, &index, &pfn); at = index + 1)
        folio_untype(gmem->host, pfn);
}

static void settle_page(struct gmem *gmem, uint64_t index, uint64_t pfn)
{
    if (tracker_value(gmem, index) != ATTR_NONE || !unused(gmem->host, pfn))
        return;
    tracker_store(gmem, index, index + 1, ATTR_PRIVATE);
    host_trace(gmem->host, &(struct host_event){.kind = HOST_EV_convert,
                                                .vm = gmem->vm_id,
                                                .gmem = gmem->id,
                                                .offset = index << HOST_PAGE_SHIFT,
                                                .size = HOST_PAGE_SIZE,
                                                .a0 = KVM_MEMORY_ATTRIBUTE_PRIVATE,
                                                .note = "last foreign reference dropped"});
}

/* The workqueue: what a put from any context may not do, because it sleeps. */
static void settle_file(struct gmem *gmem)
{
    uint64_t index, pfn;
    task_lock_exclusive(&gmem->invalidate_lock);
    for (uint64_t at = 0; gmem_next_folio(gmem, at, gmem->nr_pages, &index, &pfn); at = index + 1)
        settle_page(gmem, index, pfn);
    task_unlock_exclusive(&gmem->invalidate_lock);
}

static void work(void *arg)
{
    struct host *host = arg;
    host->work_queued = false;
    for (uint32_t id = 1; id < host->next_gmem; id++) {
        struct gmem *gmem = gmem_by_id(host, id);
        if (!gmem || gmem->policy != &policy_transient)
            continue;
        gmem_get(gmem);
        settle_file(gmem);
        gmem_put(gmem);
    }
}

/* kvm_gmem_handle_folio_put() */
static void last_put(struct gmem *gmem, uint64_t pfn)
{
    struct host *host = gmem->host;
    folio_untype(host, pfn);
    if (gmem->config.bugs & HOST_BUG(ATOMIC_PUT))
        host_might_sleep(host, "invalidate_lock in the folio_put callback");
    if (!host->work_queued)
        host->work_queued = host->arch.queue_work(host->arch.ctx, work, host) == 0;
}

int gmem_register_callback(struct gmem *gmem, uint64_t index, struct caller *caller)
{
    int rc = 0;
    task_lock_exclusive(&gmem->invalidate_lock);
    uint64_t pfn = index < gmem->nr_pages ? cache_lookup(gmem, index) : 0;
    if (gmem->policy != &policy_transient || !pfn) {
        caller_explain(caller, "page 0x%llx: no folio there, or its VM has another policy than C",
                       (unsigned long long)index);
        rc = -EINVAL;
    } else if (typed(gmem->host, pfn)) {
        rc = 0;
    } else if (folio_mapcount(gmem->host, pfn)) {
        caller_explain(caller, "page at offset 0x%llx is mapped: a page type and a mapcount do not go together",
                       (unsigned long long)index << HOST_PAGE_SHIFT);
        rc = -EAGAIN;
    } else if (tracker_value(gmem, index) == ATTR_NONE) {
        if (unused(gmem->host, pfn))
            settle_page(gmem, index, pfn);
        else
            set_type(gmem->host, pfn);
    }
    task_unlock_exclusive(&gmem->invalidate_lock);
    return rc;
}

const struct gmem_policy policy_transient = {
    .check = check_nothing,
    .made_private = clear_shared,
    .leaving_private = cancel,
    .last_put = last_put,
};
