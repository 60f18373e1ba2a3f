/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The world of a scenario in simulation: a machine with its clock, and the
 * actors, files, views and pins that the script knows by number.
 *
 * A verb is `void sim_ACTOR_VERB(struct sc_sim *w, const struct sc_call *c,
 * struct sc_verdict *v)`.  It runs in a task of the machine and may wait; the
 * verdict is zeroed before it, and sc_rc(), sc_word(), sc_field() fill it.
 */
#ifndef SRC_SCENARIO_SIM_WORLD_H
#define SRC_SCENARIO_SIM_WORLD_H

#include "src/host/library.h"
#include "src/machine/sim.h"
#include "src/scenario/stage.h"

#define SIM_MAX_PROCESSES 16
#define SIM_MAX_VIEWS 64
#define SIM_MAX_FILES 8
#define SIM_MAX_VMS 4
#define SIM_MAX_PINS 1100
#define SIM_MAX_PIPES 16
#define SIM_MAX_DEVICES 8
#define SIM_MAX_REFS 8
#define SIM_MAX_FAILED 16

struct sim_process {
    char name[32];
    struct mm *mm; /* NULL: it has exited */
    unsigned cpu;
    struct caller caller;
};

struct sim_view {
    int process, file; /* process -1: unmapped */
    uint64_t va, page, nr;
};

struct sim_file {
    struct gmem *gmem;
};

enum sim_insn { SIM_INSN_READ, SIM_INSN_WRITE, SIM_INSN_HVC };

/* A vCPU: the VMM's thread that runs it, and the guest's instruction. */
struct sim_vcpu {
    struct sc_sim *w;
    int vm;
    struct vcpu *vcpu; /* NULL: there is none */
    struct sc_op *op;  /* on whose behalf it runs now */

    struct task *thread, *insn_task;
    struct waitq wanted; /* by the thread */
    struct waitq news;   /* by who gave the instruction */
    bool resume, running, exited, leave, thread_alive;
    int rc;
    struct run_record run;

    enum sim_insn insn;
    uint64_t gpa, number, x2;
    char bytes[SC_BYTES];
    size_t length;
    bool executing;
    int insn_rc;
    int64_t result;
};

struct sim_vm {
    struct vm *vm; /* NULL: destroyed */
    unsigned nr_vcpus;
    struct sim_vcpu vcpu[SC_MAX_VCPUS];
};

struct sim_pin {
    struct ref *ref; /* NULL: dropped */
    int process;
};

/* References of the kernel's own. */
struct sim_refs {
    struct ref **ref;
    uint64_t nr;
};

/* A grab of the library. */
struct sim_grab {
    struct ref *ref; /* NULL: put */
    bool accessible;
};

struct sc_sim {
    struct sc_world_config config;
    int variant[VARIANT_BUG]; /* by enum variant_kind */
    uint64_t bugs, now;
    struct sim *sim;
    struct machine *machine;
    FILE *trace; /* of the machine, NULL: none is wanted */
    bool follow;
    char log[320]; /* the first line that the machine said */

    unsigned nr_processes, nr_views, nr_files, nr_vms, nr_pins, nr_pipes;
    struct sim_process process[SIM_MAX_PROCESSES];
    struct sim_view view[SIM_MAX_VIEWS];
    struct sim_file file[SIM_MAX_FILES];
    struct sim_vm vm[SIM_MAX_VMS];
    struct sim_pin pin[SIM_MAX_PINS];
    unsigned nr_grabs;
    struct sim_grab grab[SIM_MAX_PINS];
    struct pipe *pipe[SIM_MAX_PIPES];
    unsigned nr_devices, nr_refs, nr_failed;
    struct device *device[SIM_MAX_DEVICES];
    struct sim_refs refs[SIM_MAX_REFS];
    uint64_t failed[SIM_MAX_FAILED]; /* frames that were poisoned */

    struct sc_op *ops;
    struct storm *storm; /* while one is on */
};

/* (task) At each schedule point: in a storm it may be another's turn. */
void sim_storm_point(struct sc_sim *w, const char *label);

/* The number of a handle is its place + 1, so that 0 can say "none". */

/* Adds one: its number, or -1 after sc_broken(). */
int sim_add_process(struct sc_sim *w, const char *name, struct sc_verdict *v);
/* The same without an address space yet. */
int sim_new_process(struct sc_sim *w, const char *name, struct sc_verdict *v);
int sim_add_view(struct sc_sim *w, int process, int file, uint64_t page, uint64_t nr, struct sc_verdict *v);

/* (task) The end of devices, of the kernel's references and of failed memory, before that of the files. */
void sim_model_end(struct sc_sim *w);

/* After a process may have died: what it held is no handle any more. */
void sim_forget_dead(struct sc_sim *w);

/* The things that a call names, or NULL after sc_broken(). */
struct sim_process *sim_self_process(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v);
struct gmem *sim_file_of(struct sc_sim *w, int64_t number, struct sc_verdict *v);
/* Address of a page in the process `self`: view 0: in its first view that has the page. */
bool sim_address(struct sc_sim *w, const struct sc_call *c, int64_t page, int64_t view, uint64_t *va,
                 struct sc_verdict *v);

/* (task) The call that runs now. */
struct sc_op *sim_op_now(struct sc_sim *w);
/* How an access ended, as a verdict. */
void sim_access_word(struct sc_verdict *v, enum sim_access end);
/* The holders of a busy page, with the names of their processes. */
void sim_holders(const struct sc_sim *w, struct sc_verdict *v, const struct holder_info *holders, unsigned nr);
/* A conversion by a process, its verdict with holders; of one that has ended. */
void sim_convert(struct sc_sim *w, struct sim_process *p, struct gmem *gmem, const struct gmem_attributes2 *attr,
                 struct sc_verdict *v);
void sim_converted(struct sc_sim *w, const struct sim_process *p, int rc, const struct gmem_busy *busy,
                   struct sc_verdict *v);

/*
 * One call after the other, step by step.  sim_op_can() says whether one that
 * was started can go on; sim_op_step() takes it to its next schedule point,
 * its end or a wait; sim_pass_time() ends the first wait that has a time.
 */
bool sim_op_can(const struct sc_op *op);
enum sc_progress sim_op_step(struct sc_op *op);
bool sim_pass_time(struct sc_sim *w);

struct vm_config sim_vm_config(const struct sc_sim *w);
/* Starts the VMM's threads of a VM; joins them once the VM is gone. */
bool sim_vm_threads(struct sc_sim *w, int vm);
void sim_vm_join(struct sc_sim *w, int vm);

#define X(actor, name, sig, say, result, stage, live, meaning)                                                         \
    void sim_##actor##_##name(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v);
SC_VERBS(X)
#undef X

#endif
