/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

enum kind {
    KIND_FLAG,
    KIND_TEXT,
    KIND_NUMBER, /* an id or a count */
    KIND_BYTES,  /* an address or a size: takes a suffix */
};

struct option_info {
    const char *name;
    char letter;
    enum kind kind;
    const char *arg;
    const char *help;
    uint64_t max;
};

/* jansson's integers, and so the daemon's, are signed. */
#define MAX_NUMBER ((uint64_t)INT64_MAX)

static const struct option_info infos[CTL_NR_OPTS] = {
    [CTL_OPT_JSON] = {"json", 'j', KIND_FLAG, NULL, "print JSON", 0},
    [CTL_OPT_SOCKET] = {"socket", 's', KIND_TEXT, "PATH", "socket of fakehypd", 0},
    [CTL_OPT_TIMEOUT] = {"timeout", 'w', KIND_NUMBER, "S", "give up after S seconds without an answer (30)", 86400},
    [CTL_OPT_HELP] = {"help", 'h', KIND_FLAG, NULL, "print this help and exit", 0},
    [CTL_OPT_VERSION] = {"version", 'V', KIND_FLAG, NULL, "print the version and exit", 0},
    [CTL_OPT_GMEM] = {"gmem", 'g', KIND_NUMBER, "ID", "the guest_memfd", MAX_NUMBER},
    [CTL_OPT_OFFSET] = {"offset", 'o', KIND_BYTES, "BYTES", "offset in the guest_memfd", MAX_NUMBER},
    [CTL_OPT_VM] = {"vm", 'm', KIND_NUMBER, "ID", "the VM", MAX_NUMBER},
    [CTL_OPT_GPA] = {"gpa", 'a', KIND_BYTES, "ADDR", "guest physical address (IPA) in the VM", MAX_NUMBER},
    [CTL_OPT_SINCE] = {"since", 'n', KIND_NUMBER, "SEQ", "begin with the event of this number", MAX_NUMBER},
    [CTL_OPT_LIMIT] = {"limit", 'l', KIND_NUMBER, "N", "print N events at most", UINT32_MAX},
    [CTL_OPT_FOLLOW] = {"follow", 'f', KIND_FLAG, NULL, "go on with new events as they come", 0},
    [CTL_OPT_HOST] = {"host", 'H', KIND_FLAG, NULL, "the host's table", 0},
    [CTL_OPT_FIXUP] = {"fixup", 'x', KIND_FLAG, NULL, "by an instruction of the exception table", 0},
    [CTL_OPT_STATE] = {"state", 't', KIND_FLAG, NULL, "page states, output addresses and annotations too", 0},
    [CTL_OPT_LIVE] = {"live", 'L', KIND_FLAG, NULL, "with real processes", 0},
    [CTL_OPT_POLICY] = {"policy", 'p', KIND_TEXT, "A|B|C|D|E", "only under this conversion policy", 0},
    [CTL_OPT_TRACKER] = {"tracker", 'k', KIND_TEXT, "inode|vm|folio|hyp", "only with this tracker of sharedness", 0},
    [CTL_OPT_HYP] = {"hyp", 'y', KIND_TEXT, "pkvm|sw-protected|firmware", "only with this hypervisor", 0},
    [CTL_OPT_BUGS] = {"bugs", 'b', KIND_TEXT, "NAMES", "with these mistakes in the model, as d-no-refcheck", 0},
    [CTL_OPT_TAP] = {"tap", 'T', KIND_FLAG, NULL, "print TAP", 0},
    [CTL_OPT_MATRIX] = {"matrix", 'M', KIND_FLAG, NULL, "print a table of scenarios and policies", 0},
    [CTL_OPT_STEP] = {"step", 'S', KIND_FLAG, NULL, "wait for Enter after each step", 0},
    [CTL_OPT_PREDICT] = {"predict", 'P', KIND_FLAG, NULL, "ask for each verdict before it is shown", 0},
    [CTL_OPT_VERBOSE] = {"verbose", 'v', KIND_FLAG, NULL, "narrate each step, of a folder's scenarios too", 0},
    [CTL_OPT_QUIET] = {"quiet", 'q', KIND_FLAG, NULL, "print what fails and the totals only; of a matrix what differs",
                       0},
    [CTL_OPT_REPEAT] = {"repeat", 'r', KIND_NUMBER, "N", "what is left to chance, N times as long", 1000000},
    [CTL_OPT_FILE] = {"file", 'F', KIND_TEXT, "TRACE", "read this file, - for stdin, and ask no daemon", 0},
    [CTL_OPT_SVG] = {"svg", 'd', KIND_FLAG, NULL, "draw a sequence diagram", 0},
    [CTL_OPT_CHROME] = {"chrome", 'c', KIND_FLAG, NULL, "write what Perfetto and chrome://tracing open", 0},
    [CTL_OPT_TRACE] = {"trace", 'e', KIND_TEXT, "FILE", "write the events of what is played to FILE", 0},
    [CTL_OPT_EXHAUSTIVE] = {"exhaustive", 'E', KIND_FLAG, NULL, "explore with any number of preemptions", 0},
    [CTL_OPT_SHARD] = {"shard", 'D', KIND_TEXT, "I/N", "explore the I-th of N parts of the schedules", 0},
    [CTL_OPT_REPLAY] = {"replay", 'R', KIND_TEXT, "LABELS", "explore no schedule but this one, step by step", 0},
};

