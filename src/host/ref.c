/* SPDX-License-Identifier: BSD-2-Clause */
/* References to folios and who holds them. */
#include "src/host/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

const struct ref_kind_info ref_kinds[REF_KINDS_COUNT] = {
#define X(id, name_, pin_, transient_, touches_, blocks_, doc_)                                                        \
    [REF_##id] = {                                                                                                     \
        .name = name_, .pin = pin_, .transient = transient_, .touches = touches_, .blocks = blocks_, .doc = doc_},
    REF_KINDS(X)
#undef X
};

/* ---- records ------------------------------------------------------------------------------------------------------
 */

void ref_tag(struct ref_tag *tag, uint32_t pid)
{
    *tag = (struct ref_tag){
        .pid = pid, .cpu = sched_cpu(), .task = sched_task_id(), .since_ns = sched_now(), .point = sched_last_point()};
}

void ref_init(struct ref *ref, struct gmem *gmem, uint64_t index, enum ref_kind kind, const char *label, uint32_t pid,
              uint32_t *pfns)
{
    *ref = (struct ref){.host = gmem->host, .gmem = gmem, .index = index, .kind = kind, .pfns = pfns};
    ref_tag(&ref->tag, pid);
    snprintf(ref->label, sizeof(ref->label), "%s", label && *label ? label : "unnamed");
}

struct ref *ref_new(struct gmem *gmem, uint64_t index, uint64_t nr, enum ref_kind kind, const char *label, uint32_t pid)
{
    struct ref *ref = calloc(1, sizeof(*ref) + nr * sizeof(ref->pfns[0]));
    if (ref)
        ref_init(ref, gmem, index, kind, label, pid, (uint32_t *)(ref + 1));
    return ref;
}

static bool of_client(const struct ref *ref)
{
    return ref->kind < REF_USER_KINDS;
}

static void put_on(struct ref **list, struct ref *ref)
{
    ref->list = list;
    ref->prev = NULL;
    ref->next = *list;
    if (ref->next)
        ref->next->prev = ref;
    *list = ref;
}

static void take_off(struct ref *ref)
{
    if (ref->prev)
        ref->prev->next = ref->next;
    else
        *ref->list = ref->next;
    if (ref->next)
        ref->next->prev = ref->prev;
}

void ref_link(struct ref *ref)
{
    struct host *host = ref->host;
    ref->id = host->next_ref++;
    put_on(&ref->gmem->holders, ref);
    host->nr_refs++;
    host->nr_pins += of_client(ref);
}

void ref_unlink(struct ref *ref)
{
    take_off(ref);
    ref->host->nr_refs--;
    ref->host->nr_pins -= of_client(ref);
}

void ref_set_kind(struct ref *ref, enum ref_kind kind)
{
    assert(ref_kinds[kind].pin == ref_kinds[ref->kind].pin);
    ref->host->nr_pins -= of_client(ref);
    ref->kind = kind;
    ref->host->nr_pins += of_client(ref);
}

int ref_add_page(struct ref *ref, uint64_t pfn)
{
    if (!folio_get(ref->host, pfn, ref->kind))
        return -ENOMEM;
    ref->pfns[ref->nr++] = (uint32_t)(pfn - ref->host->frames.base);
    return 0;
}

void ref_put_pages(struct ref *ref)
{
    /* From its end: what others find of it meanwhile is what is still held. */
    while (ref->nr) {
        folio_put(ref->host, ref_pfn(ref, ref->nr - 1), ref->kind);
        if (--ref->nr)
            sched_relax_due();
    }
}

void ref_drop(struct ref *ref)
{
    ref_put_pages(ref);
    ref_unlink(ref);
    free(ref);
}

int ref_take(struct gmem *gmem, uint64_t index, enum ref_kind kind, const char *label, uint32_t pid, struct ref **out)
{
    uint64_t pfn = index < gmem->nr_pages ? cache_lookup(gmem, index) : 0;
    if (!pfn)
        return -ENOENT;
    struct ref *ref = ref_new(gmem, index, 1, kind, label, pid);
    if (!ref)
        return -ENOMEM;
    int rc = ref_add_page(ref, pfn);
    if (rc) {
        free(ref);
        return rc;
    }
    ref_link(ref);
    *out = ref;
    return 0;
}

void refs_orphan(struct gmem *gmem)
{
    while (gmem->holders) {
        struct ref *ref = gmem->holders;
        take_off(ref);
        ref->gmem = NULL;
        put_on(&gmem->host->orphans, ref);
    }
}

uint64_t ref_id(const struct ref *ref)
{
    return ref->id;
}

enum ref_kind ref_kind_of(const struct ref *ref)
{
    return ref->kind;
}

uint64_t ref_pfn(const struct ref *ref, uint64_t n)
{
    return ref->host->frames.base + ref->pfns[n];
}

uint64_t ref_pages(const struct ref *ref)
{
    return ref->nr;
}

