/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Address spaces of host processes: VMAs over guest_memfds and their PTEs.
 *
 * On the live stage the real kernel keeps them and this file has nothing to
 * do; the simulated stage's processes run on it.
 */
#include "src/host/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Out of memory is an errno here, not the end of the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define VA_BASE UINT64_C(0x7f0000000000)

struct pte {
    uint64_t index; /* page in the file */
    uint64_t pfn;
    struct ref_tag tag;
    UT_hash_handle hh;
};

struct vma {
    uint64_t va, nr_pages;
    struct gmem *gmem;
    uint64_t index;
    struct pte *ptes;
    struct vma *next;
};

struct mm {
    struct host *host;
    char name[32];
    uint32_t pid;
    uint64_t next_va;
    struct task_lock mmap_lock; /* shared for faults, exclusive for changes of the VMAs */
    struct vma *vmas;
    struct mm *next, *prev;
};

struct mm *mm_new(struct host *host, const char *name, uint32_t pid)
{
    struct mm *mm = calloc(1, sizeof(*mm));
    if (!mm)
        return NULL;
    mm->host = host;
    mm->pid = pid;
    mm->next_va = VA_BASE;
    snprintf(mm->name, sizeof(mm->name), "%s", name);
    mm->next = host->mms;
    if (mm->next)
        mm->next->prev = mm;
    host->mms = mm;
    return mm;
}

uint32_t mm_pid(const struct mm *mm)
{
    return mm->pid;
}

static void drop_pte(struct vma *vma, struct pte *pte)
{
    struct host *host = vma->gmem->host;
    frame_of(host, pte->pfn)->mapcount--;
    folio_put(host, pte->pfn, REF_PTE);
    HASH_DEL(vma->ptes, pte);
    free(pte);
}

static void vma_free(struct vma *vma)
{
    struct pte *pte, *next;
    HASH_ITER (hh, vma->ptes, pte, next)
        drop_pte(vma, pte);
    gmem_put(vma->gmem);
    free(vma);
}

void mm_free(struct mm *mm)
{
    struct vma *next;
    /* A process ends when its last thread has. */
    assert(!mm->mmap_lock.readers && !mm->mmap_lock.waiters.head);
    for (struct vma *v = mm->vmas; v; v = next) {
        next = v->next;
        vma_free(v);
    }
    if (mm->prev)
        mm->prev->next = mm->next;
    else
        mm->host->mms = mm->next;
    if (mm->next)
        mm->next->prev = mm->prev;
    free(mm);
}

int mm_map(struct mm *mm, struct gmem *gmem, uint64_t offset, uint64_t length, uint64_t *va, struct caller *caller)
{
    if (!(gmem->flags & GUEST_MEMFD_FLAG_MMAP)) {
        caller_explain(caller, "the guest_memfd was created without MMAP");
        return -ENODEV;
    }
    if (!length || (offset | length) & (HOST_PAGE_SIZE - 1))
        return -EINVAL;
    struct vma *vma = calloc(1, sizeof(*vma));
    if (!vma)
        return -ENOMEM;
    vma->nr_pages = length >> HOST_PAGE_SHIFT;
    vma->gmem = gmem;
    vma->index = offset >> HOST_PAGE_SHIFT;
    gmem_get(gmem);
    task_lock_exclusive(&mm->mmap_lock);
    /* A page between two VMAs catches what runs over. */
    *va = vma->va = mm->next_va;
    mm->next_va += length + HOST_PAGE_SIZE;
    vma->next = mm->vmas;
    mm->vmas = vma;
    task_unlock_exclusive(&mm->mmap_lock);
    return 0;
}

void mm_unmap(struct mm *mm, uint64_t va)
{
    task_lock_exclusive(&mm->mmap_lock);
    for (struct vma **at = &mm->vmas; *at; at = &(*at)->next) {
        if ((*at)->va != va)
            continue;
        struct vma *vma = *at;
        *at = vma->next;
        vma_free(vma);
        break;
    }
    task_unlock_exclusive(&mm->mmap_lock);
}

static struct vma *vma_at(const struct mm *mm, uint64_t va, uint64_t *index)
{
    for (struct vma *v = mm->vmas; v; v = v->next) {
        if (va < v->va || (va - v->va) >> HOST_PAGE_SHIFT >= v->nr_pages)
            continue;
        *index = v->index + ((va - v->va) >> HOST_PAGE_SHIFT);
        return v;
    }
    return NULL;
}

static struct pte *pte_at(const struct vma *vma, uint64_t index)
{
    struct pte *pte;
    HASH_FIND(hh, vma->ptes, &index, sizeof(index), pte);
    return pte;
}

