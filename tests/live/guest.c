/* SPDX-License-Identifier: BSD-2-Clause */
/* One guest, one vCPU: its memory, its hypercalls, its exits. */
#include "tests/common/live_puppet.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/kernel/kernel.h"

#define P(v) (&(v).puppet[0])

static const char image[] = "the image that the VMM loaded";

static void reads_the_image(void **state)
{
    struct pvm v;
    char buf[sizeof(image)];

    pvm_create(&v, *state, &(struct pvm_config){.image = image});
    assert_refused(v.view);
    puppet_read(P(v), 0, buf, sizeof(buf));
    assert_string_equal(buf, image);
    /* A private page that nobody has written yet is zero; across pages, too. */
    must(puppet_do(P(v), PUPPET_CHECK, 4 * PAGE, 3 * PAGE, 0));
    assert_int_equal(P(v)->command->result, 0);
    puppet_write(P(v), 5 * PAGE - 4, "straddle", 8);
    must(puppet_do(P(v), PUPPET_READ, 5 * PAGE - 4, 8, 0));
    assert_memory_equal(P(v)->command->data, "straddle", 8);
    assert_refused(v.view + 5 * PAGE);
    assert_int_equal(v.memory_faults, 0);
    rig_audit(v.fh);
    pvm_destroy(&v);
}

static void shares_and_unshares(void **state)
{
    struct pvm v;

    for (unsigned mode = 0; mode < 2; mode++) {
        pvm_create(&v, *state, &(struct pvm_config){.mode = (enum fakehyp_unshare_mode)mode});
        for (unsigned round = 0; round < 5; round++) {
            puppet_write(P(v), 2 * PAGE, "from the guest", 15);
            assert_int_equal(puppet_share(P(v), 2 * PAGE), 0);
            assert_int_equal(v.last_convert, 0);
            assert_string_equal((char *)v.view + 2 * PAGE, "from the guest");
            strcpy((char *)v.view + 2 * PAGE, "from the VMM");
            must(puppet_do(P(v), PUPPET_READ, 2 * PAGE, 13, 0));
            assert_string_equal((char *)P(v)->command->data, "from the VMM");
            assert_refused(v.view + 3 * PAGE);
            assert_int_equal(puppet_unshare(P(v), 2 * PAGE), 0);
            assert_refused(v.view + 2 * PAGE);
            must(puppet_do(P(v), PUPPET_READ, 2 * PAGE, 13, 0));
            assert_string_equal((char *)P(v)->command->data, "from the VMM");
            rig_audit(v.fh);
        }
        pvm_destroy(&v);
    }
}

static void shares_an_untouched_page(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    /* EL2 has no leaf for it yet: the call aborts, the host gives a page, the call is repeated. */
    assert_int_equal(puppet_share(P(v), 9 * PAGE), 0);
    assert_reads(v.view + 9 * PAGE, 0);
    v.view[9 * PAGE] = 77;
    assert_int_equal(puppet_byte(P(v), 9 * PAGE), 77);
    assert_int_equal(puppet_unshare(P(v), 9 * PAGE), 0);
    assert_int_equal(puppet_byte(P(v), 9 * PAGE), 77);
    pvm_destroy(&v);
}

static void bad_calls(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    assert_int_equal(puppet_call(P(v), HVC_MEMINFO, 0, 0), PAGE);
    puppet_write(P(v), 0, "x", 1);
    assert_int_equal(puppet_share(P(v), 1), -3);
    assert_int_equal(puppet_unshare(P(v), 0), -3);
    assert_int_equal(puppet_call(P(v), HVC_MEM_SHARE, 0, 1), -3);
    assert_int_equal(puppet_share(P(v), 0), 0);
    assert_int_equal(puppet_share(P(v), 0), -3);
    pvm_destroy(&v);
}

