/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changing sides: moving the bytes of a range from one file to the other.
 *
 *   to private:  views refuse → guests see the private file → bytes move
 *   to shared:   room in the guests' VMAs → bytes move → views open or pages allocated
 *
 * Between begin and end the range is in transition: a guest that touches it
 * waits.  It has the private file mapped there for all that time, since on a
 * hole of the shared file a stray page of somebody else would swallow its
 * stores.
 */
#include "src/live/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SPLICE_RETRIES 200

bool in_transition(const struct live_file *f, uint64_t index)
{
    for (const struct transition *t = f->transitions; t; t = t->next)
        if (index >= t->start && index < t->end)
            return true;
    return false;
}

static int transition_add(struct live_file *f, uint64_t start, uint64_t end)
{
    struct transition *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    *t = (struct transition){.start = start, .end = end, .next = f->transitions};
    f->transitions = t;
    return 0;
}

static struct transition *begun(const struct live_file *f, uint64_t start, uint64_t end)
{
    struct transition *t = f->transitions;
    while (t && (start < t->start || end > t->end))
        t = t->next;
    return t;
}

/*
 * A page that is allocated and was never touched is no data, so the move would
 * not hold it; a first store just before the punch would be lost with it.
 * Touched, it is a page like any other.
 */
static int touch_gaps(struct live_file *f, uint64_t start, uint64_t end)
{
    uint64_t first, past;
    if (fd_data(f->shared_fd, start, end, &first, &past) && first == start && past == end)
        return 0;
    int rc = fd_allocate(f->shared_fd, start, end);
    return rc ? rc : direct_map_touch(f, start, end);
}

static int begin_to_private(struct live_file *f, uint64_t start, uint64_t end, struct caller *caller)
{
    for (struct range r = rangemap_first(&f->open, start, end); r.start < end; r = rangemap_next(&f->open, r, end)) {
        if (r.value != VIEW_OPEN) {
            int rc = touch_gaps(f, r.start, r.end);
            if (rc) {
                caller_explain(caller, "no memory to hold the pages that become private");
                return rc;
            }
            continue;
        }
        if (rangemap_reserve(&f->open))
            return -ENOMEM;
        /* One that does not answer is only late with its signal: the bytes leave its reach all the same. */
        rangemap_set(&f->open, r.start, r.end, VIEW_CLOSED);
        int rc = views_set(f, r.start, r.end, true, NULL, caller);
        if (rc) {
            /* Those that were asked before it have followed. */
            views_set(f, r.start, r.end, false, NULL, NULL);
            if (!rangemap_reserve(&f->open))
                rangemap_set(&f->open, r.start, r.end, VIEW_OPEN);
            return rc;
        }
    }
    return guests_show_private(f, start, end, caller);
}

static int begin_to_shared(struct live_file *f, uint64_t start, uint64_t end, struct caller *caller)
{
    if (caller && !guests_have_room(f)) {
        caller_explain(caller,
                       "too many scattered shared ranges for the guest's address space: raise vm.max_map_count "
                       "(sysctl, now %llu)",
                       (unsigned long long)f->live->max_map_count);
        return -ENOMEM;
    }
    if (end - start >= OPEN_MIN_PAGES)
        return 0;
    /*
     * Memory for the holes is claimed on the private side: in the shared file a
     * page would be within reach before its bytes are there.  The move gives it
     * back, and then it serves there.
     */
    int rc = fd_allocate(f->private_fd, start, end);
    if (rc)
        caller_explain(caller, "no memory for the pages that become shared");
    return rc;
}

int live_begin(void *ctx, struct mfile *mfile, uint64_t start, uint64_t end, bool to_host, struct caller *caller)
{
    (void)ctx;
    struct live_file *f = mfile->stage;
    int rc = transition_add(f, start, end);
    if (rc)
        return rc;
    return to_host ? begin_to_shared(f, start, end, caller) : begin_to_private(f, start, end, caller);
}

