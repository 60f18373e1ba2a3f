/* SPDX-License-Identifier: BSD-2-Clause */
/* A VM's guest process: from the offer of its agent socket to its death. */
#ifndef SRC_FAKEHYPD_GUEST_H
#define SRC_FAKEHYPD_GUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/host/host.h"

struct guest;
struct vm_handle;

/* Makes the guest's agent socket: *sock is the end to give away.  -EBUSY there is a guest, -ENOENT no vCPU, -E2BIG too
 * many. */
int guest_prepare(struct vm_handle *vm, int *sock, struct caller *caller);
/* The stage knows it and its vCPUs can be run. */
bool guest_attached(const struct guest *guest);
pid_t guest_pid(const struct guest *guest);
/* Kills it, if there is one; guest_end() waits for its death. */
void guest_stop(struct guest *guest);
/* (task) Forgets or kills the VM's guest, if any, and waits until it is dead. */
void guest_end(struct vm_handle *vm);

/* live_io.vcpu_reply and live_io.kill. */
void guest_vcpu_reply(void *vcpu_peer, const uint64_t x[4]);
void guest_kill(void *guest_peer);

#endif