bool mm_pte_present(const struct mm *mm, uint64_t va, uint64_t *pfn)
{
    uint64_t index;
    const struct vma *vma = vma_at(mm, va, &index);
    const struct pte *pte = vma ? pte_at(vma, index) : NULL;
    if (pte)
        *pfn = pte->pfn;
    return pte != NULL;
}

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
    if (index >= gmem->nr_pages || gmem_is_private(gmem, index)) {
        rc = -EFAULT;
    } else {
        rc = gmem_get_folio(gmem, index, pfn);
        if (!rc) {
            rc = ref_take(gmem, index, REF_FAULT, mm->name, mm->pid, ref);
        }
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

static int set_pte(const struct mm *mm, struct vma *vma, uint64_t index, uint64_t pfn)
{
    if (pte_at(vma, index))
        return 0;
    struct pte *pte = calloc(1, sizeof(*pte));
    if (!pte)
        return -ENOMEM;
    pte->index = index;
    pte->pfn = pfn;
    ref_tag(&pte->tag, mm->pid);
    HASH_ADD(hh, vma->ptes, index, sizeof(pte->index), pte);
    if (!pte->hh.tbl) {
        free(pte);
        return -ENOMEM;
    }
    if (!folio_get(vma->gmem->host, pfn, REF_PTE)) {
        HASH_DEL(vma->ptes, pte);
        free(pte);
        return -ENOMEM;
    }
    frame_of(vma->gmem->host, pfn)->mapcount++;
    return 0;
}

static int fault_vma(struct mm *mm, struct vma *vma, uint64_t index, bool write, uint64_t *pfn)
{
    struct ref *ref = NULL;

    for (;;) {
        int rc = fault_lookup(mm, vma->gmem, index, write, pfn, &ref);
        if (rc)
            return rc;
        sched_point("fault:folio");
        if (cache_lookup(vma->gmem, index) == *pfn)
            break;
        /* A hole was punched meanwhile: no PTE may point at a page that has left the file. */
        ref_drop(ref);
    }
    int rc = set_pte(mm, vma, index, *pfn);
    ref_drop(ref);
    return rc;
}

int mm_fault(struct mm *mm, uint64_t va, bool write, uint64_t *pfn)
{
    uint64_t index;

    task_lock_shared(&mm->mmap_lock);
    struct vma *vma = vma_at(mm, va, &index);
    int rc = vma ? fault_vma(mm, vma, index, write, pfn) : -ENOENT;
    task_unlock_shared(&mm->mmap_lock);
    return rc;
}

void unmap_mapping_range(struct gmem *gmem, uint64_t start, uint64_t end)
{
    for (struct mm *mm = gmem->host->mms; mm; mm = mm->next) {
        for (struct vma *v = mm->vmas; v; v = v->next) {
            if (v->gmem != gmem)
                continue;
            struct pte *pte, *next;
            HASH_ITER (hh, v->ptes, pte, next) {
                if (pte->index >= start && pte->index < end)
                    drop_pte(v, pte);
            }
        }
    }
}

/* ---- PTEs as holders ------------------------------------------------------------------------------------------------
 */

/* Calls fn for each PTE of a folio. */
static void each_pte(const struct gmem *gmem, const struct folio *folio,
                     void (*fn)(void *ctx, const struct mm *mm, const struct vma *vma, const struct pte *pte),
                     void *ctx)
{
    for (const struct mm *mm = gmem->host->mms; mm; mm = mm->next)
        for (const struct vma *v = mm->vmas; v; v = v->next)
            for (uint64_t i = 0; v->gmem == gmem && i < folio->nr; i++) {
                const struct pte *pte = pte_at(v, folio->index + i);
                if (pte && pte->pfn == folio->pfn + i)
                    fn(ctx, mm, v, pte);
            }
}

struct holder_list {
    struct holder_info *out;
    unsigned nr, max;
};

static void list_one(void *ctx, const struct mm *mm, const struct vma *vma, const struct pte *pte)
{
    struct holder_list *list = ctx;
    if (list->nr < list->max) {
        struct holder_info *h = &list->out[list->nr];
        holder_fill(h, REF_PTE, &pte->tag, mm->name);
        h->index = pte->index;
        h->va = vma->va + ((pte->index - vma->index) << HOST_PAGE_SHIFT);
    }
    list->nr++;
}

unsigned pte_holders(const struct gmem *gmem, const struct folio *folio, struct holder_info *out, unsigned max)
{
    struct holder_list list = {.out = out, .max = max};
    each_pte(gmem, folio, list_one, &list);
    return list.nr;
}

static void count_one(void *ctx, const struct mm *mm, const struct vma *vma, const struct pte *pte)
{
    struct holder_sum *sum = ctx;
    (void)mm;
    (void)vma;
    (void)pte;
    sum->refs++;
    sum->maps++;
}

void pte_sum(const struct gmem *gmem, const struct folio *folio, struct holder_sum *sum)
{
    each_pte(gmem, folio, count_one, sum);
}
