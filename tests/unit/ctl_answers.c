/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl against a daemon that answers from a can: what it asks, what it prints, what it makes of nonsense. */
#include <errno.h>
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
#include "src/proto/chan.h"
#include "tests/unit/ctl_canned.h"
#include "tests/unit/ctl_fake.h"

static struct ctl_fake *fake;

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no \"%s\" in:\n%s", part, text);
}

static void assert_text(const struct ctl_output *o, int status, const char *text)
{
    if (o->status != status || strcmp(o->out, text) || *o->err)
        fail_msg("status %d, on stderr: %s\nprinted:\n%s\nexpected:\n%s", o->status, o->err, o->out, text);
}

static void assert_json(const struct ctl_output *o, int status, const char *text)
{
    json_t *got = json_loads(o->out, 0, NULL), *expected = json_loads(text, 0, NULL);

    assert_int_equal(o->status, status);
    assert_string_equal(o->err, "");
    assert_non_null(got);
    assert_non_null(expected);
    assert_true(json_equal(got, expected));
    json_decref(got);
    json_decref(expected);
}

static void status_text(void **state)
{
    ctl_fake_answer(fake, CANNED_STATUS);
    assert_text(ctl_fake_run("status", NULL), CTL_OK,
                "fakehypd 0.1.0, pid 77, stage live, up 3.2 s\n"
                "socket /run/f.sock\n"
                "\n"
                "clients\n"
                "  ID   PID  VIEWS  PROGRAM\n"
                "   1  4242      2  vmm\n"
                "  12     9      0  evil?[31m\n"
                "\n"
                "VMs\n"
                "  ID  NAME  HYP   MEMORY       UNSHARE     FILES                  HANDLE  VCPUS  GUEST\n"
                "   1  demo  pkvm  protected    consent     D inode                0x1000      1  pid 4300\n"
                "   2        pkvm  unprotected  unilateral  A vm, abi 5, hyp-2021  0x1001      0  not started\n"
                "\n"
                "memslots\n"
                "  VM  SLOT         IPA        LAST   SIZE  GMEM  OFFSET\n"
                "   1     0  0x40000000  0x401fffff  2 MiB     5     0x0\n"
                "\n"
                "guest_memfds\n"
                "  ID  VM   SIZE  SHARED   PRIVATE  PAGES  RANGES  FLAGS\n"
                "   5   1  2 MiB   4 KiB  2044 KiB     17       3  MMAP|INIT_SHARED\n"
                "\n"
                "counts\n"
                "  clients               2    VMs                   2\n"
                "  guest_memfds          1    views                 2\n"
                "  pins                  0    guests                1\n"
                "  frames used          40    EL2 pages             9\n"
                "  tasks                 0    descriptors          14\n");
    assert_string_equal(fake->query.what, "status");
}

static void status_of_an_idle_daemon(void **state)
{
    const struct ctl_output *o;

    ctl_fake_answer(fake, "{\"version\":\"0.1.0\",\"pid\":77,\"socket\":\"s\",\"stage\":\"live\",\"uptime_ns\":0,"
                          "\"clients\":[],\"vms\":[],\"gmems\":[],\"counts\":{\"clients\":0,\"vms\":0,\"gmems\":0,"
                          "\"views\":0,\"pins\":0,\"guests\":0,\"frames_used\":0,\"el2_pages\":0,\"tasks\":0,"
                          "\"fds\":9}}");
    o = ctl_fake_run("status", NULL);
    assert_int_equal(o->status, CTL_OK);
    assert_has(o->out, "\nclients: none\n\nVMs: none\n\nmemslots: none\n\nguest_memfds: none\n\ncounts\n");
}

