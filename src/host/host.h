/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * EL1: the part of the host kernel that manages guest private memory.
 *
 * This header is EL1's system-call surface (what the daemon calls for a
 * client's message) and, as struct host_arch, what the machine under it
 * offers.  EL1 reaches EL2 through host_arch.hvc only.
 *
 * Functions run inside a task (src/machine/sched.h) and may wait.  They
 * return 0 or a negative errno; `struct caller` says on whose behalf they act
 * and takes the explanation of a failure.
 */
#ifndef SRC_HOST_HOST_H
#define SRC_HOST_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/host/ref.h"
#include "src/host/variants.h"

#define HOST_PAGE_SHIFT 12
#define HOST_PAGE_SIZE UINT64_C(4096)

struct host;
struct vm;
struct vcpu;
struct gmem;
struct memslot;

/* Who asks, and the words for what went wrong. */
struct caller {
    uint32_t pid, tid;
    const char *program;
    char message[320];
};
void caller_explain(struct caller *caller, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- trace events ------------------------------------------------------------------------------------------- */

/* name, what offset/size/a0/a1/rc mean where it is not obvious */
#define HOST_EVENT_MAP(X)                                                                                              \
    X(vm_create, "a0 = handle")                                                                                        \
    X(vm_destroy, "a0 = handle, a1 = pages reclaimed")                                                                 \
    X(gmem_create, "size in bytes, a0 = flags")                                                                        \
    X(gmem_release, "a1 = pages freed")                                                                                \
    X(slot_set, "offset/size in the file, a0 = gpa, a1 = slot")                                                        \
    X(convert, "a0 = attributes, a1 = error_offset on EAGAIN")                                                         \
    X(busy, "a page that stopped a conversion; a0 = refcount, a1 = mapcount, note = the first holder")                 \
    X(punch, "hole punched, rc")                                                                                       \
    X(allocate, "fallocate without PUNCH_HOLE")                                                                        \
    X(pin, "a0 = kind, a1 = pin id, note = its label")                                                                 \
    X(unpin, "a1 = pin id")                                                                                            \
    X(fault, "host user fault; rc = 0 or the errno that becomes SIGBUS")                                               \
    X(guest_abort, "offset = gpa, a0 = is write, a1 = pfn when donated")                                               \
    X(guest_call, "hypercall; a0 = function id, a1 = x1, rc = x0")                                                     \
    X(exit, "KVM_RUN returned; a0 = exit reason, a1 = gpa")                                                            \
    X(reclaim, "page taken back from a guest; a0 = pfn, a1 = gfn")                                                     \
    X(hvc, "host hypercall that failed; a0 = number, a1 = first argument")                                             \
    X(host_abort, "EL2 injected an abort; a0 = pfn, a1 = ESR_EL1, note = its end")                                     \
    X(dma, "a device's access; a0 = is write, a1 = IOVA, rc = 0 or an IOMMU fault, note = the device")                 \
    X(memory_failure, "a0 = flags, a1 = pfn, rc")                                                                      \
    X(move, "bytes moved on the stage; a0 = 1 to the host, 0 from it, a1 = populated pages")                           \
    X(stray, "host process touched private memory; a0 = address, a1 = PC")                                             \
    X(stray_page, "bytes found where they must not be, dropped")                                                       \
    X(guest_start, "a0 = pid")                                                                                         \
    X(guest_end, "a0 = pid, rc = wait status")                                                                         \
    X(late_agent, "a client's agent did not answer in time; a0 = pid")                                                 \
    X(client, "a0 = pid, rc = 0 came, 1 went")                                                                         \
    X(end, "the last line of a trace that was closed; a0 = events before it")                                          \
    X(splat, "a detector of the kernel found something, note = the beginning of its report")

enum host_event_kind {
#define X(name, doc) HOST_EV_##name,
    HOST_EVENT_MAP(X)
#undef X
        HOST_EV_COUNT
};

struct host_event {
    enum host_event_kind kind;
    uint64_t vm, gmem, offset, size, a0, a1;
    int64_t rc;
    uint32_t pid, vcpu;
    char note[48];
};

/* ---- what the machine offers to the kernel ------------------------------------------------------------------- */

struct host_arch {
    void *ctx;
    uint64_t base_pfn, nr_pfns; /* RAM that is the host's at boot */

    /* HVC from EL1: number, four arguments; x1, or -EOPNOTSUPP when EL2 did not dispatch it.  vcpu_run waits. */
    int64_t (*hvc)(void *ctx, unsigned cpu, uint64_t number, const uint64_t args[4]);
    /* The direct map of a RAM frame that is not guest memory. */
    void *(*ram)(void *ctx, uint64_t pfn);

    /* A guest_memfd's bytes.  Ranges in pages. */
    int (*file_create)(void *ctx, struct gmem *gmem, bool init_shared, void **file);
    void (*file_destroy)(void *ctx, void *file);
    /*
     * Before EL1 commits to a change of [start, end) to shared or private:
     * whatever may fail is done now.  After 0 commit() follows.
     */
    int (*prepare)(void *ctx, void *file, uint64_t start, uint64_t end, bool to_shared, struct caller *caller);
    /* EL1's tables for [start, end) changed: recompute and enforce what everybody reaches. */
    void (*commit)(void *ctx, void *file, uint64_t start, uint64_t end);
    /* The next run of pages in [start, end) that processes have populated; false when there is none. */
    bool (*populated)(void *ctx, void *file, uint64_t start, uint64_t end, uint64_t *first, uint64_t *past);
    int (*allocate)(void *ctx, void *file, uint64_t start, uint64_t end);
    /* The page leaves the file, but somebody holds its frame: its bytes live on there, until forget(). */
    void (*orphan)(void *ctx, void *file, uint64_t index, uint64_t pfn);
    void (*forget)(void *ctx, uint64_t pfn);
    /* Drops the bytes of [start, end): reads as zero from now on. */
    void (*discard)(void *ctx, void *file, uint64_t start, uint64_t end);
    /* Fills the bytes of one page, wherever they are. */
    void (*fill)(void *ctx, void *file, uint64_t index, uint8_t byte);
    /* Copies a page's bytes from frame to frame, wherever they are: 0 or -ENOMEM. */
    int (*copy)(void *ctx, uint64_t to_pfn, uint64_t from_pfn);
    /* EL2 has panicked and answers nothing any more. */
    bool (*stands_still)(void *ctx);
    /* A worker runs fn(arg) in a task of its own, soon: 0 or -ENOMEM. */
    int (*queue_work)(void *ctx, void (*fn)(void *arg), void *arg);
    /* True when the host's stage 2 lets it at the page (whatever the attribute says). */
    bool (*stage2_allows)(void *ctx, uint64_t pfn);

    int (*slot_add)(void *ctx, struct vm *vm, const struct memslot *slot, struct caller *caller);
    void (*slot_remove)(void *ctx, struct vm *vm, const struct memslot *slot);
    /* A CPU that runs this vcpu's guest code during hvc(vcpu_run); -EBUSY when there is none left. */
    int (*cpu_get)(void *ctx, struct vcpu *vcpu);
    void (*cpu_put)(void *ctx, unsigned cpu);
    void (*vcpu_free)(void *ctx, struct vcpu *vcpu);
    /* Ends the guest of a VM: its vcpu_run returns as if the guest had switched itself off. */
    void (*guest_stop)(void *ctx, struct vm *vm);

    void (*trace)(void *ctx, const struct host_event *event);
};

/* ---- the host ------------------------------------------------------------------------------------------------- */

/* NULL when out of memory.  arch is copied. */
struct host *host_new(const struct host_arch *arch);
/* Everything must have been destroyed before. */
void host_free(struct host *host);

struct host_counts {
    size_t vms, gmems;
    size_t pins;        /* references that clients hold */
    size_t refs;        /* those and the kernel's own; PTEs are not among them */
    uint64_t hyp_asked; /* faults that asked EL2, where nobody else keeps what is shared */
    uint64_t ram_frames, data_frames;
    uint64_t base_pfn, top_pfn; /* no frame below the one, or at or above the other, was ever used */
};
void host_counts(const struct host *host, struct host_counts *out);
struct vm *host_vm_next(const struct host *host, const struct vm *after);
struct gmem *host_gmem_next(const struct host *host, const struct gmem *after);

/* A detector's report; of an invariant that is broken it begins with its name: "I9: ...". */
void host_splat(struct host *host, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The next report of a detector that nobody was told of yet; NULL: none.  It stays as it is until 16 more have come. */
const char *host_next_splat(struct host *host);

/*
 * A scenario makes the hypervisor refuse something for a page, or lets it again.  X(id, name, what is refused)
 */
#define HYP_OP_MAP(X)                                                                                                  \
    X(DONATE, "donate", "giving the page to a guest")                                                                  \
    X(RECLAIM, "reclaim", "taking it back from a guest that runs")                                                     \
    X(TEARDOWN, "teardown", "taking it back from a guest that has ended")                                              \
    X(MAKE_SHARED, "make_shared", "letting the host have it: the library's prepare_accessible")                        \
    X(MAKE_PRIVATE, "make_private", "the library's prepare_inaccessible")
enum hyp_op {
#define X(id, name, doc) HYP_OP_##id,
    HYP_OP_MAP(X)
#undef X
        HYP_OP_COUNT
};
const char *hyp_op_name(enum hyp_op op);
/* -ENOENT: it does not refuse that; -ENOSPC: 32 refusals are too many. */
int host_hyp_refuse(struct host *host, enum hyp_op op, uint64_t pfn, bool on);

/*
 * The kernel is about to reach a frame through its direct map: true when that ends the host, which does nothing from
 * then on (every call -EIO) but take down what there is.
 */
bool host_access_is_fatal(struct host *host, uint64_t pfn);
/* The kernel's own mapping of RAM has no entry for the frame: an access is a stage-1 fault. */
bool host_direct_map_hole(const struct host *host, uint64_t pfn);
const char *host_dead(const struct host *host); /* why, or NULL */

/* ---- frames ----------------------------------------------------------------------------------------------------- */

/* The guest_memfd page that lives in a frame: false when the frame holds none. */
bool host_frame_slot(const struct host *host, uint64_t pfn, struct gmem **gmem, uint64_t *index);
/* The first frame from *pfn on that was in use and is free: false when there is none. */
bool host_next_free_frame(const struct host *host, uint64_t *pfn);

/* ---- guest_memfd --------------------------------------------------------------------------------------------------
 */

#define GUEST_MEMFD_FLAG_MMAP (UINT64_C(1) << 0)
#define GUEST_MEMFD_FLAG_INIT_SHARED (UINT64_C(1) << 1)
#define KVM_MEMORY_ATTRIBUTE_PRIVATE (UINT64_C(1) << 3)

/* KVM_CREATE_GUEST_MEMFD.  The caller gets one reference. */
int gmem_create(struct vm *vm, uint64_t size, uint64_t flags, struct gmem **out, struct caller *caller);
void gmem_get(struct gmem *gmem);
/* The last reference frees the inode and its pages. */
void gmem_put(struct gmem *gmem);

/*
 * The order of the folios that the file allocates from now on, 0..9: for the
 * model of references to large folios; nothing of the ABI asks for it.
 * -EINVAL: not a whole number of them in the file; -EBUSY: it has pages.
 */
int gmem_set_order(struct gmem *gmem, unsigned order);

uint32_t gmem_id(const struct gmem *gmem);
uint64_t gmem_pages(const struct gmem *gmem);
uint64_t gmem_flags(const struct gmem *gmem);
void *gmem_file(const struct gmem *gmem); /* the machine's, from file_create */
uint64_t gmem_vm_id(const struct gmem *gmem);
/* What was chosen for the VM that created it. */
const struct vm_config *gmem_vm_config(const struct gmem *gmem);
enum gmem_policy_id gmem_policy_id(const struct gmem *gmem);

struct gmem_range {
    uint64_t start, end; /* pages */
    bool private;        /* not for host processes */
    bool none;           /* nor for the guest: policy C's transient state */
};
/* The attribute range that holds a page. */
struct gmem_range gmem_attr_range(const struct gmem *gmem, uint64_t index);
bool gmem_is_private(const struct gmem *gmem, uint64_t index);
/* The next allocated page in [start, end): false when none. */
bool gmem_next_folio(const struct gmem *gmem, uint64_t start, uint64_t end, uint64_t *index, uint64_t *pfn);

struct gmem_stats {
    uint64_t shared_pages, private_pages, allocated, ranges;
};
void gmem_stats(const struct gmem *gmem, struct gmem_stats *out);

struct gmem_attributes2 {
    uint64_t offset, size, attributes, flags;
};

#define BUSY_MAX_HOLDERS 8
struct gmem_busy {
    bool error_offset_valid;
    uint64_t error_offset;
    uint64_t
        transient; /* policy C: pages of a conversion that succeeded that are NONE_SHARED; error_offset is the first */
    unsigned nr_holders;
    struct holder_info holders[BUSY_MAX_HOLDERS];
};

/* KVM_SET_MEMORY_ATTRIBUTES2, spec guest_memfd.md 1.3 and 3.2. */
int gmem_set_attributes2(struct gmem *gmem, const struct gmem_attributes2 *attr, struct caller *caller,
                         struct gmem_busy *busy);
/*
 * KVM_SET_MEMORY_ATTRIBUTES on a VM, which is the interface where its files are tracked there: -ENOTTY otherwise, as
 * gmem_set_attributes2() is then.  Conversions are those of each file that the VM has created and bound in the range,
 * one after the other.  The real call has no error_offset; here it tells where it ended, in the file.
 */
int vm_set_attributes(struct vm *vm, uint64_t address, uint64_t size, uint64_t attributes, uint64_t flags,
                      struct caller *caller, struct gmem_busy *busy);
/* fallocate(2) on a guest_memfd: kvm_gmem_fallocate() behind vfs_fallocate()'s checks. */
int gmem_fallocate(struct gmem *gmem, int mode, int64_t offset, int64_t length, struct caller *caller);
/* Holders of one page, PTEs too; returns how many, fills up to max. */
unsigned gmem_holders(const struct gmem *gmem, uint64_t index, struct holder_info *out, unsigned max);

struct page_report {
    bool private, none, allocated;
    uint64_t pfn;
    /* The folio's; a pincount only of a large one. */
    uint32_t refcount, pincount, mapcount;
    unsigned order;
    struct vm *vm; /* bound here, or NULL */
    uint64_t gpa;
    bool converted; /* the fields below are set */
    bool converted_private;
    uint64_t converted_seq, converted_ns;
    uint32_t converted_pid;
    char converted_by[32];
};
/* What the folio's refcount, pincount and mapcount must be, by its holders (I6); all 0 of a hole. */
struct holder_sum {
    uint64_t refs, pins, maps;
};
void gmem_holders_sum(const struct gmem *gmem, uint64_t index, struct holder_sum *out);
void gmem_page_report(const struct gmem *gmem, uint64_t index, struct page_report *out);

/* gmem_unpin() from where nothing may sleep: an interrupt, as the end of an I/O is one. */
void gmem_unpin_irq(struct ref *ref);
/*
 * Policy C: makes sure that a page which is NONE_SHARED becomes private when its last foreign reference goes.
 * -EAGAIN while it is mapped; -EINVAL where there is no folio, or another policy.
 */
int gmem_register_callback(struct gmem *gmem, uint64_t index, struct caller *caller);

/* ---- VMs ------------------------------------------------------------------------------------------------------------
 */

struct vm_config {
    char name[32];
    bool is_protected;
    uint32_t unshare_mode; /* enum hyp_unshare_mode */
    uint32_t ipa_bits;     /* 0: 40 */
    /* What the VM's files are run by; 0 is what was merged. */
    enum gmem_policy_id policy;
    enum gmem_tracker_id tracker;
    enum gmem_hyp_id hyp;
    uint32_t abi;     /* 0 or 13: as merged; 5: the content modes of version 5 of the series */
    bool ask_hyp;     /* a conversion to shared asks the hypervisor first: the make_shared hook */
    bool rfc_library; /* files are run by the guest_memfd library of RFC v2: counters, no attribute (library.h) */
    uint64_t bugs;    /* HOST_BUG() */
};

int vm_create(struct host *host, const struct vm_config *config, struct vm **out, struct caller *caller);
/* Stops the guest, waits for running vcpus, reclaims all memory, frees the VM.  -EBUSY leaves a VM that EL2 did not let
 * go. */
int vm_destroy(struct vm *vm, struct caller *caller);
uint64_t vm_id(const struct vm *vm);
uint32_t vm_handle(const struct vm *vm);
const struct vm_config *vm_config(const struct vm *vm);
unsigned vm_nr_vcpus(const struct vm *vm);
struct vcpu *vm_vcpu(const struct vm *vm, unsigned index);
/* The machine's guest behind this VM. */
void vm_set_guest(struct vm *vm, void *guest);
void *vm_guest(const struct vm *vm);

struct memslot {
    uint32_t slot;
    uint64_t gfn, nr_pages;
    struct gmem *gmem;
    uint64_t index; /* first page in the file */
    uint8_t *has;   /* where several VMs share the file: a bit for each page that this one's guest has; else NULL */
    bool toggled;   /* bug slot-toggle: it has lost KVM_MEM_GUEST_MEMFD */
    struct memslot *next;
};
/* KVM_SET_USER_MEMORY_REGION2; size 0 deletes. */
int vm_set_memory_region(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, struct gmem *gmem,
                         uint64_t offset, struct caller *caller);
const struct memslot *vm_slots(const struct vm *vm);
const struct memslot *vm_slot_at(const struct vm *vm, uint64_t gfn);

int vcpu_create(struct vm *vm, unsigned index, struct vcpu **out, struct caller *caller);
unsigned vcpu_index(const struct vcpu *vcpu);
struct vm *vcpu_vm(const struct vcpu *vcpu);
uint64_t vcpu_host_phys(const struct vcpu *vcpu);
/* The machine's part of a vcpu, freed through host_arch.vcpu_free. */
void vcpu_set_machine(struct vcpu *vcpu, void *machine);
void *vcpu_machine(const struct vcpu *vcpu);

#define KVM_EXIT_HYPERCALL 3
#define KVM_EXIT_MMIO 6
#define KVM_EXIT_SYSTEM_EVENT 24
#define KVM_EXIT_MEMORY_FAULT 39
#define KVM_MEMORY_EXIT_FLAG_PRIVATE (UINT64_C(1) << 3)
#define KVM_SYSTEM_EVENT_SHUTDOWN 1
#define KVM_SYSTEM_EVENT_CRASH 3
/* Private to the machine and EL1: x2 of the PSCI_SYSTEM_OFF that stands for a guest that died; x1 is its wait status.
 */
#define GUEST_DIED UINT64_C(0x64656164)

struct run_record {
    uint32_t exit_reason;
    bool is_write;
    uint64_t flags, gpa, size; /* memory fault, mmio */
    uint64_t nr, args[3], ret; /* hypercall; ret is in and out */
    uint32_t event_type;
    uint64_t event_data;
};
/* KVM_RUN: waits until the VMM is needed.  Errors as KVM_RUN: -EFAULT with exit_reason 39 or 0, -EBUSY, -EINTR... */
int vcpu_run(struct vcpu *vcpu, struct run_record *run, struct caller *caller);

/* ---- aborts that EL2 injects ---------------------------------------------------------------------------------------
 */

struct host_abort {
    uint64_t esr; /* as the vector at EL1 has it: S1PTW is EL2's mark, the class says from which level the access was */
    uint64_t pfn; /* AT S1E1R of the fault address */
    bool fixup;   /* the instruction is in the exception table, as those of copy_from_user() are */
    uint32_t pid; /* of the process at EL0 */
};
enum host_abort_end {
    HOST_ABORT_RETRY,   /* the access is repeated */
    HOST_ABORT_SIGSEGV, /* EL0: the process gets SIGSEGV, SEGV_ACCERR */
    HOST_ABORT_FIXUP,   /* EL1 with a fixup: EFAULT, or a short copy */
    HOST_ABORT_OOPS,    /* EL1 without, and the page cannot be taken from its owner */
};
/* (task) do_mem_abort().  At EL1 without a fixup the page is force-reclaimed: zeroed, and its IPA dead for the guest.
 */
enum host_abort_end host_mem_abort(struct host *host, const struct host_abort *abort);

#endif
