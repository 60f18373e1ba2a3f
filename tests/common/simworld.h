/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small simulated world for tests: one protected VM with one vCPU, a
 * 16-page guest_memfd (MMAP|INIT_SHARED) bound at gpa 0, and a VMM process
 * that has it mapped and runs the vCPU, converting as the guest asks.
 */
#ifndef TESTS_COMMON_SIMWORLD_H
#define TESTS_COMMON_SIMWORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/machine/sim.h"

struct simworld {
    struct sim *sim;
    struct machine *machine;
    struct caller caller;
    struct vm *vm;
    struct vcpu *vcpu;
    struct gmem *gmem;
    struct mm *mm;
    uint64_t va;
    bool unilateral;
    bool convert_on_exit; /* the VMM follows MEM_SHARE and MEM_UNSHARE */
    int last_convert;
    struct gmem_busy busy;
    unsigned memory_faults;
    int run_rc;
    struct run_record run;
    bool vmm_done;
    void (*body)(struct simworld *world);
    bool finished;
    bool bare, no_vmm, unprotected;
    struct vm_config variant;
    unsigned nr_vcpus;
    const char *stop_label;
    struct task *stopped; /* at the point that sw_stop_at() named */
};

struct simworld_options {
    void (*body)(struct simworld *world);
    bool bare;      /* the machine only: what the body builds in vm, gmem and mm is taken down after it */
    bool no_vmm;    /* nobody runs the vCPU but the body */
    bool no_oracle; /* EL2's records are damaged on purpose, which an oracle does not forget */
    bool unprotected, unilateral;
    struct vm_config variant; /* policy, tracker, hyp, abi, bugs... of the VM */
    unsigned nr_vcpus;        /* 0: 1 */
    uint64_t memory_bytes;    /* 0: 64 MiB */
};
void simworld_run_with(const struct simworld_options *options);

/* Runs body in a task of a fresh world; afterwards everything is torn down, audited and counted. */
void simworld_run(void (*body)(struct simworld *world), bool unilateral);

int sw_convert(struct simworld *world, uint64_t page, uint64_t nr, bool to_private);

/* Also audits: after each step every table must agree with every other. */
#define sw_must(call, expected)                                                                                        \
    do {                                                                                                               \
        assert_int_equal(call, expected);                                                                              \
        sw_audit(w);                                                                                                   \
    } while (0)
void sw_audit(struct simworld *world);

/* Everything that a failed call must leave alone: attributes, sides, folios with their counts, conversion history. */
uint64_t sw_hash(const struct gmem *gmem);

/* The next task but the body's own that comes to the schedule point stops there: sw_settle() until `stopped` is set. */
void sw_stop_at(struct simworld *world, const char *label);
void sw_go(struct simworld *world);
/* Lets the other tasks run as far as they get. */
void sw_settle(struct simworld *world);

/* Work for a task of its own. */
struct sw_job {
    struct simworld *w;
    uint64_t page, nr;
    bool to_private, write, done;
    int rc;
    enum sim_access access;
    char byte;
    struct gmem_busy busy;
    struct caller caller;
};
void sw_spawn(struct simworld *world, void (*fn)(void *arg), void *arg);
void sw_convert_job(void *job); /* [page, page + nr) to_private: rc, busy */
void sw_touch_job(void *job);   /* the VMM reads or writes one byte of `page`: access, byte */

#define SIMWORLD_TEST(name, unilateral)                                                                                \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        simworld_run(name, unilateral);                                                                                \
    }

/* The same with options: SIMWORLD(name, .bare = true). */
#define SIMWORLD(name, ...)                                                                                            \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        simworld_run_with(&(struct simworld_options){.body = name, __VA_ARGS__});                                      \
    }

#endif
