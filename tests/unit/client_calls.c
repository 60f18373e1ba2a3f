/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections and calls: errors, threads, late and lost answers, events, fork. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <fakehyp/fakehyp.h>

#include "tests/unit/client_daemon.h"

#define NR_THREADS 6
#define NR_ROUNDS 300

struct fixture {
    struct fake_daemon daemon;
    struct fakehyp *fh;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    daemon_start(&f->daemon);
    if (fakehyp_connect(f->daemon.name, &f->fh)) {
        fprintf(stderr, "%s\n", fakehyp_last_error());
        return -1;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    fakehyp_disconnect(f->fh);
    daemon_stop(&f->daemon);
    free(f);
    return 0;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- connecting ------------------------------------------------------------------------------------------------- */

static void test_connect_errors(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char directory[] = "/tmp/fakehyp-test-XXXXXX", longer[300];
    struct fakehyp *fh;

    assert_int_equal(fakehyp_connect("/nonexistent/fakehyp.sock", &fh), -ENOENT);
    assert_null(fh);
    assert_non_null(strstr(fakehyp_last_error(), "/nonexistent/fakehyp.sock"));
    assert_int_equal(fakehyp_connect("", &fh), -ENOENT);
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(fakehyp_connect(longer, &fh), -ENAMETOOLONG);

    assert_non_null(mkdtemp(directory));
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/sock", directory);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fakehyp_connect(address.sun_path, &fh), -ECONNREFUSED);
    close(sock);
    unlink(address.sun_path);
    rmdir(directory);
}

static bool wrong_version(struct daemon_client *client, const Fakehyp__Request *request)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__HelloReply body = FAKEHYP__HELLO_REPLY__INIT;

    body.version = 99;
    body.daemon = (char *)"9.9.9";
    reply.id = request->id;
    reply.body_case = FAKEHYP__REPLY__BODY_HELLO;
    reply.hello = &body;
    daemon_reply_body(client, &reply, NULL, 0);
    return true;
}

static void test_version_mismatch(void **state)
{
    struct fake_daemon daemon;
    struct fakehyp *fh;

    daemon_start(&daemon);
    daemon_set_hook(&daemon, wrong_version, NULL);
    assert_int_equal(fakehyp_connect(daemon.name, &fh), -EPROTO);
    assert_non_null(strstr(fakehyp_last_error(), "9.9.9"));
    daemon_stop(&daemon);
}

static void test_private_daemon(void **state)
{
    struct fakehyp *first, *second;
    struct fakehyp_vm *vm;

    /* This program plays the daemon when it is called as one: see main(). */
    assert_int_equal(setenv("FAKEHYP_DAEMON", "/proc/self/exe", 1), 0);
    assert_int_equal(fakehyp_connect(NULL, &first), 0);
    assert_int_equal(fakehyp_vm_create(first, NULL, &vm), 0);
    fakehyp_disconnect(first);
    /* The first daemon ends with its only connection: the library starts another. */
    assert_int_equal(fakehyp_connect(NULL, &second), 0);
    fakehyp_disconnect(second);

    assert_int_equal(setenv("FAKEHYP_DAEMON", "/bin/false", 1), 0);
    for (int i = 0; i < 50 && fakehyp_connect(NULL, &first) == 0; i++)
        fakehyp_disconnect(first);
    assert_int_equal(fakehyp_connect(NULL, &first), -EPROTO);
    assert_non_null(strstr(fakehyp_last_error(), "/bin/false"));
    assert_int_equal(setenv("FAKEHYP_DAEMON", "/nonexistent/fakehypd", 1), 0);
    assert_int_equal(fakehyp_connect(NULL, &first), -EPROTO);
    assert_non_null(strstr(fakehyp_last_error(), "/nonexistent/fakehypd"));
    unsetenv("FAKEHYP_DAEMON");
}

/* A daemon that does not come up is not waited for without end. */
static void test_private_daemon_that_hangs(void **state)
{
    struct fakehyp *fh;

    setenv("FAKEHYP_DAEMON", "/proc/self/exe", 1);
    setenv("FAKEHYP_TEST_HANG", "1", 1);
    setenv("FAKEHYP_TIMEOUT_MS", "200", 1);
    int64_t before = now_ms();
    assert_int_equal(fakehyp_connect(NULL, &fh), -ETIMEDOUT);
    assert_true(now_ms() - before < 5000);
    assert_non_null(strstr(fakehyp_last_error(), "FAKEHYP_DAEMON"));
    /* Nothing of it is left. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    unsetenv("FAKEHYP_TIMEOUT_MS");
    unsetenv("FAKEHYP_TEST_HANG");
    unsetenv("FAKEHYP_DAEMON");
}

static void test_capabilities(void **state)
{
    struct fixture *f = *state;

    assert_true(fakehyp_has_capability(f->fh, "stage:live"));
    assert_false(fakehyp_has_capability(f->fh, "stage:sim"));
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

static void test_query_parts(void **state)
{
    struct fixture *f = *state;
    char *json;

    assert_int_equal(fakehyp_query(f->fh, "status", NULL, 0, &json), 0);
    assert_string_equal(json, "{\"what\":\"status\"}");
    free(json);
}

static bool refuse_vm(struct daemon_client *client, const Fakehyp__Request *request)
{
    if (request->body_case != FAKEHYP__REQUEST__BODY_VM_CREATE)
        return false;
    daemon_reply(client, request, -ENOMEM, request->vm_create->unprotected ? "no VM slot left" : "");
    return true;
}

static bool lack_descriptors(struct daemon_client *client, const Fakehyp__Request *request)
{
    if (request->body_case != FAKEHYP__REQUEST__BODY_VM_CREATE)
        return false;
    daemon_reply(client, request, -EMFILE, "");
    return true;
}

static void test_error_texts(void **state)
{
    struct fixture *f = *state;
    struct fakehyp_vm_config config = {.unprotected = true};
    struct fakehyp_vm *vm;

    daemon_set_hook(&f->daemon, refuse_vm, NULL);
    assert_int_equal(fakehyp_vm_create(f->fh, &config, &vm), -ENOMEM);
    assert_string_equal(fakehyp_last_error(), "no VM slot left");
    assert_null(vm);
    assert_int_equal(fakehyp_vm_create(f->fh, NULL, &vm), -ENOMEM);
    assert_non_null(strstr(fakehyp_last_error(), "vm_create"));
    daemon_set_hook(&f->daemon, lack_descriptors, NULL);
    assert_int_equal(fakehyp_vm_create(f->fh, NULL, &vm), -EMFILE);
    assert_non_null(strstr(fakehyp_last_error(), "vm_create: Too many open files"));
    assert_non_null(strstr(fakehyp_last_error(), "ulimit -n"));
}

static void *ask_often(void *arg)
{
    struct fakehyp *fh = arg;

    for (int i = 0; i < NR_ROUNDS; i++) {
        char *json;
        if (fakehyp_query(fh, "status", NULL, 0, &json))
            return (void *)1;
        bool same = strcmp(json, "{\"what\":\"status\"}") == 0;
        free(json);
        if (!same)
            return (void *)2;
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t thread[NR_THREADS];
    void *result;

    for (int i = 0; i < NR_THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, ask_often, f->fh), 0);
    for (int i = 0; i < NR_THREADS; i++) {
        pthread_join(thread[i], &result);
        assert_null(result);
    }
}

/* Keeps the first requests and answers them last to first. */
struct backlog {
    uint64_t id[NR_THREADS];
    unsigned nr;
};

static bool answer_backwards(struct daemon_client *client, const Fakehyp__Request *request)
{
    struct backlog *backlog = client->daemon->hook_arg;

    if (request->body_case != FAKEHYP__REQUEST__BODY_PIN)
        return false;
    backlog->id[backlog->nr++] = request->id;
    if (backlog->nr < NR_THREADS)
        return true;
    while (backlog->nr > 0) {
        Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
        Fakehyp__PinReply body = FAKEHYP__PIN_REPLY__INIT;
        reply.id = backlog->id[--backlog->nr];
        body.pin = reply.id;
        reply.body_case = FAKEHYP__REPLY__BODY_PIN;
        reply.pin = &body;
        daemon_reply_body(client, &reply, NULL, 0);
    }
    return true;
}

static void *pin_once(void *arg)
{
    struct fakehyp_pin *pin;

    return fakehyp_pin(arg, 0, FAKEHYP_PAGE_SIZE, FAKEHYP_FOLL_PIN, "test", &pin) ? (void *)1 : NULL;
}

static struct fakehyp_gmem *make_gmem(struct fakehyp *fh, struct fakehyp_vm **vm)
{
    struct fakehyp_gmem *gmem;

    assert_int_equal(fakehyp_vm_create(fh, NULL, vm), 0);
    assert_int_equal(fakehyp_gmem_create(*vm, 16 * FAKEHYP_PAGE_SIZE, FAKEHYP_GMEM_MMAP, &gmem), 0);
    return gmem;
}

static void test_answers_out_of_order(void **state)
{
    struct fixture *f = *state;
    struct backlog backlog = {.nr = 0};
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem = make_gmem(f->fh, &vm);
    pthread_t thread[NR_THREADS];
    void *result;

    daemon_set_hook(&f->daemon, answer_backwards, &backlog);
    for (int i = 0; i < NR_THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, pin_once, gmem), 0);
    for (int i = 0; i < NR_THREADS; i++) {
        pthread_join(thread[i], &result);
        assert_null(result);
    }
}

static bool keep_silent(struct daemon_client *client, const Fakehyp__Request *request)
{
    struct backlog *backlog = client->daemon->hook_arg;

    if (request->body_case != FAKEHYP__REQUEST__BODY_UNPIN && request->body_case != FAKEHYP__REQUEST__BODY_PIN)
        return false;
    if (backlog && backlog->nr < NR_THREADS)
        backlog->id[backlog->nr++] = request->id;
    return true;
}

static void test_timeout_and_late_answer(void **state)
{
    struct fake_daemon daemon;
    struct backlog backlog = {.nr = 0};
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_pin *pin;
    char *json;

    daemon_start(&daemon);
    assert_int_equal(setenv("FAKEHYP_TIMEOUT_MS", "150", 1), 0);
    assert_int_equal(fakehyp_connect(daemon.name, &fh), 0);
    unsetenv("FAKEHYP_TIMEOUT_MS");
    struct fakehyp_gmem *gmem = make_gmem(fh, &vm);
    daemon_set_hook(&daemon, keep_silent, &backlog);
    int64_t start = now_ms();
    assert_int_equal(fakehyp_pin(gmem, 0, FAKEHYP_PAGE_SIZE, FAKEHYP_FOLL_GET, "test", &pin), -ETIMEDOUT);
    assert_true(now_ms() - start >= 150 && now_ms() - start < 5000);
    assert_non_null(strstr(fakehyp_last_error(), "FAKEHYP_TIMEOUT_MS"));

    /* The late answer, with a descriptor, belongs to nobody: it must not disturb the next call. */
    Fakehyp__Reply late = FAKEHYP__REPLY__INIT;
    Fakehyp__PinReply body = FAKEHYP__PIN_REPLY__INIT;
    pthread_mutex_lock(&daemon.lock);
    late.id = backlog.id[0];
    pthread_mutex_unlock(&daemon.lock);
    late.body_case = FAKEHYP__REPLY__BODY_PIN;
    late.pin = &body;
    daemon_reply_body(daemon.client[0], &late, &daemon.listener, 1);
    daemon_set_hook(&daemon, NULL, NULL);
    assert_int_equal(fakehyp_query(fh, "status", NULL, 0, &json), 0);
    free(json);
    fakehyp_disconnect(fh);
    daemon_stop(&daemon);
}

struct blocked {
    struct fakehyp_gmem *gmem;
    int rc;
};

static void *block_in_pin(void *arg)
{
    struct blocked *blocked = arg;
    struct fakehyp_pin *pin;

    blocked->rc = fakehyp_pin(blocked->gmem, 0, FAKEHYP_PAGE_SIZE, FAKEHYP_FOLL_GET, "test", &pin);
    return NULL;
}

static void wait_for_calls(struct fake_daemon *daemon, unsigned calls)
{
    struct timespec pause = {.tv_nsec = 1000000};
    unsigned seen;

    do {
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&daemon->lock);
        seen = daemon->nr_calls;
        pthread_mutex_unlock(&daemon->lock);
    } while (seen < calls);
}

