/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * EL2 as the machine sees it: boot, the four ways into EL2 (host HVC, host
 * stage-2 abort, guest trap) and read-only views for reports and audits.
 *
 * EL2 is pure: no system call, no allocation, no writable globals.  All of its
 * memory is given by the caller or donated by the host; it reaches memory
 * through `struct hyp_platform` only.  One call at a time (the machine
 * serialises them as the locks of the real EL2 would); a call runs to its end,
 * except for plat->yield() in break-before-make windows.
 *
 * "EL2 panic": plat->panic() is told what was wrong and does not return into
 * EL2 (the machine longjmps or stops); EL2 never aborts the process itself.
 */
#ifndef FAKEHYP_HYP_H
#define FAKEHYP_HYP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fakehyp/hypercall.h"

struct hyp; /* all of EL2's state outside donated pages */

struct hyp_platform {
    void *ctx;
    /* EL2's linear map of RAM: physical less virtual address, whole pages (the kernel's hyp_physvirt_offset). */
    uint64_t physvirt_offset;
    /*
     * EL2 uses a frame with tables, VM structures or memcache links: told before what the host may write is read, and
     * for tables at the end of a walk.  NULL when nobody wants to know.
     */
    void (*look)(void *ctx, uint64_t phys);
    /* Zero the contents of one page (guest data, wherever the stage keeps its bytes, or plain RAM) and flush it. */
    void (*zero_page)(void *ctx, uint64_t phys);
    /* A translation changed or went away: n pages from ipa under vmid (0: host, ipa == pa; n == 0: the whole vmid). */
    void (*tlbi)(void *ctx, uint16_t vmid, uint64_t ipa, uint64_t nr_pages);
    /* A break-before-make window: other CPUs may look at memory now (but not enter EL2). */
    void (*yield)(void *ctx, const char *label);
    /* Does not return. */
    void (*panic)(void *ctx, const char *what);
};

static inline void *hyp_phys_to_virt(const struct hyp_platform *plat, uint64_t phys)
{
    return (void *)(uintptr_t)(phys - plat->physvirt_offset);
}

struct hyp_memory_region {
    uint64_t base, size; /* bytes, page aligned; sorted, disjoint; address 0 may only be NOMAP */
    bool nomap;
};

/* `struct hyp_page` of the kernel: 8 bytes a page, all zero means "host OWNED, hyp NOPAGE". */
struct hyp_page {
    uint16_t refcount;
    uint8_t order;
    uint8_t host_state : 4;
    uint8_t hyp_state_comp : 4; /* value XOR 3 */
    uint32_t host_share_guest_count;
};
_Static_assert(sizeof(struct hyp_page) == 8, "struct hyp_page is 8 bytes as in the kernel");

struct hyp_config {
    struct hyp_platform plat;
    const struct hyp_memory_region *memory; /* copied; at most HYP_MAX_REGIONS */
    unsigned nr_memory;
    unsigned pa_bits;         /* 32..48, the host's IPA size too */
    struct hyp_page *vmemmap; /* zeroed; indexed by pfn - vmemmap_base_pfn; owned by the caller, outlives hyp */
    uint64_t vmemmap_base_pfn, vmemmap_nr;
    uint64_t pool_pfn, pool_nr; /* carve-out inside memory: EL2's own, at boot (host stage-2 tables) */
    /* EL2's code, inside memory and outside the pool: EL2 owns it, the host may read it.  text_nr 0: not modelled. */
    uint64_t text_pfn, text_nr;
    unsigned nr_cpus; /* at most HYP_MAX_CPUS */
};

#define HYP_MAX_REGIONS 16
#define HYP_MAX_CPUS 1024

/* Pool pages that suffice to map all of `nr_pages` pages of RAM at page granularity in the host's stage 2. */
uint64_t hyp_host_pool_pages(uint64_t nr_pages);

/* Bytes and alignment (at most 64) of `struct hyp`, for the caller to allocate. */
size_t hyp_state_size(void);

/* Boots EL2 in caller-given memory: 0, -HYP_EINVAL for a bad config.  The host must then call HVC prot_finalize. */
int hyp_init(struct hyp *hyp, const struct hyp_config *config);

enum hyp_next {
    HYP_NEXT_HOST = 0,  /* eret to the host: regs hold x0, x1 */
    HYP_NEXT_GUEST = 1, /* eret to the guest: see hyp_guest_regs() */
};

/*
 * Host HVC.  regs[0] = function id, regs[1..5] = arguments; on HYP_NEXT_HOST
 * regs[0] and regs[1] are the results (regs[2..] unchanged).  HYP_NEXT_GUEST
 * only for vcpu_run: the guest goes on, and a later hyp_guest_trap() on the same CPU returns
 * to the host in place of this call, with the same register convention.
 */
enum hyp_next hyp_host_hvc(struct hyp *hyp, unsigned cpu, uint64_t regs[8]);

struct hyp_guest_regs {
    uint64_t x[4];
    bool replay; /* PC was moved back: the guest executes its HVC again, with the x[] that it had */
};

/* Registers with which the guest on this CPU goes on; valid after HYP_NEXT_GUEST. */
const struct hyp_guest_regs *hyp_guest_regs(const struct hyp *hyp, unsigned cpu);

/*
 * The guest on this CPU traps to EL2.  esr/far/hpfar as hardware would set
 * them; x[] are x0..x3 for an HVC.  HYP_NEXT_GUEST: handled in EL2.
 * HYP_NEXT_HOST: host_regs[0..1] are the results of the host's vcpu_run.
 */
