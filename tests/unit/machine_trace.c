/* SPDX-License-Identifier: BSD-2-Clause */
/* The trace: ring, words, and JSON that a JSON reader reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "src/machine/trace.h"

static void ring_wraps(void **state)
{
    struct trace *t = trace_new(8, NULL);
    assert_non_null(t);
    assert_int_equal(trace_next(t), 1);
    assert_null(trace_get(t, 0));
    assert_null(trace_get(t, 1));
    for (uint64_t i = 1; i <= 30; i++) {
        trace_add(t, 1000 * i, i % 3, &(struct host_event){.kind = HOST_EV_pin, .a1 = i});
        assert_int_equal(trace_next(t), i + 1);
        uint64_t oldest = i > 8 ? i - 7 : 1;
        for (uint64_t seq = 0; seq <= i + 2; seq++) {
            const struct trace_entry *e = trace_get(t, seq);
            if (seq > i) {
                assert_null(e);
                continue;
            }
            uint64_t expected = seq < oldest ? oldest : seq;
            assert_non_null(e);
            assert_int_equal(e->seq, expected);
            assert_int_equal(e->event.a1, expected);
            assert_int_equal(e->t_ns, 1000 * expected);
            assert_int_equal(e->task, expected % 3);
        }
    }
    trace_free(t);
    trace_free(NULL);
}

static const char *const docs[] = {
#define X(name, doc) doc,
    HOST_EVENT_MAP(X)
#undef X
};

static void every_kind_has_a_name_and_words(void **state)
{
    char text[300], other[300];
    for (unsigned kind = 0; kind < HOST_EV_COUNT; kind++) {
        const char *name = trace_event_name((enum host_event_kind)kind);
        assert_true(strlen(name) > 1);
        for (const char *p = name; *p; p++)
            assert_true(islower((unsigned char)*p) || *p == '_');
        assert_true(strlen(docs[kind]) > 3);
        for (unsigned i = 0; i < kind; i++)
            assert_string_not_equal(name, trace_event_name((enum host_event_kind)i));
        struct trace_entry e = {.seq = 1,
                                .event = {.kind = (enum host_event_kind)kind, .offset = 0x3000, .size = 0x1000}};
        size_t n = trace_describe(&e, text, sizeof(text));
        assert_int_equal(n, strlen(text));
        assert_true(n > 2);
        assert_null(strchr(text, '\n'));
        /* The note is shown with every kind. */
        snprintf(e.event.note, sizeof(e.event.note), "%s", "why it was");
        trace_describe(&e, other, sizeof(other));
        assert_non_null(strstr(other, "why it was"));
        assert_null(strstr(text, "why it was"));
    }
    assert_string_equal(trace_event_name(HOST_EV_COUNT), "?");
    assert_string_equal(trace_event_name((enum host_event_kind) - 1), "?");
}

static void describe(const struct host_event *event, const char *expected)
{
    char text[300];
    trace_describe(&(struct trace_entry){.event = *event}, text, sizeof(text));
    assert_string_equal(text, expected);
}

