/* SPDX-License-Identifier: BSD-2-Clause */
/* The VMM's side of the VM, in its process; and the guest, which does what the VMM has written into their memory. */
#include "src/scenario/live.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "fakehyp/hypercall.h"

#define RUN_MS 8000
#define MAX_EXITS 16u

/* ---- in the guest ----------------------------------------------------------------------------------------------- */

static int guest_main(struct fakehyp_guest *guest, void *arg)
{
    struct guest_command *c = (struct guest_command *)arg + fakehyp_guest_vcpu(guest);

    for (;;) {
        fakehyp_guest_hypercall(guest, GUEST_NEXT, 0, 0, 0);
        if (c->op == GUEST_OFF)
            return 0;
        if (c->op == GUEST_STORM)
            live_guest_storm(guest, c);
        else if (c->op == GUEST_READ)
            fakehyp_guest_read(guest, c->ipa, c->bytes, c->length);
        else if (c->op == GUEST_WRITE)
            fakehyp_guest_write(guest, c->ipa, c->bytes, c->length);
        else
            c->result = fakehyp_guest_hypercall(guest, c->number, c->x1, c->x2, 0);
    }
}

/* ---- in the VMM ------------------------------------------------------------------------------------------------- */

static int create(struct live_actor *a, const struct sc_world_config *config)
{
    uint64_t bytes = config->pages * SC_PAGE;
    const struct fakehyp_vm_config vm = {.hyp = config->setting.hyp,
                                         .name = "scenario",
                                         .unshare_mode =
                                             config->unilateral ? FAKEHYP_UNSHARE_UNILATERAL : FAKEHYP_UNSHARE_CONSENT,
                                         .unprotected = config->unprotected,
                                         .policy = config->setting.policy,
                                         .tracker = config->setting.tracker,
                                         .bugs = config->bugs,
                                         .abi = config->abi,
                                         .ask_hyp = config->ask_hyp};
    int rc = fakehyp_vm_create(a->fh, &vm, &a->vm);
    if (!rc)
        rc = fakehyp_gmem_create(a->vm, bytes, config->flags, &a->file[0]);
    if (rc)
        return rc;
    a->nr_files = 1;
    rc = fakehyp_set_memory_region(a->vm, 0, 0, bytes, a->file[0], 0);
    void *addr;
    if (!rc && config->flags & FAKEHYP_GMEM_MMAP)
        rc = fakehyp_map(a->file[0], NULL, bytes, PROT_READ | PROT_WRITE, 0, &addr);
    if (!rc && config->flags & FAKEHYP_GMEM_MMAP)
        a->view[a->nr_views++] = (struct live_view){.addr = addr, .page = 0, .nr = config->pages};
    if (!rc && config->private_)
        rc = fakehyp_convert(a->file[0], 0, bytes, FAKEHYP_PRIVATE, NULL);
    return rc;
}

