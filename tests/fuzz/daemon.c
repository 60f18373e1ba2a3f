/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sequences of requests, from up to three clients and their guests, into the
 * whole daemon in this process; the tables of the model are compared with each
 * other after each, the kernel's truth at the end, when nothing may be left.
 *
 * An input is a list of steps: a byte that says which, then what the step
 * takes.  Its top bit set: do not wait for what it does, so that requests meet.
 * Ids start at 1 in each run, so that small numbers are ids that exist.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fakehyp/hypercall.h"
#include "src/proto/chan.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/inproc.h"

#ifdef __SANITIZE_THREAD__
const char fuzz_not_here[] = "ThreadSanitizer takes each clone() for a fork, and the guests here share our memory";
#endif

#define PAGE UINT64_C(4096)
#define MOST_STEPS 64
#define VIEW_BASE UINT64_C(0x200000000000)
#define RAM_BASE UINT64_C(0x300000000000)

struct run {
    struct inproc in;
    struct fuzz_input input;
    unsigned client; /* whose turn it is */
    uint64_t id;
};

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static const uint64_t edges[] = {
    UINT64_MAX,
    INT64_MAX,
    UINT64_C(1) << 63,
    UINT64_MAX - 4095,
    UINT32_MAX,
    INT32_MAX,
    UINT64_C(1) << 40,
    1u << 30,
    1u << 21,
    (1u << 21) - PAGE,
    4095,
    4097,
    12345,
    VIEW_BASE,
    RAM_BASE,
    UINT64_C(1) << 52,
    UINT64_C(1) << 32,
};

/* A byte: small numbers as they are, in units; then the edges; 0xff: any number follows. */
static uint64_t number(struct run *run, uint64_t unit)
{
    uint8_t b = fuzz_u8(&run->input);

    if (b == 0xff)
        return fuzz_uint(&run->input, 8);
    if (b >= 0xe0)
        return edges[(b - 0xe0) % (sizeof(edges) / sizeof(edges[0]))];
    return b * unit;
}

static uint64_t plain(struct run *run)
{
    return number(run, 1);
}

