/* SPDX-License-Identifier: BSD-2-Clause */
/* Page tables of host processes: faults that fill them, and what empties them. */
#include "src/host/library_internal.h"
#include "src/host/mm_internal.h"
#include "src/host/tracker.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* ---- the table ------------------------------------------------------------------------------------------------------
 */

struct pte *pte_at(const struct mm *mm, uint64_t va)
{
    struct pte *pte;
    uint64_t vpn = va >> HOST_PAGE_SHIFT;
    HASH_FIND(hh, mm->ptes, &vpn, sizeof(vpn), pte);
    return pte;
}

static bool link_pte(struct mm *mm, struct pte *pte)
{
    HASH_ADD(hh, mm->ptes, vpn, sizeof(pte->vpn), pte);
    return pte->hh.tbl != NULL;
}

static int set_pte(struct mm *mm, const struct vma *vma, uint64_t va, uint64_t pfn, bool write)
{
    struct pte *pte = pte_at(mm, va);
    if (!pte) {
        pte = calloc(1, sizeof(*pte));
        if (!pte)
            return -ENOMEM;
        pte->vpn = va >> HOST_PAGE_SHIFT;
        pte->gmem = vma->gmem;
        pte->index = vma->index + ((va - vma->va) >> HOST_PAGE_SHIFT);
        pte->pfn = pfn;
        ref_tag(&pte->tag, mm->pid);
        if (!folio_get(mm->host, pfn, REF_PTE)) {
            free(pte);
            return -ENOMEM;
        }
        if (!link_pte(mm, pte)) {
            folio_put(mm->host, pfn, REF_PTE);
            free(pte);
            return -ENOMEM;
        }
        frame_of(mm->host, pfn)->mapcount++;
    }
    pte->dirty = pte->dirty || write;
    return 0;
}

/* ptep_get_and_clear() and the rmap: from here on only TLBs know the translation, and the gather keeps the folio. */
static void clear_pte(struct mm *mm, struct pte *pte)
{
    struct frame *f = frame_of(mm->host, pte->pfn);
    f->mapcount--;
    if (pte->dirty)
        f->flags |= FRAME_DIRTY;
    HASH_DEL(mm->ptes, pte);
    pte->next = mm->host->gather;
    mm->host->gather = pte;
}

/* tlb_finish_mmu(), after the flush: of what this task has cleared. */
static void put_gathered(struct host *host)
{
    uint64_t task = sched_task_id();
    for (struct pte **at = &host->gather; *at;) {
        struct pte *pte = *at;
        if (pte->tag.task != task) {
            at = &pte->next;
            continue;
        }
        *at = pte->next;
        folio_put(host, pte->pfn, REF_GATHER);
        free(pte);
    }
}

void pte_move(struct mm *mm, struct pte *pte, uint64_t va)
{
    HASH_DEL(mm->ptes, pte);
    pte->vpn = va >> HOST_PAGE_SHIFT;
    if (link_pte(mm, pte))
        return;
    frame_of(mm->host, pte->pfn)->mapcount--;
    folio_put(mm->host, pte->pfn, REF_PTE);
    free(pte);
}

/* ---- emptying it
 * ------------------------------------------------------------------------------------------------------ */

/* Clears what match() wants of a process; the tag then is that of who clears. */
static bool gather(struct mm *mm, bool (*match)(const struct pte *pte, const void *range), const void *range)
{
    struct pte *pte, *next;
    bool any = false;
    HASH_ITER (hh, mm->ptes, pte, next) {
        if (!match(pte, range))
            continue;
        clear_pte(mm, pte);
        pte->tag.task = sched_task_id();
        any = true;
    }
    return any;
}

struct va_range {
    uint64_t first, past; /* pages */
};

static bool in_va_range(const struct pte *pte, const void *range)
{
    const struct va_range *r = range;
    return pte->vpn >= r->first && pte->vpn < r->past;
}

void zap_range(struct mm *mm, uint64_t va, uint64_t length)
{
    const struct va_range range = {.first = va >> HOST_PAGE_SHIFT,
                                   .past = length > UINT64_MAX - va ? UINT64_MAX : (va + length) >> HOST_PAGE_SHIFT};
    if (!gather(mm, in_va_range, &range))
        return;
    sched_point("unmap:cleared");
    tlb_flush_mm(mm, va, length);
    put_gathered(mm->host);
}

struct file_range {
    const struct gmem *gmem;
    uint64_t start, end;
};

static bool in_file_range(const struct pte *pte, const void *range)
{
    const struct file_range *r = range;
    return pte->gmem == r->gmem && pte->index >= r->start && pte->index < r->end;
}

void unmap_mapping_range(struct gmem *gmem, uint64_t start, uint64_t end)
{
    const struct file_range range = {gmem, start, end};
    bool any = false;
    for (struct mm *mm = gmem->host->mms; mm; mm = mm->next)
        any = gather(mm, in_file_range, &range) || any;
    if (!any)
        return;
    sched_point("unmap:cleared");
    tlb_flush_file(gmem, start, end);
    put_gathered(gmem->host);
}

/* ---- filling it
 * -------------------------------------------------------------------------------------------------------- */

/*
 * kvm_gmem_fault_user_mapping(): sharedness is read and the folio taken under
 * the shared lock; the PTE is set after it was dropped, and what protects that
 * gap is the folio's reference.
 */
