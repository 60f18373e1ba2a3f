/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/machine/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Out of memory is an errno here, not the end of the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define PAGE 4096u

struct sim_page {
    uint64_t index;
    bool in_host;
    bool secret; /* the guest wrote it while it was private */
    UT_hash_handle hh;
    uint8_t bytes[PAGE];
};

/*
 * [changing, changed) is on its way to the other side: accesses wait for its end, as they do on the live stage.  It is
 * one range at most, since a change holds the file's lock in the machine.
 */
struct sim_file {
    struct sim_page *pages;
    uint64_t changing, changed;
    struct waitq settled;
};

enum insn_kind { INSN_NONE, INSN_READ, INSN_WRITE, INSN_HVC };

struct sim_vcpu {
    struct vcpu *vcpu;
    enum insn_kind kind;
    uint64_t gpa;
    void *buf;
    const void *from;
    size_t length;
    uint64_t x[4];
    bool trapped; /* the instruction waits for the hypervisor */
    struct waitq done;
    struct sim_vcpu *next;
};

struct sim {
    struct machine *machine;
    struct sim_vcpu *vcpus;
    struct sim_page *orphans; /* by pfn: bytes of frames that left their file while somebody held them */
};

struct sim *sim_new(void)
{
    return calloc(1, sizeof(struct sim));
}

void sim_attach(struct sim *sim, struct machine *machine)
{
    sim->machine = machine;
}

