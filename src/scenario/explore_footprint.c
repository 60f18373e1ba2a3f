/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a step reads and writes, declared for the steps of which it is known.
 *
 * A step that is not in the table takes or gives back a lock, ends a call or
 * fails: it is taken to touch everything.
 */
#include "src/scenario/explore.h"

#include <string.h>

#include "src/machine/points.h"

/* Of a page: two steps meet there only if their pages do. */
#define PTE 1u   /* page tables of processes, and the TLBs */
#define REF 2u   /* references to folios */
#define ATTR 4u  /* sharedness */
#define BYTES 8u /* contents, and on which side they are */
#define OF_A_PAGE (PTE | REF | ATTR | BYTES)
/* Of all pages at once. */
#define STAGE 16u  /* stage 2, EL2, and ranges in transition */
#define CPUS 32u   /* interrupts that are off */
#define FRAMES 64u /* allocation */
#define LOCK 128u  /* the file's lock */

/* X(from, to, reads, writes) */
#define FOOTPRINTS(X)                                                                                                  \
    X("convert:locked", "unmap:cleared", 0, PTE)                                                                       \
    X("convert:locked", "convert:unmapped", 0, PTE)                                                                    \
    X("convert:locked", "convert:pins-checked", REF, 0)                                                                \
    X("unmap:cleared", "unmap:cleared", 0, PTE | CPUS)                                                                 \
    X("unmap:cleared", "convert:unmapped", 0, PTE | CPUS)                                                              \
    X("convert:unmapped", "lru:drained", 0, REF)                                                                       \
    X("convert:unmapped", "convert:checked", 0, REF)                                                                   \
    X("lru:drained", "convert:checked", REF, 0)                                                                        \
    X("convert:checked", "stage:begin", 0, STAGE)                                                                      \
    X("convert:checked", "convert:prepared", 0, STAGE)                                                                 \
    X("stage:begin", "convert:prepared", 0, STAGE)                                                                     \
    X("convert:prepared", "convert:stored", 0, ATTR | BYTES | REF | STAGE)                                             \
    X("convert:stored", "stage:moved", 0, STAGE | BYTES)                                                               \
    X("fault:locked", "fault:folio", ATTR, REF | FRAMES | LOCK)                                                        \
    X("fault:folio", "access:mapped", ATTR, PTE | REF)                                                                 \
    X("access:mapped", "end", PTE | STAGE | ATTR, PTE | BYTES)                                                         \
    X("gup:pte-read", "gup:grabbed", 0, REF)                                                                           \
    X("gup:grabbed", "gup:rechecked", PTE, 0)                                                                          \
    X("gup:rechecked", "end", 0, REF | CPUS)                                                                           \
    X("abort:locked", "abort:folio", ATTR, REF | FRAMES)                                                               \
    X("abort:folio", "abort:mapped", ATTR, STAGE)

struct footprint {
    const char *from, *to;
    unsigned reads, writes;
};

#define X(from, to, reads, writes) {from, to, reads, writes},
static const struct footprint table[] = {FOOTPRINTS(X)};
#undef X

static const struct footprint *declared(const struct ex_step *s)
{
    if (s->from < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (!strcmp(table[i].from, ex_label(s->from)) && !strcmp(table[i].to, ex_label(s->to)))
            return &table[i];
    return NULL;
}

bool ex_independent(const struct ex_recipe *r, struct ex_step a, struct ex_step b)
{
    const struct footprint *x = declared(&a), *y = declared(&b);

    if (!x || !y)
        return false;
    unsigned both = (x->writes & (y->reads | y->writes)) | (y->writes & x->reads);
    if (r->first[a.task] >= r->past[b.task] || r->first[b.task] >= r->past[a.task])
        both &= ~OF_A_PAGE;
    return !both;
}