static uint64_t pages(struct run *run)
{
    return number(run, PAGE);
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

union body {
    Fakehyp__Hello hello;
    Fakehyp__VmCreate vm_create;
    Fakehyp__VmDestroy vm_destroy;
    Fakehyp__GmemCreate gmem_create;
    Fakehyp__GmemClose gmem_close;
    Fakehyp__GmemImport gmem_import;
    Fakehyp__ViewAdd view_add;
    Fakehyp__ViewRemove view_remove;
    Fakehyp__Convert convert;
    Fakehyp__Fallocate fallocate;
    Fakehyp__MemoryRegion memory_region;
    Fakehyp__Pin pin;
    Fakehyp__Unpin unpin;
    Fakehyp__VcpuCreate vcpu_create;
    Fakehyp__GuestPrepare guest_prepare;
    Fakehyp__VcpuRun vcpu_run;
    Fakehyp__Query query;
    Fakehyp__AccessReport access_report;
};

#define INIT(field, NAME)                                                                                              \
    body->field = (typeof(body->field))FAKEHYP__##NAME##__INIT;                                                        \
    request->field = &body->field;                                                                                     \
    request->body_case = FAKEHYP__REQUEST__BODY_##NAME

static void fill_query(struct run *run, Fakehyp__Query *query)
{
    static const char *const what[] = {"status", "page",        "audit",        "trace",
                                       "ptdump", "kernel-load", "capabilities", "?"};
    uint8_t flags = fuzz_u8(&run->input);

    query->what = (char *)what[flags & 7];
    query->by_gpa = flags & 8;
    query->any = flags & 16;
    query->vm = plain(run);
    query->gmem = plain(run);
    query->offset = pages(run);
    query->gpa = pages(run);
    query->since = plain(run);
    query->limit = (uint32_t)plain(run);
}

/* Returns how many descriptors belong to it. */
static unsigned fill(struct run *run, unsigned type, Fakehyp__Request *request, union body *body)
{
    switch (type % 18) {
    case 0:
        INIT(hello, HELLO);
        body->hello.version = (uint32_t)plain(run);
        body->hello.agent = fuzz_u8(&run->input) & 1;
        break;
    case 1:
        INIT(vm_create, VM_CREATE);
        body->vm_create.unprotected = fuzz_u8(&run->input) & 1;
        body->vm_create.unshare_mode = (uint32_t)plain(run);
        body->vm_create.ipa_bits = (uint32_t)plain(run);
        break;
    case 2:
        INIT(vm_destroy, VM_DESTROY);
        body->vm_destroy.vm = plain(run);
        break;
    case 3:
        INIT(gmem_create, GMEM_CREATE);
        body->gmem_create.vm = plain(run);
        body->gmem_create.size = pages(run);
        body->gmem_create.flags = plain(run);
        break;
    case 4:
        INIT(gmem_close, GMEM_CLOSE);
        body->gmem_close.gmem = plain(run);
        break;
    case 5:
        INIT(gmem_import, GMEM_IMPORT);
        return 1;
    case 6:
        INIT(view_add, VIEW_ADD);
        body->view_add.gmem = plain(run);
        body->view_add.addr = VIEW_BASE + pages(run);
        body->view_add.length = pages(run);
        body->view_add.offset = pages(run);
        break;
    case 7:
        INIT(view_remove, VIEW_REMOVE);
        body->view_remove.addr = VIEW_BASE + pages(run);
        body->view_remove.length = pages(run);
        break;
    case 8:
        INIT(convert, CONVERT);
        body->convert.gmem = plain(run);
        body->convert.offset = pages(run);
        body->convert.size = pages(run);
        body->convert.attributes = plain(run);
        body->convert.flags = plain(run);
        break;
    case 9:
        INIT(fallocate, FALLOCATE);
        body->fallocate.gmem = plain(run);
        body->fallocate.mode = (uint32_t)plain(run);
        body->fallocate.offset = (int64_t)pages(run);
        body->fallocate.length = (int64_t)pages(run);
        break;
    case 10:
        INIT(memory_region, MEMORY_REGION);
        body->memory_region.vm = plain(run);
        body->memory_region.slot = (uint32_t)plain(run);
        body->memory_region.flags = (uint32_t)plain(run);
        body->memory_region.gpa = pages(run);
        body->memory_region.size = pages(run);
        body->memory_region.gmem = plain(run);
        body->memory_region.gmem_offset = pages(run);
        break;
    case 11:
        INIT(pin, PIN);
        body->pin.gmem = plain(run);
        body->pin.offset = pages(run);
        body->pin.size = pages(run);
        body->pin.kind = (uint32_t)plain(run);
        body->pin.label = (char *)"fuzz/disk0";
        break;
    case 12:
        INIT(unpin, UNPIN);
        body->unpin.pin = plain(run);
        break;
    case 13:
        INIT(vcpu_create, VCPU_CREATE);
        body->vcpu_create.vm = plain(run);
        body->vcpu_create.index = (uint32_t)plain(run);
        break;
    case 14:
        INIT(guest_prepare, GUEST_PREPARE);
        body->guest_prepare.vm = plain(run);
        break;
    case 15:
        INIT(vcpu_run, VCPU_RUN);
        body->vcpu_run.vm = plain(run);
        body->vcpu_run.index = (uint32_t)plain(run);
        body->vcpu_run.timeout_ns = (int64_t)plain(run);
        body->vcpu_run.hypercall_ret = plain(run);
        break;
    case 16:
        INIT(query, QUERY);
        fill_query(run, &body->query);
        break;
    default:
        INIT(access_report, ACCESS_REPORT);
        body->access_report.addr = VIEW_BASE + pages(run);
        body->access_report.gmem = plain(run);
        body->access_report.offset = pages(run);
        body->access_report.in_view = fuzz_u8(&run->input) & 1;
        break;
    }
    return 0;
}

/* A guest_memfd of somebody's, or what is none. */
static int some_fd(struct run *run)
{
    uint8_t b = fuzz_u8(&run->input);
    const struct inproc_client *client = &run->in.clients[b % INPROC_CLIENTS];

    return client->nr_files ? client->files[(b / INPROC_CLIENTS) % client->nr_files] : STDERR_FILENO;
}

static void send_request(struct run *run, int sock, Fakehyp__Request *request, unsigned nr_fds)
{
    uint8_t frame[1024];
    int fd = nr_fds ? some_fd(run) : -1;

    request->id = ++run->id;
    FUZZ_CHECK(fakehyp__request__get_packed_size(request) <= sizeof(frame));
    inproc_send(sock, frame, fakehyp__request__pack(request, frame), &fd, nr_fds);
}

static void step_request(struct run *run)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    union body body;
    unsigned nr_fds = fill(run, fuzz_u8(&run->input), &request, &body);

    send_request(run, run->in.clients[run->client].sock, &request, nr_fds);
}

