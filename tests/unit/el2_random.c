/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random calls over a small pool of frames, handles and IPAs, with all checks
 * after each.  Which results calls have is not said here call by call, but the
 * table below says which ones there are: a long run must have seen every one,
 * and no run any other.
 *
 * usage: el2_random [--seed N] [--calls N] [--shard I/N] [--check N] [--from N] [--to N]
 *
 * A run is repeated exactly by its seed and shard.  --from tells each call from
 * that number on, --to ends there.  The oracle judges each call by what it
 * touched; after about each Nth (--check) it compares all of EL2's state, and
 * the invariants are checked over all tables.  --check 1 does so after each, and
 * before each that nothing has changed since the last.  FAKEHYP_RANDOM_CALLS in
 * the environment is another default for --calls.
 */
#include "tests/unit/el2_player.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SHORT_RUN UINT64_C(40000)
#define LONG_RUN UINT64_C(1000000) /* from here on nothing may be missing */

static const struct pair {
    enum play_call call;
    enum play_outcome outcome;
    const char
        *never; /* why no sequence of calls comes to it, though its check is in the specification; NULL: it does */
} pairs[] = {
#define PAIR(call, outcome)                                                                                            \
    {                                                                                                                  \
        PLAY_##call, OUT_##outcome, NULL                                                                               \
    }
#define NEVER(call, outcome, why)                                                                                      \
    {                                                                                                                  \
        PLAY_##call, OUT_##outcome, why                                                                                \
    }
    PAIR(early_call, NOT_SUPPORTED),
    PAIR(unknown_call, NOT_SUPPORTED),
    PAIR(prot_finalize, OK),
    PAIR(prot_finalize, EPERM),
    PAIR(vcpu_run, OK),
    PAIR(vcpu_run, EINVAL),
    PAIR(host_share_hyp, OK),
    PAIR(host_share_hyp, EINVAL),
    PAIR(host_share_hyp, EPERM),
    PAIR(host_unshare_hyp, OK),
    PAIR(host_unshare_hyp, EINVAL),
    PAIR(host_unshare_hyp, EPERM),
    PAIR(host_unshare_hyp, EBUSY),
    PAIR(host_donate_guest, OK),
    PAIR(host_donate_guest, EINVAL),
    PAIR(host_donate_guest, ENOMEM),
    PAIR(host_donate_guest, EPERM),
    PAIR(host_donate_guest, ERANGE),
    PAIR(host_share_guest, OK),
    PAIR(host_share_guest, EINVAL),
    PAIR(host_share_guest, ENOMEM),
    PAIR(host_share_guest, EPERM),
    PAIR(host_share_guest, ERANGE),
    NEVER(host_share_guest, EBUSY, "takes 2^32 shares of a page: el2_np"),
    PAIR(host_unshare_guest, OK),
    PAIR(host_unshare_guest, EINVAL),
    PAIR(host_unshare_guest, ERANGE),
    PAIR(host_unshare_guest, ENOENT),
    PAIR(host_unshare_guest, E2BIG),
    NEVER(host_unshare_guest, EPERM, "an np-guest has borrowed leaves only, of pages that are shared: el2_records"),
    PAIR(relax_perms_guest, OK),
    PAIR(relax_perms_guest, EINVAL),
    PAIR(relax_perms_guest, EAGAIN),
    PAIR(relax_perms_guest, ERANGE),
    NEVER(relax_perms_guest, EPERM, "a protected VM is EINVAL in the handler before: el2_errors"),
    PAIR(wrprotect_guest, OK),
    PAIR(wrprotect_guest, EINVAL),
    PAIR(wrprotect_guest, ERANGE),
    NEVER(wrprotect_guest, EPERM, "a protected VM is EINVAL in the handler before: el2_errors"),
    PAIR(test_clear_young_guest, OK),
    PAIR(test_clear_young_guest, ONE),
    PAIR(test_clear_young_guest, EINVAL),
    PAIR(test_clear_young_guest, ERANGE),
    NEVER(test_clear_young_guest, EPERM, "a protected VM is EINVAL in the handler before: el2_errors"),
    PAIR(mkyoung_guest, OK),
    PAIR(mkyoung_guest, EINVAL),
    NEVER(mkyoung_guest, EPERM, "a protected VM is EINVAL in the handler before: el2_errors"),
    PAIR(reserve_vm, OK),
    PAIR(reserve_vm, ENOMEM),
    NEVER(reserve_vm, EINVAL, "there is a VM table from boot on"),
    PAIR(unreserve_vm, OK),
    PAIR(unreserve_vm, IGNORED),
    PAIR(init_vm, OK),
    PAIR(init_vm, EPERM),
    PAIR(init_vm, EINVAL),
    PAIR(init_vm, ENOMEM),
    PAIR(init_vcpu, OK),
    PAIR(init_vcpu, ENOMEM),
    PAIR(init_vcpu, ENOENT),
    PAIR(init_vcpu, EBUSY),
    PAIR(init_vcpu, EINVAL),
    NEVER(init_vcpu, EPERM, "SVE state is not modelled"),
    PAIR(vcpu_in_poison_fault, OK),
    PAIR(vcpu_in_poison_fault, ONE),
    PAIR(vcpu_in_poison_fault, EINVAL),
    PAIR(vcpu_in_poison_fault, ERANGE),
    PAIR(force_reclaim_guest_page, OK),
    PAIR(force_reclaim_guest_page, EFAULT),
    PAIR(force_reclaim_guest_page, EAGAIN),
    PAIR(force_reclaim_guest_page, EINVAL),
    PAIR(force_reclaim_guest_page, EPERM),
    NEVER(force_reclaim_guest_page, EHWPOISON, "the annotation goes when the IPA dies: el2_records"),
    NEVER(force_reclaim_guest_page, ENOENT, "an annotation names a leaf that is there: el2_records"),
    NEVER(force_reclaim_guest_page, E2BIG, "a protected guest has no blocks: el2_records"),
    PAIR(reclaim_dying_guest_page, OK),
    PAIR(reclaim_dying_guest_page, EINVAL),
    PAIR(reclaim_dying_guest_page, ENOENT),
    PAIR(reclaim_dying_guest_page, E2BIG),
    PAIR(reclaim_dying_guest_page, EPERM),
    PAIR(reclaim_dying_guest_page, ERANGE),
    PAIR(start_teardown_vm, OK),
    PAIR(start_teardown_vm, EINVAL),
    PAIR(finalize_teardown_vm, OK),
    PAIR(finalize_teardown_vm, EINVAL),
    PAIR(finalize_teardown_vm, EBUSY),
    PAIR(vcpu_load, OK),
    PAIR(vcpu_load, IGNORED),
    PAIR(vcpu_put, OK),
    PAIR(vcpu_put, IGNORED),
    PAIR(tlb_flush_vmid, OK),
    PAIR(tlb_flush_vmid, IGNORED),
    PAIR(host_may_access, OK),
    PAIR(host_may_access, ONE),
    PAIR(host_may_access, EINVAL),
    PAIR(host_may_access, EPERM),
    PAIR(host_share_ffa, OK),
    PAIR(host_share_ffa, EINVAL),
    PAIR(host_share_ffa, EPERM),
    PAIR(host_unshare_ffa, OK),
    PAIR(host_unshare_ffa, EINVAL),
    PAIR(host_unshare_ffa, EPERM),
    PAIR(host_abort, OK),
    PAIR(host_abort, EEXIST),
    PAIR(host_abort, EPERM),
    PAIR(guest_abort, EXIT),
    PAIR(MEM_SHARE, OK),
    PAIR(MEM_SHARE, EXIT),
    PAIR(MEM_SHARE, EINVAL),
    PAIR(MEM_SHARE, EPERM),
    PAIR(MEM_SHARE, ERANGE),
    PAIR(MEM_SHARE, EHWPOISON),
    NEVER(MEM_SHARE, ENOENT, "an IPA without a page makes the guest exit and try again"),
    NEVER(MEM_SHARE, E2BIG, "a protected guest has no blocks: el2_records"),
    PAIR(MEM_UNSHARE, OK),
    PAIR(MEM_UNSHARE, EXIT),
    PAIR(MEM_UNSHARE, REFUSED),
    PAIR(MEM_UNSHARE, EINVAL),
    PAIR(MEM_UNSHARE, EPERM),
    PAIR(MEM_UNSHARE, ERANGE),
    PAIR(MEM_UNSHARE, ENOENT),
    PAIR(MEM_UNSHARE, EHWPOISON),
    NEVER(MEM_UNSHARE, E2BIG, "a protected guest has no blocks: el2_records"),
    PAIR(HYP_MEMINFO, OK),
    PAIR(HYP_MEMINFO, EINVAL),
    PAIR(VENDOR_HYP_FEATURES, OK),
    PAIR(VENDOR_HYP_UID, OK),
    PAIR(call_for_the_host, EXIT),
};

