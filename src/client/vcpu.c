/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/client/client.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MEM_SHARE UINT64_C(0xC6000003)
#define MEM_UNSHARE UINT64_C(0xC6000004)

/* How often one and the same fault may come back before it is the caller's problem. */
#define MAX_REPEATS 100
/* The daemon ends a run in time by itself; this much later it does not answer any more. */
#define RUN_GRACE_MS 30000

int fakehyp_vcpu_create(struct fakehyp_vm *vm, uint32_t index, struct fakehyp_vcpu **out)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VcpuCreate body = FAKEHYP__VCPU_CREATE__INIT;

    *out = NULL;
    struct fakehyp_vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu)
        return fh_fail(-ENOMEM, "vcpu_create: out of memory");
    body.vm = vm->id;
    body.index = index;
    request.body_case = FAKEHYP__REQUEST__BODY_VCPU_CREATE;
    request.vcpu_create = &body;
    int rc = fh_call_ack(vm->object.fh, "vcpu_create", &request);
    if (rc) {
        free(vcpu);
        return rc;
    }
    vcpu->vm = vm;
    vcpu->index = index;
    pthread_mutex_lock(&fh_lock);
    LIST_INSERT_HEAD(&vm->vcpus, vcpu, link);
    pthread_mutex_unlock(&fh_lock);
    *out = vcpu;
    return 0;
}

struct fakehyp_run *fakehyp_vcpu_state(struct fakehyp_vcpu *vcpu)
{
    return &vcpu->run;
}

static void fill_run(const struct fakehyp_vm *vm, struct fakehyp_run *run, const Fakehyp__VcpuExit *from)
{
    *run = (struct fakehyp_run){.exit_reason = from->exit_reason};
    switch (from->exit_reason) {
    case FAKEHYP_EXIT_HYPERCALL:
        run->hypercall.nr = from->nr;
        run->hypercall.args[0] = from->args0;
        run->hypercall.args[1] = from->args1;
        run->hypercall.args[2] = from->args2;
        run->hypercall.ret = from->ret;
        break;
    case FAKEHYP_EXIT_MMIO:
        run->mmio.phys_addr = from->gpa;
        run->mmio.is_write = from->is_write;
        break;
    case FAKEHYP_EXIT_MEMORY_FAULT:
        run->memory_fault.flags = from->flags;
        run->memory_fault.gpa = from->gpa;
        run->memory_fault.size = from->size;
        break;
    case FAKEHYP_EXIT_SYSTEM_EVENT:
        run->system_event.type = from->event_type;
        run->system_event.data = from->event_data;
        /* The guest is our child, not the daemon's. */
        if (from->event_type == FAKEHYP_SYSTEM_EVENT_CRASH && !from->event_data)
            run->system_event.data = (uint64_t)fh_guest_wait_status(vm);
        break;
    }
}

static int run_vcpu(struct fakehyp_vcpu *vcpu, int timeout_ms)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VcpuRun body = FAKEHYP__VCPU_RUN__INIT;
    struct fh_call_options options = {.what = "vcpu_run", .expect = FAKEHYP__REPLY__BODY_VCPU_EXIT, .fd = -1};
    struct fh_answer answer;

    options.timeout_ms = timeout_ms < 0 || timeout_ms > INT_MAX - RUN_GRACE_MS ? -1 : timeout_ms + RUN_GRACE_MS;
    body.vm = vcpu->vm->id;
    body.index = vcpu->index;
    body.timeout_ns = timeout_ms < 0 ? -1 : (int64_t)timeout_ms * 1000000;
    if (vcpu->run.exit_reason == FAKEHYP_EXIT_HYPERCALL)
        body.hypercall_ret = vcpu->run.hypercall.ret;
    request.body_case = FAKEHYP__REQUEST__BODY_VCPU_RUN;
    request.vcpu_run = &body;
    int rc = fh_call(vcpu->vm->object.fh, &options, &request, &answer);
    /* The result of a hypercall is delivered once. */
    vcpu->run = (struct fakehyp_run){.exit_reason = 0};
    if (answer.reply && answer.reply->body_case == FAKEHYP__REPLY__BODY_VCPU_EXIT)
        fill_run(vcpu->vm, &vcpu->run, answer.reply->vcpu_exit);
    fh_answer_free(&answer);
    return rc;
}

int fakehyp_vcpu_run(struct fakehyp_vcpu *vcpu, int timeout_ms)
{
    if (atomic_exchange(&vcpu->running, true))
        return fh_fail(-EBUSY, "vcpu_run: another thread runs vCPU %u", vcpu->index);
    int rc = run_vcpu(vcpu, timeout_ms);
    atomic_store(&vcpu->running, false);
    return rc;
}

