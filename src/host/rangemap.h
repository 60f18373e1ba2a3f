/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A total map from [0, size) to small values, kept as maximal ranges of equal
 * value: what the kernel keeps in a maple tree.
 *
 * Invariants: the ranges cover [0, size) without gap or overlap; neighbours
 * differ in value.  A change is two steps, so that a caller can check first
 * and then commit: reserve() may fail, set() after it cannot.
 */
#ifndef SRC_HOST_RANGEMAP_H
#define SRC_HOST_RANGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

struct range_node;
RB_HEAD(range_tree, range_node);

struct rangemap {
    struct range_tree tree;
    uint64_t size;
    size_t nr_ranges;
    uint64_t changes;            /* calls of rangemap_set() */
    struct range_node *spare[2]; /* from reserve() */
};

struct range {
    uint64_t start, end; /* [start, end) */
    uint64_t value;
};

/* 0 or -ENOMEM.  size > 0. */
int rangemap_init(struct rangemap *map, uint64_t size, uint64_t value);
void rangemap_destroy(struct rangemap *map);

/* The range that holds index, cut by nothing.  index < size. */
struct range rangemap_get(const struct rangemap *map, uint64_t index);

/* True when all of [start, end) has the value. */
bool rangemap_all(const struct rangemap *map, uint64_t start, uint64_t end, uint64_t value);

/* Makes one later rangemap_set() infallible: 0 or -ENOMEM. */
int rangemap_reserve(struct rangemap *map);
/* Sets [start, end), start < end <= size.  Must follow a successful reserve(). */
void rangemap_set(struct rangemap *map, uint64_t start, uint64_t end, uint64_t value);

/* Iterates the ranges that meet [start, end), cut to it:  for (struct range r = rangemap_first(m, s, e); r.start < e; r
 * = rangemap_next(m, r, e)) */
struct range rangemap_first(const struct rangemap *map, uint64_t start, uint64_t end);
struct range rangemap_next(const struct rangemap *map, struct range range, uint64_t end);

#endif
