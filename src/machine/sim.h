/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The simulated stage: processes, guests and bytes in memory of this process.
 *
 * Deterministic: tasks, virtual time, no system call.  The machine is created
 * with sim_stage_ops and a struct sim as stage_ctx.
 */
#ifndef SRC_MACHINE_SIM_H
#define SRC_MACHINE_SIM_H

#include "src/host/iommu.h"
#include "src/host/memory_failure.h"
#include "src/machine/machine.h"

struct sim;

extern const struct stage_ops sim_stage_ops;

struct sim *sim_new(void);
/* After machine_new(). */
void sim_attach(struct sim *sim, struct machine *machine);
void sim_free(struct sim *sim);

/* How an access ended. */
enum sim_access {
    SIM_OK = 0,
    SIM_SIGBUS = 1,  /* stage 1: private, or past the end */
    SIM_SIGSEGV = 2, /* no VMA, or stage 2 refused (pKVM injects) */
    SIM_EFAULT = 3,  /* the kernel, by an instruction of the exception table */
    SIM_OOPS = 4,    /* the kernel, by another one */
};

/* (task) Loads and stores of a host process, within one page. */
enum sim_access sim_host_read(struct sim *sim, struct mm *mm, uint64_t va, void *buf, size_t length);
enum sim_access sim_host_write(struct sim *sim, struct mm *mm, uint64_t va, const void *buf, size_t length);
/* (task) As the kernel's: how many bytes were not copied. */
size_t sim_copy_from_user(struct sim *sim, struct mm *mm, uint64_t va, void *buf, size_t length);
size_t sim_copy_to_user(struct sim *sim, struct mm *mm, uint64_t va, const void *buf, size_t length);
/* (task) A kernel load through the direct map, within one page: SIM_OK, SIM_EFAULT with a fixup, SIM_OOPS without. */
enum sim_access sim_kernel_load(struct sim *sim, uint64_t pfn, bool fixup, void *buf, size_t length);

/*
 * (task) read() of the oldest buffer of a pipe: the kernel copies it through its direct map, and has no fixup for that.
 * 0 and how the load ended (only after SIM_OK the buffer is gone); -EAGAIN: the pipe is empty.
 */
int sim_pipe_read(struct sim *sim, struct pipe *pipe, void *buf, size_t length, enum sim_access *access);
/* (task) A device's access within one page: 0, or -EFAULT, an IOMMU fault.  Stage 2 is not consulted. */
int sim_dma_read(struct sim *sim, struct device *device, uint64_t iova, void *buf, size_t length);
int sim_dma_write(struct sim *sim, struct device *device, uint64_t iova, const void *buf, size_t length);

/* Gives the VM a guest whose vcpus do what the functions below ask; vcpu_run() executes it. */
int sim_guest_start(struct sim *sim, struct vm *vm);
/* (task) Wait until the guest instruction has been executed.  0, or -ESRCH when the guest ended. */
int sim_guest_read(struct vcpu *vcpu, uint64_t gpa, void *buf, size_t length);
int sim_guest_write(struct vcpu *vcpu, uint64_t gpa, const void *buf, size_t length);
int sim_guest_hvc(struct vcpu *vcpu, const uint64_t x[4], int64_t *x0);

#endif
