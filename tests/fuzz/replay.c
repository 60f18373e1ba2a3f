/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main() of a fuzz target where there is no libFuzzer: plays the files that
 * it is given, or the target's corpus, and tells of each in TAP.  An input that
 * is wrong ends the process; the last line then says which it was.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define LONGEST_INPUT (1u << 20)

static int is_input(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* A buffer of just the size, so that a read beyond the end is found. */
static uint8_t *read_input(const char *path, size_t *size)
{
    static uint8_t buffer[LONGEST_INPUT];
    FILE *f = fopen(path, "re");

    if (!f)
        return NULL;
    *size = fread(buffer, 1, sizeof(buffer), f);
    uint8_t *data = ferror(f) || !feof(f) ? NULL : malloc(*size + !*size);
    fclose(f);
    return data ? memcpy(data, buffer, *size) : NULL;
}

static int play(int number, const char *path)
{
    const char *name = strrchr(path, '/');
    size_t size;
    uint8_t *data = read_input(path, &size);

    printf("# plays %s\n", path);
    fflush(stdout);
    int rc = data ? LLVMFuzzerTestOneInput(data, size) : -1;
    free(data);
    printf("%s %d - %s\n", rc ? "not ok" : "ok", number, name ? name + 1 : path);
    return rc;
}

static int play_corpus(const char *dir)
{
    struct dirent **entries;
    int nr = scandir(dir, &entries, is_input, alphasort), failed = 0;

    if (nr <= 0) {
        printf("Bail out! %s: %s\n", dir, nr ? strerror(errno) : "no input");
        return EXIT_FAILURE;
    }
    printf("1..%d\n", nr);
    for (int i = 0; i < nr; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/%.255s", dir, entries[i]->d_name);
        failed |= play(i + 1, path);
        free(entries[i]);
    }
    free(entries);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/'), *srcdir = getenv("srcdir");
    char dir[PATH_MAX - NAME_MAX - 2];
    int failed = 0;

    if (fuzz_not_here) {
        printf("1..0 # SKIP %s\n", fuzz_not_here);
        return EXIT_SUCCESS;
    }
    if (argc == 1) {
        snprintf(dir, sizeof(dir), "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".", name ? name + 1 : argv[0]);
        return play_corpus(dir);
    }
    printf("1..%d\n", argc - 1);
    for (int i = 1; i < argc; i++)
        failed |= play(i, argv[i]);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
