/* SPDX-License-Identifier: BSD-2-Clause */
/* The command-line tool against a live daemon that has a VM: what it prints, as text and as JSON, and its exit status.
 */
#include "tests/common/live_puppet.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR 16u
#define SHARED_PAGE 3u

extern char **environ;

struct output {
    int status; /* exit status, -1: not exited */
    char out[262144], err[4096];
};

static void drain(int fd, char *buf, size_t size)
{
    size_t len = 0;
    ssize_t n;

    while (len + 1 < size && (n = read(fd, buf + len, size - 1 - len)) > 0)
        len += (size_t)n;
    buf[len] = '\0';
    close(fd);
}

/* Runs fakehypctl with words that are split at blanks. */
static void ctl(struct output *o, const char *words)
{
    char line[300], *argv[24], *save = NULL, name[64];
    posix_spawn_file_actions_t files;
    int out[2], status, nr = 0;
    pid_t pid;

    argv[nr++] = (char *)"fakehypctl";
    snprintf(line, sizeof(line), "%s", words);
    for (char *word = strtok_r(line, " ", &save); word && nr < 23; word = strtok_r(NULL, " ", &save))
        argv[nr++] = word;
    argv[nr] = NULL;
    /* Its complaints are short; they go through a file so that one pipe is enough. */
    snprintf(name, sizeof(name), "/tmp/fakehyp-ctl-XXXXXX");
    int err = mkostemp(name, O_CLOEXEC);
    assert_true(err >= 0);
    unlink(name);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, err, STDERR_FILENO);
    int rc = posix_spawn(&pid, getenv("FAKEHYP_CTL"), &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(out[1]);
    assert_int_equal(rc, 0);
    drain(out[0], o->out, sizeof(o->out));
    assert_true(rig_wait_child(pid, 20000, &status));
    o->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    lseek(err, 0, SEEK_SET);
    drain(err, o->err, sizeof(o->err));
}

static void expect(struct output *o, const char *words, int status)
{
    ctl(o, words);
    if (o->status != status)
        fail_msg("fakehypctl %s: exit status %d, expected %d: %s%s", words, o->status, status, o->out, o->err);
}

static json_t *expect_json(struct output *o, const char *words)
{
    json_error_t error;

    expect(o, words, 0);
    json_t *answer = json_loads(o->out, 0, &error);
    if (!answer)
        fail_msg("fakehypctl %s: no JSON: %s: %.200s", words, error.text, o->out);
    return answer;
}

static void says(const struct output *o, const char *text)
{
    if (!strstr(o->out, text))
        fail_msg("\"%s\" is missing in: %s", text, o->out);
}

static int64_t number(const json_t *object, const char *key)
{
    const json_t *n = json_object_get(object, key);

    if (!json_is_integer(n))
        fail_msg("%s: no number", key);
    return json_integer_value(n);
}

static const char *string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (!text)
        fail_msg("%s: no string", key);
    return text;
}

static void use_daemon(void)
{
    setenv("FAKEHYP_SOCKET", rig.socket, 1);
}

/* A private VM with one page that it has shared, and that is pinned. */
static void open_vm(struct pvm *v, void **state, struct fakehyp_pin **pin)
{
    use_daemon();
    pvm_create(v, *state, &(struct pvm_config){.pages = NR});
    puppet_write(&v->puppet[0], 0, "x", 1);
    assert_int_equal(puppet_share(&v->puppet[0], SHARED_PAGE * PAGE), 0);
    must(fakehyp_pin(v->gmem, SHARED_PAGE * PAGE, PAGE, FAKEHYP_FOLL_PIN, "virtio-net", pin));
}

