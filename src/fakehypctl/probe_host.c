/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel, other processes, and who else is here. */
#include "src/fakehypctl/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fakehyp/fakehyp.h>

#include "src/kernel/kernel.h"

/* UFFDIO_CONTINUE for shmem came with 5.14; all else that is needed is older. */
#define MIN_MAJOR 5u
#define MIN_MINOR 14u

void probe_kernel(struct probe_result *r, const struct probe_arg *arg)
{
    unsigned major, minor;
    struct utsname u;

    if (uname(&u) || sscanf(u.release, "%u.%u", &major, &minor) != 2) {
        probe_fail(r, "uname tells no version");
        return;
    }
    if (major > MIN_MAJOR || (major == MIN_MAJOR && minor >= MIN_MINOR)) {
        probe_ok(r, "%s %s %s", u.sysname, u.release, u.machine);
        return;
    }
    probe_fail(r, "%s %s; %u.%u or later is needed", u.sysname, u.release, MIN_MAJOR, MIN_MINOR);
}

void probe_mask(struct probe_result *r, const struct probe_arg *arg)
{
    if (kernel_mask_error()) {
        probe_fail(r, "the list is wrong: nothing can run");
        probe_remedy(r, "%s", kernel_mask_error());
    } else if (*kernel_hidden()) {
        probe_info(r, "hidden: %s", kernel_hidden());
    } else {
        probe_info(r, "nothing is hidden");
    }
}

void probe_pidfd_open(struct probe_result *r, const struct probe_arg *arg)
{
    struct pollfd pfd = {.events = POLLIN};
    pid_t pid = fork();

    if (pid < 0) {
        probe_fail_errno(r, "fork");
        return;
    }
    if (!pid) {
        pause();
        _exit(0);
    }
    pfd.fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pfd.fd < 0)
        probe_fail_errno(r, "pidfd_open");
    kill(pid, SIGKILL);
    if (pfd.fd >= 0) {
        if (poll(&pfd, 1, 1000) == 1)
            probe_ok(r, "readable when its process ends");
        else
            probe_fail(r, "not readable when its process ends");
    }
    waitpid(pid, NULL, 0);
}

void probe_process_vm_readv(struct probe_result *r, const struct probe_arg *arg)
{
    static volatile char secret[] = "x";
    char got = 0;
    struct iovec local = {&got, 1}, remote = {(void *)secret, 1};
    pid_t pid = fork();
    ssize_t n;

    if (pid < 0) {
        probe_fail_errno(r, "fork");
        return;
    }
    if (!pid) {
        pause();
        _exit(0);
    }
    n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (n == 1 && got == 'x') {
        probe_ok(r, "reads a child's memory");
    } else {
        int err = errno;

        probe_fail_errno(r, "process_vm_readv of a child");
        if (err == EPERM)
            probe_remedy(r, "%ssysctl -w kernel.yama.ptrace_scope=1", probe_sudo());
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void probe_dev_kvm(struct probe_result *r, const struct probe_arg *arg)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    probe_info(r, "%s; not needed", fd >= 0 ? "can be opened" : errno == ENOENT ? "not here" : "not accessible");
    if (fd >= 0)
        close(fd);
}

static void describe_daemon(struct probe_result *r, const char *path, const char *text)
{
    json_t *answer = json_loads(text, 0, NULL);
    const char *version = json_string_value(json_object_get(answer, "version"));
    const char *stage = json_string_value(json_object_get(answer, "stage"));

    if (version && stage)
        probe_info(r, "fakehypd %s, stage %s, at %s", version, stage, path);
    else
        probe_info(r, "at %s, but its answer makes no sense", path);
    json_decref(answer);
}

void probe_daemon(struct probe_result *r, const struct probe_arg *arg)
{
    struct fakehyp *fh;
    char *text;
    int err;

    err = fakehyp_connect(arg->text, &fh);
    if (err == -ENOENT || err == -ECONNREFUSED) {
        probe_info(r, "none at %s", arg->text);
        return;
    }
    if (err) {
        probe_info(r, "not usable at %s: %s", arg->text, strerror(-err));
        return;
    }
    err = fakehyp_query(fh, "capabilities", NULL, 0, &text);
    if (err) {
        probe_info(r, "at %s, but it does not answer: %s", arg->text, strerror(-err));
    } else {
        describe_daemon(r, arg->text, text);
        free(text);
    }
    fakehyp_disconnect(fh);
}
