/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can be chosen for a VM: the designs that were proposed for guest_memfd,
 * and the mistakes that were found in them.  One table each; everything that
 * names, parses or explains them is made from it.
 */
#ifndef SRC_HOST_VARIANTS_H
#define SRC_HOST_VARIANTS_H

#include <stddef.h>
#include <stdint.h>

/*
 * How a conversion to private makes sure that the host is out (policy.h).
 * X(id, letter, name, why it is not on the live stage or NULL, what it does)
 */
#define GMEM_POLICY_MAP(X)                                                                                             \
    X(UPSTREAM, "D", "upstream", NULL, "unmap, then refcount == pages + 1, else EAGAIN with error_offset; no waiting") \
    X(NAIVE, "A", "naive", NULL, "unmap, then not mapped and not maybe-dma-pinned")                                    \
    X(SAFE_COUNT, "B", "safe-count", NULL, "unmap, wait up to 10 ms for refcount == safe, then EBUSY")                 \
    X(TRANSIENT, "C", "transient", "a reference that real processes hold has no folio_put callback to hang on",        \
      "a page with foreign references is NONE_SHARED until the last of them is dropped")                               \
    X(EXCLUSIVE, "E", "exclusive", "the pins of real processes cannot be made to fail while an exclusive pin is held", \
      "take an exclusive pin: no other pin may exist, and none can be taken; mappings stay")

enum gmem_policy_id {
#define X(id, letter, name, not_live, doc) GMEM_POLICY_##id,
    GMEM_POLICY_MAP(X)
#undef X
        GMEM_POLICY_COUNT
};

/*
 * Where it is kept which pages are shared (tracker.h).  X(id, name, what it does)
 */
#define GMEM_TRACKER_MAP(X)                                                                                            \
    X(INODE, "inode", "in the file, for every offset, allocated or not; changed by the ioctl on the guest_memfd")      \
    X(VM, "vm", "in the attributes of the VM that created the file, by gfn; changed by the ioctl on the VM")           \
    X(FOLIO, "folio", "in a flag of each folio, lost with it")                                                         \
    X(HYP, "hyp", "nowhere in the kernel: each fault asks the hypervisor")

enum gmem_tracker_id {
#define X(id, name, doc) GMEM_TRACKER_##id,
    GMEM_TRACKER_MAP(X)
#undef X
        GMEM_TRACKER_COUNT
};

/* Who protects a VM's private memory: the drivers of the guest_memfd library (driver.h).  X(id, name, what it does) */
#define GMEM_HYP_MAP(X)                                                                                                \
    X(PKVM, "pkvm", "stage 2 of a hypervisor: contents stay, an errant access of the host is caught")                  \
    X(SW_PROTECTED, "sw-protected", "nobody but the attribute: KVM_X86_SW_PROTECTED_VM, for development")              \
    X(FIRMWARE, "firmware", "encryption, as TDX and SNP: a conversion destroys contents, an errant access the host")

enum gmem_hyp_id {
#define X(id, name, doc) GMEM_HYP_##id,
    GMEM_HYP_MAP(X)
#undef X
        GMEM_HYP_COUNT
};

/*
 * Mistakes that versions of the real code had, off unless asked for.
 * X(id, name, where it was, what goes wrong)
 */
#define HOST_BUG_MAP(X)                                                                                                \
    X(D_NO_REFCHECK, "d-no-refcheck", "policy D without its step 4b",                                                  \
      "a conversion to private does not look at reference counts")                                                     \
    X(NAIVE_CHECK_ORDER, "naive-check-order", "policy A, scenario S11",                                                \
      "pins are looked for before the range is unmapped: GUP-fast gets one in between")                                \
    X(SAFE_COUNT_RACE, "safe-count-race", "library RFC v2",                                                            \
      "a guest fault takes its reference before the lock, and the library does not know of it")                        \
    X(PUNCH_IGNORES_INVALIDATE, "punch-ignores-invalidate", "library RFC v2",                                          \
      "a hole punch frees pages that the hypervisor did not give back")                                                \
    X(DETACH_BEFORE_TRUNCATE, "detach-before-truncate", "library v4",                                                  \
      "the last close detaches the driver first, then nobody takes the pages back from the guest")                     \
    X(ATOMIC_PUT, "atomic-put", "mapping series v5",                                                                   \
      "the folio_put callback takes a sleeping lock where the last put was atomic")                                    \
    X(SLOT_TOGGLE, "slot-toggle", "Linux 6.8 to 6.18",                                                                 \
      "a memslot may lose KVM_MEM_GUEST_MEMFD, and its binding outlives it")                                           \
    X(MF_EBUSY, "mf-ebusy", "Linux 6.8 to 6.18", "memory_failure() fails with EBUSY and always kills")                 \
    X(POPULATE_LOCK_ORDER, "populate-lock-order", "Linux 6.11 to 6.19",                                                \
      "populate faults its source in under the lock that a fault takes: AB-BA")                                        \
    X(HYP_2021, "hyp-2021", "pKVM of 2021", "EL2 panics on any access of the host to protected memory")

enum host_bug_id {
#define X(id, name, where, doc) HOST_BUG_##id,
    HOST_BUG_MAP(X)
#undef X
        HOST_BUG_COUNT
};
#define HOST_BUG(id) (UINT64_C(1) << HOST_BUG_##id)

struct variant {
    const char *name, *letter; /* letter: policies only, else NULL */
    const char *where;         /* bugs only, else NULL */
    const char *not_live;      /* why it cannot be on the live stage, NULL when it can */
    const char *doc;
};
enum variant_kind { VARIANT_POLICY, VARIANT_TRACKER, VARIANT_HYP, VARIANT_BUG, VARIANT_KIND_COUNT };

/* NULL past the end. */
const struct variant *variant_get(enum variant_kind kind, unsigned id);
/*
 * By name, a policy by its letter too; an empty name is the default, 0.
 * Returns the id, or -EINVAL with words that list what there is in error.
 */
int variant_find(enum variant_kind kind, const char *name, char *error, size_t size);
/* A list of bugs "a,b" to a mask of HOST_BUG(): 0 or -EINVAL as above. */
int variant_bugs(const char *names, uint64_t *mask, char *error, size_t size);
/* The opposite: "a,b", empty for none.  Returns text. */
const char *variant_bug_names(uint64_t mask, char *text, size_t size);

#endif
