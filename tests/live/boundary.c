/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A private page against every way in which a host process reaches memory:
 * each answers as the kernel's guest_memfd does (private and shared columns).
 */
#include "tests/common/live_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/futex.h>

#define NR 16u
/* In each test: page 0 and 1 are shared, all from page 2 on are private. */
#define SHARED_PAGE 0u
#define PRIVATE_PAGE 2u

struct file {
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    uint8_t *view;
};

static void open_file(struct file *f, void **state)
{
    void *view;

    f->fh = *state;
    must(fakehyp_vm_create(f->fh, NULL, &f->vm));
    must(fakehyp_gmem_create(f->vm, NR * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &f->gmem));
    must(fakehyp_map(f->gmem, NULL, NR * PAGE, PROT_READ | PROT_WRITE, 0, &view));
    f->view = view;
    memset(f->view, 'A', NR * PAGE);
    must(fakehyp_convert(f->gmem, PRIVATE_PAGE * PAGE, (NR - PRIVATE_PAGE) * PAGE, FAKEHYP_PRIVATE, NULL));
}

static void close_file(struct file *f)
{
    /* Whatever was tried: the bytes of the private pages are untouched. */
    must(fakehyp_convert(f->gmem, 0, NR * PAGE, FAKEHYP_SHARED, NULL));
    for (uint64_t i = PRIVATE_PAGE * PAGE; i < NR * PAGE; i++)
        if (f->view[i] != 'A')
            fail_msg("byte 0x%llx of a private page changed", (unsigned long long)i);
    must(fakehyp_unmap(f->fh, f->view, NR * PAGE));
    must(fakehyp_vm_destroy(f->vm));
    fakehyp_gmem_close(f->gmem);
}

#define SHARED (f.view + SHARED_PAGE * PAGE)
#define PRIVATE (f.view + PRIVATE_PAGE * PAGE)

/* The call's result, or the negative errno. */
#define result(call)                                                                                                   \
    ({                                                                                                                 \
        ssize_t result_n = (call);                                                                                     \
        result_n < 0 ? -(ssize_t)errno : result_n;                                                                     \
    })

static void touch(uint8_t *p, bool write, enum fakehyp_touch expected, int code)
{
    void *addr = NULL;
    int got = 0;
    uint8_t value = 0;
    enum fakehyp_touch end =
        write ? fakehyp_touch_write(p, 'A', &addr, &got) : fakehyp_touch_read(p, &value, &addr, &got);

    assert_int_equal(end, expected);
    if (expected == FAKEHYP_TOUCH_OK)
        return;
    assert_int_equal(got, code);
    assert_ptr_equal(addr, p);
}

/* ---- loads and stores ----------------------------------------------------------------------------------------------
 */

