/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the live stage share with each other. */
#ifndef SRC_LIVE_INTERNAL_H
#define SRC_LIVE_INTERNAL_H

#include "src/host/rangemap.h"
#include "src/live/live.h"

#define PAGE UINT64_C(4096)

/* Pages that are allocated, touched or punched before others are let run: about a millisecond. */
#define SLICE_PAGES UINT64_C(256)

/*
 * From this size on a range that becomes shared is not populated but opened:
 * the views are unregistered, and the kernel allocates on first touch.
 */
#define OPEN_MIN_PAGES (UINT64_C(1) << 20 >> 12)

#define CLIENT_AGENT_TIMEOUT_NS UINT64_C(1000000000)
#define GUEST_AGENT_TIMEOUT_NS UINT64_C(2000000000)
/* VMAs that a guest process must have left; at the limit even going back to private fails. */
#define VMA_RESERVE 64u

/*
 * The agent of a process that has views.
 *
 * One that did not answer in time is late, and is told nothing more: a stopped
 * process would find thousands of requests.  When its answer comes after all it
 * is told how things are by then.
 */
struct view_agent {
    struct live *live;
    void *peer; /* NULL: it is gone */
    uint32_t pid;
    unsigned refs; /* its views, and the task that tells it */
    bool late;
    bool again;   /* something has changed since it was begun to be told */
    bool telling; /* a task does so */
    struct view_agent *next;
};

struct view {
    struct live *live;
    struct live_file *file;
    struct view_agent *agent;
    uint64_t addr;
    uint64_t index, nr; /* pages of the file */
    uint64_t told;      /* number of the last views_set() that reached its process */
    uint64_t synced;    /* the same of a late agent's tasks */
    bool seen;          /* the audit found it in its process */
    struct view *next;
};

struct transition {
    uint64_t start, end;
    bool moved;
    struct transition *next;
};

/*
 * One guest_memfd.
 *
 * Invariants, for a page that is in no transition:
 *  - its bytes are in the shared file iff the machine has it on the host's side;
 *  - on the guest's side it is CLOSED: every view is registered there;
 *  - on the host's side it is OPEN (no view is registered there) or CLOSED and
 *    allocated in the shared file, so that a touch never finds a hole.
 */
struct live_file {
    struct live *live;
    struct mfile *mfile;
    int shared_fd, private_fd;
    uint64_t dev, ino;    /* of the shared file: a descriptor that comes back is known by them */
    struct rangemap open; /* VIEW_CLOSED / VIEW_OPEN */
    struct transition *transitions;
    unsigned nr_coming; /* views whose processes are being told what is open */
    char *direct_map;   /* EL1's mapping of the shared file, made on first use */
    bool huge;          /* huge folios were met: pages are copied before they are punched */
    struct live_file *next, *prev;
};
#define VIEW_CLOSED 0u
#define VIEW_OPEN 1u

/* A memslot as the guest process has it mapped. */
struct guest_slot {
    uint32_t slot;
    uint64_t gfn, nr, index;
    struct live_file *file;
    struct rangemap shown; /* SHOWN_*: which file is mapped where */
    struct guest_slot *next;
};
#define SHOWN_PRIVATE 0u
#define SHOWN_SHARED 1u
#define SHOWN_UNKNOWN 2u /* the agent did not answer in time: it may yet do what it was asked for */

/* An access at which a thread of the guest waits for its vCPU to take the abort. */
struct guest_fault {
    uint64_t ipa;
    bool write;
};
#define MAX_FAULTS 16u

struct guest_vcpu {
    void *peer;
    uint32_t tid;
    bool ready;        /* its thread waits for the first entry */
    bool entry_wanted; /* it was resumed before the thread was there */
    struct guest_fault faults[MAX_FAULTS];
    unsigned nr_faults;
    bool more_faults; /* threads wait of whose accesses nothing is noted */
    bool call_waits;  /* its thread was let go by another vCPU's fault and made a hypercall meanwhile */
    uint64_t call[4];
};

struct live_guest {
    struct live *live;
    struct vm *vm;
    void *peer;
    uint32_t pid;
    int uffd;
    uint64_t base, ipa_size;
    bool dead;
    unsigned refs;
    struct guest_slot *slots;
    struct guest_vcpu *vcpus;
    unsigned nr_vcpus;
    struct task_lock lock; /* of slots: their mappings change one at a time */
    struct live_guest *next, *prev;
};

struct live {
    struct live_io io;
    struct machine *machine;
    struct live_file *files;
    struct view *views;
    size_t nr_views;
    struct view_agent *agents;
    uint64_t nr_set; /* views_set() calls */
    struct live_guest *guests;
    int pipe[2];
    size_t pipe_pages;
    char *copy; /* pipe_pages of them, for move.c */
    uint64_t max_map_count;
    int direct_map_uffd;
};

