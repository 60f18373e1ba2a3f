/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

/* ThreadSanitizer has every signal blocked while a handler runs; without it the mask is as it was, and costs a call. */
#ifdef __SANITIZE_THREAD__
#define SAVE_MASK 1
#else
#define SAVE_MASK 0
#endif

static _Thread_local sigjmp_buf out;
static _Thread_local volatile const void *volatile expected __attribute__((tls_model("initial-exec")));
/* guard_copy(): a fault anywhere in here ends it. */
static _Thread_local uintptr_t copy_start, copy_end;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)context;
    if (sig == SIGBUS && expected && info->si_code == BUS_ADRERR && info->si_addr == expected)
        siglongjmp(out, 1);
    if (info->si_code > 0 && (uintptr_t)info->si_addr >= copy_start && (uintptr_t)info->si_addr < copy_end)
        siglongjmp(out, sig);
    dprintf(STDERR_FILENO, "# signal %d (code %d) at %p, expected at %p\n", sig, info->si_code, info->si_addr,
            (const void *)expected);
    signal(sig, SIG_DFL);
}

void guard_install(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
}

__attribute__((noinline, no_sanitize("address"), no_sanitize("thread"))) static uint64_t
load(const volatile uint64_t *p)
{
    return *p;
}

__attribute__((noinline, no_sanitize("address"), no_sanitize("thread"))) static void store(volatile uint64_t *p,
                                                                                           uint64_t value)
{
    *p = value;
}

bool guard_load(const volatile uint64_t *p, uint64_t *value)
{
    if (sigsetjmp(out, SAVE_MASK)) {
        expected = NULL;
        return false;
    }
    expected = p;
    *value = load(p);
    expected = NULL;
    return true;
}

bool guard_store(volatile uint64_t *p, uint64_t value)
{
    if (sigsetjmp(out, SAVE_MASK)) {
        expected = NULL;
        return false;
    }
    expected = p;
    store(p, value);
    expected = NULL;
    return true;
}

__attribute__((noinline, no_sanitize("address"), no_sanitize("thread"))) static void
copy_words(uint64_t *to, const volatile uint64_t *from, size_t words)
{
    for (size_t i = 0; i < words; i++)
        to[i] = from[i];
}

int guard_copy(uint64_t *to, const volatile void *from, size_t words)
{
    int sig = sigsetjmp(out, SAVE_MASK);

    if (!sig) {
        copy_start = (uintptr_t)from;
        copy_end = copy_start + words * sizeof(*to);
        copy_words(to, from, words);
    }
    copy_start = copy_end = 0;
    return sig;
}