struct hyp_trap {
    uint64_t esr, far, hpfar;
    uint64_t x[4];
};
enum hyp_next hyp_guest_trap(struct hyp *hyp, unsigned cpu, const struct hyp_trap *trap, uint64_t host_regs[8]);

enum hyp_abort {
    HYP_ABORT_RETRY = 0,  /* mapped now, or mapped by somebody else: the access is repeated */
    HYP_ABORT_INJECT = 1, /* the host gets an abort with ESR.S1PTW set */
};

/* The host's access to phys took a stage-2 abort. */
enum hyp_abort hyp_host_abort(struct hyp *hyp, unsigned cpu, uint64_t phys, bool is_write);
/* ESR_EL1 of the injected abort: that of EL2 with S1PTW, and for an access of the kernel the class of its own level. */
uint64_t hyp_inject_esr(uint64_t esr_el2, bool from_el1);

/* What the MMU is programmed with.  -HYP_ENOENT for an unknown handle. */
struct hyp_vttbr {
    uint64_t pgd; /* physical */
    unsigned ipa_bits;
    uint16_t vmid;
};
void hyp_host_vttbr(const struct hyp *hyp, struct hyp_vttbr *out);
int hyp_vm_vttbr(const struct hyp *hyp, uint32_t handle, struct hyp_vttbr *out);
/* Handle of the VM with this VMID, 0 when none. */
uint32_t hyp_vmid_handle(const struct hyp *hyp, uint16_t vmid);

/* Page states with the kernel's numbers (nvhe/memory.h). */
#define HYP_PAGE_STATE_MAP(X)                                                                                          \
    X(0, OWNED)                                                                                                        \
    X(1, SHARED_OWNED)                                                                                                 \
    X(2, SHARED_BORROWED)                                                                                              \
    X(3, NOPAGE)                                                                                                       \
    X(4, POISON)

enum hyp_page_state {
#define X(value, name) PKVM_PAGE_##name = value,
    HYP_PAGE_STATE_MAP(X)
#undef X
};
const char *hyp_page_state_name(enum hyp_page_state state);

enum hyp_owner { HYP_OWNER_HOST = 0, HYP_OWNER_HYP = 1, HYP_OWNER_GUEST = 2 };

/* Everything EL2 knows of one frame, for reports. */
struct hyp_frame_info {
    enum hyp_page_state host, hyp;
    enum hyp_owner owner; /* while SHARED_BORROWED by the host the owner is HYP_OWNER_GUEST with handle 0 */
    uint32_t handle;      /* of the owning guest, 0 when not recorded */
    uint64_t gfn;
    uint32_t share_count;
    uint16_t pins;
    uint64_t host_pte; /* raw host stage-2 leaf */
};
/* 0, or -HYP_EINVAL outside vmemmap. */
int hyp_frame_info(const struct hyp *hyp, uint64_t pfn, struct hyp_frame_info *out);

/* The guest's leaf at gfn: state (NOPAGE when invalid), raw descriptor and pfn.  -HYP_ENOENT unknown handle,
 * -HYP_ERANGE. */
struct hyp_guest_leaf {
    enum hyp_page_state state;
    uint64_t pte, pfn;
    int level;
};
int hyp_guest_leaf(const struct hyp *hyp, uint32_t handle, uint64_t gfn, struct hyp_guest_leaf *out);

/* The records that EL2 keeps of VMs, vcpus and CPUs, for reports and for the oracle. */
struct hyp_vm_info {
    bool reserved, exists; /* the rest is valid if it exists */
    bool is_protected, is_dying;
    enum hyp_unshare_mode unshare_mode;
    uint32_t nr_vcpus;
    uint64_t phys, host_kvm;  /* EL2's page and the host's */
    struct hyp_memcache pool; /* pages for tables that are in no table now */
};
/* All zero for a handle that cannot be. */
void hyp_vm_info(const struct hyp *hyp, uint32_t handle, struct hyp_vm_info *out);

/* What the next vcpu_run has to do before the guest goes on. */
enum hyp_pending {
    HYP_PENDING_NONE,
    HYP_PENDING_FORWARDED, /* the host answers in x[0] */
    HYP_PENDING_CONSENT,   /* the host agrees to a MEM_UNSHARE or not */
};

struct hyp_vcpu_info {
    bool exists; /* the rest is valid if it does */
    bool loaded;
    enum hyp_pending pending;
    uint64_t phys, host_vcpu;     /* EL2's page and the host's */
    struct hyp_memcache memcache; /* EL2's own */
    uint64_t esr, hpfar;          /* of the last trap */
    struct hyp_guest_regs regs;
};
void hyp_vcpu_info(const struct hyp *hyp, uint32_t handle, uint32_t idx, struct hyp_vcpu_info *out);

struct hyp_cpu_info {
    bool finalized;
    uint32_t handle, vcpu_idx; /* of the loaded vcpu; handle 0: none */
};
void hyp_cpu_info(const struct hyp *hyp, unsigned cpu, struct hyp_cpu_info *out);

/*
 * Checks invariants I1..I12 of the page-state machine over all frames that EL2
 * has ever touched; calls report(ctx, text) for each violation.  Returns their
 * number.  Cost is proportional to the tables that exist, not to memory size.
 */
unsigned hyp_check(const struct hyp *hyp, void (*report)(void *ctx, const char *text), void *ctx);

#endif
