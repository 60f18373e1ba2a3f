/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fakehyp/hypercall.h"
#include "src/fakehypd/text.h"
#include "src/proto/chan.h"

const char *const report_capabilities[] = {
    "stage:live",      "hyp:pkvm",          "unshare:consent", "unshare:unilateral",
    "policy:upstream", "convert:in-place",  "punch",           "pin",
    "guest:process",   "query:status",      "query:page",      "query:audit",
    "query:trace",     "query:kernel-load", "query:ptdump",
};
const size_t report_nr_capabilities = sizeof(report_capabilities) / sizeof(report_capabilities[0]);

static json_t *capabilities(void)
{
    json_t *list = json_array();

    for (size_t i = 0; i < report_nr_capabilities; i++)
        json_array_append_new(list, json_string(report_capabilities[i]));
    return json_pack("{s:s, s:s, s:i, s:o, s:{s:i, s:i}}", "version", FAKEHYP_VERSION, "stage", live_stage_ops.name,
                     "protocol", PROTO_VERSION, "capabilities", list, "limits", "vms", (int)HYP_MAX_VMS, "frame_bytes",
                     (int)CHAN_MAX_FRAME);
}

int report_print_capabilities(FILE *out)
{
    json_t *answer = capabilities();
    int rc = answer ? json_dumpf(answer, out, JSON_INDENT(2)) : -1;

    json_decref(answer);
    return rc || fputc('\n', out) == EOF || fflush(out) ? EXIT_FAILURE : EXIT_SUCCESS;
}

int report_query(struct daemon *daemon, const Fakehyp__Query *query, char **text, struct caller *caller)
{
    json_t *answer;
    int rc = -ENOMEM;

    if (!strcmp(query->what, "trace"))
        return report_trace(daemon, query, text);
    if (!strcmp(query->what, "status")) {
        answer = report_status(daemon);
    } else if (!strcmp(query->what, "page")) {
        answer = report_page(daemon, query, &rc, caller);
    } else if (!strcmp(query->what, "kernel-load") || !strcmp(query->what, "kernel-copy")) {
        answer = report_kernel_load(daemon, query, &rc, caller);
    } else if (!strcmp(query->what, "ptdump")) {
        answer = report_ptdump(daemon, query, &rc, caller);
    } else if (!strcmp(query->what, "audit")) {
        answer = report_audit(daemon);
    } else if (!strcmp(query->what, "capabilities")) {
        answer = capabilities();
    } else {
        caller_explain(
            caller,
            "unknown query: status, page, ptdump, audit, trace, kernel-load, kernel-copy and capabilities are known");
        return -EINVAL;
    }
    if (!answer)
        return rc;
    *text = json_dumps(answer, JSON_COMPACT);
    json_decref(answer);
    return *text ? 0 : -ENOMEM;
}

struct vm *report_find_vm(struct daemon *daemon, uint64_t id)
{
    const struct host *host = machine_host(daemon->machine);
    struct vm *vm = host_vm_next(host, NULL);

    while (vm && vm_id(vm) != id)
        vm = host_vm_next(host, vm);
    return vm;
}

struct gmem *report_find_gmem(struct daemon *daemon, uint64_t id)
{
    const struct host *host = machine_host(daemon->machine);
    struct gmem *gmem = host_gmem_next(host, NULL);

    while (gmem && gmem_id(gmem) != id)
        gmem = host_gmem_next(host, gmem);
    return gmem;
}

json_t *report_string(const char *text)
{
    char clean[512];

    text_copy(clean, sizeof(clean), text);
    return json_string(clean);
}

bool report_stage2_refuses(struct daemon *daemon, const struct page_report *page)
{
    struct hyp_frame_info info;

    return page->allocated && !hyp_frame_info(machine_hyp(daemon->machine), page->pfn, &info) &&
           info.host == PKVM_PAGE_NOPAGE;
}

void report_owner(struct daemon *daemon, const struct page_report *page, char *buf, size_t size)
{
    struct hyp_frame_info info;

    snprintf(buf, size, "host");
    if (!page->allocated || hyp_frame_info(machine_hyp(daemon->machine), page->pfn, &info))
        return;
    if (info.owner == HYP_OWNER_HYP) {
        snprintf(buf, size, "hypervisor");
    } else if (info.owner == HYP_OWNER_GUEST) {
        /* EL2 does not keep the handle of a guest that shares the page; the memslot tells. */
        uint32_t handle = info.handle ? info.handle : page->vm ? vm_handle(page->vm) : 0;
        uint64_t gfn = info.handle ? info.gfn : page->gpa >> HOST_PAGE_SHIFT;
        snprintf(buf, size, "guest 0x%x gfn 0x%llx", handle, (unsigned long long)gfn);
    }
}
