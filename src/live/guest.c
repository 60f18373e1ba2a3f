/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest processes: their vCPU threads and their faults.
 *
 * The guest's userfaultfd reports every touch of a page that has no PTE there,
 * with bytes or without (MISSING|MINOR).  What happens next is what hardware
 * does: a valid leaf in EL2's tables → the PTE is installed; none → a stage-2
 * abort of the vCPU; a page in transition → the thread waits for its end.
 */
#include "src/live/internal.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "src/kernel/kernel.h"

#ifndef UFFDIO_CONTINUE
#define _UFFDIO_CONTINUE (0x07)
#define UFFDIO_CONTINUE _IOWR(UFFDIO, _UFFDIO_CONTINUE, struct uffdio_continue)
#endif

#define EVENTS_A_TURN 64
#define TICK_US 5000

static void evaluate(struct live_guest *guest, uint64_t ipa, bool write, uint32_t tid);

struct live_guest *guest_of(const struct vm *vm)
{
    struct live_guest *guest = vm_guest(vm);
    return guest && !guest->dead ? guest : NULL;
}

void guest_get(struct live_guest *guest)
{
    guest->refs++;
}

void guest_put(struct live_guest *guest)
{
    if (--guest->refs)
        return;
    assert(guest->dead);
    if (guest->prev)
        guest->prev->next = guest->next;
    else
        guest->live->guests = guest->next;
    if (guest->next)
        guest->next->prev = guest->prev;
    guest_slots_free(guest);
    close(guest->uffd);
    free(guest->vcpus);
    free(guest);
}

void guest_fail(struct live_guest *guest, const char *why)
{
    if (guest->dead)
        return;
    live_log(guest->live, 0, "guest process %u killed: %s", guest->pid, why);
    guest->live->io.kill(guest->live->io.ctx, guest->peer);
}

/* ---- faults ---------------------------------------------------------------------------------------------------------
 */

static void wake(const struct live_guest *guest, uint64_t gfn, uint64_t nr)
{
    struct uffdio_range range = {.start = guest->base + gfn * PAGE, .len = nr * PAGE};
    ioctl(guest->uffd, UFFDIO_WAKE, &range);
}

/*
 * Gives the guest a PTE for a page that its stage 2 maps.  Whatever goes wrong
 * the thread is woken: it faults again and is answered by what is true then.
 */
static void install(const struct live_guest *guest, uint64_t gfn)
{
    struct uffdio_continue present = {.range = {.start = guest->base + gfn * PAGE, .len = PAGE}};
    if (!ioctl(guest->uffd, UFFDIO_CONTINUE, &present))
        return;
    if (errno == EFAULT) {
        /* No bytes yet: the first touch of this page. */
        struct uffdio_zeropage zero = {.range = {.start = guest->base + gfn * PAGE, .len = PAGE}};
        if (!ioctl(guest->uffd, UFFDIO_ZEROPAGE, &zero))
            return;
    }
    wake(guest, gfn, 1);
}

struct show_work {
    struct live_guest *guest;
    uint64_t gfn;
};

static uint64_t wanted(const struct guest_slot *s, uint64_t index)
{
    return mmu_side(s->file->mfile, index).private ? SHOWN_PRIVATE : SHOWN_SHARED;
}

/* The part of the slot around index that is on one side and in no transition. */
static void settled_range(const struct guest_slot *s, uint64_t index, uint64_t *start, uint64_t *end)
{
    struct gmem_range side = mmu_side(s->file->mfile, index);
    *start = side.start > s->index ? side.start : s->index;
    *end = side.end < s->index + s->nr ? side.end : s->index + s->nr;
    for (const struct transition *t = s->file->transitions; t; t = t->next) {
        if (t->end <= index && t->end > *start)
            *start = t->end;
        if (t->start > index && t->start < *end)
            *end = t->start;
    }
}

