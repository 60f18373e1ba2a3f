/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small world that exists on both stages: one VM with one vCPU, a 16-page
 * guest_memfd (MMAP|INIT_SHARED) bound at IPA 0, a VMM that has it mapped.
 *
 * A script plays verbs and states each verdict.  The world writes the verdicts
 * down, so that two plays of one script can be compared line by line.
 */
#ifndef TESTS_COMMON_WORLD_H
#define TESTS_COMMON_WORLD_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORLD_PAGES 16u
#define WORLD_PAGE UINT64_C(4096)
#define WORLD_LINES 200u
#define WORLD_PINS 4u

#define WORLD_SHARED UINT64_C(0)
#define WORLD_PRIVATE UINT64_C(8)

enum world_pin { WORLD_FOLL_GET, WORLD_FOLL_PIN, WORLD_FOLL_LONGTERM };
enum world_insn { WORLD_READ, WORLD_WRITE, WORLD_HVC };

/* How an access of the host, or an instruction of the guest, ended. */
enum world_end {
    WORLD_OK,
    WORLD_REFUSED,      /* the host: a signal */
    WORLD_MEMORY_FAULT, /* the guest: KVM_EXIT_MEMORY_FAULT that the VMM has not answered; it can be resumed */
    WORLD_POISONED,     /* the guest: -EFAULT without an exit reason */
    WORLD_BROKEN,       /* nothing of these: the line says what */
};

/* Where the guest stands after it ran: its instruction is done, or the VMM is needed. */
struct world_exit {
    bool done;
    int64_t result; /* of a hypercall; or the byte that was read */
    int rc;
    uint32_t reason; /* KVM_EXIT_* */
    uint64_t nr, gpa;
};

struct world_page {
    bool private;
    unsigned holders;
    uint32_t refs; /* of the holders, added up */
};

struct world;

struct world_ops {
    const char *name;
    /* Builds the world, calls play(world), takes it apart. */
    void (*run)(struct world *w, void (*play)(struct world *w));
    /* A new VM and file in place of the old ones. */
    void (*rebuild)(struct world *w);
    bool (*touch)(struct world *w, uint64_t page, bool write, uint8_t *value);
    int (*convert)(struct world *w, uint64_t offset, uint64_t size, uint64_t attributes, uint64_t *error_offset,
                   char *holder, size_t holder_size);
    int (*pin)(struct world *w, uint64_t page, uint64_t nr, enum world_pin kind, const char *label, unsigned slot);
    void (*unpin)(struct world *w, unsigned slot);
    int (*fallocate)(struct world *w, int mode, int64_t offset, int64_t length);
    /* A load of the kernel from the start of the page, with an entry in the exception table or without. */
    int (*kernel_load)(struct world *w, uint64_t page, bool fixup, uint8_t *value);
    /* The guest's next instruction; it is executed by guest_run(). */
    void (*guest_give)(struct world *w, enum world_insn insn, uint64_t gpa, uint64_t value);
    void (*guest_run)(struct world *w, struct world_exit *exit);
    void (*page)(struct world *w, uint64_t page, struct world_page *out);
    unsigned (*audit)(struct world *w); /* problems */
};

struct world {
    const struct world_ops *ops;
    void *backend;
    bool unilateral;
    bool obedient; /* the VMM converts as the guest asks */
    unsigned nr_lines, nr_wrong;
    char line[WORLD_LINES][120];
    char wrong[256]; /* the first verdict that was not the script's */
};

extern const struct world_ops world_sim, world_live;

/* Writes a line down; wrong: it is not what the script expects. */
void world_note(struct world *w, bool wrong, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- verbs: each takes the verdict that the script expects ----------------------------------------------------------
 */

void w_touch(struct world *w, uint64_t page, enum world_end expected);
void w_load(struct world *w, uint64_t page, uint8_t expected); /* succeeds with this byte */
void w_store(struct world *w, uint64_t page, uint8_t value, enum world_end expected);
/* The kernel's: 0 with this byte, or -errno. */
void w_kernel_load(struct world *w, uint64_t page, bool fixup, int expected, uint8_t value);
void w_convert(struct world *w, uint64_t page, uint64_t nr, uint64_t attributes, int expected);
/* Refused with EAGAIN: at this page, naming this holder. */
void w_busy(struct world *w, uint64_t page, uint64_t nr, uint64_t busy_page, const char *holder);
void w_convert_raw(struct world *w, uint64_t offset, uint64_t size, uint64_t attributes, int expected);
void w_pin(struct world *w, uint64_t page, uint64_t nr, enum world_pin kind, const char *label, unsigned slot,
           int expected);
void w_unpin(struct world *w, unsigned slot);
void w_punch(struct world *w, uint64_t page, uint64_t nr, int expected);
void w_fallocate(struct world *w, int mode, int64_t offset, int64_t length, int expected);
void w_guest_load(struct world *w, uint64_t page, uint8_t expected);
void w_guest_store(struct world *w, uint64_t page, uint8_t value);
void w_guest_touch(struct world *w, uint64_t page, enum world_end expected); /* a load whose byte is not looked at */
void w_guest_resume(struct world *w, enum world_end expected);
void w_guest_share(struct world *w, uint64_t page, int64_t expected);
void w_guest_unshare(struct world *w, uint64_t page, int64_t expected);
void w_guest_call(struct world *w, uint64_t nr, uint64_t x1, int64_t expected);
void w_page(struct world *w, uint64_t page, bool private, unsigned holders, uint32_t refs);
void w_obedient(struct world *w, bool obedient);
void w_rebuild(struct world *w);

#endif
