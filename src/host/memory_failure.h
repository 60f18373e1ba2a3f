/* SPDX-License-Identifier: BSD-2-Clause */
/* A frame of RAM has failed: memory_failure() and unpoison_memory() (mm/memory-failure.c, kvm_gmem_error_folio()). */
#ifndef SRC_HOST_MEMORY_FAILURE_H
#define SRC_HOST_MEMORY_FAILURE_H

#include "src/host/mm.h"

/* The processor consumed the poison: whoever has the page mapped is told at once. */
#define MF_ACTION_REQUIRED 0x1

/*
 * (task) Marks the page bad, unmaps it from processes and guests, and keeps it in its file with a reference that lasts
 * until it is unpoisoned (MF_DELAYED).  Processes that must know are sent SIGBUS: those that have it mapped and have
 * written it, with MF_ACTION_REQUIRED or when they asked to be told early.  0; -ENXIO: no page of a guest_memfd;
 * -EHWPOISON: it is bad already.
 */
int host_memory_failure(struct host *host, uint64_t pfn, unsigned flags);
/* The page is good again: 0, or -ENOENT. */
int host_unpoison(struct host *host, uint64_t pfn);
bool host_frame_poisoned(const struct host *host, uint64_t pfn);

#endif
