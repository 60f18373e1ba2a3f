/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent: one thread a connection that does what the daemon asks of this
 * process (registering its own views, keeping events) and what a SIGBUS handler
 * may not do itself.
 */
#include "src/client/client.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define AGENT_STACK (512 * 1024)

/*
 * Read-locked by an agent while it works, not while it waits, and write-locked
 * across fork(): a child gets every lock as it was at the fork, also those that
 * we cannot see, such as the ones of an allocator that does not look after them
 * itself (AddressSanitizer's).  Who forks goes first, or a busy agent would hold it up.
 */
static pthread_rwlock_t at_work = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

void fh_agents_fork_prepare(void)
{
    pthread_rwlock_wrlock(&at_work);
}

void fh_agents_fork_done(void)
{
    pthread_rwlock_unlock(&at_work);
}

void fh_agents_fork_child(void)
{
    /* The agents that wait in it are not in this process. */
    at_work = (pthread_rwlock_t)PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
}

static void push_event(struct fakehyp *fh, const struct fakehyp_event *event)
{
    uint64_t one = 1;

    pthread_mutex_lock(&fh->event_lock);
    if (fh->nr_events == FH_EVENT_RING) {
        fh->first_event = (fh->first_event + 1) % FH_EVENT_RING;
        fh->nr_events--;
        fh->lost_events++;
    }
    fh->events[(fh->first_event + fh->nr_events++) % FH_EVENT_RING] = *event;
    /* Only its being non-zero counts; it cannot overflow in practice and failing to add changes nothing. */
    if (write(fh->event_fd, &one, sizeof(one)) < 0)
        errno = 0;
    pthread_mutex_unlock(&fh->event_lock);
}

static void take_event(struct fakehyp *fh, const Fakehyp__Event *from)
{
    struct fakehyp_event event = {.vm = from->vm, .gmem = from->gmem, .offset = from->offset, .size = from->size};

    snprintf(event.kind, sizeof(event.kind), "%s", from->kind);
    snprintf(event.text, sizeof(event.text), "%s", from->text);
    push_event(fh, &event);
}

int fakehyp_event_fd(const struct fakehyp *fh)
{
    return fh->event_fd;
}

int fakehyp_next_event(struct fakehyp *fh, struct fakehyp_event *event)
{
    uint64_t count;
    int got = 0;

    if (atomic_load(&fh->dead) == -EIO || fh->pid != getpid())
        return fh_usable(fh);
    pthread_mutex_lock(&fh->event_lock);
    if (fh->lost_events) {
        *event = (struct fakehyp_event){.kind = "lost", .size = fh->lost_events};
        snprintf(event->text, sizeof(event->text), "%llu events were dropped: fetch them sooner",
                 (unsigned long long)fh->lost_events);
        fh->lost_events = 0;
        got = 1;
    } else if (fh->nr_events) {
        *event = fh->events[fh->first_event];
        fh->first_event = (fh->first_event + 1) % FH_EVENT_RING;
        fh->nr_events--;
        got = 1;
    }
    if (!fh->nr_events && !fh->lost_events && read(fh->event_fd, &count, sizeof(count)) < 0)
        errno = 0; /* nothing to take back */
    pthread_mutex_unlock(&fh->event_lock);
    return got;
}

/* Registers or opens every range; a failed opening is taken back, for the pages stay private then. */
static int serve_register(struct fakehyp *fh, const Fakehyp__AgentRegister *ask)
{
    size_t i;
    int rc = 0;

    for (i = 0; i < ask->n_range && rc == 0; i++)
        rc = fh_views_register(fh, ask->gmem, ask->refuse, ask->range[i]->offset, ask->range[i]->length);
    if (rc && !ask->refuse)
        while (i-- > 0)
            fh_views_register(fh, ask->gmem, true, ask->range[i]->offset, ask->range[i]->length);
    return rc;
}

static void reply(struct fakehyp *fh, uint64_t id, int error, const char *message)
{
    Fakehyp__Reply answer = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;

    answer.id = id;
    answer.error = error;
    answer.message = (char *)message;
    answer.body_case = FAKEHYP__REPLY__BODY_ACK;
    answer.ack = &ack;
    /* When it cannot be sent the daemon is gone, which the next receive tells. */
    chan_send_reply(fh->agent, &answer, NULL, 0, 0);
}

static void serve(struct fakehyp *fh, const Fakehyp__Request *request)
{
    int rc;

    switch (request->body_case) {
    case FAKEHYP__REQUEST__BODY_AGENT_REGISTER:
        rc = serve_register(fh, request->agent_register);
        reply(fh, request->id, rc, rc ? fakehyp_last_error() : "");
        break;
    case FAKEHYP__REQUEST__BODY_EVENT:
        take_event(fh, request->event);
        /* An event with an id asks for a receipt. */
        if (request->id)
            reply(fh, request->id, 0, "");
        break;
    default:
        reply(fh, request->id, -ENOSYS, "the client library does not know this request");
        break;
    }
}

/* False at the end of the connection. */
static bool receive(struct fakehyp *fh)
{
    struct chan_msg *msg = &fh->agent_in;
    int rc = chan_recv(fh->agent, msg, MSG_DONTWAIT);

    if (rc == -EAGAIN)
        return true;
    if (rc <= 0)
        return false;
    chan_msg_close_fds(msg);
    Fakehyp__Request *request = chan_unpack_request(msg);
    if (!request)
        return false;
    serve(fh, request);
    fakehyp__request__free_unpacked(request, NULL);
    return true;
}

static void report_end(struct fakehyp *fh)
{
    struct fakehyp_event event = {.kind = "disconnected"};

    fh_mark_dead(fh);
    if (atomic_load(&fh->closing))
        return;
    snprintf(event.text, sizeof(event.text), "%s", FH_GONE);
    push_event(fh, &event);
}

static void *agent_main(void *arg)
{
    struct fakehyp *fh = arg;
    bool alive = true;

    sem_post(&fh->agent_ready);
    while (alive) {
        struct pollfd pfd[2] = {{.fd = fh->agent, .events = POLLIN}, {.fd = fh->report_pipe[0], .events = POLLIN}};
        uint8_t number;
        if (poll(pfd, 2, -1) < 0)
            continue; /* EINTR cannot be: all signals are blocked */
        pthread_rwlock_rdlock(&at_work);
        if (pfd[1].revents && read(fh->report_pipe[0], &number, 1) == 1)
            fh_sigbus_serve(fh, number);
        if (pfd[0].revents)
            alive = receive(fh);
        if (!alive)
            report_end(fh);
        pthread_rwlock_unlock(&at_work);
    }
    return NULL;
}

int fh_agent_start(struct fakehyp *fh)
{
    pthread_attr_t attr;
    sigset_t all, before;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, AGENT_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&fh->agent_thread, &attr, agent_main, fh);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (err)
        return fh_fail(-err, "connect: the agent thread could not be started: %s", strerror(err));
    fh->agent_started = true;
    /* The start of a thread is work, too, and not to be forked in the midst of. */
    while (sem_wait(&fh->agent_ready))
        ;
    pthread_setname_np(fh->agent_thread, "fakehyp-agent");
    return 0;
}

void fh_agent_stop(struct fakehyp *fh)
{
    if (!fh->agent_started)
        return;
    shutdown(fh->agent, SHUT_RDWR);
    pthread_join(fh->agent_thread, NULL);
    fh->agent_started = false;
}
