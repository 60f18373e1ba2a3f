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

struct gmem {
    struct host *host;
    uint32_t id;
    uint64_t nr_pages, flags;
    uint64_t vm_id;
    bool private_memory; /* of the VM type: conversion exists */
    const struct gmem_driver *driver;
    unsigned refs;
    /* invalidate_lock: exclusive for convert, punch, bind; shared for faults.  Also guards attr. */
    struct task_lock invalidate_lock;
    struct rangemap attr;      /* ATTR_SHARED / ATTR_PRIVATE, every offset at all times */
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

struct vm {
    struct host *host;
    uint64_t id;
    struct vm_config config;
    const struct gmem_driver *driver;
    uint32_t handle;
    bool el2_ready; /* init_vm done */
    bool el2_dying; /* start_teardown_vm done */
    bool dying;
    struct memslot *slots;
    struct vcpu **vcpus;
    unsigned nr_vcpus, nr_vcpus_alloc;
    struct task_lock mmu_lock; /* what EL2 knows of the VM, and its stage 2, change one call at a time */
    unsigned nr_inside;        /* calls on the VM that may wait: KVM_RUN, memslot changes */
    struct waitq idle;         /* woken when nr_inside falls to 0 */
    uint64_t host_vm_pfn, pgd_pfn;
    uint64_t nr_poisoned;
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
};

/*
 * A hypervisor driver of the guest_memfd library: what differs between
 * hypervisors.  pfn is a page of the file that `slot` binds.
 */
struct gmem_driver {
    const char *name;
    int (*vm_create)(struct vm *vm, struct caller *caller);
    void (*vm_destroy_reserved)(struct vm *vm); /* a VM that never ran */
    int (*vm_first_run)(struct vm *vm, struct caller *caller);
    int (*teardown_begin)(struct vm *vm);
    /* Back to the host, scrubbed as the hypervisor does: 0 or -errno, then the frame is lost. */
    int (*teardown_page)(struct vm *vm, uint64_t gfn, uint64_t pfn);
    int (*teardown_end)(struct vm *vm);
    /* What mapping a page costs, paid before anything else of an abort: 0 or -ENOMEM. */
    int (*guest_prepare)(struct vcpu *vcpu);
    /* Gives the page to the guest at gfn. */
    int (*guest_map)(struct vcpu *vcpu, unsigned cpu, uint64_t gfn, uint64_t pfn);
    /* The guest faulted where EL1 believes a page to be: is its IPA dead? */
    bool (*fault_is_poison)(struct vcpu *vcpu, unsigned cpu);
    /*
     * Takes one page back from a running guest (hole punch).  0: the host's
     * again.  -EBUSY: the hypervisor leaves it with the guest; the frame stays.
     */
    int (*reclaim_page)(struct vm *vm, uint64_t gfn, uint64_t pfn);
};
extern const struct gmem_driver pkvm_driver;

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

/* ---- host.c ---- */
void host_trace(struct host *host, const struct host_event *event);
int64_t host_hvc(struct host *host, unsigned cpu, uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3);

#endif
