/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Host processes and their VMAs over guest_memfds.
 *
 * On the live stage the real kernel keeps them and this file has nothing to
 * do; the simulated stage's processes run on it.
 */
#include "src/host/mm_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/host/iommu_internal.h"

#define VA_BASE UINT64_C(0x7f0000000000)

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

const char *mm_name(const struct mm *mm)
{
    return mm->name;
}

bool mm_dead(const struct mm *mm)
{
    return mm->dead;
}

void mm_set_mce_early(struct mm *mm, bool early)
{
    mm->mce_early = early;
}

unsigned mm_signals(const struct mm *mm, int *code, uint64_t *va)
{
    *code = mm->signal_code;
    *va = mm->signal_va;
    return mm->signals;
}

/* ---- VMAs ---------------------------------------------------------------------------------------------------------
 */

static struct vma *vma_new(struct gmem *gmem, uint64_t va, uint64_t nr_pages, uint64_t index)
{
    struct vma *vma = calloc(1, sizeof(*vma));
    if (!vma)
        return NULL;
    *vma = (struct vma){.va = va, .nr_pages = nr_pages, .gmem = gmem, .index = index};
    gmem_get(gmem);
    return vma;
}

static void vma_link(struct mm *mm, struct vma *vma)
{
    vma->next = mm->vmas;
    mm->vmas = vma;
}

static void vma_free(struct vma *vma)
{
    gmem_put(vma->gmem);
    free(vma);
}

static uint64_t vma_end(const struct vma *vma)
{
    return vma->va + (vma->nr_pages << HOST_PAGE_SHIFT);
}

struct vma *vma_at(const struct mm *mm, uint64_t va)
{
    struct vma *v = mm->vmas;
    while (v && (va < v->va || va >= vma_end(v)))
        v = v->next;
    return v;
}

bool mm_find(const struct mm *mm, uint64_t va, struct gmem **gmem, uint64_t *index)
{
    const struct vma *vma = vma_at(mm, va);
    if (!vma)
        return false;
    *gmem = vma->gmem;
    *index = vma->index + ((va - vma->va) >> HOST_PAGE_SHIFT);
    return true;
}

bool gmem_in_any_vma(const struct gmem *gmem, uint64_t index)
{
    for (const struct mm *mm = gmem->host->mms; mm; mm = mm->next)
        for (const struct vma *v = mm->vmas; v; v = v->next)
            if (v->gmem == gmem && index >= v->index && index - v->index < v->nr_pages)
                return true;
    return false;
}

int mm_map(struct mm *mm, struct gmem *gmem, uint64_t offset, uint64_t length, uint64_t *va, struct caller *caller)
{
    if (!(gmem->flags & GUEST_MEMFD_FLAG_MMAP)) {
        caller_explain(caller, "the guest_memfd was created without MMAP");
        return -ENODEV;
    }
    if (!length || (offset | length) & (HOST_PAGE_SIZE - 1))
        return -EINVAL;
    if (mm->dead)
        return -ESRCH;
    struct vma *vma = vma_new(gmem, 0, length >> HOST_PAGE_SHIFT, offset >> HOST_PAGE_SHIFT);
    if (!vma)
        return -ENOMEM;
    task_lock_exclusive(&mm->mmap_lock);
    /* A page between two VMAs catches what runs over. */
    *va = vma->va = mm->next_va;
    mm->next_va += length + HOST_PAGE_SIZE;
    vma_link(mm, vma);
    task_unlock_exclusive(&mm->mmap_lock);
    return 0;
}

/* Cuts a VMA in two at va, if one goes over it. */
static int split(struct mm *mm, uint64_t va)
{
    struct vma *vma = vma_at(mm, va);
    if (!vma || vma->va == va)
        return 0;
    uint64_t nr = (va - vma->va) >> HOST_PAGE_SHIFT;
    struct vma *rest = vma_new(vma->gmem, va, vma->nr_pages - nr, vma->index + nr);
    if (!rest)
        return -ENOMEM;
    vma->nr_pages = nr;
    vma_link(mm, rest);
    return 0;
}

static int unmap_locked(struct mm *mm, uint64_t va, uint64_t length)
{
    int rc = split(mm, va);
    if (!rc)
        rc = split(mm, va + length);
    if (rc)
        return rc;
    zap_range(mm, va, length);
    for (struct vma **at = &mm->vmas; *at;) {
        struct vma *vma = *at;
        if (vma->va < va || vma_end(vma) > va + length) {
            at = &vma->next;
            continue;
        }
        *at = vma->next;
        vma_free(vma);
    }
    return 0;
}

void mm_unmap(struct mm *mm, uint64_t va)
{
    task_lock_exclusive(&mm->mmap_lock);
    const struct vma *vma = vma_at(mm, va);
    /* Of a whole VMA nothing is cut, so nothing is allocated. */
    if (vma && vma->va == va)
        unmap_locked(mm, va, vma->nr_pages << HOST_PAGE_SHIFT);
    task_unlock_exclusive(&mm->mmap_lock);
}

