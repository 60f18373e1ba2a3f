/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fakehyp-scenario(5) lists every verb as the table has it, and the table makes sense.
 *
 * `make verbs-page` runs this program with the page as its argument: it writes the list anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "src/scenario/call.h"

#define BEGIN "; verbs: make verbs-page writes what follows\n"
#define END "; end of the verbs\n"

static const char *const class_titles[SC_NR_ACTORS] = {
    [SC_WORLD] = "The world, w = world { }",
    [SC_PROCESS] = "Host processes: w.vmm, and what w:process() and fork() give",
    [SC_GUEST] = "Guests: w.guest, which is vCPU 0, and w:vcpu(n)",
    [SC_KERN] = "The host's kernel: w.kern",
    [SC_HYP] = "The hypervisor: w.hyp",
    [SC_FILE] = "guest_memfds: w.file, and what gives another",
    [SC_VM] = "VMs: w.vm, and what gives another",
    [SC_DEVICE] = "Devices",
    [SC_CPU] = "CPUs of the host",
};

static void list_verb(FILE *f, enum sc_verb verb)
{
    const struct sc_verb_info *info = &sc_verbs[verb];
    struct sc_param params[SC_ARGS];
    unsigned nr = sc_params(verb, params);

    fprintf(f, "*%s*(", info->name);
    for (unsigned i = 0; i < nr; i++) {
        fprintf(f, "%s%s_%s_", params[i].has_default ? "[" : "", i ? ", " : "", params[i].name);
        if (params[i].has_default && *params[i].value && params[i].type != SC_TYPE_HANDLE &&
            params[i].type != SC_TYPE_ACTOR)
            fprintf(f, " = %s", params[i].value);
        fprintf(f, "%s", params[i].has_default ? "]" : "");
    }
    fprintf(f, ")%s%s\n\t%s.\n\t%s: %s.\n\n", info->result == SC_VERDICT ? "" : ": a ",
            info->result == SC_VERDICT ? "" : sc_actor_names[info->result], info->meaning,
            info->is_live ? "Live" : "Simulation only", info->live);
}

static char *list_verbs(void)
{
    char *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    assert_non_null(f);
    for (unsigned class = 0; class < SC_NR_ACTORS; class ++) {
        bool any = false;
        for (int verb = 0; verb < SC_NR_VERBS; verb++) {
            if (sc_verbs[verb].actor != class)
                continue;
            if (!any)
                fprintf(f, "## %s\n\n", class_titles[class]);
            any = true;
            list_verb(f, (enum sc_verb)verb);
        }
    }
    fclose(f);
    return text;
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t size = 0;

    if (!f || getdelim(&text, &size, '\0', f) < 0) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(1);
    }
    fclose(f);
    return text;
}

/* The list in the page: what is between the two comments. */
static char *find_list(char *page, char **end)
{
    char *begin = strstr(page, BEGIN);

    *end = begin ? strstr(begin, END) : NULL;
    if (!*end) {
        fprintf(stderr, "the page lacks the comments around the list\n");
        exit(1);
    }
    return begin + strlen(BEGIN);
}

static void page_lists_verbs(void **state)
{
    char path[4096], *end, *expected = list_verbs();

    (void)state;
    snprintf(path, sizeof(path), "%s/doc/man/fakehyp-scenario.5.scd", getenv("srcdir") ? getenv("srcdir") : ".");
    char *page = read_file(path), *list = find_list(page, &end);
    *end = '\0';
    if (strcmp(list, expected))
        fail_msg("%s does not list what src/scenario/verbs.h has: make verbs-page", path);
    free(page);
    free(expected);
}

static bool has_param(const struct sc_param *params, unsigned nr, const char *name, size_t len)
{
    for (unsigned i = 0; i < nr; i++)
        if (strlen(params[i].name) == len && !strncmp(params[i].name, name, len))
            return true;
    return false;
}

/* Narration names arguments that there are, types exist, optional arguments come last, the texts are there. */
static void table_is_sound(void **state)
{
    (void)state;
    for (int verb = 0; verb < SC_NR_VERBS; verb++) {
        const struct sc_verb_info *info = &sc_verbs[verb];
        struct sc_param params[SC_ARGS];
        unsigned nr = sc_params((enum sc_verb)verb, params), words = 0;
        bool optional = false;

        for (const char *s = info->signature; *s; s += strspn(s, " ")) {
            words++;
            s += strcspn(s, " ");
        }
        assert_int_equal(nr, words);
        for (unsigned i = 0; i < nr; i++) {
            if (optional && !params[i].has_default)
                fail_msg("%s: \"%s\": arguments that may be left out come last", info->name, info->signature);
            optional = params[i].has_default;
        }
        for (const char *s = info->narration; (s = strchr(s, '{')); s++) {
            size_t len = strcspn(s + 1, "}+");
            if (!has_param(params, nr, s + 1, len))
                fail_msg("%s: \"%s\" names no argument", info->name, s);
            if (s[1 + len] == '+')
                assert_true(has_param(params, nr, s + len + 2, strcspn(s + len + 2, "}")));
        }
        assert_true(*info->meaning && *info->live && *info->narration);
        assert_int_equal(sc_verb_find(info->actor, info->name), verb);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_lists_verbs),
        cmocka_unit_test(table_is_sound),
    };

    if (argc == 2) {
        char *end, *page = read_file(argv[1]), *list = find_list(page, &end);
        FILE *f = fopen(argv[1], "we");
        if (!f)
            return 1;
        fprintf(f, "%.*s%s%s", (int)(list - page), page, list_verbs(), end);
        return fclose(f) ? 1 : 0;
    }
    return cmocka_run_group_tests_name("scenario_manual", tests, NULL, NULL);
}
