/* SPDX-License-Identifier: BSD-2-Clause */
/* The runner of scenarios: what it says of scripts that are wrong, and of ones that are right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "src/scenario/scenario.h"

static char *out, *err;

static void forget(void)
{
    free(out);
    free(err);
    out = err = NULL;
}

/* Plays a script; what it prints is in out and err. */
static int play_with(struct sc_options options, const char *script)
{
    size_t out_size, err_size;
    int fd = memfd_create("script.lua", 0);
    char path[32], *paths[] = {path};

    forget();
    assert_true(fd >= 0);
    assert_int_equal(write(fd, script, strlen(script)), strlen(script));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    options.paths = paths;
    options.nr_paths = 1;
    options.out = open_memstream(&out, &out_size);
    options.err = open_memstream(&err, &err_size);
    int status = sc_run(&options);
    fclose(options.out);
    fclose(options.err);
    close(fd);
    return status;
}

#define HEAD                                                                                                           \
    "scenario { id = 'T1', title = 'a test', source = 'none', policies = 'D A', live = 'it is a test' }\n"             \
    "function play()\n"                                                                                                \
    "local w = world {}\n"
#define TAIL "\nend\n"

/* The body begins with line 4. */
static int play(const char *body)
{
    char script[4096];
    snprintf(script, sizeof(script), "%s%s%s", HEAD, body, TAIL);
    return play_with((struct sc_options){.policy = "D", .quiet = true}, script);
}

static void wrong(const char *body, const char *words)
{
    int status = play(body);

    if (status != 1 || !strstr(out, words))
        fail_msg("%s\nstatus %d, and not \"%s\" in:\n%s%s", body, status, words, out, err);
    assert_non_null(strstr(out, "FAILED"));
    /* Whatever is wrong has a line. */
    const char *line = strstr(out, ":");
    assert_non_null(line);
}

static void right(const char *body)
{
    if (play(body))
        fail_msg("%s\n%s%s", body, out, err);
}

static void lines_of_errors(void **state)
{
    (void)state;
    wrong("\nw.vmm:convrt(3)", ":5: a process has no verb \"convrt\"");
    wrong("w.vmm:convert(3)", ":4: process:convert(page nr attr:attr file:file=0): nr is wanted");
    wrong("w.vmm:convert(3, 1, PRIVATE, w.file, 5)", "5 arguments are too many");
    wrong("w.vmm:convert('3', 1, PRIVATE)", "page is an integer, not string");
    wrong("w.vmm:convert(3, 1, PRIVATE, w.vm)", "file is a file of this world");
    wrong("w.vmm:write(3, 4)", "text is a text, not number");
    wrong("w.vmm.convert(3, 1, PRIVATE)", "convert: call it as actor:convert(");
    wrong("w.guest.convert(w.guest, 3, 1, PRIVATE)", "a guest has no verb \"convert\"");
    wrong("w.vmm:unpin(w.vmm:touch(3))", "it has made nothing");
    wrong("w.vmm:pin(3, 1, 'FOLL_FOO')", "FOLL_GET, FOLL_PIN or FOLL_LONGTERM");
    wrong("local v = world { page = 3 }", "world { page }: there is no such option");
    wrong("local v = world { bugs = 'nonsense' }", "no bug mode \"nonsense\" here");
    wrong("say(nonsense)", ":4: unknown name \"nonsense\"");
    wrong("w.nonsense = 3", ":4: ");
    wrong("w:close() w.vmm:touch(3)", "the world is closed");
    wrong("w.vmm:exit() w.vmm:touch(3)", "process vmm has ended");
    wrong("w.file:page(16)", ":4: file: page 16: the file has no page 16");
    wrong("w.kern:load(-1)", "the file has no page -1");
    wrong("w:advance(-1)", "-1 ms: 0 to 60000");
    wrong("error('my own words')", ":4: my own words");
    wrong("error({})", "an error that is no text");
}

