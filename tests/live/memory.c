/* SPDX-License-Identifier: BSD-2-Clause */
/* A TiB of emulated memory costs what is used of it: of EL1's frames, EL2's page records, tables, files and mappings.
 */
#include "tests/common/live_puppet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)
#define IDLE_LIMIT (64 * MIB)
/* What EL1 and EL2 may take beyond an idle daemon for a VM of a TiB with nothing but a few pages in it. */
#define VM_LIMIT (16 * MIB)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHADOWED true /* the sanitizer's own memory is most of it */
#else
#define SHADOWED false
#endif

struct use {
    uint64_t rss, virtual;
};

static struct use use_of(pid_t pid)
{
    struct use use = {0};
    unsigned long long kib;
    char name[64], line[128];

    snprintf(name, sizeof(name), "/proc/%d/status", (int)pid);
    FILE *f = fopen(name, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "VmRSS: %llu kB", &kib) == 1)
            use.rss = kib << 10;
        else if (sscanf(line, "VmSize: %llu kB", &kib) == 1)
            use.virtual = kib << 10;
    }
    fclose(f);
    assert_true(use.rss && use.virtual);
    return use;
}

static void open_daemon(struct rig_daemon *d)
{
    *d = (struct rig_daemon){.memory = "1T"};
    assert_int_equal(rig_daemon_open(d), 0);
}

static void idle_with_a_tib(void **state)
{
    struct rig_daemon d;

    (void)state;
    open_daemon(&d);
    struct use use = use_of(d.pid);
    rig_note("idle, 1 TiB emulated: VmRSS %.1f MiB, VmSize %.2f TiB", (double)use.rss / (double)MIB,
             (double)use.virtual / (double)TIB);
    /* It is there, and not only a number. */
    assert_true(use.virtual > TIB);
    assert_true(SHADOWED || use.rss < IDLE_LIMIT);
    rig_daemon_close(&d);
}

/* Frames of the first pages, the middle and the end are used; none of the records between them is. */
static void a_vm_with_a_tib(void **state)
{
    static const uint64_t offsets[] = {0, TIB / 2, TIB - PAGE};
    struct rig_daemon d;
    struct fakehyp *fh;
    struct pvm v;

    (void)state;
#ifdef __SANITIZE_THREAD__
    rig_not_here("not tried: a_vm_with_a_tib: beside an IPA space ThreadSanitizer has no room for a file of its size");
#endif
    open_daemon(&d);
    must(fakehyp_connect(d.socket, &fh));
    struct use idle = use_of(d.pid);
    uint64_t start = rig_now_ns();
    pvm_create(&v, fh, &(struct pvm_config){.pages = TIB / PAGE});
    for (unsigned i = 0; i < 3; i++) {
        puppet_write(&v.puppet[0], offsets[i], "far", 4);
        assert_refused(v.view + offsets[i]);
    }
    assert_int_equal(puppet_share(&v.puppet[0], TIB - PAGE), 0);
    assert_reads(v.view + TIB - PAGE, 'f');
    struct use use = use_of(d.pid);
    rig_note("a VM of 1 TiB, 3 pages donated: %.1f MiB more than the idle daemon's %.1f, in %.0f ms",
             (double)(use.rss - idle.rss) / (double)MIB, (double)idle.rss / (double)MIB,
             (double)(rig_now_ns() - start) / 1e6);
    assert_true(SHADOWED || use.rss < idle.rss + VM_LIMIT);
    rig_audit(fh);
    pvm_destroy(&v);
    fakehyp_disconnect(fh);
    rig_daemon_close(&d);
}

static const struct CMUnitTest tests[] = {
    live_test(idle_with_a_tib),
    live_test(a_vm_with_a_tib),
};

RIG_MAIN(tests)
