/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ways around the boundary by way of processes: children of every kind, programs
 * that inherit, programs that look into others.
 */
#include "tests/common/live_escape.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/common/live_guard.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

extern char **environ;

/* ---- children ------------------------------------------------------------------------------------------------------
 */

static void child_of_fork(struct escape *e)
{
    pid_t pid = fork();

    if (pid == 0) {
        escape_look(e, e->view);
        _exit(0);
    }
    escape_wait(e, pid);
}

/* Past libc, and so past the library's fork handlers. */
static void bare_clone(struct escape *e)
{
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

    if (pid == 0) {
        escape_look(e, e->view);
        _exit(0);
    }
    escape_wait(e, pid);
}

static void bare_clone_dofork(struct escape *e)
{
    if (madvise(e->view, ESCAPE_BYTES, MADV_DOFORK))
        escape_broken(e, "MADV_DOFORK");
    bare_clone(e);
}

static const char *fork_of_tsan(void)
{
#ifdef __SANITIZE_THREAD__
    return "ThreadSanitizer takes each clone() for a fork";
#else
    return NULL;
#endif
}

static int look_in_clone(void *arg)
{
    struct escape *e = arg;
    escape_look(e, e->view);
    return 0;
}

static void clone_with(struct escape *e, int flags)
{
    static char stack[256 * 1024] __attribute__((aligned(16)));
    escape_wait(e, clone(look_in_clone, stack + sizeof(stack), flags | SIGCHLD, e));
}

static void clone_vm(struct escape *e)
{
    clone_with(e, CLONE_VM);
}

static void clone_vm_files(struct escape *e)
{
    clone_with(e, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_IO);
}

static void child_of_vfork(struct escape *e)
{
    clone_with(e, CLONE_VM | CLONE_VFORK);
}

/* ---- other programs -------------------------------------------------------------------------------------------------
 */

/* How a program of ours that was executed found the file: exit status. */
enum { LOOKER_READ = 10, LOOKER_BARRED, LOOKER_SECRET };

/* exec() leaves no mapping of the program before. */
static bool has_mapping(const char *what)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[300];
    bool found = false;

    while (maps && !found && fgets(line, sizeof(line), maps))
        found = strstr(line, what);
    if (maps)
        fclose(maps);
    return found;
}

/*
 * The program that is executed: looks through the descriptor fd, or any that is
 * a guest_memfd, and with none of them where the view was.
 */
static int looker_main(int fd, const uint8_t *view)
{
    uint64_t copy[PAGE / 8];

    if (fd < 0)
        fd = escape_find_fd("guest_memfd:");
    const uint8_t *p = fd < 0 ? MAP_FAILED : mmap(NULL, ESCAPE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    bool mapped = p != MAP_FAILED || has_mapping("guest_memfd:");

    guard_install();
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        int sig = guard_copy(copy, (p == MAP_FAILED ? view : p) + escape_page(i) * PAGE, PAGE / 8);
        /* What else is at the address is this program's own. */
        if (!sig && mapped && arena_find_secret(copy, PAGE) >= 0)
            return LOOKER_SECRET;
    }
    return mapped ? LOOKER_READ : LOOKER_BARRED;
}

/* It has tried each page. */
static void count_looker(struct escape *e, pid_t pid)
{
    static const uint8_t secret = 0xff, nothing = 0;
    int status;

    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        escape_broken(e, "the program that was executed");
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        if (WEXITSTATUS(status) == LOOKER_READ)
            escape_saw(e, escape_page(i), &nothing, 1);
        else if (WEXITSTATUS(status) == LOOKER_SECRET)
            escape_saw(e, escape_page(i), &secret, 1);
        else if (WEXITSTATUS(status) == LOOKER_BARRED)
            escape_barred(e);
        else
            escape_broken(e, "the program that was executed failed");
    }
}

struct looker_args {
    char word[8], fd[16], view[24];
    char *argv[5];
};

