/* SPDX-License-Identifier: BSD-2-Clause */
/* Initial images, last closes and links of a guest_memfd: what happens around its life as a VM's memory. */
#ifndef SRC_HOST_POPULATE_H
#define SRC_HOST_POPULATE_H

#include "src/host/host.h"

struct mm;

/*
 * (task) kvm_gmem_populate(): before the VM has run, [gfn, gfn + nr) gets the bytes at va of a process, or with mm NULL
 * keeps its own.  0, or -EINVAL: va is not page aligned, no memslot there, a page is shared, the VM has run; -EFAULT:
 * the source cannot be had; -EDEADLK: with bug populate-lock-order, instead of a deadlock.
 */
int gmem_populate(struct vm *vm, uint64_t gfn, uint64_t nr, struct mm *mm, uint64_t va, struct caller *caller);

/*
 * (task) kvm_gmem_release(): the last descriptor is closed while VMs are bound.  Every guest loses the memory; the
 * inode goes with its last reference.
 */
void gmem_release(struct gmem *gmem);

/*
 * KVM_LINK_GUEST_MEMFD: a second VM may bind the file.  -EINVAL: it is run by another hypervisor or is of another
 * kind; -ENOSPC: too many; -ENOMEM.
 */
int gmem_link(struct gmem *gmem, struct vm *vm, struct caller *caller);
#endif
