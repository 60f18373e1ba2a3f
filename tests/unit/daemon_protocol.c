/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypd against clients that are wrong or slow. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/daemon_rig.h"

static struct rig rig;

static int set_up(void **state)
{
    return rig_set_up(&rig);
}

static int tear_down(void **state)
{
    return rig_tear_down(&rig);
}

static void assert_alive(void)
{
    int sock = raw_client(&rig, NULL);
    json_t *status = raw_query(sock, "status");

    assert_int_equal(json_integer_value(json_object_get(status, "pid")), rig.pid);
    json_decref(status);
    close(sock);
}

/* ---- what is wrong ------------------------------------------------------------------------------------------ */

static void test_garbage(void **state)
{
    static const uint8_t garbage[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    int sock = raw_connect(rig.socket);

    assert_int_equal(chan_send(sock, garbage, sizeof(garbage), NULL, 0, 0), 0);
    assert_true(raw_is_dropped(sock));
    close(sock);
    sock = raw_client(&rig, NULL);
    assert_int_equal(chan_send(sock, garbage, sizeof(garbage), NULL, 0, 0), 0);
    assert_true(raw_is_dropped(sock));
    close(sock);
    assert_true(rig_logged(&rig, "it sent what is no request"));
    assert_alive();
}

static void test_frame_too_long(void **state)
{
    static uint8_t big[CHAN_MAX_FRAME + 1];
    int sock = raw_client(&rig, NULL);

    assert_int_equal(send(sock, big, sizeof(big), 0), sizeof(big));
    assert_true(raw_is_dropped(sock));
    close(sock);
    assert_true(rig_logged(&rig, "a frame that is too long"));
}

static void test_hello_must_be_first(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VmCreate body = FAKEHYP__VM_CREATE__INIT;
    int sock = raw_connect(rig.socket);

    request.body_case = FAKEHYP__REQUEST__BODY_VM_CREATE;
    request.vm_create = &body;
    assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
    assert_true(raw_is_dropped(sock));
    close(sock);
    assert_true(rig_logged(&rig, "its first message is no hello"));
}

static void test_wrong_version(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Hello hello = FAKEHYP__HELLO__INIT;
    Fakehyp__VmCreate body = FAKEHYP__VM_CREATE__INIT;
    int sock = raw_connect(rig.socket);

    hello.version = 4711;
    request.id = 5;
    request.body_case = FAKEHYP__REQUEST__BODY_HELLO;
    request.hello = &hello;
    assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
    Fakehyp__Reply *reply = raw_receive(sock, NULL);
    assert_int_equal(reply->id, 5);
    assert_int_equal(reply->error, -EPROTO);
    assert_non_null(strstr(reply->message, "4711"));
    assert_non_null(strstr(reply->message, "version 1"));
    raw_free(reply);
    /* It was no hello, then. */
    request.body_case = FAKEHYP__REQUEST__BODY_VM_CREATE;
    request.vm_create = &body;
    assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
    assert_true(raw_is_dropped(sock));
    close(sock);
}

static void test_unknown_request(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Event event = FAKEHYP__EVENT__INIT;
    int sock = raw_client(&rig, NULL);

    assert_int_equal(raw_call(sock, &request, NULL, NULL), -ENOSYS);
    /* Known, but not a client's to ask. */
    request.body_case = FAKEHYP__REQUEST__BODY_EVENT;
    request.event = &event;
    assert_int_equal(raw_call(sock, &request, NULL, NULL), -ENOSYS);
    json_t *status = raw_query(sock, "status");
    assert_int_equal(raw_count(status, "clients"), 1);
    json_decref(status);
    close(sock);
}

static void test_unknown_query(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Query query = FAKEHYP__QUERY__INIT;
    int sock = raw_client(&rig, NULL);

    query.what = (char *)"weather";
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &query;
    assert_int_equal(raw_call(sock, &request, NULL, NULL), -EINVAL);
    query.what = (char *)"page";
    query.gmem = 99;
    assert_int_equal(raw_call(sock, &request, NULL, NULL), -ENOENT);
    close(sock);
}

static void test_wrong_descriptors(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GmemImport import = FAKEHYP__GMEM_IMPORT__INIT;
    Fakehyp__Query query = FAKEHYP__QUERY__INIT;
    int watcher = raw_client(&rig, NULL), null = open("/dev/null", O_RDONLY);
    char *before = raw_counts(watcher);

    /* Too few, and too many. */
    int sock = raw_client(&rig, NULL);
    request.body_case = FAKEHYP__REQUEST__BODY_GMEM_IMPORT;
    request.gmem_import = &import;
    assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
    assert_true(raw_is_dropped(sock));
    close(sock);
    sock = raw_client(&rig, NULL);
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &query;
    assert_int_equal(raw_send(sock, &request, (const int[]){null, null, null}, 3), 0);
    assert_true(raw_is_dropped(sock));
    close(sock);

    /* A file that is no guest_memfd. */
    sock = raw_client(&rig, NULL);
    request.body_case = FAKEHYP__REQUEST__BODY_GMEM_IMPORT;
    request.gmem_import = &import;
    request.id = 3;
    assert_int_equal(raw_send(sock, &request, &null, 1), 0);
    Fakehyp__Reply *reply = raw_receive(sock, NULL);
    assert_int_equal(reply->error, -EINVAL);
    raw_free(reply);
    close(sock);
    raw_assert_counts(watcher, before);
    free(before);
    close(null);
    close(watcher);
}

/* The daemon's own limit: the request fails and says what to do, and the client stays. */
static void test_no_room_for_descriptors(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GmemImport import = FAKEHYP__GMEM_IMPORT__INIT;
    int sock = raw_client(&rig, NULL), null = open("/dev/null", O_RDONLY);
    struct rlimit before, none;

    request.body_case = FAKEHYP__REQUEST__BODY_GMEM_IMPORT;
    request.gmem_import = &import;
    assert_int_equal(prlimit(rig.pid, RLIMIT_NOFILE, NULL, &before), 0);
    none = before;
    none.rlim_cur = 3;
    assert_int_equal(prlimit(rig.pid, RLIMIT_NOFILE, &none, NULL), 0);
    request.id = 5;
    assert_int_equal(raw_send(sock, &request, &null, 1), 0);
    Fakehyp__Reply *reply = raw_receive(sock, NULL);
    assert_int_equal(prlimit(rig.pid, RLIMIT_NOFILE, &before, NULL), 0);
    assert_non_null(reply);
    assert_int_equal(reply->error, -EMFILE);
    assert_non_null(strstr(reply->message, "ulimit -n"));
    raw_free(reply);
    assert_true(rig_logged(&rig, "no descriptor left for what it sent with gmem_import"));
    request.id = 6;
    assert_int_equal(raw_send(sock, &request, &null, 1), 0);
    reply = raw_receive(sock, NULL);
    assert_int_equal(reply->error, -EINVAL);
    raw_free(reply);
    close(null);
    close(sock);
}

static void test_objects_of_others_do_not_exist(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VmDestroy destroy = FAKEHYP__VM_DESTROY__INIT;
    Fakehyp__Convert convert = FAKEHYP__CONVERT__INIT;
    Fakehyp__Unpin unpin = FAKEHYP__UNPIN__INIT;
    int mine = raw_client(&rig, NULL), other = raw_client(&rig, NULL), fd;
    uint64_t vm, gmem;

    assert_int_equal(raw_vm_create(mine, &vm), 0);
    assert_int_equal(raw_gmem_create(mine, vm, 1 << 20, &gmem, &fd), 0);
    destroy.vm = vm;
    request.body_case = FAKEHYP__REQUEST__BODY_VM_DESTROY;
    request.vm_destroy = &destroy;
    assert_int_equal(raw_call(other, &request, NULL, NULL), -ENOENT);
    convert.gmem = gmem;
    convert.size = 4096;
    request.body_case = FAKEHYP__REQUEST__BODY_CONVERT;
    request.convert = &convert;
    assert_int_equal(raw_call(other, &request, NULL, NULL), -ENOENT);
    unpin.pin = 1;
    request.body_case = FAKEHYP__REQUEST__BODY_UNPIN;
    request.unpin = &unpin;
    assert_int_equal(raw_call(other, &request, NULL, NULL), -ENOENT);

    /* With the descriptor the file is the other's too. */
    Fakehyp__GmemImport import = FAKEHYP__GMEM_IMPORT__INIT;
    request.body_case = FAKEHYP__REQUEST__BODY_GMEM_IMPORT;
    request.gmem_import = &import;
    assert_int_equal(raw_send(other, &request, &fd, 1), 0);
    Fakehyp__Reply *reply = raw_receive(other, NULL);
    assert_int_equal(reply->error, 0);
    assert_int_equal(reply->gmem->gmem, gmem);
    raw_free(reply);
    convert.attributes = UINT64_C(1) << 3;
    request.body_case = FAKEHYP__REQUEST__BODY_CONVERT;
    request.convert = &convert;
    assert_int_equal(raw_call(other, &request, NULL, NULL), 0);
    close(fd);
    close(mine);
    close(other);
}

/* ---- who is slow -------------------------------------------------------------------------------------------- */

static void test_client_that_never_reads(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Query query = FAKEHYP__QUERY__INIT;
    int watcher = raw_client(&rig, NULL), sock = raw_client(&rig, NULL), rc = 0;
    char *before;

    query.what = (char *)"capabilities";
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &query;
    fcntl(sock, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 200000 && (rc == 0 || rc == -EAGAIN); i++) {
        rc = raw_send(sock, &request, NULL, 0);
        if (rc == -EAGAIN)
            usleep(1000);
        /* Meanwhile the others are served. */
        if (i % 500 == 0)
            json_decref(raw_query(watcher, "status"));
    }
    assert_true(rc == -EPIPE || rc == -ECONNRESET);
    assert_true(rig_logged(&rig, "it does not read what is sent to it"));
    close(sock);
    before = raw_counts(watcher);
    json_t *status = raw_query(watcher, "status");
    assert_int_equal(raw_count(status, "clients"), 1);
    json_decref(status);
    raw_assert_counts(watcher, before);
    free(before);
    close(watcher);
}

static void test_many_requests_at_once(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Query query = FAKEHYP__QUERY__INIT;
    bool seen[600] = {false};
    int sock = raw_client(&rig, NULL);

    /* More than may be in flight; in what order the replies come does not matter. */
    query.what = (char *)"capabilities";
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &query;
    for (unsigned batch = 0; batch < 3; batch++) {
        for (unsigned i = 0; i < 200; i++) {
            request.id = batch * 200 + i;
            assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
        }
    }
    for (unsigned i = 0; i < 600; i++) {
        Fakehyp__Reply *reply = raw_receive(sock, NULL);
        assert_non_null(reply);
        assert_in_range(reply->id, 0, 599);
        assert_false(seen[reply->id]);
        seen[reply->id] = true;
        raw_free(reply);
    }
    close(sock);
}

/* So many requests in flight that the daemon reads no more from this client, none of which will end by itself. */
static void test_hang_up_behind_many_requests(void **state)
{
    int watcher = raw_client(&rig, NULL), sock = raw_client(&rig, NULL), guests[4];
    uint64_t vm;

    close(sock);
    char *before = raw_counts(watcher);
    sock = raw_client(&rig, NULL);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(raw_vm_create(sock, &vm), 0);
        for (uint32_t index = 0; index < 64; index++)
            assert_int_equal(raw_vcpu_create(sock, vm, index), 0);
        assert_int_equal(raw_guest_prepare(sock, vm, &guests[i]), 0);
        for (uint32_t index = 0; index < 64; index++)
            raw_send_run(sock, 0, vm, index, -1);
    }
    /* A request each, and the run that it waits for. */
    json_int_t tasks = 0, wanted = 2 * 256;
    for (int i = 0; i < 300 && tasks != wanted; i++) {
        json_t *status = raw_query(watcher, "status");
        tasks = raw_count(status, "tasks");
        json_decref(status);
        usleep(10000);
    }
    assert_int_equal(tasks, wanted);
    close(sock);
    raw_assert_counts(watcher, before);
    for (int i = 0; i < 4; i++)
        close(guests[i]);
    free(before);
    close(watcher);
}

