/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "src/fakehypd/background.h"
#include "src/fakehypd/client.h"
#include "src/fakehypd/listen.h"
#include "src/fakehypd/live_io.h"
#include "src/fakehypd/notify.h"
#include "src/fakehypd/points.h"
#include "src/fakehypd/report.h"
#include "src/kernel/kernel.h"

#define EXIT_USAGE 2
#define LONELY_MS 10000
#define MIN_FDS 32
#define STOP_MS 5000
#define LAST_SWITCHES 1000000

/* ---- ending ------------------------------------------------------------------------------------------------- */

static void on_hurry(void *arg)
{
    struct daemon *daemon = arg;

    daemon->hurry = NULL;
    log_warning("not everything could be cleaned up within %d s: ending nevertheless", STOP_MS / 1000);
    loop_stop(&daemon->loop);
}

void daemon_stop(struct daemon *daemon, const char *why)
{
    if (daemon->stopping)
        return;
    daemon->stopping = true;
    log_info("ending: %s", why);
    notify_service_manager("STOPPING=1");
    listener_close(daemon->listener);
    daemon->listener = NULL;
    alarm_free(daemon->lonely);
    daemon->lonely = NULL;
    /* What is held would not end. */
    points_close(daemon->points);
    for (struct client *client = daemon->clients; client; client = client->next)
        client_die(client, "fakehypd ends");
    if (daemon->clients)
        daemon->hurry = alarm_new(&daemon->loop, STOP_MS, on_hurry, daemon);
    else
        loop_stop(&daemon->loop);
}

void daemon_client_ready(struct daemon *daemon)
{
    daemon->nr_ready++;
    alarm_free(daemon->lonely);
    daemon->lonely = NULL;
}

void daemon_client_left(struct daemon *daemon, bool was_ready)
{
    daemon->nr_ready -= was_ready;
    if (daemon->stopping && !daemon->clients)
        loop_stop(&daemon->loop);
    else if (daemon->options.terminate && was_ready && !daemon->nr_ready)
        daemon_stop(daemon, "the last client has gone");
}

static void on_lonely(void *arg)
{
    struct daemon *daemon = arg;

    daemon->lonely = NULL;
    daemon_stop(daemon, "no client came");
}

static void on_signal(uv_signal_t *handle, int signum)
{
    daemon_stop(handle->data, strsignal(signum));
}

/* ---- beginning ---------------------------------------------------------------------------------------------- */

static int start_machine(struct daemon *daemon)
{
    struct machine_config config = {
        .stage = &live_stage_ops,
        .memory_bytes = daemon->options.memory,
        .oracle = daemon->options.oracle,
        .trace_file = daemon->loop.trace_file,
        .log = daemon->io.log,
        .log_ctx = daemon,
    };

    loop_sched_config(&daemon->loop, &config.sched);
    daemon->live = live_new(&daemon->io);
    if (!daemon->live)
        return -ENOMEM;
    config.stage_ctx = daemon->live;
    int rc = machine_new(&config, &daemon->machine);
    if (rc == -EINVAL) {
        log_error("--memory: %llu bytes cannot be emulated: 16M to 8T, in whole pages, can",
                  (unsigned long long)daemon->options.memory);
        return rc;
    }
    if (rc == 0) {
        daemon->loop.sched = machine_sched(daemon->machine);
        rc = live_start(daemon->live, daemon->machine);
    }
    if (rc)
        log_error("the machine could not be started: %s%s", strerrordesc_np(-rc), log_remedy(rc));
    return rc;
}

static int open_trace(struct daemon *daemon)
{
    const char *path = daemon->options.trace_file;

    if (!path)
        return 0;
    daemon->loop.trace_file = fopen(path, "we");
    if (daemon->loop.trace_file)
        return 0;
    log_error("--trace: %s: %s", path, strerror(errno));
    return -errno;
}

/* A descriptor for each client, guest, vCPU and file: the soft limit of 1024 is for programs that use select(2). */
static void raise_fd_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* libuv aborts where it gets none, and a daemon that starts with the last of them serves nobody. */
static int check_fd_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= MIN_FDS)
        return 0;
    log_error("the limit of descriptors is too low (ulimit -n): it is %llu, fakehypd takes %d and four for each client",
              (unsigned long long)limit.rlim_cur, MIN_FDS);
    return -EMFILE;
}

