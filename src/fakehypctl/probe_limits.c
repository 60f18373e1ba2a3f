/* SPDX-License-Identifier: BSD-2-Clause */
/* Settings and limits of the system. */
#include "src/fakehypctl/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define THP_DIR "/sys/kernel/mm/transparent_hugepage/"
#define DEFAULT_MAX_MAP_COUNT 65530ul
#define ENOUGH_FILES 1024u
#define PIPE_WANTED (1 << 20)
#define BIG_VIEW (UINT64_C(1) << 40)

/* First line of a file without its newline; -errno. */
static int read_line(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "re");
    int err = 0;

    if (!f)
        return -errno;
    if (fgets(buf, (int)size, f))
        buf[strcspn(buf, "\n")] = '\0';
    else
        err = -EIO;
    fclose(f);
    return err;
}

int probe_choice(const char *line, char *buf, unsigned size)
{
    const char *begin = strchr(line, '['), *end = begin ? strchr(begin, ']') : NULL;
    size_t len;

    if (!end)
        return -EINVAL;
    len = (size_t)(end - begin - 1);
    if (!len || len >= size)
        return -EINVAL;
    memcpy(buf, begin + 1, len);
    buf[len] = '\0';
    return 0;
}

static int read_choice(const char *path, char *buf, size_t size)
{
    char line[128];
    int err = read_line(path, line, sizeof(line));

    return err ? err : probe_choice(line, buf, (unsigned)size);
}

void probe_max_map_count(struct probe_result *r, const struct probe_arg *arg)
{
    char line[32];
    unsigned long n;
    int err = read_line("/proc/sys/vm/max_map_count", line, sizeof(line));

    if (err) {
        probe_fail(r, "cannot be read: %s", strerror(-err));
        probe_remedy(r, "%smount -t proc proc /proc", probe_sudo());
        return;
    }
    n = strtoul(line, NULL, 10);
    /* A shared extent between private ones costs two areas. */
    if (n >= DEFAULT_MAX_MAP_COUNT) {
        probe_ok(r, "%lu: about %lu scattered shared extents a guest", n, n / 2 / 100 * 100);
        return;
    }
    probe_fail(r, "%lu: only about %lu scattered shared extents a guest", n, n / 2 / 100 * 100);
    probe_remedy(r, "%ssysctl -w vm.max_map_count=262144", probe_sudo());
}

/* Whether memfds get huge folios without having asked: splitting one that is held zeroes what is held. */
static int is_refused(const char *choice)
{
    return !strcmp(choice, "always") || !strcmp(choice, "force") || !strcmp(choice, "within_size");
}

void probe_shmem_enabled(struct probe_result *r, const struct probe_arg *arg)
{
    char choice[32], refused[128] = "";
    glob_t g;

    if (read_choice(THP_DIR "shmem_enabled", choice, sizeof(choice))) {
        probe_ok(r, "no transparent huge pages in this kernel");
        return;
    }
    if (is_refused(choice)) {
        probe_fail(r, "\"%s\": memfds get huge pages unasked", choice);
        probe_remedy(r, "echo advise | %stee " THP_DIR "shmem_enabled", probe_sudo());
        return;
    }
    /* Each size has a switch of its own beside the global one. */
    if (!glob(THP_DIR "hugepages-*/shmem_enabled", 0, NULL, &g)) {
        for (size_t i = 0; i < g.gl_pathc && !*refused; i++) {
            char size_choice[32];

            if (!read_choice(g.gl_pathv[i], size_choice, sizeof(size_choice)) && is_refused(size_choice))
                snprintf(refused, sizeof(refused), "%s", g.gl_pathv[i]);
        }
        globfree(&g);
    }
    if (!*refused) {
        probe_ok(r, "\"%s\"", choice);
        return;
    }
    probe_fail(r, "memfds get large folios unasked");
    probe_remedy(r, "echo advise | %stee %s", probe_sudo(), refused);
}

void probe_pipe_size(struct probe_result *r, const struct probe_arg *arg)
{
    int p[2], err;

    if (pipe2(p, O_CLOEXEC)) {
        probe_fail_errno(r, "pipe2");
        return;
    }
    if (fcntl(p[1], F_SETPIPE_SZ, PIPE_WANTED) >= PIPE_WANTED) {
        probe_ok(r, "a pipe of 1 MiB: 256 pages move at a time");
        return;
    }
    err = errno;
    probe_fail(r, "a pipe of 1 MiB is refused (%s): conversions move less at a time", strerror(err));
    probe_remedy(r, "%ssysctl -w fs.pipe-max-size=%d fs.pipe-user-pages-soft=16384", probe_sudo(), PIPE_WANTED);
}

void probe_nofile(struct probe_result *r, const struct probe_arg *arg)
{
    struct rlimit rl;

    if (getrlimit(RLIMIT_NOFILE, &rl)) {
        probe_fail_errno(r, "getrlimit");
        return;
    }
    if (rl.rlim_cur >= ENOUGH_FILES) {
        probe_ok(r, "%ju, at most %ju", (uintmax_t)rl.rlim_cur, (uintmax_t)rl.rlim_max);
        return;
    }
    probe_fail(r, "%ju, at most %ju: few VMs and clients at a time", (uintmax_t)rl.rlim_cur, (uintmax_t)rl.rlim_max);
    if (rl.rlim_max >= ENOUGH_FILES)
        probe_remedy(r, "ulimit -n %u", ENOUGH_FILES);
    else
        probe_remedy(r, "%sprlimit --nofile=%u --pid $$", probe_sudo(), ENOUGH_FILES);
}

void probe_overcommit(struct probe_result *r, const struct probe_arg *arg)
{
    int fd = memfd_create("fakehyp-doctor", MFD_CLOEXEC), err;
    char line[16] = "?";
    struct rlimit rl;
    void *view;

    if (fd < 0 || ftruncate(fd, (off_t)BIG_VIEW)) {
        probe_fail_errno(r, "a memfd of 1 TiB");
        return;
    }
    read_line("/proc/sys/vm/overcommit_memory", line, sizeof(line));
    view = mmap(NULL, BIG_VIEW, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    err = errno;
    if (view != MAP_FAILED) {
        probe_ok(r, "%s: 1 TiB of a memfd can be mapped", line);
        return;
    }
    probe_fail(r, "%s: mapping 1 TiB of a memfd: %s", line, strerror(err));
    if (!getrlimit(RLIMIT_AS, &rl) && rl.rlim_cur != RLIM_INFINITY)
        probe_remedy(r, "ulimit -v unlimited");
    else
        probe_remedy(r, "%ssysctl -w vm.overcommit_memory=0", probe_sudo());
}

void probe_thp(struct probe_result *r, const struct probe_arg *arg)
{
    char choice[32];

    if (read_choice(THP_DIR "enabled", choice, sizeof(choice)))
        probe_info(r, "none in this kernel");
    else
        probe_info(r, "\"%s\" for anonymous memory; views ask for none", choice);
}
