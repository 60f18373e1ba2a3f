/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/host/variants.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct variant policies[] = {
#define X(id, letter_, name_, not_live_, doc_) {.name = name_, .letter = letter_, .not_live = not_live_, .doc = doc_},
    GMEM_POLICY_MAP(X)
#undef X
};
static const struct variant trackers[] = {
#define X(id, name_, doc_) {.name = name_, .doc = doc_},
    GMEM_TRACKER_MAP(X)
#undef X
};
static const struct variant hyps[] = {
#define X(id, name_, doc_) {.name = name_, .doc = doc_},
    GMEM_HYP_MAP(X)
#undef X
};
static const struct variant bugs[] = {
#define X(id, name_, where_, doc_) {.name = name_, .where = where_, .doc = doc_},
    HOST_BUG_MAP(X)
#undef X
};

static const struct {
    const char *word;
    const struct variant *of;
    unsigned nr;
} tables[VARIANT_KIND_COUNT] = {
    [VARIANT_POLICY] = {"policy", policies, GMEM_POLICY_COUNT},
    [VARIANT_TRACKER] = {"tracker", trackers, GMEM_TRACKER_COUNT},
    [VARIANT_HYP] = {"hypervisor", hyps, GMEM_HYP_COUNT},
    [VARIANT_BUG] = {"bug mode", bugs, HOST_BUG_COUNT},
};

const struct variant *variant_get(enum variant_kind kind, unsigned id)
{
    return id < tables[kind].nr ? &tables[kind].of[id] : NULL;
}

static int find(enum variant_kind kind, const char *name, size_t length)
{
    for (unsigned i = 0; i < tables[kind].nr; i++) {
        const struct variant *v = &tables[kind].of[i];
        if (strlen(v->name) == length && !strncmp(name, v->name, length))
            return (int)i;
        if (v->letter && length == 1 && !strncasecmp(name, v->letter, 1))
            return (int)i;
    }
    return -EINVAL;
}

static void unknown(enum variant_kind kind, const char *name, size_t length, char *error, size_t size)
{
    size_t at = 0;
    int n = snprintf(error, size, "no %s \"%.*s\" here; there is", tables[kind].word, (int)(length < 40 ? length : 40),
                     name);
    for (unsigned i = 0; n >= 0 && i < tables[kind].nr; i++) {
        at += (size_t)n;
        if (at >= size)
            break;
        n = snprintf(error + at, size - at, "%s %s", i ? "," : "", tables[kind].of[i].name);
    }
}

int variant_find(enum variant_kind kind, const char *name, char *error, size_t size)
{
    if (!name || !*name)
        return 0;
    int id = find(kind, name, strlen(name));
    if (id < 0)
        unknown(kind, name, strlen(name), error, size);
    return id;
}

int variant_bugs(const char *names, uint64_t *mask, char *error, size_t size)
{
    *mask = 0;
    while (names && *names) {
        size_t length = strcspn(names, ", ");
        int id = length ? find(VARIANT_BUG, names, length) : 0;
        if (id < 0) {
            unknown(VARIANT_BUG, names, length, error, size);
            return -EINVAL;
        }
        if (length)
            *mask |= UINT64_C(1) << id;
        names += length + (names[length] != '\0');
    }
    return 0;
}

const char *variant_bug_names(uint64_t mask, char *text, size_t size)
{
    size_t at = 0;
    *text = '\0';
    for (unsigned i = 0; i < HOST_BUG_COUNT && at < size; i++)
        if (mask >> i & 1) {
            int n = snprintf(text + at, size - at, "%s%s", at ? "," : "", bugs[i].name);
            at += n > 0 ? (size_t)n : 0;
        }
    return text;
}
