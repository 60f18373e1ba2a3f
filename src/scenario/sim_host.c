/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs in simulation: host processes, the kernel, files. */
#include "src/scenario/sim_world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FIRST_PID 100

int sim_new_process(struct sc_sim *w, const char *name, struct sc_verdict *v)
{
    if (w->nr_processes == SIM_MAX_PROCESSES) {
        sc_broken(v, "more than %u processes", SIM_MAX_PROCESSES);
        return -1;
    }
    struct sim_process *p = &w->process[w->nr_processes];
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->caller = (struct caller){.pid = FIRST_PID + w->nr_processes, .program = p->name};
    struct host_event came = {.kind = HOST_EV_client, .a0 = p->caller.pid, .pid = p->caller.pid};
    snprintf(came.note, sizeof(came.note), "%s", name);
    machine_record(w->machine, &came);
    return (int)w->nr_processes++;
}

int sim_add_process(struct sc_sim *w, const char *name, struct sc_verdict *v)
{
    int number = sim_new_process(w, name, v);

    if (number < 0)
        return -1;
    struct sim_process *p = &w->process[number];
    p->mm = mm_new(machine_host(w->machine), name, p->caller.pid);
    if (p->mm)
        return number;
    sc_broken(v, "no memory");
    return -1;
}

int sim_add_view(struct sc_sim *w, int process, int file, uint64_t page, uint64_t nr, struct sc_verdict *v)
{
    if (w->nr_views == SIM_MAX_VIEWS) {
        sc_broken(v, "more than %u views", SIM_MAX_VIEWS);
        return -1;
    }
    w->view[w->nr_views] = (struct sim_view){.process = process, .file = file, .page = page, .nr = nr};
    return (int)w->nr_views++;
}

struct sim_process *sim_self_process(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = &w->process[c->self];
    if (p->mm && !mm_dead(p->mm))
        return p;
    sc_broken(v, "process %s has ended", p->name);
    return NULL;
}

struct gmem *sim_file_of(struct sc_sim *w, int64_t number, struct sc_verdict *v)
{
    if (number >= 0 && number < w->nr_files && w->file[number].gmem)
        return w->file[number].gmem;
    sc_broken(v, "file %lld is closed", (long long)number);
    return NULL;
}

bool sim_address(struct sc_sim *w, const struct sc_call *c, int64_t page, int64_t view, uint64_t *va,
                 struct sc_verdict *v)
{
    for (unsigned i = 0; i < w->nr_views; i++) {
        const struct sim_view *x = &w->view[i];
        /* A view that is gone still has its address: a touch there is what tells. */
        if (view ? i + 1 != (uint64_t)view
                 : x->process != c->self || page < (int64_t)x->page || page - (int64_t)x->page >= (int64_t)x->nr)
            continue;
        *va = x->va + (uint64_t)(page - (int64_t)x->page) * SC_PAGE;
        return true;
    }
    sc_broken(v, "process %s has no view of page %lld", w->process[c->self].name, (long long)page);
    return false;
}

void sim_access_word(struct sc_verdict *v, enum sim_access end)
{
    static const char *const words[] = {[SIM_OK] = "0",
                                        [SIM_SIGBUS] = "SIGBUS",
                                        [SIM_SIGSEGV] = "SIGSEGV",
                                        [SIM_EFAULT] = "EFAULT",
                                        [SIM_OOPS] = "OOPS"};
    sc_word(v, "%s", words[end]);
    v->rc = end == SIM_OK ? 0 : -EFAULT;
}

void sim_holders(const struct sc_sim *w, struct sc_verdict *v, const struct holder_info *holders, unsigned nr)
{
    for (unsigned i = 0; i < nr && i < SC_HOLDERS; i++) {
        snprintf(v->holders[i].what, sizeof(v->holders[i].what), "%s", holders[i].what);
        snprintf(v->holders[i].kind, sizeof(v->holders[i].kind), "%s", holders[i].kind);
        v->holders[i].count = holders[i].count;
        for (unsigned j = 0; j < w->nr_processes; j++)
            if (w->process[j].caller.pid == holders[i].pid)
                snprintf(v->holders[i].who, sizeof(v->holders[i].who), "%s", w->process[j].name);
    }
    v->nr_holders = nr < SC_HOLDERS ? nr : SC_HOLDERS;
}

