/* SPDX-License-Identifier: BSD-2-Clause */
/* Each way to open a userfaultfd, and what it offers. */
#include "src/fakehypctl/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "src/kernel/kernel.h"

static int handshake(int fd, uint64_t features, uint64_t *offered)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};

    if (kernel_uffdio_api(fd, &api))
        return -errno;
    if (offered)
        *offered = api.features;
    return 0;
}

static int open_user_mode(void)
{
    return kernel_userfaultfd(O_CLOEXEC | UFFD_USER_MODE_ONLY);
}

/* Why user mode, which no setting forbids, is refused. */
static void explain_refusal(struct probe_result *r)
{
    int err = errno;

    switch (err) {
    case EPERM:
        probe_fail(r, "refused by a sandbox (%s)", strerror(err));
        probe_remedy_sandbox(r);
        break;
    case ENOSYS:
        probe_fail(r, "not in this kernel, or hidden by a sandbox (%s)", strerror(err));
        probe_remedy_sandbox(r);
        break;
    case EINVAL:
        probe_fail(r, "the kernel is older than 5.11 (%s)", strerror(err));
        break;
    default:
        probe_fail_errno(r, "userfaultfd");
    }
}

int probe_uffd_open(struct probe_result *r, uint64_t features)
{
    int fd = open_user_mode(), err;

    if (fd < 0) {
        explain_refusal(r);
        return -1;
    }
    err = handshake(fd, features, NULL);
    if (err) {
        probe_fail(r, "UFFDIO_API: %s", strerror(-err));
        close(fd);
        return -1;
    }
    return fd;
}

void probe_uffd_user_mode(struct probe_result *r, const struct probe_arg *arg)
{
    int fd = open_user_mode(), err;

    if (fd < 0) {
        explain_refusal(r);
        return;
    }
    err = handshake(fd, 0, NULL);
    if (err)
        probe_fail(r, "opened, but UFFDIO_API: %s", strerror(-err));
    else
        probe_ok(r, "opened: no privilege needed");
    close(fd);
}

void probe_uffd_full(struct probe_result *r, const struct probe_arg *arg)
{
    int fd = kernel_userfaultfd(O_CLOEXEC);

    if (fd >= 0) {
        probe_ok(r, "opened%s", geteuid() ? "" : " as root");
        close(fd);
        return;
    }
    probe_fail(r, "%s; user mode is enough", strerror(errno));
    if (geteuid())
        probe_remedy(r, "sudo sysctl -w vm.unprivileged_userfaultfd=1");
    else
        probe_remedy_sandbox(r);
}

void probe_uffd_device(struct probe_result *r, const struct probe_arg *arg)
{
    int fd = kernel_userfaultfd_device(O_CLOEXEC), err = errno;

    if (fd >= 0) {
        probe_ok(r, "opened%s", geteuid() ? "" : " as root");
        close(fd);
        return;
    }
    probe_fail(r, "%s; user mode is enough", strerror(err));
    if (err == EACCES)
        probe_remedy(r, "sudo chown $USER /dev/userfaultfd");
}

void probe_uffd_sysctl(struct probe_result *r, const struct probe_arg *arg)
{
    FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
    int value;

    if (!f || fscanf(f, "%d", &value) != 1)
        probe_info(r, "not in this kernel");
    else
        probe_info(r, "%d: users may have %s; user mode is enough", value,
                   value ? "faults of the kernel too" : "user mode only");
    if (f)
        fclose(f);
}

void probe_uffd_feature(struct probe_result *r, const struct probe_arg *arg)
{
    uint64_t offered = 0;
    int fd = open_user_mode(), err;

    if (fd < 0) {
        explain_refusal(r);
        return;
    }
    err = handshake(fd, 0, &offered);
    close(fd);
    if (err) {
        probe_fail(r, "UFFDIO_API: %s", strerror(-err));
    } else if (offered & arg->number) {
        probe_ok(r, "offered");
    } else {
        probe_fail(r, "not offered by this kernel on this machine");
    }
}
