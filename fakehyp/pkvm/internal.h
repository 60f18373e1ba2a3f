/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of the pKVM personality share.
 *
 * EL2's own stage 1 is not modelled: where the kernel maps a page into EL2 or
 * unmaps it from there, only the hyp state in vmemmap changes here, since no
 * task of the machine can reach memory through it.
 */
#ifndef FAKEHYP_PKVM_INTERNAL_H
#define FAKEHYP_PKVM_INTERNAL_H

#include "fakehyp/hyp.h"
#include "fakehyp/hypercall.h"
#include "fakehyp/mutant.h"
#include "fakehyp/stage2/pgtable.h"
#include "fakehyp/stage2/pool.h"

struct hyp_vm;
struct hyp_vcpu;

struct hyp_vcpu {
    struct hyp_vm *vm;
    uint32_t idx;
    bool loaded;
    enum hyp_pending pending;
    uint64_t phys;      /* of this page */
    uint64_t host_vcpu; /* phys of the host's page, pinned */
    struct hyp_memcache memcache;
    uint64_t esr, hpfar; /* last fault, as EL2 saw it: the host can write its own copy */
    struct hyp_guest_regs regs;
};

struct hyp_vm {
    uint32_t handle;
    uint32_t nr_vcpus;
    bool is_protected;
    bool is_dying;
    enum hyp_unshare_mode unshare_mode;
    bool errant_panics;
    uint64_t phys;     /* of this page; its hyp_page.refcount counts the loaded vcpus */
    uint64_t host_kvm; /* phys of the host's page, pinned */
    struct s2_pgtable pgt;
    struct hyp_pool pool;
    uint64_t nr_mapped;   /* pages that valid leaves map */
    uint64_t nr_poisoned; /* poison leaves; never goes down */
    struct hyp_vcpu *vcpus[HYP_VM_MAX_VCPUS];
};

_Static_assert(HYP_VM_PAGES == 1 && sizeof(struct hyp_vm) <= HYP_PAGE_SIZE, "struct hyp_vm fits its donated page");
_Static_assert(HYP_VCPU_PAGES == 1 && sizeof(struct hyp_vcpu) <= HYP_PAGE_SIZE,
               "struct hyp_vcpu fits its donated page");

struct hyp_vm_slot {
    bool reserved;
    struct hyp_vm *vm; /* set while the VM exists; reserved stays true */
};

struct hyp_cpu {
    struct hyp_vcpu *loaded;
    bool finalized;
};

struct hyp {
    struct hyp_mm mm;
    struct hyp_memory_region memory[HYP_MAX_REGIONS];
    unsigned nr_memory;
    unsigned pa_bits;
    unsigned nr_cpus;
    uint64_t text_pfn, text_nr;
    bool finalized; /* prot_finalize was called: pKVM's own calls are open */
    struct hyp_pool host_pool;
    struct s2_pgtable host;
    struct hyp_vm_slot vms[HYP_MAX_VMS];
    struct hyp_cpu cpus[HYP_MAX_CPUS];
};

static inline struct hyp_page *hyp_page(const struct hyp *hyp, uint64_t pfn)
{
    return hyp_page_of(&hyp->mm, pfn);
}

static inline uint64_t hyp_pfn_to_phys(uint64_t pfn)
{
    return pfn << HYP_PAGE_SHIFT;
}

/* For what must hold after a commit has begun, as WARN_ON in EL2. */
static inline void hyp_warn_on(const struct hyp *hyp, bool broken, const char *what)
{
    if (broken)
        hyp_panic(&hyp->mm, what);
}

/* Host-shared memory may change under EL2: each field is read once and then checked. */
#define HYP_READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))

