/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine for EL2 alone: RAM in an arena, one function a hypercall, and a log
 * of TLB maintenance.  The oracle judges every call, and hyp_check() follows it.
 *
 * RAM begins at EL2_BASE_PFN: memory, then a NOMAP region, then a gap, then
 * memory again.  EL2's pool is at the start.
 */
#ifndef TESTS_UNIT_EL2_HARNESS_H
#define TESTS_UNIT_EL2_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fakehyp/hyp.h"
#include "fakehyp/oracle/oracle.h"
#include "fakehyp/pkvm/internal.h"

#define EL2_BASE_PFN UINT64_C(0x80000)
#define EL2_TLBI_LOG 4096
#define EL2_MAX_VCPUS 4
#define EL2_IPA_BITS 40

struct el2_tlbi {
    uint16_t vmid;
    uint64_t ipa, nr;
};

enum el2_event { EL2_ZERO_PAGE, EL2_TLBI, EL2_YIELD };

struct el2 {
    struct hyp *hyp;
    uint8_t *ram;
    struct hyp_page *vmemmap;
    uint64_t nr_frames;
    struct hyp_memory_region memory[3];
    uint64_t nomap_pfn, gap_pfn, high_pfn; /* where the second region, the gap and the third region begin */
    uint64_t pool_nr;
    uint64_t text_pfn; /* where EL2's code is; 0: nowhere */
    uint64_t next_pfn; /* first frame that el2_frame() has not given out */
    struct el2_tlbi tlbi[EL2_TLBI_LOG];
    unsigned nr_tlbi;
    unsigned nr_zeroed, nr_yields;
    bool check; /* run hyp_check() after each call; on by default */
    struct oracle *oracle;
    bool relaxed; /* as in the options */
    size_t oracle_size;
    /* Hears what the oracle says; NULL: a divergence fails the test. */
    void (*on_divergence)(void *ctx, const char *line);
    void *divergence_ctx;
    bool inner_calls;  /* the test changes EL2's state by other ways than calls: the oracle takes it over before each */
    jmp_buf *on_panic; /* NULL: a panic fails the test */
    const char *panic;
    /* Called in the midst of EL2's calls, before the event is logged.  addr: the page, the IPA, or 0. */
    void (*watch)(void *ctx, enum el2_event event, uint16_t vmid, uint64_t addr, uint64_t nr);
    void *watch_ctx;
};

struct el2_vm {
    uint64_t handle;
    uint64_t host_kvm, vm_page, pgd; /* physical */
    uint64_t host_vcpu[EL2_MAX_VCPUS], vcpu_page[EL2_MAX_VCPUS];
    unsigned nr_vcpus;
};

struct el2_options {
    uint64_t nr_frames; /* default 4096 */
    bool one_region;    /* all of it is memory */
    uint64_t text_nr;   /* pages of EL2's code, after its pool */
    bool not_finalized; /* prot_finalize is still to come */
    /* The oracle judges what each call touches, and looks at the rest only where `check` is on. */
    bool relaxed;
};

/* Boots EL2 and opens pKVM's calls. */
struct el2 *el2_new(const struct el2_options *options);
void el2_free(struct el2 *el2);

/* The ways into EL2, as in hyp.h, each with all checks that are on. */
enum hyp_next el2_hvc(struct el2 *el2, unsigned cpu, uint64_t regs[8]);
enum hyp_next el2_trap(struct el2 *el2, unsigned cpu, const struct hyp_trap *trap, uint64_t regs[8]);
enum hyp_abort el2_abort(struct el2 *el2, unsigned cpu, uint64_t phys, bool is_write);

/* A transition below the calls, with the arguments of oracle_inner_begin(): judged as a call is. */
int el2_inner(struct el2 *el2, enum oracle_inner inner, uint64_t a1, uint64_t a2);

/* x1 of a dispatched call. */
int64_t el2_call(struct el2 *el2, unsigned cpu, enum hyp_host_call n, uint64_t a1, uint64_t a2, uint64_t a3,
                 uint64_t a4);
#define EL2_CALL_5(el2, n, a1, a2, a3, a4, ...)                                                                        \
    el2_call(el2, 0, HVC_##n, (uint64_t)(a1), (uint64_t)(a2), (uint64_t)(a3), (uint64_t)(a4))
#define EL2_CALL(...) EL2_CALL_5(__VA_ARGS__, 0, 0, 0, 0, 0)

void el2_check(struct el2 *el2);
void *el2_virt(struct el2 *el2, uint64_t phys);
/* A frame that nobody uses; `align` in pages. */
uint64_t el2_frames(struct el2 *el2, uint64_t nr, uint64_t align);
/* A zeroed page shared with EL2; its physical address. */
uint64_t el2_shared_page(struct el2 *el2);
bool el2_is_zero(struct el2 *el2, uint64_t phys);
void el2_fill(struct el2 *el2, uint64_t phys, uint8_t byte);
/* True if the log since nr_tlbi was cleared has a flush of this page (or of the whole vmid). */
bool el2_flushed(const struct el2 *el2, uint16_t vmid, uint64_t ipa);

/* Reserves, shares and initialises a VM with all of its vcpus. */
void el2_vm_new(struct el2 *el2, struct el2_vm *vm, bool is_protected, enum hyp_unshare_mode mode, unsigned nr_vcpus);
/* Everything but the pages of the guest, which must be gone: teardown, and checks that all donated pages are back and
 * zero. Returns their number. */
unsigned el2_vm_destroy(struct el2 *el2, struct el2_vm *vm);
struct kvm_host_vcpu *el2_host_vcpu(struct el2 *el2, const struct el2_vm *vm, unsigned idx);
/* Puts `nr` new frames on top of the host's memcache of a vcpu. */
void el2_topup(struct el2 *el2, const struct el2_vm *vm, unsigned idx, unsigned nr);

/* Runs the vcpu that is loaded on CPU 0; it must enter the guest. */
const struct hyp_guest_regs *el2_enter(struct el2 *el2, const struct el2_vm *vm, unsigned idx);
enum hyp_next el2_guest_hvc(struct el2 *el2, uint64_t x0, uint64_t x1, uint64_t x2, uint64_t x3);
enum hyp_next el2_guest_abort(struct el2 *el2, uint64_t ipa, bool is_write);

#define el2_assert_page(el2, pfn, host, hyp, count, pins)                                                              \
    el2_assert_page_at(el2, pfn, host, hyp, count, pins, __FILE__, __LINE__)
void el2_assert_page_at(struct el2 *el2, uint64_t pfn, enum hyp_page_state host, enum hyp_page_state hyp,
                        uint32_t count, uint16_t pins, const char *file, int line);
enum hyp_page_state el2_guest_state(struct el2 *el2, const struct el2_vm *vm, uint64_t gfn);

#endif