/* Maps the right file over the whole range around a page that the guest touches and has not mapped as it is now. */
static void show_task(void *arg)
{
    struct show_work *work = arg;
    struct live_guest *guest = work->guest;
    uint64_t gfn = work->gfn;
    free(work);
    task_lock_exclusive(&guest->lock);
    sched_point("show:locked");
    struct guest_slot *s = guest->dead ? NULL : guest_slot_at(guest, gfn);
    uint64_t index = s ? s->index + (gfn - s->gfn) : 0;
    /* A conversion may have come first; its end wakes the guest, and the page is looked at anew. */
    if (s && !in_transition(s->file, index)) {
        uint64_t start, end;
        settled_range(s, index, &start, &end);
        int rc = guest_show(guest, s, s->gfn + (start - s->index), end - start, wanted(s, index));
        if (rc && rc != -ECONNRESET && rc != -ETIMEDOUT)
            guest_fail(guest, "its address space cannot take one more shared range (vm.max_map_count?)");
    }
    sched_point("show:shown");
    /* Also after a time-out: when the process goes on, it asks again. */
    if (!guest->dead)
        wake(guest, gfn, 1);
    task_unlock_exclusive(&guest->lock);
    guest_put(guest);
}

static void show(struct live_guest *guest, uint64_t gfn)
{
    struct show_work *work = malloc(sizeof(*work));
    if (work) {
        *work = (struct show_work){guest, gfn};
        guest_get(guest);
        if (task_spawn(machine_sched(guest->live->machine), "guest-show", show_task, work))
            return;
        guest_put(guest);
        free(work);
    }
    guest_fail(guest, "no memory to serve its faults");
}

static void abort_stage2(struct live_guest *guest, uint64_t ipa, bool write, uint32_t tid)
{
    unsigned i = 0;
    while (i < guest->nr_vcpus && guest->vcpus[i].tid != tid)
        i++;
    if (i == guest->nr_vcpus) {
        /* A thread of the guest program's own: its accesses are vCPU 0's. */
        i = 0;
    }
    struct vcpu *vcpu = vm_vcpu(guest->vm, i);
    struct guest_vcpu *v = &guest->vcpus[i];
    if (v->nr_faults == MAX_FAULTS) {
        /* More threads than vCPUs wait here: this one asks again when the vCPU goes on, and not at once and for ever.
         */
        v->more_faults = true;
        return;
    }
    /* Looked at again when the vCPU goes on, also if it does not run now. */
    v->faults[v->nr_faults++] = (struct guest_fault){ipa, write};
    if (!machine_vcpu_in_guest(vcpu))
        return;
    struct hyp_trap trap = {.esr = ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_FSC_TRANS_L(3) | (write ? ESR_WNR : 0),
                            .far = ipa,
                            .hpfar = HPFAR_FROM_IPA(ipa)};
    machine_guest_trap(vcpu, &trap);
}

static void evaluate(struct live_guest *guest, uint64_t ipa, bool write, uint32_t tid)
{
    uint64_t gfn = ipa / PAGE;
    struct guest_slot *s = guest_slot_at(guest, gfn);
    uint64_t index = s ? s->index + (gfn - s->gfn) : 0;
    struct s2_walk leaf;

    if (s && in_transition(s->file, index))
        return; /* the end of the transition wakes it */
    mmu_walk_guest(guest->live->machine, vm_handle(guest->vm), gfn, &leaf);
    if (!leaf.valid) {
        abort_stage2(guest, ipa, write, tid);
        return;
    }
    if (!s) {
        /* An abort would change nothing: stage 2 maps it, and EL2 would let the vCPU go on without end. */
        guest_fail(guest, "it touched memory that its agent did not map");
        return;
    }
    if (rangemap_get(&s->shown, gfn - s->gfn).value != wanted(s, index))
        show(guest, gfn);
    else
        install(guest, gfn);
}

static void on_tick(int sig)
{
    (void)sig;
}

/* Not longer than a tick: then it ends with EINTR. */
static ssize_t read_for_a_tick(int fd, void *buf, size_t bytes)
{
    const struct itimerval ticks = {.it_interval.tv_usec = TICK_US, .it_value.tv_usec = TICK_US};
    const struct sigaction tick = {.sa_handler = on_tick};
    struct sigaction action;
    struct itimerval timer;

    sigaction(SIGALRM, &tick, &action);
    setitimer(ITIMER_REAL, &ticks, &timer);
    ssize_t n = read(fd, buf, bytes);
    int err = errno;
    setitimer(ITIMER_REAL, &timer, NULL);
    sigaction(SIGALRM, &action, NULL);
    errno = err;
    return n;
}

