/* SPDX-License-Identifier: BSD-2-Clause */
/* What the daemon keeps: for a large VM, and for each page of a guest. */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOUCH_LONG 4096 /* pages: memory comes in pieces */
#define TRACE_EVENTS 65536

extern char **environ;

/* ---- a daemon with that much emulated RAM ----------------------------------------------------------------------- */

struct server {
    pid_t pid;
    char socket[64];
    struct fakehyp *fh;
};

static void server_start(struct server *server, const char *memory)
{
    const char *binary = getenv("FAKEHYP_DAEMON");
    char *argv[] = {(char *)"fakehypd",      (char *)"--socket",    server->socket,
                    (char *)"--memory",      (char *)memory,        (char *)"--log-level=warning",
                    (char *)"--notify-fd=3", (char *)"--terminate", NULL};
    posix_spawn_file_actions_t files;
    int ready[2];
    char byte;

    snprintf(server->socket, sizeof(server->socket), "@fakehyp-bench-%d", (int)getpid());
    if (pipe(ready))
        die("pipe");
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, ready[1], 3);
    posix_spawn_file_actions_addclosefrom_np(&files, 4);
    if (posix_spawnp(&server->pid, binary ? binary : "fakehypd", &files, NULL, argv, environ))
        die("FAKEHYP_DAEMON");
    posix_spawn_file_actions_destroy(&files);
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1 || fakehyp_connect(server->socket, &server->fh))
        die("a daemon");
    close(ready[0]);
}

static void server_stop(struct server *server)
{
    fakehyp_disconnect(server->fh);
    kill(server->pid, SIGTERM);
    waitpid(server->pid, NULL, 0);
}

/* What of its memory is state of the model: all but the guests' pages themselves.  Bytes. */
static double model_bytes(const struct server *server)
{
    char path[64], line[512];
    bool guest_page = false;
    unsigned long kib, total = 0;

    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)server->pid);
    FILE *f = fopen(path, "re");
    if (!f)
        die("smaps of the daemon");
    while (fgets(line, sizeof(line), f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            guest_page = strstr(line, "memfd:guest_memfd") != NULL;
        else if (!guest_page && sscanf(line, "Rss: %lu kB", &kib) == 1)
            total += kib;
    }
    fclose(f);
    return (double)total * 1024;
}

/* Its memory is its user's business only where the kernel lets a user look into a daemon that nobody may trace. */
static bool is_measurable(const char *name, const char *unit, double goal)
{
    struct server server;
    char path[64];

    server_start(&server, "16M");
    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)server.pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    else
        absent(name, unit, goal, "only root may read the daemon's smaps");
    server_stop(&server);
    return fd >= 0;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

static void large_vm(struct server *server, struct fakehyp_vm **vm, struct fakehyp_gmem **gmem)
{
    struct fakehyp_vcpu *vcpu;

    if (fakehyp_vm_create(server->fh, NULL, vm) || fakehyp_vcpu_create(*vm, 0, &vcpu) ||
        fakehyp_gmem_create(*vm, 1024 * GIB, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, gmem) ||
        fakehyp_set_memory_region(*vm, 0, 0, 1023 * GIB, *gmem, 0) ||
        fakehyp_convert(*gmem, 0, 1023 * GIB, FAKEHYP_PRIVATE, NULL))
        die("a VM of 1 TiB");
}

/* All that grows with the size of memory: of the VM and of the machine that it would fit into. */
static void unpopulated(void)
{
    const char *name = "memory of a VM of 1 TiB, nothing populated";
    struct server server;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;

    if (!wanted(name) || !is_measurable(name, "MiB", 16))
        return;
    server_start(&server, "16M");
    double before = model_bytes(&server);
    server_stop(&server);
    server_start(&server, "1100G");
    large_vm(&server, &vm, &gmem);
    bounded(name, "MiB", (model_bytes(&server) - before) / (double)MIB, 16);
    server_stop(&server);
}

/* The trace's ring costs the same whatever happens: once it is full it does not look like growth. */
static void fill_trace(struct fakehyp_gmem *gmem)
{
    struct fakehyp_pin *pin;

    for (unsigned i = 0; i < TRACE_EVENTS; i += 2)
        if (fakehyp_pin(gmem, 1023 * GIB, PAGE, FAKEHYP_FOLL_PIN, "bench", &pin) || fakehyp_unpin(pin))
            die("pin");
}

static void donated(void)
{
    const char *name = "memory of a donated page";
    struct server server;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    struct bench_vm b;

    if (!wanted(name) || !is_measurable(name, "bytes", 44))
        return;
    struct lap *lap = lap_new(TOUCH_LONG);
    server_start(&server, "256G");
    large_vm(&server, &vm, &gmem);
    fill_trace(gmem);
    guest_start(&b, server.fh, lap);
    /* The first lap also pays for what a VM has once. */
    lap_next(lap);
    double before = model_bytes(&server);
    for (unsigned i = 1; i < PAIRS; i++)
        lap_next(lap);
    bounded(name, "bytes", (model_bytes(&server) - before) / ((PAIRS - 1) * TOUCH_LONG), 44);
    guest_stop(&b);
    server_stop(&server);
    lap_free(lap);
}

void memory_rows(void)
{
    unpopulated();
    donated();
}
