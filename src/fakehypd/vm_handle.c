/* SPDX-License-Identifier: BSD-2-Clause */
/* A client's VM: its life, its users and its end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/fakehypd/client.h"
#include "src/fakehypd/guest.h"
#include "src/fakehypd/handles.h"
#include "src/fakehypd/log.h"

struct vm_handle *vm_handle_new(struct daemon *daemon, struct client *client, struct vm *vm)
{
    struct vm_handle *handle = calloc(1, sizeof(*handle));

    if (!handle)
        return NULL;
    handle->handle.id = vm_id(vm);
    handle->daemon = daemon;
    handle->client = client;
    handle->vm = vm;
    snprintf(handle->program, sizeof(handle->program), "%s", client->program);
    handle->refs = 1;
    handle_insert(&client->vms, &handle->handle);
    return handle;
}

void vm_handle_get(struct vm_handle *vm)
{
    vm->refs++;
}

void vm_handle_put(struct vm_handle *vm)
{
    if (--vm->refs)
        return;
    for (unsigned i = 0; i < vm->nr_runs; i++)
        free(vm->runs[i]);
    free(vm->runs);
    free(vm);
}

bool vm_handle_use(struct vm_handle *vm)
{
    if (vm->dying)
        return false;
    vm_handle_get(vm);
    vm->users++;
    return true;
}

void vm_handle_unuse(struct vm_handle *vm)
{
    vm->users--;
    sched_wake_all(&vm->changed);
    vm_handle_put(vm);
}

int vm_handle_add_run(struct vm_handle *vm, unsigned index)
{
    if (index >= vm->nr_runs) {
        struct vcpu_run **runs = realloc(vm->runs, (index + 1) * sizeof(*runs));
        if (!runs)
            return -ENOMEM;
        vm->runs = runs;
        while (vm->nr_runs <= index)
            vm->runs[vm->nr_runs++] = NULL;
    }
    if (!vm->runs[index])
        vm->runs[index] = calloc(1, sizeof(**vm->runs));
    if (!vm->runs[index])
        return -ENOMEM;
    vm->runs[index]->vm = vm;
    vm->runs[index]->index = index;
    return 0;
}

/* Requests that still wait for a run must not find the VM gone. */
static int wait_unused(struct vm_handle *vm)
{
    int rc = 0;

    while (rc == 0 && vm->users)
        rc = sched_wait(&vm->changed, SCHED_FOREVER);
    return rc;
}

int vm_handle_destroy(struct vm_handle *vm, struct caller *caller)
{
    if (vm->dying)
        return -ENOENT;
    vm->dying = true;
    vm_handle_get(vm);
    sched_wake_all(&vm->changed);
    sched_point("teardown:dying");
    /* Before EL1 takes the memory back nobody uses it: the process is dead, not only told to die. */
    guest_end(vm);
    sched_point("teardown:guest-ended");
    int rc = vm->guest ? -EBUSY : wait_unused(vm);
    if (rc == 0)
        rc = vm_destroy(vm->vm, caller);
    if (rc) {
        vm->dying = false;
    } else {
        vm->vm = NULL;
        handle_remove(&vm->client->vms, &vm->handle);
        vm->client = NULL;
        vm_handle_put(vm);
    }
    vm_handle_put(vm);
    return rc;
}