static void load_and_store(void **state)
{
    struct file f;

    open_file(&f, state);
    for (unsigned w = 0; w < 2; w++) {
        touch(SHARED, w, FAKEHYP_TOUCH_OK, 0);
        touch(SHARED + 2 * PAGE - 1, w, FAKEHYP_TOUCH_OK, 0);
        touch(PRIVATE, w, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
        touch(PRIVATE + 0x123, w, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
        touch(f.view + NR * PAGE - 1, w, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    }
    close_file(&f);
}

static void read_only_view(void **state)
{
    struct file f;
    void *view;

    open_file(&f, state);
    must(fakehyp_map(f.gmem, NULL, NR * PAGE, PROT_READ, 0, &view));
    uint8_t *p = view;
    touch(p, false, FAKEHYP_TOUCH_OK, 0);
    touch(p + PRIVATE_PAGE * PAGE, false, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    /* A store meets the VMA's protection first, on either kind of page. */
    touch(p, true, FAKEHYP_TOUCH_SIGSEGV, SEGV_ACCERR);
    touch(p + PRIVATE_PAGE * PAGE, true, FAKEHYP_TOUCH_SIGSEGV, SEGV_ACCERR);
    must(fakehyp_unmap(f.fh, view, NR * PAGE));
    close_file(&f);
}

static void past_the_end(void **state)
{
    struct file f;
    void *view;

    open_file(&f, state);
    must(fakehyp_convert(f.gmem, 0, NR * PAGE, FAKEHYP_SHARED, NULL));
    must(fakehyp_map(f.gmem, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, (NR - 2) * PAGE, &view));
    uint8_t *p = view;
    touch(p + PAGE, false, FAKEHYP_TOUCH_OK, 0);
    touch(p + 2 * PAGE + 5, false, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    touch(p + 3 * PAGE, true, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_int_equal(result(read(fd, p + 2 * PAGE, 16)), -EFAULT);
    close(fd);
    must(fakehyp_unmap(f.fh, view, 4 * PAGE));
    close_file(&f);
}

static void copies(void **state)
{
    struct file f;
    char buf[3 * 4096];

    open_file(&f, state);
    assert_int_equal(fakehyp_copy_from(buf, SHARED, 2 * PAGE), 2 * PAGE);
    assert_int_equal(buf[PAGE], 'A');
    assert_int_equal(fakehyp_copy_from(buf, SHARED + PAGE, 2 * PAGE), PAGE);
    assert_int_equal(fakehyp_copy_from(buf, PRIVATE, 8), -EFAULT);
    assert_int_equal(fakehyp_copy_to(PRIVATE, buf, 8), -EFAULT);
    assert_int_equal(fakehyp_copy_to(SHARED + PAGE + 0x800, "x", 1), 1);
    assert_int_equal(SHARED[PAGE + 0x800], 'x');
    close_file(&f);
}

/* ---- system calls with the page as buffer ----------------------------------------------------------------------- */

static void read_and_write(void **state)
{
    char name[] = "/tmp/fakehyp-boundary-XXXXXX";
    struct file f;

    open_file(&f, state);
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    assert_int_equal(result(pwrite(fd, SHARED, PAGE, 0)), PAGE);
    assert_int_equal(result(pwrite(fd, PRIVATE, PAGE, 0)), -EFAULT);
    assert_int_equal(result(pread(fd, PRIVATE, PAGE, 0)), -EFAULT);
    assert_int_equal(result(pread(fd, SHARED, PAGE, 0)), PAGE);
    assert_int_equal(result(getrandom(PRIVATE, 16, 0)), -EFAULT);
    assert_int_equal(result(getrandom(SHARED, 16, 0)), 16);
    assert_int_equal(result(open((char *)PRIVATE, O_RDONLY)), -EFAULT);

    /* Two pages, the second private: a short count; the other way round nothing. */
    assert_int_equal(result(pwrite(fd, f.view, 2 * PAGE, 0)), 2 * PAGE);
    struct iovec good_bad[2] = {{SHARED, PAGE}, {PRIVATE, PAGE}}, bad_good[2] = {{PRIVATE, PAGE}, {SHARED, PAGE}};
    assert_int_equal(result(preadv(fd, good_bad, 2, 0)), PAGE);
    assert_int_equal(result(preadv(fd, bad_good, 2, 0)), -EFAULT);
    assert_int_equal(result(pwritev(fd, good_bad, 2, 0)), PAGE);
    assert_int_equal(result(pwritev(fd, bad_good, 2, 0)), -EFAULT);
    close(fd);

    /* /dev/null never looks. */
    fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(result(write(fd, PRIVATE, PAGE)), PAGE);
    close(fd);
    close_file(&f);
}

static void pipes(void **state)
{
    struct file f;
    int fds[2];

    open_file(&f, state);
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(result(write(fds[1], PRIVATE, 16)), -EFAULT);
    assert_int_equal(result(write(fds[1], SHARED, 16)), 16);
    assert_int_equal(result(read(fds[0], PRIVATE, 16)), -EFAULT);
    assert_int_equal(result(read(fds[0], SHARED, 16)), 16);

    struct iovec iov[2] = {{SHARED, PAGE}, {PRIVATE, PAGE}};
    assert_int_equal(result(vmsplice(fds[1], &iov[1], 1, SPLICE_F_NONBLOCK)), -EFAULT);
    assert_int_equal(result(vmsplice(fds[1], iov, 2, SPLICE_F_NONBLOCK)), PAGE);
    close(fds[0]);
    close(fds[1]);
    close_file(&f);
}

static void process_vm(void **state)
{
    struct file f;
    char buf[2 * 4096];

    open_file(&f, state);
    struct iovec local = {buf, sizeof(buf)};
    struct iovec both = {SHARED + PAGE, 2 * PAGE}, bad = {PRIVATE, PAGE}, good = {SHARED, 2 * PAGE};
    assert_int_equal(result(process_vm_readv(getpid(), &local, 1, &good, 1, 0)), 2 * PAGE);
    assert_int_equal(result(process_vm_readv(getpid(), &local, 1, &both, 1, 0)), PAGE);
    assert_int_equal(result(process_vm_readv(getpid(), &local, 1, &bad, 1, 0)), -EFAULT);
    assert_int_equal(result(process_vm_writev(getpid(), &local, 1, &both, 1, 0)), PAGE);
    assert_int_equal(result(process_vm_writev(getpid(), &local, 1, &bad, 1, 0)), -EFAULT);

    int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(result(pread(fd, buf, 16, (off_t)(uintptr_t)SHARED)), 16);
    assert_int_equal(result(pread(fd, buf, 16, (off_t)(uintptr_t)PRIVATE)), -EIO);
    assert_int_equal(result(pwrite(fd, buf, 16, (off_t)(uintptr_t)PRIVATE)), -EIO);
    close(fd);
    close_file(&f);
}

static void direct_io(void **state)
{
    const char *dirs[] = {getenv("XDG_RUNTIME_DIR"), "/var/tmp", "/tmp", "."};
    struct file f;
    int fd = -1;

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]) && fd < 0; i++) {
        char name[200];
        if (!dirs[i])
            continue;
        snprintf(name, sizeof(name), "%s/fakehyp-direct-XXXXXX", dirs[i]);
        int plain = mkstemp(name);
        if (plain < 0)
            continue;
        assert_int_equal(ftruncate(plain, 4 * 4096), 0);
        close(plain);
        fd = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
        unlink(name);
    }
    if (fd < 0)
        rig_not_here("not tried: direct_io: no file system here takes O_DIRECT");
    open_file(&f, state);
    assert_int_equal(result(pwrite(fd, PRIVATE, PAGE, 0)), -EFAULT);
    assert_int_equal(result(pread(fd, PRIVATE, PAGE, 0)), -EFAULT);
    assert_int_equal(result(pwrite(fd, SHARED, PAGE, 0)), PAGE);
    assert_int_equal(result(pread(fd, SHARED + PAGE, PAGE, 0)), PAGE);
    close(fd);
    close_file(&f);
}

static void futexes(void **state)
{
    struct timespec now = {0};
    struct file f;

    open_file(&f, state);
    assert_int_equal(result(syscall(SYS_futex, PRIVATE, FUTEX_WAKE, 1, NULL, NULL, 0)), -EFAULT);
    assert_int_equal(result(syscall(SYS_futex, PRIVATE, FUTEX_WAIT, 0, &now, NULL, 0)), -EFAULT);
    assert_int_equal(result(syscall(SYS_futex, SHARED, FUTEX_WAKE, 1, NULL, NULL, 0)), 0);
    close_file(&f);
}

/* ---- memory calls ----------------------------------------------------------------------------------------------- */

static void locking(void **state)
{
    struct file f;

    open_file(&f, state);
    /* Not through libc: a sanitizer's mlock() does nothing. */
    assert_int_equal(result(syscall(SYS_mlock, SHARED, PAGE)), 0);
    assert_int_equal(result(syscall(SYS_mlock, PRIVATE, PAGE)), -ENOMEM);
    assert_int_equal(result(syscall(SYS_mlock2, PRIVATE, PAGE, MLOCK_ONFAULT)), 0);
    touch(PRIVATE, false, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    assert_int_equal(result(syscall(SYS_munlock, f.view, NR * PAGE)), 0);
    close_file(&f);
}

static void residence(void **state)
{
    unsigned char vec[4];
    struct file f;

    open_file(&f, state);
    assert_int_equal(result(mincore(f.view, 4 * PAGE, vec)), 0);
    assert_int_equal(vec[SHARED_PAGE] & 1, 1);
    assert_int_equal(vec[SHARED_PAGE + 1] & 1, 1);
    assert_int_equal(vec[PRIVATE_PAGE] & 1, 0);
    assert_int_equal(vec[PRIVATE_PAGE + 1] & 1, 0);
    close_file(&f);
}

static void advice(void **state)
{
    struct file f;

    open_file(&f, state);
    assert_int_equal(result(madvise(SHARED, PAGE, MADV_DONTNEED)), 0);
    assert_int_equal(SHARED[0], 'A');
    assert_int_equal(result(madvise(PRIVATE, PAGE, MADV_DONTNEED)), 0);
    assert_int_equal(result(madvise(PRIVATE, PAGE, MADV_FREE)), -EINVAL);
    assert_int_equal(result(madvise(SHARED, PAGE, MADV_WIPEONFORK)), -EINVAL);
    assert_int_equal(result(madvise(PRIVATE, PAGE, MADV_POPULATE_READ)), -EFAULT);
    assert_int_equal(result(madvise(PRIVATE, PAGE, MADV_POPULATE_WRITE)), -EFAULT);
    assert_int_equal(result(madvise(SHARED, 2 * PAGE, MADV_POPULATE_WRITE)), 0);
    assert_int_equal(result(madvise(PRIVATE, PAGE, MADV_WILLNEED)), 0);
    touch(PRIVATE, false, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    close_file(&f);
}

/* ---- the file -------------------------------------------------------------------------------------------------------
 */

static void no_mmap_flag(void **state)
{
    struct fakehyp *fh = *state;
    struct fakehyp_gmem *gmem;
    struct fakehyp_vm *vm;
    void *view;

    must(fakehyp_vm_create(fh, NULL, &vm));
    for (uint64_t flags = 0; flags <= FAKEHYP_GMEM_INIT_SHARED; flags += FAKEHYP_GMEM_INIT_SHARED) {
        must(fakehyp_gmem_create(vm, NR * PAGE, flags, &gmem));
        assert_int_equal(fakehyp_map(gmem, NULL, PAGE, PROT_READ, 0, &view), -ENODEV);
        fakehyp_gmem_close(gmem);
    }
    assert_int_equal(fakehyp_gmem_create(vm, NR * PAGE, 4, &gmem), -EINVAL);
    assert_int_equal(fakehyp_gmem_create(vm, 0, 0, &gmem), -EINVAL);
    assert_int_equal(fakehyp_gmem_create(vm, 4097, 0, &gmem), -EINVAL);
    must(fakehyp_vm_destroy(vm));
}

static void born_private(void **state)
{
    struct fakehyp *fh = *state;
    struct fakehyp_gmem *gmem;
    struct fakehyp_vm *vm;
    void *view;

    must(fakehyp_vm_create(fh, NULL, &vm));
    must(fakehyp_gmem_create(vm, NR * PAGE, FAKEHYP_GMEM_MMAP, &gmem));
    must(fakehyp_map(gmem, NULL, NR * PAGE, PROT_READ | PROT_WRITE, 0, &view));
    uint8_t *p = view;
    touch(p, false, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    touch(p + 7 * PAGE, true, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    must(fakehyp_convert(gmem, 7 * PAGE, PAGE, FAKEHYP_SHARED, NULL));
    assert_int_equal(p[7 * PAGE], 0);
    touch(p + 6 * PAGE, false, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    touch(p + 8 * PAGE, false, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    must(fakehyp_unmap(fh, view, NR * PAGE));
    fakehyp_gmem_close(gmem);
    must(fakehyp_vm_destroy(vm));
}

static void fallocates(void **state)
{
    static const struct {
        int mode;
        int64_t offset, length;
        int rc;
    } cases[] = {
        {0, 0, 4096, -EOPNOTSUPP},
        {FALLOC_FL_PUNCH_HOLE, 0, 4096, -EOPNOTSUPP},
        {FALLOC_FL_ZERO_RANGE, 0, 4096, -EOPNOTSUPP},
        {FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE, 0, 4096, -EOPNOTSUPP},
        {FALLOC_FL_KEEP_SIZE | 0x1000, 0, 4096, -EOPNOTSUPP},
        {FALLOC_FL_KEEP_SIZE, 1, 4096, -EINVAL},
        {FALLOC_FL_KEEP_SIZE, 0, 4097, -EINVAL},
        {FALLOC_FL_KEEP_SIZE, 0, 0, -EINVAL},
        {FALLOC_FL_KEEP_SIZE, -4096, 4096, -EINVAL},
        {FALLOC_FL_KEEP_SIZE, 0, (NR + 1) * 4096, -EINVAL},
        {FALLOC_FL_KEEP_SIZE, NR * 4096, 4096, -EINVAL},
        {FALLOC_FL_KEEP_SIZE, INT64_MAX - 4095, 4096, -EFBIG},
        {FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 0, -EINVAL},
        {FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 1, 4096, -EINVAL},
        {FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, NR * 4096, 4096, 0},
        {FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, NR * 4096 * 100, 4096, 0},
        {FALLOC_FL_KEEP_SIZE, 0, 2 * 4096, 0},
    };
    struct file f;

    open_file(&f, state);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int rc = fakehyp_fallocate(f.gmem, cases[i].mode, cases[i].offset, cases[i].length);
        if (rc != cases[i].rc)
            fail_msg("case %zu: %d, expected %d: %s", i, rc, cases[i].rc, fakehyp_last_error());
    }
    assert_int_equal(SHARED[0], 'A');
    /* A hole in shared memory reads as zero and is still shared; the neighbour keeps its bytes. */
    must(fakehyp_punch(f.gmem, 0, PAGE));
    touch(SHARED, false, FAKEHYP_TOUCH_OK, 0);
    assert_int_equal(SHARED[0], 0);
    assert_int_equal(SHARED[PAGE], 'A');
    close_file(&f);
}

static void arguments(void **state)
{
    static const struct {
        uint64_t offset, size, attributes, flags;
    } bad[] = {
        {0, 0, 8, 0},    {1, 4096, 8, 0}, {0, 4095, 8, 0}, {0, (NR + 1) * 4096, 8, 0},      {NR * 4096, 4096, 8, 0},
        {0, 4096, 1, 0}, {0, 4096, 9, 0}, {0, 4096, 8, 1}, {UINT64_MAX - 4095, 8192, 8, 0}, {0, 4096, 0, 2},
    };
    struct file f;

    open_file(&f, state);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct fakehyp_memory_attributes2 a = {
            .offset = bad[i].offset, .size = bad[i].size, .attributes = bad[i].attributes, .flags = bad[i].flags};
        int rc = fakehyp_set_memory_attributes2(f.gmem, &a);
        if (rc != -EINVAL)
            fail_msg("case %zu: %d, expected -EINVAL", i, rc);
    }
    struct fakehyp_memory_attributes2 reserved = {.size = PAGE, .attributes = FAKEHYP_PRIVATE, .reserved = {[10] = 1}};
    assert_int_equal(fakehyp_set_memory_attributes2(f.gmem, &reserved), -EINVAL);
    touch(SHARED, true, FAKEHYP_TOUCH_OK, 0);
    touch(PRIVATE, true, FAKEHYP_TOUCH_SIGBUS, BUS_ADRERR);
    close_file(&f);
}

/* Threads that touch at the same time: each gets its own verdict at its own address. */
static void *toucher(void *arg)
{
    uint8_t *view = arg;

    for (unsigned i = 0; i < 2000; i++) {
        uint8_t *p = view + PRIVATE_PAGE * PAGE + i;
        void *addr;
        if (fakehyp_touch_read(view + i, NULL, NULL, NULL) != FAKEHYP_TOUCH_OK ||
            fakehyp_touch_read(p, NULL, &addr, NULL) != FAKEHYP_TOUCH_SIGBUS || addr != p)
            return arg;
    }
    return NULL;
}

static void threads(void **state)
{
    pthread_t thread[4];
    struct file f;
    void *failed;

    open_file(&f, state);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, toucher, f.view), 0);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
    close_file(&f);
}

static const struct CMUnitTest tests[] = {
    live_test(load_and_store), live_test(read_only_view), live_test(past_the_end), live_test(copies),
    live_test(read_and_write), live_test(pipes),          live_test(process_vm),   live_test(direct_io),
    live_test(futexes),        live_test(locking),        live_test(residence),    live_test(advice),
    live_test(no_mmap_flag),   live_test(born_private),   live_test(fallocates),   live_test(arguments),
    live_test(threads),
};

RIG_MAIN(tests)
