/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypd after a panic of EL2: it lives on, says why in its log once, and in the answer to whoever asks for more. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fakehyp/hyp.h"
#include "fakehyp/pkvm/internal.h"
#include "tests/unit/daemon_rig.h"

enum hyp_next __real_hyp_host_hvc(struct hyp *hyp, unsigned cpu, uint64_t regs[8]);
enum hyp_next __wrap_hyp_host_hvc(struct hyp *hyp, unsigned cpu, uint64_t regs[8]);

/* In the daemon: the first call after boot is EL2's last. */
enum hyp_next __wrap_hyp_host_hvc(struct hyp *hyp, unsigned cpu, uint64_t regs[8])
{
    if (hyp->finalized)
        hyp_panic(&hyp->mm, "by way of trial");
    return __real_hyp_host_hvc(hyp, cpu, regs);
}

static struct rig rig;

static int set_up(void **state)
{
    return rig_set_up(&rig);
}

static int tear_down(void **state)
{
    return rig_tear_down(&rig);
}

static unsigned times_logged(const char *text)
{
    char line[2048];
    unsigned nr = 0;
    FILE *f = fopen(rig.log, "re");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        nr += strstr(line, text) != NULL;
    fclose(f);
    return nr;
}

/* How often the daemon's audit says it. */
static unsigned times_audited(int sock, const char *text)
{
    char what[] = "audit", json[4096];
    Fakehyp__Query query = FAKEHYP__QUERY__INIT;
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    unsigned nr = 0;

    query.what = what;
    request.id = 77;
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &query;
    assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
    Fakehyp__Reply *reply = raw_receive(sock, NULL);
    assert_non_null(reply);
    assert_int_equal(reply->error, 0);
    snprintf(json, sizeof(json), "%.*s", (int)reply->query->json.len, (const char *)reply->query->json.data);
    for (const char *at = json; (at = strstr(at, text)); at++)
        nr++;
    raw_free(reply);
    return nr;
}

static void test_panic_is_told_once(void **state)
{
    Fakehyp__VmCreate create = FAKEHYP__VM_CREATE__INIT;
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    int sock = raw_client(&rig, NULL);

    request.body_case = FAKEHYP__REQUEST__BODY_VM_CREATE;
    request.vm_create = &create;
    for (unsigned i = 0; i < 3; i++) {
        request.id = i;
        assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
        Fakehyp__Reply *reply = raw_receive(sock, NULL);
        assert_non_null(reply);
        assert_int_equal(reply->error, -EIO);
        assert_non_null(strstr(reply->message, "EL2 panic: by way of trial"));
        assert_non_null(strstr(reply->message, "start fakehypd anew"));
        raw_free(reply);
    }
    assert_int_equal(times_logged("EL2 panic: by way of trial"), 1);
    assert_int_equal(times_audited(sock, "EL2 panic: by way of trial"), 1);
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_panic_is_told_once)};

    return cmocka_run_group_tests_name("daemon_panic", tests, set_up, tear_down);
}
