/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's event loop: tasks and descriptors side by side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "src/fakehypd/loop.h"

#define SLICES 100u
#define SLICE_NS UINT64_C(2000000)

struct world {
    struct loop loop;
    struct watch *watch;
    unsigned slices, looks;
};

static void on_readable(void *arg, int events)
{
    struct world *w = arg;

    assert_int_equal(events, UV_READABLE);
    w->looks++;
}

/* Takes as long at a time as the move of some hundred pages. */
static void work(void *arg)
{
    struct world *w = arg;

    for (w->slices = 0; w->slices < SLICES; w->slices++) {
        uint64_t end = uv_hrtime() + SLICE_NS;
        while (uv_hrtime() < end)
            ;
        sched_relax();
    }
    loop_stop(&w->loop);
}

/* Whoever has long work to do relaxes after each part of it; the sockets have their turn then. */
static void test_sockets_between_slices(void **state)
{
    struct world w = {.slices = 0};
    struct sched_config config;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "", 1), 1);
    assert_int_equal(loop_init(&w.loop), 0);
    loop_sched_config(&w.loop, &config);
    w.loop.sched = sched_new(&config);
    assert_non_null(w.loop.sched);
    w.watch = watch_new(&w.loop, fds[0], on_readable, &w);
    assert_non_null(w.watch);
    watch_set(w.watch, UV_READABLE);
    assert_non_null(task_spawn(w.loop.sched, "work", work, &w));
    loop_run(&w.loop);
    assert_int_equal(w.slices, SLICES);
    assert_in_range(w.looks, SLICES - 2, SLICES + 2);
    watch_free(w.watch);
    loop_close(&w.loop);
    sched_free(w.loop.sched);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sockets_between_slices),
    };

    return cmocka_run_group_tests_name("daemon_loop", tests, NULL, NULL);
}
