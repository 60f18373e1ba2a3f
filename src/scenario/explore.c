/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The search: depth first over the choices of who goes on, each schedule from
 * the beginning.
 *
 * With a bound only schedules with so many preemptions are run: a change to
 * another task while the one before could have gone on.  Without one, sleep
 * sets leave out what differs from a schedule that was run in nothing but the
 * order of independent steps.  The two are not combined: of the schedules that
 * are the same, the one within the bound may be the one that would be left out.
 */
#include "src/scenario/explore.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The steps after which the tree is cut into subtrees that shards are dealt. */
#define SHARD_DEPTH 5u
#define NOTHING UINT32_MAX

struct node {
    uint8_t enabled, sleep, done;
    uint8_t chosen, last; /* last: who has come here; EX_MAX_TASKS at the root */
    uint8_t preemptions;  /* on the way here */
    int16_t from[EX_MAX_TASKS];
    int16_t to[EX_MAX_TASKS]; /* of those in sleep or done */
};

struct step {
    uint8_t task;
    int16_t to;
};

struct search {
    const struct ex_recipe *recipe;
    const struct ex_options *options;
    ex_judge_fn *judge;
    void *ctx;
    struct ex_result *result;
    unsigned depth; /* nodes that stand */
    struct node node[EX_MAX_DEPTH];
    struct step step[EX_MAX_DEPTH];
    uint64_t subtrees;
    uint32_t best_preemptions, best_labels;
    struct timespec began;
    double told;
};

static double seconds_since(const struct timespec *t)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

/* ---- schedules as labels ---------------------------------------------------------------------------------------- */

/*
 * A task that goes on past several points is named once, with the last of
 * them; where it has passed a label of that name before, with each.
 */
static unsigned write_labels(const struct ex_recipe *r, const struct step *step, unsigned nr, char *buf, size_t size)
{
    unsigned labels = 0;
    size_t len = 0;

    buf[0] = '\0';
    for (unsigned i = 0, past; i < nr; i = past) {
        bool twice = false;
        for (past = i + 1; past < nr && step[past].task == step[i].task;)
            past++;
        for (unsigned j = i; j + 1 < past; j++)
            twice |= step[j].to == step[past - 1].to;
        for (unsigned j = twice ? i : past - 1; j < past; j++) {
            int n =
                snprintf(buf + len, size - len, "%s%s@%s", len ? " " : "", r->task[step[j].task], ex_label(step[j].to));
            len = len + (size_t)n < size ? len + (size_t)n : size - 1;
            labels++;
        }
    }
    return labels;
}

/* ---- ends of schedules ------------------------------------------------------------------------------------------ */

struct first_words {
    char *buf;
    size_t size;
};

static void first_report(void *ctx, const char *text)
{
    struct first_words *w = ctx;
    if (!*w->buf)
        snprintf(w->buf, w->size, "%s", text);
}

static struct ex_state *state_of(struct search *s, const struct ex_state *end)
{
    struct ex_result *r = s->result;
    size_t i = 0;

    for (; i < r->nr_states; i++) {
        int order = strcmp(r->states[i].text, end->text);
        if (!order)
            return &r->states[i];
        if (order > 0)
            break;
    }
    struct ex_state *states = realloc(r->states, (r->nr_states + 1) * sizeof(*states));
    if (!states) {
        snprintf(r->broken, sizeof(r->broken), "no memory for a final state");
        return NULL;
    }
    r->states = states;
    memmove(&states[i + 1], &states[i], (r->nr_states - i) * sizeof(*states));
    states[i] = *end;
    r->nr_states++;
    if (!*states[i].violation && s->judge)
        s->judge(s->ctx, &states[i], states[i].violation, sizeof(states[i].violation));
    return &states[i];
}

static void look(const struct ex_recipe *recipe, struct ex_run *run, struct ex_state *end)
{
    struct first_words first = {end->violation, sizeof(end->violation)};

    *end = (struct ex_state){.schedules = 0};
    ex_run_state(run, end->text, sizeof(end->text), first_report, &first);
    for (unsigned i = 0; i < recipe->nr_tasks; i++)
        snprintf(end->word[i], sizeof(end->word[i]), "%s",
                 ex_run_at(run, i) == EX_AT_END ? ex_run_verdict(run, i)->word : "waits");
}

