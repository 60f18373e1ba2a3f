/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a client holds: guest_memfds, pins and VMs, by the ids that EL1 gave
 * them.  A client uses only what is in its own tables.
 */
#ifndef SRC_FAKEHYPD_HANDLES_H
#define SRC_FAKEHYPD_HANDLES_H

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/host/host.h"
#include "src/machine/sched.h"

struct client;
struct daemon;
struct guest;

struct handle {
    RB_ENTRY(handle) node;
    uint64_t id;
};
RB_HEAD(handle_tree, handle);

struct handle *handle_find(struct handle_tree *tree, uint64_t id);
/* The id must be new to the tree. */
void handle_insert(struct handle_tree *tree, struct handle *handle);
void handle_remove(struct handle_tree *tree, struct handle *handle);
struct handle *handle_first(struct handle_tree *tree);
struct handle *handle_next(struct handle *handle);

/* A guest_memfd; each open (created, imported) holds one reference. */
struct gmem_handle {
    struct handle handle;
    struct gmem *gmem;
    unsigned opens;
};

struct pin_handle {
    struct handle handle;
    struct ref *pin;
};

/* One KVM_RUN, which goes on when the request that began it has timed out. */
struct vcpu_run {
    struct vm_handle *vm;
    unsigned index;
    bool attended; /* a request waits for it */
    bool running;  /* its task lives */
    bool done;     /* the result was not fetched yet */
    int rc;
    struct run_record record;
    struct caller caller;
    struct waitq ended;
};

struct vm_handle {
    struct handle handle;
    struct daemon *daemon;
    struct client *client; /* NULL once it is out of the client's table */
    struct vm *vm;
    char program[32]; /* the client's, for what EL1 records */
    unsigned refs;
    unsigned users; /* requests that work on vm just now: it is not destroyed under them */
    bool dying;
    struct waitq changed;   /* users, guest */
    struct guest *guest;    /* prepared or alive */
    bool had_guest;         /* one came to run: its vcpus can be run, though it may have died */
    struct vcpu_run **runs; /* by index of the vcpu */
    unsigned nr_runs;
};

struct vm_handle *vm_handle_new(struct daemon *daemon, struct client *client, struct vm *vm);
void vm_handle_get(struct vm_handle *vm);
void vm_handle_put(struct vm_handle *vm);
/* Between these vm->vm stays.  false: it is being destroyed. */
bool vm_handle_use(struct vm_handle *vm);
void vm_handle_unuse(struct vm_handle *vm);
/* Makes room for the run of a vcpu. */
int vm_handle_add_run(struct vm_handle *vm, unsigned index);
/* (task) Ends the guest, destroys the VM and takes it out of the client's table.  On failure it stays. */
int vm_handle_destroy(struct vm_handle *vm, struct caller *caller);
/* (task) VcpuRun without its words: result in *record. */
int vcpu_run_request(struct vm_handle *vm, unsigned index, int64_t timeout_ns, uint64_t hypercall_ret,
                     struct run_record *record, struct caller *caller);

#endif
