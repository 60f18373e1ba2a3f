/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads the daemon's JSON with the types that the contract gives.
 *
 * The first thing that is missing or of another type is remembered; whatever
 * is read after it is empty.  So an answer is read in a straight line and
 * checked once, at the end.
 */
#ifndef SRC_FAKEHYPCTL_READER_H
#define SRC_FAKEHYPCTL_READER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define READER_DEPTH 4

struct reader {
    bool failed;
    char error[160];
    struct {
        const char *name;
        size_t index;
    } path[READER_DEPTH]; /* arrays that are being walked */
    unsigned depth;
};

uint64_t reader_u64(struct reader *r, const json_t *obj, const char *key);
bool reader_bool(struct reader *r, const json_t *obj, const char *key);
const char *reader_string(struct reader *r, const json_t *obj, const char *key);
const json_t *reader_object(struct reader *r, const json_t *obj, const char *key);
const json_t *reader_array(struct reader *r, const json_t *obj, const char *key);
/* null is a value too. */
bool reader_is_null(struct reader *r, const json_t *obj, const char *key);

/* Element i of the array called `name`, which must be an object; reader_leave() when done with it. */
const json_t *reader_enter(struct reader *r, const json_t *array, const char *name, size_t i);
void reader_leave(struct reader *r);
/* Element i, which must be a string. */
const char *reader_string_at(struct reader *r, const json_t *array, const char *name, size_t i);

#endif
