/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the oracle share. */
#ifndef FAKEHYP_ORACLE_STATE_H
#define FAKEHYP_ORACLE_STATE_H

#include "fakehyp/oracle/oracle.h"

#define ORACLE_ENTRIES 512u
#define ORACLE_LEAF_LEVEL 3
#define CHUNK 512u /* frames that are passed over together while all of them are plain */

/* ---- descriptors (VMSAv8-64 stage 2, 4 KiB granule; read.c) ---- */

#define PTE_VALID UINT64_C(0x1)
#define PTE_TABLE_OR_PAGE UINT64_C(0x2)
#define PTE_READ UINT64_C(0x40)
#define PTE_WRITE UINT64_C(0x80)
#define PTE_ACCESSED UINT64_C(0x400)
#define PTE_NO_EXEC UINT64_C(0x0060000000000000) /* both bits; 10 is "nobody" */
#define PTE_SOFTWARE UINT64_C(0x0780000000000000)
#define PTE_OUTPUT UINT64_C(0x0000fffffffff000)
#define PTE_POISONED UINT64_C(0x3000000000000000)
#define PTE_OF_EL2 UINT64_C(0x2000000000000002)

/* A stage-2 tree. */
struct tree {
    uint64_t pgd;
    unsigned ipa_bits;
    uint16_t vmid;
    uint64_t nr_tables; /* in the copy, PGD included */
};

struct leaf {
    uint64_t base; /* first IPA that the entry translates */
    uint64_t pte;
    int level;
};

/* ---- the abstract state ---- */

enum el2_state { EL2_NOTHING = 0, EL2_OWNS, EL2_BORROWS };

/* All zero: plain host memory. */
struct frame {
    uint64_t gfn : 40;    /* while a guest owns it */
    uint64_t handle : 24; /* of that guest; of EL2's page the VM for which it was donated, 0 for the carve-out */
    uint32_t count;       /* leaves of np-guests */
    uint16_t pins;
    uint8_t host;               /* enum hyp_page_state */
    uint8_t el2 : 4, owner : 4; /* enum el2_state; enum hyp_owner */
};
_Static_assert(sizeof(struct frame) == 16, "frames are many");

enum guest_wait { WAIT_NOTHING = 0, WAIT_ANSWER, WAIT_CONSENT };

struct vcpu {
    bool exists, loaded;
    enum guest_wait wait;
    uint64_t page, host_vcpu; /* physical */
    uint64_t nr_cached;       /* pages in its memcache */
    uint64_t esr, hpfar;
    struct hyp_guest_regs regs;
};

struct vm {
    bool reserved, exists, is_protected, is_dying;
    enum hyp_unshare_mode mode;
    uint32_t handle, nr_vcpus, nr_loaded;
    uint64_t page, host_kvm;
    struct tree tree;
    uint64_t nr_mapped;  /* pages that leaves map */
    uint64_t nr_donated; /* pages for tables: PGD and what came through memcaches */
    uint64_t nr_cached;  /* of these in the vcpus' memcaches */
    struct vcpu *vcpus;  /* HYP_VM_MAX_VCPUS of them */
};

struct cpu {
    bool finalized;
    struct vm *vm; /* of the loaded vcpu, or NULL */
    uint32_t idx;
};

/* ---- what happens in a call ---- */

/* A page whose address EL2 asked for: what it held then. */
struct look {
    uint64_t page; /* physical */
    uint64_t epoch;
    uint64_t words[10];
};
#define MAX_LOOKS 65536u /* a power of two */

enum event_kind { EVENT_FLUSH, EVENT_ZERO, EVENT_WINDOW };
struct event {
    enum event_kind kind;
    uint16_t vmid;
    uint64_t addr, nr;
    bool broken;          /* flush: the entry for addr was invalid then */
    uint64_t host, guest; /* entries of the page and IPA that are watched, 0 when none are */
};
#define MAX_EVENTS 65536u

