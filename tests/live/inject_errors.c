/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each allocation, system call and message failing once.
 *
 * A fixed script runs again and again, each time with the n-th call of one
 * kind failing in the daemon, or in the client and its guest.  Whatever fails:
 * the step that it happens in goes on all the same, or fails with a reason and
 * has changed nothing; then it can be repeated, all later steps work, and
 * nothing is left over.  The daemon may end only while it starts, with a
 * message.
 *
 * FAKEHYP_INJECT_STRIDE=n takes every n-th call; 1 is all of them.
 * FAKEHYP_INJECT_ONLY=side:kind:n is one of them, with all that is known.
 */
#include "tests/common/live_script.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_MS 10000
#define SETTLE_MS 3000
#define BACKGROUND_MS 15
#define DEFAULT_STRIDE 41

enum side { SIDE_DAEMON, SIDE_CLIENT, NR_SIDES };
static const char *const side_names[NR_SIDES] = {"daemon", "client"};
static const char *const kind_names[NR_INJECT_KINDS] = {"memory", "call", "message"};

struct totals {
    unsigned points, hit, went_on, failed, no_start, guest_ended, wrong;
    unsigned long calls;
};

/* One run of the script. */
struct attempt {
    enum side side;
    enum inject_kind kind;
    unsigned long n;
    struct rig_daemon d;
    struct fakehyp *observer;
    pid_t script;
    int sock;
    const struct script_step *step; /* in which it was hit; NULL: in none */
    bool failed, guest_ended, no_start, slow;
    char wrong[600]; /* empty: a right end */
};

static struct inject *inject;
static char inject_path[120];
static uint64_t longest_ns;
/* Descriptors of the script's process after each step when nothing fails: some are opened with the first use. */
static unsigned usual_fds[64];

static void wrong(struct attempt *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void wrong(struct attempt *a, const char *format, ...)
{
    va_list args;

    if (a->wrong[0])
        return;
    va_start(args, format);
    vsnprintf(a->wrong, sizeof(a->wrong), format, args);
    va_end(args);
}

/* ---- what the daemon tells ------------------------------------------------------------------------------------------
 */

/*
 * Everything in its status that a step may change.  Frames are not: a
 * conversion that is refused has learned of pages that processes had touched.
 */
static char *state(struct fakehyp *observer)
{
    char *text = NULL, *dump = NULL;
    json_error_t error;
    json_t *gmem;
    size_t i;

    if (fakehyp_query(observer, "status", NULL, 0, &text))
        return NULL;
    json_t *status = json_loads(text, 0, &error);
    free(text);
    json_object_del(status, "uptime_ns");
    json_object_del(status, "clients");
    json_object_del(status, "oracle"); /* how many calls it has judged */
    json_object_del(json_object_get(status, "counts"), "clients");
    json_object_del(json_object_get(status, "counts"), "frames_used");
    json_array_foreach(json_object_get(status, "gmems"), i, gmem) json_object_del(gmem, "allocated_pages");
    if (status)
        dump = json_dumps(status, JSON_SORT_KEYS);
    json_decref(status);
    return dump;
}

static void must_settle(struct attempt *a, const char *before, const char *what)
{
    uint64_t deadline = rig_now_ns() + SETTLE_MS * UINT64_C(1000000);
    char *now = NULL;

    for (;;) {
        free(now);
        now = state(a->observer);
        if (!now || !strcmp(now, before) || rig_now_ns() > deadline)
            break;
        rig_sleep_ms(5);
    }
    if (!now) {
        wrong(a, "%s: the daemon does not answer: %s", what, fakehyp_last_error());
    } else if (strcmp(now, before)) {
        size_t at = 0;
        while (before[at] == now[at])
            at++;
        at = at > 60 ? at - 60 : 0;
        wrong(a, "%s: the state is not what it was: ...%.160s... and now ...%.160s...", what, before + at, now + at);
    }
    free(now);
}

static void must_be_clean(struct attempt *a, const char *what)
{
    char *text = NULL;

    if (fakehyp_query(a->observer, "audit", NULL, 0, &text))
        wrong(a, "%s: no audit: %s", what, fakehyp_last_error());
    else if (!strstr(text, "\"ok\": true") && !strstr(text, "\"ok\":true"))
        wrong(a, "%s: audit: %.400s", what, text);
    free(text);
}

/* ---- processes
 * -------------------------------------------------------------------------------------------------------- */

static char **injected_environ(void)
{
    static char *list[512], preload[200], path[160], asan[600];
    size_t nr = 0;

    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", getenv("FAKEHYP_INJECT_LIB"));
    snprintf(path, sizeof(path), "FAKEHYP_INJECT=%s", inject_path);
    /* The library comes before the sanitizer's, which it calls. */
    snprintf(asan, sizeof(asan), "ASAN_OPTIONS=verify_asan_link_order=0:allocator_may_return_null=1:%s",
             getenv("ASAN_OPTIONS") ? getenv("ASAN_OPTIONS") : "");
    for (char **e = environ; *e && nr < 500; e++)
        if (strncmp(*e, "ASAN_OPTIONS=", 13))
            list[nr++] = *e;
    list[nr++] = preload;
    list[nr++] = path;
    list[nr++] = asan;
    list[nr] = NULL;
    return list;
}

static void start_script(struct attempt *a)
{
    int socks[2];
    char number[12];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks), 0);
    snprintf(number, sizeof(number), "%d", socks[0]);
    char *argv[] = {(char *)"inject_errors", (char *)"script", a->d.socket, number, NULL};
    fflush(stdout);
    a->script = fork();
    assert_true(a->script >= 0);
    if (a->script == 0) {
        rig_child();
        int log = open(a->d.log, O_WRONLY | O_APPEND | O_CREAT, 0600);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        for (int fd = 3; fd < 64; fd++)
            if (fd != socks[0])
                close(fd);
        execve("/proc/self/exe", argv, a->side == SIDE_CLIENT ? injected_environ() : environ);
        _exit(127);
    }
    close(socks[0]);
    a->sock = socks[1];
}

