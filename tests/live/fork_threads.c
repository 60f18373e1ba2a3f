/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fork() at any point of a VMM with many threads, by a thread that knows nothing of what the others are at.
 *
 * The child has none of the parent's connections, nor a socket or a userfaultfd that was only about to belong to one;
 * it can use the library at once.  The parent goes on as if nothing had been.
 */
#include "tests/common/live_file.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_MS 10000
#ifdef __SANITIZE_THREAD__
#define FORKS 20 /* each copies the shadow's page tables, too */
#else
#define FORKS 100
#endif
#define MAX_FDS 256 /* the threads have some 60 at most */
#define PAGES 16u
/* What the threads have of the file, in pages. */
#define CONVERTED 0u
#define PINNED 4u
#define PRIVATE 8u
#define KEPT 12u
#define KEPT_BYTE 0x5a

struct vmm {
    struct file f;
    atomic_bool stop, failed;
    atomic_ulong turns;
    pthread_mutex_t lock; /* text */
    char text[300];
};

struct worker {
    struct vmm *vmm;
    /* One turn: 0, or -1 with the step that failed in *what. */
    int (*turn)(struct vmm *vmm, const char **what);
    pthread_t thread;
};

#define try(call)                                                                                                      \
    do {                                                                                                               \
        *what = #call;                                                                                                 \
        if (call)                                                                                                      \
            return -1;                                                                                                 \
    } while (0)

/* ---- what the threads do ----------------------------------------------------------------------------------------- */

