/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/scenario/recording.h"

#include <sys/mman.h>
#include <unistd.h>

FILE *recording_new(void)
{
    int fd = memfd_create("fakehyp-trace", MFD_CLOEXEC);
    FILE *f = fd >= 0 ? fdopen(fd, "w+") : NULL;

    if (!f && fd >= 0)
        close(fd);
    return f;
}

void recording_end(FILE *recording, FILE *to)
{
    char buf[65536];
    size_t n;

    if (!recording)
        return;
    rewind(recording);
    while (to && (n = fread(buf, 1, sizeof(buf), recording)) > 0)
        fwrite(buf, 1, n, to);
    fclose(recording);
}