static void page_text(void **state)
{
    ctl_fake_answer(fake, CANNED_PAGE);
    assert_text(ctl_fake_run("page", "--gmem", "5", "--offset", "12K", NULL), CTL_OK,
                "page 0x3000 of guest_memfd 5, VM 1, IPA 0x40003000\n"
                "  attribute     private\n"
                "  frame         PFN 0x1234\n"
                "  bytes in      private file\n"
                "  owner         guest 0x1000 gfn 0x40003\n"
                "  host state    NOPAGE\n"
                "  guest state   OWNED\n"
                "  host access   refused by stage 1 (attribute) and by stage 2 (EL2's table)\n"
                "  references    refcount 1025, mapcount 0\n"
                "  last change   to private, 3.2 s ago, by vmm (pid 4242), conversion 42\n"
                "\n"
                "held by\n"
                "  COUNT  KIND       PID       SINCE  HOLDER\n"
                "      1  FOLL_PIN  4242  1.5 ms ago  vmm/disk0\n"
                "\n"
                "stray accesses while private\n"
                "        WHEN   PID         ADDRESS        PC  THREAD     CALLED FROM\n"
                "  900 ns ago  4242  0x7f0000000000  0x401000  virtio-tx  0x401000 0x401100\n"
                "\n"
                "history\n"
                "  EVENT      TIME  WHAT\n"
                "      3  0.001000  donated to guest\n"
                "     42  2.000000  convert to private: ok\n");
    assert_string_equal(fake->query.what, "page");
    assert_int_equal(fake->query.gmem, 5);
    assert_int_equal(fake->query.offset, 12288);
    assert_false(fake->query.by_gpa);
}

static void page_by_address(void **state)
{
    ctl_fake_answer(fake, CANNED_FRESH_PAGE);
    assert_text(ctl_fake_run("page", "--vm=2", "--gpa=1G", NULL), CTL_OK,
                "page 0x0 of guest_memfd 5\n"
                "  attribute     shared\n"
                "  frame         not allocated\n"
                "  bytes in      nowhere\n"
                "  owner         host\n"
                "  host state    OWNED\n"
                "  guest state   NOPAGE\n"
                "  host access   allowed\n"
                "  references    refcount 0, mapcount 0\n"
                "  last change   none: as it was created\n");
    assert_true(fake->query.by_gpa);
    assert_int_equal(fake->query.vm, 2);
    assert_int_equal(fake->query.gpa, 1 << 30);
}

static void kernel_load_text(void **state)
{
    ctl_fake_answer(fake, CANNED_KERNEL_LOAD);
    assert_text(ctl_fake_run("kernel-load", "--vm=1", "--gpa=0x5000", NULL), CTL_OK,
                "PFN 0x80005: read 00000000000000000000000000000000\n"
                "stage 2 refused: the page was taken from its guest by force, zeroed, and its IPA is poisoned\n");
    assert_string_equal(fake->query.what, "kernel-load");
    assert_int_equal(fake->query.gpa, 0x5000);
    ctl_fake_answer(fake, "{\"pfn\":9,\"bytes\":\"4142\",\"reclaimed\":false}");
    assert_text(ctl_fake_run("kernel-load", "--gmem=1", "--offset=4K", "--fixup", NULL), CTL_OK,
                "PFN 0x9: read 4142\nstage 2 let it through: nothing has changed\n");
    assert_string_equal(fake->query.what, "kernel-copy");
    assert_has(ctl_fake_run("kernel-load", "--gmem=1", NULL)->err, "kernel-load: which page?");
}

static void page_that_is_not(void **state)
{
    const struct ctl_output *o;

    ctl_fake_answer(fake, "{}");
    fake->error = -ENOENT;
    strcpy(fake->message, "no guest_memfd 9");
    o = ctl_fake_run("page", "--gmem", "9", "--offset", "0", NULL);
    assert_int_equal(o->status, CTL_FAILED);
    assert_string_equal(o->out, "");
    assert_has(o->err, "fakehypctl: page: no guest_memfd 9");
}

static void audit_text(void **state)
{
    ctl_fake_answer(fake, CANNED_AUDIT_CLEAN);
    assert_text(ctl_fake_run("audit", NULL), CTL_OK, "audit: clean\nchecked: files 2, pages 512, views 1, frames 40\n");
    ctl_fake_answer(fake, CANNED_AUDIT_BAD);
    assert_text(ctl_fake_run("audit", NULL), CTL_PROBLEM,
                "audit: 1 problem\nchecked: files 2, pages 512, views 1, frames 40\n"
                "    1  gmem 5: page 0x3000 is private, its bytes are in the shared file\n");
}

static void json_is_the_daemons(void **state)
{
    ctl_fake_answer(fake, CANNED_STATUS);
    assert_json(ctl_fake_run("status", "--json", NULL), CTL_OK, CANNED_STATUS);
    ctl_fake_answer(fake, CANNED_PAGE);
    assert_json(ctl_fake_run("page", "--json", "--gmem=5", "--offset=0", NULL), CTL_OK, CANNED_PAGE);
    ctl_fake_answer(fake, CANNED_AUDIT_CLEAN);
    assert_json(ctl_fake_run("audit", "--json", NULL), CTL_OK, CANNED_AUDIT_CLEAN);
    ctl_fake_answer(fake, CANNED_AUDIT_BAD);
    assert_json(ctl_fake_run("audit", "--json", NULL), CTL_PROBLEM, CANNED_AUDIT_BAD);
    /* An answer that needs more than one frame. */
    ctl_fake_answer(fake, CANNED_STATUS);
    fake->pieces = 7;
    assert_json(ctl_fake_run("status", "--json", NULL), CTL_OK, CANNED_STATUS);
}