static void words(void **state)
{
    describe(&(struct host_event){.kind = HOST_EV_convert, .offset = 0x3000, .size = 0x1000, .a0 = 8, .pid = 42},
             "convert [0x3000, +0x1000) to private by pid 42: ok");
    describe(
        &(struct host_event){
            .kind = HOST_EV_convert, .offset = 0, .size = 0x4000, .a0 = 8, .a1 = 0x2000, .rc = -11, .pid = 42},
        "convert [0x0, +0x4000) to private by pid 42: EAGAIN at 0x2000");
    describe(&(struct host_event){.kind = HOST_EV_convert, .offset = 0, .size = 0x4000, .rc = -22, .pid = 42},
             "convert [0x0, +0x4000) to shared by pid 42: EINVAL");
    describe(&(struct host_event){.kind = HOST_EV_guest_abort, .offset = 0x5000, .size = 0x1000, .a0 = 1, .rc = -14},
             "guest stage-2 abort at gpa 0x5000 (write): EFAULT");
    describe(&(struct host_event){.kind = HOST_EV_guest_call, .a0 = UINT64_C(0xC6000003), .a1 = 0x1000, .rc = -3},
             "guest MEM_SHARE(0x1000) = -3");
    describe(&(struct host_event){.kind = HOST_EV_gmem_create, .size = 0x4000, .a0 = 3},
             "guest_memfd of 0x4000 bytes, flags 0x3");
    describe(
        &(struct host_event){
            .kind = HOST_EV_slot_set, .offset = 0x1000, .size = 0x4000, .a0 = 0x80000, .a1 = 2, .rc = -17, .pid = 42},
        "memslot 2: [0x1000, +0x4000) at gpa 0x80000 by pid 42: EEXIST");
    describe(&(struct host_event){.kind = HOST_EV_punch, .offset = 0x1000, .size = 0x4000, .pid = 42},
             "hole punched in [0x1000, +0x4000) by pid 42: ok");
    describe(
        &(struct host_event){
            .kind = HOST_EV_busy, .offset = 0x3000, .size = 0x1000, .a0 = 1025, .pid = 42, .note = "virtio-blk"},
        "page 0x3000 in use: refcount 1025, mapcount 0, first holder pid 42 (virtio-blk)");
    describe(&(struct host_event){.kind = HOST_EV_exit, .a0 = 39, .rc = -100000}, "exit a0=0x27: -100000");
}

