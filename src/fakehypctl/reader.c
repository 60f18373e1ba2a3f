/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/reader.h"

#include <assert.h>
#include <stdio.h>

static void fail(struct reader *r, const char *key, const char *wanted)
{
    char path[96] = "";
    size_t len = 0;

    if (r->failed)
        return;
    r->failed = true;
    for (unsigned i = 0; i < r->depth && len < sizeof(path); i++)
        len += (size_t)snprintf(path + len, sizeof(path) - len, "%s[%zu].", r->path[i].name, r->path[i].index);
    snprintf(r->error, sizeof(r->error), "%s%s: expected %s", path, key, wanted);
}

static const json_t *member(struct reader *r, const json_t *obj, const char *key, bool ok(const json_t *),
                            const char *wanted)
{
    const json_t *value = r->failed ? NULL : json_object_get(obj, key);

    if (value && ok(value))
        return value;
    fail(r, key, wanted);
    return NULL;
}

static bool is_u64(const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 0;
}

static bool is_bool(const json_t *v)
{
    return json_is_boolean(v);
}

static bool is_string(const json_t *v)
{
    return json_is_string(v);
}

static bool is_object(const json_t *v)
{
    return json_is_object(v);
}

static bool is_array(const json_t *v)
{
    return json_is_array(v);
}

static bool is_any(const json_t *v)
{
    return true;
}

uint64_t reader_u64(struct reader *r, const json_t *obj, const char *key)
{
    return (uint64_t)json_integer_value(member(r, obj, key, is_u64, "an integer, 0 or more"));
}

bool reader_bool(struct reader *r, const json_t *obj, const char *key)
{
    return json_is_true(member(r, obj, key, is_bool, "true or false"));
}

const char *reader_string(struct reader *r, const json_t *obj, const char *key)
{
    const char *s = json_string_value(member(r, obj, key, is_string, "a string"));

    return s ? s : "";
}

const json_t *reader_object(struct reader *r, const json_t *obj, const char *key)
{
    return member(r, obj, key, is_object, "an object");
}

const json_t *reader_array(struct reader *r, const json_t *obj, const char *key)
{
    return member(r, obj, key, is_array, "an array");
}

bool reader_is_null(struct reader *r, const json_t *obj, const char *key)
{
    return json_is_null(member(r, obj, key, is_any, "a value or null"));
}

const json_t *reader_enter(struct reader *r, const json_t *array, const char *name, size_t i)
{
    const json_t *value = json_array_get(array, i);
    char key[32];

    if (!json_is_object(value)) {
        snprintf(key, sizeof(key), "%s[%zu]", name, i);
        fail(r, key, "an object");
    }
    assert(r->depth < READER_DEPTH);
    r->path[r->depth].name = name;
    r->path[r->depth].index = i;
    r->depth++;
    return value;
}

void reader_leave(struct reader *r)
{
    assert(r->depth);
    r->depth--;
}

const char *reader_string_at(struct reader *r, const json_t *array, const char *name, size_t i)
{
    const char *s = json_string_value(json_array_get(array, i));
    char key[32];

    if (!s) {
        snprintf(key, sizeof(key), "%s[%zu]", name, i);
        fail(r, key, "a string");
    }
    return s ? s : "";
}