static void vendor_call(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    puppet_give(P(v), PUPPET_CALL, HVC_PUPPET_OTHER, 0x1234, UINT64_MAX);
    assert_int_equal(puppet_go(P(v)), PUPPET_NEEDS);
    assert_int_equal(P(v)->run->exit_reason, FAKEHYP_EXIT_HYPERCALL);
    assert_int_equal(P(v)->run->hypercall.nr, HVC_PUPPET_OTHER);
    assert_int_equal(P(v)->run->hypercall.args[0], 0x1234);
    assert_true(P(v)->run->hypercall.args[1] == UINT64_MAX);
    P(v)->run->hypercall.ret = UINT64_C(0x123456789abcdef0);
    must(puppet_go(P(v)));
    assert_true(P(v)->command->result == INT64_C(0x123456789abcdef0));
    /* Left alone it is what an unknown call is: NOT_SUPPORTED. */
    puppet_give(P(v), PUPPET_CALL, HVC_PUPPET_OTHER, 0, 0);
    assert_int_equal(puppet_go(P(v)), PUPPET_NEEDS);
    must(puppet_go(P(v)));
    assert_int_equal(P(v)->command->result, -1);
    pvm_destroy(&v);
}

static void pinned(void **state)
{
    static const enum fakehyp_pin_kind kinds[] = {FAKEHYP_FOLL_GET, FAKEHYP_FOLL_PIN, FAKEHYP_FOLL_LONGTERM};
    static const char *const names[] = {"FOLL_GET", "FOLL_PIN", "FOLL_PIN|FOLL_LONGTERM"};
    struct fakehyp_holder holder[4];
    struct fakehyp_pin *pin;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    assert_int_equal(fakehyp_pin(v.gmem, 2 * PAGE, PAGE, FAKEHYP_FOLL_PIN, "x", &pin), -EFAULT);
    assert_int_equal(fakehyp_pin(v.gmem, 16 * PAGE, PAGE, FAKEHYP_FOLL_PIN, "x", &pin), -EFAULT);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(puppet_share(P(v), 2 * PAGE), 0);
        must(fakehyp_pin(v.gmem, 2 * PAGE, PAGE, kinds[i], "virtio-blk", &pin));
        assert_int_equal(puppet_unshare(P(v), 2 * PAGE), -3);
        assert_int_equal(v.last_convert, -EAGAIN);
        assert_int_equal(v.last_error_offset, 2 * PAGE);
        assert_int_equal(fakehyp_last_holders(holder, 4), 1);
        assert_string_equal(holder[0].what, "virtio-blk");
        assert_string_equal(holder[0].kind, names[i]);
        assert_int_equal(holder[0].offset, 2 * PAGE);
        assert_int_equal(holder[0].pid, getpid());
        assert_non_null(strstr(fakehyp_last_error(), "virtio-blk"));
        /* Nothing changed: both sides go on sharing. */
        puppet_write(P(v), 2 * PAGE, &(char){(char)(40 + i)}, 1);
        assert_reads(v.view + 2 * PAGE, (uint8_t)(40 + i));
        must(fakehyp_unpin(pin));
        assert_int_equal(puppet_unshare(P(v), 2 * PAGE), 0);
        assert_refused(v.view + 2 * PAGE);
    }
    pvm_destroy(&v);
}

static void unilateral_with_a_reference(void **state)
{
    char buf[32] = "";
    struct fakehyp_pin *pin;
    struct pvm v;
    int fds[2];

    pvm_create(&v, *state, &(struct pvm_config){.mode = FAKEHYP_UNSHARE_UNILATERAL});
    puppet_write(P(v), PAGE, "bytes of before", 16);
    assert_int_equal(puppet_share(P(v), PAGE), 0);
    must(fakehyp_pin(v.gmem, PAGE, PAGE, FAKEHYP_FOLL_GET, "vmsplice", &pin));
    /* A real reference to the real page. */
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct iovec iov = {v.view + PAGE, 16};
    assert_int_equal(vmsplice(fds[1], &iov, 1, 0), 16);
    assert_int_equal(puppet_unshare(P(v), PAGE), 0);
    assert_int_equal(v.last_convert, -EAGAIN);
    assert_refused(v.view + PAGE);
    puppet_write(P(v), PAGE, "the secret after", 16);
    assert_int_equal(read(fds[0], buf, sizeof(buf)), 16);
    assert_string_equal(buf, "bytes of before");
    assert_refused(v.view + PAGE);
    rig_audit(v.fh);
    must(fakehyp_unpin(pin));
    must(pvm_convert(&v, 1, 1, FAKEHYP_PRIVATE));
    puppet_read(P(v), PAGE, buf, 16);
    assert_memory_equal(buf, "the secret after", 16);
    close(fds[0]);
    close(fds[1]);
    pvm_destroy(&v);
}

