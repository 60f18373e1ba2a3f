/* SPDX-License-Identifier: BSD-2-Clause */
/* CPUs: entering EL2 from the host and from guests. */
#include "src/machine/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- EL2's platform ---------------------------------------------------------------------------------------------- */

static void plat_zero_page(void *ctx, uint64_t phys)
{
    struct machine *m = ctx;
    struct gmem *gmem;
    uint64_t index;
    if (!host_frame_slot(m->host, phys >> 12, &gmem, &index)) {
        memset(m->ram + (phys - m->ram_base), 0, HYP_PAGE_SIZE);
        return;
    }
    struct mfile_state *f = gmem_file(gmem);
    bool in_host = rangemap_get(&f->side, index).value == SIDE_HOST;
    m->config.stage->discard(m->config.stage_ctx, &f->file, in_host, index, index + 1);
    /* Another trap's change of side may be under way: the page's bytes are on either side of it. */
    if (f->lock.writer)
        m->config.stage->discard(m->config.stage_ctx, &f->file, !in_host, index, index + 1);
}

static void plat_tlbi(void *ctx, uint16_t vmid, uint64_t ipa, uint64_t nr_pages)
{
    mmu_invalidate(ctx, vmid, ipa, nr_pages);
}

static void plat_yield(void *ctx, const char *label)
{
    (void)ctx;
    sched_point(label);
}

static void plat_panic(void *ctx, const char *what)
{
    struct machine *m = ctx;
    m->panicked = true;
    snprintf(m->panic_text, sizeof(m->panic_text), "EL2 panic: %s", what);
    machine_log(m, 0, "%s; the machine stands still from now on", m->panic_text);
    longjmp(m->panic_jump, 1);
}

int cpu_boot_el2(struct machine *m)
{
    uint64_t nr_pages = m->ram_bytes >> 12, pool = hyp_host_pool_pages(nr_pages);
    const struct hyp_memory_region memory = {.base = m->ram_base, .size = m->ram_bytes};
    unsigned pa_bits = 40;
    while (m->ram_base + m->ram_bytes > UINT64_C(1) << pa_bits)
        pa_bits += 4;
    m->pool_pfn = ((m->ram_base + m->ram_bytes) >> 12) - pool;
    struct hyp_config config = {
        .plat =
            {
                .ctx = m,
                .physvirt_offset = m->ram_base - (uintptr_t)m->ram,
                .zero_page = plat_zero_page,
                .tlbi = plat_tlbi,
                .yield = plat_yield,
                .panic = plat_panic,
            },
        .memory = &memory,
        .nr_memory = 1,
        .pa_bits = pa_bits,
        .vmemmap = m->vmemmap,
        .vmemmap_base_pfn = m->ram_base >> 12,
        .vmemmap_nr = nr_pages,
        .pool_pfn = m->pool_pfn,
        .pool_nr = pool,
        .nr_cpus = NR_CPUS,
    };
    int rc = oracle_open(m, &config);
    if (rc)
        return rc;
    if (setjmp(m->panic_jump))
        return -EIO;
    if (hyp_init(m->hyp, &config))
        return -EIO;
    if (m->oracle && oracle_boot(m->oracle, m->hyp) && m->config.oracle == MACHINE_ORACLE_PANIC)
        return -EIO;
    uint64_t regs[8] = {HVC_HOST_BASE + HVC_prot_finalize};
    el2_hvc(m, 0, regs);
    return regs[0] == 0 && regs[1] == 0 ? 0 : -EIO;
}

/* ---- one trap into EL2 ---- */

/* EL2 is entered by one CPU at a time; a panic ends the machine and comes back here. */
static int enter_el2(struct machine *m, unsigned cpu, const struct hyp_trap *trap, uint64_t regs[8],
                     enum hyp_next *next)
{
    volatile int rc = 0;
    task_lock_exclusive(&m->el2_lock);
    if (m->panicked || setjmp(m->panic_jump)) {
        rc = -EIO;
    } else {
        *next = trap ? el2_trap(m, cpu, trap, regs) : el2_hvc(m, cpu, regs);
        if (m->panicked)
            rc = -EIO;
    }
    task_unlock_exclusive(&m->el2_lock);
    return rc;
}

/* Lets the guest on this CPU run until it traps. */
static void run_guest(struct machine *m, struct mvcpu *mv, const struct hyp_guest_regs *regs, struct hyp_trap *trap)
{
    const struct stage_ops *stage = m->config.stage;

    if (mv->entered && regs->replay) {
        /* PC stands before the HVC again: the guest does not notice. */
        *trap = mv->last;
        memcpy(trap->x, regs->x, sizeof(trap->x));
        return;
    }
    struct hyp_guest_regs copy = *regs;
    mv->trap_pending = false;
    mv->in_guest = true;
    stage->guest_resume(m->config.stage_ctx, mv->vcpu, mv->entered ? &mv->last : NULL, &copy);
    while (!mv->trap_pending) {
        if (sched_wait(&mv->wq, SCHED_FOREVER) == -ECANCELED) {
            /* Nobody wants the result any more: the guest ends, and its end is the trap. */
            stage->guest_stop(m->config.stage_ctx, vcpu_vm(mv->vcpu));
            mv->trap = (struct hyp_trap){.esr = ESR_EC_HVC64 << ESR_EC_SHIFT, .x = {PSCI_SYSTEM_OFF, 0, GUEST_DIED}};
            break;
        }
    }
    mv->in_guest = false;
    mv->trap_pending = false;
    mv->entered = true;
    mv->last = *trap = mv->trap;
}

