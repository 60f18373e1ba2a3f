/* SPDX-License-Identifier: BSD-2-Clause */
/* AccessReport: a client touched private memory; say what it hit, and keep it for `fakehypctl page`. */
#include <stdarg.h>
#include <string.h>

#include "src/fakehypd/dispatch.h"
#include "src/fakehypd/report.h"
#include "src/fakehypd/text.h"

struct words {
    char text[2048];
    size_t len;
};

static void say(struct words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct words *words, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int n = vsnprintf(words->text + words->len, sizeof(words->text) - words->len, format, args);
    va_end(args);
    if (n > 0)
        words->len += (size_t)n;
    if (words->len >= sizeof(words->text))
        words->len = sizeof(words->text) - 1;
}

static double seconds_since(uint64_t t_ns)
{
    return (double)(sched_now() - t_ns) / 1e9;
}

static void say_place(struct words *words, const struct gmem *gmem, uint64_t offset, const struct page_report *page)
{
    say(words, "  place: offset 0x%llx of guest_memfd %u", (unsigned long long)offset, gmem_id(gmem));
    if (page->vm) {
        char name[sizeof(vm_config(page->vm)->name)];
        text_copy(name, sizeof(name), vm_config(page->vm)->name);
        say(words, ", IPA 0x%llx of VM %llu%s%s%s", (unsigned long long)page->gpa, (unsigned long long)vm_id(page->vm),
            name[0] ? " \"" : "", name, name[0] ? "\"" : "");
    }
    say(words, "\n");
}

/* taken: by a guest that asked nobody, whose MEM_UNSHARE leaves the file's attribute as it was. */
static void say_state(struct words *words, const struct page_report *page, bool taken, const char *owner)
{
    if (taken)
        say(words, "  state: taken back by the guest (MEM_UNSHARE), though the file's attribute is still shared");
    else if (!page->private)
        say(words, "  state: shared now");
    else if (page->converted)
        say(words, "  state: private for %.3f s", seconds_since(page->converted_ns));
    else
        say(words, "  state: private since it was created");
    say(words, ", owner: %s%s\n", owner,
        page->private && !strcmp(owner, "host") ? " (the guest has not touched it yet)" : "");
    if (page->converted)
        say(words, "  last conversion: to %s by %s (pid %u), %.3f s ago\n",
            page->converted_private ? "private" : "shared", page->converted_by, page->converted_pid,
            seconds_since(page->converted_ns));
}

/* Real pKVM tells them apart by the signal: SIGBUS of stage 1, SIGSEGV of stage 2. */
static void say_stages(struct words *words, const struct page_report *page, bool stage2)
{
    if (page->private)
        say(words, "  refused by: stage 1 (the attribute is private)%s\n",
            stage2 ? ", and stage 2 behind it (EL2's table)" : "; stage 2 would have let it through");
    else if (stage2)
        say(words, "  refused by: stage 2 alone (EL2's table): pKVM's signal would be SIGSEGV, SEGV_ACCERR\n");
}

/* References that outlive a conversion: those to a page that a guest took back. */
static void say_holders(struct words *words, const struct gmem *gmem, uint64_t index)
{
    struct holder_info infos[4];
    char what[sizeof(infos[0].what)];
    unsigned nr = gmem_holders(gmem, index, infos, 4);

    for (unsigned i = 0; i < nr && i < 4; i++) {
        text_copy(what, sizeof(what), infos[i].what);
        say(words, "%s%s (%s, pid %u)", i ? ", " : "  held by: ", what, infos[i].kind, infos[i].pid);
    }
    if (nr)
        say(words, "%s\n", nr > 4 ? " and others" : "");
}

static void say_remedy(struct words *words, bool reachable, bool guest_owns)
{
    if (reachable)
        say(words, "  remedy: it was converted meanwhile; the same access would succeed now");
    else if (guest_owns)
        say(words, "  remedy: the guest must share the page (MEM_SHARE) and the VMM convert it to shared first; "
                   "fakehyp_copy_from() reads without a signal");
    else
        say(words, "  remedy: convert the page to shared first (fakehyp_convert); fakehyp_copy_from() reads without a "
                   "signal");
}

