/* SPDX-License-Identifier: BSD-2-Clause */
/* The rows: attackers, what they may find, and the verdict. */
#include "tests/common/live_escape.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/common/live_guard.h"
#include "tests/common/live_puppet.h"

#define DEFAULT_TRIES 1000u
/* Attempts of one process in stillness. */
#define STILL_TURNS 2u
#define MAX_ROWS 64u
#define SETTLE_TRIES 300u

enum { STORM, STORM_DONE, STILL, STILL_DONE, LEAVE };

static struct {
    const char *section;
    const struct escape_row *rows;
    size_t nr_rows;
    char verdict[MAX_ROWS][200]; /* as the table has it */
    uint64_t tries_a_row, tries, leaks;
    struct arena *arena;
    struct escape_tally *tally;
    pid_t vmm, attacker; /* 0: none */
    int fd;
    char *counts;
    /* This process's own view: a bystander, who does nothing wrong. */
    struct fakehyp_gmem *gmem;
    uint8_t *view;
} run;

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const char *verdict_name(enum verdict verdict)
{
    return verdict == CLOSED ? "closed" : verdict == HARMLESS ? "harmless" : "declared: signal lost";
}

static const char not_tried[] = "not tried here";

static void format_line(size_t i, char *line, size_t size)
{
    const struct escape_row *row = &run.rows[i];
    snprintf(line, size, "| %s | %s | %s | %s |", row->name, row->how, run.verdict[i], row->note);
}

/* In the manual's section: the lines of its table in their order.  A row that was not tried keeps its verdict there. */
static bool same_as_manual(FILE *f)
{
    char *line = NULL, marker[80], ours[1000];
    size_t size = 0, i = 0;
    bool inside = false, same = true;

    snprintf(marker, sizeof(marker), "<!-- escapes: %s -->\n", run.section);
    while (getline(&line, &size, f) > 0) {
        if (!inside) {
            inside = !strcmp(line, marker);
            continue;
        }
        if (line[0] != '|' && i)
            break;
        if (line[0] != '|' || !strncmp(line, "| escape ", 9) || !strncmp(line, "|---", 4))
            continue;
        line[strcspn(line, "\n")] = '\0';
        if (i == run.nr_rows) {
            rig_note("the manual has a row more: %s", line);
            same = false;
            break;
        }
        if (!strncmp(run.verdict[i], not_tried, strlen(not_tried)))
            snprintf(run.verdict[i], sizeof(run.verdict[i]), "%s", verdict_name(run.rows[i].verdict));
        format_line(i++, ours, sizeof(ours));
        if (strcmp(line, ours)) {
            rig_note("found:  %s", ours);
            rig_note("manual: %s", line);
            same = false;
        }
    }
    free(line);
    if (i < run.nr_rows)
        rig_note("section %s of the manual has %zu rows of %zu", run.section, i, run.nr_rows);
    return same && i == run.nr_rows;
}

static void table_equals_manual(void **state)
{
    const char *srcdir = getenv("srcdir");
    char path[300], line[1000];

    (void)state;
    for (size_t i = 0; i < run.nr_rows; i++) {
        format_line(i, line, sizeof(line));
        rig_note("%s", line);
    }
    snprintf(path, sizeof(path), "%s/doc/boundary.md", srcdir ? srcdir : ".");
    FILE *f = fopen(path, "re");
    if (!f)
        rig_not_here("not compared: %s: %s", path, strerror(errno));
    bool same = same_as_manual(f);
    fclose(f);
    assert_true(same);
}

/* ---- an attacker ---------------------------------------------------------------------------------------------------
 */

uint64_t escape_page(unsigned i)
{
    if (i < ARENA_SECRETS)
        return i;
    i -= ARENA_SECRETS;
    return i < ARENA_FLIPS ? ARENA_FLIP + i : ARENA_BULK + (i - ARENA_FLIPS) * (ARENA_BULK_PAGES / 4) + 3;
}

static bool is_private(const struct escape *e, uint64_t page)
{
    return e->still ? arena_is_private_when_still(page) : arena_is_secret(page);
}

void escape_saw(struct escape *e, uint64_t page, const void *bytes, size_t length)
{
    ssize_t at = arena_find_secret(bytes, length);

    atomic_fetch_add_explicit(&e->tally->tries, 1, memory_order_relaxed);
    if (is_private(e, page))
        atomic_fetch_add_explicit(&e->tally->reads, 1, memory_order_relaxed);
    if (at < 0)
        return;
    atomic_fetch_add(&e->tally->leaks, 1);
    arena_fail(e->arena, "%s: private byte 0x%x of page %u was read", e->row->name, ((const uint8_t *)bytes)[at],
               (unsigned)page);
}

