/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs, in terms of what a stage offers.  The VMM's policy is here, so it is the same on both. */
#include "tests/common/world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fakehyp/hypercall.h"

#define EXIT_HYPERCALL 3u
#define EXIT_MEMORY_FAULT 39u

static const char *const end_name[] = {"ok", "refused", "memory fault", "poisoned", "broken"};

void world_note(struct world *w, bool wrong, const char *format, ...)
{
    char *line = w->line[w->nr_lines < WORLD_LINES ? w->nr_lines++ : WORLD_LINES - 1];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(w->line[0]), format, args);
    va_end(args);
    unsigned problems = w->ops->audit(w);
    if (problems) {
        size_t len = strlen(line);
        snprintf(line + len, sizeof(w->line[0]) - len, "; the audit finds %u problems", problems);
    }
    if ((wrong || problems) && !w->nr_wrong++)
        snprintf(w->wrong, sizeof(w->wrong), "%s: verdict %u is not the script's: %s", w->ops->name, w->nr_lines, line);
}

#define PAGE_NR(page) ((unsigned)(page))

/* ---- the host --------------------------------------------------------------------------------------------------- */

void w_touch(struct world *w, uint64_t page, enum world_end expected)
{
    uint8_t value = 0;
    enum world_end end = w->ops->touch(w, page, false, &value) ? WORLD_OK : WORLD_REFUSED;
    world_note(w, end != expected, "load(%u): %s", PAGE_NR(page), end_name[end]);
}

void w_load(struct world *w, uint64_t page, uint8_t expected)
{
    uint8_t value = 0;
    bool ok = w->ops->touch(w, page, false, &value);
    world_note(w, !ok || value != expected, "load(%u): %s, %u", PAGE_NR(page), end_name[ok ? WORLD_OK : WORLD_REFUSED],
               value);
}

void w_store(struct world *w, uint64_t page, uint8_t value, enum world_end expected)
{
    enum world_end end = w->ops->touch(w, page, true, &value) ? WORLD_OK : WORLD_REFUSED;
    world_note(w, end != expected, "store(%u): %s", PAGE_NR(page), end_name[end]);
}

void w_kernel_load(struct world *w, uint64_t page, bool fixup, int expected, uint8_t value)
{
    uint8_t got = 0;
    int rc = w->ops->kernel_load(w, page, fixup, &got);
    world_note(w, rc != expected || (!rc && got != value), "kernel load(%u)%s: %d, %u", PAGE_NR(page),
               fixup ? " with a fixup" : "", rc, rc ? 0 : got);
}

void w_convert_raw(struct world *w, uint64_t offset, uint64_t size, uint64_t attributes, int expected)
{
    uint64_t error_offset = UINT64_MAX;
    char holder[48] = "";
    int rc = w->ops->convert(w, offset, size, attributes, &error_offset, holder, sizeof(holder));
    world_note(w, rc != expected, "convert([0x%llx, +0x%llx), 0x%llx): %d", (unsigned long long)offset,
               (unsigned long long)size, (unsigned long long)attributes, rc);
}

void w_convert(struct world *w, uint64_t page, uint64_t nr, uint64_t attributes, int expected)
{
    w_convert_raw(w, page * WORLD_PAGE, nr * WORLD_PAGE, attributes, expected);
}

void w_busy(struct world *w, uint64_t page, uint64_t nr, uint64_t busy_page, const char *holder)
{
    uint64_t error_offset = UINT64_MAX;
    char named[48] = "";
    int rc = w->ops->convert(w, page * WORLD_PAGE, nr * WORLD_PAGE, WORLD_PRIVATE, &error_offset, named, sizeof(named));
    world_note(w, rc != -EAGAIN || error_offset != busy_page * WORLD_PAGE || strcmp(named, holder) != 0,
               "convert([%u, +%u), private): %d at 0x%llx, held by %s", PAGE_NR(page), PAGE_NR(nr), rc,
               (unsigned long long)error_offset, named);
}

void w_pin(struct world *w, uint64_t page, uint64_t nr, enum world_pin kind, const char *label, unsigned slot,
           int expected)
{
    int rc = w->ops->pin(w, page, nr, kind, label, slot);
    world_note(w, rc != expected, "pin([%u, +%u), kind %u): %d", PAGE_NR(page), PAGE_NR(nr), kind, rc);
}

void w_unpin(struct world *w, unsigned slot)
{
    w->ops->unpin(w, slot);
    world_note(w, false, "unpin(%u)", slot);
}

void w_fallocate(struct world *w, int mode, int64_t offset, int64_t length, int expected)
{
    int rc = w->ops->fallocate(w, mode, offset, length);
    world_note(w, rc != expected, "fallocate(0x%x, %lld, %lld): %d", (unsigned)mode, (long long)offset,
               (long long)length, rc);
}