static void test_death_reaches_everybody(void **state)
{
    struct fixture *f = *state;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem = make_gmem(f->fh, &vm);
    struct blocked blocked[NR_THREADS];
    pthread_t thread[NR_THREADS];
    struct fakehyp_event event;
    char *json;

    daemon_set_hook(&f->daemon, keep_silent, NULL);
    unsigned before = f->daemon.nr_calls;
    for (int i = 0; i < NR_THREADS; i++) {
        blocked[i] = (struct blocked){.gmem = gmem};
        assert_int_equal(pthread_create(&thread[i], NULL, block_in_pin, &blocked[i]), 0);
    }
    wait_for_calls(&f->daemon, before + NR_THREADS);
    int64_t start = now_ms();
    daemon_die(&f->daemon);
    for (int i = 0; i < NR_THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(blocked[i].rc, -ECONNRESET);
    }
    assert_true(now_ms() - start < 1000);
    assert_int_equal(fakehyp_query(f->fh, "status", NULL, 0, &json), -ECONNRESET);
    assert_non_null(strstr(fakehyp_last_error(), "gone"));

    struct pollfd pfd = {.fd = fakehyp_event_fd(f->fh), .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, 2000), 1);
    assert_int_equal(fakehyp_next_event(f->fh, &event), 1);
    assert_string_equal(event.kind, "disconnected");
}

