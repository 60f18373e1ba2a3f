/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that does what the test says, one command at a time.
 *
 * The guest asks for its next command by a hypercall of the vendor range, and
 * the test's thread, which is the VMM's, answers it by running the vCPU again:
 * until the guest asks for the command after it, or needs the VMM.
 */
#ifndef TESTS_COMMON_LIVE_PUPPET_H
#define TESTS_COMMON_LIVE_PUPPET_H

#include "tests/common/live_rig.h"

#define HVC_MEMINFO UINT64_C(0xC6000002)
#define HVC_MEM_SHARE UINT64_C(0xC6000003)
#define HVC_MEM_UNSHARE UINT64_C(0xC6000004)
/* Vendor numbers that nobody has: they reach the VMM as they are. */
#define HVC_PUPPET_NEXT UINT64_C(0xC6001000)
#define HVC_PUPPET_OTHER UINT64_C(0xC6001001)

#define PUPPET_BYTES 2048u
#define PVM_MAX_VCPUS 4u

enum puppet_op {
    PUPPET_READ = 1, /* a: IPA, b: bytes */
    PUPPET_WRITE,    /* a: IPA, b: bytes */
    PUPPET_FILL,     /* a: IPA, b: bytes, c: value of each */
    PUPPET_CHECK,    /* a: IPA, b: bytes, c: value of each; result: how many differ */
    PUPPET_CALL,     /* a: function id, b, c: x1, x2; result: x0 */
    PUPPET_COUNT,    /* a: IPA of a 64-bit counter, b: how often it is incremented */
    PUPPET_EXIT,     /* a: exit code */
    PUPPET_CRASH,
    PUPPET_FDS, /* result: descriptors of the guest process, from 3 on */
};

/* In memory that the test shares with its guest; fd-less, so the guest has it by inheritance. */
struct puppet_command {
    enum puppet_op op;
    uint64_t a, b, c;
    int64_t result;
    uint8_t data[PUPPET_BYTES];
};

struct pvm;

struct puppet {
    struct pvm *vm;
    struct fakehyp_vcpu *vcpu;
    struct fakehyp_run *run;
    struct puppet_command *command;
    bool waits; /* for its next command */
};

struct pvm_config {
    size_t pages;   /* 0: 16 */
    unsigned vcpus; /* 0: 1 */
    enum fakehyp_unshare_mode mode;
    bool unprotected;
    bool shared;                      /* leave it shared; else all is converted to private */
    const char *image;                /* stored at offset 0 before that; may be NULL */
    struct fakehyp_vm_config variant; /* hypervisor, policy, tracker... */
};

/* A VM with one guest_memfd (MMAP|INIT_SHARED) at IPA 0, mapped, and a puppet on each vCPU. */
struct pvm {
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    uint8_t *view;
    uint64_t bytes;
    unsigned nr_vcpus;
    struct puppet puppet[PVM_MAX_VCPUS];
    struct puppet_command *commands;

    bool ignore; /* leave MEM_SHARE, MEM_UNSHARE and memory faults to the test */
    int run_timeout_ms;
    int last_convert; /* of a conversion that the guest asked for */
    uint64_t last_error_offset;
    unsigned memory_faults;
};

void pvm_create(struct pvm *v, struct fakehyp *fh, const struct pvm_config *config);
void pvm_destroy(struct pvm *v);
int pvm_convert(struct pvm *v, uint64_t page, uint64_t nr, uint64_t attributes);

/* How the VMM's access to a page ends: true when it succeeds. */
bool pvm_reads(const struct pvm *v, uint64_t offset, uint8_t *value);
bool pvm_writes(struct pvm *v, uint64_t offset, uint8_t value);
/* The access is refused as it should be: SIGBUS, BUS_ADRERR, the exact address. */
void assert_refused(const volatile void *p);
void assert_reads(const volatile void *p, uint8_t value);

enum puppet_end {
    PUPPET_DONE = 0,  /* it waits for its next command */
    PUPPET_ENDED = 1, /* SYSTEM_EVENT */
    PUPPET_NEEDS = 2, /* an exit that is the test's to answer: see run */
};
/* Gives the command; does not run it. */
void puppet_give(struct puppet *p, enum puppet_op op, uint64_t a, uint64_t b, uint64_t c);
/* Runs until one of enum puppet_end, or a negative errno of fakehyp_vcpu_run(). */
int puppet_go(struct puppet *p);
int puppet_do(struct puppet *p, enum puppet_op op, uint64_t a, uint64_t b, uint64_t c);

/* These must succeed. */
void puppet_read(struct puppet *p, uint64_t ipa, void *buf, size_t length);
void puppet_write(struct puppet *p, uint64_t ipa, const void *buf, size_t length);
int64_t puppet_call(struct puppet *p, uint64_t nr, uint64_t x1, uint64_t x2);
int64_t puppet_share(struct puppet *p, uint64_t ipa);
int64_t puppet_unshare(struct puppet *p, uint64_t ipa);
void puppet_exit(struct puppet *p, int code);
/* For what must hold at any time: one byte of the guest's. */
uint8_t puppet_byte(struct puppet *p, uint64_t ipa);

#endif
