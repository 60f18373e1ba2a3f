/* SPDX-License-Identifier: BSD-2-Clause */
/* Views: what faults, what the daemon hears, and what the traps do (fork, foreign mappings, partial unmaps). */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <fakehyp/fakehyp.h>

#include "tests/unit/client_daemon.h"

#define PAGE ((size_t)FAKEHYP_PAGE_SIZE)
#define PAGES 16

struct fixture {
    struct fake_daemon daemon;
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
};

static int setup_with(void **state, uint64_t flags)
{
    struct fixture *f = calloc(1, sizeof(*f));

    daemon_start(&f->daemon);
    if (fakehyp_connect(f->daemon.name, &f->fh) || fakehyp_vm_create(f->fh, NULL, &f->vm) ||
        fakehyp_gmem_create(f->vm, PAGES * PAGE, flags, &f->gmem)) {
        fprintf(stderr, "%s\n", fakehyp_last_error());
        return -1;
    }
    *state = f;
    return 0;
}

static int setup_private(void **state)
{
    return setup_with(state, FAKEHYP_GMEM_MMAP);
}

static int setup_shared(void **state)
{
    return setup_with(state, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED);
}

static int setup_unmappable(void **state)
{
    return setup_with(state, 0);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    fakehyp_disconnect(f->fh);
    daemon_stop(&f->daemon);
    free(f);
    return 0;
}

static char *map_all(struct fixture *f)
{
    void *p;

    int rc = fakehyp_map(f->gmem, NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, 0, &p);
    if (rc)
        fail_msg("map: %s", fakehyp_last_error());
    return p;
}

static enum fakehyp_touch touch(const char *p)
{
    return fakehyp_touch_read(p, NULL, NULL, NULL);
}

static void test_arguments(void **state)
{
    struct fixture *f = *state;
    void *p;

    assert_int_equal(fakehyp_map(f->gmem, NULL, 0, PROT_READ, 0, &p), -EINVAL);
    assert_int_equal(fakehyp_map(f->gmem, NULL, PAGE + 1, PROT_READ, 0, &p), -EINVAL);
    assert_int_equal(fakehyp_map(f->gmem, NULL, PAGE, PROT_READ, 17, &p), -EINVAL);
    assert_int_equal(fakehyp_map(f->gmem, NULL, PAGE, PROT_READ, UINT64_MAX - PAGE + 1, &p), -EINVAL);
    assert_int_equal(fakehyp_map(f->gmem, NULL, PAGE, 0x1000, 0, &p), -EINVAL);
    assert_int_equal(fakehyp_map(f->gmem, NULL, PAGE, PROT_READ | PROT_EXEC, 0, &p), -EPERM);
    assert_int_equal(fakehyp_unmap(f->fh, (void *)17, PAGE), -EINVAL);
    assert_int_equal(fakehyp_remap(f->fh, (void *)PAGE, PAGE, 2 * PAGE, &p), -EFAULT);
    char *all = map_all(f);
    assert_int_equal(fakehyp_map(f->gmem, all + PAGE, PAGE, PROT_READ, 0, &p), -EEXIST);
    assert_int_equal(f->daemon.nr_views, 1);
}

static void test_unmappable(void **state)
{
    struct fixture *f = *state;
    void *p;

    assert_int_equal(fakehyp_map(f->gmem, NULL, PAGE, PROT_READ, 0, &p), -ENODEV);
    assert_null(p);
}

static void test_private_page_raises_sigbus(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);
    uint8_t value;
    void *at;
    int code;

    assert_int_equal(fakehyp_touch_read(p + 5 * PAGE + 123, &value, &at, &code), FAKEHYP_TOUCH_SIGBUS);
    assert_ptr_equal(at, p + 5 * PAGE + 123);
    assert_int_equal(code, BUS_ADRERR);
    assert_int_equal(fakehyp_touch_write(p, 1, &at, &code), FAKEHYP_TOUCH_SIGBUS);
    assert_ptr_equal(at, p);
    /* The refusal left no page behind. */
    assert_int_equal(lseek(fakehyp_gmem_fd(f->gmem), 0, SEEK_DATA), -1);
}

