/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/ctl.h"
#include "src/fakehypctl/ask.h"

#include <string.h>
#include <unistd.h>

#include <fakehyp/fakehyp.h>

const struct ctl_command ctl_commands[] = {
    {
        .name = "doctor",
        .summary = "examine this machine: can the live stage run here?",
        .synopsis = "[--json] [--socket PATH] [--timeout S]",
        .details = "Needs no daemon.  Each check that fails names the command that mends it.\n"
                   "Exit status: 0 nothing essential is missing, 1 something is, 2 usage.\n",
        .run = ctl_doctor,
    },
    {
        .name = "status",
        .summary = "clients, VMs, guest_memfds and counts of the daemon",
        .synopsis = "[--json] [--socket PATH] [--timeout S]",
        .details = "Exit status: 0, or 2 usage or no daemon.\n",
        .run = ctl_status,
    },
    {
        .name = "page",
        .summary = "one page: state, owner, holders, stray accesses, history",
        .synopsis = "(--gmem ID --offset BYTES | --vm ID --gpa ADDR) [--json] [--socket PATH] [--timeout S]",
        .details = "BYTES and ADDR may be decimal or 0x, and end in K, M, G or T.\n"
                   "Exit status: 0, or 2 usage, no daemon or no such page.\n",
        .options = CTL_OPT_BIT(CTL_OPT_GMEM) | CTL_OPT_BIT(CTL_OPT_OFFSET) | CTL_OPT_BIT(CTL_OPT_VM) |
                   CTL_OPT_BIT(CTL_OPT_GPA),
        .run = ctl_page,
    },
    {
        .name = "ptdump",
        .summary = "a VM's or the host's stage-2 table, as the kernel's debugfs prints one",
        .synopsis = "(--vm ID | --host) [--state] [--json] [--socket PATH] [--timeout S]",
        .details = "--json prints one JSON object a line, one for each run of entries.\n"
                   "Exit status: 0, or 2 usage, no daemon, no such VM or one that has not run yet.\n",
        .options = CTL_OPT_BIT(CTL_OPT_VM) | CTL_OPT_BIT(CTL_OPT_HOST) | CTL_OPT_BIT(CTL_OPT_STATE),
        .run = ctl_ptdump,
    },
    {
        .name = "audit",
        .summary = "ask the kernel whether each page is where the model says",
        .synopsis = "[--json] [--socket PATH] [--timeout S]",
        .details = "Exit status: 0 clean, 1 problems were found, 2 usage or no daemon.\n",
        .run = ctl_audit,
    },
    {
        .name = "kernel-load",
        .summary = "let the host kernel touch a page: EL2 injects, EL1 answers",
        .synopsis = "(--gmem ID --offset BYTES | --vm ID --gpa ADDR) [--fixup] [--json] [--socket PATH] [--timeout S]",
        .details = "Changes the model: a page of a guest is taken from it by force, and its IPA is dead.\n"
                   "With --fixup, as copy_from_user() would, the answer is EFAULT and the guest keeps it.\n"
                   "Exit status: 0 the load has read, 2 it was refused, usage, no daemon or no such page.\n",
        .options = CTL_OPT_BIT(CTL_OPT_GMEM) | CTL_OPT_BIT(CTL_OPT_OFFSET) | CTL_OPT_BIT(CTL_OPT_VM) |
                   CTL_OPT_BIT(CTL_OPT_GPA) | CTL_OPT_BIT(CTL_OPT_FIXUP),
        .run = ctl_kernel_load,
    },
    {
        .name = "trace",
        .summary = "the daemon's events, or those of a file: one a line, or a picture",
        .synopsis = "[--file TRACE] [--since SEQ] [--limit N] [--follow] [--vm ID] [--json | --svg | --chrome] "
                    "[--socket PATH] [--timeout S]",
        .details = "--limit takes the first N events from SEQ on; without --since the newest N.\n"
                   "--json prints one JSON object a line.  --svg draws a sequence diagram, for a browser or a slide;\n"
                   "--chrome writes the JSON that https://ui.perfetto.dev and chrome://tracing open.\n"
                   "TRACE is what fakehypd --trace or fakehypctl run --trace has written; - is stdin.\n"
                   "Exit status: 0, or 2 usage, no daemon or a file that is no trace.\n",
        .options = CTL_OPT_BIT(CTL_OPT_SINCE) | CTL_OPT_BIT(CTL_OPT_LIMIT) | CTL_OPT_BIT(CTL_OPT_FOLLOW) |
                   CTL_OPT_BIT(CTL_OPT_VM) | CTL_OPT_BIT(CTL_OPT_FILE) | CTL_OPT_BIT(CTL_OPT_SVG) |
                   CTL_OPT_BIT(CTL_OPT_CHROME),
        .run = ctl_trace,
    },
    {
        .name = "run",
        .summary = "play scenarios: what each conversion policy makes of a situation",
        .synopsis = "[--live] [--policy P] [--tracker T] [--hyp H] [--bugs NAMES] [--tap | --json | --matrix] [--step] "
                    "[--predict] "
                    "[--repeat N] [--exhaustive] [--shard I/N] [--replay LABELS] [--trace FILE] "
                    "[--verbose | --quiet] FILE|FOLDER...",
        .details = "Plays each scenario under all that it names; see fakehyp-scenario(5).  Needs no daemon.\n"
                   "Exit status: 0 all passed (what has no live form counts as passed), 1 something failed, 2 usage,\n"
                   "or a file that is no scenario.\n",
        .options = CTL_OPT_BIT(CTL_OPT_LIVE) | CTL_OPT_BIT(CTL_OPT_POLICY) | CTL_OPT_BIT(CTL_OPT_TRACKER) |
                   CTL_OPT_BIT(CTL_OPT_HYP) | CTL_OPT_BIT(CTL_OPT_BUGS) | CTL_OPT_BIT(CTL_OPT_TAP) |
                   CTL_OPT_BIT(CTL_OPT_MATRIX) | CTL_OPT_BIT(CTL_OPT_STEP) | CTL_OPT_BIT(CTL_OPT_PREDICT) |
                   CTL_OPT_BIT(CTL_OPT_VERBOSE) | CTL_OPT_BIT(CTL_OPT_QUIET) | CTL_OPT_BIT(CTL_OPT_REPEAT) |
                   CTL_OPT_BIT(CTL_OPT_TRACE) | CTL_OPT_BIT(CTL_OPT_EXHAUSTIVE) | CTL_OPT_BIT(CTL_OPT_SHARD) |
                   CTL_OPT_BIT(CTL_OPT_REPLAY),
        .operands = true,
        .no_daemon = true,
        .run = ctl_scenarios,
    },
};
const size_t ctl_nr_commands = sizeof(ctl_commands) / sizeof(ctl_commands[0]);