int mm_munmap(struct mm *mm, uint64_t va, uint64_t length)
{
    if (!length || (va | length) & (HOST_PAGE_SIZE - 1))
        return -EINVAL;
    task_lock_exclusive(&mm->mmap_lock);
    int rc = unmap_locked(mm, va, length);
    task_unlock_exclusive(&mm->mmap_lock);
    return rc;
}

int mm_remap(struct mm *mm, uint64_t va, uint64_t length, uint64_t *to)
{
    if (!length || (va | length) & (HOST_PAGE_SIZE - 1))
        return -EINVAL;
    task_lock_exclusive(&mm->mmap_lock);
    struct vma *vma = vma_at(mm, va);
    int rc = vma && va + length <= vma_end(vma) ? 0 : -EFAULT;
    struct vma *moved = NULL;
    if (!rc) {
        moved = vma_new(vma->gmem, mm->next_va, length >> HOST_PAGE_SHIFT,
                        vma->index + ((va - vma->va) >> HOST_PAGE_SHIFT));
        rc = moved ? 0 : -ENOMEM;
    }
    if (!rc) {
        *to = moved->va;
        mm->next_va += length + HOST_PAGE_SIZE;
        vma_link(mm, moved);
        for (uint64_t at = 0; at < length; at += HOST_PAGE_SIZE) {
            struct pte *pte = pte_at(mm, va + at);
            if (pte)
                pte_move(mm, pte, moved->va + at);
        }
        tlb_flush_mm(mm, va, length);
        rc = unmap_locked(mm, va, length);
    }
    task_unlock_exclusive(&mm->mmap_lock);
    return rc;
}

/* madvise() goes VMA by VMA, without the lock while a file works on it. */
int mm_madvise_remove(struct mm *mm, uint64_t va, uint64_t length, struct caller *caller)
{
    if ((va | length) & (HOST_PAGE_SIZE - 1))
        return -EINVAL;
    for (uint64_t at = va, past; at < va + length; at = past) {
        task_lock_shared(&mm->mmap_lock);
        const struct vma *vma = vma_at(mm, at);
        struct gmem *gmem = vma ? vma->gmem : NULL;
        uint64_t index = vma ? vma->index + ((at - vma->va) >> HOST_PAGE_SHIFT) : 0;
        past = vma && vma_end(vma) < va + length ? vma_end(vma) : va + length;
        if (gmem)
            gmem_get(gmem);
        task_unlock_shared(&mm->mmap_lock);
        if (!gmem)
            return -ENOMEM;
        int rc = gmem_fallocate(gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (int64_t)(index << HOST_PAGE_SHIFT),
                                (int64_t)(past - at), caller);
        gmem_put(gmem);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- life -----------------------------------------------------------------------------------------------------------
 */

int mm_fork(struct mm *parent, const char *name, uint32_t pid, struct mm **out)
{
    if (parent->dead)
        return -ESRCH;
    struct mm *child = mm_new(parent->host, name, pid);
    if (!child)
        return -ENOMEM;
    task_lock_exclusive(&parent->mmap_lock);
    int rc = 0;
    for (const struct vma *v = parent->vmas; v && !rc; v = v->next) {
        struct vma *copy = vma_new(v->gmem, v->va, v->nr_pages, v->index);
        if (copy)
            vma_link(child, copy);
        else
            rc = -ENOMEM;
    }
    child->next_va = parent->next_va;
    task_unlock_exclusive(&parent->mmap_lock);
    if (rc)
        mm_free(child);
    else
        *out = child;
    return rc;
}

int mm_kill(struct mm *mm)
{
    if (mm->dead)
        return 0;
    if (mm->d_state) {
        mm->kill_pending = true;
        return -EBUSY;
    }
    mm->dead = true;
    /* exit_mm() comes before exit_files(): a pin of a device or a ring outlives the mapping that it was taken by. */
    task_lock_exclusive(&mm->mmap_lock);
    zap_range(mm, 0, UINT64_MAX);
    for (struct vma *v = mm->vmas, *next; v; v = next) {
        next = v->next;
        vma_free(v);
    }
    mm->vmas = NULL;
    task_unlock_exclusive(&mm->mmap_lock);
    iommu_drop_process(mm->host, mm->pid);
    ref_drop_process(mm->host, mm->pid);
    return 0;
}

void mm_set_d_state(struct mm *mm, bool on)
{
    mm->d_state = on;
    if (!on && mm->kill_pending)
        mm_kill(mm);
}

void mm_free(struct mm *mm)
{
    /* A process ends when its last thread has. */
    assert(!mm->mmap_lock.readers && !mm->mmap_lock.writer && !mm->mmap_lock.waiters.head);
    mm->d_state = false;
    mm_kill(mm);
    if (mm->prev)
        mm->prev->next = mm->next;
    else
        mm->host->mms = mm->next;
    if (mm->next)
        mm->next->prev = mm->prev;
    free(mm);
}