void sim_free(struct sim *sim)
{
    if (!sim)
        return;
    assert(!sim->vcpus && !sim->orphans);
    free(sim);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static struct sim_page *in_table(struct sim_page *pages, uint64_t key)
{
    struct sim_page *p;
    HASH_FIND(hh, pages, &key, sizeof(key), p);
    return p;
}

static struct sim_page *page_at(struct mfile *file, uint64_t index)
{
    return in_table(((struct sim_file *)file->stage)->pages, index);
}

static struct sim_page *page_get(struct mfile *file, uint64_t index, bool in_host)
{
    struct sim_file *f = file->stage;
    struct sim_page *p = page_at(file, index);
    if (p)
        return p;
    p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->index = index;
    p->in_host = in_host;
    HASH_ADD(hh, f->pages, index, sizeof(p->index), p);
    if (!p->hh.tbl) {
        free(p);
        return NULL;
    }
    return p;
}

static int sim_file_create(void *ctx, struct mfile *file, bool in_host)
{
    (void)ctx;
    (void)in_host;
    file->stage = calloc(1, sizeof(struct sim_file));
    return file->stage ? 0 : -ENOMEM;
}

static void drop(struct sim_file *f, struct sim_page *p)
{
    HASH_DEL(f->pages, p);
    free(p);
}

static void sim_file_destroy(void *ctx, struct mfile *file)
{
    (void)ctx;
    struct sim_file *f = file->stage;
    struct sim_page *p, *next;
    HASH_ITER (hh, f->pages, p, next)
        drop(f, p);
    free(f);
}

static void change(struct sim_file *f, uint64_t start, uint64_t end)
{
    if (f->changing == f->changed || start < f->changing)
        f->changing = start;
    if (end > f->changed)
        f->changed = end;
}

static bool is_changing(const struct mfile *file, uint64_t index)
{
    const struct sim_file *f = file->stage;
    return index >= f->changing && index < f->changed;
}

static int sim_begin(void *ctx, struct mfile *file, uint64_t start, uint64_t end, bool to_host, struct caller *caller)
{
    (void)ctx;
    (void)to_host;
    (void)caller;
    change(file->stage, start, end);
    sched_point("stage:begin");
    return 0;
}

static void sim_move(void *ctx, struct mfile *file, uint64_t start, uint64_t end, bool to_host)
{
    struct sim *sim = ctx;
    struct sim_file *f = file->stage;
    struct sim_page *p, *next;
    uint64_t moved = 0;
    change(f, start, end);
    HASH_ITER (hh, f->pages, p, next) {
        if (p->index < start || p->index >= end)
            continue;
        assert(p->in_host != to_host);
        p->in_host = to_host;
        p->secret = false;
        moved++;
    }
    machine_record(sim->machine, &(struct host_event){.kind = HOST_EV_move,
                                                      .vm = gmem_vm_id(file->gmem),
                                                      .gmem = file->id,
                                                      .offset = start * PAGE,
                                                      .size = (end - start) * PAGE,
                                                      .a0 = to_host,
                                                      .a1 = moved});
    sched_point("stage:moved");
}

static void step(struct sim *sim, struct sim_vcpu *v);

static void sim_end(void *ctx, struct mfile *file, uint64_t start, uint64_t end)
{
    struct sim *sim = ctx;
    struct sim_file *f = file->stage;
    (void)start;
    (void)end;
    f->changing = f->changed = 0;
    sched_wake_all(&f->settled);
    for (struct sim_vcpu *v = sim->vcpus; v; v = v->next)
        step(sim, v);
}

/* Processes here fault through EL1, which allocates the folio itself: there is nothing to adopt. */
static bool sim_populated(void *ctx, struct mfile *file, bool in_host, uint64_t start, uint64_t end, uint64_t *first,
                          uint64_t *past)
{
    (void)ctx;
    (void)file;
    (void)in_host;
    (void)start;
    (void)end;
    (void)first;
    (void)past;
    return false;
}

static int sim_allocate(void *ctx, struct mfile *file, bool in_host, uint64_t start, uint64_t end)
{
    (void)ctx;
    for (uint64_t i = start; i < end; i++)
        if (!page_get(file, i, in_host))
            return -ENOMEM;
    return 0;
}

static void sim_discard(void *ctx, struct mfile *file, bool in_host, uint64_t start, uint64_t end)
{
    (void)ctx;
    struct sim_file *f = file->stage;
    struct sim_page *p, *next;
    HASH_ITER (hh, f->pages, p, next) {
        if (p->index >= start && p->index < end && p->in_host == in_host)
            drop(f, p);
    }
}

static void sim_orphan(void *ctx, struct mfile *file, uint64_t index, uint64_t pfn)
{
    struct sim *sim = ctx;
    struct sim_file *f = file->stage;
    struct sim_page *p = page_at(file, index);
    if (!p)
        return;
    HASH_DEL(f->pages, p);
    p->index = pfn;
    HASH_ADD(hh, sim->orphans, index, sizeof(p->index), p);
    /* Without memory for the table the holder finds zeros. */
    if (!p->hh.tbl)
        free(p);
}

static void sim_forget(void *ctx, uint64_t pfn)
{
    struct sim *sim = ctx;
    struct sim_page *p = in_table(sim->orphans, pfn);
    if (!p)
        return;
    HASH_DEL(sim->orphans, p);
    free(p);
}

static int sim_read(void *ctx, struct mfile *file, bool in_host, uint64_t offset, void *buf, size_t length)
{
    (void)ctx;
    struct sim_page *p = page_at(file, offset / PAGE);
    assert(offset % PAGE + length <= PAGE);
    if (!p) {
        memset(buf, 0, length);
        return 0;
    }
    /* The point of it all: nobody reads bytes on the side that is not his. */
    assert(p->in_host == in_host);
    memcpy(buf, p->bytes + offset % PAGE, length);
    return 0;
}

static int sim_write(void *ctx, struct mfile *file, bool in_host, uint64_t offset, const void *buf, size_t length)
{
    (void)ctx;
    struct sim_page *p = page_get(file, offset / PAGE, in_host);
    assert(offset % PAGE + length <= PAGE);
    if (!p)
        return -ENOMEM;
    assert(p->in_host == in_host);
    memcpy(p->bytes + offset % PAGE, buf, length);
    return 0;
}

/* ---- host processes ---------------------------------------------------------------------------------------------- */

/* What the end of an injected abort is for the access. */
static enum sim_access injected(enum host_abort_end end)
{
    return end == HOST_ABORT_SIGSEGV ? SIM_SIGSEGV : end == HOST_ABORT_FIXUP ? SIM_EFAULT : SIM_OOPS;
}

/* Who reads or writes a frame's bytes, for the reports. */
struct phys {
    uint64_t pfn, offset; /* within the page */
    size_t length;
    void *buf;        /* read */
    const void *from; /* write */
    const char *who;
};

static void orphan_access(struct sim *sim, const struct phys *a)
{
    struct sim_page *p = in_table(sim->orphans, a->pfn);
    if (a->from && p)
        memcpy(p->bytes + a->offset, a->from, a->length);
    else if (!a->from && p)
        memcpy(a->buf, p->bytes + a->offset, a->length);
    else if (!a->from)
        memset(a->buf, 0, a->length);
}

/* The host's access to a frame, when nothing stops it any more: where the bytes are, there it goes. */
static void phys_access(struct sim *sim, const struct phys *a)
{
    struct gmem *gmem;
    uint64_t index;

    if (!host_frame_slot(machine_host(sim->machine), a->pfn, &gmem, &index)) {
        orphan_access(sim, a);
        return;
    }
    struct mfile *file = machine_file(gmem);
    bool in_host = !mmu_side(file, index).private;
    const struct sim_page *p = page_at(file, index);
    if (!a->from && !in_host && p && p->secret)
        host_splat(machine_host(sim->machine),
                   "I9: %s read what the guest wrote into private memory: guest_memfd %u page 0x%llx", a->who, file->id,
                   (unsigned long long)index);
    if (a->from)
        sim_write(sim, file, in_host, index * PAGE + a->offset, a->from, a->length);
    else
        sim_read(sim, file, in_host, index * PAGE + a->offset, a->buf, a->length);
}

/*
 * Between a decision and its end the bytes are nobody's: an access of the host waits for it.  True when it has waited,
 * and all that it knew may have changed.
 */
static bool waited(struct sim *sim, uint64_t pfn)
{
    struct gmem *gmem;
    uint64_t index;

    if (!host_frame_slot(machine_host(sim->machine), pfn, &gmem, &index))
        return false;
    struct mfile *file = machine_file(gmem);
    struct sim_file *f = file->stage;
    if (is_changing(file, index))
        sched_wait_uncancelled(&f->settled, SCHED_FOREVER);
    else if (mmu_side(file, index).private && mmu_side_moving(file))
        sched_relax();
    else
        return false;
    return true;
}

/* One byte range of one page, as the MMU sees it: stage 1, then stage 2, then memory. */
static enum sim_access host_access(struct sim *sim, struct mm *mm, uint64_t va, bool write, bool uaccess, void *buf,
                                   const void *from, size_t length)
{
    struct host_access access = {.write = write, .el1 = uaccess, .fixup = uaccess, .pid = mm_pid(mm)};

    for (;;) {
        struct s2_walk walk;
        if (!mm_translate(mm, va, write, &access.pfn)) {
            int rc = mm_fault(mm, va, write, &access.pfn);
            if (rc)
                return uaccess ? SIM_EFAULT : rc == -ENOENT ? SIM_SIGSEGV : SIM_SIGBUS;
            sched_point("access:mapped");
            continue;
        }
        mmu_walk_host(sim->machine, access.pfn, &walk);
        if (!walk.valid) {
            enum host_abort_end end = machine_host_abort(sim->machine, &access);
            if (end == HOST_ABORT_RETRY)
                continue;
            return injected(end);
        }
        if (waited(sim, access.pfn))
            continue;
        phys_access(sim, &(struct phys){access.pfn, va % PAGE, length, buf, write ? from : NULL, mm_name(mm)});
        return SIM_OK;
    }
}

enum sim_access sim_host_read(struct sim *sim, struct mm *mm, uint64_t va, void *buf, size_t length)
{
    return host_access(sim, mm, va, false, false, buf, NULL, length);
}

enum sim_access sim_host_write(struct sim *sim, struct mm *mm, uint64_t va, const void *buf, size_t length)
{
    return host_access(sim, mm, va, true, false, NULL, buf, length);
}

/* copy_from_user() and copy_to_user(), a page at a time. */
static size_t user_copy(struct sim *sim, struct mm *mm, uint64_t va, bool write, void *buf, const void *from,
                        size_t length)
{
    size_t done = 0;

    while (done < length) {
        size_t part = PAGE - (va + done) % PAGE;
        if (part > length - done)
            part = length - done;
        if (host_access(sim, mm, va + done, write, true, write ? NULL : (char *)buf + done,
                        write ? (const char *)from + done : NULL, part))
            break;
        done += part;
    }
    return length - done;
}

size_t sim_copy_from_user(struct sim *sim, struct mm *mm, uint64_t va, void *buf, size_t length)
{
    return user_copy(sim, mm, va, false, buf, NULL, length);
}

size_t sim_copy_to_user(struct sim *sim, struct mm *mm, uint64_t va, const void *buf, size_t length)
{
    return user_copy(sim, mm, va, true, NULL, buf, length);
}

/* A load through the direct map. */
static enum sim_access kernel_load(struct sim *sim, uint64_t pfn, bool fixup, void *buf, size_t length, const char *who)
{
    const struct host_access access = {.pfn = pfn, .el1 = true, .fixup = fixup};

    for (;;) {
        struct s2_walk walk;
        if (host_direct_map_hole(machine_host(sim->machine), pfn))
            return fixup ? SIM_EFAULT : SIM_OOPS;
        if (host_access_is_fatal(machine_host(sim->machine), pfn))
            return SIM_OOPS;
        mmu_walk_host(sim->machine, pfn, &walk);
        if (!walk.valid) {
            enum host_abort_end end = machine_host_abort(sim->machine, &access);
            if (end == HOST_ABORT_RETRY)
                continue;
            return injected(end);
        }
        if (waited(sim, pfn))
            continue;
        phys_access(sim, &(struct phys){.pfn = pfn, .length = length, .buf = buf, .who = who});
        return SIM_OK;
    }
}

enum sim_access sim_kernel_load(struct sim *sim, uint64_t pfn, bool fixup, void *buf, size_t length)
{
    return kernel_load(sim, pfn, fixup, buf, length, "the kernel");
}

int sim_pipe_read(struct sim *sim, struct pipe *pipe, void *buf, size_t length, enum sim_access *access)
{
    uint64_t pfn;
    if (!pipe_peek(pipe, &pfn))
        return -EAGAIN;
    *access = kernel_load(sim, pfn, false, buf, length, "the reader of a pipe");
    if (*access == SIM_OK)
        pipe_pop(pipe);
    return 0;
}

static int dma(struct sim *sim, struct device *device, uint64_t iova, void *buf, const void *from, size_t length)
{
    uint64_t pfn;
    int rc = device_translate(device, iova, from != NULL, &pfn);
    if (!rc)
        phys_access(sim, &(struct phys){pfn, iova % PAGE, length, buf, from, "a device"});
    return rc;
}

int sim_dma_read(struct sim *sim, struct device *device, uint64_t iova, void *buf, size_t length)
{
    return dma(sim, device, iova, buf, NULL, length);
}

int sim_dma_write(struct sim *sim, struct device *device, uint64_t iova, const void *buf, size_t length)
{
    return dma(sim, device, iova, NULL, buf, length);
}

/* ---- guests ---------------------------------------------------------------------------------------------------------
 */

static struct sim_vcpu *find(struct sim *sim, const struct vcpu *vcpu)
{
    for (struct sim_vcpu *v = sim->vcpus; v; v = v->next)
        if (v->vcpu == vcpu)
            return v;
    return NULL;
}

static void retire(struct sim_vcpu *v)
{
    v->kind = INSN_NONE;
    v->trapped = false;
    sched_wake_all(&v->done);
}

/* Executes the vcpu's instruction if the vcpu is in the guest and has one. */
static void step(struct sim *sim, struct sim_vcpu *v)
{
    struct s2_walk walk;
    struct gmem *gmem;
    uint64_t index;

    if (v->kind == INSN_NONE || v->trapped || !machine_vcpu_in_guest(v->vcpu))
        return;
    if (v->kind == INSN_HVC) {
        struct hyp_trap trap = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT};
        memcpy(trap.x, v->x, sizeof(trap.x));
        v->trapped = true;
        machine_guest_trap(v->vcpu, &trap);
        return;
    }
    mmu_walk_guest(sim->machine, vm_handle(vcpu_vm(v->vcpu)), v->gpa / PAGE, &walk);
    if (!walk.valid || !host_frame_slot(machine_host(sim->machine), walk.pfn, &gmem, &index)) {
        struct hyp_trap trap = {.esr = ESR_EC_DABT_LOW << ESR_EC_SHIFT | ESR_FSC_TRANS_L(3),
                                .far = v->gpa,
                                .hpfar = HPFAR_FROM_IPA(v->gpa)};
        if (v->kind == INSN_WRITE)
            trap.esr |= ESR_WNR;
        v->trapped = true;
        machine_guest_trap(v->vcpu, &trap);
        return;
    }
    struct mfile *file = machine_file(gmem);
    if (is_changing(file, index))
        return;
    bool in_host = !mmu_side(file, index).private;
    if (v->kind == INSN_WRITE) {
        sim_write(sim, file, in_host, index * PAGE + v->gpa % PAGE, v->from, v->length);
        struct sim_page *p = page_at(file, index);
        if (p && !in_host)
            p->secret = true;
    } else
        sim_read(sim, file, in_host, index * PAGE + v->gpa % PAGE, v->buf, v->length);
    retire(v);
}

