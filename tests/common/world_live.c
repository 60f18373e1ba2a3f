/* SPDX-License-Identifier: BSD-2-Clause */
/* The world on the live stage: libfakehyp and a puppet. */
#include "tests/common/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/live_puppet.h"

struct live_world {
    struct fakehyp *fh;
    struct pvm vm;
    struct fakehyp_pin *pins[WORLD_PINS];
    enum world_insn insn;
};

static struct live_world *backend(struct world *w)
{
    return w->backend;
}

static struct puppet *puppet(struct world *w)
{
    return &backend(w)->vm.puppet[0];
}

static void build(struct world *w)
{
    struct live_world *l = backend(w);
    pvm_create(&l->vm, l->fh,
               &(struct pvm_config){.pages = WORLD_PAGES,
                                    .mode = w->unilateral ? FAKEHYP_UNSHARE_UNILATERAL : FAKEHYP_UNSHARE_CONSENT,
                                    .shared = true});
    /* The script decides what the VMM does. */
    l->vm.ignore = true;
}

static void live_unpin(struct world *w, unsigned slot)
{
    struct live_world *l = backend(w);
    if (l->pins[slot])
        must(fakehyp_unpin(l->pins[slot]));
    l->pins[slot] = NULL;
}

static void take_apart(struct world *w)
{
    for (unsigned i = 0; i < WORLD_PINS; i++)
        live_unpin(w, i);
    pvm_destroy(&backend(w)->vm);
}

static void live_rebuild(struct world *w)
{
    take_apart(w);
    build(w);
}

static void live_run(struct world *w, void (*play)(struct world *w))
{
    struct live_world l = {.fh = NULL};
    w->backend = &l;
    must(fakehyp_connect(rig.socket, &l.fh));
    build(w);
    play(w);
    take_apart(w);
    fakehyp_disconnect(l.fh);
}

static bool live_touch(struct world *w, uint64_t page, bool write, uint8_t *value)
{
    return write ? pvm_writes(&backend(w)->vm, page * PAGE, *value) : pvm_reads(&backend(w)->vm, page * PAGE, value);
}

static int live_world_kernel_load(struct world *w, uint64_t page, bool fixup, uint8_t *value)
{
    unsigned byte = 0;
    char *json;
    int rc =
        fakehyp_query(backend(w)->fh, fixup ? "kernel-copy" : "kernel-load", backend(w)->vm.gmem, page * PAGE, &json);

    if (rc)
        return rc;
    json_t *answer = json_loads(json, 0, NULL);
    if (sscanf(json_string_value(json_object_get(answer, "bytes")), "%2x", &byte) != 1)
        rc = -EPROTO;
    *value = (uint8_t)byte;
    json_decref(answer);
    free(json);
    return rc;
}

static int live_convert(struct world *w, uint64_t offset, uint64_t size, uint64_t attributes, uint64_t *error_offset,
                        char *holder, size_t holder_size)
{
    struct fakehyp_holder first = {.what = ""};
    int rc = fakehyp_convert(backend(w)->vm.gmem, offset, size, attributes, error_offset);
    if (rc && fakehyp_last_holders(&first, 1))
        snprintf(holder, holder_size, "%s", first.what);
    return rc;
}

static int live_pin(struct world *w, uint64_t page, uint64_t nr, enum world_pin kind, const char *label, unsigned slot)
{
    return fakehyp_pin(backend(w)->vm.gmem, page * PAGE, nr * PAGE, (enum fakehyp_pin_kind)kind, label,
                       &backend(w)->pins[slot]);
}

static int live_fallocate(struct world *w, int mode, int64_t offset, int64_t length)
{
    return fakehyp_fallocate(backend(w)->vm.gmem, mode, offset, length);
}

static void live_guest_give(struct world *w, enum world_insn insn, uint64_t gpa, uint64_t value)
{
    backend(w)->insn = insn;
    if (insn == WORLD_HVC)
        puppet_give(puppet(w), PUPPET_CALL, value, gpa, 0);
    else if (insn == WORLD_READ)
        puppet_give(puppet(w), PUPPET_READ, gpa, 1, 0);
    else
        puppet_give(puppet(w), PUPPET_FILL, gpa, 1, value);
}

static void live_guest_run(struct world *w, struct world_exit *e)
{
    struct puppet *p = puppet(w);
    int rc = puppet_go(p);

    if (rc == PUPPET_DONE) {
        e->done = true;
        e->result = backend(w)->insn == WORLD_READ ? p->command->data[0] : p->command->result;
        return;
    }
    e->rc = rc < 0 ? rc : 0;
    e->reason = p->run->exit_reason;
    if (e->reason == FAKEHYP_EXIT_MEMORY_FAULT) {
        e->gpa = p->run->memory_fault.gpa;
    } else if (e->reason == FAKEHYP_EXIT_HYPERCALL) {
        e->nr = p->run->hypercall.nr;
        e->gpa = p->run->hypercall.args[0];
    }
}

static void live_page(struct world *w, uint64_t page, struct world_page *out)
{
    json_t *report = rig_page(backend(w)->fh, backend(w)->vm.gmem, page * PAGE);
    const json_t *holders = json_object_get(report, "holders"), *h;
    size_t i;

    out->private = !strcmp(json_string_value(json_object_get(report, "attribute")), "private");
    out->holders = (unsigned)json_array_size(holders);
    out->refs = 0;
    json_array_foreach(holders, i, h) out->refs += (uint32_t)json_integer_value(json_object_get(h, "count"));
    json_decref(report);
}

static unsigned live_world_audit(struct world *w)
{
    return !rig_audit_ok(backend(w)->fh);
}

const struct world_ops world_live = {
    .name = "live",
    .run = live_run,
    .rebuild = live_rebuild,
    .touch = live_touch,
    .kernel_load = live_world_kernel_load,
    .convert = live_convert,
    .pin = live_pin,
    .unpin = live_unpin,
    .fallocate = live_fallocate,
    .guest_give = live_guest_give,
    .guest_run = live_guest_run,
    .page = live_page,
    .audit = live_world_audit,
};
