/* SPDX-License-Identifier: BSD-2-Clause */
/* Every scenario that has a live form, with real processes: one result a run. */
#include <stdio.h>
#include <stdlib.h>

#include "src/scenario/scenario.h"

int main(void)
{
    const char *top = getenv("srcdir");
    char folder[4096];
    char *paths[] = {folder};

    snprintf(folder, sizeof(folder), "%s/tests/scenarios", top ? top : ".");
    return sc_run(&(struct sc_options){
        .paths = paths, .nr_paths = 1, .live = true, .format = SC_FORMAT_TAP, .out = stdout, .err = stderr});
}