/*
 * The guest has the same open file: it may clear O_NONBLOCK, and read the event
 * that we were told of.  Not to wait is asked for with each read, and where
 * a kernel cannot do that, as 6.1, the wait has an end.
 */
static ssize_t read_events(int uffd, struct uffd_msg *msgs, size_t bytes)
{
    ssize_t n = kernel_uffd_read(uffd, msgs, bytes);
    if (n >= 0 || errno != EOPNOTSUPP)
        return n;
    n = read_for_a_tick(uffd, msgs, bytes);
    /* A signal also ends a read that would not wait, where it comes while the kernel finds that the event has gone. */
    return n < 0 && errno == EINTR ? read_for_a_tick(uffd, msgs, bytes) : n;
}

void live_guest_readable(struct live_guest *guest)
{
    struct uffd_msg msgs[EVENTS_A_TURN];
    if (guest->dead)
        return;
    ssize_t n = read_events(guest->uffd, msgs, sizeof(msgs));
    if (n < 0 && errno == EINTR)
        guest_fail(guest, "its userfaultfd makes fakehypd wait: without O_NONBLOCK, and read by the guest itself");
    if (n <= 0)
        return;
    for (size_t i = 0; i < (size_t)n / sizeof(msgs[0]); i++) {
        /* Remap events only want to be read: the overlays are our own. */
        if (msgs[i].event != UFFD_EVENT_PAGEFAULT)
            continue;
        uint64_t addr = msgs[i].arg.pagefault.address;
        bool write = msgs[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
        if (addr < guest->base || addr - guest->base >= guest->ipa_size) {
            guest_fail(guest, "it touched its own templates");
            return;
        }
        evaluate(guest, addr - guest->base, write, msgs[i].arg.pagefault.feat.ptid);
    }
}

/* The kernel refuses to poll one that is not O_NONBLOCK, and the guest has the same open file. */
void live_guest_unreadable(struct live_guest *guest)
{
    guest_fail(guest, "its userfaultfd cannot be polled: not set up, or without O_NONBLOCK");
}

/* ---- vCPUs ---- */

static const struct hyp_trap died = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT, .x = {PSCI_SYSTEM_OFF, 0, GUEST_DIED}};

void live_guest_resume(void *ctx, struct vcpu *vcpu, const struct hyp_trap *last, const struct hyp_guest_regs *regs)
{
    struct live *live = ctx;
    struct live_guest *guest = guest_of(vcpu_vm(vcpu));

    if (!guest) {
        machine_guest_trap(vcpu, &died);
        return;
    }
    struct guest_vcpu *v = &guest->vcpus[vcpu_index(vcpu)];
    if (!last) {
        if (v->ready)
            live->io.vcpu_reply(live->io.ctx, v->peer, regs->x);
        else
            v->entry_wanted = true;
        return;
    }
    if (ESR_EC(last->esr) == ESR_EC_HVC64)
        live->io.vcpu_reply(live->io.ctx, v->peer, regs->x);
    const struct guest_vcpu waiting = *v;
    v->nr_faults = 0;
    v->more_faults = false;
    if (waiting.more_faults)
        wake(guest, 0, guest->ipa_size / PAGE);
    for (unsigned i = 0; i < waiting.nr_faults; i++)
        evaluate(guest, waiting.faults[i].ipa, waiting.faults[i].write, v->tid);
    if (v->call_waits && machine_vcpu_in_guest(vcpu)) {
        v->call_waits = false;
        live_vcpu_hypercall(guest, vcpu_index(vcpu), v->call);
    }
}

void live_vcpu_ready(struct live_guest *guest, unsigned index, void *vcpu_peer, uint32_t tid)
{
    if (guest->dead || index >= guest->nr_vcpus)
        return;
    struct guest_vcpu *v = &guest->vcpus[index];
    v->peer = vcpu_peer;
    v->tid = tid;
    v->ready = true;
    if (v->entry_wanted) {
        const uint64_t x[4] = {0};
        v->entry_wanted = false;
        guest->live->io.vcpu_reply(guest->live->io.ctx, v->peer, x);
    }
}

