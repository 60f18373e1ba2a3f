/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/library.h"

#include <errno.h>
#include <stdlib.h>

#include "src/host/driver.h"
#include "src/host/library_internal.h"
#include "src/host/policy.h"
#include "src/host/tracker.h"

/* Out of memory is an errno here, not the end of the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct library_page {
    uint64_t index;
    unsigned accessible, grabs;
    UT_hash_handle hh;
};

static struct library_page *page_at(const struct gmem *g, uint64_t index)
{
    struct library_page *page;
    HASH_FIND(hh, g->library, &index, sizeof(index), page);
    return page;
}

static struct library_page *page_get(struct gmem *g, uint64_t index)
{
    struct library_page *page = page_at(g, index);
    if (page)
        return page;
    page = calloc(1, sizeof(*page));
    if (!page)
        return NULL;
    page->index = index;
    HASH_ADD(hh, g->library, index, sizeof(page->index), page);
    if (page->hh.tbl)
        return page;
    free(page);
    return NULL;
}

void library_free(struct gmem *g)
{
    struct library_page *page, *next;
    HASH_ITER (hh, g->library, page, next) {
        HASH_DEL(g->library, page);
        free(page);
    }
}

uint32_t library_grabs(const struct gmem *g, uint64_t index)
{
    const struct library_page *page = page_at(g, index);
    return page ? page->grabs : 0;
}

void library_counts(const struct gmem *g, uint64_t index, struct library_counts *out)
{
    uint64_t pfn = cache_lookup(g, index);
    const struct library_page *page = page_at(g, index);
    *out = (struct library_counts){.inaccessible = tracker_value(g, index) != ATTR_SHARED,
                                   .direct_map = true,
                                   .zaps = g->zaps,
                                   .restores = g->restores};
    if (!pfn)
        return;
    out->refcount = folio_refcount(g->host, pfn);
    out->safe = (unsigned)folio_nr_pages(g->host, pfn) + (page ? page->grabs : 0);
    out->accessible = page ? page->accessible : 0;
    out->direct_map = !(frame_of(g->host, pfn)->flags & FRAME_UNMAPPED);
}

/* set_direct_map_invalid_noflush() and its opposite. */
static void direct_map(struct gmem *g, uint64_t pfn, bool there)
{
    struct frame *f = frame_of(g->host, pfn);
    f->flags = (uint16_t)(there ? f->flags & ~FRAME_UNMAPPED : f->flags | FRAME_UNMAPPED);
    if (there)
        g->restores++;
    else
        g->zaps++;
}

/* The page changes sides: what a conversion does after its checks. */
static int change_side(struct gmem *g, uint64_t index, uint64_t value, struct caller *caller)
{
    const struct host_arch *arch = &g->host->arch;
    if (g->tracker->reserve(g))
        return -ENOMEM;
    int rc = arch->prepare(arch->ctx, g->file, index, index + 1, value == ATTR_SHARED, caller);
    if (rc)
        return rc;
    g->tracker->set(g, index, index + 1, value);
    arch->commit(arch->ctx, g->file, index, index + 1);
    return 0;
}

/* Under the file's lock, which is the folio lock of the RFC. */
static int make_accessible(struct gmem *g, uint64_t index, uint64_t pfn, struct caller *caller)
{
    struct gmem_busy busy;
    if (tracker_value(g, index) == ATTR_SHARED)
        return 0;
    int rc = policy_wait_safe(g, index, index + 1, caller, &busy);
    if (rc)
        return rc;
    direct_map(g, pfn, true);
    rc = driver_prepare_accessible(g, index, pfn);
    if (!rc)
        rc = change_side(g, index, ATTR_SHARED, caller);
    else
        caller_explain(caller, "page at offset 0x%llx: the hypervisor does not let the host have it",
                       (unsigned long long)index << HOST_PAGE_SHIFT);
    /* What was opened for the hypervisor's answer is closed again. */
    if (rc)
        direct_map(g, pfn, false);
    return rc;
}