/* Clean: neither maybe-dma-pinned nor mapped, one reference for each page in the page cache, and the walker's. */
bool folio_in_use(struct gmem *gmem, uint64_t index, uint64_t pfn, struct lru_drained *drained)
{
    struct host *host = gmem->host;
    struct ref walk;
    uint32_t page;
    if (folio_maybe_dma_pinned(host, pfn) || folio_mapcount(host, pfn))
        return true;
    uint32_t expected = (uint32_t)folio_nr_pages(host, pfn) + 1;
    /* Nobody could see the walker take its reference and put it: of a clean folio that is spared. */
    if (folio_refcount(host, pfn) + 1 == expected)
        return false;
    ref_init(&walk, gmem, index, REF_LOOKUP, "conversion check", 0, &page);
    if (ref_add_page(&walk, pfn))
        return true;
    ref_link(&walk);
    lru_cache_drain_for_folio(host, pfn, expected, drained);
    bool in_use = folio_refcount(host, pfn) != expected;
    ref_put_pages(&walk);
    ref_unlink(&walk);
    return in_use;
}

/* ---- by holder -----------------------------------------------------------------------------------------------------
 */

static struct ref *in_list(struct ref *list, bool (*match)(const struct ref *ref, uint64_t key), uint64_t key)
{
    while (list && !match(list, key))
        list = list->next;
    return list;
}

static struct ref *in_host(const struct host *host, bool (*match)(const struct ref *ref, uint64_t key), uint64_t key)
{
    struct ref *found = in_list(host->orphans, match, key);
    for (const struct gmem *g = host->gmems; g && !found; g = g->next)
        found = in_list(g->holders, match, key);
    return found;
}

static bool has_id(const struct ref *ref, uint64_t id)
{
    return ref->id == id;
}

static bool held_by(const struct ref *ref, uint64_t pid)
{
    /* What the kernel itself holds does not end with the process on whose behalf it looked. */
    return ref->tag.pid == pid && of_client(ref);
}

struct ref *ref_find(const struct host *host, uint64_t id)
{
    return in_host(host, has_id, id);
}

unsigned ref_drop_process(struct host *host, uint32_t pid)
{
    unsigned nr = 0;
    for (struct ref *ref; (ref = in_host(host, held_by, pid)); nr++)
        gmem_unpin(ref);
    return nr;
}

/* ---- by page
 * --------------------------------------------------------------------------------------------------------- */

void holder_fill(struct holder_info *out, enum ref_kind kind, const struct ref_tag *tag, const char *what)
{
    *out = (struct holder_info){.ref = kind,
                                .pid = tag->pid,
                                .since_ns = tag->since_ns,
                                .task = tag->task,
                                .point = tag->point,
                                .pages = 1,
                                .count = 1};
    snprintf(out->what, sizeof(out->what), "%s", what);
    snprintf(out->kind, sizeof(out->kind), "%s", ref_kinds[kind].name);
}

/* How many of a folio's pages a reference holds; the first one in *first. */
static uint64_t holds(const struct ref *ref, const struct folio *folio, uint64_t *first)
{
    uint64_t nr = 0;
    uint64_t from = ref->index > folio->index ? ref->index : folio->index;
    uint64_t past = folio->index + folio->nr;
    for (uint64_t i = from; i < past && i - ref->index < ref->nr; i++) {
        /* A hole was punched since: what it holds is the page that was here before. */
        if (ref_pfn(ref, i - ref->index) != folio->pfn + (i - folio->index))
            continue;
        if (!nr++)
            *first = i;
    }
    return nr;
}

unsigned gmem_holders(const struct gmem *gmem, uint64_t index, struct holder_info *out, unsigned max)
{
    struct folio folio;
    if (!folio_at(gmem, index, &folio))
        return 0;
    unsigned nr = 0;
    uint32_t unit = folio.nr == 1 ? FOLL_PIN_BIAS : 1;
    for (const struct ref *ref = gmem->holders; ref; ref = ref->next) {
        uint64_t first, pages = holds(ref, &folio, &first);
        if (!pages)
            continue;
        if (nr < max) {
            holder_fill(&out[nr], ref->kind, &ref->tag, ref->label);
            out[nr].index = first;
            out[nr].pages = pages;
            out[nr].count = (uint32_t)pages * (ref_kinds[ref->kind].pin ? unit : 1);
        }
        nr++;
    }
    return nr + pte_holders(gmem, &folio, out ? out + (nr < max ? nr : max) : NULL, nr < max ? max - nr : 0);
}

void gmem_holders_sum(const struct gmem *gmem, uint64_t index, struct holder_sum *out)
{
    struct folio folio;
    *out = (struct holder_sum){0};
    if (!folio_at(gmem, index, &folio))
        return;
    uint32_t unit = folio.nr == 1 ? FOLL_PIN_BIAS : 1;
    out->refs = frame_of(gmem->host, folio.pfn)->flags & FRAME_TYPED ? 0 : folio.nr;
    for (const struct ref *ref = gmem->holders; ref; ref = ref->next) {
        uint64_t first, pages = holds(ref, &folio, &first);
        out->refs += pages * (ref_kinds[ref->kind].pin ? unit : 1);
        out->pins += ref_kinds[ref->kind].pin ? pages : 0;
    }
    pte_sum(gmem, &folio, out);
}
