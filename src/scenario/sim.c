/* SPDX-License-Identifier: BSD-2-Clause */
/* The simulated stage: worlds, and calls as tasks of the machine's scheduler, which stop where the script says. */
#include "src/scenario/recording.h"
#include "src/scenario/sim_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BYTES (UINT64_C(64) << 20)
#define SMALL_RAM_BYTES (UINT64_C(16) << 20)
#define SMALL_TRACE 256u
/* Turns after which a task that polls is taken for one that waits. */
#define MAX_TURNS 200000u
#define SETTLE_TURNS 2000u
/* The same for one step of an exploration. */
#define POLLS 8u
/* The last events of a page that are told when something is wrong with it. */
#define HISTORY_LINES 20u

struct sc_op {
    struct sc_sim *w;
    struct sc_call call;
    struct sc_verdict verdict;
    struct task *task;    /* NULL: not begun, or ended */
    struct task *stopped; /* the task of it that stands at a point */
    const char *stop;     /* where it is to stop, NULL nowhere */
    char stop_label[48], label[48];
    unsigned cpu; /* of its process when it was started */
    bool ended;
    bool each;   /* it stops at each point, and its tasks run in sim_op_step() only */
    bool polled; /* its last step came to nothing: it waits for another's */
    void (*fn)(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v);
    struct sc_op *next;
};

static void (*const verb_fn[SC_NR_VERBS])(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v) = {
#define X(actor, name, sig, say, result, stage, live, meaning) [SC_##actor##_##name] = sim_##actor##_##name,
    SC_VERBS(X)
#undef X
};

/* ---- tasks ------------------------------------------------------------------------------------------------------ */

static struct sc_op *op_of(const struct sc_sim *w, const struct task *task)
{
    for (struct sc_op *op = w->ops; op; op = op->next)
        if (op->task == task)
            return op;
    for (unsigned i = 0; i < w->nr_vms; i++)
        for (unsigned j = 0; j < w->vm[i].nr_vcpus; j++)
            if (w->vm[i].vcpu[j].thread == task || w->vm[i].vcpu[j].insn_task == task)
                return w->vm[i].vcpu[j].op;
    return NULL;
}

struct sc_op *sim_op_now(struct sc_sim *w)
{
    return op_of(w, task_current());
}

static void at_point(void *ctx, struct task *task, const char *label)
{
    struct sc_op *op = op_of(ctx, task);

    sim_storm_point(ctx, label);
    if (!op)
        return;
    snprintf(op->label, sizeof(op->label), "%s", label);
    /* EL2's own window is not one for another call to EL2. */
    if (op->each && !op->stopped && strncmp(label, "s2:", 3)) {
        op->stopped = task;
        task_pause();
        return;
    }
    if (!op->stop || strcmp(op->stop, label))
        return;
    op->stop = NULL;
    op->stopped = task;
    task_pause();
}

static uint64_t now(void *ctx)
{
    const struct sc_sim *w = ctx;
    return w->now;
}

/* One turn, or a jump of the clock: false when everybody waits for ever. */
static bool turn(struct sc_sim *w)
{
    struct sched *s = machine_sched(w->machine);

    if (sched_has_runnable(s)) {
        sched_run(s, 1);
        return true;
    }
    uint64_t next = sched_next_deadline(s);
    if (next == SCHED_FOREVER)
        return false;
    if (next > w->now)
        w->now = next;
    sched_fire_timers(s);
    return true;
}

/* Lets the others do what they can without time passing. */
static void settle(struct sc_sim *w)
{
    struct sched *s = machine_sched(w->machine);
    for (unsigned i = 0; i < SETTLE_TURNS && sched_has_runnable(s); i++)
        sched_run(s, 1);
}

/* What a process says is for the model to refuse; who looks at a page must name one that there is. */
static bool names_no_page(struct sc_op *op)
{
    enum sc_actor actor = sc_verbs[op->call.verb].actor;
    struct sc_param params[SC_ARGS];
    unsigned nr = sc_params(op->call.verb, params);

    if (op->fn != verb_fn[op->call.verb] ||
        (actor != SC_FILE && actor != SC_KERN && actor != SC_HYP && actor != SC_WORLD))
        return false;
    for (unsigned i = 0; i < nr; i++) {
        int64_t page = op->call.arg[i].n;
        if (strcmp(params[i].name, "page") || (page >= 0 && (uint64_t)page < op->w->config.pages))
            continue;
        sc_broken(&op->verdict, "the file has no page %lld", (long long)page);
        return true;
    }
    return false;
}

