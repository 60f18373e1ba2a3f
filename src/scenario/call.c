/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/scenario/call.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IS_LIVE true
#define IS_NOT_LIVE false

const struct sc_verb_info sc_verbs[SC_NR_VERBS] = {
#define X(actor, name, sig, say, result, stage, live, meaning)                                                         \
    [SC_##actor##_##name] = {SC_##actor, #name, sig, say, SC_##result, IS_##stage, live, meaning},
    SC_VERBS(X)
#undef X
};

const char *const sc_actor_names[SC_NR_ACTORS] = {
#define X(id, name) [SC_##id] = name,
    SC_ACTORS(X)
#undef X
};

int sc_verb_find(enum sc_actor actor, const char *name)
{
    for (int i = 0; i < SC_NR_VERBS; i++)
        if (sc_verbs[i].actor == actor && !strcmp(sc_verbs[i].name, name))
            return i;
    return -1;
}

static void type_of(const char *name, struct sc_param *p)
{
    static const char *const plain[] = {"int", "attr", "text", "handle"};

    p->type = SC_TYPE_INT;
    for (unsigned i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        if (!strcmp(name, plain[i]))
            p->type = (enum sc_type)i;
    for (unsigned i = 0; i < SC_NR_ACTORS; i++) {
        if (strcmp(name, sc_actor_names[i]))
            continue;
        p->type = SC_TYPE_ACTOR;
        p->actor = (enum sc_actor)i;
    }
}

unsigned sc_params(enum sc_verb verb, struct sc_param out[SC_ARGS])
{
    const char *s = sc_verbs[verb].signature;
    unsigned nr = 0;

    while (*s && nr < SC_ARGS) {
        struct sc_param *p = &out[nr++];
        char word[64], *value, *type;
        size_t len = strcspn(s, " ");
        snprintf(word, sizeof(word), "%.*s", (int)len, s);
        s += len + strspn(s + len, " ");
        *p = (struct sc_param){.type = SC_TYPE_INT};
        value = strchr(word, '=');
        if (value) {
            *value++ = '\0';
            p->has_default = true;
            snprintf(p->value, sizeof(p->value), "%s", value);
        }
        type = strchr(word, ':');
        if (type) {
            *type++ = '\0';
            type_of(type, p);
        }
        snprintf(p->name, sizeof(p->name), "%s", word);
    }
    return nr;
}

/* ---- verdicts --------------------------------------------------------------------------------------------------- */

void sc_rc(struct sc_verdict *v, int rc)
{
    const char *name = rc < 0 ? strerrorname_np(-rc) : NULL;

    v->rc = rc;
    if (name)
        snprintf(v->word, sizeof(v->word), "%s", name);
    else
        snprintf(v->word, sizeof(v->word), "%d", rc);
}

void sc_word(struct sc_verdict *v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(v->word, sizeof(v->word), format, args);
    va_end(args);
}

void sc_field(struct sc_verdict *v, const char *name, int64_t value)
{
    if (v->nr_fields == SC_FIELDS)
        return;
    snprintf(v->fields[v->nr_fields].name, sizeof(v->fields[0].name), "%s", name);
    v->fields[v->nr_fields++].value = value;
}

const int64_t *sc_field_get(const struct sc_verdict *v, const char *name)
{
    for (unsigned i = 0; i < v->nr_fields; i++)
        if (!strcmp(v->fields[i].name, name))
            return &v->fields[i].value;
    return NULL;
}

void sc_detail(struct sc_verdict *v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(v->detail, sizeof(v->detail), format, args);
    va_end(args);
}

void sc_broken(struct sc_verdict *v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(v->broken, sizeof(v->broken), format, args);
    va_end(args);
}

void sc_put(struct sc_text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(t->buf + t->len, t->size - t->len, format, args);
    va_end(args);
    if (n > 0)
        t->len = t->len + (size_t)n < t->size ? t->len + (size_t)n : t->size - 1;
}

/* ---- narration -------------------------------------------------------------------------------------------------- */

static void put_bytes(struct sc_text *t, const char *bytes, size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        sc_put(t, "%c", isprint((unsigned char)bytes[i]) ? bytes[i] : '.');
}

static int param_named(const struct sc_param *params, unsigned nr, const char *name, size_t len)
{
    for (unsigned i = 0; i < nr; i++)
        if (strlen(params[i].name) == len && !memcmp(params[i].name, name, len))
            return (int)i;
    return -1;
}

static void put_number(struct sc_text *t, const char *name, int64_t n)
{
    /* Bytes, function ids and flags are known by their digits in hex. */
    bool hex = strstr(name, "_bytes") || !strcmp(name, "number") || !strcmp(name, "attributes") || n > 0xffff;
    if (hex && n >= 0)
        sc_put(t, "0x%llx", (unsigned long long)n);
    else
        sc_put(t, "%lld", (long long)n);
}

static void put_arg(struct sc_text *t, const struct sc_param *p, const struct sc_call *call, unsigned i)
{
    if (p->type == SC_TYPE_TEXT)
        put_bytes(t, call->arg[i].text, strlen(call->arg[i].text));
    else if (p->type == SC_TYPE_ATTR)
        sc_put(t, "%s", call->arg[i].n == SC_ATTR_PRIVATE ? "private" : "shared");
    else
        put_number(t, p->name, call->arg[i].n);
}

static void put_range(struct sc_text *t, int64_t page, int64_t nr)
{
    if (nr)
        sc_put(t, "[%lld,%lld)", (long long)page, (long long)(page + nr));
    else
        sc_put(t, "page %lld and all after it", (long long)page);
}

size_t sc_narrate_call(const struct sc_call *call, char *buf, size_t size)
{
    struct sc_text t = {buf, size, 0};
    struct sc_param params[SC_ARGS];
    unsigned nr = sc_params(call->verb, params);
    const char *s = sc_verbs[call->verb].narration;

    buf[0] = '\0';
    while (*s) {
        const char *end = *s == '{' ? strchr(s, '}') : NULL;
        if (!end) {
            sc_put(&t, "%c", *s++);
            continue;
        }
        const char *plus = memchr(s, '+', (size_t)(end - s));
        int first = param_named(params, nr, s + 1, (size_t)((plus ? plus : end) - s - 1));
        int second = plus ? param_named(params, nr, plus + 1, (size_t)(end - plus - 1)) : -1;
        if (plus)
            put_range(&t, call->arg[first].n, call->arg[second].n);
        else
            put_arg(&t, &params[first], call, (unsigned)first);
        s = end + 1;
    }
    return t.len;
}

static void put_holders(struct sc_text *t, const struct sc_verdict *v)
{
    for (unsigned i = 0; i < v->nr_holders && i < 3; i++) {
        const char *kind = v->holders[i].kind, *what = v->holders[i].what, *who = v->holders[i].who;
        sc_put(t, "%s", i ? "; " : "; held by ");
        if (*who)
            sc_put(t, "%s: ", who);
        sc_put(t, "%s%s%s", kind, *kind && *what ? ", " : "", what);
        if (v->holders[i].count > 1)
            sc_put(t, " (%u references)", v->holders[i].count);
    }
    if (v->nr_holders > 3)
        sc_put(t, "; and %u more", v->nr_holders - 3);
}

static void put_field(struct sc_text *t, unsigned i, const char *name, int64_t value)
{
    bool is_none = !strcmp(name, "none");
    if (is_none && !value)
        return;
    sc_put(t, "%s", i ? ", " : "");
    if (is_none)
        sc_put(t, "NONE_SHARED");
    else if (!strcmp(name, "attr"))
        sc_put(t, "%s", value == SC_ATTR_PRIVATE ? "private" : "shared");
    else if (!strcmp(name, "pfn"))
        sc_put(t, "pfn 0x%llx", (unsigned long long)value);
    else
        sc_put(t, "%s %lld", name, (long long)value);
}

size_t sc_narrate_verdict(const struct sc_call *call, const struct sc_verdict *v, char *buf, size_t size)
{
    struct sc_text t = {buf, size, 0};
    const char *at = strchr(v->word, '@');

    buf[0] = '\0';
    if (*v->broken) {
        sc_put(&t, "%s", v->broken);
        return t.len;
    }
    if (at)
        sc_put(&t, "%.*s at 0x%llx", (int)(at - v->word), v->word, strtoull(at + 1, NULL, 10) * SC_PAGE);
    else if (v->nr_fields && !v->rc)
        for (unsigned i = 0; i < v->nr_fields; i++)
            put_field(&t, i, v->fields[i].name, v->fields[i].value);
    else
        sc_put(&t, "%s", v->word);
    if (v->nr_bytes) {
        /* What follows the text is the zeroes of a fresh page. */
        sc_put(&t, ", \"");
        put_bytes(&t, v->bytes, strnlen(v->bytes, v->nr_bytes));
        sc_put(&t, "\"");
    }
    put_holders(&t, v);
    if (*v->detail && !v->nr_holders && (v->rc || !strcmp(sc_verbs[call->verb].name, "resume")))
        sc_put(&t, " (%s)", v->detail);
    return t.len;
}
