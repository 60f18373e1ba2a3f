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

/* ---- guests ------------------------------------------------------------------------------------------------- */

static void expect_reply(int sock, uint64_t id, int error)
{
    Fakehyp__Reply *reply = raw_receive(sock, NULL);

    assert_non_null(reply);
    assert_int_equal(reply->id, id);
    assert_int_equal(reply->error, error);
    raw_free(reply);
}

static void test_guest_that_does_not_come(void **state)
{
    int sock = raw_client(&rig, NULL), guest, again;
    uint64_t vm;

    assert_int_equal(raw_vm_create(sock, &vm), 0);
    assert_int_equal(raw_guest_prepare(sock, vm, &guest), -ENOENT); /* no vCPU */
    assert_int_equal(raw_vcpu_create(sock, vm, 0), 0);
    raw_send_run(sock, 1, vm, 0, 0);
    expect_reply(sock, 1, -ENOENT); /* no guest */
    assert_int_equal(raw_guest_prepare(sock, vm, &guest), 0);
    assert_int_equal(raw_guest_prepare(sock, vm, &again), -EBUSY);
    assert_int_equal(raw_vcpu_create(sock, vm, 1), -EBUSY);

    /* Prepared: a run waits for it, one at a time. */
    raw_send_run(sock, 2, vm, 0, 300000000);
    raw_send_run(sock, 3, vm, 0, 300000000);
    expect_reply(sock, 3, -EBUSY);
    expect_reply(sock, 2, -ETIMEDOUT);

    raw_send_run(sock, 4, vm, 0, -1);
    close(guest);
    expect_reply(sock, 4, -ENOENT);
    assert_int_equal(raw_guest_prepare(sock, vm, &guest), 0);
    close(guest);
    close(sock);
}

static void test_guest_must_be_another_process(void **state)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestAttach body = FAKEHYP__GUEST_ATTACH__INIT;
    int sock = raw_client(&rig, NULL), guest, null = open("/dev/null", O_RDONLY);
    uint64_t vm;

    assert_int_equal(raw_vm_create(sock, &vm), 0);
    assert_int_equal(raw_vcpu_create(sock, vm, 0), 0);
    assert_int_equal(raw_guest_prepare(sock, vm, &guest), 0);
    request.id = 9;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_ATTACH;
    request.guest_attach = &body;
    assert_int_equal(raw_send(guest, &request, &null, 1), 0);
    Fakehyp__Reply *reply = raw_receive(guest, NULL);
    assert_int_equal(reply->error, -EPERM);
    assert_non_null(strstr(reply->message, "process of its own"));
    raw_free(reply);
    assert_true(raw_is_dropped(guest));
    close(guest);

    /* Anything but GuestAttach. */
    assert_int_equal(raw_guest_prepare(sock, vm, &guest), 0);
    request.body_case = FAKEHYP__REQUEST__BODY__NOT_SET;
    assert_int_equal(raw_send(guest, &request, NULL, 0), 0);
    assert_true(raw_is_dropped(guest));
    close(guest);
    close(null);
    close(sock);
}

/* ---- who dies ----------------------------------------------------------------------------------------------- */

static int raw_pin(int sock, uint64_t gmem)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Pin body = FAKEHYP__PIN__INIT;

    body.gmem = gmem;
    body.size = 8192;
    body.kind = 1;
    body.label = (char *)"test";
    request.body_case = FAKEHYP__REQUEST__BODY_PIN;
    request.pin = &body;
    return raw_call(sock, &request, NULL, NULL);
}

static int raw_slot(int sock, uint64_t vm, uint64_t gmem)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__MemoryRegion body = FAKEHYP__MEMORY_REGION__INIT;

    body.vm = vm;
    body.gmem = gmem;
    body.size = 1 << 20;
    request.body_case = FAKEHYP__REQUEST__BODY_MEMORY_REGION;
    request.memory_region = &body;
    return raw_call(sock, &request, NULL, NULL);
}

/* Owns something of every kind, has a run waiting, and says so. */
static _Noreturn void busy_client(int ready)
{
    int agent, guest, fd, sock = raw_client(&rig, &agent);
    uint64_t vm, gmem;
    bool ok = raw_vm_create(sock, &vm) == 0 && raw_gmem_create(sock, vm, 1 << 20, &gmem, &fd) == 0 &&
              raw_slot(sock, vm, gmem) == 0 && raw_pin(sock, gmem) == 0 && raw_vcpu_create(sock, vm, 0) == 0 &&
              raw_guest_prepare(sock, vm, &guest) == 0;

    raw_send_run(sock, 1, vm, 0, -1);
    if (ok && write(ready, "x", 1) == 1)
        pause();
    _exit(1);
}

static void test_counts_return_when_clients_are_killed(void **state)
{
    int watcher = raw_client(&rig, NULL), fds[2];
    char *before = raw_counts(watcher), byte;
    pid_t pids[8];

    assert_int_equal(pipe(fds), 0);
    for (int i = 0; i < 8; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            busy_client(fds[1]);
        assert_int_equal(read(fds[0], &byte, 1), 1);
    }
    json_t *status = raw_query(watcher, "status");
    assert_int_equal(raw_count(status, "clients"), 9);
    assert_int_equal(raw_count(status, "vms"), 8);
    assert_int_equal(raw_count(status, "gmems"), 8);
    assert_int_equal(raw_count(status, "pins"), 8);
    json_decref(status);
    json_t *audit = raw_query(watcher, "audit");
    assert_true(json_is_true(json_object_get(audit, "ok")));
    json_decref(audit);
    for (int i = 0; i < 8; i++) {
        kill(pids[i], SIGKILL);
        rig_wait(pids[i]);
    }
    raw_assert_counts(watcher, before);
    free(before);
    close(fds[0]);
    close(fds[1]);
    close(watcher);
}

static void test_stop_with_clients(void **state)
{
    struct rig here;
    int agent;

    rig_make_dir(&here);
    rig_start(&here, NULL);
    int sock = raw_client(&here, &agent);
    uint64_t vm;
    assert_int_equal(raw_vm_create(sock, &vm), 0);
    assert_int_equal(rig_stop(&here), 0);
    assert_true(raw_is_dropped(sock));
    close(sock);
    close(agent);
    rig_remove_dir(&here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest_that_does_not_come),
        cmocka_unit_test(test_guest_must_be_another_process),
        cmocka_unit_test(test_counts_return_when_clients_are_killed),
        cmocka_unit_test(test_stop_with_clients),
    };

    return cmocka_run_group_tests_name("daemon_life", tests, set_up, tear_down);
}
