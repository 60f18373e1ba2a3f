/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Views in other processes: children, importers of the file, those that leave
 * without a word and those that are stopped.
 */
#include "tests/common/live_file.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LARGE (UINT64_C(8) << 20)
#define HANG_NS UINT64_C(10000000000)

/* How the access of a child ended: a signal number, or 0. */
static int child_touch(const uint8_t *p)
{
    int status;

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        rig_child();
        (void)*(volatile const uint8_t *)p;
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void fork_child(void **state)
{
    struct file f;

    file_open(&f, state, 16 * PAGE);
    f.view[0] = 1;
    must(file_convert(&f, 8, 8, FAKEHYP_PRIVATE));
    /* The child has no view: neither of shared nor of private pages. */
    assert_int_equal(child_touch(f.view), SIGSEGV);
    assert_int_equal(child_touch(f.view + 8 * PAGE), SIGSEGV);
    pid_t pid = fork();
    if (pid == 0) {
        void *view;
        rig_child();
        if (fakehyp_convert(f.gmem, 0, PAGE, FAKEHYP_PRIVATE, NULL) != -EIO)
            _exit(1);
        if (fakehyp_map(f.gmem, NULL, PAGE, PROT_READ, 0, &view) != -EIO)
            _exit(2);
        /* A connection of its own is fine, and is not the parent's. */
        struct fakehyp *fh;
        if (fakehyp_connect(rig.socket, &fh))
            _exit(3);
        fakehyp_disconnect(fh);
        fakehyp_disconnect(f.fh);
        _exit(0);
    }
    rig_child_ok(pid);
    /* The parent goes on as if nothing had been. */
    assert_reads(f.view, 1);
    assert_refused(f.view + 8 * PAGE);
    must(file_convert(&f, 8, 1, FAKEHYP_SHARED));
    assert_reads(f.view + 8 * PAGE, 0);
    must(file_convert(&f, 0, 1, FAKEHYP_PRIVATE));
    assert_refused(f.view);
    file_close(&f);
}

/* A second process: imports the file, and answers 'o' or 'r' for each page number that it is sent. */
static void importer(int sock)
{
    struct fakehyp *fh;
    struct fakehyp_gmem *gmem;
    uint8_t page, value;
    void *view;

    int fd = rig_receive_fd(sock);
    if (fd < 0 || fakehyp_connect(rig.socket, &fh))
        _exit(1);
    if (fakehyp_gmem_import(fh, fd, &gmem) || fakehyp_gmem_size(gmem) != 16 * PAGE)
        _exit(2);
    close(fd);
    if (fakehyp_map(gmem, NULL, 16 * PAGE, PROT_READ | PROT_WRITE, 0, &view))
        _exit(3);
    while (read(sock, &page, 1) == 1) {
        bool ok = fakehyp_touch_read((uint8_t *)view + page * PAGE, &value, NULL, NULL) == FAKEHYP_TOUCH_OK;
        char answer[2] = {ok ? 'o' : 'r', ok ? (char)value : 0};
        if (write(sock, answer, 2) != 2)
            _exit(4);
    }
    /* Attributes belong to the inode: whoever has the descriptor may convert. */
    if (fakehyp_convert(gmem, 2 * PAGE, PAGE, FAKEHYP_PRIVATE, NULL))
        _exit(5);
    fakehyp_gmem_close(gmem);
    fakehyp_disconnect(fh);
    _exit(0);
}

static char ask_importer(int sock, uint8_t page, char *value)
{
    char answer[2] = {0};

    assert_int_equal(write(sock, &page, 1), 1);
    assert_int_equal(read(sock, answer, 2), 2);
    if (value)
        *value = answer[1];
    return answer[0];
}

/* socks[0] is the test's end. */
static pid_t start_importer(int socks[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
    pid_t pid = fork();
    if (pid == 0) {
        rig_child();
        close(socks[0]);
        importer(socks[1]);
    }
    close(socks[1]);
    return pid;
}

static void second_process(void **state)
{
    struct file f;
    int socks[2];
    char value;

    /* Before the connection is used: the importer is no child of a view. */
    pid_t pid = start_importer(socks);
    file_open(&f, state, 16 * PAGE);
    f.view[PAGE] = 'q';
    assert_true(rig_send_fd(socks[0], fakehyp_gmem_fd(f.gmem)));
    assert_int_equal(ask_importer(socks[0], 1, &value), 'o');
    assert_int_equal(value, 'q');
    must(file_convert(&f, 1, 1, FAKEHYP_PRIVATE));
    assert_int_equal(ask_importer(socks[0], 1, NULL), 'r');
    assert_int_equal(ask_importer(socks[0], 0, NULL), 'o');
    must(file_convert(&f, 1, 1, FAKEHYP_SHARED));
    assert_int_equal(ask_importer(socks[0], 1, &value), 'o');
    assert_int_equal(value, 'q');
    close(socks[0]);
    rig_child_ok(pid);
    assert_refused(f.view + 2 * PAGE);
    file_close(&f);
}

static void not_a_guest_memfd(void **state)
{
    struct fakehyp_gmem *gmem;
    int fd = memfd_create("plain", MFD_CLOEXEC);

    assert_int_equal(fakehyp_gmem_import(*state, fd, &gmem), -EINVAL);
    close(fd);
}

/* Objects whose owner leaves without a word. */
static void abandoned(void **state)
{
    struct file f;

    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct fakehyp *fh;
        void *view;
        rig_child();
        if (fakehyp_connect(rig.socket, &fh) || fakehyp_vm_create(fh, NULL, &f.vm) ||
            fakehyp_gmem_create(f.vm, LARGE, 3, &f.gmem) || fakehyp_map(f.gmem, NULL, LARGE, PROT_READ, 0, &view) ||
            fakehyp_convert(f.gmem, 0, LARGE / 2, FAKEHYP_PRIVATE, NULL))
            _exit(1);
        _exit(0);
    }
    rig_child_ok(pid);
}

/* A process that is stopped keeps nobody from making its pages private. */
static void stopped_vmm(void **state)
{
    struct file f;
    int socks[2];
    char value;

    pid_t pid = start_importer(socks);
    file_open(&f, state, 16 * PAGE);
    memset(f.view, 5, f.bytes);
    assert_true(rig_send_fd(socks[0], fakehyp_gmem_fd(f.gmem)));
    assert_int_equal(ask_importer(socks[0], 1, &value), 'o');
    rig_stop_child(pid);
    uint64_t start = rig_now_ns();
    must(file_convert(&f, 1, 1, FAKEHYP_PRIVATE));
    must(file_convert(&f, 1, 1, FAKEHYP_SHARED));
    must(file_convert(&f, 1, 1, FAKEHYP_PRIVATE));
    assert_true(rig_now_ns() - start < HANG_NS);
    kill(pid, SIGCONT);
    assert_int_equal(ask_importer(socks[0], 1, NULL), 'r');
    must(file_convert(&f, 1, 1, FAKEHYP_SHARED));
    assert_int_equal(ask_importer(socks[0], 1, &value), 'o');
    assert_int_equal(value, 5);
    close(socks[0]);
    rig_child_ok(pid);
    file_close(&f);
}

/* The same with a range that its agent has to register: the signal is late, the secret is not. */
static void stopped_vmm_large(void **state)
{
    struct fakehyp_event event;
    struct file f;
    int socks[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct fakehyp *fh;
        struct fakehyp_gmem *gmem;
        void *view;
        char byte = 0, told[64];
        rig_child();
        close(socks[0]);
        int fd = rig_receive_fd(socks[1]);
        if (fakehyp_connect(rig.socket, &fh) || fakehyp_gmem_import(fh, fd, &gmem) ||
            fakehyp_map(gmem, NULL, LARGE, PROT_READ, 0, &view) || write(socks[1], &byte, 1) != 1 ||
            read(socks[1], &byte, 1) != 1)
            _exit(1);
        /* The request that waited while we were stopped comes first: until then a touch would read a zero. */
        snprintf(told, sizeof(told), "agent of process %d answers again", (int)getpid());
        if (!rig_logs_within(told, 10000))
            _exit(3);
        _exit(fakehyp_touch_read((uint8_t *)view + 600 * PAGE, NULL, NULL, NULL) == FAKEHYP_TOUCH_SIGBUS ? 0 : 2);
    }
    close(socks[1]);
    file_open(&f, state, LARGE);
    memset(f.view, 5, f.bytes);
    assert_true(rig_send_fd(socks[0], fakehyp_gmem_fd(f.gmem)));
    char byte;
    assert_int_equal(read(socks[0], &byte, 1), 1);
    rig_stop_child(pid);
    uint64_t start = rig_now_ns();
    must(file_convert(&f, 512, 1024, FAKEHYP_PRIVATE));
    assert_true(rig_now_ns() - start < HANG_NS);
    assert_refused(f.view + 600 * PAGE);
    assert_true(rig_event(f.fh, "late-agent", &event));
    kill(pid, SIGCONT);
    assert_int_equal(write(socks[0], &byte, 1), 1);
    rig_child_ok(pid);
    close(socks[0]);
    assert_refused(f.view + 600 * PAGE);
    must(file_convert(&f, 512, 1024, FAKEHYP_SHARED));
    assert_reads(f.view + 600 * PAGE, 5);
    file_close(&f);
}

/* Views the file, and waits to be let go. */
static _Noreturn void viewer(int sock)
{
    struct fakehyp *fh;
    struct fakehyp_gmem *gmem;
    char byte = 0;
    void *view;

    rig_child();
    int fd = rig_receive_fd(sock);
    if (fakehyp_connect(rig.socket, &fh) || fakehyp_gmem_import(fh, fd, &gmem) ||
        fakehyp_map(gmem, NULL, LARGE, PROT_READ, 0, &view) || write(sock, &byte, 1) != 1)
        _exit(1);
    _exit(read(sock, &byte, 1) == 1 ? 0 : 2);
}

/*
 * Between the conversion and the answer of an agent that is late, a touch by its process makes a page that takes
 * the signal from everybody.  When it answers, nobody has to ask for an audit.
 */
static void stray_of_late_agent(void **state)
{
    struct file f;
    int socks[2];
    char byte = 0;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        viewer(socks[1]);
    close(socks[1]);
    file_open(&f, state, LARGE);
    memset(f.view, 5, f.bytes);
    assert_true(rig_send_fd(socks[0], fakehyp_gmem_fd(f.gmem)));
    assert_int_equal(read(socks[0], &byte, 1), 1);
    rig_stop_child(pid);
    must(file_convert(&f, 512, 1024, FAKEHYP_PRIVATE));
    /* Where it is not registered a touch of it does this. */
    assert_int_equal(pwrite(fakehyp_gmem_fd(f.gmem), "x", 1, 600 * PAGE), 1);
    assert_reads(f.view + 600 * PAGE, 'x');
    kill(pid, SIGCONT);
    for (unsigned ms = 0; ms < 10000 && fakehyp_touch_read(f.view + 600 * PAGE, NULL, NULL, NULL) == FAKEHYP_TOUCH_OK;
         ms++)
        rig_sleep_ms(1);
    assert_refused(f.view + 600 * PAGE);
    assert_int_equal(write(socks[0], &byte, 1), 1);
    rig_child_ok(pid);
    close(socks[0]);
    must(file_convert(&f, 512, 1024, FAKEHYP_SHARED));
    assert_reads(f.view + 600 * PAGE, 5);
    file_close(&f);
}

static const struct CMUnitTest tests[] = {
    live_test(fork_child),  live_test(second_process),    live_test(not_a_guest_memfd),   live_test(abandoned),
    live_test(stopped_vmm), live_test(stopped_vmm_large), live_test(stray_of_late_agent),
};

RIG_MAIN(tests)
