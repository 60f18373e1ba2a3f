/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The live stage: stage 2 for real processes.
 *
 * Each guest_memfd is two memfds; a page's bytes are in exactly one of them
 * (the shared file: any host process; the private file: EL2 and the guest's
 * processes).  Changing sides moves the bytes.  Guests run under an event-mode
 * userfaultfd registered MISSING|MINOR, so that a guest PTE exists only where
 * EL2's tables have a leaf; host views answer SIGBUS for the holes of the
 * shared file through a userfaultfd of their own.
 *
 * The stage reaches processes through `struct live_io`, which the daemon
 * implements over its sockets.  Functions marked (task) may wait.
 */
#ifndef SRC_LIVE_LIVE_H
#define SRC_LIVE_LIVE_H

#include "src/machine/machine.h"
#include "src/proto/fakehyp.pb-c.h"

struct live;
struct live_guest;

struct live_io {
    void *ctx;
    /*
     * (task) Sends a request to a peer's agent and waits for the reply.  The
     * request's id is set here; descriptors stay the caller's.  0 or the
     * reply's error; -ETIMEDOUT; -ECONNRESET when the peer is gone; message
     * (size bytes) takes the reply's text.
     */
    int (*call)(void *ctx, void *peer, Fakehyp__Request *request, const int *fds, unsigned nr_fds, uint64_t timeout_ns,
                char *message, size_t size);
    /* Answers the request that the vcpu's thread waits for (VcpuReady or Hypercall). Never waits. */
    void (*vcpu_reply)(void *ctx, void *vcpu_peer, const uint64_t x[4]);
    /* Begin / stop calling live_guest_readable() when fd (the guest's userfaultfd) is readable. */
    int (*watch)(void *ctx, struct live_guest *guest, int fd);
    void (*unwatch)(void *ctx, struct live_guest *guest);
    /* Kill the guest process at once (SIGKILL); live_guest_gone() follows when it is dead. */
    void (*kill)(void *ctx, void *guest_peer);
    /* For people. level: 0 error, 1 warning, 2 info, 3 debug */
    void (*log)(void *ctx, int level, const char *text);
};

extern const struct stage_ops live_stage_ops;

/* The stage comes first (it is stage_ctx of the machine), then the machine, then live_start(). */
struct live *live_new(const struct live_io *io);
int live_start(struct live *live, struct machine *machine);
void live_free(struct live *live);

/* ---- files --------------------------------------------------------------------------------------------------------
 */

/* The guest_memfd descriptor (the shared file): to send to clients; stays the stage's. */
int live_file_fd(const struct gmem *gmem);
/* The file that a descriptor from a client is, or NULL. */
struct gmem *live_file_of_fd(struct live *live, int fd);

/* ---- views of host processes --------------------------------------------------------------------------------------
 */

/* (task) A client's view; returns after the client's agent has opened what is to be open.  peer: for live_io.call. */
int live_view_add(struct live *live, struct gmem *gmem, void *peer, uint32_t pid, uint64_t addr, uint64_t length,
                  uint64_t offset);
/* The client has unmapped [addr, addr + length). */
void live_view_remove(struct live *live, void *peer, uint64_t addr, uint64_t length);
/*
 * The agent of a client answered a request after the time for it was over: it can be told what it has missed.  Pages
 * that its process made meanwhile where it was to refuse, and which take the signal from everybody, are dropped then.
 */
void live_agent_answers(struct live *live, void *peer);
/* The client is gone: all its views. */
void live_peer_gone(struct live *live, void *peer);
size_t live_nr_views(const struct live *live, const void *peer); /* peer NULL: all */

/* ---- guests --------------------------------------------------------------------------------------------------------
 */

/*
 * (task) A guest process attached: tells its agent of all memslots.  Takes
 * ownership of uffd on success.  -EBUSY the VM has a guest.
 */
int live_guest_attach(struct live *live, struct vm *vm, void *guest_peer, uint32_t pid, int uffd, uint64_t ram_base,
                      uint64_t ipa_size, struct live_guest **out);
/* A vcpu thread is there (its socket is vcpu_peer) and waits for its first entry. */
void live_vcpu_ready(struct live_guest *guest, unsigned index, void *vcpu_peer, uint32_t tid);
/* A vcpu thread made a hypercall and waits. */
void live_vcpu_hypercall(struct live_guest *guest, unsigned index, const uint64_t x[4]);
/* Its userfaultfd is readable.  Never waits; bounded work. */
void live_guest_readable(struct live_guest *guest);
/* It cannot be polled any more: the guest is killed. */
void live_guest_unreadable(struct live_guest *guest);
/* The process is dead (wait status if known, else 0): vcpus return, the guest is freed. */
void live_guest_gone(struct live_guest *guest, int status);
uint32_t live_guest_pid(const struct live_guest *guest);

/* ---- truth ---- */

struct live_audit {
    uint64_t files, pages, views, strays; /* views: those found in a process that could be looked at */
};
/*
 * (task) Asks the kernel: which file holds each page's bytes, how each view is
 * registered.  Stray pages are reported and dropped.  Returns the number of problems.
 */
unsigned live_audit(struct live *live, void (*report)(void *ctx, const char *text), void *ctx, struct live_audit *out);

/*
 * A kernel load through the daemon's direct map under a fault guard: 0, or
 * -EFAULT when it really faulted.  Reads shared memory only.
 */
int live_direct_map_load(struct live *live, struct gmem *gmem, uint64_t offset, void *buf, size_t length);

/*
 * (task) A load by kernel code from the start of a frame of guest memory.
 * Where stage 2 refuses it really faults, EL2 injects the abort, and EL1
 * answers as do_mem_abort(): with a fixup -EFAULT and nothing else happens;
 * without, the page is force-reclaimed, its IPA dead for the guest, and the
 * load repeated reads zeros.  0; -EPERM where the kernel would Oops.
 */
int live_kernel_load(struct live *live, uint64_t pfn, bool fixup, void *buf, size_t length);

#endif
