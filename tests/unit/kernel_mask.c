/* SPDX-License-Identifier: BSD-2-Clause */
/* FAKEHYP_MASK: names, versions, what is no feature; and what is hidden is not there. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "src/kernel/kernel.h"

#define BIT(id) (UINT64_C(1) << KERNEL_##id)

static uint64_t parse(const char *text)
{
    char error[640];
    uint64_t hidden;

    assert_int_equal(kernel_mask_parse(text, &hidden, error, sizeof(error)), 0);
    return hidden;
}

static void names(void **state)
{
    assert_int_equal(parse(""), 0);
    assert_int_equal(parse("cachestat"), BIT(CACHESTAT));
    assert_int_equal(parse("cachestat,uffd-sigbus"), BIT(CACHESTAT) | BIT(UFFD_SIGBUS));
    assert_int_equal(parse(",cachestat,,"), BIT(CACHESTAT));
}

static void versions(void **state)
{
    assert_int_equal(parse("6.1"), BIT(CACHESTAT) | BIT(UFFD_READ_NOWAIT) | BIT(PROCMAP_QUERY));
    assert_int_equal(parse("6.10"), BIT(PROCMAP_QUERY));
    assert_int_equal(parse("6.9"), BIT(UFFD_READ_NOWAIT) | BIT(PROCMAP_QUERY));
    assert_int_equal(parse("99.0"), 0);
    assert_int_equal(parse("1.0"), (UINT64_C(1) << KERNEL_NR_FEATURES) - 1);
    assert_int_equal(parse("6.10,uffd-device"), BIT(PROCMAP_QUERY) | BIT(UFFD_DEVICE));
}

static void unknown(void **state)
{
    static const char *const bad[] = {
        "cachestats", "6", "6.1x", "6.", "cachestat uffd-device", "-1.0", "a-name-that-is-longer-than-any-feature-has"};
    char error[640];
    uint64_t hidden;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(kernel_mask_parse(bad[i], &hidden, error, sizeof(error)), -EINVAL);
        assert_int_equal(hidden, 0);
        /* All that are known are named. */
        assert_non_null(strstr(error, "uffd-missing-shmem"));
        assert_non_null(strstr(error, "procmap-query"));
        assert_non_null(strstr(error, "6.1"));
    }
}

/* In a process of its own: the mask is read once. */
static int with_mask(const char *mask, int (*check)(void))
{
    int status;

    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("FAKEHYP_MASK", mask, 1);
        _exit(check());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

#define FAILS(call, error) (errno = 0, (call) == -1 && errno == (error))

static int all_hidden(void)
{
    struct kernel_cachestat stat;
    char byte;

    if (kernel_mask_error() || !kernel_hides(KERNEL_CACHESTAT))
        return 1;
    if (!FAILS(kernel_userfaultfd(O_CLOEXEC | UFFD_USER_MODE_ONLY), EINVAL))
        return 2;
    if (!FAILS(kernel_userfaultfd_device(O_CLOEXEC), ENOENT))
        return 3;
    if (!FAILS(kernel_cachestat(0, 0, 4096, &stat), ENOSYS))
        return 4;
    if (!FAILS(kernel_uffd_read(0, &byte, 1), EOPNOTSUPP))
        return 5;
    if (!FAILS(kernel_populate_read(&byte, 1), EINVAL))
        return 6;
    return FAILS(kernel_procmap_query(0, &byte, 0), ENOTTY) ? 0 : 7;
}

static int uffd_features(void)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
    int fd = kernel_userfaultfd(O_CLOEXEC | UFFD_USER_MODE_ONLY);

    /* A machine without userfaultfd has nothing to hide. */
    if (fd < 0)
        return 0;
    if (!FAILS(kernel_uffdio_api(fd, &api), EINVAL))
        return 1;
    api = (struct uffdio_api){.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    if (kernel_uffdio_api(fd, &api))
        return 2;
    return api.features & UFFD_FEATURE_SIGBUS || !(api.features & UFFD_FEATURE_MISSING_SHMEM) ? 3 : 0;
}

static int nothing_hidden(void)
{
    return kernel_mask_error() || *kernel_hidden() || kernel_hides(KERNEL_CACHESTAT);
}

static int wrong(void)
{
    return !kernel_mask_error() || *kernel_hidden() || kernel_hides(KERNEL_CACHESTAT);
}

static void hidden_is_not_there(void **state)
{
    assert_int_equal(with_mask("1.0", all_hidden), 0);
    assert_int_equal(with_mask("uffd-sigbus", uffd_features), 0);
    assert_int_equal(with_mask("", nothing_hidden), 0);
    assert_int_equal(with_mask("cachestat,nonsense", wrong), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(versions),
        cmocka_unit_test(unknown),
        cmocka_unit_test(hidden_is_not_there),
    };

    return cmocka_run_group_tests_name("kernel_mask", tests, NULL, NULL);
}
