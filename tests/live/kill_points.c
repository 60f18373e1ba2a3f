/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kill -9 at every schedule point of every operation.
 *
 * Each operation is run once to learn which points it passes.  Then, for each
 * of them and each victim: a task of the daemon is held there (or an agent
 * between its request and its answer), the victim is killed, and what was held
 * goes on.  Nobody hangs, the reader sees no secret, nothing is left over.
 *
 * FAKEHYP_KILL_POINTS=n takes every n-th case; 1 is all of them.
 */
#include "tests/common/live_scene.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/common/live_points.h"

/* What fails is a hang; the longest wait is printed, beside the goal. */
#define LIMIT_MS 10000
#define GOAL_MS 2000
#define DEFAULT_STRIDE 23
/* A VMM that is stopped is asked something, and not killed at once. */
#define STOPPED_MS 20

enum victim { DAEMON, VMM, GUEST, STOPPED_VMM, NR_VICTIMS };
static const char *const victim_names[NR_VICTIMS] = {"daemon", "VMM", "guest", "VMM with its agent stopped"};

/* Where somebody is held: a schedule point of the daemon's, or an agent's step. */
struct place {
    int point, step; /* one of them is -1 */
    uint64_t n;
};

static struct rig_daemon fakehypd;
static struct fakehyp *observer;
static struct {
    unsigned cases, not_reached;
    uint64_t longest_ns;
    const char *longest_op;
    struct place longest_place;
} total[NR_VICTIMS];

static const char *place_name(const struct place *p)
{
    return p->point >= 0 ? sched_points[p->point].label : scene_step_names[p->step];
}

/* ---- the daemon that is at stake ------------------------------------------------------------------------------------
 */

static void observe(void)
{
    if (fakehyp_connect(fakehypd.socket, &observer))
        fail_msg("no new fakehypd: %s", fakehyp_last_error());
}

static void start(void)
{
    fakehypd = (struct rig_daemon){.with_points = true};
    assert_int_equal(rig_daemon_open(&fakehypd), 0);
    observe();
}

static void stop(void)
{
    fakehyp_disconnect(observer);
    int status = rig_daemon_stop(&fakehypd);
    if (status)
        rig_daemon_print_log(&fakehypd);
    rig_daemon_close(&fakehypd);
    assert_int_equal(status, 0);
}

/* ---- which points an operation passes -------------------------------------------------------------------------------
 */

struct passages {
    uint64_t point[NR_SCHED_POINTS];
    unsigned step[NR_SCENE_STEPS];
};

static bool wait_flag(const atomic_bool *flag)
{
    uint64_t deadline = rig_now_ns() + LIMIT_MS * UINT64_C(1000000);

    while (!atomic_load(flag) && rig_now_ns() < deadline)
        rig_sleep_ms(1);
    return atomic_load(flag);
}

static void vmm_leaves(struct scene *s)
{
    scene_leave(s);
    rig_child_ok(s->vmm);
}

static void learn(const struct scene_op *op, struct passages *p)
{
    char *counts = rig_counts(observer);
    unsigned before[NR_SCENE_STEPS];
    struct scene s;

    scene_begin(&s, fakehypd.socket, op);
    points_passed(&fakehypd, p->point);
    for (unsigned i = 0; i < NR_SCENE_STEPS; i++)
        before[i] = atomic_load(&s.sh->step_passed[i]);
    scene_go(&s);
    assert_true(wait_flag(&s.sh->done));
    if (s.sh->rc)
        fail_msg("%s: %d: %s", op->name, s.sh->rc, s.sh->text);
    /* What goes on behind the answer, such as the end of a process. */
    rig_sleep_ms(20);
    points_passed(&fakehypd, p->point);
    for (unsigned i = 0; i < NR_SCENE_STEPS; i++)
        p->step[i] = atomic_load(&s.sh->step_passed[i]) - before[i];
    vmm_leaves(&s);
    scene_end(&s);
    assert_true(rig_counts_return_to(observer, counts, NULL));
    free(counts);
}

/* ---- a case
 * ------------------------------------------------------------------------------------------------------------ */

struct attempt {
    enum victim victim;
    const struct scene_op *op;
    struct place place;
    struct scene scene;
};

