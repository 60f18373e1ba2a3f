/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_puppet.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <fcntl.h>

#define RUN_MS 5000

/* ---- in the guest --------------------------------------------------------------------------------------------------
 */

static int64_t count_fds(void)
{
    int64_t nr = 0;
    for (int fd = 3; fd < 1024; fd++)
        nr += fcntl(fd, F_GETFD) >= 0;
    return nr;
}

static int64_t check(const struct fakehyp_guest *guest, const struct puppet_command *c)
{
    const volatile uint8_t *p = fakehyp_guest_ptr(guest, c->a);
    int64_t wrong = 0;
    for (uint64_t i = 0; i < c->b; i++)
        wrong += p[i] != (uint8_t)c->c;
    return wrong;
}

static int64_t obey(struct fakehyp_guest *guest, struct puppet_command *c)
{
    volatile uint64_t *counter;

    switch (c->op) {
    case PUPPET_READ:
        fakehyp_guest_read(guest, c->a, c->data, c->b);
        return 0;
    case PUPPET_WRITE:
        fakehyp_guest_write(guest, c->a, c->data, c->b);
        return 0;
    case PUPPET_FILL:
        memset(fakehyp_guest_ptr(guest, c->a), (int)c->c, c->b);
        return 0;
    case PUPPET_CHECK:
        return check(guest, c);
    case PUPPET_CALL:
        return fakehyp_guest_hypercall(guest, c->a, c->b, c->c, 0);
    case PUPPET_COUNT:
        counter = fakehyp_guest_ptr(guest, c->a);
        for (uint64_t i = 0; i < c->b; i++)
            ++*counter;
        return 0;
    case PUPPET_CRASH:
        abort();
    case PUPPET_FDS:
        return count_fds();
    case PUPPET_EXIT:
        break;
    }
    return -EINVAL;
}

static int guest_main(struct fakehyp_guest *guest, void *arg)
{
    struct puppet_command *c = (struct puppet_command *)arg + fakehyp_guest_vcpu(guest);

    for (;;) {
        fakehyp_guest_hypercall(guest, HVC_PUPPET_NEXT, 0, 0, 0);
        if (c->op == PUPPET_EXIT)
            return (int)c->a;
        c->result = obey(guest, c);
    }
}

/* ---- the VMM ---------------------------------------------------------------------------------------------------- */

int pvm_convert(struct pvm *v, uint64_t page, uint64_t nr, uint64_t attributes)
{
    return fakehyp_convert(v->gmem, page * PAGE, nr * PAGE, attributes, &v->last_error_offset);
}

