/* SPDX-License-Identifier: BSD-2-Clause */
#include <fakehyp/fakehyp.h>

#include <stdio.h>
#include <sys/mman.h>

#define SIZE (16 * FAKEHYP_PAGE_SIZE)
#define CALL_READY 0xC6001000 /* nobody's number: the call goes to the VMM */

static int guest_main(struct fakehyp_guest *guest, void *arg)
{
    (void)arg;
    fakehyp_guest_store(guest, 0x1000, 8, 42);
    fakehyp_guest_store(guest, 0x2000, 8, 43);
    fakehyp_guest_mem_share(guest, 0x2000);
    fakehyp_guest_hypercall(guest, CALL_READY, 0, 0, 0);
    return (int)fakehyp_guest_load(guest, 0x1000, 8);
}

static int check(const char *what, int rc)
{
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", what, fakehyp_last_error());
    return rc < 0;
}

int main(void)
{
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_vcpu *vcpu;
    struct fakehyp_gmem *gmem;
    void *view;

    if (check("connect", fakehyp_connect(NULL, &fh)) || check("VM", fakehyp_vm_create(fh, NULL, &vm)) ||
        check("guest_memfd", fakehyp_gmem_create(vm, SIZE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &gmem)) ||
        check("map", fakehyp_map(gmem, NULL, SIZE, PROT_READ | PROT_WRITE, 0, &view)) ||
        check("to private", fakehyp_convert(gmem, 0, SIZE, FAKEHYP_PRIVATE, NULL)) ||
        check("memslot", fakehyp_set_memory_region(vm, 0, 0, SIZE, gmem, 0)) ||
        check("vCPU", fakehyp_vcpu_create(vm, 0, &vcpu)) || check("guest", fakehyp_guest_start(vm, guest_main, NULL)) ||
        check("run", fakehyp_vcpu_run_converting(vcpu, gmem, 0, -1)))
        return 1;
    puts("ready; Enter lets the guest go on");
    fflush(stdout);
    getchar();
    int rc = fakehyp_vcpu_run_converting(vcpu, gmem, 0, -1);
    printf("KVM_RUN: %d, exit reason %u\n", rc, fakehyp_vcpu_state(vcpu)->exit_reason);
    fakehyp_disconnect(fh);
    return 0;
}