static void trace_text(void **state)
{
    ctl_fake_answer(fake, CANNED_TRACE);
    assert_text(ctl_fake_run("trace", NULL), CTL_OK,
                "      11      1.000000  vm_create vm=1 a0=0x1000\n"
                "      12      1.250000  convert vm=1 off=0x3000 len=0x1000 rc=-11 note=\"held by disk0\"\n");
    assert_string_equal(fake->query.what, "trace");
    assert_true(fake->query.any);
    assert_int_equal(fake->query.since, 0);
    assert_int_equal(fake->query.limit, 0);

    ctl_fake_answer(fake, CANNED_TRACE);
    assert_text(ctl_fake_run("trace", "--json", NULL), CTL_OK,
                "{\"seq\":11,\"t_ns\":1000000500,\"ev\":\"vm_create\",\"vm\":1,\"a0\":4096}\n"
                "{\"seq\":12,\"t_ns\":1250000000,\"ev\":\"convert\",\"vm\":1,\"off\":12288,\"len\":4096,\"rc\":-11,"
                "\"note\":\"held by disk0\"}\n");
}

static void trace_limits(void **state)
{
    const struct ctl_output *o;

    /* Without --since the newest ones. */
    ctl_fake_answer(fake, CANNED_TRACE);
    o = ctl_fake_run("trace", "--limit", "1", "--vm", "1", NULL);
    assert_int_equal(o->status, CTL_OK);
    assert_null(strstr(o->out, "vm_create"));
    assert_has(o->out, "convert");
    assert_int_equal(fake->query.limit, 0);
    assert_false(fake->query.any);
    assert_int_equal(fake->query.vm, 1);

    /* With it the first ones, also from a daemon that sends more than was asked for. */
    ctl_fake_answer(fake, CANNED_TRACE);
    o = ctl_fake_run("trace", "--limit", "1", "--since", "11", NULL);
    assert_int_equal(o->status, CTL_OK);
    assert_has(o->out, "vm_create");
    assert_null(strstr(o->out, "convert"));
    assert_int_equal(fake->query.limit, 1);
    assert_int_equal(fake->query.since, 11);
}

static void trace_follows(void **state)
{
    const struct ctl_output *o;

    ctl_fake_answer(fake, CANNED_TRACE);
    ctl_fake_answer_next(fake, "{\"schema\":1,\"dropped\":0,\"next\":13,\"events\":[]}");
    ctl_fake_answer_next(fake, "{\"schema\":1,\"dropped\":4,\"next\":18,\"events\":["
                               "{\"seq\":17,\"t_ns\":2000000000,\"ev\":\"unpin\"}]}");
    fake->nr_queries = 0;
    o = ctl_fake_run("trace", "--follow", "--limit=1", NULL);
    assert_int_equal(o->status, CTL_FAILED);
    assert_has(o->err, "4 older events are kept no more");
    assert_has(o->err, "fakehypd has ended");
    assert_string_equal(o->out,
                        "      12      1.250000  convert vm=1 off=0x3000 len=0x1000 rc=-11 note=\"held by disk0\"\n"
                        "      17      2.000000  unpin\n");
    assert_int_equal(fake->nr_queries, 4);
    assert_int_equal(fake->query.since, 18);

    /* From a number on, it ends by itself when it has had enough. */
    ctl_fake_answer(fake, "{\"schema\":1,\"dropped\":0,\"next\":12,\"events\":["
                          "{\"seq\":11,\"t_ns\":2000000000,\"ev\":\"pin\"}]}");
    ctl_fake_answer_next(fake, CANNED_TRACE);
    o = ctl_fake_run("trace", "--follow", "--since=11", "--limit=2", NULL);
    assert_int_equal(o->status, CTL_OK);
    assert_int_equal(fake->query.limit, 1);
    assert_int_equal(fake->query.since, 12);
}

