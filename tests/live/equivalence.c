/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The same scripts on the simulated and on the live stage: every verdict is
 * the script's, and the same on both.  What the two stages do differently (a
 * refusal is SIGBUS here and may be SIGSEGV there) is one verdict, "refused".
 */
#include "tests/common/live_rig.h"
#include "tests/common/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakehyp/hypercall.h"

#define ALL 0, WORLD_PAGES
#define INVALID (-3)

/* ---- scripts -------------------------------------------------------------------------------------------------------
 */

static void happy_path(struct world *w)
{
    w_store(w, 0, 11, WORLD_OK);
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_touch(w, 0, WORLD_REFUSED);
    w_guest_load(w, 0, 11);
    w_guest_store(w, 2, 22);
    w_touch(w, 2, WORLD_REFUSED);
    w_guest_share(w, 2, 0);
    w_load(w, 2, 22);
    w_store(w, 2, 33, WORLD_OK);
    w_guest_load(w, 2, 33);
    w_touch(w, 1, WORLD_REFUSED);
    w_touch(w, 3, WORLD_REFUSED);
    w_guest_unshare(w, 2, 0);
    w_touch(w, 2, WORLD_REFUSED);
    w_guest_load(w, 2, 33);
}

static void pin_stands_in_the_way(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_store(w, 4, 1);
    for (unsigned kind = WORLD_FOLL_GET; kind <= WORLD_FOLL_LONGTERM; kind++) {
        w_pin(w, 4, 1, (enum world_pin)kind, "early", 0, -EFAULT);
        w_guest_share(w, 4, 0);
        w_pin(w, 4, 1, (enum world_pin)kind, "disk", 0, 0);
        w_page(w, 4, false, 1, kind == WORLD_FOLL_GET ? 1 : 1024);
        w_guest_unshare(w, 4, INVALID);
        w_busy(w, 4, 1, 4, "disk");
        w_touch(w, 4, WORLD_OK);
        w_guest_store(w, 4, (uint8_t)(10 + kind));
        w_load(w, 4, (uint8_t)(10 + kind));
        w_unpin(w, 0);
        w_guest_unshare(w, 4, 0);
        w_page(w, 4, true, 0, 0);
        w_guest_load(w, 4, (uint8_t)(10 + kind));
    }
}

static void all_or_nothing(struct world *w)
{
    w_store(w, 2, 2, WORLD_OK);
    w_store(w, 5, 5, WORLD_OK);
    w_pin(w, 5, 1, WORLD_FOLL_PIN, "five", 0, 0);
    w_pin(w, 9, 2, WORLD_FOLL_LONGTERM, "nine", 1, 0);
    w_busy(w, 0, 16, 5, "five");
    for (uint64_t page = 0; page < WORLD_PAGES; page++)
        w_page(w, page, false, page == 5 || page == 9 || page == 10, page == 5 || page == 9 || page == 10 ? 1024 : 0);
    w_load(w, 2, 2);
    w_busy(w, 6, 10, 9, "nine");
    w_convert(w, 0, 5, WORLD_PRIVATE, 0);
    w_convert(w, 6, 3, WORLD_PRIVATE, 0);
    w_unpin(w, 0);
    w_busy(w, 0, 16, 9, "nine");
    w_load(w, 5, 5);
    w_unpin(w, 1);
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_load(w, 5, 5);
    w_guest_load(w, 2, 2);
}

static void nothing_to_do(struct world *w)
{
    w_convert(w, ALL, WORLD_SHARED, 0);
    w_pin(w, 3, 1, WORLD_FOLL_PIN, "three", 0, 0);
    /* No change asks for no reference check. */
    w_convert(w, 3, 1, WORLD_SHARED, 0);
    w_unpin(w, 0);
    w_convert(w, 3, 1, WORLD_PRIVATE, 0);
    w_convert(w, 3, 1, WORLD_PRIVATE, 0);
    w_touch(w, 3, WORLD_REFUSED);
    w_touch(w, 2, WORLD_OK);
}

