# SPDX-License-Identifier: BSD-2-Clause
#
# FAKEHYP_WITH_SANITIZER
#
# --with-sanitizer=LIST, a comma-separated list as in -fsanitize=LIST.  Sets
# SANITIZER_CFLAGS and SANITIZER_LDFLAGS (empty without the option),
# NO_UNDEFINED (clang leaves a sanitizer's symbols in a shared library to the
# program) and with_sanitizer ("no" without it).  Stops when the compiler cannot link a
# program with that list: thread, for one, excludes address.
#
# Undefined behaviour is made fatal, or a test that runs into it would pass.
#
# ThreadSanitizer leaves a program 1.5 TiB of addresses, of which their
# randomization takes up to one: FIXED_ADDRESSES runs a program without it, so
# that a guest of 40 IPA bits has room.  It is empty where that is not allowed.
# NO_THREAD_SANITIZER is for code that knows no threads.
AC_DEFUN([FAKEHYP_WITH_SANITIZER], [
    AC_ARG_WITH([sanitizer],
        [AS_HELP_STRING([--with-sanitizer=LIST],
            [compile with -fsanitize=LIST, such as "address,undefined" or "thread"])],
        [], [: ${with_sanitizer=no}])
    SANITIZER_CFLAGS=
    SANITIZER_LDFLAGS=
    NO_UNDEFINED=-Wl,--no-undefined
    AS_CASE([$with_sanitizer],
        [no], [],
        [yes|''], [AC_MSG_ERROR([--with-sanitizer needs a list, such as --with-sanitizer=address,undefined])],
        [SANITIZER_CFLAGS="-fsanitize=$with_sanitizer -fno-sanitize-recover=all -fno-omit-frame-pointer"
         SANITIZER_LDFLAGS="-fsanitize=$with_sanitizer"
         NO_UNDEFINED=
         AC_MSG_CHECKING([whether $CC links with -fsanitize=$with_sanitizer])
         fakehyp_save_CFLAGS=$CFLAGS
         CFLAGS="$CFLAGS $SANITIZER_CFLAGS"
         AC_LINK_IFELSE([AC_LANG_PROGRAM],
             [AC_MSG_RESULT([yes])],
             [AC_MSG_RESULT([no])
              AC_MSG_ERROR([$CC cannot link with -fsanitize=$with_sanitizer; config.log tells why])])
         CFLAGS=$fakehyp_save_CFLAGS])
    FIXED_ADDRESSES=
    NO_THREAD_SANITIZER=
    AS_CASE([,$with_sanitizer,],
        [*,thread,*],
        [thread_sanitizer=yes
         NO_THREAD_SANITIZER=-fno-sanitize=thread
         AC_MSG_CHECKING([whether setarch -R works])
         AS_IF([setarch -R true 2>/dev/null],
             [FIXED_ADDRESSES="setarch -R"
              AC_MSG_RESULT([yes])],
             [AC_MSG_RESULT([no, guests of 40 IPA bits may lack room])])],
        [thread_sanitizer=no])
    AM_CONDITIONAL([THREAD_SANITIZER], [test "$thread_sanitizer" = yes])
    AC_SUBST([FIXED_ADDRESSES])
    AC_SUBST([NO_THREAD_SANITIZER])
    AC_SUBST([SANITIZER_CFLAGS])
    AC_SUBST([SANITIZER_LDFLAGS])
    AC_SUBST([NO_UNDEFINED])
])