static void test_holders(void **state)
{
    struct fixture *f = *state;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem = make_gmem(f->fh, &vm);
    struct fakehyp_memory_attributes2 args = {.size = FAKEHYP_PAGE_SIZE, .reserved = {[3] = 1}};
    struct fakehyp_holder holder[4];
    struct fakehyp_pin *pin;
    uint64_t error_offset = 1;

    assert_int_equal(fakehyp_set_memory_attributes2(gmem, &args), -EINVAL);
    assert_int_equal(fakehyp_pin(gmem, 0, FAKEHYP_PAGE_SIZE, FAKEHYP_FOLL_LONGTERM, "disk0", &pin), 0);
    assert_int_equal(fakehyp_convert(gmem, 0, 4 * FAKEHYP_PAGE_SIZE, FAKEHYP_PRIVATE, &error_offset), -EAGAIN);
    assert_int_equal(error_offset, FAKEHYP_PAGE_SIZE);
    assert_int_equal(fakehyp_last_holders(holder, 4), 1);
    assert_string_equal(holder[0].what, "vmm/disk0");
    assert_string_equal(holder[0].kind, "FOLL_PIN|FOLL_LONGTERM");
    assert_int_equal(holder[0].count, 2);
    assert_int_equal(fakehyp_unpin(pin), 0);
    assert_int_equal(fakehyp_convert(gmem, 0, 4 * FAKEHYP_PAGE_SIZE, FAKEHYP_PRIVATE, &error_offset), 0);
    assert_int_equal(fakehyp_last_holders(holder, 4), 0);
}

