/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/patience.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where the last connection went: what a question says when it waits. */
static char asked[ASK_SOCKET_MAX];

int ask_socket_path(const char *given, char *buf, size_t size)
{
    const char *env = getenv("FAKEHYP_SOCKET"), *dir = getenv("XDG_RUNTIME_DIR");
    int len;

    if (given)
        len = snprintf(buf, size, "%s", given);
    else if (env && *env)
        len = snprintf(buf, size, "%s", env);
    else if (dir && *dir)
        len = snprintf(buf, size, "%s/fakehypd.sock", dir);
    else
        len = snprintf(buf, size, "/tmp/fakehypd-%u.sock", (unsigned)getuid());
    return len < 0 || (size_t)len >= size ? -ENAMETOOLONG : 0;
}

static void explain_no_daemon(const char *path, int err, struct ctl_io *io)
{
    const char *why = fakehyp_last_error();

    if (err == -ENOENT || err == -ECONNREFUSED || err == -ECONNRESET) {
        fprintf(io->err, "fakehypctl: no fakehypd at %s: %s\n", path, strerror(-err));
        fprintf(io->err, "  remedy: fakehypd --daemon --socket %s\n", path);
        fprintf(io->err,
                "  or name the socket of one that runs: --socket PATH, or FAKEHYP_SOCKET in the environment\n");
        return;
    }
    fprintf(io->err, "fakehypctl: no answer from %s: %s\n", path, *why ? why : strerror(-err));
    switch (err) {
    case -EACCES:
    case -EPERM:
        fprintf(io->err, "  remedy: run fakehypctl as the user of that daemon, or name your own with --socket PATH\n");
        break;
    case -EPROTO:
        fprintf(io->err, "  remedy: install fakehypd and fakehypctl of one release, and start the daemon anew\n");
        break;
    case -ETIMEDOUT:
        fprintf(io->err, "  remedy: see what holds it up (stopped? in a debugger?), or end it and start it anew\n");
        break;
    }
}

struct fakehyp *ask_connect(const struct ctl_args *args, struct ctl_io *io)
{
    struct fakehyp *fh;
    char ms[24];
    int err;

    if (args->socket && !*args->socket) {
        fprintf(io->err, "fakehypctl: --socket: the path is empty\n");
        return NULL;
    }
    err = ask_socket_path(args->socket, asked, sizeof(asked));
    if (err) {
        fprintf(io->err, "fakehypctl: the socket's path is too long\n");
        return NULL;
    }
    if (ctl_given(args, CTL_OPT_TIMEOUT)) {
        if (!args->num[CTL_OPT_TIMEOUT]) {
            fprintf(io->err, "fakehypctl: --timeout: an answer takes time, 0 seconds leave none\n");
            return NULL;
        }
        snprintf(ms, sizeof(ms), "%llu", (unsigned long long)args->num[CTL_OPT_TIMEOUT] * 1000);
        setenv("FAKEHYP_TIMEOUT_MS", ms, 1);
    }
    struct patience *patience = patience_begin(asked, io);
    err = fakehyp_connect(asked, &fh);
    patience_end(patience);
    if (err) {
        explain_no_daemon(asked, err, io);
        return NULL;
    }
    return fh;
}

json_t *ask(struct fakehyp *fh, const struct fakehyp_query_args *query, struct ctl_io *io)
{
    json_error_t error;
    json_t *answer;
    char *text;
    int err;

    struct patience *patience = patience_begin(asked, io);
    err = fakehyp_query_raw(fh, query, &text);
    patience_end(patience);
    if (err == -ECONNRESET) {
        fprintf(io->err, "fakehypctl: %s: fakehypd has ended\n", query->what);
        return NULL;
    }
    if (err) {
        const char *why = fakehyp_last_error();

        fprintf(io->err, "fakehypctl: %s: %s\n", query->what, *why ? why : strerror(-err));
        return NULL;
    }
    answer = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!answer) {
        fprintf(io->err, "fakehypctl: %s: fakehypd's answer is no JSON: ", query->what);
        out_clean(io->err, error.text);
        fprintf(io->err, " (line %d, column %d)\n", error.line, error.column);
        return NULL;
    }
    if (!json_is_object(answer)) {
        fprintf(io->err, "fakehypctl: %s: fakehypd's answer is no JSON object\n", query->what);
        json_decref(answer);
        return NULL;
    }
    return answer;
}

enum ctl_exit ask_flush(struct ctl_io *io)
{
    if (!fflush(io->out) && !ferror(io->out))
        return CTL_OK;
    fprintf(io->err, "fakehypctl: write error: %s\n", strerror(errno));
    return CTL_FAILED;
}

static void print_json(const json_t *answer, struct ctl_io *io)
{
    json_dumpf(answer, io->out, JSON_INDENT(2));
    fputc('\n', io->out);
}

enum ctl_exit ask_print(const char *what, const json_t *answer, const struct ctl_args *args, ask_print_fn *print,
                        struct ctl_io *io)
{
    struct ctl_io mem = {.err = io->err, .colour = io->colour};
    struct reader r = {0};
    char *text = NULL;
    size_t len = 0;

    mem.out = open_memstream(&text, &len);
    if (!mem.out) {
        fprintf(io->err, "fakehypctl: %s\n", strerror(errno));
        return CTL_FAILED;
    }
    /* The text is made for JSON too: an answer that breaks the contract is not passed on as if it kept it. */
    print(&r, answer, &mem);
    if (fclose(mem.out)) {
        fprintf(io->err, "fakehypctl: %s\n", strerror(errno));
        free(text);
        return CTL_FAILED;
    }
    if (r.failed)
        fprintf(io->err, "fakehypctl: %s: fakehypd's answer is malformed: %s\n", what, r.error);
    else if (ctl_given(args, CTL_OPT_JSON))
        print_json(answer, io);
    else
        fwrite(text, 1, len, io->out);
    free(text);
    return r.failed ? CTL_FAILED : ask_flush(io);
}

enum ctl_exit ask_and_print(const struct ctl_args *args, const struct fakehyp_query_args *query, ask_print_fn *print,
                            struct ctl_io *io, bool *ok)
{
    struct fakehyp *fh = ask_connect(args, io);
    enum ctl_exit status = CTL_FAILED;
    json_t *answer;

    if (!fh)
        return CTL_FAILED;
    answer = ask(fh, query, io);
    if (answer) {
        status = ask_print(query->what, answer, args, print, io);
        if (ok)
            *ok = json_is_true(json_object_get(answer, "ok"));
        json_decref(answer);
    }
    fakehyp_disconnect(fh);
    return status;
}
