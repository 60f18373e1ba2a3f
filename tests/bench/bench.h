/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the benchmark share. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdint.h>

#include <fakehyp/fakehyp.h>

#define PAGE UINT64_C(4096)
#define PAIRS 11
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

_Noreturn void die(const char *what);
double now_us(void);
/* The medians of PAIRS values and floors (which it sorts), beside each other. */
void result(const char *name, const char *unit, double *values, double *floors, double goal);
/* A value that has a bound instead of a floor. */
void bounded(const char *name, const char *unit, double value, double bound);

/* guest.c */
void guest_aborts(struct fakehyp *fh);
void daemon_memory(struct fakehyp *fh);

#endif
