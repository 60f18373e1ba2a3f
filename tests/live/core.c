/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program without a handler that touches a private page: it dies of SIGBUS,
 * is told why, and its core dump shows the instruction that `page` names.
 */
#include "tests/common/live_puppet.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR 16u
#define VICTIM_PAGE 5u
#define VICTIM_OFFSET (VICTIM_PAGE * PAGE + 0x123)

struct victim {
    char dir[100];
    char text[16384]; /* what it printed */
    int status;
    pid_t pid;
};

/* ---- the victim ------------------------------------------------------------------------------------------------- */

static _Noreturn void victim_main(struct fakehyp_gmem *parents, const char *dir, const char *setting)
{
    struct fakehyp *fh;
    struct fakehyp_gmem *gmem;
    void *view;
    int fd = dup(fakehyp_gmem_fd(parents));

    rig_child();
    struct rlimit limit;
    getrlimit(RLIMIT_CORE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_CORE, &limit);
    if (setting)
        setenv("FAKEHYP_SIGBUS", setting, 1);
    if (chdir(dir) || fakehyp_connect(rig.socket, &fh) || fakehyp_gmem_import(fh, fd, &gmem) ||
        fakehyp_map(gmem, NULL, NR * PAGE, PROT_READ, 0, &view)) {
        fprintf(stderr, "%s\n", fakehyp_last_error());
        _exit(1);
    }
    (void)*((volatile char *)view + VICTIM_OFFSET);
    _exit(0);
}

static void run_victim(struct victim *x, struct fakehyp_gmem *gmem, const char *setting)
{
    size_t len = 0;
    ssize_t n;
    int out[2];

    snprintf(x->dir, sizeof(x->dir), "%s/core-XXXXXX", rig.dir);
    assert_non_null(mkdtemp(x->dir));
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    fflush(stdout);
    x->pid = fork();
    if (x->pid == 0) {
        dup2(out[1], STDERR_FILENO);
        victim_main(gmem, x->dir, setting);
    }
    close(out[1]);
    while (len + 1 < sizeof(x->text) && (n = read(out[0], x->text + len, sizeof(x->text) - 1 - len)) > 0)
        len += (size_t)n;
    x->text[len] = '\0';
    close(out[0]);
    assert_true(rig_wait_child(x->pid, 20000, &x->status));
}

/* The folder and what is in it. */
static void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(path);
}

static void assert_died(const struct victim *x)
{
    if (!WIFSIGNALED(x->status) || WTERMSIG(x->status) != SIGBUS)
        fail_msg("wait status 0x%x, not death by SIGBUS; it printed: %s", (unsigned)x->status, x->text);
}

/* ---- its core --------------------------------------------------------------------------------------------------- */

/* Why a core cannot be expected, or NULL. */
static const char *no_core(void)
{
    static char reason[200];
    char pattern[128] = "";
    struct rlimit limit;
    int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, pattern, sizeof(pattern) - 1) <= 0)
        pattern[0] = '\0';
    if (fd >= 0)
        close(fd);
    pattern[strcspn(pattern, "\n")] = '\0';
    if (!pattern[0] || strchr(pattern, '|') || strchr(pattern, '/')) {
        snprintf(reason, sizeof(reason), "kernel.core_pattern is \"%s\": no file in the working folder", pattern);
        return reason;
    }
    getrlimit(RLIMIT_CORE, &limit);
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < (rlim_t)64 << 20) {
        snprintf(reason, sizeof(reason), "RLIMIT_CORE cannot be raised above %llu bytes",
                 (unsigned long long)limit.rlim_max);
        return reason;
    }
    return NULL;
}

static uint64_t pc_of(const struct elf_prstatus *status)
{
#if defined(__x86_64__)
    return status->pr_reg[16]; /* rip in struct user_regs_struct */
#elif defined(__aarch64__)
    return status->pr_reg[32]; /* pc in struct user_pt_regs */
#else
    (void)status;
    return 0;
#endif
}

