/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl's command line: numbers, options, help, and what is said without a daemon. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <fakehyp/fakehyp.h>

#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/ctl.h"
#include "tests/unit/ctl_fake.h"

static void numbers(void **state)
{
    static const struct {
        const char *text;
        bool suffixes;
        uint64_t max;
        int err;
        uint64_t value;
    } cases[] = {
        {"0", false, UINT64_MAX, 0, 0},
        {"4096", false, UINT64_MAX, 0, 4096},
        {"010", false, UINT64_MAX, 0, 10}, /* no octal */
        {"0x1000", false, UINT64_MAX, 0, 4096},
        {"0XfFf", false, UINT64_MAX, 0, 0xfff},
        {"18446744073709551615", false, UINT64_MAX, 0, UINT64_MAX},
        {"0xffffffffffffffff", false, UINT64_MAX, 0, UINT64_MAX},
        {"4K", true, UINT64_MAX, 0, 4096},
        {"4k", true, UINT64_MAX, 0, 4096},
        {"2M", true, UINT64_MAX, 0, 2 << 20},
        {"3G", true, UINT64_MAX, 0, UINT64_C(3) << 30},
        {"1T", true, UINT64_MAX, 0, UINT64_C(1) << 40},
        {"0x10K", true, UINT64_MAX, 0, 16384},
        {"16777215T", true, UINT64_MAX, 0, UINT64_C(16777215) << 40},

        {"18446744073709551616", false, UINT64_MAX, -ERANGE, 0},
        {"0x10000000000000000", false, UINT64_MAX, -ERANGE, 0},
        {"99999999999999999999999999999", false, UINT64_MAX, -ERANGE, 0},
        {"16777216T", true, UINT64_MAX, -ERANGE, 0},
        {"18446744073709551615K", true, UINT64_MAX, -ERANGE, 0},
        {"11", false, 10, -ERANGE, 0},
        {"4G", true, UINT32_MAX, -ERANGE, 0},

        {"", true, UINT64_MAX, -EINVAL, 0},
        {"0x", true, UINT64_MAX, -EINVAL, 0},
        {"K", true, UINT64_MAX, -EINVAL, 0},
        {"0xK", true, UINT64_MAX, -EINVAL, 0},
        {"-1", true, UINT64_MAX, -EINVAL, 0},
        {"+1", true, UINT64_MAX, -EINVAL, 0},
        {" 1", true, UINT64_MAX, -EINVAL, 0},
        {"1 ", true, UINT64_MAX, -EINVAL, 0},
        {"1KK", true, UINT64_MAX, -EINVAL, 0},
        {"1KiB", true, UINT64_MAX, -EINVAL, 0},
        {"1P", true, UINT64_MAX, -EINVAL, 0},
        {"1.5K", true, UINT64_MAX, -EINVAL, 0},
        {"12f", true, UINT64_MAX, -EINVAL, 0},
        {"99999999999999999999999999999x", true, UINT64_MAX, -EINVAL, 0},
        {"4K", false, UINT64_MAX, -EINVAL, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t value = 77;
        int err = ctl_parse_number(cases[i].text, cases[i].suffixes, cases[i].max, &value);

        if (err != cases[i].err || value != (err ? 77 : cases[i].value))
            fail_msg("\"%s\": %d, %ju", cases[i].text, err, (uintmax_t)value);
    }
}

static void good_options(void **state)
{
    struct ctl_io io = {.out = stdout, .err = stderr};
    char *argv[] = {"page", "--offset=0x2000", "-g", "3", "--json", "--sock", "/x", "rest", "--gpa"};
    unsigned allowed = CTL_COMMON_OPTIONS | CTL_OPT_BIT(CTL_OPT_GMEM) | CTL_OPT_BIT(CTL_OPT_OFFSET);
    struct ctl_args args;

    assert_int_equal(ctl_parse_options(9, argv, allowed, false, "t", &args, &io), 7);
    assert_int_equal(args.given, CTL_OPT_BIT(CTL_OPT_GMEM) | CTL_OPT_BIT(CTL_OPT_OFFSET) | CTL_OPT_BIT(CTL_OPT_JSON) |
                                     CTL_OPT_BIT(CTL_OPT_SOCKET));
    assert_int_equal(args.num[CTL_OPT_GMEM], 3);
    assert_int_equal(args.num[CTL_OPT_OFFSET], 0x2000);
    assert_string_equal(args.socket, "/x");
}

static void operands_among_options(void **state)
{
    struct ctl_io io = {.out = stdout, .err = stderr};
    char *argv[] = {"run", "one", "--policy", "A", "two", "--quiet", "--", "--three", NULL};
    struct ctl_args args;

    int end =
        ctl_parse_options(8, argv, CTL_OPT_BIT(CTL_OPT_POLICY) | CTL_OPT_BIT(CTL_OPT_QUIET), true, "t", &args, &io);
    assert_int_equal(end, 5);
    assert_string_equal(args.text[CTL_OPT_POLICY], "A");
    assert_true(ctl_given(&args, CTL_OPT_QUIET));
    assert_string_equal(argv[5], "one");
    assert_string_equal(argv[6], "two");
    assert_string_equal(argv[7], "--three");
}

static void assert_usage(const struct ctl_output *o, const char *text)
{
    assert_int_equal(o->status, CTL_FAILED);
    assert_string_equal(o->out, "");
    if (!strstr(o->err, text))
        fail_msg("no \"%s\" in: %s", text, o->err);
}

static void bad_usage(void **state)
{
    assert_usage(ctl_fake_run("--", NULL), "which command?");
    assert_usage(ctl_fake_run("stats", NULL), "no command \"stats\"");
    assert_usage(ctl_fake_run("--json", "status", NULL), "no option --json");
    assert_usage(ctl_fake_run("--socket", "/s", "status", NULL), "options of a command come after its name");
    assert_usage(ctl_fake_run("status", "--gmem", "1", NULL), "fakehypctl status: no option --gmem");
    assert_usage(ctl_fake_run("status", "-x", NULL), "no option -x");
    assert_usage(ctl_fake_run("status", "extra", NULL), "\"extra\" is one argument too many");
    assert_usage(ctl_fake_run("status", "--socket", NULL), "--socket needs a value");
    assert_usage(ctl_fake_run("status", "--json=yes", NULL), "--json takes no value");
    assert_usage(ctl_fake_run("status", "--socket", "", NULL), "the path is empty");
    assert_usage(ctl_fake_run("page", NULL), "which page?");
    assert_usage(ctl_fake_run("page", "--gmem", "1", NULL), "which page?");
    assert_usage(ctl_fake_run("page", "--gmem", "1", "--gpa", "0", NULL), "which page?");
    assert_usage(ctl_fake_run("page", "--gmem", "1", "--offset", "0", "--vm", "1", NULL), "which page?");
    assert_usage(ctl_fake_run("page", "--gmem", "1K", "--offset", "0", NULL), "--gmem: \"1K\" is no number");
    assert_usage(ctl_fake_run("page", "--gmem", "1", "--offset", "8EiB", NULL), "--offset: \"8EiB\" is no number");
    assert_usage(ctl_fake_run("page", "--gmem", "1", "--offset", "9000000T", NULL), "is above 9223372036854775807");
    assert_usage(ctl_fake_run("trace", "--limit", "4294967296", NULL), "is above 4294967295");
    assert_usage(ctl_fake_run("trace", "--limit", "0", NULL), "at least 1");
    /* Each command says how it is used. */
    assert_usage(ctl_fake_run("trace", "-q", NULL), "usage: fakehypctl trace");
}

/* A summary that nobody got is no success. */
static void help_that_cannot_be_written(void **state)
{
    static const char *const words[][3] = {{"--help"}, {"--version"}, {"status", "--help"}};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        struct ctl_io io = {.out = fopen("/dev/full", "we"), .err = fopen("/dev/null", "we")};
        char *argv[] = {(char *)"fakehypctl", (char *)words[i][0], (char *)words[i][1], NULL};

        assert_non_null(io.out);
        assert_int_equal(ctl_run(words[i][1] ? 3 : 2, argv, &io), CTL_FAILED);
        fclose(io.out);
        fclose(io.err);
    }
}

