/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypd against guest processes that do not do what they are asked for. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include <cmocka.h>

#include "tests/unit/daemon_rig.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define PAGE UINT64_C(4096)
#define SLOT_PAGES UINT64_C(16)
#define PRIVATE (UINT64_C(1) << 3)
#define EXIT_MMIO 6u
#define EXIT_SYSTEM_EVENT 24u

static struct rig rig;

/*
 * What a guest can do on a kernel whose userfaultfd does not know RWF_NOWAIT: between the moment in which the daemon is
 * told of an event and its read, it reads the event itself and clears O_NONBLOCK.
 */
static bool steals;

ssize_t __real_preadv2(int fd, const struct iovec *iov, int nr, off_t offset, int flags);
ssize_t __wrap_preadv2(int fd, const struct iovec *iov, int nr, off_t offset, int flags);
ssize_t __wrap_preadv2(int fd, const struct iovec *iov, int nr, off_t offset, int flags)
{
    if (!steals)
        return __real_preadv2(fd, iov, nr, offset, flags);
    __real_preadv2(fd, iov, nr, offset, flags);
    fcntl(fd, F_SETFL, 0);
    errno = EOPNOTSUPP;
    return -1;
}

static int set_up(void **state)
{
    return rig_set_up(&rig);
}

static int tear_down(void **state)
{
    return rig_tear_down(&rig);
}

/* ---- the guest ---------------------------------------------------------------------------------------------- */

struct plan {
    uint64_t ipa_pages; /* of the IPA space that it says it has */
    bool early;         /* touches page 3 before it attaches */
    bool blocking;      /* clears O_NONBLOCK, and touches page 3 then */
    int second;         /* what its agent answers to the second slot, after it has touched a page there */
    bool slow;          /* its agent takes its time over slots, and ends at the removal of one that it does not have */
};

static int fault_events(uint64_t base, uint64_t bytes)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register reg = {.range = {.start = base, .len = bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
        _exit(11);
    return fd;
}

static void *touch(void *addr)
{
    *(volatile char *)addr = 1;
    return NULL;
}

static void touch_in_thread(char *addr)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, touch, addr))
        _exit(12);
    usleep(100000);
}

static void vcpu_ready(int sock)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VcpuReady body = FAKEHYP__VCPU_READY__INIT;

    request.id = 1;
    request.body_case = FAKEHYP__REQUEST__BODY_VCPU_READY;
    request.vcpu_ready = &body;
    if (chan_send_request(sock, &request, NULL, 0, 0))
        _exit(13);
}

static void serve(int sock, const Fakehyp__Request *request, const struct plan *plan, char *memory)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;

    reply.id = request->id;
    if (request->body_case == FAKEHYP__REQUEST__BODY_GUEST_SLOT_ADD && request->guest_slot_add->slot == 1) {
        touch_in_thread(memory + request->guest_slot_add->gpa + PAGE);
        reply.error = plan->second;
    }
    if (chan_send_reply(sock, &reply, NULL, 0, 0))
        _exit(14);
}

static void count_slots(const Fakehyp__Request *request, unsigned *slots)
{
    if (request->body_case == FAKEHYP__REQUEST__BODY_GUEST_SLOT_ADD) {
        *slots |= 1u << request->guest_slot_add->slot;
        usleep(200000);
    } else if (request->body_case == FAKEHYP__REQUEST__BODY_GUEST_SLOT_REMOVE) {
        if (!(*slots & 1u << request->guest_slot_remove->slot))
            _exit(17);
        *slots &= ~(1u << request->guest_slot_remove->slot);
    }
}