const char *live_build_vm(struct live_actor *a, const struct sc_world_config *config)
{
    int rc = create(a, config);

    a->follow = config->follow;
    a->commands =
        mmap(NULL, sizeof(*a->commands) * SC_MAX_VCPUS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (a->commands == MAP_FAILED)
        return "no memory for the guest's commands";
    for (; !rc && a->nr_vcpus < config->vcpus; a->nr_vcpus++) {
        struct live_vcpu *v = &a->vcpu[a->nr_vcpus];
        rc = fakehyp_vcpu_create(a->vm, a->nr_vcpus, &v->vcpu);
        if (rc)
            break;
        v->run = fakehyp_vcpu_state(v->vcpu);
        v->command = &a->commands[a->nr_vcpus];
    }
    if (!rc)
        rc = fakehyp_guest_start(a->vm, guest_main, a->commands);
    return rc ? fakehyp_last_error() : NULL;
}

static struct live_vcpu *vcpu_of(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    if (a->vm && c->self < (int)a->nr_vcpus)
        return &a->vcpu[c->self];
    sc_broken(v, "the VM is destroyed, or has no such vCPU");
    return NULL;
}

static void done(struct live_vcpu *v, struct sc_verdict *out)
{
    const struct guest_command *c = v->command;

    v->executing = false;
    sc_rc(out, 0);
    if (c->op == GUEST_READ) {
        memcpy(out->bytes, c->bytes, c->length);
        out->nr_bytes = (uint32_t)c->length;
    }
    if (c->op != GUEST_CALL)
        return;
    out->value = c->result;
    if (c->result == SMCCC_RET_INVALID_PARAMETER)
        sc_word(out, "INVALID_PARAMETER");
    else if (c->result == SMCCC_RET_NOT_SUPPORTED)
        sc_word(out, "NOT_SUPPORTED");
    else if (c->result < 0)
        sc_word(out, "%lld", (long long)c->result);
}

static void exit_verdict(const struct live_vcpu *v, int rc, struct sc_verdict *out)
{
    live_rc(out, rc);
    switch (v->run->exit_reason) {
    case FAKEHYP_EXIT_HYPERCALL:
        sc_word(out, "EXIT_HYPERCALL");
        out->value = (int64_t)v->run->hypercall.args[0];
        break;
    case FAKEHYP_EXIT_MMIO:
        sc_word(out, "EXIT_MMIO");
        out->value = (int64_t)v->run->mmio.phys_addr;
        break;
    case FAKEHYP_EXIT_SYSTEM_EVENT:
        sc_word(out, "EXIT_SYSTEM_EVENT");
        break;
    case FAKEHYP_EXIT_MEMORY_FAULT:
        sc_word(out, "EXIT_MEMORY_FAULT");
        out->value = (int64_t)v->run->memory_fault.gpa;
        break;
    default:
        break;
    }
}

bool live_follow(struct live_actor *a, const struct live_vcpu *v, int rc)
{
    const struct fakehyp_run *run = v->run;
    bool fault = rc == -EFAULT && run->exit_reason == FAKEHYP_EXIT_MEMORY_FAULT;
    bool call = !rc && run->exit_reason == FAKEHYP_EXIT_HYPERCALL &&
                (run->hypercall.nr == SMCCC_MEM_SHARE || run->hypercall.nr == SMCCC_MEM_UNSHARE);

    if (!a->follow || !(fault || call))
        return false;
    fakehyp_convert(a->file[0], call ? run->hypercall.args[0] : run->memory_fault.gpa, SC_PAGE,
                    call && run->hypercall.nr == SMCCC_MEM_SHARE ? FAKEHYP_SHARED : FAKEHYP_PRIVATE, NULL);
    return true;
}

/* Runs the vCPU until its instruction has ended, or the VMM is needed. */
static void go(struct live_actor *a, struct live_vcpu *v, struct sc_verdict *out)
{
    int rc = 0;

    for (unsigned i = 0; i < MAX_EXITS; i++) {
        rc = fakehyp_vcpu_run(v->vcpu, RUN_MS);
        if (!rc && v->run->exit_reason == FAKEHYP_EXIT_HYPERCALL && v->run->hypercall.nr == GUEST_NEXT) {
            done(v, out);
            return;
        }
        if (!live_follow(a, v, rc))
            break;
    }
    exit_verdict(v, rc, out);
}

bool live_give(struct live_vcpu *v, const struct guest_command *command, struct sc_verdict *out)
{
    if (v->executing) {
        sc_broken(out, "the vCPU has an instruction that has not ended: resume() goes on with it");
        return false;
    }
    if (!v->waits) {
        /* The first entry: the guest asks for an instruction. */
        int rc = fakehyp_vcpu_run(v->vcpu, RUN_MS);
        if (rc || v->run->exit_reason != FAKEHYP_EXIT_HYPERCALL || v->run->hypercall.nr != GUEST_NEXT) {
            exit_verdict(v, rc, out);
            return false;
        }
        v->waits = true;
    }
    *v->command = *command;
    v->executing = true;
    return true;
}

static void give(struct live_actor *a, const struct sc_call *c, const struct guest_command *command,
                 struct sc_verdict *out)
{
    struct live_vcpu *v = vcpu_of(a, c, out);

    if (v && live_give(v, command, out))
        go(a, v, out);
}

void live_vmm_follow(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    a->follow = c->arg[0].n != 0;
    sc_rc(v, 0);
}

void live_GUEST_read(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    if (c->arg[1].n < 1 || c->arg[1].n > SC_BYTES)
        sc_broken(v, "read of %lld bytes: 1 to %u", (long long)c->arg[1].n, SC_BYTES);
    else
        give(a, c,
             &(struct guest_command){
                 .op = GUEST_READ, .ipa = (uint64_t)c->arg[0].n * SC_PAGE, .length = (uint64_t)c->arg[1].n},
             v);
}

void live_GUEST_write(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    struct guest_command command = {.op = GUEST_WRITE, .ipa = (uint64_t)c->arg[0].n * SC_PAGE};
    command.length = strlen(c->arg[1].text) + 1;
    memcpy(command.bytes, c->arg[1].text, command.length);
    give(a, c, &command, v);
}

static void hypercall(struct live_actor *a, const struct sc_call *c, uint64_t number, uint64_t x1, uint64_t x2,
                      struct sc_verdict *v)
{
    give(a, c, &(struct guest_command){.op = GUEST_CALL, .number = number, .x1 = x1, .x2 = x2}, v);
}

void live_GUEST_share(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    hypercall(a, c, SMCCC_MEM_SHARE, (uint64_t)c->arg[0].n * SC_PAGE, 0, v);
}

void live_GUEST_unshare(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    hypercall(a, c, SMCCC_MEM_UNSHARE, (uint64_t)c->arg[0].n * SC_PAGE, 0, v);
}

void live_GUEST_call(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    hypercall(a, c, (uint64_t)c->arg[0].n, (uint64_t)c->arg[1].n, (uint64_t)c->arg[2].n, v);
}

void live_GUEST_off(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    give(a, c, &(struct guest_command){.op = GUEST_OFF}, v);
}

void live_GUEST_resume(struct live_actor *a, const struct sc_call *c, struct sc_verdict *out)
{
    struct live_vcpu *v = vcpu_of(a, c, out);

    if (v && !v->executing)
        sc_broken(out, "the vCPU has no instruction that has not ended");
    if (v && !*out->broken)
        go(a, v, out);
}

void live_VM_destroy(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    (void)c;
    if (!a->vm) {
        sc_broken(v, "the VM is destroyed already");
        return;
    }
    live_rc(v, fakehyp_vm_destroy(a->vm));
    a->vm = NULL;
    a->nr_vcpus = 0;
}

void live_VM_set_attributes(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    if (!a->vm) {
        sc_broken(v, "the VM is destroyed");
        return;
    }
    int rc = fakehyp_set_memory_attributes(a->vm, (uint64_t)c->arg[0].n * SC_PAGE, (uint64_t)c->arg[1].n * SC_PAGE,
                                           (uint64_t)c->arg[2].n);
    live_convert_verdict(v, rc, UINT64_MAX);
}