/* Whether [gpa, gpa + size) lies in the guest_memfd; its offset there. */
static bool in_gmem(const struct fakehyp_gmem *gmem, uint64_t gpa_of_gmem, uint64_t gpa, uint64_t size,
                    uint64_t *offset)
{
    if (gpa < gpa_of_gmem)
        return false;
    *offset = gpa - gpa_of_gmem;
    return size <= gmem->file->size && *offset <= gmem->file->size - size;
}

static bool wants_conversion(const struct fakehyp_run *run, int rc, uint64_t *gpa, uint64_t *size, uint64_t *attributes)
{
    if (rc == -EFAULT && run->exit_reason == FAKEHYP_EXIT_MEMORY_FAULT) {
        *gpa = run->memory_fault.gpa;
        *size = run->memory_fault.size;
        *attributes = run->memory_fault.flags & FAKEHYP_MEMORY_EXIT_FLAG_PRIVATE ? FAKEHYP_PRIVATE : FAKEHYP_SHARED;
        return true;
    }
    if (rc == 0 && run->exit_reason == FAKEHYP_EXIT_HYPERCALL &&
        (run->hypercall.nr == MEM_SHARE || run->hypercall.nr == MEM_UNSHARE)) {
        *gpa = run->hypercall.args[0];
        *size = FAKEHYP_PAGE_SIZE;
        *attributes = run->hypercall.nr == MEM_UNSHARE ? FAKEHYP_PRIVATE : FAKEHYP_SHARED;
        return true;
    }
    return false;
}

/* Which failures of the conversion leave it to the guest to go on. */
static bool guest_goes_on(const struct fakehyp_run *run, int rc)
{
    if (run->exit_reason == FAKEHYP_EXIT_MEMORY_FAULT)
        return rc == -EAGAIN; /* a holder may let go; the fault comes again */
    /* The hypervisor looks at the page itself and answers INVALID_PARAMETER when it was not converted. */
    return rc == -EAGAIN || rc == -EINVAL || rc == -ENOMEM || rc == -EPERM;
}

static int fault_stays(uint64_t gpa, int refused)
{
    struct fakehyp_holder holder;

    if (!refused)
        return fh_fail(-EFAULT,
                       "vcpu_run_converting: the guest's fault at %#llx came back %u times after its conversion",
                       (unsigned long long)gpa, MAX_REPEATS);
    if (!fakehyp_last_holders(&holder, 1))
        return fh_fail(-EFAULT,
                       "vcpu_run_converting: the conversion at %#llx that the guest needs was refused %u times",
                       (unsigned long long)gpa, MAX_REPEATS);
    return fh_fail(
        -EFAULT,
        "vcpu_run_converting: the conversion at %#llx that the guest needs was refused %u times: the page at "
        "offset %#llx is held by %s (%s, pid %d); drop that reference and run the vCPU again",
        (unsigned long long)gpa, MAX_REPEATS, (unsigned long long)holder.offset, holder.what, holder.kind,
        (int)holder.pid);
}

int fakehyp_vcpu_run_converting(struct fakehyp_vcpu *vcpu, struct fakehyp_gmem *gmem, uint64_t gpa_of_gmem,
                                int timeout_ms)
{
    int64_t deadline = timeout_ms < 0 ? INT64_MAX : fh_now_ms() + timeout_ms;
    uint64_t last_gpa = 0, last_attributes = 0;
    unsigned repeats = 0;
    int refused = 0; /* what the last conversion answered */

    for (;;) {
        int64_t left = timeout_ms < 0 ? -1 : deadline - fh_now_ms();
        uint64_t gpa, size, attributes, offset;

        int rc = fakehyp_vcpu_run(vcpu, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0);
        if (!wants_conversion(&vcpu->run, rc, &gpa, &size, &attributes) ||
            !in_gmem(gmem, gpa_of_gmem, gpa, size, &offset))
            return rc;
        if (rc == -EFAULT) {
            repeats = repeats && gpa == last_gpa && attributes == last_attributes ? repeats + 1 : 1;
            last_gpa = gpa;
            last_attributes = attributes;
            if (repeats > MAX_REPEATS)
                return fault_stays(gpa, refused);
        } else {
            repeats = 0;
        }
        refused = fakehyp_convert(gmem, offset, size, attributes, NULL);
        if (refused && !guest_goes_on(&vcpu->run, refused))
            return refused;
    }
}
