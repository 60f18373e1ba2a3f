/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest runtime, against a stand-in that resolves its faults and turns every hypercall into an exit. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <fakehyp/fakehyp.h>

#include "tests/unit/client_daemon.h"

#define PAGE ((uint64_t)FAKEHYP_PAGE_SIZE)
#define PAGES 16
#define RAM UINT64_C(0x80000000)
#define CALL_TEST 0xC6000100u

struct fixture {
    struct fake_daemon daemon;
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    struct fakehyp_vcpu *vcpu[2];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    /* Small enough for what a sanitizer leaves of the address space. */
    struct fakehyp_vm_config config = {.ipa_bits = 36};

    daemon_start(&f->daemon);
    if (fakehyp_connect(f->daemon.name, &f->fh) || fakehyp_vm_create(f->fh, &config, &f->vm) ||
        fakehyp_gmem_create(f->vm, PAGES * PAGE, FAKEHYP_GMEM_MMAP, &f->gmem) ||
        fakehyp_set_memory_region(f->vm, 1, RAM, (PAGES - 2) * PAGE, f->gmem, 2 * PAGE) ||
        fakehyp_vcpu_create(f->vm, 0, &f->vcpu[0])) {
        fprintf(stderr, "%s\n", fakehyp_last_error());
        return -1;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    fakehyp_disconnect(f->fh);
    daemon_stop(&f->daemon);
    free(f);
    return 0;
}

static void start(struct fixture *f, int (*fn)(struct fakehyp_guest *, void *), void *arg)
{
    if (fakehyp_guest_start(f->vm, fn, arg))
        fail_msg("guest_start: %s", fakehyp_last_error());
}

static struct fakehyp_run *run(struct fakehyp_vcpu *vcpu)
{
    int rc = fakehyp_vcpu_run(vcpu, 10000);

