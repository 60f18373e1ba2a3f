/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A walk over a whole stage-2 table for people to read: runs of entries that
 * look alike, as the kernel's debugfs file stage2_page_tables has them.
 *
 * The table is looked at, not stopped: what changes during a walk is in it
 * before or after the change.
 */
#ifndef SRC_MACHINE_PTDUMP_H
#define SRC_MACHINE_PTDUMP_H

#include "src/machine/machine.h"

struct ptdump_run {
    uint64_t start, end; /* IPA in bytes */
    int level;
    uint64_t pte, pfn; /* of the first entry; pfn when it is valid */
    bool has_state;    /* only in a dump with states, and not where there is no memory */
    enum hyp_page_state state;
};

struct ptdump {
    struct machine *machine;
    uint64_t vm; /* id; 0: the host's table */
    bool states;
    uint32_t handle; /* of the VM */
    unsigned ipa_bits, start_level;
    uint64_t at, end;
    uint64_t seen; /* entries */
};

/*
 * From the page of IPA `from` on.  With states a run also ends where the page
 * state, the annotation or the order of output addresses changes.  -ENOENT no
 * such VM; -ENXIO EL2 has no table of it yet; -ERANGE `from` is beyond it.
 */
int ptdump_open(struct ptdump *dump, struct machine *machine, uint64_t vm, bool states, uint64_t from);
/* (task) The next run: 1, 0 at the end of the table, -ENOENT when the VM went away.  Lets others run meanwhile. */
int ptdump_next(struct ptdump *dump, struct ptdump_run *run);

#endif
