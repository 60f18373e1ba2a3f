/* SPDX-License-Identifier: BSD-2-Clause */
/* What the threads of a load's VMM share. */
#ifndef TESTS_COMMON_LIVE_LOAD_VMM_H
#define TESTS_COMMON_LIVE_LOAD_VMM_H

#include "tests/common/live_load.h"

struct vmm {
    struct load *load;
    struct load_vmm *stat;
    unsigned index;
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *a, *b;
    struct fakehyp_vcpu *vcpu, *second;
    volatile uint64_t *view_a, *view_b;
    atomic_bool stop;
    atomic_int resets; /* threads that lost the daemon */
    bool guest_died;
    uint64_t random; /* the vCPU thread's */
};

/* What is in the magic word of a page of file B: every other page begins as a hole. */
uint64_t load_bulk_magic(unsigned vmm, uint64_t page);
/* The thread that called is to end: the daemon is gone, which is fine when it was killed. */
bool load_lost(struct vmm *v, int rc);
void load_unexpected(struct vmm *v, const char *what, uint64_t page, int rc);
bool load_stopping(const struct vmm *v);
/* fakehyp_convert(), timed. */
int load_convert(struct vmm *v, struct fakehyp_gmem *gmem, uint64_t page, uint64_t nr, bool to_private,
                 uint64_t *error_offset);
/* Takes a reference that stands in the way of a conversion, sees it refused, and lets go: false ends the thread. */
bool load_refuse_once(struct vmm *v, struct fakehyp_gmem *gmem, uint64_t pinned, uint64_t page, uint64_t nr);

/* Threads; arg: struct vmm. */
void *load_toucher_main(void *arg);
void *load_bulk_main(void *arg);

#endif