/* ---- moving ---------------------------------------------------------------------------------------------------- */

/* Out of the pipe into `to`.  Nothing may be lost: short of memory means waiting for it. */
static void splice_out(struct live *live, int to, uint64_t index, size_t bytes)
{
    loff_t at = (loff_t)(index * PAGE);
    for (unsigned tries = 0; bytes;) {
        ssize_t n = splice(live->pipe[0], NULL, to, &at, bytes, SPLICE_F_MOVE);
        if (n > 0) {
            bytes -= (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (++tries > SPLICE_RETRIES) {
            char sink[4096];
            live_log(live, 0, "%zu bytes of guest memory lost: %s", bytes, n ? strerror(errno) : "no space");
            while (bytes && read(live->pipe[0], sink, bytes < sizeof(sink) ? bytes : sizeof(sink)) > 0)
                bytes -= bytes < sizeof(sink) ? bytes : sizeof(sink);
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

/*
 * One step: hold the pages in the pipe, punch them out of `from` (the kernel
 * unmaps them from every process, known to us or not; from here nobody can
 * write them), write them to `to`.  Only populated pages are held: a hole
 * would be held as the zero page, and a first store into it be lost.
 */
static uint64_t move_step(struct live *live, int from, int to, uint64_t first, uint64_t past)
{
    loff_t at = (loff_t)(first * PAGE);
    size_t want = (past - first) * PAGE, held = 0;

    while (held < want) {
        ssize_t n = splice(from, &at, live->pipe[1], NULL, want - held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n <= 0) {
            if (n < 0 && errno == EINTR)
                continue;
            break;
        }
        held += (size_t)n;
    }
    /* A slot of the pipe may hold less than a page; whole pages move, the rest comes in the next step. */
    size_t pages = held / PAGE;
    if (!pages)
        return 0;
    fd_punch(live, from, first, first + pages);
    bool gone = lseek(from, (off_t)(first * PAGE), SEEK_HOLE) == (off_t)(first * PAGE);
    splice_out(live, to, first, held);
    if (!gone) {
        /* A huge folio that is held cannot be split: the kernel has zeroed the part, and frees it once it is let go. */
        fd_punch(live, from, first, first + pages);
        live_log(live, 0,
                 "pages [0x%llx, +0x%zx) were part of a huge folio: their contents are lost.  A process has collapsed "
                 "its view (MADV_COLLAPSE, or MADV_HUGEPAGE and khugepaged)",
                 (unsigned long long)first, pages);
    }
    return pages;
}

/* One look for a whole run of data: asking where it ends walks all of it. */
static uint64_t move_run(struct live *live, int from, int to, uint64_t first, uint64_t past)
{
    uint64_t start = first;
    while (first < past) {
        uint64_t step = past - first < live->pipe_pages ? past - first : live->pipe_pages;
        uint64_t n = move_step(live, from, to, first, first + step);
        first += n;
        if (!n || first < past)
            sched_relax();
        if (!n)
            break;
    }
    return first - start;
}

static uint64_t move_bytes(struct live_file *f, uint64_t start, uint64_t end, bool to_host)
{
    struct live *live = f->live;
    int from = to_host ? f->private_fd : f->shared_fd, to = to_host ? f->shared_fd : f->private_fd;
    uint64_t first, past, held, held_past, moved = 0;

    for (uint64_t at = start; fd_data(from, at, end, &first, &past); at = first) {
        uint64_t n = move_run(live, from, to, first, past);
        moved += n;
        first += n;
    }
    /*
     * Stores went on while the first pages moved.  Once more, for pages that
     * were not there at the first look; one that has moved already and is
     * back in `from` is a stranger's, and must not overwrite what it displaced.
     */
    for (uint64_t at = start; fd_data(from, at, end, &first, &past); at = first) {
        if (fd_data(to, first, past, &held, &held_past)) {
            if (held == first) {
                first = held_past;
                continue;
            }
            past = held;
        }
        uint64_t n = move_run(live, from, to, first, past);
        moved += n;
        first += n;
    }
    /* What is left is nobody's: strays, and what a stranger's fallocate() made, which is no data. */
    fd_punch(live, from, start, end);
    return moved;
}

/* Gives the holes of a range that became shared their pages: views that are registered there refuse holes. */
static void populate(struct live_file *f, uint64_t start, uint64_t end)
{
    for (uint64_t at = start; at < end;) {
        uint64_t past = end - at > f->live->pipe_pages ? at + f->live->pipe_pages : end;
        if (fd_allocate(f->shared_fd, at, past)) {
            live_log(f->live, 0, "no memory for pages that became shared: accesses will answer SIGBUS");
            return;
        }
        at = past;
        if (at < end)
            sched_relax();
    }
}

static void open_views(struct live_file *f, uint64_t start, uint64_t end)
{
    unsigned late = 0;
    while (rangemap_reserve(&f->open))
        sched_relax();
    int rc = views_set(f, start, end, false, &late, NULL);
    if (!rc && !late) {
        rangemap_set(&f->open, start, end, VIEW_OPEN);
        return;
    }
    /* Somebody is still registered: what is shared must not answer SIGBUS, so it gets pages instead. */
    views_set(f, start, end, true, NULL, NULL);
    populate(f, start, end);
}

/* Undoes a begin that was not followed by its move: what is on the host's side is reachable again. */
static void reopen(struct live_file *f, uint64_t start, uint64_t end)
{
    while (start < end) {
        struct gmem_range side = mmu_side(f->mfile, start);
        struct range open = rangemap_get(&f->open, start);
        uint64_t past = side.end < open.end ? side.end : open.end;
        if (past > end)
            past = end;
        if (side.private)
            fd_punch(f->live, f->shared_fd, start, past);
        else if (open.value == VIEW_CLOSED && past - start >= OPEN_MIN_PAGES)
            open_views(f, start, past);
        else if (open.value == VIEW_CLOSED && fd_allocate(f->shared_fd, start, past))
            live_log(f->live, 0, "no memory to keep shared pages reachable: accesses will answer SIGBUS");
        start = past;
    }
}

void live_move(void *ctx, struct mfile *mfile, uint64_t start, uint64_t end, bool to_host)
{
    struct live *live = ctx;
    struct live_file *f = mfile->stage;

    if (!begun(f, start, end)) {
        /* EL2 decided: there is nobody to refuse.  A guest that cannot follow ends in guests_show_private(). */
        while (live_begin(ctx, mfile, start, end, to_host, NULL)) {
            live_end(ctx, mfile, start, end);
            sched_relax();
        }
    }
    begun(f, start, end)->moved = true;
    /* A stray page in a hole of the shared file would become the guest's data. */
    if (to_host)
        fd_punch(live, f->shared_fd, start, end);
    uint64_t moved = move_bytes(f, start, end, to_host);
    if (to_host && end - start >= OPEN_MIN_PAGES)
        open_views(f, start, end);
    else if (to_host)
        populate(f, start, end);
    machine_record(live->machine, &(struct host_event){.kind = HOST_EV_move,
                                                       .vm = gmem_vm_id(mfile->gmem),
                                                       .gmem = mfile->id,
                                                       .offset = start * PAGE,
                                                       .size = (end - start) * PAGE,
                                                       .a0 = to_host,
                                                       .a1 = moved});
}

void live_end(void *ctx, struct mfile *mfile, uint64_t start, uint64_t end)
{
    (void)ctx;
    struct live_file *f = mfile->stage;
    bool any = false;
    for (struct transition **at = &f->transitions; *at;) {
        struct transition *t = *at;
        if (t->start < start || t->end > end) {
            at = &t->next;
            continue;
        }
        if (!t->moved)
            reopen(f, t->start, t->end);
        *at = t->next;
        free(t);
        any = true;
    }
    if (any)
        guests_wake(f, start, end);
}
