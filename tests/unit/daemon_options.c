/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypd: the command line, and text from others. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/fakehypd/options.h"
#include "src/fakehypd/text.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct options options;
static char said_out[8192], said_err[2048];

static enum options_result parse(const char *const *args)
{
    char *argv[20] = {(char *)"fakehypd"};
    int argc = 1;
    FILE *out = fmemopen(said_out, sizeof(said_out), "w"), *err = fmemopen(said_err, sizeof(said_err), "w");

    for (; args[argc - 1]; argc++)
        argv[argc] = (char *)args[argc - 1];
    said_out[0] = said_err[0] = '\0';
    enum options_result result = options_parse(argc, argv, &options, out, err);
    fclose(out);
    fclose(err);
    return result;
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
    const char *none[] = {NULL};

    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    assert_int_equal(parse(none), OPTIONS_RUN);
    assert_string_equal(options.socket, "/run/user/7/fakehypd.sock");
    assert_int_equal(options.listen_fd, -1);
    assert_int_equal(options.notify_fd, -1);
    assert_false(options.daemonise);
    assert_false(options.terminate);
    assert_int_equal(options.log_level, LOG_LEVEL_INFO);
    assert_int_equal(options.memory, UINT64_C(256) << 30);

    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(parse(none), OPTIONS_RUN);
    char expected[64];
    snprintf(expected, sizeof(expected), "/tmp/fakehypd-%u.sock", (unsigned)getuid());
    assert_string_equal(options.socket, expected);
}

static void test_all(void **state)
{
    assert_int_equal(PARSE("--socket=/a/b", "--daemon", "--notify-fd", "5", "--terminate", "--memory", "512M",
                           "--log-level=debug", "--log-file=/l", "--trace=/t", "--pidfile=/p", "--seccomp=log",
                           "--oracle=on"),
                     OPTIONS_RUN);
    assert_string_equal(options.socket, "/a/b");
    assert_true(options.daemonise);
    assert_true(options.terminate);
    assert_int_equal(options.notify_fd, 5);
    assert_int_equal(options.memory, UINT64_C(512) << 20);
    assert_int_equal(options.log_level, LOG_LEVEL_DEBUG);
    assert_string_equal(options.log_file, "/l");
    assert_string_equal(options.trace_file, "/t");
    assert_string_equal(options.pidfile, "/p");
    assert_int_equal(options.seccomp, SANDBOX_LOG);
    assert_int_equal(options.oracle, MACHINE_ORACLE_ON);
    assert_int_equal(PARSE("--listen-fd=9", "--daemon", "--foreground"), OPTIONS_RUN);
    assert_int_equal(options.listen_fd, 9);
    assert_string_equal(options.socket, "");
    assert_false(options.daemonise);
}

static void test_oracle_by_environment(void **state)
{
    const char *before = getenv("FAKEHYP_ORACLE");
    char saved[16] = "";

    if (before)
        snprintf(saved, sizeof(saved), "%s", before);
    unsetenv("FAKEHYP_ORACLE");
    assert_int_equal(PARSE("--socket=/s"), OPTIONS_RUN);
    assert_int_equal(options.oracle, MACHINE_ORACLE_OFF);
    setenv("FAKEHYP_ORACLE", "panic", 1);
    assert_int_equal(PARSE("--socket=/s"), OPTIONS_RUN);
    assert_int_equal(options.oracle, MACHINE_ORACLE_PANIC);
    assert_int_equal(PARSE("--socket=/s", "--oracle=on"), OPTIONS_RUN);
    assert_int_equal(options.oracle, MACHINE_ORACLE_ON);
    setenv("FAKEHYP_ORACLE", "perhaps", 1);
    assert_int_equal(PARSE("--socket=/s"), OPTIONS_BAD);
    assert_non_null(strstr(said_err, "FAKEHYP_ORACLE: \"perhaps\" is none of"));
    unsetenv("FAKEHYP_ORACLE");
    if (before)
        setenv("FAKEHYP_ORACLE", saved, 1);
}

static void test_help_and_version(void **state)
{
    assert_int_equal(PARSE("--help"), OPTIONS_DONE);
    assert_non_null(strstr(said_out, "--socket PATH"));
    assert_int_equal(PARSE("--version"), OPTIONS_DONE);
    assert_string_equal(said_out, "fakehypd " FAKEHYP_VERSION "\n");
}

