/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is read as text, one line or one word of it: the first byte says as
 * which, the rest is the text.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "src/fakehypctl/options.h"
#include "src/fakehypd/log.h"
#include "src/fakehypd/options.h"
#include "src/fakehypd/pidfile.h"
#include "src/fakehypd/sandbox.h"
#include "src/kernel/kernel.h"
#include "src/kernel/vma.h"
#include "tests/fuzz/fuzz.h"

/* FAKEHYP_MASK: its own words name again what it hides. */
static void mask(const char *text)
{
    uint64_t hidden = 0, again;
    char error[640] = "";
    int rc = kernel_mask_parse(text, &hidden, error, sizeof(error));

    FUZZ_CHECK(rc == 0 || rc == -EINVAL);
    FUZZ_CHECK((rc == 0) == !error[0]);
    FUZZ_CHECK(hidden >> KERNEL_NR_FEATURES == 0 && (rc == 0 || !hidden));
    if (rc || strchr(text, '.'))
        return;
    /* A list twice hides the same; a version alone hides what is newer. */
    char *twice = malloc(2 * strlen(text) + 2);
    FUZZ_CHECK(twice);
    sprintf(twice, "%s,%s", text, text);
    FUZZ_CHECK(kernel_mask_parse(twice, &again, error, sizeof(error)) == 0 && again == hidden);
    free(twice);
}

/* A line of /proc/PID/maps or smaps. */
static void vma(const char *text)
{
    static const struct kernel_vma untouched = {.start = 1, .end = 2, .offset = 3, .dev = 4, .ino = 5};
    struct kernel_vma v = untouched;
    const char *flags = kernel_vma_flags(text);

    if (kernel_vma_parse(text, &v))
        FUZZ_CHECK(v.start < v.end && !flags);
    else
        FUZZ_CHECK(!memcmp(&v, &untouched, sizeof(v)));
    if (flags)
        FUZZ_CHECK(flags > text && flags <= text + strlen(text));
}

/* A size for fakehypd and a number for fakehypctl; both take the same suffixes. */
static void numbers(const char *text)
{
    uint64_t daemon = 0, ctl = 0, plain = 0;
    char canonical[24];

    int rc = options_parse_size(text, &daemon);
    FUZZ_CHECK(rc == 0 || rc == -EINVAL || rc == -ERANGE);
    if (rc == 0) {
        uint64_t again;
        snprintf(canonical, sizeof(canonical), "%" PRIu64, daemon);
        FUZZ_CHECK(options_parse_size(canonical, &again) == 0 && again == daemon);
    }
    int with = ctl_parse_number(text, true, INT64_MAX, &ctl), without = ctl_parse_number(text, false, 1000, &plain);
    FUZZ_CHECK(with == 0 || with == -EINVAL || with == -ERANGE);
    FUZZ_CHECK(without == 0 || without == -EINVAL || without == -ERANGE);
    FUZZ_CHECK(with || ctl <= INT64_MAX);
    FUZZ_CHECK(without || (plain <= 1000 && with == 0 && plain == ctl));
}

static void words(const char *text)
{
    int level = log_level_of(text), mode = sandbox_of(text);

    FUZZ_CHECK(level < LOG_NR_LEVELS);
    FUZZ_CHECK(mode <= SANDBOX_KILL);
}

/* What a pid file holds. */
static void pid(const char *text)
{
    pid_t number = 0;
    char canonical[24];

    int rc = pidfile_number(text, &number);
    FUZZ_CHECK(rc == 0 || rc == -EEXIST);
    if (rc)
        return;
    pid_t again = 0;
    FUZZ_CHECK(number > 0);
    snprintf(canonical, sizeof(canonical), "%d\n", number);
    FUZZ_CHECK(pidfile_number(canonical, &again) == 0 && again == number);
}

static void (*const readers[])(const char *text) = {mask, vma, numbers, words, pid};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    /* Just as long as it is: what reads beyond its end is found. */
    char *text = strndup((const char *)data + 1, size - 1);
    FUZZ_CHECK(text);
    readers[data[0] % (sizeof(readers) / sizeof(readers[0]))](text);
    free(text);
    return 0;
}