/* What the specification does to the leaves of one guest: a call changes one range at most. */
enum leaf_change { LEAVES_SAME, LEAVES_MAP, LEAVES_UNMAP, LEAVES_POISON, LEAVES_BITS };
struct guest_change {
    enum leaf_change what;
    struct vm *vm;
    uint64_t gfn, nr;
    uint64_t pte;        /* LEAVES_MAP: the leaf at gfn */
    uint64_t set, clear; /* LEAVES_BITS: of each valid leaf */
    bool flush;          /* LEAVES_BITS: in place, but flushed after it */
};

enum call_kind { CALL_HVC, CALL_TRAP, CALL_ABORT, CALL_INNER, CALL_NONE };
struct call {
    enum call_kind kind;
    unsigned cpu;
    uint64_t n; /* number of a host call, or enum oracle_inner */
    uint64_t in[8];
    struct hyp_trap trap;
    bool is_write;
    /* results: x0, x1, and what comes next (enum hyp_next or enum hyp_abort) */
    int next;
    uint64_t out[8];
};

/* What the specification says of this call. */
struct expectation {
    int next;
    uint64_t x0, x1;
    struct guest_change guest;
    bool flush_vmid; /* the whole VM of `flushed` */
    uint16_t flushed;
    /* One page that must be zeroed in the call, or 0 */
    uint64_t zero;
    /* Revoke before grant: see order.c */
    enum { ORDER_NONE, ORDER_HOST_TO_GUEST, ORDER_GUEST_TO_HOST, ORDER_BORROWED_BACK } order;
    uint64_t order_ipa;
    uint16_t order_vmid;
    uint64_t order_page;
    bool alive;    /* the guest may run while the page changes hands */
    struct vm *vm; /* touched, to be compared */
    struct vcpu *vcpu;
    uint64_t refilled; /* host_vcpu page whose memcache head was written, 0: none */
    struct hyp_memcache rest;
    uint64_t exit_to; /* host_vcpu page with an exit record, 0: none */
    struct kvm_host_vcpu exit;
    struct vm *ended; /* finalize: its pages came back */
};

struct changed_frame {
    uint64_t pfn;
    struct frame before;
};
#define MAX_CHANGED 65536u

/* One line of a report, while pages that read the same are gathered. */
struct finding {
    const char *what;    /* NULL: none */
    const struct vm *vm; /* of which guest; NULL: the host */
    bool is_leaf;
    uint64_t start, nr;
    struct frame frame[3]; /* before, specified, found */
    struct leaf leaf[3];
};
#define MAX_FINDINGS 64u

struct oracle {
    struct hyp *hyp;
    struct hyp_platform plat; /* the machine's */
    struct oracle_options options;
    struct hyp_memory_region memory[HYP_MAX_REGIONS];
    unsigned nr_memory, pa_bits, nr_cpus;
    const struct hyp_page *records; /* EL2's */
    uint64_t base_pfn, nr_frames;
    uint64_t pool_pfn, pool_nr, text_pfn, text_nr;
    struct frame *frames;
    uint8_t *used; /* for each 512 frames: one of them was not plain host memory once */
    char *copies;  /* of table pages, at the place that the frame has */

    struct tree host;
    bool finalized;
    struct vm vms[HYP_MAX_VMS];
    struct vcpu vcpus[HYP_MAX_VMS][HYP_VM_MAX_VCPUS];
    struct cpu cpus[HYP_MAX_CPUS];

    bool in_call, panicked, judge_inner;
    bool everything; /* compare all tables, whether EL2 looked at them or not */
    uint64_t epoch;
    struct call call;
    struct expectation expect;
    struct look looks[MAX_LOOKS];
    uint32_t look_at[MAX_LOOKS / 2]; /* where those of this call are */
    unsigned nr_looks;
    struct event events[MAX_EVENTS];
    unsigned nr_events;
    bool too_much;
    uint64_t watch_page, watch_ipa; /* phys and IPA whose entries each event records */
    struct vm *watch_vm;
    struct changed_frame changed[MAX_CHANGED];
    unsigned nr_changed;

    bool diverged; /* this call */
    struct finding findings[MAX_FINDINGS];
    unsigned nr_findings;
    unsigned nr_lines;
    uint64_t nr_more;
    struct oracle_stats stats;
};

/* ---- read.c: EL2's records and tables, and their copies ---- */

enum source { BEFORE, NOW }; /* the copy, or EL2's memory */

