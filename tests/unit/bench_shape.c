/* SPDX-License-Identifier: BSD-2-Clause */
/* make bench: what it writes, whatever the figures are. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

static char dir[] = "/tmp/fakehyp-bench-XXXXXX", file[64], said[8192];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof(file), "%s/figures", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(dir);
}

/* Exit status of the benchmark of the build tree; `said` is what it printed. */
static int bench(const char *environment, const char *pattern)
{
    char command[256];

    snprintf(command, sizeof(command), "%s exec tests/bench/bench -o %s '%s' 2>&1", environment, file, pattern);
    FILE *f = popen(command, "re");
    assert_non_null(f);
    said[fread(said, 1, sizeof(said) - 1, f)] = '\0';
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static json_t *figures(size_t nr)
{
    json_error_t error;
    json_t *rows = json_load_file(file, 0, &error);

    if (!rows)
        fail_msg("%s:%d: %s\n%s", file, error.line, error.text, said);
    assert_true(json_is_array(rows));
    assert_int_equal(json_array_size(rows), nr);
    return rows;
}

/* The six keys and no other; a floor comes with a ratio. */
static void assert_shape(const json_t *row)
{
    const json_t *floor = json_object_get(row, "floor"), *ratio = json_object_get(row, "ratio");

    assert_int_equal(json_object_size(row), 6);
    assert_true(json_is_string(json_object_get(row, "name")));
    assert_true(json_is_string(json_object_get(row, "unit")));
    assert_true(json_is_number(json_object_get(row, "value")) || json_is_null(json_object_get(row, "value")));
    assert_true(json_is_number(json_object_get(row, "goal")));
    assert_true((json_is_number(floor) && json_is_number(ratio)) || (json_is_null(floor) && json_is_null(ratio)));
}

/* The table has the name at the start of a line. */
static void assert_printed(const json_t *row, const char *remark)
{
    const char *line = strstr(said, json_string_value(json_object_get(row, "name")));

    assert_non_null(line);
    assert_true(line == said || line[-1] == '\n');
    const char *end = strchr(line, '\n'), *found = strstr(line, remark);
    assert_true(found && found < end);
}

static void test_floor(void **state)
{
    (void)state;
    assert_int_equal(bench("", "EL2 donation"), 0);
    json_t *rows = figures(1), *row = json_array_get(rows, 0);
    assert_shape(row);
    double value = json_number_value(json_object_get(row, "value")),
           floor = json_number_value(json_object_get(row, "floor"));
    double ratio = json_number_value(json_object_get(row, "ratio"));
    assert_true(value > 0 && floor > 0);
    assert_true(ratio > value / floor * 0.999 && ratio < value / floor * 1.001);
    assert_printed(row, "ns/page");
    assert_true(!strncmp(said, "what ", 5));
    assert_non_null(strstr(said, " of 1 rows within their goals"));
    json_decref(rows);
}

static void test_bound(void **state)
{
    (void)state;
    assert_int_equal(bench("", "memory of a VM of 1 TiB"), 0);
    json_t *rows = figures(1), *row = json_array_get(rows, 0);
    assert_shape(row);
    assert_true(json_is_null(json_object_get(row, "floor")));
    if (json_is_null(json_object_get(row, "value"))) {
        assert_int_not_equal(geteuid(), 0);
        assert_printed(row, "only root");
    } else {
        assert_true(json_number_value(json_object_get(row, "value")) > 0);
        assert_printed(row, "MiB");
    }
    json_decref(rows);
}

static void test_absent(void **state)
{
    (void)state;
    assert_int_equal(bench("PATH=/nonexistent", "EL2 share"), 0);
    json_t *rows = figures(1), *row = json_array_get(rows, 0);
    assert_shape(row);
    assert_true(json_is_null(json_object_get(row, "value")));
    assert_true(json_is_null(json_object_get(row, "floor")));
    assert_printed(row, "valgrind");
    assert_non_null(strstr(said, "0 of 1 rows within their goals, 0 missed, 1 not measured"));
    json_decref(rows);
}

static void test_no_row(void **state)
{
    (void)state;
    unlink(file);
    assert_int_equal(bench("", "no such row"), 2);
    assert_non_null(strstr(said, "\"no such row\""));
    assert_int_equal(access(file, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floor),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_no_row),
    };

    return cmocka_run_group_tests_name("bench_shape", tests, set_up, tear_down);
}
