/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Probes of this machine for `fakehypctl doctor`.
 *
 * A probe tries the thing itself rather than reading what should be there.  It
 * runs in a process of its own, with a deadline: it may block, catch signals,
 * or die, and leaves nothing behind.
 */
#ifndef SRC_FAKEHYPCTL_PROBE_H
#define SRC_FAKEHYPCTL_PROBE_H

#include <stdint.h>

#define PROBE_DEADLINE_MS 3000

enum probe_verdict { PROBE_OK, PROBE_FAIL, PROBE_INFO };

struct probe_result {
    enum probe_verdict verdict;
    char detail[320];
    char remedy[640]; /* of PROBE_FAIL: the command that mends it */
};

/* What the probe function of a row is given. */
struct probe_arg {
    uint64_t number;
    const char *text;
};

typedef void probe_fn(struct probe_result *result, const struct probe_arg *arg);

/* Runs a probe in a child process.  Always gives a result. */
void probe_run(probe_fn *probe, const struct probe_arg *arg, unsigned deadline_ms, struct probe_result *result);

/* What a probe says, in printf's format. */
void probe_ok(struct probe_result *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void probe_info(struct probe_result *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void probe_fail(struct probe_result *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Follows probe_fail(), which itself names a newer kernel. */
void probe_remedy(struct probe_result *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* probe_fail() with errno's text, "splice: Invalid argument", and a remedy that fits it. */
void probe_fail_errno(struct probe_result *r, const char *what);
/* A sandbox refuses the call. */
void probe_remedy_sandbox(struct probe_result *r);
/* What a command of the superuser begins with: "sudo ", or "" for the superuser. */
const char *probe_sudo(void);

/* probe_host.c */
probe_fn probe_kernel;
probe_fn probe_mask;
probe_fn probe_pidfd_open;
probe_fn probe_process_vm_readv;
probe_fn probe_dev_kvm;
probe_fn probe_daemon; /* text: the socket */

/* probe_file.c: memfds, and what moves bytes between them */
probe_fn probe_memfd;
probe_fn probe_punch_hole;
probe_fn probe_splice;
probe_fn probe_seek_data;

/* probe_uffd.c: opening one, and what it can do */
probe_fn probe_uffd_user_mode;
probe_fn probe_uffd_full;
probe_fn probe_uffd_device;
probe_fn probe_uffd_sysctl;
probe_fn probe_uffd_feature; /* number: UFFD_FEATURE_* */

/* probe_uffd_test.c: registrations at work */
probe_fn probe_sigbus;
probe_fn probe_efault;
probe_fn probe_minor;
probe_fn probe_mremap;

/* probe_limits.c */
probe_fn probe_max_map_count;
probe_fn probe_shmem_enabled;
probe_fn probe_pipe_size;
probe_fn probe_nofile;
probe_fn probe_overcommit;
probe_fn probe_thp;

/*
 * The word in brackets of a sysfs choice, "always [advise] never", into buf.
 * -EINVAL when there is none, or it does not fit.
 */
int probe_choice(const char *line, char *buf, unsigned size);

/* A userfaultfd of user mode with these features on; -1 after probe_fail(). */
int probe_uffd_open(struct probe_result *r, uint64_t features);

#endif
