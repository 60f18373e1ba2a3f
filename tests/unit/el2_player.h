/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A host and its guests that play calls against EL2, good ones and bad ones.
 * Which ones is decided by the numbers that somebody draws for them: a random
 * generator, or a fuzzer.  A call has no expected result here: the checks that
 * the harness has on judge it.  What came of each call is counted.
 */
#ifndef TESTS_UNIT_EL2_PLAYER_H
#define TESTS_UNIT_EL2_PLAYER_H

#include <stdio.h>

#include "tests/unit/el2_harness.h"

#define PLAY_NR_CPUS 4u
#define PLAY_LAST 20u /* calls that are remembered by name */

/* The calls that there are, and ways into EL2 that are none. */
#define PLAY_OTHER_MAP(X)                                                                                              \
    X(early_call)   /* pKVM's own before prot_finalize */                                                              \
    X(unknown_call) /* a number that is none */                                                                        \
    X(host_share_ffa)                                                                                                  \
    X(host_unshare_ffa)                                                                                                \
    X(host_abort)                                                                                                      \
    X(guest_abort)                                                                                                     \
    X(MEM_SHARE)                                                                                                       \
    X(MEM_UNSHARE)                                                                                                     \
    X(HYP_MEMINFO)                                                                                                     \
    X(VENDOR_HYP_FEATURES)                                                                                             \
    X(VENDOR_HYP_UID)                                                                                                  \
    X(call_for_the_host)

enum play_call {
#define X(n, name, nargs) PLAY_##name,
    HYP_HOST_CALL_MAP(X)
#undef X
#define X(name) PLAY_##name,
        PLAY_OTHER_MAP(X)
#undef X
            NR_PLAY_CALLS
};
const char *play_call_name(enum play_call call);

/*
 * What comes of a call: an errno, or one of these.  A guest is told no errno:
 * OUT_EPERM and so on of its calls are the reason of its INVALID_PARAMETER.
 */
#define PLAY_OUTCOME_MAP(X)                                                                                            \
    X(OK, "0")                                                                                                         \
    X(ONE, "1")                                                                                                        \
    X(IGNORED, "nothing happens") /* a call without a result that does nothing */                                      \
    X(NOT_SUPPORTED, "NOT_SUPPORTED")                                                                                  \
    X(EXIT, "exit to the host")                                                                                        \
    X(REFUSED, "refused by the host")

enum play_outcome {
#define X(name, text) OUT_##name,
    PLAY_OUTCOME_MAP(X)
#undef X
#define X(name, value) OUT_##name,
        HYP_ERRNO_MAP(X)
#undef X
            NR_PLAY_OUTCOMES
};
const char *play_outcome_name(enum play_outcome outcome);

struct played {
    uint64_t index; /* counted from 1; 0: none */
    unsigned cpu;
    enum play_call call;
    enum play_outcome outcome; /* NR_PLAY_OUTCOMES: it did not come back */
    uint64_t arg[4];
};

struct player {
    struct el2 *el2;
    uint64_t (*draw)(void *ctx, uint64_t n); /* a number below n; n == 0: any */
    void *draw_ctx;
    uint64_t first, nr; /* the frames of the game */
    uint64_t block;     /* and 512 aligned ones for a block */
    bool in_guest[PLAY_NR_CPUS];
    uint64_t nr_calls, nr_ok; /* ok: the call did what it is for */
    uint64_t hits[NR_PLAY_CALLS][NR_PLAY_OUTCOMES];
    struct played last[PLAY_LAST];
    FILE *narrate; /* each call is told here; NULL: none is */
};

/* Boots a machine to play on; EL2 is not finalised yet.  relaxed: as in struct el2_options. */
struct player *player_new(uint64_t (*draw)(void *ctx, uint64_t n), void *draw_ctx, bool relaxed);
void player_free(struct player *player);

/* One call, or a few that belong together. */
void player_step(struct player *player);
/* The host ends all VMs and takes everything back; nothing may be missing. */
void player_end(struct player *player);

/* The calls that were last, oldest first. */
void player_tell(const struct player *player, FILE *out);

/* ---- for the parts of the player ---- */

uint64_t play_draw(struct player *player, uint64_t n);
bool play_one_in(struct player *player, uint64_t n);
uint64_t play_gfn(struct player *player);
/* Frames: any that plays a part, or one with these states if a few tries find it. */
uint64_t play_frame(struct player *player);
uint64_t play_frame_in(struct player *player, enum hyp_page_state host, enum hyp_page_state hyp);
uint64_t play_free_frame(struct player *player);
/* A page as the host sees it, NULL when it does not. */
void *play_host_page(struct player *player, uint64_t pfn);
/* Kinds of VMs, for choices. */
enum play_kind { PLAY_ANY, PLAY_PROTECTED, PLAY_NP, PLAY_DYING };
/* Mostly a VM of that kind, NULL when there is none. */
struct hyp_vm *play_vm(struct player *player, enum play_kind kind);
/* Mostly the handle of such a VM. */
uint64_t play_handle(struct player *player, enum play_kind kind);
/* A CPU on which the host runs, mostly one that has a vcpu of such a VM loaded. */
unsigned play_cpu(struct player *player, enum play_kind kind);
/* Mostly an IPA of the VM at which something is. */
uint64_t play_used_gfn(struct player *player, const struct hyp_vm *vm);

/* A host call; what came of it. */
enum play_outcome play_host_call(struct player *player, unsigned cpu, enum hyp_host_call n, uint64_t a1, uint64_t a2,
                                 uint64_t a3, uint64_t a4);
/* Remembers a call before it is made, and its outcome after it. */
void play_begin(struct player *player, unsigned cpu, enum play_call call, const uint64_t arg[4]);
void play_done(struct player *player, enum play_outcome outcome);
enum play_outcome play_outcome_of(int64_t value);

/* Steps: el2_player_host.c, el2_player_guest.c. */
void play_life(struct player *player);
void play_memory(struct player *player);
void play_run(struct player *player);
void play_trap(struct player *player, unsigned cpu);
void play_guest_ends(struct player *player, unsigned cpu);

#endif
