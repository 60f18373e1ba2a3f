/* SPDX-License-Identifier: BSD-2-Clause */
/* The tables of designs and mistakes that a VM can be given: names, and words for a wrong one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "src/host/variants.h"

static void every_name_is_found(void **state)
{
    char error[200];
    (void)state;
    for (int kind = 0; kind < VARIANT_KIND_COUNT; kind++) {
        const struct variant *v;
        for (unsigned id = 0; (v = variant_get((enum variant_kind)kind, id)); id++) {
            assert_int_equal(variant_find((enum variant_kind)kind, v->name, error, sizeof(error)), id);
            assert_true(strlen(v->doc) > 10);
            assert_int_equal(v->letter != NULL, kind == VARIANT_POLICY);
            assert_int_equal(v->where != NULL, kind == VARIANT_BUG);
            if (v->letter)
                assert_int_equal(variant_find((enum variant_kind)kind, v->letter, error, sizeof(error)), id);
        }
        assert_int_equal(variant_find((enum variant_kind)kind, "", error, sizeof(error)), 0);
        assert_int_equal(variant_find((enum variant_kind)kind, NULL, error, sizeof(error)), 0);
    }
}

static void a_wrong_name_is_told_what_there_is(void **state)
{
    char error[200], tiny[12];
    (void)state;
    assert_int_equal(variant_find(VARIANT_POLICY, "F", error, sizeof(error)), -EINVAL);
    assert_string_equal(error, "no policy \"F\" here; there is upstream, naive, safe-count, transient, exclusive");
    assert_int_equal(variant_find(VARIANT_TRACKER, "inod", error, sizeof(error)), -EINVAL);
    assert_string_equal(error, "no tracker \"inod\" here; there is inode, vm, folio, hyp");
    assert_int_equal(variant_find(VARIANT_HYP, "xen", tiny, sizeof(tiny)), -EINVAL);
    assert_string_equal(tiny, "no hypervis");
}

static void lists_of_bugs(void **state)
{
    char error[300], text[300];
    uint64_t mask;
    (void)state;
    assert_int_equal(variant_bugs("hyp-2021,d-no-refcheck", &mask, error, sizeof(error)), 0);
    assert_true(mask == (HOST_BUG(HYP_2021) | HOST_BUG(D_NO_REFCHECK)));
    assert_string_equal(variant_bug_names(mask, text, sizeof(text)), "d-no-refcheck,hyp-2021");
    assert_int_equal(variant_bugs("", &mask, error, sizeof(error)), 0);
    assert_true(mask == 0);
    assert_string_equal(variant_bug_names(0, text, sizeof(text)), "");
    assert_int_equal(variant_bugs("hyp-2021, typo", &mask, error, sizeof(error)), -EINVAL);
    assert_non_null(strstr(error, "no bug mode \"typo\" here"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_is_found),
        cmocka_unit_test(a_wrong_name_is_told_what_there_is),
        cmocka_unit_test(lists_of_bugs),
    };
    return cmocka_run_group_tests_name("host_variants", tests, NULL, NULL);
}
