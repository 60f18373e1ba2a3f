/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_scene.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/proto/chan.h"
#include "tests/common/live_guard.h"
#include "tests/common/live_puppet.h"
#include "tests/common/live_scene_vmm.h"

#define READY_MS 10000

/* Of the scene that this process belongs to. */
static struct scene_shared *shared;

/* ---- agents, stopped between a request and its answer ----------------------------------------------------------- */

const char *const scene_step_names[NR_SCENE_STEPS] = {"VMM's agent: request taken", "VMM's agent: done, not answered",
                                                      "guest's agent: request taken",
                                                      "guest's agent: done, not answered"};

/* -1: this thread is no agent. */
static int step_here(bool done)
{
    char name[16] = "";

    if (!shared)
        return -1;
    prctl(PR_GET_NAME, name);
    if (!strcmp(name, "fakehyp-agent"))
        return done ? STEP_VMM_DONE : STEP_VMM_TAKEN;
    return strcmp(name, "agent") ? -1 : done ? STEP_GUEST_DONE : STEP_GUEST_TAKEN;
}

static void pass_step(int step)
{
    if (step < 0)
        return;
    atomic_fetch_add(&shared->step_passed[step], 1);
    if (atomic_load(&shared->step_armed) != step || atomic_fetch_sub(&shared->step_left, 1) != 1)
        return;
    atomic_store(&shared->step_held, true);
    while (!atomic_load(&shared->step_go))
        rig_sleep_ms(1);
}

int __real_chan_recv(int sock, struct chan_msg *msg, int flags);
int __wrap_chan_recv(int sock, struct chan_msg *msg, int flags);
int __wrap_chan_recv(int sock, struct chan_msg *msg, int flags)
{
    int rc = __real_chan_recv(sock, msg, flags);

    if (rc > 0)
        pass_step(step_here(false));
    return rc;
}

int __real_chan_send_reply(int sock, const Fakehyp__Reply *reply, const int *fds, unsigned nr_fds, int flags);
int __wrap_chan_send_reply(int sock, const Fakehyp__Reply *reply, const int *fds, unsigned nr_fds, int flags);
int __wrap_chan_send_reply(int sock, const Fakehyp__Reply *reply, const int *fds, unsigned nr_fds, int flags)
{
    pass_step(step_here(true));
    return __real_chan_send_reply(sock, reply, fds, nr_fds, flags);
}

/* ---- the reader -------------------------------------------------------------------------------------------------- */

void scene_fail(struct scene_shared *sh, const char *format, ...)
{
    bool first = false;
    va_list args;

    if (!atomic_compare_exchange_strong(&sh->failed, &first, true))
        return;
    va_start(args, format);
    vsnprintf(sh->failure, sizeof(sh->failure), format, args);
    va_end(args);
}

static bool is_secret(uint64_t word)
{
    return word >> 32 == SCENE_SECRET >> 32;
}

static void look(struct scene_shared *sh, int fd, unsigned file, uint64_t page, const volatile uint64_t *view)
{
    uint64_t word = 0;

    if (pread(fd, &word, sizeof(word), (off_t)(page * PAGE + 8)) == (ssize_t)sizeof(word) && is_secret(word))
        scene_fail(sh, "page %u of file %u: the reader read 0x%llx from the descriptor", (unsigned)page, file,
                   (unsigned long long)word);
    else if (page >= SCENE_SECRETS)
        return; /* a load could be the first touch of a page that is to be a hole */
    else if (!guard_load(view + page * (PAGE / 8) + 1, &word))
        atomic_fetch_add(&sh->refused, 1);
    else
        scene_fail(sh, "page %u of file %u: the reader's view gave it 0x%llx in place of SIGBUS", (unsigned)page, file,
                   (unsigned long long)word);
    atomic_fetch_add(&sh->leaks, is_secret(word));
}