static void op_task(void *arg)
{
    struct sc_op *op = arg;
    sched_set_cpu(op->cpu);
    if (!names_no_page(op))
        op->fn(op->w, &op->call, &op->verdict);
    op->ended = true;
    op->task = NULL;
}

static enum sc_progress run(struct sc_op *op)
{
    for (unsigned i = 0; i < MAX_TURNS && !op->ended && !op->stopped; i++)
        if (!turn(op->w))
            break;
    enum sc_progress end = op->ended ? SC_OP_ENDED : op->stopped ? SC_OP_STOPPED : SC_OP_WAITS;
    settle(op->w);
    return end;
}

static enum sc_progress sim_go(struct sc_op *op, const char *label)
{
    if (op->ended)
        return SC_OP_ENDED;
    op->stop = NULL;
    if (label) {
        snprintf(op->stop_label, sizeof(op->stop_label), "%s", label);
        op->stop = op->stop_label;
    }
    if (op->stopped) {
        struct task *task = op->stopped;
        op->stopped = NULL;
        task_resume(task);
    } else if (!op->task) {
        op->task = task_spawn(machine_sched(op->w->machine), sc_verbs[op->call.verb].name, op_task, op);
        if (!op->task) {
            sc_broken(&op->verdict, "no memory for a task");
            op->ended = true;
        }
    }
    return run(op);
}

static struct sc_op *op_new(struct sc_sim *w, const struct sc_call *call)
{
    struct sc_op *op = calloc(1, sizeof(*op));
    if (!op)
        return NULL;
    op->w = w;
    op->call = *call;
    op->fn = verb_fn[call->verb];
    if (sc_verbs[call->verb].actor == SC_PROCESS)
        op->cpu = w->process[call->self].cpu;
    op->next = w->ops;
    w->ops = op;
    return op;
}

static void op_free(struct sc_op *op)
{
    struct sc_op **at = &op->w->ops;
    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
    /* A vCPU's thread that still turns does so for nobody. */
    for (unsigned i = 0; i < op->w->nr_vms; i++)
        for (unsigned j = 0; j < op->w->vm[i].nr_vcpus; j++)
            if (op->w->vm[i].vcpu[j].op == op)
                op->w->vm[i].vcpu[j].op = NULL;
    free(op);
}

/* ---- step by step ----------------------------------------------------------------------------------------------- */

/* The first task that can run and is the call's, or, without one, nobody's that is explored. */
static struct task *runnable_of(const struct sc_sim *w, const struct sc_op *op)
{
    const struct sched *s = machine_sched(w->machine);

    for (struct task *t = NULL; (t = sched_next_runnable(s, t));) {
        const struct sc_op *owner = op_of(w, t);
        if (op ? owner == op : !(owner && owner->each))
            return t;
    }
    return NULL;
}

/* What belongs to no call, as the kernel's own work, goes on at once. */
static void run_others(struct sc_sim *w)
{
    struct task *t;
    for (unsigned i = 0; i < SETTLE_TURNS && (t = runnable_of(w, NULL)); i++)
        sched_run_task(machine_sched(w->machine), t);
}

bool sim_op_can(const struct sc_op *op)
{
    return !op->ended && !op->polled && (op->stopped || !op->each || runnable_of(op->w, op));
}

enum sc_progress sim_op_step(struct sc_op *op)
{
    struct sc_sim *w = op->w;
    struct task *t;
    bool begun = op->each;

    op->each = true;
    if (op->stopped) {
        t = op->stopped;
        op->stopped = NULL;
        task_resume(t);
    } else if (!begun) {
        op->task = task_spawn(machine_sched(w->machine), sc_verbs[op->call.verb].name, op_task, op);
        if (!op->task) {
            sc_broken(&op->verdict, "no memory for a task");
            op->ended = true;
        }
    }
    unsigned turns = 0;
    while (!op->ended && !op->stopped && turns++ < POLLS && (t = runnable_of(w, op)))
        sched_run_task(machine_sched(w->machine), t);
    run_others(w);
    for (struct sc_op *other = w->ops; other; other = other->next)
        other->polled = false;
    op->polled = turns > POLLS;
    return op->ended ? SC_OP_ENDED : op->stopped ? SC_OP_STOPPED : SC_OP_WAITS;
}

bool sim_pass_time(struct sc_sim *w)
{
    struct sched *s = machine_sched(w->machine);
    uint64_t next = sched_next_deadline(s);

    if (next == SCHED_FOREVER)
        return false;
    if (next > w->now)
        w->now = next;
    sched_fire_timers(s);
    run_others(w);
    return true;
}

