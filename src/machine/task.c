/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/machine/task.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TASK_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define TASK_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define TASK_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define TASK_TSAN 1
#endif
#ifdef TASK_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef TASK_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#define STACK_SIZE (256u << 10) /* sanitizers need more than the 16 KiB that model code takes */
#define GUARD_SIZE 4096u
#define POOL_MAX 64
#define TURN_NS UINT64_C(500000)

enum task_state { TASK_RUNNABLE, TASK_RUNNING, TASK_WAITING, TASK_PAUSED };

struct task {
    ucontext_t context;
    struct sched *sched;
    const char *name;
    const char *point; /* passed last */
    unsigned cpu;
    void (*fn)(void *arg);
    void *arg;
    char *stack;
    uint64_t id;
    enum task_state state;
    bool cancelled, ended;
    bool cancellable; /* the present wait */
    bool exclusive;   /* how it wants the lock that it waits for */
    int wait_result;
    uint64_t deadline;
    struct waitq *queue;          /* while waiting */
    struct task *q_prev, *q_next; /* wait queue */
    struct task *run_next;        /* run queue */
    struct task *all_prev, *all_next;
#ifdef TASK_TSAN
    void *fiber;
#endif
};

struct sched {
    struct sched_config config;
    ucontext_t main;
    struct task *current;
    struct task *run_head, *run_tail;
    struct task *all;
    size_t nr_tasks;
    uint64_t next_id;
    uint64_t virtual_now;
    uint64_t soonest; /* no timed wait ends before it */
    uint64_t turn;    /* when the running task's turn began */
    bool running;
    char *pool[POOL_MAX];
    unsigned nr_pool;
#ifdef TASK_ASAN
    const void *main_stack;
    size_t main_stack_size;
#endif
#ifdef TASK_TSAN
    void *main_fiber;
#endif
};

/* Which scheduler runs on this thread: schedule points take no argument. */
static _Thread_local struct sched *active;

struct sched *sched_new(const struct sched_config *config)
{
    struct sched *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->config = *config;
    s->next_id = 1;
    s->soonest = SCHED_FOREVER;
    return s;
}

void sched_free(struct sched *s)
{
    if (!s)
        return;
    assert(!s->all);
    for (unsigned i = 0; i < s->nr_pool; i++)
        munmap(s->pool[i], STACK_SIZE + GUARD_SIZE);
    free(s);
}

