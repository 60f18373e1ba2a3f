/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the scene share. */
#ifndef TESTS_COMMON_LIVE_SCENE_VMM_H
#define TESTS_COMMON_LIVE_SCENE_VMM_H

#include "tests/common/live_scene.h"

#define SCENE_SECRET UINT64_C(0x5ec2e75a00000000)
#define SCENE_SECRETS 4u /* the first pages of either file are never shared */

/* Pages of the two files; the second is large enough for ranges that are opened and not populated. */
extern const uint64_t scene_pages[2];

void scene_fail(struct scene_shared *sh, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Sends the descriptors of both files over reader_sock. */
_Noreturn void scene_vmm_main(struct scene_shared *sh, const struct scene_op *op, int sock, int reader_sock);

#endif
