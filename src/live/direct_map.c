/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The direct map: EL1's own mapping of the shared files.
 *
 * Registered like a host process's view, so a load from a private page really
 * faults: no window has to be opened or closed, and no VMA is spent on a
 * scattered page.
 */
#include "src/live/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/kernel/kernel.h"

static sigjmp_buf guard;
static volatile sig_atomic_t guarded;

static void on_fault(int sig)
{
    if (guarded)
        siglongjmp(guard, 1);
    /* Not ours: the default action at the next execution of the instruction. */
    signal(sig, SIG_DFL);
}

int direct_map_open(struct live *live)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM};
    int fd = kernel_userfaultfd(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0)
        return -errno;
    if (kernel_uffdio_api(fd, &api)) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    live->direct_map_uffd = fd;
    return 0;
}

static int map(struct live_file *f)
{
    struct live *live = f->live;
    size_t bytes = f->mfile->nr_pages * PAGE;
    int rc;
    if (f->direct_map)
        return 0;
    char *p = mmap(NULL, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, f->shared_fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    struct uffdio_register reg = {.range = {.start = (uint64_t)(uintptr_t)p, .len = bytes},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (madvise(p, bytes, MADV_NOHUGEPAGE) || ioctl(live->direct_map_uffd, UFFDIO_REGISTER, &reg) ||
        mprotect(p, bytes, PROT_READ | PROT_WRITE)) {
        rc = -errno;
        munmap(p, bytes);
        return rc;
    }
    f->direct_map = p;
    return 0;
}

/* A load that may fault. */
static int load(void *buf, const char *from, size_t length)
{
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER}, old_bus, old_segv;
    volatile int rc = 0;

    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &old_bus);
    sigaction(SIGSEGV, &action, &old_segv);
    if (sigsetjmp(guard, 1)) {
        rc = -EFAULT;
    } else {
        guarded = 1;
        memcpy(buf, from, length);
    }
    guarded = 0;
    sigaction(SIGBUS, &old_bus, NULL);
    sigaction(SIGSEGV, &old_segv, NULL);
    return rc;
}

static int populate(char *from, size_t bytes)
{
    char byte;

    if (!kernel_populate_read(from, bytes))
        return 0;
    /* EINVAL: Linux before 5.14. */
    int rc = errno == EINVAL ? 0 : -errno;
    for (size_t at = 0; !rc && at < bytes; at += PAGE)
        rc = load(&byte, from + at, 1);
    return rc;
}

int direct_map_touch(struct live_file *f, uint64_t start, uint64_t end)
{
    int rc = map(f);
    while (!rc && start < end) {
        uint64_t past = end - start > SLICE_PAGES ? start + SLICE_PAGES : end;
        rc = populate(f->direct_map + start * PAGE, (past - start) * PAGE);
        start = past;
        if (!rc && start < end)
            sched_relax();
    }
    return rc;
}

int live_direct_map_load(struct live *live, struct gmem *gmem, uint64_t offset, void *buf, size_t length)
{
    struct live_file *f = machine_file(gmem)->stage;

    (void)live;
    if (offset / PAGE >= f->mfile->nr_pages || length > f->mfile->nr_pages * PAGE - offset)
        return -EINVAL;
    int rc = map(f);
    /* EL1 knows which shared pages have no bytes yet; the hardware would show it a zero page. */
    for (uint64_t at = offset / PAGE; !rc && at <= (offset + length - 1) / PAGE; at++)
        if (!mmu_side(f->mfile, at).private)
            rc = fd_allocate(f->shared_fd, at, at + 1);
    return rc ? rc : load(buf, f->direct_map + offset, length);
}

int live_kernel_load(struct live *live, uint64_t pfn, bool fixup, void *buf, size_t length)
{
    const struct host_access access = {.pfn = pfn, .el1 = true, .fixup = fixup};
    struct host *host = machine_host(live->machine);

    for (;;) {
        struct s2_walk walk;
        struct gmem *gmem;
        uint64_t index;
        if (!host_frame_slot(host, pfn, &gmem, &index) || length > PAGE)
            return -EINVAL;
        if (host_access_is_fatal(host, pfn))
            return -EPERM;
        int rc = live_direct_map_load(live, gmem, index * PAGE, buf, length);
        if (rc != -EFAULT)
            return rc;
        mmu_walk_host(live->machine, pfn, &walk);
        /* Stage 2 has nothing against it: the page is private by attribute only, which the kernel's own map is not. */
        if (walk.valid)
            return live_read(live, machine_file(gmem), false, index * PAGE, buf, length);
        /* What EL2 changes takes its time, and the file's owner may close it meanwhile. */
        gmem_get(gmem);
        enum host_abort_end end = machine_host_abort(live->machine, &access);
        gmem_put(gmem);
        if (end != HOST_ABORT_RETRY)
            return end == HOST_ABORT_FIXUP ? -EFAULT : -EPERM;
    }
}