void escape_refused(struct escape *e)
{
    atomic_fetch_add_explicit(&e->tally->tries, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->tally->refusals, 1, memory_order_relaxed);
}

void escape_barred(struct escape *e)
{
    atomic_fetch_add_explicit(&e->tally->tries, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->tally->bars, 1, memory_order_relaxed);
}

void escape_look_at(struct escape *e, const volatile uint8_t *mapping, uint64_t page)
{
    uint64_t copy[PAGE / 8];
    int sig = guard_copy(copy, mapping + page * PAGE, PAGE / 8);

    if (!sig)
        escape_saw(e, page, copy, PAGE);
    else if (sig == SIGBUS)
        escape_refused(e);
    else
        escape_barred(e);
}

void escape_look(struct escape *e, const volatile uint8_t *mapping)
{
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        escape_look_at(e, mapping, escape_page(i));
}

uint8_t *escape_mmap(struct escape *e, int fd, int prot, int flags)
{
    void *p = mmap(NULL, ESCAPE_BYTES, prot, flags, fd, 0);

    if (p != MAP_FAILED)
        return p;
    escape_barred(e);
    return NULL;
}

void escape_look_bare(struct escape *e, int fd)
{
    uint8_t *p = escape_mmap(e, fd, PROT_READ | PROT_WRITE, MAP_SHARED);

    if (!p)
        return;
    escape_look(e, p);
    munmap(p, ESCAPE_BYTES);
}

void escape_broken(struct escape *e, const char *what)
{
    arena_fail(e->arena, "%s: %s: %s: %s", e->row->name, what, strerror(errno), fakehyp_last_error());
    _exit(1);
}

void escape_wait(struct escape *e, pid_t pid)
{
    int status;

    if (pid < 0)
        escape_broken(e, "fork");
    if (!rig_wait_child(pid, 20000, &status)) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        escape_broken(e, "a child hangs");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        errno = 0;
        escape_broken(e, "a child failed");
    }
}

uint8_t *escape_map(struct escape *e, void *hint, uint64_t page, uint64_t nr)
{
    void *view;

    if (fakehyp_map(e->gmem, hint, nr * PAGE, PROT_READ | PROT_WRITE, page * PAGE, &view))
        escape_broken(e, "map");
    return view;
}

int escape_scratch(int flags)
{
    const char *dirs[] = {getenv("XDG_RUNTIME_DIR"), "/var/tmp", "/tmp", "."};

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        char name[200];
        if (!dirs[i])
            continue;
        snprintf(name, sizeof(name), "%s/fakehyp-escape-XXXXXX", dirs[i]);
        int plain = mkstemp(name);
        if (plain < 0)
            continue;
        int fd = ftruncate(plain, 16 * (off_t)PAGE) ? -1 : open(name, O_RDWR | O_CLOEXEC | flags);
        close(plain);
        unlink(name);
        if (fd >= 0)
            return fd;
    }
    return -1;
}

int escape_find_fd(const char *what)
{
    DIR *dir = opendir("/proc/self/fd");
    const struct dirent *entry;
    int fd = -1;

    while (dir && fd < 0 && (entry = readdir(dir))) {
        char name[100] = "";
        if (readlinkat(dirfd(dir), entry->d_name, name, sizeof(name) - 1) > 0 && strstr(name, what))
            fd = atoi(entry->d_name);
    }
    if (dir)
        closedir(dir);
    return fd;
}

static void await(const struct escape *e, unsigned phase)
{
    while (atomic_load(&e->tally->phase) != phase) {
        if (atomic_load(&e->arena->failed))
            _exit(1);
        rig_sleep_ms(1);
    }
}

static _Noreturn void attacker_main(const struct escape_row *row, bool still, uint64_t tries)
{
    struct escape e = {.row = row, .arena = run.arena, .tally = run.tally, .fd = run.fd, .still = still};

    rig_child();
    guard_install();
    if (!row->bare && (fakehyp_connect(rig.socket, &e.fh) || fakehyp_gmem_import(e.fh, e.fd, &e.gmem)))
        escape_broken(&e, "connect");
    if (!row->bare)
        e.view = escape_map(&e, NULL, 0, ARENA_PAGES);
    if (!still) {
        do {
            row->attempt(&e);
            e.turn++;
        } while (!row->fresh && atomic_load(&e.tally->tries) < tries && !atomic_load(&e.arena->failed));
        if (row->fresh)
            _exit(0);
        atomic_store(&e.tally->phase, STORM_DONE);
        await(&e, STILL);
        e.still = true;
    }
    for (unsigned i = 0; i < (row->fresh ? 1 : STILL_TURNS); i++, e.turn++)
        row->attempt(&e);
    /* What it has made of its memory stays as it is for the audit. */
    atomic_store(&e.tally->phase, STILL_DONE);
    await(&e, LEAVE);
    _exit(0);
}