static void wrong_verdicts(void **state)
{
    (void)state;
    wrong("\n\nw.vmm:touch(3):expect 'SIGBUS'", ":6: touch page 3 (r): expected SIGBUS, got 0 (policy D");
    /* With the history of the page. */
    assert_non_null(strstr(out, "guest_memfd of 0x10000 bytes"));
    assert_non_null(strstr(out, "fault [0x3000, +0x1000)"));
    wrong("w.vmm:touch(3):expect { A = '0' }", ":4: expect: no verdict for policy D");
    wrong("w.vmm:pin(3) w.vmm:convert(3, 1, PRIVATE):expect 'EAGAIN@4'", "expected EAGAIN@4, got EAGAIN@3");
    wrong("w.vmm:pin(3, 1, 'FOLL_PIN', 'me') w.vmm:convert(3, 1, PRIVATE):holder 'you'", "\"you\" among the holders");
    wrong("w.vmm:write(3, 'a') w.vmm:read(3):reads 'b'", "expected to read \"b\", got \"a\"");
    wrong("w.vmm:write(3, 'a') w.vmm:read(3):reads ''", "expected to read \"\", got \"a\"");
    wrong("w.file:page(3):has { ref = 7 }", "expected ref = 7, got 0");
    wrong("w.file:page(3):has { reff = 7 }", "page gives no \"reff\"");
    wrong("w.vmm:touch(3):violates 'I1'", "expected a violation of I1, got none");
    wrong("check(1 == 2, 'sums')", ":4: check failed: sums");
    wrong("equal(1, 2, 'sums')", ":4: sums: 1, expected 2");
    wrong("w.vmm:touch(3)", "the script has checked nothing");
}

static void right_verdicts(void **state)
{
    (void)state;
    right("w.vmm:touch(3):expect '0'");
    right("w.vmm:touch(3):expect { A = 'SIGBUS', D = '0' }");
    right("w.vmm:touch(3):expect { A = 'SIGBUS', inode = '0' }");
    right("w.vmm:touch(3):expect { A = 'SIGBUS', sim = '0', _ = 'EFAULT' }");
    right("w.vmm:touch(3):expect { A = 'SIGBUS', _ = '0' }");
    right("w.vmm:touch(3):holder { A = 'x' }:reads { A = 'x' }:violates { A = 'I1' }");
    right("w.vmm:pin(3, 1, 'FOLL_PIN', 'me') w.vmm:convert(3, 1, PRIVATE):expect 'EAGAIN':holder 'me':holder 'vmm'");
    right("equal(w.vmm:touch(3).word, '0') equal(w.file:page(3).ref, 2)");
}

/* Only what is the same each time, and reaches nothing but the script. */
static void sandbox(void **state)
{
    static const char *const absent[] = {
        "os",    "io",     "debug",        "require", "package",   "load",         "loadfile",       "dofile", "next",
        "pcall", "xpcall", "setmetatable", "rawset",  "coroutine", "getmetatable", "collectgarbage", "_G"};
    char body[200];

    (void)state;
    for (unsigned i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        snprintf(body, sizeof(body), "say(%s)", absent[i]);
        wrong(body, "unknown name");
    }
    right("check(math.random == nil and math.randomseed == nil and string.dump == nil)");
    right("local s = '' for k in pairs { b = 1, a = 2, d = 3, c = 4, 9, 8 } do s = s .. k end equal(s, '12abcd')");
    wrong("local a = ('x').x.y", ":4: ");
}

static void limits(void **state)
{
    (void)state;
    wrong("\nwhile true do end", ":5: the script does not end");
    wrong("local t = {} for i = 1, 1e9 do t[i] = { i } end", ": not enough memory");
    wrong("local s = string.rep('x', 1 << 28)", ":3: at this step or after it: not enough memory");
    wrong("local s = string.rep('x', 1 << 62)", "resulting string too large");
    wrong("local function f() return 1 + f() end f()", ": not enough memory");
}

static void calls_under_way(void **state)
{
    (void)state;
    right("local c = w.vmm:start('convert', 3, 1, PRIVATE):run_to 'convert:unmapped'\n"
          "equal(c:at(), 'convert:unmapped') w.file:page(3):has { attr = SHARED }\n"
          "local d = w.vmm:start('convert', 3, 1, SHARED) equal(d:run(), 'waits')\n"
          "c:finish():expect '0' d:finish():expect '0'");
    /* Two that are stopped at once. */
    right("w.vmm:touch(3) local f = w.vmm:start('touch', 5):run_to 'fault:folio'\n"
          "local g = w.guest:start('read', 3):run_to 'abort:locked'\n"
          "g:finish():expect 'EXIT_MEMORY_FAULT' f:finish():expect '0'");
    wrong("w.vmm:start('convert', 3, 1, PRIVATE):run_to 'convert:nonsense'", "unknown schedule point");
    wrong("w.vmm:start('convert', 3, 1, PRIVATE):run_to 'punch:locked'",
          "ended with 0 and did not come to punch:locked");
    wrong("w.vmm:start('nonsense')", "a process has no verb \"nonsense\" that can be started");
    wrong("w.vmm:start('convert', 3, 1, PRIVATE):run_to 'convert:locked'\nw.vmm:punch(3)",
          "it waits for ever: punch waits after its start, convert is stopped at convert:locked");
    wrong("w.vmm:start('convert', 3, 1, PRIVATE):run_to 'convert:locked'\n"
          "w.vmm:start('punch', 3):finish()",
          "punch waits for ever, after ");
}

