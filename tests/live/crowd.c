/* SPDX-License-Identifier: BSD-2-Clause */
/* Many at once: clients, VMMs of one file, views. */
#include "tests/common/live_bystander.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534
#ifdef __SANITIZE_THREAD__
#define CLIENTS 16u /* a fork copies the shadow's page tables, too */
#else
#define CLIENTS 64u
#endif
#define VMMS 8u
#define PAGES 16u
#define VIEWS 3000u

/* ---- clients ------------------------------------------------------------------------------------------------------
 */

static _Noreturn void client_main(unsigned number)
{
    struct fakehyp_gmem *gmem;
    struct fakehyp_vm *vm;
    struct fakehyp *fh;
    void *p;

    if (fakehyp_connect(rig.socket, &fh) || fakehyp_vm_create(fh, NULL, &vm) ||
        fakehyp_gmem_create(vm, PAGES * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem) ||
        fakehyp_map(gmem, NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, 0, &p))
        _exit(1);
    uint8_t *view = p;
    for (unsigned i = 0; i < 2 * PAGES; i++) {
        uint8_t *page = view + i % PAGES * PAGE;
        *page = (uint8_t)(number + i);
        if (fakehyp_convert(gmem, i % PAGES * PAGE, PAGE, FAKEHYP_PRIVATE, NULL) ||
            fakehyp_touch_read(page, NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS ||
            fakehyp_convert(gmem, i % PAGES * PAGE, PAGE, FAKEHYP_SHARED, NULL) || *page != (uint8_t)(number + i))
            _exit(2);
    }
    fakehyp_disconnect(fh);
    _exit(0);
}

static void many_clients(void **state)
{
    struct bystander by;
    pid_t pid[CLIENTS];

    (void)state;
    bystander_begin(&by);
    uint64_t begin = rig_now_ns();
    bystander_during(&by);
    for (unsigned i = 0; i < CLIENTS; i++) {
        fflush(stdout);
        pid[i] = fork();
        if (pid[i] == 0) {
            rig_child();
            client_main(i);
        }
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        rig_child_ok(pid[i]);
    rig_note("%u clients, each with a VM and %u conversions: %" PRIu64 " ms", CLIENTS, 4 * PAGES,
             (rig_now_ns() - begin) / 1000000);
    bystander_end(&by, "many clients", NULL);
    bystander_check_daemon(&by, "many clients");
}

/* ---- VMMs of one file ---------------------------------------------------------------------------------------------
 */

/* Has two pages of the file for itself; the last one is read by all. */
static _Noreturn void vmm_main(int sock)
{
    struct fakehyp_gmem *gmem;
    struct fakehyp *fh;
    unsigned number;
    void *p;

    if (read(sock, &number, sizeof(number)) != sizeof(number))
        _exit(1);
    int fd = rig_receive_fd(sock);
    if (fd < 0 || fakehyp_connect(rig.socket, &fh) || fakehyp_gmem_import(fh, fd, &gmem) ||
        fakehyp_map(gmem, NULL, (2 * VMMS + 1) * PAGE, PROT_READ | PROT_WRITE, 0, &p))
        _exit(2);
    uint8_t *own = (uint8_t *)p + 2 * number * PAGE, *all = (uint8_t *)p + 2 * VMMS * PAGE;
    for (unsigned i = 0; i < 40; i++) {
        own[5] = own[PAGE + 5] = (uint8_t)(number * 16 + i);
        if (fakehyp_convert(gmem, 2 * number * PAGE, 2 * PAGE, FAKEHYP_PRIVATE, NULL) ||
            fakehyp_touch_read(own + PAGE, NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS || *all != 99 ||
            fakehyp_convert(gmem, 2 * number * PAGE, 2 * PAGE, FAKEHYP_SHARED, NULL) ||
            own[5] != (uint8_t)(number * 16 + i) || own[PAGE + 5] != own[5])
            _exit(3);
    }
    fakehyp_gmem_close(gmem);
    fakehyp_disconnect(fh);
    _exit(0);
}

static void vmms_of_one_file(void **state)
{
    struct bystander by;
    pid_t pid[VMMS];
    int sock[VMMS];
    struct file f;

    for (unsigned i = 0; i < VMMS; i++) {
        pid[i] = rig_fork_with_socket(&sock[i]);
        if (pid[i] == 0)
            vmm_main(sock[i]);
        assert_true(pid[i] > 0);
    }
    file_open(&f, state, (2 * VMMS + 1) * PAGE);
    f.view[2 * VMMS * PAGE] = 99;
    bystander_begin(&by);
    bystander_during(&by);
    for (unsigned i = 0; i < VMMS; i++) {
        assert_int_equal(write(sock[i], &i, sizeof(i)), sizeof(i));
        assert_true(rig_send_fd(sock[i], fakehyp_gmem_fd(f.gmem)));
    }
    for (unsigned i = 0; i < VMMS; i++) {
        rig_child_ok(pid[i]);
        close(sock[i]);
    }
    bystander_end(&by, "8 VMMs of one file", NULL);
    bystander_check_daemon(&by, "8 VMMs of one file");
    for (unsigned i = 0; i < VMMS; i++)
        assert_reads(f.view + 2 * i * PAGE + 5, (uint8_t)(i * 16 + 39));
    file_close(&f);
}

/* Another user has a descriptor that was given to it, but no word with the daemon: it sees what is shared. */
static _Noreturn void other_user(int sock)
{
    struct fakehyp *fh;

    int fd = rig_receive_fd(sock);
    if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
        _exit(97);
    int rc = fakehyp_connect(rig.socket, &fh);
    if (rc != -EACCES || !strstr(fakehyp_last_error(), "start a fakehypd of your own"))
        _exit(1);
    uint8_t *p = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED || p[PAGE] != 's' || p[0] == 'p')
        _exit(2);
    _exit(0);
}

static void vmm_of_another_user(void **state)
{
    struct file f;
    int sock, status;

    if (geteuid() != 0)
        rig_not_here("not tried: vmm_of_another_user: only root can become another user");
    pid_t pid = rig_fork_with_socket(&sock);
    if (pid == 0)
        other_user(sock);
    file_open(&f, state, PAGES * PAGE);
    f.view[0] = 'p';
    f.view[PAGE] = 's';
    must(file_convert(&f, 0, 1, FAKEHYP_PRIVATE));
    assert_true(rig_send_fd(sock, fakehyp_gmem_fd(f.gmem)));
    assert_true(rig_wait_child(pid, 10000, &status));
    close(sock);
    /* It has touched the hole: the page that it made is found, and dropped. */
    rig_audit_ok(f.fh);
    must(file_convert(&f, 0, 1, FAKEHYP_SHARED));
    assert_reads(f.view, 'p');
    file_close(&f);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 97)
        rig_not_here("not tried: vmm_of_another_user: no other user to become here");
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* What both users do at once, each with a page of its own. */
static bool takes_and_gives_back(struct fakehyp_gmem *gmem, uint8_t *view, uint64_t mine)
{
    view[mine * PAGE] = (uint8_t)(mine + 5);
    return fakehyp_convert(gmem, mine * PAGE, PAGE, FAKEHYP_PRIVATE, NULL) == 0 &&
           fakehyp_touch_read(view + mine * PAGE, NULL, NULL, NULL) == FAKEHYP_TOUCH_SIGBUS &&
           fakehyp_convert(gmem, mine * PAGE, PAGE, FAKEHYP_SHARED, NULL) == 0 && view[mine * PAGE] == mine + 5;
}

/* An ordinary user with a daemon and a VM; root, whom each daemon lets in, is a VMM of the same file. */
static _Noreturn void user_with_daemon(int sock)
{
    struct rig_daemon mine = {.quiet = true};
    struct fakehyp_gmem *gmem;
    struct fakehyp_vm *vm;
    struct fakehyp *fh;
    char byte;
    void *view;

    if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
        _exit(97);
    unsetenv("XDG_RUNTIME_DIR");
    if (rig_daemon_open(&mine))
        _exit(96);
    if (fakehyp_connect(mine.socket, &fh) || fakehyp_vm_create(fh, NULL, &vm) ||
        fakehyp_gmem_create(vm, 2 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem) ||
        fakehyp_map(gmem, NULL, 2 * PAGE, PROT_READ | PROT_WRITE, 0, &view))
        _exit(1);
    if (write(sock, mine.socket, sizeof(mine.socket)) != sizeof(mine.socket) ||
        !rig_send_fd(sock, fakehyp_gmem_fd(gmem)))
        _exit(2);
    for (unsigned i = 0; i < 20; i++)
        if (!takes_and_gives_back(gmem, view, 0))
            _exit(3);
    /* Root holds page 1 back; when it has seen ours. */
    if (read(sock, &byte, 1) != 1 ||
        fakehyp_touch_read((uint8_t *)view + PAGE, NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS)
        _exit(4);
    if (fakehyp_convert(gmem, PAGE, PAGE, FAKEHYP_SHARED, NULL) || ((uint8_t *)view)[PAGE] != 77 || !rig_audit_ok(fh))
        _exit(5);
    fakehyp_disconnect(fh);
    rig_daemon_close(&mine);
    _exit(0);
}

static const char *why_not_root_with(pid_t pid, int sock)
{
    char socket[sizeof(rig.socket)];
    struct fakehyp_gmem *gmem = NULL;
    struct fakehyp *fh = NULL;
    const char *why = NULL;
    void *p = NULL;
    int fd = -1, status;

    if (read(sock, socket, sizeof(socket)) == sizeof(socket) && (fd = rig_receive_fd(sock)) >= 0) {
        if (fakehyp_connect(socket, &fh) || fakehyp_gmem_import(fh, fd, &gmem) ||
            fakehyp_map(gmem, NULL, 2 * PAGE, PROT_READ | PROT_WRITE, 0, &p))
            fail_msg("root at the daemon of another user: %s", fakehyp_last_error());
        uint8_t *view = p;
        for (unsigned i = 0; i < 20; i++)
            assert_true(takes_and_gives_back(gmem, view, 1));
        view[PAGE] = 77;
        must(fakehyp_convert(gmem, PAGE, PAGE, FAKEHYP_PRIVATE, NULL));
        assert_int_equal(write(sock, "", 1), 1);
    }
    assert_true(rig_wait_child(pid, 10000, &status));
    if (fd >= 0) {
        fakehyp_gmem_close(gmem);
        fakehyp_disconnect(fh);
        close(fd);
    }
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 97)
        why = "no other user to become here";
    else if (WEXITSTATUS(status) == 96)
        why = "another user may not run this fakehypd";
    else
        assert_int_equal(WEXITSTATUS(status), 0);
    return why;
}

static void vmms_of_two_users(void **state)
{
    int sock;

    (void)state;
    if (geteuid() != 0)
        rig_not_here("not tried: vmms_of_two_users: only root can become another user");
    pid_t pid = rig_fork_with_socket(&sock);
    if (pid == 0)
        user_with_daemon(sock);
    const char *why = why_not_root_with(pid, sock);
    close(sock);
    if (why)
        rig_not_here("not tried: vmms_of_two_users: %s", why);
}

/* The number of a descriptor that was closed before it is sent: the call fails, the connection does not. */
static void descriptor_closed_before(void **state)
{
    struct fakehyp_gmem *again;
    struct file f;

    file_open(&f, state, PAGES * PAGE);
    int fd = fcntl(fakehyp_gmem_fd(f.gmem), F_DUPFD_CLOEXEC, 0);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(fakehyp_gmem_import(f.fh, fd, &again), -EBADF);
    assert_non_null(strstr(fakehyp_last_error(), "descriptor"));
    assert_null(again);
    assert_int_equal(fakehyp_gmem_import(f.fh, -1, &again), -EBADF);
    /* Closed behind its sender, when the daemon has it. */
    fd = fcntl(fakehyp_gmem_fd(f.gmem), F_DUPFD_CLOEXEC, 0);
    must(fakehyp_gmem_import(f.fh, fd, &again));
    close(fd);
    must(fakehyp_convert(again, 0, PAGE, FAKEHYP_PRIVATE, NULL));
    assert_refused(f.view);
    must(fakehyp_convert(again, 0, PAGE, FAKEHYP_SHARED, NULL));
    fakehyp_gmem_close(again);
    file_close(&f);
}

/* ---- views --------------------------------------------------------------------------------------------------------
 */

static uint64_t us_since(uint64_t begin)
{
    return (rig_now_ns() - begin) / 1000;
}

static void thousands_of_views(void **state)
{
    static uint8_t *view[VIEWS];
    struct bystander by;
    struct file f;

    file_open(&f, state, PAGES * PAGE);
    bystander_begin(&by);
    bystander_during(&by);
    uint64_t begin = rig_now_ns();
    for (unsigned i = 0; i < VIEWS; i++)
        view[i] = file_map(&f, NULL, PAGES * PAGE, 0);
    uint64_t mapped = us_since(begin);
    f.view[3 * PAGE] = 42;
    begin = rig_now_ns();
    must(file_convert(&f, 3, 1, FAKEHYP_PRIVATE));
    uint64_t to_private = us_since(begin);
    for (unsigned i = 0; i < VIEWS; i += 97)
        assert_refused(view[i] + 3 * PAGE);
    begin = rig_now_ns();
    rig_audit(f.fh);
    uint64_t audited = us_since(begin);
    begin = rig_now_ns();
    must(file_convert(&f, 3, 1, FAKEHYP_SHARED));
    uint64_t to_shared = us_since(begin);
    for (unsigned i = 0; i < VIEWS; i += 97)
        assert_reads(view[i] + 3 * PAGE, 42);
    begin = rig_now_ns();
    for (unsigned i = 0; i < VIEWS; i++)
        must(fakehyp_unmap(f.fh, view[i], PAGES * PAGE));
    rig_note("%u views: mapped in %.1f us each, unmapped in %.1f; a page to private %" PRIu64 " us, to shared %" PRIu64
             " us; audit %" PRIu64 " us",
             VIEWS, (double)mapped / VIEWS, (double)us_since(begin) / VIEWS, to_private, to_shared, audited);
    bystander_end(&by, "3,000 views", NULL);
    bystander_check_daemon(&by, "3,000 views");
    file_close(&f);
}

static const struct CMUnitTest tests[] = {
    live_test(many_clients),      live_test(vmms_of_one_file),         live_test(vmm_of_another_user),
    live_test(vmms_of_two_users), live_test(descriptor_closed_before), live_test(thousands_of_views),
};

RIG_MAIN(tests)