static int make_inaccessible(struct gmem *g, uint64_t index, uint64_t pfn, struct caller *caller)
{
    struct gmem_busy busy;
    if (tracker_value(g, index) != ATTR_SHARED)
        return 0;
    unmap_mapping_range(g, index, index + 1);
    int rc = policy_wait_safe(g, index, index + 1, caller, &busy);
    if (rc)
        return rc;
    direct_map(g, pfn, false);
    rc = driver_prepare_inaccessible(g, pfn);
    if (!rc)
        rc = change_side(g, index, ATTR_PRIVATE, caller);
    if (rc)
        direct_map(g, pfn, true);
    return rc;
}

int library_grab(struct gmem *g, uint64_t index, bool accessible, struct ref **out, struct caller *caller)
{
    uint64_t pfn;
    if (!g->config.rfc_library || index >= g->nr_pages) {
        caller_explain(caller, "page 0x%llx: past the end, or its VM was not created with `library`",
                       (unsigned long long)index);
        return -EINVAL;
    }
    task_lock_exclusive(&g->invalidate_lock);
    int rc = gmem_get_folio(g, index, &pfn);
    struct library_page *page = rc ? NULL : page_get(g, index);
    if (!rc && !page)
        rc = -ENOMEM;
    if (!rc && accessible)
        rc = make_accessible(g, index, pfn, caller);
    if (!rc)
        rc = ref_take(g, index, REF_LIBRARY, "guest_memfd_grab_folio", caller ? caller->pid : 0, out);
    if (!rc) {
        page->grabs++;
        page->accessible += accessible;
    }
    task_unlock_exclusive(&g->invalidate_lock);
    return rc;
}

void library_put(struct ref *ref, bool accessible)
{
    struct library_page *page = ref->gmem ? page_at(ref->gmem, ref->index) : NULL;
    if (page) {
        page->grabs--;
        page->accessible -= accessible && page->accessible;
    }
    ref_drop(ref);
}

static int transition(struct gmem *g, uint64_t index, bool accessible, struct caller *caller)
{
    uint64_t pfn = index < g->nr_pages ? cache_lookup(g, index) : 0;
    struct library_page *page = pfn ? page_get(g, index) : NULL;
    if (!pfn)
        return -EINVAL;
    if (!page)
        return -ENOMEM;
    if (accessible) {
        int rc = make_accessible(g, index, pfn, caller);
        page->accessible += !rc;
        return rc;
    }
    bool was = page->accessible != 0;
    page->accessible -= was;
    int rc = page->accessible ? -EBUSY : make_inaccessible(g, index, pfn, caller);
    page->accessible += rc && was;
    return rc;
}

int library_make_inaccessible(struct gmem *g, uint64_t index, struct caller *caller)
{
    task_lock_exclusive(&g->invalidate_lock);
    int rc = transition(g, index, false, caller);
    task_unlock_exclusive(&g->invalidate_lock);
    return rc;
}

int library_make_accessible(struct gmem *g, uint64_t index, struct caller *caller)
{
    task_lock_exclusive(&g->invalidate_lock);
    int rc = transition(g, index, true, caller);
    task_unlock_exclusive(&g->invalidate_lock);
    return rc;
}

/*
 * The library's fault grabs the page accessible and gives both counts back once
 * the PTE is there: the PTE's reference is one that the library does not know.
 */
int library_fault(struct gmem *g, uint64_t index)
{
    uint64_t pfn;
    if (!g->config.rfc_library || index >= g->nr_pages || tracker_value(g, index) == ATTR_SHARED)
        return 0;
    task_lock_exclusive(&g->invalidate_lock);
    int rc = gmem_get_folio(g, index, &pfn);
    if (!rc)
        rc = make_accessible(g, index, pfn, NULL);
    task_unlock_exclusive(&g->invalidate_lock);
    return rc;
}
