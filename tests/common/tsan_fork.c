/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For LD_PRELOAD beside ThreadSanitizer: a child of a process with threads may start threads of its own.
 *
 * In such a child libc gives the stack of a thread that is not there any more to the next one, and with it the
 * pthread_t, by which ThreadSanitizer knows the old one: "dup thread with used id".  A stack that is larger than all
 * that the parent had is a new one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

#define LARGER ((size_t)32 << 20)

static size_t generation;

static void in_child(void)
{
    generation++;
}

__attribute__((constructor)) static void begin(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *wanted, void *(*fn)(void *), void *arg)
{
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = NULL;
    pthread_attr_t attr;

    *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    if (generation == 0)
        return next(thread, wanted, fn, arg);
    /* A copy that is only read: what it points to stays the caller's. */
    if (wanted)
        attr = *wanted;
    else
        pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, generation * LARGER);
    return next(thread, &attr, fn, arg);
}
