/* SPDX-License-Identifier: BSD-2-Clause */
/* Scripts of scenarios, played in simulation: whatever one says, the runner has an answer and lives. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/scenario/scenario.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    char path[32], *paths[] = {path};

    /* A storm goes on for as long as it is told to. */
    if (memmem(data, size, "storm", 5))
        return 0;
    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    int fd = memfd_create("script.lua", MFD_CLOEXEC);
    FUZZ_CHECK(nowhere && fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int status = sc_run(&(struct sc_options){.paths = paths,
                                             .nr_paths = 1,
                                             .format = size % 2 ? SC_FORMAT_JSON : SC_FORMAT_MATRIX,
                                             .out = nowhere,
                                             .err = nowhere,
                                             .in = nowhere});
    FUZZ_CHECK(status >= 0 && status <= 2);
    close(fd);
    return 0;
}
