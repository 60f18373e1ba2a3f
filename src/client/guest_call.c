/* SPDX-License-Identifier: BSD-2-Clause */
/* What a guest function can do: touch its memory and call the hypervisor. */
#include "src/client/guest.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HYP_MEMINFO 0xC6000002u
#define HYP_MEM_SHARE 0xC6000003u
#define HYP_MEM_UNSHARE 0xC6000004u
#define PSCI_SYSTEM_OFF 0x84000008u

#define SMCCC_NOT_SUPPORTED (-1)

static _Noreturn void sleep_for_ever(void)
{
    for (;;)
        pause();
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static char *at(const struct fakehyp_guest *guest, uint64_t ipa, uint64_t length)
{
    uint64_t size = guest->process->ipa_size;

    if (length > size || ipa > size - length) {
        fprintf(stderr, "fakehyp guest: IPA %#llx is beyond the IPA space of %#llx bytes\n", (unsigned long long)ipa,
                (unsigned long long)size);
        abort();
    }
    return guest->process->ram + ipa;
}

uint32_t fakehyp_guest_vcpu(const struct fakehyp_guest *guest)
{
    return guest->index;
}

void *fakehyp_guest_ptr(const struct fakehyp_guest *guest, uint64_t ipa)
{
    return at(guest, ipa, 1);
}

static _Noreturn void bad_width(size_t bytes)
{
    fprintf(stderr, "fakehyp guest: an access of %zu bytes; it can be 1, 2, 4 or 8\n", bytes);
    abort();
}

uint64_t fakehyp_guest_load(const struct fakehyp_guest *guest, uint64_t ipa, size_t bytes)
{
    const void *p = at(guest, ipa, bytes);

    switch (bytes) {
    case 1:
        return *(const volatile uint8_t *)p;
    case 2:
        return *(const volatile uint16_t *)p;
    case 4:
        return *(const volatile uint32_t *)p;
    case 8:
        return *(const volatile uint64_t *)p;
    default:
        bad_width(bytes);
    }
}

void fakehyp_guest_store(const struct fakehyp_guest *guest, uint64_t ipa, size_t bytes, uint64_t value)
{
    void *p = at(guest, ipa, bytes);

    switch (bytes) {
    case 1:
        *(volatile uint8_t *)p = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)p = (uint16_t)value;
        break;
    case 4:
        *(volatile uint32_t *)p = (uint32_t)value;
        break;
    case 8:
        *(volatile uint64_t *)p = value;
        break;
    default:
        bad_width(bytes);
    }
}

void fakehyp_guest_read(const struct fakehyp_guest *guest, uint64_t ipa, void *buf, size_t length)
{
    memcpy(buf, at(guest, ipa, length), length);
}

void fakehyp_guest_write(const struct fakehyp_guest *guest, uint64_t ipa, const void *buf, size_t length)
{
    memcpy(at(guest, ipa, length), buf, length);
}

/* ---- hypercalls ------------------------------------------------------------------------------------------------ */

/* The vCPU's socket failed: closed by the guest function, or the machine is going down. */
static _Noreturn void socket_lost(int rc)
{
    if (rc == -EBADF || rc == -ENOTSOCK) {
        fprintf(stderr, "fakehyp guest: the guest function has closed the descriptor of its vCPU\n");
        abort();
    }
    for (;;)
        kill(getpid(), SIGKILL);
}

static Fakehyp__Reply *call(struct fakehyp_guest *guest, Fakehyp__Request *request)
{
    request->id = ++guest->next_id;
    int rc = chan_send_request(guest->sock, request, NULL, 0, 0);
    if (rc)
        socket_lost(rc);
    for (;;) {
        rc = chan_recv(guest->sock, &guest->in, 0);
        if (rc <= 0)
            socket_lost(rc);
        chan_msg_close_fds(&guest->in);
        Fakehyp__Reply *reply = chan_unpack_reply(&guest->in);
        if (reply && reply->id == request->id)
            return reply;
        if (reply)
            fakehyp__reply__free_unpacked(reply, NULL);
    }
}

int64_t fakehyp_guest_hypercall(struct fakehyp_guest *guest, uint64_t function_id, uint64_t x1, uint64_t x2,
                                uint64_t x3)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Hypercall body = FAKEHYP__HYPERCALL__INIT;
    int64_t x0 = SMCCC_NOT_SUPPORTED;

    body.x0 = function_id;
    body.x1 = x1;
    body.x2 = x2;
    body.x3 = x3;
    request.body_case = FAKEHYP__REQUEST__BODY_HYPERCALL;
    request.hypercall = &body;
    Fakehyp__Reply *reply = call(guest, &request);
    if (reply->error == 0 && reply->body_case == FAKEHYP__REPLY__BODY_HYPERCALL)
        x0 = (int64_t)reply->hypercall->x0;
    fakehyp__reply__free_unpacked(reply, NULL);
    return x0;
}

int64_t fakehyp_guest_mem_share(struct fakehyp_guest *guest, uint64_t ipa)
{
    return fakehyp_guest_hypercall(guest, HYP_MEM_SHARE, ipa, 0, 0);
}

int64_t fakehyp_guest_mem_unshare(struct fakehyp_guest *guest, uint64_t ipa)
{
    return fakehyp_guest_hypercall(guest, HYP_MEM_UNSHARE, ipa, 0, 0);
}

int64_t fakehyp_guest_meminfo(struct fakehyp_guest *guest)
{
    return fakehyp_guest_hypercall(guest, HYP_MEMINFO, 0, 0, 0);
}

/* ---- life of a vCPU -------------------------------------------------------------------------------------------- */

_Noreturn void guest_vcpu_run(struct fakehyp_guest *guest, guest_main_fn entry, void *arg)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__VcpuReady body = FAKEHYP__VCPU_READY__INIT;

    body.tid = (uint32_t)gettid();
    request.body_case = FAKEHYP__REQUEST__BODY_VCPU_READY;
    request.vcpu_ready = &body;
    Fakehyp__Reply *reply = call(guest, &request);
    int refused = reply->error;
    fakehyp__reply__free_unpacked(reply, NULL);
    if (refused)
        sleep_for_ever();

    int result = entry(guest, arg);
    /* The process is killed, it does not exit: what it printed must leave its buffer now. */
    fflush(stdout);
    fakehyp_guest_hypercall(guest, PSCI_SYSTEM_OFF, (uint64_t)(int64_t)result, 0, 0);
    sleep_for_ever();
}