static void sim_guest_resume(void *ctx, struct vcpu *vcpu, const struct hyp_trap *last,
                             const struct hyp_guest_regs *regs)
{
    struct sim *sim = ctx;
    struct sim_vcpu *v = find(sim, vcpu);
    if (!v) {
        /* Stopped while the vcpu was with EL1, or never started. */
        const struct hyp_trap died = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT, .x = {PSCI_SYSTEM_OFF, 0, GUEST_DIED}};
        machine_guest_trap(vcpu, &died);
        return;
    }
    v->trapped = false;
    if (last && ESR_EC(last->esr) == ESR_EC_HVC64 && v->kind == INSN_HVC) {
        v->x[0] = regs->x[0];
        retire(v);
    }
    step(sim, v);
}

static void sim_guest_stop(void *ctx, struct vm *vm)
{
    struct sim *sim = ctx;
    for (struct sim_vcpu **at = &sim->vcpus; *at;) {
        struct sim_vcpu *v = *at;
        if (vcpu_vm(v->vcpu) != vm) {
            at = &v->next;
            continue;
        }
        *at = v->next;
        struct hyp_trap trap = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT, .x = {PSCI_SYSTEM_OFF, 0, GUEST_DIED}};
        machine_guest_trap(v->vcpu, &trap);
        sched_wake_all(&v->done);
        free(v);
    }
    vm_set_guest(vm, NULL);
}

