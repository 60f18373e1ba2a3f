/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/unit/daemon_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/fakehypd/daemon.h"

#define PATIENCE_MS 5000

/* ---- the daemon --------------------------------------------------------------------------------------------- */

void rig_make_dir(struct rig *rig)
{
    snprintf(rig->dir, sizeof(rig->dir), "/tmp/fakehypd-test-XXXXXX");
    assert_non_null(mkdtemp(rig->dir));
    snprintf(rig->socket, sizeof(rig->socket), "%s/sock", rig->dir);
    snprintf(rig->log, sizeof(rig->log), "%s/log", rig->dir);
    rig->pid = 0;
}

void rig_remove_dir(struct rig *rig)
{
    unlink(rig->socket);
    unlink(rig->log);
    assert_int_equal(rmdir(rig->dir), 0);
}

pid_t rig_spawn(const struct rig *rig, const char *const *args)
{
    char *argv[16] = {(char *)"fakehypd"};
    int argc = 1;

    while (args[argc - 1]) {
        argv[argc] = (char *)args[argc - 1];
        argc++;
    }
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int log = open(rig->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(log, STDERR_FILENO);
        dup2(log, STDOUT_FILENO);
        _exit(fakehypd_main(argc, argv));
    }
    return pid;
}

void rig_start(struct rig *rig, const char *extra)
{
    char notify[16], byte;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    snprintf(notify, sizeof(notify), "%d", fds[1]);
    const char *args[] = {"--socket", rig->socket, "--log-level", "debug", "--notify-fd", notify, extra, NULL};
    rig->pid = rig_spawn(rig, args);
    close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    assert_int_equal(byte, '\n');
    close(fds[0]);
}

int rig_wait(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int rig_stop(struct rig *rig)
{
    kill(rig->pid, SIGTERM);
    return rig_wait(rig->pid);
}

int rig_set_up(struct rig *rig)
{
    rig_make_dir(rig);
    rig_start(rig, NULL);
    return 0;
}

int rig_tear_down(struct rig *rig)
{
    int status = rig_stop(rig);

    if (status)
        fprintf(stderr, "fakehypd ended with status %d\n", status);
    rig_remove_dir(rig);
    return status;
}

bool rig_logged(const struct rig *rig, const char *text)
{
    char line[2048];
    bool found = false;
    FILE *f = fopen(rig->log, "re");

    assert_non_null(f);
    while (!found && fgets(line, sizeof(line), f))
        found = strstr(line, text);
    fclose(f);
    return found;
}

/* ---- the protocol ------------------------------------------------------------------------------------------- */

int raw_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    assert_true(sock >= 0);
    memcpy(address.sun_path, path, strlen(path));
    assert_int_equal(connect(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    return sock;
}

int raw_send(int sock, const Fakehyp__Request *request, const int *fds, unsigned nr_fds)
{
    return chan_send_request(sock, request, fds, nr_fds, 0);
}

/* 1 a frame, 0 the end. */
static int receive(int sock, struct chan_msg *msg)
{
    struct pollfd pfd = {.fd = sock, .events = POLLIN};

    assert_int_equal(poll(&pfd, 1, PATIENCE_MS), 1);
    return chan_recv(sock, msg, MSG_DONTWAIT) > 0;
}

Fakehyp__Reply *raw_receive(int sock, int *fd)
{
    static uint8_t buffer[CHAN_MAX_FRAME];
    struct chan_msg msg = {.data = buffer};
    Fakehyp__Reply *reply;

    if (fd)
        *fd = -1;
    if (!receive(sock, &msg))
        return NULL;
    reply = fakehyp__reply__unpack(NULL, msg.len, msg.data);
    assert_non_null(reply);
    if (fd && msg.nr_fds)
        *fd = chan_msg_take_fd(&msg, 0);
    chan_msg_close_fds(&msg);
    return reply;
}

void raw_free(Fakehyp__Reply *reply)
{
    fakehyp__reply__free_unpacked(reply, NULL);
}

bool raw_is_dropped(int sock)
{
    static uint8_t buffer[CHAN_MAX_FRAME];
    struct chan_msg msg = {.data = buffer};

    while (receive(sock, &msg))
        chan_msg_close_fds(&msg);
    return true;
}

int raw_client(const struct rig *rig, int *agent)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Hello hello = FAKEHYP__HELLO__INIT;
    int sock = raw_connect(rig->socket);

    hello.version = PROTO_VERSION;
    hello.program = (char *)"raw";
    hello.agent = agent != NULL;
    request.id = 1;
    request.body_case = FAKEHYP__REQUEST__BODY_HELLO;
    request.hello = &hello;
    assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
    Fakehyp__Reply *reply = raw_receive(sock, agent);
    assert_non_null(reply);
    assert_int_equal(reply->error, 0);
    assert_int_equal(reply->body_case, FAKEHYP__REPLY__BODY_HELLO);
    raw_free(reply);
    return sock;
}

int raw_call(int sock, Fakehyp__Request *request, uint64_t *value, int *fd)
{
    static uint64_t id = 1000;

    request->id = ++id;
    assert_int_equal(raw_send(sock, request, NULL, 0), 0);
    Fakehyp__Reply *reply = raw_receive(sock, fd);
    assert_non_null(reply);
    assert_int_equal(reply->id, id);
    int error = reply->error;
    if (value && reply->body_case == FAKEHYP__REPLY__BODY_VM)
        *value = reply->vm->vm;
    if (value && reply->body_case == FAKEHYP__REPLY__BODY_GMEM)
        *value = reply->gmem->gmem;
    if (value && reply->body_case == FAKEHYP__REPLY__BODY_PIN)
        *value = reply->pin->pin;
    raw_free(reply);
    return error;
}

json_t *raw_query(int sock, const char *what)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Query query = FAKEHYP__QUERY__INIT;
    char *text = NULL;
    size_t len = 0;
    bool more = true;

    query.what = (char *)what;
    query.any = true;
    request.id = 7;
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &query;
    assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
    while (more) {
        Fakehyp__Reply *reply = raw_receive(sock, NULL);
        assert_non_null(reply);
        assert_int_equal(reply->id, 7);
        assert_int_equal(reply->error, 0);
        assert_int_equal(reply->body_case, FAKEHYP__REPLY__BODY_QUERY);
        more = reply->query->more;
        text = realloc(text, len + reply->query->json.len);
        assert_non_null(text);
        memcpy(text + len, reply->query->json.data, reply->query->json.len);
        len += reply->query->json.len;
        raw_free(reply);
    }
    json_t *answer = json_loadb(text, len, 0, NULL);
    assert_non_null(answer);
    free(text);
    return answer;
}

