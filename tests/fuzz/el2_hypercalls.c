/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hypercalls, guest calls and aborts in any order, with any arguments that a
 * host or guest might choose: the player of the random tester, whose choices
 * are the input's bytes.  The oracle judges each call, all of EL2's state is
 * looked at now and then, and in the end every page must be the host's again.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/el2_player.h"

/* One byte decides between few things, more bytes between more. */
static uint64_t draw(void *ctx, uint64_t n)
{
    if (n == 1)
        return 0;
    if (n == 0)
        return fuzz_uint(ctx, 8);
    return fuzz_uint(ctx, n <= 256 ? 1 : 2) % n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {.data = data, .left = size};
    struct player *player;

    /* A failed assertion outside of a test. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    player = player_new(draw, &in, true);
    if (fuzz_u8(&in) % 16)
        play_host_call(player, 0, HVC_prot_finalize, 0, 0, 0, 0);
    while (in.left) {
        player->el2->check = player->nr_calls % 16 == 0;
        player_step(player);
    }
    player->el2->check = true;
    player_end(player);
    player_free(player);
    return 0;
}