static void bad_arguments(struct world *w)
{
    w_convert_raw(w, 0, 0, WORLD_PRIVATE, -EINVAL);
    w_convert_raw(w, 1, 4096, WORLD_PRIVATE, -EINVAL);
    w_convert_raw(w, 0, 4095, WORLD_PRIVATE, -EINVAL);
    w_convert_raw(w, 0, 17 * 4096, WORLD_PRIVATE, -EINVAL);
    w_convert_raw(w, 16 * 4096, 4096, WORLD_PRIVATE, -EINVAL);
    w_convert_raw(w, UINT64_MAX - 4095, 8192, WORLD_PRIVATE, -EINVAL);
    w_convert_raw(w, 0, 4096, 1, -EINVAL);
    w_convert_raw(w, 0, 4096, WORLD_PRIVATE | 4, -EINVAL);
    w_pin(w, 16, 1, WORLD_FOLL_PIN, "beyond", 0, -EFAULT);
    w_pin(w, 15, 2, WORLD_FOLL_PIN, "beyond", 0, -EFAULT);
    w_touch(w, 0, WORLD_OK);
}

static void holes(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_load(w, 7, 0);
    w_touch(w, 7, WORLD_REFUSED);
    w_touch(w, 8, WORLD_REFUSED);
    w_convert(w, 8, 1, WORLD_SHARED, 0);
    w_load(w, 8, 0);
    w_store(w, 8, 8, WORLD_OK);
    w_convert(w, 8, 1, WORLD_PRIVATE, 0);
    w_guest_load(w, 8, 8);
}

static void shares_what_it_never_touched(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_share(w, 9, 0);
    w_load(w, 9, 0);
    w_store(w, 9, 99, WORLD_OK);
    w_guest_unshare(w, 9, 0);
    w_guest_load(w, 9, 99);
}

static void unilateral_with_a_pin(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_store(w, 2, 20);
    w_guest_share(w, 2, 0);
    w_pin(w, 2, 1, WORLD_FOLL_LONGTERM, "vfio", 0, 0);
    /* EL2 has decided; what the host still holds is the host's problem. */
    w_guest_unshare(w, 2, 0);
    w_touch(w, 2, WORLD_REFUSED);
    w_page(w, 2, false, 1, 1024);
    w_busy(w, 2, 1, 2, "vfio");
    w_pin(w, 2, 1, WORLD_FOLL_GET, "late", 1, -EFAULT);
    w_guest_store(w, 2, 21);
    w_unpin(w, 0);
    w_convert(w, 2, 1, WORLD_PRIVATE, 0);
    w_guest_load(w, 2, 21);
    w_guest_share(w, 2, 0);
    w_load(w, 2, 21);
}

static void unilateral_and_no_conversion(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_share(w, 3, 0);
    w_store(w, 3, 31, WORLD_OK);
    w_obedient(w, false);
    w_guest_unshare(w, 3, 0);
    /* Shared by its attribute, the guest's by EL2. */
    w_page(w, 3, false, 0, 0);
    w_touch(w, 3, WORLD_REFUSED);
    w_guest_store(w, 3, 32);
    w_guest_share(w, 3, 0);
    w_load(w, 3, 32);
    w_obedient(w, true);
    w_guest_unshare(w, 3, 0);
    w_page(w, 3, true, 0, 0);
}

static void consent_is_not_given(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_share(w, 3, 0);
    w_obedient(w, false);
    w_guest_unshare(w, 3, INVALID);
    w_store(w, 3, 1, WORLD_OK);
    w_guest_load(w, 3, 1);
    w_obedient(w, true);
    w_guest_unshare(w, 3, 0);
    w_touch(w, 3, WORLD_REFUSED);
}

