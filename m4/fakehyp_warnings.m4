# SPDX-License-Identifier: BSD-2-Clause
#
# FAKEHYP_WARNINGS
#
# Sets WARN_CFLAGS to the project's warnings as far as the compiler knows them;
# --enable-werror makes them errors.  A release must build with compilers that
# warn about more than ours does, therefore it is off by default.
AC_DEFUN([FAKEHYP_WARNINGS], [
    AC_ARG_ENABLE([werror],
        [AS_HELP_STRING([--enable-werror], [treat compiler warnings as errors])],
        [], [enable_werror=no])
    WARN_CFLAGS=
    for fakehyp_flag in -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
                        -Wpointer-arith -Wvla -Wno-unused-parameter; do
        AC_MSG_CHECKING([whether $CC knows $fakehyp_flag])
        fakehyp_save_CFLAGS=$CFLAGS
        CFLAGS="$CFLAGS -Werror $fakehyp_flag"
        AC_COMPILE_IFELSE([AC_LANG_PROGRAM],
            [AC_MSG_RESULT([yes])
             AS_VAR_APPEND([WARN_CFLAGS], [" $fakehyp_flag"])],
            [AC_MSG_RESULT([no])])
        CFLAGS=$fakehyp_save_CFLAGS
    done
    AS_IF([test "x$enable_werror" = xyes], [AS_VAR_APPEND([WARN_CFLAGS], [" -Werror"])])
    AC_SUBST([WARN_CFLAGS])
])
