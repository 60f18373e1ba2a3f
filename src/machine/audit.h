/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of the audit share. */
#ifndef SRC_MACHINE_AUDIT_H
#define SRC_MACHINE_AUDIT_H

#include "src/host/iommu.h"
#include "src/machine/internal.h"

struct audit {
    struct machine *m;
    void (*report)(void *ctx, const char *text);
    void *ctx;
    unsigned problems;
    uint64_t pages;
};

void audit_problem(struct audit *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- invariant.c ---- */
void invariant_page(struct audit *a, const struct gmem *gmem, uint64_t index, uint64_t pfn);
void invariant_ranges(struct audit *a, const struct gmem *gmem);
void invariant_tlbs(struct audit *a);
void invariant_free_frames(struct audit *a);

#endif
