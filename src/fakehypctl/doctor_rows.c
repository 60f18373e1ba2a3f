/* SPDX-License-Identifier: BSD-2-Clause */
/* What doctor examines. */
#include <linux/userfaultfd.h>
#include <string.h>

#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/doctor.h"

#define UFFD_FEATURE(feature, needed)                                                                                  \
    {                                                                                                                  \
        .name = "UFFD_FEATURE_" #feature, .need = (needed), .probe = probe_uffd_feature,                               \
        .arg.number = UFFD_FEATURE_##feature                                                                           \
    }

static const struct doctor_row all_rows[] = {
    {"kernel", "version", DOCTOR_ESSENTIAL, probe_kernel, {0}},
    {NULL, "features hidden by FAKEHYP_MASK", DOCTOR_ESSENTIAL, probe_mask, {0}},
    {NULL, "pidfd_open", DOCTOR_USEFUL, probe_pidfd_open, {0}},
    {NULL, "process_vm_readv", DOCTOR_USEFUL, probe_process_vm_readv, {0}},

    {"userfaultfd", "userfaultfd(UFFD_USER_MODE_ONLY)", DOCTOR_ESSENTIAL, probe_uffd_user_mode, {0}},
    {NULL, "userfaultfd() without the flag", DOCTOR_OPTIONAL, probe_uffd_full, {0}},
    {NULL, "/dev/userfaultfd", DOCTOR_OPTIONAL, probe_uffd_device, {0}},
    {NULL, "vm.unprivileged_userfaultfd", DOCTOR_OPTIONAL, probe_uffd_sysctl, {0}},
    UFFD_FEATURE(SIGBUS, DOCTOR_ESSENTIAL),
    UFFD_FEATURE(MISSING_SHMEM, DOCTOR_ESSENTIAL),
    UFFD_FEATURE(EVENT_REMAP, DOCTOR_ESSENTIAL),
    UFFD_FEATURE(MINOR_SHMEM, DOCTOR_USEFUL),
    UFFD_FEATURE(THREAD_ID, DOCTOR_USEFUL),

    {"memory files", "memfd_create with seals", DOCTOR_ESSENTIAL, probe_memfd, {0}},
    {NULL, "FALLOC_FL_PUNCH_HOLE", DOCTOR_ESSENTIAL, probe_punch_hole, {0}},
    {NULL, "splice memfd, pipe, memfd", DOCTOR_ESSENTIAL, probe_splice, {0}},
    {NULL, "SEEK_DATA", DOCTOR_ESSENTIAL, probe_seek_data, {0}},
    {NULL, "huge pages in memfds (shmem_enabled)", DOCTOR_ESSENTIAL, probe_shmem_enabled, {0}},

    {"self-test", "private page, load: SIGBUS", DOCTOR_ESSENTIAL, probe_sigbus, {0}},
    {NULL, "private page, system call: EFAULT", DOCTOR_ESSENTIAL, probe_efault, {0}},
    {NULL, "guest's overlay by mremap", DOCTOR_ESSENTIAL, probe_mremap, {0}},
    {NULL, "direct-map window by MINOR mode", DOCTOR_USEFUL, probe_minor, {0}},

    {"limits", "vm.max_map_count", DOCTOR_USEFUL, probe_max_map_count, {0}},
    {NULL, "fs.pipe-max-size", DOCTOR_USEFUL, probe_pipe_size, {0}},
    {NULL, "RLIMIT_NOFILE", DOCTOR_USEFUL, probe_nofile, {0}},
    {NULL, "vm.overcommit_memory", DOCTOR_ESSENTIAL, probe_overcommit, {0}},

    {"surroundings", "transparent huge pages", DOCTOR_OPTIONAL, probe_thp, {0}},
    {NULL, "/dev/kvm", DOCTOR_OPTIONAL, probe_dev_kvm, {0}},
    {NULL, "running daemon", DOCTOR_OPTIONAL, probe_daemon, {0}}, /* its argument: the socket */
};

#define NR_ROWS (sizeof(all_rows) / sizeof(all_rows[0]))

static enum ctl_exit print_json(const struct doctor_row *rows, const struct probe_result *results, struct ctl_io *io)
{
    json_t *json = doctor_json(rows, results, NR_ROWS);

    if (!json) {
        fprintf(io->err, "fakehypctl doctor: out of memory\n");
        return CTL_FAILED;
    }
    json_dumpf(json, io->out, JSON_INDENT(2));
    fputc('\n', io->out);
    json_decref(json);
    return CTL_OK;
}

enum ctl_exit ctl_doctor(const struct ctl_args *args, struct ctl_io *io)
{
    struct doctor_row rows[NR_ROWS];
    struct probe_result results[NR_ROWS];
    char path[ASK_SOCKET_MAX];
    enum ctl_exit status = CTL_OK;

    if (ask_socket_path(args->socket, path, sizeof(path))) {
        fprintf(io->err, "fakehypctl doctor: the socket's path is too long\n");
        return CTL_FAILED;
    }
    memcpy(rows, all_rows, sizeof(rows));
    for (size_t i = 0; i < NR_ROWS; i++)
        if (rows[i].probe == probe_daemon)
            rows[i].arg.text = path;
    doctor_examine(rows, NR_ROWS, results);
    if (ctl_given(args, CTL_OPT_JSON))
        status = print_json(rows, results, io);
    else
        doctor_print(rows, results, NR_ROWS, io);
    if (status == CTL_OK)
        status = ask_flush(io);
    if (status == CTL_OK && doctor_count(rows, results, NR_ROWS).missing)
        status = CTL_PROBLEM;
    return status;
}
