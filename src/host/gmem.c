/* SPDX-License-Identifier: BSD-2-Clause */
/* guest_memfd inodes: creation, lifetime, what is known of a page. */
#include "src/host/library_internal.h"
#include "src/host/policy.h"
#include "src/host/tracker.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct gmem *gmem_by_id(const struct host *host, uint32_t id)
{
    for (struct gmem *g = host->gmems; g; g = g->next)
        if (g->id == id)
            return g;
    return NULL;
}

/* kvm_gmem_create(), spec guest_memfd.md 2.1. */
int gmem_create(struct vm *vm, uint64_t size, uint64_t flags, struct gmem **out, struct caller *caller)
{
    struct host *host = vm->host;

    if (host_alive(host, caller))
        return -EIO;
    if (flags & ~(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)) {
        caller_explain(caller, "unknown guest_memfd flags 0x%llx: MMAP (1) and INIT_SHARED (2) exist",
                       (unsigned long long)flags);
        return -EINVAL;
    }
    if (!size || (int64_t)size < 0 || size & (HOST_PAGE_SIZE - 1)) {
        caller_explain(caller, "size 0x%llx: must be a multiple of 4096, above 0 and below 2^63",
                       (unsigned long long)size);
        return -EINVAL;
    }
    struct gmem *g = calloc(1, sizeof(*g));
    if (!g)
        return -ENOMEM;
    bool init_shared = flags & GUEST_MEMFD_FLAG_INIT_SHARED;
    g->host = host;
    g->nr_pages = size >> HOST_PAGE_SHIFT;
    g->flags = flags;
    g->vm_id = vm->id;
    g->private_memory = vm_private_memory(vm);
    g->driver = vm->driver;
    g->config = vm->config;
    g->policy = gmem_policy(vm->config.policy);
    g->tracker = gmem_tracker(vm->config.tracker);
    g->refs = 1;
    cache_init(g);
    int rc = rangemap_init(&g->attr, g->nr_pages, init_shared ? ATTR_SHARED : ATTR_PRIVATE);
    if (!rc)
        rc = rangemap_init(&g->last_conv, g->nr_pages, 0);
    if (!rc) {
        g->id = host->next_gmem++;
        rc = host->arch.file_create(host->arch.ctx, g, init_shared, &g->file);
        if (rc)
            caller_explain(caller, "no file for %llu bytes of guest memory: %s", (unsigned long long)size,
                           rc == -EMFILE ? "too many open files (raise RLIMIT_NOFILE of fakehypd)" : "out of memory");
    }
    if (rc) {
        rangemap_destroy(&g->attr);
        rangemap_destroy(&g->last_conv);
        free(g);
        return rc;
    }
    g->next = host->gmems;
    if (g->next)
        g->next->prev = g;
    host->gmems = g;
    host->nr_gmems++;
    host_trace(host, &(struct host_event){
                         .kind = HOST_EV_gmem_create, .vm = vm->id, .gmem = g->id, .size = size, .a0 = flags});
    *out = g;
    return 0;
}

int gmem_set_order(struct gmem *gmem, unsigned order)
{
    if (order > FOLIO_MAX_ORDER || gmem->nr_pages & ((UINT64_C(1) << order) - 1))
        return -EINVAL;
    if (gmem->nr_cached)
        return -EBUSY;
    gmem->order = order;
    return 0;
}

void gmem_get(struct gmem *gmem)
{
    gmem->refs++;
}

bool folio_of_guest(const struct host *host, const struct folio *folio)
{
    bool has = false;
    for (uint64_t i = 0; i < folio->nr; i++)
        has = has || frame_of(host, folio->pfn + i)->flags & FRAME_GUEST;
    return has;
}

void gmem_look_at_bindings(struct gmem *g)
{
    if (g->dangling)
        host_splat(g->host, "KASAN: slab-use-after-free: guest_memfd %u has a binding of a memslot that is freed",
                   g->id);
    g->dangling = false;
}

