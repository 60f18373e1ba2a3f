/* SPDX-License-Identifier: BSD-2-Clause */
/* The live stage: worlds of real processes, and calls that a daemon's task may be held in. */
#include "src/scenario/live.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

struct sc_op {
    struct sc_live *w;
    struct sc_call call;
    struct sc_verdict verdict;
    uint32_t id; /* of its request; 0: not sent */
    int peer;
    bool ended, held;
    char label[48];
    struct sc_op *next;
};

/* One daemon for all worlds that are open: what one of them does to its host is over with it. */
static struct live_daemon daemon_;
static unsigned nr_worlds;

typedef void runner_fn(struct sc_live *w, const struct sc_call *c, struct sc_verdict *v);

#define FN_LIVE(actor, name) live_##actor##_##name
#define FN_NOT_LIVE(actor, name) NULL
static runner_fn *const runner_verbs[SC_NR_VERBS] = {
#define X(actor, name, sig, say, result, stage, live, meaning) [SC_##actor##_##name] = FN_##stage(actor, name),
    SC_RUNNER_VERBS(X)
#undef X
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- processes -------------------------------------------------------------------------------------------------- */

static _Noreturn void child(const char *name, int sock)
{
    static const int caught[] = {SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGSYS, SIGALRM, SIGPIPE, SIGINT, SIGTERM};
    char daemon[sizeof(daemon_.socket)];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
        signal(caught[i], SIG_DFL);
    snprintf(daemon, sizeof(daemon), "%s", daemon_.socket);
    /* Sockets of other actors, which must end with the runner and not with this process. */
    if (sock != 3 && dup3(sock, 3, O_CLOEXEC) < 0)
        _exit(1);
    close_range(4, ~0u, 0);
    live_actor_main(name, daemon, 3);
}

int live_add_peer(struct sc_live *w, const char *name, struct sc_verdict *v)
{
    struct live_peer *p = &w->peer[w->nr_peers];
    int socks[2];

    if (w->nr_peers == LIVE_MAX_ACTORS || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks)) {
        sc_broken(v, "more than %u processes, or no socket for one", LIVE_MAX_ACTORS);
        return -1;
    }
    const pid_t self = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        if (getppid() != self)
            _exit(1);
        child(name, socks[1]);
    }
    close(socks[1]);
    if (pid < 0) {
        close(socks[0]);
        sc_broken(v, "fork: %s", strerror(errno));
        return -1;
    }
    *p = (struct live_peer){.pid = pid, .sock = socks[0]};
    snprintf(p->name, sizeof(p->name), "%s", name);
    return (int)w->nr_peers++;
}

int live_adopt_peer(struct sc_live *w, const char *name, pid_t pid, int sock, struct sc_verdict *v)
{
    struct live_peer *p = &w->peer[w->nr_peers];

    if (w->nr_peers == LIVE_MAX_ACTORS) {
        close(sock);
        sc_broken(v, "more than %u processes", LIVE_MAX_ACTORS);
        return -1;
    }
    *p = (struct live_peer){.pid = pid, .sock = sock, .forked = true};
    snprintf(p->name, sizeof(p->name), "%s", name);
    return (int)w->nr_peers++;
}

/* The end of its socket is the end of a process that is somebody else's child. */
static void await_end(struct live_peer *p)
{
    struct pollfd pfd = {.fd = p->sock};

    if (poll(&pfd, 1, LIVE_ANSWER_MS) == 0)
        kill(p->pid, SIGKILL);
    close(p->sock);
    p->pid = 0;
}

/* Reaps it, after a signal when it does not end by itself. */
static void reap(struct live_peer *p)
{
    if (!p->pid)
        return;
    if (p->forked) {
        await_end(p);
        return;
    }
    for (unsigned i = 0; waitpid(p->pid, NULL, WNOHANG) == 0; i++) {
        if (i == LIVE_ANSWER_MS)
            kill(p->pid, SIGKILL);
        usleep(1000);
    }
    close(p->sock);
    p->pid = 0;
}

static bool daemon_knows(pid_t pid)
{
    int rc;
    json_t *status = live_query(&daemon_, "status", 0, 0, &rc);
    const json_t *c;
    bool known = false;
    size_t i;

    json_array_foreach(json_object_get(status, "clients"), i, c) known |=
        json_integer_value(json_object_get(c, "pid")) == pid;
    json_decref(status);
    return known;
}

bool live_peer_ended(struct sc_live *w, int peer)
{
    struct live_peer *p = &w->peer[peer];
    pid_t pid = p->pid;
    uint64_t deadline = now_ms() + LIVE_ANSWER_MS;

    reap(p);
    while (daemon_knows(pid)) {
        if (now_ms() > deadline)
            return false;
        usleep(2000);
    }
    return true;
}

