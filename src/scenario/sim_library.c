/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs in simulation: the library of RFC v2, refusals of the hypervisor, memslots, links, initial images. */
#include "src/scenario/sim_world.h"

#include <errno.h>
#include <string.h>

#include "src/host/mm.h"
#include "src/host/populate.h"

/* The VMM, on whose behalf files and VMs are handled. */
static struct caller *vmm(struct sc_sim *w)
{
    struct caller *caller = &w->process[0].caller;
    caller->message[0] = '\0';
    return caller;
}

static void end(struct sc_verdict *v, int rc, const struct caller *caller)
{
    sc_rc(v, rc);
    if (rc)
        sc_detail(v, "%s", caller->message);
}

/* ---- the library ---------------------------------------------------------------------------------------------------
 */

void sim_FILE_grab(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->self, v);
    struct sim_grab *grab = &w->grab[w->nr_grabs];

    if (w->nr_grabs == SIM_MAX_PINS)
        sc_broken(v, "more than %u grabs", SIM_MAX_PINS);
    if (!gmem || *v->broken)
        return;
    grab->accessible = c->arg[1].n;
    end(v, library_grab(gmem, (uint64_t)c->arg[0].n, grab->accessible, &grab->ref, vmm(w)), vmm(w));
    v->value = v->rc ? 0 : ++w->nr_grabs;
}

void sim_FILE_put(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n;

    if (n < 1 || n > w->nr_grabs || !w->grab[n - 1].ref) {
        sc_broken(v, "no such grab");
        return;
    }
    library_put(w->grab[n - 1].ref, w->grab[n - 1].accessible);
    w->grab[n - 1].ref = NULL;
    sc_rc(v, 0);
}

static void transition(struct sc_sim *w, const struct sc_call *c,
                       int (*fn)(struct gmem *gmem, uint64_t index, struct caller *caller), struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->self, v);
    struct caller *caller = vmm(w);

    if (gmem)
        end(v, fn(gmem, (uint64_t)c->arg[0].n, caller), caller);
}

void sim_FILE_make_inaccessible(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    transition(w, c, library_make_inaccessible, v);
}

void sim_FILE_make_accessible(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    transition(w, c, library_make_accessible, v);
}

void sim_FILE_register(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    transition(w, c, gmem_register_callback, v);
}

void sim_FILE_counts(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->self, v);
    struct library_counts counts;

    if (!gmem)
        return;
    library_counts(gmem, (uint64_t)c->arg[0].n, &counts);
    sc_rc(v, 0);
    sc_field(v, "accessible", counts.accessible);
    sc_field(v, "safe", counts.safe);
    sc_field(v, "ref", counts.refcount);
    sc_field(v, "inaccessible", counts.inaccessible);
    sc_field(v, "direct_map", counts.direct_map);
    sc_field(v, "zaps", counts.zaps);
    sc_field(v, "restores", counts.restores);
}

/* ---- the hypervisor ------------------------------------------------------------------------------------------------
 */

static void refusal(struct sc_sim *w, const struct sc_call *c, bool on, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->arg[2].n, v);
    struct page_report page;
    int op = 0;

    if (!gmem)
        return;
    while (op < HYP_OP_COUNT && strcmp(c->arg[0].text, hyp_op_name((enum hyp_op)op)))
        op++;
    gmem_page_report(gmem, (uint64_t)c->arg[1].n, &page);
    if (op == HYP_OP_COUNT || !page.allocated)
        sc_broken(v,
                  "\"%s\" of page %lld: donate, reclaim, teardown, make_shared or make_private, of a page with a frame",
                  c->arg[0].text, (long long)c->arg[1].n);
    else
        sc_rc(v, host_hyp_refuse(machine_host(w->machine), (enum hyp_op)op, page.pfn, on));
}

void sim_HYP_refuse(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    refusal(w, c, true, v);
}

void sim_HYP_allow(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    refusal(w, c, false, v);
}

/* ---- files and VMs -------------------------------------------------------------------------------------------------
 */

