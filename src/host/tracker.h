/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trackers: where it is kept who may reach a page (background.md 7.2).
 *
 * EL1 reads sharedness by the functions here and in host.h only.  Two questions
 * have two answers where the kernel keeps nothing: may a host process reach the
 * page, and what has the VMM asked for, which is what a guest's fault goes by.
 */
#ifndef SRC_HOST_TRACKER_H
#define SRC_HOST_TRACKER_H

#include "src/host/internal.h"

struct gmem_tracker {
    /* The run of equal value that holds index, as far as it is known to reach. */
    struct range (*range)(const struct gmem *gmem, uint64_t index);
    /* Makes one set() of a range infallible: 0 or -ENOMEM. */
    int (*reserve)(struct gmem *gmem);
    void (*set)(struct gmem *gmem, uint64_t start, uint64_t end, uint64_t value);
    bool lost_with_folio; /* a page that leaves the file takes its state along */
};

const struct gmem_tracker *gmem_tracker(enum gmem_tracker_id id);

/* What was asked for: ATTR_SHARED, ATTR_PRIVATE or ATTR_NONE. */
uint64_t tracker_value(const struct gmem *gmem, uint64_t index);
bool tracker_all(const struct gmem *gmem, uint64_t start, uint64_t end, uint64_t value);
/* A set() that waits for memory, for what cannot be refused any more. */
void tracker_store(struct gmem *gmem, uint64_t start, uint64_t end, uint64_t value);
/* Is a host process's fault refused?  Where only the hypervisor knows it is asked, and the question counted. */
bool tracker_refuses_host(struct gmem *gmem, uint64_t index);

/* KVM_SET_MEMORY_ATTRIBUTES' table of a VM, when its files are tracked there; and what its guest has marked. */
int vm_attributes_init(struct vm *vm);
void vm_attributes_destroy(struct vm *vm);
/* A file was bound: its range gets the file's initial state, as the VMM's first call would. */
int vm_attributes_bind(struct vm *vm, const struct memslot *slot);

#endif