/* The runner knows processes by their names. */
static void name_holders(const struct sc_live *w, struct sc_verdict *v)
{
    for (unsigned i = 0; i < v->nr_holders; i++)
        for (unsigned j = 0; j < w->nr_peers; j++)
            if (w->peer[j].pid && atoi(v->holders[i].who) == w->peer[j].pid)
                snprintf(v->holders[i].who, sizeof(v->holders[i].who), "%s", w->peer[j].name);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

static struct sc_op *op_new(struct sc_live *w, const struct sc_call *call)
{
    struct sc_op *op = calloc(1, sizeof(*op));

    if (!op)
        return NULL;
    op->w = w;
    op->call = *call;
    op->peer = sc_verbs[call->verb].actor == SC_PROCESS ? call->self : 0;
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
    free(op);
}

static void op_broken(struct sc_op *op, const char *why)
{
    op->ended = true;
    sc_broken(&op->verdict, "%s", why);
}

static bool send_request(struct sc_op *op, const struct live_request *request)
{
    struct live_peer *p = &op->w->peer[op->peer];
    struct live_request r = *request;

    r.id = op->id = ++op->w->next_id;
    if (p->pid && live_send(p->sock, &r, sizeof(r), r.ask == LIVE_JOIN ? op->w->file_fd : -1))
        return true;
    op_broken(op, "the process has ended");
    return false;
}

/* An answer of a process, to whichever call: false when the process is gone. */
static bool take_answer(struct sc_live *w, struct live_peer *p)
{
    struct live_reply reply;
    int fd;

    if (live_receive(p->sock, &reply, sizeof(reply), &fd, 0) != 1)
        return false;
    reply.verdict.fd = fd;
    for (struct sc_op *op = w->ops; op; op = op->next) {
        if (op->id != reply.id)
            continue;
        fd = -1;
        op->verdict = reply.verdict;
        op->ended = true;
        op->held = false;
        name_holders(w, &op->verdict);
    }
    if (fd >= 0)
        close(fd);
    return true;
}

static bool take_held(struct sc_live *w, struct sc_op *op)
{
    char text[200];
    ssize_t n = recv(w->daemon->points, text, sizeof(text) - 1, MSG_DONTWAIT);

    text[n > 0 ? n : 0] = '\0';
    if (sscanf(text, "held %47s", op->label) != 1)
        return false;
    op->held = true;
    return true;
}

static const struct sc_op *other_held(const struct sc_op *op)
{
    for (const struct sc_op *o = op->w->ops; o; o = o->next)
        if (o != op && o->held)
            return o;
    return NULL;
}

/* Until it has ended, is held, or has been waited for long enough. */
static enum sc_progress wait_for(struct sc_op *op, unsigned timeout_ms)
{
    struct sc_live *w = op->w;
    uint64_t deadline = now_ms() + timeout_ms;

    while (!op->ended && !op->held) {
        struct live_peer *p = &w->peer[op->peer];
        struct pollfd pfd[2] = {{.fd = p->sock, .events = POLLIN}, {.fd = w->daemon->points, .events = POLLIN}};
        uint64_t now = now_ms();
        if (now >= deadline)
            return SC_OP_WAITS;
        poll(pfd, 2, (int)(deadline - now) + 1);
        if (pfd[1].revents & POLLIN && take_held(w, op))
            return SC_OP_STOPPED;
        if (pfd[1].revents & (POLLHUP | POLLERR))
            op_broken(op, "the daemon is gone");
        if (pfd[0].revents && !take_answer(w, p)) {
            /* Which is what they ask for. */
            op->ended = true;
            if ((op->call.verb == SC_PROCESS_exit || op->call.verb == SC_PROCESS_kill) && live_peer_ended(w, op->peer))
                sc_rc(&op->verdict, 0);
            else
                sc_broken(&op->verdict, "process %s has died", p->name);
        }
    }
    return op->held ? SC_OP_STOPPED : SC_OP_ENDED;
}

static void finish_call(struct sc_op *op, struct sc_verdict *v)
{
    const struct sc_op *held = other_held(op);
    unsigned limit = held ? LIVE_STOPPED_MS : LIVE_ANSWER_MS;
    if (wait_for(op, limit) == SC_OP_WAITS) {
        sc_broken(v, "no answer within %u ms%s%s", limit, held ? ": a call is stopped at " : "",
                  held ? held->label : "");
        return;
    }
    *v = op->verdict;
    op_free(op);
}

void live_ask(struct sc_live *w, int peer, const struct live_request *request, struct sc_verdict *v)
{
    struct sc_op *op = op_new(w, &(struct sc_call){.verb = 0});

    if (!op) {
        sc_broken(v, "no memory");
        return;
    }
    op->peer = peer;
    send_request(op, request);
    finish_call(op, v);
}

static void live_perform(void *world, const struct sc_call *call, struct sc_verdict *v)
{
    struct sc_live *w = world;

    memset(v, 0, sizeof(*v));
    if (!sc_verbs[call->verb].is_live) {
        sc_broken(v, "not live: %s", sc_verbs[call->verb].live);
    } else if (runner_verbs[call->verb]) {
        runner_verbs[call->verb](w, call, v);
        name_holders(w, v);
    } else {
        struct sc_op *op = op_new(w, call);
        if (!op) {
            sc_broken(v, "no memory");
            return;
        }
        send_request(op, &(struct live_request){.ask = LIVE_CALL, .call = *call});
        finish_call(op, v);
        if (call->verb == SC_PROCESS_fork && !*v->broken && !v->rc)
            v->value = live_adopt_peer(w, call->arg[0].text, (pid_t)v->value, v->fd, v);
    }
}

static struct sc_op *live_start(void *world, const struct sc_call *call, char *why, size_t size)
{
    struct sc_op *op = NULL;

    if (!sc_verbs[call->verb].is_live)
        snprintf(why, size, "not live: %s", sc_verbs[call->verb].live);
    else if (runner_verbs[call->verb])
        snprintf(why, size, "on the live stage the runner performs %s itself: it cannot be stopped",
                 sc_verbs[call->verb].name);
    else if (!(op = op_new(world, call)))
        snprintf(why, size, "no memory");
    return op;
}

/* Lets a held task go on, to stop at the next label where there is one; and arms one for a call that begins. */
static bool arm(struct sc_op *op, const char *label)
{
    char command[100] = "release";

    if (label)
        snprintf(command, sizeof(command), "%s %s", op->held ? "release" : "hold", label);
    if (!label && !op->held)
        return true;
    const char *answer = live_daemon_points(op->w->daemon, command);
    op->held = false;
    if (!strcmp(answer, "ok"))
        return true;
    op_broken(op, answer);
    return false;
}

static enum sc_progress live_go(struct sc_op *op, const char *label)
{
    if (op->ended || !arm(op, label))
        return SC_OP_ENDED;
    if (!op->id && !send_request(op, &(struct live_request){.ask = LIVE_CALL, .call = op->call}))
        return SC_OP_ENDED;
    return wait_for(op, other_held(op) ? LIVE_WAITS_MS : LIVE_ANSWER_MS);
}

static const char *live_where(const struct sc_op *op)
{
    return op->label;
}

static const struct sc_verdict *live_verdict(const struct sc_op *op)
{
    return &op->verdict;
}

/* ---- worlds ----------------------------------------------------------------------------------------------------- */

static void live_world_free(void *world, sc_report_fn *report, void *ctx);

static void drop_report(void *ctx, const char *text)
{
    (void)ctx;
    (void)text;
}

static bool supported(const struct sc_world_config *c, char *why, size_t size)
{
    const char *what = NULL;
    if (c->order)
        what = "large folios";
    else if (c->rfc_library)
        what = "the library of RFC v2";
    if (what)
        snprintf(why, size, "%s exist in simulation only", what);
    return !what;
}

static void *live_world_new(const struct sc_world_config *config, char *why, size_t size)
{
    struct sc_verdict v = {.rc = 0};

    if (!supported(config, why, size))
        return NULL;
    if (daemon_.pid && waitpid(daemon_.pid, NULL, WNOHANG) == daemon_.pid) {
        daemon_.pid = 0;
        live_daemon_stop(&daemon_);
    }
    const char *problem = daemon_.pid ? NULL : live_daemon_start(&daemon_, config->trace);
    struct sc_live *w = problem ? NULL : calloc(1, sizeof(*w));
    if (!w) {
        snprintf(why, size, "%s", problem ? problem : "no memory");
        return NULL;
    }
    nr_worlds++;
    w->daemon = &daemon_;
    daemon_.worlds++;
    w->config = *config;
    w->file_fd = -1;
    int vmm = live_add_peer(w, "vmm", &v);
    if (vmm >= 0)
        live_ask(w, vmm, &(struct live_request){.ask = LIVE_BUILD, .config = *config}, &v);
    if (!*v.broken) {
        w->gmem = (uint64_t)v.value;
        w->file_fd = v.fd;
        return w;
    }
    snprintf(why, size, "%s", v.broken);
    live_world_free(w, drop_report, NULL);
    return NULL;
}

/* What was started is let go; what does not end by then ends with its process. */
static void end_ops(struct sc_live *w)
{
    for (struct sc_op *op = w->ops; op; op = op->next) {
        if (op->held)
            live_go(op, NULL);
    }
    for (struct sc_op *op = w->ops; op; op = op->next)
        if (op->id && !op->ended)
            wait_for(op, LIVE_WAITS_MS);
    while (w->ops)
        op_free(w->ops);
}

static const char *const counts[] = {"vms", "gmems", "views", "pins", "guests", "frames_used"};

static void look_for_leaks(struct sc_live *w, sc_report_fn *report, void *ctx)
{
    uint64_t deadline = now_ms() + LIVE_ANSWER_MS;
    char left[200];

    do {
        int rc;
        json_t *status = live_query(w->daemon, "status", 0, 0, &rc);
        size_t len = 0;
        left[0] = '\0';
        for (unsigned i = 0; status && i < sizeof(counts) / sizeof(counts[0]); i++) {
            long long n = json_integer_value(json_object_get(json_object_get(status, "counts"), counts[i]));
            if (n)
                len += (size_t)snprintf(left + len, sizeof(left) - len, "%s%lld %s", len ? ", " : "", n, counts[i]);
        }
        if (!status)
            snprintf(left, sizeof(left), "no answer of the daemon: %s", fakehyp_last_error());
        json_decref(status);
        if (*left)
            usleep(2000);
    } while (*left && now_ms() < deadline);
    if (!*left)
        return;
    char line[260];
    snprintf(line, sizeof(line), "left after the end: %s", left);
    report(ctx, line);
}

static void live_audit(void *world, sc_report_fn *report, void *ctx);

static void live_world_free(void *world, sc_report_fn *report, void *ctx)
{
    struct sc_live *w = world;

    end_ops(w);
    for (unsigned i = 0; i < w->nr_peers; i++) {
        const struct live_request quit = {.ask = LIVE_QUIT};
        if (w->peer[i].pid)
            live_send(w->peer[i].sock, &quit, sizeof(quit), -1);
    }
    for (unsigned i = 0; i < w->nr_peers; i++)
        reap(&w->peer[i]);
    if (w->file_fd >= 0)
        close(w->file_fd);
    /* The daemon counts for all worlds together. */
    if (--w->daemon->worlds == 0)
        look_for_leaks(w, report, ctx);
    /* A host that has died, or a table that is wrong, is not the next scenario's. */
    live_audit(w, report, ctx);
    if (w->daemon->spoilt && !w->daemon->worlds)
        live_daemon_stop(w->daemon);
    free(w);
    if (!--nr_worlds)
        live_daemon_stop(&daemon_);
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

static void live_audit(void *world, sc_report_fn *report, void *ctx)
{
    struct sc_live *w = world;
    int rc;
    json_t *answer = live_query(w->daemon, "audit", 0, 0, &rc);
    const json_t *problem;
    size_t i;

    if (!answer) {
        report(ctx, "no answer of the daemon");
        live_daemon_log(w->daemon, report, ctx);
    }
    json_array_foreach(json_object_get(answer, "problems"), i, problem)
    {
        report(ctx, json_string_value(problem));
        w->daemon->spoilt = true;
    }
    json_decref(answer);
}

static void live_history(void *world, int file, uint64_t page, sc_report_fn *report, void *ctx)
{
    struct sc_live *w = world;
    int rc;
    json_t *answer = live_query(w->daemon, "page", w->gmem, page * SC_PAGE, &rc);
    const json_t *e;
    size_t i;
    double first = 0;

    (void)file;
    json_array_foreach(json_object_get(answer, "history"), i, e)
    {
        char line[400];
        double ms = (double)json_integer_value(json_object_get(e, "t_ns")) / 1e6;
        first = i ? first : ms;
        snprintf(line, sizeof(line), "%4lld  %8.3f ms  %s", (long long)json_integer_value(json_object_get(e, "seq")),
                 ms - first, json_string_value(json_object_get(e, "text")));
        report(ctx, line);
    }
    json_decref(answer);
    live_daemon_log(w->daemon, report, ctx);
}

static const char *live_lacks(void)
{
    static char why[160];
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    if (fd >= 0) {
        close(fd);
        return NULL;
    }
    snprintf(why, sizeof(why), "userfaultfd: %s; fakehypctl doctor tells the remedy", strerror(errno));
    return why;
}

const struct sc_stage sc_live_stage = {
    .name = "live",
    .lacks = live_lacks,
    .world_new = live_world_new,
    .world_free = live_world_free,
    .perform = live_perform,
    .start = live_start,
    .go = live_go,
    .where = live_where,
    .verdict = live_verdict,
    .audit = live_audit,
    .history = live_history,
};
