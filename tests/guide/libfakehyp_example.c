/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

#include <fakehyp/fakehyp.h>

#define SIZE (16 * FAKEHYP_PAGE_SIZE)
#define MAILBOX 0x3000 /* a guest physical address */

/* Runs in a process of its own, over private memory. */
static int guest_main(struct fakehyp_guest *guest, void *arg)
{
    (void)arg;
    fakehyp_guest_store(guest, MAILBOX, 4, 42);
    return fakehyp_guest_mem_share(guest, MAILBOX) ? 1 : 0;
}

static int run(struct fakehyp *fh)
{
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    struct fakehyp_vcpu *vcpu;
    void *view;

    if (fakehyp_vm_create(fh, NULL, &vm) || fakehyp_gmem_create(vm, SIZE, FAKEHYP_GMEM_MMAP, &gmem) ||
        fakehyp_map(gmem, NULL, SIZE, PROT_READ | PROT_WRITE, 0, &view) ||
        fakehyp_set_memory_region(vm, 0, 0, SIZE, gmem, 0) || fakehyp_vcpu_create(vm, 0, &vcpu) ||
        fakehyp_guest_start(vm, guest_main, NULL))
        return -1;
    const uint8_t *mailbox = (uint8_t *)view + MAILBOX;
    if (fakehyp_touch_read(mailbox, NULL, NULL, NULL) == FAKEHYP_TOUCH_SIGBUS)
        printf("private: a load is a SIGBUS\n");
    /* Converts what the guest asks to have converted, until it ends. */
    if (fakehyp_vcpu_run_converting(vcpu, gmem, 0, -1))
        return -1;
    printf("shared: %u\n", mailbox[0]);
    return 0;
}

int main(void)
{
    struct fakehyp *fh;

    if (fakehyp_connect(NULL, &fh) || run(fh)) {
        fprintf(stderr, "%s\n", fakehyp_last_error());
        return 1;
    }
    fakehyp_disconnect(fh);
    return 0;
}
