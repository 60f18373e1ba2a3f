/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl ptdump against a daemon that answers from a can: the text, column by column, and the pages of a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/fakehypctl/ctl.h"
#include "tests/unit/ctl_fake.h"

static struct ctl_fake *fake;

#define NONE "\"valid\":false,\"annotated\":false,\"r\":false,\"w\":false,\"xn\":0,\"af\":false,\"block\":false"
#define ANNOTATED "\"valid\":false,\"annotated\":true,\"r\":false,\"w\":false,\"xn\":0,\"af\":false,\"block\":false"
#define VALID(r, w, xn, af, block)                                                                                     \
    "\"valid\":true,\"annotated\":false,\"r\":" #r ",\"w\":" #w ",\"xn\":" #xn ",\"af\":" #af ",\"block\":" #block
#define RUN(start, end, level, bits) "{\"start\":" #start ",\"end\":" #end ",\"level\":" #level ",\"pte\":0," bits "}"
#define STATE(start, end, level, bits, more)                                                                           \
    "{\"start\":" #start ",\"end\":" #end ",\"level\":" #level ",\"pte\":0," bits "," more "}"
#define ANSWER(next, runs)                                                                                             \
    "{\"vm\":3,\"handle\":4096,\"ipa_bits\":40,\"start_level\":1,\"next\":" #next ",\"runs\":[" runs "]}"

static void assert_text(const struct ctl_output *o, const char *text)
{
    if (o->status != CTL_OK || strcmp(o->out, text) || *o->err)
        fail_msg("status %d, on stderr: %s\nprinted:\n%s\nexpected:\n%s", o->status, o->err, o->out, text);
}

/* What each token looks like, and that an entry with no bit has none of them. */
static void tokens(void **state)
{
    ctl_fake_answer(fake, ANSWER(null, RUN(0, 1073741824, 1, NONE) ","                                   //
                                 RUN(1073741824, 1075838976, 2, VALID(true, true, 0, true, true)) ","    //
                                 RUN(1075838976, 1075843072, 3, VALID(true, true, 0, true, false)) ","   //
                                 RUN(1075843072, 1075851264, 3, VALID(true, false, 1, true, false)) ","  //
                                 RUN(1075851264, 1075855360, 3, VALID(false, true, 2, false, false)) "," //
                                 RUN(1075855360, 1075859456, 3, VALID(false, false, 3, true, false)) "," //
                                 RUN(1075859456, 1077936128, 3, ANNOTATED) ","                           //
                                 RUN(1077936128, 1079508992, 3, NONE) ","                                //
                                 RUN(2147483648, 3221225472, 1, VALID(true, true, 2, true, true)) ","    //
                                 RUN(1099511627776, 2199023255552, 0, NONE)));
    assert_text(ctl_fake_run("ptdump", "--vm", "3", NULL),
                "---[ Guest IPA ]---\n"
                "0x0000000000000000-0x0000000040000000           1G 1\n"
                "0x0000000040000000-0x0000000040200000           2M 2   R W px ux  AF BLK\n"
                "0x0000000040200000-0x0000000040201000           4K 3   R W px ux  AF    \n"
                "0x0000000040201000-0x0000000040203000           8K 3   R   PXNux  AF    \n"
                "0x0000000040203000-0x0000000040204000           4K 3     W PXNUXN       \n"
                "0x0000000040204000-0x0000000040205000           4K 3       px UXN AF    \n"
                "0x0000000040205000-0x0000000040400000        2028K 3 F                  \n"
                "0x0000000040400000-0x0000000040580000        1536K 3\n"
                "0x0000000080000000-0x00000000c0000000           1G 1   R W PXNUXN AF BLK\n"
                "0x0000010000000000-0x0000020000000000           1T 0\n");
    assert_string_equal(fake->query.what, "ptdump");
    assert_int_equal(fake->query.vm, 3);
    assert_false(fake->query.state);
}

static void states(void **state)
{
    ctl_fake_answer(
        fake,
        ANSWER(
            null,
            STATE(0, 4096, 3, VALID(true, true, 0, true, false), "\"state\":\"SHARED_OWNED\",\"pa\":2147487744,\"annotation\":null") "," STATE(4096, 8192, 3, ANNOTATED, "\"state\":\"POISON\",\"pa\":null,\"annotation\":{\"type\":\"poison\"}") "," STATE(
                8192, 12288, 3, ANNOTATED,
                "\"state\":\"NOPAGE\",\"pa\":null,\"annotation\":{\"type\":\"donation\","
                "\"owner\":\"guest\",\"handle\":4096,\"gfn\":64}") "," STATE(12288, 16384, 3, ANNOTATED,
                                                                             "\"state\":\"NOPAGE\",\"pa\":null,"
                                                                             "\"annotation\":{\"type\":\"donation\","
                                                                             "\"owner\":\"hypervisor\"}") "," STATE(16384,
                                                                                                                    20480,
                                                                                                                    3,
                                                                                                                    NONE,
                                                                                                                    "\""
                                                                                                                    "st"
                                                                                                                    "at"
                                                                                                                    "e"
                                                                                                                    "\""
                                                                                                                    ":"
                                                                                                                    "\""
                                                                                                                    "OW"
                                                                                                                    "NE"
                                                                                                                    "D"
                                                                                                                    "\""
                                                                                                                    ","
                                                                                                                    "\""
                                                                                                                    "pa"
                                                                                                                    "\""
                                                                                                                    ":n"
                                                                                                                    "ul"
                                                                                                                    "l,"
                                                                                                                    "\""
                                                                                                                    "an"
                                                                                                                    "no"
                                                                                                                    "ta"
                                                                                                                    "ti"
                                                                                                                    "on"
                                                                                                                    "\""
                                                                                                                    ":n"
                                                                                                                    "ul"
                                                                                                                    "l") "," STATE(20480,
                                                                                                                                   24576,
                                                                                                                                   3,
                                                                                                                                   NONE,
                                                                                                                                   "\"state\":null,\"pa\":null,\"annotation\":null")));
    assert_text(ctl_fake_run("ptdump", "--host", "--state", NULL),
                "---[ Host IPA ]---\n"
                "0x0000000000000000-0x0000000000001000           4K 3   R W px ux  AF     SHARED_OWNED pa 0x80001000\n"
                "0x0000000000001000-0x0000000000002000           4K 3 F                   POISON\n"
                "0x0000000000002000-0x0000000000003000           4K 3 F                   NOPAGE donation to guest "
                "0x1000 gfn 0x40\n"
                "0x0000000000003000-0x0000000000004000           4K 3 F                   NOPAGE donation to "
                "hypervisor\n"
                "0x0000000000004000-0x0000000000005000           4K 3                     OWNED\n"
                "0x0000000000005000-0x0000000000006000           4K 3                     -\n");
    assert_int_equal(fake->query.vm, 0);
    assert_true(fake->query.state);
}