static void waited(const struct attempt *c, uint64_t since, const char *what)
{
    uint64_t ns = rig_now_ns() - since;

    if (ns > total[c->victim].longest_ns) {
        total[c->victim].longest_ns = ns;
        total[c->victim].longest_op = c->op->name;
        total[c->victim].longest_place = c->place;
    }
    if (ns > LIMIT_MS * UINT64_C(1000000))
        fail_msg("%s took %.3f s", what, (double)ns / 1e9);
}

static void hold_at(const struct attempt *c)
{
    if (c->place.point >= 0) {
        points_hold(&fakehypd, sched_points[c->place.point].label, c->place.n);
    } else {
        atomic_store(&c->scene.sh->step_left, (unsigned)c->place.n);
        atomic_store(&c->scene.sh->step_armed, c->place.step);
    }
}

/* False when the operation came to its end without passing there: how often it does depends on the moment. */
static bool wait_held(const struct attempt *c)
{
    const struct scene_shared *sh = c->scene.sh;
    uint64_t deadline = rig_now_ns() + LIMIT_MS * UINT64_C(1000000);

    while (rig_now_ns() < deadline) {
        if (c->place.point >= 0 ? points_wait_held(&fakehypd, 1) : atomic_load(&sh->step_held))
            return true;
        if (atomic_load(&sh->done)) {
            /* What goes on behind the answer. */
            return c->place.point >= 0 && points_wait_held(&fakehypd, 50);
        }
        if (c->place.point < 0)
            rig_sleep_ms(1);
    }
    fail_msg("the operation hangs before anybody was killed");
    return false;
}

static void let_go(const struct attempt *c)
{
    atomic_store(&c->scene.sh->step_go, true);
    if (fakehypd.pid)
        points_release(&fakehypd);
}

static void guest_ends(const struct attempt *c, uint64_t since)
{
    struct pollfd pfd = {.fd = c->scene.guest_pidfd, .events = POLLIN};

    if (poll(&pfd, 1, LIMIT_MS) != 1)
        fail_msg("the guest process hangs");
    waited(c, since, "the guest's end");
}