/* kvm_gmem_release() and the inode's eviction: no memslot is left, so nothing here belongs to a guest. */
static void gmem_destroy(struct gmem *g)
{
    struct host *host = g->host;
    uint64_t index, pfn, freed = 0;

    assert(!g->bindings);
    gmem_look_at_bindings(g);
    library_free(g);
    refs_orphan(g);
    for (uint64_t at = 0; gmem_next_folio(g, at, g->nr_pages, &index, &pfn);) {
        struct folio folio;
        folio_at(g, index, &folio);
        at = folio.index + folio.nr;
        /* A page that the hypervisor never gave back stays lost: it must not be handed out again. */
        if (folio_of_guest(host, &folio))
            continue;
        folio_leave(g, &folio);
        freed += folio.nr;
    }
    cache_destroy(g);
    host->arch.file_destroy(host->arch.ctx, g->file);
    rangemap_destroy(&g->attr);
    rangemap_destroy(&g->last_conv);
    if (g->prev)
        g->prev->next = g->next;
    else
        host->gmems = g->next;
    if (g->next)
        g->next->prev = g->prev;
    host->nr_gmems--;
    host_trace(host, &(struct host_event){.kind = HOST_EV_gmem_release, .vm = g->vm_id, .gmem = g->id, .a1 = freed});
    free(g);
}

void gmem_put(struct gmem *gmem)
{
    assert(gmem->refs);
    if (--gmem->refs == 0)
        gmem_destroy(gmem);
}

uint32_t gmem_id(const struct gmem *gmem)
{
    return gmem->id;
}

uint64_t gmem_pages(const struct gmem *gmem)
{
    return gmem->nr_pages;
}

uint64_t gmem_flags(const struct gmem *gmem)
{
    return gmem->flags;
}

void *gmem_file(const struct gmem *gmem)
{
    return gmem->file;
}

enum gmem_policy_id gmem_policy_id(const struct gmem *gmem)
{
    return gmem->config.policy;
}

uint64_t gmem_vm_id(const struct gmem *gmem)
{
    return gmem->vm_id;
}

const struct vm_config *gmem_vm_config(const struct gmem *gmem)
{
    return &gmem->config;
}

void gmem_stats(const struct gmem *gmem, struct gmem_stats *out)
{
    *out = (struct gmem_stats){.allocated = gmem->nr_cached};
    bool before = false;
    for (uint64_t at = 0; at < gmem->nr_pages;) {
        struct gmem_range r = gmem_attr_range(gmem, at);
        if (r.private)
            out->private_pages += r.end - at;
        else
            out->shared_pages += r.end - at;
        /* Runs that a tracker does not merge are one range to whoever asks. */
        out->ranges += at == 0 || r.private != before;
        before = r.private;
        at = r.end;
    }
}

struct vm *gmem_binding(const struct gmem *gmem, uint64_t index, uint64_t *gfn)
{
    for (const struct memslot_link *l = gmem->bindings; l; l = l->next) {
        const struct memslot *s = l->slot;
        if (index >= s->index && index - s->index < s->nr_pages) {
            *gfn = s->gfn + (index - s->index);
            return l->vm;
        }
    }
    return NULL;
}

void gmem_page_report(const struct gmem *gmem, uint64_t index, struct page_report *out)
{
    struct gmem_range range = gmem_attr_range(gmem, index);
    *out = (struct page_report){.private = range.private, .none = range.none};
    out->pfn = cache_lookup(gmem, index);
    out->allocated = out->pfn != 0;
    if (out->allocated) {
        out->refcount = folio_refcount(gmem->host, out->pfn);
        out->pincount = folio_pincount(gmem->host, out->pfn);
        out->mapcount = folio_mapcount(gmem->host, out->pfn);
        out->order = frame_of(gmem->host, out->pfn)->flags >> FRAME_ORDER_SHIFT;
    }
    uint64_t gfn;
    out->vm = gmem_binding(gmem, index, &gfn);
    if (out->vm)
        out->gpa = gfn << HOST_PAGE_SHIFT;
    uint64_t seq = rangemap_get(&gmem->last_conv, index).value;
    const struct conversion *c = &gmem->host->history[seq % CONV_HISTORY];
    if (seq && c->seq == seq) {
        out->converted = true;
        out->converted_private = c->to_private;
        out->converted_seq = seq;
        out->converted_ns = c->t_ns;
        out->converted_pid = c->pid;
        snprintf(out->converted_by, sizeof(out->converted_by), "%s", c->program);
    }
}
