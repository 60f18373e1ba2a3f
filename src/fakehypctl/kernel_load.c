/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl kernel-load: an access of the host kernel to guest memory, and what becomes of it. */
#include <inttypes.h>

#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/ctl.h"

static void print_load(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    bool reclaimed = reader_bool(r, answer, "reclaimed");

    fprintf(io->out, "PFN 0x%" PRIx64 ": read ", reader_u64(r, answer, "pfn"));
    out_clean(io->out, reader_string(r, answer, "bytes"));
    fprintf(io->out, "\n%s\n",
            reclaimed ? "stage 2 refused: the page was taken from its guest by force, zeroed, and its IPA is poisoned"
                      : "stage 2 let it through: nothing has changed");
}

enum ctl_exit ctl_kernel_load(const struct ctl_args *args, struct ctl_io *io)
{
    struct fakehyp_query_args query = {.what = ctl_given(args, CTL_OPT_FIXUP) ? "kernel-copy" : "kernel-load"};

    if (!ctl_names_page(args, "fakehypctl kernel-load", &query, io))
        return CTL_FAILED;
    return ask_and_print(args, &query, print_load, io, NULL);
}
