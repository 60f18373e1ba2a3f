/* SPDX-License-Identifier: BSD-2-Clause */
/* A VM with one guest_memfd, shared at first, and a view of all of it. */
#ifndef TESTS_COMMON_LIVE_FILE_H
#define TESTS_COMMON_LIVE_FILE_H

#include "tests/common/live_puppet.h"

struct file {
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    uint64_t bytes;
    uint8_t *view;
};

/* state is cmocka's: a connection. */
void file_open(struct file *f, void **state, uint64_t bytes);
/* Audits first. */
void file_close(struct file *f);
uint8_t *file_map(struct file *f, void *hint, uint64_t length, uint64_t offset);
int file_convert(struct file *f, uint64_t page, uint64_t nr, uint64_t attributes);

#endif