static void test_conversion_reaches_view(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);

    assert_int_equal(fakehyp_convert(f->gmem, 2 * PAGE, PAGE, FAKEHYP_SHARED, NULL), 0);
    assert_int_equal(touch(p + PAGE), FAKEHYP_TOUCH_SIGBUS);
    p[2 * PAGE] = 'x';
    assert_int_equal(touch(p + 3 * PAGE), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(fakehyp_convert(f->gmem, 2 * PAGE, PAGE, FAKEHYP_PRIVATE, NULL), 0);
    assert_int_equal(touch(p + 2 * PAGE), FAKEHYP_TOUCH_SIGBUS);
}

static void test_open_before_map_returns(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);

    for (size_t i = 0; i < PAGES; i++)
        p[i * PAGE] = (char)i;
    assert_int_equal(fakehyp_convert(f->gmem, 4 * PAGE, 2 * PAGE, FAKEHYP_PRIVATE, NULL), 0);
    assert_int_equal(p[3 * PAGE], 3);
    assert_int_equal(touch(p + 4 * PAGE), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(touch(p + 5 * PAGE), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(p[6 * PAGE], 6);
}

static bool refuse_view(struct daemon_client *client, const Fakehyp__Request *request)
{
    if (request->body_case != FAKEHYP__REQUEST__BODY_VIEW_ADD)
        return false;
    daemon_reply(client, request, -ENOMEM, "too many views");
    return true;
}

static void test_refused_view_is_undone(void **state)
{
    struct fixture *f = *state;
    char *place = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *p;

    munmap(place, PAGES * PAGE);
    daemon_set_hook(&f->daemon, refuse_view, NULL);
    assert_int_equal(fakehyp_map(f->gmem, place, PAGES * PAGE, PROT_READ, 0, &p), -ENOMEM);
    assert_string_equal(fakehyp_last_error(), "too many views");
    assert_null(p);
    assert_int_equal(touch(place), FAKEHYP_TOUCH_SIGSEGV);
    assert_int_equal(f->daemon.nr_removed, 0);
}

static void test_partial_unmap_splits(void **state)
{
    struct fixture *f = *state;
    struct fake_daemon *d = &f->daemon;
    char *p = map_all(f);

    /* The middle, then the head, then across both rests. */
    assert_int_equal(fakehyp_unmap(f->fh, p + 4 * PAGE, 4 * PAGE), 0);
    assert_int_equal(d->nr_removed, 1);
    assert_int_equal(d->removed[0].addr, (uintptr_t)p + 4 * PAGE);
    assert_int_equal(d->removed[0].length, 4 * PAGE);
    assert_int_equal(touch(p + 4 * PAGE), FAKEHYP_TOUCH_SIGSEGV);
    assert_int_equal(touch(p + 3 * PAGE), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(touch(p + 8 * PAGE), FAKEHYP_TOUCH_SIGBUS);

    /* The rest after the hole still belongs to its own offset in the file. */
    assert_int_equal(daemon_agent_register(d->client[0], fakehyp_gmem_id(f->gmem), false, 9 * PAGE, PAGE), 0);
    assert_int_equal(touch(p + 9 * PAGE), FAKEHYP_TOUCH_OK);
    assert_int_equal(touch(p + 10 * PAGE), FAKEHYP_TOUCH_SIGBUS);

    assert_int_equal(fakehyp_unmap(f->fh, p, PAGE), 0);
    assert_int_equal(touch(p), FAKEHYP_TOUCH_SIGSEGV);
    assert_int_equal(daemon_agent_register(d->client[0], fakehyp_gmem_id(f->gmem), false, PAGE, PAGE), 0);
    assert_int_equal(touch(p + PAGE), FAKEHYP_TOUCH_OK);

    assert_int_equal(fakehyp_unmap(f->fh, p + 3 * PAGE, 6 * PAGE), 0);
    assert_int_equal(d->nr_removed, 4);
    assert_int_equal(d->removed[2].length, PAGE);
    assert_int_equal(d->removed[3].addr, (uintptr_t)p + 8 * PAGE);
    assert_int_equal(fakehyp_unmap(f->fh, p, PAGES * PAGE), 0);
    assert_int_equal(fakehyp_unmap(f->fh, p, PAGES * PAGE), 0);
    assert_int_equal(d->nr_removed, 6);
}

static void test_remap(void **state)
{
    struct fixture *f = *state;
    void *p, *q;

    assert_int_equal(fakehyp_map(f->gmem, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, 4 * PAGE, &p), 0);
    ((char *)p)[PAGE] = 'a';
    assert_int_equal(fakehyp_remap(f->fh, p, 3 * PAGE, 8 * PAGE, &q), -EFAULT);
    assert_int_equal(fakehyp_remap(f->fh, p, 4 * PAGE, 8 * PAGE, &q), 0);
    assert_int_equal(((char *)q)[PAGE], 'a');
    ((char *)q)[7 * PAGE] = 'b';
    assert_int_equal(touch(p), FAKEHYP_TOUCH_SIGSEGV);
    assert_int_equal(fakehyp_remap(f->fh, q, 8 * PAGE, 2 * PAGE, &p), 0);
    assert_ptr_equal(p, q);
    assert_int_equal(touch((char *)q + 2 * PAGE), FAKEHYP_TOUCH_SIGSEGV);
    assert_int_equal(touch((char *)q + PAGE), FAKEHYP_TOUCH_OK);
    assert_int_equal(fakehyp_convert(f->gmem, 5 * PAGE, PAGE, FAKEHYP_PRIVATE, NULL), 0);
    assert_int_equal(touch((char *)q + PAGE), FAKEHYP_TOUCH_SIGBUS);
}

static void test_view_outlives_handle(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);
    uint64_t id = fakehyp_gmem_id(f->gmem);

    fakehyp_gmem_close(f->gmem);
    assert_int_equal(f->daemon.nr_closed_gmems, 1);
    assert_int_equal(touch(p), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(daemon_agent_register(f->daemon.client[0], id, false, 0, PAGE), 0);
    assert_int_equal(touch(p), FAKEHYP_TOUCH_OK);
}

static void test_two_views_of_one_range(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);
    void *q;

    assert_int_equal(fakehyp_map(f->gmem, NULL, 2 * PAGE, PROT_READ | PROT_WRITE, 3 * PAGE, &q), 0);
    assert_int_equal(daemon_agent_register(f->daemon.client[0], fakehyp_gmem_id(f->gmem), false, 4 * PAGE, PAGE), 0);
    p[4 * PAGE] = 'z';
    assert_int_equal(((char *)q)[PAGE], 'z');
    assert_int_equal(touch(q), FAKEHYP_TOUCH_SIGBUS);
}

static void test_foreign_mapping_is_left_alone(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);
    uint64_t id = fakehyp_gmem_id(f->gmem);

    /* The program maps memory of its own over a part of the view. */
    assert_ptr_equal(
        mmap(p + 4 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
        p + 4 * PAGE);
    munmap(p + 8 * PAGE, PAGE);
    assert_int_equal(daemon_agent_register(f->daemon.client[0], id, false, 0, PAGES * PAGE), 0);
    assert_int_equal(touch(p + 3 * PAGE), FAKEHYP_TOUCH_OK);
    assert_int_equal(daemon_agent_register(f->daemon.client[0], id, true, 0, PAGES * PAGE), 0);
    p[5 * PAGE] = 'm';
    assert_int_equal(p[4 * PAGE], 0);
    assert_int_equal(touch(p + 6 * PAGE), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(touch(p + 9 * PAGE), FAKEHYP_TOUCH_SIGBUS);
}

static int child_of_fork(struct fixture *f, char *p)
{
    void *q;

    if (touch(p) != FAKEHYP_TOUCH_SIGSEGV || touch(p + (PAGES - 1) * PAGE) != FAKEHYP_TOUCH_SIGSEGV)
        return 1;
    /* Nothing of the child's own may turn up under the old pointers. */
    for (int i = 0; i < 50; i++) {
        char *other = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (other >= p && other < p + PAGES * PAGE)
            return 2;
    }
    if (fakehyp_unmap(f->fh, p, PAGES * PAGE) != -EIO || fakehyp_remap(f->fh, p, PAGES * PAGE, PAGE, &q) != -EIO)
        return 3;
    fakehyp_disconnect(f->fh);
    return 0;
}

static void test_fork(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);
    int status;

    p[0] = 'p';
    pid_t pid = fork();
    if (pid == 0)
        _exit(child_of_fork(f, p));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    /* The child's end took nothing from the parent. */
    assert_int_equal(p[0], 'p');
    assert_int_equal(fakehyp_convert(f->gmem, 0, PAGE, FAKEHYP_PRIVATE, NULL), 0);
    assert_int_equal(touch(p), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(fakehyp_unmap(f->fh, p, PAGES * PAGE), 0);
}

static void test_query_address(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f), *json;

    assert_int_equal(fakehyp_query_address(f->fh, p + 3 * PAGE + 5, &json), 0);
    free(json);
    assert_int_equal(fakehyp_query_address(f->fh, &json, &json), -EFAULT);
    assert_null(json);
}

static bool place_is_taken(struct daemon_client *client, const Fakehyp__Request *request)
{
    if (request->body_case != FAKEHYP__REQUEST__BODY_VIEW_REMOVE)
        return false;
    void *place = (void *)(uintptr_t)request->view_remove->addr;
    void *p = mmap(place, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    *(int *)client->daemon->hook_arg = p == MAP_FAILED ? errno : 0;
    if (p != MAP_FAILED)
        munmap(p, PAGE);
    return false;
}

/* Otherwise another thread's view could come there first, and the daemon would forget that one. */
static void test_place_is_kept_until_daemon_knows(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);
    int err = 0;

    daemon_set_hook(&f->daemon, place_is_taken, &err);
    assert_int_equal(fakehyp_unmap(f->fh, p, PAGES * PAGE), 0);
    assert_int_equal(err, EEXIST);
    daemon_set_hook(&f->daemon, NULL, NULL);
    assert_ptr_equal(mmap(p, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), p);
    munmap(p, PAGE);
}

static bool whose_page(struct daemon_client *client, const Fakehyp__Request *request)
{
    if (request->body_case == FAKEHYP__REQUEST__BODY_QUERY)
        *(uint64_t *)client->daemon->hook_arg = request->query->gmem;
    return false;
}

/* A view that the program unmapped by itself is forgotten when the next one comes to its place; the daemon knows by
 * that one. */
static void test_new_view_in_place_of_unmapped(void **state)
{
    struct fixture *f = *state;
    struct fakehyp_gmem *other;
    char *p = map_all(f), *json;
    uint64_t asked = 0;
    void *q;

    assert_int_equal(fakehyp_gmem_create(f->vm, PAGES * PAGE, FAKEHYP_GMEM_MMAP, &other), 0);
    munmap(p, PAGES * PAGE);
    assert_int_equal(fakehyp_map(other, p, PAGES * PAGE, PROT_READ, 0, &q), 0);
    assert_int_equal(f->daemon.nr_removed, 0);
    daemon_set_hook(&f->daemon, whose_page, &asked);
    assert_int_equal(fakehyp_query_address(f->fh, p, &json), 0);
    assert_int_equal(asked, fakehyp_gmem_id(other));
    free(json);
    assert_int_equal(fakehyp_unmap(f->fh, p, PAGES * PAGE), 0);
    assert_int_equal(fakehyp_query_address(f->fh, p, &json), -EFAULT);
}

static void test_unmap_after_death(void **state)
{
    struct fixture *f = *state;
    char *p = map_all(f);

    p[0] = 1;
    daemon_die(&f->daemon);
    assert_int_equal(fakehyp_unmap(f->fh, p, PAGES * PAGE), 0);
    assert_int_equal(touch(p), FAKEHYP_TOUCH_SIGSEGV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_arguments, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_unmappable, setup_unmappable, teardown),
        cmocka_unit_test_setup_teardown(test_private_page_raises_sigbus, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_conversion_reaches_view, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_open_before_map_returns, setup_shared, teardown),
        cmocka_unit_test_setup_teardown(test_refused_view_is_undone, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_partial_unmap_splits, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_remap, setup_shared, teardown),
        cmocka_unit_test_setup_teardown(test_view_outlives_handle, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_two_views_of_one_range, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_mapping_is_left_alone, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_fork, setup_shared, teardown),
        cmocka_unit_test_setup_teardown(test_query_address, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_place_is_kept_until_daemon_knows, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_new_view_in_place_of_unmapped, setup_private, teardown),
        cmocka_unit_test_setup_teardown(test_unmap_after_death, setup_shared, teardown),
    };

    return cmocka_run_group_tests_name("client views", tests, NULL, NULL);
}
