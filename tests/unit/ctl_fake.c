/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/unit/ctl_fake.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/fakehypctl/ctl.h"
#include "src/proto/chan.h"

static pid_t daemon_pid;

static int answer_hello(struct ctl_fake *fake, int sock, uint64_t id, int agent)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__HelloReply hello = FAKEHYP__HELLO_REPLY__INIT;

    hello.version = fake->version;
    hello.daemon = "0.1.0";
    hello.stage = "live";
    reply.id = id;
    reply.body_case = FAKEHYP__REPLY__BODY_HELLO;
    reply.hello = &hello;
    return chan_send_reply(sock, &reply, &agent, 1, 0);
}

static void note_query(struct ctl_fake *fake, const Fakehyp__Query *q)
{
    snprintf(fake->query.what, sizeof(fake->query.what), "%s", q->what);
    fake->query.vm = q->vm;
    fake->query.gmem = q->gmem;
    fake->query.offset = q->offset;
    fake->query.gpa = q->gpa;
    fake->query.since = q->since;
    fake->query.limit = q->limit;
    fake->query.by_gpa = q->by_gpa;
    fake->query.any = q->any;
    fake->query.state = q->state;
    fake->nr_queries++;
}

static int answer_query(struct ctl_fake *fake, int sock, uint64_t id, unsigned i)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__QueryReply body = FAKEHYP__QUERY_REPLY__INIT;
    size_t length = strlen(fake->answer[i]), sent = 0;
    int err = 0;

    reply.id = id;
    if (fake->error) {
        reply.error = fake->error;
        reply.message = fake->message;
        return chan_send_reply(sock, &reply, NULL, 0, 0);
    }
    reply.body_case = FAKEHYP__REPLY__BODY_QUERY;
    reply.query = &body;
    for (unsigned piece = 0; piece < fake->pieces && !err; piece++) {
        body.more = piece + 1 < fake->pieces;
        body.json.data = (uint8_t *)fake->answer[i] + sent;
        body.json.len = body.more ? length / fake->pieces : length - sent;
        sent += body.json.len;
        err = chan_send_reply(sock, &reply, NULL, 0, 0);
    }
    return err;
}

static void serve(struct ctl_fake *fake, int sock, struct chan_msg *msg)
{
    int agents[2], err = 0;
    unsigned answered = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, agents))
        return;
    while (!err && chan_recv(sock, msg, 0) == 1) {
        Fakehyp__Request *request = fakehyp__request__unpack(NULL, msg->len, msg->data);

        if (!request)
            break;
        if (request->body_case == FAKEHYP__REQUEST__BODY_HELLO) {
            err = answer_hello(fake, sock, request->id, agents[1]);
        } else if (request->body_case == FAKEHYP__REQUEST__BODY_QUERY) {
            note_query(fake, request->query);
            err = answered < fake->nr_answers ? answer_query(fake, sock, request->id, answered++) : -EPIPE;
        }
        fakehyp__request__free_unpacked(request, NULL);
    }
    close(agents[0]);
    close(agents[1]);
}

static void daemon_main(struct ctl_fake *fake, int listener)
{
    static uint8_t frame[CHAN_MAX_FRAME];
    struct chan_msg msg = {.data = frame};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        int sock = accept(listener, NULL, NULL);

        if (sock < 0)
            _exit(1);
        serve(fake, sock, &msg);
        close(sock);
    }
}

struct ctl_fake *ctl_fake_start(void)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct ctl_fake *fake;
    int listener;

    fake = mmap(NULL, sizeof(*fake), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fake == MAP_FAILED)
        return NULL;
    fake->version = PROTO_VERSION;
    fake->pieces = 1;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%.60s/ctl-fake-%d.sock", dir && *dir ? dir : "/tmp", getpid());
    memcpy(fake->path, addr.sun_path, sizeof(fake->path));
    unlink(fake->path);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) || listen(listener, 4))
        return NULL;
    daemon_pid = fork();
    if (!daemon_pid)
        daemon_main(fake, listener);
    close(listener);
    return daemon_pid > 0 ? fake : NULL;
}

void ctl_fake_stop(struct ctl_fake *fake)
{
    kill(daemon_pid, SIGKILL);
    waitpid(daemon_pid, NULL, 0);
    unlink(fake->path);
    munmap(fake, sizeof(*fake));
}

void ctl_fake_answer(struct ctl_fake *fake, const char *json)
{
    fake->nr_answers = 0;
    fake->error = 0;
    fake->pieces = 1;
    fake->version = PROTO_VERSION;
    ctl_fake_answer_next(fake, json);
}

void ctl_fake_answer_next(struct ctl_fake *fake, const char *json)
{
    snprintf(fake->answer[fake->nr_answers++], CTL_FAKE_TEXT, "%s", json);
}

static void read_back(FILE *f, char *buf)
{
    size_t n;

    rewind(f);
    n = fread(buf, 1, CTL_FAKE_TEXT - 1, f);
    buf[n] = '\0';
    fclose(f);
}

const struct ctl_output *ctl_fake_run(const char *arg, ...)
{
    static struct ctl_output output;
    struct ctl_io io = {.out = tmpfile(), .err = tmpfile()};
    char *argv[16] = {(char *)"fakehypctl"};
    int argc = 1;
    va_list ap;

    va_start(ap, arg);
    for (; arg && argc < 15; arg = va_arg(ap, const char *))
        argv[argc++] = (char *)arg;
    va_end(ap);
    output.status = ctl_run(argc, argv, &io);
    read_back(io.out, output.out);
    read_back(io.err, output.err);
    return &output;
}
