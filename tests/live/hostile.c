/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes that mean harm, and processes that are stopped at a bad moment:
 * neither takes anything from those that behave.
 */
#include "src/proto/chan.h"
#include "tests/common/live_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534
#define LARGE (UINT64_C(2) << 20)
#define SPARSE (UINT64_C(64) << 20)

/* ---- a hypercall out of turn --------------------------------------------------------------------------------------
 */

/*
 * Two vCPUs take an abort on one page.  The one that the VMM runs again first
 * gets the page for both, so that the other one's thread goes on to its next
 * hypercall while its vCPU is still outside the guest.
 */
static void hypercall_before_run(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.vcpus = 2, .shared = true});
    v.ignore = true;
    for (uint64_t page = 3; page < 7; page++) {
        for (unsigned i = 0; i < 2; i++) {
            struct puppet *p = &v.puppet[i];
            puppet_give(p, PUPPET_READ, page * PAGE, 8, 0);
            assert_int_equal(puppet_go(p), -EFAULT);
            assert_int_equal(p->run->exit_reason, FAKEHYP_EXIT_MEMORY_FAULT);
            assert_int_equal(p->run->memory_fault.gpa, page * PAGE);
        }
        must(pvm_convert(&v, page, 1, FAKEHYP_PRIVATE));
        must(puppet_go(&v.puppet[page % 2]));
        rig_sleep_ms(50);
        must(puppet_go(&v.puppet[!(page % 2)]));
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(v.puppet[i].command->result, 0);
    }
    /* The hypercalls were made once each: the puppets are in step. */
    puppet_write(&v.puppet[1], 3 * PAGE, "of two", 6);
    assert_int_equal(puppet_byte(&v.puppet[0], 3 * PAGE), 'o');
    puppet_exit(&v.puppet[0], 3);
    pvm_destroy(&v);
}

/* ---- the daemon's descriptors -------------------------------------------------------------------------------------
 */

/* How many descriptors of a process this one can open. */
static unsigned open_descriptors(pid_t pid)
{
    unsigned opened = 0;
    char path[64];

    for (unsigned i = 0; i < 256; i++) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%u", (int)pid, i);
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            continue;
        opened++;
        close(fd);
    }
    return opened;
}

/* What a process of the daemon's user gets hold of: 0 when nothing, or how it was let in. */
static int pry(pid_t daemon)
{
    char path[64];

    unsigned opened = open_descriptors(daemon);
    if (opened) {
        rig_note("%u descriptors of the daemon can be opened by other processes of its user", opened);
        return 11;
    }
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)daemon);
    DIR *dir = opendir(path);
    if (dir) {
        closedir(dir);
        return 12;
    }
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)daemon);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return 13;
    }
    return 0;
}

/* A file with a private page in a daemon, then pry(). */
static int pry_with_secret(const struct rig_daemon *daemon)
{
    struct fakehyp_gmem *gmem;
    struct fakehyp_vm *vm;
    struct fakehyp *fh;

    if (fakehyp_connect(daemon->socket, &fh))
        return 1;
    int rc = 2;
    if (!fakehyp_vm_create(fh, NULL, &vm) &&
        !fakehyp_gmem_create(vm, 16 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem) &&
        !fakehyp_convert(gmem, 0, PAGE, FAKEHYP_PRIVATE, NULL))
        rc = pry(daemon->pid);
    fakehyp_disconnect(fh);
    return rc;
}

/* An executable of ours where everybody can read it, which the build tree may not be. */
static bool publish(const char *from, const char *dir, char *to, size_t size)
{
    char buf[65536];
    ssize_t n = -1;

    snprintf(to, size, "%s/fakehypd", dir);
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    while (in >= 0 && out >= 0 && (n = read(in, buf, sizeof(buf))) > 0)
        if (write(out, buf, (size_t)n) != n)
            break;
    bool ok = n == 0 && out >= 0 && !fchmod(out, 0755);
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return ok;
}

static _Noreturn void pry_as_nobody(const char *binary)
{
    struct rig_daemon own = {.pid = 0};

    if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
        _exit(97);
    /* Again, for a change of user undoes a part of it. */
    rig_child();
    setenv("FAKEHYP_DAEMON", binary, 1);
    unsetenv("XDG_RUNTIME_DIR");
    if (rig_daemon_open(&own))
        _exit(98);
    int rc = pry_with_secret(&own);
    rig_daemon_close(&own);
    _exit(rc);
}