static void reap(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

/* The operation that was under way returns, and says what is wrong if it fails. */
static void operation_returns(const struct attempt *c, uint64_t since, bool must_fail)
{
    const struct scene_shared *sh = c->scene.sh;

    if (!wait_flag(&sh->done))
        fail_msg("the VMM's call hangs");
    waited(c, since, "the VMM's call");
    if (sh->rc && (!sh->text[0] || strstr(sh->text, "nknown error")))
        fail_msg("the VMM's call failed with %d and without a reason: \"%s\"", sh->rc, sh->text);
    if (must_fail && sh->rc && sh->rc != -ECONNRESET)
        fail_msg("the VMM's call failed with %d: \"%s\", expected ECONNRESET", sh->rc, sh->text);
}

static void strike(struct attempt *c)
{
    struct scene *s = &c->scene;
    uint64_t since = rig_now_ns();

    switch (c->victim) {
    case DAEMON:
        rig_daemon_kill(&fakehypd);
        let_go(c);
        operation_returns(c, since, true);
        guest_ends(c, since);
        vmm_leaves(s);
        break;
    case VMM:
        kill(s->vmm, SIGKILL);
        let_go(c);
        reap(s->vmm);
        guest_ends(c, since);
        break;
    case GUEST:
        kill(s->sh->guest, SIGKILL);
        let_go(c);
        operation_returns(c, since, false);
        guest_ends(c, since);
        vmm_leaves(s);
        break;
    default:
        rig_stop_child(s->vmm);
        let_go(c);
        rig_sleep_ms(STOPPED_MS);
        kill(s->vmm, SIGKILL);
        reap(s->vmm);
        guest_ends(c, since);
        break;
    }
    waited(c, since, "the end of all that the victim had");
}

static void clean(const struct attempt *c, const char *counts)
{
    uint64_t since = rig_now_ns();

    if (c->victim == DAEMON) {
        /* The next one takes the stale socket over. */
        fakehyp_disconnect(observer);
        assert_int_equal(rig_daemon_start(&fakehypd), 0);
        observe();
    }
    assert_true(rig_counts_return_to(observer, counts, NULL));
    waited(c, since, "the daemon's return to its start values");
    assert_true(rig_audit_ok(observer));
}

static void try(struct attempt *c)
{
    char *counts = rig_counts(observer);

    assert_non_null(counts);
    scene_begin(&c->scene, fakehypd.socket, c->op);
    hold_at(c);
    scene_go(&c->scene);
    bool reached = wait_held(c);
    total[c->victim].cases++;
    total[c->victim].not_reached += !reached;
    strike(c);
    scene_end(&c->scene);
    clean(c, counts);
    free(counts);
}

/* ---- all of them
 * -------------------------------------------------------------------------------------------------------- */

static unsigned stride, nr_case, nr_places;
static uint64_t ever[NR_SCHED_POINTS];

static void each_victim(const struct scene_op *op, const struct place *place)
{
    nr_places++;
    for (enum victim v = 0; v < NR_VICTIMS; v++) {
        struct attempt c = {.victim = v, .op = op, .place = *place};
        if (nr_case++ % stride)
            continue;
        rig_watchdog(60);
        /* If it fails this is the last that is seen. */
        fprintf(stderr, "# case %u: %s, at \"%s\":%u, %s killed\n", nr_case - 1, op->name, place_name(place),
                (unsigned)place->n, victim_names[v]);
        try(&c);
    }
}

/* The first passage, and the last where there are more. */
static void each_passage(const struct scene_op *op, struct place place, uint64_t passages)
{
    for (place.n = 1; place.n <= passages; place.n += passages > 1 ? passages - 1 : 1)
        each_victim(op, &place);
}

static void killed_at_every_point(void **state)
{
    struct passages passed[32];

    stride = (unsigned)rig_env("FAKEHYP_KILL_POINTS", DEFAULT_STRIDE);
    stride = stride ? stride : 1;
    assert_true(scene_nr_ops <= sizeof(passed) / sizeof(passed[0]));
    start();
    for (unsigned i = 0; i < scene_nr_ops; i++) {
        learn(&scene_ops[i], &passed[i]);
        for (int p = 0; p < NR_SCHED_POINTS; p++)
            ever[p] += passed[i].point[p];
    }
    for (unsigned i = 0; i < scene_nr_ops; i++) {
        for (int p = 0; p < NR_SCHED_POINTS; p++)
            each_passage(&scene_ops[i], (struct place){.point = p, .step = -1}, passed[i].point[p]);
        for (int p = 0; p < NR_SCENE_STEPS; p++)
            each_passage(&scene_ops[i], (struct place){.point = -1, .step = p}, passed[i].step[p]);
    }
    stop();
    for (enum victim v = 0; v < NR_VICTIMS; v++)
        rig_note("%s: %u cases, %u not reached; longest wait %.1f ms (goal %d ms): %s, at %s", victim_names[v],
                 total[v].cases, total[v].not_reached, (double)total[v].longest_ns / 1e6, GOAL_MS,
                 total[v].longest_op ? total[v].longest_op : "-",
                 total[v].longest_op ? place_name(&total[v].longest_place) : "-");
    rig_note(
        "%u operations, %u places x %d victims = %u cases, every %u. of them tried: 0 hangs, 0 leaks, no secret read",
        scene_nr_ops, nr_places, NR_VICTIMS, nr_case, stride);
}

/* A point that no operation passes is one at which nobody was killed. */
static void operations_pass_every_point(void **state)
{
    for (int p = 0; p < NR_SCHED_POINTS; p++)
        if (!ever[p] && !strstr(sched_points[p].meaning, "(simulation)"))
            fail_msg("no operation of this test passes %s", sched_points[p].label);
}

static void mistakes_are_told(void **state)
{
    start();
    const char *answer = points_ask(&fakehypd, "hold convert:nowhere");
    assert_memory_equal(answer, "error: unknown schedule point \"convert:nowhere\"; known are convert:locked,", 74);
    assert_non_null(strstr(answer, "cleanup:vms"));
    assert_memory_equal(points_ask(&fakehypd, "hold convert:stored:0"), "error: ", 7);
    assert_memory_equal(points_ask(&fakehypd, "hold convert:stored:x"), "error: ", 7);
    assert_memory_equal(points_ask(&fakehypd, "abracadabra"), "error: the commands are", 23);
    /* A daemon that is told to end lets go of what it holds. */
    points_hold(&fakehypd, "cleanup:begin", 1);
    fakehyp_disconnect(observer);
    assert_true(points_wait_held(&fakehypd, LIMIT_MS));
    observer = NULL;
    stop();
}

static const struct CMUnitTest tests[] = {
    live_test(mistakes_are_told),
    live_test(killed_at_every_point),
    live_test(operations_pass_every_point),
};

RIG_MAIN(tests)