void sim_converted(struct sc_sim *w, const struct sim_process *p, int rc, const struct gmem_busy *busy,
                   struct sc_verdict *v)
{
    sc_rc(v, rc);
    if (!rc && !busy->transient)
        return;
    sim_holders(w, v, busy->holders, busy->nr_holders);
    if (!rc) {
        sc_word(v, "NONE_SHARED");
        return;
    }
    sc_detail(v, "%s", p->caller.message);
    if (busy->error_offset_valid)
        sc_word(v, "%s@%llu", strerrorname_np(-rc), (unsigned long long)(busy->error_offset / SC_PAGE));
}

void sim_convert(struct sc_sim *w, struct sim_process *p, struct gmem *gmem, const struct gmem_attributes2 *attr,
                 struct sc_verdict *v)
{
    struct gmem_busy busy;

    p->caller.message[0] = '\0';
    int rc = gmem_set_attributes2(gmem, attr, &p->caller, &busy);
    sim_converted(w, p, rc, &busy, v);
}

/* ---- processes -------------------------------------------------------------------------------------------------- */

void sim_PROCESS_convert(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    struct gmem *gmem = sim_file_of(w, c->arg[3].n, v);
    const struct gmem_attributes2 attr = {.offset = (uint64_t)c->arg[0].n * SC_PAGE,
                                          .size = (uint64_t)c->arg[1].n * SC_PAGE,
                                          .attributes = (uint64_t)c->arg[2].n};
    if (p && gmem)
        sim_convert(w, p, gmem, &attr, v);
}

void sim_PROCESS_convert_raw(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    struct gmem *gmem = sim_file_of(w, c->arg[4].n, v);
    const struct gmem_attributes2 attr = {.offset = (uint64_t)c->arg[0].n,
                                          .size = (uint64_t)c->arg[1].n,
                                          .attributes = (uint64_t)c->arg[2].n,
                                          .flags = (uint64_t)c->arg[3].n};
    if (p && gmem)
        sim_convert(w, p, gmem, &attr, v);
}

static void load(struct sc_sim *w, const struct sc_call *c, int64_t view, size_t bytes, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    uint64_t va;

    if (!p || !sim_address(w, c, c->arg[0].n, view, &va, v))
        return;
    sim_access_word(v, sim_host_read(w->sim, p->mm, va, v->bytes, bytes));
    v->nr_bytes = v->rc ? 0 : (uint32_t)bytes;
}

static void store(struct sc_sim *w, const struct sc_call *c, int64_t view, const char *bytes, size_t nr,
                  struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    uint64_t va;

    if (p && sim_address(w, c, c->arg[0].n, view, &va, v))
        sim_access_word(v, sim_host_write(w->sim, p->mm, va, bytes, nr));
}

void sim_PROCESS_touch(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    if (c->arg[1].text[0] == 'w') {
        store(w, c, c->arg[2].n, "\1", 1, v);
    } else {
        load(w, c, c->arg[2].n, 1, v);
        v->nr_bytes = 0;
    }
}

void sim_PROCESS_read(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    if (c->arg[1].n < 1 || c->arg[1].n > SC_BYTES)
        sc_broken(v, "read of %lld bytes: 1 to %u", (long long)c->arg[1].n, SC_BYTES);
    else
        load(w, c, c->arg[2].n, (size_t)c->arg[1].n, v);
}

void sim_PROCESS_write(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    store(w, c, c->arg[2].n, c->arg[1].text, strlen(c->arg[1].text) + 1, v);
}

