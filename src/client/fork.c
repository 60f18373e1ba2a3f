/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fork(): the child has no connection.
 *
 * It must let go of what still acts on the parent: the userfaultfd (an ioctl
 * through it would work on the parent's memory) and the sockets (their end of
 * file is how the daemon learns that the parent is gone).  It closes them and
 * does nothing else with them.
 */
#include "src/client/client.h"

#include <errno.h>
#include <unistd.h>

pthread_mutex_t fh_lock = PTHREAD_MUTEX_INITIALIZER;
struct fh_connection_list fh_connections = LIST_HEAD_INITIALIZER(fh_connections);

static void before_fork(void)
{
    struct fakehyp *fh;

    fh_agents_fork_prepare();
    pthread_mutex_lock(&fh_lock);
    LIST_FOREACH(fh, &fh_connections, link)
    {
        pthread_mutex_lock(&fh->lock);
        pthread_mutex_lock(&fh->event_lock);
    }
    fh_touch_fork_prepare();
}

static void unlock_all(void)
{
    struct fakehyp *fh;

    LIST_FOREACH(fh, &fh_connections, link)
    {
        pthread_mutex_unlock(&fh->event_lock);
        pthread_mutex_unlock(&fh->lock);
    }
    pthread_mutex_unlock(&fh_lock);
}

static void after_fork_in_parent(void)
{
    fh_touch_fork_done();
    unlock_all();
    fh_agents_fork_done();
}

static void close_and_forget(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void after_fork_in_child(void)
{
    struct fakehyp *fh;

    LIST_FOREACH(fh, &fh_connections, link)
    {
        if (atomic_exchange(&fh->dead, -EIO) == -EIO)
            continue;
        close_and_forget(&fh->uffd);
        close_and_forget(&fh->control);
        close_and_forget(&fh->agent);
        close_and_forget(&fh->listener);
        close_and_forget(&fh->event_fd);
        close_and_forget(&fh->maps_fd);
        close_and_forget(&fh->report_pipe[0]);
        close_and_forget(&fh->report_pipe[1]);
        fh->agent_started = false;
        /* The threads that waited are not in this process. */
        LIST_INIT(&fh->waiters);
        fh->has_reader = false;
    }
    fh_views_forked();
    fh_touch_fork_child();
    unlock_all();
    fh_agents_fork_child();
}

static void register_handlers(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void fh_install_fork_handlers(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, register_handlers);
}

int fh_usable(struct fakehyp *fh)
{
    int dead = atomic_load(&fh->dead);

    /* A bare clone() runs no fork handler: hence the pid as well. */
    if (dead == -EIO || fh->pid != getpid())
        return fh_fail(-EIO, "this connection belongs to process %d, from which this one forked: connect again here",
                       (int)fh->pid);
    if (dead)
        return fh_fail(dead, FH_GONE);
    return 0;
}
