/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The oracle: an executable specification of EL2, run beside it.
 *
 * It is written from the description of pKVM and shares no code with
 * fakehyp/pkvm or fakehyp/stage2: of EL2 it knows the ABI, the platform
 * callbacks and the read-only views of fakehyp/hyp.h, and it decodes page
 * records and page tables itself.  Like EL2 it is pure: no system call, no
 * allocation of its own, no writable globals.
 *
 * State.  Of each frame the oracle holds what is not plain host memory: the
 * states of host and EL2, owner, share count and pins (all zero: the host's
 * alone, mapped or not, so that mapping on demand is invisible).  Of each VM it
 * holds its kind, its vcpus, its accounts and a copy of its tables, read as a
 * map from gfn to (pfn, permissions, state); of each CPU the loaded vcpu.
 *
 * A call is judged when it returns: from the state before it, its arguments and
 * the words of host memory that EL2 read (seen when EL2 asks for the page's
 * address), the specification computes result and state after, and both are
 * compared with what EL2 did.  What the specification leaves open is data of the
 * call: which handle reserve_vm found, whether a table came from the VM's pool
 * or from the vcpu's memcache, what the host's pages held.
 *
 * What is compared, and when:
 *
 *  - Always: result registers, the guest's registers, EL2's writes to host
 *    memory (exit records, memcache heads, teardown lists), each frame that the
 *    call changed by the specification or named in an argument, each leaf that
 *    it changed, the VM, vcpu and CPU records that it touched; and that the host's
 *    pages at which EL2 looked say otherwise what they said, in the first words,
 *    where lists have their links and the ABI its fields.
 *  - Always: every entry of each table page that EL2 looked at in the call,
 *    against the copy: an entry that the specification did not change must be
 *    the same, a live leaf that changed must have been broken and flushed
 *    (break-before-make), a leaf of the loser must be flushed before the winner
 *    has one (revoke before grant), and zero_page must have been called for
 *    the pages that have to be zeroed, at the right moment, and for no other.
 *  - Strict: all of this for all tables, frames, VMs and CPUs, after each call;
 *    and before it, that nothing has changed since the last one.  Without
 *    `strict` the latter is checked for what the call names.
 *  - oracle_audit(): as strict, and the invariants I1 to I12 over the whole
 *    state.  Without `strict` it leaves out records of frames in whose
 *    neighbourhood (512 of them) nothing ever was but plain host memory, so
 *    that its cost goes with what was used and not with the size of memory.
 *
 * A divergence is reported as lines of text: the call, what was specified and
 * what came instead, and both states as ranges.  The oracle then goes on from
 * the state that EL2 is in, so that one fault is one report.  A call that
 * touches more than there is room to follow (a memcache of some 32,000 pages)
 * is not judged; it is counted, and one line says so.
 */
#ifndef FAKEHYP_ORACLE_ORACLE_H
#define FAKEHYP_ORACLE_ORACLE_H

#include "fakehyp/hyp.h"

struct oracle;

struct oracle_options {
    bool strict;
    /* One line of a report, without a newline; may be NULL. */
    void (*report)(void *ctx, const char *line);
    /* True when the contents of this page are all zero, wherever the stage keeps them; NULL: not looked at. */
    bool (*is_zero)(void *ctx, uint64_t phys);
    void *ctx;
};

/* Bytes that the oracle of a machine with this configuration needs, page-aligned and zeroed.  Most are never touched:
 * an address for each frame's record and for the copy of each page that might become a table. */
size_t oracle_size(const struct hyp_config *config);

/*
 * Puts the oracle between EL2 and its platform: config->plat is replaced, to
 * be given to hyp_init().  `memory` is oracle_size() bytes.  The oracle lives in
 * it and ends with it; options are copied.
 */
struct oracle *oracle_attach(void *memory, struct hyp_config *config, const struct oracle_options *options);

/* After hyp_init(): checks the state at boot.  Returns the number of divergences (0 or 1). */
unsigned oracle_boot(struct oracle *oracle, struct hyp *hyp);

/* The ways into EL2, with the meaning of the hyp_ functions of the same names. */
enum hyp_next oracle_host_hvc(struct oracle *oracle, unsigned cpu, uint64_t regs[8]);
enum hyp_next oracle_guest_trap(struct oracle *oracle, unsigned cpu, const struct hyp_trap *trap,
                                uint64_t host_regs[8]);
enum hyp_abort oracle_host_abort(struct oracle *oracle, unsigned cpu, uint64_t phys, bool is_write);

/*
 * Transitions below the calls: EL2's parts do them for each other, the secure
 * world asks for them, or a handler checks or hides more than the transition
 * does (which VM it is for, the errno that a guest does not see).  A test that
 * drives them says so before and after.
 */
enum oracle_inner {
    ORACLE_SHARE_FFA, /* pfn, nr; and so on to HYP_DONATE_HOST */
    ORACLE_UNSHARE_FFA,
    ORACLE_PIN,
    ORACLE_UNPIN,
    ORACLE_DONATE_HYP,
    ORACLE_HYP_DONATE_HOST,
    ORACLE_SHARE_GUEST, /* pfn, gfn: one page, RWX, for the vcpu on CPU 0, of whatever kind its VM is */
    ORACLE_GUEST_SHARE, /* handle, gfn; and so on */
    ORACLE_GUEST_UNSHARE,
    ORACLE_RECLAIM_GUEST, /* whether the VM is dying or not */
};
void oracle_inner_begin(struct oracle *oracle, enum oracle_inner inner, uint64_t a1, uint64_t a2);
void oracle_inner_end(struct oracle *oracle, int64_t result);

/* Compares everything and checks the invariants; violations are reported.  Returns their number. */
unsigned oracle_audit(struct oracle *oracle);

/* Takes over EL2's state unseen, after somebody has changed it on purpose.  Costs a look at every frame. */
void oracle_resync(struct oracle *oracle);

struct oracle_stats {
    uint64_t calls;       /* judged */
    uint64_t divergences; /* calls and audits that diverged */
    uint64_t unjudged;    /* calls that touched more than the oracle has room to follow */
};
void oracle_stats(const struct oracle *oracle, struct oracle_stats *out);

#endif
