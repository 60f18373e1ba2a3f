/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's truth: where bytes are and how views are registered, asked of the kernel and not of our tables. */
#include "src/live/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Data in the shared file where the guest's side is: somebody made a stray page, and took the signal from everybody. */
static void check_shared(struct audit *a, struct live_file *f)
{
    uint64_t first, past, end = f->mfile->nr_pages;
    for (uint64_t at = 0; at < end && fd_data(f->shared_fd, at, end, &first, &past); at = past) {
        for (uint64_t i = first; i < past;) {
            struct gmem_range side = mmu_side(f->mfile, i);
            uint64_t stop = side.end < past ? side.end : past;
            if (side.private) {
                problem(a, "guest_memfd %u: stray pages [0x%" PRIx64 ", 0x%" PRIx64 ") in the shared file; dropped",
                        f->mfile->id, i, stop);
                fd_punch(a->live, f->shared_fd, i, stop);
                a->counts.strays += stop - i;
                machine_record(a->live->machine, &(struct host_event){.kind = HOST_EV_stray_page,
                                                                      .gmem = f->mfile->id,
                                                                      .offset = i * PAGE,
                                                                      .size = (stop - i) * PAGE});
            }
            a->counts.pages += stop - i;
            i = stop;
        }
    }
}

static void check_private(struct audit *a, struct live_file *f)
{
    uint64_t first, past, end = f->mfile->nr_pages;
    for (uint64_t at = 0; at < end && fd_data(f->private_fd, at, end, &first, &past); at = past) {
        for (uint64_t i = first; i < past;) {
            struct gmem_range side = mmu_side(f->mfile, i);
            uint64_t stop = side.end < past ? side.end : past;
            if (!side.private)
                problem(a,
                        "guest_memfd %u: pages [0x%" PRIx64 ", 0x%" PRIx64
                        ") are the host's, their bytes in the private file",
                        f->mfile->id, i, stop);
            a->counts.pages += stop - i;
            i = stop;
        }
    }
}

static void check_open(struct audit *a, struct live_file *f)
{
    for (struct range r = rangemap_first(&f->open, 0, f->mfile->nr_pages); r.start < f->mfile->nr_pages;
         r = rangemap_next(&f->open, r, f->mfile->nr_pages)) {
        for (uint64_t at = r.start; r.value == VIEW_OPEN && at < r.end;) {
            struct gmem_range side = mmu_side(f->mfile, at);
            if (side.private)
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
        problem(a, "process %u: view at 0x%" PRIx64 " would be inherited by a bare clone (no MADV_DONTFORK)", v->pid,
                from);
    for (uint64_t at = v->index + (from - v->addr) / PAGE, last = v->index + (to - v->addr) / PAGE; at < last;) {
        if (at >= v->file->mfile->nr_pages)
            break;
        struct range open = rangemap_get(&v->file->open, at);
        if (registered != (open.value == VIEW_CLOSED)) {
            problem(a, "process %u: view at 0x%" PRIx64 ", page 0x%" PRIx64 " of guest_memfd %u, is %sregistered",
                    v->pid, from, at, v->file->mfile->id, registered ? "" : "not ");
            break;
        }
        at = open.end;
    }
}

/* smaps of one process against all of its views. */
static void check_process(struct audit *a, uint32_t pid)
{
    char path[64], *line = NULL;
    size_t size = 0;
    uint64_t start = 0, end = 0;

    snprintf(path, sizeof(path), "/proc/%u/smaps", pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return; /* gone, or not ours to look at */
    while (getline(&line, &size, f) > 0) {
        uint64_t s, e;
        char perms[8];
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &s, &e, perms) == 3 && strlen(perms) == 4) {
            start = s;
            end = e;
        } else if (!strncmp(line, "VmFlags:", 8)) {
            for (const struct view *v = a->live->views; v; v = v->next)
                if (v->pid == pid && !v->file->transitions && v->addr < end && start < v->addr + v->nr * PAGE)
                    check_vma(a, v, start, end, line + 8);
        }
    }
    free(line);
    fclose(f);
}

unsigned live_audit(struct live *live, void (*report)(void *ctx, const char *text), void *ctx, struct live_audit *out)
{
    struct audit a = {.live = live, .report = report, .ctx = ctx};
    for (struct live_file *f = live->files; f; f = f->next) {
        a.counts.files++;
        if (f->transitions)
            continue;
        check_shared(&a, f);
        check_private(&a, f);
        check_open(&a, f);
    }
    for (const struct view *v = live->views; v; v = v->next) {
        bool first = true;
        for (const struct view *w = live->views; w != v && first; w = w->next)
            first = w->pid != v->pid;
        a.counts.views++;
        if (first)
            check_process(&a, v->pid);
    }
    if (out)
        *out = a.counts;
    return a.problems;
}
