/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Command lines and the environment that goes with them: a byte says whose,
 * then come strings, each with its NUL.  fakehypd's first four are LISTEN_PID
 * (= for this process), LISTEN_FDS, XDG_RUNTIME_DIR and FAKEHYP_ORACLE,
 * fakehypctl's first is FAKEHYP_SOCKET.  Empty: the variable is not set.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <fakehyp/fakehyp.h>

#include "src/fakehypctl/ctl.h"
#include "src/fakehypctl/patience.h"
#include "src/fakehypd/options.h"
#include "tests/fuzz/fuzz.h"

#define MOST_ARGS 16

/* fakehypctl finds no daemon. */
int __wrap_fakehyp_connect(const char *socket, struct fakehyp **out);
int __wrap_fakehyp_connect(const char *socket, struct fakehyp **out)
{
    FUZZ_CHECK(socket && *socket);
    *out = NULL;
    return -ECONNREFUSED;
}

/* It answers at once: no thread to tell that it does not. */
struct patience *__wrap_patience_begin(const char *path, struct ctl_io *io);
struct patience *__wrap_patience_begin(const char *path, struct ctl_io *io)
{
    FUZZ_CHECK(path && io);
    return NULL;
}

void __wrap_patience_end(struct patience *patience);
void __wrap_patience_end(struct patience *patience)
{
    FUZZ_CHECK(!patience);
}

/* The next string of the input: the caller's. */
static char *next_string(struct fuzz_input *in)
{
    size_t length = strnlen((const char *)in->data, in->left), taken;
    char *text = strndup((const char *)in->data, length);

    FUZZ_CHECK(text);
    fuzz_bytes(in, length + 1, &taken);
    return text;
}

static void set_variable(struct fuzz_input *in, const char *name)
{
    char *value = next_string(in), own[24];

    snprintf(own, sizeof(own), "%d", (int)getpid());
    if (*value)
        FUZZ_CHECK(setenv(name, strcmp(value, "=") ? value : own, 1) == 0);
    else
        unsetenv(name);
    free(value);
}

static void fakehypd_line(int argc, char **argv, FILE *out, FILE *err)
{
    struct options options;
    bool passed = getenv("LISTEN_PID") != NULL;
    enum options_result result = options_parse(argc, argv, &options, out, err);

    fflush(err);
    FUZZ_CHECK((result == OPTIONS_BAD) == (ftell(err) > 0));
    FUZZ_CHECK((result == OPTIONS_DONE) == (ftell(out) > 0));
    if (result != OPTIONS_RUN || options.print_capabilities)
        return;
    /* It listens at one place. */
    FUZZ_CHECK((options.listen_fd >= 0) != (options.socket[0] != '\0'));
    FUZZ_CHECK(strlen(options.socket) <= 107 && options.memory);
    FUZZ_CHECK(options.oracle <= MACHINE_ORACLE_OFF && options.seccomp <= SANDBOX_KILL);
    /* Children must not take the sockets for theirs. */
    if (passed && !options.socket[0])
        FUZZ_CHECK(!getenv("LISTEN_PID") || options.listen_fd >= 0);
}

static void fakehypctl_line(int argc, char **argv, FILE *out, FILE *err)
{
    struct ctl_io io = {.out = out, .err = err};

    /* The one would examine this machine, the other play files of it. */
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "doctor") || !strcmp(argv[i], "run"))
            return;
    enum ctl_exit status = ctl_run(argc, argv, &io);
    fflush(out);
    fflush(err);
    /* Help and the version, or what is wrong: without a daemon there is nothing else. */
    FUZZ_CHECK(status == CTL_OK || status == CTL_FAILED);
    FUZZ_CHECK((status == CTL_OK) == (ftell(out) > 0));
    FUZZ_CHECK((status == CTL_FAILED) == (ftell(err) > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const daemon_variables[] = {"LISTEN_PID", "LISTEN_FDS", "XDG_RUNTIME_DIR", "FAKEHYP_ORACLE"};
    struct fuzz_input in = {.data = data, .left = size};
    bool daemon = fuzz_u8(&in) & 1;
    char *argv[MOST_ARGS + 2] = {strdup(daemon ? "fakehypd" : "fakehypctl")}, *texts[2] = {NULL, NULL};
    int argc = 1;
    size_t lengths[2];

    if (daemon)
        for (size_t i = 0; i < sizeof(daemon_variables) / sizeof(daemon_variables[0]); i++)
            set_variable(&in, daemon_variables[i]);
    else
        set_variable(&in, "FAKEHYP_SOCKET");
    while (in.left && argc <= MOST_ARGS)
        argv[argc++] = next_string(&in);
    /* getopt() changes the order of argv. */
    char *args[MOST_ARGS + 2];
    memcpy(args, argv, sizeof(args));
    FILE *out = open_memstream(&texts[0], &lengths[0]), *err = open_memstream(&texts[1], &lengths[1]);
    FUZZ_CHECK(out && err);
    (daemon ? fakehypd_line : fakehypctl_line)(argc, args, out, err);
    fclose(out);
    fclose(err);
    free(texts[0]);
    free(texts[1]);
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return 0;
}
