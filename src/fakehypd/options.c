/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_MEMORY (UINT64_C(256) << 30)
#define LISTEN_FDS_START 3

enum {
    OPT_SOCKET = 256,
    OPT_LISTEN_FD,
    OPT_FOREGROUND,
    OPT_DAEMON,
    OPT_NOTIFY_FD,
    OPT_TERMINATE,
    OPT_PRINT_CAPABILITIES,
    OPT_LOG_LEVEL,
    OPT_LOG_FILE,
    OPT_TRACE,
    OPT_MEMORY,
    OPT_PIDFILE,
    OPT_SECCOMP,
    OPT_ORACLE,
    OPT_POINTS_FD,
};

/* The one list of them: --help, getopt_long(), the manual page and the shell's completion follow it. */
static const struct option_info {
    const char *name;
    int val;          /* its letter, or an OPT_ */
    const char *arg;  /* NULL: takes none; "a|b|c": one of these */
    const char *help; /* lines */
} infos[] = {
    {"socket", OPT_SOCKET, "PATH",
     "listen here; @NAME is an abstract socket\n(default: $XDG_RUNTIME_DIR/fakehypd.sock, else "
     "/tmp/fakehypd-UID.sock)"},
    {"listen-fd", OPT_LISTEN_FD, "N", "listen on this inherited SOCK_SEQPACKET socket"},
    {"foreground", OPT_FOREGROUND, NULL, "stay in the foreground (default)"},
    {"daemon", OPT_DAEMON, NULL, "go into the background once ready"},
    {"notify-fd", OPT_NOTIFY_FD, "N", "write a newline to this descriptor when ready"},
    {"terminate", OPT_TERMINATE, NULL, "end with the last client, or after 10 s without any"},
    {"pidfile", OPT_PIDFILE, "FILE", "keep the process id in FILE while running"},
    {"seccomp", OPT_SECCOMP, "kill|log|none",
     "what a system call beyond the needed ones does\n(default: kill where that can be)"},
    {"oracle", OPT_ORACLE, "on|off|panic",
     "judge every call of the hypervisor, and log where it is\nwrong or stop (default: $FAKEHYP_ORACLE, else off)"},
    {"memory", OPT_MEMORY, "SIZE", "emulated RAM, suffix K, M, G or T (default 256G)"},
    {"log-level", OPT_LOG_LEVEL, "error|warning|info|debug", "what is logged (default: info)"},
    {"log-file", OPT_LOG_FILE, "FILE", "append the log to FILE instead of standard error"},
    {"trace", OPT_TRACE, "FILE", "write every event to FILE as a line of JSON"},
    {"points-fd", OPT_POINTS_FD, "N", "for tests: this inherited socket holds tasks at schedule points"},
    {"print-capabilities", OPT_PRINT_CAPABILITIES, NULL, "print what this daemon can do as JSON, and exit"},
    {"version", 'V', NULL, "print the version, and exit"},
    {"help", 'h', NULL, "print this help, and exit"},
};
#define NR_OPTIONS (sizeof(infos) / sizeof(infos[0]))
#define HELP_COLUMN 28

static void print_help(FILE *out)
{
    fputs("Usage: fakehypd [OPTION]...\n"
          "The fakehyp daemon: keeps the memory of virtual machines private from real processes.\n\n",
          out);
    for (size_t i = 0; i < NR_OPTIONS; i++) {
        const struct option_info *info = &infos[i];
        int used = info->val < OPT_SOCKET ? fprintf(out, "  -%c, ", info->val) : fprintf(out, "      ");
        used += fprintf(out, "--%s%s%s", info->name, info->arg ? " " : "", info->arg ? info->arg : "");
        if (used >= HELP_COLUMN) {
            fputc('\n', out);
            used = 0;
        }
        for (const char *line = info->help; line;) {
            size_t len = strcspn(line, "\n");
            fprintf(out, "%*s%.*s\n", HELP_COLUMN - used, "", (int)len, line);
            line = line[len] ? line + len + 1 : NULL;
            used = 0;
        }
    }
}