/* memory.c: memory regions and page states. */
struct hyp_pfn_range {
    uint64_t start, end;                    /* pfns; end is exclusive */
    const struct hyp_memory_region *region; /* NULL: a gap, which is MMIO */
};
void hyp_find_range(const struct hyp *hyp, uint64_t pfn, struct hyp_pfn_range *range);
/* True for RAM that is subject to ownership. */
bool hyp_is_allowed_memory(const struct hyp *hyp, uint64_t pfn);
/* 0; -EINVAL when the pages are not within one region or gap; -EPERM in a gap or NOMAP region. */
int hyp_check_allowed_range(const struct hyp *hyp, uint64_t pfn, uint64_t nr);
/* pfn-range check against the physical address space: 0 or -EINVAL. */
int hyp_check_pfn_range(const struct hyp *hyp, uint64_t pfn, uint64_t nr);
/* 0, the errno of hyp_check_allowed_range(), -EPERM when a page has another state. */
int hyp_check_host_state(const struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state);
int hyp_check_hyp_state(const struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state);

/* What is not tracked (MMIO, NOMAP memory outside vmemmap) stays the host's for ever. */
static inline enum hyp_page_state hyp_host_state(const struct hyp *hyp, uint64_t pfn)
{
    return hyp_has_page(&hyp->mm, pfn) ? (enum hyp_page_state)hyp_page(hyp, pfn)->host_state : PKVM_PAGE_OWNED;
}

static inline enum hyp_page_state hyp_hyp_state(const struct hyp *hyp, uint64_t pfn)
{
    if (!hyp_has_page(&hyp->mm, pfn))
        return PKVM_PAGE_NOPAGE;
    return (enum hyp_page_state)(hyp_page(hyp, pfn)->hyp_state_comp ^ PKVM_PAGE_NOPAGE);
}

static inline void hyp_set_host_state(struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    for (uint64_t i = 0; i < nr; i++)
        hyp_page(hyp, pfn + i)->host_state = state & 0xf;
}

static inline void hyp_set_hyp_state(struct hyp *hyp, uint64_t pfn, uint64_t nr, enum hyp_page_state state)
{
    for (uint64_t i = 0; i < nr; i++)
        hyp_page(hyp, pfn + i)->hyp_state_comp = (state ^ PKVM_PAGE_NOPAGE) & 0xf;
}

/* EL2's code: the one thing that is not the host's and yet mapped in its stage 2. */
static inline bool hyp_is_text(const struct hyp *hyp, uint64_t pfn)
{
    return pfn >= hyp->text_pfn && pfn - hyp->text_pfn < hyp->text_nr;
}

/* host_stage2.c: the host's identity map.  These cannot fail once the checks have passed. */
void hyp_host_annotate(struct hyp *hyp, uint64_t pfn, uint64_t nr, uint64_t annotation);
void hyp_host_map(struct hyp *hyp, uint64_t pfn, uint64_t nr);
uint64_t hyp_host_leaf(const struct hyp *hyp, uint64_t pfn);
/* Table pages that regions need in the worst case, PGD and one MMIO mapping included. */
uint64_t hyp_host_tables(const struct hyp_memory_region *memory, unsigned nr_memory, unsigned pa_bits);

/* mem_protect.c: host and EL2; ranges in pages. */
int pkvm_host_may_access(const struct hyp *hyp, uint64_t pfn);
int pkvm_host_share_hyp(struct hyp *hyp, uint64_t pfn);
int pkvm_host_unshare_hyp(struct hyp *hyp, uint64_t pfn);
int pkvm_check_pin(const struct hyp *hyp, uint64_t pfn, uint64_t nr);
int pkvm_pin_shared_mem(struct hyp *hyp, uint64_t pfn, uint64_t nr);
void pkvm_unpin_shared_mem(struct hyp *hyp, uint64_t pfn, uint64_t nr);
int pkvm_check_donate_hyp(const struct hyp *hyp, uint64_t pfn, uint64_t nr);
int pkvm_host_donate_hyp(struct hyp *hyp, uint64_t pfn, uint64_t nr);
int pkvm_hyp_donate_host(struct hyp *hyp, uint64_t pfn, uint64_t nr);
int pkvm_host_share_ffa(struct hyp *hyp, uint64_t pfn, uint64_t nr);
int pkvm_host_unshare_ffa(struct hyp *hyp, uint64_t pfn, uint64_t nr);

/* mem_guest.c: host and guest. */
int pkvm_host_donate_guest(struct hyp *hyp, struct hyp_vcpu *vcpu, uint64_t pfn, uint64_t gfn);
int pkvm_host_share_guest(struct hyp *hyp, struct hyp_vcpu *vcpu, uint64_t pfn, uint64_t gfn, uint64_t nr,
                          uint64_t prot);
