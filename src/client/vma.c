/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is mapped at an address, by the kernel's word: a program can map
 * something of its own over a view, and that must not be registered.
 */
#include "src/client/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "src/kernel/kernel.h"

/* Linux 6.11; the headers of older systems do not have it. */
struct vma_query {
    uint64_t size, query_flags, query_addr;
    uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
    uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
    uint64_t vma_name_addr, build_id_addr;
};
#define VMA_QUERY _IOWR('f', 17, struct vma_query)
#define VMA_QUERY_COVERING_OR_NEXT 0x10

static int vma_at_by_text(uintptr_t addr, struct kernel_vma *vma)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t size = 0;
    int found = 0;

    if (!maps)
        return -errno;
    while (!found && getline(&line, &size, maps) > 0)
        found = kernel_vma_parse(line, vma) && vma->end > addr;
    free(line);
    fclose(maps);
    return found;
}

int fh_vma_at(int maps_fd, uintptr_t addr, struct kernel_vma *vma)
{
    struct vma_query query = {.size = sizeof(query), .query_flags = VMA_QUERY_COVERING_OR_NEXT, .query_addr = addr};

    if (kernel_procmap_query(maps_fd, &query, VMA_QUERY) == 0) {
        *vma = (struct kernel_vma){.start = (uintptr_t)query.vma_start,
                                   .end = (uintptr_t)query.vma_end,
                                   .offset = query.vma_offset,
                                   .dev = makedev(query.dev_major, query.dev_minor),
                                   .ino = (ino_t)query.inode};
        return 1;
    }
    if (errno == ENOENT)
        return 0;
    return errno == ENOTTY || errno == EBADF ? vma_at_by_text(addr, vma) : -errno;
}
