/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of EL1 share with each other. */
#ifndef SRC_HOST_INTERNAL_H
#define SRC_HOST_INTERNAL_H

#include "fakehyp/hypercall.h"
#include "src/host/mm.h"
#include "src/host/rangemap.h"
#include "src/machine/sched.h"

/* Long work lets others run after so many pages: about a millisecond. */
#define RELAX_EVERY 4096u

#define ATTR_SHARED 0u
#define ATTR_PRIVATE 1u
#define ATTR_NONE 2u /* policy C: neither host nor guest may fault it, until the last foreign reference is dropped */

/*
 * One frame of RAM, 16 bytes.
 *
 * The counts of a folio are the kernel's.  Order 0: 1 for the page cache, 1 a
 * FOLL_GET, 1024 a FOLL_PIN, 1 a PTE.  Large: in its first frame, one for each
 * page in the page cache and 1 a reference of any kind; FOLL_PINs are counted
 * in the second frame, as the kernel does.  Each page has its own mapcount.
 * Invariant: the first frame's refcount is 0 iff the folio is free.
 */
struct frame {
    union {
        uint32_t refcount;
        uint32_t pincount; /* in the second frame of a large folio */
    };
    uint16_t mapcount;
    uint16_t flags;
    uint32_t owner; /* gmem id while in its page cache, 0 otherwise */
    uint32_t index; /* page in that file; next free frame while free */
};
#define FRAME_GUEST 0x1  /* EL2 has it in a guest's stage 2: donated, or shared with an unprotected VM */
#define FRAME_DIRTY 0x4  /* a process wrote it through a PTE that is gone */
#define FRAME_POISON 0x8 /* hwpoison */
#define FRAME_ORPHAN 0x2 /* it left its file while somebody held it: the stage keeps its bytes */
/* Policies and trackers. */
#define FRAME_FLIPPED 0x10    /* tracker "folio": not in the state that the file began with */
#define FRAME_NONE 0x20       /* tracker "folio": NONE_SHARED */
#define FRAME_WATCHED 0x40    /* a folio's first: somebody waits for references to be dropped */
#define FRAME_TYPED 0x80      /* a folio's first: policy C's page type; the page cache's references are off the count */
#define FRAME_EXCLUSIVE 0x100 /* a folio's first: policy E's pin */
#define FRAME_UNMAPPED 0x200  /* the kernel's direct map has no entry for it */
#define FRAME_POLICY (FRAME_UNMAPPED | FRAME_FLIPPED | FRAME_NONE | FRAME_WATCHED | FRAME_TYPED | FRAME_EXCLUSIVE)
#define FRAME_ORDER_SHIFT 12

/* 2 MiB. */
#define FOLIO_MAX_ORDER 9
#define RAM_MAX_ORDER (FOLIO_MAX_ORDER + 1)

/* The folio that holds a page of a file. */
struct folio {
    uint64_t pfn, index, nr;
};

struct frames {
    struct frame *table;
    uint64_t base, nr;
    uint64_t bump;                     /* never used above this */
    uint32_t free_head[RAM_MAX_ORDER]; /* index + 1 into table, by order */
    uint64_t nr_ram, nr_data;
};

/* Page cache: file index -> pfn, in leaves of 512. */
struct cache_leaf;
RB_HEAD(cache_tree, cache_leaf);

struct gmem_driver;
struct gmem_policy;
struct gmem_tracker;

struct gmem {
    struct host *host;
    uint32_t id;
    uint64_t nr_pages, flags;
    uint64_t vm_id;
    bool private_memory; /* of the VM type: conversion exists */
    const struct gmem_driver *driver;
    const struct gmem_policy *policy;
    const struct gmem_tracker *tracker;
    struct vm_config config; /* of the VM that created the file */
    struct library_page *library;
    unsigned zaps, restores; /* of direct-map entries */
#define GMEM_MAX_LINKED 4u
    uint64_t linked[GMEM_MAX_LINKED]; /* further VMs that may bind it */
    unsigned nr_linked;
    bool dangling; /* a binding outlived its memslot (bug slot-toggle) */
    unsigned refs;
    /* invalidate_lock: exclusive for convert, punch, bind; shared for faults.  Also guards attr. */
    struct task_lock invalidate_lock;
    struct rangemap attr;      /* ATTR_*, every offset at all times, where the tracker keeps it here */
    struct rangemap last_conv; /* sequence number of the last conversion, 0 none */
    struct cache_tree cache;
    uint64_t nr_cached;
    unsigned order; /* of the folios that it allocates */
    struct memslot_link *bindings;
    struct ref *holders; /* references to its pages; a page that was punched out may be among them */
    void *file;
    struct gmem *next, *prev;
};

