/* SPDX-License-Identifier: BSD-2-Clause */
/* Text that came from somebody else, made fit for logs and JSON. */
#ifndef SRC_FAKEHYPD_TEXT_H
#define SRC_FAKEHYPD_TEXT_H

#include <stddef.h>

/*
 * Copies what fits, ends it with NUL and never cuts a UTF-8 sequence in two.
 * Control characters and what is no UTF-8 become '?'.
 */
void text_copy(char *to, size_t size, const char *from);

#endif
