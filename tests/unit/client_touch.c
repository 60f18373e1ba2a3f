/* SPDX-License-Identifier: BSD-2-Clause */
/* Touches and copies over a layout made by hand: page 0 shared, 1 private, 2 shared, 3 past the end of the file. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <fakehyp/fakehyp.h>

#define PAGE ((size_t)FAKEHYP_PAGE_SIZE)

struct layout {
    int fd, uffd;
    char *p;
};

static int setup(void **state)
{
    struct layout *l = calloc(1, sizeof(*l));
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM};

    l->fd = memfd_create("layout", MFD_CLOEXEC);
    l->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (ftruncate(l->fd, 3 * (off_t)PAGE) || pwrite(l->fd, "first", 5, 0) != 5 ||
        pwrite(l->fd, "third", 5, 2 * (off_t)PAGE) != 5 || ioctl(l->uffd, UFFDIO_API, &api))
        return -1;
    l->p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, l->fd, 0);
    struct uffdio_register reg = {.range = {(uintptr_t)l->p, 4 * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(l->uffd, UFFDIO_REGISTER, &reg))
        return -1;
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    struct layout *l = *state;

    munmap(l->p, 4 * PAGE);
    close(l->uffd);
    close(l->fd);
    free(l);
    return 0;
}

static void test_touch(void **state)
{
    struct layout *l = *state;
    uint8_t value = 0;
    void *at;
    int code;

    assert_int_equal(fakehyp_touch_read(l->p + 1, &value, NULL, NULL), FAKEHYP_TOUCH_OK);
    assert_int_equal(value, 'i');
    assert_int_equal(fakehyp_touch_write(l->p + 1, 'u', NULL, NULL), FAKEHYP_TOUCH_OK);
    assert_int_equal(l->p[1], 'u');
    assert_int_equal(fakehyp_touch_read(l->p + PAGE + 77, &value, &at, &code), FAKEHYP_TOUCH_SIGBUS);
    assert_ptr_equal(at, l->p + PAGE + 77);
    assert_int_equal(code, BUS_ADRERR);
    assert_int_equal(fakehyp_touch_write(l->p + 3 * PAGE, 0, &at, &code), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(mprotect(l->p, PAGE, PROT_READ), 0);
    assert_int_equal(fakehyp_touch_write(l->p, 0, &at, &code), FAKEHYP_TOUCH_SIGSEGV);
    assert_int_equal(code, SEGV_ACCERR);
    assert_int_equal(fakehyp_touch_read(NULL, &value, &at, &code), FAKEHYP_TOUCH_SIGSEGV);
    assert_int_equal(code, SEGV_MAPERR);
}

static sigjmp_buf own_out;
static volatile sig_atomic_t own_hits;

static void own_handler(int sig, siginfo_t *info, void *context)
{
    own_hits++;
    siglongjmp(own_out, 1);
}

static void test_own_handler_comes_back(void **state)
{
    struct layout *l = *state;
    struct sigaction ours = {.sa_sigaction = own_handler, .sa_flags = SA_SIGINFO}, before, now;
    sigset_t blocked, mask;

    sigaction(SIGBUS, &ours, &before);
    own_hits = 0;
    assert_int_equal(fakehyp_touch_read(l->p + PAGE, NULL, NULL, NULL), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(own_hits, 0);
    sigaction(SIGBUS, NULL, &now);
    assert_ptr_equal(now.sa_sigaction, own_handler);
    if (sigsetjmp(own_out, 1) == 0)
        l->p[PAGE] = 1;
    assert_int_equal(own_hits, 1);

    /* A blocked signal does not kill, and stays blocked. */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGBUS);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    assert_int_equal(fakehyp_touch_read(l->p + PAGE, NULL, NULL, NULL), FAKEHYP_TOUCH_SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &blocked, &mask);
    assert_true(sigismember(&mask, SIGBUS));
    sigaction(SIGBUS, &before, NULL);
}

static __thread sigjmp_buf thread_out;

static void thread_handler(int sig, siginfo_t *info, void *context)
{
    siglongjmp(thread_out, 1);
}

struct toucher {
    char *p;
    unsigned sigbus;
    bool plain; /* with the program's own handler, not through the library */
};

/* A function of its own: sigsetjmp() and the locals of a loop do not mix. */
static bool plain_touch(const volatile char *p)
{
    if (sigsetjmp(thread_out, 1))
        return true;
    *p;
    return false;
}

static void *touch_often(void *arg)
{
    struct toucher *t = arg;

    for (int i = 0; i < 2000; i++)
        t->sigbus += t->plain ? plain_touch(t->p + PAGE)
                              : fakehyp_touch_read(t->p + PAGE, NULL, NULL, NULL) == FAKEHYP_TOUCH_SIGBUS;
    return NULL;
}

/* Threads that touch through the library and threads with a handler of their own, all at once. */
static void test_threads(void **state)
{
    struct layout *l = *state;
    struct sigaction ours = {.sa_sigaction = thread_handler, .sa_flags = SA_SIGINFO}, before;
    struct toucher toucher[4];
    pthread_t thread[4];

    sigaction(SIGBUS, &ours, &before);
    for (int i = 0; i < 4; i++) {
        toucher[i] = (struct toucher){.p = l->p, .plain = i % 2};
        assert_int_equal(pthread_create(&thread[i], NULL, touch_often, &toucher[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(toucher[i].sigbus, 2000);
    }
    sigaction(SIGBUS, &before, &ours);
    assert_ptr_equal(ours.sa_sigaction, thread_handler);
}

static void test_sent_signal_still_kills(void **state)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct sigaction dfl = {.sa_handler = SIG_DFL};
        sigaction(SIGSEGV, &dfl, NULL);
        fakehyp_touch_read(NULL, NULL, NULL, NULL);
        raise(SIGSEGV);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void test_copy(void **state)
{
    struct layout *l = *state;
    char *buf = malloc(4 * PAGE);

    assert_int_equal(fakehyp_copy_from(buf, l->p, 5), 5);
    assert_memory_equal(buf, "first", 5);
    assert_int_equal(fakehyp_copy_from(buf, l->p, 0), 0);
    assert_int_equal(fakehyp_copy_from(buf, l->p + 100, 2 * PAGE), PAGE - 100);
    assert_int_equal(fakehyp_copy_from(buf, l->p + PAGE + 1, 10), -EFAULT);
    assert_int_equal(fakehyp_copy_from(buf, l->p + 2 * PAGE, 2 * PAGE), PAGE);
    assert_int_equal(fakehyp_copy_to(l->p + 2 * PAGE + 8, "abc", 3), 3);
    assert_memory_equal(l->p + 2 * PAGE, "third\0\0\0abc", 11);
    assert_int_equal(fakehyp_copy_to(l->p, buf, 4 * PAGE), PAGE);
    assert_int_equal(fakehyp_copy_to(l->p + PAGE, "abc", 3), -EFAULT);
    /* Nothing was left in the private page. */
    assert_int_equal(lseek(l->fd, (off_t)PAGE, SEEK_DATA), 2 * PAGE);
    free(buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_touch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_handler_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test(test_sent_signal_still_kills),
        cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
    };

    return cmocka_run_group_tests_name("client touch", tests, NULL, NULL);
}