void sim_PROCESS_unpin_irq(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n;

    if (n < 1 || n > w->nr_pins || !w->pin[n - 1].ref) {
        sc_broken(v, "no such pin: its verdict was a refusal, or it has been dropped");
        return;
    }
    gmem_unpin_irq(w->pin[n - 1].ref);
    w->pin[n - 1].ref = NULL;
    sc_rc(v, 0);
}

void sim_PROCESS_populate(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    bool null = c->arg[2].n < 0;
    uint64_t va = 0;

    if (p && !w->vm[0].vm)
        sc_broken(v, "the VM is destroyed");
    if (!p || *v->broken || (!null && !sim_address(w, c, c->arg[2].n, c->arg[4].n, &va, v)))
        return;
    p->caller.message[0] = '\0';
    end(v,
        gmem_populate(w->vm[0].vm, (uint64_t)c->arg[0].n, (uint64_t)c->arg[1].n, null ? NULL : p->mm,
                      va + (uint64_t)c->arg[3].n, &p->caller),
        &p->caller);
}

void sim_FILE_close(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->self, v);

    if (!gmem)
        return;
    gmem_release(gmem);
    sc_rc(v, 0);
}

void sim_FILE_link(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->self, v);
    struct caller *caller = vmm(w);
    struct vm *vm = w->vm[c->arg[0].n].vm;

    if (gmem && vm)
        end(v, gmem_link(gmem, vm, caller), caller);
    else if (gmem)
        sc_broken(v, "the VM is destroyed");
}

#define KVM_MEM_GUEST_MEMFD 4

void sim_VM_slot(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct vm *vm = w->vm[c->self].vm;
    bool with_gmem = c->arg[4].n & KVM_MEM_GUEST_MEMFD;
    struct gmem *gmem = with_gmem ? sim_file_of(w, c->arg[5].n, v) : NULL;
    struct caller *caller = vmm(w);

    if (!vm)
        sc_broken(v, "the VM is destroyed");
    if (*v->broken)
        return;
    end(v,
        vm_set_memory_region(vm, (uint32_t)c->arg[0].n, (uint32_t)c->arg[4].n & ~(uint32_t)KVM_MEM_GUEST_MEMFD,
                             (uint64_t)c->arg[1].n * SC_PAGE, (uint64_t)c->arg[2].n * SC_PAGE, gmem,
                             (uint64_t)c->arg[3].n * SC_PAGE, caller),
        caller);
}

void sim_VM_create(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct caller *caller = vmm(w);

    if (!w->vm[c->self].vm) {
        sc_broken(v, "the VM is destroyed");
        return;
    }
    if (w->nr_files == SIM_MAX_FILES) {
        sc_broken(v, "more than %u files", SIM_MAX_FILES);
        return;
    }
    sc_rc(v, gmem_create(w->vm[c->self].vm, (uint64_t)c->arg[0].n * SC_PAGE, (uint64_t)c->arg[1].n,
                         &w->file[w->nr_files].gmem, caller));
    if (v->rc)
        sc_detail(v, "%s", caller->message);
    else
        v->value = w->nr_files++;
}

void sim_WORLD_second_vm(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    const struct vm_config config = sim_vm_config(w);
    struct caller *caller = vmm(w);
    struct sim_vm *vm = &w->vm[w->nr_vms];

    (void)c;
    if (w->nr_vms == SIM_MAX_VMS) {
        sc_broken(v, "more than %u VMs", SIM_MAX_VMS);
        return;
    }
    int rc = vm_create(machine_host(w->machine), &config, &vm->vm, caller);
    if (!rc) {
        w->nr_vms++;
        rc = vcpu_create(vm->vm, 0, &vm->vcpu[0].vcpu, caller);
    }
    if (!rc) {
        vm->nr_vcpus = 1;
        rc = sim_guest_start(w->sim, vm->vm);
    }
    if (rc || !sim_vm_threads(w, (int)w->nr_vms - 1))
        sc_broken(v, "no second VM: %s", caller->message);
    v->value = (int)w->nr_vms - 1;
    sc_rc(v, 0);
}