static int convert(struct vmm *vmm, const char **what)
{
    uint8_t *page = vmm->f.view + CONVERTED * PAGE;

    *page = 77;
    try(file_convert(&vmm->f, CONVERTED, 2, FAKEHYP_PRIVATE));
    try(fakehyp_touch_read(page, NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS);
    try(file_convert(&vmm->f, CONVERTED, 2, FAKEHYP_SHARED));
    try(*page != 77);
    return 0;
}

/* Of different lengths: what one thread unmaps another maps at once, and a view lies across the end of the old one. */
static int map_and_touch(struct vmm *vmm, const char **what)
{
    uint64_t length = (KEPT + 1 + atomic_load(&vmm->turns) % (PAGES - KEPT)) * PAGE;
    uint8_t byte;
    void *view;

    try(fakehyp_map(vmm->f.gmem, NULL, length, PROT_READ | PROT_WRITE, 0, &view));
    uint8_t *p = view;
    try(fakehyp_touch_read(p + PRIVATE * PAGE, NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS);
    try(fakehyp_touch_read(p + KEPT * PAGE, &byte, NULL, NULL) != FAKEHYP_TOUCH_OK || byte != KEPT_BYTE);
    try(fakehyp_unmap(vmm->f.fh, view, length));
    return 0;
}

static int pin(struct vmm *vmm, const char **what)
{
    struct fakehyp_pin *held;

    try(fakehyp_pin(vmm->f.gmem, PINNED * PAGE, PAGE, FAKEHYP_FOLL_LONGTERM, "fork_threads", &held));
    try(file_convert(&vmm->f, PINNED, 1, FAKEHYP_PRIVATE) != -EAGAIN);
    try(fakehyp_unpin(held));
    return 0;
}

/* All of the library's life: what a connection is made of, a file, a view. */
static int live_once(const char *socket_path, const char **what)
{
    struct fakehyp_gmem *gmem;
    struct fakehyp_vm *vm;
    struct fakehyp *fh;
    void *view;

    try(fakehyp_connect(socket_path, &fh));
    try(fakehyp_vm_create(fh, NULL, &vm));
    try(fakehyp_gmem_create(vm, 2 * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem));
    try(fakehyp_map(gmem, NULL, 2 * PAGE, PROT_READ | PROT_WRITE, 0, &view));
    uint8_t *p = view;
    try(fakehyp_touch_write(p + PAGE, 3, NULL, NULL) != FAKEHYP_TOUCH_OK);
    try(fakehyp_convert(gmem, PAGE, PAGE, FAKEHYP_PRIVATE, NULL));
    try(fakehyp_touch_read(p + PAGE, NULL, NULL, NULL) != FAKEHYP_TOUCH_SIGBUS);
    try(fakehyp_convert(gmem, PAGE, PAGE, FAKEHYP_SHARED, NULL));
    try(p[PAGE] != 3);
    fakehyp_gmem_close(gmem);
    try(fakehyp_vm_destroy(vm));
    fakehyp_disconnect(fh);
    return 0;
}

static int connect_and_close(struct vmm *vmm, const char **what)
{
    (void)vmm;
    return live_once(rig.socket, what);
}

/* Nothing but a connection: its sockets come and go as often as they can. */
static int only_connect(struct vmm *vmm, const char **what)
{
    struct fakehyp *fh;

    (void)vmm;
    try(fakehyp_connect(rig.socket, &fh));
    fakehyp_disconnect(fh);
    return 0;
}

/* Each time a daemon, which ends with its one connection. */
static int start_private(struct vmm *vmm, const char **what)
{
    struct fakehyp *fh;

    (void)vmm;
    try(fakehyp_connect(NULL, &fh));
    fakehyp_disconnect(fh);
    return 0;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct vmm *vmm = worker->vmm;
    uint64_t seed = (uintptr_t)worker;
    const char *what;

    while (!atomic_load(&vmm->stop)) {
        /* The children want a part of the CPUs, too. */
        usleep((useconds_t)(rig_random(&seed) % 1000));
        if (worker->turn(vmm, &what)) {
            pthread_mutex_lock(&vmm->lock);
            snprintf(vmm->text, sizeof(vmm->text), "%s: %s", what, fakehyp_last_error());
            pthread_mutex_unlock(&vmm->lock);
            atomic_store(&vmm->failed, true);
            break;
        }
        atomic_fetch_add(&vmm->turns, 1);
    }
    return NULL;
}

/* ---- the child -----------------------------------------------------------------------------------------------------
 */

/* What of the parent's it would keep alive, or could act on the parent through.  Allocates nothing. */
static bool inherited_nothing(void)
{
    char path[40], target[64];
    bool nothing = true;

    for (int fd = STDERR_FILENO + 1; fd < MAX_FDS; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        if (!strncmp(target, "socket:", 7) || strstr(target, "userfaultfd")) {
            dprintf(STDOUT_FILENO, "# the child has descriptor %d: %s\n", fd, target);
            nothing = false;
        }
    }
    return nothing;
}

static int use_library(const char *socket_path)
{
    const char *what = "";

    if (live_once(socket_path, &what) == 0)
        return 0;
    rig_note("in the child: %s: %s", what, fakehyp_last_error());
    return 2;
}

static _Noreturn void child_main(const char *socket_path)
{
    rig_child();
    if (!inherited_nothing())
        _exit(1);
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    /*
     * After a fork of several threads the one starts no thread, and the other's allocator may be locked by a thread
     * that is not there.
     */
    execl("/proc/self/exe", "fork_threads", socket_path, NULL);
    _exit(3);
#else
    _exit(use_library(socket_path));
#endif
}

/* Forks again and again: how many children did not end as they should, of which hung. */
static unsigned fork_often(struct vmm *vmm, uint64_t forks, unsigned *hung)
{
    unsigned wrong = 0;
    uint64_t i, seed = 1;

    *hung = 0;
    for (i = 0; i < forks && !atomic_load(&vmm->failed); i++) {
        int status = 0;
        usleep((useconds_t)(rig_random(&seed) % 2000));
        pid_t pid = fork();
        if (pid == 0)
            child_main(rig.socket);
        assert_true(pid > 0);
        if (!rig_wait_child(pid, CHILD_MS, &status)) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            ++*hung;
        }
        wrong += status != 0;
        if (vmm->f.fh) {
            assert_refused(vmm->f.view + PRIVATE * PAGE);
            assert_reads(vmm->f.view + KEPT * PAGE, KEPT_BYTE);
        }
    }
    return wrong + *hung;
}

static void fork_among(struct vmm *vmm, struct worker *workers, size_t nr, uint64_t forks)
{
    uint64_t begin = rig_now_ns();
    unsigned hung;

    pthread_mutex_init(&vmm->lock, NULL);
    for (size_t i = 0; i < nr; i++) {
        workers[i].vmm = vmm;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    unsigned wrong = fork_often(vmm, forks, &hung);
    atomic_store(&vmm->stop, true);
    for (size_t i = 0; i < nr; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_mutex_destroy(&vmm->lock);
    rig_note("%" PRIu64 " forks, %u hung, %u wrong ends; %lu turns of %zu threads; %" PRIu64 " ms", forks, hung, wrong,
             atomic_load(&vmm->turns), nr, (rig_now_ns() - begin) / 1000000);
    if (atomic_load(&vmm->failed))
        rig_note("in the parent: %s", vmm->text);
    assert_false(atomic_load(&vmm->failed));
    assert_int_equal(wrong, 0);
}

/* ---- the tests -----------------------------------------------------------------------------------------------------
 */

static void fork_of_a_busy_vmm(void **state)
{
    struct worker workers[] = {
        {.turn = convert}, {.turn = map_and_touch},     {.turn = map_and_touch},
        {.turn = pin},     {.turn = connect_and_close}, {.turn = only_connect},
    };
    struct vmm vmm = {.turns = 0};

    file_open(&vmm.f, state, PAGES * PAGE);
    vmm.f.view[KEPT * PAGE] = KEPT_BYTE;
    must(file_convert(&vmm.f, PRIVATE, 4, FAKEHYP_PRIVATE));
    fork_among(&vmm, workers, sizeof(workers) / sizeof(workers[0]), rig_env("FAKEHYP_FORK_COUNT", FORKS));
    file_close(&vmm.f);
}

static void fork_while_a_private_daemon_starts(void **state)
{
    struct worker worker = {.turn = start_private};
    struct vmm vmm = {.turns = 0};

    (void)state;
    fork_among(&vmm, &worker, 1, rig_env("FAKEHYP_FORK_COUNT", FORKS) / 2);
}

static const struct CMUnitTest tests[] = {
    live_test(fork_of_a_busy_vmm),
    live_test(fork_while_a_private_daemon_starts),
};

int main(int argc, char **argv)
{
    /* A child again, after exec. */
    if (argc == 2)
        return use_library(argv[1]);
    RIG_RUN(tests);
}
