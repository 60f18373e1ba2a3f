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
#define TOUCH_TRIES 8u
/* A huge folio. */
#define HUGE_PAGES UINT64_C(512)

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
    for (uint64_t past; start < end; start = past) {
        past = end - start > SLICE_PAGES ? start + SLICE_PAGES : end;
        int rc = -EFAULT;
        /*
         * -EFAULT: somebody has punched a hole into what was just allocated.  Who goes on doing so takes stores back
         * as fast as they are made, and has holes.
         */
        for (unsigned tries = 0; rc == -EFAULT && tries < TOUCH_TRIES; tries++) {
            bool whole = fd_all_data(f->shared_fd, start, past);
            rc = whole ? 0 : fd_allocate(f->shared_fd, start, past);
            if (!rc && !whole)
                rc = direct_map_touch(f, start, past);
        }
        if (rc && rc != -EFAULT)
            return rc;
        if (past < end)
            sched_relax();
    }
    return 0;
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
    /* Where somebody stays registered, what is shared must not answer SIGBUS, so it gets pages instead. */
    if (!views_late(f, start, end)) {
        if (!views_set(f, start, end, false, &late, NULL) && !late) {
            rangemap_set(&f->open, start, end, VIEW_OPEN);
            return;
        }
        views_set(f, start, end, true, NULL, NULL);
    }
    populate(f, start, end);
}

/* Those that were asked to refuse before one could not have followed; who is late with it finds pages. */
static void reopen_views(struct live_file *f, uint64_t start, uint64_t end)
{
    unsigned late = 0;
    while (rangemap_reserve(&f->open))
        sched_relax();
    rangemap_set(&f->open, start, end, VIEW_OPEN);
    views_set(f, start, end, false, &late, NULL);
    if (late)
        populate(f, start, end);
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
        sched_point("stage:refused");
        if (rc) {
            reopen_views(f, r.start, r.end);
            return rc;
        }
    }
    int rc = guests_show_private(f, start, end, caller);
    sched_point("stage:withdrawn");
    return rc;
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
    int rc = fd_all_data(f->private_fd, start, end) ? 0 : fd_allocate(f->private_fd, start, end);
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
    sched_point("stage:begin");
    return to_host ? begin_to_shared(f, start, end, caller) : begin_to_private(f, start, end, caller);
}

/* ---- moving ---------------------------------------------------------------------------------------------------- */

/* Lets go of what the pipe still holds. */
static void drain(const struct live *live, size_t bytes)
{
    char sink[4096];

    while (bytes) {
        ssize_t n = read(live->pipe[0], sink, bytes < sizeof(sink) ? bytes : sizeof(sink));
        if (n > 0)
            bytes -= (size_t)n;
        else if (n == 0 || errno != EINTR)
            return;
    }
}

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
            live_log(live, 0, "%zu bytes of guest memory lost: %s", bytes, n ? strerror(errno) : "no space");
            drain(live, bytes);
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

/* Takes pages of `from` into the pipe; how many bytes it holds then. */
static size_t hold(const struct live *live, int from, uint64_t first, uint64_t past)
{
    loff_t at = (loff_t)(first * PAGE);
    size_t want = (past - first) * PAGE, held = 0;

    while (held < want) {
        ssize_t n = splice(from, &at, live->pipe[1], NULL, want - held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n > 0)
            held += (size_t)n;
        else if (n == 0 || errno != EINTR)
            break;
    }
    return held;
}

/* What cannot be read is zero: the buffer has pages of other files. */
static void copy_pages(struct live *live, int from, uint64_t first, uint64_t past)
{
    size_t bytes = (past - first) * PAGE;
    ssize_t n = pread(from, live->copy, bytes, (off_t)(first * PAGE));

    if (n == (ssize_t)bytes)
        return;
    live_log(live, 0, "copying pages [0x%llx, 0x%llx) of guest memory: %s", (unsigned long long)first,
             (unsigned long long)past, n < 0 ? strerror(errno) : "too short");
    n = n > 0 ? n : 0;
    memset(live->copy + n, 0, bytes - (size_t)n);
}

/*
 * What a punch has left in [first, past) of `from` was part of a huge folio,
 * which cannot be split while we hold it: the kernel has zeroed that part in
 * place.  Its contents come from the copy; once it is let go it can be punched.
 */
static void move_copied(struct live *live, int from, int to, uint64_t first, uint64_t past)
{
    uint64_t start, end;

    for (uint64_t at = first; at < past; at = end)
        if (fd_data(from, at, past, &start, &end) &&
            pwrite(to, live->copy + (start - first) * PAGE, (end - start) * PAGE, (off_t)(start * PAGE)) !=
                (ssize_t)((end - start) * PAGE))
            live_log(live, 0, "pages [0x%llx, 0x%llx) of guest memory lost: %s", (unsigned long long)start,
                     (unsigned long long)end, strerror(errno));
    fd_punch(live, from, first, past);
}

