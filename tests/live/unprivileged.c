/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other live tests once more, as an ordinary user: started by root they
 * prove nothing about that.  Everything they need is copied to a place that
 * the user can read, for the build tree need not be one.
 */
#include "tests/common/live_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

static char dir[] = "/tmp/fakehyp-nobody-XXXXXX";
static uid_t uid = NOBODY;
static gid_t gid = NOBODY;

static bool copy(const char *from, const char *name)
{
    char to[200], buf[65536];
    ssize_t n = -1;

    snprintf(to, sizeof(to), "%s/%s", dir, name);
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    while (in >= 0 && out >= 0 && (n = read(in, buf, sizeof(buf))) > 0)
        if (write(out, buf, (size_t)n) != n)
            break;
    if (in >= 0)
        close(in);
    if (out >= 0)
        fchmod(out, 0755);
    bool ok = n == 0 && out >= 0 && close(out) == 0;
    if (!ok)
        rig_note("copying %s: %s", from, strerror(errno));
    return ok;
}

static bool copy_sibling(const char *name)
{
    char self[500], from[600];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n < 0)
        return false;
    self[n] = '\0';
    snprintf(from, sizeof(from), "%s/%s", dirname(self), name);
    return copy(from, name);
}

static _Noreturn void become_nobody(const char *name)
{
    char path[200], run[200];

    if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)) {
        printf("giving up privileges: %s\n", strerror(errno));
        _exit(97);
    }
    /* After the change of user, which undoes a part of it. */
    rig_child();
    snprintf(run, sizeof(run), "%s/run", dir);
    snprintf(path, sizeof(path), "%s/fakehypd", dir);
    setenv("FAKEHYP_DAEMON", path, 1);
    snprintf(path, sizeof(path), "%s/fakehypctl", dir);
    setenv("FAKEHYP_CTL", path, 1);
    setenv("XDG_RUNTIME_DIR", run, 1);
    setenv("HOME", run, 1);
    setenv("FAKEHYP_SOAK_COUNT", "500", 1);
    setenv("FAKEHYP_KILL_COUNT", "1", 1);
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (chdir(run) == 0)
        execl(path, name, (char *)NULL);
    printf("%s: %s\n", path, strerror(errno));
    _exit(98);
}

/* Runs a test and prints what it says as diagnostics. */
static void run_as_nobody(void **state)
{
    const char *name = *state;
    char *line = NULL;
    size_t size = 0;
    bool skipped = false;
    int out[2], status;

    rig_watchdog(250);
    assert_true(copy_sibling(name));
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(out[1], STDERR_FILENO);
        become_nobody(name);
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    assert_non_null(f);
    while (getline(&line, &size, f) > 0) {
        line[strcspn(line, "\n")] = '\0';
        rig_note("%s: %s", name, line);
        skipped |= !strncmp(line, "1..0", 4);
    }
    free(line);
    fclose(f);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    /* It runs for root, so it has to run for everybody. */
    assert_false(skipped);
}

static int setup(void **state)
{
    const char *daemon = getenv("FAKEHYP_DAEMON"), *ctl = getenv("FAKEHYP_CTL");
    char run[200];

    (void)state;
    if (!daemon || !ctl || !mkdtemp(dir) || chmod(dir, 0755))
        return -1;
    snprintf(run, sizeof(run), "%s/run", dir);
    if (mkdir(run, 0700) || chown(run, uid, gid))
        return -1;
    return copy(daemon, "fakehypd") && copy(ctl, "fakehypctl") ? 0 : -1;
}

static int teardown(void **state)
{
    char command[100];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

#define AS_NOBODY(name)                                                                                                \
    {                                                                                                                  \
        name, run_as_nobody, NULL, NULL, (void *)name                                                                  \
    }

static const struct CMUnitTest tests[] = {
    AS_NOBODY("boundary"), AS_NOBODY("views"),   AS_NOBODY("processes"),   AS_NOBODY("guest"),
    AS_NOBODY("vcpus"),    AS_NOBODY("hostile"), AS_NOBODY("equivalence"), AS_NOBODY("core"),
    AS_NOBODY("ctl"),      AS_NOBODY("soak"),    AS_NOBODY("kill"),
};

/* Why it would prove nothing here, or NULL. */
static const char *pointless(void)
{
    static char reason[200];
    char value[16] = "unknown";
    const struct passwd *nobody = getpwnam("nobody");

    if (geteuid() != 0) {
        snprintf(reason, sizeof(reason), "started as uid %u: the other live tests have just run as an ordinary user",
                 (unsigned)geteuid());
        return reason;
    }
    if (nobody) {
        uid = nobody->pw_uid;
        gid = nobody->pw_gid;
    }
    int fd = open("/proc/sys/vm/unprivileged_userfaultfd", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, value, sizeof(value) - 1);
        value[n > 0 ? n : 0] = '\0';
        value[strcspn(value, "\n")] = '\0';
        close(fd);
    }
    struct stat st;
    bool device = stat("/dev/userfaultfd", &st) == 0;
    rig_note("vm.unprivileged_userfaultfd = %s, /dev/userfaultfd %s", value,
             !device             ? "does not exist"
             : st.st_mode & 0006 ? "is open to everybody"
                                 : "is root's");
    if (strcmp(value, "0") != 0) {
        snprintf(reason, sizeof(reason), "vm.unprivileged_userfaultfd is %s, not 0: it would prove nothing", value);
        return reason;
    }
    return NULL;
}

int main(void)
{
    const char *reason = rig_unsupported();

    if (!reason)
        reason = pointless();
    if (reason) {
        printf("1..0 # SKIP %s\n", reason);
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
