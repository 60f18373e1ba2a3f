/* SPDX-License-Identifier: BSD-2-Clause */
/* The scene's VMM and guest, and the operations. */
#include "tests/common/live_scene_vmm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/common/live_puppet.h"

#define RUN_MS 20000
#define GPA1 (UINT64_C(16) << 20) /* of the second file */
#define GPA2 (UINT64_C(64) << 20) /* of a slot that comes later */
#define LARGE 512u
#define GUEST_ENDED (-ECHILD) /* the only result that is this file's own */

const uint64_t scene_pages[2] = {32, 1024};
static const uint64_t gpa_of[2] = {0, GPA1};

struct scene_vmm {
    struct scene_shared *sh;
    const struct scene_op *op;
    struct fakehyp *fh;
    struct fakehyp_vm *vm, *idle_vm; /* the second never runs */
    struct fakehyp_gmem *gmem[2], *idle_gmem, *spare, *own;
    struct fakehyp_vcpu *vcpu;
    volatile uint64_t *view[2];
    void *other_view;
};

/* ---- the guest -----------------------------------------------------------------------------------------------------
 */

enum guest_op { GUEST_STORE = 1, GUEST_SHARE, GUEST_UNSHARE };

static _Noreturn int guest_main(struct fakehyp_guest *guest, void *arg)
{
    struct scene_shared *sh = arg;

    for (;;) {
        fakehyp_guest_hypercall(guest, HVC_PUPPET_NEXT, 0, 0, 0);
        switch (sh->guest_op) {
        case GUEST_STORE:
            for (uint64_t i = 0; i < sh->nr; i++)
                fakehyp_guest_store(guest, sh->ipa + i * PAGE + 8, 8, sh->value + i);
            sh->guest_result = 0;
            break;
        case GUEST_SHARE:
            sh->guest_result = fakehyp_guest_mem_share(guest, sh->ipa);
            break;
        default:
            sh->guest_result = fakehyp_guest_mem_unshare(guest, sh->ipa);
            break;
        }
    }
}

/* Runs the vCPU until the guest asks for its next command. */
static int run_guest(struct scene_vmm *v)
{
    const struct fakehyp_run *run = fakehyp_vcpu_state(v->vcpu);

    for (;;) {
        /* All that the guest asks to be converted is in the first file. */
        int rc = fakehyp_vcpu_run_converting(v->vcpu, v->gmem[0], 0, RUN_MS);
        if (rc)
            return rc;
        if (run->exit_reason != FAKEHYP_EXIT_HYPERCALL)
            return GUEST_ENDED;
        if (run->hypercall.nr == HVC_PUPPET_NEXT)
            return 0;
    }
}

static int guest_does(struct scene_vmm *v, enum guest_op op, unsigned file, uint64_t page, uint64_t nr, uint64_t value)
{
    v->sh->guest_op = op;
    v->sh->ipa = gpa_of[file] + page * PAGE;
    v->sh->nr = nr;
    v->sh->value = value;
    v->sh->guest_result = -1;
    int rc = run_guest(v);
    return rc ? rc : (int)v->sh->guest_result;
}

/* ---- operations
 * ------------------------------------------------------------------------------------------------------ */

static int convert(struct scene_vmm *v, unsigned file, uint64_t page, uint64_t nr, uint64_t attributes)
{
    return fakehyp_convert(v->gmem[file], page * PAGE, nr * PAGE, attributes, NULL);
}

static void fill(struct scene_vmm *v, unsigned file, uint64_t page, uint64_t nr)
{
    for (uint64_t i = page; i < page + nr; i++)
        v->view[file][i * (PAGE / 8)] = i;
}

