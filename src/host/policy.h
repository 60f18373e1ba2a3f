/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Policies: how a conversion to private makes sure that nobody in the host can
 * reach the pages any more (background.md 0.5, 6).
 *
 * A conversion is the same straight line for all of them (convert.c); a policy
 * is what it puts into the places where the designs differ.
 */
#ifndef SRC_HOST_POLICY_H
#define SRC_HOST_POLICY_H

#include "src/host/internal.h"

struct gmem_policy {
    /*
     * No process maps [start, end) any more, and none can: may the range become
     * private?  0, or the errno with the first page that is in the way in busy.
     * Nothing is changed.
     */
    int (*check)(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy);
    /* The same before the range is unmapped; may be NULL. */
    int (*check_mapped)(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy);
    bool keeps_mappings; /* processes are not unmapped: stage 2 keeps them out */
    /* PRIVATE is stored; SHARED is about to be.  Neither fails; may be NULL. */
    void (*made_private)(struct gmem *gmem, uint64_t start, uint64_t end, struct gmem_busy *busy);
    void (*leaving_private)(struct gmem *gmem, uint64_t start, uint64_t end);
    /* GUP of a page that is there: 0 or an errno for the caller; NULL: private pages are refused, others are not. */
    int (*gup)(const struct gmem *gmem, uint64_t index, uint64_t pfn, enum ref_kind kind, struct caller *caller);
    /* The last foreign reference of a FRAME_TYPED folio was dropped. */
    void (*last_put)(struct gmem *gmem, uint64_t pfn);
};

/* Policy B's wait: until all references in the range are known ones, 10 ms at most. */
int policy_wait_safe(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy);

const struct gmem_policy *gmem_policy(enum gmem_policy_id id);
extern const struct gmem_policy policy_transient;

/* Tells which page is in the way, and who holds it; returns rc. */
int policy_busy(struct gmem *gmem, uint64_t index, uint64_t pfn, int rc, struct caller *caller, struct gmem_busy *busy);

#endif
