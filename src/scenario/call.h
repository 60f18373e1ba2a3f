/* SPDX-License-Identifier: BSD-2-Clause */
/* One call of a verb and its verdict: plain data, which also travels between processes. */
#ifndef SRC_SCENARIO_CALL_H
#define SRC_SCENARIO_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/scenario/verbs.h"

#define SC_PAGE UINT64_C(4096)
#define SC_ATTR_SHARED 0
#define SC_ATTR_PRIVATE 8
#define SC_MAX_VCPUS 8

/* Who acts.  The lower-case name is the type of an argument. */
#define SC_ACTORS(X)                                                                                                   \
    X(WORLD, "world")                                                                                                  \
    X(PROCESS, "process")                                                                                              \
    X(GUEST, "guest")                                                                                                  \
    X(KERN, "kern")                                                                                                    \
    X(HYP, "hyp")                                                                                                      \
    X(FILE, "file")                                                                                                    \
    X(VM, "vm")                                                                                                        \
    X(DEVICE, "device")                                                                                                \
    X(CPU, "cpu")

enum sc_actor {
#define X(id, name) SC_##id,
    SC_ACTORS(X)
#undef X
        SC_NR_ACTORS,
    SC_VERDICT = SC_NR_ACTORS /* as a verb's result: no actor */
};

enum sc_verb {
#define X(actor, name, sig, say, result, stage, live, meaning) SC_##actor##_##name,
    SC_VERBS(X)
#undef X
        SC_NR_VERBS
};

struct sc_verb_info {
    enum sc_actor actor;
    const char *name, *signature, *narration;
    int result; /* enum sc_actor, or SC_VERDICT */
    bool is_live;
    const char *live, *meaning;
};
extern const struct sc_verb_info sc_verbs[SC_NR_VERBS];
extern const char *const sc_actor_names[SC_NR_ACTORS];

/* The verb of an actor, -1: it has none of that name. */
int sc_verb_find(enum sc_actor actor, const char *name);

enum sc_type { SC_TYPE_INT, SC_TYPE_ATTR, SC_TYPE_TEXT, SC_TYPE_HANDLE, SC_TYPE_ACTOR };

#define SC_ARGS 6
#define SC_TEXT 96

struct sc_param {
    char name[64];
    enum sc_type type;
    enum sc_actor actor; /* of SC_TYPE_ACTOR */
    bool has_default;
    char value[64]; /* the default */
};
/* The parameters of a verb; returns how many. */
unsigned sc_params(enum sc_verb verb, struct sc_param out[SC_ARGS]);

struct sc_call {
    uint32_t verb; /* enum sc_verb */
    int32_t self;  /* number of the actor among its kind, in its world */
    struct {
        int64_t n; /* actors and handles: their number */
        char text[SC_TEXT];
    } arg[SC_ARGS];
};

#define SC_HOLDERS 8
#define SC_FIELDS 16
#define SC_BYTES 256

struct sc_verdict {
    int32_t rc;       /* 0 or -errno */
    char word[48];    /* what :expect() compares */
    int64_t value;    /* number of the handle or actor that the verb made, bytes copied, ... */
    char broken[160]; /* not empty: the call makes no sense, the script is wrong */
    uint32_t nr_bytes, nr_holders, nr_fields;
    char bytes[SC_BYTES];
    struct {
        char who[32]; /* the process, "" when the model knows none */
        char what[48], kind[32];
        uint32_t count;
    } holders[SC_HOLDERS];
    struct {
        char name[16];
        int64_t value;
    } fields[SC_FIELDS];
    char detail[320]; /* words for people */
    int fd;           /* between processes of the live stage: a descriptor that goes with the verdict, 0 none */
};

/* rc, and as word its errno's name without anything before it, or "0". */
void sc_rc(struct sc_verdict *v, int rc);
void sc_word(struct sc_verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sc_field(struct sc_verdict *v, const char *name, int64_t value);
void sc_detail(struct sc_verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The script asked for what does not exist: it ends there with these words. */
void sc_broken(struct sc_verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* NULL: no such field. */
const int64_t *sc_field_get(const struct sc_verdict *v, const char *name);

/* A text that grows by sc_put(), up to its size: what does not fit is cut off. */
struct sc_text {
    char *buf;
    size_t size, len;
};
void sc_put(struct sc_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "convert [3,4) to private". */
size_t sc_narrate_call(const struct sc_call *call, char *buf, size_t size);
/* "EAGAIN at 0x3000; held by vmm: FOLL_PIN, O_DIRECT read". */
size_t sc_narrate_verdict(const struct sc_call *call, const struct sc_verdict *v, char *buf, size_t size);

#endif
