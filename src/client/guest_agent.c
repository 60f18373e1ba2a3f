/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's agent: it changes what is mapped in the IPA space as the daemon
 * says.
 *
 * Each slot has one registered template mapping of either file, full size.  A
 * part of the IPA space is switched by duplicating a part of a template over
 * it: one mremap(), which is atomic and keeps the registration.  It returns
 * only when the daemon has read its event, so the daemon never waits for the
 * agent without reading the userfaultfd.  The watcher, which never remaps, ends
 * the process when the daemon is gone, whatever the agent is stuck in.
 */
#include "src/client/guest.h"
#include "src/client/client.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STACK_SIZE (256 * 1024)
#define REGISTER_BOTH (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR)

struct guest_slot {
    struct guest_slot *next;
    uint32_t number;
    uint64_t gpa, size, offset, file_size;
    char *template[2]; /* by: is it the shared file? */
};

struct agent_start {
    struct guest_process *process;
    sem_t ready;
    bool private_table;
    int error;
};

/* ---- mappings -------------------------------------------------------------------------------------------------- */

static bool in_range(uint64_t start, uint64_t size, uint64_t from, uint64_t length)
{
    return length && length <= size && from >= start && from - start <= size - length;
}

static bool aligned(uint64_t value)
{
    return value % FAKEHYP_PAGE_SIZE == 0;
}

static int map_failure(const char *what)
{
    if (errno == ENOMEM)
        return fh_fail(-ENOMEM,
                       "%s: the guest process has as many mappings as vm.max_map_count allows; scattered shared pages "
                       "cost two each: raise it with sysctl -w vm.max_map_count=N",
                       what);
    return fh_fail(-errno, "%s: %s", what, strerror(errno));
}

static int map_template(struct guest_process *process, int fd, uint64_t size, char **out)
{
    char *p = mmap(NULL, size, PROT_NONE, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED)
        return map_failure("guest: template mapping");
    int rc = madvise(p, size, MADV_DONTFORK) ? map_failure("guest: MADV_DONTFORK") : 0;
    /* EINVAL: a kernel without transparent huge pages. */
    if (rc == 0 && madvise(p, size, MADV_NOHUGEPAGE) && errno != EINVAL)
        rc = map_failure("guest: MADV_NOHUGEPAGE");
    if (rc == 0)
        rc = fh_uffd_register(process->uffd, (uintptr_t)p, size, REGISTER_BOTH);
    if (rc == 0 && mprotect(p, size, PROT_READ | PROT_WRITE))
        rc = map_failure("guest: mprotect");
    if (rc) {
        munmap(p, size);
        return rc;
    }
    *out = p;
    return 0;
}

/* Duplicates a part of the template over its place in the IPA space. */
static int overlay(const struct guest_process *process, const struct guest_slot *slot, uint64_t gpa, uint64_t size,
                   bool shared)
{
    char *from = slot->template[shared] + slot->offset + (gpa - slot->gpa);

    if (mremap(from, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, process->ram + gpa) == MAP_FAILED)
        return map_failure("guest: mremap");
    return 0;
}

