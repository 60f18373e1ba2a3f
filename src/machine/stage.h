/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stage: what makes the model's decisions true for processes and bytes.
 *
 * The machine decides for each page of each guest_memfd whether the host may
 * reach it (stage 1 ∩ stage 2); the stage carries it out.  `in_host` says on
 * which side the bytes are: true, where host processes reach them; false,
 * where only EL2 and the guest do.
 */
#ifndef SRC_MACHINE_STAGE_H
#define SRC_MACHINE_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fakehyp/hyp.h"
#include "src/host/host.h"

struct machine;

/* A guest_memfd as the machine knows it; the stage keeps its own part in `stage`. */
struct mfile {
    struct machine *machine;
    struct gmem *gmem;
    uint32_t id;
    uint64_t nr_pages;
    void *stage;
};

struct stage_ops {
    const char *name; /* "sim" or "live" */

    /* All ranges [start, end) in pages.  Everything starts as holes, on the host's side iff in_host. */
    int (*file_create)(void *ctx, struct mfile *file, bool in_host);
    void (*file_destroy)(void *ctx, struct mfile *file);

    /*
     * A change of side of [start, end), which is wholly on the other side now.
     * begin: all that may fail; guests that touch the range wait from here on.
     * move: cannot fail; called after begin, or without it when EL2 decided.
     * end: closes all that begin and move opened in [start, end), moved or
     * not: guests go on.
     */
    int (*begin)(void *ctx, struct mfile *file, uint64_t start, uint64_t end, bool to_host, struct caller *caller);
    void (*move)(void *ctx, struct mfile *file, uint64_t start, uint64_t end, bool to_host);
    void (*end)(void *ctx, struct mfile *file, uint64_t start, uint64_t end);

    /* Next run of populated pages on the side where they are. */
    bool (*populated)(void *ctx, struct mfile *file, bool in_host, uint64_t start, uint64_t end, uint64_t *first,
                      uint64_t *past);
    int (*allocate)(void *ctx, struct mfile *file, bool in_host, uint64_t start, uint64_t end);
    void (*discard)(void *ctx, struct mfile *file, bool in_host, uint64_t start, uint64_t end);
    /*
     * The page's frame lives on without the file, as somebody holds it: its bytes go with the frame until forget().
     * NULL on a stage where the kernel sees to that.
     */
    void (*orphan)(void *ctx, struct mfile *file, uint64_t index, uint64_t pfn);
    void (*forget)(void *ctx, uint64_t pfn);
    /* Bytes of one page as the hypervisor sees them. */
    int (*read)(void *ctx, struct mfile *file, bool in_host, uint64_t offset, void *buf, size_t length);
    int (*write)(void *ctx, struct mfile *file, bool in_host, uint64_t offset, const void *buf, size_t length);

    int (*slot_add)(void *ctx, struct vm *vm, const struct memslot *slot, struct caller *caller);
    void (*slot_remove)(void *ctx, struct vm *vm, const struct memslot *slot);
    /* Stage-2 leaves of the guest in [gfn, gfn + nr) went away: no access may use them from now on. */
    void (*guest_zap)(void *ctx, struct vm *vm, uint64_t gfn, uint64_t nr);
    /* The vcpu goes on after `last` (NULL: first entry) with regs. */
    void (*guest_resume)(void *ctx, struct vcpu *vcpu, const struct hyp_trap *last, const struct hyp_guest_regs *regs);
    void (*guest_stop)(void *ctx, struct vm *vm);
};

#endif