#define PROGRAM_OPTIONS (CTL_OPT_BIT(CTL_OPT_HELP) | CTL_OPT_BIT(CTL_OPT_VERSION))

static void program_help(struct ctl_io *io)
{
    fprintf(io->out, "usage: fakehypctl COMMAND [OPTION...]\n"
                     "       fakehypctl COMMAND --help\n\n"
                     "Looks into fakehypd, the emulator of guest private memory.\n\n"
                     "commands:\n");
    for (size_t i = 0; i < ctl_nr_commands; i++)
        fprintf(io->out, "  %-11s  %s\n", ctl_commands[i].name, ctl_commands[i].summary);
    fprintf(io->out, "\noptions:\n");
    ctl_print_options(io, PROGRAM_OPTIONS);
    fprintf(io->out, "\nThe daemon's socket is --socket PATH of the command, else $FAKEHYP_SOCKET, else\n"
                     "$XDG_RUNTIME_DIR/fakehypd.sock, else /tmp/fakehypd-UID.sock.\n");
}

static uint64_t common_options(const struct ctl_command *c)
{
    return c->no_daemon ? CTL_OPT_BIT(CTL_OPT_JSON) | CTL_OPT_BIT(CTL_OPT_HELP) : CTL_COMMON_OPTIONS;
}

static void command_help(const struct ctl_command *c, struct ctl_io *io)
{
    fprintf(io->out, "usage: fakehypctl %s %s\n\n%s\n\noptions:\n", c->name, c->synopsis, c->summary);
    ctl_print_options(io, c->options);
    ctl_print_options(io, common_options(c));
    fprintf(io->out, "\n%s", c->details);
}

static const struct ctl_command *find_command(const char *name)
{
    for (size_t i = 0; i < ctl_nr_commands; i++)
        if (!strcmp(ctl_commands[i].name, name))
            return &ctl_commands[i];
    return NULL;
}

static enum ctl_exit run_command(const struct ctl_command *c, int argc, char **argv, struct ctl_io *io)
{
    struct ctl_args args;
    char who[32];
    int end;

    snprintf(who, sizeof(who), "fakehypctl %s", c->name);
    end = ctl_parse_options(argc, argv, common_options(c) | c->options, c->operands, who, &args, io);
    if (end >= 0 && ctl_given(&args, CTL_OPT_HELP)) {
        command_help(c, io);
        return ask_flush(io);
    }
    if (end >= 0 && c->operands) {
        args.operands = argv + end;
        args.nr_operands = (size_t)(argc - end);
        return c->run(&args, io);
    }
    if (end >= 0 && end < argc)
        fprintf(io->err, "%s: \"%s\" is one argument too many\n", who, argv[end]);
    if (end != argc) {
        fprintf(io->err, "usage: fakehypctl %s %s\n", c->name, c->synopsis);
        return CTL_FAILED;
    }
    return c->run(&args, io);
}

enum ctl_exit ctl_run(int argc, char **argv, struct ctl_io *io)
{
    const struct ctl_command *command;
    struct ctl_args args;
    int end = ctl_parse_options(argc, argv, PROGRAM_OPTIONS, false, "fakehypctl", &args, io);

    if (end >= 0 && ctl_given(&args, CTL_OPT_HELP)) {
        program_help(io);
        return ask_flush(io);
    }
    if (end >= 0 && ctl_given(&args, CTL_OPT_VERSION)) {
        fprintf(io->out, "fakehypctl %s\n", fakehyp_version());
        return ask_flush(io);
    }
    command = end >= 0 && end < argc ? find_command(argv[end]) : NULL;
    if (command)
        return run_command(command, argc - end, argv + end, io);
    if (end < 0)
        fprintf(io->err, "fakehypctl: options of a command come after its name\n");
    else if (end >= argc)
        fprintf(io->err, "fakehypctl: which command?\n");
    else
        fprintf(io->err, "fakehypctl: no command \"%s\"\n", argv[end]);
    fprintf(io->err, "usage: fakehypctl COMMAND [OPTION...]; fakehypctl --help lists the commands\n");
    return CTL_FAILED;
}

int ctl_main(int argc, char **argv)
{
    struct ctl_io io = {.out = stdout, .err = stderr, .colour = out_wants_colour(STDOUT_FILENO)};

    return ctl_run(argc, argv, &io);
}
