/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Views: where host processes have a guest_memfd mapped.
 *
 * Registration is the signal, not the secret: a process that never registers
 * reads zeros where another gets SIGBUS.  Only the process's own agent
 * registers; the daemon never reaches into an address space.
 */
#include "src/live/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RANGES 64u

static bool overlaps(const struct view *v, const struct live_file *f, uint64_t start, uint64_t end)
{
    return v->file == f && v->index < end && start < v->index + v->nr;
}

static int tell(struct live *live, void *peer, const struct live_file *f, const struct range *ranges, unsigned nr,
                bool refuse, uint64_t timeout_ns, char *message, size_t size)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__AgentRegister body = FAKEHYP__AGENT_REGISTER__INIT;
    Fakehyp__Range wire[MAX_RANGES];
    Fakehyp__Range *list[MAX_RANGES];

    for (unsigned i = 0; i < nr; i++) {
        wire[i] = (Fakehyp__Range)FAKEHYP__RANGE__INIT;
        wire[i].offset = ranges[i].start * PAGE;
        wire[i].length = (ranges[i].end - ranges[i].start) * PAGE;
        list[i] = &wire[i];
    }
    body.gmem = f->mfile->id;
    body.refuse = refuse;
    body.n_range = nr;
    body.range = list;
    request.body_case = FAKEHYP__REQUEST__BODY_AGENT_REGISTER;
    request.agent_register = &body;
    return live->io.call(live->io.ctx, peer, &request, NULL, 0, timeout_ns, message, size);
}

/* ---- agents ---- */

static struct view_agent *agent_get(struct live *live, void *peer, uint32_t pid)
{
    struct view_agent *a = live->agents;
    while (a && a->peer != peer)
        a = a->next;
    if (!a) {
        a = calloc(1, sizeof(*a));
        if (!a)
            return NULL;
        *a = (struct view_agent){.live = live, .peer = peer, .pid = pid, .next = live->agents};
        live->agents = a;
    }
    a->refs++;
    return a;
}

static void agent_put(struct view_agent *a)
{
    struct view_agent **at = &a->live->agents;
    if (--a->refs)
        return;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    free(a);
}

/* Tells an agent of all ranges of a file that are refused, or of all others. */
static int sync_ranges(struct view_agent *a, struct live_file *f, bool refuse, char *message, size_t size)
{
    const uint64_t end = f->mfile->nr_pages;
    struct range ranges[MAX_RANGES];
    int rc = 0;

    for (uint64_t at = 0; at < end && !rc;) {
        unsigned nr = 0;
        while (at < end && nr < MAX_RANGES) {
            struct range r = rangemap_first(&f->open, at, end);
            if (refuse == (r.value == VIEW_CLOSED))
                ranges[nr++] = r;
            at = r.end;
        }
        if (nr)
            rc = a->peer ? tell(a->live, a->peer, f, ranges, nr, refuse, CLIENT_AGENT_TIMEOUT_NS, message, size)
                         : -ECONNRESET;
    }
    return rc;
}

static int sync_file(struct view_agent *a, struct live_file *f, char *message, size_t size)
{
    struct gmem *gmem = f->mfile->gmem;
    gmem_get(gmem);
    int rc = sync_ranges(a, f, true, message, size);
    if (!rc)
        rc = sync_ranges(a, f, false, message, size);
    gmem_put(gmem);
    return rc;
}

static struct live_file *next_to_sync(const struct view_agent *a, uint64_t number)
{
    struct live_file *f = NULL;
    for (struct view *v = a->live->views; v; v = v->next)
        if (v->agent == a && v->synced < number && (!f || v->file == f)) {
            f = v->file;
            v->synced = number;
        }
    return f;
}

static void sync_task(void *arg)
{
    struct view_agent *a = arg;
    struct live *live = a->live;
    char message[200] = "";
    struct live_file *f;
    int rc = 0;

    do {
        uint64_t number = ++live->nr_set;
        a->again = false;
        while (!rc && (f = next_to_sync(a, number)))
            rc = sync_file(a, f, message, sizeof(message));
    } while (!rc && a->again);
    a->telling = false;
    if (rc == -ETIMEDOUT) {
        live_log(live, 3, "agent of process %u: late again", a->pid);
    } else if (rc != -ECONNRESET) {
        a->late = false;
        if (rc)
            live_log(live, 1,
                     "agent of process %u answers again, but does not follow: %s%s%s; it gets zeros for SIGBUS", a->pid,
                     strerrordesc_np(-rc), message[0] ? ": " : "", message);
        else
            live_log(live, 2, "agent of process %u answers again and was told what it has missed", a->pid);
        /* From here on its process makes none. */
        strays_drop(live, a);
    }
    agent_put(a);
}

