/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tasks of a simulated world do for a test: run a vCPU, access memory as a guest, take a VM down. */
#ifndef TESTS_COMMON_SIMJOBS_H
#define TESTS_COMMON_SIMJOBS_H

#include "tests/common/simworld.h"

struct run_job {
    struct vcpu *vcpu;
    struct run_record run;
    struct caller caller;
    int rc;
    bool done;
};
void run_task(void *job);
void start_run(struct simworld *w, struct run_job *job);

/* A hypercall where x[0] is set, else an access to one byte. */
struct guest_job {
    struct vcpu *vcpu;
    uint64_t gpa, x[4];
    char byte;
    bool write, done;
    int rc;
    int64_t x0;
};
void guest_task(void *job);
void start_guest(struct simworld *w, struct guest_job *job);

struct destroy_job {
    struct vm *vm;
    int rc;
    bool done;
};
void destroy_task(void *job);

/* Destroys the world's VM while the jobs of the body are still there. */
void end_vm(struct simworld *w);

#endif