    if (rc)
        fail_msg("vcpu_run: %d %s", rc, fakehyp_last_error());
    return fakehyp_vcpu_state(vcpu);
}

static void expect_shutdown(struct fakehyp_vcpu *vcpu, int data)
{
    struct fakehyp_run *state = run(vcpu);

    assert_int_equal(state->exit_reason, FAKEHYP_EXIT_SYSTEM_EVENT);
    assert_int_equal(state->system_event.type, FAKEHYP_SYSTEM_EVENT_SHUTDOWN);
    assert_int_equal((int)state->system_event.data, data);
}

static struct daemon_gmem *files(struct fixture *f)
{
    return daemon_find_gmem(&f->daemon, fakehyp_gmem_id(f->gmem));
}

/* ---- life ---------------------------------------------------------------------------------------------------------
 */

static int return_arg(struct fakehyp_guest *guest, void *arg)
{
    return *(int *)arg;
}

static void test_result(void **state)
{
    struct fixture *f = *state;
    int result = -7;

    assert_int_equal(fakehyp_guest_pid(f->vm), 0);
    start(f, return_arg, &result);
    assert_int_not_equal(fakehyp_guest_pid(f->vm), 0);
    assert_int_equal(daemon_guest_pid(&f->daemon), fakehyp_guest_pid(f->vm));
    assert_int_equal(fakehyp_guest_start(f->vm, return_arg, &result), -EBUSY);
    expect_shutdown(f->vcpu[0], -7);
    pid_t pid = fakehyp_guest_pid(f->vm);
    assert_int_equal(fakehyp_vm_destroy(f->vm), 0);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* A guest that dies before it is attached, and a fork in another thread meanwhile. */
static bool dies_early;
static pid_t other_child;

static void fork_beside(void)
{
    if (!dies_early)
        return;
    other_child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (other_child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
}

static void die(void)
{
    if (dies_early)
        raise(SIGKILL);
}

static int setup_impatient(void **state)
{
    setenv("FAKEHYP_TIMEOUT_MS", "3000", 1);
    int rc = setup(state);
    unsetenv("FAKEHYP_TIMEOUT_MS");
    return rc;
}

static void test_ends_before_it_is_attached(void **state)
{
    struct fixture *f = *state;
    int result = 0;

    assert_int_equal(pthread_atfork(fork_beside, NULL, die), 0);
    dies_early = true;
    int rc = fakehyp_guest_start(f->vm, return_arg, &result);
    dies_early = false;
    assert_true(other_child > 0);
    kill(other_child, SIGKILL);
    waitpid(other_child, NULL, 0);
    assert_int_equal(rc, -ECHILD);
    assert_non_null(strstr(fakehyp_last_error(), "ended by signal 9"));
    assert_int_equal(fakehyp_guest_pid(f->vm), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    /* Another one starts. */
    start(f, return_arg, &result);
    expect_shutdown(f->vcpu[0], 0);
}

static int loop_for_ever(struct fakehyp_guest *guest, void *arg)
{
    fakehyp_guest_hypercall(guest, CALL_TEST, 0, 0, 0);
    for (;;)
        pause();
    return 0;
}

static void test_disconnect_ends_guest(void **state)
{
    struct fixture *f = *state;

    start(f, loop_for_ever, NULL);
    assert_int_equal(run(f->vcpu[0])->hypercall.nr, CALL_TEST);
    pid_t pid = fakehyp_guest_pid(f->vm);
    daemon_guest_stop(&f->daemon); /* what the daemon's end does */
    fakehyp_disconnect(f->fh);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(fakehyp_connect(f->daemon.name, &f->fh), 0);
}

static int crash(struct fakehyp_guest *guest, void *arg)
{
    fclose(stderr);
    return (int)fakehyp_guest_load(guest, UINT64_C(1) << 50, 8);
}

static void test_access_beyond_ipa_space(void **state)
{
    struct fixture *f = *state;

    start(f, crash, NULL);
    assert_int_equal(run(f->vcpu[0])->exit_reason, FAKEHYP_EXIT_SYSTEM_EVENT);
    assert_int_equal(fakehyp_vcpu_state(f->vcpu[0])->system_event.type, FAKEHYP_SYSTEM_EVENT_CRASH);
}

static void test_ipa_space_too_large(void **state)
{
    struct fixture *f = *state;
    struct fakehyp_vm_config config = {.ipa_bits = 52};
    struct fakehyp_vm *vm;
    int result = 0;

    assert_int_equal(fakehyp_vm_create(f->fh, &config, &vm), 0);
    assert_int_equal(fakehyp_guest_start(vm, return_arg, &result), -EINVAL);
    assert_non_null(strstr(fakehyp_last_error(), "52 bits"));
    assert_int_equal(fakehyp_guest_pid(vm), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    daemon_guest_stop(&f->daemon);
}

/* ---- what the guest inherits ---------------------------------------------------------------------------------- */

static int count_descriptors(struct fakehyp_guest *guest, void *arg)
{
    int nr = 0;

    for (int fd = 3; fd < 1024; fd++)
        nr += fcntl(fd, F_GETFD) >= 0;
    /* Its own vCPU socket is all that is left to it. */
    return nr == 1 && prctl(PR_GET_DUMPABLE) == 0 ? 0 : 100 + nr;
}

static void test_descriptors(void **state)
{
    struct fixture *f = *state;
    int extra = open("/dev/null", O_RDONLY);

    start(f, count_descriptors, NULL);
    expect_shutdown(f->vcpu[0], 0);
    close(extra);
}

static void on_usr1(int sig)
{
    _exit(3);
}

static int check_signals(struct fakehyp_guest *guest, void *arg)
{
    struct sigaction now;
    sigset_t mask;

    sigaction(SIGUSR1, NULL, &now);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    return now.sa_handler == SIG_DFL && !sigismember(&mask, SIGUSR2) ? 0 : 1;
}

static void test_signals(void **state)
{
    struct fixture *f = *state;
    sigset_t blocked;

    signal(SIGUSR1, on_usr1);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    start(f, check_signals, NULL);
    sigprocmask(SIG_UNBLOCK, &blocked, NULL);
    signal(SIGUSR1, SIG_DFL);
    expect_shutdown(f->vcpu[0], 0);
}

static int close_and_touch(struct fakehyp_guest *guest, void *arg)
{
    /* With the agent's descriptors in a table of its own, all that can be closed but the vCPU's socket. */
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    fakehyp_guest_store(guest, RAM, 8, 5);
    fakehyp_guest_hypercall(guest, CALL_TEST, 0, 0, 0);
    return (int)fakehyp_guest_load(guest, RAM, 8);
}

static void test_agent_survives_closed_descriptors(void **state)
{
    struct fixture *f = *state;
    uint64_t value = 9;

    start(f, close_and_touch, NULL);
    assert_int_equal(run(f->vcpu[0])->exit_reason, FAKEHYP_EXIT_HYPERCALL);
    assert_int_equal(pwrite(files(f)->shared, &value, 8, 2 * (off_t)PAGE), 8);
    assert_int_equal(daemon_guest_overlay(&f->daemon, RAM, PAGE, true), 0);
    expect_shutdown(f->vcpu[0], 9);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static int use_memory(struct fakehyp_guest *guest, void *arg)
{
    char text[32] = "";

    for (size_t width = 1; width <= 8; width *= 2) {
        fakehyp_guest_store(guest, RAM + 64, width, UINT64_C(0x1122334455667788));
        uint64_t mask = width == 8 ? UINT64_MAX : (UINT64_C(1) << width * 8) - 1;
        if (fakehyp_guest_load(guest, RAM + 64, width) != (UINT64_C(0x1122334455667788) & mask))
            return 1;
    }
    fakehyp_guest_write(guest, RAM + 2 * PAGE - 4, "straddle", 9);
    fakehyp_guest_read(guest, RAM + 2 * PAGE - 4, text, 9);
    if (strcmp(text, "straddle"))
        return 2;
    if (*(volatile char *)fakehyp_guest_ptr(guest, RAM + 2 * PAGE) != 'd')
        return 3;
    return fakehyp_guest_vcpu(guest) == 0 ? 0 : 4;
}

static void test_memory(void **state)
{
    struct fixture *f = *state;
    char text[8];

    start(f, use_memory, NULL);
    expect_shutdown(f->vcpu[0], 0);
    /* The bytes are in the private file, at the slot's offset, and in no other place. */
    assert_int_equal(pread(files(f)->private, text, 4, 4 * (off_t)PAGE - 4), 4);
    assert_memory_equal(text, "stra", 4);
    assert_int_equal(lseek(files(f)->shared, 0, SEEK_DATA), -1);
    assert_true(daemon_guest_faults(&f->daemon) >= 2);
}

/* Writes a page, lets the VMM act, and tells what it then sees: first page, second page. */
static int watch_pages(struct fakehyp_guest *guest, void *arg)
{
    fakehyp_guest_store(guest, RAM, 8, 11);
    fakehyp_guest_store(guest, RAM + PAGE, 8, 12);
    for (;;) {
        uint64_t first = fakehyp_guest_load(guest, RAM, 8), second = fakehyp_guest_load(guest, RAM + PAGE, 8);
        if (fakehyp_guest_hypercall(guest, CALL_TEST, first, second, 0))
            return 0;
    }
}

static void expect_pages(struct fakehyp_vcpu *vcpu, uint64_t first, uint64_t second)
{
    struct fakehyp_run *state = run(vcpu);

    assert_int_equal(state->exit_reason, FAKEHYP_EXIT_HYPERCALL);
    assert_int_equal(state->hypercall.args[0], first);
    assert_int_equal(state->hypercall.args[1], second);
    state->hypercall.ret = 0;
}

static void test_overlay_and_zap(void **state)
{
    struct fixture *f = *state;
    uint64_t value = 77;

    start(f, watch_pages, NULL);
    expect_pages(f->vcpu[0], 11, 12);
    assert_int_equal(pwrite(files(f)->shared, &value, 8, 3 * (off_t)PAGE), 8);
    assert_int_equal(daemon_guest_overlay(&f->daemon, RAM + PAGE, PAGE, true), 0);
    expect_pages(f->vcpu[0], 11, 77);
    unsigned faults = daemon_guest_faults(&f->daemon);
    assert_int_equal(daemon_guest_zap(&f->daemon, RAM, 2 * PAGE), 0);
    expect_pages(f->vcpu[0], 11, 77);
    assert_int_equal(daemon_guest_faults(&f->daemon), faults + 2);
    assert_int_equal(daemon_guest_overlay(&f->daemon, RAM + PAGE, PAGE, false), 0);
    expect_pages(f->vcpu[0], 11, 12);

    assert_int_equal(daemon_guest_overlay(&f->daemon, RAM + 13 * PAGE, 2 * PAGE, true), -EINVAL);
    assert_int_equal(daemon_guest_overlay(&f->daemon, RAM - PAGE, PAGE, true), -EINVAL);
    assert_int_equal(daemon_guest_overlay(&f->daemon, RAM, 100, true), -EINVAL);
    assert_int_equal(daemon_guest_zap(&f->daemon, UINT64_C(1) << 50, PAGE), -EINVAL);

    assert_int_equal(daemon_guest_remove_slot(&f->daemon), 0);
    assert_int_equal(daemon_guest_remove_slot(&f->daemon), -ENOENT);
    /* Memory without a slot: the stand-in gives it zeros, through a fault. */
    faults = daemon_guest_faults(&f->daemon);
    expect_pages(f->vcpu[0], 0, 0);
    assert_true(daemon_guest_faults(&f->daemon) >= faults + 2);
    fakehyp_vcpu_state(f->vcpu[0])->hypercall.ret = 1;
    expect_shutdown(f->vcpu[0], 0);
}

/* ---- hypercalls and vCPUs ---------------------------------------------------------------------------------------- */

static int call_out(struct fakehyp_guest *guest, void *arg)
{
    if (fakehyp_guest_hypercall(guest, CALL_TEST, 1, 2, 3) != 42)
        return 1;
    if (fakehyp_guest_meminfo(guest) != 4096)
        return 2;
    if (fakehyp_guest_mem_share(guest, RAM) != 0)
        return 3;
    return fakehyp_guest_mem_unshare(guest, RAM) == -3 ? 0 : 4;
}

static void test_hypercalls(void **state)
{
    struct fixture *f = *state;

    start(f, call_out, NULL);
    struct fakehyp_run *r = run(f->vcpu[0]);
    assert_int_equal(r->hypercall.nr, CALL_TEST);
    assert_int_equal(r->hypercall.args[0], 1);
    assert_int_equal(r->hypercall.args[1], 2);
    assert_int_equal(r->hypercall.args[2], 3);
    r->hypercall.ret = 42;
    assert_int_equal(run(f->vcpu[0])->hypercall.nr, 0xC6000002);
    r->hypercall.ret = 4096;
    assert_int_equal(run(f->vcpu[0])->hypercall.nr, 0xC6000003);
    assert_int_equal(r->hypercall.args[0], RAM);
    r->hypercall.ret = 0;
    assert_int_equal(run(f->vcpu[0])->hypercall.nr, 0xC6000004);
    r->hypercall.ret = (uint64_t)-3;
    expect_shutdown(f->vcpu[0], 0);
}

static int two_vcpus(struct fakehyp_guest *guest, void *arg)
{
    uint32_t index = fakehyp_guest_vcpu(guest);

    if (index == 1) {
        fakehyp_guest_store(guest, RAM, 4, 1);
        return 0;
    }
    /* Both threads have one memory. */
    fakehyp_guest_hypercall(guest, CALL_TEST, 0, 0, 0);
    return (int)fakehyp_guest_load(guest, RAM, 4);
}

static void test_two_vcpus(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fakehyp_vcpu_create(f->vm, 1, &f->vcpu[1]), 0);
    start(f, two_vcpus, NULL);
    assert_int_equal(run(f->vcpu[0])->exit_reason, FAKEHYP_EXIT_HYPERCALL);
    expect_shutdown(f->vcpu[1], 0);
    expect_shutdown(f->vcpu[0], 1);
}

/* ---- running and converting ------------------------------------------------------------------------------------ */

/* Plays a list of exits without a guest, and counts the conversions between them. */
struct script {
    struct {
        int error;
        Fakehyp__VcpuExit exit;
    } step[8];
    unsigned nr, at, conversions;
    uint64_t last_attributes, last_offset;
};

static bool play_script(struct daemon_client *client, const Fakehyp__Request *request)
{
    struct script *script = client->daemon->hook_arg;

    if (request->body_case == FAKEHYP__REQUEST__BODY_CONVERT) {
        script->conversions++;
        script->last_attributes = request->convert->attributes;
        script->last_offset = request->convert->offset;
        return false;
    }
    if (request->body_case != FAKEHYP__REQUEST__BODY_VCPU_RUN)
        return false;
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    unsigned at = script->at < script->nr ? script->at : script->nr - 1;
    script->at++;
    reply.id = request->id;
    reply.error = script->step[at].error;
    reply.body_case = FAKEHYP__REPLY__BODY_VCPU_EXIT;
    reply.vcpu_exit = &script->step[at].exit;
    daemon_reply_body(client, &reply, NULL, 0);
    return true;
}

static void add_step(struct script *script, int error, uint32_t reason, uint64_t gpa_or_nr, uint64_t flags_or_arg)
{
    Fakehyp__VcpuExit exit = FAKEHYP__VCPU_EXIT__INIT;

    exit.exit_reason = reason;
    exit.gpa = gpa_or_nr;
    exit.nr = gpa_or_nr;
    exit.flags = flags_or_arg;
    exit.args0 = flags_or_arg;
    exit.size = PAGE;
    script->step[script->nr].error = error;
    script->step[script->nr++].exit = exit;
}

static void test_run_converting(void **state)
{
    struct fixture *f = *state;
    struct script script = {.nr = 0};

    add_step(&script, 0, FAKEHYP_EXIT_HYPERCALL, 0xC6000003, RAM + 3 * PAGE);
    add_step(&script, 0, FAKEHYP_EXIT_HYPERCALL, 0xC6000004, RAM + 2 * PAGE);
    add_step(&script, -EFAULT, FAKEHYP_EXIT_MEMORY_FAULT, RAM + 5 * PAGE, 0);
    add_step(&script, -EFAULT, FAKEHYP_EXIT_MEMORY_FAULT, RAM + 4 * PAGE, FAKEHYP_MEMORY_EXIT_FLAG_PRIVATE);
    add_step(&script, 0, FAKEHYP_EXIT_MMIO, 0x1000, 0);
    daemon_set_hook(&f->daemon, play_script, &script);
    assert_int_equal(fakehyp_vcpu_run_converting(f->vcpu[0], f->gmem, RAM, 1000), 0);
    assert_int_equal(fakehyp_vcpu_state(f->vcpu[0])->exit_reason, FAKEHYP_EXIT_MMIO);
    assert_int_equal(fakehyp_vcpu_state(f->vcpu[0])->mmio.phys_addr, 0x1000);
    assert_int_equal(script.conversions, 4);
    assert_int_equal(script.last_attributes, FAKEHYP_PRIVATE);
    assert_int_equal(script.last_offset, 4 * PAGE);
}

static void test_run_converting_leaves_the_rest(void **state)
{
    struct fixture *f = *state;
    struct script script = {.nr = 0};

    /* A range that is not the file's, a poisoned page, another hypercall: the caller's. */
    add_step(&script, -EFAULT, FAKEHYP_EXIT_MEMORY_FAULT, RAM - PAGE, 0);
    add_step(&script, -EFAULT, FAKEHYP_EXIT_MEMORY_FAULT, RAM + PAGES * PAGE, 0);
    add_step(&script, -EHWPOISON, FAKEHYP_EXIT_MEMORY_FAULT, RAM, 0);
    add_step(&script, 0, FAKEHYP_EXIT_HYPERCALL, CALL_TEST, RAM);
    daemon_set_hook(&f->daemon, play_script, &script);
    assert_int_equal(fakehyp_vcpu_run_converting(f->vcpu[0], f->gmem, RAM, -1), -EFAULT);
    assert_int_equal(fakehyp_vcpu_state(f->vcpu[0])->memory_fault.gpa, RAM - PAGE);
    assert_int_equal(fakehyp_vcpu_run_converting(f->vcpu[0], f->gmem, RAM, -1), -EFAULT);
    assert_int_equal(fakehyp_vcpu_run_converting(f->vcpu[0], f->gmem, RAM, -1), -EHWPOISON);
    assert_int_equal(fakehyp_vcpu_state(f->vcpu[0])->exit_reason, FAKEHYP_EXIT_MEMORY_FAULT);
    assert_int_equal(fakehyp_vcpu_run_converting(f->vcpu[0], f->gmem, RAM, -1), 0);
    assert_int_equal(fakehyp_vcpu_state(f->vcpu[0])->hypercall.nr, CALL_TEST);
    assert_int_equal(script.conversions, 0);
}

static void test_run_converting_gives_up(void **state)
{
    struct fixture *f = *state;
    struct script script = {.nr = 0};

    add_step(&script, -EFAULT, FAKEHYP_EXIT_MEMORY_FAULT, RAM + PAGE, 0);
    daemon_set_hook(&f->daemon, play_script, &script);
    assert_int_equal(fakehyp_vcpu_run_converting(f->vcpu[0], f->gmem, RAM, -1), -EFAULT);
    assert_int_equal(script.conversions, 100);
    assert_non_null(strstr(fakehyp_last_error(), "came back"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_result, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends_before_it_is_attached, setup_impatient, teardown),
        cmocka_unit_test_setup_teardown(test_disconnect_ends_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_access_beyond_ipa_space, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ipa_space_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_agent_survives_closed_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overlay_and_zap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hypercalls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_vcpus, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run_converting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run_converting_leaves_the_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run_converting_gives_up, setup, teardown),
    };

    return cmocka_run_group_tests_name("client guest", tests, NULL, NULL);
}