static struct sc_op *sim_start(void *world, const struct sc_call *call, char *why, size_t size)
{
    struct sc_op *op = op_new(world, call);
    if (!op)
        snprintf(why, size, "no memory");
    return op;
}

static const char *sim_where(const struct sc_op *op)
{
    return op->label;
}

static const struct sc_verdict *sim_verdict(const struct sc_op *op)
{
    return &op->verdict;
}

/* Where the calls stand that have not ended. */
static void describe_waiting(const struct sc_sim *w, char *buf, size_t size)
{
    size_t len = 0;
    buf[0] = '\0';
    for (const struct sc_op *op = w->ops; op && len < size; op = op->next) {
        if (op->ended || !(op->task || op->stopped))
            continue;
        int n = snprintf(buf + len, size - len, "%s%s %s %s", len ? ", " : "", sc_verbs[op->call.verb].name,
                         op->stopped ? "is stopped at" : "waits after", *op->label ? op->label : "its start");
        len += n > 0 ? (size_t)n : 0;
    }
}

static void sim_perform(void *world, const struct sc_call *call, struct sc_verdict *verdict)
{
    struct sc_sim *w = world;
    struct sc_op *op = op_new(w, call);

    memset(verdict, 0, sizeof(*verdict));
    if (!op) {
        sc_broken(verdict, "no memory");
        return;
    }
    enum sc_progress end = sim_go(op, NULL);
    if (end == SC_OP_ENDED) {
        *verdict = op->verdict;
        op_free(op);
        return;
    }
    /* It stays among the started ones: it ends, perhaps, when they go on. */
    char text[120];
    describe_waiting(w, text, sizeof(text));
    sc_broken(verdict, "it waits for ever: %s", text);
}

/* Runs fn in a task to its end: false when it waits for ever. */
static bool in_task(struct sc_sim *w, void (*fn)(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v),
                    struct sc_verdict *verdict)
{
    struct sc_op *op = op_new(w, &(struct sc_call){.self = 0});
    if (!op)
        return false;
    op->fn = fn;
    bool ended = sim_go(op, NULL) == SC_OP_ENDED;
    if (verdict)
        *verdict = op->verdict;
    if (ended)
        op_free(op);
    return ended;
}

/* ---- worlds ----------------------------------------------------------------------------------------------------- */

static void on_log(void *ctx, int level, const char *text)
{
    struct sc_sim *w = ctx;
    if (level == 0 && !*w->log)
        snprintf(w->log, sizeof(w->log), "%s", text);
}

struct vm_config sim_vm_config(const struct sc_sim *w)
{
    const struct sc_world_config *c = &w->config;
    return (struct vm_config){
        .name = "scenario",
        .is_protected = !c->unprotected,
        .unshare_mode = c->unilateral,
        .policy = (enum gmem_policy_id)w->variant[VARIANT_POLICY],
        .tracker = (enum gmem_tracker_id)w->variant[VARIANT_TRACKER],
        .hyp = (enum gmem_hyp_id)w->variant[VARIANT_HYP],
        .abi = c->abi,
        .ask_hyp = c->ask_hyp,
        .rfc_library = c->rfc_library,
        .bugs = w->bugs,
    };
}

static int build_vm(struct sc_sim *w, struct caller *caller)
{
    const struct sc_world_config *c = &w->config;
    const struct vm_config config = sim_vm_config(w);

    struct sim_vm *vm = &w->vm[0];
    uint64_t bytes = c->pages * HOST_PAGE_SIZE;
    int rc = vm_create(machine_host(w->machine), &config, &vm->vm, caller);
    for (; !rc && vm->nr_vcpus < c->vcpus; vm->nr_vcpus++)
        rc = vcpu_create(vm->vm, vm->nr_vcpus, &vm->vcpu[vm->nr_vcpus].vcpu, caller);
    w->nr_vms = 1;
    if (!rc)
        rc = gmem_create(vm->vm, bytes, c->flags, &w->file[0].gmem, caller);
    if (!rc && c->order)
        rc = gmem_set_order(w->file[0].gmem, c->order);
    if (!rc) {
        w->nr_files = 1;
        rc = vm_set_memory_region(vm->vm, 0, 0, 0, bytes, w->file[0].gmem, 0, caller);
    }
    if (!rc)
        rc = sim_guest_start(w->sim, vm->vm);
    if (!rc && !sim_vm_threads(w, 0))
        rc = -ENOMEM;
    return rc;
}

