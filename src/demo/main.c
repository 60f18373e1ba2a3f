/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The main job, played with real processes: a daemon, a VMM (this process), a
 * guest, and a second host process that runs into private memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include <fakehyp/fakehyp.h>

#include "src/demo/narrate.h"

extern char **environ;

#define PAGES 16u
#define PAGE ((uint64_t)FAKEHYP_PAGE_SIZE)
#define ANSWER_GPA (2 * PAGE)
/* Function ids of the vendor range that nobody uses: they reach the VMM as they are. */
#define DEMO_IMAGE_READ UINT64_C(0xC6001001)
#define DEMO_UNSHARED UINT64_C(0xC6001002)

#define MEM_SHARE UINT64_C(0xC6000003)
#define MEM_UNSHARE UINT64_C(0xC6000004)

static const char image[] = "This is the guest's kernel image, loaded by the VMM.";
static const char answer[] = "42, says the guest";
static const char secret[] = "the guest's secret, after it took the page back";

static char run_dir[] = "/tmp/fakehyp-demo-XXXXXX";
static char socket_path[64], lock_path[72], bin_dir[1024];

static _Noreturn void die(const char *what)
{
    printf("\nThe demo cannot go on: %s: %s\n", what, fakehyp_last_error());
    exit(1);
}

/* ---- other programs ---------------------------------------------------------------------------------------------- */

/* Runs a program of the build and takes what it prints (out NULL: it prints here); its wait status, or -1. */
static int run(char *const argv[], int keep_fd, char *out, size_t size)
{
    char path[1200];
    int pipe_fd[2], status = -1;
    size_t len = 0;
    pid_t pid;
    posix_spawn_file_actions_t actions;

    snprintf(path, sizeof(path), "%s/%s", bin_dir, argv[0]);
    if (pipe2(pipe_fd, O_CLOEXEC))
        return -1;
    posix_spawn_file_actions_init(&actions);
    if (out) {
        posix_spawn_file_actions_adddup2(&actions, pipe_fd[1], STDOUT_FILENO);
        posix_spawn_file_actions_adddup2(&actions, pipe_fd[1], STDERR_FILENO);
    }
    if (keep_fd >= 0)
        posix_spawn_file_actions_adddup2(&actions, keep_fd, 9);
    int rc = posix_spawn(&pid, path, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fd[1]);
    if (!rc) {
        ssize_t n;
        while (len + 1 < size && (n = read(pipe_fd[0], out + len, size - 1 - len)) > 0)
            len += (size_t)n;
        if (waitpid(pid, &status, 0) < 0)
            status = -1;
    }
    close(pipe_fd[0]);
    if (out)
        out[len] = '\0';
    return rc ? -1 : status;
}

static char *trace_file; /* NULL: none */

static void start_daemon(void)
{
    char *argv[] = {(char *)"fakehypd", (char *)"--socket",
                    socket_path,        (char *)"--terminate",
                    (char *)"--daemon", (char *)"--log-level",
                    (char *)"warning",  trace_file ? (char *)"--trace" : NULL,
                    trace_file,         NULL};
    int status = run(argv, -1, NULL, 0);
    if (status) {
        printf("fakehypd did not start (wait status 0x%x)\n", status);
        exit(1);
    }
}

/* A host process like any other: maps the file that it was given and touches a private page, without a handler. */
static int victim(void)
{
    struct fakehyp *fh;
    struct fakehyp_gmem *gmem;
    void *view;
    if (fakehyp_connect(NULL, &fh) || fakehyp_gmem_import(fh, 9, &gmem) ||
        fakehyp_map(gmem, NULL, PAGES * PAGE, PROT_READ, 0, &view)) {
        fprintf(stderr, "%s\n", fakehyp_last_error());
        return 1;
    }
    return *((volatile char *)view + PAGE + 0x123);
}

/* ---- the guest ------------------------------------------------------------------------------------------------------
 */

