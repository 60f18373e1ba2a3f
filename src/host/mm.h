/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Host processes whose page tables EL1 keeps: address spaces, GUP, TLBs, pipes.
 *
 * The simulated stage's processes run on this.  On the live stage the real
 * kernel does all of it, and none of it is called.
 *
 * Functions run in a task; the task is on the CPU that sched_cpu() says.
 */
#ifndef SRC_HOST_MM_H
#define SRC_HOST_MM_H

#include "src/host/host.h"

struct mm;
struct pipe;

/* ---- processes -------------------------------------------------------------------------------------------------- */

/* NULL when out of memory.  name is copied. */
struct mm *mm_new(struct host *host, const char *name, uint32_t pid);
/*
 * fork(): a child with the parent's VMAs.  Shared file mappings are not copied
 * PTE by PTE: the child faults for itself (vma_needs_copy()).  -ENOMEM, -ESRCH
 * when the parent is dead.
 */
int mm_fork(struct mm *parent, const char *name, uint32_t pid, struct mm **child);
/*
 * SIGKILL: the process unmaps everything and drops what it has pinned.  0;
 * -EBUSY when it is in D state: it dies when that ends.
 */
int mm_kill(struct mm *mm);
bool mm_dead(const struct mm *mm);
/* Uninterruptible sleep.  Its end carries out a SIGKILL that came meanwhile. */
void mm_set_d_state(struct mm *mm, bool on);
/* Frees it; kills it first if it lives.  No fault may be on its way. */
void mm_free(struct mm *mm);
uint32_t mm_pid(const struct mm *mm);
const char *mm_name(const struct mm *mm);

/* PR_MCE_KILL: SIGBUS as soon as a page that it has mapped fails, else when it touches it. */
void mm_set_mce_early(struct mm *mm, bool early);

#define BUS_ADRERR 2
#define BUS_MCEERR_AR 4
#define BUS_MCEERR_AO 5
/* SIGBUS signals that the process was sent without an access of its own; the last one's code and address. */
unsigned mm_signals(const struct mm *mm, int *code, uint64_t *va);

/* ---- mappings --------------------------------------------------------------------------------------------------- */

/* mmap of [offset, offset + length) bytes; *va is the address.  -ENODEV, -EINVAL as kvm_gmem_mmap(); -ESRCH. */
int mm_map(struct mm *mm, struct gmem *gmem, uint64_t offset, uint64_t length, uint64_t *va, struct caller *caller);
/* munmap of the VMA that begins at va, if there is one. */
void mm_unmap(struct mm *mm, uint64_t va);
/* munmap: cuts VMAs where it must.  -EINVAL: not aligned, or empty; -ENOMEM. */
int mm_munmap(struct mm *mm, uint64_t va, uint64_t length);
/* mremap(MREMAP_MAYMOVE) that moves: PTEs go along, the old range is unmapped.  -EFAULT: not one VMA. */
int mm_remap(struct mm *mm, uint64_t va, uint64_t length, uint64_t *to);
/* MADV_REMOVE: fallocate(PUNCH_HOLE) of what the range maps, shared or private.  -ENOMEM: a part is not mapped. */
int mm_madvise_remove(struct mm *mm, uint64_t va, uint64_t length, struct caller *caller);
/* The page of a file that va maps: false when no VMA is there. */
bool mm_find(const struct mm *mm, uint64_t va, struct gmem **gmem, uint64_t *index);
/* Is the page in any VMA of any process, touched or not? */
bool gmem_in_any_vma(const struct gmem *gmem, uint64_t index);

/* ---- accesses --------------------------------------------------------------------------------------------------- */

/* Makes sure of a PTE for va: 0 with the frame, -EFAULT (SIGBUS), -EHWPOISON (the same), -ENOENT (no VMA: SIGSEGV). */
int mm_fault(struct mm *mm, uint64_t va, bool write, uint64_t *pfn);
bool mm_pte_present(const struct mm *mm, uint64_t va, uint64_t *pfn);
/*
 * The CPU's translation of va: from its TLB, which may be stale, else from the page table, which fills the TLB.  A
 * write leaves the page dirty.  False: page fault.
 */
bool mm_translate(struct mm *mm, uint64_t va, bool write, uint64_t *pfn);

/* ---- GUP by address ------------------------------------------------------------------------------------------------
 */

/*
 * get_user_pages_fast() or pin_user_pages_fast() of nr pages from va on: the fast walk without a lock, page after
 * page, and the slow path where that gives up.  0 and the reference; -EFAULT; -ENOMEM.
 */
int mm_gup(struct mm *mm, uint64_t va, uint64_t nr, enum ref_kind kind, const char *label, struct ref **out,
           struct caller *caller);

/* ---- TLBs ---------------------------------------------------------------------------------------------------------
 */

/* CPUs of the model that processes run on. */
#define HOST_CPUS 8u

enum tlb_mode {
    TLB_BROADCAST, /* arm64: TLBI reaches every CPU and waits for none */
    TLB_IPI, /* x86: an interrupt to every CPU; one that walks page tables with IRQs off keeps the unmap waiting */
};
void host_set_tlb_mode(struct host *host, enum tlb_mode mode);
/* Does a CPU still translate to this frame, whatever the page tables say? */
bool host_tlb_has(const struct host *host, unsigned cpu, uint64_t pfn);
/* The n-th place of all the TLBs, pfn 0 if it is empty: false past the last. */
bool host_tlb_entry(const struct host *host, unsigned n, unsigned *cpu, uint64_t *pfn);

/* ---- per-CPU LRU batches
 * --------------------------------------------------------------------------------------------- */

/* From now on a new order-0 folio waits in the batch of the CPU that allocated it, which holds a reference. */
void host_set_lru_batches(struct host *host, bool on);
struct lru_counts {
    uint64_t local, all; /* calls of lru_add_drain() and of lru_add_drain_all() */
};
void host_lru_counts(const struct host *host, struct lru_counts *out);
void host_lru_drain_all(struct host *host);

/* ---- pipes
 * ------------------------------------------------------------------------------------------------------------ */

/* A pipe that pages were spliced into: it outlives the mapping and the process that filled it. */
struct pipe *pipe_new(struct host *host, const char *label);
/* What is still in it is dropped. */
void pipe_free(struct pipe *pipe);
/* vmsplice() of whole pages: FOLL_GET, and the pipe keeps the references.  Errors as mm_gup(). */
int pipe_vmsplice(struct pipe *pipe, struct mm *mm, uint64_t va, uint64_t nr, struct caller *caller);
/* The oldest buffer's frame: false when the pipe is empty.  Whoever reads it then calls pipe_pop(). */
bool pipe_peek(const struct pipe *pipe, uint64_t *pfn);
void pipe_pop(struct pipe *pipe);
unsigned pipe_buffers(const struct pipe *pipe);

#endif
