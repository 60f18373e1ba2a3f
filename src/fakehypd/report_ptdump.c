/* SPDX-License-Identifier: BSD-2-Clause */
/* Query "ptdump": a stage-2 table, so many runs an answer; the next question begins where this answer ends. */
#include <errno.h>

#include "fakehyp/stage2/descriptor.h"
#include "src/fakehypd/report.h"
#include "src/machine/ptdump.h"

#define MAX_RUNS 1024u

#define INT(value) ((json_int_t)(value))

static json_t *annotation(uint64_t pte)
{
    static const char *const types[] = {
        [S2_TYPE_LOCKED] = "locked", [S2_TYPE_DONATION] = "donation", [S2_TYPE_POISON] = "poison"};
    enum s2_invalid_type type = s2_annotation_type(pte);
    enum hyp_owner owner = s2_annotation_owner(pte);

    if (s2_pte_valid(pte) || !pte)
        return json_null();
    if (type != S2_TYPE_DONATION)
        return json_pack("{s:s}", "type", type <= S2_TYPE_POISON && types[type] ? types[type] : "unknown");
    if (owner != HYP_OWNER_GUEST)
        return json_pack("{s:s, s:s}", "type", types[type], "owner", "hypervisor");
    return json_pack("{s:s, s:s, s:I, s:I}", "type", types[type], "owner", "guest", "handle",
                     INT(s2_annotation_handle(pte)), "gfn", INT(s2_annotation_gfn(pte)));
}

static json_t *run_json(const struct ptdump_run *run, bool states)
{
    uint64_t pte = run->pte;
    bool valid = s2_pte_valid(pte);
    json_t *json = json_pack("{s:I, s:I, s:i, s:I, s:b, s:b, s:b, s:b, s:i, s:b, s:b}", "start", INT(run->start), "end",
                             INT(run->end), "level", run->level, "pte", INT(pte), "valid", valid, "annotated",
                             !valid && pte, "r", valid && pte & S2_PTE_R, "w", valid && pte & S2_PTE_W, "xn",
                             valid ? (int)((pte & S2_PTE_XN_MASK) >> 53) : 0, "af", valid && pte & S2_PTE_AF, "block",
                             valid && !(pte & S2_PTE_TABLE));

    if (!json || !states)
        return json;
    json_object_set_new(json, "state", run->has_state ? json_string(hyp_page_state_name(run->state)) : json_null());
    json_object_set_new(json, "pa", valid ? json_integer(INT(run->pfn << HYP_PAGE_SHIFT)) : json_null());
    json_object_set_new(json, "annotation", annotation(pte));
    return json;
}

static void explain_open(const Fakehyp__Query *query, int rc, struct caller *caller)
{
    unsigned long long vm = query->vm;

    if (rc == -ENOENT)
        caller_explain(caller, "there is no VM %llu: `fakehypctl status` lists them", vm);
    else if (rc == -ENXIO)
        caller_explain(caller, "VM %llu has no stage-2 table yet: EL2 makes one when a vCPU runs for the first time",
                       vm);
    else
        caller_explain(caller, "0x%llx is beyond the IPA space", (unsigned long long)query->gpa);
}

json_t *report_ptdump(struct daemon *daemon, const Fakehyp__Query *query, int *error, struct caller *caller)
{
    struct ptdump dump;
    struct ptdump_run run;
    uint32_t limit = query->limit && query->limit < MAX_RUNS ? query->limit : MAX_RUNS;

    *error = ptdump_open(&dump, daemon->machine, query->vm, query->state, query->gpa);
    if (*error) {
        explain_open(query, *error, caller);
        return NULL;
    }
    json_t *runs = json_array();
    int more = 1;
    while (more == 1 && json_array_size(runs) < limit) {
        more = ptdump_next(&dump, &run);
        if (more == 1 && json_array_append_new(runs, run_json(&run, query->state)))
            more = -ENOMEM;
    }
    if (more < 0) {
        if (more == -ENOENT)
            explain_open(query, more, caller);
        json_decref(runs);
        *error = more;
        return NULL;
    }
    *error = -ENOMEM;
    return json_pack("{s:o, s:o, s:i, s:i, s:o, s:o}", "vm", query->vm ? json_integer(INT(query->vm)) : json_null(),
                     "handle", query->vm ? json_integer(INT(dump.handle)) : json_null(), "ipa_bits", (int)dump.ipa_bits,
                     "start_level", (int)dump.start_level, "next",
                     dump.at < dump.end ? json_integer(INT(dump.at)) : json_null(), "runs", runs);
}