static _Noreturn void guest(int sock, const struct plan *plan)
{
    static uint8_t buffer[CHAN_MAX_FRAME];
    struct chan_msg msg = {.data = buffer};
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestAttach body = FAKEHYP__GUEST_ATTACH__INIT;
    unsigned slots = 0;
    const uint64_t bytes = 4 * SLOT_PAGES * PAGE;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        _exit(10);
    int uffd = fault_events((uint64_t)(uintptr_t)memory, bytes);
    if (plan->early)
        touch_in_thread(memory + 3 * PAGE);
    body.ram_base = (uint64_t)(uintptr_t)memory;
    body.ipa_size = plan->ipa_pages * PAGE;
    request.id = 1;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_ATTACH;
    request.guest_attach = &body;
    if (chan_send_request(sock, &request, &uffd, 1, 0) || chan_recv(sock, &msg, 0) != 1 || !msg.nr_fds)
        _exit(15);
    vcpu_ready(chan_msg_take_fd(&msg, 0));
    bool blocks = plan->blocking;
    while (chan_recv(sock, &msg, 0) == 1) {
        Fakehyp__Request *asked = fakehyp__request__unpack(NULL, msg.len, msg.data);
        if (!asked)
            _exit(16);
        if (plan->slow)
            count_slots(asked, &slots);
        serve(sock, asked, plan, memory);
        /* Not earlier: the daemon makes it non-blocking when it begins to watch, which it does before it asks. */
        if (blocks && !fcntl(uffd, F_SETFL, 0))
            touch_in_thread(memory + 3 * PAGE);
        blocks = false;
        fakehyp__request__free_unpacked(asked, NULL);
        chan_msg_close_fds(&msg);
    }
    _exit(0);
}

/* ---- its VMM ------------------------------------------------------------------------------------------------ */

struct vmm {
    int sock;
    uint64_t vm, gmem;
    pid_t guest;
};

static void send_region(const struct vmm *vmm, uint64_t id, uint32_t slot, uint64_t pages)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__MemoryRegion body = FAKEHYP__MEMORY_REGION__INIT;

    body.vm = vmm->vm;
    body.slot = slot;
    body.gpa = body.gmem_offset = slot * SLOT_PAGES * PAGE;
    body.size = pages * PAGE;
    body.gmem = vmm->gmem;
    request.id = id;
    request.body_case = FAKEHYP__REQUEST__BODY_MEMORY_REGION;
    request.memory_region = &body;
    assert_int_equal(raw_send(vmm->sock, &request, NULL, 0), 0);
}

static void send_run(const struct vmm *vmm, uint64_t id, int64_t timeout_ns)
{
    raw_send_run(vmm->sock, id, vmm->vm, 0, timeout_ns);
}

static Fakehyp__Reply *expect_reply(const struct vmm *vmm, uint64_t id, int error)
{
    Fakehyp__Reply *reply = raw_receive(vmm->sock, NULL);

    assert_non_null(reply);
    assert_int_equal(reply->id, id);
    assert_int_equal(reply->error, error);
    return reply;
}

/* The guest was killed: a run that began before its vCPU was there hears of no guest, a later one of its end. */
static void expect_killed(const struct vmm *vmm, uint64_t id)
{
    Fakehyp__Reply *reply = raw_receive(vmm->sock, NULL);

    assert_non_null(reply);
    assert_int_equal(reply->id, id);
    if (reply->error != -ENOENT) {
        assert_int_equal(reply->error, 0);
        assert_int_equal(reply->vcpu_exit->exit_reason, EXIT_SYSTEM_EVENT);
    }
    raw_free(reply);
}

static void make_private(const struct vmm *vmm)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Convert body = FAKEHYP__CONVERT__INIT;

    body.gmem = vmm->gmem;
    body.size = 2 * SLOT_PAGES * PAGE;
    body.attributes = PRIVATE;
    request.body_case = FAKEHYP__REQUEST__BODY_CONVERT;
    request.convert = &body;
    assert_int_equal(raw_call(vmm->sock, &request, NULL, NULL), 0);
}

/* A VM whose memory is private, with slot 0 and one vCPU. */
static void make_vm(struct vmm *vmm)
{
    int fd;

    vmm->sock = raw_client(&rig, NULL);
    assert_int_equal(raw_vm_create(vmm->sock, &vmm->vm), 0);
    assert_int_equal(raw_gmem_create(vmm->sock, vmm->vm, 2 * SLOT_PAGES * PAGE, &vmm->gmem, &fd), 0);
    close(fd);
    make_private(vmm);
    send_region(vmm, 1, 0, SLOT_PAGES);
    raw_free(expect_reply(vmm, 1, 0));
    assert_int_equal(raw_vcpu_create(vmm->sock, vmm->vm, 0), 0);
}