/* The same reference in consent mode, unknown to the model: the bytes of before are all that it shows. */
static void reference_unknown_to_the_model(void **state)
{
    char buf[32] = "";
    struct pvm v;
    int fds[2];

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    puppet_write(P(v), PAGE, "bytes of before", 16);
    assert_int_equal(puppet_share(P(v), PAGE), 0);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct iovec iov = {v.view + PAGE, 16};
    assert_int_equal(vmsplice(fds[1], &iov, 1, 0), 16);
    if (puppet_unshare(P(v), PAGE) == 0)
        puppet_write(P(v), PAGE, "the secret after", 16);
    assert_int_equal(read(fds[0], buf, sizeof(buf)), 16);
    assert_string_equal(buf, "bytes of before");
    close(fds[0]);
    close(fds[1]);
    pvm_destroy(&v);
}

static void touches_shared_memory(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.shared = true});
    strcpy((char *)v.view + 6 * PAGE, "image");
    v.ignore = true;
    puppet_give(P(v), PUPPET_READ, 6 * PAGE, 6, 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(puppet_go(P(v)), -EFAULT);
        assert_int_equal(P(v)->run->exit_reason, FAKEHYP_EXIT_MEMORY_FAULT);
        assert_int_equal(P(v)->run->memory_fault.gpa, 6 * PAGE);
        assert_int_equal(P(v)->run->memory_fault.size, PAGE);
        assert_int_equal(P(v)->run->memory_fault.flags, FAKEHYP_MEMORY_EXIT_FLAG_PRIVATE);
    }
    assert_reads(v.view + 6 * PAGE, 'i');
    must(pvm_convert(&v, 6, 1, FAKEHYP_PRIVATE));
    must(puppet_go(P(v)));
    assert_string_equal((char *)P(v)->command->data, "image");
    pvm_destroy(&v);
}

static void lying_vmm(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    puppet_write(P(v), 3 * PAGE, "secret", 7);
    /* The attribute changes; EL2 has not been asked, and the guest has not shared. */
    must(pvm_convert(&v, 3, 1, FAKEHYP_SHARED));
    assert_refused(v.view + 3 * PAGE);
    rig_audit(v.fh);
    must(pvm_convert(&v, 3, 1, FAKEHYP_PRIVATE));
    must(puppet_do(P(v), PUPPET_READ, 3 * PAGE, 7, 0));
    assert_string_equal((char *)P(v)->command->data, "secret");
    pvm_destroy(&v);
}