/* A client without its agent has lost its signal; one that closes both sockets has just ended. */
static void test_lost_agent_is_told(void **state)
{
    int agent, sock = raw_client(&rig, &agent);

    close(agent);
    close(sock);
    usleep(700000);
    assert_false(rig_logged(&rig, "lives without its agent"));
    sock = raw_client(&rig, &agent);
    close(agent);
    for (int i = 0; i < 500 && !rig_logged(&rig, "lives without its agent"); i++)
        usleep(10000);
    assert_true(rig_logged(&rig, "lives without its agent"));
    close(sock);
}

static void test_half_open_clients_disturb_nobody(void **state)
{
    int watcher = raw_client(&rig, NULL), silent[50];
    char *before = raw_counts(watcher);

    for (int i = 0; i < 50; i++)
        silent[i] = raw_connect(rig.socket);
    assert_alive();
    for (int i = 0; i < 50; i++)
        close(silent[i]);
    raw_assert_counts(watcher, before);
    free(before);
    close(watcher);
}

static void test_capabilities_are_those_of_the_hello(void **state)
{
    int sock = raw_client(&rig, NULL);
    json_t *answer = raw_query(sock, "capabilities");

    assert_string_equal(json_string_value(json_object_get(answer, "stage")), "live");
    assert_int_equal(json_integer_value(json_object_get(answer, "protocol")), PROTO_VERSION);
    assert_in_range(json_array_size(json_object_get(answer, "capabilities")), 10, 100);
    json_decref(answer);
    json_t *trace = raw_query(sock, "trace");
    assert_int_equal(json_integer_value(json_object_get(trace, "schema")), 1);
    assert_true(json_array_size(json_object_get(trace, "events")) >= 1);
    json_decref(trace);
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_frame_too_long),
        cmocka_unit_test(test_hello_must_be_first),
        cmocka_unit_test(test_wrong_version),
        cmocka_unit_test(test_unknown_request),
        cmocka_unit_test(test_unknown_query),
        cmocka_unit_test(test_wrong_descriptors),
        cmocka_unit_test(test_no_room_for_descriptors),
        cmocka_unit_test(test_objects_of_others_do_not_exist),
        cmocka_unit_test(test_client_that_never_reads),
        cmocka_unit_test(test_many_requests_at_once),
        cmocka_unit_test(test_hang_up_behind_many_requests),
        cmocka_unit_test(test_lost_agent_is_told),
        cmocka_unit_test(test_half_open_clients_disturb_nobody),
        cmocka_unit_test(test_capabilities_are_those_of_the_hello),
    };

    return cmocka_run_group_tests_name("daemon_protocol", tests, set_up, tear_down);
}