static void help_and_version(void **state)
{
    const struct ctl_output *o = ctl_fake_run("--help", NULL);

    assert_int_equal(o->status, CTL_OK);
    assert_string_equal(o->err, "");
    for (size_t i = 0; i < ctl_nr_commands; i++) {
        assert_non_null(strstr(o->out, ctl_commands[i].name));
        assert_non_null(strstr(o->out, ctl_commands[i].summary));
    }
    for (size_t i = 0; i < ctl_nr_commands; i++) {
        char usage[64];

        o = ctl_fake_run(ctl_commands[i].name, "--help", NULL);
        assert_int_equal(o->status, CTL_OK);
        assert_string_equal(o->err, "");
        snprintf(usage, sizeof(usage), "usage: fakehypctl %s ", ctl_commands[i].name);
        assert_ptr_equal(strstr(o->out, usage), o->out);
        assert_non_null(strstr(o->out, "--json"));
        assert_int_equal(strstr(o->out, "--socket PATH") != NULL, !ctl_commands[i].no_daemon);
        assert_non_null(strstr(o->out, "Exit status: 0"));
    }
    o = ctl_fake_run("--version", NULL);
    assert_int_equal(o->status, CTL_OK);
    assert_ptr_equal(strstr(o->out, "fakehypctl "), o->out);
    assert_non_null(strstr(o->out, fakehyp_version()));
}

