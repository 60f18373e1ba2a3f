/* SPDX-License-Identifier: BSD-2-Clause */
/* A fakehypd in a child process, and the bare protocol to talk to it. */
#ifndef TESTS_UNIT_DAEMON_RIG_H
#define TESTS_UNIT_DAEMON_RIG_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "src/proto/chan.h"

struct rig {
    pid_t pid;
    char dir[64], socket[96], log[96];
};

/* A fresh folder for the socket and the log. */
void rig_make_dir(struct rig *rig);
void rig_remove_dir(struct rig *rig);
/* fakehypd_main() in a child, with these arguments after argv[0]; its stderr goes to the log. */
pid_t rig_spawn(const struct rig *rig, const char *const *args);
/* Starts the daemon on rig->socket and waits until it says that it is ready.  extra may be NULL. */
void rig_start(struct rig *rig, const char *extra);
/* Exit status, or 128 + signal. */
int rig_wait(pid_t pid);
/* SIGTERM; the exit status. */
int rig_stop(struct rig *rig);
/* For a group that shares one daemon: a folder and the daemon in it, and their end.  0 or what cmocka takes for a
 * failure. */
int rig_set_up(struct rig *rig);
int rig_tear_down(struct rig *rig);
/* True when the log has the text. */
bool rig_logged(const struct rig *rig, const char *text);

int raw_connect(const char *path);
/* 0 or -errno. */
int raw_send(int sock, const Fakehyp__Request *request, const int *fds, unsigned nr_fds);
/* The next reply, at most 5 s later; NULL at the end of the connection.  *fd: the first descriptor, or -1. */
Fakehyp__Reply *raw_receive(int sock, int *fd);
void raw_free(Fakehyp__Reply *reply);
/* True when the daemon closes the connection within 5 s, whatever it sends before. */
bool raw_is_dropped(int sock);

/* Connects and says hello; *agent (may be NULL: none is asked for) is the agent socket. */
int raw_client(const struct rig *rig, int *agent);
/* Sends a request without descriptors and returns its error; *value is the id in the reply; *fd as above (may be NULL).
 */
int raw_call(int sock, Fakehyp__Request *request, uint64_t *value, int *fd);
json_t *raw_query(int sock, const char *what);

/* One of the counts of a status. */
json_int_t raw_count(json_t *status, const char *name);
/* All of them as text, which the caller frees. */
char *raw_counts(int sock);
/* Waits at most 3 s until the counts are what they were. */
void raw_assert_counts(int sock, const char *before);

/* Requests in one line.  Each returns the error. */
int raw_vm_create(int sock, uint64_t *vm);
int raw_gmem_create(int sock, uint64_t vm, uint64_t size, uint64_t *gmem, int *fd);
int raw_vcpu_create(int sock, uint64_t vm, uint32_t index);
int raw_guest_prepare(int sock, uint64_t vm, int *guest);
/* VcpuRun, whose reply comes when it comes. */
void raw_send_run(int sock, uint64_t id, uint64_t vm, uint32_t index, int64_t timeout_ns);

#endif