static int fault_lookup(struct mm *mm, struct gmem *gmem, uint64_t index, bool write, uint64_t *pfn, struct ref **ref)
{
    int rc;

    task_lock_shared(&gmem->invalidate_lock);
    sched_point("fault:locked");
    if (index >= gmem->nr_pages || tracker_refuses_host(gmem, index)) {
        rc = -EFAULT;
    } else {
        rc = gmem_get_folio(gmem, index, pfn);
        if (!rc && frame_of(mm->host, *pfn)->flags & FRAME_POISON)
            rc = -EHWPOISON;
        if (!rc)
            rc = ref_take(gmem, index, REF_FAULT, mm->name, mm->pid, ref);
    }
    task_unlock_shared(&gmem->invalidate_lock);
    host_trace(mm->host, &(struct host_event){.kind = HOST_EV_fault,
                                              .vm = gmem->vm_id,
                                              .gmem = gmem->id,
                                              .offset = index << HOST_PAGE_SHIFT,
                                              .size = HOST_PAGE_SIZE,
                                              .a0 = write,
                                              .rc = rc,
                                              .pid = mm->pid});
    return rc;
}

static int fault_vma(struct mm *mm, const struct vma *vma, uint64_t va, bool write, uint64_t *pfn)
{
    uint64_t index = vma->index + ((va - vma->va) >> HOST_PAGE_SHIFT);
    struct ref *ref = NULL;

    if (library_fault(vma->gmem, index))
        return -EFAULT;
    for (;;) {
        int rc = fault_lookup(mm, vma->gmem, index, write, pfn, &ref);
        if (rc)
            return rc;
        sched_point("fault:folio");
        /* Nor at one with a page type, which a mapped page cannot have (policy C). */
        if (cache_lookup(vma->gmem, index) == *pfn &&
            !(frame_of(mm->host, folio_head(mm->host, *pfn))->flags & FRAME_TYPED))
            break;
        /* A hole was punched meanwhile: no PTE may point at a page that has left the file. */
        ref_drop(ref);
    }
    int rc = set_pte(mm, vma, va, *pfn, write);
    ref_drop(ref);
    return rc;
}

int mm_fault(struct mm *mm, uint64_t va, bool write, uint64_t *pfn)
{
    task_lock_shared(&mm->mmap_lock);
    const struct vma *vma = vma_at(mm, va);
    host_lock_order(mm->host, HOST_LOCK_MMAP, HOST_LOCK_INVALIDATE);
    int rc = vma ? fault_vma(mm, vma, va, write, pfn) : -ENOENT;
    task_unlock_shared(&mm->mmap_lock);
    return rc;
}

bool mm_pte_present(const struct mm *mm, uint64_t va, uint64_t *pfn)
{
    const struct pte *pte = pte_at(mm, va);
    if (pte)
        *pfn = pte->pfn;
    return pte != NULL;
}

/* ---- PTEs as holders ------------------------------------------------------------------------------------------------
 */

void each_pte(const struct gmem *gmem, const struct folio *folio,
              void (*fn)(void *ctx, struct mm *mm, const struct pte *pte), void *ctx)
{
    for (struct mm *mm = gmem->host->mms; mm; mm = mm->next)
        for (const struct vma *v = mm->vmas; v; v = v->next)
            for (uint64_t i = folio->index; v->gmem == gmem && i < folio->index + folio->nr; i++) {
                if (i < v->index || i - v->index >= v->nr_pages)
                    continue;
                const struct pte *pte = pte_at(mm, v->va + ((i - v->index) << HOST_PAGE_SHIFT));
                if (pte && pte->pfn == folio->pfn + (i - folio->index))
                    fn(ctx, mm, pte);
            }
}

static bool of_folio(const struct pte *pte, const struct gmem *gmem, const struct folio *folio)
{
    return pte->gmem == gmem && pte->pfn >= folio->pfn && pte->pfn - folio->pfn < folio->nr;
}

struct holder_list {
    struct holder_info *out;
    unsigned nr, max;
};

static void list_holder(struct holder_list *list, enum ref_kind kind, const struct pte *pte, const char *what)
{
    if (list->nr < list->max) {
        struct holder_info *h = &list->out[list->nr];
        holder_fill(h, kind, &pte->tag, what);
        h->index = pte->index;
        h->va = pte->vpn << HOST_PAGE_SHIFT;
    }
    list->nr++;
}

static void list_pte(void *ctx, struct mm *mm, const struct pte *pte)
{
    list_holder(ctx, REF_PTE, pte, mm->name);
}

static const char *name_of(const struct host *host, uint32_t pid)
{
    const struct mm *mm = host->mms;
    while (mm && mm->pid != pid)
        mm = mm->next;
    return mm ? mm->name : "a process that ended";
}

unsigned pte_holders(const struct gmem *gmem, const struct folio *folio, struct holder_info *out, unsigned max)
{
    struct holder_list list = {.out = out, .max = max};
    each_pte(gmem, folio, list_pte, &list);
    for (const struct pte *pte = gmem->host->gather; pte; pte = pte->next)
        if (of_folio(pte, gmem, folio))
            list_holder(&list, REF_GATHER, pte, name_of(gmem->host, pte->tag.pid));
    return list.nr;
}

static void count_pte(void *ctx, struct mm *mm, const struct pte *pte)
{
    struct holder_sum *sum = ctx;
    (void)mm;
    (void)pte;
    sum->refs++;
    sum->maps++;
}

void pte_sum(const struct gmem *gmem, const struct folio *folio, struct holder_sum *sum)
{
    each_pte(gmem, folio, count_pte, sum);
    for (const struct pte *pte = gmem->host->gather; pte; pte = pte->next)
        sum->refs += of_folio(pte, gmem, folio);
}
