/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/live_io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/fakehypd/client.h"
#include "src/fakehypd/guest.h"

static void tell_late(struct daemon *daemon, uint32_t pid, const Fakehyp__Request *request)
{
    char text[120];

    if (request->body_case != FAKEHYP__REQUEST__BODY_AGENT_REGISTER)
        return;
    snprintf(text, sizeof(text), "the agent of process %u does not answer: is it stopped? Its SIGBUS comes late", pid);
    client_event_gmem(
        daemon, NULL,
        &(struct client_event){.kind = "late-agent", .gmem = request->agent_register->gmem, .text = text});
}

static int call(void *ctx, void *arg, Fakehyp__Request *request, const int *fds, unsigned nr_fds, uint64_t timeout_ns,
                char *message, size_t size)
{
    struct peer *peer = arg;
    /* The peer may be gone afterwards. */
    const bool is_client = peer->is_client;
    const uint32_t pid = peer->pid;
    int rc = peer_call(peer, request, fds, nr_fds, timeout_ns, message, size);

    if (rc == -ETIMEDOUT && is_client)
        tell_late(ctx, pid, request);
    return rc;
}

static void vcpu_reply(void *ctx, void *vcpu_peer, const uint64_t x[4])
{
    guest_vcpu_reply(vcpu_peer, x);
}

/* ---- the guests' userfaultfds ------------------------------------------------------------------------------- */

struct uffd_watch {
    struct uffd_watch *next;
    struct live_guest *guest;
    struct watch *watch;
};

static void on_uffd(void *arg, int events)
{
    struct uffd_watch *entry = arg;

    if (events)
        live_guest_readable(entry->guest);
    else
        live_guest_unreadable(entry->guest);
}

static int watch(void *ctx, struct live_guest *guest, int fd)
{
    struct daemon *daemon = ctx;
    struct uffd_watch *entry = calloc(1, sizeof(*entry));

    if (!entry)
        return -ENOMEM;
    entry->watch = watch_new(&daemon->loop, fd, on_uffd, entry);
    if (!entry->watch) {
        free(entry);
        return -EINVAL;
    }
    entry->guest = guest;
    entry->next = daemon->uffd_watches;
    daemon->uffd_watches = entry;
    watch_set(entry->watch, UV_READABLE);
    return 0;
}

static void unwatch(void *ctx, struct live_guest *guest)
{
    struct daemon *daemon = ctx;

    for (struct uffd_watch **link = &daemon->uffd_watches; *link; link = &(*link)->next) {
        struct uffd_watch *entry = *link;
        if (entry->guest != guest)
            continue;
        *link = entry->next;
        watch_free(entry->watch);
        free(entry);
        return;
    }
}

static void kill_guest(void *ctx, void *guest_peer)
{
    guest_kill(guest_peer);
}

static void log_text(void *ctx, int level, const char *text)
{
    log_line(level < 0                ? LOG_LEVEL_ERROR
             : level >= LOG_NR_LEVELS ? LOG_LEVEL_DEBUG
                                      : (enum log_level)level,
             "%s", text);
}

void live_io_init(struct daemon *daemon)
{
    daemon->io = (struct live_io){
        .ctx = daemon,
        .call = call,
        .vcpu_reply = vcpu_reply,
        .watch = watch,
        .unwatch = unwatch,
        .kill = kill_guest,
        .log = log_text,
    };
}
