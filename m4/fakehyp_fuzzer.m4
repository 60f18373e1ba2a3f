# SPDX-License-Identifier: BSD-2-Clause
#
# FAKEHYP_FUZZER_COMPILER, before AC_PROG_CC: libFuzzer is clang's.
# FAKEHYP_WITH_FUZZER, before FAKEHYP_WITH_SANITIZER.
#
# --with-fuzzer instruments everything for libFuzzer and makes the programs of
# tests/fuzz/ fuzzers.  ASan and UBSan watch, unless --with-sanitizer says
# otherwise.  Sets FUZZER_CFLAGS, FUZZER_LIBS and the conditional HAVE_FUZZER.
AC_DEFUN([FAKEHYP_FUZZER_COMPILER], [
    AC_ARG_WITH([fuzzer],
        [AS_HELP_STRING([--with-fuzzer],
            [build the programs of tests/fuzz/ with libFuzzer, ASan and UBSan (needs clang)])],
        [], [with_fuzzer=no])
    AS_IF([test "x$with_fuzzer" != xno], [AC_CHECK_PROGS([CC], [clang clang-19 clang-16 clang-14])])
])

AC_DEFUN([FAKEHYP_WITH_FUZZER], [
    FUZZER_CFLAGS=
    FUZZER_LIBS=
    AS_IF([test "x$with_fuzzer" != xno],
        [AC_MSG_CHECKING([whether $CC has libFuzzer])
         fakehyp_save_CFLAGS=$CFLAGS
         CFLAGS="$CFLAGS -fsanitize=fuzzer"
         AC_LINK_IFELSE([AC_LANG_SOURCE([
            int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long size);
            int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long size) { return 0; }])],
             [AC_MSG_RESULT([yes])],
             [AC_MSG_RESULT([no])
              AC_MSG_ERROR([--with-fuzzer needs clang with libFuzzer (Debian: clang, libclang-rt-14-dev): ./configure --with-fuzzer CC=clang])])
         CFLAGS=$fakehyp_save_CFLAGS
         FUZZER_CFLAGS=-fsanitize=fuzzer-no-link
         FUZZER_LIBS=-fsanitize=fuzzer
         AS_VAR_SET_IF([with_sanitizer], [], [with_sanitizer=address,undefined])])
    AC_SUBST([FUZZER_CFLAGS])
    AC_SUBST([FUZZER_LIBS])
    AM_CONDITIONAL([HAVE_FUZZER], [test "x$with_fuzzer" != xno])
])