/*
 * One step: hold the pages in the pipe, punch them out of `from` (the kernel
 * unmaps them from every process, known to us or not; from here nobody can
 * write them), write them to `to`.  Only populated pages are held: a hole
 * would be held as the zero page, and a first store into it be lost.
 *
 * The first page of a step is copied too and goes alone: should it turn out to
 * be part of a huge folio nothing is lost yet, and from then on all pages of
 * this file are copied.  It speaks for the others since no step goes beyond
 * where a huge folio may begin.
 */
static uint64_t move_step(struct live_file *f, int from, int to, uint64_t first, uint64_t past)
{
    struct live *live = f->live;
    uint64_t start, end;
    size_t held = hold(live, from, first, past);
    /* A slot of the pipe may hold less than a page; whole pages move, the rest comes in the next step. */
    size_t pages = held / PAGE;

    if (!pages) {
        drain(live, held);
        return 0;
    }
    past = first + pages;
    uint64_t copied = f->huge ? past : first + 1;
    copy_pages(live, from, first, copied);
    fd_punch(live, from, first, copied);
    if (fd_data(from, first, copied, &start, &end)) {
        if (!f->huge)
            live_log(
                live, 1,
                "guest_memfd %u has huge folios: a process has collapsed its view (MADV_COLLAPSE, or MADV_HUGEPAGE "
                "and khugepaged); what it stores while a page changes sides may be lost, and conversions are slower",
                f->mfile->id);
        f->huge = true;
        splice_out(live, to, first, (copied - first) * PAGE);
        drain(live, held - (copied - first) * PAGE);
        move_copied(live, from, to, first, copied);
        return copied - first;
    }
    if (copied < past)
        fd_punch(live, from, copied, past);
    splice_out(live, to, first, held);
    return pages;
}

static uint64_t move_run(struct live_file *f, int from, int to, uint64_t first, uint64_t past)
{
    uint64_t start = first;
    while (first < past) {
        uint64_t step = past - first < f->live->pipe_pages ? past - first : f->live->pipe_pages;
        if (step > HUGE_PAGES - first % HUGE_PAGES)
            step = HUGE_PAGES - first % HUGE_PAGES;
        uint64_t n = move_step(f, from, to, first, first + step);
        first += n;
        sched_point("stage:step");
        sched_relax_due();
        if (!n)
            break;
    }
    return first - start;
}

static uint64_t move_bytes(struct live_file *f, uint64_t start, uint64_t end, bool to_host)
{
    int from = to_host ? f->private_fd : f->shared_fd, to = to_host ? f->shared_fd : f->private_fd;
    uint64_t first, past, held, held_past, moved = 0;
    bool again = false;

    for (uint64_t at = start; at < end; at = past) {
        if (fd_data(from, at, end, &first, &past)) {
            uint64_t n = move_run(f, from, to, first, past);
            moved += n;
            past = first + n;
        }
        sched_relax_due();
    }
    /*
     * Stores went on while the first pages moved.  Once more, for pages that
     * were not there at the first look; one that has moved already and is
     * back in `from` is a stranger's, and must not overwrite what it displaced.
     */
    for (uint64_t at = start; at < end; at = past, sched_relax_due()) {
        if (!fd_data(from, at, end, &first, &past))
            continue;
        again = true;
        if (fd_data(to, first, past, &held, &held_past)) {
            if (held == first) {
                past = held_past;
                continue;
            }
            past = held;
        } else {
            past = held_past;
        }
        uint64_t n = move_run(f, from, to, first, past);
        moved += n;
        past = first + n;
    }
    /* What is left is nobody's: strays, and pages that were allocated and never touched, which are no data. */
    if (again || moved < end - start)
        fd_punch_sliced(f->live, from, start, end);
    return moved;
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
    uint64_t first, past;
    /* A stray page in a hole of the shared file would become the guest's data. */
    if (to_host && (end - start > SLICE_PAGES || fd_data(f->shared_fd, start, end, &first, &past)))
        fd_punch_sliced(live, f->shared_fd, start, end);
    uint64_t moved = move_bytes(f, start, end, to_host);
    if (to_host && end - start >= OPEN_MIN_PAGES)
        open_views(f, start, end);
    else if (to_host && moved < end - start)
        populate(f, start, end);
    machine_record(live->machine, &(struct host_event){.kind = HOST_EV_move,
                                                       .vm = gmem_vm_id(mfile->gmem),
                                                       .gmem = mfile->id,
                                                       .offset = start * PAGE,
                                                       .size = (end - start) * PAGE,
                                                       .a0 = to_host,
                                                       .a1 = moved});
    sched_point("stage:moved");
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