static void status(void **state)
{
    static struct output o;
    struct fakehyp_pin *pin;
    struct pvm v;

    open_vm(&v, state, &pin);
    expect(&o, "status", 0);
    says(&o, "puppet");
    says(&o, rig.socket);
    says(&o, "MMAP|INIT_SHARED");
    json_t *s = expect_json(&o, "status --json");
    const json_t *vm = json_array_get(json_object_get(s, "vms"), 0);
    const json_t *gmem = json_array_get(json_object_get(s, "gmems"), 0);
    const json_t *slot = json_array_get(json_object_get(vm, "slots"), 0);
    const json_t *counts = json_object_get(s, "counts");
    assert_int_equal(number(s, "pid"), rig.pid);
    assert_string_equal(string(s, "stage"), "live");
    assert_int_equal(number(vm, "id"), (int64_t)fakehyp_vm_id(v.vm));
    assert_int_equal(number(vm, "guest_pid"), fakehyp_guest_pid(v.vm));
    assert_int_equal(number(vm, "vcpus"), 1);
    assert_string_equal(string(vm, "unshare"), "consent");
    assert_int_equal(number(slot, "size"), NR * PAGE);
    assert_int_equal(number(gmem, "id"), (int64_t)fakehyp_gmem_id(v.gmem));
    assert_int_equal(number(gmem, "shared_bytes"), PAGE);
    assert_int_equal(number(gmem, "private_bytes"), (NR - 1) * PAGE);
    assert_int_equal(number(counts, "vms"), 1);
    assert_int_equal(number(counts, "guests"), 1);
    assert_int_equal(number(counts, "pins"), 1);
    assert_int_equal(number(counts, "views"), 1);
    json_decref(s);
    must(fakehyp_unpin(pin));
    pvm_destroy(&v);
}

static void page(void **state)
{
    static struct output o;
    struct fakehyp_pin *pin;
    char words[128];
    struct pvm v;

    open_vm(&v, state, &pin);
    unsigned long long gmem = fakehyp_gmem_id(v.gmem), vm = fakehyp_vm_id(v.vm);
    snprintf(words, sizeof(words), "page --gmem %llu --offset 0x3000", gmem);
    expect(&o, words, 0);
    says(&o, "shared");
    says(&o, "virtio-net");
    says(&o, "FOLL_PIN");
    /* Named by its place in the file, or in the guest: the same page. */
    snprintf(words, sizeof(words), "page --json --gmem %llu --offset 12K", gmem);
    json_t *by_file = expect_json(&o, words);
    snprintf(words, sizeof(words), "page --json --vm %llu --gpa 0x3000", vm);
    json_t *by_gpa = expect_json(&o, words);
    assert_string_equal(string(by_file, "attribute"), "shared");
    assert_int_equal(number(by_file, "pfn"), number(by_gpa, "pfn"));
    assert_int_equal(number(by_gpa, "offset"), SHARED_PAGE * PAGE);
    assert_string_equal(string(by_file, "bytes_in"), "shared file");
    const json_t *holder = json_array_get(json_object_get(by_file, "holders"), 0);
    assert_string_equal(string(holder, "what"), "virtio-net");
    assert_int_equal(number(holder, "count"), 1024);
    assert_int_equal(number(holder, "pid"), getpid());
    json_decref(by_file);
    json_decref(by_gpa);

    snprintf(words, sizeof(words), "page --json --gmem %llu --offset 0", gmem);
    json_t *private = expect_json(&o, words);
    assert_string_equal(string(private, "attribute"), "private");
    assert_string_equal(string(private, "bytes_in"), "private file");
    assert_non_null(strstr(string(private, "owner"), "guest"));
    assert_string_equal(string(json_object_get(private, "last_conversion"), "to"), "private");
    json_decref(private);

    snprintf(words, sizeof(words), "page --gmem %llu --offset 0x%llx", gmem, (unsigned long long)(NR * PAGE));
    ctl(&o, words);
    assert_true(o.status > 0);
    assert_true(strlen(o.err) > 0);
    ctl(&o, "page --gmem 99999 --offset 0");
    assert_true(o.status > 0);
    ctl(&o, "page");
    assert_true(o.status > 0);
    must(fakehyp_unpin(pin));
    pvm_destroy(&v);
}