static void start_guest(struct vmm *vmm, const struct plan *plan)
{
    int sock;

    assert_int_equal(raw_guest_prepare(vmm->sock, vmm->vm, &sock), 0);
    fflush(NULL);
    vmm->guest = fork();
    if (vmm->guest == 0)
        guest(sock, plan);
    assert_true(vmm->guest > 0);
    close(sock);
}

static void begin(struct vmm *vmm, const struct plan *plan)
{
    make_vm(vmm);
    start_guest(vmm, plan);
}

static void end(struct vmm *vmm)
{
    close(vmm->sock);
    kill(vmm->guest, SIGKILL);
    assert_int_equal(waitpid(vmm->guest, NULL, 0), vmm->guest);
}

/* ---- tests -------------------------------------------------------------------------------------------------- */

/*
 * A guest that cannot map its memory slot is killed.  Until it is dead it may
 * touch that memory, which EL1 and EL2 give it: nobody may wait for it for ever.
 */
static void test_guest_without_its_memory(void **state)
{
    const struct plan plan = {.ipa_pages = SLOT_PAGES / 2, .early = true};
    int watcher = raw_client(&rig, NULL);
    char *before = raw_counts(watcher);
    struct vmm vmm;

    for (unsigned i = 0; i < 5; i++) {
        begin(&vmm, &plan);
        send_run(&vmm, 2, -1);
        expect_killed(&vmm, 2);
        end(&vmm);
    }
    raw_assert_counts(watcher, before);
    free(before);
    close(watcher);
}

/* A vCPU takes an abort in a slot that the guest's agent then refuses: the slot is gone when the abort is handled. */
static void test_slot_refused_after_touch(void **state)
{
    const struct plan plan = {.ipa_pages = 4 * SLOT_PAGES, .second = -ENOMEM};
    int watcher = raw_client(&rig, NULL);
    char *before = raw_counts(watcher);
    struct vmm vmm;

    begin(&vmm, &plan);
    send_run(&vmm, 2, -1);
    usleep(100000);
    send_region(&vmm, 3, 1, SLOT_PAGES);
    raw_free(expect_reply(&vmm, 3, -ENOMEM));
    /* There is no memory: the access is the VMM's to emulate. */
    Fakehyp__Reply *reply = expect_reply(&vmm, 2, 0);
    assert_int_equal(reply->vcpu_exit->exit_reason, EXIT_MMIO);
    assert_int_equal(reply->vcpu_exit->gpa, (SLOT_PAGES + 1) * PAGE);
    raw_free(reply);
    end(&vmm);
    raw_assert_counts(watcher, before);
    free(before);
    close(watcher);
}

/* The VMM is told what its guest has too little of; the guest goes on as it was. */
static void test_slot_beyond_its_memory(void **state)
{
    const struct plan plan = {.ipa_pages = SLOT_PAGES};
    int watcher = raw_client(&rig, NULL);
    bool attached = false;
    struct vmm vmm;

    begin(&vmm, &plan);
    for (unsigned i = 0; i < 1000 && !attached; i++) {
        char *counts = raw_counts(watcher);
        attached = strstr(counts, "\"guests\": 1");
        free(counts);
        usleep(10000);
    }
    assert_true(attached);
    close(watcher);
    send_region(&vmm, 2, 1, SLOT_PAGES);
    Fakehyp__Reply *reply = expect_reply(&vmm, 2, -EINVAL);
    assert_non_null(strstr(reply->message, "slot 1: it ends beyond the 0x"));
    assert_non_null(strstr(reply->message, "a guest reserves all of its VM's IPA space"));
    raw_free(reply);
    assert_int_equal(waitpid(vmm.guest, NULL, WNOHANG), 0);
    end(&vmm);
}