void live_agent_answers(struct live *live, void *peer)
{
    struct view_agent *a = live->agents;
    while (a && a->peer != peer)
        a = a->next;
    if (!a || !a->late || a->telling)
        return;
    a->refs++;
    a->telling = task_spawn(machine_sched(live->machine), "agent-sync", sync_task, a) != NULL;
    if (!a->telling) {
        live_log(live, 0, "no memory to tell the agent of process %u what it has missed", a->pid);
        agent_put(a);
    }
}

bool views_late(const struct live_file *f, uint64_t start, uint64_t end)
{
    const struct view *v = f->live->views;
    while (v && !(v->agent->late && overlaps(v, f, start, end)))
        v = v->next;
    return v;
}

/* ---- one change for all views ---- */

static struct view *next_to_tell(struct live_file *f, uint64_t start, uint64_t end, uint64_t number)
{
    struct view *v = f->live->views;
    while (v && (!overlaps(v, f, start, end) || v->told >= number))
        v = v->next;
    return v;
}

int views_set(struct live_file *f, uint64_t start, uint64_t end, bool refuse, unsigned *late, struct caller *caller)
{
    struct live *live = f->live;
    const struct range range = {.start = start, .end = end};
    uint64_t number = ++live->nr_set;

    /* One request a process, whatever its number of views; views come and go while one is answered. */
    for (struct view *v; (v = next_to_tell(f, start, end, number));) {
        struct view_agent *a = v->agent;
        char message[200] = "";
        bool was_late = a->late;
        int rc = -ETIMEDOUT;
        a->refs++;
        for (struct view *same = v; same; same = same->next)
            if (same->agent == a && same->file == f)
                same->told = number;
        if (was_late)
            a->again = true;
        else
            rc = tell(live, a->peer, f, &range, 1, refuse, CLIENT_AGENT_TIMEOUT_NS, message, sizeof(message));
        if (rc == -ETIMEDOUT)
            a->late = true;
        const uint32_t pid = a->pid;
        agent_put(a);
        if (!rc || rc == -ECONNRESET)
            continue;
        /* What EL2 decided (no caller) goes on: a process at its limit loses the signal, not the secret to it. */
        if (rc == -ENOMEM && refuse && caller) {
            caller_explain(caller, "process %u cannot register [0x%llx, +0x%llx): %s", pid,
                           (unsigned long long)(start * PAGE), (unsigned long long)((end - start) * PAGE), message);
            return rc;
        }
        machine_record(live->machine, &(struct host_event){.kind = HOST_EV_late_agent,
                                                           .gmem = f->mfile->id,
                                                           .offset = start * PAGE,
                                                           .size = (end - start) * PAGE,
                                                           .a0 = pid,
                                                           .rc = rc});
        if (!was_late)
            live_log(live, 1, "agent of process %u (stopped?): %s%s%s; its signal is late, its access is not", pid,
                     strerrordesc_np(-rc), message[0] ? ": " : "", message);
        if (late)
            ++*late;
    }
    /* Who was late meanwhile, with another request, was told what file->open said. */
    for (const struct view *v = live->views; late && v; v = v->next)
        if (overlaps(v, f, start, end) && (v->agent->late || v->synced > number))
            ++*late;
    return 0;
}

/* ---- coming and going ---- */

static void view_free(struct view **at)
{
    struct view *v = *at;
    *at = v->next;
    v->live->nr_views--;
    agent_put(v->agent);
    gmem_put(v->file->mfile->gmem);
    free(v);
}