/*
 * The daemon holds every guest's private memory.  Root can open it whatever the
 * daemon does, so it is tried as an ordinary user, with a daemon of that user's.
 */
static void descriptors_of_daemon(void **state)
{
    char dir[] = "/tmp/fakehyp-hostile-XXXXXX", binary[64];
    int status;

    (void)state;
    if (geteuid() != 0) {
        assert_int_equal(pry_with_secret(&rig), 0);
        return;
    }
    assert_non_null(mkdtemp(dir));
    bool ready = !chmod(dir, 0755) && publish(getenv("FAKEHYP_DAEMON"), dir, binary, sizeof(binary));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        pry_as_nobody(binary);
    bool ended = rig_wait_child(pid, 20000, &status);
    if (!ended)
        kill(pid, SIGKILL);
    unlink(binary);
    rmdir(dir);
    assert_true(ready);
    assert_true(ended);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 97)
        rig_not_here("not tried: descriptors_of_daemon: no other user to become here");
    if (WEXITSTATUS(status) == 98)
        rig_not_here("not tried: descriptors_of_daemon: no daemon of an ordinary user's in /tmp here");
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- a guest that attaches with something else ----------------------------------------------------------------------
 */

/* One request by hand: the reply, NULL when none came; descriptors that came with it are left in msg. */
static Fakehyp__Reply *raw_call(int sock, Fakehyp__Request *request, const int *fds, unsigned nr_fds,
                                struct chan_msg *msg)
{
    request->id = 1;
    if (chan_send_request(sock, request, fds, nr_fds, 0) || chan_recv(sock, msg, 0) != 1)
        return NULL;
    return fakehyp__reply__unpack(NULL, msg->len, msg->data);
}

#define RAW_CALL(sock, kind, field, body, fds, nr_fds, msg)                                                            \
    ({                                                                                                                 \
        Fakehyp__Request raw_request = FAKEHYP__REQUEST__INIT;                                                         \
        raw_request.body_case = FAKEHYP__REQUEST__BODY_##kind;                                                         \
        raw_request.field = (body);                                                                                    \
        raw_call(sock, &raw_request, fds, nr_fds, msg);                                                                \
    })

static void assert_granted(Fakehyp__Reply *reply)
{
    assert_non_null(reply);
    assert_int_equal(reply->error, 0);
    fakehyp__reply__free_unpacked(reply, NULL);
}

static int raw_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    assert_true(strlen(rig.socket) < sizeof(address.sun_path));
    strcpy(address.sun_path, rig.socket);
    assert_int_equal(connect(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    return sock;
}

/* What the daemon answers to a guest whose userfaultfd is this descriptor: the errno, 0 for a welcome. */
static _Noreturn void attach_with(int sock, int fd, struct chan_msg *msg)
{
    Fakehyp__GuestAttach body = FAKEHYP__GUEST_ATTACH__INIT;

    body.ram_base = UINT64_C(1) << 40;
    body.ipa_size = UINT64_C(1) << 32;
    Fakehyp__Reply *reply = RAW_CALL(sock, GUEST_ATTACH, guest_attach, &body, &fd, 1, msg);
    _exit(!reply ? 255 : -reply->error);
}

static void refused_guest(int fd, struct chan_msg *msg)
{
    Fakehyp__Hello hello = FAKEHYP__HELLO__INIT;
    Fakehyp__VmCreate create = FAKEHYP__VM_CREATE__INIT;
    Fakehyp__VcpuCreate vcpu = FAKEHYP__VCPU_CREATE__INIT;
    Fakehyp__GuestPrepare prepare = FAKEHYP__GUEST_PREPARE__INIT;
    int status;

    int sock = raw_connect();
    hello.version = PROTO_VERSION;
    hello.program = (char *)"hostile";
    assert_granted(RAW_CALL(sock, HELLO, hello, &hello, NULL, 0, msg));
    Fakehyp__Reply *reply = RAW_CALL(sock, VM_CREATE, vm_create, &create, NULL, 0, msg);
    assert_non_null(reply);
    assert_int_equal(reply->body_case, FAKEHYP__REPLY__BODY_VM);
    vcpu.vm = prepare.vm = reply->vm->vm;
    fakehyp__reply__free_unpacked(reply, NULL);
    assert_granted(RAW_CALL(sock, VCPU_CREATE, vcpu_create, &vcpu, NULL, 0, msg));
    assert_granted(RAW_CALL(sock, GUEST_PREPARE, guest_prepare, &prepare, NULL, 0, msg));
    int guest = chan_msg_take_fd(msg, 0);
    assert_true(guest >= 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        rig_child();
        attach_with(guest, fd, msg);
    }
    close(guest);
    bool ended = rig_wait_child(pid, 5000, &status);
    if (!ended) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    close(sock);
    assert_true(ended);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EINVAL);
}