static void record_call(struct machine *m, const struct mvcpu *mv, const struct hyp_trap *trap, int64_t x0)
{
    machine_record(m, &(struct host_event){.kind = HOST_EV_guest_call,
                                           .vm = vm_id(vcpu_vm(mv->vcpu)),
                                           .offset = trap->x[1],
                                           .size = HYP_PAGE_SIZE,
                                           .a0 = (uint32_t)trap->x[0],
                                           .a1 = trap->x[1],
                                           .vcpu = vcpu_index(mv->vcpu),
                                           .rc = x0});
}

int64_t cpu_hvc(void *ctx, unsigned cpu, uint64_t number, const uint64_t args[4])
{
    struct machine *m = ctx;
    uint64_t regs[8] = {HVC_HOST_BASE + number, args[0], args[1], args[2], args[3]};
    enum hyp_next next = HYP_NEXT_HOST;

    int rc = enter_el2(m, cpu, NULL, regs, &next);
    while (!rc && next == HYP_NEXT_GUEST) {
        struct mvcpu *mv = vcpu_machine(m->cpus[cpu].vcpu);
        struct hyp_trap trap;
        mmu_drain(m);
        run_guest(m, mv, hyp_guest_regs(m->hyp, cpu), &trap);
        rc = enter_el2(m, cpu, &trap, regs, &next);
        if (!rc && ESR_EC(trap.esr) == ESR_EC_HVC64 && trap.x[0] != PSCI_SYSTEM_OFF && next == HYP_NEXT_GUEST)
            record_call(m, mv, &trap, (int64_t)hyp_guest_regs(m->hyp, cpu)->x[0]);
    }
    mmu_drain(m);
    if (rc)
        return rc;
    return regs[0] ? -EOPNOTSUPP : (int64_t)regs[1];
}

enum host_abort_end machine_host_abort(struct machine *m, const struct host_access *access)
{
    volatile enum hyp_abort verdict = HYP_ABORT_INJECT;
    struct s2_walk walk;

    mmu_walk_host(m, access->pfn, &walk);
    task_lock_exclusive(&m->el2_lock);
    if (!m->panicked && !setjmp(m->panic_jump))
        verdict = el2_abort(m, 0, access->pfn << 12, access->write);
    task_unlock_exclusive(&m->el2_lock);
    mmu_drain(m);
    if (verdict == HYP_ABORT_RETRY)
        return HOST_ABORT_RETRY;
    uint64_t esr =
        ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_FSC_TRANS_L((unsigned)walk.level) | (access->write ? ESR_WNR : 0);
    return host_mem_abort(m->host, &(struct host_abort){.esr = hyp_inject_esr(esr, access->el1),
                                                        .pfn = access->pfn,
                                                        .fixup = access->fixup,
                                                        .pid = access->pid});
}

/* ---- CPUs and vcpus ---- */

int cpu_get(void *ctx, struct vcpu *vcpu)
{
    struct machine *m = ctx;
    struct mvcpu *mv = vcpu_machine(vcpu);
    if (!mv) {
        mv = calloc(1, sizeof(*mv));
        if (!mv)
            return -ENOMEM;
        mv->vcpu = vcpu;
        vcpu_set_machine(vcpu, mv);
    }
    for (unsigned i = 1; i < NR_CPUS; i++) {
        if (m->cpus[i].vcpu)
            continue;
        m->cpus[i].vcpu = vcpu;
        return (int)i;
    }
    return -EBUSY;
}

void cpu_put(void *ctx, unsigned cpu)
{
    struct machine *m = ctx;
    m->cpus[cpu].vcpu = NULL;
}

void cpu_vcpu_free(void *ctx, struct vcpu *vcpu)
{
    (void)ctx;
    free(vcpu_machine(vcpu));
    vcpu_set_machine(vcpu, NULL);
}

bool machine_vcpu_in_guest(const struct vcpu *vcpu)
{
    const struct mvcpu *mv = vcpu_machine(vcpu);
    return mv && mv->in_guest && !mv->trap_pending;
}

void machine_guest_trap(struct vcpu *vcpu, const struct hyp_trap *trap)
{
    struct mvcpu *mv = vcpu_machine(vcpu);
    if (!machine_vcpu_in_guest(vcpu))
        return;
    mv->trap = *trap;
    mv->trap_pending = true;
    sched_wake_all(&mv->wq);
}