static bool tell_script(struct attempt *a, uint32_t step, struct script_result *r)
{
    struct pollfd pfd = {.fd = a->sock, .events = POLLIN};
    const char *name = step < script_nr_steps ? script_steps[step].name : "a look";
    uint64_t since = rig_now_ns();
    int status = 0;

    if (send(a->sock, &step, sizeof(step), MSG_NOSIGNAL) != (ssize_t)sizeof(step) || poll(&pfd, 1, LIMIT_MS * 3) != 1) {
        wrong(a, "%s: the script hangs", name);
        return false;
    }
    if (recv(a->sock, r, sizeof(*r), 0) != (ssize_t)sizeof(*r)) {
        waitpid(a->script, &status, 0);
        a->script = 0;
        wrong(a, "%s: the script's process ended with wait status 0x%x", name, (unsigned)status);
        return false;
    }
    uint64_t ns = rig_now_ns() - since;
    longest_ns = ns > longest_ns ? ns : longest_ns;
    a->slow |= ns > LIMIT_MS * UINT64_C(1000000);
    if (a->slow)
        wrong(a, "%s took %.1f s", name, (double)ns / 1e9);
    return true;
}

static bool log_has(const struct attempt *a, const char *word)
{
    char text[65536];
    int fd = open(a->d.log, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return strstr(text, word) != NULL;
}

/* ---- a run
 * -------------------------------------------------------------------------------------------------------------- */

static bool hit(void)
{
    return atomic_load(&inject->hit);
}

/* The step has failed since a call did. */
static void judge_failure(struct attempt *a, const struct script_step *step, const struct script_result *before,
                          const struct script_result *r, const char *state_before)
{
    struct script_result now = *r;

    a->failed = true;
    if (r->rc >= 0)
        wrong(a, "%s: result %d", step->name, r->rc);
    if (r->guest_ended)
        return;
    if (!r->text[0] || strstr(r->text, "nknown error") || strstr(r->text, "Success"))
        wrong(a, "%s: %d without a reason: \"%s\"", step->name, r->rc, r->text);
    if (step->once)
        return;
    if (!step->guest)
        must_settle(a, state_before, step->name);
    must_be_clean(a, step->name);
    /* In a step of the guest's much happens, one after the other: it goes on where it failed. */
    if (step->guest || !tell_script(a, SCRIPT_LOOK, &now))
        return;
    if (strcmp(now.bytes, before->bytes))
        wrong(a, "%s: failed (%s), and its pages were %s and are %s", step->name, r->text, before->bytes, now.bytes);
}

static void take_step(struct attempt *a, uint32_t i, const char *begin)
{
    const struct script_step *step = &script_steps[i];
    struct script_result before, r;
    bool was_hit = hit();

    if (!tell_script(a, SCRIPT_LOOK, &before))
        return;
    char *state_before = was_hit ? NULL : state(a->observer);
    if (a->side == SIDE_DAEMON)
        atomic_store(&inject->on, true);
    bool told = tell_script(a, i, &r);
    if (told && step->background)
        rig_sleep_ms(BACKGROUND_MS);
    if (a->side == SIDE_DAEMON)
        atomic_store(&inject->on, false);
    if (told && !was_hit && hit()) {
        a->step = step;
        if (r.rc != step->expected)
            judge_failure(a, step, &before, &r, state_before ? state_before : begin);
        if (r.rc != step->expected && !step->once && !r.guest_ended && !a->wrong[0] && tell_script(a, i, &before) &&
            before.rc != step->expected)
            wrong(a, "%s: failed (%s), and again when it was repeated: %d: %s", step->name, r.text, before.rc,
                  before.text);
    } else if (told && r.rc != step->expected && !r.guest_ended) {
        wrong(a, "%s: %d: %s%s", step->name, r.rc, r.text, was_hit ? " (some steps after the failure)" : "");
    }
    if (told && a->side == SIDE_CLIENT && !a->n)
        usual_fds[i] = r.fds;
    else if (told && a->side == SIDE_CLIENT && !a->wrong[0] && tell_script(a, SCRIPT_LOOK, &r) && usual_fds[i] &&
             r.fds != usual_fds[i] && !(a->step && a->step->once))
        wrong(a, "%s: descriptors are %u, and %u when nothing fails", step->name, r.fds, usual_fds[i]);
    a->guest_ended |= told && r.guest_ended;
    free(state_before);
}

static void play(struct attempt *a)
{
    char *begin = state(a->observer);
    int status = 0;

    assert_true(script_nr_steps <= sizeof(usual_fds) / sizeof(usual_fds[0]));
    start_script(a);
    for (uint32_t i = 0; i < script_nr_steps && !a->wrong[0]; i++)
        if (!(script_steps[i].guest && a->guest_ended))
            take_step(a, i, begin);
    close(a->sock);
    if (a->script && a->wrong[0])
        kill(a->script, SIGKILL);
    if (a->script && !rig_wait_child(a->script, LIMIT_MS, &status))
        wrong(a, "the script does not end");
    if (status)
        wrong(a, "the script ended with wait status 0x%x", (unsigned)status);
    if (!a->wrong[0]) {
        must_settle(a, begin, "at the end");
        must_be_clean(a, "at the end");
    }
    if (a->guest_ended && !log_has(a, "killed:"))
        wrong(a, "the guest ended, and the log does not say why");
    free(begin);
}

static void attempt(struct attempt *a)
{
    memset(inject, 0, sizeof(*inject));
    atomic_store(&inject->kind, (int)a->kind);
    atomic_store(&inject->at, a->n);
    atomic_store(&inject->on, a->side == SIDE_DAEMON);
    a->d = (struct rig_daemon){.quiet = true, .environ = a->side == SIDE_DAEMON ? injected_environ() : NULL};
    bool started = rig_daemon_open(&a->d) == 0;
    atomic_store(&inject->on, false);
    if (!started) {
        a->no_start = true;
        if (!hit())
            wrong(a, "the daemon did not start");
        else if (!log_has(a, "error"))
            wrong(a, "the daemon did not start, and does not say why");
    } else {
        if (fakehyp_connect(a->d.socket, &a->observer)) {
            wrong(a, "no connection: %s", fakehyp_last_error());
        } else {
            play(a);
            fakehyp_disconnect(a->observer);
        }
        bool alive = rig_daemon_alive(&a->d);
        int status = alive ? rig_daemon_stop(&a->d) : -1;
        if (!alive)
            wrong(a, "the daemon has died");
        else if (status)
            wrong(a, "the daemon ended with wait status 0x%x", (unsigned)status);
        a->d.pid = 0;
    }
    if (a->wrong[0])
        rig_daemon_print_log(&a->d);
    rig_daemon_close(&a->d);
}

/* ---- all of them
 * ---------------------------------------------------------------------------------------------------------- */

static void print_hit(const struct attempt *a)
{
    rig_note("%s:%s:%lu %s%s%s", side_names[a->side], kind_names[a->kind], a->n, a->wrong[0] ? "WRONG: " : "", a->wrong,
             a->guest_ended ? " (the guest ended)" : "");
    if (!hit())
        return;
    rig_note("    %s failed with %s in process %d, in %s", inject->name, strerrorname_np(inject->error), inject->pid,
             a->step ? a->step->name : "no step");
    for (int i = 0; i < inject->depth; i++)
        rig_note("    %s", inject->where[i]);
}

static void count(struct totals *t, const struct attempt *a)
{
    t->points++;
    t->hit += hit();
    t->no_start += a->no_start;
    t->failed += a->failed;
    t->went_on += hit() && !a->failed && !a->no_start;
    t->guest_ended += a->guest_ended;
    t->wrong += a->wrong[0] != '\0';
    if (a->wrong[0] || (a->guest_ended && getenv("FAKEHYP_INJECT_VERBOSE")))
        print_hit(a);
}

static void all_of_a_side(enum side side)
{
    unsigned stride = (unsigned)rig_env("FAKEHYP_INJECT_STRIDE", DEFAULT_STRIDE);
    unsigned wrongs = 0;

    for (enum inject_kind kind = 0; kind < NR_INJECT_KINDS; kind++) {
        struct attempt none = {.side = side, .kind = kind};
        struct totals t = {.points = 0};
        rig_watchdog(60);
        attempt(&none);
        if (none.wrong[0])
            fail_msg("with nothing failing: %s", none.wrong);
        t.calls = atomic_load(&inject->count[kind]);
        /* Some more, for a run that takes a little longer. */
        for (unsigned long n = 1 + (unsigned)kind * 7 % (stride ? stride : 1); n <= t.calls + 3;
             n += stride ? stride : 1) {
            struct attempt a = {.side = side, .kind = kind, .n = n};
            rig_watchdog(120);
            if (getenv("FAKEHYP_INJECT_VERBOSE"))
                rig_note("%s:%s:%lu", side_names[side], kind_names[kind], n);
            attempt(&a);
            /*
             * Nothing had failed yet, or it only took long: a machine that is too busy says nothing about errors.  A
             * hang is there again.
             */
            if (a.wrong[0] && (!hit() || a.slow)) {
                rig_note("%s:%s:%lu once more: %s", side_names[side], kind_names[kind], n, a.wrong);
                a = (struct attempt){.side = side, .kind = kind, .n = n};
                attempt(&a);
            }
            count(&t, &a);
        }
        rig_note("%s, %s: %lu calls; %u made to fail: %u steps went on, %u failed with a reason and could be repeated, "
                 "%u guests ended, %u daemons did not start and said why; %u wrong ends",
                 side_names[side], kind_names[kind], t.calls, t.hit, t.went_on, t.failed, t.guest_ended, t.no_start,
                 t.wrong);
        wrongs += t.wrong;
    }
    rig_note("the longest step took %.1f ms", (double)longest_ns / 1e6);
    assert_int_equal(wrongs, 0);
}

static void in_the_daemon(void **state)
{
    (void)state;
    all_of_a_side(SIDE_DAEMON);
}

static void in_the_client(void **state)
{
    (void)state;
    all_of_a_side(SIDE_CLIENT);
}

static void only(void **state)
{
    const char *text = getenv("FAKEHYP_INJECT_ONLY");
    char side[16] = "", kind[16] = "";
    struct attempt a = {.n = 0};

    (void)state;
    assert_int_equal(sscanf(text, "%15[a-z]:%15[a-z]:%lu", side, kind, &a.n), 3);
    a.side = !strcmp(side, "client") ? SIDE_CLIENT : SIDE_DAEMON;
    while (a.kind < NR_INJECT_KINDS - 1 && strcmp(kind, kind_names[a.kind]))
        a.kind++;
    rig_watchdog(120);
    attempt(&a);
    print_hit(&a);
    assert_string_equal(a.wrong, "");
}

static bool make_shared(void)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");

    snprintf(inject_path, sizeof(inject_path), "%s/inject-XXXXXX", dir && strlen(dir) < 80 ? dir : "/tmp");
    int fd = mkostemp(inject_path, O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof(*inject)))
        return false;
    inject = mmap(NULL, sizeof(*inject), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return inject != MAP_FAILED;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest all[] = {cmocka_unit_test(in_the_daemon), cmocka_unit_test(in_the_client)};
    static const struct CMUnitTest one[] = {cmocka_unit_test(only)};

    script_main_if_asked(argc, argv);
    const char *reason = rig_unsupported();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    reason = "a sanitizer has calls of its own where errors are injected";
#endif
    if (!reason && !getenv("FAKEHYP_INJECT_LIB"))
        reason = "FAKEHYP_INJECT_LIB is not set: it names the library that injects errors";
    if (!reason && !make_shared())
        reason = "no file to share with what is injected";
    if (reason) {
        printf("1..0 # SKIP %s\n", reason);
        return 0;
    }
    int rc = getenv("FAKEHYP_INJECT_ONLY") ? cmocka_run_group_tests(one, NULL, NULL)
                                           : cmocka_run_group_tests(all, NULL, NULL);
    unlink(inject_path);
    return rc;
}