/* One binding of a file by a memslot. */
struct memslot_link {
    struct vm *vm;
    struct memslot *slot;
    struct memslot_link *next;
};

/* Who took a reference, when, and where in its operation. */
struct ref_tag {
    uint32_t pid;
    unsigned cpu;
    uint64_t task, since_ns;
    const char *point;
};

struct ref {
    struct host *host;
    struct gmem *gmem; /* NULL once the inode is gone: references do not hold it */
    uint64_t id;
    uint64_t index, nr; /* pages of the file when it was taken; nr grows and shrinks at the end */
    enum ref_kind kind;
    struct ref_tag tag;
    char label[48];
    uint32_t *pfns; /* of each page, relative to frames.base */
    struct ref *next, *prev;
    struct ref **list; /* it is in: gmem->holders or host->orphans */
};

#define CONV_HISTORY 4096
struct conversion {
    uint64_t seq, t_ns;
    uint32_t pid;
    bool to_private;
    char program[32];
};

/* A page of a guest that belongs to no file any more. */
struct stray_page {
    uint64_t gfn, pfn;
    struct stray_page *next;
};

struct vm {
    struct host *host;
    uint64_t id;
    struct vm_config config;
    const struct gmem_driver *driver;
    uint32_t handle;
    bool el2_protected; /* EL2 keeps the host out of its memory */
    bool el2_ready;     /* init_vm done */
    bool el2_dying;     /* start_teardown_vm done */
    bool dying;
    struct memslot *slots;
    struct rangemap attr;   /* tracker "vm": ATTR_* by gfn */
    struct rangemap marked; /* driver->guest_marks_shared: 1 where the guest accesses memory as shared, by gfn */
    struct vcpu **vcpus;
    unsigned nr_vcpus, nr_vcpus_alloc;
    struct task_lock mmu_lock; /* what EL2 knows of the VM, and its stage 2, change one call at a time */
    unsigned nr_inside;        /* calls on the VM that may wait: KVM_RUN, memslot changes */
    struct waitq idle;         /* woken when nr_inside falls to 0 */
    uint64_t host_vm_pfn, pgd_pfn;
    uint64_t nr_poisoned;
    struct stray_page *strays; /* see guests_keep() */
    void *guest;
    struct vm *next, *prev;
};

struct vcpu {
    struct vm *vm;
    unsigned index;
    uint64_t host_vcpu_pfn;
    bool el2_ready;
    bool running;
    bool off; /* the guest switched itself off, or died: `last` is what run returns */
    struct run_record last;
    uint64_t pending_call; /* function id of an HVC exit that the next run completes, 0 none */
    uint64_t pending_ipa;
    void *machine;
};

/* FOLIO_BATCH_SIZE. */
#define LRU_BATCH 31u
#define TLB_ENTRIES 64u

struct tlb_entry {
    const struct mm *mm; /* NULL: empty */
    uint64_t vpn, pfn;
    const struct gmem *gmem;
    uint64_t index;
    bool dirty; /* writes need not walk */
};

struct host_cpu {
    struct ref *lru[LRU_BATCH];
    unsigned nr_lru;
    unsigned walkers; /* GUP-fast walks, with IRQs off */
    struct waitq irqs_on;
    struct tlb_entry tlb[TLB_ENTRIES];
};

