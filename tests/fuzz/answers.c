/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fakehypctl against a daemon that answers anything: a byte that says what is
 * asked and how it is printed, then the daemon's answers, each with its NUL.
 */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include <fakehyp/fakehyp.h>

#include "src/fakehypctl/ctl.h"
#include "src/fakehypctl/patience.h"
#include "tests/fuzz/fuzz.h"

#define JSON 0x80
#define COLOUR 0x40
#define MOST_ARGS 6

static const struct command {
    const char *argv[MOST_ARGS];
    bool once; /* one question: its answer is printed, or nothing is */
} commands[] = {
    {{"status"}, true},
    {{"page", "--gmem", "1", "--offset", "0"}, true},
    {{"audit"}, true},
    {{"kernel-load", "--vm", "1", "--gpa", "4K"}, true},
    {{"ptdump", "--vm", "1"}, false},
    {{"ptdump", "--host", "--state"}, false},
    {{"trace"}, false},
    {{"trace", "--limit", "2", "--vm", "1"}, false},
};

/* ---- the daemon ------------------------------------------------------------------------------------------------ */

static struct fuzz_input answers;

int __wrap_fakehyp_connect(const char *socket, struct fakehyp **out);
int __wrap_fakehyp_connect(const char *socket, struct fakehyp **out)
{
    (void)socket;
    *out = (struct fakehyp *)&answers;
    return 0;
}

void __wrap_fakehyp_disconnect(struct fakehyp *fh);
void __wrap_fakehyp_disconnect(struct fakehyp *fh)
{
    FUZZ_CHECK(fh == (struct fakehyp *)&answers);
}

int __wrap_fakehyp_query_raw(struct fakehyp *fh, const struct fakehyp_query_args *args, char **json);
int __wrap_fakehyp_query_raw(struct fakehyp *fh, const struct fakehyp_query_args *args, char **json)
{
    FUZZ_CHECK(fh == (struct fakehyp *)&answers && args->what);
    if (!answers.left)
        return -ECONNRESET;
    size_t length = strnlen((const char *)answers.data, answers.left), taken;
    *json = strndup((const char *)answers.data, length);
    FUZZ_CHECK(*json);
    fuzz_bytes(&answers, length + 1, &taken);
    return 0;
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

/* ---- what it prints -------------------------------------------------------------------------------------------- */

/* Nobody writes to the terminal through us. */
static bool is_clean(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f || (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f))
            return false;
    return true;
}

/* What --json prints is what the daemon said. */
static void check_json(const char *out, const char *answer)
{
    json_t *said = json_loads(answer, JSON_REJECT_DUPLICATES, NULL), *printed = json_loads(out, 0, NULL);

    FUZZ_CHECK(said && printed && json_equal(said, printed));
    json_decref(said);
    json_decref(printed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    answers = (struct fuzz_input){.data = data, .left = size};
    uint8_t how = fuzz_u8(&answers);
    const struct command *command = &commands[how % (sizeof(commands) / sizeof(commands[0]))];
    char *argv[MOST_ARGS + 3] = {(char *)"fakehypctl"}, *out, *err;
    int argc = 1;
    size_t lengths[2];
    char *first = strndup((const char *)answers.data, answers.left);

    for (size_t i = 0; i < MOST_ARGS && command->argv[i]; i++)
        argv[argc++] = (char *)command->argv[i];
    if (how & JSON)
        argv[argc++] = (char *)"--json";
    struct ctl_io io = {.out = open_memstream(&out, &lengths[0]), .err = open_memstream(&err, &lengths[1])};
    io.colour = how & COLOUR;
    FUZZ_CHECK(io.out && io.err && first);
    enum ctl_exit status = ctl_run(argc, argv, &io);
    fclose(io.out);
    fclose(io.err);
    FUZZ_CHECK(is_clean(err) && (status != CTL_FAILED || *err));
    FUZZ_CHECK(how & (COLOUR | JSON) || is_clean(out));
    if (command->once) {
        FUZZ_CHECK((status == CTL_FAILED) == !*out);
        if (how & JSON && status != CTL_FAILED)
            check_json(out, first);
    }
    free(out);
    free(err);
    free(first);
    return 0;
}
