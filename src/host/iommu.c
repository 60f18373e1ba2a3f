/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/iommu_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/host/internal.h"

struct iova_map {
    uint64_t iova, nr; /* pages */
    struct ref *ref;
    struct iova_map *next;
};

struct device {
    struct host *host;
    char name[32];
    struct iova_map *maps;
    uint64_t nr_pages, nr_faults;
    struct device *next, *prev;
};

struct device *device_new(struct host *host, const char *name)
{
    struct device *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->host = host;
    snprintf(d->name, sizeof(d->name), "%s", name);
    d->next = host->devices;
    if (d->next)
        d->next->prev = d;
    host->devices = d;
    return d;
}

/* The translation goes before the pin: the device must not reach a page that nobody holds for it. */
static void unmap(struct device *d, struct iova_map **at)
{
    struct iova_map *map = *at;
    *at = map->next;
    d->nr_pages -= map->nr;
    gmem_unpin(map->ref);
    free(map);
}

void device_free(struct device *d)
{
    while (d->maps)
        unmap(d, &d->maps);
    if (d->prev)
        d->prev->next = d->next;
    else
        d->host->devices = d->next;
    if (d->next)
        d->next->prev = d->prev;
    free(d);
}

static const struct iova_map *map_at(const struct device *d, uint64_t iova)
{
    const struct iova_map *map = d->maps;
    while (map && (iova < map->iova || (iova - map->iova) >> HOST_PAGE_SHIFT >= map->nr))
        map = map->next;
    return map;
}

static bool overlaps(const struct iova_map *map, uint64_t iova, uint64_t nr)
{
    return iova < map->iova + (map->nr << HOST_PAGE_SHIFT) && map->iova < iova + (nr << HOST_PAGE_SHIFT);
}

int device_map(struct device *d, struct mm *mm, uint64_t va, uint64_t nr, uint64_t iova, struct caller *caller)
{
    if (!nr || (va | iova) & (HOST_PAGE_SIZE - 1)) {
        caller_explain(caller, "IOVA 0x%llx, address 0x%llx, %llu pages: aligned, and at least one",
                       (unsigned long long)iova, (unsigned long long)va, (unsigned long long)nr);
        return -EINVAL;
    }
    struct iova_map *map = calloc(1, sizeof(*map));
    if (!map)
        return -ENOMEM;
    *map = (struct iova_map){.iova = iova, .nr = nr};
    int rc = mm_gup(mm, va, nr, REF_LONGTERM, d->name, &map->ref, caller);
    for (const struct iova_map *m = d->maps; m && !rc; m = m->next) {
        if (!overlaps(m, iova, nr))
            continue;
        caller_explain(caller, "IOVA 0x%llx is mapped already", (unsigned long long)iova);
        gmem_unpin(map->ref);
        rc = -EEXIST;
    }
    if (rc) {
        free(map);
        return rc;
    }
    map->next = d->maps;
    d->maps = map;
    d->nr_pages += nr;
    return 0;
}

uint64_t device_unmap(struct device *d, uint64_t iova, uint64_t nr)
{
    uint64_t before = d->nr_pages;
    for (struct iova_map **at = &d->maps; *at;) {
        const struct iova_map *map = *at;
        if (map->iova >= iova && map->iova + (map->nr << HOST_PAGE_SHIFT) <= iova + (nr << HOST_PAGE_SHIFT))
            unmap(d, at);
        else
            at = &(*at)->next;
    }
    return before - d->nr_pages;
}

uint64_t device_mapped(const struct device *d)
{
    return d->nr_pages;
}

uint64_t device_faults(const struct device *d)
{
    return d->nr_faults;
}

int device_translate(struct device *d, uint64_t iova, bool write, uint64_t *pfn)
{
    const struct iova_map *map = map_at(d, iova);
    struct host_event event = {.kind = HOST_EV_dma, .a0 = write, .a1 = iova, .rc = map ? 0 : -EFAULT};
    if (map)
        *pfn = ref_pfn(map->ref, (iova - map->iova) >> HOST_PAGE_SHIFT);
    else
        d->nr_faults++;
    struct gmem *gmem;
    uint64_t index;
    if (map && host_frame_slot(d->host, *pfn, &gmem, &index)) {
        event.vm = gmem->vm_id;
        event.gmem = gmem->id;
        event.offset = index << HOST_PAGE_SHIFT;
        event.size = HOST_PAGE_SIZE;
    }
    snprintf(event.note, sizeof(event.note), "%s", d->name);
    host_trace(d->host, &event);
    return map ? 0 : -EFAULT;
}

const char *host_iommu_has(const struct host *host, uint64_t pfn)
{
    for (const struct device *d = host->devices; d; d = d->next)
        for (const struct iova_map *m = d->maps; m; m = m->next)
            for (uint64_t i = 0; i < m->nr; i++)
                if (ref_pfn(m->ref, i) == pfn)
                    return d->name;
    return NULL;
}

void iommu_drop_process(struct host *host, uint32_t pid)
{
    for (struct device *d = host->devices; d; d = d->next)
        for (struct iova_map **at = &d->maps; *at;) {
            if ((*at)->ref->tag.pid == pid)
                unmap(d, at);
            else
                at = &(*at)->next;
        }
}