static void remember(struct daemon *daemon, const struct client *client, const Fakehyp__AccessReport *report)
{
    struct stray *stray = &daemon->strays[daemon->nr_strays++ % STRAY_RING];

    *stray = (struct stray){.gmem = report->gmem,
                            .offset = report->offset,
                            .addr = report->addr,
                            .pc = report->pc,
                            .t_ns = sched_now(),
                            .pid = (uint32_t)client->pid,
                            .tid = report->tid};
    text_copy(stray->thread, sizeof(stray->thread), report->thread);
    stray->nr_frames = report->n_frame < STRAY_FRAMES ? (unsigned)report->n_frame : STRAY_FRAMES;
    for (unsigned i = 0; i < stray->nr_frames; i++)
        stray->frame[i] = report->frame[i];
}

/* The client's own word for the page is worth nothing unless it has that file. */
static struct gmem *reported_page(struct req *req, const Fakehyp__AccessReport *report)
{
    struct gmem *gmem = report->in_view ? req_gmem(req, report->gmem) : NULL;

    return gmem && report->offset >> HOST_PAGE_SHIFT < gmem_pages(gmem) ? gmem : NULL;
}

static void explain(struct req *req, const struct gmem *gmem, struct words *words)
{
    const Fakehyp__AccessReport *report = req->request->access_report;
    const uint64_t index = report->offset >> HOST_PAGE_SHIFT;
    struct page_report page = {.private = false};
    bool guest_owns = false, taken = false;
    char thread[32], owner[64] = "";

    text_copy(thread, sizeof(thread), report->thread);
    say(words, "%s (pid %d) touched %s at 0x%llx\n", req->client->program, req->client->pid,
        gmem ? "private guest memory" : "memory that is no view of a guest_memfd", (unsigned long long)report->addr);
    if (gmem) {
        gmem_page_report(gmem, index, &page);
        report_owner(req->daemon, &page, owner, sizeof(owner));
        guest_owns = !strncmp(owner, "guest", 5);
        taken = guest_owns && !page.private && mmu_side(machine_file(gmem), index).private;
        say_place(words, gmem, report->offset, &page);
        say_state(words, &page, taken, owner);
        say_stages(words, &page, report_stage2_refuses(req->daemon, &page));
        say_holders(words, gmem, index);
    }
    say(words, "  thread: %s (tid %u), PC 0x%llx\n", thread[0] ? thread : "?", report->tid,
        (unsigned long long)report->pc);
    if (gmem)
        say_remedy(words, !page.private && !taken, guest_owns);
    else
        say(words, "  the signal has another cause, such as a file that was truncated");
}

void req_access_report(struct req *req)
{
    const Fakehyp__AccessReport *report = req->request->access_report;
    struct gmem *gmem = reported_page(req, report);
    struct words words = {.len = 0};
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;

    explain(req, gmem, &words);
    if (gmem) {
        remember(req->daemon, req->client, report);
        machine_record(req->daemon->machine, &(struct host_event){.kind = HOST_EV_stray,
                                                                  .vm = gmem_vm_id(gmem),
                                                                  .gmem = gmem_id(gmem),
                                                                  .offset = report->offset,
                                                                  .size = 1,
                                                                  .a0 = report->addr,
                                                                  .a1 = report->pc,
                                                                  .pid = (uint32_t)req->client->pid});
        client_event_gmem(req->daemon, NULL,
                          &(struct client_event){.kind = "stray-access",
                                                 .vm = gmem_vm_id(gmem),
                                                 .gmem = gmem_id(gmem),
                                                 .offset = report->offset,
                                                 .size = 1,
                                                 .text = words.text});
    }
    log_info("stray access of %s (pid %d) at 0x%llx", req->client->program, req->client->pid,
             (unsigned long long)report->addr);
    reply.message = words.text;
    reply.body_case = FAKEHYP__REPLY__BODY_ACK;
    reply.ack = &ack;
    req_reply(req, &reply, NULL, 0);
}
