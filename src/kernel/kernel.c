/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/kernel/kernel.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Newer than Debian 12's headers; one number for all architectures. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define MASK_ENV "FAKEHYP_MASK"

static const struct {
    const char *name;
    unsigned major, minor;
} features[KERNEL_NR_FEATURES] = {
#define X(id, name, major, minor, without) {name, major, minor},
    KERNEL_FEATURES(X)
#undef X
};

/* ---- the mask ------------------------------------------------------------------------------------------------- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t mask;
static char error_text[640], hidden_text[KERNEL_NR_FEATURES * 24];

static void append(char *buf, size_t size, const char *separator, const char *name)
{
    size_t len = strlen(buf);

    snprintf(buf + len, size - len, "%s%s", len ? separator : "", name);
}

static bool newer(unsigned i, unsigned major, unsigned minor)
{
    return features[i].major > major || (features[i].major == major && features[i].minor > minor);
}

static int hide(const char *word, uint64_t *hidden)
{
    unsigned major, minor;
    int end = 0;

    for (unsigned i = 0; i < KERNEL_NR_FEATURES; i++) {
        if (!strcmp(word, features[i].name)) {
            *hidden |= UINT64_C(1) << i;
            return 0;
        }
    }
    if (!isdigit((unsigned char)word[0]) || sscanf(word, "%3u.%3u%n", &major, &minor, &end) != 2 || word[end])
        return -EINVAL;
    for (unsigned i = 0; i < KERNEL_NR_FEATURES; i++)
        if (newer(i, major, minor))
            *hidden |= UINT64_C(1) << i;
    return 0;
}

int kernel_mask_parse(const char *text, uint64_t *hidden, char *error, size_t size)
{
    *hidden = 0;
    while (*text) {
        size_t len = strcspn(text, ",");
        char word[32];
        snprintf(word, sizeof(word), "%.*s", (int)(len < sizeof(word) ? len : sizeof(word)), text);
        if (len && hide(word, hidden)) {
            char known[sizeof(hidden_text)] = "";
            for (unsigned i = 0; i < KERNEL_NR_FEATURES; i++)
                append(known, sizeof(known), ", ", features[i].name);
            snprintf(error, size, "%s: no feature \"%s\"; known are %s, and a kernel's version such as 6.1", MASK_ENV,
                     word, known);
            *hidden = 0;
            return -EINVAL;
        }
        text += len + (text[len] == ',');
    }
    return 0;
}

static void read_mask(void)
{
    const char *text = getenv(MASK_ENV);

    if (!text || kernel_mask_parse(text, &mask, error_text, sizeof(error_text)))
        return;
    for (unsigned i = 0; i < KERNEL_NR_FEATURES; i++)
        if (mask >> i & 1)
            append(hidden_text, sizeof(hidden_text), ",", features[i].name);
}

bool kernel_hides(enum kernel_feature feature)
{
    pthread_once(&once, read_mask);
    return mask >> feature & 1;
}

const char *kernel_mask_error(void)
{
    pthread_once(&once, read_mask);
    return error_text[0] ? error_text : NULL;
}

const char *kernel_hidden(void)
{
    pthread_once(&once, read_mask);
    return hidden_text;
}

/* ---- the calls -------------------------------------------------------------------------------------------------- */

static int refuse(int error)
{
    errno = error;
    return -1;
}

int kernel_userfaultfd(int flags)
{
    if (flags & UFFD_USER_MODE_ONLY && kernel_hides(KERNEL_UFFD_USER_MODE))
        return refuse(EINVAL);
    return (int)syscall(SYS_userfaultfd, flags);
}

int kernel_userfaultfd_device(int flags)
{
    if (kernel_hides(KERNEL_UFFD_DEVICE))
        return refuse(ENOENT);
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -1;
    int fd = ioctl(device, USERFAULTFD_IOC_NEW, flags), error = errno;
    close(device);
    return fd < 0 ? refuse(error) : fd;
}

static uint64_t hidden_uffd_features(void)
{
    static const struct {
        enum kernel_feature feature;
        uint64_t bit;
    } bits[] = {
        {KERNEL_UFFD_MISSING_SHMEM, UFFD_FEATURE_MISSING_SHMEM},
        {KERNEL_UFFD_EVENT_REMAP, UFFD_FEATURE_EVENT_REMAP},
        {KERNEL_UFFD_SIGBUS, UFFD_FEATURE_SIGBUS},
        {KERNEL_UFFD_THREAD_ID, UFFD_FEATURE_THREAD_ID},
        {KERNEL_UFFD_MINOR_SHMEM, UFFD_FEATURE_MINOR_SHMEM},
        {KERNEL_UFFD_EXACT_ADDRESS, UFFD_FEATURE_EXACT_ADDRESS},
    };
    uint64_t hidden = 0;

    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        if (kernel_hides(bits[i].feature))
            hidden |= bits[i].bit;
    return hidden;
}

int kernel_uffdio_api(int uffd, struct uffdio_api *api)
{
    const uint64_t hidden = hidden_uffd_features();

    if (api->features & hidden) {
        memset(api, 0, sizeof(*api));
        return refuse(EINVAL);
    }
    int rc = ioctl(uffd, UFFDIO_API, api);
    if (rc == 0)
        api->features &= ~hidden;
    return rc;
}

ssize_t kernel_uffd_read(int uffd, void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};

    return kernel_hides(KERNEL_UFFD_READ_NOWAIT) ? refuse(EOPNOTSUPP) : preadv2(uffd, &iov, 1, -1, RWF_NOWAIT);
}

int kernel_cachestat(int fd, uint64_t offset, uint64_t length, struct kernel_cachestat *out)
{
    const struct {
        uint64_t offset, length;
    } range = {offset, length};

    return kernel_hides(KERNEL_CACHESTAT) ? refuse(ENOSYS) : (int)syscall(SYS_cachestat, fd, &range, out, 0);
}

int kernel_populate_read(void *addr, size_t length)
{
    return kernel_hides(KERNEL_MADV_POPULATE) ? refuse(EINVAL) : madvise(addr, length, MADV_POPULATE_READ);
}

int kernel_procmap_query(int maps_fd, void *query, unsigned long request)
{
    return kernel_hides(KERNEL_PROCMAP_QUERY) ? refuse(ENOTTY) : ioctl(maps_fd, request, query);
}
