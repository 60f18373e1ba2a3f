/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front door of EL2: numbers and shared structures of the hypercall ABI.
 *
 * This is the only header of fakehyp/ that EL1 (src/host/) may include.
 *
 * Host calls use the SMC calling convention, fast, 64-bit, owner 6 (vendor
 * specific hypervisor service): function id = 0xC6000000 + n, arguments in
 * x1.., and on return x0 = 0 when the number was dispatched, -1
 * (NOT_SUPPORTED) when it was not; x1 carries the value or the negative errno.
 * The host numbers are those of one 7.1-era tree (asm/kvm_asm.h); upstream
 * calls them internal and changes them at will.  The last one it has not: it
 * is for a kernel that keeps no record of what is shared and has to ask.  The guest ids below them are
 * stable ABI (Documentation/virt/kvm/arm/hypercalls.rst).
 *
 * All addresses that cross this interface are physical addresses in bytes;
 * pfn and gfn are in pages of 4 KiB.
 */
#ifndef FAKEHYP_HYPERCALL_H
#define FAKEHYP_HYPERCALL_H

#include <stdint.h>

#define HYP_PAGE_SHIFT 12
#define HYP_PAGE_SIZE (UINT64_C(1) << HYP_PAGE_SHIFT)

/* errno values that EL2 returns, with Linux' numbers (include/uapi/asm-generic/errno*.h). */
#define HYP_ERRNO_MAP(X)                                                                                               \
    X(EPERM, 1)                                                                                                        \
    X(ENOENT, 2)                                                                                                       \
    X(EIO, 5)                                                                                                          \
    X(E2BIG, 7)                                                                                                        \
    X(EAGAIN, 11)                                                                                                      \
    X(ENOMEM, 12)                                                                                                      \
    X(EFAULT, 14)                                                                                                      \
    X(EBUSY, 16)                                                                                                       \
    X(EEXIST, 17)                                                                                                      \
    X(EINVAL, 22)                                                                                                      \
    X(ERANGE, 34)                                                                                                      \
    X(EHWPOISON, 133)

enum hyp_errno {
#define X(name, value) HYP_##name = value,
    HYP_ERRNO_MAP(X)
#undef X
};

#define HVC_HOST_BASE UINT64_C(0xC6000000)

/*
 * n, name, number of arguments (x1..).  The kernel has three kinds: below
 * prot_finalize the calls that set EL2 up, of which there is none here, so that
 * these numbers are refused at all times; up to HVC_PKVM_ONLY those that any
 * EL2 has; from there on pKVM's own, refused before prot_finalize.
 */
#define HYP_HOST_CALL_MAP(X)                                                                                           \
    X(7, prot_finalize, 0)                                                                                             \
    X(9, vcpu_run, 1)                                                                                                  \
    X(33, host_share_hyp, 1)                                                                                           \
    X(34, host_unshare_hyp, 1)                                                                                         \
    X(35, host_donate_guest, 2)                                                                                        \
    X(36, host_share_guest, 4)                                                                                         \
    X(37, host_unshare_guest, 3)                                                                                       \
    X(38, relax_perms_guest, 2)                                                                                        \
    X(39, wrprotect_guest, 3)                                                                                          \
    X(40, test_clear_young_guest, 4)                                                                                   \
    X(41, mkyoung_guest, 1)                                                                                            \
    X(42, reserve_vm, 0)                                                                                               \
    X(43, unreserve_vm, 1)                                                                                             \
    X(44, init_vm, 3)                                                                                                  \
    X(45, init_vcpu, 3)                                                                                                \
    X(46, vcpu_in_poison_fault, 0)                                                                                     \
    X(47, force_reclaim_guest_page, 1)                                                                                 \
    X(48, reclaim_dying_guest_page, 2)                                                                                 \
    X(49, start_teardown_vm, 1)                                                                                        \
    X(50, finalize_teardown_vm, 1)                                                                                     \
    X(51, vcpu_load, 3)                                                                                                \
    X(52, vcpu_put, 0)                                                                                                 \
    X(53, tlb_flush_vmid, 1)                                                                                           \
    X(54, host_may_access, 1)

#define HVC_PKVM_ONLY 33

enum hyp_host_call {
#define X(n, name, nargs) HVC_##name = n,
    HYP_HOST_CALL_MAP(X)
#undef X
};

/* Guest calls: stable ids. */
#define SMCCC_VENDOR_HYP_FEATURES UINT64_C(0x86000000)
#define SMCCC_VENDOR_HYP_UID UINT64_C(0x8600FF01)
#define SMCCC_HYP_MEMINFO UINT64_C(0xC6000002)
#define SMCCC_MEM_SHARE UINT64_C(0xC6000003)
#define SMCCC_MEM_UNSHARE UINT64_C(0xC6000004)
/* PSCI 0.2 SYSTEM_OFF: EL2 does not handle it, the host does. */
#define PSCI_SYSTEM_OFF UINT64_C(0x84000008)

#define SMCCC_RET_SUCCESS INT64_C(0)
#define SMCCC_RET_NOT_SUPPORTED INT64_C(-1)
#define SMCCC_RET_INVALID_PARAMETER INT64_C(-3)

/* Return values of vcpu_run in x1 (arch/arm64/include/asm/kvm_asm.h). */
#define ARM_EXCEPTION_TRAP 2