static void share_is_not_followed(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_store(w, 3, 7);
    w_obedient(w, false);
    w_guest_share(w, 3, 0);
    /* EL2 would let the host in; the file says private. */
    w_touch(w, 3, WORLD_REFUSED);
    w_guest_load(w, 3, 7);
    w_convert(w, 3, 1, WORLD_SHARED, 0);
    w_load(w, 3, 7);
}

static void lying_vmm(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_store(w, 3, 77);
    w_convert(w, 3, 1, WORLD_SHARED, 0);
    w_page(w, 3, false, 0, 0);
    w_touch(w, 3, WORLD_REFUSED);
    w_store(w, 3, 1, WORLD_REFUSED);
    w_pin(w, 3, 1, WORLD_FOLL_PIN, "thief", 0, -EFAULT);
    w_guest_load(w, 3, 77);
    w_convert(w, 3, 1, WORLD_PRIVATE, 0);
    w_guest_load(w, 3, 77);
    /* The whole file at once: what the guest never had is shared, the rest is not. */
    w_convert(w, ALL, WORLD_SHARED, 0);
    w_touch(w, 2, WORLD_OK);
    w_touch(w, 3, WORLD_REFUSED);
    w_touch(w, 4, WORLD_OK);
}

static void punch_of_shared(struct world *w)
{
    w_store(w, 6, 66, WORLD_OK);
    w_store(w, 7, 77, WORLD_OK);
    w_punch(w, 6, 1, 0);
    w_load(w, 6, 0);
    w_load(w, 7, 77);
    w_page(w, 6, false, 0, 0);
    w_pin(w, 7, 1, WORLD_FOLL_PIN, "pinned", 0, 0);
    /* Never fails because of references: the page only leaves the file. */
    w_punch(w, 7, 1, 0);
    w_load(w, 7, 0);
    w_convert(w, 7, 1, WORLD_PRIVATE, 0);
    w_unpin(w, 0);
}

static void punch_of_owned(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_store(w, 5, 55);
    w_guest_store(w, 6, 66);
    w_punch(w, 5, 1, 0);
    w_touch(w, 5, WORLD_REFUSED);
    w_page(w, 5, true, 0, 0);
    w_guest_load(w, 6, 66);
    w_guest_touch(w, 5, WORLD_POISONED);
    w_guest_resume(w, WORLD_POISONED);
}

static void punch_of_private_hole(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_store(w, 5, 55);
    w_punch(w, 8, 4, 0);
    w_guest_load(w, 8, 0);
    w_guest_load(w, 5, 55);
}

static void fallocate_errors(struct world *w)
{
    w_fallocate(w, 0, 0, 4096, -EOPNOTSUPP);
    w_fallocate(w, 2, 0, 4096, -EOPNOTSUPP);
    w_fallocate(w, 1, 0, 4097, -EINVAL);
    w_fallocate(w, 1, -4096, 4096, -EINVAL);
    w_fallocate(w, 1, 15 * 4096, 2 * 4096, -EINVAL);
    w_fallocate(w, 3, 15 * 4096, 2 * 4096, 0);
    w_fallocate(w, 3, 100 * 4096, 4096, 0);
    w_fallocate(w, 1, 0, 3 * 4096, 0);
    w_load(w, 1, 0);
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_fallocate(w, 1, 0, 16 * 4096, 0);
    w_touch(w, 1, WORLD_REFUSED);
    w_guest_load(w, 1, 0);
}

