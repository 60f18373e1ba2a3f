/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/client/client.h"

#include <errno.h>
#include <stdlib.h>

#define DEFAULT_IPA_BITS 40

static void release_vm(struct fh_object *object)
{
    struct fakehyp_vm *vm = (struct fakehyp_vm *)object;

    fh_object_remove(object);
    fh_guest_reap(vm);
    while (!LIST_EMPTY(&vm->vcpus)) {
        struct fakehyp_vcpu *vcpu = LIST_FIRST(&vm->vcpus);
        LIST_REMOVE(vcpu, link);
        free(vcpu);
    }
    free(vm);
}

int fakehyp_vm_create(struct fakehyp *fh, const struct fakehyp_vm_config *config, struct fakehyp_vm **out)
{
    static const struct fakehyp_vm_config defaults;
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VmCreate body = FAKEHYP__VM_CREATE__INIT;
    struct fh_call_options options = {.what = "vm_create", .expect = FAKEHYP__REPLY__BODY_VM, .fd = -1};
    struct fh_answer answer;

    *out = NULL;
    if (!config)
        config = &defaults;
    struct fakehyp_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return fh_fail(-ENOMEM, "vm_create: out of memory");
    body.hyp = (char *)(config->hyp ? config->hyp : "pkvm");
    body.name = (char *)(config->name ? config->name : "");
    body.unprotected = config->unprotected;
    body.unshare_mode = (uint32_t)config->unshare_mode;
    body.ipa_bits = config->ipa_bits;
    body.policy = (char *)(config->policy ? config->policy : "");
    body.tracker = (char *)(config->tracker ? config->tracker : "");
    body.bugs = (char *)(config->bugs ? config->bugs : "");
    body.abi = config->abi;
    body.ask_hyp = config->ask_hyp;
    request.body_case = FAKEHYP__REQUEST__BODY_VM_CREATE;
    request.vm_create = &body;
    int rc = fh_call(fh, &options, &request, &answer);
    if (rc == 0) {
        vm->id = answer.reply->vm->vm;
        vm->ipa_bits = config->ipa_bits ? config->ipa_bits : DEFAULT_IPA_BITS;
        vm->guest_pidfd = -1;
        LIST_INIT(&vm->vcpus);
        fh_object_add(fh, &vm->object, release_vm);
        *out = vm;
    } else {
        free(vm);
    }
    fh_answer_free(&answer);
    return rc;
}

int fakehyp_vm_destroy(struct fakehyp_vm *vm)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VmDestroy body = FAKEHYP__VM_DESTROY__INIT;

    if (!vm)
        return 0;
    body.vm = vm->id;
    request.body_case = FAKEHYP__REQUEST__BODY_VM_DESTROY;
    request.vm_destroy = &body;
    int rc = fh_call_ack(vm->object.fh, "vm_destroy", &request);
    release_vm(&vm->object);
    return rc;
}

uint64_t fakehyp_vm_id(const struct fakehyp_vm *vm)
{
    return vm->id;
}

int fakehyp_set_memory_region(struct fakehyp_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size,
                              struct fakehyp_gmem *gmem, uint64_t gmem_offset)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__MemoryRegion body = FAKEHYP__MEMORY_REGION__INIT;

    if (!gmem && size)
        return fh_fail(-EINVAL, "set_memory_region: slot %u of size %#llx needs a guest_memfd", slot,
                       (unsigned long long)size);
    if (gmem && gmem->object.fh != vm->object.fh)
        return fh_fail(-EINVAL, "set_memory_region: the guest_memfd handle belongs to another connection: import it");
    body.vm = vm->id;
    body.slot = slot;
    body.flags = 1u << 2; /* KVM_MEM_GUEST_MEMFD */
    body.gpa = gpa;
    body.size = size;
    body.gmem = gmem ? gmem->file->id : 0;
    body.gmem_offset = gmem_offset;
    request.body_case = FAKEHYP__REQUEST__BODY_MEMORY_REGION;
    request.memory_region = &body;
    return fh_call_ack(vm->object.fh, "set_memory_region", &request);
}
