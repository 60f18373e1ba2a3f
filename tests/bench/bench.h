/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the benchmark share. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <fakehyp/fakehyp.h>

#define PAGE UINT64_C(4096)
#define PAIRS 11
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

_Noreturn void die(const char *what);
double now_us(void);
/* To a private daemon, which the rows share. */
struct fakehyp *daemon_connection(void);

/* ---- rows (bench.c) --------------------------------------------------------------------------------------------- */

/* False: the user asked for other rows.  A row that is not wanted may be reported all the same: it is passed over. */
bool wanted(const char *name);
/* The medians of PAIRS values and floors (which it sorts), beside each other; goal: the ratio that is to be reached. */
void result(const char *name, const char *unit, double *values, double *floors, double goal);
/* A value that has a bound, the goal, instead of a floor. */
void bounded(const char *name, const char *unit, double value, double goal);
/* A row that cannot be measured here. */
void absent(const char *name, const char *unit, double goal, const char *why);

/* ---- what is measured ------------------------------------------------------------------------------------------- */

/* vmm.c */
void vmm_rows(uint64_t bulk);
/* A request that the daemon answers without doing anything, and REGISTER or UNREGISTER of a range as the agent does it:
 * microseconds. */
double round_trip(struct fakehyp_gmem *gmem, uint64_t attributes);
double registration(uint64_t size, bool on);

/* guest.c */
void guest_rows(void);
/* A guest that touches a fresh batch of pages of its VM whenever it is told to. */
struct lap;
struct bench_vm {
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    struct fakehyp_vcpu *vcpu;
};
struct lap *lap_new(unsigned pages);
void lap_free(struct lap *lap);
/* Microseconds a page of the next of PAIRS batches. */
double lap_next(struct lap *lap);
void guest_start(struct bench_vm *b, struct fakehyp *fh, struct lap *lap);
void guest_stop(struct bench_vm *b);

/* memory.c */
void memory_rows(void);

/* el2.c */
void el2_rows(void);
/* The hidden program that is run under callgrind: shares and unshares a page n times. */
int el2_share_main(unsigned n);
/* Microseconds of one call into EL2 that changes the state of a page. */
double el2_call_us(void);

#endif