static void ends(void **state)
{
    static const int codes[] = {0, 42, -7};
    struct fakehyp_event event;
    struct pvm v;

    for (unsigned i = 0; i < 3; i++) {
        pvm_create(&v, *state, &(struct pvm_config){.pages = 4});
        puppet_exit(P(v), codes[i]);
        /* It stays ended. */
        must(fakehyp_vcpu_run(P(v)->vcpu, 1000));
        assert_int_equal(P(v)->run->system_event.type, FAKEHYP_SYSTEM_EVENT_SHUTDOWN);
        pvm_destroy(&v);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_true(rig_event(*state, "guest-exited", &event));
}

static void crashes(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 4});
    puppet_give(P(v), PUPPET_CRASH, 0, 0, 0);
    assert_int_equal(puppet_go(P(v)), PUPPET_ENDED);
    assert_int_equal(P(v)->run->system_event.type, FAKEHYP_SYSTEM_EVENT_CRASH);
    assert_true(WIFSIGNALED((int)P(v)->run->system_event.data));
    /* Its memory stays private until the VM goes. */
    assert_refused(v.view);
    pvm_destroy(&v);

    pvm_create(&v, *state, &(struct pvm_config){.pages = 4});
    puppet_give(P(v), PUPPET_READ, 0, 1, 0);
    kill(fakehyp_guest_pid(v.vm), SIGKILL);
    int rc = puppet_go(P(v));
    if (rc == PUPPET_DONE)
        rc = puppet_do(P(v), PUPPET_READ, 0, 1, 0);
    assert_int_equal(rc, PUPPET_ENDED);
    assert_int_equal(P(v)->run->system_event.type, FAKEHYP_SYSTEM_EVENT_CRASH);
    assert_int_equal(WTERMSIG((int)P(v)->run->system_event.data), SIGKILL);
    pvm_destroy(&v);
}

/* It says that it is dead, in the words that the daemon has for it, and with bits that are none of the function's. */
static void feigns_death(void **state)
{
    static const uint64_t system_off[] = {0x84000008, UINT64_C(0x184000008)};
    struct pvm v;

    for (unsigned i = 0; i < 2; i++) {
        pvm_create(&v, *state, &(struct pvm_config){.pages = 4});
        puppet_give(P(v), PUPPET_CALL, system_off[i], SIGKILL, 0x64656164);
        assert_int_equal(puppet_go(P(v)), PUPPET_ENDED);
        assert_int_equal(P(v)->run->system_event.type, FAKEHYP_SYSTEM_EVENT_SHUTDOWN);
        assert_int_equal(P(v)->run->system_event.data, SIGKILL);
        pvm_destroy(&v);
    }
}

static void outside_of_slots(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 4});
    puppet_give(P(v), PUPPET_WRITE, UINT64_C(0x40000123), 1, 0);
    assert_int_equal(puppet_go(P(v)), PUPPET_NEEDS);
    assert_int_equal(P(v)->run->exit_reason, FAKEHYP_EXIT_MMIO);
    assert_int_equal(P(v)->run->mmio.phys_addr,
                     kernel_hides(KERNEL_UFFD_EXACT_ADDRESS) ? UINT64_C(0x40000000) : UINT64_C(0x40000123));
    assert_true(P(v)->run->mmio.is_write);
    /* A memslot that comes there makes it memory. */
    struct fakehyp_gmem *more;
    must(fakehyp_gmem_create(v.vm, 4 * PAGE, FAKEHYP_GMEM_MMAP, &more));
    must(fakehyp_set_memory_region(v.vm, 1, UINT64_C(0x40000000), 4 * PAGE, more, 0));
    must(puppet_go(P(v)));
    puppet_write(P(v), UINT64_C(0x40000000), "mine", 5);
    must(puppet_do(P(v), PUPPET_READ, UINT64_C(0x40000000), 5, 0));
    assert_string_equal((char *)P(v)->command->data, "mine");
    rig_audit(v.fh);
    fakehyp_gmem_close(more);
    pvm_destroy(&v);
}

