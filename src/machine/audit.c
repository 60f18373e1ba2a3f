/* SPDX-License-Identifier: BSD-2-Clause */
/* Every table against every other. */
#include "src/machine/audit.h"

#include <inttypes.h>
#include <stdarg.h>

void audit_problem(struct audit *a, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    a->problems++;
    a->report(a->ctx, text);
}

static void el2_report(void *ctx, const char *text)
{
    struct audit *a = ctx;
    audit_problem(a, "EL2: %s", text);
}

/* Pages of a range that are looked at before others may run. */
#define STEP_PAGES UINT64_C(1024)

/* A folio's counts are what its known holders add up to. */
static void check_folio(struct audit *a, const struct gmem *g, uint64_t index)
{
    struct page_report page;
    struct holder_sum sum;
    gmem_page_report(g, index, &page);
    gmem_holders_sum(g, index, &sum);
    if (page.refcount != sum.refs)
        audit_problem(a, "I6: guest_memfd %u page 0x%" PRIx64 ": refcount %u, its holders add up to %" PRIu64,
                      gmem_id(g), index, page.refcount, sum.refs);
    if (page.mapcount != sum.maps)
        audit_problem(a, "I6: guest_memfd %u page 0x%" PRIx64 ": mapcount %u, PTEs of it there are %" PRIu64,
                      gmem_id(g), index, page.mapcount, sum.maps);
    if (page.order && page.pincount != sum.pins)
        audit_problem(a, "I6: guest_memfd %u page 0x%" PRIx64 ": pincount %u, pinned by %" PRIu64, gmem_id(g), index,
                      page.pincount, sum.pins);
}

static void check_side(struct audit *a, struct mfile_state *f, uint64_t start, uint64_t end, bool attr, bool side)
{
    const struct gmem *g = f->file.gmem;

    if (attr && !side)
        audit_problem(
            a, "guest_memfd %u pages [0x%" PRIx64 ", 0x%" PRIx64 ") are private, their bytes within the host's reach",
            gmem_id(g), start, end);
    /* Legal only where stage 2 refuses the host, page by page. */
    for (uint64_t i = start; !attr && side && i < end; i++)
        if (mmu_host_reaches(&f->file, i)) {
            audit_problem(a,
                          "guest_memfd %u page 0x%" PRIx64 " is shared and allowed by stage 2, its bytes out of reach",
                          gmem_id(g), i);
            break;
        }
}

static void check_frame(struct audit *a, struct mfile_state *f, uint64_t index, uint64_t pfn)
{
    const struct gmem *g = f->file.gmem;
    struct gmem *owner;
    uint64_t back;

    a->pages++;
    if (!host_frame_slot(a->m->host, pfn, &owner, &back) || owner != g || back != index)
        audit_problem(a, "guest_memfd %u page 0x%" PRIx64 ": frame 0x%" PRIx64 " does not know it", gmem_id(g), index,
                      pfn);
    if (!gmem_is_private(g, index) && !mmu_side(&f->file, index).private && !mmu_host_reaches(&f->file, index))
        audit_problem(a, "guest_memfd %u page 0x%" PRIx64 ": stage 2 refuses the host, its bytes within its reach",
                      gmem_id(g), index);
    check_folio(a, g, index);
    invariant_page(a, g, index, pfn);
}

/*
 * Where the bytes are is where effective access says; folios are counted right.
 * While a conversion is under way, which may begin whenever others run, nothing is promised.
 */
static void check_file(struct audit *a, struct mfile_state *f)
{
    const struct gmem *g = f->file.gmem;
    uint64_t nr = f->file.nr_pages, index, pfn;

    invariant_ranges(a, g);
    for (uint64_t at = 0; at < nr && !f->lock.writer; sched_relax_due()) {
        struct gmem_range attr = gmem_attr_range(g, at), side = mmu_side(&f->file, at);
        uint64_t past = attr.end < side.end ? attr.end : side.end;
        if (!attr.private && side.private && past - at > STEP_PAGES)
            past = at + STEP_PAGES;
        check_side(a, f, at, past, attr.private, side.private);
        at = past;
    }
    for (uint64_t at = 0; !f->lock.writer && gmem_next_folio(g, at, nr, &index, &pfn); at = index + 1) {
        check_frame(a, f, index, pfn);
        sched_relax_due();
    }
}

/* Files may come and go while others run. */
static void check_files(struct audit *a)
{
    for (struct mfile_state *f = a->m->files, *next; f; f = next) {
        struct gmem *gmem = f->file.gmem;
        gmem_get(gmem);
        check_file(a, f);
        next = f->next;
        gmem_put(gmem);
    }
}

unsigned machine_audit(struct machine *m, void (*report)(void *ctx, const char *text), void *ctx,
                       uint64_t *pages_checked)
{
    struct audit a = {.m = m, .report = report, .ctx = ctx};
    if (m->panicked)
        audit_problem(&a, "%s", m->panic_text);
    else
        hyp_check(m->hyp, el2_report, &a);
    uint64_t diverged = oracle_look(m, el2_report, &a);
    if (diverged)
        audit_problem(&a, "the oracle saw %" PRIu64 " divergences: the log tells of each", diverged);
    for (const char *splat; (splat = host_next_splat(m->host));)
        audit_problem(&a, "%s", splat);
    check_files(&a);
    invariant_tlbs(&a);
    invariant_free_frames(&a);
    if (pages_checked)
        *pages_checked = a.pages;
    return a.problems;
}

uint64_t machine_el2_pages(const struct machine *m)
{
    uint64_t nr = 0, base = m->ram_base >> 12;
    struct host_counts counts;
    host_counts(m->host, &counts);
    for (uint64_t pfn = base; pfn < counts.top_pfn; pfn++)
        if ((m->vmemmap[pfn - base].hyp_state_comp ^ 3) == PKVM_PAGE_OWNED)
            nr++;
    return nr;
}
