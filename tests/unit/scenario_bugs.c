/* SPDX-License-Identifier: BSD-2-Clause */
/* Scenarios find what they are there to find: with a mistake in the model they fail, and without it every one passes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "src/scenario/scenario.h"

#define MAX_FAILED 64

/* Plays all scenarios under policy D with a mistake: how many of them fail, each once. */
static unsigned failed(const char *bugs)
{
    const char *top = getenv("srcdir");
    char folder[4096], *text = NULL, ids[MAX_FAILED][16];
    char *paths[] = {folder};
    unsigned nr = 0;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    snprintf(folder, sizeof(folder), "%s/tests/scenarios", top ? top : ".");
    sc_run(&(struct sc_options){.paths = paths,
                                .nr_paths = 1,
                                .policy = "D",
                                .bugs = bugs,
                                .format = SC_FORMAT_TAP,
                                .out = out,
                                .err = stderr});
    fclose(out);
    assert_non_null(strstr(text, "\nok "));
    for (const char *line = text; line; line = strchr(line, '\n')) {
        char id[16];
        unsigned i = 0;
        line += *line == '\n';
        if (sscanf(line, "not ok %*u - %15s", id) != 1)
            continue;
        while (i < nr && strcmp(ids[i], id))
            i++;
        if (i == nr && nr < MAX_FAILED)
            snprintf(ids[nr++], sizeof(ids[0]), "%s", id);
    }
    printf("# %s: %u scenarios fail:", *bugs ? bugs : "no mistake", nr);
    for (unsigned i = 0; i < nr; i++)
        printf(" %s", ids[i]);
    printf("\n");
    free(text);
    return nr;
}

static void policy_d_without_its_reference_check(void **state)
{
    (void)state;
    assert_true(failed("d-no-refcheck") >= 5);
}

static void no_mistake(void **state)
{
    (void)state;
    assert_int_equal(failed(""), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_d_without_its_reference_check),
        cmocka_unit_test(no_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