static int fill_small(struct scene_vmm *v)
{
    fill(v, 0, 8, 1);
    return 0;
}
static int fill_large(struct scene_vmm *v)
{
    fill(v, 1, LARGE, LARGE);
    return 0;
}
static int to_private(struct scene_vmm *v)
{
    return convert(v, 0, 8, 1, FAKEHYP_PRIVATE);
}
static int to_private_hole(struct scene_vmm *v)
{
    return convert(v, 1, 600, 1, FAKEHYP_PRIVATE);
}
static int to_private_large(struct scene_vmm *v)
{
    return convert(v, 1, LARGE, LARGE, FAKEHYP_PRIVATE);
}
static int filled_private(struct scene_vmm *v)
{
    fill_small(v);
    return to_private(v);
}
static int filled_private_large(struct scene_vmm *v)
{
    fill_large(v);
    return to_private_large(v);
}
static int to_shared(struct scene_vmm *v)
{
    return convert(v, 0, 8, 1, FAKEHYP_SHARED);
}
static int to_shared_hole(struct scene_vmm *v)
{
    return convert(v, 1, 600, 1, FAKEHYP_SHARED);
}
static int to_shared_large(struct scene_vmm *v)
{
    return convert(v, 1, LARGE, LARGE, FAKEHYP_SHARED);
}

/* The guest's own page, shared by it, mapped in its process, and taken back. */
static int own_page(struct scene_vmm *v)
{
    int rc = to_private(v);
    return rc ? rc : guest_does(v, GUEST_STORE, 0, 8, 1, 0x11);
}
static int share(struct scene_vmm *v)
{
    int rc = guest_does(v, GUEST_SHARE, 0, 8, 1, 0);
    return rc ? rc : guest_does(v, GUEST_STORE, 0, 8, 1, 0x12);
}
static int own_and_share(struct scene_vmm *v)
{
    int rc = own_page(v);
    return rc ? rc : share(v);
}
static int unshare(struct scene_vmm *v)
{
    return guest_does(v, GUEST_UNSHARE, 0, 8, 1, 0);
}

static int private_block(struct scene_vmm *v)
{
    return convert(v, 0, 8, 4, FAKEHYP_PRIVATE);
}
static int fault(struct scene_vmm *v)
{
    return guest_does(v, GUEST_STORE, 0, 8, 4, SCENE_SECRET + 8);
}
static int guest_has_block(struct scene_vmm *v)
{
    int rc = private_block(v);
    return rc ? rc : fault(v);
}

static int punch(struct scene_vmm *v)
{
    return fakehyp_punch(v->gmem[0], 8 * PAGE, 4 * PAGE);
}
static int punch_large(struct scene_vmm *v)
{
    return fakehyp_punch(v->gmem[1], LARGE * PAGE, LARGE * PAGE);
}

static int map(struct scene_vmm *v)
{
    return fakehyp_map(v->gmem[1], NULL, scene_pages[1] * PAGE, PROT_READ | PROT_WRITE, 0, &v->other_view);
}
static int unmap(struct scene_vmm *v)
{
    return fakehyp_unmap(v->fh, v->other_view, scene_pages[1] * PAGE);
}

static int slot_add(struct scene_vmm *v)
{
    return fakehyp_set_memory_region(v->vm, 7, GPA2, 4 * PAGE, v->spare, 0);
}
static int slot_remove(struct scene_vmm *v)
{
    return fakehyp_set_memory_region(v->idle_vm, 0, 0, 0, NULL, 0);
}

static int pin(struct scene_vmm *v)
{
    struct fakehyp_pin *pin;
    return fakehyp_pin(v->gmem[0], 8 * PAGE, 4 * PAGE, FAKEHYP_FOLL_PIN, "scene", &pin);
}

static int fill_and_pin(struct scene_vmm *v)
{
    fill_small(v);
    return pin(v);
}
/* Somebody holds the page all the time: policy B gives up after 10 ms. */
static int to_private_busy(struct scene_vmm *v)
{
    int rc = to_private(v);
    return rc == -EBUSY ? 0 : rc ? rc : -EPROTO;
}

/* The kernel loads from the guest's page by mistake: pKVM takes the page from the guest. */
static int errant_load(struct scene_vmm *v)
{
    char *json = NULL;
    int rc = fakehyp_query(v->fh, "kernel-load", v->gmem[0], 8 * PAGE, &json);
    free(json);
    return rc;
}