static int guest_main(struct fakehyp_guest *guest, void *arg)
{
    char found[sizeof(image)];
    int *again = arg;

    fakehyp_guest_read(guest, 0, found, sizeof(found));
    fakehyp_guest_hypercall(guest, DEMO_IMAGE_READ, !memcmp(found, image, sizeof(image)), 0, 0);
    fakehyp_guest_write(guest, ANSWER_GPA, answer, sizeof(answer));
    if (fakehyp_guest_mem_share(guest, ANSWER_GPA))
        return 1;
    int64_t rc;
    do {
        rc = fakehyp_guest_mem_unshare(guest, ANSWER_GPA);
        fakehyp_guest_write(guest, 3 * PAGE, secret, sizeof(secret));
        if (!rc)
            fakehyp_guest_write(guest, ANSWER_GPA, secret, sizeof(secret));
        fakehyp_guest_hypercall(guest, DEMO_UNSHARED, (uint64_t)rc, 0, 0);
    } while (rc && *again);
    return rc ? 2 : 0;
}

/* ---- the VMM ---- */

struct vmm {
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    struct fakehyp_vcpu *vcpu;
    struct fakehyp_run *run;
    char *view;
};

static json_t *page(struct vmm *v, uint64_t offset)
{
    char *text;
    if (fakehyp_query(v->fh, "page", v->gmem, offset, &text))
        die("asking for a page's state");
    json_t *j = json_loads(text, 0, NULL);
    free(text);
    if (!j)
        die("understanding a page's state");
    return j;
}

static json_int_t pfn_of(struct vmm *v, uint64_t offset)
{
    json_t *j = page(v, offset);
    json_int_t pfn = json_integer_value(json_object_get(j, "pfn"));
    json_decref(j);
    return pfn;
}

static void show_page(struct vmm *v, uint64_t offset)
{
    char gmem[32], at[32], out[8192];
    snprintf(gmem, sizeof(gmem), "%llu", (unsigned long long)fakehyp_gmem_id(v->gmem));
    snprintf(at, sizeof(at), "0x%llx", (unsigned long long)offset);
    char *argv[] = {(char *)"fakehypctl", (char *)"page", (char *)"--gmem", gmem, (char *)"--offset", at, NULL};
    say(VOICE_STAGE, "$ fakehypctl page --gmem %s --offset %s", gmem, at);
    int status = run(argv, -1, out, sizeof(out));
    quote(out);
    shown(!status, "fakehypctl page tells the page's state", "exit status %d", WEXITSTATUS(status));
}

static void create(struct vmm *v, enum fakehyp_unshare_mode mode, const char *name, int *again)
{
    const struct fakehyp_vm_config config = {.name = name, .unshare_mode = mode};
    void *view;
    if (fakehyp_vm_create(v->fh, &config, &v->vm))
        die("creating a VM");
    if (fakehyp_gmem_create(v->vm, PAGES * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &v->gmem) ||
        fakehyp_set_memory_region(v->vm, 0, 0, PAGES * PAGE, v->gmem, 0) ||
        fakehyp_map(v->gmem, NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, 0, &view))
        die("creating guest memory");
    v->view = view;
    strcpy(v->view, image);
    if (fakehyp_vcpu_create(v->vm, 0, &v->vcpu))
        die("creating a vCPU");
    v->run = fakehyp_vcpu_state(v->vcpu);
    if (fakehyp_guest_start(v->vm, guest_main, again))
        die("starting the guest");
}

/* Runs the guest until it makes the call; what the guest asks for on the way is the caller's to do. */
static void run_until(struct vmm *v, uint64_t nr)
{
    if (fakehyp_vcpu_run(v->vcpu, 5000))
        die("running the guest");
    if (v->run->exit_reason != FAKEHYP_EXIT_HYPERCALL || v->run->hypercall.nr != nr) {
        printf("\nThe guest did not do what it should: exit %u, call 0x%llx\n", v->run->exit_reason,
               (unsigned long long)v->run->hypercall.nr);
        exit(1);
    }
}

static void close_vm(struct vmm *v)
{
    fakehyp_unmap(v->fh, v->view, PAGES * PAGE);
    if (fakehyp_vm_destroy(v->vm))
        die("destroying the VM");
    fakehyp_gmem_close(v->gmem);
}

