/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest_memfd library of RFC v2 (background.md 1.2), for VMs created with
 * vm_config.rfc_library: no attribute is set by anybody; a page is inaccessible to
 * the host until somebody needs it accessible, and the hypervisor may say no.
 *
 * Two counters a folio: `accessible`, how many users want the host to see it;
 * `safe`, how many references the library knows of.  A page may change sides
 * when accessible is 0 and no reference is unsafe.
 *
 * Here `safe` is the page cache's references and the library's grabs.  The RFC
 * adds one for the caller's own lookup, which here exists while one looks only.
 */
#ifndef SRC_HOST_LIBRARY_H
#define SRC_HOST_LIBRARY_H

#include "src/host/ref.h"

struct library_counts {
    unsigned accessible, safe, refcount;
    bool inaccessible;       /* to the host */
    bool direct_map;         /* the kernel's own mapping has it */
    unsigned zaps, restores; /* of direct-map entries of the file's pages, so far */
};
void library_counts(const struct gmem *gmem, uint64_t index, struct library_counts *out);

/*
 * (task) guest_memfd_grab_folio(): allocates the folio, counts the reference as safe and, with `accessible`, its user
 * as one who wants the host to see it; an inaccessible page is made accessible for that.  -EBUSY: an unsafe reference
 * stayed for 10 ms; -EPERM: the hypervisor refused; -EINVAL: past the end, or no file of the library.
 */
int library_grab(struct gmem *gmem, uint64_t index, bool accessible, struct ref **out, struct caller *caller);
void library_put(struct ref *ref, bool accessible);
/* (task) One user less; the last one makes the page inaccessible.  -EBUSY, or the hypervisor's errno: nothing changed.
 */
int library_make_inaccessible(struct gmem *gmem, uint64_t index, struct caller *caller);
int library_make_accessible(struct gmem *gmem, uint64_t index, struct caller *caller);

#endif
