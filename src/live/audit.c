/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's truth: where bytes are and how views are registered, asked of the kernel and not of our tables. */
#include "src/live/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/kernel/vma.h"

/* Pages that are looked at before others may run. */
#define STEP_PAGES UINT64_C(4096)

struct audit {
    struct live *live;
    void (*report)(void *ctx, const char *text);
    void *ctx;
    unsigned problems;
    struct live_audit counts;
};

static void problem(struct audit *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct audit *a, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    a->problems++;
    a->report(a->ctx, text);
}

static void stray(struct audit *a, struct live_file *f, uint64_t start, uint64_t end, uint64_t pages, const char *how)
{
    /* Part of a huge folio that somebody holds a reference to: zeroed, and there until it is let go. */
    const char *fate = fd_data_pages(f->shared_fd, start, end) ? "somebody holds them still" : "dropped";
    problem(a, "guest_memfd %u: stray pages in [0x%" PRIx64 ", 0x%" PRIx64 ") of the shared file (%" PRIu64 " %s); %s",
            f->mfile->id, start, end, pages, how, fate);
    a->counts.strays += pages;
    machine_record(a->live->machine, &(struct host_event){.kind = HOST_EV_stray_page,
                                                          .gmem = f->mfile->id,
                                                          .offset = start * PAGE,
                                                          .size = (end - start) * PAGE});
}

/*
 * Whatever others do while they are let run: where no conversion is under way, pages
 * are where their side says.
 */
static bool in_flux(const struct live_file *f, uint64_t start, uint64_t end)
{
    for (const struct transition *t = f->transitions; t; t = t->next)
        if (start < t->end && t->start < end)
            return true;
    return false;
}

/* Calls check(a, f, start, end) for each part of a run of data that is on one side. */
static void for_each_data(struct audit *a, struct live_file *f, int fd,
                          void (*check)(struct audit *a, struct live_file *f, uint64_t start, uint64_t end,
                                        bool private))
{
    uint64_t first, past, end = f->mfile->nr_pages;
    for (uint64_t at = 0; at < end; at = past, sched_relax_due()) {
        if (!fd_data(fd, at, end, &first, &past))
            continue;
        for (uint64_t i = first, stop; i < past; i = stop) {
            struct gmem_range side = mmu_side(f->mfile, i);
            stop = side.end < past ? side.end : past;
            if (!in_flux(f, i, stop))
                check(a, f, i, stop, side.private);
            a->counts.pages += stop - i;
        }
    }
}

/* Data in the shared file where the guest's side is: somebody made a stray page, and took the signal from everybody. */
static void check_shared(struct audit *a, struct live_file *f, uint64_t start, uint64_t end, bool private)
{
    if (!private)
        return;
    fd_punch(a->live, f->shared_fd, start, end);
    stray(a, f, start, end, end - start, "written");
}

static void check_private(struct audit *a, struct live_file *f, uint64_t start, uint64_t end, bool private)
{
    if (!private)
        problem(a,
                "guest_memfd %u: pages [0x%" PRIx64 ", 0x%" PRIx64 ") are the host's, their bytes in the private file",
                f->mfile->id, start, end);
}

/* What fallocate() makes is no data before its first touch, which finds no hole any more: not SIGBUS but zeros. */
static void check_allocated(struct audit *a, struct live_file *f)
{
    for (uint64_t at = 0, past; at < f->mfile->nr_pages; at = past, sched_relax_due()) {
        struct gmem_range side = mmu_side(f->mfile, at);
        past = fd_pages(f->shared_fd) > STEP_PAGES && side.end - at > STEP_PAGES ? at + STEP_PAGES : side.end;
        if (!side.private || in_flux(f, at, past))
            continue;
        /* Data that is still there was told of already. */
        uint64_t data = fd_data_pages(f->shared_fd, at, past);
        uint64_t cached = fd_cached(f->shared_fd, at, past), pages = cached > data ? cached - data : 0;
        fd_punch(a->live, f->shared_fd, at, past);
        if (pages)
            stray(a, f, at, past, pages, "allocated");
    }
}

static void check_open(struct audit *a, struct live_file *f)
{
    for (struct range r = rangemap_first(&f->open, 0, f->mfile->nr_pages); r.start < f->mfile->nr_pages;
         r = rangemap_next(&f->open, r, f->mfile->nr_pages)) {
        for (uint64_t at = r.start; r.value == VIEW_OPEN && at < r.end;) {
            struct gmem_range side = mmu_side(f->mfile, at);
            if (side.private && !in_flux(f, at, side.end))
                problem(a, "guest_memfd %u: page 0x%" PRIx64 " is private, yet no view refuses it", f->mfile->id, at);
            at = side.end;
        }
    }
}

