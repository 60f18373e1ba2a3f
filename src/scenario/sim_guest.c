/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs in simulation: guests, and the VMM's threads that run their vCPUs. */
#include "src/scenario/sim_world.h"

#include <errno.h>
#include <string.h>

#include "fakehyp/hypercall.h"

/* Exits that one instruction may lead to when the VMM follows: a conversion that is refused brings the fault back. */
#define MAX_EXITS 16u

/* ---- the VMM's threads ------------------------------------------------------------------------------------------ */

static void thread_task(void *arg)
{
    struct sim_vcpu *v = arg;

    while (!v->leave) {
        if (!v->resume) {
            sched_wait(&v->wanted, SCHED_FOREVER);
            continue;
        }
        v->resume = false;
        v->running = true;
        struct caller *caller = &v->w->process[0].caller;
        v->rc = vcpu_run(v->vcpu, &v->run, caller);
        v->running = false;
        v->exited = true;
        sched_wake_all(&v->news);
    }
    v->thread_alive = false;
    v->thread = NULL;
    sched_wake_all(&v->news);
}

bool sim_vm_threads(struct sc_sim *w, int vm)
{
    for (unsigned i = 0; i < w->vm[vm].nr_vcpus; i++) {
        struct sim_vcpu *v = &w->vm[vm].vcpu[i];
        v->w = w;
        v->vm = vm;
        v->thread = task_spawn(machine_sched(w->machine), "vcpu", thread_task, v);
        if (!v->thread)
            return false;
        v->thread_alive = true;
    }
    return true;
}

void sim_vm_join(struct sc_sim *w, int vm)
{
    for (unsigned i = 0; i < w->vm[vm].nr_vcpus; i++) {
        struct sim_vcpu *v = &w->vm[vm].vcpu[i];
        v->leave = true;
        sched_wake_all(&v->wanted);
        while (v->thread_alive || v->executing)
            sched_wait(&v->news, SCHED_FOREVER);
        v->vcpu = NULL;
    }
    w->vm[vm].vm = NULL;
}

/* ---- the guest -------------------------------------------------------------------------------------------------- */

static void insn_task(void *arg)
{
    struct sim_vcpu *v = arg;

    if (v->insn == SIM_INSN_HVC)
        v->insn_rc = sim_guest_hvc(v->vcpu, (uint64_t[4]){v->number, v->gpa, v->x2, 0}, &v->result);
    else if (v->insn == SIM_INSN_READ)
        v->insn_rc = sim_guest_read(v->vcpu, v->gpa, v->bytes, v->length);
    else
        v->insn_rc = sim_guest_write(v->vcpu, v->gpa, v->bytes, v->length);
    v->executing = false;
    v->insn_task = NULL;
    sched_wake_all(&v->news);
}

static void done(struct sim_vcpu *v, struct sc_verdict *out)
{
    if (v->insn_rc) {
        sc_rc(out, v->insn_rc);
        return;
    }
    sc_rc(out, 0);
    if (v->insn == SIM_INSN_READ) {
        memcpy(out->bytes, v->bytes, v->length);
        out->nr_bytes = (uint32_t)v->length;
    }
    if (v->insn != SIM_INSN_HVC)
        return;
    out->value = v->result;
    if (v->result == SMCCC_RET_INVALID_PARAMETER)
        sc_word(out, "INVALID_PARAMETER");
    else if (v->result == SMCCC_RET_NOT_SUPPORTED)
        sc_word(out, "NOT_SUPPORTED");
    else if (v->result < 0)
        sc_word(out, "%lld", (long long)v->result);
}

static void exit_verdict(struct sim_vcpu *v, struct sc_verdict *out)
{
    static const struct {
        uint32_t reason;
        const char *word;
    } words[] = {{KVM_EXIT_HYPERCALL, "EXIT_HYPERCALL"},
                 {KVM_EXIT_MMIO, "EXIT_MMIO"},
                 {KVM_EXIT_SYSTEM_EVENT, "EXIT_SYSTEM_EVENT"},
                 {KVM_EXIT_MEMORY_FAULT, "EXIT_MEMORY_FAULT"}};

    sc_rc(out, v->rc);
    /* With EHWPOISON the exit is the same, and the errno is what the VMM must look at. */
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]) && v->rc != -EHWPOISON; i++)
        if (v->run.exit_reason == words[i].reason)
            sc_word(out, "%s", words[i].word);
    out->value = (int64_t)(v->run.exit_reason == KVM_EXIT_HYPERCALL ? v->run.args[0] : v->run.gpa);
}

/* The VMM does what the guest asks for: true when the exit was such a request. */
static bool follow(struct sim_vcpu *v)
{
    struct sc_sim *w = v->w;
    bool fault = v->rc == -EFAULT && v->run.exit_reason == KVM_EXIT_MEMORY_FAULT;
    bool call = !v->rc && v->run.exit_reason == KVM_EXIT_HYPERCALL &&
                (v->run.nr == SMCCC_MEM_SHARE || v->run.nr == SMCCC_MEM_UNSHARE);
    struct sc_verdict ignored = {.rc = 0};

    if (!w->follow || !(fault || call))
        return false;
    uint64_t gpa = call ? v->run.args[0] : v->run.gpa;
    const struct memslot *slot = vm_slot_at(w->vm[v->vm].vm, gpa / SC_PAGE);
    if (!slot)
        return false;
    const struct gmem_attributes2 attr = {.offset = (slot->index + gpa / SC_PAGE - slot->gfn) * SC_PAGE,
                                          .size = SC_PAGE,
                                          .attributes =
                                              call && v->run.nr == SMCCC_MEM_SHARE ? SC_ATTR_SHARED : SC_ATTR_PRIVATE};
    sim_convert(w, &w->process[0], slot->gmem, &attr, &ignored);
    return true;
}