static void build(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    int vmm = sim_add_process(w, "vmm", v);
    (void)c;
    if (vmm < 0)
        return;
    struct caller *caller = &w->process[vmm].caller;
    int rc = build_vm(w, caller);
    if (!rc && w->config.flags & GUEST_MEMFD_FLAG_MMAP) {
        uint64_t va;
        rc = mm_map(w->process[vmm].mm, w->file[0].gmem, 0, w->config.pages * HOST_PAGE_SIZE, &va, caller);
        int view = rc ? -1 : sim_add_view(w, vmm, 0, 0, w->config.pages, v);
        if (view >= 0)
            w->view[view].va = va;
    }
    if (!rc && w->config.private_) {
        const struct gmem_attributes2 all = {.size = w->config.pages * HOST_PAGE_SIZE,
                                             .attributes = KVM_MEMORY_ATTRIBUTE_PRIVATE};
        sim_convert(w, &w->process[vmm], w->file[0].gmem, &all, v);
        rc = v->rc;
    }
    if (rc)
        sc_broken(v, "%s", *caller->message ? caller->message : strerror(-rc));
}

static bool choose_variants(struct sc_sim *w, char *why, size_t size)
{
    const char *const names[VARIANT_BUG] = {w->config.setting.policy, w->config.setting.tracker, w->config.setting.hyp};

    for (unsigned kind = 0; kind < VARIANT_BUG; kind++) {
        w->variant[kind] = variant_find((enum variant_kind)kind, names[kind], why, size);
        if (w->variant[kind] < 0)
            return false;
    }
    return !variant_bugs(w->config.bugs, &w->bugs, why, size);
}

static void sim_world_free(void *world, sc_report_fn *report, void *ctx);

static void drop_report(void *ctx, const char *text)
{
    (void)ctx;
    (void)text;
}

static void *sim_world_new(const struct sc_world_config *config, char *why, size_t size)
{
    struct sc_sim *w = calloc(1, sizeof(*w));
    struct sc_verdict verdict;
    if (!w || !(w->sim = sim_new())) {
        free(w);
        snprintf(why, size, "no memory");
        return NULL;
    }
    w->config = *config;
    w->follow = config->follow;
    if (!choose_variants(w, why, size)) {
        sim_free(w->sim);
        free(w);
        return NULL;
    }
    if (config->trace && !(w->trace = recording_new())) {
        snprintf(why, size, "no memory for the trace");
        sim_free(w->sim);
        free(w);
        return NULL;
    }
    const struct machine_config machine = {
        .stage = &sim_stage_ops,
        .stage_ctx = w->sim,
        .memory_bytes = config->small ? SMALL_RAM_BYTES : RAM_BYTES,
        .trace_events = config->small ? SMALL_TRACE : 0,
        .sched = {.ctx = w, .now = now, .point = at_point},
        .log = on_log,
        .log_ctx = w,
        .oracle = MACHINE_ORACLE_ON,
        .trace_file = w->trace,
    };
    int rc = machine_new(&machine, &w->machine);
    if (rc) {
        snprintf(why, size, "the machine did not start: %s", strerror(-rc));
        recording_end(w->trace, NULL);
        sim_free(w->sim);
        free(w);
        return NULL;
    }
    sim_attach(w->sim, w->machine);
    if (in_task(w, build, &verdict) && !*verdict.broken)
        return w;
    snprintf(why, size, "%s", *verdict.broken ? verdict.broken : "the world could not be built");
    sim_world_free(w, drop_report, NULL);
    return NULL;
}

/* What was started is let go, and what still waits is told that its process has died. */
static bool end_ops(struct sc_sim *w)
{
    bool all = true;
    for (struct sc_op *op = w->ops, *next; op; op = next) {
        next = op->next;
        op->each = false;
        if (op->task || op->stopped) {
            enum sc_progress end = sim_go(op, NULL);
            if (end != SC_OP_ENDED && op->task) {
                task_cancel(op->task);
                run(op);
            }
            if (!op->ended) {
                all = false;
                continue;
            }
        }
        op_free(op);
    }
    return all;
}

static void take_apart(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    (void)c;
    for (unsigned i = 0; i < w->nr_grabs; i++)
        if (w->grab[i].ref)
            library_put(w->grab[i].ref, w->grab[i].accessible);
    for (unsigned i = 0; i < w->nr_pins; i++)
        if (w->pin[i].ref)
            gmem_unpin(w->pin[i].ref);
    for (unsigned i = 0; i < w->nr_pipes; i++)
        pipe_free(w->pipe[i]);
    sim_model_end(w);
    for (unsigned i = 0; i < w->nr_vms; i++) {
        struct caller caller = {.program = "scenario"};
        int rc = w->vm[i].vm ? vm_destroy(w->vm[i].vm, &caller) : 0;
        if (rc)
            sc_broken(v, "VM %u is not destroyed: %s %s", i, strerrorname_np(-rc), caller.message);
        sim_vm_join(w, (int)i);
    }
    for (unsigned i = 0; i < w->nr_processes; i++)
        if (w->process[i].mm)
            mm_free(w->process[i].mm);
    for (unsigned i = 0; i < w->nr_files; i++)
        if (w->file[i].gmem)
            gmem_put(w->file[i].gmem);
}

