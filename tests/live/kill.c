/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kill -9 of the VMM, the guest and the daemon, FAKEHYP_KILL_COUNT times each,
 * at random moments of the load.  Nobody hangs, nothing is left over, and a
 * survivor that has the file mapped and loads from it without pause never
 * reads a byte of a private page, whoever was killed.
 */
#include "tests/common/live_load.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/common/live_guard.h"

/*
 * Nothing may take longer than 2 s, and each test's last line tells what was
 * the longest.  What fails is a hang: a busy machine is no defect.
 */
#define LIMIT_MS 10000
#define LIMIT_NS (LIMIT_MS * UINT64_C(1000000))
#define AFTERMATH_MS 40

/* What the survivor tells. */
struct survivor {
    atomic_bool ready, stop;
    atomic_ulong loads, refused;
    atomic_ulong secrets_refused; /* loads of pages that were never shared */
};

struct round {
    struct load *load;
    struct survivor *survivor;
    pid_t vmm, survivor_pid;
    int guest_pidfd;
};

struct totals {
    unsigned rounds;
    uint64_t longest_ns, loads, refused, conversions;
};

/* ---- the survivor ----------------------------------------------------------------------------------------------- */

static void survive(struct load *load, struct survivor *s, const volatile uint64_t *view)
{
    uint64_t random = load->seed + 4711, page, value;

    while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        page = rig_random(&random) % LOAD_PAGES;
        bool secret = page >= LOAD_PAGES - LOAD_SECRETS;
        const volatile uint64_t *w = view + page * (PAGE / 8);
        for (unsigned i = 0; i < 2; i++) {
            bool canary = i == 0;
            if (!guard_load(w + (canary ? LOAD_WORD_CANARY : LOAD_WORD_MAGIC), &value)) {
                atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
                atomic_fetch_add_explicit(&s->secrets_refused, secret, memory_order_relaxed);
                continue;
            }
            atomic_fetch_add_explicit(&s->loads, 1, memory_order_relaxed);
            if (secret)
                load_fail(load, "the survivor read 0x%llx from page %u, which was never shared",
                          (unsigned long long)value, (unsigned)page);
            /* What was shared is zeroed when its VM is taken down. */
            bool zeroed = !value && atomic_load(&load->killed);
            if (canary ? value != 0 : value != load_magic(0, page) && !zeroed)
                load_fail(load, "the survivor read 0x%llx from word %u of page %u", (unsigned long long)value,
                          canary ? LOAD_WORD_CANARY : LOAD_WORD_MAGIC, (unsigned)page);
        }
    }
}

static _Noreturn void survivor_main(struct load *load, struct survivor *s, int sock)
{
    struct fakehyp *fh;
    struct fakehyp_gmem *gmem;
    void *view;

    rig_child();
    guard_install();
    int fd = rig_receive_fd(sock);
    if (fd < 0)
        _exit(2);
    if (fakehyp_connect(load->socket, &fh) || fakehyp_gmem_import(fh, fd, &gmem) ||
        fakehyp_map(gmem, NULL, LOAD_PAGES * PAGE, PROT_READ | PROT_WRITE, 0, &view)) {
        load_fail(load, "the survivor could not map the file: %s", fakehyp_last_error());
        _exit(3);
    }
    close(fd);
    atomic_store(&s->ready, true);
    survive(load, s, view);
    fakehyp_gmem_close(gmem);
    fakehyp_disconnect(fh);
    _exit(0);
}

/* ---- a round ---------------------------------------------------------------------------------------------------- */

static void waited(struct totals *t, uint64_t since, const char *what)
{
    uint64_t ns = rig_now_ns() - since;

    if (ns > t->longest_ns)
        t->longest_ns = ns;
    if (ns > LIMIT_NS)
        fail_msg("%s took %.3f s", what, (double)ns / 1e9);
}

