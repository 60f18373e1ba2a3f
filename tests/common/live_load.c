/* SPDX-License-Identifier: BSD-2-Clause */
/* The load's VMM. */
#include "tests/common/live_load.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/common/live_guard.h"
#include "tests/common/live_load_vmm.h"
#include "tests/common/live_puppet.h"

#define RUN_MS 200

struct load *load_new(const char *socket)
{
    struct load *load = mmap(NULL, sizeof(*load), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (load == MAP_FAILED)
        return NULL;
    snprintf(load->socket, sizeof(load->socket), "%s", socket);
    load->seed = rig_env("FAKEHYP_SOAK_SEED", rig_now_ns() | 1);
    return load;
}

void load_free(struct load *load)
{
    munmap(load, sizeof(*load));
}

uint64_t load_conversions(const struct load *load)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < LOAD_VMMS; i++)
        n += atomic_load(&load->vmm[i].guest_conversions) + atomic_load(&load->vmm[i].bulk_conversions);
    return n;
}

void load_fail(struct load *load, const char *format, ...)
{
    bool first = false;
    va_list args;

    if (atomic_compare_exchange_strong(&load->failed, &first, true)) {
        va_start(args, format);
        vsnprintf(load->text, sizeof(load->text), format, args);
        va_end(args);
    }
    atomic_store(&load->stop, true);
    atomic_store(&load->leave, true);
}

uint64_t load_magic(unsigned vmm, uint64_t page)
{
    return UINT64_C(0x5afe) << 48 | (uint64_t)(vmm + 1) << 32 | (page + 1);
}

/* ---- how it ends ------------------------------------------------------------------------------------------------ */

/* The thread that called is to end: the daemon is gone, which is fine when it was killed. */
bool load_lost(struct vmm *v, int rc)
{
    if (rc != -ECONNRESET || !atomic_load(&v->load->killed))
        return false;
    atomic_fetch_add(&v->resets, 1);
    atomic_store(&v->stop, true);
    return true;
}

void load_unexpected(struct vmm *v, const char *what, uint64_t page, int rc)
{
    load_fail(v->load, "VMM %u: %s, page 0x%llx: %d: %s", v->index, what, (unsigned long long)page, rc,
              fakehyp_last_error());
    atomic_store(&v->stop, true);
}

static void took(struct vmm *v, uint64_t since)
{
    uint64_t ns = rig_now_ns() - since, max = atomic_load(&v->stat->longest_call_ns);
    while (ns > max && !atomic_compare_exchange_weak(&v->stat->longest_call_ns, &max, ns))
        ;
}

bool load_stopping(const struct vmm *v)
{
    return atomic_load(&v->stop) || atomic_load(&v->load->failed);
}

/* ---- the vCPU thread -------------------------------------------------------------------------------------------- */

int load_convert(struct vmm *v, struct fakehyp_gmem *gmem, uint64_t page, uint64_t nr, bool to_private,
                 uint64_t *error_offset)
{
    uint64_t start = rig_now_ns();
    int rc = fakehyp_convert(gmem, page * PAGE, nr * PAGE, to_private ? FAKEHYP_PRIVATE : FAKEHYP_SHARED, error_offset);
    took(v, start);
    return rc;
}

/* Takes a reference that stands in the way of a conversion, sees it refused, and lets go. */
bool load_refuse_once(struct vmm *v, struct fakehyp_gmem *gmem, uint64_t pinned, uint64_t page, uint64_t nr)
{
    static const enum fakehyp_pin_kind kinds[] = {FAKEHYP_FOLL_GET, FAKEHYP_FOLL_PIN, FAKEHYP_FOLL_LONGTERM};
    struct fakehyp_holder holder = {.what = ""};
    uint64_t error_offset = UINT64_MAX;
    struct fakehyp_pin *pin;

    int rc = fakehyp_pin(gmem, pinned * PAGE, PAGE, kinds[pinned % 3], "load", &pin);
    if (rc == -EFAULT) /* EL2 has taken it back already */
        return true;
    if (rc) {
        if (!load_lost(v, rc))
            load_unexpected(v, "pin", pinned, rc);
        return false;
    }
    atomic_fetch_add(&v->stat->pins, 1);
    rc = load_convert(v, gmem, page, nr, true, &error_offset);
    size_t named = fakehyp_last_holders(&holder, 1);
    int unpinned = fakehyp_unpin(pin);
    if (load_lost(v, rc) || load_lost(v, unpinned))
        return false;
    if (rc != -EAGAIN || error_offset > pinned * PAGE || error_offset < page * PAGE || !named || unpinned) {
        load_unexpected(v, "a pinned page was converted, or it was not named", pinned, rc);
        return false;
    }
    atomic_fetch_add(&v->stat->busy, 1);
    return true;
}