static int kind_of(const char *name)
{
    static const char *const kinds[REF_USER_KINDS] = {"FOLL_GET", "FOLL_PIN", "FOLL_LONGTERM"};
    for (unsigned i = 0; i < REF_USER_KINDS; i++)
        if (!strcmp(name, kinds[i]))
            return (int)i;
    return -1;
}

void sim_PROCESS_pin(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    struct gmem *gmem = sim_file_of(w, c->arg[4].n, v);
    int kind = kind_of(c->arg[2].text);

    if (kind < 0)
        sc_broken(v, "pin of kind \"%s\": FOLL_GET, FOLL_PIN or FOLL_LONGTERM", c->arg[2].text);
    else if (w->nr_pins == SIM_MAX_PINS)
        sc_broken(v, "more than %u pins", SIM_MAX_PINS);
    if (!p || !gmem || *v->broken)
        return;
    struct ref *ref = NULL;
    sc_rc(v, gmem_pin(gmem, (uint64_t)c->arg[0].n * SC_PAGE, (uint64_t)c->arg[1].n * SC_PAGE, (enum ref_kind)kind,
                      c->arg[3].text, &ref, &p->caller));
    if (v->rc) {
        sc_detail(v, "%s", p->caller.message);
        return;
    }
    w->pin[w->nr_pins++] = (struct sim_pin){.ref = ref, .process = c->self};
    v->value = w->nr_pins;
}

void sim_PROCESS_unpin(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n;
    if (n < 1 || n > w->nr_pins || !w->pin[n - 1].ref) {
        sc_broken(v, "no such pin: its verdict was a refusal, or it has been dropped");
        return;
    }
    gmem_unpin(w->pin[n - 1].ref);
    w->pin[n - 1].ref = NULL;
    sc_rc(v, 0);
}

void sim_PROCESS_mmap(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    struct gmem *gmem = sim_file_of(w, c->arg[2].n, v);
    uint64_t page = (uint64_t)c->arg[0].n, va;

    if (!p || !gmem)
        return;
    uint64_t nr = c->arg[1].n ? (uint64_t)c->arg[1].n : gmem_pages(gmem) - page;
    sc_rc(v, mm_map(p->mm, gmem, page * SC_PAGE, nr * SC_PAGE, &va, &p->caller));
    int view = v->rc ? -1 : sim_add_view(w, c->self, (int)c->arg[2].n, page, nr, v);
    if (view < 0)
        return;
    w->view[view].va = va;
    v->value = view + 1;
}

void sim_PROCESS_munmap(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    int64_t n = c->arg[0].n;

    if (p && (n < 1 || n > w->nr_views || w->view[n - 1].process != c->self))
        sc_broken(v, "process %s has no such view", p->name);
    if (!p || *v->broken)
        return;
    mm_unmap(p->mm, w->view[n - 1].va);
    w->view[n - 1].process = -1;
    sc_rc(v, 0);
}

static void system_call(struct sc_sim *w, const struct sc_call *c, bool to_user, struct sc_verdict *v)
{
    static char kernel[64 * SC_PAGE];
    struct sim_process *p = sim_self_process(w, c, v);
    uint64_t bytes = (uint64_t)c->arg[1].n, va;

    if (!bytes || bytes > sizeof(kernel)) {
        sc_broken(v, "%llu bytes: 1 to %zu", (unsigned long long)bytes, sizeof(kernel));
        return;
    }
    if (!p || !sim_address(w, c, c->arg[0].n, c->arg[2].n, &va, v))
        return;
    size_t left = to_user ? sim_copy_to_user(w->sim, p->mm, va, kernel, bytes)
                          : sim_copy_from_user(w->sim, p->mm, va, kernel, bytes);
    if (left == bytes) {
        sc_rc(v, -EFAULT);
        return;
    }
    v->value = (int64_t)(bytes - left);
    sc_word(v, "%lld", (long long)v->value);
}

void sim_PROCESS_sys_read(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    system_call(w, c, true, v);
}