static void sim_guest_zap(void *ctx, struct vm *vm, uint64_t gfn, uint64_t nr)
{
    /* step() walks the tables anew for each access: there is no stale translation to drop. */
    (void)ctx;
    (void)vm;
    (void)gfn;
    (void)nr;
}

static int sim_slot_add(void *ctx, struct vm *vm, const struct memslot *slot, struct caller *caller)
{
    (void)ctx;
    (void)vm;
    (void)slot;
    (void)caller;
    return 0;
}

static void sim_slot_remove(void *ctx, struct vm *vm, const struct memslot *slot)
{
    (void)ctx;
    (void)vm;
    (void)slot;
}

int sim_guest_start(struct sim *sim, struct vm *vm)
{
    for (unsigned i = 0; i < vm_nr_vcpus(vm); i++) {
        struct sim_vcpu *v = calloc(1, sizeof(*v));
        if (!v)
            return -ENOMEM;
        v->vcpu = vm_vcpu(vm, i);
        v->next = sim->vcpus;
        sim->vcpus = v;
    }
    vm_set_guest(vm, sim);
    return 0;
}

static int execute(struct vcpu *vcpu, const struct sim_vcpu *insn, int64_t *x0)
{
    struct sim *sim = vm_guest(vcpu_vm(vcpu));
    struct sim_vcpu *v = sim ? find(sim, vcpu) : NULL;
    if (!v)
        return -ESRCH;
    v->kind = insn->kind;
    v->gpa = insn->gpa;
    v->buf = insn->buf;
    v->from = insn->from;
    v->length = insn->length;
    memcpy(v->x, insn->x, sizeof(v->x));
    v->trapped = false;
    step(sim, v);
    while ((v = find(sim, vcpu)) && v->kind != INSN_NONE) {
        int rc = sched_wait(&v->done, SCHED_FOREVER);
        if (rc == -ECANCELED)
            return rc;
    }
    if (!v)
        return -ESRCH;
    if (x0)
        *x0 = (int64_t)v->x[0];
    return 0;
}