static void begin(struct round *r, const char *socket)
{
    int socks[2];

    *r = (struct round){.load = load_new(socket)};
    assert_non_null(r->load);
    r->survivor = mmap(NULL, sizeof(*r->survivor), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(r->survivor, MAP_FAILED);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
    fflush(stdout);
    r->survivor_pid = fork();
    if (r->survivor_pid == 0) {
        close(socks[1]);
        survivor_main(r->load, r->survivor, socks[0]);
    }
    r->vmm = load_vmm_start(r->load, 0, socks[1]);
    close(socks[0]);
    close(socks[1]);
    bool running = load_wait_running(r->load, 0);
    for (unsigned i = 0; i < 5000 && running && !atomic_load(&r->survivor->ready); i++)
        rig_sleep_ms(1);
    if (!running || !atomic_load(&r->survivor->ready))
        fail_msg("the load did not begin: %s", r->load->text);
    r->guest_pidfd = pidfd_open(r->load->vmm[0].guest, 0);
    assert_true(r->guest_pidfd >= 0);
}

/* The survivor goes on for a while after all that happened, and then has its say. */
static void end(struct round *r, struct totals *t)
{
    unsigned long before = atomic_load(&r->survivor->secrets_refused);

    rig_sleep_ms(AFTERMATH_MS);
    /* On a busy machine it may not have had a turn yet. */
    unsigned long after = before;
    for (unsigned i = 0; i < LIMIT_MS && after == before; i++) {
        after = atomic_load(&r->survivor->secrets_refused);
        rig_sleep_ms(1);
    }
    atomic_store(&r->survivor->stop, true);
    uint64_t since = rig_now_ns();
    rig_child_ok(r->survivor_pid);
    waited(t, since, "the survivor's end");
    if (atomic_load(&r->load->failed))
        fail_msg("%s", r->load->text);
    /* It did try, and was refused. */
    assert_true(after > before);
    t->loads += atomic_load(&r->survivor->loads);
    t->refused += atomic_load(&r->survivor->refused);
    t->conversions += load_conversions(r->load);
    close(r->guest_pidfd);
    munmap(r->survivor, sizeof(*r->survivor));
    load_free(r->load);
}

/* The process ends by itself, in time, as it should. */
static void vmm_ends(struct round *r, struct totals *t, uint64_t since, enum load_end expected)
{
    int status;

    if (!rig_wait_child(r->vmm, LIMIT_MS, &status)) {
        kill(r->vmm, SIGKILL);
        fail_msg("the VMM process hangs");
    }
    waited(t, since, "the VMM's end");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != (int)expected)
        fail_msg("the VMM ended with wait status 0x%x, expected exit %d: %s", (unsigned)status, expected,
                 r->load->text);
}

static void guest_ends(struct round *r, struct totals *t, uint64_t since)
{
    struct pollfd pfd = {.fd = r->guest_pidfd, .events = POLLIN};

    assert_int_equal(poll(&pfd, 1, LIMIT_MS), 1);
    waited(t, since, "the guest's end");
}

static void counts_return(struct totals *t, const char *counts)
{
    uint64_t took;

    assert_true(rig_counts_return_to(rig_observer, counts, &took));
    waited(t, rig_now_ns() - took, "the daemon's return to its start values");
}

static void strike(struct round *r, uint64_t *random, pid_t victim)
{
    rig_sleep_ms((unsigned)(rig_random(random) % 60));
    if (atomic_load(&r->load->failed))
        fail_msg("%s", r->load->text);
    atomic_store(&r->load->killed, true);
    assert_int_equal(kill(victim, SIGKILL), 0);
}

static void print(const char *victim, const struct totals *t)
{
    rig_note("%s killed %u times: the longest wait was %.1f ms; %llu conversions; survivor: %llu loads, %llu SIGBUS",
             victim, t->rounds, (double)t->longest_ns / 1e6, (unsigned long long)t->conversions,
             (unsigned long long)t->loads, (unsigned long long)t->refused);
}

