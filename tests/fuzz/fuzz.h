/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What all fuzz targets share.
 *
 * A target is one LLVMFuzzerTestOneInput(), which stops the process
 * (FUZZ_CHECK, a sanitizer) when something is wrong.  libFuzzer's main() looks
 * for such inputs; without it the program plays the corpus, as tests.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* A target may have this: why its inputs cannot be played here. */
extern const char fuzz_not_here[] __attribute__((weak));

#define FUZZ_CHECK(what)                                                                                               \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The input, taken from its front.  What is not there any more reads as zeros. */
struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->data++;
}

static inline uint64_t fuzz_uint(struct fuzz_input *in, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)fuzz_u8(in) << (8 * i);
    return value;
}

/* At most max bytes; *taken of them are there. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t max, size_t *taken)
{
    const uint8_t *bytes = in->data;

    *taken = max < in->left ? max : in->left;
    in->data += *taken;
    in->left -= *taken;
    return bytes;
}

#endif