/* ---- a row ----------------------------------------------------------------------------------------------------------
 */

static pid_t start_attacker(const struct escape_row *row, bool still)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        attacker_main(row, still, run.tries_a_row);
    assert_true(pid > 0);
    run.attacker = pid;
    return pid;
}

static void attacker_ends(void)
{
    pid_t pid = run.attacker;

    run.attacker = 0;
    rig_child_ok(pid);
}

static void assert_fine(void)
{
    if (!atomic_load(&run.arena->failed))
        return;
    rig_note("%s", run.arena->text);
    fail();
}

static void wait_phase(unsigned phase, pid_t pid)
{
    siginfo_t info = {.si_pid = 0};

    while (atomic_load(&run.tally->phase) != phase) {
        assert_fine();
        if (!waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid)
            fail_msg("the attacker has died: %d, status %d", info.si_code, info.si_status);
        rig_sleep_ms(1);
    }
}

/* Attempts until there were enough looks, while everything converts: the attacker that is left, if one is. */
static pid_t storm(const struct escape_row *row)
{
    pid_t pid;

    if (!row->fresh) {
        pid = start_attacker(row, false);
        wait_phase(STORM_DONE, pid);
        return pid;
    }
    while (atomic_load(&run.tally->tries) < run.tries_a_row) {
        start_attacker(row, false);
        attacker_ends();
        assert_fine();
    }
    return 0;
}

/* How many of the problems that the audit finds are stray pages, and how many are none. */
static unsigned audit(unsigned *others, bool print)
{
    json_t *answer = rig_query(rig_observer, "audit");
    const json_t *problem;
    unsigned strays = 0;
    size_t i;

    *others = 0;
    json_array_foreach(json_object_get(answer, "problems"), i, problem)
    {
        if (strstr(json_string_value(problem), "stray pages"))
            strays++;
        else
            ++*others;
        if (print)
            rig_note("audit: %s", json_string_value(problem));
    }
    json_decref(answer);
    return strays;
}

/* On a busy machine an agent may be late with a registration, and follows: what then is left that is no stray page. */
static unsigned settle(unsigned others)
{
    for (unsigned tries = 0; others && tries < SETTLE_TRIES; tries++) {
        rig_sleep_ms(100);
        assert_int_equal(audit(&others, false), 0);
    }
    return others;
}

static unsigned bystander_reads(void)
{
    unsigned reads = 0;
    uint64_t word;

    for (uint64_t page = 0; page < ARENA_PAGES; page++)
        if (arena_is_private_when_still(page))
            reads += guard_load((volatile uint64_t *)(void *)(run.view + page * PAGE), &word);
    return reads;
}

static void attack(void **state)
{
    const struct escape_row *row = *state;
    char *verdict = run.verdict[row - run.rows];
    unsigned others;

    const char *missing = row->missing ? row->missing() : NULL;
    snprintf(verdict, sizeof(run.verdict[0]), "%s: %s", not_tried, missing ? missing : "it failed");
    if (missing)
        rig_not_here("%s: %s: %s", row->name, not_tried, missing);
    assert_fine();
    /* Over cmocka's own, which it sets for each test. */
    guard_install();
    rig_watchdog(240 + (unsigned)(run.tries_a_row / 100));
    memset(run.tally, 0, sizeof(*run.tally));
    assert_true(arena_wipes(run.arena, row->wipes));

    pid_t pid = storm(row);
    assert_true(arena_still(run.arena, true));
    if (!pid)
        pid = start_attacker(row, true);
    atomic_store(&run.tally->phase, STILL);
    wait_phase(STILL_DONE, pid);

    unsigned lost = bystander_reads(), strays = audit(&others, row->verdict != DECLARED);
    if (row->verdict != DECLARED && !strays)
        others = settle(others);
    atomic_store(&run.tally->phase, LEAVE);
    attacker_ends();
    assert_fine();
    enum verdict found = strays                                                                ? DECLARED
                         : atomic_load(&run.tally->refusals) || atomic_load(&run.tally->reads) ? HARMLESS
                                                                                               : CLOSED;
    snprintf(verdict, sizeof(run.verdict[0]), "%s", verdict_name(found));
    run.tries += atomic_load(&run.tally->tries);
    run.leaks += atomic_load(&run.tally->leaks);
    rig_note("%s: %lu tries, %lu private bytes: %lu refused, %lu read as nothing, %lu barred; a bystander lost %u "
             "signals, the audit found %u runs of stray pages",
             row->name, atomic_load(&run.tally->tries), atomic_load(&run.tally->leaks),
             atomic_load(&run.tally->refusals), atomic_load(&run.tally->reads), atomic_load(&run.tally->bars), lost,
             strays);
    /* The attacker is gone, and so are its pages: everybody has the signal again. */
    unsigned after;
    assert_int_equal(audit(&after, true), 0);
    assert_int_equal(settle(after), 0);
    assert_int_equal(bystander_reads(), 0);
    if (found != DECLARED) {
        assert_int_equal(lost, 0);
        assert_int_equal(others, 0);
    }
    assert_string_equal(verdict, verdict_name(row->verdict));
    assert_true(atomic_load(&run.tally->tries) >= run.tries_a_row);
}