/* What the audit finds fails the scenario at the step, unless that claims it. */
static void violations(void **state)
{
    static const char script[] =
        "scenario { id = 'T1', title = 'a test', source = 'none', policies = 'A', live = 'it is a test' }\n"
        "function play()\n"
        "local w = world {} w.vmm:write(5, 'x') local pipe = w.vmm:vmsplice(5) w.vmm:munmap(w.view)\n"
        "w.vmm:convert(5, 1, PRIVATE):expect '0'%s\n"
        "w.guest:read(5):expect '0'\n"
        "%s\n"
        "end\n";
    char text[1000];

    (void)state;
    snprintf(text, sizeof(text), script, "", "");
    assert_int_equal(play_with((struct sc_options){.quiet = true}, text), 1);
    assert_non_null(strstr(out, ":4: nobody claims this violation: I1"));
    /* Claimed once it may stay, until it is gone. */
    snprintf(text, sizeof(text), script, ":violates 'I1'", "");
    assert_int_equal(play_with((struct sc_options){.quiet = true}, text), 0);
    snprintf(text, sizeof(text), script, ":violates 'I9'", "");
    assert_int_equal(play_with((struct sc_options){.quiet = true}, text), 1);
    assert_non_null(strstr(out, "expected a violation of I9"));
}

static const char passing[] = HEAD "w.vmm:touch(3):expect '0'\nw.vmm:convert(3, 1, PRIVATE):expect '0'\n"
                                   "w.vmm:touch(3):expect 'SIGBUS'" TAIL;

static void statuses(void **state)
{
    (void)state;
    assert_int_equal(play_with((struct sc_options){.quiet = true}, passing), 0);
    assert_string_equal(out, "1 scenarios, 2 runs, 6 steps, 6 checks: 0 failed\n");
    assert_int_equal(play_with((struct sc_options){.policy = "A"}, passing), 0);
    assert_non_null(strstr(out, "vmm      convert [3,4) to private: 0\n"));
    assert_non_null(strstr(out, "1 scenarios, 1 runs, 3 steps, 3 checks: 0 failed\n"));
    assert_int_equal(play_with((struct sc_options){.policy = "B"}, passing), 2);
    assert_non_null(strstr(err, "no scenario names policy B"));
    assert_int_equal(play_with((struct sc_options){.quiet = true}, "say('nothing')"), 2);
    assert_non_null(strstr(err, "does not say scenario {"));
    assert_int_equal(play_with((struct sc_options){.quiet = true}, "a syntax error"), 2);
    assert_non_null(strstr(err, ":1: syntax error"));
    assert_int_equal(
        play_with((struct sc_options){.quiet = true}, "scenario { id = 'x', title = 'x', source = 'x', live = true }"),
        2);
    assert_non_null(strstr(err, "has no function play()"));
    assert_int_equal(play_with((struct sc_options){.quiet = true}, "scenario { id = 'x' }"), 2);
    assert_non_null(strstr(err, "scenario { title }: a text is wanted"));
    assert_int_equal(play_with((struct sc_options){.quiet = true}, "world {}"), 2);
    assert_non_null(strstr(err, "only play() acts"));
    assert_int_equal(play_with((struct sc_options){.quiet = true}, "\x1bLua"), 2);
    char *none[] = {(char *)"/nonexistent.lua"};
    forget();
    size_t size;
    FILE *f = open_memstream(&err, &size);
    assert_int_equal(sc_run(&(struct sc_options){.paths = none, .nr_paths = 1, .quiet = true, .out = f, .err = f}), 2);
    fclose(f);
    assert_non_null(strstr(err, "/nonexistent.lua cannot be read: No such file"));
}

