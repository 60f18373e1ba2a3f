/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files that keep processes' page tables share with each other. */
#ifndef SRC_HOST_MM_INTERNAL_H
#define SRC_HOST_MM_INTERNAL_H

#include "src/host/internal.h"
#include "src/host/mm.h"

/* Out of memory is an errno here, not the end of the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct pte {
    uint64_t vpn; /* key */
    struct gmem *gmem;
    uint64_t index, pfn;
    bool dirty;
    struct ref_tag tag;
    UT_hash_handle hh;
    struct pte *next; /* in host->gather: cleared, TLBs not flushed yet */
};

struct vma {
    uint64_t va, nr_pages;
    struct gmem *gmem; /* each VMA holds a reference to its file */
    uint64_t index;
    struct vma *next;
};

struct mm {
    struct host *host;
    char name[32];
    uint32_t pid;
    uint64_t next_va;
    struct task_lock mmap_lock; /* shared for faults, exclusive for changes of the VMAs */
    struct vma *vmas;
    struct pte *ptes;
    bool dead, d_state, kill_pending;
    bool mce_early;
    unsigned signals;
    int signal_code;
    uint64_t signal_va;
    struct mm *next, *prev;
};

/* ---- mm.c ---- */
struct vma *vma_at(const struct mm *mm, uint64_t va);

/* ---- pte.c ---- */
struct pte *pte_at(const struct mm *mm, uint64_t va);
/* Moves a PTE to another address; one that finds no room there is dropped, and faulted in again. */
void pte_move(struct mm *mm, struct pte *pte, uint64_t va);
/* zap_page_range(): clears the PTEs of [va, va + length), flushes, drops their references. */
void zap_range(struct mm *mm, uint64_t va, uint64_t length);
/* Calls fn for each PTE of a folio. */
void each_pte(const struct gmem *gmem, const struct folio *folio,
              void (*fn)(void *ctx, struct mm *mm, const struct pte *pte), void *ctx);

/* ---- tlb.c ---- */
/* Drops what the CPUs have of a file's range, or of an address range; waits as the mode wants it. */
void tlb_flush_file(struct gmem *gmem, uint64_t start, uint64_t end);
void tlb_flush_mm(struct mm *mm, uint64_t va, uint64_t length);
/* A walk of page tables with IRQs off, between which an IPI is not taken. */
void irqs_off(struct host *host);
void irqs_on(struct host *host, unsigned cpu);

#endif
