/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VcpuRun: a task executes KVM_RUN, however long it takes; requests come and
 * wait for it, each with its own timeout.
 */
#include <errno.h>
#include <string.h>

#include "src/fakehypd/daemon.h"
#include "src/fakehypd/guest.h"
#include "src/fakehypd/handles.h"

static int no_guest(struct caller *caller)
{
    caller_explain(caller,
                   "no guest was started: fakehyp_guest_start() comes before vcpu_run, and again where the guest "
                   "ended before it ran");
    return -ENOENT;
}

static bool has_guest(const struct vm_handle *vm)
{
    return vm->guest || vm->had_guest;
}

/* The guest was asked for but may not be there yet; one that does not come is forgotten in the end. */
static int wait_attached(struct vm_handle *vm, struct caller *caller)
{
    while (!vm->dying && vm->guest && !guest_attached(vm->guest))
        sched_wait_uncancelled(&vm->changed, SCHED_FOREVER);
    if (vm->dying) {
        caller_explain(caller, "the VM is being destroyed");
        return -ENOENT;
    }
    return has_guest(vm) ? 0 : no_guest(caller);
}

static void run_task(void *arg)
{
    struct vcpu_run *run = arg;
    struct vm_handle *vm = run->vm;

    run->rc = wait_attached(vm, &run->caller);
    /* A guest that did not come is no exit: who asks later may have started another. */
    bool begun = run->rc == 0;
    vm->had_guest |= begun;
    /* EL1's vm_destroy() waits for us, so the VM is there until vcpu_run() has returned. */
    if (begun)
        run->rc = vcpu_run(vm_vcpu(vm->vm, run->index), &run->record, &run->caller);
    run->running = false;
    run->done = begun || run->attended;
    sched_wake_all(&run->ended);
    vm_handle_put(vm);
}

static int begin(struct vcpu_run *run, uint64_t hypercall_ret, const struct caller *caller)
{
    memset(&run->record, 0, sizeof(run->record));
    run->record.ret = hypercall_ret;
    run->caller = (struct caller){.pid = caller->pid, .tid = caller->tid, .program = run->vm->program};
    run->running = true;
    vm_handle_get(run->vm);
    if (task_spawn(run->vm->daemon->loop.sched, "vcpu", run_task, run))
        return 0;
    run->running = false;
    vm_handle_put(run->vm);
    return -ENOMEM;
}

static int attend(struct vcpu_run *run, uint64_t deadline, uint64_t hypercall_ret, struct caller *caller)
{
    int rc = 0;

    if (!run->running && !run->done)
        rc = has_guest(run->vm) ? begin(run, hypercall_ret, caller) : no_guest(caller);
    while (rc == 0 && !run->done) {
        uint64_t now = sched_now();
        rc = sched_wait(&run->ended, deadline == SCHED_FOREVER ? SCHED_FOREVER : now < deadline ? deadline - now : 0);
    }
    return run->done ? 0 : rc;
}

/* What the errno alone does not tell. */
static void explain(const struct run_record *record, int rc, struct caller *caller)
{
    if (caller->message[0])
        return;
    if (rc == -ETIMEDOUT)
        caller_explain(caller, "no exit within the timeout; the vCPU goes on: run it again to wait on");
    else if (rc == -EFAULT && record->exit_reason == KVM_EXIT_MEMORY_FAULT)
        caller_explain(
            caller, "the guest's access to IPA 0x%llx needs the page %s: convert it, then run the vCPU again",
            (unsigned long long)record->gpa, record->flags & KVM_MEMORY_EXIT_FLAG_PRIVATE ? "private" : "shared");
    else if (rc == -EFAULT)
        caller_explain(caller, "the guest touched an IPA whose page was reclaimed by force (hole punch, errant kernel "
                               "access); no other page takes its place: destroy the VM");
}

int vcpu_run_request(struct vm_handle *vm, unsigned index, int64_t timeout_ns, uint64_t hypercall_ret,
                     struct run_record *record, struct caller *caller)
{
    struct vcpu_run *run = index < vm->nr_runs ? vm->runs[index] : NULL;
    uint64_t deadline = SCHED_FOREVER;

    if (!run) {
        caller_explain(caller, "VM %llu has no vCPU %u", (unsigned long long)vm->handle.id, index);
        return -ENOENT;
    }
    if (run->attended) {
        caller_explain(caller, "another request runs vCPU %u", index);
        return -EBUSY;
    }
    if (timeout_ns >= 0)
        deadline = sched_now() + (uint64_t)timeout_ns;
    run->attended = true;
    vm_handle_get(vm);
    int rc = attend(run, deadline, hypercall_ret, caller);
    if (rc == 0) {
        rc = run->rc;
        *record = run->record;
        memcpy(caller->message, run->caller.message, sizeof(caller->message));
        run->done = false;
    }
    explain(record, rc, caller);
    run->attended = false;
    vm_handle_put(vm);
    return rc;
}
