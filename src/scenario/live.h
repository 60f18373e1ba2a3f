/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scenarios with real processes: a private daemon, the runner, which asks and
 * directs, and an actor process for each host process of the script.
 *
 * The actor is a child that gets a struct sc_call over a socket and answers
 * with a verdict; each call has a thread, so that one that waits keeps nobody.
 * The first is the VMM: it has the VM, and its guest is a child of it that
 * does what the VMM writes into memory they share.
 *
 * A verb of a process, guest, VM or device is `void live_ACTOR_VERB(struct
 * live_actor *a, const struct sc_call *c, struct sc_verdict *v)` in that
 * process; one of a file, of the kernel, of EL2 or of the world is `void
 * live_ACTOR_VERB(struct sc_live *w, ...)` in the runner.
 */
#ifndef SRC_SCENARIO_LIVE_H
#define SRC_SCENARIO_LIVE_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include <fakehyp/fakehyp.h>

#include "src/scenario/stage.h"

#define LIVE_ANSWER_MS 10000 /* a call that takes longer waits for ever */
#define LIVE_WAITS_MS 500    /* the same while another call is stopped: it waits for that one */
#define LIVE_STOPPED_MS 3000 /* for one that the script does not expect to wait for it */
#define LIVE_MAX_ACTORS 16
#define LIVE_MAX_VIEWS 64
#define LIVE_MAX_PINS 64
#define LIVE_MAX_PIPES 16
#define LIVE_MAX_FILES 4

/* ---- between runner and actor ----------------------------------------------------------------------------------- */

enum live_ask { LIVE_BUILD, LIVE_JOIN, LIVE_CALL, LIVE_QUIT };

struct live_request {
    uint32_t id;
    enum live_ask ask;
    union {
        struct sc_world_config config; /* BUILD: be the VMM of such a world; JOIN: another process of it */
        struct sc_call call;
    };
};

struct live_reply {
    uint32_t id;
    struct sc_verdict verdict;
};

/* One message, with a descriptor or -1.  False: the other side is gone. */
bool live_send(int sock, const void *message, size_t size, int fd);
/* 1, 0 nothing within timeout_ms, -1 the other side is gone.  *fd: -1 where none came. */
int live_receive(int sock, void *message, size_t size, int *fd, int timeout_ms);

/* ---- in an actor ------------------------------------------------------------------------------------------------ */

struct live_view {
    uint8_t *addr;
    uint64_t page, nr;
    bool gone;
};

struct live_pipe {
    int fds[2];
    struct fakehyp_pin *pin; /* what the model knows of it; NULL: it is empty */
};

#define GUEST_NEXT UINT64_C(0xC6001000) /* of SMCCC's vendor range: the guest asks for its next instruction */

enum guest_op { GUEST_READ = 1, GUEST_WRITE, GUEST_CALL, GUEST_OFF, GUEST_STORM };
/* In memory that VMM and guest share. */
struct guest_command {
    enum guest_op op;
    uint64_t ipa, length, number, x1, x2;
    int64_t result;
    atomic_bool stop; /* of a storm */
    char bytes[SC_BYTES];
};

struct live_vcpu {
    struct fakehyp_vcpu *vcpu;
    struct fakehyp_run *run;
    struct guest_command *command;
    bool waits;     /* for its next instruction */
    bool executing; /* an instruction that has not ended */
};

struct live_actor {
    char name[32];
    const char *daemon_socket;
    int sock;
    struct fakehyp *fh;
    pthread_mutex_t lock; /* of what follows, for the time of looking it up */
    atomic_uint calls;    /* that have not been answered */
    unsigned nr_views, nr_pins, nr_files, nr_pipes;
    struct live_view view[LIVE_MAX_VIEWS];
    struct fakehyp_pin *pin[LIVE_MAX_PINS];
    struct fakehyp_gmem *file[LIVE_MAX_FILES];
    struct live_pipe pipe[LIVE_MAX_PIPES];
    /* The VMM's. */
    struct fakehyp_vm *vm;
    unsigned nr_vcpus;
    struct live_vcpu vcpu[SC_MAX_VCPUS];
    struct guest_command *commands;
    atomic_bool follow;
};