static enum options_result bad(FILE *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
static enum options_result bad(FILE *err, const char *format, ...)
{
    va_list args;

    fputs("fakehypd: ", err);
    va_start(args, format);
    vfprintf(err, format, args);
    va_end(args);
    fputs("\nTry 'fakehypd --help'.\n", err);
    return OPTIONS_BAD;
}

static unsigned suffix_shift(char c)
{
    switch (toupper((unsigned char)c)) {
    case 'K':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    case 'T':
        return 40;
    default:
        return 0;
    }
}

int options_parse_size(const char *text, uint64_t *value)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 0);
    if (errno)
        return -ERANGE;
    unsigned shift = suffix_shift(*end);
    if (shift)
        end++;
    if (end == text || *end)
        return -EINVAL;
    if (n << shift >> shift != n)
        return -ERANGE;
    *value = (uint64_t)n << shift;
    return 0;
}

/* A number from 0 on, without anything around it: -EINVAL when it is none. */
static int parse_number(const char *text)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    long n = strtol(text, &end, 10);
    return errno || *end || n > INT_MAX ? -EINVAL : (int)n;
}

static enum options_result take_fd(const char *option, const char *text, int *fd, FILE *err)
{
    *fd = parse_number(text);
    if (*fd < 0)
        return bad(err, "--%s: \"%s\" is no descriptor: its number is wanted, as in --%s=3", option, text, option);
    return OPTIONS_RUN;
}

static enum options_result take_socket(const char *path, struct options *options, FILE *err)
{
    const size_t max = 107; /* sun_path with its NUL */

    if (!*path)
        return bad(err, "--socket: the path is empty");
    if (strlen(path) > max)
        return bad(err, "--socket: %s is longer than the %zu bytes that a socket's name can have: choose a shorter one",
                   path, max);
    snprintf(options->socket, sizeof(options->socket), "%s", path);
    return OPTIONS_RUN;
}

static enum options_result take_memory(const char *text, struct options *options, FILE *err)
{
    int rc = options_parse_size(text, &options->memory);

    if (rc == -ERANGE)
        return bad(err, "--memory: %s is too much", text);
    if (rc || !options->memory)
        return bad(err, "--memory: \"%s\" is no size: 512M or 256G would be", text);
    return OPTIONS_RUN;
}

static enum options_result take_oracle(const char *origin, const char *text, struct options *options, FILE *err)
{
    static const char *const modes[] = {
        [MACHINE_ORACLE_PANIC] = "panic", [MACHINE_ORACLE_ON] = "on", [MACHINE_ORACLE_OFF] = "off"};

    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(text, modes[i]) == 0) {
            options->oracle = (enum machine_oracle)i;
            return OPTIONS_RUN;
        }
    }
    return bad(err, "%s: \"%s\" is none of on, off, panic", origin, text);
}

static enum options_result take_seccomp(const char *text, struct options *options, FILE *err)
{
    int mode = sandbox_of(text);

    if (mode < 0)
        return bad(err, "--seccomp: \"%s\" is none of kill, log, none", text);
    options->seccomp = (enum sandbox)mode;
    return OPTIONS_RUN;
}

static enum options_result take(int opt, struct options *options, FILE *out, FILE *err)
{
    int level;

    switch (opt) {
    case OPT_SOCKET:
        return take_socket(optarg, options, err);
    case OPT_LISTEN_FD:
        return take_fd("listen-fd", optarg, &options->listen_fd, err);
    case OPT_NOTIFY_FD:
        return take_fd("notify-fd", optarg, &options->notify_fd, err);
    case OPT_POINTS_FD:
        return take_fd("points-fd", optarg, &options->points_fd, err);
    case OPT_FOREGROUND:
    case OPT_DAEMON:
        options->daemonise = opt == OPT_DAEMON;
        return OPTIONS_RUN;
    case OPT_TERMINATE:
        options->terminate = true;
        return OPTIONS_RUN;
    case OPT_PRINT_CAPABILITIES:
        options->print_capabilities = true;
        return OPTIONS_RUN;
    case OPT_LOG_LEVEL:
        level = log_level_of(optarg);
        if (level < 0)
            return bad(err, "--log-level: \"%s\" is none of error, warning, info, debug", optarg);
        options->log_level = (enum log_level)level;
        return OPTIONS_RUN;
    case OPT_PIDFILE:
        if (!*optarg)
            return bad(err, "--pidfile: the path is empty");
        options->pidfile = optarg;
        return OPTIONS_RUN;
    case OPT_ORACLE:
        return take_oracle("--oracle", optarg, options, err);
    case OPT_SECCOMP:
        return take_seccomp(optarg, options, err);
    case OPT_LOG_FILE:
        options->log_file = optarg;
        return OPTIONS_RUN;
    case OPT_TRACE:
        options->trace_file = optarg;
        return OPTIONS_RUN;
    case OPT_MEMORY:
        return take_memory(optarg, options, err);
    case 'V':
        fprintf(out, "fakehypd %s\n", FAKEHYP_VERSION);
        return OPTIONS_DONE;
    case 'h':
        print_help(out);
        return OPTIONS_DONE;
    default:
        return OPTIONS_BAD;
    }
}

