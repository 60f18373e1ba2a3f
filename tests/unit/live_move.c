/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The live stage without processes: this one plays a host process that has the
 * guest_memfd mapped, registered by hand as the client library would.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "src/live/live.h"

#define PAGE UINT64_C(4096)
#define HUGE (UINT64_C(2) << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static bool pread_fails;

ssize_t __real_pread(int fd, void *buf, size_t length, off_t offset);
ssize_t __wrap_pread(int fd, void *buf, size_t length, off_t offset);
ssize_t __wrap_pread(int fd, void *buf, size_t length, off_t offset)
{
    errno = EIO;
    return pread_fails ? -1 : __real_pread(fd, buf, length, offset);
}

/* A process that punches a hole into the file just before the stage touches its pages, so many times. */
static unsigned nr_punches;
static int punched_fd;

int __real_madvise(void *addr, size_t length, int advice);
int __wrap_madvise(void *addr, size_t length, int advice);
int __wrap_madvise(void *addr, size_t length, int advice)
{
    if (advice == MADV_POPULATE_READ && nr_punches) {
        nr_punches--;
        assert_int_equal(fallocate(punched_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * (off_t)PAGE, PAGE), 0);
    }
    return __real_madvise(addr, length, advice);
}

struct world {
    struct live *live;
    struct machine *machine;
    struct caller caller;
    struct vm *vm;
    struct gmem *gmem;
    uint64_t nr_pages;
    char *view;
    int uffd;
    unsigned calls;  /* requests to the agent */
    int call_result; /* what it answers */
    bool late;       /* it was asked to register late_range and did not answer in time */
    struct uffdio_range late_range;
    void (*body)(struct world *world);
    bool finished;
};

static int io_call(void *ctx, void *peer, Fakehyp__Request *request, const int *fds, unsigned nr_fds,
                   uint64_t timeout_ns, char *message, size_t size)
{
    struct world *w = ctx;
    assert_ptr_equal(peer, w);
    assert_int_equal(request->body_case, FAKEHYP__REQUEST__BODY_AGENT_REGISTER);
    w->calls++;
    if (w->call_result == -ETIMEDOUT) {
        const Fakehyp__Range *r = request->agent_register->range[0];
        assert_true(request->agent_register->refuse);
        w->late = true;
        w->late_range = (struct uffdio_range){(uint64_t)(uintptr_t)w->view + r->offset, r->length};
    }
    if (w->call_result)
        return w->call_result;
    for (size_t i = 0; i < request->agent_register->n_range; i++) {
        const Fakehyp__Range *r = request->agent_register->range[i];
        struct uffdio_range range = {(uint64_t)(uintptr_t)w->view + r->offset, r->length};
        struct uffdio_register reg = {.range = range, .mode = UFFDIO_REGISTER_MODE_MISSING};
        if (request->agent_register->refuse)
            assert_int_equal(ioctl(w->uffd, UFFDIO_REGISTER, &reg), 0);
        else
            assert_int_equal(ioctl(w->uffd, UFFDIO_UNREGISTER, &range), 0);
    }
    (void)fds;
    (void)nr_fds;
    (void)timeout_ns;
    (void)message;
    (void)size;
    return 0;
}

static void io_log(void *ctx, int level, const char *text)
{
    (void)ctx;
    (void)level;
    print_message("# %s\n", text);
}

static void audit_report(void *ctx, const char *text)
{
    (void)ctx;
    print_error("audit: %s\n", text);
}

static void audit(struct world *w)
{
    struct live_audit counts;
    assert_int_equal(machine_audit(w->machine, audit_report, NULL, NULL), 0);
    assert_int_equal(live_audit(w->live, audit_report, NULL, &counts), 0);
}

static int convert(struct world *w, uint64_t page, uint64_t nr, bool to_private)
{
    const struct gmem_attributes2 attr = {
        .offset = page * PAGE, .size = nr * PAGE, .attributes = to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0};
    struct gmem_busy busy;
    int rc = gmem_set_attributes2(w->gmem, &attr, &w->caller, &busy);
    audit(w);
    return rc;
}