static void test_import(void **state)
{
    struct fixture *f = *state;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem = make_gmem(f->fh, &vm), *imported;

    assert_int_equal(fakehyp_gmem_import(f->fh, fakehyp_gmem_fd(gmem), &imported), 0);
    assert_int_equal(fakehyp_gmem_id(imported), fakehyp_gmem_id(gmem));
    assert_int_equal(fakehyp_gmem_size(imported), 16 * FAKEHYP_PAGE_SIZE);
    assert_int_not_equal(fakehyp_gmem_fd(imported), fakehyp_gmem_fd(gmem));
    fakehyp_gmem_close(imported);
    assert_int_equal(fcntl(fakehyp_gmem_fd(gmem), F_GETFD), FD_CLOEXEC);
    assert_int_equal(fakehyp_gmem_import(f->fh, STDERR_FILENO, &imported), -EINVAL);
    assert_int_equal(fakehyp_gmem_import(f->fh, 9999, &imported), -EBADF);
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

static void test_events(void **state)
{
    struct fixture *f = *state;
    struct pollfd pfd = {.fd = fakehyp_event_fd(f->fh), .events = POLLIN};
    struct fakehyp_event event;

    assert_int_equal(fakehyp_next_event(f->fh, &event), 0);
    assert_int_equal(poll(&pfd, 1, 0), 0);
    daemon_send_event(f->daemon.client[0], "converted", 4096);
    assert_int_equal(poll(&pfd, 1, 5000), 1);
    assert_int_equal(fakehyp_next_event(f->fh, &event), 1);
    assert_string_equal(event.kind, "converted");
    assert_int_equal(event.offset, 4096);
    assert_int_equal(fakehyp_next_event(f->fh, &event), 0);
    assert_int_equal(poll(&pfd, 1, 0), 0);
}

static void test_lost_events(void **state)
{
    struct fixture *f = *state;
    struct fakehyp_event event;

    for (uint64_t i = 0; i < 300; i++)
        daemon_send_event(f->daemon.client[0], "converted", i);
    /* The agent serves in order: once it has answered this, it has all the events. */
    assert_int_equal(daemon_agent_register(f->daemon.client[0], 1, false, 0, FAKEHYP_PAGE_SIZE), 0);
    assert_int_equal(fakehyp_next_event(f->fh, &event), 1);
    assert_string_equal(event.kind, "lost");
    assert_int_equal(event.size, 300 - 256);
    for (uint64_t i = 300 - 256; i < 300; i++) {
        assert_int_equal(fakehyp_next_event(f->fh, &event), 1);
        assert_int_equal(event.offset, i);
    }
    assert_int_equal(fakehyp_next_event(f->fh, &event), 0);
}

/* ---- fork ------------------------------------------------------------------------------------------------------- */

static int child_of_fork(struct fakehyp *fh, struct fakehyp_gmem *gmem)
{
    struct fakehyp_event event;
    char *json;
    void *p;

    if (fakehyp_query(fh, "status", NULL, 0, &json) != -EIO)
        return 1;
    if (fakehyp_map(gmem, NULL, FAKEHYP_PAGE_SIZE, 3, 0, &p) != -EIO)
        return 2;
    if (fakehyp_convert(gmem, 0, FAKEHYP_PAGE_SIZE, FAKEHYP_PRIVATE, NULL) != -EIO)
        return 3;
    if (fakehyp_next_event(fh, &event) != -EIO)
        return 4;
    fakehyp_gmem_close(gmem);
    fakehyp_disconnect(fh);
    return 0;
}

static void test_fork(void **state)
{
    struct fixture *f = *state;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem = make_gmem(f->fh, &vm);
    char *json;
    int status;

    pid_t pid = fork();
    if (pid == 0)
        _exit(child_of_fork(f->fh, gmem));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(fakehyp_query(f->fh, "status", NULL, 0, &json), 0);
    free(json);
    assert_int_equal(fakehyp_convert(gmem, 0, FAKEHYP_PAGE_SIZE, FAKEHYP_SHARED, NULL), 0);
}

static void test_fork_while_others_call(void **state)
{
    struct fixture *f = *state;
    pthread_t thread[2];
    void *result;
    int status;

    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, ask_often, f->fh), 0);
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            char *json;
            _exit(fakehyp_query(f->fh, "status", NULL, 0, &json) != -EIO);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], &result);
        assert_null(result);
    }
}

