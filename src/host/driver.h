/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Drivers of the guest_memfd library: what differs between hypervisors.
 *
 * EL1's common code calls the driver_...() functions below, which look for
 * refusals that a scenario has asked for before they ask the driver.
 */
#ifndef SRC_HOST_DRIVER_H
#define SRC_HOST_DRIVER_H

#include "src/host/internal.h"

/* The content modes of version 5 of the ABI, in `flags` of the ioctl. */
#define CONTENT_PLAIN 0u
#define CONTENT_ZERO 1u
#define CONTENT_PRESERVE 2u
#define CONTENT_FLAGS (CONTENT_ZERO | CONTENT_PRESERVE)

enum content_effect { CONTENT_KEPT, CONTENT_ZEROED, CONTENT_SCRAMBLED };
#define CONTENT_SCRAMBLE_BYTE 0xab

struct gmem_driver {
    const char *name;
    /* EL2 keeps the host out of a protected VM's memory; else the VM is one of those that it does not protect. */
    bool el2_protects;
    bool private_memory;       /* conversion exists whatever the VM's type */
    bool private_access_fatal; /* an access of the host kernel to a private page ends the host */
    bool guest_marks_shared;   /* an access is private unless the guest has marked the page, which MEM_SHARE does */
    /* What a conversion to shared [0] and to private [1] does to contents by itself, since v6 and in v5. */
    enum content_effect plain[2], plain_v5[2];
    bool preserves[2];         /* v5: can PRESERVE be had? */
    bool preserve_needs_setup; /* and only before the VM's first run */

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
    /* May the host have this page?  The make_shared hook; NULL: nobody to ask. */
    int (*make_shared)(struct gmem *gmem, uint64_t index, uint64_t pfn);
};
extern const struct gmem_driver pkvm_driver, sw_protected_driver, firmware_driver;
const struct gmem_driver *gmem_driver(enum gmem_hyp_id id);

/* For drivers of VMs that EL2 runs and does not protect. */
#define PKVM_DRIVER_VM_OPS                                                                                             \
    .vm_create = pkvm_vm_create, .vm_destroy_reserved = pkvm_vm_destroy_reserved, .vm_first_run = pkvm_vm_first_run,   \
    .teardown_begin = pkvm_teardown_begin, .teardown_page = pkvm_teardown_page, .teardown_end = pkvm_teardown_end,     \
    .guest_prepare = pkvm_guest_prepare, .guest_map = pkvm_guest_map, .fault_is_poison = pkvm_fault_is_poison,         \
    .reclaim_page = pkvm_reclaim_page
int pkvm_vm_create(struct vm *vm, struct caller *caller);
void pkvm_vm_destroy_reserved(struct vm *vm);
int pkvm_vm_first_run(struct vm *vm, struct caller *caller);
int pkvm_teardown_begin(struct vm *vm);
int pkvm_teardown_page(struct vm *vm, uint64_t gfn, uint64_t pfn);
int pkvm_teardown_end(struct vm *vm);
int pkvm_guest_prepare(struct vcpu *vcpu);
int pkvm_guest_map(struct vcpu *vcpu, unsigned cpu, uint64_t gfn, uint64_t pfn);
bool pkvm_fault_is_poison(struct vcpu *vcpu, unsigned cpu);
int pkvm_reclaim_page(struct vm *vm, uint64_t gfn, uint64_t pfn);

/* ---- what the common code calls ---- */

/* What a conversion with these flags does to contents: 0, or -EOPNOTSUPP when the hypervisor cannot do it. */
int driver_content(const struct gmem *gmem, bool to_private, uint64_t flags, enum content_effect *effect,
                   struct caller *caller);
void driver_scramble(struct gmem *gmem, uint64_t start, uint64_t end);
/* Asks the hypervisor for each page, where the VM does that: 0, or its errno with the page in busy. */
int driver_make_shared(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy);
/* The same of one page, asked whatever the VM's configuration says: the library's hooks. */
int driver_prepare_accessible(struct gmem *gmem, uint64_t index, uint64_t pfn);
int driver_prepare_inaccessible(struct gmem *gmem, uint64_t pfn);
/* Takes the range out of the stage 2 of guests that EL2 does not protect; they fault it in again as what it is then. */
void driver_zap(struct gmem *gmem, uint64_t start, uint64_t end);
int driver_guest_map(struct vcpu *vcpu, unsigned cpu, uint64_t gfn, uint64_t pfn);
/* From every guest that has the page: 0, or -EBUSY when the hypervisor leaves it with one. */
int driver_reclaim_page(struct gmem *gmem, uint64_t index, uint64_t pfn);
int driver_teardown_page(struct vm *vm, uint64_t gfn, uint64_t pfn);

/*
 * A folio is about to leave its file though guests have pages of it, which is
 * one of the bugs: remembers where, for their teardown.
 */
void guests_keep(struct gmem *gmem, const struct folio *folio);
/* Takes back what guests_keep() has noted of a VM: how many. */
uint64_t guests_kept_reclaim(struct vm *vm);

/* Which of the VMs that share a file have a page; FRAME_GUEST says that one has. */
bool guest_has(const struct memslot *slot, uint64_t index, const struct frame *f);
void guest_got(const struct memslot *slot, uint64_t index, struct frame *f);
void guest_lost(const struct memslot *slot, uint64_t index, struct frame *f);

#endif
