/* SPDX-License-Identifier: BSD-2-Clause */
/* What /proc/PID/maps and smaps say of a mapping. */
#ifndef SRC_KERNEL_VMA_H
#define SRC_KERNEL_VMA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct kernel_vma {
    uintptr_t start, end;
    uint64_t offset;
    dev_t dev;
    ino_t ino;
};

/* A line of maps, or the first of a mapping in smaps.  false: it is no such line, and *vma stays as it is. */
bool kernel_vma_parse(const char *line, struct kernel_vma *vma);
/* The flags of smaps' line "VmFlags: ...", two letters each and a space before each.  NULL: it is another line. */
const char *kernel_vma_flags(const char *line);

#endif
