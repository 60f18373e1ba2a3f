/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VMSAv8-64 stage-2 descriptors, 4 KiB granule, as arm64 KVM uses them with
 * FEAT_S2FWB, and pKVM's use of invalid descriptors as ownership records.
 */
#ifndef FAKEHYP_STAGE2_DESCRIPTOR_H
#define FAKEHYP_STAGE2_DESCRIPTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "fakehyp/hyp.h"

#define S2_LAST_LEVEL 3
#define S2_ENTRIES 512u

#define S2_PTE_VALID (UINT64_C(1) << 0)
#define S2_PTE_TABLE (UINT64_C(1) << 1) /* levels 0..2: a table; level 3: a page */
#define S2_PTE_TYPE_MASK (S2_PTE_VALID | S2_PTE_TABLE)
#define S2_PTE_MEMATTR(attr) ((uint64_t)(attr) << 2)
#define S2_PTE_R (UINT64_C(1) << 6)
#define S2_PTE_W (UINT64_C(1) << 7)
#define S2_PTE_SH_INNER (UINT64_C(3) << 8)
#define S2_PTE_AF (UINT64_C(1) << 10)
#define S2_PTE_ADDR UINT64_C(0x0000fffffffff000)
#define S2_PTE_XN_MASK (UINT64_C(3) << 53)
#define S2_PTE_XN (UINT64_C(2) << 53)
#define S2_PTE_PERM_MASK (S2_PTE_R | S2_PTE_W | S2_PTE_XN_MASK)
#define S2_PTE_SW_SHIFT 55
#define S2_PTE_SW_MASK (UINT64_C(15) << S2_PTE_SW_SHIFT)
#define S2_PTE_STATE_MASK (UINT64_C(3) << S2_PTE_SW_SHIFT)

/* MemAttr[3:0] with FWB. */
enum s2_memattr {
    S2_MEMATTR_DEVICE = 1,
    S2_MEMATTR_NORMAL_NC = 5,
    S2_MEMATTR_NORMAL = 6,
    S2_MEMATTR_AS_S1 = 7,
};

/* Bits 63:60 of an invalid, non-zero descriptor. */
enum s2_invalid_type {
    S2_TYPE_NONE = 0,
    S2_TYPE_LOCKED = 1,   /* transient, inside break-before-make */
    S2_TYPE_DONATION = 2, /* host table: the frame belongs to somebody else */
    S2_TYPE_POISON = 3,   /* guest table: the IPA is dead */
};

#define S2_TYPE_SHIFT 60
#define S2_TYPE_MASK (UINT64_C(15) << S2_TYPE_SHIFT)
#define S2_PTE_LOCKED ((uint64_t)S2_TYPE_LOCKED << S2_TYPE_SHIFT)
#define S2_PTE_POISON ((uint64_t)S2_TYPE_POISON << S2_TYPE_SHIFT)
#define S2_OWNER_SHIFT 1
#define S2_OWNER_MASK (UINT64_C(7) << S2_OWNER_SHIFT)
#define S2_HANDLE_SHIFT 4
#define S2_HANDLE_MASK UINT64_C(0xffff)
#define S2_GFN_SHIFT 20
#define S2_GFN_MASK ((UINT64_C(1) << 40) - 1)

static inline unsigned s2_level_shift(int level)
{
    return HYP_PAGE_SHIFT + 9 * (unsigned)(S2_LAST_LEVEL - level);
}

static inline uint64_t s2_granule(int level)
{
    return UINT64_C(1) << s2_level_shift(level);
}

static inline bool s2_pte_valid(uint64_t pte)
{
    return pte & S2_PTE_VALID;
}

static inline bool s2_pte_is_table(uint64_t pte, int level)
{
    return level < S2_LAST_LEVEL && (pte & S2_PTE_TYPE_MASK) == S2_PTE_TYPE_MASK;
}

static inline uint64_t s2_perm_bits(uint64_t prot)
{
    return (prot & HYP_PROT_R ? S2_PTE_R : 0) | (prot & HYP_PROT_W ? S2_PTE_W : 0) |
           (prot & HYP_PROT_X ? 0 : S2_PTE_XN);
}

/* Everything of a leaf but its address and its type bit, which depends on the level. */
static inline uint64_t s2_leaf_attr(uint64_t prot, enum s2_memattr memattr, enum hyp_page_state state)
{
    return S2_PTE_VALID | S2_PTE_MEMATTR(memattr) | s2_perm_bits(prot) | S2_PTE_SH_INNER | S2_PTE_AF |
           (uint64_t)state << S2_PTE_SW_SHIFT;
}

static inline uint64_t s2_leaf(uint64_t phys, uint64_t attr, int level)
{
    return phys | attr | (level == S2_LAST_LEVEL ? S2_PTE_TABLE : 0);
}

static inline uint64_t s2_host_memory_attr(void)
{
    return s2_leaf_attr(HYP_PROT_RWX, S2_MEMATTR_AS_S1, PKVM_PAGE_OWNED);
}

/* EL2's code, of which the host may know the bytes. */
static inline uint64_t s2_host_text_attr(void)
{
    return s2_leaf_attr(HYP_PROT_R, S2_MEMATTR_AS_S1, PKVM_PAGE_OWNED);
}

static inline uint64_t s2_host_device_attr(void)
{
    return s2_leaf_attr(HYP_PROT_R | HYP_PROT_W, S2_MEMATTR_DEVICE, PKVM_PAGE_OWNED);
}

static inline uint64_t s2_guest_attr(uint64_t prot, enum hyp_page_state state)
{
    return s2_leaf_attr(prot, S2_MEMATTR_NORMAL, state);
}

/* State that a leaf of a guest's table expresses. */
static inline enum hyp_page_state s2_guest_state(uint64_t pte)
{
    if (s2_pte_valid(pte))
        return (enum hyp_page_state)((pte & S2_PTE_STATE_MASK) >> S2_PTE_SW_SHIFT);
    return (pte & S2_TYPE_MASK) == S2_PTE_POISON ? PKVM_PAGE_POISON : PKVM_PAGE_NOPAGE;
}

static inline enum s2_invalid_type s2_annotation_type(uint64_t pte)
{
    return s2_pte_valid(pte) ? S2_TYPE_NONE : (enum s2_invalid_type)(pte >> S2_TYPE_SHIFT);
}

static inline uint64_t s2_annotation(enum s2_invalid_type type, uint64_t annotation)
{
    return (uint64_t)type << S2_TYPE_SHIFT | annotation;
}

/* What follows are the annotations without their type, as s2_annotation() takes them. */
static inline uint64_t s2_hyp_annotation(void)
{
    return (uint64_t)HYP_OWNER_HYP << S2_OWNER_SHIFT;
}

static inline uint64_t s2_guest_annotation(uint32_t handle, uint64_t gfn)
{
    return (uint64_t)HYP_OWNER_GUEST << S2_OWNER_SHIFT | (handle & S2_HANDLE_MASK) << S2_HANDLE_SHIFT |
           (gfn & S2_GFN_MASK) << S2_GFN_SHIFT;
}

static inline enum hyp_owner s2_annotation_owner(uint64_t pte)
{
    return (enum hyp_owner)((pte & S2_OWNER_MASK) >> S2_OWNER_SHIFT);
}

static inline uint32_t s2_annotation_handle(uint64_t pte)
{
    return (uint32_t)(pte >> S2_HANDLE_SHIFT & S2_HANDLE_MASK);
}

static inline uint64_t s2_annotation_gfn(uint64_t pte)
{
    return pte >> S2_GFN_SHIFT & S2_GFN_MASK;
}

#endif