struct event_storm {
    int agent;
    char text[20000]; /* large: an allocator caches few of these, so it locks more often */
    uint8_t frame[20100];
    size_t length;
    atomic_bool stop;
};

/* Sends without an allocation of its own: only the library's agent is at work. */
static void *send_events(void *arg)
{
    struct event_storm *storm = arg;

    while (!atomic_load(&storm->stop) && send(storm->agent, storm->frame, storm->length, MSG_NOSIGNAL) > 0)
        ;
    return NULL;
}

static void *return_null(void *arg)
{
    (void)arg;
    return NULL;
}

/* Of the sizes that the agent allocates, and what the start of a thread takes. */
static int allocate(void)
{
    static const size_t sizes[] = {8, 16, 24, 32, 48, 64, 96, 128, sizeof(((struct event_storm *)NULL)->text)};
    pthread_t thread;
    void *p[4];

    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        for (size_t i = 0; i < sizeof(p) / sizeof(p[0]); i++)
            p[i] = malloc(sizes[k]);
        for (size_t i = 0; i < sizeof(p) / sizeof(p[0]); i++)
            free(p[i]);
    }
#ifdef __SANITIZE_THREAD__
    /* It starts no thread in a child of a process that had several. */
    (void)thread;
    (void)return_null;
    return 0;