static inline bool o_tracked(const struct oracle *o, uint64_t pfn)
{
    return pfn >= o->base_pfn && pfn - o->base_pfn < o->nr_frames;
}

static inline const uint64_t *o_page_now(const struct oracle *o, uint64_t page)
{
    return hyp_phys_to_virt(&o->plat, page);
}

static inline uint64_t *o_copy_of(const struct oracle *o, uint64_t page)
{
    return (uint64_t *)(void *)(o->copies + (page - o->base_pfn * HYP_PAGE_SIZE));
}

static inline uint64_t o_granule(int level)
{
    return HYP_PAGE_SIZE << 9 * (ORACLE_LEAF_LEVEL - level);
}

static inline bool o_is_table(uint64_t pte, int level)
{
    return level < ORACLE_LEAF_LEVEL && (pte & (PTE_VALID | PTE_TABLE_OR_PAGE)) == (PTE_VALID | PTE_TABLE_OR_PAGE);
}

unsigned o_tree_start_level(const struct tree *tree);
uint64_t o_nr_pgd_pages(const struct tree *tree);
bool o_in_tree(const struct tree *tree, uint64_t gfn, uint64_t nr);
void o_walk(const struct oracle *o, const struct tree *tree, enum source source, uint64_t ipa, struct leaf *leaf);
/* EL2's code: it owns it, and the host may read it. */
static inline bool o_is_text(const struct oracle *o, uint64_t pfn)
{
    return pfn >= o->text_pfn && pfn - o->text_pfn < o->text_nr;
}

/* What EL2's record and the host's table say of a frame now. */
struct frame o_frame_now(const struct oracle *o, uint64_t pfn);
/* Entry for what the host has mapped: RAM, a device, or EL2's code. */
uint64_t o_host_entry(const struct oracle *o, uint64_t base, int level);
/* Entry for a page that is somebody else's. */
uint64_t o_lost_entry(const struct oracle *o, uint64_t pfn);
uint64_t o_guest_entry(uint64_t phys, uint64_t prot, enum hyp_page_state state, int level);
enum hyp_page_state o_guest_state(uint64_t pte);
uint64_t o_output(const struct leaf *leaf, uint64_t ipa);

struct range {
    uint64_t start, end; /* pfns */
    bool memory, nomap;  /* neither: a gap */
};
struct range o_range_of(const struct oracle *o, uint64_t pfn);

/* The words that EL2 saw at the start of this page. */
void o_seen(const struct oracle *o, uint64_t page, void *out, size_t size);
bool o_was_seen(const struct oracle *o, uint64_t page);

/* ---- spec_*.c ---- */

struct frame o_frame_of(const struct oracle *o, uint64_t pfn);
/* The frame's record to be changed; its value before is kept for the report. */
struct frame *o_change_frame(struct oracle *o, uint64_t pfn);
int o_check_memory(const struct oracle *o, uint64_t pfn, uint64_t nr);
int o_check_pfns(const struct oracle *o, uint64_t pfn, uint64_t nr);
int o_check_host(const struct oracle *o, uint64_t pfn, uint64_t nr, enum hyp_page_state state);
int o_check_el2(const struct oracle *o, uint64_t pfn, uint64_t nr, enum el2_state state);
int o_check_pin(const struct oracle *o, uint64_t pfn);
int o_check_donate_el2(const struct oracle *o, uint64_t pfn, uint64_t nr);
void o_to_el2(struct oracle *o, uint64_t pfn, uint64_t nr, uint32_t handle);
void o_to_host(struct oracle *o, uint64_t pfn);
struct vm *o_vm_of(struct oracle *o, uint64_t handle);
struct vcpu *o_vcpu_on(struct oracle *o, unsigned cpu);

int64_t spec_host_may_access(const struct oracle *o, uint64_t pfn);
int64_t spec_host_share_hyp(struct oracle *o, uint64_t pfn);
int64_t spec_host_unshare_hyp(struct oracle *o, uint64_t pfn);
int64_t spec_refill(struct oracle *o, struct vm *vm, struct vcpu *vcpu);
int64_t spec_donate_guest(struct oracle *o, unsigned cpu, uint64_t pfn, uint64_t gfn);
int64_t spec_share(struct oracle *o, struct vm *vm, const struct vcpu *vcpu, uint64_t pfn, uint64_t gfn, uint64_t nr,
                   uint64_t prot);