static void watch_signals(struct daemon *daemon)
{
    static const int signals[DAEMON_NR_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};

    for (size_t i = 0; i < DAEMON_NR_SIGNALS; i++) {
        uv_signal_init(&daemon->loop.uv, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
        uv_signal_start(&daemon->signals[i], on_signal, signals[i]);
    }
}

static int start(struct daemon *daemon)
{
    int rc = listener_open(&daemon->options, &daemon->listener);

    if (rc)
        return rc;
    /* libuv from 1.45 on may leave epoll_ctl() to an io_uring, whose work no filter of system calls sees. */
    setenv("UV_USE_IO_URING", "0", 1);
    rc = loop_init(&daemon->loop);
    if (rc) {
        log_error("event loop: %s%s", uv_strerror(rc), log_remedy(rc));
        return rc;
    }
    daemon->start_ns = uv_hrtime();
    live_io_init(daemon);
    rc = open_trace(daemon);
    if (rc == 0 && daemon->options.points_fd >= 0)
        rc = points_open(&daemon->loop, daemon->options.points_fd, &daemon->points);
    if (rc == 0)
        rc = start_machine(daemon);
    if (rc == 0)
        rc = listener_start(daemon->listener, daemon);
    if (rc == 0 && daemon->options.terminate) {
        daemon->lonely = alarm_new(&daemon->loop, LONELY_MS, on_lonely, daemon);
        rc = daemon->lonely ? 0 : -ENOMEM;
    }
    /* Who finds the pid file may send a signal at once. */
    if (rc == 0)
        watch_signals(daemon);
    if (rc == 0)
        rc = pidfile_write(&daemon->pidfile, daemon->options.pidfile);
    /* Last: what only the start needs is not on the list. */
    if (rc == 0)
        rc = sandbox_enter(daemon->options.seccomp);
    return rc;
}

static void run(struct daemon *daemon, int background)
{
    log_info("version %s listens at %s", FAKEHYP_VERSION, listener_name(daemon->listener));
    notify_fd(daemon->options.notify_fd);
    notify_service_manager("READY=1");
    background_ready(background, !daemon->options.log_file);
    loop_run(&daemon->loop);
    for (size_t i = 0; i < DAEMON_NR_SIGNALS; i++)
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
    alarm_free(daemon->hurry);
    daemon->hurry = NULL;
}

/* True when nothing is left over: only then the machine lets itself be freed. */
static bool is_clean(const struct daemon *daemon)
{
    struct host_counts counts;

    host_counts(machine_host(daemon->machine), &counts);
    return !daemon->clients && !counts.vms && !counts.gmems && sched_nr_tasks(daemon->loop.sched) == 0;
}

static int finish(struct daemon *daemon)
{
    /* Tasks that a client's end made runnable, such as those of its vCPUs and files, end by themselves. */
    sched_run(daemon->loop.sched, LAST_SWITCHES);
    if (!is_clean(daemon)) {
        log_warning("%zu tasks and some objects are left; the kernel takes them back",
                    sched_nr_tasks(daemon->loop.sched));
        trace_end(machine_trace(daemon->machine));
        return EXIT_FAILURE;
    }
    loop_close(&daemon->loop);
    machine_free(daemon->machine);
    live_free(daemon->live);
    points_free(daemon->points);
    if (daemon->loop.trace_file)
        fclose(daemon->loop.trace_file);
    return EXIT_SUCCESS;
}

static int run_daemon(struct daemon *daemon)
{
    int background = -1;

    if (daemon->options.daemonise) {
        /* The parent's end tells who waits; the socket may be that of the service whose private daemon this is. */
        unsetenv("NOTIFY_SOCKET");
        background = background_enter();
        if (background < 0)
            return EXIT_FAILURE;
    }
    /* Its descriptors are the guests' memory: not for other processes of this user, by /proc or ptrace. */
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGPIPE, SIG_IGN);
    raise_fd_limit();
    int rc = log_open(daemon->options.log_level, daemon->options.log_file);
    if (rc) {
        log_error("--log-file: %s: %s", daemon->options.log_file, strerrordesc_np(-rc));
        return EXIT_FAILURE;
    }
    if (kernel_mask_error()) {
        log_error("%s", kernel_mask_error());
        return EXIT_USAGE;
    }
    if (*kernel_hidden())
        log_info("hidden by FAKEHYP_MASK: %s", kernel_hidden());
    rc = check_fd_limit();
    if (rc == 0)
        rc = start(daemon);
    if (rc) {
        /* Whatever there was no memory for. */
        if (rc == -ENOMEM)
            log_error("could not start: %s%s", strerrordesc_np(-rc), log_remedy(rc));
        pidfile_remove(&daemon->pidfile);
        listener_close(daemon->listener);
        return rc == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    }
    run(daemon, background);
    int status = finish(daemon);
    pidfile_remove(&daemon->pidfile);
    return status;
}

int fakehypd_main(int argc, char **argv)
{
    struct daemon *daemon = calloc(1, sizeof(*daemon));
    int status;

    if (!daemon) {
        fputs("fakehypd: error: out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    switch (options_parse(argc, argv, &daemon->options, stdout, stderr)) {
    case OPTIONS_RUN:
        status = daemon->options.print_capabilities ? report_print_capabilities(stdout) : run_daemon(daemon);
        break;
    case OPTIONS_DONE:
        status = EXIT_SUCCESS;
        break;
    default:
        status = EXIT_USAGE;
        break;
    }
    free(daemon);
    return status;
}
