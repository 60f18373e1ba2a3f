/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

static _Thread_local sigjmp_buf out;
static _Thread_local volatile const void *volatile expected __attribute__((tls_model("initial-exec")));

static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)context;
    if (sig == SIGBUS && expected && info->si_code == BUS_ADRERR && info->si_addr == expected)
        siglongjmp(out, 1);
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
    if (sigsetjmp(out, 0)) {
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
    if (sigsetjmp(out, 0)) {
        expected = NULL;
        return false;
    }
    expected = p;
    store(p, value);
    expected = NULL;
    return true;
}