/* The process of an actor: answers what comes over sock, and ends with it. */
_Noreturn void live_actor_main(const char *name, const char *daemon_socket, int sock);
/* The same from where it is connected. */
_Noreturn void live_actor_loop(struct live_actor *a, const char *name, int sock);
/* The VM with its file, mapped, and its guest; NULL, or what went wrong. */
const char *live_build_vm(struct live_actor *a, const struct sc_world_config *config);

/* Hands the guest an instruction, which the next vcpu_run() begins; false with a verdict of why not. */
bool live_give(struct live_vcpu *vcpu, const struct guest_command *command, struct sc_verdict *v);
/* The VMM does what the guest asks for: true when the exit was such a request, and it follows. */
bool live_follow(struct live_actor *a, const struct live_vcpu *vcpu, int rc);
/* The guest's part of a storm. */
void live_guest_storm(struct fakehyp_guest *guest, struct guest_command *command);
/* What the VMM does for verbs of the world. */
void live_vmm_storm(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v);
void live_vmm_follow(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v);

/* rc with the library's words. */
void live_rc(struct sc_verdict *v, int rc);
/* The same of a conversion, with its holders. */
void live_convert_verdict(struct sc_verdict *v, int rc, uint64_t error_offset);
struct fakehyp_gmem *live_file_of(struct live_actor *a, int64_t number, struct sc_verdict *v);
/* As sim_address(). */
uint8_t *live_address(struct live_actor *a, int64_t page, int64_t view, struct sc_verdict *v);

/* ---- in the runner ---------------------------------------------------------------------------------------------- */

struct live_daemon {
    pid_t pid;       /* 0: not running */
    unsigned worlds; /* that are open */
    bool spoilt;     /* its audit has found something */
    int points, log;
    char socket[32];
    struct fakehyp *observer;
    FILE *trace, *trace_to; /* what it has recorded, and where that goes when it has ended; NULL: none is wanted */
};

/* NULL, or what went wrong.  trace: as of struct sc_world_config. */
const char *live_daemon_start(struct live_daemon *d, FILE *trace);
void live_daemon_stop(struct live_daemon *d);
/* The last lines of its log. */
void live_daemon_log(const struct live_daemon *d, sc_report_fn *report, void *ctx);
/* A command for the socket of --points-fd: "ok", or what is wrong. */
const char *live_daemon_points(struct live_daemon *d, const char *command);
/* A report of the daemon; NULL: none, and *rc says why. */
json_t *live_query(struct live_daemon *d, const char *what, uint64_t gmem, uint64_t offset, int *rc);

struct live_peer {
    char name[32];
    pid_t pid;   /* 0: it has ended */
    bool forked; /* by another actor, whose child it is */
    int sock;
};

struct sc_live {
    struct live_daemon *daemon;
    struct sc_world_config config;
    unsigned nr_peers;
    struct live_peer peer[LIVE_MAX_ACTORS];
    uint64_t gmem; /* id of the file */
    int file_fd;
    struct sc_op *ops;
    uint32_t next_id;
};

/* Starts a process: its number, or -1 after sc_broken(). */
int live_add_peer(struct sc_live *w, const char *name, struct sc_verdict *v);
/* One that an actor has forked. */
int live_adopt_peer(struct sc_live *w, const char *name, pid_t pid, int sock, struct sc_verdict *v);
/* Asks a process and waits for its verdict. */
void live_ask(struct sc_live *w, int peer, const struct live_request *request, struct sc_verdict *v);
/* Waits for the end of a process that ends, and for the daemon to have noticed. */
bool live_peer_ended(struct sc_live *w, int peer);

/* ---- the verbs -------------------------------------------------------------------------------------------------- */

#define LIVE_PROTO_LIVE(actor, name, side)                                                                             \
    void live_##actor##_##name(struct side *side, const struct sc_call *c, struct sc_verdict *v);
#define LIVE_PROTO_NOT_LIVE(actor, name, side)
#define X(actor, name, sig, say, result, stage, live, meaning) LIVE_PROTO_##stage(actor, name, live_actor)
SC_ACTOR_VERBS(X)
#undef X
#define X(actor, name, sig, say, result, stage, live, meaning) LIVE_PROTO_##stage(actor, name, sc_live)
SC_RUNNER_VERBS(X)
#undef X

#endif
