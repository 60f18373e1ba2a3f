/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/fuzz/inproc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/fakehypd/client.h"
#include "src/fakehypd/live_io.h"
#include "src/proto/chan.h"
#include "tests/fuzz/fuzz.h"

#define MEMORY (UINT64_C(16) << 20) /* the least: memory runs out, too */
#define MOST_TURNS 200000u
#define MOST_JUMPS 20000u
/* How long a killed process may take to be gone. */
#define DEATH_MS 5000

static uint64_t skew; /* the machine's clock is so much ahead of the real one */

static uint64_t now(void *ctx)
{
    return uv_hrtime() + skew;
}

void inproc_start(struct inproc *in)
{
    struct daemon *daemon = &in->daemon;
    struct machine_config config = {.stage = &live_stage_ops, .memory_bytes = MEMORY, .log = NULL, .log_ctx = daemon};

    *in = (struct inproc){.nr_script = 0};
    for (unsigned i = 0; i < INPROC_CLIENTS; i++)
        in->clients[i].sock = in->clients[i].agent = in->clients[i].guest = -1;
    log_open(getenv("FUZZ_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, NULL);
    FUZZ_CHECK(loop_init(&daemon->loop) == 0);
    live_io_init(daemon);
    loop_sched_config(&daemon->loop, &config.sched);
    config.sched.now = now;
    daemon->live = live_new(&daemon->io);
    FUZZ_CHECK(daemon->live);
    config.stage_ctx = daemon->live;
    FUZZ_CHECK(machine_new(&config, &daemon->machine) == 0);
    daemon->loop.sched = machine_sched(daemon->machine);
    FUZZ_CHECK(live_start(daemon->live, daemon->machine) == 0);
}

void inproc_connect(struct inproc *in, unsigned i)
{
    int pair[2];

    inproc_disconnect(in, i);
    FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
    in->clients[i].sock = pair[1];
    client_new(&in->daemon, pair[0], getpid(), getuid());
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_vcpus(struct inproc_client *client)
{
    while (client->nr_vcpus)
        close(client->vcpus[--client->nr_vcpus]);
}

void inproc_disconnect(struct inproc *in, unsigned i)
{
    struct inproc_client *client = &in->clients[i];

    close_fd(&client->sock);
    close_fd(&client->agent);
    close_fd(&client->guest);
    close_vcpus(client);
    while (client->nr_files)
        close(client->files[--client->nr_files]);
}

void inproc_send(int sock, const uint8_t *data, size_t len, const int *fds, unsigned nr_fds)
{
    if (sock >= 0)
        chan_send(sock, data, len, fds, nr_fds, MSG_DONTWAIT);
}

/* ---- a guest -------------------------------------------------------------------------------------------------- */

struct sender {
    int sock;
    struct msghdr hdr;
};

/* Shares our memory and descriptors, and runs while we wait: nothing here may touch what a thread owns. */
__attribute__((no_sanitize("address", "undefined", "thread"))) static int send_and_stay(void *arg)
{
    struct sender *sender = arg;

    syscall(SYS_sendmsg, sender->sock, &sender->hdr, MSG_NOSIGNAL | MSG_DONTWAIT);
    for (;;)
        syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
    return 0;
}

static int open_uffd(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    FUZZ_CHECK(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api));
    return uffd;
}

void inproc_guest_attach(struct inproc *in, unsigned i, uint64_t ram_base, uint64_t ipa_size)
{
    static _Alignas(16) char stack[16384];
    struct inproc_client *client = &in->clients[i];
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GuestAttach body = FAKEHYP__GUEST_ATTACH__INIT;
    uint8_t frame[64];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = ""};

    if (client->guest < 0 || client->guest_pid)
        return;
    body.ram_base = ram_base;
    body.ipa_size = ipa_size;
    request.id = 1;
    request.body_case = FAKEHYP__REQUEST__BODY_GUEST_ATTACH;
    request.guest_attach = &body;
    struct iovec iov = {frame, fakehyp__request__pack(&request, frame)};
    struct sender sender = {
        .sock = client->guest,
        .hdr = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)}};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&sender.hdr);
    int uffd = open_uffd();
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &uffd, sizeof(int));
    client->guest_pid = clone(send_and_stay, stack + sizeof(stack), CLONE_VM | CLONE_FILES | SIGCHLD, &sender);
    FUZZ_CHECK(client->guest_pid > 0);
    /* Its message comes, or an answer or the end of the connection to it already. */
    struct pollfd ends[2] = {{.fd = uv_backend_fd(&in->daemon.loop.uv), .events = POLLIN}};
    FUZZ_CHECK(poll(ends, 1, DEATH_MS) == 1);
    close(uffd);
}