/* One VMA of a client that lies in its view, with the flags that the kernel prints. */
static void check_vma(struct audit *a, const struct view *v, uint64_t start, uint64_t end, const char *flags)
{
    bool registered = strstr(flags, " um") != NULL, dontfork = strstr(flags, " dc") != NULL;
    uint64_t from = start > v->addr ? start : v->addr, view_end = v->addr + v->nr * PAGE;
    uint64_t to = end < view_end ? end : view_end;

    if (!dontfork)
        problem(a, "process %u: view at 0x%" PRIx64 " would be inherited by a bare clone (no MADV_DONTFORK)",
                v->agent->pid, from);
    for (uint64_t at = v->index + (from - v->addr) / PAGE, last = v->index + (to - v->addr) / PAGE; at < last;) {
        if (at >= v->file->mfile->nr_pages)
            break;
        struct range open = rangemap_get(&v->file->open, at);
        if (registered != (open.value == VIEW_CLOSED)) {
            problem(a, "process %u: view at 0x%" PRIx64 ", page 0x%" PRIx64 " of guest_memfd %u, is %sregistered",
                    v->agent->pid, from, at, v->file->mfile->id, registered ? "" : "not ");
            break;
        }
        at = open.end;
    }
}

/* A program may have mapped something else over its view: that is no view any more. */
static bool maps_file(const struct kernel_vma *vma, const struct live_file *f)
{
    struct stat st;
    return !fstat(f->shared_fd, &st) && st.st_dev == vma->dev && st.st_ino == vma->ino;
}

/* A line of smaps: the VMA that the lines after it are about, or its flags, with which it ends. */
static void take_line(struct audit *a, uint32_t pid, const char *line, struct kernel_vma *vma)
{
    const char *flags = kernel_vma_flags(line);

    if (!flags) {
        kernel_vma_parse(line, vma);
        return;
    }
    for (struct view *v = a->live->views; v; v = v->next) {
        if (v->agent->pid != pid || v->addr >= vma->end || vma->start >= v->addr + v->nr * PAGE ||
            !maps_file(vma, v->file))
            continue;
        v->seen = true;
        if (!v->file->transitions && !v->file->nr_coming)
            check_vma(a, v, vma->start, vma->end, flags);
    }
}

/*
 * smaps of one process against all of its views.  Each read() gives whole VMAs,
 * as they are then; between two others may run.
 */
static void check_process(struct audit *a, uint32_t pid)
{
    char path[64], text[16384], *save;
    struct kernel_vma vma = {0};
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/%u/smaps", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* gone, or not ours to look at */
    for (struct view *v = a->live->views; v; v = v->next)
        v->seen = false;
    while ((n = read(fd, text, sizeof(text) - 1)) > 0) {
        text[n] = '\0';
        for (const char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
            take_line(a, pid, line, &vma);
        sched_relax_due();
    }
    close(fd);
    for (const struct view *v = a->live->views; v; v = v->next)
        a->counts.views += v->agent->pid == pid && v->seen;
}

/* Files and processes may come and go while others are let run. */
static void check_files(struct audit *a)
{
    for (struct live_file *f = a->live->files, *next; f; f = next) {
        struct gmem *gmem = f->mfile->gmem;
        gmem_get(gmem);
        a->counts.files++;
        for_each_data(a, f, f->shared_fd, check_shared);
        check_allocated(a, f);
        for_each_data(a, f, f->private_fd, check_private);
        check_open(a, f);
        sched_relax_due();
        next = f->next;
        gmem_put(gmem);
    }
}

static int check_processes(struct audit *a)
{
    uint32_t *pids = calloc(a->live->nr_views + 1, sizeof(*pids));
    size_t nr = 0;

    if (!pids)
        return -ENOMEM;
    for (const struct view *v = a->live->views; v; v = v->next) {
        size_t i = nr;
        while (i && pids[i - 1] != v->agent->pid)
            i--;
        if (!i)
            pids[nr++] = v->agent->pid;
    }
    for (size_t i = 0; i < nr; i++) {
        check_process(a, pids[i]);
        sched_relax_due();
    }
    free(pids);
    return 0;
}

unsigned live_audit(struct live *live, void (*report)(void *ctx, const char *text), void *ctx, struct live_audit *out)
{
    struct audit a = {.live = live, .report = report, .ctx = ctx};
    check_files(&a);
    if (check_processes(&a))
        problem(&a, "no memory to look at the views");
    if (out)
        *out = a.counts;
    return a.problems;
}

/* ---- an agent that answers at last ---- */

static void log_problem(void *ctx, const char *text)
{
    live_log(ctx, 1, "%s", text);
}

static bool has_view(const struct live_file *f, const struct view_agent *agent)
{
    const struct view *v = f->live->views;
    while (v && (v->agent != agent || v->file != f))
        v = v->next;
    return v != NULL;
}

void strays_drop(struct live *live, const struct view_agent *agent)
{
    struct audit a = {.live = live, .report = log_problem, .ctx = live};

    for (struct live_file *f = live->files, *next; f; f = next) {
        struct gmem *gmem = f->mfile->gmem;
        gmem_get(gmem);
        if (has_view(f, agent)) {
            for_each_data(&a, f, f->shared_fd, check_shared);
            check_allocated(&a, f);
        }
        next = f->next;
        gmem_put(gmem);
    }
}