static void not_a_userfaultfd(void **state)
{
    struct chan_msg msg = {.data = malloc(CHAN_MAX_FRAME)};
    struct file f;
    int socks[2];

    assert_non_null(msg.data);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
    const int fds[] = {socks[0], eventfd(0, EFD_CLOEXEC), memfd_create("anon_inode:[userfaultfd]", MFD_CLOEXEC)};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        assert_true(fds[i] >= 0);
        refused_guest(fds[i], &msg);
        /* The daemon has time for others. */
        uint64_t begin = rig_now_ns();
        file_open(&f, state, 4 * PAGE);
        file_close(&f);
        assert_true(rig_now_ns() - begin < UINT64_C(10000000000));
        close(fds[i]);
    }
    close(socks[1]);
    free(msg.data);
}

/* ---- processes that are stopped -----------------------------------------------------------------------------------
 */

/* Bytes that a file occupies. */
static uint64_t allocated(const struct fakehyp_gmem *gmem)
{
    struct stat st;

    assert_int_equal(fstat(fakehyp_gmem_fd(gmem), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* A conversion that gives up on a stopped guest leaves a large sparse file sparse. */
static void stopped_guest_sparse_file(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = SPARSE / PAGE});
    assert_int_equal(puppet_share(&v.puppet[0], 0), 0);
    puppet_write(&v.puppet[0], 0, "shared", 6);
    must(fakehyp_convert(v.gmem, 0, SPARSE, FAKEHYP_SHARED, NULL));
    uint64_t before = allocated(v.gmem);
    assert_true(before < SPARSE / 4);
    pid_t pid = fakehyp_guest_pid(v.vm);
    rig_stop_child(pid);
    assert_int_equal(fakehyp_convert(v.gmem, 0, SPARSE, FAKEHYP_PRIVATE, NULL), -ETIMEDOUT);
    uint64_t after = allocated(v.gmem);
    kill(pid, SIGCONT);
    if (after != before)
        rig_note("the file had %ju KiB and has %ju KiB", (uintmax_t)before / 1024, (uintmax_t)after / 1024);
    assert_int_equal(after, before);
    /* Nothing changed: all of it can be reached. */
    assert_reads(v.view, 's');
    assert_reads(v.view + SPARSE / 2, 0);
    assert_true(pvm_writes(&v, SPARSE - PAGE, 7));
    assert_int_equal(puppet_byte(&v.puppet[0], 0), 's');
    rig_audit(v.fh);
    must(fakehyp_convert(v.gmem, 0, SPARSE, FAKEHYP_PRIVATE, NULL));
    assert_refused(v.view);
    assert_refused(v.view + SPARSE - PAGE);
    assert_int_equal(puppet_byte(&v.puppet[0], SPARSE - PAGE), 7);
    pvm_destroy(&v);
}

/* Another process with a view of the file that it is sent. */
static _Noreturn void viewer(int sock)
{
    struct fakehyp_gmem *gmem;
    struct fakehyp *fh;
    char byte = 0;
    void *view;

    int fd = rig_receive_fd(sock);
    if (fd < 0 || fakehyp_connect(rig.socket, &fh) || fakehyp_gmem_import(fh, fd, &gmem) ||
        fakehyp_map(gmem, NULL, LARGE, PROT_READ, 0, &view) || write(sock, &byte, 1) != 1)
        _exit(1);
    _exit(read(sock, &byte, 1) >= 0 ? 0 : 2);
}

struct conversion {
    struct file *file;
    int rc;
};

static void *convert_all(void *arg)
{
    struct conversion *c = arg;
    c->rc = fakehyp_convert(c->file->gmem, 0, c->file->bytes, FAKEHYP_PRIVATE, NULL);
    return NULL;
}

/*
 * Two files with views in this process.  The conversion of the first waits for
 * another process, which is stopped, while the second is converted: then this
 * process must have been told of both.
 */
static void stopped_viewer_two_files(void **state)
{
    struct conversion c = {.rc = -1};
    struct file a, b;
    pthread_t thread;
    char byte;
    int sock;

    pid_t pid = rig_fork_with_socket(&sock);
    if (pid == 0)
        viewer(sock);
    assert_true(pid > 0);
    file_open(&a, state, LARGE);
    file_open(&b, state, LARGE);
    memset(a.view, 'a', LARGE);
    memset(b.view, 'b', LARGE);
    assert_true(rig_send_fd(sock, fakehyp_gmem_fd(a.gmem)));
    assert_int_equal(read(sock, &byte, 1), 1);
    rig_stop_child(pid);
    c.file = &a;
    assert_int_equal(pthread_create(&thread, NULL, convert_all, &c), 0);
    rig_sleep_ms(200);
    int rc = fakehyp_convert(b.gmem, 0, LARGE, FAKEHYP_PRIVATE, NULL);
    pthread_join(thread, NULL);
    kill(pid, SIGCONT);
    assert_int_equal(rc, 0);
    assert_int_equal(c.rc, 0);
    for (uint64_t page = 0; page < LARGE / PAGE; page += 73) {
        assert_refused(a.view + page * PAGE);
        assert_refused(b.view + page * PAGE);
    }
    close(sock);
    rig_child_ok(pid);
    file_close(&a);
    file_close(&b);
}

/* A VMM that says when it has a file, and makes another one when it is told to. */
static _Noreturn void vmm(int sock)
{
    struct fakehyp_gmem *gmem, *second;
    struct fakehyp_vm *vm;
    struct fakehyp *fh;
    char byte;

    if (fakehyp_connect(rig.socket, &fh) || fakehyp_vm_create(fh, NULL, &vm) ||
        fakehyp_gmem_create(vm, 16 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem) ||
        !rig_send_fd(sock, fakehyp_gmem_fd(gmem)) || read(sock, &byte, 1) != 1)
        _exit(1);
    int rc = fakehyp_gmem_create(vm, 16 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &second);
    if (rc)
        _exit(2);
    /* Its agent is there too: a view needs it. */
    void *view;
    if (fakehyp_map(gmem, NULL, 16 * PAGE, PROT_READ, 0, &view))
        _exit(3);
    if (fakehyp_touch_read(view, NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS)
        _exit(4);
    fakehyp_disconnect(fh);
    _exit(0);
}

/* Stopped in a debugger while others convert its memory: it misses events, and keeps its VM. */
static void stopped_vmm_keeps_vm(void **state)
{
    struct fakehyp_gmem *gmem;
    char byte = 0;
    int sock;

    pid_t pid = rig_fork_with_socket(&sock);
    if (pid == 0)
        vmm(sock);
    assert_true(pid > 0);
    int fd = rig_receive_fd(sock);
    assert_true(fd >= 0);
    must(fakehyp_gmem_import(*state, fd, &gmem));
    close(fd);
    int64_t vms = rig_count("vms");
    rig_stop_child(pid);
    /* The last one is to private. */
    for (unsigned i = 0; i < 4001; i++)
        must(fakehyp_convert(gmem, 0, PAGE, i % 2 ? FAKEHYP_SHARED : FAKEHYP_PRIVATE, NULL));
    assert_int_equal(rig_count("vms"), vms);
    kill(pid, SIGCONT);
    assert_int_equal(write(sock, &byte, 1), 1);
    rig_child_ok(pid);
    close(sock);
    fakehyp_gmem_close(gmem);
}

static const struct CMUnitTest tests[] = {
    live_test(hypercall_before_run),      live_test(descriptors_of_daemon),    live_test(not_a_userfaultfd),
    live_test(stopped_guest_sparse_file), live_test(stopped_viewer_two_files), live_test(stopped_vmm_keeps_vm),
};

RIG_MAIN(tests)
