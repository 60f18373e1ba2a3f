/* SPDX-License-Identifier: BSD-2-Clause */
/* fakehypctl status: who is connected, and what exists. */
#include <inttypes.h>

#include "src/fakehypctl/ask.h"
#include "src/fakehypctl/ctl.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* fakehyp.h has these as FAKEHYP_GMEM_*. */
static struct out_text flags_text(uint64_t flags)
{
    struct out_text t = {""};
    const char *mmap_text = flags & FAKEHYP_GMEM_MMAP ? "MMAP" : "";
    const char *shared_text = flags & FAKEHYP_GMEM_INIT_SHARED ? "INIT_SHARED" : "";
    uint64_t rest = flags & ~(FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED);

    if (!flags)
        snprintf(t.s, sizeof(t.s), "-");
    else if (rest)
        snprintf(t.s, sizeof(t.s), "0x%" PRIx64, flags);
    else
        snprintf(t.s, sizeof(t.s), "%s%s%s", mmap_text, *mmap_text && *shared_text ? "|" : "", shared_text);
    return t;
}

static void heading(const struct ctl_io *io, const char *text, size_t n)
{
    fprintf(io->out, "\n%s%s%s", out_colour(io, OUT_BOLD), text, out_colour(io, OUT_PLAIN));
    fprintf(io->out, n ? "\n" : ": none\n");
}

static void print_clients(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    static const struct out_column columns[] = {{"ID", true}, {"PID", true}, {"VIEWS", true}, {"PROGRAM", false}};
    const json_t *clients = reader_array(r, answer, "clients"), *c;
    size_t n = json_array_size(clients);
    struct out_table *t;

    heading(io, "clients", n);
    if (!n)
        return;
    t = out_table_new(columns, ARRAY_SIZE(columns));
    for (size_t i = 0; i < n; i++) {
        c = reader_enter(r, clients, "clients", i);
        out_table_cell(t, out_u64(reader_u64(r, c, "id")).s);
        out_table_cell(t, out_u64(reader_u64(r, c, "pid")).s);
        out_table_cell(t, out_u64(reader_u64(r, c, "views")).s);
        out_table_cell(t, reader_string(r, c, "program"));
        reader_leave(r);
    }
    out_table_print(t, io, 2);
}

/* "D inode", and what is out of the ordinary: "A inode, abi 5, naive-check-order". */
static struct out_text run_by(struct reader *r, const json_t *vm)
{
    struct out_text text;
    const char *bugs = reader_string(r, vm, "bugs");
    const uint64_t abi = reader_u64(r, vm, "abi");

    snprintf(text.s, sizeof(text.s), "%s %s%s%s%s", reader_string(r, vm, "policy"), reader_string(r, vm, "tracker"),
             abi == 5 ? ", abi 5" : "", *bugs ? ", " : "", bugs);
    return text;
}

static void print_vms(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    static const struct out_column columns[] = {
        {"ID", true},     {"NAME", false},   {"HYP", false},  {"MEMORY", false}, {"UNSHARE", false},
        {"FILES", false}, {"HANDLE", false}, {"VCPUS", true}, {"GUEST", false},
    };
    const json_t *vms = reader_array(r, answer, "vms"), *vm;
    size_t n = json_array_size(vms);
    struct out_text guest;
    struct out_table *t;
    uint64_t pid;

    heading(io, "VMs", n);
    if (!n)
        return;
    t = out_table_new(columns, ARRAY_SIZE(columns));
    for (size_t i = 0; i < n; i++) {
        vm = reader_enter(r, vms, "vms", i);
        out_table_cell(t, out_u64(reader_u64(r, vm, "id")).s);
        out_table_cell(t, reader_string(r, vm, "name"));
        out_table_cell(t, reader_string(r, vm, "hyp"));
        out_table_cell(t, reader_bool(r, vm, "protected") ? "protected" : "unprotected");
        out_table_cell(t, reader_string(r, vm, "unshare"));
        out_table_cell(t, run_by(r, vm).s);
        out_table_cell(t, out_hex(reader_u64(r, vm, "handle")).s);
        out_table_cell(t, out_u64(reader_u64(r, vm, "vcpus")).s);
        pid = reader_u64(r, vm, "guest_pid");
        snprintf(guest.s, sizeof(guest.s), "pid %" PRIu64, pid);
        out_table_cell(t, pid ? guest.s : "not started");
        reader_leave(r);
    }
    out_table_print(t, io, 2);
}

static void print_vm_slots(struct reader *r, const json_t *vm, struct out_table *t)
{
    const json_t *slots = reader_array(r, vm, "slots"), *s;
    uint64_t gpa, size;

    for (size_t i = 0; i < json_array_size(slots); i++) {
        s = reader_enter(r, slots, "slots", i);
        gpa = reader_u64(r, s, "gpa");
        size = reader_u64(r, s, "size");
        out_table_cell(t, out_u64(reader_u64(r, vm, "id")).s);
        out_table_cell(t, out_u64(reader_u64(r, s, "slot")).s);
        out_table_cell(t, out_hex(gpa).s);
        out_table_cell(t, size ? out_hex(gpa + size - 1).s : "-");
        out_table_cell(t, out_size(size).s);
        out_table_cell(t, out_u64(reader_u64(r, s, "gmem")).s);
        out_table_cell(t, out_hex(reader_u64(r, s, "offset")).s);
        reader_leave(r);
    }
}

