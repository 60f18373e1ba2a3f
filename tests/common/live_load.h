/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VMM process and its guest that convert without pause, check every byte
 * they see, and tell how they ended.
 *
 * File A, LOAD_PAGES pages at IPA 0: the guest shares and unshares its pages
 * at random; both sides touch them.  The words of a page:
 *   0       counter of the host
 *   1       counter of the guest
 *   2       canary: not 0 only while the guest has the page to itself
 *   3, 511  what tells this page of this VM from every other
 *   4       counter of the guest's second vCPU, which touches every page in every state,
 *           and so also while it is being converted
 * The last LOAD_SECRETS pages are never shared.
 *
 * File B, LOAD_BULK_PAGES pages, which the guest never touches: the VMM
 * converts ranges of it to and fro, now and then with a pin in the way.
 */
#ifndef TESTS_COMMON_LIVE_LOAD_H
#define TESTS_COMMON_LIVE_LOAD_H

#include <stdatomic.h>

#include "tests/common/live_rig.h"

#define LOAD_VMMS 2
#define LOAD_PAGES 64u
#define LOAD_SECRETS 8u
#define LOAD_BULK_PAGES 1024u
#define LOAD_WORD_HOST 0u
#define LOAD_WORD_GUEST 1u
#define LOAD_WORD_CANARY 2u
#define LOAD_WORD_MAGIC 3u
#define LOAD_WORD_MAGIC_END 511u
#define LOAD_WORD_SECOND 4u

/* How a VMM process ends: exit status. */
enum load_end {
    LOAD_DONE = 0,
    LOAD_FAILED = 1,     /* text says what */
    LOAD_RESET = 3,      /* every thread of it got -ECONNRESET */
    LOAD_GUEST_DIED = 4, /* the vCPU's crash event; the VM was destroyed in order */
};

struct load_vmm {
    pid_t guest;
    atomic_bool running; /* the guest has made its first call */
    atomic_bool idle;    /* the guest has ended, its memory is still there */
    atomic_ulong guest_conversions, bulk_conversions;
    atomic_ulong touches, refused; /* of the VMM's second thread: words loaded, SIGBUS */
    atomic_ulong busy, pins;       /* EAGAIN as expected; pins taken */
    atomic_ulong guest_accesses, guest_refused;
    atomic_ulong second_accesses; /* of the guest's second vCPU */
    atomic_ulong longest_call_ns; /* a call of the library other than vcpu_run */
};

/* Shared by all processes of a test. */
struct load {
    char socket[104];
    uint64_t seed;
    atomic_bool stop;   /* guests end, VMMs wait */
    atomic_bool leave;  /* VMMs destroy what they have */
    atomic_bool killed; /* something was killed: losing the daemon or the guest is no failure */
    atomic_bool failed;
    char text[300];
    struct load_vmm vmm[LOAD_VMMS];
};

struct load *load_new(const char *socket);
void load_free(struct load *load);
uint64_t load_conversions(const struct load *load);
/* Everybody stops; the first failure's text stays. */
void load_fail(struct load *load, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What is in the magic words of page `page` of file A. */
uint64_t load_magic(unsigned vmm, uint64_t page);

/*
 * The VMM process: forked before it has a connection.  Sends file A's
 * descriptor over give_fd when that is not -1.  Does not return.
 */
_Noreturn void load_vmm_main(struct load *load, unsigned index, int give_fd);
/* Forks it. */
pid_t load_vmm_start(struct load *load, unsigned index, int give_fd);
/* Waits until the guest runs; false after ten seconds, or when something failed. */
bool load_wait_running(struct load *load, unsigned index);

/* In the guest. */
int load_guest_main(struct fakehyp_guest *guest, void *arg);
struct load_guest_arg {
    struct load *load;
    unsigned index;
};

#endif