/* Back to what an IPA space without memory is. */
static int clear_range(const struct guest_process *process, uint64_t gpa, uint64_t size)
{
    char *p = process->ram + gpa;

    if (mmap(p, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return map_failure("guest: mmap");
    int rc = fh_uffd_register(process->uffd, (uintptr_t)p, size, UFFDIO_REGISTER_MODE_MISSING);
    if (rc == 0 && mprotect(p, size, PROT_READ | PROT_WRITE))
        rc = map_failure("guest: mprotect");
    return rc;
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static struct guest_slot **find_slot(struct guest_process *process, uint32_t number)
{
    struct guest_slot **link = &process->slots;

    while (*link && (*link)->number != number)
        link = &(*link)->next;
    return link;
}

static void free_slot(struct guest_slot *slot)
{
    for (int i = 0; i < 2; i++)
        if (slot->template[i])
            munmap(slot->template[i], slot -> file_size);
    free(slot);
}

static int add_slot(struct guest_process *process, const Fakehyp__GuestSlotAdd *ask, const struct chan_msg *msg)
{
    if (msg->nr_fds != 2)
        return fh_fail(-EPROTO, "guest: a memslot needs two files, got %u", msg->nr_fds);
    if (!aligned(ask->gpa) || !aligned(ask->size) || !aligned(ask->offset) || !aligned(ask->file_size) ||
        !in_range(0, process->ipa_size, ask->gpa, ask->size) || !in_range(0, ask->file_size, ask->offset, ask->size))
        return fh_fail(-EINVAL, "guest: slot %u is out of the IPA space or its file", ask->slot);
    if (*find_slot(process, ask->slot))
        return fh_fail(-EEXIST, "guest: slot %u exists", ask->slot);
    struct guest_slot *slot = calloc(1, sizeof(*slot));
    if (!slot)
        return fh_fail(-ENOMEM, "guest: out of memory");
    slot->number = ask->slot;
    slot->gpa = ask->gpa;
    slot->size = ask->size;
    slot->offset = ask->offset;
    slot->file_size = ask->file_size;
    int rc = map_template(process, msg->fds[0], ask->file_size, &slot->template[0]);
    if (rc == 0)
        rc = map_template(process, msg->fds[1], ask->file_size, &slot->template[1]);
    if (rc == 0)
        rc = overlay(process, slot, slot->gpa, slot->size, false);
    if (rc) {
        free_slot(slot);
        return rc;
    }
    slot->next = process->slots;
    process->slots = slot;
    return 0;
}

static int remove_slot(struct guest_process *process, const Fakehyp__GuestSlotRemove *ask)
{
    struct guest_slot **link = find_slot(process, ask->slot), *slot = *link;

    if (!slot)
        return fh_fail(-ENOENT, "guest: no slot %u", ask->slot);
    int rc = clear_range(process, slot->gpa, slot->size);
    if (rc)
        return rc;
    *link = slot->next;
    free_slot(slot);
    return 0;
}

static int overlay_part(struct guest_process *process, const Fakehyp__GuestOverlay *ask)
{
    struct guest_slot *slot = *find_slot(process, ask->slot);

    if (!slot)
        return fh_fail(-ENOENT, "guest: no slot %u", ask->slot);
    if (!aligned(ask->gpa) || !aligned(ask->size) || !in_range(slot->gpa, slot->size, ask->gpa, ask->size))
        return fh_fail(-EINVAL, "guest: the range is not in slot %u", ask->slot);
    return overlay(process, slot, ask->gpa, ask->size, ask->shared);
}

static int zap(struct guest_process *process, const Fakehyp__GuestZap *ask)
{
    if (!aligned(ask->gpa) || !aligned(ask->size) || !in_range(0, process->ipa_size, ask->gpa, ask->size))
        return fh_fail(-EINVAL, "guest: the range to zap is not in the IPA space");
    return madvise(process->ram + ask->gpa, ask->size, MADV_DONTNEED) ? map_failure("guest: madvise") : 0;
}

static int serve(struct guest_process *process, const Fakehyp__Request *request, const struct chan_msg *msg)
{
    switch (request->body_case) {
    case FAKEHYP__REQUEST__BODY_GUEST_SLOT_ADD:
        return add_slot(process, request->guest_slot_add, msg);
    case FAKEHYP__REQUEST__BODY_GUEST_SLOT_REMOVE:
        return remove_slot(process, request->guest_slot_remove);
    case FAKEHYP__REQUEST__BODY_GUEST_OVERLAY:
        return overlay_part(process, request->guest_overlay);
    case FAKEHYP__REQUEST__BODY_GUEST_ZAP:
        return zap(process, request->guest_zap);
    default:
        return fh_fail(-ENOSYS, "the guest does not know this request");
    }
}

static int answer(int sock, uint64_t id, int error)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__Ack ack = FAKEHYP__ACK__INIT;

    reply.id = id;
    reply.error = error;
    if (error)
        reply.message = (char *)fakehyp_last_error();
    reply.body_case = FAKEHYP__REPLY__BODY_ACK;
    reply.ack = &ack;
    return chan_send_reply(sock, &reply, NULL, 0, 0);
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

static _Noreturn void die(void)
{
    for (;;)
        kill(getpid(), SIGKILL);
}

static void *watcher_main(void *arg)
{
    const struct guest_process *process = arg;
    struct pollfd pfd = {.fd = process->sock, .events = POLLRDHUP};

    while (poll(&pfd, 1, -1) <= 0)
        ;
    die();
}

static int start_thread(void *(*fn)(void *), void *arg, const char *name)
{
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int err = pthread_create(&thread, &attr, fn, arg);
    pthread_attr_destroy(&attr);
    if (err == 0)
        pthread_setname_np(thread, name);
    return err;
}

static void *agent_main(void *arg)
{
    struct agent_start *start = arg;
    struct guest_process *process = start->process;
    struct chan_msg msg = {.data = malloc(CHAN_MAX_FRAME)};

    /* A table of our own, which the watcher shares: what the guest function closes is not ours. */
    if (unshare(CLONE_FILES) == 0) {
        start->private_table = true;
        guest_close_all_but(0, (const int[]){STDERR_FILENO, process->sock, process->uffd}, 3);
    }
    start->error = msg.data ? start_thread(watcher_main, process, "watcher") : ENOMEM;
    bool failed = start->error;
    sem_post(&start->ready); /* start is gone from here on */
    if (failed)
        return NULL;

    while (chan_recv(process->sock, &msg, 0) > 0) {
        Fakehyp__Request *request = chan_unpack_request(&msg);
        if (!request)
            break;
        int rc = serve(process, request, &msg);
        chan_msg_close_fds(&msg);
        rc = answer(process->sock, request->id, rc);
        fakehyp__request__free_unpacked(request, NULL);
        if (rc)
            break;
    }
    die();
}

int guest_agent_start(struct guest_process *process, bool *private_table)
{
    struct agent_start start = {.process = process};
    sigset_t all, before;

    sem_init(&start.ready, 0, 0);
    /* Signals are the guest function's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = start_thread(agent_main, &start, "agent");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0) {
        while (sem_wait(&start.ready))
            ;
        err = start.error;
    }
    sem_destroy(&start.ready);
    *private_table = start.private_table;
    return err ? fh_fail(-err, "the guest's agent could not be started: %s", strerror(err)) : 0;
}