static void print_slots(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    static const struct out_column columns[] = {
        {"VM", true}, {"SLOT", true}, {"IPA", true}, {"LAST", true}, {"SIZE", true}, {"GMEM", true}, {"OFFSET", true},
    };
    const json_t *vms = reader_array(r, answer, "vms"), *vm;
    struct out_table *t;
    size_t n = 0;

    for (size_t i = 0; i < json_array_size(vms); i++)
        n += json_array_size(json_object_get(json_array_get(vms, i), "slots"));
    heading(io, "memslots", n);
    t = out_table_new(columns, ARRAY_SIZE(columns));
    for (size_t i = 0; i < json_array_size(vms); i++) {
        vm = reader_enter(r, vms, "vms", i);
        print_vm_slots(r, vm, t);
        reader_leave(r);
    }
    if (n)
        out_table_print(t, io, 2);
    else
        out_table_free(t);
}

static void print_gmems(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    static const struct out_column columns[] = {
        {"ID", true},      {"VM", true},    {"SIZE", true},   {"SHARED", true},
        {"PRIVATE", true}, {"PAGES", true}, {"RANGES", true}, {"FLAGS", false},
    };
    const json_t *gmems = reader_array(r, answer, "gmems"), *g;
    size_t n = json_array_size(gmems);
    struct out_table *t;

    heading(io, "guest_memfds", n);
    if (!n)
        return;
    t = out_table_new(columns, ARRAY_SIZE(columns));
    for (size_t i = 0; i < n; i++) {
        g = reader_enter(r, gmems, "gmems", i);
        out_table_cell(t, out_u64(reader_u64(r, g, "id")).s);
        out_table_cell(t, out_u64(reader_u64(r, g, "vm")).s);
        out_table_cell(t, out_size(reader_u64(r, g, "size")).s);
        out_table_cell(t, out_size(reader_u64(r, g, "shared_bytes")).s);
        out_table_cell(t, out_size(reader_u64(r, g, "private_bytes")).s);
        out_table_cell(t, out_u64(reader_u64(r, g, "allocated_pages")).s);
        out_table_cell(t, out_u64(reader_u64(r, g, "ranges")).s);
        out_table_cell(t, flags_text(reader_u64(r, g, "flags")).s);
        reader_leave(r);
    }
    out_table_print(t, io, 2);
}

static void print_counts(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    static const struct {
        const char *key, *label;
    } counts[] = {
        {"clients", "clients"}, {"vms", "VMs"},         {"gmems", "guest_memfds"},      {"views", "views"},
        {"pins", "pins"},       {"guests", "guests"},   {"frames_used", "frames used"}, {"el2_pages", "EL2 pages"},
        {"tasks", "tasks"},     {"fds", "descriptors"},
    };
    const json_t *obj = reader_object(r, answer, "counts");

    fprintf(io->out, "\n%scounts%s\n", out_colour(io, OUT_BOLD), out_colour(io, OUT_PLAIN));
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        uint64_t n = reader_u64(r, obj, counts[i].key);

        fprintf(io->out, "  %-14s %8" PRIu64 "%s", counts[i].label, n, i % 2 ? "\n" : "  ");
    }
}

/* Nothing to say of a daemon that runs without. */
static void print_oracle(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    const json_t *oracle = json_object_get(answer, "oracle");

    if (!json_is_true(json_object_get(oracle, "on")))
        return;
    fprintf(io->out, "\noracle: %" PRIu64 " calls of EL2 judged, %" PRIu64 " not, %" PRIu64 " divergences\n",
            reader_u64(r, oracle, "calls"), reader_u64(r, oracle, "unjudged"), reader_u64(r, oracle, "divergences"));
}

static void print_status(struct reader *r, const json_t *answer, struct ctl_io *io)
{
    fprintf(io->out, "fakehypd ");
    out_clean(io->out, reader_string(r, answer, "version"));
    fprintf(io->out, ", pid %" PRIu64 ", stage ", reader_u64(r, answer, "pid"));
    out_clean(io->out, reader_string(r, answer, "stage"));
    fprintf(io->out, ", up %s\nsocket ", out_duration(reader_u64(r, answer, "uptime_ns")).s);
    out_clean(io->out, reader_string(r, answer, "socket"));
    fputc('\n', io->out);
    print_clients(r, answer, io);
    print_vms(r, answer, io);
    print_slots(r, answer, io);
    print_gmems(r, answer, io);
    print_counts(r, answer, io);
    print_oracle(r, answer, io);
}

enum ctl_exit ctl_status(const struct ctl_args *args, struct ctl_io *io)
{
    const struct fakehyp_query_args query = {.what = "status"};

    return ask_and_print(args, &query, print_status, io, NULL);
}
