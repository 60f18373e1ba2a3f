/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl trace: of a file, and as a picture. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/unit/ctl_fake.h"

/* Two processes, a guest, a conversion that a reference stops, and names that are markup. */
#define HEADER "{\"schema\":1}\n"
static const char *const lines[] = {
    "{\"seq\":1,\"t_ns\":1000,\"task\":1,\"ev\":\"client\",\"a0\":10,\"pid\":10,\"note\":\"<script>&\\\"'"
    "\\u001b\\u00e4\"}",
    "{\"seq\":2,\"t_ns\":2000,\"task\":2,\"ev\":\"vm_create\",\"vm\":1,\"a0\":4096}",
    "{\"seq\":3,\"t_ns\":3000,\"task\":3,\"ev\":\"gmem_create\",\"vm\":1,\"gmem\":1,\"len\":65536,\"a0\":3}",
    "{\"seq\":4,\"t_ns\":4000,\"task\":4,\"ev\":\"slot_set\",\"vm\":1,\"gmem\":1,\"len\":65536,\"pid\":10}",
    "{\"seq\":5,\"t_ns\":5000,\"task\":5,\"ev\":\"pin\",\"vm\":1,\"gmem\":1,\"off\":8192,\"len\":4096,\"a0\":1,\"a1\":"
    "7,"
    "\"pid\":11,\"note\":\"</svg>\"}",
    "{\"seq\":6,\"t_ns\":6000,\"task\":6,\"ev\":\"busy\",\"vm\":1,\"gmem\":1,\"off\":8192,\"len\":4096,\"a0\":1025,"
    "\"pid\":11,\"note\":\"</svg>\"}",
    "{\"seq\":7,\"t_ns\":9000,\"task\":6,\"ev\":\"convert\",\"vm\":1,\"gmem\":1,\"len\":65536,\"a0\":8,\"a1\":8192,"
    "\"pid\":10,\"rc\":-11}",
    "{\"seq\":8,\"t_ns\":10000,\"task\":7,\"ev\":\"unpin\",\"gmem\":1,\"off\":8192,\"len\":4096,\"a1\":7,\"pid\":11}",
    "{\"seq\":9,\"t_ns\":11000,\"task\":8,\"ev\":\"guest_call\",\"vm\":1,\"len\":4096,\"a0\":3321888772,"
    "\"a1\":\"0xffffffffffffffff\",\"vcpu\":2,\"rc\":-3}",
    "{\"seq\":10,\"t_ns\":12000,\"task\":8,\"ev\":\"of_tomorrow\",\"vm\":1}",
};
#define NR_LINES (sizeof(lines) / sizeof(lines[0]))