/* The first NT_PRSTATUS: the thread that died. */
static bool find_prstatus(int fd, struct elf_prstatus *out)
{
    Elf64_Ehdr ehdr;
    Elf64_Phdr phdr;

    if (pread(fd, &ehdr, sizeof(ehdr), 0) != sizeof(ehdr) || memcmp(ehdr.e_ident, ELFMAG, SELFMAG) != 0)
        return false;
    for (unsigned i = 0; i < ehdr.e_phnum; i++) {
        if (pread(fd, &phdr, sizeof(phdr), (off_t)(ehdr.e_phoff + i * sizeof(phdr))) != sizeof(phdr))
            return false;
        if (phdr.p_type != PT_NOTE)
            continue;
        for (uint64_t at = phdr.p_offset; at < phdr.p_offset + phdr.p_filesz;) {
            Elf64_Nhdr note;
            if (pread(fd, &note, sizeof(note), (off_t)at) != sizeof(note))
                return false;
            at += sizeof(note) + ((note.n_namesz + 3) & ~3u);
            if (note.n_type == NT_PRSTATUS && note.n_descsz == sizeof(*out))
                return pread(fd, out, sizeof(*out), (off_t)at) == sizeof(*out);
            at += (note.n_descsz + 3) & ~3u;
        }
    }
    return false;
}

static bool core_prstatus(const char *path, struct elf_prstatus *out)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir))) {
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
        found = fd >= 0 && find_prstatus(fd, out);
        if (fd >= 0)
            close(fd);
    }
    if (dir)
        closedir(dir);
    return found;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static int64_t number(const json_t *object, const char *key)
{
    const json_t *n = json_object_get(object, key);
    assert_true(json_is_integer(n));
    return json_integer_value(n);
}

/* Words that the explanation must have. */
static void assert_says(const struct victim *x, const char *const *words, size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        if (!strstr(x->text, words[i]))
            fail_msg("the explanation does not say \"%s\": %s", words[i], x->text);
}

static void dies_and_is_explained(void **state)
{
    static struct victim x;
    char expected[64];
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = NR});
    puppet_write(&v.puppet[0], VICTIM_PAGE * PAGE, "secret", 7);
    run_victim(&x, v.gmem, NULL);
    assert_died(&x);

    /* `page` knows of the access: who, where, by which instruction. */
    json_t *page = rig_page(v.fh, v.gmem, VICTIM_PAGE * PAGE);
    const json_t *strays = json_object_get(page, "strays");
    assert_int_equal(json_array_size(strays), 1);
    const json_t *stray = json_array_get(strays, 0);
    assert_int_equal(number(stray, "pid"), x.pid);
    assert_int_equal(number(stray, "addr") & 0xfff, 0x123);
    uint64_t pc = (uint64_t)number(stray, "pc");
    /* And by whom it was called: the same frames as the victim printed. */
    const json_t *frames = json_object_get(stray, "frames");
    assert_true(json_array_size(frames) >= 2);
    for (size_t i = 0; i < json_array_size(frames); i++) {
        snprintf(expected, sizeof(expected), "[0x%llx]",
                 (unsigned long long)json_integer_value(json_array_get(frames, i)));
        if (!strstr(x.text, expected))
            fail_msg("frame %s is not in: %s", expected, x.text);
    }
    const json_t *refused = json_object_get(page, "refused_by");
    assert_int_equal(json_array_size(refused), 2);
    assert_string_equal(json_string_value(json_array_get(refused, 0)), "stage 1");
    assert_string_equal(json_string_value(json_array_get(refused, 1)), "stage 2");
    assert_string_equal(json_string_value(json_object_get(page, "attribute")), "private");
    assert_non_null(strstr(json_string_value(json_object_get(page, "owner")), "guest"));
    const json_t *last = json_object_get(page, "last_conversion");
    assert_string_equal(json_string_value(json_object_get(last, "to")), "private");
    assert_int_equal(number(last, "pid"), getpid());

    /* So does what it printed. */
    const char *const words[] = {"refused by: stage 1 (the attribute is private), and stage 2 behind it",
                                 "private",
                                 "offset 0x5123",
                                 "owner: guest",
                                 "last conversion: to private",
                                 "thread",
                                 "PC 0x"};
    assert_says(&x, words, sizeof(words) / sizeof(words[0]));
    snprintf(expected, sizeof(expected), "0x%llx", (unsigned long long)pc);
    assert_non_null(strstr(x.text, expected));
    snprintf(expected, sizeof(expected), "(pid %d)", (int)getpid());
    assert_non_null(strstr(x.text, expected));

    const char *reason = no_core();
    struct elf_prstatus status;
    if (reason) {
        rig_note("core dump not checked: %s", reason);
    } else {
        assert_true(WCOREDUMP(x.status));
        assert_true(core_prstatus(x.dir, &status));
        assert_int_equal(status.pr_pid, x.pid);
        assert_int_equal(status.pr_cursig, SIGBUS);
        assert_true(pc_of(&status) == pc);
        rig_note("core dump checked: PC 0x%llx in core, page and explanation", (unsigned long long)pc);
    }
    json_decref(page);
    remove_dir(x.dir);
    pvm_destroy(&v);
}

