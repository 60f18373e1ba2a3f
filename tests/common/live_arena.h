/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM whose private bytes can be told from all others, for tests that look for
 * them where they must not be.
 *
 * Every byte that the guest stores in a private page has its top bit set, and
 * no byte that anybody stores in a shared page has.  So one look at any byte
 * says whether it is a secret.
 *
 * One guest_memfd of ARENA_PAGES at IPA 0:
 *   secrets  never shared; the guest rewrites and checks them all the time
 *   flips    the guest shares and unshares them all the time; before it
 *            shares one it overwrites its canaries
 *   bulk     the VMM converts large ranges of it; nobody stores there
 *   the rest stays shared
 * A second vCPU counts in each flip, whatever side it is on: no store of it may
 * be lost.
 */
#ifndef TESTS_COMMON_LIVE_ARENA_H
#define TESTS_COMMON_LIVE_ARENA_H

#include <stdatomic.h>

#include "tests/common/live_rig.h"

#define ARENA_PAGES 2048u
#define ARENA_SECRETS 16u
#define ARENA_FLIP 512u
#define ARENA_FLIPS 8u
#define ARENA_BULK 1024u
#define ARENA_BULK_PAGES 640u
/* Where shared pages are that never change; not in the 2 MiB of the flips. */
#define ARENA_SHARED 1800u
#define ARENA_SHARED_PAGES 64u
/* The counter of the second vCPU, as a 64-bit word of a flip. */
#define ARENA_COUNTER 5u
/* What attackers store, they store from here on in a page: the guest's counter is not theirs to change. */
#define ARENA_SCRATCH 2048u

#define ARENA_SECRET_BITS UINT64_C(0x8080808080808080)

/* Shared by all processes of a test. */
struct arena {
    char socket[104];
    atomic_bool stop, failed;
    char text[300]; /* of the first failure */

    atomic_bool wipes;  /* somebody may take stores in shared pages back: MADV_REMOVE and the like */
    atomic_bool still;  /* wanted: nothing converts, flips and bulk are private; canaries go on */
    atomic_uint parked; /* who has followed: ARENA_PARKS of them */

    atomic_ulong canaries, flips, bulks,
        counts; /* pages rewritten, conversions of both kinds, stores of the second vCPU */
};
#define ARENA_PARKS 2u

struct arena *arena_new(const char *socket);
void arena_free(struct arena *arena);
/* Everything stops; the first text stays. */
void arena_fail(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forks the VMM, which starts the guest: its process; *fd is the guest_memfd. -1: it did not start. */
pid_t arena_start(struct arena *arena, int *fd);
/* Ends it: true when nothing was wrong. */
bool arena_end(struct arena *arena, pid_t vmm);
/* Stillness, and movement again: false when it did not come about in a minute. */
bool arena_still(struct arena *arena, bool still);

/* Somebody is about to take stores in shared pages back, or no longer: when the second vCPU knows. */
bool arena_wipes(struct arena *arena, bool wipes);

/* In which state a page is: always private, or private while it is still. */
bool arena_is_secret(uint64_t page);
bool arena_is_private_when_still(uint64_t page);

/* A byte of the guest's private memory among these: its index, or -1. */
ssize_t arena_find_secret(const void *bytes, size_t length);

#endif