/* fd: as the program has it; -1 for none. */
static void looker_args(const struct escape *e, struct looker_args *args, int fd)
{
    strcpy(args->word, "--look");
    snprintf(args->fd, sizeof(args->fd), "%d", fd);
    snprintf(args->view, sizeof(args->view), "%" PRIxPTR, (uintptr_t)e->view);
    args->argv[0] = args->argv[1] = args->word;
    args->argv[2] = args->fd;
    args->argv[3] = args->view;
    args->argv[4] = NULL;
}

static void spawn_looker(struct escape *e, bool give)
{
    const int theirs = 100;
    struct looker_args args;
    posix_spawn_file_actions_t files;
    pid_t pid = -1;

    looker_args(e, &args, give ? theirs : -1);
    posix_spawn_file_actions_init(&files);
    if (give)
        posix_spawn_file_actions_adddup2(&files, e->fd, theirs);
    if (posix_spawn(&pid, "/proc/self/exe", &files, NULL, args.argv, environ))
        pid = -1;
    posix_spawn_file_actions_destroy(&files);
    count_looker(e, pid);
}

static void spawned(struct escape *e)
{
    spawn_looker(e, false);
}

static void spawned_with_descriptor(struct escape *e)
{
    spawn_looker(e, true);
}

static void exec_looker(struct escape *e, bool give)
{
    struct looker_args args;

    looker_args(e, &args, give ? e->fd : -1);
    pid_t pid = fork();
    if (pid == 0) {
        if (give)
            fcntl(e->fd, F_SETFD, 0);
        execv("/proc/self/exe", args.argv);
        _exit(1);
    }
    count_looker(e, pid);
}

static void executed(struct escape *e)
{
    exec_looker(e, false);
}

static void executed_with_descriptor(struct escape *e)
{
    exec_looker(e, true);
}

/* ---- the descriptor in other hands ----------------------------------------------------------------------------------
 */

static void scm_rights(struct escape *e)
{
    int socks[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
        escape_broken(e, "socketpair");
    pid_t pid = fork();
    if (pid == 0) {
        close(e->fd);
        int fd = rig_receive_fd(socks[1]);
        escape_look_bare(e, fd);
        _exit(fd < 0);
    }
    rig_send_fd(socks[0], e->fd);
    escape_wait(e, pid);
    close(socks[0]);
    close(socks[1]);
}

static void pidfd_taken(struct escape *e)
{
    pid_t parent = getpid();

    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    pid_t pid = fork();
    if (pid == 0) {
        int pidfd = pidfd_open(parent, 0);
        int fd = (int)syscall(SYS_pidfd_getfd, pidfd, e->fd, 0);
        if (fd < 0)
            escape_barred(e);
        else
            escape_look_bare(e, fd);
        _exit(0);
    }
    escape_wait(e, pid);
}

static void reopened(struct escape *e)
{
    char path[40];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", e->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        escape_barred(e);
    else
        escape_look_bare(e, fd);
    close(fd);
}

static void map_files(struct escape *e)
{
    char path[80], line[300];
    unsigned long start, end;
    FILE *maps = fopen("/proc/self/maps", "re");
    int fd = -1;

    /* The first mapping of the view: it is cut where registration changes. */
    while (maps && fd < 0 && fgets(line, sizeof(line), maps)) {
        if (!strstr(line, "guest_memfd:") || sscanf(line, "%lx-%lx", &start, &end) != 2)
            continue;
        snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start, end);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            break;
    }
    if (maps)
        fclose(maps);
    if (fd < 0) {
        escape_barred(e);
        return;
    }
    escape_look_bare(e, fd);
    close(fd);
}

/* Of a mapping that is there, this program's first: without one the answer is ENOENT for everybody. */
static const char *no_map_files(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned long start = 0, end = 0;
    char path[80];

    if (!maps || fscanf(maps, "%lx-%lx", &start, &end) != 2)
        start = end = 0;
    if (maps)
        fclose(maps);
    snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start, end);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EPERM ? "CAP_CHECKPOINT_RESTORE is needed" : NULL;
}

#define LOOKS_AFTER_CLOSE 64u