int raw_vm_create(int sock, uint64_t *vm)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VmCreate body = FAKEHYP__VM_CREATE__INIT;

    body.name = (char *)"test";
    request.body_case = FAKEHYP__REQUEST__BODY_VM_CREATE;
    request.vm_create = &body;
    return raw_call(sock, &request, vm, NULL);
}

int raw_gmem_create(int sock, uint64_t vm, uint64_t size, uint64_t *gmem, int *fd)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GmemCreate body = FAKEHYP__GMEM_CREATE__INIT;

    body.vm = vm;
    body.size = size;
    body.flags = 3; /* MMAP, INIT_SHARED */
    request.body_case = FAKEHYP__REQUEST__BODY_GMEM_CREATE;
    request.gmem_create = &body;
    return raw_call(sock, &request, gmem, fd);
}

int raw_vcpu_create(int sock, uint64_t vm, uint32_t index)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VcpuCreate body = FAKEHYP__VCPU_CREATE__INIT;

    body.vm = vm;
    body.index = index;
    request.body_case = FAKEHYP__REQUEST__BODY_VCPU_CREATE;
    request.vcpu_create = &body;
    return raw_call(sock, &request, NULL, NULL);
}

int raw_guest_prepare(int sock, uint64_t vm, int *guest)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestPrepare body = FAKEHYP__GUEST_PREPARE__INIT;

    body.vm = vm;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_PREPARE;
    request.guest_prepare = &body;
    return raw_call(sock, &request, NULL, guest);
}

json_int_t raw_count(json_t *status, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(status, "counts"), name));
}

/* All counts as one string. */
char *raw_counts(int sock)
{
    json_t *status = raw_query(sock, "status");
    char *text = json_dumps(json_object_get(status, "counts"), JSON_SORT_KEYS);

    json_decref(status);
    return text;
}

/* Waits until the counts are what they were. */
void raw_assert_counts(int sock, const char *before)
{
    char *now = NULL;

    for (int i = 0; i < 300; i++) {
        free(now);
        now = raw_counts(sock);
        if (!strcmp(now, before))
            break;
        usleep(10000);
    }
    assert_string_equal(now, before);
    free(now);
}

void raw_send_run(int sock, uint64_t id, uint64_t vm, uint32_t index, int64_t timeout_ns)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VcpuRun body = FAKEHYP__VCPU_RUN__INIT;

    body.vm = vm;
    body.index = index;
    body.timeout_ns = timeout_ns;
    request.id = id;
    request.body_case = FAKEHYP__REQUEST__BODY_VCPU_RUN;
    request.vcpu_run = &body;
    assert_int_equal(raw_send(sock, &request, NULL, 0), 0);
}