/* An option in a command's synopsis is one that it takes, and the other way round. */
static void synopsis_matches_options(void **state)
{
    for (size_t i = 0; i < ctl_nr_commands; i++) {
        const struct ctl_output *o = ctl_fake_run(ctl_commands[i].name, "--help", NULL);
        char *options = strstr(o->out, "\noptions:\n"), *p = options;
        unsigned n = 0, in_synopsis = 0;
        char name[32];

        assert_non_null(options);
        while ((p = strstr(p, ", --"))) {
            p += 2;
            snprintf(name, sizeof(name), "%.*s", (int)strcspn(p, " \n"), p);
            if (strcmp(name, "--help")) {
                n++;
                if (!strstr(ctl_commands[i].synopsis, name))
                    fail_msg("%s: %s is not in its synopsis", ctl_commands[i].name, name);
            }
        }
        for (const char *s = ctl_commands[i].synopsis; (s = strstr(s, "--")); s += 2)
            in_synopsis++;
        assert_int_equal(n, in_synopsis);
    }
}

static void socket_path(void **state)
{
    char buf[64], expected[64];

    setenv("FAKEHYP_SOCKET", "/env/sock", 1);
    setenv("XDG_RUNTIME_DIR", "/run/me", 1);
    assert_int_equal(ask_socket_path("/given", buf, sizeof(buf)), 0);
    assert_string_equal(buf, "/given");
    assert_int_equal(ask_socket_path(NULL, buf, sizeof(buf)), 0);
    assert_string_equal(buf, "/env/sock");
    setenv("FAKEHYP_SOCKET", "", 1);
    assert_int_equal(ask_socket_path(NULL, buf, sizeof(buf)), 0);
    assert_string_equal(buf, "/run/me/fakehypd.sock");
    unsetenv("FAKEHYP_SOCKET");
    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(ask_socket_path(NULL, buf, sizeof(buf)), 0);
    snprintf(expected, sizeof(expected), "/tmp/fakehypd-%u.sock", (unsigned)getuid());
    assert_string_equal(buf, expected);
    assert_int_equal(ask_socket_path("/given", buf, 6), -ENAMETOOLONG);
}

static void no_daemon(void **state)
{
    static const char *const commands[] = {"status", "audit", "trace"};
    const struct ctl_output *o;

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        o = ctl_fake_run(commands[i], "--socket", "/nonexistent/x.sock", NULL);
        assert_int_equal(o->status, CTL_FAILED);
        assert_string_equal(o->out, "");
        assert_non_null(strstr(o->err, "no fakehypd at /nonexistent/x.sock"));
        assert_non_null(strstr(o->err, "remedy: fakehypd --daemon --socket /nonexistent/x.sock"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(good_options),
        cmocka_unit_test(operands_among_options),
        cmocka_unit_test(bad_usage),
        cmocka_unit_test(help_and_version),
        cmocka_unit_test(help_that_cannot_be_written),
        cmocka_unit_test(synopsis_matches_options),
        cmocka_unit_test(no_daemon),
        cmocka_unit_test(socket_path),
    };

    return cmocka_run_group_tests_name("ctl_options", tests, NULL, NULL);
}