/* A slot is deleted while the guest's agent maps it, or another: the guest has it no more, or never hears of it. */
static void test_slot_deleted_during_attach(void **state)
{
    const struct plan plan = {.ipa_pages = 4 * SLOT_PAGES, .slow = true};
    int watcher = raw_client(&rig, NULL);
    char *before = raw_counts(watcher);
    struct vmm vmm;

    for (uint32_t slot = 0; slot < 2; slot++) {
        make_vm(&vmm);
        send_region(&vmm, 2, 1, SLOT_PAGES);
        raw_free(expect_reply(&vmm, 2, 0));
        start_guest(&vmm, &plan);
        usleep(100000);
        send_region(&vmm, 3, slot, 0);
        raw_free(expect_reply(&vmm, 3, 0));
        usleep(300000);
        assert_int_equal(waitpid(vmm.guest, NULL, WNOHANG), 0);
        end(&vmm);
    }
    raw_assert_counts(watcher, before);
    free(before);
    close(watcher);
}

/* A run that waited for a guest that did not come says nothing of the guest that comes after it. */
static void test_run_before_another_guest(void **state)
{
    const struct plan plan = {.ipa_pages = 4 * SLOT_PAGES};
    struct vmm vmm;
    int sock;

    make_vm(&vmm);
    assert_int_equal(raw_guest_prepare(vmm.sock, vmm.vm, &sock), 0);
    send_run(&vmm, 2, 10000000);
    raw_free(expect_reply(&vmm, 2, -ETIMEDOUT));
    /* While somebody waits he is told. */
    send_run(&vmm, 3, -1);
    usleep(50000);
    close(sock);
    raw_free(expect_reply(&vmm, 3, -ENOENT));
    assert_int_equal(raw_guest_prepare(vmm.sock, vmm.vm, &sock), 0);
    send_run(&vmm, 4, 10000000);
    raw_free(expect_reply(&vmm, 4, -ETIMEDOUT));
    close(sock);
    usleep(50000);
    start_guest(&vmm, &plan);
    send_run(&vmm, 5, 50000000);
    raw_free(expect_reply(&vmm, 5, -ETIMEDOUT));
    kill(vmm.guest, SIGKILL);
    send_run(&vmm, 6, -1);
    Fakehyp__Reply *reply = expect_reply(&vmm, 6, 0);
    assert_int_equal(reply->vcpu_exit->exit_reason, EXIT_SYSTEM_EVENT);
    raw_free(reply);
    end(&vmm);
}

/* Nobody hears of this guest's faults any more: it ends, and its VMM is told. */
static void test_deaf_userfaultfd(void **state)
{
    const struct plan plan = {.ipa_pages = 4 * SLOT_PAGES, .blocking = true};
    struct vmm vmm;

    begin(&vmm, &plan);
    send_run(&vmm, 2, -1);
    expect_killed(&vmm, 2);
    end(&vmm);
}

static void test_event_stolen_from_a_blocking_userfaultfd(void **state)
{
    const struct plan plan = {.ipa_pages = 4 * SLOT_PAGES, .early = true};
    struct rig before = rig;
    struct vmm vmm;

    /* A daemon of its own, from this program, in which the flag is set. */
    steals = true;
    assert_int_equal(rig_set_up(&rig), 0);
    begin(&vmm, &plan);
    send_run(&vmm, 2, -1);
    expect_killed(&vmm, 2);
    assert_true(rig_logged(&rig, "makes fakehypd wait"));
    end(&vmm);
    assert_int_equal(rig_tear_down(&rig), 0);
    steals = false;
    rig = before;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest_without_its_memory),
        cmocka_unit_test(test_slot_refused_after_touch),
        cmocka_unit_test(test_slot_beyond_its_memory),
        cmocka_unit_test(test_slot_deleted_during_attach),
        cmocka_unit_test(test_run_before_another_guest),
        cmocka_unit_test(test_deaf_userfaultfd),
        cmocka_unit_test(test_event_stolen_from_a_blocking_userfaultfd),
    };

    return cmocka_run_group_tests_name("daemon_rogue", tests, set_up, tear_down);
}