static void go(struct sim_vcpu *v, struct sc_verdict *out)
{
    for (unsigned i = 0; i < MAX_EXITS; i++) {
        v->exited = false;
        if (!v->running) {
            v->resume = true;
            sched_wake_all(&v->wanted);
        }
        while (v->executing && !v->exited)
            if (sched_wait(&v->news, SCHED_FOREVER) == -ECANCELED) {
                sc_rc(out, -ECANCELED);
                return;
            }
        if (!v->executing) {
            done(v, out);
            return;
        }
        if (!follow(v))
            break;
    }
    exit_verdict(v, out);
}

static struct sim_vcpu *self(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    int vm = c->self / SC_MAX_VCPUS;
    struct sim_vcpu *vcpu = &w->vm[vm].vcpu[c->self % SC_MAX_VCPUS];
    if (vcpu->vcpu)
        return vcpu;
    sc_broken(v, "the VM is destroyed");
    return NULL;
}

static void give(struct sc_sim *w, const struct sc_call *c, const struct sim_vcpu *insn, struct sc_verdict *out)
{
    struct sim_vcpu *v = self(w, c, out);

    if (v && v->executing)
        sc_broken(out, "the vCPU has an instruction that has not ended: resume() goes on with it");
    if (!v || *out->broken)
        return;
    v->insn = insn->insn;
    v->gpa = insn->gpa;
    v->number = insn->number;
    v->x2 = insn->x2;
    v->length = insn->length;
    memcpy(v->bytes, insn->bytes, sizeof(v->bytes));
    v->result = 0;
    v->op = sim_op_now(w);
    v->executing = true;
    v->insn_task = task_spawn(machine_sched(w->machine), "insn", insn_task, v);
    if (!v->insn_task) {
        v->executing = false;
        sc_broken(out, "no memory for a task");
        return;
    }
    go(v, out);
    v->op = NULL;
}

void sim_GUEST_read(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    if (c->arg[1].n < 1 || c->arg[1].n > SC_BYTES)
        sc_broken(v, "read of %lld bytes: 1 to %u", (long long)c->arg[1].n, SC_BYTES);
    else
        give(w, c,
             &(struct sim_vcpu){
                 .insn = SIM_INSN_READ, .gpa = (uint64_t)c->arg[0].n * SC_PAGE, .length = (size_t)c->arg[1].n},
             v);
}

void sim_GUEST_write(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_vcpu insn = {.insn = SIM_INSN_WRITE, .gpa = (uint64_t)c->arg[0].n * SC_PAGE};
    insn.length = strlen(c->arg[1].text) + 1;
    memcpy(insn.bytes, c->arg[1].text, insn.length);
    give(w, c, &insn, v);
}

static void hypercall(struct sc_sim *w, const struct sc_call *c, uint64_t number, uint64_t x1, uint64_t x2,
                      struct sc_verdict *v)
{
    give(w, c, &(struct sim_vcpu){.insn = SIM_INSN_HVC, .number = number, .gpa = x1, .x2 = x2}, v);
}

void sim_GUEST_share(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    hypercall(w, c, SMCCC_MEM_SHARE, (uint64_t)c->arg[0].n * SC_PAGE, 0, v);
}

void sim_GUEST_unshare(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    hypercall(w, c, SMCCC_MEM_UNSHARE, (uint64_t)c->arg[0].n * SC_PAGE, 0, v);
}

void sim_GUEST_call(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    hypercall(w, c, (uint64_t)c->arg[0].n, (uint64_t)c->arg[1].n, (uint64_t)c->arg[2].n, v);
}

void sim_GUEST_off(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    hypercall(w, c, PSCI_SYSTEM_OFF, 0, 0, v);
}

void sim_GUEST_resume(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *out)
{
    struct sim_vcpu *v = self(w, c, out);

    if (v && !v->executing)
        sc_broken(out, "the vCPU has no instruction that has not ended");
    if (!v || *out->broken)
        return;
    v->op = sim_op_now(w);
    go(v, out);
    v->op = NULL;
}

void sim_VM_destroy(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_vm *vm = &w->vm[c->self];
    struct caller *caller = &w->process[0].caller;

    if (!vm->vm) {
        sc_broken(v, "the VM is destroyed already");
        return;
    }
    sc_rc(v, vm_destroy(vm->vm, caller));
    if (v->rc)
        sc_detail(v, "%s", caller->message);
    else
        sim_vm_join(w, c->self);
}

void sim_VM_set_attributes(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *vmm = &w->process[0];
    struct gmem_busy busy = {.nr_holders = 0};

    if (!w->vm[c->self].vm) {
        sc_broken(v, "the VM is destroyed");
        return;
    }
    vmm->caller.message[0] = '\0';
    int rc = vm_set_attributes(w->vm[c->self].vm, (uint64_t)c->arg[0].n * SC_PAGE, (uint64_t)c->arg[1].n * SC_PAGE,
                               (uint64_t)c->arg[2].n, 0, &vmm->caller, &busy);
    sim_converted(w, vmm, rc, &busy, v);
}