/* Nobody but stage 2 stops the kernel's own map: what it does then depends on the instruction. */
static void kernel_accesses(struct world *w)
{
    w_store(w, 0, 7, WORLD_OK);
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    /* Private by attribute, and still the host's. */
    w_kernel_load(w, 0, true, 0, 7);
    w_kernel_load(w, 0, false, 0, 7);
    w_touch(w, 0, WORLD_REFUSED);
    w_kernel_load(w, 1, false, -ENOENT, 0);
    /* Shared by the guest. */
    w_guest_store(w, 4, 44);
    w_guest_share(w, 4, 0);
    w_kernel_load(w, 4, true, 0, 44);
    w_kernel_load(w, 4, false, 0, 44);
    w_guest_load(w, 4, 44);
    /* The guest's own: a fixup leaves it alone. */
    w_guest_store(w, 2, 22);
    w_kernel_load(w, 2, true, -EFAULT, 0);
    w_guest_load(w, 2, 22);
    /* Without one the page is taken, zeroed; it is the host's then, and its IPA is dead. */
    w_kernel_load(w, 2, false, 0, 0);
    w_kernel_load(w, 2, true, 0, 0);
    w_touch(w, 2, WORLD_REFUSED);
    w_convert(w, 2, 1, WORLD_SHARED, 0);
    w_load(w, 2, 0);
    w_store(w, 2, 9, WORLD_OK);
    w_guest_touch(w, 2, WORLD_POISONED);
}

/* The attribute says shared, the guest has not shared it: the process is refused by stage 2 alone. */
static void stage_2_alone(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_store(w, 5, 55);
    w_convert(w, 5, 1, WORLD_SHARED, 0);
    w_touch(w, 5, WORLD_REFUSED);
    w_kernel_load(w, 5, true, -EFAULT, 0);
    w_touch(w, 5, WORLD_REFUSED);
    w_kernel_load(w, 5, false, 0, 0);
    w_load(w, 5, 0);
    w_store(w, 5, 66, WORLD_OK);
    w_load(w, 5, 66);
}

static void retry_after_unpin(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_share(w, 2, 0);
    w_pin(w, 2, 1, WORLD_FOLL_PIN, "one", 0, 0);
    w_pin(w, 2, 1, WORLD_FOLL_PIN, "two", 1, 0);
    w_page(w, 2, false, 2, 2048);
    w_guest_unshare(w, 2, INVALID);
    w_unpin(w, 0);
    w_guest_unshare(w, 2, INVALID);
    w_busy(w, 2, 1, 2, "two");
    w_unpin(w, 1);
    w_guest_unshare(w, 2, 0);
    w_guest_unshare(w, 2, INVALID);
}

static void guest_touches_shared(struct world *w)
{
    w_store(w, 6, 61, WORLD_OK);
    w_obedient(w, false);
    w_guest_touch(w, 6, WORLD_MEMORY_FAULT);
    w_guest_resume(w, WORLD_MEMORY_FAULT);
    w_load(w, 6, 61);
    w_convert(w, 6, 1, WORLD_PRIVATE, 0);
    w_guest_resume(w, WORLD_OK);
    w_touch(w, 6, WORLD_REFUSED);
    w_obedient(w, true);
    w_store(w, 7, 71, WORLD_OK);
    w_guest_load(w, 7, 71);
    w_page(w, 7, true, 0, 0);
}

static void guest_call_errors(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    w_guest_call(w, SMCCC_HYP_MEMINFO, 0, 4096);
    w_guest_store(w, 0, 1);
    w_guest_call(w, SMCCC_MEM_SHARE, 1, INVALID);
    w_guest_unshare(w, 0, INVALID);
    w_guest_share(w, 0, 0);
    w_guest_share(w, 0, INVALID);
    w_load(w, 0, 1);
}

static void torn_down_and_reused(struct world *w)
{
    for (unsigned i = 0; i < 3; i++) {
        w_convert(w, ALL, WORLD_PRIVATE, 0);
        for (uint64_t page = 0; page < 6; page++) {
            w_guest_load(w, page, 0);
            w_guest_store(w, page, (uint8_t)(100 + page));
        }
        w_guest_share(w, 2, 0);
        w_load(w, 2, 102);
        w_rebuild(w);
        w_load(w, 2, 0);
        w_load(w, 3, 0);
    }
}