static void every_descriptor(struct escape *e)
{
    rig_sleep_ms(0);
    if (syscall(SYS_close_range, 3u, ~0u, 0u))
        escape_broken(e, "close_range");
    /* Not one a process: where many processes with threads end, Linux spins over their /proc. */
    for (unsigned i = 0; i < LOOKS_AFTER_CLOSE; i++)
        escape_look(e, e->view);
}

/* ---- one process looks into another --------------------------------------------------------------------------------
 */

static void remote_vm(struct escape *e)
{
    pid_t parent = getpid();

    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    pid_t pid = fork();
    if (pid == 0) {
        char buf[4096];
        for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
            uint64_t page = escape_page(i);
            struct iovec local = {buf, sizeof(buf)}, remote = {e->view + page * PAGE, PAGE};
            ssize_t n = process_vm_readv(parent, &local, 1, &remote, 1, 0);
            if (n > 0)
                escape_saw(e, page, buf, (size_t)n);
            else if (errno == EFAULT)
                escape_refused(e);
            else
                escape_barred(e);
            /* And a store: where it succeeds it is in a page that is shared. */
            local.iov_base = memset(buf, 0x11, sizeof(buf));
            local.iov_len = remote.iov_len = 64;
            remote.iov_base = e->view + page * PAGE + ARENA_SCRATCH;
            if (process_vm_writev(parent, &local, 1, &remote, 1, 0) > 0 && arena_is_secret(page))
                escape_broken(e, "process_vm_writev to a secret");
        }
        _exit(0);
    }
    escape_wait(e, pid);
}

static void proc_mem_of(struct escape *e, const char *who)
{
    char path[40], buf[4096];

    snprintf(path, sizeof(path), "/proc/%s/mem", who);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        escape_barred(e);
        return;
    }
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        uint64_t page = escape_page(i);
        off_t at = (off_t)(uintptr_t)(e->view + page * PAGE);
        ssize_t n = pread(fd, buf, sizeof(buf), at);
        if (n > 0)
            escape_saw(e, page, buf, (size_t)n);
        else
            escape_refused(e);
        memset(buf, 0x22, 64);
        if (pwrite(fd, buf, 64, at + ARENA_SCRATCH) > 0 && arena_is_secret(page))
            escape_broken(e, "a store through /proc/PID/mem reached a secret");
    }
    close(fd);
}

static void own_mem(struct escape *e)
{
    proc_mem_of(e, "self");
}

static void mem_of_parent(struct escape *e)
{
    char who[16];

    snprintf(who, sizeof(who), "%d", (int)getpid());
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    pid_t pid = fork();
    if (pid == 0) {
        proc_mem_of(e, who);
        _exit(0);
    }
    escape_wait(e, pid);
}

static void trace(struct escape *e, pid_t tracee)
{
    if (ptrace(PTRACE_SEIZE, tracee, NULL, NULL) || ptrace(PTRACE_INTERRUPT, tracee, NULL, NULL) ||
        waitpid(tracee, NULL, __WALL) != tracee) {
        escape_barred(e);
        return;
    }
    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        uint64_t page = escape_page(i);
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, tracee, e->view + page * PAGE, NULL);
        if (errno)
            escape_refused(e);
        else
            escape_saw(e, page, &word, sizeof(word));
        if (!ptrace(PTRACE_POKEDATA, tracee, e->view + page * PAGE + ARENA_SCRATCH, 0x33) && arena_is_secret(page))
            escape_broken(e, "PTRACE_POKEDATA reached a secret");
    }
    ptrace(PTRACE_DETACH, tracee, NULL, NULL);
}

static void traced(struct escape *e)
{
    pid_t parent = getpid();

    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    pid_t pid = fork();
    if (pid == 0) {
        trace(e, parent);
        _exit(0);
    }
    escape_wait(e, pid);
}

static void advised_from_outside(struct escape *e)
{
    static const int advice[] = {MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, MADV_COLLAPSE, MADV_DONTNEED};
    pid_t parent = getpid();

    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    pid_t pid = fork();
    if (pid == 0) {
        struct iovec all = {e->view, ESCAPE_BYTES}, huge = {e->view + ARENA_FLIP * PAGE, UINT64_C(2) << 20};
        int pidfd = pidfd_open(parent, 0);
        for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
            syscall(SYS_process_madvise, pidfd, &all, 1, advice[i], 0);
            syscall(SYS_process_madvise, pidfd, &huge, 1, advice[i], 0);
        }
        _exit(0);
    }
    escape_wait(e, pid);
    escape_look(e, e->view);
}

