/* SPDX-License-Identifier: BSD-2-Clause */
/* Query "page": everything that is known of one page. */
#include <errno.h>
#include <string.h>

#include "fakehyp/hypercall.h"
#include "src/fakehypd/report.h"

#define MAX_HOLDERS 64u
#define MAX_HISTORY 20u

#define INT(value) ((json_int_t)(value))

/* The page that is asked for. */
struct page {
    struct gmem *gmem;
    uint64_t index;
    struct page_report report;
};

static int find_by_gpa(struct daemon *daemon, const Fakehyp__Query *query, struct page *page, struct caller *caller)
{
    const struct vm *vm = report_find_vm(daemon, query->vm);
    const struct memslot *slot = vm ? vm_slot_at(vm, query->gpa >> HOST_PAGE_SHIFT) : NULL;

    if (!slot) {
        if (vm)
            caller_explain(caller, "VM %llu has no memory at 0x%llx: `fakehypctl status` lists its memslots",
                           (unsigned long long)query->vm, (unsigned long long)query->gpa);
        else
            caller_explain(caller, "there is no VM %llu: `fakehypctl status` lists them",
                           (unsigned long long)query->vm);
        return -ENOENT;
    }
    page->gmem = slot->gmem;
    page->index = slot->index + ((query->gpa >> HOST_PAGE_SHIFT) - slot->gfn);
    return 0;
}

static int find_by_offset(struct daemon *daemon, const Fakehyp__Query *query, struct page *page, struct caller *caller)
{
    page->gmem = report_find_gmem(daemon, query->gmem);
    page->index = query->offset >> HOST_PAGE_SHIFT;
    if (!page->gmem) {
        caller_explain(caller, "there is no guest_memfd %llu: `fakehypctl status` lists them",
                       (unsigned long long)query->gmem);
        return -ENOENT;
    }
    if (page->index >= gmem_pages(page->gmem)) {
        caller_explain(caller, "offset 0x%llx is beyond the end of guest_memfd %llu", (unsigned long long)query->offset,
                       (unsigned long long)query->gmem);
        return -ENOENT;
    }
    return 0;
}

static const char *bytes_in(struct daemon *daemon, const struct page *page)
{
    struct mfile *file = machine_file(page->gmem);
    bool in_host = !mmu_side(file, page->index).private;
    uint64_t first, past;

    if (!live_stage_ops.populated(daemon->live, file, in_host, page->index, page->index + 1, &first, &past))
        return "nowhere";
    return in_host ? "shared file" : "private file";
}

static const char *host_state(struct daemon *daemon, const struct page *page)
{
    struct hyp_frame_info info;

    if (!page->report.allocated || hyp_frame_info(machine_hyp(daemon->machine), page->report.pfn, &info))
        return hyp_page_state_name(PKVM_PAGE_OWNED);
    return hyp_page_state_name(info.host);
}

static const char *guest_state(struct daemon *daemon, const struct page *page)
{
    struct hyp_guest_leaf leaf;

    if (!page->report.vm || hyp_guest_leaf(machine_hyp(daemon->machine), vm_handle(page->report.vm),
                                           page->report.gpa >> HOST_PAGE_SHIFT, &leaf))
        return hyp_page_state_name(PKVM_PAGE_NOPAGE);
    return hyp_page_state_name(leaf.state);
}

/* Stages of translation that refuse a process of the host: EL1's attribute, then EL2's table. */
static json_t *refused_by(struct daemon *daemon, const struct page *page)
{
    json_t *list = json_array();

    if (page->report.private)
        json_array_append_new(list, json_string("stage 1"));
    if (report_stage2_refuses(daemon, &page->report))
        json_array_append_new(list, json_string("stage 2"));
    return list;
}

static json_t *holders(const struct page *page)
{
    struct holder_info infos[MAX_HOLDERS];
    unsigned nr = gmem_holders(page->gmem, page->index, infos, MAX_HOLDERS);
    json_t *list = json_array();

    for (unsigned i = 0; i < nr && i < MAX_HOLDERS; i++)
        json_array_append_new(list, json_pack("{s:o, s:o, s:I, s:I, s:I}", "what", report_string(infos[i].what), "kind",
                                              report_string(infos[i].kind), "count", INT(infos[i].count), "pid",
                                              INT(infos[i].pid), "age_ns", INT(sched_now() - infos[i].since_ns)));
    return list;
}

static json_t *last_conversion(const struct page_report *report)
{
    if (!report->converted)
        return json_null();
    return json_pack("{s:s, s:I, s:o, s:I, s:I}", "to", report->converted_private ? "private" : "shared", "pid",
                     INT(report->converted_pid), "program", report_string(report->converted_by), "age_ns",
                     INT(sched_now() - report->converted_ns), "seq", INT(report->converted_seq));
}

static json_t *frames(const struct stray *stray)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < stray->nr_frames; i++)
        json_array_append_new(list, json_integer(INT(stray->frame[i])));
    return list;
}

static json_t *strays(const struct daemon *daemon, const struct page *page)
{
    uint64_t nr = daemon->nr_strays, first = nr > STRAY_RING ? nr - STRAY_RING : 0;
    json_t *list = json_array();

    for (uint64_t i = first; i < nr; i++) {
        const struct stray *s = &daemon->strays[i % STRAY_RING];
        if (s->gmem == gmem_id(page->gmem) && s->offset >> HOST_PAGE_SHIFT == page->index)
            json_array_append_new(list, json_pack("{s:I, s:o, s:I, s:o, s:I, s:I}", "pid", INT(s->pid), "thread",
                                                  report_string(s->thread), "pc", INT(s->pc), "frames", frames(s),
                                                  "age_ns", INT(sched_now() - s->t_ns), "addr", INT(s->addr)));
    }
    return list;
}

