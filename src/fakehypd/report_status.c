/* SPDX-License-Identifier: BSD-2-Clause */
/* Query "status" and "audit". */
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "fakehyp/hypercall.h"
#include "src/fakehypd/client.h"
#include "src/fakehypd/listen.h"
#include "src/fakehypd/report.h"

#define MAX_PROBLEMS 1000u

#define INT(value) ((json_int_t)(value))

static json_t *clients(const struct daemon *daemon)
{
    json_t *list = json_array();

    for (const struct client *c = daemon->clients; c; c = c->next)
        json_array_append_new(list, json_pack("{s:I, s:I, s:o, s:I}", "id", INT(c->id), "pid", INT(c->pid), "program",
                                              report_string(c->program), "views",
                                              INT(live_nr_views(daemon->live, &c->peer))));
    return list;
}

static json_t *slots(const struct vm *vm)
{
    json_t *list = json_array();

    for (const struct memslot *s = vm_slots(vm); s; s = s->next)
        json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:I, s:I}", "slot", INT(s->slot), "gpa",
                                              INT(s->gfn * HOST_PAGE_SIZE), "size", INT(s->nr_pages * HOST_PAGE_SIZE),
                                              "gmem", INT(gmem_id(s->gmem)), "offset", INT(s->index * HOST_PAGE_SIZE)));
    return list;
}

static json_t *vms(const struct daemon *daemon)
{
    const struct host *host = machine_host(daemon->machine);
    json_t *list = json_array();

    for (struct vm *vm = host_vm_next(host, NULL); vm; vm = host_vm_next(host, vm)) {
        const struct vm_config *config = vm_config(vm);
        const struct live_guest *guest = vm_guest(vm);
        char bugs[256];
        json_array_append_new(list, json_pack("{s:I, s:o, s:s, s:b, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "id",
                                              INT(vm_id(vm)), "name", report_string(config->name), "hyp",
                                              variant_get(VARIANT_HYP, config->hyp)->name, "protected",
                                              config->is_protected, "unshare",
                                              config->unshare_mode == HYP_UNSHARE_UNILATERAL ? "unilateral" : "consent",
                                              "policy", variant_get(VARIANT_POLICY, config->policy)->letter, "tracker",
                                              variant_get(VARIANT_TRACKER, config->tracker)->name, "bugs",
                                              variant_bug_names(config->bugs, bugs, sizeof(bugs)), "abi",
                                              INT(config->abi ? config->abi : 13), "handle", INT(vm_handle(vm)),
                                              "vcpus", INT(vm_nr_vcpus(vm)), "guest_pid",
                                              INT(guest ? live_guest_pid(guest) : 0), "slots", slots(vm)));
    }
    return list;
}

static json_t *gmems(const struct daemon *daemon)
{
    const struct host *host = machine_host(daemon->machine);
    json_t *list = json_array();

    for (struct gmem *gmem = host_gmem_next(host, NULL); gmem; gmem = host_gmem_next(host, gmem)) {
        struct gmem_stats stats;
        gmem_stats(gmem, &stats);
        json_array_append_new(list,
                              json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "id", INT(gmem_id(gmem)), "vm",
                                        INT(gmem_vm_id(gmem)), "size", INT(gmem_pages(gmem) * HOST_PAGE_SIZE), "flags",
                                        INT(gmem_flags(gmem)), "shared_bytes", INT(stats.shared_pages * HOST_PAGE_SIZE),
                                        "private_bytes", INT(stats.private_pages * HOST_PAGE_SIZE), "allocated_pages",
                                        INT(stats.allocated), "ranges", INT(stats.ranges)));
    }
    return list;
}

static size_t nr_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t nr = 0;

    if (!dir)
        return 0;
    while (readdir(dir))
        nr++;
    closedir(dir);
    /* ".", ".." and the folder's own. */
    return nr > 3 ? nr - 3 : 0;
}

static json_t *counts(const struct daemon *daemon)
{
    struct host_counts host;
    size_t nr_clients = 0;

    host_counts(machine_host(daemon->machine), &host);
    for (const struct client *c = daemon->clients; c; c = c->next)
        nr_clients++;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "clients", INT(nr_clients), "vms",
                     INT(host.vms), "gmems", INT(host.gmems), "views", INT(live_nr_views(daemon->live, NULL)), "pins",
                     INT(host.pins), "guests", INT(daemon->nr_guests), "frames_used",
                     INT(host.ram_frames + host.data_frames), "el2_pages", INT(machine_el2_pages(daemon->machine)),
                     "tasks", INT(sched_nr_tasks(daemon->loop.sched) - 1), "fds", INT(nr_fds()));
}

static json_t *oracle(const struct daemon *daemon)
{
    struct oracle_stats stats;
    bool on = machine_oracle_stats(daemon->machine, &stats);

    return json_pack("{s:b, s:I, s:I, s:I}", "on", on, "calls", INT(stats.calls), "divergences", INT(stats.divergences),
                     "unjudged", INT(stats.unjudged));
}

json_t *report_status(struct daemon *daemon)
{
    return json_pack("{s:s, s:I, s:o, s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "version", FAKEHYP_VERSION, "pid",
                     INT(getpid()), "socket", report_string(daemon->listener ? listener_name(daemon->listener) : ""),
                     "stage", machine_stage_name(daemon->machine), "uptime_ns", INT(sched_now() - daemon->start_ns),
                     "clients", clients(daemon), "vms", vms(daemon), "gmems", gmems(daemon), "oracle", oracle(daemon),
                     "counts", counts(daemon));
}

/* ---- audit -------------------------------------------------------------------------------------------------- */

static void add_problem(void *ctx, const char *text)
{
    json_t *problems = ctx;

    if (json_array_size(problems) < MAX_PROBLEMS)
        json_array_append_new(problems, report_string(text));
}

json_t *report_audit(struct daemon *daemon)
{
    json_t *problems = json_array();
    struct live_audit checked = {.files = 0};
    uint64_t frames = 0;
    unsigned nr;

    if (!problems)
        return NULL;
    nr = machine_audit(daemon->machine, add_problem, problems, &frames);
    nr += live_audit(daemon->live, add_problem, problems, &checked);
    if (nr > json_array_size(problems)) {
        char text[64];
        snprintf(text, sizeof(text), "and %u more", nr - (unsigned)json_array_size(problems));
        json_array_append_new(problems, json_string(text));
    }
    return json_pack("{s:b, s:{s:I, s:I, s:I, s:I}, s:o}", "ok", nr == 0, "checked", "files", INT(checked.files),
                     "pages", INT(checked.pages), "views", INT(checked.views), "frames", INT(frames), "problems",
                     problems);
}