/* sd_listen_fds(3): the variables are for this process only, so they are used up. */
static enum options_result take_activation(struct options *options, FILE *err)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    char given[24];

    if (!pid || !fds || parse_number(pid) != getpid())
        return OPTIONS_RUN;
    int nr = parse_number(fds);
    snprintf(given, sizeof(given), "%s", fds);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    if (nr < 0)
        return bad(err, "LISTEN_FDS: \"%s\" is no number of sockets: the service manager sets it, or unset it", given);
    if (!nr || options->listen_fd >= 0)
        return OPTIONS_RUN;
    if (nr > 1)
        return bad(err, "the service manager passes %d sockets (LISTEN_FDS): one is wanted", nr);
    options->listen_fd = LISTEN_FDS_START;
    return OPTIONS_RUN;
}

/* The environment reaches a private daemon, which the library starts, too. */
static enum options_result default_oracle(struct options *options, FILE *err)
{
    const char *mode = getenv("FAKEHYP_ORACLE");

    options->oracle = MACHINE_ORACLE_OFF;
    return mode && *mode ? take_oracle("FAKEHYP_ORACLE", mode, options, err) : OPTIONS_RUN;
}

static enum options_result choose_socket(struct options *options, FILE *err)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");
    char path[256];
    int n;

    if (dir && dir[0] == '/')
        n = snprintf(path, sizeof(path), "%s/fakehypd.sock", dir);
    else
        n = snprintf(path, sizeof(path), "/tmp/fakehypd-%u.sock", (unsigned)getuid());
    if (n < 0 || (size_t)n >= sizeof(path))
        return bad(err, "XDG_RUNTIME_DIR is too long for a socket's name: use --socket PATH");
    return take_socket(path, options, err);
}

/* getopt_long() tells what is wrong on stderr; here it goes where the rest goes. */
static enum options_result unknown(char **argv, int opt, FILE *err)
{
    const char *given = optind > 0 ? argv[optind - 1] : "";

    if (opt == ':')
        return bad(err, "%s: an argument is missing", given);
    if (optopt > 0 && optopt < 256)
        return bad(err, "-%c: no such option", optopt);
    if (optopt)
        return bad(err, "%s: the option takes no argument", given);
    return bad(err, "%s: no such option", given);
}

enum options_result options_parse(int argc, char **argv, struct options *options, FILE *out, FILE *err)
{
    struct option longopts[NR_OPTIONS + 1] = {0};
    enum options_result result = OPTIONS_RUN;
    int opt;

    for (size_t i = 0; i < NR_OPTIONS; i++)
        longopts[i] =
            (struct option){infos[i].name, infos[i].arg ? required_argument : no_argument, NULL, infos[i].val};
    *options = (struct options){
        .listen_fd = -1, .notify_fd = -1, .points_fd = -1, .log_level = LOG_LEVEL_INFO, .memory = DEFAULT_MEMORY};
    result = default_oracle(options, err);
    if (result != OPTIONS_RUN)
        return result;
    optind = 0; /* start afresh: this may be called again */
    opterr = 0;
    while ((opt = getopt_long(argc, argv, ":hV", longopts, NULL)) != -1) {
        result = opt == '?' || opt == ':' ? unknown(argv, opt, err) : take(opt, options, out, err);
        if (result != OPTIONS_RUN)
            return result;
    }
    if (optind < argc)
        return bad(err, "%s: there are no operands", argv[optind]);
    if (options->print_capabilities)
        return OPTIONS_RUN;
    if (options->listen_fd >= 0 && options->socket[0])
        return bad(err, "--socket and --listen-fd: choose one of them");
    if (!options->socket[0])
        result = take_activation(options, err);
    if (result == OPTIONS_RUN && options->listen_fd < 0 && !options->socket[0])
        result = choose_socket(options, err);
    return result;
}
