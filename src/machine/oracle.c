/* SPDX-License-Identifier: BSD-2-Clause */
/* The ways into EL2, with the oracle beside it or without. */
#include "src/machine/internal.h"

#include <errno.h>
#include <sys/mman.h>

/* A report goes to whoever audits, else to the log. */
static void say(void *ctx, const char *line)
{
    struct machine *m = ctx;
    if (m->oracle_listener)
        m->oracle_listener(m->oracle_listener_ctx, line);
    else
        machine_log(m, 0, "%s", line);
}

int oracle_open(struct machine *m, struct hyp_config *config)
{
    const struct oracle_options options = {.report = say, .ctx = m};
    if (m->config.oracle == MACHINE_ORACLE_OFF)
        return 0;
    m->oracle_bytes = oracle_size(config);
    void *memory =
        mmap(NULL, m->oracle_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    madvise(memory, m->oracle_bytes, MADV_NOHUGEPAGE);
    madvise(memory, m->oracle_bytes, MADV_DONTDUMP);
    m->oracle = oracle_attach(memory, config, &options);
    return 0;
}

void oracle_close(struct machine *m)
{
    if (m->oracle)
        munmap(m->oracle, m->oracle_bytes);
}

/* With `panic` a machine of which the oracle says that it is wrong goes no further. */
static void obey(struct machine *m)
{
    struct oracle_stats stats;
    oracle_stats(m->oracle, &stats);
    if (stats.divergences && m->config.oracle == MACHINE_ORACLE_PANIC && !m->panicked) {
        m->panicked = true;
        snprintf(m->panic_text, sizeof(m->panic_text), "EL2 is not as the oracle specifies it");
        machine_log(m, 0, "%s; the machine stands still from now on", m->panic_text);
    }
}

enum hyp_next el2_hvc(struct machine *m, unsigned cpu, uint64_t regs[8])
{
    if (!m->oracle)
        return hyp_host_hvc(m->hyp, cpu, regs);
    enum hyp_next next = oracle_host_hvc(m->oracle, cpu, regs);
    obey(m);
    return next;
}

enum hyp_next el2_trap(struct machine *m, unsigned cpu, const struct hyp_trap *trap, uint64_t regs[8])
{
    if (!m->oracle)
        return hyp_guest_trap(m->hyp, cpu, trap, regs);
    enum hyp_next next = oracle_guest_trap(m->oracle, cpu, trap, regs);
    obey(m);
    return next;
}

enum hyp_abort el2_abort(struct machine *m, unsigned cpu, uint64_t phys, bool is_write)
{
    if (!m->oracle)
        return hyp_host_abort(m->hyp, cpu, phys, is_write);
    enum hyp_abort verdict = oracle_host_abort(m->oracle, cpu, phys, is_write);
    obey(m);
    return verdict;
}

bool machine_oracle_stats(const struct machine *m, struct oracle_stats *out)
{
    *out = (struct oracle_stats){0};
    if (m->oracle)
        oracle_stats(m->oracle, out);
    return m->oracle;
}

uint64_t oracle_look(struct machine *m, void (*report)(void *ctx, const char *line), void *ctx)
{
    struct oracle_stats stats;
    if (!machine_oracle_stats(m, &stats))
        return 0;
    m->oracle_listener = report;
    m->oracle_listener_ctx = ctx;
    oracle_audit(m->oracle);
    m->oracle_listener = NULL;
    return stats.divergences;
}
