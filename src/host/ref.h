/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * References to folios, each with its holder: the table of background.md 0.3.
 *
 * A reference counts as the kernel's does.  What the kernel does not keep is
 * who took it: here each one carries that, so a refusal can name the holder
 * and the audit can add the holders up (I6: refcount = pages of the folio in
 * the page cache + all holders).
 *
 * Two rows of the table are no records.  The page cache counts one for each of
 * its pages and is the baseline.  KVM's stage 2, the direct map and TLBs count
 * nothing: no reference count sees them.
 */
#ifndef SRC_HOST_REF_H
#define SRC_HOST_REF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host;
struct gmem;
struct ref;
struct caller;

/* GUP_PIN_COUNTING_BIAS: what a FOLL_PIN adds to the refcount of an order-0 folio.  On a large one it adds 1, and 1 to
 * the pincount. */
#define FOLL_PIN_BIAS 1024u

/*
 * X(id, name, pin, transient, touches, blocks, doc)
 *
 * name: as the kernel says it.  pin: counts as a FOLL_PIN, else +1.  transient: goes away by itself.  touches: its
 * holder reads or writes the page's bytes.  blocks: a conversion to private must not overlook it.
 */
#define REF_KINDS(X)                                                                                                   \
    X(FOLL_GET, "FOLL_GET", false, false, true, true, "get_user_pages(): vmsplice, some O_DIRECT")                     \
    X(FOLL_PIN, "FOLL_PIN", true, false, true, true, "pin_user_pages(): O_DIRECT, for the time of the I/O")            \
    X(LONGTERM, "FOLL_PIN|FOLL_LONGTERM", true, false, true, true, "VFIO, RDMA, io_uring fixed buffers")               \
    X(PTE, "PTE", false, false, true, false, "a process has the page mapped; counts in mapcount too")                  \
    X(GATHER, "mmu_gather", false, true, true, true, "its PTE is cleared, the TLBs are not flushed yet")               \
    X(FAULT, "fault in flight", false, true, true, true, "a fault has the folio and no PTE yet")                       \
    X(GUP_FAST, "GUP-fast", false, true, false, true, "FOLL_GET's speculation: put again if the PTE changed")          \
    X(GUP_FAST_PIN, "GUP-fast pin", true, true, false, true, "the same for FOLL_PIN")                                  \
    X(LRU_BATCH, "lru_add batch", false, true, false, true, "a CPU's batch has not reached the LRU yet")               \
    X(PIPE, "pipe buffer", false, false, true, true, "until the pipe is read")                                         \
    X(LOOKUP, "filemap_get_folios", false, true, false, false, "the walk of a conversion's own check: baseline")       \
    X(SPECULATIVE, "speculative lookup", false, true, false, true, "filemap_get_entry() by somebody else")             \
    X(ISOLATED, "isolated for migration", false, true, false, true, "migration, compaction, offlining")                \
    X(WALKER, "PFN walker", false, true, false, true, "page_idle, page table walkers")                                 \
    X(MEMORY_FAILURE, "memory failure", false, false, false, true, "MF_DELAYED: until the page is unpoisoned")         \
    X(LIBRARY, "library grab", false, false, false, false, "guest_memfd library: a reference that it knows of: safe")  \
    X(LEND, "provide_folio", false, false, false, true, "Gunyah: lent to a guest, which is what private means there")

enum ref_kind {
#define X(id, name, pin, transient, touches, blocks, doc) REF_##id,
    REF_KINDS(X)
#undef X
        REF_KINDS_COUNT
};
/* What a client of the daemon may take are the first three. */
#define REF_USER_KINDS 3u

struct ref_kind_info {
    const char *name;
    bool pin, transient, touches, blocks;
    const char *doc;
};
extern const struct ref_kind_info ref_kinds[REF_KINDS_COUNT];

/* One holder of one page. */
struct holder_info {
    char what[48]; /* its label; of a PTE the process */
    char kind[32];
    enum ref_kind ref;
    uint64_t index, pages; /* of the folio that it holds */
    uint32_t count;        /* what it adds to the refcount */
    uint32_t pid;
    uint64_t since_ns; /* stage time */
    uint64_t task;     /* that took it */
    const char *point; /* the last schedule point that the task had passed; NULL: none */
    uint64_t va;       /* of a PTE */
};

/*
 * (task) get_user_pages() or pin_user_pages() on [offset, offset + size) bytes of a file.  kind: one of
 * REF_USER_KINDS.  label: what the caller calls it, copied.  0 and the reference, which gmem_unpin() drops; -EINVAL;
 * -EFAULT when a page is private, past the end, or refused by stage 2; -ENOMEM.
 */
int gmem_pin(struct gmem *gmem, uint64_t offset, uint64_t size, enum ref_kind kind, const char *label, struct ref **out,
             struct caller *caller);
void gmem_unpin(struct ref *ref);

/*
 * (task) A reference of any kind to the page that the page cache has at index, as the kernel's own paths take one:
 * without a lock, whatever the page's state.  -ENOENT: a hole; -ENOMEM.  ref_drop() ends it.
 */
int ref_take(struct gmem *gmem, uint64_t index, enum ref_kind kind, const char *label, uint32_t pid, struct ref **out);
void ref_drop(struct ref *ref);

uint64_t ref_id(const struct ref *ref);
enum ref_kind ref_kind_of(const struct ref *ref);
/* The frame of the n-th page that it holds, n < ref_pages(). */
uint64_t ref_pfn(const struct ref *ref, uint64_t n);
uint64_t ref_pages(const struct ref *ref);
/* By number; NULL when it is gone. */
struct ref *ref_find(const struct host *host, uint64_t id);
/* Drops all that a process holds (it ended).  Returns how many. */
unsigned ref_drop_process(struct host *host, uint32_t pid);

#endif
