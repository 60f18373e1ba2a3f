# SPDX-License-Identifier: BSD-2-Clause
#
# FAKEHYP_ENABLE_COVERAGE
#
# --enable-coverage compiles for gcov, without optimisation: `make coverage`
# runs the tests and tells what they reached.  Sets COVERAGE_CFLAGS,
# COVERAGE_LDFLAGS, LCOV, GCOV and the conditional HAVE_COVERAGE.
AC_DEFUN([FAKEHYP_ENABLE_COVERAGE], [
    AC_ARG_ENABLE([coverage],
        [AS_HELP_STRING([--enable-coverage], [compile for gcov: make coverage prints what the tests reach])],
        [], [enable_coverage=no])
    COVERAGE_CFLAGS=
    COVERAGE_LDFLAGS=
    AS_IF([test "x$enable_coverage" = xyes],
        [AC_CHECK_PROGS([LCOV], [lcov])
         AS_IF([test -z "$LCOV"], [AC_MSG_ERROR([lcov is missing (Debian: lcov)])])
         # Optimised code has no lines; CFLAGS of the user's own stay.  Threads count too: atomic.
         AS_IF([test -z "$ac_test_CFLAGS"], [CFLAGS="-g -O0"])
         COVERAGE_CFLAGS="--coverage -fprofile-update=atomic"
         COVERAGE_LDFLAGS=--coverage])
    AC_SUBST([COVERAGE_CFLAGS])
    AC_SUBST([COVERAGE_LDFLAGS])
    AM_CONDITIONAL([HAVE_COVERAGE], [test "x$enable_coverage" = xyes])
])
