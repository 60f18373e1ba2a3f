/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_arena.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/common/live_puppet.h"

#define RUN_MS 200
#define WORDS (PAGE / 8)
#define SETTLE_MS 60000u

/* ---- what all share ------------------------------------------------------------------------------------------------
 */

struct arena *arena_new(const char *socket)
{
    struct arena *arena = mmap(NULL, sizeof(*arena), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (arena == MAP_FAILED)
        return NULL;
    snprintf(arena->socket, sizeof(arena->socket), "%s", socket);
    return arena;
}

void arena_free(struct arena *arena)
{
    munmap(arena, sizeof(*arena));
}

void arena_fail(struct arena *arena, const char *format, ...)
{
    bool first = false;
    va_list args;

    if (atomic_compare_exchange_strong(&arena->failed, &first, true)) {
        va_start(args, format);
        vsnprintf(arena->text, sizeof(arena->text), format, args);
        va_end(args);
    }
    atomic_store(&arena->stop, true);
}

bool arena_is_secret(uint64_t page)
{
    return page < ARENA_SECRETS;
}

bool arena_is_private_when_still(uint64_t page)
{
    return arena_is_secret(page) || page - ARENA_FLIP < ARENA_FLIPS || page - ARENA_BULK < ARENA_BULK_PAGES;
}

ssize_t arena_find_secret(const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    uint64_t word;
    size_t i = 0;

    for (; i + 8 <= length; i += 8) {
        memcpy(&word, p + i, 8);
        if (word & ARENA_SECRET_BITS)
            break;
    }
    for (; i < length; i++)
        if (p[i] & 0x80)
            return (ssize_t)i;
    return -1;
}

/* ---- the guest -----------------------------------------------------------------------------------------------------
 */

struct mine {
    bool shared;
    uint64_t canary; /* each word of the page, while it is private */
};

struct player {
    struct arena *arena;
    struct fakehyp_guest *guest;
    uint64_t random;
    struct mine page[ARENA_SECRETS + ARENA_FLIPS];
};

static uint64_t page_of(unsigned i)
{
    return i < ARENA_SECRETS ? i : ARENA_FLIP + i - ARENA_SECRETS;
}

static volatile uint64_t *words(const struct fakehyp_guest *guest, uint64_t page)
{
    return fakehyp_guest_ptr(guest, page * PAGE);
}

static bool is_counter(unsigned i, unsigned word)
{
    return i >= ARENA_SECRETS && word == ARENA_COUNTER;
}

static void fill(const struct player *p, unsigned i, uint64_t value)
{
    volatile uint64_t *w = words(p->guest, page_of(i));
    for (unsigned word = 0; word < WORDS; word++)
        if (!is_counter(i, word))
            w[word] = value;
}

/* All that the guest stored is there, and it alone. */
static void check(struct player *p, unsigned i)
{
    const volatile uint64_t *w = words(p->guest, page_of(i));
    for (unsigned word = 0; word < WORDS; word++) {
        uint64_t found = w[word];
        if (is_counter(i, word) || found == p->page[i].canary)
            continue;
        arena_fail(p->arena, "page %u, word %u, is private: the guest stored 0x%llx and found 0x%llx",
                   (unsigned)page_of(i), word, (unsigned long long)p->page[i].canary, (unsigned long long)found);
        return;
    }
}

static void rewrite(struct player *p, unsigned i)
{
    check(p, i);
    p->page[i].canary = rig_random(&p->random) | ARENA_SECRET_BITS;
    fill(p, i, p->page[i].canary);
    atomic_fetch_add_explicit(&p->arena->canaries, 1, memory_order_relaxed);
}

static void share_page(struct player *p, unsigned i)
{
    rewrite(p, i);
    fill(p, i, rig_random(&p->random) & ~ARENA_SECRET_BITS);
    int64_t rc = fakehyp_guest_mem_share(p->guest, page_of(i) * PAGE);
    if (rc)
        arena_fail(p->arena, "page %u: MEM_SHARE returned %lld", (unsigned)page_of(i), (long long)rc);
    p->page[i].shared = true;
}

static void unshare_page(struct player *p, unsigned i)
{
    int64_t rc = fakehyp_guest_mem_unshare(p->guest, page_of(i) * PAGE);

    if (rc) {
        arena_fail(p->arena, "page %u: MEM_UNSHARE returned %lld", (unsigned)page_of(i), (long long)rc);
        return;
    }
    p->page[i].shared = false;
    p->page[i].canary = rig_random(&p->random) | ARENA_SECRET_BITS;
    fill(p, i, p->page[i].canary);
}

static void turn(struct player *p, bool *parked)
{
    bool still = atomic_load(&p->arena->still);

    for (unsigned i = 0; i < ARENA_SECRETS + ARENA_FLIPS; i++) {
        struct mine *m = &p->page[i];
        if (!m->shared)
            rewrite(p, i);
        if (m->shared ? still || rig_random(&p->random) % 2 : false)
            unshare_page(p, i);
        else if (i >= ARENA_SECRETS && !m->shared && !still && rig_random(&p->random) % 2)
            share_page(p, i);
    }
    if (still != *parked) {
        atomic_fetch_add(&p->arena->parked, still ? 1u : -1u);
        *parked = still;
    }
}

/* Two threads that never sleep would leave attackers on a small machine little time. */
static void breathe(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

/* The counter is a number of seven bits a byte, for it is seen by everybody. */
static uint64_t next_count(uint64_t count)
{
    count++;
    for (unsigned byte = 0; byte < 7; byte++)
        if (count >> (8 * byte) & 0x80)
            count += UINT64_C(0x80) << (8 * byte);
    return count & ~ARENA_SECRET_BITS;
}

static int count_main(struct fakehyp_guest *guest, struct arena *arena)
{
    static uint64_t counter[ARENA_FLIPS];
    bool wiped = true;

    while (!atomic_load(&arena->stop)) {
        /* One turn more after the last one in which stores could vanish. */
        bool wipes = atomic_load(&arena->wipes), forgive = wipes || wiped;
        for (unsigned i = 0; i < ARENA_FLIPS; i++) {
            volatile uint64_t *w = words(guest, ARENA_FLIP + i) + ARENA_COUNTER;
            uint64_t found = *w;
            if (found != counter[i] && !forgive)
                arena_fail(arena, "page %u: a store was lost: counter 0x%llx instead of 0x%llx", ARENA_FLIP + i,
                           (unsigned long long)found, (unsigned long long)counter[i]);
            *w = counter[i] = next_count(found & ~ARENA_SECRET_BITS);
        }
        wiped = wipes;
        atomic_fetch_add_explicit(&arena->counts, ARENA_FLIPS, memory_order_relaxed);
        breathe();
    }
    return 0;
}

static int guest_main(struct fakehyp_guest *guest, void *arg)
{
    static struct player player;
    struct player *p = &player;
    bool parked = false;

    if (fakehyp_guest_vcpu(guest) > 0)
        return count_main(guest, arg);
    p->arena = arg;
    p->guest = guest;
    p->random = rig_now_ns() | 1;
    for (unsigned i = 0; i < ARENA_SECRETS + ARENA_FLIPS; i++) {
        p->page[i].canary = rig_random(&p->random) | ARENA_SECRET_BITS;
        fill(p, i, p->page[i].canary);
    }
    while (!atomic_load(&p->arena->stop)) {
        turn(p, &parked);
        breathe();
    }
    return 0;
}

/* ---- the VMM -------------------------------------------------------------------------------------------------------
 */

struct vmm {
    struct arena *arena;
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    struct fakehyp_vcpu *vcpu[2];
    void *view;
};

static bool convert(struct vmm *v, uint64_t page, uint64_t nr, bool to_private)
{
    int rc = -ETIMEDOUT;

    /* On a busy machine the guest's agent may not get a turn in its two seconds: nothing has changed then. */
    for (unsigned tries = 0; tries < 30 && rc == -ETIMEDOUT; tries++)
        rc = fakehyp_convert(v->gmem, page * PAGE, nr * PAGE, to_private ? FAKEHYP_PRIVATE : FAKEHYP_SHARED, NULL);
    if (rc)
        arena_fail(v->arena, "convert of [%u, +%u) to %s: %d: %s", (unsigned)page, (unsigned)nr,
                   to_private ? "private" : "shared", rc, fakehyp_last_error());
    return rc == 0;
}

static void run(struct vmm *v, struct fakehyp_vcpu *vcpu)
{
    const struct fakehyp_run *run = fakehyp_vcpu_state(vcpu);

    for (;;) {
        int rc = fakehyp_vcpu_run(vcpu, RUN_MS);
        if (rc == -ETIMEDOUT && !atomic_load(&v->arena->failed))
            continue;
        if (rc ||
            (run->exit_reason == FAKEHYP_EXIT_SYSTEM_EVENT && run->system_event.type == FAKEHYP_SYSTEM_EVENT_CRASH)) {
            arena_fail(v->arena, "the guest cannot go on: vcpu_run %d, exit %u", rc, (unsigned)run->exit_reason);
            return;
        }
        if (run->exit_reason == FAKEHYP_EXIT_SYSTEM_EVENT)
            return;
        if (run->exit_reason != FAKEHYP_EXIT_HYPERCALL)
            continue;
        bool unshare = run->hypercall.nr == HVC_MEM_UNSHARE;
        if ((unshare || run->hypercall.nr == HVC_MEM_SHARE) && convert(v, run->hypercall.args[0] / PAGE, 1, unshare))
            atomic_fetch_add_explicit(&v->arena->flips, 1, memory_order_relaxed);
    }
}

static void *second_main(void *arg)
{
    struct vmm *v = arg;
    run(v, v->vcpu[1]);
    return NULL;
}

static void *bulk_main(void *arg)
{
    struct vmm *v = arg;
    uint64_t random = rig_now_ns() | 1;
    bool parked = false;

    while (!atomic_load(&v->arena->stop)) {
        bool still = atomic_load(&v->arena->still);
        /* 2 MiB and more: the views are opened for it, not populated. */
        uint64_t nr = 513 + rig_random(&random) % (ARENA_BULK_PAGES - 513);
        uint64_t at = ARENA_BULK + rig_random(&random) % (ARENA_BULK_PAGES - nr + 1);
        if (still != parked) {
            if (still && !convert(v, ARENA_BULK, ARENA_BULK_PAGES, true))
                break;
            atomic_fetch_add(&v->arena->parked, still ? 1u : -1u);
            parked = still;
        } else if (!still) {
            if (!convert(v, at, nr, rig_random(&random) % 2))
                break;
            atomic_fetch_add_explicit(&v->arena->bulks, 1, memory_order_relaxed);
        }
        rig_sleep_ms(1);
    }
    return NULL;
}

static int set_up(struct vmm *v)
{
    const struct fakehyp_vm_config config = {.name = "arena"};
    int rc = fakehyp_connect(v->arena->socket, &v->fh);

    if (!rc)
        rc = fakehyp_vm_create(v->fh, &config, &v->vm);
    if (!rc)
        rc = fakehyp_gmem_create(v->vm, ARENA_PAGES * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &v->gmem);
    if (!rc)
        rc = fakehyp_map(v->gmem, NULL, ARENA_PAGES * PAGE, PROT_READ | PROT_WRITE, 0, &v->view);
    if (!rc)
        rc = fakehyp_set_memory_region(v->vm, 0, 0, ARENA_PAGES * PAGE, v->gmem, 0);
    if (!rc)
        rc = fakehyp_convert(v->gmem, 0, ARENA_SECRETS * PAGE, FAKEHYP_PRIVATE, NULL);
    if (!rc)
        rc = fakehyp_convert(v->gmem, ARENA_FLIP * PAGE, ARENA_FLIPS * PAGE, FAKEHYP_PRIVATE, NULL);
    for (unsigned i = 0; i < 2 && !rc; i++)
        rc = fakehyp_vcpu_create(v->vm, i, &v->vcpu[i]);
    if (!rc)
        rc = fakehyp_guest_start(v->vm, guest_main, v->arena);
    return rc;
}

static _Noreturn void vmm_main(struct arena *arena, int sock)
{
    struct vmm v = {.arena = arena};
    pthread_t second, bulk;

    int rc = set_up(&v);
    if (rc || !rig_send_fd(sock, fakehyp_gmem_fd(v.gmem)) || pthread_create(&second, NULL, second_main, &v) ||
        pthread_create(&bulk, NULL, bulk_main, &v)) {
        arena_fail(arena, "the VMM could not be set up: %d: %s", rc, fakehyp_last_error());
        _exit(1);
    }
    close(sock);
    run(&v, v.vcpu[0]);
    pthread_join(second, NULL);
    pthread_join(bulk, NULL);
    rc = fakehyp_vm_destroy(v.vm);
    if (rc)
        arena_fail(arena, "vm_destroy: %d: %s", rc, fakehyp_last_error());
    fakehyp_gmem_close(v.gmem);
    fakehyp_disconnect(v.fh);
    _exit(atomic_load(&arena->failed));
}

/* ---- its parent ----------------------------------------------------------------------------------------------------
 */

pid_t arena_start(struct arena *arena, int *fd)
{
    int socks[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
        return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        rig_child();
        close(socks[0]);
        vmm_main(arena, socks[1]);
    }
    close(socks[1]);
    *fd = pid > 0 ? rig_receive_fd(socks[0]) : -1;
    close(socks[0]);
    return *fd >= 0 ? pid : -1;
}

bool arena_end(struct arena *arena, pid_t vmm)
{
    int status;

    atomic_store(&arena->stop, true);
    if (!rig_wait_child(vmm, 2 * SETTLE_MS, &status)) {
        arena_fail(arena, "the VMM hangs");
        kill(vmm, SIGKILL);
    }
    return !atomic_load(&arena->failed);
}

bool arena_still(struct arena *arena, bool still)
{
    unsigned wanted = still ? ARENA_PARKS : 0;

    atomic_store(&arena->still, still);
    for (unsigned ms = 0; ms < SETTLE_MS && !atomic_load(&arena->failed); ms++) {
        if (atomic_load(&arena->parked) == wanted)
            return true;
        rig_sleep_ms(1);
    }
    return false;
}

bool arena_wipes(struct arena *arena, bool wipes)
{
    if (atomic_exchange(&arena->wipes, wipes) == wipes)
        return true;
    /* The turn that it is at may have begun before. */
    uint64_t known = atomic_load(&arena->counts) + UINT64_C(2) * ARENA_FLIPS;
    for (unsigned ms = 0; ms < SETTLE_MS && !atomic_load(&arena->failed); ms++) {
        if (atomic_load(&arena->counts) >= known)
            return true;
        rig_sleep_ms(1);
    }
    return false;
}
