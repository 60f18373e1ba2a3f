/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/kernel/vma.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

bool kernel_vma_parse(const char *line, struct kernel_vma *vma)
{
    uintmax_t start, end, offset, ino;
    unsigned major, minor;

    if (sscanf(line, "%jx-%jx %*4s %jx %x:%x %ju", &start, &end, &offset, &major, &minor, &ino) != 6 || start >= end)
        return false;
    *vma = (struct kernel_vma){.start = (uintptr_t)start,
                               .end = (uintptr_t)end,
                               .offset = offset,
                               .dev = makedev(major, minor),
                               .ino = (ino_t)ino};
    return true;
}

const char *kernel_vma_flags(const char *line)
{
    static const char key[] = "VmFlags:";
    return strncmp(line, key, sizeof(key) - 1) ? NULL : line + sizeof(key) - 1;
}
