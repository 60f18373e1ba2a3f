/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/client/client.h"
#include "src/kernel/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

int fh_timeout_ms(void)
{
    const char *text = getenv("FAKEHYP_TIMEOUT_MS");
    char *end;

    if (!text || !*text)
        return FH_DEFAULT_TIMEOUT_MS;
    long ms = strtol(text, &end, 10);
    return *end == '\0' && ms > 0 && ms <= 24 * 3600 * 1000L ? (int)ms : FH_DEFAULT_TIMEOUT_MS;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void free_connection(struct fakehyp *fh)
{
    pthread_mutex_lock(&fh_lock);
    close_fd(fh->control);
    close_fd(fh->agent);
    close_fd(fh->listener);
    close_fd(fh->event_fd);
    close_fd(fh->uffd);
    close_fd(fh->maps_fd);
    close_fd(fh->report_pipe[0]);
    close_fd(fh->report_pipe[1]);
    LIST_REMOVE(fh, link);
    pthread_mutex_unlock(&fh_lock);
    for (size_t i = 0; i < fh->nr_capabilities; i++)
        free(fh->capability[i]);
    free(fh->capability);
    free(fh->in.data);
    free(fh->agent_in.data);
    free(fh->events);
    pthread_mutex_destroy(&fh->lock);
    pthread_mutex_destroy(&fh->event_lock);
    sem_destroy(&fh->agent_ready);
    free(fh);
}

static int open_descriptors(struct fakehyp *fh)
{
    int err = 0;

    pthread_mutex_lock(&fh_lock);
    fh->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fh->event_fd < 0 || pipe2(fh->report_pipe, O_CLOEXEC | O_NONBLOCK))
        err = -errno;
    pthread_mutex_unlock(&fh_lock);
    return err;
}

/* Listed before it has its first descriptor: a fork meanwhile must find what there is. */
static int new_connection(struct fakehyp **out)
{
    struct fakehyp *fh = calloc(1, sizeof(*fh));

    *out = fh;
    if (!fh)
        return -ENOMEM;
    fh->pid = getpid();
    fh->control = fh->agent = fh->listener = fh->event_fd = fh->uffd = fh->maps_fd = -1;
    fh->report_pipe[0] = fh->report_pipe[1] = -1;
    fh->timeout_ms = fh_timeout_ms();
    pthread_mutex_init(&fh->lock, NULL);
    pthread_mutex_init(&fh->event_lock, NULL);
    sem_init(&fh->agent_ready, 0, 0);
    LIST_INIT(&fh->waiters);
    LIST_INIT(&fh->objects);
    pthread_mutex_lock(&fh_lock);
    LIST_INSERT_HEAD(&fh_connections, fh, link);
    pthread_mutex_unlock(&fh_lock);

    fh->in.data = malloc(CHAN_MAX_FRAME);
    fh->agent_in.data = malloc(CHAN_MAX_FRAME);
    fh->events = calloc(FH_EVENT_RING, sizeof(*fh->events));
    if (!fh->in.data || !fh->agent_in.data || !fh->events)
        return -ENOMEM;
    return open_descriptors(fh);
}

static bool keep_capabilities(struct fakehyp *fh, const Fakehyp__HelloReply *hello)
{
    fh->capability = calloc(hello->n_capability + 1, sizeof(*fh->capability));
    if (!fh->capability)
        return false;
    for (size_t i = 0; i < hello->n_capability; i++) {
        fh->capability[i] = strdup(hello->capability[i]);
        if (!fh->capability[i])
            return false;
        fh->nr_capabilities++;
    }
    return true;
}

