/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Features that not every kernel has: one table, one way to each.
 *
 * FAKEHYP_MASK=NAME,... hides them from all of fakehyp's programs, so that what
 * happens without them is tested on any kernel.  A version in the list, such as
 * 6.1, hides all that is newer.  Code that may meet a kernel without a feature
 * goes through the functions below, which then answer as that kernel does.
 */
#ifndef SRC_KERNEL_KERNEL_H
#define SRC_KERNEL_KERNEL_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* X(identifier, name, major, minor, without it) */
#define KERNEL_FEATURES(X)                                                                                             \
    X(UFFD_MISSING_SHMEM, "uffd-missing-shmem", 4, 11, "needed: fakehypd does not start")                              \
    X(UFFD_EVENT_REMAP, "uffd-event-remap", 4, 11, "no guest processes")                                               \
    X(UFFD_SIGBUS, "uffd-sigbus", 4, 14, "needed: fakehypd does not start")                                            \
    X(UFFD_THREAD_ID, "uffd-thread-id", 4, 14, "no guest processes")                                                   \
    X(UFFD_USER_MODE, "uffd-user-mode", 5, 11, "needed: fakehypd does not start")                                      \
    X(MADV_POPULATE, "madv-populate", 5, 14, "pages are read one by one")                                              \
    X(UFFD_MINOR_SHMEM, "uffd-minor-shmem", 5, 14, "no guest processes")                                               \
    X(UFFD_EXACT_ADDRESS, "uffd-exact-address", 5, 18, "a guest's fault tells its page only")                          \
    X(UFFD_DEVICE, "uffd-device", 6, 1, "where a sandbox refuses userfaultfd() there is no other way")                 \
    X(CACHESTAT, "cachestat", 6, 5, "the audit does not count what is allocated and was never touched")                \
    X(UFFD_READ_NOWAIT, "uffd-read-nowait", 6, 10, "a timer ends a read that a guest makes wait")                      \
    X(PROCMAP_QUERY, "procmap-query", 6, 11, "/proc/self/maps is read as text")

enum kernel_feature {
#define X(id, name, major, minor, without) KERNEL_##id,
    KERNEL_FEATURES(X)
#undef X
        KERNEL_NR_FEATURES
};

/* Hidden by FAKEHYP_MASK, which is read once. */
bool kernel_hides(enum kernel_feature feature);
/* What is wrong with FAKEHYP_MASK, for people; NULL: nothing.  A mask that is wrong hides nothing. */
const char *kernel_mask_error(void);
/* The names of what is hidden, with commas between; "" for nothing. */
const char *kernel_hidden(void);
/* Reads a list of names and versions.  0 and the hidden features as bits; -EINVAL and what is wrong in error. */
int kernel_mask_parse(const char *text, uint64_t *hidden, char *error, size_t size);

/* Each as the system call or ioctl(): -1 and errno. */
int kernel_userfaultfd(int flags);
/* By /dev/userfaultfd. */
int kernel_userfaultfd_device(int flags);
int kernel_uffdio_api(int uffd, struct uffdio_api *api);
/* Never waits: preadv2(RWF_NOWAIT).  EOPNOTSUPP on older kernels. */
ssize_t kernel_uffd_read(int uffd, void *buf, size_t bytes);
struct kernel_cachestat {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
};
int kernel_cachestat(int fd, uint64_t offset, uint64_t length, struct kernel_cachestat *out);
int kernel_populate_read(void *addr, size_t length);
int kernel_procmap_query(int maps_fd, void *query, unsigned long request);

#endif