static _Noreturn void reader_main(struct scene_shared *sh, int sock)
{
    struct fakehyp *fh;
    struct fakehyp_gmem *gmem[2];
    void *view[2];
    int fd[2];

    rig_child();
    guard_install();
    if (fakehyp_connect(sh->socket, &fh))
        _exit(2);
    for (unsigned i = 0; i < 2; i++) {
        fd[i] = rig_receive_fd(sock);
        if (fd[i] < 0 || fakehyp_gmem_import(fh, fd[i], &gmem[i]) ||
            fakehyp_map(gmem[i], NULL, scene_pages[i] * PAGE, PROT_READ | PROT_WRITE, 0, &view[i])) {
            scene_fail(sh, "the reader could not map file %u: %s", i, fakehyp_last_error());
            _exit(3);
        }
    }
    atomic_store(&sh->reader_ready, true);
    while (!atomic_load(&sh->reader_stop)) {
        for (unsigned i = 0; i < 2; i++)
            for (uint64_t page = 0; page < scene_pages[i]; page++)
                look(sh, fd[i], i, page, view[i]);
        atomic_fetch_add(&sh->scans, 1);
    }
    fakehyp_disconnect(fh);
    _exit(0);
}

/* ---- the scene ----------------------------------------------------------------------------------------------------
 */

static void await(const struct scene *s, const atomic_bool *what, const char *name)
{
    uint64_t deadline = rig_now_ns() + READY_MS * UINT64_C(1000000);

    while (!atomic_load(what) && !atomic_load(&s->sh->failed) && rig_now_ns() < deadline)
        rig_sleep_ms(1);
    if (!atomic_load(what))
        fail_msg("%s: the scene has no %s: %s", s->op->name, name, s->sh->failure);
}

void scene_begin(struct scene *s, const char *socket, const struct scene_op *op)
{
    int socks[2], reader[2];
    char byte;

    *s = (struct scene){.op = op};
    s->sh = mmap(NULL, sizeof(*s->sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(s->sh, MAP_FAILED);
    snprintf(s->sh->socket, sizeof(s->sh->socket), "%s", socket);
    atomic_store(&s->sh->step_armed, -1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, reader), 0);
    fflush(stdout);
    s->reader = fork();
    if (s->reader == 0) {
        close(reader[1]);
        reader_main(s->sh, reader[0]);
    }
    s->vmm = fork();
    if (s->vmm == 0) {
        close(socks[1]);
        close(reader[0]);
        shared = s->sh;
        scene_vmm_main(s->sh, op, socks[0], reader[1]);
    }
    close(socks[0]);
    close(reader[0]);
    close(reader[1]);
    s->vmm_sock = socks[1];
    /* It tells when its guest runs and all is prepared. */
    if (recv(s->vmm_sock, &byte, 1, 0) != 1)
        fail_msg("%s: the VMM could not set the scene: %s", op->name, s->sh->failure);
    await(s, &s->sh->reader_ready, "reader");
    s->guest_pidfd = pidfd_open(s->sh->guest, 0);
    assert_true(s->guest_pidfd >= 0);
}

void scene_go(struct scene *s)
{
    assert_int_equal(send(s->vmm_sock, "g", 1, MSG_NOSIGNAL), 1);
}

void scene_leave(struct scene *s)
{
    assert_int_equal(send(s->vmm_sock, "l", 1, MSG_NOSIGNAL), 1);
}

void scene_end(struct scene *s)
{
    unsigned long before = atomic_load(&s->sh->scans);
    uint64_t deadline = rig_now_ns() + READY_MS * UINT64_C(1000000);

    /* The one that was under way, and one more. */
    while (atomic_load(&s->sh->scans) < before + 2 && rig_now_ns() < deadline)
        rig_sleep_ms(1);
    assert_true(atomic_load(&s->sh->scans) >= before + 2);
    atomic_store(&s->sh->reader_stop, true);
    rig_child_ok(s->reader);
    if (atomic_load(&s->sh->failed))
        fail_msg("%s: %s", s->op->name, s->sh->failure);
    assert_true(atomic_load(&s->sh->refused) > 0);
    close(s->vmm_sock);
    close(s->guest_pidfd);
    munmap(s->sh, sizeof(*s->sh));
}