struct host {
    struct host_arch arch;
    struct frames frames;
    struct vm *vms;
    struct gmem *gmems;
    struct ref *orphans; /* whose inode is gone */
    size_t nr_vms, nr_gmems, nr_pins, nr_refs;
    uint64_t next_vm, next_ref, conv_seq;
    uint32_t next_gmem;
    struct conversion *history; /* ring of CONV_HISTORY */
    struct mm *mms;
    struct pte *gather; /* cleared PTEs whose TLB flush is not done */
    struct device *devices;
    struct host_cpu cpus[HOST_CPUS];
    enum tlb_mode tlb_mode;
    bool lru_batches;
    struct lru_counts lru;
    struct waitq put;       /* woken when a reference to a FRAME_WATCHED page is dropped */
    bool work_queued;       /* policy C's work */
    unsigned in_irq;        /* code that must not sleep */
    unsigned lock_order[2]; /* bit m of [n]: m was taken under n */
#define HOST_MAX_SPLATS 16u
    char splats[HOST_MAX_SPLATS][160];
    uint64_t nr_splats, splats_told;
#define HOST_MAX_REFUSALS 32u
    struct {
        enum hyp_op op;
        uint64_t pfn;
    } refusals[HOST_MAX_REFUSALS];
    unsigned nr_refusals;
    char dead[192];     /* why the host does nothing any more; empty: it does */
    uint64_t hyp_asked; /* faults that asked EL2 whether the host may have the page */
};

/* ---- frame.c ---- */
int frames_init(struct frames *frames, uint64_t base, uint64_t nr);
void frames_destroy(struct frames *frames);
/* A host-kernel frame (tables, structures), order n: contiguous and aligned.  0 or -ENOMEM. */
int ram_alloc(struct host *host, unsigned order, uint64_t *pfn);
void ram_free(struct host *host, unsigned order, uint64_t pfn);
/* The frames of a folio of the file's order that holds index: *pfn is its first. */
int data_alloc(struct host *host, struct gmem *gmem, uint64_t index, uint64_t *pfn);
struct frame *frame_of(const struct host *host, uint64_t pfn);
/* Drops plain references of a folio, of which pfn is a page; frees it at 0. */
void frame_put(struct host *host, uint64_t pfn, uint32_t refs);
/* A reference as the kind counts; false when the count would overflow. */
bool folio_get(struct host *host, uint64_t pfn, enum ref_kind kind);
void folio_put(struct host *host, uint64_t pfn, enum ref_kind kind);
uint64_t folio_nr_pages(const struct host *host, uint64_t pfn);
uint64_t folio_head(const struct host *host, uint64_t pfn);
uint32_t folio_refcount(const struct host *host, uint64_t pfn);
uint32_t folio_pincount(const struct host *host, uint64_t pfn); /* of a large folio; 0 of another */
uint32_t folio_mapcount(const struct host *host, uint64_t pfn); /* of all its pages */
/* Exact for a large folio; of an order-0 one, a count of 1024 and more. */
bool folio_maybe_dma_pinned(const struct host *host, uint64_t pfn);

/* ---- filemap.c ---- */
void cache_init(struct gmem *gmem);
/* pfn, or 0 when the page is a hole. */
uint64_t cache_lookup(const struct gmem *gmem, uint64_t index);
/* -ENOMEM; the page must be a hole. */
int cache_insert(struct gmem *gmem, uint64_t index, uint64_t pfn);
void cache_remove(struct gmem *gmem, uint64_t index);
/* The folio that has the page; false when it is a hole. */
bool folio_at(const struct gmem *gmem, uint64_t index, struct folio *out);
/* A folio leaves its file: the page cache's references end, and who holds it else keeps its bytes. */
void folio_leave(struct gmem *gmem, const struct folio *folio);
void cache_destroy(struct gmem *gmem);
/* The page's folio, allocated when it is a hole: kvm_gmem_get_folio(). */
int gmem_get_folio(struct gmem *gmem, uint64_t index, uint64_t *pfn);
/* Learns of pages that processes populated by touching them. */
int gmem_adopt(struct gmem *gmem, uint64_t start, uint64_t end);

/* ---- gmem.c ---- */
struct gmem *gmem_by_id(const struct host *host, uint32_t id);
/* The binding that covers index: gfn of the page in *gfn; NULL when unbound. */
struct vm *gmem_binding(const struct gmem *gmem, uint64_t index, uint64_t *gfn);