static int destroy(struct scene_vmm *v)
{
    struct fakehyp_vm *vm = v->vm;
    v->vm = NULL; /* gone, also when it fails */
    return fakehyp_vm_destroy(vm);
}
/* A file that nobody else has, so that its memory goes with it. */
static int file_of_its_own(struct scene_vmm *v)
{
    void *view;
    int rc = fakehyp_gmem_create(v->vm, scene_pages[1] * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &v->own);
    rc = rc ? rc : fakehyp_map(v->own, NULL, scene_pages[1] * PAGE, PROT_READ | PROT_WRITE, 0, &view);
    if (rc)
        return rc;
    memset(view, 1, scene_pages[1] * PAGE);
    return fakehyp_unmap(v->fh, view, scene_pages[1] * PAGE);
}
static int close_file(struct scene_vmm *v)
{
    fakehyp_gmem_close(v->own);
    return 0;
}
static int disconnect(struct scene_vmm *v)
{
    fakehyp_disconnect(v->fh);
    v->fh = NULL;
    return 0;
}
static int pin_and_map(struct scene_vmm *v)
{
    int rc = pin(v);
    return rc ? rc : map(v);
}

const struct scene_op scene_ops[] = {
    {"convert to private, populated", fill_small, to_private, 0, 8, 1, NULL, NULL},
    {"convert to private, a hole", NULL, to_private_hole, 1, 600, 1, NULL, NULL},
    {"convert to private, large, populated", fill_large, to_private_large, 1, LARGE, 8, NULL, NULL},
    {"convert to private, large, a hole", NULL, to_private_large, 1, LARGE, 8, NULL, NULL},
    {"convert to private, policy A, its checks in the wrong order", fill_small, to_private, 0, 8, 1, "A",
     "naive-check-order"},
    {"convert to private, policy B, pinned", fill_and_pin, to_private_busy, 0, 0, 0, "B", NULL},
    {"convert to shared, populated", filled_private, to_shared, 0, 0, 0, NULL, NULL},
    {"convert to shared, a hole", to_private_hole, to_shared_hole, 0, 0, 0, NULL, NULL},
    {"convert to shared, large, populated", filled_private_large, to_shared_large, 0, 0, 0, NULL, NULL},
    {"convert to shared, large, a hole", to_private_large, to_shared_large, 0, 0, 0, NULL, NULL},
    {"share by the guest, and its touch", own_page, share, 0, 0, 0, NULL, NULL},
    {"unshare by the guest", own_and_share, unshare, 0, 8, 1, NULL, NULL},
    {"fault of the guest", private_block, fault, 0, 8, 4, NULL, NULL},
    {"punch, shared", fill_small, punch, 0, 0, 0, NULL, NULL},
    {"punch, the guest's", guest_has_block, punch, 0, 0, 0, NULL, NULL},
    {"punch, large", fill_large, punch_large, 0, 0, 0, NULL, NULL},
    {"pin", fill_small, pin, 0, 0, 0, NULL, NULL},
    {"map", NULL, map, 0, 0, 0, NULL, NULL},
    {"unmap", map, unmap, 0, 0, 0, NULL, NULL},
    {"memslot, added", NULL, slot_add, 0, 0, 0, NULL, NULL},
    {"memslot, removed", NULL, slot_remove, 0, 0, 0, NULL, NULL},
    {"errant load of the kernel", guest_has_block, errant_load, 0, 0, 0, NULL, NULL},
    {"teardown", guest_has_block, destroy, 0, 0, 0, NULL, NULL},
    {"close of a file", file_of_its_own, close_file, 0, 0, 0, NULL, NULL},
    {"end of a process", pin_and_map, disconnect, 0, 0, 0, NULL, NULL},
};
const unsigned scene_nr_ops = sizeof(scene_ops) / sizeof(scene_ops[0]);

/* ---- the VMM
 * --------------------------------------------------------------------------------------------------------- */