/* The guest took the page without asking: the file's attribute does not say so, and the VMM still holds a reference. */
static void taken_back_is_explained(void **state)
{
    static const char *const words[] = {"state: taken back by the guest",
                                        "still shared",
                                        "owner: guest",
                                        "held by: virtio-blk (FOLL_PIN, pid ",
                                        "the guest must share the page",
                                        "refused by: stage 2 alone (EL2's table): pKVM's signal would be SIGSEGV"};
    static struct victim x;
    struct fakehyp_pin *pin;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = NR, .mode = FAKEHYP_UNSHARE_UNILATERAL});
    assert_int_equal(puppet_share(&v.puppet[0], VICTIM_PAGE * PAGE), 0);
    must(fakehyp_pin(v.gmem, VICTIM_PAGE * PAGE, PAGE, FAKEHYP_FOLL_PIN, "virtio-blk", &pin));
    assert_int_equal(puppet_unshare(&v.puppet[0], VICTIM_PAGE * PAGE), 0);
    assert_int_equal(v.last_convert, -EAGAIN);
    run_victim(&x, v.gmem, NULL);
    assert_died(&x);
    assert_says(&x, words, sizeof(words) / sizeof(words[0]));
    json_t *page = rig_page(v.fh, v.gmem, VICTIM_PAGE * PAGE);
    const json_t *refused = json_object_get(page, "refused_by");
    assert_int_equal(json_array_size(refused), 1);
    assert_string_equal(json_string_value(json_array_get(refused, 0)), "stage 2");
    json_decref(page);
    must(fakehyp_unpin(pin));
    remove_dir(x.dir);
    pvm_destroy(&v);
}

static void report_switched_off(void **state)
{
    static struct victim x;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = NR});
    run_victim(&x, v.gmem, "0");
    assert_died(&x);
    assert_string_equal(x.text, "");
    json_t *page = rig_page(v.fh, v.gmem, VICTIM_PAGE * PAGE);
    assert_int_equal(json_array_size(json_object_get(page, "strays")), 0);
    json_decref(page);
    remove_dir(x.dir);
    pvm_destroy(&v);
}

static void event_for_the_owner(void **state)
{
    static struct victim x;
    struct fakehyp_event event;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = NR});
    run_victim(&x, v.gmem, NULL);
    assert_died(&x);
    assert_true(rig_event(v.fh, "stray-access", &event));
    assert_int_equal(event.gmem, fakehyp_gmem_id(v.gmem));
    assert_int_equal(event.offset / PAGE, VICTIM_PAGE);
    remove_dir(x.dir);
    pvm_destroy(&v);
}

static const struct CMUnitTest tests[] = {
    live_test(dies_and_is_explained),
    live_test(taken_back_is_explained),
    live_test(report_switched_off),
    live_test(event_for_the_owner),
};

RIG_MAIN(tests)