static void test_bad_usage_names_the_remedy(void **state)
{
    static const struct {
        const char *args[3], *said;
    } bad[] = {
        {{"--bogus"}, "--bogus: no such option"},
        {{"-x"}, "-x: no such option"},
        {{"--memory"}, "--memory: an argument is missing"},
        {{"--daemon=1"}, "takes no argument"},
        {{"operand"}, "operand: there are no operands"},
        {{"--memory=lots"}, "512M or 256G would be"},
        {{"--memory=0"}, "512M or 256G would be"},
        {{"--memory=99999999999999T"}, "too much"},
        {{"--log-level=loud"}, "none of error, warning, info, debug"},
        {{"--listen-fd=three"}, "--listen-fd=3"},
        {{"--notify-fd=-1"}, "--notify-fd=3"},
        {{"--socket="}, "empty"},
        {{"--pidfile="}, "empty"},
        {{"--seccomp=maybe"}, "none of kill, log, none"},
        {{"--oracle=maybe"}, "none of on, off, panic"},
        {{"--socket=/s", "--listen-fd=3"}, "choose one"},
    };

    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(parse(bad[i].args), OPTIONS_BAD);
        assert_non_null(strstr(said_err, bad[i].said));
        assert_non_null(strstr(said_err, "fakehypd --help"));
    }
    char longest[160];
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(PARSE("--socket", longest), OPTIONS_BAD);
    assert_non_null(strstr(said_err, "choose a shorter one"));
}

static void test_socket_activation(void **state)
{
    const char *none[] = {NULL};
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    assert_int_equal(parse(none), OPTIONS_RUN);
    assert_int_equal(options.listen_fd, 3);
    assert_null(getenv("LISTEN_FDS"));

    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "2", 1);
    assert_int_equal(parse(none), OPTIONS_BAD);

    static const char *const no_numbers[] = {"", "one", "1x", "-1", " 1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(no_numbers) / sizeof(no_numbers[0]); i++) {
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", no_numbers[i], 1);
        assert_int_equal(parse(none), OPTIONS_BAD);
        assert_non_null(strstr(said_err, "LISTEN_FDS: "));
        assert_null(getenv("LISTEN_FDS"));
    }

    /* Meant for another process. */
    setenv("LISTEN_PID", "1", 1);
    setenv("LISTEN_FDS", "1", 1);
    assert_int_equal(parse(none), OPTIONS_RUN);
    assert_int_equal(options.listen_fd, -1);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
}

static void test_sizes(void **state)
{
    uint64_t n;

    assert_int_equal(options_parse_size("4096", &n), 0);
    assert_int_equal(n, 4096);
    assert_int_equal(options_parse_size("1k", &n), 0);
    assert_int_equal(n, 1024);
    assert_int_equal(options_parse_size("2T", &n), 0);
    assert_int_equal(n, UINT64_C(2) << 40);
    assert_int_equal(options_parse_size("0x1000", &n), 0);
    assert_int_equal(n, 4096);
    assert_int_equal(options_parse_size("", &n), -EINVAL);
    assert_int_equal(options_parse_size("-1", &n), -EINVAL);
    assert_int_equal(options_parse_size("1MB", &n), -EINVAL);
    assert_int_equal(options_parse_size("99999999999999999999", &n), -ERANGE);
    assert_int_equal(options_parse_size("16777217T", &n), -ERANGE);
}

static void test_text(void **state)
{
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"plain", "plain"},
        {"g\xc3\xa4st", "g\xc3\xa4st"},
        {"a\nb\x1b[31m\x7f", "a?b?[31m?"},
        {"cut\xc3", "cut?"},
        {"\xc0\xaf", "??"},      /* overlong */
        {"\xed\xa0\x80", "???"}, /* surrogate */
        {"\xc2\x9b", "??"},      /* a control of ISO 6429 */
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xf5\x80\x80\x80", "????"},
        {"\xff", "?"},
    };
    char buf[32];

    for (size_t i = 0; i < COUNT(cases); i++) {
        text_copy(buf, sizeof(buf), cases[i].from);
        assert_string_equal(buf, cases[i].to);
    }
    /* Never half a character. */
    text_copy(buf, 4, "ab\xc3\xa4");
    assert_string_equal(buf, "ab");
    text_copy(buf, 5, "ab\xc3\xa4");
    assert_string_equal(buf, "ab\xc3\xa4");
    text_copy(buf, 1, "x");
    assert_string_equal(buf, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_oracle_by_environment),
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_bad_usage_names_the_remedy),
        cmocka_unit_test(test_socket_activation),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests_name("daemon_options", tests, NULL, NULL);
}
