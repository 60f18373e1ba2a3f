/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults that EL2 can be built with, one at a time, for the test that the
 * oracle sees each of them.  Without HYP_MUTANTS, as in everything but that
 * test, HYP_MUTANT() is the constant 0 and nothing of them is compiled.
 */
#ifndef FAKEHYP_MUTANT_H
#define FAKEHYP_MUTANT_H

#define HYP_MUTANT_MAP(X)                                                                                              \
    X(GUEST_BEFORE_HOST, "donate_guest looks at the guest before the host")                                            \
    X(GRANT_FIRST, "donate_guest maps the page for the guest before the host has lost it")                             \
    X(MEMCACHE_LATE, "donate_guest finds out that tables are missing when the host's side is done")                    \
    X(WRONG_GFN, "guest_unshare_host annotates the host's entry with the next gfn")                                    \
    X(BLOCK_UNCHECKED, "unshare_guest of one page takes a block for it")                                               \
    X(BLOCK_LEFT, "unshare_guest of a block leaves the guest a page of it")                                            \
    X(COUNT_KEPT, "unshare_guest of a page with several leaves does not count down")                                   \
    X(PINS_UNCHECKED, "unshare_hyp does not look at the pins")                                                         \
    X(NOT_ZEROED, "force_reclaim hands the guest's bytes to the host")                                                 \
    X(ZEROED_LATE, "force_reclaim zeroes the page when the host has it already")                                       \
    X(NOT_POISONED, "force_reclaim leaves an empty entry behind")                                                      \
    X(SHARED_ZEROED, "reclaim_dying zeroes a page that the guest had shared")                                          \
    X(DYING_UNCHECKED, "vcpu_load enters a VM that is dying")                                                          \
    X(NOT_FLUSHED, "an entry is removed without a TLBI")                                                               \
    X(NOT_BROKEN, "a live entry is replaced by another without break-before-make")                                     \
    X(FLUSHED_EARLY, "relax_perms flushes before the entry has changed")                                               \
    X(ROLLBACK_SHORT, "a refill that fails leaves the host's list changed")                                            \
    X(STRAY_WRITE, "an exit to the host touches its memcache")

enum hyp_mutant {
    HYP_MUTANT_NONE,
#define X(name, text) HYP_MUTANT_##name,
    HYP_MUTANT_MAP(X)
#undef X
};

#ifdef HYP_MUTANTS
extern enum hyp_mutant hyp_mutant; /* the test's */
#define HYP_MUTANT(name) (hyp_mutant == HYP_MUTANT_##name)
#else
#define HYP_MUTANT(name) 0
#endif

#endif