static void step_vcpu(struct run *run)
{
    static const uint64_t calls[] = {SMCCC_VENDOR_HYP_FEATURES, SMCCC_VENDOR_HYP_UID, PSCI_SYSTEM_OFF,
                                     UINT64_C(0xc6000002),      UINT64_C(0xc6000003), UINT64_C(0xc6000004),
                                     UINT64_C(0xc6000005),      UINT64_C(0xc6000006), UINT64_C(0xc6000007)};
    const struct inproc_client *client = &run->in.clients[run->client];
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VcpuReady ready = FAKEHYP__VCPU_READY__INIT;
    Fakehyp__Hypercall call = FAKEHYP__HYPERCALL__INIT;
    uint8_t b = fuzz_u8(&run->input);
    int sock = client->nr_vcpus ? client->vcpus[(b & 3) % client->nr_vcpus] : -1;

    if (b & 0x80) {
        request.body_case = FAKEHYP__REQUEST__BODY_VCPU_READY;
        request.vcpu_ready = &ready;
        ready.tid = 1000u + (b & 3);
    } else {
        request.body_case = FAKEHYP__REQUEST__BODY_HYPERCALL;
        request.hypercall = &call;
        b >>= 2;
        call.x0 = b < sizeof(calls) / sizeof(calls[0]) ? calls[b] : plain(run);
        call.x1 = pages(run);
        call.x2 = plain(run);
        call.x3 = plain(run);
    }
    send_request(run, sock, &request, 0);
}

/* Any bytes, on any of the sockets. */
static void step_raw(struct run *run)
{
    const struct inproc_client *client = &run->in.clients[run->client];
    uint8_t b = fuzz_u8(&run->input), nr_fds = b >> 2 & 3;
    const int socks[4] = {client->sock, client->agent, client->guest, client->nr_vcpus ? client->vcpus[0] : -1};
    size_t len;
    const uint8_t *bytes = fuzz_bytes(&run->input, fuzz_u8(&run->input), &len);
    int fds[3] = {STDERR_FILENO, STDERR_FILENO, STDERR_FILENO};

    inproc_send(socks[b & 3], bytes, len, fds, nr_fds);
}

/* What the agents will answer. */
static void step_script(struct run *run)
{
    static const int errors[] = {0, INPROC_SILENT, ENOMEM, EINVAL, EPERM, ETIMEDOUT, ECONNRESET, EAGAIN};

    if (run->in.nr_script < INPROC_SCRIPT)
        run->in.script[run->in.nr_script++] = errors[fuzz_u8(&run->input) & 7];
}

/* Bytes in a guest_memfd, through the descriptor. */
static void step_write(struct run *run)
{
    int fd = some_fd(run);
    uint64_t offset = pages(run);

    if (fd == STDERR_FILENO)
        return;
    if (pwrite(fd, "fuzz", 4, (off_t)(offset & INT64_MAX)) < 0 && errno != EFBIG && errno != EPERM)
        FUZZ_CHECK(errno == EINVAL || errno == ENOSPC || errno == ENOMEM);
}

static void step(struct run *run)
{
    uint8_t what = fuzz_u8(&run->input);
    struct inproc *in = &run->in;

    switch (what & 0x0f) {
    case 8:
        run->client = fuzz_u8(&run->input) % INPROC_CLIENTS;
        if (in->clients[run->client].sock < 0)
            inproc_connect(in, run->client);
        break;
    case 9:
        inproc_disconnect(in, run->client);
        break;
    case 10:
        step_raw(run);
        break;
    case 11:
        step_script(run);
        break;
    case 12:
        inproc_guest_attach(in, run->client, RAM_BASE + pages(run), pages(run));
        break;
    case 13:
        step_vcpu(run);
        break;
    case 14:
        inproc_pass_time(in);
        break;
    case 15:
        step_write(run);
        break;
    default:
        step_request(run);
        break;
    }
    if (what & 0x80)
        return;
    inproc_settle(in);
    inproc_audit(in, false);
}

static int lowest_fd(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);

    FUZZ_CHECK(fd >= 0);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run run;

    run = (struct run){.input = {.data = data, .left = size}};
    const int before = lowest_fd();
    inproc_start(&run.in);
    inproc_connect(&run.in, 0);
    for (unsigned i = 0; i < MOST_STEPS && run.input.left; i++)
        step(&run);
    inproc_settle(&run.in);
    inproc_audit(&run.in, true);
    inproc_finish(&run.in);
    FUZZ_CHECK(lowest_fd() == before);
    return 0;
}
