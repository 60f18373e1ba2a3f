/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The storm in simulation: a VMM converts a range back and forth while its
 * guest's vCPUs and a thread of its own touch it.
 *
 * Tasks change places at schedule points, by a fixed pseudo-random sequence:
 * the same storm has the same course each time it is played.
 */
#include "src/scenario/sim_world.h"

#include <errno.h>
#include <string.h>

#define HOST_BYTE 'H'
#define SECRET 'G' /* what the guest stores where it never shares */
#define PUBLIC 'P'
/* Tries of one conversion after which it is taken for starved. */
#define MAX_TRIES 10000u
/* Turns that everybody else has between two conversions. */
#define TURNS_BETWEEN 24u

struct storm {
    struct sc_sim *w;
    struct sim_process *vmm;
    struct gmem *gmem;
    uint64_t page, nr, random;
    bool over;
    unsigned alive;
    struct waitq ended;
    uint64_t host_done, host_refused, guest_done, guest_exits;
    uint64_t converted, busy, outside, most_tries, leaked;
};

struct toucher {
    struct storm *storm;
    int32_t vcpu;
    uint64_t random;
};

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

void sim_storm_point(struct sc_sim *w, const char *label)
{
    /* EL2's own window is not one for another call to EL2. */
    if (w->storm && strncmp(label, "s2:", 3) && next_random(&w->storm->random) % 3 == 0)
        sched_relax();
}

static void leave(struct storm *s)
{
    s->alive--;
    sched_wake_all(&s->ended);
}

/*
 * Stores and loads of the guest; now and then its first vCPU gives a page to the host, or takes it back: only of every
 * second one, and there it stores nothing that the host must not see.
 */
static void guest_task(void *arg)
{
    struct toucher *t = arg;
    struct storm *s = t->storm;
    struct sc_call call = {.self = t->vcpu};

    while (!s->over) {
        struct sc_verdict v = {.rc = 0};
        uint64_t r = next_random(&t->random), at = r / 16 % s->nr;
        call.arg[0].n = (int64_t)(s->page + at);
        call.arg[1].n = 1;
        call.arg[1].text[0] = at & 1 ? PUBLIC : SECRET;
        if (t->vcpu == 0 && at & 1 && r % 16 < 2)
            (r & 1 ? sim_GUEST_share : sim_GUEST_unshare)(s->w, &call, &v);
        else
            (r & 1 ? sim_GUEST_write : sim_GUEST_read)(s->w, &call, &v);
        while (v.rc == -EFAULT) {
            s->guest_exits++;
            sched_relax();
            v = (struct sc_verdict){.rc = 0};
            sim_GUEST_resume(s->w, &call, &v);
        }
        s->guest_done++;
        sched_relax();
    }
    leave(s);
}

/* What a guest does not share its host must never read, whatever the VMM converts. */
static void host_task(void *arg)
{
    struct toucher *t = arg;
    struct storm *s = t->storm;
    struct sc_call call = {.self = 0};
    struct sc_verdict v = {.rc = 0};

    while (!s->over) {
        uint64_t r = next_random(&t->random), va;
        char byte = HOST_BYTE;
        call.arg[0].n = (int64_t)(s->page + r / 2 % s->nr);
        if (!sim_address(s->w, &call, call.arg[0].n, 0, &va, &v))
            break;
        enum sim_access end = r & 1 ? sim_host_write(s->w->sim, s->vmm->mm, va, &byte, 1)
                                    : sim_host_read(s->w->sim, s->vmm->mm, va, &byte, 1);
        if (end == SIM_OK)
            s->host_done++;
        else
            s->host_refused++;
        s->leaked += byte == SECRET;
        sched_relax();
    }
    leave(s);
}

static bool convert(struct storm *s, uint64_t attributes)
{
    const struct gmem_attributes2 attr = {
        .offset = s->page * SC_PAGE, .size = s->nr * SC_PAGE, .attributes = attributes};
    struct gmem_busy busy;
    uint64_t tries = 1;

    for (; tries <= MAX_TRIES; tries++) {
        int rc = gmem_set_attributes2(s->gmem, &attr, &s->vmm->caller, &busy);
        if (!rc)
            break;
        if (rc != -EAGAIN && rc != -EBUSY)
            return false;
        s->busy++;
        s->outside += busy.error_offset < attr.offset || busy.error_offset >= attr.offset + attr.size;
        sched_relax();
    }
    if (tries > s->most_tries)
        s->most_tries = tries;
    for (unsigned i = 0; i < TURNS_BETWEEN; i++)
        sched_relax();
    return tries <= MAX_TRIES;
}

static bool spawn(struct storm *s, void (*fn)(void *arg), struct toucher *t)
{
    if (!task_spawn(machine_sched(s->w->machine), "storm", fn, t))
        return false;
    s->alive++;
    return true;
}

/*
 * The instructions that wait for the range to be private are let go: the VM's
 * private memory is what its vCPUs touch.
 */
static void calm(struct storm *s)
{
    convert(s, SC_ATTR_PRIVATE);
    s->over = true;
    while (s->alive)
        sched_wait_uncancelled(&s->ended, SCHED_FOREVER);
}

void sim_WORLD_storm(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct storm s = {.w = w,
                      .vmm = &w->process[0],
                      .gmem = sim_file_of(w, 0, v),
                      .page = (uint64_t)c->arg[0].n,
                      .nr = (uint64_t)c->arg[1].n,
                      .random = 1};
    struct toucher touchers[SC_MAX_VCPUS + 1];
    unsigned nr = w->vm[0].nr_vcpus;
    bool going = s.gmem && s.vmm->mm && w->vm[0].vm;

    if (*v->broken || !going || c->arg[1].n < 1 || c->arg[2].n < 1) {
        sc_broken(v, "a storm needs the VM, the VMM and the file, a page and a round");
        return;
    }
    bool follow = w->follow;
    w->storm = &s;
    w->follow = true;
    for (unsigned i = 0; going && i <= nr; i++) {
        touchers[i] = (struct toucher){.storm = &s, .vcpu = (int32_t)i, .random = i + 1};
        going = spawn(&s, i < nr ? guest_task : host_task, &touchers[i]);
    }
    for (int64_t i = 0; going && i < 2 * c->arg[2].n; i++) {
        going = convert(&s, i % 2 ? SC_ATTR_SHARED : SC_ATTR_PRIVATE);
        s.converted += going;
    }
    calm(&s);
    w->storm = NULL;
    w->follow = follow;
    sc_rc(v, 0);
    if (!going)
        sc_word(v, "STARVED");
    if (s.outside)
        sc_word(v, "OUTSIDE");
    if (s.leaked)
        sc_word(v, "LEAKED");
    v->value = (int64_t)s.converted;
    sc_field(v, "conversions", (int64_t)s.converted);
    sc_field(v, "busy", (int64_t)s.busy);
    sc_field(v, "most_tries", (int64_t)s.most_tries);
    sc_field(v, "host", (int64_t)s.host_done);
    sc_field(v, "host_refused", (int64_t)s.host_refused);
    sc_field(v, "guest", (int64_t)s.guest_done);
    sc_field(v, "guest_exits", (int64_t)s.guest_exits);
    sc_field(v, "ms", 0);
}