void sim_PROCESS_sys_write(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    system_call(w, c, false, v);
}

static void fallocate_(struct sc_sim *w, const struct sc_call *c, int64_t file, int mode, int64_t offset, int64_t size,
                       struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);
    struct gmem *gmem = sim_file_of(w, file, v);

    if (!p || !gmem)
        return;
    sc_rc(v, gmem_fallocate(gmem, mode, offset, size, &p->caller));
    if (v->rc)
        sc_detail(v, "%s", p->caller.message);
}

void sim_PROCESS_punch(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    fallocate_(w, c, c->arg[2].n, 3, c->arg[0].n * (int64_t)SC_PAGE, c->arg[1].n * (int64_t)SC_PAGE, v);
}

void sim_PROCESS_fallocate(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    fallocate_(w, c, c->arg[3].n, (int)c->arg[0].n, c->arg[1].n, c->arg[2].n, v);
}

void sim_PROCESS_exit(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct sim_process *p = sim_self_process(w, c, v);

    if (!p)
        return;
    sc_rc(v, mm_kill(p->mm));
    sim_forget_dead(w);
}

/* ---- the kernel ------------------------------------------------------------------------------------------------- */

static void kernel_load(struct sc_sim *w, const struct sc_call *c, bool fixup, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->arg[1].n, v);
    struct page_report page;

    if (!gmem)
        return;
    gmem_page_report(gmem, (uint64_t)c->arg[0].n, &page);
    if (!page.allocated) {
        sc_broken(v, "page %lld has no frame: nothing in the direct map is it", (long long)c->arg[0].n);
        return;
    }
    sim_access_word(v, sim_kernel_load(w->sim, page.pfn, fixup, v->bytes, 16));
    v->nr_bytes = v->rc ? 0 : 16;
}

void sim_KERN_load(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    kernel_load(w, c, false, v);
}

void sim_KERN_copy(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    kernel_load(w, c, true, v);
}

#define WORD_BYTES 8

/*
 * A word that begins four bytes before the end of a page.  The exception table's entry of this instruction makes zeros
 * of what it may not have; that the page behind in the direct map is another page of the file is for the script to see.
 */
void sim_KERN_zeropad(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->arg[1].n, v);
    struct page_report page;
    char tail[SC_PAGE];

    if (!gmem)
        return;
    gmem_page_report(gmem, (uint64_t)c->arg[0].n, &page);
    if (!page.allocated) {
        sc_broken(v, "page %lld has no frame: nothing in the direct map is it", (long long)c->arg[0].n);
        return;
    }
    sim_access_word(v, sim_kernel_load(w->sim, page.pfn, true, tail, sizeof(tail)));
    if (v->rc)
        return;
    memcpy(v->bytes, tail + SC_PAGE - WORD_BYTES / 2, WORD_BYTES / 2);
    v->nr_bytes = WORD_BYTES;
    enum sim_access end = sim_kernel_load(w->sim, page.pfn + 1, true, v->bytes + WORD_BYTES / 2, WORD_BYTES / 2);
    if (end == SIM_EFAULT)
        memset(v->bytes + WORD_BYTES / 2, 0, WORD_BYTES / 2);
    else
        sim_access_word(v, end);
    sc_detail(v, "%s", end == SIM_EFAULT ? "the second half faulted and is zeros" : "no fault");
}

/* The first frame that stage 2 keeps from the host, and that is no page of a file. */
static bool hyp_frame(const struct sc_sim *w, uint64_t *pfn)
{
    struct host *host = machine_host(w->machine);
    struct host_counts counts;
    struct gmem *gmem;
    uint64_t index;

    host_counts(host, &counts);
    for (*pfn = counts.base_pfn; *pfn < counts.top_pfn; ++*pfn) {
        struct s2_walk walk;
        mmu_walk_host(w->machine, *pfn, &walk);
        if (walk.annotated && !host_frame_slot(host, *pfn, &gmem, &index))
            return true;
    }
    return false;
}

