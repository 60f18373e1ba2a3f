/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SRC_HOST_IOMMU_INTERNAL_H
#define SRC_HOST_IOMMU_INTERNAL_H

#include "src/host/iommu.h"

/* The process's VFIO containers close with it. */
void iommu_drop_process(struct host *host, uint32_t pid);

#endif