/* ---- the three -------------------------------------------------------------------------------------------------- */

static unsigned nr_rounds(void)
{
    unsigned n = (unsigned)rig_env("FAKEHYP_KILL_COUNT", 3);

    rig_watchdog(60 + 10 * n);
    return n;
}

static void vmm_killed(void **state)
{
    struct totals t = {.rounds = nr_rounds()};
    uint64_t random = rig_now_ns();
    struct round r;

    for (unsigned i = 0; i < t.rounds; i++) {
        char *counts = rig_counts(rig_observer);
        int status;
        begin(&r, rig.socket);
        strike(&r, &random, r.vmm);
        uint64_t since = rig_now_ns();
        assert_int_equal(waitpid(r.vmm, &status, 0), r.vmm);
        guest_ends(&r, &t, since);
        /* Its VM goes; the file stays, for the survivor has it. */
        while (rig_count("vms") > 0)
            waited(&t, since, "the end of the VM");
        end(&r, &t);
        counts_return(&t, counts);
        assert_true(rig_audit_ok(*state));
        free(counts);
    }
    print("VMM", &t);
}

static void guest_killed(void **state)
{
    struct totals t = {.rounds = nr_rounds()};
    uint64_t random = rig_now_ns();
    struct round r;

    for (unsigned i = 0; i < t.rounds; i++) {
        char *counts = rig_counts(rig_observer);
        begin(&r, rig.socket);
        strike(&r, &random, r.load->vmm[0].guest);
        uint64_t since = rig_now_ns();
        guest_ends(&r, &t, since);
        vmm_ends(&r, &t, since, LOAD_GUEST_DIED);
        end(&r, &t);
        counts_return(&t, counts);
        assert_true(rig_audit_ok(*state));
        free(counts);
    }
    print("guest", &t);
}

static void daemon_killed(void **state)
{
    struct totals t = {.rounds = nr_rounds()};
    uint64_t random = rig_now_ns();
    struct rig_daemon d = {.pid = 0};
    struct round r;

    (void)state;
    assert_int_equal(rig_daemon_open(&d), 0);
    for (unsigned i = 0; i < t.rounds; i++) {
        begin(&r, d.socket);
        strike(&r, &random, d.pid);
        uint64_t since = rig_now_ns();
        rig_daemon_kill(&d);
        guest_ends(&r, &t, since);
        vmm_ends(&r, &t, since, LOAD_RESET);
        end(&r, &t);
        /* The next one takes the stale socket over. */
        assert_int_equal(rig_daemon_start(&d), 0);
    }
    rig_daemon_close(&d);
    print("daemon", &t);
}

/* A test that is killed leaves no daemon behind. */
static void test_killed(void **state)
{
    struct rig_daemon d = {.pid = 0};
    struct pollfd pfd = {.events = POLLIN};
    int socks[2], status;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
    fflush(stdout);
    pid_t test = fork();
    if (test == 0) {
        if (rig_daemon_open(&d) || send(socks[1], &d, sizeof(d), MSG_NOSIGNAL) != (ssize_t)sizeof(d))
            _exit(1);
        pause();
    }
    close(socks[1]);
    assert_int_equal(recv(socks[0], &d, sizeof(d), 0), sizeof(d));
    close(socks[0]);
    pfd.fd = pidfd_open(d.pid, 0);
    assert_true(pfd.fd >= 0);
    kill(test, SIGKILL);
    assert_int_equal(waitpid(test, &status, 0), test);
    bool ended = poll(&pfd, 1, LIMIT_MS) == 1;
    close(pfd.fd);
    if (!ended)
        kill(d.pid, SIGKILL);
    d.pid = 0;
    rig_daemon_close(&d);
    assert_true(ended);
}

static const struct CMUnitTest tests[] = {
    live_test(test_killed),
    live_test(vmm_killed),
    live_test(guest_killed),
    live_test(daemon_killed),
};

RIG_MAIN(tests)
