/* SPDX-License-Identifier: BSD-2-Clause */
/* One schedule of an exploration: the world of the recipe in simulation, and its tasks, step by step. */
#include "src/scenario/explore.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "src/machine/points.h"
#include "src/scenario/sim_world.h"

struct ex_run {
    const struct ex_recipe *recipe;
    struct sc_sim *world;
    struct sc_op *op[EX_MAX_TASKS];
    bool begun[EX_MAX_TASKS];
    enum sc_progress at[EX_MAX_TASKS];
    char broken[320];
};

static void ignore(void *ctx, const char *text)
{
    (void)ctx;
    (void)text;
}

struct ex_run *ex_run_new(const struct ex_recipe *recipe, char *why, size_t size)
{
    struct ex_run *run = calloc(1, sizeof(*run));

    if (!run) {
        snprintf(why, size, "no memory");
        return NULL;
    }
    run->recipe = recipe;
    run->world = sc_sim_stage.world_new(&recipe->world, why, size);
    if (!run->world) {
        free(run);
        return NULL;
    }
    for (unsigned i = 0; i < recipe->nr_items; i++) {
        const struct ex_item *item = &recipe->item[i];
        struct sc_verdict v = {.rc = 0};
        if (item->task >= 0) {
            run->op[item->task] = sc_sim_stage.start(run->world, &item->call, why, size);
            if (run->op[item->task])
                continue;
        } else {
            sc_sim_stage.perform(run->world, &item->call, &v);
            if (!*v.broken)
                continue;
            snprintf(why, size, "%s", v.broken);
        }
        ex_run_free(run, ignore, NULL);
        return NULL;
    }
    return run;
}

void ex_run_free(struct ex_run *run, sc_report_fn *report, void *ctx)
{
    sc_sim_stage.world_free(run->world, report, ctx);
    free(run);
}

unsigned ex_run_enabled(struct ex_run *run)
{
    unsigned enabled = 0;

    if (*run->broken)
        return 0;
    do {
        for (unsigned i = 0; i < run->recipe->nr_tasks; i++)
            enabled |= (unsigned)sim_op_can(run->op[i]) << i;
        /* Time passes when everybody waits for it. */
    } while (!enabled && sim_pass_time(run->world));
    return enabled;
}

void ex_run_step(struct ex_run *run, unsigned task)
{
    run->begun[task] = true;
    run->at[task] = sim_op_step(run->op[task]);
    const struct sc_verdict *v = sc_sim_stage.verdict(run->op[task]);
    if (run->at[task] == SC_OP_ENDED && *v->broken)
        snprintf(run->broken, sizeof(run->broken), "%s: %s", run->recipe->task[task], v->broken);
}

/* What another task's step has done for it, it sees in a step of its own. */
int ex_run_at(const struct ex_run *run, unsigned task)
{
    if (!run->begun[task])
        return EX_AT_START;
    return run->at[task] == SC_OP_ENDED     ? EX_AT_END
           : run->at[task] == SC_OP_STOPPED ? sched_point_find(sc_sim_stage.where(run->op[task]))
                                            : EX_AT_WAIT;
}

const char *ex_label(int at)
{
    return at == EX_AT_START ? "start" : at == EX_AT_END ? "end" : at == EX_AT_WAIT ? "waits" : sched_points[at].label;
}

const struct sc_verdict *ex_run_verdict(const struct ex_run *run, unsigned task)
{
    return sc_sim_stage.verdict(run->op[task]);
}

const char *ex_run_broken(const struct ex_run *run)
{
    return *run->broken ? run->broken : NULL;
}

static void put_page(struct sc_text *t, struct sc_sim *w, uint64_t page)
{
    struct page_report r;

    gmem_page_report(w->file[0].gmem, page, &r);
    sc_put(t, "%spage %llu %s%s%s ref %llu map %llu", t->len ? "; " : "", (unsigned long long)page,
           r.private ? "private" : "shared", r.none ? " NONE_SHARED" : "", r.allocated ? "" : " hole",
           (unsigned long long)r.refcount, (unsigned long long)r.mapcount);
}

static bool about(const struct ex_recipe *r, uint64_t page)
{
    for (unsigned i = 0; i < r->nr_tasks; i++)
        if (page >= r->first[i] && page < r->past[i])
            return true;
    return false;
}

void ex_run_state(struct ex_run *run, char *text, size_t size, sc_report_fn *report, void *ctx)
{
    const struct ex_recipe *r = run->recipe;
    struct sc_text t = {text, size, 0};
    char stuck[300];
    struct sc_text s = {stuck, sizeof(stuck), 0};
    unsigned pages = 0;

    text[0] = stuck[0] = '\0';
    for (unsigned i = 0; i < r->nr_tasks; i++) {
        const struct sc_verdict *v = ex_run_verdict(run, i);
        if (run->at[i] == SC_OP_ENDED)
            sc_put(&t, "%s%s %s", t.len ? "; " : "", r->task[i], v->word);
        else
            sc_put(&t, "%s%s waits", t.len ? "; " : "", r->task[i]);
        if (run->at[i] == SC_OP_ENDED && v->nr_bytes)
            sc_put(&t, " \"%.*s\"", (int)v->nr_bytes, v->bytes);
        if (run->at[i] != SC_OP_ENDED)
            sc_put(&s, "%s%s waits for ever, after %s", s.len ? ", " : "", r->task[i], sc_sim_stage.where(run->op[i]));
    }
    for (uint64_t page = 0; page < r->world.pages && pages < EX_MAX_PAGES && run->world->nr_files; page++) {
        if (!about(r, page))
            continue;
        put_page(&t, run->world, page);
        pages++;
    }
    if (s.len)
        report(ctx, stuck);
    sc_sim_stage.audit(run->world, report, ctx);
}