/* The guest's table after each thing that changes it, in the kernel's words, and the host's with its states. */
static void ptdump(void **state)
{
    static const char head[] = "---[ Guest IPA ]---\n";
    static const char tail[] = "0x0000000000004000-0x0000000000200000        2032K 3\n"
                               "0x0000000000200000-0x0000000040000000        1022M 2\n"
                               "0x0000000040000000-0x0000010000000000        1023G 1\n";
    static struct output o;
    struct fakehyp_pin *pin;
    char table[64], host[64], json[64], text[1024];
    struct pvm v;

    open_vm(&v, state, &pin);
    must(fakehyp_unpin(pin));
    snprintf(table, sizeof(table), "ptdump --vm %llu", (unsigned long long)fakehyp_vm_id(v.vm));
    snprintf(host, sizeof(host), "ptdump --host --state");
    expect(&o, table, 0);
    snprintf(text, sizeof(text), "%s%s%s", head,
             "0x0000000000000000-0x0000000000001000           4K 3   R W px ux  AF    \n"
             "0x0000000000001000-0x0000000000003000           8K 3\n"
             "0x0000000000003000-0x0000000000004000           4K 3   R W px ux  AF    \n",
             tail);
    assert_string_equal(o.out, text);
    strcat(table, " --state");
    expect(&o, table, 0);
    says(&o, "0x0000000000000000-0x0000000000001000           4K 3   R W px ux  AF     OWNED pa 0x");
    says(&o, "0x0000000000001000-0x0000000000003000           8K 3                     NOPAGE\n");
    says(&o, "0x0000000000003000-0x0000000000004000           4K 3   R W px ux  AF     SHARED_OWNED pa 0x");
    expect(&o, host, 0);
    says(&o, " NOPAGE donation to guest 0x1000 gfn 0x0\n");
    says(&o, " SHARED_BORROWED pa 0x");
    says(&o, " NOPAGE donation to hypervisor\n");
    assert_null(strstr(o.out, "gfn 0x3"));

    assert_int_equal(puppet_unshare(&v.puppet[0], SHARED_PAGE * PAGE), 0);
    expect(&o, host, 0);
    says(&o, " NOPAGE donation to guest 0x1000 gfn 0x3\n");
    assert_null(strstr(o.out, "SHARED_BORROWED"));
    /* A conversion is EL1's: what the guest shared anew, stage 2 leaves to the host whatever the attribute says. */
    assert_int_equal(puppet_share(&v.puppet[0], SHARED_PAGE * PAGE), 0);
    must(pvm_convert(&v, SHARED_PAGE, 1, FAKEHYP_PRIVATE));
    expect(&o, host, 0);
    says(&o, " SHARED_BORROWED pa 0x");
    must(pvm_convert(&v, SHARED_PAGE, 1, FAKEHYP_SHARED));

    snprintf(json, sizeof(json), "ptdump --json --vm %llu", (unsigned long long)fakehyp_vm_id(v.vm));
    expect(&o, json, 0);
    json_t *run = json_loads(o.out, JSON_DISABLE_EOF_CHECK, NULL);
    assert_int_equal(number(run, "end"), PAGE);
    assert_int_equal(number(run, "level"), 3);
    assert_true(json_is_true(json_object_get(run, "valid")));
    json_decref(run);
    ctl(&o, "ptdump --vm 99999");
    assert_int_equal(o.status, 2);
    assert_non_null(strstr(o.err, "there is no VM 99999"));
    rig_audit(v.fh);
    pvm_destroy(&v);
}

