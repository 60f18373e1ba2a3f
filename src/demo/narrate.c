/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/demo/narrate.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_LINES 48

static struct line {
    bool ok;
    char what[64];
    char result[96];
} lines[MAX_LINES];
static unsigned nr_lines;
static unsigned nr_chapters;

static bool colour(void)
{
    static int answer = -1;
    if (answer < 0)
        answer = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    return answer;
}

static const char *paint(const char *code)
{
    return colour() ? code : "";
}

void chapter(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("\n%s%u. ", paint("\033[1m"), ++nr_chapters);
    vprintf(format, args);
    printf("%s\n", paint("\033[0m"));
    va_end(args);
}

void say(enum voice voice, const char *format, ...)
{
    static const struct {
        const char *name, *code;
    } voices[] = {
        [VOICE_STAGE] = {"", ""},          [VOICE_VMM] = {"VMM", "\033[36m"}, [VOICE_GUEST] = {"guest", "\033[32m"},
        [VOICE_EL1] = {"EL1", "\033[33m"}, [VOICE_EL2] = {"EL2", "\033[35m"},
    };
    va_list args;
    va_start(args, format);
    printf("   %s%-5s%s  ", paint(voices[voice].code), voices[voice].name, paint("\033[0m"));
    vprintf(format, args);
    putchar('\n');
    fflush(stdout);
    va_end(args);
}

void quote(const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        printf("          | %.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
    fflush(stdout);
}

bool shown(bool ok, const char *what, const char *format, ...)
{
    va_list args;
    if (nr_lines == MAX_LINES)
        return ok;
    struct line *l = &lines[nr_lines++];
    l->ok = ok;
    snprintf(l->what, sizeof(l->what), "%s", what);
    va_start(args, format);
    vsnprintf(l->result, sizeof(l->result), format, args);
    va_end(args);
    return ok;
}

bool summary(void)
{
    unsigned wrong = 0;
    printf("\n%sWhat was shown%s\n", paint("\033[1m"), paint("\033[0m"));
    for (unsigned i = 0; i < nr_lines; i++) {
        const struct line *l = &lines[i];
        printf("   %s%-5s%s %-52s %s\n", paint(l->ok ? "\033[32m" : "\033[31m"), l->ok ? "ok" : "WRONG",
               paint("\033[0m"), l->what, l->result);
        wrong += !l->ok;
    }
    if (wrong)
        printf("\n%u of %u lines are not as they should be.\n", wrong, nr_lines);
    else
        printf("\nAll %u lines are as they should be.\n", nr_lines);
    /* What nobody could read was not shown. */
    return fflush(stdout) == 0 && !ferror(stdout) && !wrong;
}
