/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/machine/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TRACE_CAPACITY 65536u
#define MEMORY_MIN (UINT64_C(16) << 20)
#define MEMORY_MAX (UINT64_C(8) << 40)

void machine_log(struct machine *m, int level, const char *format, ...)
{
    char text[512];
    va_list args;
    if (!m->config.log)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    m->config.log(m->config.log_ctx, level, text);
}

static void *arch_ram(void *ctx, uint64_t pfn)
{
    struct machine *m = ctx;
    return m->ram + ((pfn << 12) - m->ram_base);
}

static bool arch_stage2_allows(void *ctx, uint64_t pfn)
{
    struct s2_walk w;
    mmu_walk_host(ctx, pfn, &w);
    return !w.annotated;
}

static int arch_slot_add(void *ctx, struct vm *vm, const struct memslot *slot, struct caller *caller)
{
    struct machine *m = ctx;
    return m->config.stage->slot_add(m->config.stage_ctx, vm, slot, caller);
}

static void arch_slot_remove(void *ctx, struct vm *vm, const struct memslot *slot)
{
    struct machine *m = ctx;
    m->config.stage->slot_remove(m->config.stage_ctx, vm, slot);
}

static bool arch_stands_still(void *ctx)
{
    return ((const struct machine *)ctx)->panicked;
}

static int arch_queue_work(void *ctx, void (*fn)(void *arg), void *arg)
{
    struct machine *m = ctx;
    return task_spawn(m->sched, "kworker", fn, arg) ? 0 : -ENOMEM;
}

static void arch_guest_stop(void *ctx, struct vm *vm)
{
    struct machine *m = ctx;
    m->config.stage->guest_stop(m->config.stage_ctx, vm);
}

void machine_record(struct machine *m, const struct host_event *event)
{
    uint64_t now = m->config.sched.now ? m->config.sched.now(m->config.sched.ctx) : 0;
    if (!now && task_current())
        now = sched_now();
    trace_add(m->trace, now, sched_task_id(), event);
}

static void arch_trace(void *ctx, const struct host_event *event)
{
    machine_record(ctx, event);
}

static void *reserve(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    /* A huge page behind one table page would make "only what is used costs" untrue. */
    madvise(p, bytes, MADV_NOHUGEPAGE);
    return p;
}

/* RAM that no process may reach lives in a file of its own, which is mapped here and nowhere else. */
static int map_ram(uint64_t bytes, char **ram)
{
    int fd = memfd_create("fakehyp-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    void *p = MAP_FAILED;
    if (!ftruncate(fd, (off_t)bytes))
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    int rc = p == MAP_FAILED ? -errno : 0;
    close(fd);
    if (!rc)
        *ram = p;
    return rc;
}

int machine_new(const struct machine_config *config, struct machine **out)
{
    if (config->memory_bytes < MEMORY_MIN || config->memory_bytes > MEMORY_MAX || config->memory_bytes % HYP_PAGE_SIZE)
        return -EINVAL;
    struct machine *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->config = *config;
    m->ram_base = MACHINE_RAM_BASE;
    m->ram_bytes = config->memory_bytes;
    m->sched = sched_new(&config->sched);
    m->trace = trace_new(config->trace_events ? config->trace_events : TRACE_CAPACITY, config->trace_file);
    int rc = map_ram(m->ram_bytes, &m->ram);
    m->vmemmap = reserve((m->ram_bytes >> 12) * sizeof(struct hyp_page));
    m->hyp = aligned_alloc(64, (hyp_state_size() + 63) / 64 * 64);
    if (!rc && !(m->sched && m->trace && m->vmemmap && m->hyp))
        rc = -ENOMEM;
    if (!rc)
        rc = cpu_boot_el2(m);
    if (!rc) {
        const struct host_arch arch = {
            .ctx = m,
            .base_pfn = m->ram_base >> 12,
            .nr_pfns = m->pool_pfn - (m->ram_base >> 12),
            .hvc = cpu_hvc,
            .ram = arch_ram,
            .file_create = file_create,
            .file_destroy = file_destroy,
            .prepare = file_prepare,
            .commit = file_commit,
            .populated = file_populated,
            .allocate = file_allocate,
            .discard = file_discard,
            .fill = file_fill,
            .copy = file_copy,
            .stands_still = arch_stands_still,
            .queue_work = arch_queue_work,
            .orphan = file_orphan,
            .forget = file_forget,
            .stage2_allows = arch_stage2_allows,
            .slot_add = arch_slot_add,
            .slot_remove = arch_slot_remove,
            .cpu_get = cpu_get,
            .cpu_put = cpu_put,
            .vcpu_free = cpu_vcpu_free,
            .guest_stop = arch_guest_stop,
            .trace = arch_trace,
        };
        m->host = host_new(&arch);
        if (!m->host)
            rc = -ENOMEM;
    }
    if (rc) {
        machine_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

void machine_free(struct machine *m)
{
    if (!m)
        return;
    host_free(m->host);
    if (m->ram)
        munmap(m->ram, m->ram_bytes);
    if (m->vmemmap)
        munmap(m->vmemmap, (m->ram_bytes >> 12) * sizeof(struct hyp_page));
    free(m->hyp);
    oracle_close(m);
    free(m->invals);
    trace_free(m->trace);
    sched_free(m->sched);
    free(m);
}

struct host *machine_host(const struct machine *m)
{
    return m->host;
}

struct sched *machine_sched(const struct machine *m)
{
    return m->sched;
}

struct hyp *machine_hyp(const struct machine *m)
{
    return m->hyp;
}

struct trace *machine_trace(const struct machine *m)
{
    return m->trace;
}

const char *machine_stage_name(const struct machine *m)
{
    return m->config.stage->name;
}

const char *machine_panicked(const struct machine *m)
{
    return m->panicked ? m->panic_text : NULL;
}

struct mfile *machine_file(const struct gmem *gmem)
{
    return gmem_file(gmem);
}