static void private_memory(struct vmm *v)
{
    char out[8192];
    void *addr = NULL;
    int code = 0;

    chapter("The image becomes private");
    if (fakehyp_convert(v->gmem, 0, PAGES * PAGE, FAKEHYP_PRIVATE, NULL))
        die("converting to private");
    say(VOICE_VMM, "KVM_SET_MEMORY_ATTRIBUTES2(offset 0, size 0x%llx, PRIVATE) = 0",
        (unsigned long long)(PAGES * PAGE));
    say(VOICE_VMM, "load from %p, which it could read a moment ago", (void *)v->view);
    enum fakehyp_touch touch = fakehyp_touch_read(v->view, NULL, &addr, &code);
    say(VOICE_EL1, "SIGBUS, si_code %d (BUS_ADRERR), si_addr %p", code, addr);
    shown(touch == FAKEHYP_TOUCH_SIGBUS && addr == v->view && code == BUS_ADRERR, "the VMM's load from a private page",
          "SIGBUS at the exact address");

    int fds[2];
    if (pipe(fds))
        die("pipe");
    ssize_t n = write(fds[1], v->view, 16);
    int error = n < 0 ? errno : 0;
    say(VOICE_VMM, "write(2) with the page as buffer: %s", n < 0 ? strerrorname_np(error) : "bytes!");
    shown(n < 0 && error == EFAULT, "system call on a private page", "%s", error ? strerrorname_np(error) : "no error");
    close(fds[0]);
    close(fds[1]);

    chapter("A host process without a handler touches it");
    char *argv[] = {(char *)"fakehyp-demo", (char *)"--victim", NULL};
    int status = run(argv, fakehyp_gmem_fd(v->gmem), out, sizeof(out));
    quote(out);
    say(VOICE_STAGE, "It died of signal %d (%s).", WTERMSIG(status), strsignal(WTERMSIG(status)));
    shown(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "stray access of another process", "died of SIGBUS");
    static const char *const told[] = {" touched private guest memory at 0x",
                                       "123\n", /* the address, to the byte */
                                       "place: offset 0x1123 of guest_memfd ",
                                       "IPA 0x1000 of VM ",
                                       "state: private for ",
                                       "owner: host",
                                       "last conversion: to private by ",
                                       "thread: ",
                                       "PC 0x"};
    const char *missing = NULL;
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]) && !missing; i++)
        missing = strstr(out, told[i]) ? NULL : told[i];
    shown(!missing, "the stray access is explained", "%s%s",
          missing ? "it does not say: " : "address, page, owner, last conversion, thread", missing ? missing : "");
    show_page(v, PAGE);
}

static void sharing(struct vmm *v)
{
    chapter("The guest runs on its private memory");
    run_until(v, DEMO_IMAGE_READ);
    say(VOICE_GUEST, "reads the image at IPA 0: %s", v->run->hypercall.args[0] ? "it is what the VMM loaded" : "WRONG");
    shown(v->run->hypercall.args[0] == 1, "guest reads the image that became private", "contents kept, in place");

    chapter("The guest shares one page");
    run_until(v, MEM_SHARE);
    say(VOICE_GUEST, "writes \"%s\" at IPA 0x%llx, then HVC MEM_SHARE (0xC6000003)", answer,
        (unsigned long long)ANSWER_GPA);
    json_t *shared = page(v, ANSWER_GPA);
    json_int_t before = json_integer_value(json_object_get(shared, "pfn"));
    say(VOICE_EL2, "guest's leaf is %s now, the host's state of the page %s; exit to the VMM",
        json_string_value(json_object_get(shared, "guest_state")),
        json_string_value(json_object_get(shared, "host_state")));
    json_decref(shared);
    if (fakehyp_convert(v->gmem, ANSWER_GPA, PAGE, FAKEHYP_SHARED, NULL))
        die("converting to shared");
    json_int_t after = pfn_of(v, ANSWER_GPA);
    bool same = !strcmp(v->view + ANSWER_GPA, answer);
    say(VOICE_VMM, "converts it to shared and reads at the same address %p: \"%.32s\"", (void *)(v->view + ANSWER_GPA),
        v->view + ANSWER_GPA);
    say(VOICE_EL1, "PFN 0x%llx before, 0x%llx after", (unsigned long long)before, (unsigned long long)after);
    shown(same, "VMM reads the shared page at the same address", "\"%s\"", answer);
    shown(before == after && before, "same PFN before and after", "0x%llx", (unsigned long long)after);
    shown(fakehyp_touch_read(v->view + PAGE, NULL, NULL, NULL) == FAKEHYP_TOUCH_SIGBUS, "its private neighbour",
          "SIGBUS");
}

