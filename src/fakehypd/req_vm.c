/* SPDX-License-Identifier: BSD-2-Clause */
/* VMs, memslots and vCPUs. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fakehyp/hypercall.h"
#include "src/fakehypd/dispatch.h"
#include "src/fakehypd/guest.h"
#include "src/fakehypd/text.h"

#define KVM_MEM_GUEST_MEMFD (1u << 2)

static int read_config(struct req *req, struct vm_config *config)
{
    const Fakehyp__VmCreate *body = req->request->vm_create;

    char error[sizeof(req->caller.message)];
    const int hyp = variant_find(VARIANT_HYP, body->hyp, error, sizeof(error));
    const int tracker = hyp < 0 ? hyp : variant_find(VARIANT_TRACKER, body->tracker, error, sizeof(error));
    const int policy = tracker < 0 ? tracker : variant_find(VARIANT_POLICY, body->policy, error, sizeof(error));
    uint64_t bugs = 0;

    if (policy < 0 || variant_bugs(body->bugs, &bugs, error, sizeof(error))) {
        char clean[sizeof(error)];
        text_copy(clean, sizeof(clean), error);
        caller_explain(&req->caller, "%s", clean);
        return -EINVAL;
    }
    const char *why = variant_get(VARIANT_POLICY, (unsigned)policy)->not_live;
    if (why) {
        caller_explain(&req->caller, "policy %s is for simulation (fakehypctl run): %s", body->policy, why);
        return -EOPNOTSUPP;
    }
    if (body->unshare_mode > HYP_UNSHARE_UNILATERAL) {
        caller_explain(&req->caller, "unshare mode %u: 0 is consent, 1 unilateral", body->unshare_mode);
        return -EINVAL;
    }
    *config = (struct vm_config){
        .is_protected = !body->unprotected,
        .unshare_mode = body->unshare_mode,
        .ipa_bits = body->ipa_bits,
        .policy = (enum gmem_policy_id)policy,
        .tracker = (enum gmem_tracker_id)tracker,
        .hyp = (enum gmem_hyp_id)hyp,
        .abi = body->abi,
        .ask_hyp = body->ask_hyp,
        .bugs = bugs,
    };
    text_copy(config->name, sizeof(config->name), body->name);
    return 0;
}

void req_vm_create(struct req *req)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__VmReply body = FAKEHYP__VM_REPLY__INIT;
    struct vm_config config;
    struct vm *vm;
    int rc = read_config(req, &config);

    if (rc == 0)
        rc = vm_create(machine_host(req->daemon->machine), &config, &vm, &req->caller);
    if (rc == 0 && !vm_handle_new(req->daemon, req->client, vm)) {
        vm_destroy(vm, &req->caller);
        rc = -ENOMEM;
    }
    if (rc) {
        req_done(req, rc);
        return;
    }
    body.vm = vm_id(vm);
    reply.body_case = FAKEHYP__REPLY__BODY_VM;
    reply.vm = &body;
    req_reply(req, &reply, NULL, 0);
}

void req_vm_destroy(struct req *req)
{
    struct vm_handle *vm = (struct vm_handle *)handle_find(&req->client->vms, req->request->vm_destroy->vm);

    if (!vm)
        caller_explain(&req->caller, "this process has no VM %llu", (unsigned long long)req->request->vm_destroy->vm);
    req_done(req, vm ? vm_handle_destroy(vm, &req->caller) : -ENOENT);
}

void req_memory_region(struct req *req)
{
    const Fakehyp__MemoryRegion *body = req->request->memory_region;
    struct vm_handle *vm = req_vm(req, body->vm);
    struct gmem *gmem = NULL;

    if (!vm || (body->size && !(gmem = req_gmem(req, body->gmem)))) {
        req_done(req, -ENOENT);
        return;
    }
    /* Memory of a VM is always guest_memfd here: EL1 has no other kind, and no flag for it. */
    uint32_t flags = body->flags & ~KVM_MEM_GUEST_MEMFD;
    req_done(req, vm_set_memory_region(vm->vm, body->slot, flags, body->gpa, body->size, gmem, body->gmem_offset,
                                       &req->caller));
}

static int create_vcpu(struct req *req, struct vm_handle *vm, uint32_t index)
{
    struct vcpu *vcpu;

    if (vm->guest) {
        caller_explain(&req->caller, "the guest of VM %llu runs already: its vCPUs come first",
                       (unsigned long long)vm->handle.id);
        return -EBUSY;
    }
    /* A guest gets a descriptor a vCPU in one message. */
    if (index >= CHAN_MAX_FDS) {
        caller_explain(&req->caller, "vCPU %u: the highest index is %d", index, CHAN_MAX_FDS - 1);
        return -EINVAL;
    }
    int rc = vm_handle_add_run(vm, index);
    return rc ? rc : vcpu_create(vm->vm, index, &vcpu, &req->caller);
}

void req_vcpu_create(struct req *req)
{
    const Fakehyp__VcpuCreate *body = req->request->vcpu_create;
    struct vm_handle *vm = req_vm(req, body->vm);

    req_done(req, vm ? create_vcpu(req, vm, body->index) : -ENOENT);
}

void req_guest_prepare(struct req *req)
{
    struct vm_handle *vm = req_vm(req, req->request->guest_prepare->vm);
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;
    int sock, rc = vm ? guest_prepare(vm, &sock, &req->caller) : -ENOENT;

    if (rc) {
        req_done(req, rc);
        return;
    }
    reply.body_case = FAKEHYP__REPLY__BODY_ACK;
    reply.ack = &ack;
    req_reply(req, &reply, &sock, 1);
    close(sock);
}

static void fill_exit(Fakehyp__VcpuExit *body, const struct run_record *record)
{
    body->exit_reason = record->exit_reason;
    body->flags = record->flags;
    body->gpa = record->gpa;
    body->size = record->size;
    body->is_write = record->is_write;
    body->nr = record->nr;
    body->args0 = record->args[0];
    body->args1 = record->args[1];
    body->args2 = record->args[2];
    body->ret = record->ret;
    body->event_type = record->event_type;
    body->event_data = record->event_data;
}

void req_vcpu_run(struct req *req)
{
    const Fakehyp__VcpuRun *body = req->request->vcpu_run;
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__VcpuExit out = FAKEHYP__VCPU_EXIT__INIT;
    struct run_record record = {.exit_reason = 0};
    struct vm_handle *vm = req_vm(req, body->vm);

    if (!vm) {
        req_done(req, -ENOENT);
        return;
    }
    /* The run holds what it needs; a VM can be destroyed while somebody waits for its vCPU. */
    vm_handle_get(vm);
    req->vm = NULL;
    vm_handle_unuse(vm);
    reply.error = vcpu_run_request(vm, body->index, body->timeout_ns, body->hypercall_ret, &record, &req->caller);
    vm_handle_put(vm);
    fill_exit(&out, &record);
    reply.body_case = FAKEHYP__REPLY__BODY_VCPU_EXIT;
    reply.vcpu_exit = &out;
    req_reply(req, &reply, NULL, 0);
}