/* The run is over, and freed: what was found counts for its final state. */
static void finish(struct search *s, struct ex_run *run, unsigned nr, unsigned preemptions)
{
    struct ex_result *r = s->result;
    struct ex_state end;

    look(s->recipe, run, &end);
    struct first_words left = {end.violation, sizeof(end.violation)};
    ex_run_free(run, first_report, &left);
    if (*end.violation) {
        size_t len = strlen(end.text);
        snprintf(end.text + len, sizeof(end.text) - len, "; %s", end.violation);
    }
    struct ex_state *state = state_of(s, &end);
    r->schedules++;
    if (!state)
        return;
    state->schedules++;
    if (!*state->violation)
        return;
    r->failing++;
    char labels[EX_LABELS_TEXT];
    unsigned n = write_labels(s->recipe, s->step, nr, labels, sizeof(labels));
    if (preemptions > s->best_preemptions || (preemptions == s->best_preemptions && n >= s->best_labels))
        return;
    s->best_preemptions = preemptions;
    s->best_labels = r->nr_labels = n;
    snprintf(r->labels, sizeof(r->labels), "%s", labels);
    snprintf(r->violation, sizeof(r->violation), "%s", state->violation);
}

/* ---- depth first ------------------------------------------------------------------------------------------------ */

static unsigned cost(const struct node *n, unsigned task)
{
    return n->last < EX_MAX_TASKS && task != n->last && n->enabled >> n->last & 1;
}

static bool may(const struct search *s, const struct node *n, unsigned task)
{
    int bound = s->options->bound;
    return n->enabled & ~n->sleep & ~n->done & 1u << task &&
           (bound < 0 || n->preemptions + cost(n, task) <= (unsigned)bound);
}

/* The one that has come here goes on if it may, else the first: EX_MAX_TASKS when there is none. */
static unsigned choose(const struct search *s, const struct node *n)
{
    if (n->last < EX_MAX_TASKS && may(s, n, n->last))
        return n->last;
    for (unsigned i = 0; i < s->recipe->nr_tasks; i++)
        if (may(s, n, i))
            return i;
    return EX_MAX_TASKS;
}

static void new_node(struct search *s, struct ex_run *run, unsigned depth, unsigned enabled)
{
    struct node *n = &s->node[depth];
    const struct node *up = depth ? n - 1 : NULL;

    *n = (struct node){.enabled = (uint8_t)enabled, .last = EX_MAX_TASKS};
    for (unsigned i = 0; i < s->recipe->nr_tasks; i++)
        n->from[i] = (int16_t)ex_run_at(run, i);
    if (!up)
        return;
    n->last = up->chosen;
    n->preemptions = (uint8_t)(up->preemptions + cost(up, up->chosen));
    if (!s->options->reduce)
        return;
    const struct ex_step chosen = {up->chosen, up->from[up->chosen], n->from[up->chosen]};
    for (unsigned i = 0; i < s->recipe->nr_tasks; i++) {
        if (i == up->chosen || !((up->sleep | up->done) >> i & 1) ||
            !ex_independent(s->recipe, chosen, (struct ex_step){i, up->from[i], up->to[i]}))
            continue;
        n->sleep |= (uint8_t)(1u << i);
        n->to[i] = up->to[i];
    }
}

static bool break_off(struct search *s, struct ex_run *run, const char *why)
{
    struct first_words first = {(char[320]){""}, 320};
    if (why)
        snprintf(s->result->broken, sizeof(s->result->broken), "%s", why);
    ex_run_free(run, first_report, &first);
    return !why;
}

