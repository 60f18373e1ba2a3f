/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Length of the well-formed sequence at p, 0 when there is none. */
static size_t sequence(const unsigned char *p)
{
    uint32_t code, least;
    size_t n;

    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] != 0x7f ? 1 : 0;
    if ((p[0] & 0xe0) == 0xc0) {
        n = 2, code = p[0] & 0x1f, least = 0x80;
    } else if ((p[0] & 0xf0) == 0xe0) {
        n = 3, code = p[0] & 0x0f, least = 0x800;
    } else if ((p[0] & 0xf8) == 0xf0) {
        n = 4, code = p[0] & 0x07, least = 0x10000;
    } else {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    /* U+0080..U+009F are controls too. */
    bool bad = code < least || code < 0xa0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000);
    return bad ? 0 : n;
}

void text_copy(char *to, size_t size, const char *from)
{
    const unsigned char *p = (const unsigned char *)from;
    size_t used = 0;

    while (*p) {
        size_t n = sequence(p);
        if (used + (n ? n : 1) >= size)
            break;
        if (n)
            memcpy(to + used, p, n);
        else
            to[used] = '?';
        used += n ? n : 1;
        p += n ? n : 1;
    }
    to[used] = '\0';
}