static void to_and_fro(struct world *w)
{
    w_convert(w, ALL, WORLD_PRIVATE, 0);
    for (uint8_t i = 1; i <= 8; i++) {
        w_guest_store(w, 1, i);
        w_guest_share(w, 1, 0);
        w_load(w, 1, i);
        w_store(w, 1, (uint8_t)(i + 100), WORLD_OK);
        w_guest_unshare(w, 1, 0);
        w_guest_load(w, 1, (uint8_t)(i + 100));
        w_touch(w, 1, WORLD_REFUSED);
    }
}

/* ---- playing them on both --------------------------------------------------------------------------------------- */

struct script {
    void (*play)(struct world *w);
    bool unilateral;
};

static void play(const struct world_ops *ops, const struct script *script, struct world *w)
{
    *w = (struct world){.ops = ops, .unilateral = script->unilateral, .obedient = true};
    ops->run(w, script->play);
    if (w->nr_wrong)
        rig_note("%s", w->wrong);
}

static void on_both(void **state)
{
    const struct script *script = *state;
    struct world *sim = calloc(1, sizeof(*sim)), *live = calloc(1, sizeof(*live));

    assert_non_null(sim);
    assert_non_null(live);
    play(&world_sim, script, sim);
    play(&world_live, script, live);
    unsigned differ = sim->nr_lines != live->nr_lines;
    for (unsigned i = 0; i < sim->nr_lines && i < live->nr_lines; i++) {
        if (!strcmp(sim->line[i], live->line[i]))
            continue;
        differ++;
        rig_note("verdict %u: sim: %s; live: %s", i, sim->line[i], live->line[i]);
    }
    rig_note("%u verdicts, %u differ", sim->nr_lines, differ);
    unsigned wrong = sim->nr_wrong + live->nr_wrong;
    free(sim);
    free(live);
    assert_int_equal(differ, 0);
    assert_int_equal(wrong, 0);
}

static char *counts;

/* The script is the test's state, so the fixtures that keep a connection there do not fit. */
static int before(void **state)
{
    (void)state;
    /* Kernels have been seen to stand still for a minute while processes beside this one look into /proc. */
    rig_watchdog(240);
    free(counts);
    counts = rig_counts(rig_observer);
    return counts ? 0 : -1;
}

static int after(void **state)
{
    (void)state;
    bool same = rig_daemon_alive(&rig) && rig_counts_return_to(rig_observer, counts, NULL);
    free(counts);
    counts = NULL;
    return same ? 0 : -1;
}

#define SCRIPT(f, mode)                                                                                                \
    {                                                                                                                  \
#f, on_both, before, after, &(struct script)                                                                   \
        {                                                                                                              \
            f, mode                                                                                                    \
        }                                                                                                              \
    }

static const struct CMUnitTest tests[] = {
    SCRIPT(happy_path, false),
    {"happy_path_unilateral", on_both, before, after, &(struct script){happy_path, true}},
    SCRIPT(pin_stands_in_the_way, false),
    SCRIPT(all_or_nothing, false),
    SCRIPT(nothing_to_do, false),
    SCRIPT(bad_arguments, false),
    SCRIPT(holes, false),
    SCRIPT(shares_what_it_never_touched, false),
    SCRIPT(unilateral_with_a_pin, true),
    SCRIPT(unilateral_and_no_conversion, true),
    SCRIPT(consent_is_not_given, false),
    SCRIPT(share_is_not_followed, false),
    SCRIPT(lying_vmm, false),
    SCRIPT(punch_of_shared, false),
    SCRIPT(punch_of_owned, false),
    SCRIPT(punch_of_private_hole, false),
    SCRIPT(fallocate_errors, false),
    SCRIPT(kernel_accesses, false),
    SCRIPT(stage_2_alone, false),
    SCRIPT(retry_after_unpin, false),
    SCRIPT(guest_touches_shared, false),
    SCRIPT(guest_call_errors, false),
    SCRIPT(torn_down_and_reused, false),
    SCRIPT(to_and_fro, false),
    {"to_and_fro_unilateral", on_both, before, after, &(struct script){to_and_fro, true}},
};

RIG_MAIN(tests)
