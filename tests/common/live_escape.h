/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ways around the boundary, a table of them: each is tried by a process of its
 * own against the arena (live_arena.h), many times while pages convert, and
 * then once more in stillness, when it is known what is private.
 *
 * A program has one table, which is one section of doc/boundary.md: what it
 * finds must be what is written there.
 */
#ifndef TESTS_COMMON_LIVE_ESCAPE_H
#define TESTS_COMMON_LIVE_ESCAPE_H

#include "tests/common/live_arena.h"

enum verdict {
    CLOSED,   /* refused by itself: nothing of the file comes within reach */
    HARMLESS, /* it works, and reaches only what is shared; the signal stays */
    DECLARED, /* the signal is lost: zeros where a SIGBUS should be; the audit finds the page and drops it */
};

struct escape;

struct escape_row {
    const char *name;
    const char *how; /* in a few words */
    enum verdict verdict;
    const char *note; /* what the row means: for the reader of the table */
    void (*attempt)(struct escape *e);
    int arg;                      /* for it */
    const char *(*missing)(void); /* NULL, or why it cannot be tried here; may be NULL itself */
    bool bare;                    /* by a process that never heard of the library: it has the descriptor, no view */
    bool fresh;                   /* each time in a new process */
    bool wipes;                   /* may take away what others store in shared pages */
};

/* .arg, .missing and so on come after attempt. */
#define ROW(name_, how_, verdict_, note_, attempt_, ...)                                                               \
    {                                                                                                                  \
        .name = name_, .how = how_, .verdict = verdict_, .note = note_, .attempt = attempt_, __VA_ARGS__               \
    }

/* What the processes of a row have seen; shared by them. */
struct escape_tally {
    atomic_ulong tries;
    atomic_ulong reads;    /* of a private page: bytes, which were none of its own */
    atomic_ulong refusals; /* SIGBUS, or the error that a system call has for it */
    atomic_ulong bars;     /* nothing there at all */
    atomic_ulong leaks;    /* private bytes */
    atomic_uint phase;
};

/* An attacker's. */
struct escape {
    const struct escape_row *row;
    struct arena *arena;
    struct escape_tally *tally;
    int fd;        /* the guest_memfd, as anybody may have it */
    bool still;    /* nothing converts */
    uint64_t turn; /* attempts before this one */
    /* Not of a bare one. */
    struct fakehyp *fh;
    struct fakehyp_gmem *gmem;
    uint8_t *view; /* of the whole file, by the library */
};

/* The pages that are looked at: secrets, flips, some of the bulk. */
#define ESCAPE_PAGES 28u
uint64_t escape_page(unsigned i);
#define ESCAPE_BYTES (ARENA_PAGES * PAGE)

/* Each of these counts as a try. */
void escape_saw(struct escape *e, uint64_t page, const void *bytes, size_t length);
void escape_refused(struct escape *e);
void escape_barred(struct escape *e);

/* A look at one page, or at all ESCAPE_PAGES, of a mapping of the file. */
void escape_look_at(struct escape *e, const volatile uint8_t *mapping, uint64_t page);
void escape_look(struct escape *e, const volatile uint8_t *mapping);
/* A mapping without the library; NULL: barred. */
uint8_t *escape_mmap(struct escape *e, int fd, int prot, int flags);
/* One, a look, and gone again. */
void escape_look_bare(struct escape *e, int fd);
/* The test cannot go on. */
_Noreturn void escape_broken(struct escape *e, const char *what);
/* Waits for a child of the attacker's. */
void escape_wait(struct escape *e, pid_t pid);
/* A new view by the library. */
uint8_t *escape_map(struct escape *e, void *hint, uint64_t page, uint64_t nr);
/* A scratch file that takes O_DIRECT when that is in flags: -1 when there is none. */
int escape_scratch(int flags);
/* A descriptor of this process by what it is: -1. */
int escape_find_fd(const char *what);

/* section: its name in doc/boundary.md. */
int escape_main(const char *section, const struct escape_row *rows, size_t nr);
#define ESCAPE_MAIN(section, rows)                                                                                     \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        return escape_main(section, rows, sizeof(rows) / sizeof((rows)[0]));                                           \
    }

#endif