static void consent(struct vmm *v)
{
    struct fakehyp_pin *pin;
    struct fakehyp_holder holder = {0};
    uint64_t error_offset = 0;

    chapter("The guest wants the page back while the VMM holds a pin (consent mode)");
    if (fakehyp_pin(v->gmem, ANSWER_GPA, PAGE, FAKEHYP_FOLL_PIN, "virtio-blk", &pin))
        die("pinning the shared page");
    say(VOICE_VMM, "pin_user_pages(FOLL_PIN) for \"virtio-blk\"");
    run_until(v, MEM_UNSHARE);
    say(VOICE_GUEST, "HVC MEM_UNSHARE (0xC6000004); EL2 asks the host");
    int rc = fakehyp_convert(v->gmem, ANSWER_GPA, PAGE, FAKEHYP_PRIVATE, &error_offset);
    size_t nr = fakehyp_last_holders(&holder, 1);
    say(VOICE_EL1, "convert to private: %s, error_offset 0x%llx, held by %s (%s)", rc ? strerrorname_np(-rc) : "0",
        (unsigned long long)error_offset, nr ? holder.what : "?", nr ? holder.kind : "?");
    shown(rc == -EAGAIN && error_offset == ANSWER_GPA, "conversion of a pinned page", "EAGAIN at 0x%llx",
          (unsigned long long)error_offset);
    shown(nr && !strcmp(holder.what, "virtio-blk"), "the refusal names the holder", "%s, %s", holder.what, holder.kind);
    run_until(v, DEMO_UNSHARED);
    say(VOICE_GUEST, "MEM_UNSHARE returned %lld (INVALID_PARAMETER); it may retry",
        (long long)(int64_t)v->run->hypercall.args[0]);
    shown((int64_t)v->run->hypercall.args[0] == -3, "the guest is refused", "INVALID_PARAMETER");

    fakehyp_unpin(pin);
    say(VOICE_VMM, "unpins; the guest tries again");
    run_until(v, MEM_UNSHARE);
    rc = fakehyp_convert(v->gmem, ANSWER_GPA, PAGE, FAKEHYP_PRIVATE, NULL);
    run_until(v, DEMO_UNSHARED);
    say(VOICE_GUEST, "MEM_UNSHARE returned %lld", (long long)(int64_t)v->run->hypercall.args[0]);
    shown(!rc && !v->run->hypercall.args[0], "unpinned, it succeeds", "convert 0, MEM_UNSHARE 0");
    shown(fakehyp_touch_read(v->view + ANSWER_GPA, NULL, NULL, NULL) == FAKEHYP_TOUCH_SIGBUS, "the VMM's next touch",
          "SIGBUS");
}

static void unilateral(struct vmm *v)
{
    static int once;
    struct fakehyp_pin *pin;
    char buf[64] = "";
    int fds[2];

    chapter("The same in unilateral mode (upstream pKVM): the guest wins at once");
    create(v, FAKEHYP_UNSHARE_UNILATERAL, "demo-unilateral", &once);
    if (fakehyp_convert(v->gmem, 0, PAGES * PAGE, FAKEHYP_PRIVATE, NULL))
        die("converting to private");
    run_until(v, DEMO_IMAGE_READ);
    run_until(v, MEM_SHARE);
    if (fakehyp_convert(v->gmem, ANSWER_GPA, PAGE, FAKEHYP_SHARED, NULL))
        die("converting to shared");
    if (pipe(fds) || fakehyp_pin(v->gmem, ANSWER_GPA, PAGE, FAKEHYP_FOLL_GET, "vmsplice", &pin))
        die("pinning the shared page");
    struct iovec iov = {.iov_base = v->view + ANSWER_GPA, .iov_len = sizeof(answer)};
    ssize_t held = vmsplice(fds[1], &iov, 1, 0);
    say(VOICE_VMM, "vmsplice()s the shared page into a pipe: a real reference to the real page");
    run_until(v, MEM_UNSHARE);
    bool refused = fakehyp_touch_read(v->view + ANSWER_GPA, NULL, NULL, NULL) == FAKEHYP_TOUCH_SIGBUS;
    say(VOICE_EL2, "MEM_UNSHARE committed before the host was told; the VMM's touch: %s",
        refused ? "SIGBUS" : "still readable");
    run_until(v, DEMO_UNSHARED);
    say(VOICE_GUEST, "MEM_UNSHARE returned %lld; it writes a secret into the page",
        (long long)(int64_t)v->run->hypercall.args[0]);
    shown(refused && !v->run->hypercall.args[0], "unilateral MEM_UNSHARE with a pin held", "guest wins at once");
    ssize_t n = held > 0 ? read(fds[0], buf, sizeof(buf) - 1) : -1;
    say(VOICE_VMM, "drains the pipe: \"%s\": the old page, which is no guest memory any more", n > 0 ? buf : "");
    shown(n == (ssize_t)sizeof(answer) && !strcmp(buf, answer), "what the old reference still shows",
          "bytes of before, no secret");
    fakehyp_unpin(pin);
    close(fds[0]);
    close(fds[1]);
    close_vm(v);
}