static void memslot_errors(void **state)
{
    struct fakehyp_vm *other;
    struct fakehyp_gmem *more;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    must(fakehyp_vm_create(v.fh, NULL, &other));
    must(fakehyp_gmem_create(v.vm, 16 * PAGE, FAKEHYP_GMEM_MMAP, &more));
    assert_int_equal(fakehyp_set_memory_region(v.vm, 1, 0x100001, PAGE, more, 0), -EINVAL);
    assert_int_equal(fakehyp_set_memory_region(v.vm, 1, 0x100000, 17 * PAGE, more, 0), -EINVAL);
    assert_int_equal(fakehyp_set_memory_region(v.vm, 1, 15 * PAGE, PAGE, more, 0), -EEXIST);
    assert_int_equal(fakehyp_set_memory_region(other, 1, 0x100000, PAGE, more, 0), -EINVAL);
    must(fakehyp_set_memory_region(v.vm, 1, 0x100000, 8 * PAGE, more, 8 * PAGE));
    assert_int_equal(fakehyp_set_memory_region(v.vm, 2, 0x200000, 2 * PAGE, more, 7 * PAGE), -EEXIST);
    assert_int_equal(puppet_byte(P(v), 0x100000), 0);
    /* What a protected guest has seen is not taken from under it. */
    assert_int_equal(fakehyp_set_memory_region(v.vm, 1, 0, 0, NULL, 0), -EPERM);
    assert_int_equal(puppet_byte(P(v), 0x100000), 0);
    fakehyp_gmem_close(more);
    must(fakehyp_vm_destroy(other));
    pvm_destroy(&v);
}

/* An unprotected VM's memory is shared with it: a slot can be taken from under it, and put elsewhere. */
static void slot_of_an_unprotected_vm_goes(void **state)
{
    struct fakehyp_gmem *more;
    uint8_t *view;
    void *map;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16, .unprotected = true, .shared = true});
    must(fakehyp_gmem_create(v.vm, 4 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &more));
    must(fakehyp_map(more, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, 0, &map));
    view = map;
    must(fakehyp_set_memory_region(v.vm, 1, 0x100000, 4 * PAGE, more, 0));
    puppet_write(P(v), 0x101000, "both", 5);
    assert_string_equal((char *)view + PAGE, "both");
    must(fakehyp_set_memory_region(v.vm, 1, 0, 0, NULL, 0));
    rig_audit(v.fh);
    assert_string_equal((char *)view + PAGE, "both");
    /* Where it was the guest finds a device. */
    puppet_give(P(v), PUPPET_READ, 0x101000, 5, 0);
    assert_int_equal(puppet_go(P(v)), PUPPET_NEEDS);
    assert_int_equal(P(v)->run->exit_reason, FAKEHYP_EXIT_MMIO);
    must(fakehyp_set_memory_region(v.vm, 2, 0x100000, 4 * PAGE, more, 0));
    assert_int_equal(puppet_go(P(v)), PUPPET_DONE);
    assert_string_equal((char *)P(v)->command->data, "both");
    must(fakehyp_unmap(v.fh, map, 4 * PAGE));
    fakehyp_gmem_close(more);
    rig_audit(v.fh);
    pvm_destroy(&v);
}

static void punched(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    puppet_write(P(v), 5 * PAGE, "secret", 7);
    must(fakehyp_punch(v.gmem, 5 * PAGE, PAGE));
    assert_refused(v.view + 5 * PAGE);
    rig_audit(v.fh);
    puppet_give(P(v), PUPPET_READ, 5 * PAGE, 7, 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(puppet_go(P(v)), -EFAULT);
        assert_int_equal(P(v)->run->exit_reason, 0);
    }
    pvm_destroy(&v);
}

static void punched_elsewhere(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    puppet_write(P(v), 5 * PAGE, "kept", 5);
    /* Never donated: a hole like any other. */
    must(fakehyp_punch(v.gmem, 7 * PAGE, 2 * PAGE));
    must(puppet_do(P(v), PUPPET_READ, 5 * PAGE, 5, 0));
    assert_string_equal((char *)P(v)->command->data, "kept");
    assert_int_equal(puppet_byte(P(v), 7 * PAGE), 0);
    /* What the guest has shared stays the guest's. */
    assert_int_equal(puppet_share(P(v), 5 * PAGE), 0);
    fakehyp_punch(v.gmem, 5 * PAGE, PAGE);
    rig_audit(v.fh);
    pvm_destroy(&v);
}