static int greet(struct fakehyp *fh)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Hello hello = FAKEHYP__HELLO__INIT;
    struct fh_call_options options = {
        .what = "connect", .expect = FAKEHYP__REPLY__BODY_HELLO, .fd = -1, .fd_to = &fh->agent};
    struct fh_answer answer;

    hello.version = PROTO_VERSION;
    hello.program = program_invocation_short_name;
    hello.agent = true;
    request.body_case = FAKEHYP__REQUEST__BODY_HELLO;
    request.hello = &hello;
    int rc = fh_call(fh, &options, &request, &answer);
    if (rc == 0 && answer.reply->hello->version != PROTO_VERSION)
        rc = fh_fail(-EPROTO, "connect: fakehypd %s speaks protocol version %u, this library %u: install them together",
                     answer.reply->hello->daemon, answer.reply->hello->version, PROTO_VERSION);
    if (rc == 0 && fh->agent < 0)
        rc = fh_fail(-EPROTO, "connect: fakehypd sent no agent socket; are library and daemon of one release?");
    if (rc == 0 && !keep_capabilities(fh, answer.reply->hello))
        rc = fh_fail(-ENOMEM, "connect: out of memory");
    fh_answer_free(&answer);
    return rc;
}

/* path NULL: a private daemon.  *again: see fh_dial_private(). */
static int establish(const char *path, struct fakehyp **out, bool *again)
{
    struct fakehyp *fh;
    int rc = new_connection(&fh);

    if (rc)
        fh_fail(rc, "connect: %s%s", strerrordesc_np(-rc),
                rc == -EMFILE ? ": close some, or raise the limit (ulimit -n)" : "");
    if (rc == 0)
        rc = path ? fh_dial(fh, path) : fh_dial_private(fh, again);
    if (rc == 0)
        rc = greet(fh);
    if (rc == 0)
        rc = fh_agent_start(fh);
    if (rc == 0)
        *out = fh;
    else if (fh)
        free_connection(fh);
    return rc;
}

int fakehyp_connect(const char *socket_path, struct fakehyp **out)
{
    const char *path = socket_path ? socket_path : getenv("FAKEHYP_SOCKET");
    bool again = false;

    *out = NULL;
    if (kernel_mask_error())
        return fh_fail(-EINVAL, "connect: %s", kernel_mask_error());
    fh_install_fork_handlers();
    if (socket_path || (path && *path))
        return establish(path, out, &again);
    int rc = establish(NULL, out, &again);
    if (rc == -ECONNRESET && again) {
        /* The private daemon was just ending, since its last connection was closed. */
        fh_forget_private();
        rc = establish(NULL, out, &again);
    }
    if (rc == -ECONNRESET) {
        fh_forget_private();
        rc = fh_fail(
            -EPROTO,
            "connect: the private fakehypd ended or refused us before it answered; what it says is on standard error");
    }
    return rc;
}

static void release_objects(struct fakehyp *fh)
{
    for (;;) {
        pthread_mutex_lock(&fh_lock);
        struct fh_object *object = LIST_FIRST(&fh->objects);
        pthread_mutex_unlock(&fh_lock);
        if (!object)
            return;
        object->release(object);
    }
}

void fakehyp_disconnect(struct fakehyp *fh)
{
    if (!fh)
        return;
    bool ours = fh->pid == getpid();
    if (ours) {
        atomic_store(&fh->closing, true);
        fh_mark_dead(fh);
        fh_agent_stop(fh);
        fh_views_drop_all(fh);
        fh_sigbus_quiesce();
    }
    release_objects(fh);
    free_connection(fh);
}

bool fakehyp_has_capability(const struct fakehyp *fh, const char *name)
{
    for (size_t i = 0; i < fh->nr_capabilities; i++)
        if (strcmp(fh->capability[i], name) == 0)
            return true;
    return false;
}

void fh_object_add(struct fakehyp *fh, struct fh_object *object, void (*release)(struct fh_object *object))
{
    object->fh = fh;
    object->release = release;
    pthread_mutex_lock(&fh_lock);
    LIST_INSERT_HEAD(&fh->objects, object, link);
    pthread_mutex_unlock(&fh_lock);
}

void fh_object_remove(struct fh_object *object)
{
    pthread_mutex_lock(&fh_lock);
    LIST_REMOVE(object, link);
    pthread_mutex_unlock(&fh_lock);
}