static const char *no_process_madvise(void)
{
    return syscall(SYS_process_madvise, -1, NULL, 0, 0, 0) && errno == ENOSYS ? "no process_madvise (Linux 5.10)"
                                                                              : NULL;
}

#define ZEROS "the process maps the file without the library and reads zeros; give it the library, or no descriptor"
#define NO_MAPPING "there is no mapping"
#define SAME_MEMORY "the same memory, and registered"
#define NO_DESCRIPTOR "the descriptor is close-on-exec"

static const struct escape_row rows[] = {
    ROW("fork", "the child touches the parent's views", CLOSED, NO_MAPPING, child_of_fork),
    ROW("bare clone", "SYS_clone without CLONE_VM, past libc", CLOSED, NO_MAPPING ": MADV_DONTFORK", bare_clone),
    ROW("bare clone after MADV_DOFORK", "the program takes MADV_DONTFORK back, then SYS_clone", DECLARED,
        "the child's copy of the view is not registered; do not undo the library's advice", bare_clone_dofork),
    ROW("vfork", "CLONE_VM and CLONE_VFORK", HARMLESS, SAME_MEMORY, child_of_vfork),
    ROW("clone with CLONE_VM", "a process in the same memory", HARMLESS, SAME_MEMORY, clone_vm,
        .missing = fork_of_tsan),
    ROW("clone with CLONE_VM, CLONE_FILES", "a thread that libc does not know", HARMLESS, SAME_MEMORY, clone_vm_files,
        .missing = fork_of_tsan),
    ROW("posix_spawn", "the new program looks for the descriptor, and where the view was", CLOSED, NO_DESCRIPTOR,
        spawned),
    ROW("posix_spawn with the descriptor", "it is handed over and mapped", DECLARED, ZEROS, spawned_with_descriptor),
    ROW("exec", "the new program looks for the descriptor, and where the view was", CLOSED, NO_DESCRIPTOR, executed),
    ROW("exec with the descriptor", "FD_CLOEXEC is cleared, the file mapped", DECLARED, ZEROS,
        executed_with_descriptor),
    ROW("close_range(3, ~0)", "closes the library's descriptors, then touches", DECLARED,
        "the userfaultfd is closed, the connection ends (ECONNRESET), the views read zeros; keep the library's "
        "descriptors out of it",
        every_descriptor, .fresh = true),
    ROW("SCM_RIGHTS", "to a process without the library", DECLARED, ZEROS, scm_rights, .bare = true),
    ROW("pidfd_getfd", "takes the descriptor out of another process", DECLARED, ZEROS, pidfd_taken),
    ROW("/proc/self/fd/N", "opened again and mapped", DECLARED, ZEROS, reopened, .bare = true),
    ROW("/proc/PID/map_files", "the view opened as a file and mapped", DECLARED, ZEROS, map_files,
        .missing = no_map_files),
    ROW("process_vm_readv, process_vm_writev", "on the views of another process", HARMLESS, "EFAULT", remote_vm),
    ROW("/proc/self/mem", "pread and pwrite on its own views", HARMLESS, "EIO", own_mem),
    ROW("/proc/PID/mem", "of another process", HARMLESS, "EIO", mem_of_parent),
    ROW("ptrace", "PEEKDATA and POKEDATA on the views of another process", HARMLESS, "EIO", traced),
    ROW("process_madvise", "COLD, PAGEOUT, WILLNEED, COLLAPSE, DONTNEED from outside", HARMLESS,
        "as madvise: what is refused stays refused", advised_from_outside, .missing = no_process_madvise),
};

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "--look"))
        return looker_main(atoi(argv[2]), (const uint8_t *)strtoul(argv[3], NULL, 16));
    return escape_main("processes", rows, sizeof(rows) / sizeof(rows[0]));
}