void w_punch(struct world *w, uint64_t page, uint64_t nr, int expected)
{
    w_fallocate(w, 3, (int64_t)(page * WORLD_PAGE), (int64_t)(nr * WORLD_PAGE), expected);
}

void w_page(struct world *w, uint64_t page, bool private, unsigned holders, uint32_t refs)
{
    struct world_page got = {.private = false};
    w->ops->page(w, page, &got);
    world_note(w, got.private != private || got.holders != holders || got.refs != refs,
               "page(%u): %s, %u holders with %u references", PAGE_NR(page), got.private ? "private" : "shared",
               got.holders, got.refs);
}

void w_obedient(struct world *w, bool obedient)
{
    w->obedient = obedient;
    world_note(w, false, "the VMM %s what the guest asks for", obedient ? "does" : "ignores");
}

void w_rebuild(struct world *w)
{
    w->ops->rebuild(w);
    world_note(w, false, "a new VM");
}

/* ---- the guest -------------------------------------------------------------------------------------------------- */

/* Runs it until its instruction is done or it cannot go on; the VMM answers what it answers. */
static enum world_end go(struct world *w, int64_t *result)
{
    struct world_exit e;

    for (unsigned i = 0; i < 100; i++) {
        bool fault, call;
        uint64_t error_offset;
        char holder[48];
        e = (struct world_exit){.rc = 0};
        w->ops->guest_run(w, &e);
        *result = e.result;
        if (e.done)
            return WORLD_OK;
        fault = e.rc == -EFAULT && e.reason == EXIT_MEMORY_FAULT;
        call = !e.rc && e.reason == EXIT_HYPERCALL && (e.nr == SMCCC_MEM_SHARE || e.nr == SMCCC_MEM_UNSHARE);
        if (fault && !w->obedient)
            return WORLD_MEMORY_FAULT;
        if (e.rc == -EFAULT && !e.reason)
            return WORLD_POISONED;
        if (!fault && !call)
            break;
        if (w->obedient)
            w->ops->convert(w, e.gpa, WORLD_PAGE, call && e.nr == SMCCC_MEM_SHARE ? WORLD_SHARED : WORLD_PRIVATE,
                            &error_offset, holder, sizeof(holder));
    }
    *result = e.rc * 1000 - (int64_t)e.reason;
    return WORLD_BROKEN;
}

static void instruction(struct world *w, const char *name, enum world_insn insn, uint64_t gpa, uint64_t value,
                        enum world_end expected, bool look, int64_t expected_result)
{
    int64_t result = 0;

    w->ops->guest_give(w, insn, gpa, value);
    enum world_end end = go(w, &result);
    if (look || end == WORLD_BROKEN)
        world_note(w, end != expected || result != expected_result, "guest %s(%u): %s, %lld", name,
                   PAGE_NR(gpa / WORLD_PAGE), end_name[end], (long long)result);
    else
        world_note(w, end != expected, "guest %s(%u): %s", name, PAGE_NR(gpa / WORLD_PAGE), end_name[end]);
}

void w_guest_load(struct world *w, uint64_t page, uint8_t expected)
{
    instruction(w, "load", WORLD_READ, page * WORLD_PAGE, 0, WORLD_OK, true, expected);
}

void w_guest_store(struct world *w, uint64_t page, uint8_t value)
{
    instruction(w, "store", WORLD_WRITE, page * WORLD_PAGE, value, WORLD_OK, false, 0);
}

void w_guest_touch(struct world *w, uint64_t page, enum world_end expected)
{
    instruction(w, "load", WORLD_READ, page * WORLD_PAGE, 0, expected, false, 0);
}

void w_guest_resume(struct world *w, enum world_end expected)
{
    int64_t result = 0;
    enum world_end end = go(w, &result);
    world_note(w, end != expected, "guest goes on: %s", end_name[end]);
}

void w_guest_call(struct world *w, uint64_t nr, uint64_t x1, int64_t expected)
{
    w->ops->guest_give(w, WORLD_HVC, x1, nr);
    int64_t result = 0;
    enum world_end end = go(w, &result);
    world_note(w, end != WORLD_OK || result != expected, "guest call(0x%llx, 0x%llx): %s, %lld", (unsigned long long)nr,
               (unsigned long long)x1, end_name[end], (long long)result);
}

void w_guest_share(struct world *w, uint64_t page, int64_t expected)
{
    w_guest_call(w, SMCCC_MEM_SHARE, page * WORLD_PAGE, expected);
}

void w_guest_unshare(struct world *w, uint64_t page, int64_t expected)
{
    w_guest_call(w, SMCCC_MEM_UNSHARE, page * WORLD_PAGE, expected);
}
