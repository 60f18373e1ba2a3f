/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Devices behind an IOMMU: what VFIO maps for them.
 *
 * A mapping is a FOLL_LONGTERM pin and an entry in the device's table.  DMA
 * reaches a page's bytes by its frame; stage 2 is not consulted: pKVM's
 * upstream isolates CPUs, not devices.  What keeps a device from private
 * memory is that its pin stops the conversion.
 *
 * io_uring's fixed buffers are the same pins without a table: mm_gup() with
 * REF_LONGTERM.
 */
#ifndef SRC_HOST_IOMMU_H
#define SRC_HOST_IOMMU_H

#include "src/host/mm.h"

struct device;

/* NULL when out of memory.  name is copied. */
struct device *device_new(struct host *host, const char *name);
/* Unmaps what is mapped. */
void device_free(struct device *device);

/*
 * (task) VFIO_IOMMU_MAP_DMA of nr pages of a process at va, to iova.  0; -EINVAL: not aligned, or empty; -EEXIST: the
 * range is mapped; -EFAULT, -ENOMEM as mm_gup().
 */
int device_map(struct device *device, struct mm *mm, uint64_t va, uint64_t nr, uint64_t iova, struct caller *caller);
/* VFIO_IOMMU_UNMAP_DMA of the mappings that lie in the range; returns how many pages. */
uint64_t device_unmap(struct device *device, uint64_t iova, uint64_t nr);
uint64_t device_mapped(const struct device *device); /* pages */
/* The IOMMU's translation: 0 with the frame, or -EFAULT, an IOMMU fault, which is recorded. */
int device_translate(struct device *device, uint64_t iova, bool write, uint64_t *pfn);
uint64_t device_faults(const struct device *device);
/* Does any device of the host have the frame mapped? */
const char *host_iommu_has(const struct host *host, uint64_t pfn);

#endif