/* Cuts [addr, addr + length) out of one view; a second view remains where the middle went. */
static void view_cut(struct view **at, uint64_t addr, uint64_t length)
{
    struct view *v = *at;
    uint64_t start = v->addr, end = v->addr + v->nr * PAGE;
    uint64_t from = addr > start ? addr : start, to = addr + length < end ? addr + length : end;

    if (from == start && to == end) {
        view_free(at);
        return;
    }
    if (from > start && to < end) {
        struct view *tail = calloc(1, sizeof(*tail));
        if (tail) {
            *tail = *v;
            tail->agent->refs++;
            tail->addr = to;
            tail->index = v->index + (to - start) / PAGE;
            tail->nr = (end - to) / PAGE;
            gmem_get(v->file->mfile->gmem);
            v->next = tail;
            v->live->nr_views++;
        }
        v->nr = (from - start) / PAGE;
    } else if (from > start) {
        v->nr = (from - start) / PAGE;
    } else {
        v->index += (to - start) / PAGE;
        v->nr = (end - to) / PAGE;
        v->addr = to;
    }
}

/* Cuts [addr, addr + length) out of all views of a peer, or of a process. */
static void cut_views(struct live *live, const void *peer, uint32_t pid, uint64_t addr, uint64_t length)
{
    for (struct view **at = &live->views; *at;) {
        struct view *v = *at;
        if ((peer ? v->agent->peer == peer : v->agent->pid == pid) && v->addr < addr + length &&
            addr < v->addr + v->nr * PAGE)
            view_cut(at, addr, length);
        if (*at == v)
            at = &v->next;
    }
}

void live_view_remove(struct live *live, void *peer, uint64_t addr, uint64_t length)
{
    cut_views(live, peer, 0, addr, length);
}

int live_view_add(struct live *live, struct gmem *gmem, void *peer, uint32_t pid, uint64_t addr, uint64_t length,
                  uint64_t offset)
{
    struct live_file *f = machine_file(gmem)->stage;
    struct range open[MAX_RANGES];
    unsigned nr = 0;
    char message[200];
    int rc = 0;

    if (!(gmem_flags(gmem) & GUEST_MEMFD_FLAG_MMAP))
        return -ENODEV;
    if (!length || (addr | length | offset) % PAGE)
        return -EINVAL;
    struct view *v = calloc(1, sizeof(*v));
    struct view_agent *agent = v ? agent_get(live, peer, pid) : NULL;
    if (!agent) {
        free(v);
        return -ENOMEM;
    }
    /* What the process had mapped there it has unmapped, past its library; 0: a process of another PID namespace. */
    if (pid)
        cut_views(live, NULL, pid, addr, length);
    *v = (struct view){.live = live,
                       .file = f,
                       .agent = agent,
                       .addr = addr,
                       .index = offset / PAGE,
                       .nr = length / PAGE,
                       .told = 0, /* views_set() that is under way tells it too */
                       .next = live->views};
    gmem_get(gmem);
    live->views = v;
    live->nr_views++;
    /*
     * The view comes fully registered.  What is open is opened now; a
     * conversion from here on tells this process too, on the same socket and
     * so after this.
     */
    f->nr_coming++;
    agent->refs++;
    uint64_t at = v->index;
    uint64_t end = at + v->nr < f->mfile->nr_pages ? at + v->nr : f->mfile->nr_pages;
    sched_point("map:linked"); /* and from here on the view may be cut */
    while (at < end && !rc) {
        struct range r = rangemap_first(&f->open, at, end);
        at = r.end;
        if (r.value == VIEW_OPEN)
            open[nr++] = r;
        if (nr == MAX_RANGES || (at == end && nr)) {
            rc = tell(live, peer, f, open, nr, false, CLIENT_AGENT_TIMEOUT_NS, message, sizeof(message));
            nr = 0;
        }
    }
    sched_point("map:opened");
    f->nr_coming--;
    if (rc == -ETIMEDOUT)
        agent->late = true;
    agent_put(agent);
    if (rc)
        live_view_remove(live, peer, addr, length);
    return rc;
}

void live_peer_gone(struct live *live, void *peer)
{
    for (struct view_agent *a = live->agents; a; a = a->next)
        if (a->peer == peer)
            a->peer = NULL;
    for (struct view **at = &live->views; *at;) {
        if (!(*at)->agent->peer)
            view_free(at);
        else
            at = &(*at)->next;
    }
}

size_t live_nr_views(const struct live *live, const void *peer)
{
    size_t nr = 0;
    if (!peer)
        return live->nr_views;
    for (const struct view *v = live->views; v; v = v->next)
        nr += v->agent->peer == peer;
    return nr;
}
