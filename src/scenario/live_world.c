/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs that the runner performs itself: what it asks the daemon, and the world's. */
#include "src/scenario/live.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int64_t number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    return s ? s : "";
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

void live_FILE_page(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    int rc;
    json_t *page = live_query(w->daemon, "page", w->gmem, (uint64_t)c->arg[0].n * SC_PAGE, &rc);
    const json_t *holders = json_object_get(page, "holders"), *h;
    int64_t refs = 0;
    size_t i;

    if (!page) {
        sc_broken(v, "no report of the page: %s", fakehyp_last_error());
        return;
    }
    json_array_foreach(holders, i, h)
    {
        refs += number(h, "count");
        if (i >= SC_HOLDERS)
            continue;
        snprintf(v->holders[i].who, sizeof(v->holders[i].who), "%d", (int)number(h, "pid"));
        snprintf(v->holders[i].what, sizeof(v->holders[i].what), "%s", text(h, "what"));
        snprintf(v->holders[i].kind, sizeof(v->holders[i].kind), "%s", text(h, "kind"));
        v->holders[i].count = (uint32_t)number(h, "count");
        v->nr_holders++;
    }
    sc_rc(v, 0);
    sc_field(v, "attr", !strcmp(text(page, "attribute"), "private") ? SC_ATTR_PRIVATE : SC_ATTR_SHARED);
    sc_field(v, "allocated", json_is_true(json_object_get(page, "allocated")));
    sc_field(v, "pfn", number(page, "pfn"));
    sc_field(v, "ref", number(page, "refcount"));
    sc_field(v, "map", number(page, "mapcount"));
    sc_field(v, "holders", (int64_t)json_array_size(holders));
    sc_field(v, "refs", refs);
    v->value = number(page, "pfn");
    json_decref(page);
}

void live_FILE_ranges(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    int rc;
    json_t *status = live_query(w->daemon, "status", 0, 0, &rc);
    const json_t *gmem;
    size_t i;

    (void)c;
    sc_broken(v, "the daemon does not know the file");
    json_array_foreach(json_object_get(status, "gmems"), i, gmem)
    {
        if ((uint64_t)number(gmem, "id") != w->gmem)
            continue;
        v->broken[0] = '\0';
        sc_rc(v, 0);
        sc_field(v, "ranges", number(gmem, "ranges"));
        sc_field(v, "shared", number(gmem, "shared_bytes") / (int64_t)SC_PAGE);
        sc_field(v, "private", number(gmem, "private_bytes") / (int64_t)SC_PAGE);
        sc_field(v, "allocated", number(gmem, "allocated_pages"));
        v->value = number(gmem, "ranges");
    }
    json_decref(status);
}

static void mix(uint64_t *hash, const char *s)
{
    while (s && *s)
        *hash = (*hash ^ (uint8_t)*s++) * UINT64_C(0x100000001b3);
}

void live_FILE_hash(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    static const char *const members[] = {"attribute", "allocated", "pfn", "bytes_in", "refcount", "mapcount"};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    (void)c;
    for (uint64_t i = 0; i < w->config.pages; i++) {
        int rc;
        json_t *page = live_query(w->daemon, "page", w->gmem, i * SC_PAGE, &rc);
        for (unsigned m = 0; m < sizeof(members) / sizeof(members[0]); m++) {
            char *s = json_dumps(json_object_get(page, members[m]), JSON_ENCODE_ANY);
            mix(&hash, s);
            free(s);
        }
        json_decref(page);
    }
    sc_rc(v, 0);
    v->value = (int64_t)(hash >> 1);
}

/* ---- the kernel ------------------------------------------------------------------------------------------------- */

static void kernel_load(struct sc_live *w, const struct sc_call *c, const char *what, struct sc_verdict *v)
{
    int rc;
    json_t *answer = live_query(w->daemon, what, w->gmem, (uint64_t)c->arg[0].n * SC_PAGE, &rc);
    const char *hex = text(answer, "bytes");
    unsigned byte;

    if (rc == -EPERM) {
        sc_word(v, "OOPS");
        v->rc = rc;
    } else {
        live_rc(v, rc);
    }
    for (; v->nr_bytes < 16 && sscanf(hex, "%2x", &byte) == 1; hex += 2)
        v->bytes[v->nr_bytes++] = (char)byte;
    json_decref(answer);
}

void live_KERN_load(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    kernel_load(w, c, "kernel-load", v);
}

void live_KERN_copy(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    kernel_load(w, c, "kernel-copy", v);
}

/* ---- the world -------------------------------------------------------------------------------------------------- */

void live_WORLD_process(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    int peer = live_add_peer(w, c->arg[0].text, v);

    if (peer < 0)
        return;
    live_ask(w, peer, &(struct live_request){.ask = LIVE_JOIN, .config = w->config}, v);
    v->value = peer;
}

void live_WORLD_follow(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    live_ask(w, 0, &(struct live_request){.ask = LIVE_CALL, .call = *c}, v);
}

void live_WORLD_storm(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    live_ask(w, 0, &(struct live_request){.ask = LIVE_CALL, .call = *c}, v);
}

void live_WORLD_advance(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v)
{
    (void)w;
    if (c->arg[0].n < 0 || c->arg[0].n > 60000) {
        sc_broken(v, "%lld ms: 0 to 60000", (long long)c->arg[0].n);
        return;
    }
    usleep((useconds_t)c->arg[0].n * 1000);
    sc_rc(v, 0);
}