static void sim_audit(void *world, sc_report_fn *report, void *ctx);

static void look_for_leaks(struct sc_sim *w, sc_report_fn *report, void *ctx)
{
    struct host_counts counts;
    char text[160];

    /* What a dead hypervisor has is lost, as the script has seen. */
    if (machine_panicked(w->machine))
        return;
    sim_audit(w, report, ctx);
    host_counts(machine_host(w->machine), &counts);
    if (!(counts.vms + counts.gmems + counts.pins + counts.ram_frames + counts.data_frames +
          machine_el2_pages(w->machine)))
        return;
    snprintf(text, sizeof(text),
             "left after the end: %zu VMs, %zu guest_memfds, %zu pins, %llu frames of the kernel, %llu of guests, "
             "%llu with EL2",
             counts.vms, counts.gmems, counts.pins, (unsigned long long)counts.ram_frames,
             (unsigned long long)counts.data_frames, (unsigned long long)machine_el2_pages(w->machine));
    report(ctx, text);
}

static void sim_world_free(void *world, sc_report_fn *report, void *ctx)
{
    struct sc_sim *w = world;
    struct sc_verdict verdict = {.rc = 0};

    if (end_ops(w) && in_task(w, take_apart, &verdict) && !*verdict.broken) {
        look_for_leaks(w, report, ctx);
        if (!sched_nr_tasks(machine_sched(w->machine))) {
            machine_free(w->machine);
            recording_end(w->trace, w->config.trace);
            sim_free(w->sim);
            free(w);
            return;
        }
    }
    trace_end(machine_trace(w->machine));
    recording_end(w->trace, w->config.trace);
    /* A machine whose tasks never end cannot be freed: it stays behind. */
    static struct sc_sim *abandoned[64];
    static unsigned nr_abandoned;
    char text[300], waiting[200];
    describe_waiting(w, waiting, sizeof(waiting));
    snprintf(text, sizeof(text), "the world does not end: %s", *verdict.broken ? verdict.broken : waiting);
    report(ctx, text);
    if (nr_abandoned < sizeof(abandoned) / sizeof(abandoned[0]))
        abandoned[nr_abandoned++] = w;
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

static void sim_audit(void *world, sc_report_fn *report, void *ctx)
{
    struct sc_sim *w = world;

    machine_audit(w->machine, report, ctx, NULL);
    if (*w->log) {
        report(ctx, w->log);
        w->log[0] = '\0';
    }
}

/* An event of the page, or of a range that has it. */
static bool about_page(const struct host_event *e, uint32_t file, uint64_t at)
{
    return e->size && (!e->gmem || e->gmem == file) && at >= e->offset && at - e->offset < e->size;
}

static void sim_history(void *world, int file, uint64_t page, sc_report_fn *report, void *ctx)
{
    struct sc_sim *w = world;
    const struct trace *t = machine_trace(w->machine);
    const struct trace_entry *e;
    unsigned nr = 0;

    if (file < 0 || (unsigned)file >= w->nr_files)
        return;
    for (uint64_t seq = 1; (e = trace_get(t, seq)); seq = e->seq + 1)
        nr += about_page(&e->event, gmem_id(w->file[file].gmem), page * SC_PAGE);
    for (uint64_t seq = 1; (e = trace_get(t, seq)); seq = e->seq + 1) {
        char words[300], line[360];
        if (!about_page(&e->event, gmem_id(w->file[file].gmem), page * SC_PAGE) || nr-- > HISTORY_LINES)
            continue;
        trace_describe(e, words, sizeof(words));
        snprintf(line, sizeof(line), "%4llu  %8.3f ms  %s", (unsigned long long)e->seq, (double)e->t_ns / 1e6, words);
        report(ctx, line);
    }
}

const struct sc_stage sc_sim_stage = {
    .name = "sim",
    .world_new = sim_world_new,
    .world_free = sim_world_free,
    .perform = sim_perform,
    .start = sim_start,
    .go = sim_go,
    .where = sim_where,
    .verdict = sim_verdict,
    .audit = sim_audit,
    .history = sim_history,
};
