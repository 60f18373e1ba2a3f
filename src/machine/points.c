/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/machine/points.h"

#include <stdio.h>
#include <string.h>

#define ENTRY(label, meaning) {label, meaning},
const struct sched_point_info sched_points[NR_SCHED_POINTS] = {SCHED_POINTS(ENTRY)};
#undef ENTRY

int sched_point_find(const char *label)
{
    for (int i = 0; i < NR_SCHED_POINTS; i++)
        if (!strcmp(sched_points[i].label, label))
            return i;
    return -1;
}

void sched_point_unknown(const char *label, char *text, size_t size)
{
    int used = snprintf(text, size, "unknown schedule point \"%s\"; known are", label);

    for (int i = 0; i < NR_SCHED_POINTS && used >= 0 && (size_t)used < size; i++)
        used += snprintf(text + used, size - (size_t)used, "%s %s", i ? "," : "", sched_points[i].label);
}