int64_t spec_share_guest(struct oracle *o, unsigned cpu, uint64_t pfn, uint64_t gfn, uint64_t nr, uint64_t prot);
int64_t spec_unshare_guest(struct oracle *o, uint64_t handle, uint64_t gfn, uint64_t nr);
int64_t spec_relax_perms(struct oracle *o, unsigned cpu, uint64_t gfn, uint64_t prot);
int64_t spec_wrprotect(struct oracle *o, uint64_t handle, uint64_t gfn, uint64_t nr);
int64_t spec_test_clear_young(struct oracle *o, uint64_t handle, uint64_t gfn, uint64_t nr, bool mkold);
int64_t spec_mkyoung(struct oracle *o, unsigned cpu, uint64_t gfn);
int64_t spec_guest_share(struct oracle *o, struct vm *vm, uint64_t gfn);
int64_t spec_guest_unshare(struct oracle *o, struct vm *vm, uint64_t gfn, bool commit);
int64_t spec_force_reclaim(struct oracle *o, uint64_t phys);
int64_t spec_reclaim(struct oracle *o, struct vm *vm, uint64_t gfn);
int64_t spec_reclaim_dying(struct oracle *o, uint64_t handle, uint64_t gfn);
int64_t spec_poison_fault(struct oracle *o, unsigned cpu);
int64_t spec_reserve_vm(struct oracle *o, int64_t got);
void spec_unreserve_vm(struct oracle *o, uint64_t handle);
int64_t spec_init_vm(struct oracle *o, uint64_t host_kvm, uint64_t vm_page, uint64_t pgd);
int64_t spec_init_vcpu(struct oracle *o, uint64_t handle, uint64_t host_vcpu, uint64_t vcpu_page);
int64_t spec_start_teardown(struct oracle *o, uint64_t handle);
int64_t spec_finalize_teardown(struct oracle *o, uint64_t handle);
void spec_vcpu_load(struct oracle *o, unsigned cpu, uint64_t handle, uint64_t idx);
void spec_vcpu_put(struct oracle *o, unsigned cpu);
int64_t spec_vcpu_run(struct oracle *o, unsigned cpu, uint64_t host_vcpu);
void spec_inner(struct oracle *o);
void spec_host_call(struct oracle *o);
void spec_guest_trap(struct oracle *o);
void spec_host_abort(struct oracle *o);

/* ---- compare.c, tables.c, order.c ---- */

/* That nothing has changed since the last call: everything in strict mode, else what the call names. */
void o_compare_before(struct oracle *o);
void o_compare_after(struct oracle *o);
void o_compare_all(struct oracle *o);
void o_compare_all_frames(struct oracle *o);
/* adopt.c, tables.c: takes over what EL2 has, unseen. */
void o_adopt(struct oracle *o);
void o_adopt_tree(struct oracle *o, struct tree *tree, uint32_t handle);
/* Finds what has changed in the tables, judges it and brings the copies up to date. */
void o_compare_tables(struct oracle *o);
void o_judge_host_leaf(struct oracle *o, uint64_t pfn);
bool o_flushed(const struct oracle *o, uint16_t vmid, uint64_t ipa, uint64_t size, bool broken);
/* A flush while the guest's entry that is watched was this one. */
bool o_flushed_with(const struct oracle *o, uint16_t vmid, uint64_t ipa, uint64_t size, uint64_t pte);
void o_judge_order(struct oracle *o);
void o_check_invariants(struct oracle *o);

/* ---- report.c ---- */

/* A sentence about this call and a value that is not as specified. */
void o_diverge(struct oracle *o, const char *what, const char *name, uint64_t expected, uint64_t got);
void o_diverge_frame(struct oracle *o, const char *what, uint64_t pfn, const struct frame *before,
                     const struct frame *expected, const struct frame *got);
void o_diverge_leaf(struct oracle *o, const char *what, const struct vm *vm, const struct leaf *before,
                    const struct leaf *expected, const struct leaf *got);
void o_end_report(struct oracle *o);
void o_say_unjudged(struct oracle *o);

#endif
