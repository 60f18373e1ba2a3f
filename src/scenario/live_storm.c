/* SPDX-License-Identifier: BSD-2-Clause */
/* The storm with real processes: see sim_storm.c.  The guest's part of it is a loop of the guest. */
#include "src/scenario/live.h"

#include <errno.h>
#include <time.h>

#include "fakehyp/hypercall.h"

#define HOST_BYTE 'H'
#define SECRET 'G' /* what the guest stores where it never shares */
#define PUBLIC 'P'
#define MAX_TRIES 10000u
#define RUN_MS 5000

struct storm {
    struct live_actor *a;
    uint64_t page, nr;
    atomic_bool over;
    atomic_ullong host_done, host_refused, guest_exits, leaked, stuck;
    uint64_t converted, busy, outside, most_tries;
};

struct toucher {
    struct storm *storm;
    struct live_vcpu *vcpu; /* NULL: the host's */
    pthread_t thread;
    bool started;
};

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

void live_guest_storm(struct fakehyp_guest *guest, struct guest_command *c)
{
    uint64_t random = fakehyp_guest_vcpu(guest) + 1;

    while (!atomic_load(&c->stop)) {
        uint64_t r = next_random(&random), at = r / 16 % c->length, ipa = c->ipa + at * SC_PAGE;
        if (fakehyp_guest_vcpu(guest) == 0 && at & 1 && r % 16 < 2)
            fakehyp_guest_hypercall(guest, r & 1 ? SMCCC_MEM_SHARE : SMCCC_MEM_UNSHARE, ipa, 0, 0);
        else if (r & 1)
            fakehyp_guest_store(guest, ipa, 1, at & 1 ? PUBLIC : SECRET);
        else
            fakehyp_guest_load(guest, ipa, 1);
        c->result++;
    }
}

/* The VMM's thread of a vCPU: does what the guest asks for. */
static void run_vcpu(struct storm *s, struct live_vcpu *v)
{
    for (;;) {
        int rc = fakehyp_vcpu_run(v->vcpu, RUN_MS);
        if (!rc && v->run->exit_reason == FAKEHYP_EXIT_HYPERCALL && v->run->hypercall.nr == GUEST_NEXT)
            return;
        atomic_fetch_add(&s->guest_exits, 1);
        if (!live_follow(s->a, v, rc)) {
            atomic_fetch_add(&s->stuck, 1);
            return;
        }
    }
}

/* What a guest does not share its host must never read, whatever the VMM converts. */
static void touch(struct storm *s)
{
    uint64_t random = 99;
    struct sc_verdict v = {.rc = 0};

    while (!atomic_load(&s->over)) {
        uint64_t r = next_random(&random);
        uint8_t byte = HOST_BYTE, *addr = live_address(s->a, (int64_t)(s->page + r / 2 % s->nr), 0, &v);
        if (!addr)
            return;
        enum fakehyp_touch end =
            r & 1 ? fakehyp_touch_write(addr, byte, NULL, NULL) : fakehyp_touch_read(addr, &byte, NULL, NULL);
        atomic_fetch_add(end == FAKEHYP_TOUCH_OK ? &s->host_done : &s->host_refused, 1);
        atomic_fetch_add(&s->leaked, end == FAKEHYP_TOUCH_OK && byte == SECRET);
    }
}

static void *thread_main(void *arg)
{
    struct toucher *t = arg;
    if (t->vcpu)
        run_vcpu(t->storm, t->vcpu);
    else
        touch(t->storm);
    return NULL;
}

static bool convert(struct storm *s, uint64_t attributes)
{
    uint64_t start = s->page * SC_PAGE, size = s->nr * SC_PAGE, tries = 1;

    for (; tries <= MAX_TRIES; tries++) {
        uint64_t error_offset = UINT64_MAX;
        int rc = fakehyp_convert(s->a->file[0], start, size, attributes, &error_offset);
        if (!rc)
            break;
        if (rc != -EAGAIN && rc != -EBUSY)
            return false;
        s->busy++;
        s->outside += error_offset < start || error_offset >= start + size;
    }
    if (tries > s->most_tries)
        s->most_tries = tries;
    return tries <= MAX_TRIES;
}

static void verdict(const struct storm *s, bool going, uint64_t guest, struct sc_verdict *v)
{
    sc_rc(v, 0);
    if (!going || s->stuck)
        sc_word(v, "STARVED");
    if (s->outside)
        sc_word(v, "OUTSIDE");
    if (s->leaked)
        sc_word(v, "LEAKED");
    v->value = (int64_t)s->converted;
    sc_field(v, "conversions", (int64_t)s->converted);
    sc_field(v, "busy", (int64_t)s->busy);
    sc_field(v, "most_tries", (int64_t)s->most_tries);
    sc_field(v, "host", (int64_t)s->host_done);
    sc_field(v, "host_refused", (int64_t)s->host_refused);
    sc_field(v, "guest", (int64_t)guest);
    sc_field(v, "guest_exits", (int64_t)s->guest_exits);
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void live_vmm_storm(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    struct storm s = {.a = a, .page = (uint64_t)c->arg[0].n, .nr = (uint64_t)c->arg[1].n};
    struct toucher touchers[SC_MAX_VCPUS + 1] = {{.storm = NULL}};
    bool follow = a->follow, going = true;
    uint64_t begin = now_ms(), guest = 0;

    if (!a->vm || !a->nr_files || c->arg[1].n < 1 || c->arg[2].n < 1) {
        sc_broken(v, "a storm needs the VM, the VMM and the file, a page and a round");
        return;
    }
    a->follow = true;
    for (unsigned i = 0; going && i <= a->nr_vcpus; i++) {
        struct toucher *t = &touchers[i];
        *t = (struct toucher){.storm = &s, .vcpu = i < a->nr_vcpus ? &a->vcpu[i] : NULL};
        const struct guest_command command = {.op = GUEST_STORM, .ipa = s.page * SC_PAGE, .length = s.nr};
        going = !t->vcpu || live_give(t->vcpu, &command, v);
        t->started = going && !pthread_create(&t->thread, NULL, thread_main, t);
        going = t->started;
    }
    for (int64_t i = 0; going && i < 2 * c->arg[2].n; i++) {
        going = convert(&s, i % 2 ? FAKEHYP_SHARED : FAKEHYP_PRIVATE);
        s.converted += going;
    }
    /* The instructions that wait for the range to be private are let go. */
    convert(&s, FAKEHYP_PRIVATE);
    s.over = true;
    for (unsigned i = 0; i < a->nr_vcpus; i++)
        atomic_store(&a->vcpu[i].command->stop, true);
    for (unsigned i = 0; i <= a->nr_vcpus; i++) {
        if (!touchers[i].started)
            continue;
        pthread_join(touchers[i].thread, NULL);
        if (!touchers[i].vcpu)
            continue;
        guest += (uint64_t)touchers[i].vcpu->command->result;
        touchers[i].vcpu->executing = false;
    }
    a->follow = follow;
    verdict(&s, going, guest, v);
    sc_field(v, "ms", (int64_t)(now_ms() - begin));
}