/* More runs than an answer has: they are one table, without a gap and with no line twice. */
static void ptdump_of_many_runs(void **state)
{
    static struct output o;
    enum { PAGES = 600 };
    char words[64], *save = NULL;
    unsigned long long at = 0, start, end;
    unsigned lines = 0, mapped = 0;
    struct pvm v;

    use_daemon();
    pvm_create(&v, *state, &(struct pvm_config){.pages = 2 * PAGES});
    for (unsigned i = 0; i < PAGES; i++)
        puppet_write(&v.puppet[0], 2 * i * PAGE, "x", 1);
    snprintf(words, sizeof(words), "ptdump --vm %llu", (unsigned long long)fakehyp_vm_id(v.vm));
    expect(&o, words, 0);
    for (char *line = strtok_r(o.out, "\n", &save); (line = strtok_r(NULL, "\n", &save)); lines++, at = end) {
        assert_int_equal(sscanf(line, "0x%llx-0x%llx", &start, &end), 2);
        assert_int_equal(start, at);
        mapped += strstr(line, " R W ") != NULL;
    }
    assert_int_equal(at, UINT64_C(1) << 40);
    assert_int_equal(mapped, PAGES);
    assert_true(lines > 2 * PAGES);
    pvm_destroy(&v);
}

static void audit(void **state)
{
    static struct output o;
    struct fakehyp_pin *pin;
    struct pvm v;

    open_vm(&v, state, &pin);
    expect(&o, "audit", 0);
    says(&o, "clean");
    json_t *a = expect_json(&o, "audit --json");
    assert_true(json_is_true(json_object_get(a, "ok")));
    assert_int_equal(json_array_size(json_object_get(a, "problems")), 0);
    assert_int_equal(number(json_object_get(a, "checked"), "files"), 1);
    assert_int_equal(number(json_object_get(a, "checked"), "views"), 1);
    json_decref(a);
    must(fakehyp_unpin(pin));
    pvm_destroy(&v);
}

/* A page that somebody slips into a private hole behind the library's back: found, told, dropped. */
static void audit_finds_a_stray_page(void **state)
{
    static struct output o;
    struct fakehyp_pin *pin;
    struct pvm v;

    open_vm(&v, state, &pin);
    assert_int_equal(fallocate(fakehyp_gmem_fd(v.gmem), FALLOC_FL_KEEP_SIZE, 7 * (off_t)PAGE, PAGE), 0);
    assert_int_equal(pwrite(fakehyp_gmem_fd(v.gmem), "stray", 5, 7 * (off_t)PAGE), 5);
    ctl(&o, "audit");
    assert_int_equal(o.status, 1);
    says(&o, "stray");
    expect(&o, "audit", 0);
    assert_refused(v.view + 7 * PAGE);
    assert_int_equal(puppet_byte(&v.puppet[0], 7 * PAGE), 0);
    must(fakehyp_unpin(pin));
    pvm_destroy(&v);
}