/* One schedule: what stands of the nodes, then new ones.  False when the search is over. */
static bool run_one(struct search *s)
{
    struct ex_result *r = s->result;
    struct ex_run *run = ex_run_new(s->recipe, r->broken, sizeof(r->broken));
    unsigned d = 0, enabled, preemptions = 0;

    if (!run)
        return false;
    for (; (enabled = ex_run_enabled(run)); d++) {
        if (d == EX_MAX_DEPTH)
            return break_off(s, run, "a schedule has more steps than can be explored");
        struct node *n = &s->node[d];
        if (d == s->depth) {
            new_node(s, run, d, enabled);
            if (d == SHARD_DEPTH && s->subtrees++ % s->options->shards != s->options->shard - 1)
                return break_off(s, run, NULL);
            unsigned next = choose(s, n);
            if (next == EX_MAX_TASKS) {
                r->pruned++;
                return break_off(s, run, NULL);
            }
            n->chosen = (uint8_t)next;
            s->depth++;
        } else if (n->enabled != enabled) {
            return break_off(s, run,
                             "the same schedule has gone another way: something in the world is not determined");
        }
        preemptions = n->preemptions + cost(n, n->chosen);
        ex_run_step(run, n->chosen);
        r->steps++;
        n->to[n->chosen] = (int16_t)ex_run_at(run, n->chosen);
        s->step[d] = (struct step){n->chosen, n->to[n->chosen]};
    }
    if (ex_run_broken(run))
        return break_off(s, run, ex_run_broken(run));
    if (d <= SHARD_DEPTH && s->subtrees++ % s->options->shards != s->options->shard - 1)
        return break_off(s, run, NULL);
    finish(s, run, d, preemptions);
    return !*r->broken;
}

/* To the deepest node that has another choice. */
static bool backtrack(struct search *s)
{
    for (; s->depth; s->depth--) {
        struct node *n = &s->node[s->depth - 1];
        n->done |= (uint8_t)(1u << n->chosen);
        unsigned next = choose(s, n);
        if (next == EX_MAX_TASKS)
            continue;
        n->chosen = (uint8_t)next;
        return true;
    }
    return false;
}

/* How much of the tree lies behind, were all branches of a node of the same size. */
static double part_done(const struct search *s)
{
    double part = 0, whole = 1;

    for (unsigned d = 0; d < s->depth; d++) {
        const struct node *n = &s->node[d];
        unsigned open = (unsigned)__builtin_popcount(n->enabled & ~n->sleep);
        whole /= open;
        part += whole * __builtin_popcount(n->done);
    }
    return part;
}

static void progress(struct search *s)
{
    double now;

    if (!s->options->progress || s->result->schedules % 64 || (now = seconds_since(&s->began)) < s->told + 1)
        return;
    double part = part_done(s);
    s->told = now;
    fprintf(s->options->progress, "%s: %llu schedules, %.0f a second, about %.1f %% done, %.0f s to go\n",
            s->recipe->name, (unsigned long long)s->result->schedules, (double)s->result->schedules / now, 100 * part,
            part > 0 ? now / part - now : 0);
}

static void search(const struct ex_recipe *recipe, const struct ex_options *options, ex_judge_fn *judge, void *ctx,
                   struct ex_result *result)
{
    struct search *s = calloc(1, sizeof(*s));

    *result = (struct ex_result){.schedules = 0};
    if (!s) {
        snprintf(result->broken, sizeof(result->broken), "no memory for the search");
        return;
    }
    s->recipe = recipe;
    s->options = options;
    s->judge = judge;
    s->ctx = ctx;
    s->result = result;
    s->best_preemptions = s->best_labels = NOTHING;
    clock_gettime(CLOCK_MONOTONIC, &s->began);
    do {
        if (!run_one(s))
            break;
        progress(s);
    } while (backtrack(s));
    result->seconds = seconds_since(&s->began);
    free(s);
}

/* The schedule with the fewest preemptions may be one that the reduction has left out. */
static void shorten(const struct ex_recipe *recipe, ex_judge_fn *judge, void *ctx, struct ex_result *result)
{
    struct ex_result few = {.failing = 0};
    struct ex_options options = {.shard = 1, .shards = 1};

    while (!few.failing && !*few.broken) {
        ex_result_free(&few);
        search(recipe, &options, judge, ctx, &few);
        options.bound++;
    }
    if (few.failing) {
        memcpy(result->labels, few.labels, sizeof(result->labels));
        memcpy(result->violation, few.violation, sizeof(result->violation));
        result->nr_labels = few.nr_labels;
    }
    ex_result_free(&few);
}

