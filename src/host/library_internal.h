/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SRC_HOST_LIBRARY_INTERNAL_H
#define SRC_HOST_LIBRARY_INTERNAL_H

#include "src/host/internal.h"

void library_free(struct gmem *gmem);
/* References to a folio that are safe beside the page cache's. */
uint32_t library_grabs(const struct gmem *gmem, uint64_t index);
/* A host process faults a page: makes it accessible if it is not.  Any error is SIGBUS. */
int library_fault(struct gmem *gmem, uint64_t index);

#endif