static void assert_refused(const char *what, const char *json, const char *why)
{
    const struct ctl_output *o;

    ctl_fake_answer(fake, json);
    o = strcmp(what, "page") ? ctl_fake_run(what, NULL) : ctl_fake_run(what, "--gmem=5", "--offset=0", NULL);
    if (o->status != CTL_FAILED || *o->out || !strstr(o->err, why))
        fail_msg("status %d, %s\nprinted: %s\nfor: %s", o->status, o->err, o->out, json);
}

static void nonsense(void **state)
{
    assert_refused("status", "", "no JSON");
    assert_refused("status", "{", "no JSON");
    assert_refused("status", "{\"pid\":1} x", "no JSON");
    assert_refused("status", "[]", "no JSON object");
    assert_refused("status", "{\"pid\":18446744073709551616}", "no JSON");
    assert_refused("status", "{}", "malformed: version: expected a string");
    assert_refused("audit", "{\"ok\":1,\"checked\":{},\"problems\":[]}", "malformed: ok: expected true or false");
    assert_refused("trace", "{\"schema\":2,\"dropped\":0,\"next\":1,\"events\":[]}", "schema 2");
    assert_refused("trace", "{\"schema\":1,\"dropped\":0,\"next\":2,\"events\":[{\"seq\":1,\"t_ns\":-1,\"ev\":\"x\"}]}",
                   "malformed: events[0].t_ns: expected an integer");
    assert_refused("trace", "{\"schema\":1,\"dropped\":0,\"next\":2,\"events\":[7]}", "events[0]: expected an object");
}

static unsigned broken;

/* Sends `root` with each of its members left out, and with each of them of another type. */
static void break_each(const char *what, json_t *root, json_t *at)
{
    const char *key;
    json_t *value;
    size_t i;

    if (json_is_array(at)) {
        json_array_foreach(at, i, value) if (json_is_object(value)) break_each(what, root, value);
        return;
    }
    json_t *copy = json_copy(at); /* what is walked must not change meanwhile */
    json_object_foreach(copy, key, value)
    {
        json_t *other = json_is_array(value) ? json_object() : json_array();

        for (int round = 0; round < 2; round++) {
            if (round)
                json_object_set(at, key, other);
            else
                json_object_del(at, key);
            char *text = json_dumps(root, 0);
            assert_refused(what, text, "malformed: ");
            free(text);
            broken++;
        }
        json_decref(other);
        json_object_set(at, key, value);
        if (json_is_object(value) || json_is_array(value))
            break_each(what, root, value);
    }
    json_decref(copy);
}

static void every_member_is_checked(void **state)
{
    static const struct {
        const char *what, *json;
    } answers[] = {{"status", CANNED_STATUS}, {"page", CANNED_PAGE}, {"audit", CANNED_AUDIT_BAD}};

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        json_t *root = json_loads(answers[i].json, 0, NULL);

        broken = 0;
        break_each(answers[i].what, root, root);
        assert_true(broken >= 14);
        json_decref(root);
    }
}

static void other_protocol(void **state)
{
    const struct ctl_output *o;

    ctl_fake_answer(fake, CANNED_STATUS);
    fake->version = PROTO_VERSION + 1;
    o = ctl_fake_run("status", NULL);
    assert_int_equal(o->status, CTL_FAILED);
    assert_has(o->err, "remedy: install fakehypd and fakehypctl of one release");
}

static void full_disk(void **state)
{
    FILE *full = fopen("/dev/full", "we");
    struct ctl_io io = {.out = full, .err = tmpfile()};
    char *argv[] = {(char *)"fakehypctl", (char *)"audit"};

    assert_non_null(full);
    ctl_fake_answer(fake, CANNED_AUDIT_CLEAN);
    assert_int_equal(ctl_run(2, argv, &io), CTL_FAILED);
    fclose(full);
    fclose(io.err);
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
        cmocka_unit_test(status_text),
        cmocka_unit_test(status_of_an_idle_daemon),
        cmocka_unit_test(page_text),
        cmocka_unit_test(page_by_address),
        cmocka_unit_test(kernel_load_text),
        cmocka_unit_test(page_that_is_not),
        cmocka_unit_test(audit_text),
        cmocka_unit_test(json_is_the_daemons),
        cmocka_unit_test(trace_text),
        cmocka_unit_test(trace_limits),
        cmocka_unit_test(trace_follows),
        cmocka_unit_test(nonsense),
        cmocka_unit_test(every_member_is_checked),
        cmocka_unit_test(other_protocol),
        cmocka_unit_test(full_disk),
    };

    return cmocka_run_group_tests_name("ctl_answers", tests, start, stop);
}