/* An errant load of the kernel through its direct map: it faults, EL2 injects the abort, the page is reclaimed. */
static void kernel_load_reclaims(void **state)
{
    struct pvm v;
    char *json;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    puppet_write(P(v), 5 * PAGE, "secret", 7);
    must(fakehyp_query(v.fh, "kernel-load", v.gmem, 5 * PAGE, &json));
    assert_non_null(strstr(json, "\"reclaimed\":true"));
    assert_non_null(strstr(json, "\"bytes\":\"00000000000000000000000000000000\""));
    free(json);
    /* The page is the host's now: stage 2 has nothing against a second load. */
    must(fakehyp_query(v.fh, "kernel-load", v.gmem, 5 * PAGE, &json));
    assert_non_null(strstr(json, "\"reclaimed\":false"));
    free(json);
    assert_refused(v.view + 5 * PAGE);
    rig_audit(v.fh);
    /* The guest's IPA is dead. */
    puppet_give(P(v), PUPPET_READ, 5 * PAGE, 7, 0);
    assert_int_equal(puppet_go(P(v)), -EFAULT);
    assert_int_equal(P(v)->run->exit_reason, 0);
    pvm_destroy(&v);
}

static void kernel_load_of_shared(void **state)
{
    struct pvm v;
    char *json;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    puppet_write(P(v), 6 * PAGE, "AB", 2);
    assert_int_equal(puppet_share(P(v), 6 * PAGE), 0);
    must(fakehyp_query(v.fh, "kernel-load", v.gmem, 6 * PAGE, &json));
    assert_non_null(strstr(json, "\"reclaimed\":false"));
    assert_non_null(strstr(json, "\"bytes\":\"4142"));
    free(json);
    assert_int_equal(puppet_byte(P(v), 6 * PAGE), 'A');
    pvm_destroy(&v);
}

static void has_no_descriptor(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 4});
    must(puppet_do(P(v), PUPPET_FDS, 0, 0, 0));
    /* The socket of its vCPU. */
    assert_int_equal(P(v)->command->result, 1);
    pvm_destroy(&v);
}

static void lifecycle_errors(void **state)
{
    struct fakehyp_vcpu *vcpu;
    struct fakehyp_vm *vm;
    struct pvm v;

    must(fakehyp_vm_create(*state, NULL, &vm));
    assert_int_equal(fakehyp_guest_start(vm, NULL, NULL), -ENOENT);
    must(fakehyp_vcpu_create(vm, 0, &vcpu));
    assert_int_equal(fakehyp_vcpu_run(vcpu, 100), -ENOENT);
    struct fakehyp_vcpu *again;
    assert_int_equal(fakehyp_vcpu_create(vm, 0, &again), -EEXIST);
    assert_int_equal(fakehyp_vcpu_create(vm, 100000, &again), -EINVAL);
    must(fakehyp_vm_destroy(vm));
    pvm_create(&v, *state, &(struct pvm_config){.pages = 4});
    puppet_byte(P(v), 0);
    assert_int_equal(fakehyp_vcpu_create(v.vm, 1, &vcpu), -EBUSY);
    assert_int_equal(fakehyp_guest_start(v.vm, NULL, NULL), -EBUSY);
    pvm_destroy(&v);
}

static const struct CMUnitTest tests[] = {
    live_test(reads_the_image),
    live_test(shares_and_unshares),
    live_test(shares_an_untouched_page),
    live_test(bad_calls),
    live_test(vendor_call),
    live_test(pinned),
    live_test(unilateral_with_a_reference),
    live_test(reference_unknown_to_the_model),
    live_test(touches_shared_memory),
    live_test(lying_vmm),
    live_test(ends),
    live_test(crashes),
    live_test(feigns_death),
    live_test(outside_of_slots),
    live_test(memslot_errors),
    live_test(slot_of_an_unprotected_vm_goes),
    live_test(punched),
    live_test(punched_elsewhere),
    live_test(kernel_load_reclaims),
    live_test(kernel_load_of_shared),
    live_test(has_no_descriptor),
    live_test(lifecycle_errors),
};

RIG_MAIN(tests)
