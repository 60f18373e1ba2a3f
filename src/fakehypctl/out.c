/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/out.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool out_wants_colour(int fd)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(fd) && !(no_color && *no_color) && term && strcmp(term, "dumb");
}

const char *out_colour(const struct ctl_io *io, enum out_colour colour)
{
    static const char *const sequences[] = {
        [OUT_PLAIN] = "\033[0m", [OUT_BOLD] = "\033[1m",  [OUT_GOOD] = "\033[32m",
        [OUT_BAD] = "\033[31m",  [OUT_WARN] = "\033[33m", [OUT_DIM] = "\033[2m",
    };

    return io->colour ? sequences[colour] : "";
}

void out_coloured(const struct ctl_io *io, enum out_colour colour, const char *text, int width)
{
    int pad = width - (int)strlen(text);

    fprintf(io->out, "%s%s%s%*s", out_colour(io, colour), text, out_colour(io, OUT_PLAIN), pad > 0 ? pad : 0, "");
}

static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

static bool is_whole(uint64_t bytes, unsigned unit)
{
    return !(bytes & ((UINT64_C(1) << (10 * unit)) - 1));
}

struct out_text out_size(uint64_t bytes)
{
    struct out_text t;
    unsigned unit = 0;

    while (unit + 1 < sizeof(units) / sizeof(units[0]) && bytes >> (10 * (unit + 1)))
        unit++;
    if (unit && !is_whole(bytes, unit) && is_whole(bytes, unit - 1) && bytes >> (10 * (unit - 1)) < 10000)
        unit--;
    if (bytes == 1)
        snprintf(t.s, sizeof(t.s), "1 byte");
    else if (is_whole(bytes, unit))
        snprintf(t.s, sizeof(t.s), "%" PRIu64 " %s", bytes >> (10 * unit), units[unit]);
    else
        snprintf(t.s, sizeof(t.s), "%.1f %s", (double)bytes / (double)(UINT64_C(1) << (10 * unit)), units[unit]);
    return t;
}

struct out_text out_duration(uint64_t ns)
{
    struct out_text t;
    uint64_t s = ns / 1000000000;

    if (ns < 1000)
        snprintf(t.s, sizeof(t.s), "%" PRIu64 " ns", ns);
    else if (ns < 1000000)
        snprintf(t.s, sizeof(t.s), "%" PRIu64 ".%" PRIu64 " us", ns / 1000, ns / 100 % 10);
    else if (ns < 1000000000)
        snprintf(t.s, sizeof(t.s), "%" PRIu64 ".%" PRIu64 " ms", ns / 1000000, ns / 100000 % 10);
    else if (s < 60)
        snprintf(t.s, sizeof(t.s), "%" PRIu64 ".%" PRIu64 " s", s, ns / 100000000 % 10);
    else if (s < 3600)
        snprintf(t.s, sizeof(t.s), "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(t.s, sizeof(t.s), "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    else
        snprintf(t.s, sizeof(t.s), "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
    return t;
}

struct out_text out_age(uint64_t ns)
{
    struct out_text t = out_duration(ns);

    strcat(t.s, " ago");
    return t;
}

struct out_text out_time(uint64_t ns)
{
    struct out_text t;

    snprintf(t.s, sizeof(t.s), "%" PRIu64 ".%06" PRIu64, ns / 1000000000, ns / 1000 % 1000000);
    return t;
}

struct out_text out_u64(uint64_t value)
{
    struct out_text t;

    snprintf(t.s, sizeof(t.s), "%" PRIu64, value);
    return t;
}

struct out_text out_hex(uint64_t value)
{
    struct out_text t;

    snprintf(t.s, sizeof(t.s), "0x%" PRIx64, value);
    return t;
}

void out_clean(FILE *f, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) { /* C1 controls in UTF-8 */
            fputc('?', f);
            p++;
        } else {
            fputc(*p < 0x20 || *p == 0x7f ? '?' : *p, f);
        }
    }
}