static char path[] = "/tmp/ctl_trace-XXXXXX";

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static char *whole_trace(void)
{
    static char text[8192];
    snprintf(text, sizeof(text), HEADER);
    for (size_t i = 0; i < NR_LINES; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\n", lines[i]);
    return text;
}

/* Elements are closed in order, attributes are in quotes, and what is not markup is text. */
static void assert_well_formed(const char *xml)
{
    char open[32][32];
    size_t depth = 0, elements = 0;

    for (const char *p = xml; *p; p++) {
        assert_true(*p == '\n' || isprint((unsigned char)*p));
        if (*p == '&') {
            size_t n = strcspn(p, ";");
            assert_true(n <= 5 && p[n] == ';');
            continue;
        }
        assert_true(*p != '>');
        if (*p != '<')
            continue;
        const char *end = strchr(p, '>');
        assert_non_null(end);
        size_t name = strcspn(p + 1 + (p[1] == '/'), " />\n");
        assert_in_range(name, 1, 31);
        unsigned quotes = 0;
        for (const char *q = p; q < end; q++)
            quotes += *q == '"';
        assert_int_equal(quotes % 2, 0);
        if (p[1] == '/') {
            assert_true(depth > 0);
            assert_int_equal(strlen(open[depth - 1]), name);
            assert_memory_equal(open[--depth], p + 2, name);
        } else if (p[1] != '?' && end[-1] != '/') {
            assert_true(depth < 32 && (depth || !elements));
            snprintf(open[depth++], sizeof(open[0]), "%.*s", (int)name, p + 1);
        }
        elements += p[1] != '?';
        p = end;
    }
    assert_int_equal(depth, 0);
    assert_true(elements > 10);
}

static const char *find(const char *text, const char *what)
{
    const char *at = strstr(text, what);
    if (!at)
        fail_msg("no \"%s\" in: %s", what, text);
    return at;
}

static void svg_is_well_formed(void **state)
{
    write_file(whole_trace());
    const struct ctl_output *o = ctl_fake_run("trace", "--svg", "--file", path, NULL);

    assert_string_equal(o->err, "");
    assert_int_equal(o->status, 0);
    assert_well_formed(o->out);
    /* What clients chose is text. */
    assert_null(strstr(o->out, "<script"));
    find(o->out, "&lt;script&gt;&amp;&quot;&#39;?");
    find(o->out, "&lt;/svg&gt;");
    find(o->out, "pid 11");
    find(o->out, "vCPU 2");
    find(o->out, "MEM_UNSHARE(0xffffffffffffffff)");
    find(o->out, "of_tomorrow");
    /* Asked, stopped by the holder, refused: though the trace has the conversion last. */
    const char *asked = find(o->out, ">convert [0x0, +64 KiB) to private<"),
               *held = find(o->out, ">page 0x2000 is held");
    const char *refused = find(o->out, ">EAGAIN at 0x2000<");
    assert_true(asked < held && held < refused);
    find(o->out, "class=\"held\"");
}

static void chrome_is_what_viewers_take(void **state)
{
    write_file(whole_trace());
    const struct ctl_output *o = ctl_fake_run("trace", "--chrome", "--file", path, NULL);
    json_t *root = json_loads(o->out, 0, NULL), *item;
    const json_t *list = json_object_get(root, "traceEvents");
    const char *begun = NULL;
    unsigned tracks = 0, slices = 0, instants = 0, ended = 0;
    size_t i;

    assert_string_equal(o->err, "");
    assert_int_equal(o->status, 0);
    json_array_foreach((json_t *)list, i, item)
    {
        const char *ph = json_string_value(json_object_get(item, "ph"));
        const char *name = json_string_value(json_object_get(item, "name"));
        assert_non_null(ph);
        assert_non_null(name);
        assert_true(json_is_integer(json_object_get(item, "pid")));
        tracks += !strcmp(name, "process_name");
        if (*ph == 'M')
            continue;
        assert_true(json_is_number(json_object_get(item, "ts")));
        instants += *ph == 'i';
        if (*ph == 'X') {
            /* From the first event of its task. */
            slices++;
            assert_string_equal(name, "convert [0x0, +64 KiB) to private");
            assert_true(json_real_value(json_object_get(item, "ts")) == 5.0);
            assert_true(json_real_value(json_object_get(item, "dur")) == 3.0);
            assert_string_equal(json_string_value(json_object_get(json_object_get(item, "args"), "result")),
                                "EAGAIN at 0x2000");
        }
        if (*ph == 'b')
            begun = json_string_value(json_object_get(item, "id"));
        if (*ph == 'e') {
            assert_non_null(begun);
            assert_string_equal(json_string_value(json_object_get(item, "id")), begun);
            ended++;
        }
    }
    /* Two processes, EL1, EL2, one vCPU. */
    assert_int_equal(tracks, 5);
    assert_int_equal(slices, 1);
    assert_int_equal(instants, NR_LINES - 1);
    assert_int_equal(ended, 1);
    json_decref(root);
}

/* Where no time passes each event has its place all the same. */
static void simulations_have_an_order(void **state)
{
    write_file(HEADER "{\"seq\":1,\"t_ns\":0,\"task\":1,\"ev\":\"vm_create\",\"vm\":1}\n"
                      "{\"seq\":2,\"t_ns\":0,\"task\":1,\"ev\":\"vm_destroy\",\"vm\":1}\n");
    const struct ctl_output *o = ctl_fake_run("trace", "--chrome", "--file", path, NULL);
    find(o->out, "\"ts\":1.0");
    o = ctl_fake_run("trace", "--svg", "--file", path, NULL);
    find(o->out, ">#2</text>");
}

static void a_file_is_read_like_a_daemon(void **state)
{
    write_file(whole_trace());
    const struct ctl_output *o = ctl_fake_run("trace", "--json", "--file", path, "--limit", "1", NULL);
    assert_string_equal(o->out, "{\"seq\":10,\"t_ns\":12000,\"task\":8,\"ev\":\"of_tomorrow\",\"vm\":1}\n");
    o = ctl_fake_run("trace", "--json", "--file", path, "--since", "2", "--limit", "1", NULL);
    assert_string_equal(o->out, "{\"seq\":2,\"t_ns\":2000,\"task\":2,\"ev\":\"vm_create\",\"vm\":1,\"a0\":4096}\n");
    o = ctl_fake_run("trace", "--file", path, "--since", "9", "--limit", "1", NULL);
    find(o->out, "guest_call");
    find(o->out, "vcpu=2");
    /* What says only its file is its VM's. */
    o = ctl_fake_run("trace", "--file", path, "--vm", "1", NULL);
    find(o->out, "unpin");
    o = ctl_fake_run("trace", "--file", path, "--vm", "2", NULL);
    assert_null(strstr(o->out, "unpin"));
}

static void a_daemon_is_drawn(void **state)
{
    struct ctl_fake *fake = ctl_fake_start();
    char answer[8192];

    assert_non_null(fake);
    snprintf(answer, sizeof(answer), "{\"schema\":1,\"dropped\":0,\"next\":3,\"events\":[%s,%s]}", lines[1], lines[2]);
    ctl_fake_answer(fake, answer);
    const struct ctl_output *o = ctl_fake_run("trace", "--svg", "--socket", fake->path, NULL);
    assert_string_equal(o->err, "");
    assert_int_equal(o->status, 0);
    assert_well_formed(o->out);
    find(o->out, "new guest_memfd 1, 64 KiB, all shared");
    assert_string_equal(fake->query.what, "trace");
    ctl_fake_stop(fake);
}

static void assert_refused(const char *text, const char *error)
{
    char expected[200];

    write_file(text);
    const struct ctl_output *o = ctl_fake_run("trace", "--svg", "--file", path, NULL);
    assert_int_equal(o->status, 2);
    assert_string_equal(o->out, "");
    snprintf(expected, sizeof(expected), "%s%s", path, error);
    find(o->err, expected);
}

static void what_is_no_trace_is_refused(void **state)
{
    const struct ctl_output *o;

    assert_refused(HEADER "hello\n", ":2: no JSON");
    assert_refused("{\"schema\":2}\n", ":1: schema 2: this program reads 1");
    assert_refused(HEADER "[]\n", ":2: no JSON object");
    assert_refused(HEADER "{\"ev\":\"pin\"}\n", ":2: \"seq\" is missing");
    assert_refused(HEADER "{\"seq\":1}\n", ":2: \"ev\" is missing");
    assert_refused(HEADER "{\"seq\":1,\"ev\":\"pin\",\"off\":-1}\n", ":2: \"off\" is no number from 0 on");
    assert_refused(HEADER "{\"seq\":1,\"ev\":\"pin\",\"a0\":\"0xzz\"}\n", ":2: \"a0\" is no number from 0 on");
    assert_refused(HEADER "{\"seq\":1,\"ev\":\"pin\",\"pid\":4294967296}\n", ":2: \"pid\" is above 32 bits");
    assert_refused(HEADER "{\"seq\":1,\"ev\":\"pin\",\"note\":1}\n", ":2: \"note\" is of the wrong type");
    assert_refused(HEADER "{\"seq\":1,\"ev\":\"pin\",\"seq\":1}\n", ":2: no JSON");
    assert_refused(HEADER "{\"seq\":1,\"ev\":\"p", ":2: the line is cut off");
    write_file("");
    o = ctl_fake_run("trace", "--svg", "--file", path, NULL);
    assert_int_equal(o->status, 2);
    find(o->err, "no event to show");
    o = ctl_fake_run("trace", "--svg", "--file", "/nonexistent/trace", NULL);
    assert_int_equal(o->status, 2);
    find(o->err, "/nonexistent/trace: No such file");
}

static void options_that_exclude_each_other(void **state)
{
    static const char *const pairs[][2] = {
        {"--svg", "--chrome"}, {"--svg", "--json"}, {"--svg", "--follow"}, {"--chrome", "--follow"}};

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        assert_int_equal(ctl_fake_run("trace", "--file", path, pairs[i][0], pairs[i][1], NULL)->status, 2);
    const struct ctl_output *o = ctl_fake_run("trace", "--file", path, "--socket", "/tmp/x", NULL);
    assert_int_equal(o->status, 2);
    find(o->err, "choose one");
}

/* Nobody sees anything in a picture of more than a thousand events. */
static void too_much_for_a_picture(void **state)
{
    FILE *f = fopen(path, "w");

    fputs(HEADER, f);
    for (unsigned i = 1; i <= 1001; i++)
        fprintf(f, "{\"seq\":%u,\"t_ns\":%u,\"task\":%u,\"ev\":\"punch\",\"gmem\":1,\"len\":4096,\"pid\":1}\n", i, i,
                i);
    fclose(f);
    const struct ctl_output *o = ctl_fake_run("trace", "--svg", "--file", path, NULL);
    assert_int_equal(o->status, 2);
    find(o->err, "--limit");
    o = ctl_fake_run("trace", "--svg", "--file", path, "--limit", "10", NULL);
    assert_int_equal(o->status, 0);
    assert_well_formed(o->out);
}

/* Each world's events stand together, from its header to its end. */
static void scenarios_are_recorded(void **state)
{
    static const char script[] =
        "scenario {id = 'T1', title = 'a test', source = 'none', policies = 'D', live = 'it is a test'}\n"
        "function play()\n"
        "local a, b = world{}, world{}\n"
        "a.vmm:write(0, 'x'):expect '0'\n"
        "b.vmm:write(0, 'x'):expect '0'\n"
        "end\n";
    char lua[64], line[1024];
    unsigned headers = 0, ends = 0, events = 0;

    snprintf(lua, sizeof(lua), "%s.lua", path);
    FILE *f = fopen(lua, "w");
    fputs(script, f);
    fclose(f);
    const struct ctl_output *o = ctl_fake_run("run", "--quiet", "--trace", path, lua, NULL);
    unlink(lua);
    assert_string_equal(o->err, "");
    assert_int_equal(o->status, 0);
    f = fopen(path, "r");
    while (fgets(line, sizeof(line), f)) {
        bool header = !strcmp(line, HEADER);
        assert_int_equal(header, headers == ends);
        headers += header;
        ends += strstr(line, "\"ev\":\"end\"") != NULL;
        events++;
    }
    fclose(f);
    assert_int_equal(headers, 2);
    assert_int_equal(ends, 2);
    assert_true(events > 8);
    o = ctl_fake_run("run", "--trace", "/nonexistent/trace", lua, NULL);
    assert_int_equal(o->status, 2);
    find(o->err, "/nonexistent/trace: No such file");
}

static int make_file(void **state)
{
    int fd = mkstemp(path);
    return fd < 0 || close(fd);
}

static int remove_file(void **state)
{
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(svg_is_well_formed),
        cmocka_unit_test(chrome_is_what_viewers_take),
        cmocka_unit_test(simulations_have_an_order),
        cmocka_unit_test(a_file_is_read_like_a_daemon),
        cmocka_unit_test(a_daemon_is_drawn),
        cmocka_unit_test(what_is_no_trace_is_refused),
        cmocka_unit_test(options_that_exclude_each_other),
        cmocka_unit_test(too_much_for_a_picture),
        cmocka_unit_test(scenarios_are_recorded),
    };

    return cmocka_run_group_tests_name("ctl_trace", tests, make_file, remove_file);
}
