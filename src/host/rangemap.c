/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/rangemap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* A node holds where its range begins and the value; it ends where the next one begins. */
struct range_node {
    RB_ENTRY(range_node) link;
    uint64_t start;
    uint64_t value;
};

static int by_start(const struct range_node *a, const struct range_node *b)
{
    return a->start < b->start ? -1 : a->start > b->start;
}

RB_GENERATE_INTERNAL(range_tree, range_node, link, by_start, static __attribute__((unused)))

/* tree.h knows no const: reading does not write. */
static struct range_tree *tree_of(const struct rangemap *map)
{
    return (struct range_tree *)(uintptr_t)&map->tree;
}

static struct range_node *node_at(const struct rangemap *map, uint64_t index)
{
    struct range_node key = {.start = index};
    struct range_node *n = RB_NFIND(range_tree, tree_of(map), &key);
    if (n && n->start == index)
        return n;
    return n ? RB_PREV(range_tree, tree_of(map), n) : RB_MAX(range_tree, tree_of(map));
}

static uint64_t end_of(const struct rangemap *map, struct range_node *n)
{
    struct range_node *next = RB_NEXT(range_tree, tree_of(map), n);
    return next ? next->start : map->size;
}

int rangemap_init(struct rangemap *map, uint64_t size, uint64_t value)
{
    *map = (struct rangemap){.size = size};
    RB_INIT(tree_of(map));
    struct range_node *n = calloc(1, sizeof(*n));
    if (!n)
        return -ENOMEM;
    n->value = value;
    RB_INSERT(range_tree, tree_of(map), n);
    map->nr_ranges = 1;
    return 0;
}

void rangemap_destroy(struct rangemap *map)
{
    struct range_node *n, *next;
    RB_FOREACH_SAFE (n, range_tree, tree_of(map), next) {
        RB_REMOVE(range_tree, tree_of(map), n);
        free(n);
    }
    free(map->spare[0]);
    free(map->spare[1]);
    map->spare[0] = map->spare[1] = NULL;
    map->nr_ranges = 0;
}

struct range rangemap_get(const struct rangemap *map, uint64_t index)
{
    assert(index < map->size);
    struct range_node *n = node_at(map, index);
    return (struct range){n->start, end_of(map, n), n->value};
}

bool rangemap_all(const struct rangemap *map, uint64_t start, uint64_t end, uint64_t value)
{
    struct range r = rangemap_get(map, start);
    return r.value == value && end <= r.end;
}

int rangemap_reserve(struct rangemap *map)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!map->spare[i])
            map->spare[i] = calloc(1, sizeof(**map->spare));
        if (!map->spare[i])
            return -ENOMEM;
    }
    return 0;
}

static struct range_node *take_spare(struct rangemap *map)
{
    unsigned i = map->spare[1] ? 1 : 0;
    struct range_node *n = map->spare[i];
    assert(n);
    map->spare[i] = NULL;
    return n;
}

/* Makes a node begin exactly at index. */
static struct range_node *split(struct rangemap *map, uint64_t index)
{
    struct range_node *n = node_at(map, index);
    if (n->start == index)
        return n;
    struct range_node *half = take_spare(map);
    half->start = index;
    half->value = n->value;
    RB_INSERT(range_tree, tree_of(map), half);
    map->nr_ranges++;
    return half;
}

static void remove_node(struct rangemap *map, struct range_node *n)
{
    RB_REMOVE(range_tree, tree_of(map), n);
    free(n);
    map->nr_ranges--;
}

void rangemap_set(struct rangemap *map, uint64_t start, uint64_t end, uint64_t value)
{
    assert(start < end && end <= map->size);
    map->changes++;
    if (end < map->size)
        split(map, end);
    struct range_node *first = split(map, start);
    struct range_node *n;
    while ((n = RB_NEXT(range_tree, tree_of(map), first)) && n->start < end)
        remove_node(map, n);
    first->value = value;
    if (n && n->value == value)
        remove_node(map, n);
    struct range_node *before = RB_PREV(range_tree, tree_of(map), first);
    if (before && before->value == value)
        remove_node(map, first);
}

struct range rangemap_first(const struct rangemap *map, uint64_t start, uint64_t end)
{
    if (start >= end)
        return (struct range){end, end, 0};
    struct range r = rangemap_get(map, start);
    r.start = start;
    if (r.end > end)
        r.end = end;
    return r;
}

struct range rangemap_next(const struct rangemap *map, struct range range, uint64_t end)
{
    return rangemap_first(map, range.end, end);
}