static void reap_guest(struct inproc_client *client, bool kill_it)
{
    if (client->guest_pid && kill_it)
        kill(client->guest_pid, SIGKILL);
    if (client->guest_pid && waitpid(client->guest_pid, NULL, kill_it ? 0 : WNOHANG) == client->guest_pid) {
        client->guest_pid = 0;
        close_fd(&client->guest);
        close_vcpus(client);
    }
}

/* ---- what comes back -------------------------------------------------------------------------------------------- */

/* One frame, if there is one; msg.len 0 otherwise. */
static bool receive(int *sock, struct chan_msg *msg)
{
    static uint8_t buffer[CHAN_MAX_FRAME];

    msg->data = buffer;
    if (*sock < 0)
        return false;
    int rc = chan_recv(*sock, msg, MSG_DONTWAIT);
    if (rc == -EAGAIN)
        return false;
    if (rc > 0)
        return true;
    close_fd(sock);
    return false;
}

/* The requests of the daemon to an agent.  false: there was none. */
static bool answer_agent(struct inproc *in, int *sock)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;
    struct chan_msg msg;
    uint8_t frame[64];

    if (!receive(sock, &msg))
        return false;
    Fakehyp__Request *request = fakehyp__request__unpack(NULL, msg.len, msg.data);
    FUZZ_CHECK(request);
    chan_msg_close_fds(&msg);
    reply.id = request->id;
    fakehyp__request__free_unpacked(request, NULL);
    /* An event wants no answer. */
    if (reply.id == 0)
        return true;
    int error = in->nr_script ? in->script[--in->nr_script] : 0;
    if (error == INPROC_SILENT) {
        in->silent++;
        return true;
    }
    reply.error = -error;
    reply.body_case = FAKEHYP__REPLY__BODY_ACK;
    reply.ack = &ack;
    inproc_send(*sock, frame, fakehyp__reply__pack(&reply, frame), NULL, 0);
    return true;
}

static void keep_file(struct inproc_client *client, int fd)
{
    if (client->nr_files == INPROC_FILES)
        close(client->files[--client->nr_files]);
    client->files[client->nr_files++] = fd;
}

