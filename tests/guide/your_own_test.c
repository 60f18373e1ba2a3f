/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fakehyp/cmocka.h>

static void test_pin_delays_conversion(void **state)
{
    struct fakehyp_cmocka *f = *state;
    uint8_t *page = f->base + 3 * FAKEHYP_PAGE_SIZE;
    struct fakehyp_pin *pin;

    page[0] = 42;
    assert_int_equal(fakehyp_pin(f->gmem, 3 * FAKEHYP_PAGE_SIZE, FAKEHYP_PAGE_SIZE, FAKEHYP_FOLL_PIN, "disk0", &pin),
                     0);
    assert_busy_names(f->gmem, 0, f->size, "disk0");
    assert_shared(page);
    assert_int_equal(fakehyp_unpin(pin), 0);
    assert_converts(f->gmem, 0, f->size, FAKEHYP_PRIVATE);
    assert_private(page);
    assert_converts(f->gmem, 0, f->size, FAKEHYP_SHARED);
    assert_int_equal(page[0], 42); /* converted in place: what was stored is still there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pin_delays_conversion, fakehyp_cmocka_setup, fakehyp_cmocka_teardown)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