int sim_guest_read(struct vcpu *vcpu, uint64_t gpa, void *buf, size_t length)
{
    return execute(vcpu, &(struct sim_vcpu){.kind = INSN_READ, .gpa = gpa, .buf = buf, .length = length}, NULL);
}

int sim_guest_write(struct vcpu *vcpu, uint64_t gpa, const void *buf, size_t length)
{
    return execute(vcpu, &(struct sim_vcpu){.kind = INSN_WRITE, .gpa = gpa, .from = buf, .length = length}, NULL);
}

int sim_guest_hvc(struct vcpu *vcpu, const uint64_t x[4], int64_t *x0)
{
    struct sim_vcpu insn = {.kind = INSN_HVC};
    memcpy(insn.x, x, sizeof(insn.x));
    return execute(vcpu, &insn, x0);
}

const struct stage_ops sim_stage_ops = {
    .name = "sim",
    .file_create = sim_file_create,
    .file_destroy = sim_file_destroy,
    .begin = sim_begin,
    .move = sim_move,
    .end = sim_end,
    .populated = sim_populated,
    .allocate = sim_allocate,
    .discard = sim_discard,
    .orphan = sim_orphan,
    .forget = sim_forget,
    .read = sim_read,
    .write = sim_write,
    .slot_add = sim_slot_add,
    .slot_remove = sim_slot_remove,
    .guest_zap = sim_guest_zap,
    .guest_resume = sim_guest_resume,
    .guest_stop = sim_guest_stop,
};
