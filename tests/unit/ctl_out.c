/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl's text: sizes, ages, colour, tables. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/fakehypctl/out.h"

#define SECOND UINT64_C(1000000000)

static void sizes(void **state)
{
    assert_string_equal(out_size(0).s, "0 bytes");
    assert_string_equal(out_size(1).s, "1 byte");
    assert_string_equal(out_size(1023).s, "1023 bytes");
    assert_string_equal(out_size(4096).s, "4 KiB");
    assert_string_equal(out_size(4608).s, "4608 bytes");
    assert_string_equal(out_size((2 << 20) - 4096).s, "2044 KiB");
    assert_string_equal(out_size((2 << 20) - 1).s, "2.0 MiB");
    assert_string_equal(out_size(2 << 20).s, "2 MiB");
    assert_string_equal(out_size((UINT64_C(3) << 30) + (UINT64_C(1) << 29)).s, "3584 MiB");
    assert_string_equal(out_size(UINT64_C(1) << 63).s, "8 EiB");
    assert_string_equal(out_size(UINT64_MAX).s, "16.0 EiB");
    assert_string_equal(out_size((UINT64_C(3) << 30) + 4096).s, "3.0 GiB");
}

static void ages(void **state)
{
    assert_string_equal(out_duration(0).s, "0 ns");
    assert_string_equal(out_duration(999).s, "999 ns");
    assert_string_equal(out_duration(12345).s, "12.3 us");
    assert_string_equal(out_duration(999999999).s, "999.9 ms");
    assert_string_equal(out_age(3 * SECOND + SECOND / 4).s, "3.2 s ago");
    assert_string_equal(out_duration(59 * SECOND + 999999999).s, "59.9 s");
    assert_string_equal(out_duration(60 * SECOND).s, "1 min 0 s");
    assert_string_equal(out_duration(3725 * SECOND).s, "1 h 2 min");
    assert_string_equal(out_duration((2 * 86400 + 3 * 3600) * SECOND).s, "2 d 3 h");
    assert_string_equal(out_age(UINT64_MAX).s, "213503 d 23 h ago");
    assert_string_equal(out_time(12 * SECOND + 3456789).s, "12.003456");
}

static void foreign_text_is_harmless(void **state)
{
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    out_clean(f, "a\033[31mb\n\tc\x7f d\xc3\xa9 e\xc2\x9b"
                 "1m \xc2");
    fclose(f);
    assert_string_equal(text, "a?[31mb??c? d\xc3\xa9 e?1m \xc2");
    free(text);
}

static void tables_line_up(void **state)
{
    static const struct out_column columns[] = {{"ID", true}, {"NAME", false}, {"WHAT", false}};
    static const char *const cells[] = {"1", "vm", "first", "1000", "h\xc3\xa9llo w\xc3\xb6rld", "x"};
    struct ctl_io io = {0};
    struct out_table *t = out_table_new(columns, 3);
    char *text;
    size_t len;

    for (size_t i = 0; i < 6; i++)
        out_table_cell(t, cells[i]);
    io.out = open_memstream(&text, &len);
    out_table_print(t, &io, 2);
    fclose(io.out);
    assert_string_equal(text, "    ID  NAME         WHAT\n"
                              "     1  vm           first\n"
                              "  1000  h\xc3\xa9llo w\xc3\xb6rld  x\n");
    free(text);
}

static void long_table(void **state)
{
    static const struct out_column columns[] = {{"N", true}};
    struct ctl_io io = {0};
    struct out_table *t = out_table_new(columns, 1);
    char *text;
    size_t len, lines = 0;

    for (uint64_t i = 0; i < 1000; i++)
        out_table_cell(t, out_u64(i).s);
    io.out = open_memstream(&text, &len);
    out_table_print(t, &io, 0);
    fclose(io.out);
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 1001);
    free(text);
}

static void colour_only_where_wanted(void **state)
{
    struct ctl_io io = {.colour = false};

    assert_string_equal(out_colour(&io, OUT_BAD), "");
    io.colour = true;
    assert_string_not_equal(out_colour(&io, OUT_BAD), "");
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
    int p[2];
    assert_int_equal(pipe(p), 0);
    assert_false(out_wants_colour(p[1]));
    close(p[0]);
    close(p[1]);

    int pty = posix_openpt(O_RDWR | O_NOCTTY);
    if (pty < 0)
        return; /* no terminal can be had here */
    assert_true(out_wants_colour(pty));
    setenv("NO_COLOR", "", 1);
    assert_true(out_wants_colour(pty));
    setenv("NO_COLOR", "1", 1);
    assert_false(out_wants_colour(pty));
    unsetenv("NO_COLOR");
    setenv("TERM", "dumb", 1);
    assert_false(out_wants_colour(pty));
    close(pty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),          cmocka_unit_test(ages),
        cmocka_unit_test(tables_line_up), cmocka_unit_test(foreign_text_is_harmless),
        cmocka_unit_test(long_table),     cmocka_unit_test(colour_only_where_wanted),
    };

    return cmocka_run_group_tests_name("ctl_out", tests, NULL, NULL);
}