static int set_up_vm(struct scene_vmm *v)
{
    const struct fakehyp_vm_config config = {.name = "scene", .policy = v->op->policy, .bugs = v->op->bugs};
    void *view;
    int rc = fakehyp_connect(v->sh->socket, &v->fh);

    rc = rc ? rc : fakehyp_vm_create(v->fh, &config, &v->vm);
    for (unsigned i = 0; i < 2 && !rc; i++) {
        rc = fakehyp_gmem_create(v->vm, scene_pages[i] * PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED,
                                 &v->gmem[i]);
        rc = rc ? rc : fakehyp_set_memory_region(v->vm, i, gpa_of[i], scene_pages[i] * PAGE, v->gmem[i], 0);
        rc = rc ? rc : fakehyp_map(v->gmem[i], NULL, scene_pages[i] * PAGE, PROT_READ | PROT_WRITE, 0, &view);
        v->view[i] = view;
        rc = rc ? rc : convert(v, i, 0, SCENE_SECRETS, FAKEHYP_PRIVATE);
    }
    rc = rc ? rc : fakehyp_gmem_create(v->vm, 4 * PAGE, FAKEHYP_GMEM_MMAP, &v->spare);
    rc = rc ? rc : fakehyp_vm_create(v->fh, NULL, &v->idle_vm);
    rc = rc ? rc : fakehyp_gmem_create(v->idle_vm, 4 * PAGE, FAKEHYP_GMEM_MMAP, &v->idle_gmem);
    return rc ? rc : fakehyp_set_memory_region(v->idle_vm, 0, 0, 4 * PAGE, v->idle_gmem, 0);
}

static int set_up_guest(struct scene_vmm *v)
{
    int rc = fakehyp_vcpu_create(v->vm, 0, &v->vcpu);

    rc = rc ? rc : fakehyp_guest_start(v->vm, guest_main, v->sh);
    if (!rc)
        v->sh->guest = fakehyp_guest_pid(v->vm);
    rc = rc ? rc : run_guest(v);
    for (unsigned i = 0; i < 2 && !rc; i++)
        rc = guest_does(v, GUEST_STORE, i, 0, SCENE_SECRETS, SCENE_SECRET);
    return rc;
}

/* What the guest alone has now it fills with secrets, which the reader looks for. */
static void keep_secrets(struct scene_vmm *v, const struct scene_op *op)
{
    if (op->keep_nr)
        guest_does(v, GUEST_STORE, op->keep, op->keep_page, op->keep_nr, SCENE_SECRET + op->keep_page);
}

static void act(struct scene_vmm *v, const struct scene_op *op)
{
    int rc = op->run(v);

    if (rc)
        snprintf(v->sh->text, sizeof(v->sh->text), "%s", rc == GUEST_ENDED ? "the guest ended" : fakehyp_last_error());
    v->sh->rc = rc;
    if (!rc)
        keep_secrets(v, op);
    atomic_store(&v->sh->done, true);
}

_Noreturn void scene_vmm_main(struct scene_shared *sh, const struct scene_op *op, int sock, int reader_sock)
{
    struct scene_vmm v = {.sh = sh, .op = op};
    char byte = 0;

    rig_child();
    int rc = set_up_vm(&v);
    for (unsigned i = 0; i < 2 && !rc; i++)
        rc = rig_send_fd(reader_sock, fakehyp_gmem_fd(v.gmem[i])) ? 0 : -EPIPE;
    rc = rc ? rc : set_up_guest(&v);
    if (!rc && op->prepare)
        rc = op->prepare(&v);
    if (rc) {
        scene_fail(sh, "setting it: %d: %s", rc, fakehyp_last_error());
        _exit(1);
    }
    close(reader_sock);
    if (send(sock, &byte, 1, MSG_NOSIGNAL) != 1)
        _exit(1);
    while (recv(sock, &byte, 1, 0) == 1 && byte == 'g')
        act(&v, op);
    if (v.fh && v.vm)
        fakehyp_vm_destroy(v.vm);
    fakehyp_disconnect(v.fh);
    _exit(0);
}
