/* SPDX-License-Identifier: BSD-2-Clause */
/* The demo's voice, and its book-keeping: what was shown, and whether it was as it should be. */
#ifndef SRC_DEMO_NARRATE_H
#define SRC_DEMO_NARRATE_H

#include <stdbool.h>

enum voice { VOICE_STAGE, VOICE_VMM, VOICE_GUEST, VOICE_EL1, VOICE_EL2 };

void chapter(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say(enum voice voice, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Another program's output, indented. */
void quote(const char *text);

/* Records one line of the final table; returns ok. */
bool shown(bool ok, const char *what, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Prints the table; true when every line is as expected. */
bool summary(void);

#endif