static char *stack_get(struct sched *s)
{
    if (s->nr_pool)
        return s->pool[--s->nr_pool];
    char *p =
        mmap(NULL, STACK_SIZE + GUARD_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (mprotect(p, GUARD_SIZE, PROT_NONE)) {
        munmap(p, STACK_SIZE + GUARD_SIZE);
        return NULL;
    }
    return p;
}

static void stack_put(struct sched *s, char *stack)
{
    if (s->nr_pool < POOL_MAX)
        s->pool[s->nr_pool++] = stack;
    else
        munmap(stack, STACK_SIZE + GUARD_SIZE);
}

static void run_queue_add(struct task *t)
{
    struct sched *s = t->sched;
    t->state = TASK_RUNNABLE;
    t->run_next = NULL;
    if (s->run_tail)
        s->run_tail->run_next = t;
    else
        s->run_head = t;
    s->run_tail = t;
    if (!s->running && s->config.runnable)
        s->config.runnable(s->config.ctx);
}

static void switch_to_main(struct task *t)
{
    struct sched *s = t->sched;
#ifdef TASK_ASAN
    void *fake = NULL;
    __sanitizer_start_switch_fiber(t->ended ? NULL : &fake, s->main_stack, s->main_stack_size);
#endif
#ifdef TASK_TSAN
    __tsan_switch_to_fiber(s->main_fiber, 0);
#endif
    swapcontext(&t->context, &s->main);
#ifdef TASK_ASAN
    __sanitizer_finish_switch_fiber(fake, &s->main_stack, &s->main_stack_size);
#endif
}

static void task_entry(void)
{
    struct task *t = active->current;
#ifdef TASK_ASAN
    __sanitizer_finish_switch_fiber(NULL, &active->main_stack, &active->main_stack_size);
#endif
    t->fn(t->arg);
    t->ended = true;
    switch_to_main(t);
}

/* getcontext() returns twice as far as a compiler knows: kept apart from everything that has locals to lose. */
static void context_init(struct task *t)
{
    getcontext(&t->context);
    t->context.uc_stack.ss_sp = t->stack + GUARD_SIZE;
    t->context.uc_stack.ss_size = STACK_SIZE;
    t->context.uc_link = NULL;
    makecontext(&t->context, task_entry, 0);
}

struct task *task_spawn(struct sched *s, const char *name, void (*fn)(void *arg), void *arg)
{
    struct task *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->stack = stack_get(s);
    if (!t->stack) {
        free(t);
        return NULL;
    }
    t->sched = s;
    t->name = name;
    t->fn = fn;
    t->arg = arg;
    t->id = s->next_id++;
    t->deadline = SCHED_FOREVER;
    context_init(t);
#ifdef TASK_TSAN
    t->fiber = __tsan_create_fiber(0);
#endif
    t->all_next = s->all;
    if (s->all)
        s->all->all_prev = t;
    s->all = t;
    s->nr_tasks++;
    run_queue_add(t);
    return t;
}

static void task_destroy(struct task *t)
{
    struct sched *s = t->sched;
    if (t->all_prev)
        t->all_prev->all_next = t->all_next;
    else
        s->all = t->all_next;
    if (t->all_next)
        t->all_next->all_prev = t->all_prev;
    s->nr_tasks--;
#ifdef TASK_TSAN
    __tsan_destroy_fiber(t->fiber);
#endif
    stack_put(s, t->stack);
    free(t);
}

static uint64_t now_of(const struct sched *s)
{
    return s->config.now ? s->config.now(s->config.ctx) : s->virtual_now;
}

static void switch_to_task(struct sched *s, struct task *t)
{
    s->turn = now_of(s);
    s->current = t;
    t->state = TASK_RUNNING;
#ifdef TASK_ASAN
    void *fake = NULL;
    __sanitizer_start_switch_fiber(&fake, t->stack + GUARD_SIZE, STACK_SIZE);
#endif
#ifdef TASK_TSAN
    s->main_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(t->fiber, 0);
#endif
    swapcontext(&s->main, &t->context);
#ifdef TASK_ASAN
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
    s->current = NULL;
    if (t->ended)
        task_destroy(t);
}

static uint64_t exact_deadline(const struct sched *s)
{
    uint64_t next = SCHED_FOREVER;
    for (const struct task *t = s->all; t; t = t->all_next)
        if (t->state == TASK_WAITING && t->deadline < next)
            next = t->deadline;
    return next;
}

size_t sched_run(struct sched *s, size_t max)
{
    struct sched *outer = active;
    size_t switches = 0;

    assert(!s->running);
    active = s;
    s->running = true;
    for (;;) {
        sched_fire_timers(s);
        if (!s->run_head && !s->config.now) {
            uint64_t next = exact_deadline(s);
            if (next != SCHED_FOREVER) {
                s->virtual_now = next;
                continue;
            }
        }
        if (!s->run_head || (max && switches >= max))
            break;
        struct task *t = s->run_head;
        s->run_head = t->run_next;
        if (!s->run_head)
            s->run_tail = NULL;
        switches++;
        switch_to_task(s, t);
    }
    s->running = false;
    active = outer;
    return switches;
}

bool sched_has_runnable(const struct sched *s)
{
    return s->run_head != NULL;
}

struct task *sched_next_runnable(const struct sched *s, const struct task *t)
{
    return t ? t->run_next : s->run_head;
}

void sched_run_task(struct sched *s, struct task *t)
{
    struct sched *outer = active;
    struct task **at = &s->run_head, *before = NULL;

    assert(!s->running);
    while (*at != t) {
        assert(*at);
        before = *at;
        at = &before->run_next;
    }
    *at = t->run_next;
    if (s->run_tail == t)
        s->run_tail = before;
    active = s;
    s->running = true;
    switch_to_task(s, t);
    s->running = false;
    active = outer;
}

size_t sched_nr_tasks(const struct sched *s)
{
    return s->nr_tasks;
}

uint64_t sched_next_deadline(const struct sched *s)
{
    return s->soonest;
}

static void queue_remove(struct task *t)
{
    struct waitq *q = t->queue;
    if (t->q_prev)
        t->q_prev->q_next = t->q_next;
    else
        q->head = t->q_next;
    if (t->q_next)
        t->q_next->q_prev = t->q_prev;
    else
        q->tail = t->q_prev;
    t->q_prev = t->q_next = NULL;
    t->queue = NULL;
}

static void wake(struct task *t, int result)
{
    queue_remove(t);
    t->wait_result = result;
    t->deadline = SCHED_FOREVER;
    run_queue_add(t);
}

/* Most switches come long before the next deadline: only when it may have come are all tasks looked at. */
void sched_fire_timers(struct sched *s)
{
    if (s->soonest == SCHED_FOREVER)
        return;
    uint64_t now = now_of(s);
    if (s->soonest > now)
        return;
    for (struct task *t = s->all, *after; t; t = after) {
        after = t->all_next;
        if (t->state == TASK_WAITING && t->deadline <= now)
            wake(t, -ETIMEDOUT);
    }
    s->soonest = exact_deadline(s);
}

static struct task *running(void)
{
    assert(active && active->current);
    return active->current;
}

static int wait_in(struct waitq *q, uint64_t timeout_ns, bool cancellable)
{
    struct task *t = running();
    if (cancellable && t->cancelled)
        return -ECANCELED;
    uint64_t now = now_of(t->sched);
    t->deadline = timeout_ns > SCHED_FOREVER - now ? SCHED_FOREVER : now + timeout_ns;
    if (t->deadline < t->sched->soonest)
        t->sched->soonest = t->deadline;
    t->queue = q;
    t->q_prev = q->tail;
    t->q_next = NULL;
    if (q->tail)
        q->tail->q_next = t;
    else
        q->head = t;
    q->tail = t;
    t->cancellable = cancellable;
    t->state = TASK_WAITING;
    switch_to_main(t);
    if (cancellable && t->cancelled && t->wait_result == -ETIMEDOUT)
        return -ECANCELED;
    return t->wait_result;
}

int sched_wait(struct waitq *q, uint64_t timeout_ns)
{
    return wait_in(q, timeout_ns, true);
}

int sched_wait_uncancelled(struct waitq *q, uint64_t timeout_ns)
{
    return wait_in(q, timeout_ns, false);
}

void sched_wake_one(struct waitq *q)
{
    if (q->head)
        wake(q->head, 0);
}

void sched_wake_all(struct waitq *q)
{
    while (q->head)
        wake(q->head, 0);
}

void sched_relax(void)
{
    struct task *t = running();
    run_queue_add(t);
    switch_to_main(t);
}

void sched_relax_due(void)
{
    const struct sched *s = active;
    if (s && s->current && now_of(s) - s->turn >= TURN_NS)
        sched_relax();
}

void sched_point(const char *label)
{
    struct sched *s = active;
    if (!s || !s->current)
        return;
    s->current->point = label;
    if (s->config.point)
        s->config.point(s->config.ctx, s->current, label);
}

const char *sched_last_point(void)
{
    return active && active->current ? active->current->point : NULL;
}

unsigned sched_cpu(void)
{
    return active && active->current ? active->current->cpu : 0;
}

void sched_set_cpu(unsigned cpu)
{
    running()->cpu = cpu;
}

uint64_t sched_now(void)
{
    assert(active);
    return now_of(active);
}

uint64_t sched_task_id(void)
{
    return active && active->current ? active->current->id : 0;
}

void task_cancel(struct task *t)
{
    t->cancelled = true;
    /* A task that would only go back to sleep stays in its queue: a wake-up that comes now must find it there. */
    if (t->state == TASK_WAITING && t->cancellable)
        wake(t, -ECANCELED);
}

bool task_cancelled(void)
{
    return running()->cancelled;
}

struct task *task_current(void)
{
    return active ? active->current : NULL;
}

const char *task_name(const struct task *t)
{
    return t->name;
}

uint64_t task_id(const struct task *t)
{
    return t->id;
}

void task_pause(void)
{
    struct task *t = running();
    t->state = TASK_PAUSED;
    switch_to_main(t);
}

void task_resume(struct task *t)
{
    assert(t->state == TASK_PAUSED);
    run_queue_add(t);
}

bool task_paused(const struct task *t)
{
    return t->state == TASK_PAUSED;
}

/* ---- locks --------------------------------------------------------------------------------------------------- */

static bool lock_fits(const struct task_lock *lock, bool exclusive)
{
    return !lock->writer && !(exclusive && lock->readers);
}

static void lock_give(struct task_lock *lock, struct task *t, bool exclusive)
{
    if (exclusive)
        lock->writer = t;
    else
        lock->readers++;
}

/* A cancelled task must still get its locks: it has state to put in order. */
static void lock_take(struct task_lock *lock, bool exclusive)
{
    struct task *t = running();
    assert(lock->writer != t);
    if (!lock->waiters.head && lock_fits(lock, exclusive)) {
        lock_give(lock, t, exclusive);
        return;
    }
    t->exclusive = exclusive;
    wait_in(&lock->waiters, SCHED_FOREVER, false);
}

/* Handed over, not raced for: who is woken has the lock. */
static void lock_pass_on(struct task_lock *lock)
{
    struct task *t;
    while ((t = lock->waiters.head) && lock_fits(lock, t->exclusive)) {
        lock_give(lock, t, t->exclusive);
        wake(t, 0);
    }
}

void task_lock_shared(struct task_lock *lock)
{
    lock_take(lock, false);
}

void task_unlock_shared(struct task_lock *lock)
{
    assert(lock->readers);
    lock->readers--;
    lock_pass_on(lock);
}

void task_lock_exclusive(struct task_lock *lock)
{
    lock_take(lock, true);
}

void task_unlock_exclusive(struct task_lock *lock)
{
    assert(lock->writer == running());
    lock->writer = NULL;
    lock_pass_on(lock);
}