void ex_explore(const struct ex_recipe *recipe, const struct ex_options *options, ex_judge_fn *judge, void *ctx,
                struct ex_result *result)
{
    struct ex_options o = *options;

    o.reduce &= o.bound < 0;
    search(recipe, &o, judge, ctx, result);
    if (o.reduce && result->failing && !*result->broken)
        shorten(recipe, judge, ctx, result);
}

void ex_result_free(struct ex_result *result)
{
    free(result->states);
    *result = (struct ex_result){.schedules = 0};
}

/* ---- replay ----------------------------------------------------------------------------------------------------- */

static int task_named(const struct ex_recipe *r, const char *name, size_t len)
{
    for (unsigned i = 0; i < r->nr_tasks; i++)
        if (strlen(r->task[i]) == len && !strncmp(r->task[i], name, len))
            return (int)i;
    return -1;
}

struct replay {
    struct search s;
    struct ex_run *run;
    unsigned nr;
    ex_step_fn *step;
};

static bool take_step(struct replay *p, unsigned task)
{
    if (p->nr == EX_MAX_DEPTH || !(ex_run_enabled(p->run) >> task & 1))
        return false;
    ex_run_step(p->run, task);
    p->s.step[p->nr++] = (struct step){(uint8_t)task, (int16_t)ex_run_at(p->run, task)};
    p->step(p->s.ctx, p->run, task);
    return true;
}

/* "task@label": false after words in broken. */
static bool take_label(struct replay *p, const char *word, size_t len)
{
    const char *at = memchr(word, '@', len);
    char *broken = p->s.result->broken;
    int task = at ? task_named(p->s.recipe, word, (size_t)(at - word)) : -1;

    if (task < 0) {
        snprintf(broken, 320, "\"%.*s\": a label is TASK@POINT, with a task of the exploration", (int)len, word);
        return false;
    }
    size_t label = len - (size_t)(at + 1 - word);
    for (;;) {
        if (!take_step(p, (unsigned)task)) {
            snprintf(broken, 320, "\"%.*s\": %s stands at %s and cannot go on", (int)len, word, p->s.recipe->task[task],
                     ex_label(ex_run_at(p->run, (unsigned)task)));
            return false;
        }
        const char *now = ex_label(ex_run_at(p->run, (unsigned)task));
        if (strlen(now) == label && !strncmp(now, at + 1, label))
            return true;
    }
}

void ex_replay(const struct ex_recipe *recipe, const char *labels, ex_step_fn *step, ex_judge_fn *judge, void *ctx,
               struct ex_result *result)
{
    const struct ex_options options = {.bound = -1, .shard = 1, .shards = 1};
    struct replay *p = calloc(1, sizeof(*p));

    *result = (struct ex_result){.schedules = 0};
    if (!p) {
        snprintf(result->broken, sizeof(result->broken), "no memory for the replay");
        return;
    }
    p->s = (struct search){.recipe = recipe, .options = &options, .judge = judge, .ctx = ctx, .result = result};
    p->s.best_preemptions = p->s.best_labels = NOTHING;
    p->step = step;
    p->run = ex_run_new(recipe, result->broken, sizeof(result->broken));
    bool ok = p->run;
    for (const char *s = labels; ok && *(s += strspn(s, " "));) {
        size_t len = strcspn(s, " ");
        ok = take_label(p, s, len);
        s += len;
    }
    /* What has not ended by then does, in its order. */
    for (unsigned enabled; ok && (enabled = ex_run_enabled(p->run));)
        ok = take_step(p, (unsigned)__builtin_ctz(enabled));
    if (ok && ex_run_broken(p->run))
        ok = break_off(&p->s, p->run, ex_run_broken(p->run));
    else if (ok)
        finish(&p->s, p->run, p->nr, 0);
    else if (p->run)
        break_off(&p->s, p->run, NULL);
    result->steps = p->nr;
    free(p);
}