/* ---- live.c ---- */
void live_log(struct live *live, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- file.c ---- */
int live_file_create(void *ctx, struct mfile *mfile, bool in_host);
void live_file_destroy(void *ctx, struct mfile *mfile);
bool live_populated(void *ctx, struct mfile *mfile, bool in_host, uint64_t start, uint64_t end, uint64_t *first,
                    uint64_t *past);
int live_allocate(void *ctx, struct mfile *mfile, bool in_host, uint64_t start, uint64_t end);
void live_discard(void *ctx, struct mfile *mfile, bool in_host, uint64_t start, uint64_t end);
int live_read(void *ctx, struct mfile *mfile, bool in_host, uint64_t offset, void *buf, size_t length);
int live_write(void *ctx, struct mfile *mfile, bool in_host, uint64_t offset, const void *buf, size_t length);
int fd_allocate(int fd, uint64_t start, uint64_t end);

/* ---- data.c ---- */
/*
 * The first run of data in [start, end) pages of fd, or a part of it.  false:
 * there is none before *past, which is end once all of it was looked at.  A look
 * takes a millisecond at most; who takes many lets others run in between.
 */
bool fd_data(int fd, uint64_t start, uint64_t end, uint64_t *first, uint64_t *past);
/* For short ranges: all of it is data; how much is. */
bool fd_all_data(int fd, uint64_t start, uint64_t end);
uint64_t fd_data_pages(int fd, uint64_t start, uint64_t end);
/* Pages that the file has. */
uint64_t fd_pages(int fd);
/* Pages of [start, end) that are in memory, whether somebody has written them or not; 0 before Linux 6.5, which cannot
 * tell. */
uint64_t fd_cached(int fd, uint64_t start, uint64_t end);
void fd_punch(struct live *live, int fd, uint64_t start, uint64_t end);
/* (task) The same, letting others run. */
void fd_punch_sliced(struct live *live, int fd, uint64_t start, uint64_t end);

/* ---- move.c ---- */
int live_begin(void *ctx, struct mfile *mfile, uint64_t start, uint64_t end, bool to_host, struct caller *caller);
void live_move(void *ctx, struct mfile *mfile, uint64_t start, uint64_t end, bool to_host);
void live_end(void *ctx, struct mfile *mfile, uint64_t start, uint64_t end);
bool in_transition(const struct live_file *file, uint64_t index);

/* ---- view.c ---- */
/*
 * (task) Registers (refuse) or opens [start, end) in every view.  -ENOMEM when
 * a process is at its VMA limit.  A process that does not answer is logged and
 * counted in *late (may be NULL); the others are served.  file->open must tell
 * already what is refused, and not before the end what is opened.
 */
int views_set(struct live_file *file, uint64_t start, uint64_t end, bool refuse, unsigned *late, struct caller *caller);
/* A view of [start, end) belongs to a process that is late. */
bool views_late(const struct live_file *file, uint64_t start, uint64_t end);

/* ---- audit.c ---- */
/* (task) Drops the stray pages of the files of which an agent's process has views. */
void strays_drop(struct live *live, const struct view_agent *agent);

/* ---- direct_map.c ---- */
int direct_map_open(struct live *live);
/* Makes data of allocated pages: reads one byte of each, as a process would. */
int direct_map_touch(struct live_file *file, uint64_t start, uint64_t end);

/* ---- guest.c ---- */
struct live_guest *guest_of(const struct vm *vm);
void guest_get(struct live_guest *guest);
void guest_put(struct live_guest *guest);
/* The guest cannot go on: why, and kill it. */
void guest_fail(struct live_guest *guest, const char *why);
void live_guest_resume(void *ctx, struct vcpu *vcpu, const struct hyp_trap *last, const struct hyp_guest_regs *regs);
void live_guest_stop(void *ctx, struct vm *vm);

/* ---- slot.c ---- */
int live_slot_add(void *ctx, struct vm *vm, const struct memslot *slot, struct caller *caller);
void live_slot_remove(void *ctx, struct vm *vm, const struct memslot *slot);
/* (task) Gives a new guest the slots that its VM has. */
int guest_slots_add(struct live_guest *guest);
void guest_slots_free(struct live_guest *guest);
struct guest_slot *guest_slot_at(const struct live_guest *guest, uint64_t gfn);
/* (task) Maps one of the two files over the part of [gfn, gfn + nr) where the other one is. */
int guest_show(struct live_guest *guest, struct guest_slot *slot, uint64_t gfn, uint64_t nr, uint64_t shown);
void live_guest_zap(void *ctx, struct vm *vm, uint64_t gfn, uint64_t nr);
/* (task) Every guest that has [start, end) of the file: makes it see the private file there. */
int guests_show_private(struct live_file *file, uint64_t start, uint64_t end, struct caller *caller);
/* True when one more extent fits every guest's VMA limit. */
bool guests_have_room(struct live_file *file);
/* Lets the guests' threads that wait at [start, end) of the file look again. */
void guests_wake(struct live_file *file, uint64_t start, uint64_t end);

#endif