int pkvm_host_unshare_guest(struct hyp *hyp, struct hyp_vm *vm, uint64_t gfn, uint64_t nr);
int pkvm_guest_share_host(struct hyp *hyp, struct hyp_vm *vm, uint64_t gfn);
/* The checks of guest_unshare_host alone, for a call that waits for the host's consent. */
int pkvm_check_guest_unshare(const struct hyp *hyp, const struct hyp_vm *vm, uint64_t gfn);
int pkvm_guest_unshare_host(struct hyp *hyp, struct hyp_vm *vm, uint64_t gfn);
/* The single leaf for a guest's page: 0, -ERANGE, -EHWPOISON, -ENOENT or -E2BIG for a block. */
int pkvm_guest_page_leaf(const struct hyp_vm *vm, uint64_t gfn, struct s2_walk *walk);
/* Size rule of the np-guest calls: one page, or an aligned block of 512. */
bool pkvm_guest_size_ok(uint64_t gfn, uint64_t nr);

/* reclaim.c: pages that the host takes back from a protected guest. */
int pkvm_force_reclaim(struct hyp *hyp, uint64_t phys);
int pkvm_reclaim_guest_page(struct hyp *hyp, struct hyp_vm *vm, uint64_t gfn);
int pkvm_vcpu_in_poison_fault(const struct hyp_vcpu *vcpu);

/* guest_attr.c: permissions and access flags of np-guests. */
int pkvm_relax_perms(struct hyp_vm *vm, uint64_t gfn, uint64_t prot);
int pkvm_wrprotect(struct hyp_vm *vm, uint64_t gfn, uint64_t nr);
int pkvm_test_clear_young(struct hyp_vm *vm, uint64_t gfn, uint64_t nr, bool mkold);
int pkvm_mkyoung(struct hyp_vm *vm, uint64_t gfn);

/* memcache.c */
/* Fills the vcpu's memcache from the host's, which is hostile input: 0, or -ENOMEM and nothing has moved. */
int hyp_refill_memcache(struct hyp *hyp, struct hyp_vcpu *vcpu);
/* Zeroes an EL2 page, gives it back to the host and links it into the host's list. */
void hyp_return_page(struct hyp *hyp, struct hyp_memcache *list, uint64_t phys);

/* vm.c and teardown.c */
struct hyp_vm *hyp_vm_find(const struct hyp *hyp, uint64_t handle);
uint16_t *hyp_vm_refcount(const struct hyp *hyp, const struct hyp_vm *vm);
int64_t pkvm_reserve_vm(struct hyp *hyp);
void pkvm_unreserve_vm(struct hyp *hyp, uint64_t handle);
int pkvm_init_vm(struct hyp *hyp, uint64_t host_kvm, uint64_t vm_hva, uint64_t pgd_hva);
int pkvm_init_vcpu(struct hyp *hyp, uint64_t handle, uint64_t host_vcpu, uint64_t vcpu_hva);
int pkvm_start_teardown_vm(struct hyp *hyp, uint64_t handle);
int pkvm_finalize_teardown_vm(struct hyp *hyp, uint64_t handle);

/* vcpu.c */
void pkvm_vcpu_load(struct hyp *hyp, unsigned cpu, uint64_t handle, uint64_t idx);
void pkvm_vcpu_put(struct hyp *hyp, unsigned cpu);
/* 0: the guest goes on. */
int pkvm_vcpu_run(struct hyp *hyp, unsigned cpu, uint64_t host_vcpu);

static inline struct kvm_host_vcpu *hyp_host_vcpu(const struct hyp *hyp, const struct hyp_vcpu *vcpu)
{
    return hyp_virt(&hyp->mm, vcpu->host_vcpu);
}

/* Answer of a guest call: x0, and zeroes in x1..x3. */
static inline void hyp_vcpu_answer(struct hyp_vcpu *vcpu, int64_t result)
{
    vcpu->regs = (struct hyp_guest_regs){.x = {(uint64_t)result}};
}

#endif