static void trace(void **state)
{
    static struct output o;
    struct fakehyp_pin *pin;
    char words[64];
    struct pvm v;

    open_vm(&v, state, &pin);
    snprintf(words, sizeof(words), "trace --vm %llu", (unsigned long long)fakehyp_vm_id(v.vm));
    expect(&o, words, 0);
    says(&o, "convert");
    /* One JSON object a line, in order. */
    snprintf(words, sizeof(words), "trace --json --limit 5 --vm %llu", (unsigned long long)fakehyp_vm_id(v.vm));
    expect(&o, words, 0);
    json_t *all = json_loads(o.out, 0, NULL);
    unsigned lines = 0;
    if (all) {
        lines = 5;
        json_decref(all);
    } else {
        char *save = NULL;
        for (char *line = strtok_r(o.out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            json_t *event = json_loads(line, 0, NULL);
            assert_non_null(event);
            json_decref(event);
            lines++;
        }
    }
    assert_int_equal(lines, 5);
    must(fakehyp_unpin(pin));
    pvm_destroy(&v);
}

/* As in `fakehypctl trace --follow | head -1`: no further event need come for it to end. */
static void trace_ends_with_its_reader(void **state)
{
    char *argv[] = {(char *)"fakehypctl", (char *)"trace", (char *)"--follow", NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t defaults;
    int out[2], status;
    char first;
    pid_t pid;

    use_daemon();
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
    assert_int_equal(posix_spawn(&pid, getenv("FAKEHYP_CTL"), &files, &attr, argv, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    close(out[1]);
    assert_int_equal(read(out[0], &first, 1), 1);
    close(out[0]);
    bool ended = rig_wait_child(pid, 5000, &status);
    if (!ended) {
        kill(pid, SIGKILL);
        rig_wait_child(pid, 5000, &status);
    }
    assert_true(ended);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
}

static void doctor(void **state)
{
    static struct output o;

    (void)state;
    use_daemon();
    ctl(&o, "doctor");
    /* 1: it found something that could be better. */
    assert_true(o.status == 0 || o.status == 1);
    says(&o, "userfaultfd");
    ctl(&o, "doctor --json");
    assert_true(o.status == 0 || o.status == 1);
    json_t *d = json_loads(o.out, 0, NULL);
    assert_non_null(d);
    json_decref(d);
}

static void no_daemon(void **state)
{
    static const char *const commands[] = {"status", "page --gmem 1 --offset 0", "audit", "trace"};
    static struct output o;

    (void)state;
    setenv("FAKEHYP_SOCKET", "/tmp/there-is-no-fakehypd-here", 1);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        expect(&o, commands[i], 2);
        assert_string_equal(o.out, "");
        assert_non_null(strstr(o.err, "fakehypd"));
        assert_non_null(strstr(o.err, "remedy"));
    }
    unsetenv("FAKEHYP_SOCKET");
}

static void help(void **state)
{
    static const char *const commands[] = {"status", "page", "audit", "trace", "doctor"};
    static struct output o;
    char words[32];

    (void)state;
    expect(&o, "--help", 0);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        says(&o, commands[i]);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        snprintf(words, sizeof(words), "%s --help", commands[i]);
        expect(&o, words, 0);
        says(&o, "--json");
    }
    ctl(&o, "no-such-command");
    assert_true(o.status > 0);
}

/* Nobody waits half a minute without a word. */
static void stopped_daemon(void **state)
{
    static struct output o;
    char words[200], text[120];

    (void)state;
    snprintf(words, sizeof(words), "status --timeout 3 --socket %s", rig.socket);
    rig_stop_child(rig.pid);
    ctl(&o, words);
    kill(rig.pid, SIGCONT);
    assert_int_equal(o.status, 2);
    snprintf(text, sizeof(text), "fakehypd (pid %d) does not answer: it is stopped", (int)rig.pid);
    if (!strstr(o.err, text) || !strstr(o.err, "3000 ms"))
        fail_msg("what it says: %s", o.err);
    expect(&o, words, 0);
    assert_string_equal(o.err, "");
}

/* Its name looks like the end of a name in /proc/PID/stat, and another state after it. */
static void stopped_by_any_name(void **state)
{
    static struct output o;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char words[200], text[120];

    (void)state;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s.odd", rig.socket);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    pid_t pid = fork();
    if (pid == 0) {
        rig_child();
        prctl(PR_SET_NAME, "fake) R (d");
        _exit(listen(listener, 4) || raise(SIGSTOP));
    }
    assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
    snprintf(words, sizeof(words), "status --timeout 3 --socket %s", address.sun_path);
    ctl(&o, words);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(listener);
    unlink(address.sun_path);
    assert_int_equal(o.status, 2);
    snprintf(text, sizeof(text), "fakehypd (pid %d) does not answer: it is stopped", (int)pid);
    if (!strstr(o.err, text))
        fail_msg("what it says: %s", o.err);
}

static const struct CMUnitTest tests[] = {
    live_test(status),
    live_test(page),
    live_test(ptdump),
    live_test(ptdump_of_many_runs),
    live_test(audit),
    live_test(audit_finds_a_stray_page),
    live_test(trace),
    live_test(trace_ends_with_its_reader),
    live_test(doctor),
    live_test(no_daemon),
    live_test(help),
    live_test(stopped_daemon),
    live_test(stopped_by_any_name),
};

RIG_MAIN(tests)
