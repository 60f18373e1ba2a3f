/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/handles.h"

static int compare(const struct handle *a, const struct handle *b)
{
    return a->id < b->id ? -1 : a->id > b->id;
}

RB_GENERATE_INTERNAL(handle_tree, handle, node, compare, static __attribute__((unused)))

struct handle *handle_find(struct handle_tree *tree, uint64_t id)
{
    struct handle key = {.id = id};

    return RB_FIND(handle_tree, tree, &key);
}

void handle_insert(struct handle_tree *tree, struct handle *handle)
{
    RB_INSERT(handle_tree, tree, handle);
}

void handle_remove(struct handle_tree *tree, struct handle *handle)
{
    RB_REMOVE(handle_tree, tree, handle);
}

struct handle *handle_first(struct handle_tree *tree)
{
    return RB_MIN(handle_tree, tree);
}

struct handle *handle_next(struct handle *handle)
{
    return RB_NEXT(handle_tree, NULL, handle);
}