/* Values of the long forms: out of the way of the letters. */
#define VAL_BASE 256

static unsigned suffix_shift(char c)
{
    switch (c) {
    case 'K':
    case 'k':
        return 10;
    case 'M':
    case 'm':
        return 20;
    case 'G':
    case 'g':
        return 30;
    case 'T':
    case 't':
        return 40;
    default:
        return 0;
    }
}

static int digit_value(char c)
{
    if (isdigit((unsigned char)c))
        return c - '0';
    if (isxdigit((unsigned char)c))
        return tolower((unsigned char)c) - 'a' + 10;
    return 99;
}

int ctl_parse_number(const char *text, bool suffixes, uint64_t max, uint64_t *value)
{
    unsigned base = 10, shift;
    const char *p = text, *digits;
    bool over = false;
    uint64_t n = 0;

    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
        base = 16;
        p += 2;
    }
    for (digits = p; (unsigned)digit_value(*p) < base; p++)
        if (__builtin_mul_overflow(n, (uint64_t)base, &n) || __builtin_add_overflow(n, (uint64_t)digit_value(*p), &n))
            over = true;
    if (p == digits)
        return -EINVAL;
    shift = suffixes ? suffix_shift(*p) : 0;
    if (shift)
        p++;
    if (*p)
        return -EINVAL;
    if (over || (n << shift) >> shift != n || (n << shift) > max)
        return -ERANGE;
    *value = n << shift;
    return 0;
}

static int store(enum ctl_opt opt, const char *value, const char *who, struct ctl_args *args, struct ctl_io *io)
{
    const struct option_info *info = &infos[opt];
    int err;

    args->given |= CTL_OPT_BIT(opt);
    switch (info->kind) {
    case KIND_FLAG:
        return 0;
    case KIND_TEXT:
        args->text[opt] = value;
        if (opt == CTL_OPT_SOCKET)
            args->socket = value;
        return 0;
    case KIND_NUMBER:
    case KIND_BYTES:
        err = ctl_parse_number(value, info->kind == KIND_BYTES, info->max, &args->num[opt]);
        if (err == -ERANGE)
            fprintf(io->err, "%s: --%s: \"%s\" is above %" PRIu64 "\n", who, info->name, value, info->max);
        else if (err)
            fprintf(io->err, "%s: --%s: \"%s\" is no number: 4096%s or 0x1000 would be\n", who, info->name, value,
                    info->kind == KIND_BYTES ? ", 4K" : "");
        return err ? -EINVAL : 0;
    }
    return -EINVAL;
}

static enum ctl_opt opt_of(int val, uint64_t allowed)
{
    for (int i = 0; i < CTL_NR_OPTS; i++)
        if ((allowed & CTL_OPT_BIT(i)) && (val == VAL_BASE + i || val == infos[i].letter))
            return (enum ctl_opt)i;
    return CTL_NR_OPTS;
}

int ctl_parse_options(int argc, char **argv, uint64_t allowed, bool mixed, const char *who, struct ctl_args *args,
                      struct ctl_io *io)
{
    struct option longopts[CTL_NR_OPTS + 1];
    char shortopts[2 * CTL_NR_OPTS + 3];
    size_t nr = 0, len = 0;
    int val;

    if (!mixed)
        shortopts[len++] = '+';
    shortopts[len++] = ':'; /* tell a missing argument from an unknown option */
    for (int i = 0; i < CTL_NR_OPTS; i++) {
        if (!(allowed & CTL_OPT_BIT(i)))
            continue;
        longopts[nr++] = (struct option){
            .name = infos[i].name,
            .has_arg = infos[i].kind == KIND_FLAG ? no_argument : required_argument,
            .val = VAL_BASE + i,
        };
        shortopts[len++] = infos[i].letter;
        if (infos[i].kind != KIND_FLAG)
            shortopts[len++] = ':';
    }
    longopts[nr] = (struct option){0};
    shortopts[len] = '\0';

    *args = (struct ctl_args){0};
    opterr = 0;
    optind = 0; /* glibc: begin anew */
    while ((val = getopt_long(argc, argv, shortopts, longopts, NULL)) != -1) {
        if (val == ':') {
            fprintf(io->err, "%s: %s needs a value\n", who, argv[optind - 1]);
            return -EINVAL;
        }
        if (val == '?') {
            if (optopt >= VAL_BASE)
                fprintf(io->err, "%s: --%s takes no value\n", who, infos[optopt - VAL_BASE].name);
            else if (optopt)
                fprintf(io->err, "%s: no option -%c\n", who, isprint(optopt) ? optopt : '?');
            else
                fprintf(io->err, "%s: no option %s, or not a clear one\n", who, argv[optind - 1]);
            return -EINVAL;
        }
        if (store(opt_of(val, allowed), optarg, who, args, io))
            return -EINVAL;
    }
    return optind;
}

void ctl_print_options(struct ctl_io *io, uint64_t allowed)
{
    char left[40];

    for (int i = 0; i < CTL_NR_OPTS; i++) {
        if (!(allowed & CTL_OPT_BIT(i)))
            continue;
        snprintf(left, sizeof(left), "-%c, --%s%s%s", infos[i].letter, infos[i].name, infos[i].arg ? " " : "",
                 infos[i].arg ? infos[i].arg : "");
        fprintf(io->out, "  %-20s  %s\n", left, infos[i].help);
    }
}
