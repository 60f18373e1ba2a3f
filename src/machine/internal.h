/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the machine share with each other. */
#ifndef SRC_MACHINE_INTERNAL_H
#define SRC_MACHINE_INTERNAL_H

#include <setjmp.h>

#include "src/host/rangemap.h"
#include "src/machine/machine.h"

#define MACHINE_RAM_BASE UINT64_C(0x80000000)
#define NR_CPUS 1024u

/* CPU 0 runs what has no vcpu; the others each serve one vcpu_run(). */
struct mcpu {
    struct vcpu *vcpu;
};

struct mvcpu {
    struct vcpu *vcpu;
    bool in_guest;
    bool entered; /* `last` is valid: what the guest waits for */
    bool trap_pending;
    struct hyp_trap trap, last;
    struct waitq wq;
};

/* One guest_memfd: what the stage was told. */
struct mfile_state {
    struct mfile file; /* first: stages get a pointer to it */
    /* Exclusive while the stage changes sides; after prepare() until commit(). */
    struct task_lock lock;
    uint64_t prepared_by; /* task that holds the lock between prepare() and commit(), 0 none */
    struct rangemap side; /* SIDE_GUEST / SIDE_HOST, as the stage has it */
    struct mfile_state *next, *prev;
};
#define SIDE_GUEST 0u
#define SIDE_HOST 1u

/* Invalidation queue: what EL2's tlbi calls left to be looked at. */
struct inval {
    uint16_t vmid;
    uint64_t ipa, nr_pages; /* nr 0: all of the vmid */
};

struct machine {
    struct machine_config config;
    struct sched *sched;
    struct trace *trace;
    struct host *host;
    struct hyp *hyp;
    struct oracle *oracle; /* NULL: off */
    size_t oracle_bytes;
    void (*oracle_listener)(void *ctx, const char *line); /* NULL: the log */
    void *oracle_listener_ctx;
    struct hyp_page *vmemmap;
    char *ram; /* host-private RAM, PFN == slot */
    uint64_t ram_base, ram_bytes;
    uint64_t pool_pfn;
    struct task_lock el2_lock;
    struct mcpu cpus[NR_CPUS];
    struct mfile_state *files;
    struct inval *invals;
    size_t nr_invals, cap_invals;
    bool inval_everything; /* the queue could not grow */
    bool panicked;
    char panic_text[200];
    jmp_buf panic_jump;
};

/* ---- machine.c ---- */
void machine_log(struct machine *machine, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- cpu.c ---- */
int64_t cpu_hvc(void *ctx, unsigned cpu, uint64_t number, const uint64_t args[4]);
int cpu_get(void *ctx, struct vcpu *vcpu);
void cpu_put(void *ctx, unsigned cpu);
void cpu_vcpu_free(void *ctx, struct vcpu *vcpu);
/* Boots EL2 on this machine's RAM. */
int cpu_boot_el2(struct machine *machine);

/* ---- oracle.c ---- */
/* Puts the oracle into EL2's configuration, unless it is off: 0 or -ENOMEM. */
int oracle_open(struct machine *machine, struct hyp_config *config);
void oracle_close(struct machine *machine);
/* The ways into EL2. */
enum hyp_next el2_hvc(struct machine *machine, unsigned cpu, uint64_t regs[8]);
enum hyp_next el2_trap(struct machine *machine, unsigned cpu, const struct hyp_trap *trap, uint64_t regs[8]);
enum hyp_abort el2_abort(struct machine *machine, unsigned cpu, uint64_t phys, bool is_write);
/* Has the oracle compare everything; what it finds goes to report.  Returns the divergences that calls had. */
uint64_t oracle_look(struct machine *machine, void (*report)(void *ctx, const char *line), void *ctx);

/* ---- mmu.c ---- */
void mmu_invalidate(struct machine *machine, uint16_t vmid, uint64_t ipa, uint64_t nr_pages);
/* Task: carries out what the queue asks for; returns when it is empty. */
void mmu_drain(struct machine *machine);

/* ---- file.c: host_arch's file operations ---- */
int file_create(void *ctx, struct gmem *gmem, bool init_shared, void **file);
void file_destroy(void *ctx, void *file);
int file_prepare(void *ctx, void *file, uint64_t start, uint64_t end, bool to_shared, struct caller *caller);
void file_commit(void *ctx, void *file, uint64_t start, uint64_t end);
bool file_populated(void *ctx, void *file, uint64_t start, uint64_t end, uint64_t *first, uint64_t *past);
int file_allocate(void *ctx, void *file, uint64_t start, uint64_t end);
void file_orphan(void *ctx, void *file, uint64_t index, uint64_t pfn);
void file_forget(void *ctx, uint64_t pfn);
void file_discard(void *ctx, void *file, uint64_t start, uint64_t end);
int file_copy(void *ctx, uint64_t to_pfn, uint64_t from_pfn);
void file_fill(void *ctx, void *file, uint64_t index, uint8_t byte);

#endif