/* As many bytes as there is room for, never more, and always ended. */
static void small_buffers(void **state)
{
    struct trace_entry e = {.seq = 12345,
                            .event = {.kind = HOST_EV_convert, .offset = 0x3000, .size = 0x1000, .note = "n"}};
    char whole[600], part[600];
    size_t json = trace_json(&e, whole, sizeof(whole));
    for (size_t size = 0; size < json + 4; size++) {
        memset(part, 0x55, sizeof(part));
        assert_int_equal(trace_json(&e, part, size), json);
        assert_int_equal((unsigned char)part[size], 0x55);
        if (size) {
            assert_true(strlen(part) < size);
            assert_memory_equal(part, whole, strlen(part));
        }
        memset(part, 0x55, sizeof(part));
        trace_describe(&e, part, size);
        assert_int_equal((unsigned char)part[size], 0x55);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static json_t *parse(const char *line)
{
    json_error_t error;
    json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        print_error("%s: %s\n", error.text, line);
    assert_non_null(root);
    assert_true(json_is_object(root));
    return root;
}

static uint64_t number(json_t *root, const char *key)
{
    json_t *value = json_object_get(root, key);
    if (!value)
        return 0;
    if (json_is_string(value))
        return strtoull(json_string_value(value), NULL, 0);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

static void check_line(const char *line, const struct trace_entry *e)
{
    json_t *root = parse(line);
    const struct host_event *ev = &e->event;
    assert_null(strchr(line, '\n'));
    assert_true(number(root, "seq") == e->seq);
    assert_true(number(root, "t_ns") == e->t_ns);
    assert_true(number(root, "task") == e->task);
    assert_string_equal(json_string_value(json_object_get(root, "ev")), trace_event_name(ev->kind));
    const struct {
        const char *key;
        uint64_t value;
    } fields[] = {{"vm", ev->vm}, {"gmem", ev->gmem}, {"off", ev->offset}, {"len", ev->size},
                  {"a0", ev->a0}, {"a1", ev->a1},     {"pid", ev->pid},    {"rc", (uint64_t)ev->rc}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        assert_true(number(root, fields[i].key) == fields[i].value);
        /* What is zero is left out. */
        assert_int_equal(json_object_get(root, fields[i].key) != NULL, fields[i].value != 0);
    }
    assert_int_equal(json_object_get(root, "note") != NULL, ev->note[0] != '\0');
    json_decref(root);
}

static void lines_parse(void **state)
{
    static const uint64_t values[] = {0, 1, 4096, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX};
    char line[TRACE_JSON_MAX];
    for (unsigned kind = 0; kind < HOST_EV_COUNT; kind++) {
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
            uint64_t v = values[i];
            const struct trace_entry e = {.seq = 7,
                                          .t_ns = INT64_MAX,
                                          .task = kind,
                                          .event = {.kind = (enum host_event_kind)kind,
                                                    .vm = v,
                                                    .gmem = v,
                                                    .offset = v,
                                                    .size = v,
                                                    .a0 = v,
                                                    .a1 = v,
                                                    .rc = (int64_t)v,
                                                    .pid = (uint32_t)v}};
            size_t n = trace_json(&e, line, sizeof(line));
            assert_int_equal(n, strlen(line));
            check_line(line, &e);
        }
    }
}

static void notes_are_escaped(void **state)
{
    char line[TRACE_JSON_MAX];
    for (unsigned c = 1; c < 256; c++) {
        struct trace_entry e = {.seq = 1, .event = {.kind = HOST_EV_pin}};
        snprintf(e.event.note, sizeof(e.event.note), "a%cb\"\\%c", (char)c, (char)c);
        trace_json(&e, line, sizeof(line));
        for (const char *p = line; *p; p++)
            assert_true(*p >= 0x20 && *p < 0x7f);
        json_t *root = parse(line);
        const char *note = json_string_value(json_object_get(root, "note"));
        assert_int_equal(note[0], 'a');
        if (c < 0x80) {
            assert_string_equal(note, e.event.note);
        } else {
            /* Bytes, not characters: each is kept as the code point of the same number. */
            assert_int_equal((unsigned char)note[1], 0xc0 | c >> 6);
            assert_int_equal((unsigned char)note[2], 0x80 | (c & 0x3f));
        }
        json_decref(root);
    }
}

/* The longest event that there can be is a whole line in the file all the same. */
static void file_of_lines(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    struct trace *t = trace_new(4, file);
    struct host_event longest = {.kind = HOST_EV_guest_abort,
                                 .vm = UINT64_MAX,
                                 .gmem = UINT64_MAX,
                                 .offset = UINT64_MAX,
                                 .size = UINT64_MAX,
                                 .a0 = UINT64_MAX,
                                 .a1 = UINT64_MAX,
                                 .rc = INT64_MIN,
                                 .pid = UINT32_MAX,
                                 .vcpu = UINT32_MAX};
    memset(longest.note, 0x80, sizeof(longest.note) - 1);

    for (unsigned i = 0; i < 10; i++)
        trace_add(t, i, 0, &(struct host_event){.kind = HOST_EV_punch, .offset = 4096 * i});
    trace_add(t, INT64_MAX, INT64_MAX, &longest);
    trace_free(t);
    fclose(file);

    char *save = NULL, *line = strtok_r(text, "\n", &save);
    json_t *root = parse(line);
    assert_int_equal(number(root, "schema"), TRACE_SCHEMA);
    json_decref(root);
    for (unsigned i = 0; i < 10; i++) {
        line = strtok_r(NULL, "\n", &save);
        const struct trace_entry e = {.seq = i + 1, .t_ns = i, .event = {.kind = HOST_EV_punch, .offset = 4096 * i}};
        check_line(line, &e);
    }
    line = strtok_r(NULL, "\n", &save);
    const struct trace_entry e = {.seq = 11, .t_ns = INT64_MAX, .task = INT64_MAX, .event = longest};
    check_line(line, &e);
    /* A file that was closed says so. */
    line = strtok_r(NULL, "\n", &save);
    const struct trace_entry end = {.seq = 12, .t_ns = INT64_MAX, .event = {.kind = HOST_EV_end, .a0 = 11}};
    check_line(line, &end);
    assert_null(strtok_r(NULL, "\n", &save));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_wraps),    cmocka_unit_test(every_kind_has_a_name_and_words),
        cmocka_unit_test(words),         cmocka_unit_test(small_buffers),
        cmocka_unit_test(lines_parse),   cmocka_unit_test(notes_are_escaped),
        cmocka_unit_test(file_of_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