void live_vcpu_hypercall(struct live_guest *guest, unsigned index, const uint64_t x[4])
{
    if (guest->dead || index >= guest->nr_vcpus)
        return;
    struct vcpu *vcpu = vm_vcpu(guest->vm, index);
    struct guest_vcpu *v = &guest->vcpus[index];
    if (!machine_vcpu_in_guest(vcpu)) {
        /* Made when the vCPU runs again. */
        memcpy(v->call, x, sizeof(v->call));
        v->call_waits = true;
        return;
    }
    struct hyp_trap trap = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT};
    memcpy(trap.x, x, sizeof(trap.x));
    /* A guest cannot feign its own death: only PSCI's first argument is its own.  EL2 looks at W0. */
    if ((uint32_t)trap.x[0] == PSCI_SYSTEM_OFF)
        trap.x[2] = 0;
    machine_guest_trap(vcpu, &trap);
}

/* ---- coming and going ---- */

int live_guest_attach(struct live *live, struct vm *vm, void *guest_peer, uint32_t pid, int uffd, uint64_t ram_base,
                      uint64_t ipa_size, struct live_guest **out)
{
    if (vm_guest(vm))
        return -EBUSY;
    if (ram_base % PAGE || ipa_size % PAGE || !ipa_size || ram_base + ipa_size < ram_base)
        return -EINVAL;
    struct live_guest *guest = calloc(1, sizeof(*guest));
    if (!guest)
        return -ENOMEM;
    guest->nr_vcpus = vm_nr_vcpus(vm);
    guest->vcpus = calloc(guest->nr_vcpus ? guest->nr_vcpus : 1, sizeof(*guest->vcpus));
    if (!guest->vcpus) {
        free(guest);
        return -ENOMEM;
    }
    guest->live = live;
    guest->vm = vm;
    guest->peer = guest_peer;
    guest->pid = pid;
    guest->uffd = uffd;
    guest->base = ram_base;
    guest->ipa_size = ipa_size;
    guest->refs = 2; /* its life, and this function */
    int rc = live->io.watch(live->io.ctx, guest, uffd);
    if (rc) {
        free(guest->vcpus);
        free(guest);
        return rc;
    }
    guest->next = live->guests;
    if (guest->next)
        guest->next->prev = guest;
    live->guests = guest;
    vm_set_guest(vm, guest);
    rc = guest_slots_add(guest);
    machine_record(live->machine,
                   &(struct host_event){.kind = HOST_EV_guest_start, .vm = vm_id(vm), .a0 = pid, .rc = rc});
    *out = guest;
    if (rc)
        guest_fail(guest, "it could not map its memory");
    guest_put(guest);
    return 0;
}

static void trap_all_dead(struct vm *vm, uint64_t status)
{
    struct hyp_trap trap = died;
    trap.x[1] = status;
    for (unsigned i = 0; i < vm_nr_vcpus(vm); i++)
        machine_guest_trap(vm_vcpu(vm, i), &trap);
}

void live_guest_gone(struct live_guest *guest, int status)
{
    struct live *live = guest->live;
    if (guest->dead)
        return;
    guest->dead = true;
    live->io.unwatch(live->io.ctx, guest);
    vm_set_guest(guest->vm, NULL);
    machine_record(
        live->machine,
        &(struct host_event){.kind = HOST_EV_guest_end, .vm = vm_id(guest->vm), .a0 = guest->pid, .rc = status});
    trap_all_dead(guest->vm, (uint64_t)(unsigned)status);
    guest_put(guest);
}

void live_guest_stop(void *ctx, struct vm *vm)
{
    struct live *live = ctx;
    struct live_guest *guest = guest_of(vm);
    if (guest)
        live->io.kill(live->io.ctx, guest->peer);
    else
        trap_all_dead(vm, 0);
}

uint32_t live_guest_pid(const struct live_guest *guest)
{
    return guest->pid;
}