static bool take_reply(struct inproc_client *client)
{
    struct chan_msg msg;

    if (!receive(&client->sock, &msg))
        return false;
    Fakehyp__Reply *reply = fakehyp__reply__unpack(NULL, msg.len, msg.data);
    FUZZ_CHECK(reply && reply->error <= 0 && reply->error > -4096);
    /* Who fails says why, or the errno is all there is to say. */
    client->nr_replies++;
    int fd = msg.nr_fds ? chan_msg_take_fd(&msg, 0) : -1;
    FUZZ_CHECK(msg.nr_fds <= 1 && (fd < 0 || !reply->error));
    if (fd >= 0 && reply->body_case == FAKEHYP__REPLY__BODY_HELLO) {
        close_fd(&client->agent);
        client->agent = fd;
    } else if (fd >= 0 && reply->body_case == FAKEHYP__REPLY__BODY_GMEM) {
        keep_file(client, fd);
    } else if (fd >= 0 && client->guest < 0 && !client->guest_pid) {
        client->guest = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    fakehyp__reply__free_unpacked(reply, NULL);
    return true;
}

/* The answer to GuestAttach, with the vCPUs' sockets; after it the socket is the agent's. */
static bool take_guest(struct inproc *in, struct inproc_client *client)
{
    struct chan_msg msg;

    if (!client->guest_pid || client->nr_vcpus)
        return answer_agent(in, &client->guest);
    if (!receive(&client->guest, &msg))
        return false;
    for (unsigned i = 0; i < msg.nr_fds && i < INPROC_VCPUS; i++)
        client->vcpus[client->nr_vcpus++] = chan_msg_take_fd(&msg, i);
    chan_msg_close_fds(&msg);
    return true;
}

static bool take_vcpu(int *sock)
{
    struct chan_msg msg;

    if (!receive(sock, &msg))
        return false;
    chan_msg_close_fds(&msg);
    return true;
}

static bool take_all(struct inproc *in)
{
    bool any = false;

    for (unsigned i = 0; i < INPROC_CLIENTS; i++) {
        struct inproc_client *client = &in->clients[i];
        while (take_reply(client))
            any = true;
        while (answer_agent(in, &client->agent))
            any = true;
        while (take_guest(in, client))
            any = true;
        for (unsigned j = 0; j < client->nr_vcpus; j++)
            while (take_vcpu(&client->vcpus[j]))
                any = true;
        reap_guest(client, false);
    }
    return any;
}

/* ---- turning ---------------------------------------------------------------------------------------------------- */

static bool is_readable(struct daemon *daemon)
{
    struct pollfd loop = {.fd = uv_backend_fd(&daemon->loop.uv), .events = POLLIN};

    return poll(&loop, 1, 0) > 0;
}

void inproc_settle(struct inproc *in)
{
    struct daemon *daemon = &in->daemon;
    unsigned turns = 0;
    bool busy;

    do {
        FUZZ_CHECK(turns++ < MOST_TURNS);
        uv_run(&daemon->loop.uv, UV_RUN_NOWAIT);
        busy = take_all(in);
    } while (busy || sched_has_runnable(daemon->loop.sched) || is_readable(daemon));
}

bool inproc_pass_time(struct inproc *in)
{
    struct sched *sched = in->daemon.loop.sched;
    uint64_t deadline = sched_next_deadline(sched), t = now(NULL);

    if (deadline == SCHED_FOREVER)
        return false;
    if (deadline > t)
        skew += deadline - t;
    sched_fire_timers(sched);
    inproc_settle(in);
    return true;
}

/* ---- truth ------------------------------------------------------------------------------------------------------ */

static void report(void *ctx, const char *text)
{
    unsigned *problems = ctx;

    /*
     * What a client writes into private holes is for the audit to find. Clients here map nothing: where a view is said
     * to be over all of this process, the daemon's own mappings of the file are found.
     */
    if (strstr(text, "stray pages") || strstr(text, ": view at 0x"))
        return;
    fprintf(stderr, "audit: %s\n", text);
    (*problems)++;
}

static void audit_task(void *arg)
{
    struct inproc *in = arg;
    unsigned problems = 0;

    live_audit(in->daemon.live, report, &problems, NULL);
    FUZZ_CHECK(problems == 0);
}

void inproc_audit(struct inproc *in, bool kernel)
{
    unsigned problems = 0;

    /* A client may ask for the EL2 that panics of an errant access. */
    const char *panic = machine_panicked(in->daemon.machine);
    FUZZ_CHECK(!panic || strstr(panic, "host access to protected memory"));
    machine_audit(in->daemon.machine, report, &problems, NULL);
    FUZZ_CHECK(problems == 0);
    if (kernel) {
        FUZZ_CHECK(task_spawn(in->daemon.loop.sched, "audit", audit_task, in));
        inproc_settle(in);
    }
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

void inproc_finish(struct inproc *in)
{
    struct daemon *daemon = &in->daemon;
    struct host_counts counts;
    unsigned jumps = 0;

    for (unsigned i = 0; i < INPROC_CLIENTS; i++) {
        inproc_disconnect(in, i);
        reap_guest(&in->clients[i], true);
    }
    inproc_settle(in);
    while (daemon->clients || sched_nr_tasks(daemon->loop.sched)) {
        FUZZ_CHECK(jumps++ < MOST_JUMPS);
        FUZZ_CHECK(inproc_pass_time(in));
    }
    inproc_audit(in, true);
    host_counts(machine_host(daemon->machine), &counts);
    FUZZ_CHECK(!counts.vms && !counts.gmems && !counts.pins && !counts.data_frames);
    FUZZ_CHECK(live_nr_views(daemon->live, NULL) == 0 && daemon->nr_guests == 0);
    loop_close(&daemon->loop);
    machine_free(daemon->machine);
    live_free(daemon->live);
}
