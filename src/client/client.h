/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of libfakehyp share.
 *
 * Locks, in the order in which they are taken: the agents' (agent.c), fh_lock,
 * then one connection's lock, then its event_lock.  The fork handlers take all of
 * them, so none is held across a call to the daemon, except by an agent that asks
 * about a SIGBUS, for a bounded time.
 */
#ifndef SRC_CLIENT_CLIENT_H
#define SRC_CLIENT_CLIENT_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <fakehyp/fakehyp.h>

#include "src/kernel/vma.h"
#include "src/proto/chan.h"

#define FH_DEFAULT_TIMEOUT_MS 30000
#define FH_EVENT_RING 256
#define FH_GONE                                                                                                        \
    "fakehypd is gone (ended, crashed or killed, or this program closed the descriptors of the connection); its VMs "  \
    "and guest_memfds are gone with it: connect again"

/* ---- error.c: the last error of a thread ---------------------------------------------------------------------- */

/* Notes the text and returns err (a negative errno). */
int fh_fail(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fh_note_holders(const Fakehyp__ConvertReply *convert);

/* ---- handles --------------------------------------------------------------------------------------------------- */

/* A handle that lives no longer than its connection: on fh->objects under fh_lock. */
struct fh_object {
    LIST_ENTRY(fh_object) link;
    struct fakehyp *fh;
    void (*release)(struct fh_object *object); /* frees it without a call to the daemon */
};
LIST_HEAD(fh_object_list, fh_object);

/* A guest_memfd's descriptor, shared by the handle and the views, which outlive the handle. */
struct fh_file {
    unsigned refs; /* under fh_lock */
    int fd;
    dev_t dev;
    ino_t ino;
    uint64_t id, size, flags;
};

struct fakehyp_gmem {
    struct fh_object object;
    struct fh_file *file;
};

struct fakehyp_vm {
    struct fh_object object;
    uint64_t id;
    uint32_t ipa_bits;
    pid_t guest_pid;
    int guest_pidfd;                 /* -1 without a guest */
    LIST_HEAD(, fakehyp_vcpu) vcpus; /* under fh_lock */
};

struct fakehyp_vcpu {
    LIST_ENTRY(fakehyp_vcpu) link;
    struct fakehyp_vm *vm;
    uint32_t index;
    atomic_bool running;
    struct fakehyp_run run;
};

struct fh_waiter;
LIST_HEAD(fh_waiter_list, fh_waiter);

struct fakehyp {
    LIST_ENTRY(fakehyp) link; /* fh_connections, under fh_lock */
    pid_t pid;                /* the process that it belongs to */
    /*
     * What a child of fork must not keep is here from its first to its last moment: opened into its place and closed
     * in it under fh_lock (agent: put there under lock, by dispatch()).
     */
    int control, agent, event_fd;
    int listener;       /* of a private daemon while it starts */
    int uffd;           /* -1 until the first view */
    int maps_fd;        /* /proc/self/maps; with uffd */
    int report_pipe[2]; /* from the SIGBUS handler to the agent */
    int timeout_ms;
    char **capability;
    size_t nr_capabilities;
    atomic_int dead; /* 0, or why calls fail: -ECONNRESET, -EIO */
    atomic_bool closing;

    pthread_t agent_thread;
    sem_t agent_ready; /* it runs */
    struct chan_msg agent_in;
    bool agent_started;

    pthread_mutex_t lock; /* agent until it is there, and the next four */
    struct fh_waiter_list waiters;
    bool has_reader;
    uint64_t next_id;
    struct chan_msg in; /* the reader's */

    pthread_mutex_t event_lock; /* the next four */
    struct fakehyp_event *events;
    size_t first_event, nr_events;
    uint64_t lost_events;

    struct fh_object_list objects; /* under fh_lock */
};
LIST_HEAD(fh_connection_list, fakehyp);

extern pthread_mutex_t fh_lock; /* connections, objects, files and views */
extern struct fh_connection_list fh_connections;

void fh_object_add(struct fakehyp *fh, struct fh_object *object, void (*release)(struct fh_object *object));
void fh_object_remove(struct fh_object *object);
/* The caller holds fh_lock. */
void fh_file_put_locked(struct fh_file *file);

/* ---- launch.c: sockets and the private daemon -------------------------------------------------------------------- */

/* Both connect the control socket: 0 or a negative errno. */
int fh_dial(struct fakehyp *fh, const char *path);
/* *again: the private daemon of an earlier connection answered; it may be about to end. */
int fh_dial_private(struct fakehyp *fh, bool *again);
void fh_forget_private(void);

/* conn.c: how long to wait for the daemon, of the environment. */
int fh_timeout_ms(void);

/* ---- fork.c ------------------------------------------------------------------------------------------------------ */

void fh_install_fork_handlers(void);
/* 0, or -EIO / -ECONNRESET with the text noted, when the connection is of no use to this process. */
int fh_usable(struct fakehyp *fh);

/* ---- call.c: requests and replies over the control socket ------------------------------------------------------- */

struct fh_answer {
    Fakehyp__Reply *reply;
    int fd; /* the first descriptor beside the reply, or -1; owned */
    char *json;
    size_t json_length;
};

struct fh_call_options {
    const char *what; /* for error texts: "convert" */
    Fakehyp__Reply__BodyCase expect;
    int fd;         /* to send along, -1: none */
    int *fd_to;     /* where the descriptor beside the reply goes; NULL: into the answer */
    int timeout_ms; /* 0: the connection's, -1: none */
};

/*
 * Sends the request (its id is set here) and waits for the reply.  Returns its
 * error or the transport's, with the text noted.  answer may be NULL; otherwise
 * it is always filled and must go to fh_answer_free(): a reply can carry a body beside
 * an error.
 */
int fh_call(struct fakehyp *fh, const struct fh_call_options *options, Fakehyp__Request *request,
            struct fh_answer *answer);
/* The common case: an acknowledgement, no descriptor, the usual timeout. */
int fh_call_ack(struct fakehyp *fh, const char *what, Fakehyp__Request *request);
void fh_answer_free(struct fh_answer *answer);
/* The daemon is gone: every call ends, now and later. */
void fh_mark_dead(struct fakehyp *fh);
int64_t fh_now_ms(void);

/* ---- agent.c ------------------------------------------------------------------------------------------------------
 */

int fh_agent_start(struct fakehyp *fh);
/* Ends and joins the thread; the control socket must be shut down already. */
void fh_agent_stop(struct fakehyp *fh);
/* Around fork(): agents finish what they are at and begin nothing. */
void fh_agents_fork_prepare(void);
void fh_agents_fork_done(void);
void fh_agents_fork_child(void);

/* ---- uffd.c, vma.c: registration ----------------------------------------------------------------------------------
 */

/* A userfaultfd with these features, and those that are wished for if the kernel has them; O_CLOEXEC | O_NONBLOCK, user
 * mode only.  Negative errno with the text noted. */
int fh_uffd_open(uint64_t features, uint64_t wished);
int fh_uffd_register(int uffd, uintptr_t addr, size_t length, uint64_t mode);
int fh_uffd_unregister(int uffd, uintptr_t addr, size_t length);

/* The mapping that contains addr or is the next after it: 1, 0 when there is none, negative errno.  maps_fd:
 * /proc/self/maps. */
int fh_vma_at(int maps_fd, uintptr_t addr, struct kernel_vma *vma);

/* ---- view.c -------------------------------------------------------------------------------------------------------
 */

/*
 * A view.  The nodes are never freed, only reused: the SIGBUS handler walks the
 * list without a lock.  addr, length and report_fd are all it looks at.
 */
struct fh_view {
    struct fh_view *next;
    _Atomic uintptr_t addr;
    _Atomic size_t length; /* 0: the node is free */
    _Atomic int report_fd;
    struct fakehyp *fh;
    struct fh_file *file;
    uint64_t offset;
    int prot;
};
extern _Atomic(struct fh_view *) fh_views;

/* Registers (refuse) or unregisters what views of the file cover of [offset, offset + length).  0, -errno. */
int fh_views_register(struct fakehyp *fh, uint64_t gmem, bool refuse, uint64_t offset, uint64_t length);
/* The view under addr: true with the file and the offset in it. */
bool fh_view_find(struct fakehyp *fh, uintptr_t addr, uint64_t *gmem, uint64_t *offset);
/* Unmaps all views of a connection. */
void fh_views_drop_all(struct fakehyp *fh);
/* In a child of fork, fh_lock held: nothing may be mapped where the views of the parent were. */
void fh_views_forked(void);

/* ---- sigbus.c: the report of a stray access ------------------------------------------------------------------------
 */

/* At the first view. */
void fh_sigbus_install(void);
/* The agent's part: serves the report whose number came through the pipe. */
void fh_sigbus_serve(struct fakehyp *fh, unsigned number);
/* Waits until no handler uses the connection's pipe. */
void fh_sigbus_quiesce(void);

/* ---- touch.c: around fork() -------------------------------------------------------------------------------------- */

void fh_touch_fork_prepare(void);
void fh_touch_fork_done(void);
void fh_touch_fork_child(void);

/* ---- vm.c, guest.c --------------------------------------------------------------------------------------------------
 */

/* Waits a moment for the guest to end, kills it otherwise, and reaps it. */
void fh_guest_reap(struct fakehyp_vm *vm);
/* How the guest's process ended, as wait(2) has it; 0 when that cannot be told. */
int fh_guest_wait_status(const struct fakehyp_vm *vm);

#endif