void pvm_create(struct pvm *v, struct fakehyp *fh, const struct pvm_config *config)
{
    struct fakehyp_vm_config vm = config->variant;
    void *view;

    vm.name = "puppet";
    vm.unshare_mode = config->mode;
    vm.unprotected = config->unprotected;
    *v = (struct pvm){.fh = fh, .run_timeout_ms = RUN_MS};
    v->bytes = (config->pages ? config->pages : 16) * PAGE;
    v->nr_vcpus = config->vcpus ? config->vcpus : 1;
    must(fakehyp_vm_create(fh, &vm, &v->vm));
    must(fakehyp_gmem_create(v->vm, v->bytes, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &v->gmem));
    must(fakehyp_set_memory_region(v->vm, 0, 0, v->bytes, v->gmem, 0));
    must(fakehyp_map(v->gmem, NULL, v->bytes, PROT_READ | PROT_WRITE, 0, &view));
    v->view = view;
    if (config->image)
        strcpy((char *)v->view, config->image);
    if (!config->shared)
        must(fakehyp_convert(v->gmem, 0, v->bytes, FAKEHYP_PRIVATE, NULL));
    v->commands =
        mmap(NULL, sizeof(*v->commands) * PVM_MAX_VCPUS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(v->commands, MAP_FAILED);
    for (unsigned i = 0; i < v->nr_vcpus; i++) {
        struct puppet *p = &v->puppet[i];
        must(fakehyp_vcpu_create(v->vm, i, &p->vcpu));
        p->vm = v;
        p->run = fakehyp_vcpu_state(p->vcpu);
        p->command = &v->commands[i];
    }
    must(fakehyp_guest_start(v->vm, guest_main, v->commands));
}

void pvm_destroy(struct pvm *v)
{
    must(fakehyp_unmap(v->fh, v->view, v->bytes));
    must(fakehyp_vm_destroy(v->vm));
    fakehyp_gmem_close(v->gmem);
    munmap(v->commands, sizeof(*v->commands) * PVM_MAX_VCPUS);
}

bool pvm_reads(const struct pvm *v, uint64_t offset, uint8_t *value)
{
    return fakehyp_touch_read(v->view + offset, value, NULL, NULL) == FAKEHYP_TOUCH_OK;
}

bool pvm_writes(struct pvm *v, uint64_t offset, uint8_t value)
{
    return fakehyp_touch_write(v->view + offset, value, NULL, NULL) == FAKEHYP_TOUCH_OK;
}

void assert_refused(const volatile void *p)
{
    void *addr = NULL;
    int code = 0;

    assert_int_equal(fakehyp_touch_read(p, NULL, &addr, &code), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(code, BUS_ADRERR);
    assert_ptr_equal(addr, p);
    addr = NULL;
    assert_int_equal(fakehyp_touch_write((volatile void *)p, 1, &addr, &code), FAKEHYP_TOUCH_SIGBUS);
    assert_int_equal(code, BUS_ADRERR);
    assert_ptr_equal(addr, p);
}

void assert_reads(const volatile void *p, uint8_t value)
{
    uint8_t got = 0;

    assert_int_equal(fakehyp_touch_read(p, &got, NULL, NULL), FAKEHYP_TOUCH_OK);
    assert_int_equal(got, value);
}

/* ---- running it ------------------------------------------------------------------------------------------------- */

/* Starts a puppet that has not run yet: it asks for its first command. */
static void first_entry(struct puppet *p)
{
    if (p->waits || p->command->op)
        return;
    must(fakehyp_vcpu_run(p->vcpu, RUN_MS));
    assert_int_equal(p->run->exit_reason, FAKEHYP_EXIT_HYPERCALL);
    assert_int_equal(p->run->hypercall.nr, HVC_PUPPET_NEXT);
    p->waits = true;
}

void puppet_give(struct puppet *p, enum puppet_op op, uint64_t a, uint64_t b, uint64_t c)
{
    first_entry(p);
    assert_true(p->waits);
    p->command->op = op;
    p->command->a = a;
    p->command->b = b;
    p->command->c = c;
    p->command->result = INT64_MIN;
    p->waits = false;
}

/* What the guest asks of the VMM: true when it was a conversion and has been tried. */
static bool follow(struct puppet *p, int rc)
{
    const struct fakehyp_run *run = p->run;
    struct pvm *v = p->vm;
    uint64_t gpa, attributes;

    if (rc == -EFAULT && run->exit_reason == FAKEHYP_EXIT_MEMORY_FAULT) {
        v->memory_faults++;
        gpa = run->memory_fault.gpa;
        attributes = run->memory_fault.flags & FAKEHYP_MEMORY_EXIT_FLAG_PRIVATE ? FAKEHYP_PRIVATE : FAKEHYP_SHARED;
    } else if (!rc && run->exit_reason == FAKEHYP_EXIT_HYPERCALL &&
               (run->hypercall.nr == HVC_MEM_SHARE || run->hypercall.nr == HVC_MEM_UNSHARE)) {
        gpa = run->hypercall.args[0];
        attributes = run->hypercall.nr == HVC_MEM_UNSHARE ? FAKEHYP_PRIVATE : FAKEHYP_SHARED;
    } else {
        return false;
    }
    if (v->ignore)
        return false;
    v->last_convert = pvm_convert(v, gpa / PAGE, 1, attributes);
    return true;
}

int puppet_go(struct puppet *p)
{
    for (unsigned i = 0; i < 1000; i++) {
        int rc = fakehyp_vcpu_run(p->vcpu, p->vm->run_timeout_ms);
        if (follow(p, rc))
            continue;
        if (rc)
            return rc;
        if (p->run->exit_reason == FAKEHYP_EXIT_SYSTEM_EVENT)
            return PUPPET_ENDED;
        if (p->run->exit_reason == FAKEHYP_EXIT_HYPERCALL && p->run->hypercall.nr == HVC_PUPPET_NEXT) {
            p->waits = true;
            return PUPPET_DONE;
        }
        return PUPPET_NEEDS;
    }
    return -ELOOP;
}

int puppet_do(struct puppet *p, enum puppet_op op, uint64_t a, uint64_t b, uint64_t c)
{
    puppet_give(p, op, a, b, c);
    return puppet_go(p);
}

void puppet_read(struct puppet *p, uint64_t ipa, void *buf, size_t length)
{
    must(puppet_do(p, PUPPET_READ, ipa, length, 0));
    memcpy(buf, p->command->data, length);
}

void puppet_write(struct puppet *p, uint64_t ipa, const void *buf, size_t length)
{
    first_entry(p);
    memcpy(p->command->data, buf, length);
    must(puppet_do(p, PUPPET_WRITE, ipa, length, 0));
}

uint8_t puppet_byte(struct puppet *p, uint64_t ipa)
{
    uint8_t byte;

    puppet_read(p, ipa, &byte, 1);
    return byte;
}

int64_t puppet_call(struct puppet *p, uint64_t nr, uint64_t x1, uint64_t x2)
{
    must(puppet_do(p, PUPPET_CALL, nr, x1, x2));
    return p->command->result;
}

int64_t puppet_share(struct puppet *p, uint64_t ipa)
{
    return puppet_call(p, HVC_MEM_SHARE, ipa, 0);
}

int64_t puppet_unshare(struct puppet *p, uint64_t ipa)
{
    return puppet_call(p, HVC_MEM_UNSHARE, ipa, 0);
}

void puppet_exit(struct puppet *p, int code)
{
    assert_int_equal(puppet_do(p, PUPPET_EXIT, (uint64_t)(int64_t)code, 0, 0), PUPPET_ENDED);
    assert_int_equal(p->run->system_event.type, FAKEHYP_SYSTEM_EVENT_SHUTDOWN);
    assert_int_equal((int64_t)p->run->system_event.data, code);
}