#else
    return pthread_create(&thread, NULL, return_null, NULL) || pthread_join(thread, NULL);
#endif
}

/* A guest is forked while the agent may be at work: what the agent has locked the child would wait for in vain. */
static void test_fork_while_agent_works(void **state)
{
    struct fixture *f = *state;
    struct event_storm storm = {.agent = f->daemon.client[0]->agent};
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Event body = FAKEHYP__EVENT__INIT;
    pthread_t thread;
    int status;

    body.kind = (char *)"converted";
    memset(storm.text, 'x', sizeof(storm.text) - 1);
    body.text = storm.text;
    request.body_case = FAKEHYP__REQUEST__BODY_EVENT;
    request.event = &body;
    assert_true(fakehyp__request__get_packed_size(&request) <= sizeof(storm.frame));
    storm.length = fakehyp__request__pack(&request, storm.frame);
    assert_int_equal(pthread_create(&thread, NULL, send_events, &storm), 0);
    for (int i = 0; i < 200; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(allocate());
        int pidfd = pidfd_open(pid, 0);
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        if (poll(&pfd, 1, 10000) != 1)
            kill(pid, SIGKILL);
        close(pidfd);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    atomic_store(&storm.stop, true);
    pthread_join(thread, NULL);
}

/* Called by the library as a private daemon: one connection, then the end. */
static int play_daemon(void)
{
    if (getenv("FAKEHYP_TEST_HANG"))
        for (;;)
            pause();
    pid_t pid = fork();

    if (pid == 0) {
        daemon_serve_listener(3);
        _exit(0);
    }
    return pid < 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--listen-fd=3") == 0)
        return play_daemon();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connect_errors),
        cmocka_unit_test(test_version_mismatch),
        cmocka_unit_test(test_private_daemon),
        cmocka_unit_test(test_private_daemon_that_hangs),
        cmocka_unit_test_setup_teardown(test_capabilities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_query_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_out_of_order, setup, teardown),
        cmocka_unit_test(test_timeout_and_late_answer),
        cmocka_unit_test_setup_teardown(test_death_reaches_everybody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_holders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_import, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fork, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fork_while_others_call, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fork_while_agent_works, setup, teardown),
    };

    return cmocka_run_group_tests_name("client calls", tests, NULL, NULL);
}