/* A long table comes in several answers; it is one table. */
static void pages(void **state)
{
    unsigned before = fake->nr_queries;

    ctl_fake_answer(fake, ANSWER(4096, RUN(0, 4096, 3, NONE)));
    ctl_fake_answer_next(fake, ANSWER(8192, RUN(4096, 8192, 3, ANNOTATED)));
    ctl_fake_answer_next(fake, ANSWER(null, RUN(8192, 12288, 3, NONE)));
    assert_text(ctl_fake_run("ptdump", "--vm=3", NULL), "---[ Guest IPA ]---\n"
                                                        "0x0000000000000000-0x0000000000001000           4K 3\n"
                                                        "0x0000000000001000-0x0000000000002000           4K 3 F"
                                                        "                  \n"
                                                        "0x0000000000002000-0x0000000000003000           4K 3\n");
    assert_int_equal(fake->nr_queries - before, 3);
    assert_int_equal(fake->query.gpa, 8192);
}

static void json_lines(void **state)
{
    static const char first[] = RUN(0, 4096, 3, NONE), second[] = RUN(4096, 8192, 3, ANNOTATED);
    const struct ctl_output *o;
    static char text[CTL_FAKE_TEXT];
    char *save = NULL;

    ctl_fake_answer(fake, ANSWER(4096, RUN(0, 4096, 3, NONE)));
    ctl_fake_answer_next(fake, ANSWER(null, RUN(4096, 8192, 3, ANNOTATED)));
    o = ctl_fake_run("ptdump", "--vm=3", "--json", NULL);
    assert_int_equal(o->status, CTL_OK);
    snprintf(text, sizeof(text), "%s", o->out);
    const char *lines[] = {strtok_r(text, "\n", &save), strtok_r(NULL, "\n", &save), strtok_r(NULL, "\n", &save)};
    assert_null(lines[2]);
    for (unsigned i = 0; i < 2; i++) {
        json_t *got = json_loads(lines[i], 0, NULL), *expected = json_loads(i ? second : first, 0, NULL);
        assert_true(got && json_equal(got, expected));
        json_decref(got);
        json_decref(expected);
    }
}

static void refused(const char *json, const char *words)
{
    ctl_fake_answer(fake, json);
    const struct ctl_output *o = ctl_fake_run("ptdump", "--vm=3", "--state", NULL);

    assert_int_equal(o->status, CTL_FAILED);
    assert_string_equal(o->out, "");
    if (!strstr(o->err, words))
        fail_msg("no \"%s\" in: %s", words, o->err);
}

static void nonsense(void **state)
{
    const struct ctl_output *o;

    refused("{}", "malformed: ");
    refused(ANSWER(null, "7"), "malformed: ");
    refused(ANSWER(null, "{\"start\":0}"), "malformed: ");
    /* Without the states that were asked for. */
    refused(ANSWER(null, RUN(0, 4096, 3, NONE)), "malformed: ");
    refused(ANSWER(null, STATE(0, 4096, 3, NONE, "\"state\":7,\"pa\":null,\"annotation\":null")), "malformed: ");
    /* A table that never ends is no table. */
    ctl_fake_answer(fake, ANSWER(8192, RUN(0, 8192, 3, NONE)));
    ctl_fake_answer_next(fake, ANSWER(8192, RUN(0, 8192, 3, NONE)));
    o = ctl_fake_run("ptdump", "--vm=3", NULL);
    assert_int_equal(o->status, CTL_FAILED);
    assert_non_null(strstr(o->err, "goes backwards"));
}

static void usage(void **state)
{
    static const char *const lines[][2] = {{NULL}, {"--host", "--vm=1"}, {"--vm=0"}, {"--state"}};

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        const struct ctl_output *o = ctl_fake_run("ptdump", lines[i][0], lines[i][1], NULL);
        assert_int_equal(o->status, CTL_FAILED);
        assert_non_null(strstr(o->err, "whose table?"));
    }
}

static int start(void **state)
{
    fake = ctl_fake_start();
    return !fake || setenv("FAKEHYP_SOCKET", fake->path, 1);
}

static int stop(void **state)
{
    ctl_fake_stop(fake);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens),     cmocka_unit_test(states),   cmocka_unit_test(pages),
        cmocka_unit_test(json_lines), cmocka_unit_test(nonsense), cmocka_unit_test(usage),
    };

    return cmocka_run_group_tests_name("ctl_ptdump", tests, start, stop);
}