/* Events of a VM name the page by its IPA, those of a file by its offset. */
static bool concerns(const struct host_event *event, const struct page *page)
{
    uint64_t offset = page->index * HOST_PAGE_SIZE;
    bool in_vm = page->report.vm && event->vm == vm_id(page->report.vm);
    uint64_t size = event->size ? event->size : HOST_PAGE_SIZE;

    switch (event->kind) {
    case HOST_EV_guest_abort:
        return in_vm && event->offset >> HOST_PAGE_SHIFT == page->report.gpa >> HOST_PAGE_SHIFT;
    case HOST_EV_guest_call:
        return in_vm && (event->a0 == SMCCC_MEM_SHARE || event->a0 == SMCCC_MEM_UNSHARE) &&
               event->a1 == page->report.gpa;
    case HOST_EV_exit:
        return in_vm && event->a0 == KVM_EXIT_MEMORY_FAULT && event->a1 == page->report.gpa;
    case HOST_EV_reclaim:
        return in_vm && event->a1 == page->report.gpa >> HOST_PAGE_SHIFT;
    default:
        return event->gmem == gmem_id(page->gmem) && event->offset <= offset && offset - event->offset < size;
    }
}

static json_t *history(struct daemon *daemon, const struct page *page)
{
    const struct trace *trace = machine_trace(daemon->machine);
    const struct trace_entry *last[MAX_HISTORY];
    const struct trace_entry *entry;
    json_t *list = json_array();
    char text[320];
    size_t nr = 0;

    for (uint64_t seq = 1; (entry = trace_get(trace, seq)); seq = entry->seq + 1)
        if (concerns(&entry->event, page))
            last[nr++ % MAX_HISTORY] = entry;
    for (size_t i = nr > MAX_HISTORY ? nr - MAX_HISTORY : 0; i < nr; i++) {
        entry = last[i % MAX_HISTORY];
        trace_describe(entry, text, sizeof(text));
        json_array_append_new(list, json_pack("{s:I, s:I, s:o}", "t_ns", INT(entry->t_ns), "seq", INT(entry->seq),
                                              "text", report_string(text)));
    }
    return list;
}

json_t *report_page(struct daemon *daemon, const Fakehyp__Query *query, int *error, struct caller *caller)
{
    struct page page = {.gmem = NULL};
    char owner[64];

    *error = query->by_gpa ? find_by_gpa(daemon, query, &page, caller) : find_by_offset(daemon, query, &page, caller);
    if (*error)
        return NULL;
    gmem_page_report(page.gmem, page.index, &page.report);
    report_owner(daemon, &page.report, owner, sizeof(owner));
    const struct page_report *r = &page.report;
    *error = -ENOMEM;
    return json_pack("{s:I, s:I, s:o, s:o, s:s, s:b, s:o, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:o, s:o, s:o, s:o}",
                     "gmem", INT(gmem_id(page.gmem)), "offset", INT(page.index * HOST_PAGE_SIZE), "vm",
                     r->vm ? json_integer(INT(vm_id(r->vm))) : json_null(), "gpa",
                     r->vm ? json_integer(INT(r->gpa)) : json_null(), "attribute", r->private ? "private" : "shared",
                     "allocated", r->allocated, "pfn", r->allocated ? json_integer(INT(r->pfn)) : json_null(),
                     "bytes_in", bytes_in(daemon, &page), "owner", owner, "host_state", host_state(daemon, &page),
                     "guest_state", guest_state(daemon, &page), "refused_by", refused_by(daemon, &page), "refcount",
                     INT(r->refcount), "mapcount", INT(r->mapcount), "holders", holders(&page), "last_conversion",
                     last_conversion(r), "strays", strays(daemon, &page), "history", history(daemon, &page));
}

/*
 * What an access of the kernel itself leads to, with an entry in the exception
 * table ("kernel-copy") or without: the only query that changes anything.
 */
json_t *report_kernel_load(struct daemon *daemon, const Fakehyp__Query *query, int *error, struct caller *caller)
{
    struct page page = {.gmem = NULL};
    struct hyp_frame_info before, after;
    uint8_t bytes[16];
    char hex[2 * sizeof(bytes) + 1];
    bool fixup = !strcmp(query->what, "kernel-copy");

    *error = query->by_gpa ? find_by_gpa(daemon, query, &page, caller) : find_by_offset(daemon, query, &page, caller);
    if (*error)
        return NULL;
    gmem_page_report(page.gmem, page.index, &page.report);
    if (!page.report.allocated) {
        caller_explain(caller, "the page has no frame yet: nobody has touched it");
        *error = -ENOENT;
        return NULL;
    }
    hyp_frame_info(machine_hyp(daemon->machine), page.report.pfn, &before);
    *error = live_kernel_load(daemon->live, page.report.pfn, fixup, bytes, sizeof(bytes));
    if (*error) {
        if (*error == -EFAULT)
            caller_explain(caller,
                           "stage 2 refuses the kernel: the copy ends with EFAULT, and the guest keeps its page");
        else if (*error == -EPERM)
            caller_explain(caller, "the kernel would Oops: access to hypervisor-protected memory");
        return NULL;
    }
    hyp_frame_info(machine_hyp(daemon->machine), page.report.pfn, &after);
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    *error = -ENOMEM;
    return json_pack("{s:I, s:s, s:b}", "pfn", INT(page.report.pfn), "bytes", hex, "reclaimed",
                     before.host == PKVM_PAGE_NOPAGE && after.host == PKVM_PAGE_OWNED);
}
