/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs in simulation: what processes do to each other and with system calls. */
#include "src/scenario/sim_world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void sim_PROCESS_fork(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);

    if (!p)
        return;
    int number = sim_new_process(w, c->arg[0].text, v);
    if (number < 0)
        return;
    struct sim_process *child = &w->process[number];
    sc_rc(v, mm_fork(p->mm, child->name, child->caller.pid, &child->mm));
    if (v->rc)
        return;
    for (unsigned i = 0, nr = w->nr_views; i < nr; i++) {
        struct sim_view view = w->view[i];
        if (view.process != c->self)
            continue;
        int n = sim_add_view(w, number, view.file, view.page, view.nr, v);
        if (n < 0)
            return;
        w->view[n].va = view.va;
    }
    v->value = number;
}

/* A process that died has dropped its pins: they are no handles any more. */
void sim_forget_dead(struct sc_sim *w)
{
    for (unsigned i = 0; i < w->nr_pins; i++)
        if (w->pin[i].ref && mm_dead(w->process[w->pin[i].process].mm))
            w->pin[i].ref = NULL;
}

void sim_PROCESS_kill(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);

    if (!p)
        return;
    sc_rc(v, mm_kill(p->mm));
    sim_forget_dead(w);
}

void sim_PROCESS_mremap(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    int64_t n = c->arg[0].n;
    uint64_t to;

    if (p && (n < 1 || n > w->nr_views || w->view[n - 1].process != c->self))
        sc_broken(v, "process %s has no such view", p->name);
    if (!p || *v->broken)
        return;
    struct sim_view old = w->view[n - 1];
    sc_rc(v, mm_remap(p->mm, old.va, old.nr * SC_PAGE, &to));
    if (v->rc)
        return;
    w->view[n - 1].process = -1;
    int view = sim_add_view(w, c->self, old.file, old.page, old.nr, v);
    if (view < 0)
        return;
    w->view[view].va = to;
    v->value = view + 1;
}

void sim_PROCESS_madvise_remove(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    uint64_t va;

    if (p && sim_address(w, c, c->arg[0].n, c->arg[2].n, &va, v))
        sc_rc(v, mm_madvise_remove(p->mm, va, (uint64_t)c->arg[1].n * SC_PAGE, &p->caller));
}

/* ---- system calls that hold pages ---------------------------------------------------------------------------------
 */

void sim_PROCESS_direct_read(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    struct ref *ref;
    uint64_t va;

    if (!p || !sim_address(w, c, c->arg[0].n, c->arg[2].n, &va, v))
        return;
    sc_rc(v, mm_gup(p->mm, va, (uint64_t)c->arg[1].n, REF_FOLL_PIN, "O_DIRECT read", &ref, &p->caller));
    if (v->rc)
        return;
    gmem_unpin(ref);
    v->value = c->arg[1].n * (int64_t)SC_PAGE;
    sc_word(v, "%lld", (long long)v->value);
}

void sim_PROCESS_vmsplice(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    uint64_t va;

    if (w->nr_pipes == SIM_MAX_PIPES)
        sc_broken(v, "more than %u pipes", SIM_MAX_PIPES);
    if (!p || *v->broken || !sim_address(w, c, c->arg[0].n, c->arg[2].n, &va, v))
        return;
    struct pipe *pipe = pipe_new(machine_host(w->machine), "vmsplice");
    if (!pipe) {
        sc_broken(v, "no memory");
        return;
    }
    sc_rc(v, pipe_vmsplice(pipe, p->mm, va, (uint64_t)c->arg[1].n, &p->caller));
    if (v->rc) {
        pipe_free(pipe);
        return;
    }
    w->pipe[w->nr_pipes++] = pipe;
    v->value = w->nr_pipes;
}

void sim_PROCESS_pipe_read(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n;
    enum sim_access end;

    if (n < 1 || n > w->nr_pipes) {
        sc_broken(v, "no such pipe");
        return;
    }
    sc_rc(v, sim_pipe_read(w->sim, w->pipe[n - 1], v->bytes, 16, &end));
    if (v->rc)
        return;
    sim_access_word(v, end);
    v->nr_bytes = v->rc ? 0 : 16;
}