/* The guest asks: what it has shared the VMM gets, what it wants back it gets back, mostly. */
static bool answer(struct vmm *v, uint64_t nr, uint64_t gpa)
{
    bool unshare = nr == HVC_MEM_UNSHARE;
    uint64_t page = gpa / PAGE;

    if (unshare && rig_random(&v->random) % 16 == 0) {
        if (!load_refuse_once(v, v->a, page, page, 1))
            return false;
        if (rig_random(&v->random) % 2)
            return true; /* and leaves it at that: the guest is told no */
    }
    int rc = load_convert(v, v->a, page, 1, unshare, NULL);
    if (rc == 0)
        atomic_fetch_add(&v->stat->guest_conversions, 1);
    else if (rc == -EAGAIN)
        atomic_fetch_add(&v->stat->busy, 1); /* a pin of another thread */
    else if (!load_lost(v, rc))
        load_unexpected(v, "convert", page, rc);
    return rc == 0 || rc == -EAGAIN;
}

static void run_guest(struct vmm *v)
{
    const struct fakehyp_run *run = fakehyp_vcpu_state(v->vcpu);

    while (!atomic_load(&v->load->failed)) {
        int rc = fakehyp_vcpu_run(v->vcpu, RUN_MS);
        if (rc == -ETIMEDOUT)
            continue;
        if (load_lost(v, rc))
            return;
        if (rc) {
            load_unexpected(v, "vcpu_run", run->exit_reason, rc);
            return;
        }
        if (run->exit_reason == FAKEHYP_EXIT_SYSTEM_EVENT) {
            v->guest_died = run->system_event.type == FAKEHYP_SYSTEM_EVENT_CRASH;
            if (v->guest_died ? !atomic_load(&v->load->killed) : run->system_event.data != 0)
                load_unexpected(v, "the guest ended", run->system_event.data, (int)run->system_event.type);
            return;
        }
        if (run->exit_reason != FAKEHYP_EXIT_HYPERCALL) {
            load_unexpected(v, "an exit that nobody expects", run->exit_reason, 0);
            return;
        }
        if ((run->hypercall.nr == HVC_MEM_SHARE || run->hypercall.nr == HVC_MEM_UNSHARE) &&
            !answer(v, run->hypercall.nr, run->hypercall.args[0]))
            return;
    }
}

/* The second vCPU needs nobody: its memory is the guest's, whatever state it is in. */
static void *second_main(void *arg)
{
    struct vmm *v = arg;
    const struct fakehyp_run *run = fakehyp_vcpu_state(v->second);
    int rc;

    while ((rc = fakehyp_vcpu_run(v->second, RUN_MS)) == -ETIMEDOUT && !atomic_load(&v->load->failed))
        ;
    if (rc == -ETIMEDOUT || load_lost(v, rc))
        return NULL;
    bool ended = rc == 0 && run->exit_reason == FAKEHYP_EXIT_SYSTEM_EVENT;
    if (!ended || (run->system_event.type == FAKEHYP_SYSTEM_EVENT_CRASH && !atomic_load(&v->load->killed)))
        load_unexpected(v, "vcpu_run of the second vCPU", run->exit_reason, rc);
    return NULL;
}

/* ---- the process ------------------------------------------------------------------------------------------------ */

static int open_file(struct vmm *v, uint64_t pages, struct fakehyp_gmem **gmem, volatile uint64_t **view)
{
    void *p;
    int rc = fakehyp_gmem_create(v->vm, pages * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, gmem);

    if (!rc)
        rc = fakehyp_map(*gmem, NULL, pages * PAGE, PROT_READ | PROT_WRITE, 0, &p);
    if (!rc)
        *view = p;
    return rc;
}