/* Also after a row that failed. */
static int go_on(void **state)
{
    (void)state;
    if (run.attacker) {
        kill(run.attacker, SIGKILL);
        waitpid(run.attacker, NULL, 0);
        run.attacker = 0;
    }
    if (atomic_load(&run.arena->failed))
        return 0;
    return arena_wipes(run.arena, false) && arena_still(run.arena, false) ? 0 : -1;
}

/* The guest and the VMM have seen nothing wrong, and nothing is left of them. */
static void arena_was_untouched(void **state)
{
    (void)state;
    void *view = run.view;
    must(fakehyp_unmap(rig_observer, view, ESCAPE_BYTES));
    fakehyp_gmem_close(run.gmem);
    close(run.fd);
    bool fine = arena_end(run.arena, run.vmm);
    rig_note("escapes %s: %llu tries, %llu private bytes; meanwhile the guest rewrote %lu private pages and checked "
             "each, stored %lu words in pages that change sides, and there were %lu conversions of a page and %lu of "
             "2 MiB and more",
             run.section, (unsigned long long)run.tries, (unsigned long long)run.leaks,
             atomic_load(&run.arena->canaries), atomic_load(&run.arena->counts), atomic_load(&run.arena->flips),
             atomic_load(&run.arena->bulks));
    assert_fine();
    assert_true(fine);
    assert_true(atomic_load(&run.arena->canaries) && atomic_load(&run.arena->flips) && atomic_load(&run.arena->bulks));
    assert_true(rig_counts_return_to(rig_observer, run.counts, NULL));
    free(run.counts);
    rig_audit(rig_observer);
}

/* ---- the program ----------------------------------------------------------------------------------------------------
 */

static int set_up(void **state)
{
    void *view;
    int rc = rig_group_setup(state);

    if (rc)
        return rc;
    run.counts = rig_counts(rig_observer);
    run.arena = arena_new(rig.socket);
    run.tally = mmap(NULL, sizeof(*run.tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!run.counts || !run.arena || run.tally == MAP_FAILED)
        return -1;
    run.vmm = arena_start(run.arena, &run.fd);
    if (run.vmm < 0) {
        rig_note("%s", run.arena->text);
        return -1;
    }
    rc = fakehyp_gmem_import(rig_observer, run.fd, &run.gmem);
    if (!rc)
        rc = fakehyp_map(run.gmem, NULL, ESCAPE_BYTES, PROT_READ | PROT_WRITE, 0, &view);
    if (!rc)
        run.view = view;
    return rc;
}

/* They share the tries. */
static size_t rows_to_try(void)
{
    size_t n = 0;

    for (size_t i = 0; i < run.nr_rows; i++)
        n += !run.rows[i].missing || !run.rows[i].missing();
    return n ? n : 1;
}

int escape_main(const char *section, const struct escape_row *rows, size_t nr)
{
    static struct CMUnitTest tests[MAX_ROWS + 2];
    const char *reason = rig_unsupported();
    size_t n = 0;

    if (reason) {
        printf("1..0 # SKIP %s\n", reason);
        return 0;
    }
    run.section = section;
    run.rows = rows;
    run.nr_rows = nr;
    run.tries_a_row = rig_env("FAKEHYP_ESCAPE_TRIES", DEFAULT_TRIES) / rows_to_try() + 1;
    for (; n < nr && n < MAX_ROWS; n++)
        tests[n] = (struct CMUnitTest){rows[n].name, attack, NULL, go_on, (void *)&rows[n]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(arena_was_untouched);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(table_equals_manual);
    return _cmocka_run_group_tests(section, tests, n, set_up, rig_group_teardown);
}