void sim_KERN_load_hyp(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    uint64_t pfn;
    char word[8];

    (void)c;
    if (hyp_frame(w, &pfn))
        sim_access_word(v, sim_kernel_load(w->sim, pfn, false, word, sizeof(word)));
    else
        sc_broken(v, "the hypervisor has no frame yet: it gets some when a guest runs first");
}

void sim_KERN_counts(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct host_counts counts;

    (void)c;
    host_counts(machine_host(w->machine), &counts);
    sc_rc(v, 0);
    sc_field(v, "hyp_asked", (int64_t)counts.hyp_asked);
    sc_field(v, "frames", (int64_t)counts.data_frames);
    v->value = (int64_t)counts.hyp_asked;
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

void sim_FILE_page(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->self, v);
    struct holder_info holders[64];
    struct page_report page;
    uint64_t refs = 0;

    if (!gmem)
        return;
    gmem_page_report(gmem, (uint64_t)c->arg[0].n, &page);
    unsigned nr = gmem_holders(gmem, (uint64_t)c->arg[0].n, holders, 64);
    for (unsigned i = 0; i < nr && i < 64; i++)
        refs += holders[i].count;
    sc_rc(v, 0);
    sc_field(v, "attr", page.private ? SC_ATTR_PRIVATE : SC_ATTR_SHARED);
    sc_field(v, "none", page.none);
    sc_field(v, "allocated", page.allocated);
    sc_field(v, "pfn", (int64_t)page.pfn);
    sc_field(v, "ref", page.refcount);
    sc_field(v, "map", page.mapcount);
    sc_field(v, "holders", nr);
    sc_field(v, "refs", (int64_t)refs);
    v->value = (int64_t)page.pfn;
    sim_holders(w, v, holders, nr);
}

void sim_FILE_ranges(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->self, v);
    struct gmem_stats stats;

    if (!gmem)
        return;
    gmem_stats(gmem, &stats);
    sc_rc(v, 0);
    sc_field(v, "ranges", (int64_t)stats.ranges);
    sc_field(v, "shared", (int64_t)stats.shared_pages);
    sc_field(v, "private", (int64_t)stats.private_pages);
    sc_field(v, "allocated", (int64_t)stats.allocated);
    v->value = (int64_t)stats.ranges;
}

static void mix(uint64_t *hash, uint64_t value)
{
    *hash = (*hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    *hash ^= *hash >> 29;
}

void sim_FILE_hash(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct gmem *gmem = sim_file_of(w, c->self, v);
    uint64_t hash = 1;

    for (uint64_t i = 0; gmem && i < gmem_pages(gmem); i++) {
        struct page_report page;
        gmem_page_report(gmem, i, &page);
        mix(&hash, page.private);
        mix(&hash, page.allocated ? page.pfn : 0);
        mix(&hash, page.refcount);
        mix(&hash, page.mapcount);
        mix(&hash, page.converted_seq);
        mix(&hash, mmu_side(machine_file(gmem), i).private);
    }
    sc_rc(v, 0);
    v->value = (int64_t)(hash >> 1);
}

/* ---- the world -------------------------------------------------------------------------------------------------- */

void sim_WORLD_process(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    v->value = sim_add_process(w, c->arg[0].text, v);
    sc_rc(v, 0);
}

void sim_WORLD_follow(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    w->follow = c->arg[0].n;
    sc_rc(v, 0);
}

void sim_WORLD_advance(struct sc_sim *w, const struct sc_call *c, struct sc_verdict *v)
{
    struct waitq nobody = {0};
    (void)w;
    if (c->arg[0].n < 0 || c->arg[0].n > 60000) {
        sc_broken(v, "%lld ms: 0 to 60000", (long long)c->arg[0].n);
        return;
    }
    sched_wait(&nobody, (uint64_t)c->arg[0].n * UINT64_C(1000000));
    sc_rc(v, 0);
}