/* 0, or the errno of a system call that reads the page. */
static int probe(struct world *w, uint64_t page)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    int rc = write(fds[1], w->view + page * PAGE, 1) == 1 ? 0 : errno;
    close(fds[0]);
    close(fds[1]);
    return rc;
}

static void map_view(struct world *w)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM};
    size_t bytes = w->nr_pages * PAGE;
    w->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
    assert_true(w->uffd >= 0);
    assert_int_equal(ioctl(w->uffd, UFFDIO_API, &api), 0);
    /* As a huge page has to lie, for those that want to have some. */
    char *room = mmap(NULL, bytes + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(room, MAP_FAILED);
    char *aligned = (char *)(((uintptr_t)room + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
    w->view = mmap(aligned, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, live_file_fd(w->gmem), 0);
    assert_ptr_not_equal(w->view, MAP_FAILED);
    assert_int_equal(madvise(w->view, bytes, MADV_DONTFORK), 0);
    struct uffdio_register reg = {.range = {(uint64_t)(uintptr_t)w->view, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    assert_int_equal(ioctl(w->uffd, UFFDIO_REGISTER, &reg), 0);
    assert_int_equal(mprotect(w->view, bytes, PROT_READ | PROT_WRITE), 0);
    assert_int_equal(live_view_add(w->live, w->gmem, w, (uint32_t)getpid(), (uint64_t)(uintptr_t)w->view, bytes, 0), 0);
}

static void world_task(void *arg)
{
    struct world *w = arg;
    const struct vm_config config = {.name = "test", .is_protected = true};
    assert_int_equal(vm_create(machine_host(w->machine), &config, &w->vm, &w->caller), 0);
    assert_int_equal(gmem_create(w->vm, w->nr_pages * PAGE, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
                                 &w->gmem, &w->caller),
                     0);
    map_view(w);
    audit(w);
    w->body(w);
    munmap(w->view, w->nr_pages * PAGE);
    live_view_remove(w->live, w, (uint64_t)(uintptr_t)w->view, w->nr_pages * PAGE);
    close(w->uffd);
    assert_int_equal(vm_destroy(w->vm, &w->caller), 0);
    gmem_put(w->gmem);
    w->finished = true;
}

/* Not 0: each look at the clock takes so long, so that what lasts is a matter of counting. */
static uint64_t look_ns;

static uint64_t monotonic(void *ctx)
{
    static uint64_t counted;
    struct timespec now;
    (void)ctx;
    if (look_ns)
        return counted += look_ns;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void (*at_point)(const char *label);

static void on_point(void *ctx, struct task *task, const char *label)
{
    if (at_point)
        at_point(label);
}

static void run(void (*body)(struct world *), uint64_t nr_pages)
{
    struct world w = {.caller = {.pid = (uint32_t)getpid(), .program = "test"}, .nr_pages = nr_pages, .body = body};
    const struct live_io io = {.ctx = &w, .call = io_call, .log = io_log};
    struct host_counts counts;

    w.live = live_new(&io);
    assert_non_null(w.live);
    const struct machine_config config = {.stage = &live_stage_ops,
                                          .stage_ctx = w.live,
                                          .memory_bytes = UINT64_C(256) << 20,
                                          .sched = {.now = monotonic, .point = on_point}};
    assert_int_equal(machine_new(&config, &w.machine), 0);
    assert_int_equal(live_start(w.live, w.machine), 0);
    assert_non_null(task_spawn(machine_sched(w.machine), "world", world_task, &w));
    sched_run(machine_sched(w.machine), 0);
    assert_true(w.finished);
    host_counts(machine_host(w.machine), &counts);
    assert_int_equal(counts.ram_frames + counts.data_frames + counts.gmems, 0);
    assert_int_equal(live_nr_views(w.live, NULL), 0);
    machine_free(w.machine);
    live_free(w.live);
}

static void small_range(struct world *w)
{
    struct page_report page;
    strcpy(w->view + 3 * PAGE, "three");
    assert_int_equal(convert(w, 3, 1, true), 0);
    assert_int_equal(probe(w, 3), EFAULT);
    assert_int_equal(probe(w, 2), 0);
    /* The page that the process populated on its own is a folio of the model. */
    gmem_page_report(w->gmem, 3, &page);
    assert_true(page.allocated);
    assert_int_equal(convert(w, 3, 1, false), 0);
    assert_string_equal(w->view + 3 * PAGE, "three");
    assert_int_equal(w->calls, 0);
}

static void untouched_pages(struct world *w)
{
    assert_int_equal(convert(w, 0, w->nr_pages, true), 0);
    for (uint64_t i = 0; i < w->nr_pages; i++)
        assert_int_equal(probe(w, i), EFAULT);
    assert_int_equal(convert(w, 0, w->nr_pages, false), 0);
    for (uint64_t i = 0; i < w->nr_pages; i++)
        assert_int_equal(w->view[i * PAGE], 0);
}

static void large_range(struct world *w)
{
    /* Opened: nothing is allocated, and what is touched is found again. */
    assert_int_equal(w->calls, 1);
    for (uint64_t i = 0; i < w->nr_pages; i += 3)
        memcpy(w->view + i * PAGE, &i, sizeof(i));
    assert_int_equal(convert(w, 0, w->nr_pages, true), 0);
    for (uint64_t i = 0; i < w->nr_pages; i++)
        assert_int_equal(probe(w, i), EFAULT);
    assert_int_equal(convert(w, 0, w->nr_pages, false), 0);
    for (uint64_t i = 0; i < w->nr_pages; i++) {
        uint64_t found;
        memcpy(&found, w->view + i * PAGE, sizeof(found));
        assert_int_equal(found, i % 3 ? 0 : i);
    }
    /* One page in the middle of an open range. */
    assert_int_equal(convert(w, 700, 1, true), 0);
    assert_int_equal(probe(w, 700), EFAULT);
    assert_int_equal(probe(w, 699) + probe(w, 701), 0);
    assert_int_equal(convert(w, 700, 1, false), 0);
    assert_int_equal(probe(w, 700), 0);
}

static void punched(struct world *w)
{
    strcpy(w->view + PAGE, "gone");
    assert_int_equal(gmem_fallocate(w->gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE, &w->caller), 0);
    audit(w);
    assert_int_equal(probe(w, 1), 0);
    assert_int_equal(w->view[PAGE], 0);
    strcpy(w->view + PAGE, "private and gone");
    assert_int_equal(convert(w, 1, 1, true), 0);
    assert_int_equal(gmem_fallocate(w->gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE, &w->caller), 0);
    assert_int_equal(probe(w, 1), EFAULT);
    assert_int_equal(convert(w, 1, 1, false), 0);
    assert_int_equal(w->view[PAGE], 0);
}

static void held_by_a_pipe(struct world *w)
{
    /* A reference that the model does not know keeps the old page; the secret goes elsewhere. */
    char buf[16] = "";
    int fds[2];
    struct iovec iov = {.iov_base = w->view + PAGE, .iov_len = 8};
    strcpy(w->view + PAGE, "before");
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(vmsplice(fds[1], &iov, 1, 0), 8);
    assert_int_equal(convert(w, 1, 1, true), 0);
    struct mfile *file = machine_file(w->gmem);
    assert_int_equal(live_stage_ops.write(w->live, file, false, PAGE, "secret", 7), 0);
    assert_int_equal(read(fds[0], buf, 8), 8);
    assert_string_equal(buf, "before");
    close(fds[0]);
    close(fds[1]);
}

static void direct_map(struct world *w)
{
    char buf[8] = "";
    strcpy(w->view + PAGE, "seen");
    assert_int_equal(live_direct_map_load(w->live, w->gmem, PAGE, buf, 5), 0);
    assert_string_equal(buf, "seen");
    assert_int_equal(convert(w, 1, 1, true), 0);
    assert_int_equal(live_direct_map_load(w->live, w->gmem, PAGE, buf, 5), -EFAULT);
    /* A load that runs over into the private page faults too. */
    assert_int_equal(live_direct_map_load(w->live, w->gmem, PAGE - 4, buf, 8), -EFAULT);
    assert_int_equal(live_direct_map_load(w->live, w->gmem, 0, buf, 5), 0);
    assert_int_equal(live_direct_map_load(w->live, w->gmem, w->nr_pages * PAGE, buf, 1), -EINVAL);
}

static void stray_page(struct world *w)
{
    struct live_audit counts;
    assert_int_equal(convert(w, 2, 1, true), 0);
    /* A process without registration makes a page in the hole. */
    assert_int_equal(pwrite(live_file_fd(w->gmem), "stray", 5, 2 * PAGE), 5);
    assert_true(live_audit(w->live, audit_report, NULL, &counts) > 0);
    assert_int_equal(counts.strays, 1);
    assert_int_equal(probe(w, 2), EFAULT);
    audit(w);
}

static bool kernel_counts_cached_pages(int fd)
{
    const uint64_t range[2] = {0, PAGE};
    uint64_t counts[5];
    return !syscall(451, fd, range, counts, 0); /* cachestat(2) */
}

static void stray_allocation(struct world *w)
{
    struct live_audit counts;
    int fd = live_file_fd(w->gmem);
    assert_int_equal(convert(w, 2, 2, true), 0);
    /* No data yet, but its first touch would find no hole. */
    assert_int_equal(fallocate(fd, FALLOC_FL_KEEP_SIZE, 2 * PAGE, PAGE), 0);
    unsigned problems = live_audit(w->live, audit_report, NULL, &counts);
    assert_int_equal(problems, kernel_counts_cached_pages(fd));
    assert_int_equal(counts.strays, problems);
    assert_int_equal(probe(w, 2), EFAULT);
    audit(w);
}

/* Views that are in the table and not in the process were not looked at. */
static void audit_counts_what_it_saw(struct world *w)
{
    struct live_audit counts;
    assert_int_equal(live_audit(w->live, audit_report, NULL, &counts), 0);
    assert_int_equal(counts.views, 1);
    assert_int_equal(munmap(w->view, w->nr_pages * PAGE), 0);
    assert_int_equal(live_audit(w->live, audit_report, NULL, &counts), 0);
    assert_int_equal(counts.views, 0);
    live_view_remove(w->live, w, (uint64_t)(uintptr_t)w->view, w->nr_pages * PAGE);
    close(w->uffd);
    map_view(w);
}

/* Two views of a process cannot be in one place: where a new one is the old one has been unmapped. */
static void view_over_view(struct world *w)
{
    uint64_t addr = (uint64_t)(uintptr_t)w->view;
    uint32_t pid = (uint32_t)getpid();
    int other, elsewhere;

    assert_int_equal(live_view_add(w->live, w->gmem, &other, pid, addr + 4 * PAGE, 4 * PAGE, 4 * PAGE), 0);
    assert_int_equal(live_nr_views(w->live, w), 2);
    assert_int_equal(live_nr_views(w->live, &other), 1);
    assert_int_equal(live_view_add(w->live, w->gmem, &elsewhere, pid + 1, addr, 4 * PAGE, 0), 0);
    assert_int_equal(live_nr_views(w->live, NULL), 4);
    live_peer_gone(w->live, &elsewhere);
    assert_int_equal(live_view_add(w->live, w->gmem, w, pid, addr, w->nr_pages * PAGE, 0), 0);
    assert_int_equal(live_nr_views(w->live, NULL), 1);
}

/* ---- long work is done in slices ---- */

static bool witness_ends;
static unsigned witness_turns;

static void witness(void *arg)
{
    (void)arg;
    while (!witness_ends) {
        witness_turns++;
        sched_relax();
    }
}

/* 4 MiB at a time are too much: 5 ms, and more. */
static void assert_sliced(const struct world *w, const char *what)
{
    if (witness_turns < w->nr_pages / 1024)
        fail_msg("%s of %u pages: others had %u turns", what, (unsigned)w->nr_pages, witness_turns);
    witness_turns = 0;
}

/* A conversion looks for pages, and at their references, before it moves any. */
static unsigned turns_of_checks;

static void count_turns_of_checks(const char *label)
{
    if (!strcmp(label, "convert:unmapped"))
        turns_of_checks = witness_turns;
    else if (!strcmp(label, "convert:checked"))
        turns_of_checks = witness_turns - turns_of_checks;
}

/* A file of which nobody but us has a descriptor any more. */
static void release(struct world *w, bool touched, const char *what)
{
    struct gmem *gmem;

    assert_int_equal(
        gmem_create(w->vm, w->nr_pages * PAGE, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED, &gmem, &w->caller),
        0);
    int fd = dup(live_file_fd(gmem));
    assert_int_equal(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(w->nr_pages * PAGE)), 0);
    char *p = mmap(NULL, w->nr_pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    memset(p, 1, touched ? w->nr_pages * PAGE : 0);
    munmap(p, w->nr_pages * PAGE);
    witness_turns = 0;
    gmem_put(gmem);
    struct stat st;
    do {
        sched_relax();
        assert_int_equal(fstat(fd, &st), 0);
    } while (st.st_blocks && witness_turns < 100000);
    assert_int_equal(st.st_blocks, 0);
    assert_sliced(w, what);
    close(fd);
}

static void start_witness(struct world *w)
{
    witness_ends = false;
    assert_non_null(task_spawn(machine_sched(w->machine), "witness", witness, NULL));
    sched_relax();
    witness_turns = 0;
}

/* Many small parts, of which nobody knows how long one takes: they give way by the clock. */
static void others_run_by_the_clock(struct world *w)
{
    struct ref *pin;

    memset(w->view, 1, w->nr_pages * PAGE);
    assert_int_equal(gmem_pin(w->gmem, 0, w->nr_pages * PAGE, REF_FOLL_PIN, "all", &pin, &w->caller), 0);
    look_ns = 100000;
    start_witness(w);
    gmem_unpin(pin);
    assert_sliced(w, "unpin");
    assert_int_equal(machine_audit(w->machine, audit_report, NULL, NULL), 0);
    assert_sliced(w, "audit of the model");
    /* Every other page: as many runs of data as there are. */
    for (uint64_t i = 0; i < w->nr_pages; i += 2)
        assert_int_equal(gmem_fallocate(w->gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (int64_t)(i * PAGE),
                                        (int64_t)PAGE, &w->caller),
                         0);
    witness_turns = 0;
    const struct gmem_attributes2 attr = {0, w->nr_pages * PAGE, KVM_MEMORY_ATTRIBUTE_PRIVATE, 0};
    at_point = count_turns_of_checks;
    assert_int_equal(gmem_set_attributes2(w->gmem, &attr, &w->caller, &(struct gmem_busy){0}), 0);
    at_point = NULL;
    assert_sliced(w, "conversion of single pages");
    witness_turns = turns_of_checks;
    assert_sliced(w, "what a conversion of single pages looks at first");
    assert_int_equal(live_audit(w->live, audit_report, NULL, &(struct live_audit){.files = 0}), 0);
    assert_sliced(w, "audit of the files");
    witness_ends = true;
    look_ns = 0;
}

static void others_run(struct world *w)
{
    const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const int64_t bytes = (int64_t)(w->nr_pages * PAGE);

    start_witness(w);
    assert_int_equal(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 0, bytes, &w->caller), 0);
    assert_sliced(w, "allocation");
    memset(w->view, 1, w->nr_pages * PAGE);
    assert_int_equal(convert(w, 0, w->nr_pages, true), 0);
    assert_int_equal(convert(w, 0, w->nr_pages, false), 0);
    assert_sliced(w, "conversion");
    assert_int_equal(gmem_fallocate(w->gmem, punch, 0, bytes, &w->caller), 0);
    assert_sliced(w, "hole punch");
    release(w, true, "release");
    /* Which of these pages there are only a kernel tells that counts them. */
    if (kernel_counts_cached_pages(live_file_fd(w->gmem)))
        release(w, false, "release of what was allocated only");
    witness_ends = true;
}

/* ---- EL2 zeroes a page, not knowing on which side its bytes are ---- */

static void zero_page(struct world *w, uint64_t page)
{
    live_stage_ops.discard(w->live, machine_file(w->gmem), true, page, page + 1);
    live_stage_ops.discard(w->live, machine_file(w->gmem), false, page, page + 1);
}

static void zeroed_page(struct world *w)
{
    strcpy(w->view + 2 * PAGE, "shared");
    zero_page(w, 2);
    assert_int_equal(probe(w, 2), 0);
    assert_int_equal(w->view[2 * PAGE], 0);
    strcpy(w->view + 3 * PAGE, "private");
    assert_int_equal(convert(w, 3, 1, true), 0);
    zero_page(w, 3);
    assert_int_equal(probe(w, 3), EFAULT);
    audit(w);
    assert_int_equal(convert(w, 3, 1, false), 0);
    assert_int_equal(w->view[3 * PAGE], 0);
}

static struct {
    bool in_host, done; /* where the bytes of the conversion come from; it was in the midst of it */
} zeroing;

/* The first page has moved already, the last one has not. */
static void zero_in_the_middle(void *arg)
{
    struct world *w = arg;
    struct mfile *file = machine_file(w->gmem);
    uint64_t last = w->nr_pages - 1, first, past;

    while (live_stage_ops.populated(w->live, file, zeroing.in_host, 0, 1, &first, &past))
        sched_relax();
    zeroing.done = live_stage_ops.populated(w->live, file, zeroing.in_host, last, last + 1, &first, &past);
    zero_page(w, 0);
    zero_page(w, last);
}

static void convert_and_zero(struct world *w, bool to_private)
{
    zeroing.in_host = to_private;
    zeroing.done = false;
    assert_non_null(task_spawn(machine_sched(w->machine), "zero", zero_in_the_middle, w));
    assert_int_equal(convert(w, 0, w->nr_pages, to_private), 0);
    assert_true(zeroing.done);
    for (uint64_t i = 0; i < w->nr_pages; i++) {
        bool is_zeroed = i == 0 || i == w->nr_pages - 1;
        uint64_t found = ~i;
        assert_int_equal(
            live_stage_ops.read(w->live, machine_file(w->gmem), !to_private, i * PAGE, &found, sizeof(found)), 0);
        assert_int_equal(found, is_zeroed ? 0 : i + 1);
        assert_int_equal(probe(w, i), to_private ? EFAULT : 0);
    }
}

static void zeroed_under_way(struct world *w)
{
    for (uint64_t i = 1; i <= w->nr_pages; i++)
        memcpy(w->view + (i - 1) * PAGE, &i, sizeof(i));
    convert_and_zero(w, true);
    for (uint64_t i = 1; i <= w->nr_pages; i++)
        assert_int_equal(live_stage_ops.write(w->live, machine_file(w->gmem), false, (i - 1) * PAGE, &i, sizeof(i)), 0);
    convert_and_zero(w, false);
}

/* A hole that somebody punches at a bad moment, or at every one, is no reason for a conversion to fail. */
static void punched_under_way(struct world *w)
{
    const unsigned punches[] = {1, 1000};

    punched_fd = live_file_fd(w->gmem);
    for (unsigned i = 0; i < 2; i++) {
        strcpy(w->view + 2 * PAGE, "kept");
        live_stage_ops.discard(w->live, machine_file(w->gmem), true, 3, 4);
        nr_punches = punches[i];
        assert_int_equal(convert(w, 2, 3, true), 0);
        nr_punches = 0;
        assert_int_equal(probe(w, 2) & probe(w, 3) & probe(w, 4), EFAULT);
        assert_int_equal(convert(w, 2, 3, false), 0);
        assert_string_equal(w->view + 2 * PAGE, "kept");
        assert_int_equal(w->view[3 * PAGE], 0);
        audit(w);
    }
}

static void stray_is_no_data(struct world *w)
{
    /* What a stranger writes into the holes of private pages is not there when they are shared again. */
    strcpy(w->view + 3 * PAGE, "kept");
    assert_int_equal(convert(w, 2, 2, true), 0);
    assert_int_equal(pwrite(live_file_fd(w->gmem), "stray", 5, 2 * PAGE), 5);
    assert_int_equal(pwrite(live_file_fd(w->gmem), "stray", 5, 3 * PAGE), 5);
    assert_int_equal(convert(w, 2, 2, false), 0);
    assert_int_equal(w->view[2 * PAGE], 0);
    assert_string_equal(w->view + 3 * PAGE, "kept");
}

static void fill(struct world *w)
{
    for (uint64_t i = 0; i < w->nr_pages; i++)
        memcpy(w->view + i * PAGE, &i, sizeof(i));
}

/* Each page has what fill() stored, on whichever side it is. */
static void check_filled(struct world *w)
{
    for (uint64_t i = 0; i < w->nr_pages; i++) {
        uint64_t found = ~i;
        assert_int_equal(live_stage_ops.read(w->live, machine_file(w->gmem), !gmem_is_private(w->gmem, i), i * PAGE,
                                             &found, sizeof(found)),
                         0);
        assert_int_equal(found, i);
    }
}

/* A program makes a huge folio of its view: false where the kernel cannot. */
static bool collapse(struct world *w, uint64_t page)
{
    if (madvise(w->view + page * PAGE, HUGE, MADV_COLLAPSE) == 0)
        return true;
    assert_true(errno == EINVAL || errno == ENOSYS);
    print_message("# MADV_COLLAPSE: %s: only small folios are tried\n", strerror(errno));
    return false;
}

static void collapsed_view(struct world *w)
{
    fill(w);
    if (!collapse(w, 0) || !collapse(w, 512))
        return;
    /* One page of the first, then all: what the kernel left of the folio has pieces of several sizes. */
    assert_int_equal(convert(w, 5, 1, true), 0);
    assert_int_equal(probe(w, 5), EFAULT);
    assert_int_equal(probe(w, 4) + probe(w, 6), 0);
    check_filled(w);
    assert_int_equal(convert(w, 100, 700, true), 0);
    check_filled(w);
    assert_int_equal(convert(w, 0, w->nr_pages, true), 0);
    check_filled(w);
    assert_int_equal(convert(w, 0, w->nr_pages, false), 0);
    check_filled(w);
    /* And once more, when it is known that there are such folios. */
    assert_true(collapse(w, 0));
    assert_int_equal(convert(w, 0, w->nr_pages, true), 0);
    check_filled(w);
}

/* The huge folio begins in the midst of what would move in one step. */
static void partly_collapsed_view(struct world *w)
{
    fill(w);
    if (!collapse(w, 512))
        return;
    assert_int_equal(convert(w, 300, 700, true), 0);
    check_filled(w);
    assert_int_equal(convert(w, 300, 700, false), 0);
    check_filled(w);
}

/* What a step could not copy is lost, and must not be what an earlier one copied: that may be another VM's. */
static void copy_fails(struct world *w)
{
    uint64_t found;

    fill(w);
    if (!collapse(w, 512))
        return;
    assert_int_equal(convert(w, 3, 1, true), 0);
    pread_fails = true;
    assert_int_equal(convert(w, 600, 1, true), 0);
    pread_fails = false;
    assert_int_equal(live_stage_ops.read(w->live, machine_file(w->gmem), false, 600 * PAGE, &found, sizeof(found)), 0);
    assert_int_equal(found, 0);
}

static void collapsed_and_held(struct world *w)
{
    struct live_audit counts;
    char buf[8] = "";
    int fds[2];

    fill(w);
    if (!collapse(w, 0))
        return;
    struct iovec iov = {.iov_base = w->view + 9 * PAGE, .iov_len = 8};
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(vmsplice(fds[1], &iov, 1, 0), 8);
    const struct gmem_attributes2 attr = {8 * PAGE, 4 * PAGE, KVM_MEMORY_ATTRIBUTE_PRIVATE, 0};
    struct gmem_busy busy;
    assert_int_equal(gmem_set_attributes2(w->gmem, &attr, &w->caller, &busy), 0);
    check_filled(w);
    /* As long as somebody holds the folio its zeroed pages stay where they were: the signal is lost, and found. */
    assert_int_equal(*(uint64_t *)(void *)(w->view + 9 * PAGE), 0);
    assert_true(live_audit(w->live, audit_report, NULL, &counts) > 0);
    assert_int_equal(counts.strays, 4);
    assert_int_equal(read(fds[0], buf, 8), 8);
    close(fds[0]);
    close(fds[1]);
    assert_true(live_audit(w->live, audit_report, NULL, &counts) > 0);
    audit(w);
    for (uint64_t i = 8; i < 12; i++)
        assert_int_equal(probe(w, i), EFAULT);
    check_filled(w);
}

static void fallocate_stops_where_memory_ends(struct world *w)
{
    struct gmem_stats stats;
    struct host_counts counts;
    /* The machine has fewer frames than the file has pages: what was allocated stays, the rest costs nothing. */
    assert_int_equal(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 0, (int64_t)(w->nr_pages * PAGE), &w->caller),
                     -ENOMEM);
    gmem_stats(w->gmem, &stats);
    host_counts(machine_host(w->machine), &counts);
    assert_true(stats.allocated > 0 && stats.allocated < w->nr_pages);
    assert_int_equal(stats.allocated, counts.data_frames);
    struct stat st;
    assert_int_equal(fstat(live_file_fd(w->gmem), &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 <= (stats.allocated + 1) * PAGE);
}

static void agent_fails(struct world *w)
{
    /* At its VMA limit: nothing changed. */
    strcpy(w->view + 5 * PAGE, "kept");
    w->call_result = -ENOMEM;
    assert_int_equal(convert(w, 5, 1, true), -ENOMEM);
    assert_int_equal(probe(w, 5), 0);
    assert_false(gmem_is_private(w->gmem, 5));
    /* Stopped: only its signal is late. */
    w->call_result = -ETIMEDOUT;
    const struct gmem_attributes2 attr = {5 * PAGE, PAGE, KVM_MEMORY_ATTRIBUTE_PRIVATE, 0};
    struct gmem_busy busy;
    assert_int_equal(gmem_set_attributes2(w->gmem, &attr, &w->caller, &busy), 0);
    w->call_result = 0;
    /* Until then its load makes a stray page: no signal, no secret. */
    assert_int_equal(w->view[5 * PAGE], 0);
    /* It goes on, and finds the request in its socket. */
    assert_true(w->late);
    struct uffdio_register reg = {.range = w->late_range, .mode = UFFDIO_REGISTER_MODE_MISSING};
    assert_int_equal(ioctl(w->uffd, UFFDIO_REGISTER, &reg), 0);
    assert_int_equal(convert(w, 5, 1, false), 0);
    assert_string_equal(w->view + 5 * PAGE, "kept");
}

#define TEST(name, pages)                                                                                              \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        run(name, pages);                                                                                              \
    }
TEST(small_range, 16)
TEST(untouched_pages, 16)
TEST(large_range, 1024)
TEST(punched, 16)
TEST(held_by_a_pipe, 16)
TEST(direct_map, 16)
TEST(stray_page, 16)
TEST(punched_under_way, 16)
TEST(stray_is_no_data, 16)
TEST(stray_allocation, 16)
TEST(audit_counts_what_it_saw, 16)
TEST(view_over_view, 16)
TEST(others_run, 16384)
TEST(others_run_by_the_clock, 8192)
TEST(zeroed_page, 16)
TEST(zeroed_under_way, 400)
static void test_zeroed_in_open_views(void **state)
{
    (void)state;
    run(zeroed_under_way, 1024);
}
TEST(fallocate_stops_where_memory_ends, UINT64_C(100000))
TEST(agent_fails, 1024)
TEST(collapsed_view, 1024)
TEST(partly_collapsed_view, 1024)
TEST(collapsed_and_held, 1024)
TEST(copy_fails, 1024)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_range),
        cmocka_unit_test(test_untouched_pages),
        cmocka_unit_test(test_large_range),
        cmocka_unit_test(test_punched),
        cmocka_unit_test(test_held_by_a_pipe),
        cmocka_unit_test(test_direct_map),
        cmocka_unit_test(test_stray_page),
        cmocka_unit_test(test_agent_fails),
        cmocka_unit_test(test_punched_under_way),
        cmocka_unit_test(test_stray_is_no_data),
        cmocka_unit_test(test_fallocate_stops_where_memory_ends),
        cmocka_unit_test(test_collapsed_view),
        cmocka_unit_test(test_collapsed_and_held),
        cmocka_unit_test(test_copy_fails),
        cmocka_unit_test(test_stray_allocation),
        cmocka_unit_test(test_audit_counts_what_it_saw),
        cmocka_unit_test(test_view_over_view),
        cmocka_unit_test(test_others_run),
        cmocka_unit_test(test_others_run_by_the_clock),
        cmocka_unit_test(test_partly_collapsed_view),
        cmocka_unit_test(test_zeroed_page),
        cmocka_unit_test(test_zeroed_under_way),
        cmocka_unit_test(test_zeroed_in_open_views),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
