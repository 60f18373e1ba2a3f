/* SPDX-License-Identifier: BSD-2-Clause */
/* The four memory functions that a freestanding compiler may call anyway; EL2 uses no other library function. */
#ifndef FAKEHYP_STRING_H
#define FAKEHYP_STRING_H

#include <stddef.h>

void *memcpy(void *dst, const void *src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
