/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine: CPUs, RAM, the MMU and its invalidation queue, the trace, and
 * EL1 and EL2 booted on it.  One struct machine is one emulated computer; it
 * belongs to one thread and holds no global state.
 */
#ifndef SRC_MACHINE_MACHINE_H
#define SRC_MACHINE_MACHINE_H

#include "fakehyp/oracle/oracle.h"
#include "src/machine/stage.h"
#include "src/machine/task.h"
#include "src/machine/trace.h"

/* What follows from a divergence of EL2 from its specification. */
enum machine_oracle {
    MACHINE_ORACLE_PANIC, /* it is logged, and the machine stands still as after a panic of EL2 */
    MACHINE_ORACLE_ON,    /* it is logged and counted */
    MACHINE_ORACLE_OFF,   /* nobody looks */
};

struct machine_config {
    const struct stage_ops *stage;
    void *stage_ctx;
    uint64_t memory_bytes; /* emulated RAM; only what is used costs */
    size_t trace_events;   /* that the trace remembers; 0: 65536 */
    struct sched_config sched;
    enum machine_oracle oracle;
    FILE *trace_file;                                    /* JSON lines; may be NULL; the caller's */
    void (*log)(void *ctx, int level, const char *text); /* may be NULL */
    void *log_ctx;
};

/* -ENOMEM, -EINVAL (memory size), -EIO (EL2 did not boot). */
int machine_new(const struct machine_config *config, struct machine **out);
/* All VMs, files and tasks must be gone. */
void machine_free(struct machine *machine);

struct host *machine_host(const struct machine *machine);
struct sched *machine_sched(const struct machine *machine);
struct hyp *machine_hyp(const struct machine *machine);
struct trace *machine_trace(const struct machine *machine);
const char *machine_stage_name(const struct machine *machine);
/* Non-NULL once EL2 has panicked: why.  Everything is refused from then on. */
const char *machine_panicked(const struct machine *machine);
/* False, and all zero, without the oracle. */
bool machine_oracle_stats(const struct machine *machine, struct oracle_stats *out);
uint64_t machine_el2_pages(const struct machine *machine); /* host pages that EL2 holds */

struct mfile *machine_file(const struct gmem *gmem);
void machine_record(struct machine *machine, const struct host_event *event);

/* ---- what a stage tells the machine --------------------------------------------------------------------------- */

/* The guest code of a vcpu trapped; its task goes on with it.  Ignored when the vcpu is not in vcpu_run(). */
void machine_guest_trap(struct vcpu *vcpu, const struct hyp_trap *trap);
/* True while the vcpu is inside vcpu_run() and executes guest code. */
bool machine_vcpu_in_guest(const struct vcpu *vcpu);

/* Who in the host accesses a frame. */
struct host_access {
    uint64_t pfn;
    bool write;
    bool el1;     /* the kernel, else a process */
    bool fixup;   /* el1: by an instruction of the exception table */
    uint32_t pid; /* not el1 */
};
/* (task) Stage 2 does not translate the access: EL2 maps the page, or injects an abort that EL1 answers. */
enum host_abort_end machine_host_abort(struct machine *machine, const struct host_access *access);

/* ---- the MMU --------------------------------------------------------------------------------------------------- */

/* A walk as the hardware does it, over the real descriptors. */
struct s2_walk {
    bool valid;     /* a leaf maps the page */
    bool annotated; /* invalid but not zero */
    int level;
    uint64_t pte, pfn; /* pfn of the 4K page, inside a block too */
};
void mmu_walk_guest(const struct machine *machine, uint32_t handle, uint64_t gfn, struct s2_walk *out);
void mmu_walk_host(const struct machine *machine, uint64_t pfn, struct s2_walk *out);

/* Effective access of the host to a page of a file: stage 1 (attribute) ∩ stage 2. */
bool mmu_host_reaches(const struct mfile *file, uint64_t index);
/* On which side the machine has put the page's bytes, as a range: [start, end) pages. */
struct gmem_range mmu_side(const struct mfile *file, uint64_t index); /* .private: not on the host's side */
/* A change of side of some page is under way: until it ends, bytes may be nobody's. */
bool mmu_side_moving(const struct mfile *file);
/* Number of such ranges in the file. */
size_t mmu_nr_sides(const struct mfile *file);

/*
 * Compares every table with every other: sides with effective access, EL2's
 * invariants, EL1's counts.  Calls report for each problem; returns how many.
 */
unsigned machine_audit(struct machine *machine, void (*report)(void *ctx, const char *text), void *ctx,
                       uint64_t *pages_checked);

#endif