static void audit(struct vmm *v)
{
    char out[8192];
    char *argv[] = {(char *)"fakehypctl", (char *)"audit", NULL};
    chapter("The kernel's truth");
    say(VOICE_STAGE, "$ fakehypctl audit");
    int status = run(argv, -1, out, sizeof(out));
    quote(out);
    (void)v;
    shown(!status, "audit: bytes are where the tables say", "exit status %d", WEXITSTATUS(status));
}

/* Also in a signal handler.  The daemon ends at the same time, and for a moment makes its lock file again. */
static void tidy_up(void)
{
    const struct timespec moment = {.tv_nsec = 5000000};
    for (int i = 0; i < 400; i++) {
        unlink(socket_path);
        unlink(lock_path);
        if (!rmdir(run_dir) || errno != ENOTEMPTY)
            break;
        nanosleep(&moment, NULL);
    }
}

static void on_signal(int sig)
{
    tidy_up();
    _exit(128 + sig);
}

int main(int argc, char **argv)
{
    static int again = 1;
    struct vmm v = {0};

    if (argc > 1 && !strcmp(argv[1], "--victim"))
        return victim();
    if (argc == 3 && !strcmp(argv[1], "--trace")) {
        trace_file = argv[2];
    } else if (argc > 1) {
        printf(
            "usage: fakehyp-demo [--trace FILE]\nPlays the main job of fakehyp with real processes and narrates it.\n"
            "With --trace the daemon's events are in FILE, for fakehypctl trace --svg and fakehypctl check.\n");
        return strcmp(argv[1], "--help") ? 2 : 0;
    }
    ssize_t n = readlink("/proc/self/exe", bin_dir, sizeof(bin_dir) - 1);
    if (n < 0 || !mkdtemp(run_dir)) {
        perror("fakehyp-demo");
        return 1;
    }
    bin_dir[n] = '\0';
    *strrchr(bin_dir, '/') = '\0';
    snprintf(socket_path, sizeof(socket_path), "%s/fakehypd.sock", run_dir);
    snprintf(lock_path, sizeof(lock_path), "%s.lock", socket_path);
    setenv("FAKEHYP_SOCKET", socket_path, 1);
    atexit(tidy_up);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, on_signal);

    printf("fakehyp %s: guest private memory on real processes, without a hypervisor\n", fakehyp_version());
    chapter("A daemon plays EL2 and the memory half of the host kernel; this process is the VMM");
    say(VOICE_STAGE, "$ fakehypd --socket %s --terminate --daemon", socket_path);
    start_daemon();
    if (fakehyp_connect(socket_path, &v.fh))
        die("connecting to fakehypd");
    create(&v, FAKEHYP_UNSHARE_CONSENT, "demo", &again);
    say(VOICE_VMM, "guest_memfd of %u pages, mapped at %p, bound at IPA 0; guest is process %d", PAGES, (void *)v.view,
        (int)fakehyp_guest_pid(v.vm));
    say(VOICE_VMM, "loads the image with plain stores: \"%s\"", v.view);
    shown(!strcmp(v.view, image), "VMM maps shared guest memory and loads an image", "plain loads and stores");

    private_memory(&v);
    sharing(&v);
    consent(&v);
    show_page(&v, ANSWER_GPA);
    audit(&v);
    close_vm(&v);
    unilateral(&v);

    bool ok = summary();
    fakehyp_disconnect(v.fh);
    return ok ? 0 : 1;
}
