/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads and stores that may fail, without a pause between them: the handler
 * stays in, so an access that succeeds costs no system call.
 */
#ifndef TESTS_COMMON_LIVE_GUARD_H
#define TESTS_COMMON_LIVE_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes SIGBUS and SIGSEGV of this process, for good. */
void guard_install(void);
/* False: SIGBUS.  Any other fault ends the process. */
bool guard_load(const volatile uint64_t *p, uint64_t *value);
bool guard_store(volatile uint64_t *p, uint64_t value);
/* 0, or the signal that ended it: SIGBUS or SIGSEGV. */
int guard_copy(uint64_t *to, const volatile void *from, size_t words);

#endif