static int set_up(struct vmm *v)
{
    /* One of each kind. */
    const struct fakehyp_vm_config config = {
        .name = "load", .unshare_mode = v->index % 2 ? FAKEHYP_UNSHARE_UNILATERAL : FAKEHYP_UNSHARE_CONSENT};
    static struct load_guest_arg arg;
    int rc = fakehyp_connect(v->load->socket, &v->fh);

    if (!rc)
        rc = fakehyp_vm_create(v->fh, &config, &v->vm);
    if (!rc)
        rc = open_file(v, LOAD_PAGES, &v->a, &v->view_a);
    if (!rc)
        rc = open_file(v, LOAD_BULK_PAGES, &v->b, &v->view_b);
    if (!rc)
        rc = fakehyp_set_memory_region(v->vm, 0, 0, LOAD_PAGES * PAGE, v->a, 0);
    /* B is in the guest's IPA space of one of them only. */
    if (!rc && v->index % 2)
        rc = fakehyp_set_memory_region(v->vm, 1, UINT64_C(1) << 30, LOAD_BULK_PAGES * PAGE, v->b, 0);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < LOAD_PAGES; i++)
        v->view_a[i * (PAGE / 8) + LOAD_WORD_MAGIC] = v->view_a[i * (PAGE / 8) + LOAD_WORD_MAGIC_END] =
            load_magic(v->index, i);
    for (uint64_t i = 0; i < LOAD_BULK_PAGES; i += 2)
        v->view_b[i * (PAGE / 8) + LOAD_WORD_MAGIC] = load_bulk_magic(v->index, i);
    rc = fakehyp_convert(v->a, 0, LOAD_PAGES * PAGE, FAKEHYP_PRIVATE, NULL);
    if (!rc)
        rc = fakehyp_vcpu_create(v->vm, 0, &v->vcpu);
    if (!rc)
        rc = fakehyp_vcpu_create(v->vm, 1, &v->second);
    arg = (struct load_guest_arg){v->load, v->index};
    if (!rc)
        rc = fakehyp_guest_start(v->vm, load_guest_main, &arg);
    v->stat->guest = fakehyp_guest_pid(v->vm);
    return rc;
}

static int tear_down(struct vmm *v)
{
    int rc = fakehyp_vm_destroy(v->vm);

    fakehyp_gmem_close(v->a);
    fakehyp_gmem_close(v->b);
    fakehyp_disconnect(v->fh);
    return rc;
}

_Noreturn void load_vmm_main(struct load *load, unsigned index, int give_fd)
{
    struct vmm v = {.load = load, .stat = &load->vmm[index], .index = index, .random = load->seed + index};
    pthread_t touching, converting, second;

    guard_install();
    int rc = set_up(&v);
    if (rc) {
        load_fail(load, "VMM %u could not be set up: %d: %s", index, rc, fakehyp_last_error());
        _exit(LOAD_FAILED);
    }
    if (give_fd >= 0)
        rig_send_fd(give_fd, fakehyp_gmem_fd(v.a));
    if (pthread_create(&touching, NULL, load_toucher_main, &v) ||
        pthread_create(&converting, NULL, load_bulk_main, &v) || pthread_create(&second, NULL, second_main, &v)) {
        load_fail(load, "VMM %u: no threads", index);
        _exit(LOAD_FAILED);
    }
    run_guest(&v);
    atomic_store(&v.stop, true);
    pthread_join(touching, NULL);
    pthread_join(converting, NULL);
    pthread_join(second, NULL);
    atomic_store(&v.stat->idle, true);
    while (!atomic_load(&load->leave) && !v.guest_died && !atomic_load(&v.resets))
        rig_sleep_ms(1);
    rc = tear_down(&v);
    if (atomic_load(&load->failed))
        _exit(LOAD_FAILED);
    if (rc == -ECONNRESET && atomic_load(&load->killed))
        _exit(LOAD_RESET);
    if (rc) {
        load_fail(load, "VMM %u: vm_destroy: %d: %s", index, rc, fakehyp_last_error());
        _exit(LOAD_FAILED);
    }
    _exit(v.guest_died ? LOAD_GUEST_DIED : LOAD_DONE);
}

pid_t load_vmm_start(struct load *load, unsigned index, int give_fd)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        rig_child();
        load_vmm_main(load, index, give_fd);
    }
    return pid;
}

bool load_wait_running(struct load *load, unsigned index)
{
    for (unsigned i = 0; i < 10000 && !atomic_load(&load->failed); i++) {
        if (atomic_load(&load->vmm[index].running))
            return true;
        rig_sleep_ms(1);
    }
    return false;
}
