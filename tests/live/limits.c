/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VMM at its limit of descriptors, and one that closes what is the library's: a call
 * fails, says what to do, and no wait is without an end.
 */
#include "tests/common/live_file.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Leaves room for n more descriptors; -1: as before. */
static void leave_room(int n)
{
    static struct rlimit before;
    static bool known;
    struct rlimit limit;

    if (!known)
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    known = true;
    limit = before;
    if (n >= 0) {
        int first_free = dup(STDIN_FILENO);
        assert_true(first_free >= 0);
        close(first_free);
        limit.rlim_cur = (rlim_t)(first_free + n);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void connect_without_descriptors(void **state)
{
    unsigned refused = 0;
    int rc;

    do {
        struct fakehyp *fh;
        leave_room((int)refused);
        rc = fakehyp_connect(rig.socket, &fh);
        leave_room(-1);
        if (rc == 0) {
            fakehyp_disconnect(fh);
            continue;
        }
        if (rc != -EMFILE)
            rig_note("with room for %u: %s", refused, fakehyp_last_error());
        assert_int_equal(rc, -EMFILE);
        assert_non_null(strstr(fakehyp_last_error(), "ulimit -n"));
        refused++;
    } while (rc && refused < 20);
    assert_int_equal(rc, 0);
    assert_true(refused > 3);
}

static int answer(struct fakehyp_guest *guest, void *arg)
{
    return (int)fakehyp_guest_load(guest, 0, 1) + *(int *)arg;
}

static void objects_without_descriptors(void **state)
{
    struct fakehyp_gmem *gmem;
    struct fakehyp_vcpu *vcpu;
    struct fakehyp_vm *vm;
    int more = 2;
    void *view;

    must(fakehyp_vm_create(*state, NULL, &vm));
    int64_t gmems = rig_count("gmems");
    leave_room(0);
    assert_int_equal(fakehyp_gmem_create(vm, 16 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem), -EMFILE);
    assert_non_null(strstr(fakehyp_last_error(), "ulimit -n"));
    assert_null(gmem);
    leave_room(-1);
    /* The connection lives, and the daemon keeps nothing for the call that failed. */
    assert_int_equal(rig_count("gmems"), gmems);
    must(fakehyp_gmem_create(vm, 16 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem));

    for (int room = 0; room < 2; room++) {
        leave_room(room);
        assert_int_equal(fakehyp_map(gmem, NULL, 16 * PAGE, PROT_READ | PROT_WRITE, 0, &view), -EMFILE);
        leave_room(-1);
    }
    must(fakehyp_map(gmem, NULL, 16 * PAGE, PROT_READ | PROT_WRITE, 0, &view));
    *(volatile uint8_t *)view = 40;
    must(fakehyp_convert(gmem, 0, 16 * PAGE, FAKEHYP_PRIVATE, NULL));
    assert_refused(view);

    must(fakehyp_set_memory_region(vm, 0, 0, 16 * PAGE, gmem, 0));
    must(fakehyp_vcpu_create(vm, 0, &vcpu));
    for (int room = 0; room < 4; room++) {
        leave_room(room);
        assert_int_equal(fakehyp_guest_start(vm, answer, &more), -EMFILE);
        leave_room(-1);
        assert_int_equal(fakehyp_guest_pid(vm), 0);
    }
    /* None of them used the VM's one start up. */
    must(fakehyp_guest_start(vm, answer, &more));
    must(fakehyp_vcpu_run(vcpu, 5000));
    assert_int_equal(fakehyp_vcpu_state(vcpu)->exit_reason, FAKEHYP_EXIT_SYSTEM_EVENT);
    assert_int_equal(fakehyp_vcpu_state(vcpu)->system_event.data, 42);
    fakehyp_gmem_close(gmem);
    must(fakehyp_vm_destroy(vm));
}

static void closer(struct fakehyp *fh, int nr_reopened)
{
    struct fakehyp_gmem *gmem;
    struct fakehyp_vm *vm;
    void *view;

    if (fakehyp_vm_create(fh, NULL, &vm) || fakehyp_gmem_create(vm, PAGE, FAKEHYP_GMEM_MMAP, &gmem) ||
        fakehyp_map(gmem, NULL, PAGE, PROT_READ, 0, &view))
        _exit(2);
    close_range(3, ~0u, 0);
    for (int i = 0; i < nr_reopened; i++)
        if (dup(STDIN_FILENO) < 0)
            _exit(3);
    int rc = fakehyp_convert(gmem, 0, PAGE, FAKEHYP_SHARED, NULL);
    if (rc != -ECONNRESET) {
        dprintf(STDERR_FILENO, "%d: %s\n", rc, fakehyp_last_error());
        _exit(4);
    }
    if (fakehyp_unmap(fh, view, PAGE))
        _exit(5);
    fakehyp_disconnect(fh);
    _exit(0);
}

static void close_range_below_the_library(void **state)
{
    for (int nr_reopened = 0; nr_reopened <= 60; nr_reopened += 60) {
        pid_t pid = fork();
        if (pid == 0) {
            struct fakehyp *fh;
            rig_child();
            if (fakehyp_connect(rig.socket, &fh))
                _exit(1);
            closer(fh, nr_reopened);
        }
        rig_child_ok(pid);
    }
}

static int store(struct fakehyp_guest *guest, void *arg)
{
    fakehyp_guest_store(guest, 3 * PAGE, 1, *(uint8_t *)arg);
    return 0;
}

/* What the caller can do about it is to make the holder let go: the text says whom. */
static void refused_fault_names_the_holder(void **state)
{
    struct fakehyp_pin *pin;
    struct fakehyp_vcpu *vcpu;
    struct file f;
    uint8_t value = 7;

    file_open(&f, state, 16 * PAGE);
    must(fakehyp_set_memory_region(f.vm, 0, 0, 16 * PAGE, f.gmem, 0));
    must(fakehyp_vcpu_create(f.vm, 0, &vcpu));
    must(fakehyp_pin(f.gmem, 3 * PAGE, PAGE, FAKEHYP_FOLL_PIN, "disk7", &pin));
    must(fakehyp_guest_start(f.vm, store, &value));
    assert_int_equal(fakehyp_vcpu_run_converting(vcpu, f.gmem, 0, 5000), -EFAULT);
    assert_int_equal(fakehyp_vcpu_state(vcpu)->exit_reason, FAKEHYP_EXIT_MEMORY_FAULT);
    assert_non_null(strstr(fakehyp_last_error(), "disk7"));
    assert_non_null(strstr(fakehyp_last_error(), "refused"));
    must(fakehyp_unpin(pin));
    must(fakehyp_vcpu_run_converting(vcpu, f.gmem, 0, 5000));
    assert_int_equal(fakehyp_vcpu_state(vcpu)->exit_reason, FAKEHYP_EXIT_SYSTEM_EVENT);
    file_close(&f);
}

static const struct CMUnitTest tests[] = {
    live_test(connect_without_descriptors),
    live_test(objects_without_descriptors),
    live_test(close_range_below_the_library),
    live_test(refused_fault_names_the_holder),
};

RIG_MAIN(tests)
