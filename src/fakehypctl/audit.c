/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl audit: does the kernel's truth match the model's? */
#include <inttypes.h>

#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/ctl.h"

static void print_audit(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    const json_t *checked = reader_object(r, answer, "checked"), *problems = reader_array(r, answer, "problems");
    bool ok = reader_bool(r, answer, "ok");
    size_t n = json_array_size(problems);
    char verdict[64];

    if (ok)
        snprintf(verdict, sizeof(verdict), "clean");
    else
        snprintf(verdict, sizeof(verdict), "%zu problem%s", n, n == 1 ? "" : "s");
    fprintf(io->out, "audit: ");
    out_coloured(io, ok ? OUT_GOOD : OUT_BAD, verdict, 0);
    fprintf(io->out, "\nchecked: files %" PRIu64 ", pages %" PRIu64, reader_u64(r, checked, "files"),
            reader_u64(r, checked, "pages"));
    fprintf(io->out, ", views %" PRIu64 ", frames %" PRIu64 "\n", reader_u64(r, checked, "views"),
            reader_u64(r, checked, "frames"));
    for (size_t i = 0; i < n; i++) {
        fprintf(io->out, "  %3zu  ", i + 1);
        out_clean(io->out, reader_string_at(r, problems, "problems", i));
        fputc('\n', io->out);
    }
}

enum ctl_exit ctl_audit(const struct ctl_args *args, struct ctl_io *io)
{
    const struct fakehyp_query_args query = {.what = "audit"};
    enum ctl_exit status;
    bool ok = false;

    status = ask_and_print(args, &query, print_audit, io, &ok);
    return status == CTL_OK && !ok ? CTL_PROBLEM : status;
}
