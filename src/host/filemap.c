/* SPDX-License-Identifier: BSD-2-Clause */
/* The page cache of a guest_memfd: file index -> frame. */
#include "src/host/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define LEAF_SHIFT 9
#define LEAF_PAGES (1u << LEAF_SHIFT)

struct cache_leaf {
    RB_ENTRY(cache_leaf) link;
    uint64_t number; /* index >> LEAF_SHIFT */
    uint32_t used;
    uint32_t frame[LEAF_PAGES]; /* 1 + frame number, 0 a hole */
};

static int by_number(const struct cache_leaf *a, const struct cache_leaf *b)
{
    return a->number < b->number ? -1 : a->number > b->number;
}

RB_GENERATE_INTERNAL(cache_tree, cache_leaf, link, by_number, static __attribute__((unused)))

static struct cache_tree *tree_of(const struct gmem *gmem)
{
    return (struct cache_tree *)(uintptr_t)&gmem->cache;
}

static struct cache_leaf *leaf_at(const struct gmem *gmem, uint64_t index)
{
    struct cache_leaf *n = RB_ROOT(tree_of(gmem));
    uint64_t number = index >> LEAF_SHIFT;
    while (n && n->number != number)
        n = number < n->number ? RB_LEFT(n, link) : RB_RIGHT(n, link);
    return n;
}

/* The first leaf whose number is at least `number`. */
static struct cache_leaf *leaf_from(const struct gmem *gmem, uint64_t number)
{
    struct cache_leaf *n = RB_ROOT(tree_of(gmem)), *best = NULL;
    while (n) {
        if (n->number >= number) {
            best = n;
            n = RB_LEFT(n, link);
        } else {
            n = RB_RIGHT(n, link);
        }
    }
    return best;
}

void cache_init(struct gmem *gmem)
{
    RB_INIT(tree_of(gmem));
}

uint64_t cache_lookup(const struct gmem *gmem, uint64_t index)
{
    const struct cache_leaf *leaf = leaf_at(gmem, index);
    uint32_t f = leaf ? leaf->frame[index & (LEAF_PAGES - 1)] : 0;
    return f ? gmem->host->frames.base + f - 1 : 0;
}

int cache_insert(struct gmem *gmem, uint64_t index, uint64_t pfn)
{
    struct cache_leaf *leaf = leaf_at(gmem, index);
    if (!leaf) {
        leaf = calloc(1, sizeof(*leaf));
        if (!leaf)
            return -ENOMEM;
        leaf->number = index >> LEAF_SHIFT;
        RB_INSERT(cache_tree, tree_of(gmem), leaf);
    }
    assert(!leaf->frame[index & (LEAF_PAGES - 1)]);
    leaf->frame[index & (LEAF_PAGES - 1)] = (uint32_t)(pfn - gmem->host->frames.base) + 1;
    leaf->used++;
    gmem->nr_cached++;
    return 0;
}

void cache_remove(struct gmem *gmem, uint64_t index)
{
    struct cache_leaf *leaf = leaf_at(gmem, index);
    leaf->frame[index & (LEAF_PAGES - 1)] = 0;
    gmem->nr_cached--;
    if (--leaf->used)
        return;
    RB_REMOVE(cache_tree, tree_of(gmem), leaf);
    free(leaf);
}

void cache_destroy(struct gmem *gmem)
{
    struct cache_leaf *leaf;
    while ((leaf = RB_MIN(cache_tree, tree_of(gmem)))) {
        RB_REMOVE(cache_tree, tree_of(gmem), leaf);
        free(leaf);
    }
}

bool gmem_next_folio(const struct gmem *gmem, uint64_t start, uint64_t end, uint64_t *index, uint64_t *pfn)
{
    struct cache_leaf *leaf = leaf_from(gmem, start >> LEAF_SHIFT);
    for (; leaf; leaf = RB_NEXT(cache_tree, tree_of(gmem), leaf)) {
        uint64_t base = leaf->number << LEAF_SHIFT;
        if (base >= end)
            return false;
        for (uint64_t i = start > base ? start - base : 0; i < LEAF_PAGES && base + i < end; i++) {
            if (!leaf->frame[i])
                continue;
            *index = base + i;
            *pfn = gmem->host->frames.base + leaf->frame[i] - 1;
            return true;
        }
    }
    return false;
}

bool folio_at(const struct gmem *gmem, uint64_t index, struct folio *out)
{
    const struct host *host = gmem->host;
    uint64_t pfn = cache_lookup(gmem, index);
    if (!pfn)
        return false;
    out->pfn = folio_head(host, pfn);
    out->nr = folio_nr_pages(host, pfn);
    out->index = index - (pfn - out->pfn);
    return true;
}

void folio_leave(struct gmem *gmem, const struct folio *folio)
{
    struct host *host = gmem->host;
    folio_untype(host, folio->pfn);
    bool held = folio_refcount(host, folio->pfn) > folio->nr;
    for (uint64_t i = 0; i < folio->nr; i++) {
        struct frame *f = frame_of(host, folio->pfn + i);
        cache_remove(gmem, folio->index + i);
        f->owner = 0;
        /* What its file made of it ends with it. */
        f->flags &= (uint16_t)~FRAME_POLICY;
        if (held) {
            f->flags |= FRAME_ORPHAN;
            host->arch.orphan(host->arch.ctx, gmem->file, folio->index + i, folio->pfn + i);
        }
    }
    frame_put(host, folio->pfn, (uint32_t)folio->nr);
}

int gmem_get_folio(struct gmem *gmem, uint64_t index, uint64_t *pfn)
{
    struct host *host = gmem->host;
    uint64_t nr = UINT64_C(1) << gmem->order, first = index & ~(nr - 1), head;

    *pfn = cache_lookup(gmem, index);
    if (*pfn)
        return 0;
    int rc = data_alloc(host, gmem, index, &head);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < nr && !rc; i++) {
        rc = cache_insert(gmem, first + i, head + i);
        /* All or nothing. */
        for (; rc && i; i--)
            cache_remove(gmem, first + i - 1);
    }
    if (rc) {
        frame_put(host, head, (uint32_t)nr);
        return rc;
    }
    *pfn = head + (index - first);
    rc = lru_add(gmem, index);
    if (rc)
        folio_leave(gmem, &(struct folio){.pfn = head, .index = first, .nr = nr});
    return rc;
}

/*
 * A process that touches a shared page of a mapped file is served by the real
 * kernel, without a word to the model: before the model looks at a range it
 * asks the stage what became populated.
 */
int gmem_adopt(struct gmem *gmem, uint64_t start, uint64_t end)
{
    const struct host_arch *arch = &gmem->host->arch;
    uint64_t first, past, pfn;
    while (start < end && arch->populated(arch->ctx, gmem->file, start, end, &first, &past)) {
        for (uint64_t i = first; i < past; i++) {
            int rc = gmem_get_folio(gmem, i, &pfn);
            if (rc)
                return rc;
            sched_relax_due();
        }
        start = past;
    }
    return 0;
}