#define NR_PAIRS (sizeof(pairs) / sizeof(pairs[0]))

static struct options {
    uint64_t seed, calls, shard, nr_shards, check, from, to;
} options = {.seed = 1, .calls = SHORT_RUN, .nr_shards = 1, .check = 4, .from = UINT64_MAX, .to = UINT64_MAX};

static struct player *player;
static uint64_t random_state, check_state; /* how often there are checks does not change what is played */

/* splitmix64: any seed is as good as another. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t draw(void *ctx, uint64_t n)
{
    uint64_t any = next_random(ctx);

    return n ? (any >> 16) % n : any;
}

/* The table; false when a result is missing, or is there that should not be. */
static bool report(bool complete)
{
    bool known[NR_PLAY_CALLS][NR_PLAY_OUTCOMES] = {{false}}, good = true;
    unsigned nr_missing = 0;

    for (unsigned i = 0; i < NR_PAIRS; i++) {
        const struct pair *pair = &pairs[i];
        uint64_t hits = player->hits[pair->call][pair->outcome];
        bool wrong = pair->never ? hits > 0 : hits == 0;

        known[pair->call][pair->outcome] = true;
        nr_missing += wrong;
        good &= !wrong || (!pair->never && !complete);
        if (pair->never)
            printf("# %-24s %-18s %12s   %s\n", play_call_name(pair->call), play_outcome_name(pair->outcome),
                   hits ? "HIT" : "never", pair->never);
        else
            printf("# %-24s %-18s %12lu%s\n", play_call_name(pair->call), play_outcome_name(pair->outcome),
                   (unsigned long)hits, hits ? "" : "   MISSING");
    }
    for (unsigned call = 0; call < NR_PLAY_CALLS; call++) {
        for (unsigned outcome = 0; outcome < NR_PLAY_OUTCOMES; outcome++) {
            if (known[call][outcome] || !player->hits[call][outcome])
                continue;
            printf("# %-24s %-18s %12lu   NOT IN THE TABLE\n", play_call_name(call), play_outcome_name(outcome),
                   (unsigned long)player->hits[call][outcome]);
            good = false;
        }
    }
    printf("# %zu pairs of call and result, %u of them not as they should be\n", NR_PAIRS, nr_missing);
    return good;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int set_up(void **state)
{
    random_state = options.seed * options.nr_shards + options.shard;
    player = player_new(draw, &random_state, options.check > 1);
    return 0;
}

static void test_random(void **state)
{
    uint64_t nr = options.calls / options.nr_shards, played, succeeded;
    double start = seconds(), took;

    if (options.to < nr)
        nr = options.to;
    while (player->nr_calls < nr) {
        if (player->nr_calls >= options.from)
            player->narrate = stdout;
        player->el2->check = options.check <= 1 || draw(&check_state, options.check) == 0;
        player_step(player);
    }
    took = seconds() - start;
    player->el2->check = true;
    played = player->nr_calls;
    succeeded = player->nr_ok;
    player_end(player);
    printf("# seed %lu, shard %lu/%lu: %lu calls, %.1f%% of them succeeded, %.0f a second\n",
           (unsigned long)options.seed, (unsigned long)options.shard, (unsigned long)options.nr_shards,
           (unsigned long)played, 100.0 * (double)succeeded / (double)played, (double)played / took);
    assert_true(report(played >= LONG_RUN));
    /* It was not all refusals. */
    assert_true(succeeded * 5 >= played);
}

/* Also after a failure, which ends the test in the midst of a call. */
static int tear_down(void **state)
{
    if (player->last[(player->nr_calls + PLAY_LAST - 1) % PLAY_LAST].outcome == NR_PLAY_OUTCOMES) {
        unsigned long at = (unsigned long)player->nr_calls, from = at > 200 ? at - 200 : 0;

        printf("# the calls that were last:\n");
        player_tell(player, stdout);
        printf("# again: el2_random --seed %lu --calls %lu --shard %lu/%lu --from %lu --to %lu\n",
               (unsigned long)options.seed, (unsigned long)options.calls, (unsigned long)options.shard,
               (unsigned long)options.nr_shards, from, at);
    }
    player_free(player);
    return 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: el2_random [--seed N] [--calls N] [--shard I/N] [--check N] [--from N] [--to N]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'},
        {"calls", required_argument, NULL, 'c'},
        {"shard", required_argument, NULL, 'h'},
        {"check", required_argument, NULL, 'k'},
        {"from", required_argument, NULL, 'f'},
        {"to", required_argument, NULL, 't'},
        {0},
    };
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_random, set_up, tear_down)};
    const char *calls = getenv("FAKEHYP_RANDOM_CALLS");
    char *end;
    int c;

    if (calls)
        options.calls = strtoull(calls, NULL, 0);
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        uint64_t value = c == '?' ? 0 : strtoull(optarg, &end, 0);

        if (c == 's')
            options.seed = value;
        else if (c == 'c')
            options.calls = value;
        else if (c == 'k')
            options.check = value;
        else if (c == 'f')
            options.from = value;
        else if (c == 't')
            options.to = value;
        else if (c != 'h' || *end != '/')
            return usage();
        else if (options.shard = value, options.nr_shards = strtoull(end + 1, NULL, 0), value >= options.nr_shards)
            return usage();
    }
    if (optind < argc || options.calls / options.nr_shards == 0)
        return usage();
    printf("# el2_random --seed %lu --calls %lu --shard %lu/%lu\n", (unsigned long)options.seed,
           (unsigned long)options.calls, (unsigned long)options.shard, (unsigned long)options.nr_shards);
    return cmocka_run_group_tests_name("el2_random", tests, NULL, NULL);
}