/* ---- ref.c ---- */
void ref_tag(struct ref_tag *tag, uint32_t pid);
/* Neither linked nor holding a page yet.  pfns has room for all that it will hold. */
void ref_init(struct ref *ref, struct gmem *gmem, uint64_t index, enum ref_kind kind, const char *label, uint32_t pid,
              uint32_t *pfns);
/* The same on the heap; NULL when out of memory. */
struct ref *ref_new(struct gmem *gmem, uint64_t index, uint64_t nr, enum ref_kind kind, const char *label,
                    uint32_t pid);
void ref_link(struct ref *ref);
void ref_unlink(struct ref *ref);
/* To another kind that counts the same. */
void ref_set_kind(struct ref *ref, enum ref_kind kind);
/* The next page: -ENOMEM when its count would overflow. */
int ref_add_page(struct ref *ref, uint64_t pfn);
void ref_put_pages(struct ref *ref);
/* The inode goes, its references stay. */
void refs_orphan(struct gmem *gmem);
struct lru_drained;
/*
 * kvm_gmem's safety check of the folio at index, for a conversion that has unmapped it: its early exits, then the
 * count, after the LRU batches are drained if it is wrong.
 */
bool folio_in_use(struct gmem *gmem, uint64_t index, uint64_t pfn, struct lru_drained *drained);
void holder_fill(struct holder_info *out, enum ref_kind kind, const struct ref_tag *tag, const char *what);

/* ---- gup.c ---- */
void gup_trace(const struct ref *ref);

/* ---- lru.c ---- */
/* A folio that has just come into the page cache: 0 or -ENOMEM. */
int lru_add(struct gmem *gmem, uint64_t index);
struct lru_drained {
    bool local, all;
};
/* Drains LRU batches if the count is not the expected one; `drained`, zero at first, is of one walk. */
void lru_cache_drain_for_folio(struct host *host, uint64_t pfn, uint32_t expected, struct lru_drained *drained);

/* ---- pte.c ---- */
/* unmap_mapping_pages(): drops every PTE of the range in every mm. */
void unmap_mapping_range(struct gmem *gmem, uint64_t start, uint64_t end);
/* PTEs as holders of a folio: as gmem_holders() and gmem_holders_sum(). */
unsigned pte_holders(const struct gmem *gmem, const struct folio *folio, struct holder_info *out, unsigned max);
void pte_sum(const struct gmem *gmem, const struct folio *folio, struct holder_sum *sum);

/* Releasing a file walks its bindings: the detector of those that point nowhere. */
void gmem_look_at_bindings(struct gmem *gmem);
/* A guest has a page of it. */
bool folio_of_guest(const struct host *host, const struct folio *folio);

/* ---- vm.c ---- */
/* Under the file's lock: takes a memslot from its VM and from the file. */
void slot_unbind(struct vm *vm, struct memslot *slot);

/* ---- populate.c ---- */
bool gmem_is_linked(const struct gmem *gmem, uint64_t vm);

/* ---- convert.c ---- */
/* A conversion of [start, end) with content mode `flags`, the lock and all. */
int gmem_convert(struct gmem *gmem, uint64_t start, uint64_t end, bool to_private, uint64_t flags,
                 struct caller *caller, struct gmem_busy *busy);

/* ---- policy_transient.c ---- */
/* Gives the page cache its references back. */
void folio_untype(struct host *host, uint64_t pfn);

/* ---- splat.c ---- */
/* A lock that sleeps is about to be taken. */
void host_might_sleep(struct host *host, const char *what);
enum host_lock { HOST_LOCK_MMAP, HOST_LOCK_INVALIDATE, HOST_LOCK_COUNT };
void host_lock_order(struct host *host, enum host_lock held, enum host_lock taken);

/* ---- driver.c ---- */
bool vm_private_memory(const struct vm *vm);
/* -EIO and why, once the host has died. */
int host_alive(const struct host *host, struct caller *caller);

/* ---- host.c ---- */
void host_trace(struct host *host, const struct host_event *event);
int64_t host_hvc(struct host *host, unsigned cpu, uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3);

#endif