/* ESR_EL2: exception class in bits 31:26, fault status code in bits 5:0, WnR in bit 6, S1PTW in bit 7. */
#define ESR_EC_SHIFT 26
#define ESR_EC_HVC64 UINT64_C(0x16)
#define ESR_EC_IABT_LOW UINT64_C(0x20)
#define ESR_EC_DABT_LOW UINT64_C(0x24)
#define ESR_EC_DABT_CUR UINT64_C(0x25)
#define ESR_EC(esr) (((esr) >> ESR_EC_SHIFT) & 0x3f)
#define ESR_FSC_MASK UINT64_C(0x3f)
#define ESR_FSC_TRANS_L(level) (UINT64_C(0x04) + (level))
#define ESR_FSC_PERM_L(level) (UINT64_C(0x0c) + (level))
#define ESR_WNR (UINT64_C(1) << 6)
#define ESR_S1PTW (UINT64_C(1) << 7)
/* HPFAR_EL2 holds IPA bits 51:12 in bits 47:4. */
#define HPFAR_FROM_IPA(ipa) (((uint64_t)(ipa) >> 12) << 4)
#define IPA_FROM_HPFAR(hpfar) (((uint64_t)(hpfar) >> 4) << 12)

/* Protection bits of host_share_guest and relax_perms_guest. */
#define HYP_PROT_X (UINT64_C(1) << 0)
#define HYP_PROT_W (UINT64_C(1) << 1)
#define HYP_PROT_R (UINT64_C(1) << 2)
#define HYP_PROT_RWX (HYP_PROT_R | HYP_PROT_W | HYP_PROT_X)

/*
 * Pages that the host gives to EL2, linked through their first word: each free
 * page's first 8 bytes hold the physical address of the next one (0 ends it).
 * EL2 treats all of it as hostile input.
 */
struct hyp_memcache {
    uint64_t head; /* physical address of the first page, 0 when empty */
    uint64_t nr_pages;
};

/* What a MEM_UNSHARE of the guest does; a property of the VM. */
enum hyp_unshare_mode {
    HYP_UNSHARE_CONSENT = 0,    /* exit to the host, commit when it agrees (Android's variant) */
    HYP_UNSHARE_UNILATERAL = 1, /* EL2 commits at once (upstream pKVM) */
};

/* The host's `struct kvm` as far as EL2 reads it: one page, shared with EL2 before init_vm. */
struct kvm_host_vm {
    uint32_t handle; /* from reserve_vm */
    uint32_t created_vcpus;
    uint32_t is_protected;
    uint32_t ipa_bits; /* 32..48 */
    uint32_t unshare_mode;
    uint32_t errant_panics; /* EL2 of 2021: an access of the host to the VM's memory is EL2's panic, not an abort */
    struct hyp_memcache teardown_mc;        /* written by finalize_teardown_vm: the VM and vcpu structs */
    struct hyp_memcache stage2_teardown_mc; /* written by finalize_teardown_vm: stage-2 tables, unused memcache */
};

/* The host's `struct kvm_vcpu` as far as EL2 touches it: one page, shared with EL2 before init_vcpu. */
struct kvm_host_vcpu {
    uint32_t vcpu_idx;
    uint32_t pad;
    struct hyp_memcache pkvm_memcache; /* topped up by the host before donate/share, drained by EL2 */
    /* Exit record, written by EL2 when vcpu_run returns ARM_EXCEPTION_TRAP. */
    uint64_t esr;
    uint64_t far;
    uint64_t hpfar;
    /*
     * W0 (the function id) and x1..x3 of an HVC exit.  For a call that EL2 leaves to the host the host
     * answers in x[0] before it runs the vcpu again; a call with more results has them in x[1..3], which
     * otherwise stay as the guest had them.  For a consent-mode MEM_UNSHARE x[0] = 0 means consent, anything
     * else refusal.  After a MEM_SHARE that EL2 has carried out, the exit only informs.
     */
    uint64_t x[4];
};

/* Stage-2 PGD pages for an IPA size, with concatenation at the start level (at most 16 tables). */
static inline unsigned hyp_s2_start_level(unsigned ipa_bits)
{
    return ipa_bits <= 34 ? 2 : ipa_bits <= 43 ? 1 : 0;
}

static inline unsigned hyp_s2_pgd_pages(unsigned ipa_bits)
{
    unsigned level_bits = 39 - 9 * (hyp_s2_start_level(ipa_bits) - 1);
    return ipa_bits <= level_bits ? 1 : 1u << (ipa_bits - level_bits);
}

/* Table pages needed in the worst case below the PGD to map one page: the host keeps at least this many in a memcache.
 */
static inline unsigned hyp_s2_min_pages(unsigned ipa_bits)
{
    return 3 - hyp_s2_start_level(ipa_bits);
}

/* Sizes, in pages, of the structures that the host donates in init_vm (vm_hva) and init_vcpu (vcpu_hva). */
#define HYP_VM_PAGES 1u
#define HYP_VCPU_PAGES 1u

/* VM handles start here (arch/arm64/kvm/hyp/nvhe/pkvm.c: HANDLE_OFFSET). */
#define HYP_HANDLE_OFFSET 0x1000u
#define HYP_MAX_VMS 255u
#define HYP_VM_MAX_VCPUS 480u

#endif
