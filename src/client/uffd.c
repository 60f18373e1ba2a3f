/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "src/kernel/kernel.h"

#define UFFD_FLAGS (O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)

int fh_uffd_open(uint64_t features, uint64_t wished)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features | wished};
    int fd = kernel_userfaultfd(UFFD_FLAGS);

    if (fd < 0) {
        int err = errno;
        /* Not the system call is refused, but one more descriptor. */
        if (err == EMFILE || err == ENFILE || err == ENOMEM)
            return fh_fail(-err, "userfaultfd(): %s%s", strerror(err),
                           err == EMFILE ? ": close some, or raise the limit (ulimit -n)" : "");
        /* Containers' seccomp profiles refuse the system call but may let the device through. */
        fd = kernel_userfaultfd_device(UFFD_FLAGS);
        if (fd < 0)
            return fh_fail(-EPERM,
                           "userfaultfd() is refused (%s); in a container allow it in the seccomp profile or pass "
                           "/dev/userfaultfd in, elsewhere the kernel needs CONFIG_USERFAULTFD (Linux 5.11 or later)",
                           strerror(err));
    }
    int rc = kernel_uffdio_api(fd, &api);
    if (rc && errno == EINVAL && wished) {
        api = (struct uffdio_api){.api = UFFD_API, .features = features};
        rc = kernel_uffdio_api(fd, &api);
    }
    if (rc) {
        int err = errno;
        close(fd);
        return fh_fail(err == EINVAL ? -EOPNOTSUPP : -err,
                       "this kernel's userfaultfd lacks features %#llx (shared memory, Linux 5.13 or later)",
                       (unsigned long long)features);
    }
    return fd;
}

static int failure(const char *what, int err)
{
    if (err == ENOMEM)
        return fh_fail(-ENOMEM,
                       "%s: this process has as many mappings as vm.max_map_count allows (or no memory): raise it with "
                       "sysctl -w vm.max_map_count=N",
                       what);
    return fh_fail(-err, "%s: %s", what, strerror(err));
}

int fh_uffd_register(int uffd, uintptr_t addr, size_t length, uint64_t mode)
{
    struct uffdio_register reg = {.range = {.start = addr, .len = length}, .mode = mode};

    return ioctl(uffd, UFFDIO_REGISTER, &reg) ? failure("UFFDIO_REGISTER", errno) : 0;
}

int fh_uffd_unregister(int uffd, uintptr_t addr, size_t length)
{
    struct uffdio_range range = {.start = addr, .len = length};

    return ioctl(uffd, UFFDIO_UNREGISTER, &range) ? failure("UFFDIO_UNREGISTER", errno) : 0;
}