static void tap(void **state)
{
    (void)state;
    assert_int_equal(play_with((struct sc_options){.format = SC_FORMAT_TAP}, passing), 0);
    assert_non_null(strstr(out, "ok 1 - T1 D inode pkvm: a test\n"));
    assert_non_null(strstr(out, "ok 2 - T1 A inode pkvm: a test\n"));
    assert_non_null(strstr(out, "\n1..2\n"));
    assert_int_equal(play_with((struct sc_options){.format = SC_FORMAT_TAP}, HEAD "check(false)" TAIL), 1);
    assert_non_null(strstr(out, "not ok 1 - T1"));
}

static void json(void **state)
{
    unsigned steps = 0, lines = 0;

    (void)state;
    assert_int_equal(play_with((struct sc_options){.format = SC_FORMAT_JSON, .policy = "D"}, passing), 0);
    for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        json_t *o = json_loads(line, 0, NULL);
        const char *type = json_string_value(json_object_get(o, "type"));
        assert_non_null(type);
        if (!strcmp(type, "step")) {
            static const char *const words[] = {"0", "0", "SIGBUS"};
            assert_string_equal(json_string_value(json_object_get(o, "verdict")), words[steps]);
            assert_int_equal(json_integer_value(json_object_get(o, "line")), 4 + steps);
            steps++;
        }
        if (!strcmp(type, "total"))
            assert_int_equal(json_integer_value(json_object_get(o, "checks")), 3);
        json_decref(o);
    }
    assert_int_equal(steps, 3);
    assert_int_equal(lines, 6); /* run, 3 steps, end, total */
}

static void matrix(void **state)
{
    (void)state;
    assert_int_equal(
        play_with((struct sc_options){.format = SC_FORMAT_MATRIX},
                  HEAD "w.vmm:touch(5)\nlocal p = w.vmm:vmsplice(5)\n"
                       "w.vmm:convert(5, 1, PRIVATE):expect { A = '0', D = 'EAGAIN@5' }:violates { A = 'I1' }" TAIL),
        0);
    assert_non_null(strstr(out, "T1  a test"));
    /* The columns, and the one step that differs. */
    const char *row = strstr(out, "vmm: convert [5,6) to private");
    assert_non_null(row);
    assert_non_null(strstr(row, "EAGAIN@5"));
    assert_null(strstr(out, "touch"));
}

static void predictions(void **state)
{
    char answers[] = "0\nEAGAIN\nsigbus\n";
    FILE *in = fmemopen(answers, sizeof(answers) - 1, "r");

    (void)state;
    assert_int_equal(play_with((struct sc_options){.predict = true, .policy = "D", .in = in}, passing), 0);
    fclose(in);
    /* It asks before it tells. */
    const char *asked = strstr(out, "vmm      touch page 3 (r): ? "),
               *told = strstr(out, "vmm      touch page 3 (r): 0");
    assert_true(asked && told && asked < told);
    assert_non_null(strstr(out, "predicted 2 of 3 verdicts\n"));

    /* An end of the input ends the questions, not the play. */
    char enter[] = "\n";
    in = fmemopen(enter, 1, "r");
    assert_int_equal(play_with((struct sc_options){.step = true, .policy = "D", .in = in}, passing), 0);
    fclose(in);
    assert_non_null(strstr(out, "3 steps, 3 checks: 0 failed\n"));
}

static void without_a_live_form(void **state)
{
    (void)state;
    assert_int_equal(play_with((struct sc_options){.live = true}, passing), 0);
    assert_non_null(strstr(out, "not live T1   D inode pkvm           a test: it is a test\n"));
    assert_non_null(strstr(out, "0 failed, 2 not live\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_errors),
        cmocka_unit_test(wrong_verdicts),
        cmocka_unit_test(right_verdicts),
        cmocka_unit_test(sandbox),
        cmocka_unit_test(limits),
        cmocka_unit_test(calls_under_way),
        cmocka_unit_test(violations),
        cmocka_unit_test(statuses),
        cmocka_unit_test(tap),
        cmocka_unit_test(json),
        cmocka_unit_test(matrix),
        cmocka_unit_test(predictions),
        cmocka_unit_test(without_a_live_form),
    };
    int failed = cmocka_run_group_tests_name("scenario_runner", tests, NULL, NULL);

    forget();
    return failed;
}
