/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Views: what this process has mapped of guest_memfds.
 *
 * A page without bytes in the shared file must answer SIGBUS, so a view is
 * registered before it can be touched: mapped with PROT_NONE, kept out of fork
 * and of huge pages, registered, and only then opened.  Any other order lets
 * children, MAP_POPULATE or mlockall(MCL_FUTURE) put zero pages into it first.
 */
#include "src/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Atomic(struct fh_view *) fh_views;

static bool aligned(uint64_t value)
{
    return value % FAKEHYP_PAGE_SIZE == 0;
}

/* ---- the table; fh_lock is held -------------------------------------------------------------------------------- */

static struct fh_view *get_free_view(void)
{
    struct fh_view *view;

    for (view = atomic_load(&fh_views); view; view = view->next)
        if (!view->fh)
            return view;
    view = calloc(1, sizeof(*view));
    if (!view)
        return NULL;
    view->next = atomic_load(&fh_views);
    atomic_store(&fh_views, view);
    return view;
}

static void set_view(struct fh_view *view, struct fakehyp *fh, struct fh_file *file, uintptr_t addr, size_t length,
                     uint64_t offset, int prot)
{
    view->fh = fh;
    view->file = file;
    view->offset = offset;
    view->prot = prot;
    file->refs++;
    atomic_store(&view->addr, addr);
    atomic_store(&view->report_fd, fh->report_pipe[1]);
    atomic_store(&view->length, length);
}

static void clear_view(struct fh_view *view)
{
    atomic_store(&view->length, 0);
    atomic_store(&view->report_fd, -1);
    fh_file_put_locked(view->file);
    view->fh = NULL;
    view->file = NULL;
}

/* The view of fh (NULL: of any connection) with the lowest address that overlaps [start, end). */
static struct fh_view *first_view_in(struct fakehyp *fh, uintptr_t start, uintptr_t end)
{
    struct fh_view *best = NULL;

    for (struct fh_view *view = atomic_load(&fh_views); view; view = view->next) {
        if (!view->fh || (fh && view->fh != fh) || view->addr >= end || view->addr + view->length <= start)
            continue;
        if (!best || view->addr < best->addr)
            best = view;
    }
    return best;
}

bool fh_view_find(struct fakehyp *fh, uintptr_t addr, uint64_t *gmem, uint64_t *offset)
{
    pthread_mutex_lock(&fh_lock);
    struct fh_view *view = first_view_in(fh, addr, addr + 1);
    if (view) {
        *gmem = view->file->id;
        *offset = view->offset + (addr - view->addr);
    }
    pthread_mutex_unlock(&fh_lock);
    return view;
}

/* ---- registration ---------------------------------------------------------------------------------------------- */

/* Registers what of [start, end) of the view is still mapped to its file, at its offset. */
static int register_part(struct fakehyp *fh, const struct fh_view *view, bool refuse, uintptr_t start, uintptr_t end)
{
    while (start < end) {
        struct kernel_vma vma;
        int rc = fh_vma_at(fh->maps_fd, start, &vma);
        if (rc < 0)
            return fh_fail(rc, "/proc/self/maps cannot be read: %s", strerrordesc_np(-rc));
        if (rc == 0 || vma.start >= end)
            return 0;
        uintptr_t from = vma.start > start ? vma.start : start;
        uintptr_t to = vma.end < end ? vma.end : end;
        if (vma.dev == view->file->dev && vma.ino == view->file->ino &&
            vma.offset + (from - vma.start) == view->offset + (from - view->addr)) {
            rc = refuse ? fh_uffd_register(fh->uffd, from, to - from, UFFDIO_REGISTER_MODE_MISSING)
                        : fh_uffd_unregister(fh->uffd, from, to - from);
            if (rc)
                return rc;
        }
        start = to;
    }
    return 0;
}

int fh_views_register(struct fakehyp *fh, uint64_t gmem, bool refuse, uint64_t offset, uint64_t length)
{
    uint64_t end;
    int rc = 0;

    if (!aligned(offset) || !aligned(length) || __builtin_add_overflow(offset, length, &end))
        return fh_fail(-EINVAL, "the daemon asked for an unaligned range");
    pthread_mutex_lock(&fh_lock);
    for (struct fh_view *view = atomic_load(&fh_views); view && rc == 0; view = view->next) {
        if (view->fh != fh || view->file->id != gmem)
            continue;
        uint64_t from = view->offset > offset ? view->offset : offset;
        uint64_t to = view->offset + view->length < end ? view->offset + view->length : end;
        if (from < to)
            rc = register_part(fh, view, refuse, view->addr + (from - view->offset), view->addr + (to - view->offset));
    }
    pthread_mutex_unlock(&fh_lock);
    return rc;
}

/* ---- mapping --------------------------------------------------------------------------------------------------- */

static int ensure_uffd(struct fakehyp *fh)
{
    int rc = 0;

    pthread_mutex_lock(&fh_lock);
    if (fh->uffd < 0) {
        rc = fh_uffd_open(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM, 0);
        if (rc >= 0) {
            int maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
            if (maps_fd < 0) {
                /* The agent could open and close nothing in the views. */
                int err = errno;
                close(rc);
                rc = fh_fail(-err, "map: /proc/self/maps: %s; is /proc mounted, is a descriptor left?", strerror(err));
            } else {
                fh->uffd = rc;
                fh->maps_fd = maps_fd;
                rc = 0;
            }
        }
    }
    pthread_mutex_unlock(&fh_lock);
    return rc;
}

static int tell_add(struct fakehyp *fh, uint64_t gmem, const void *addr, size_t length, uint64_t offset)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__ViewAdd add = FAKEHYP__VIEW_ADD__INIT;

    add.gmem = gmem;
    add.addr = (uintptr_t)addr;
    add.length = length;
    add.offset = offset;
    request.body_case = FAKEHYP__REQUEST__BODY_VIEW_ADD;
    request.view_add = &add;
    return fh_call_ack(fh, "map", &request);
}

static int tell_remove(struct fakehyp *fh, uintptr_t addr, size_t length)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__ViewRemove drop = FAKEHYP__VIEW_REMOVE__INIT;

    drop.addr = addr;
    drop.length = length;
    request.body_case = FAKEHYP__REQUEST__BODY_VIEW_REMOVE;
    request.view_remove = &drop;
    return fh_call_ack(fh, "unmap", &request);
}

/*
 * What becomes of the addresses: KEEP_OUT holds them until the daemon has been told, which
 * knows views by address and would otherwise take a new one there for the old one.
 */
enum cut_how { CUT_UNMAP, CUT_KEEP_OUT, CUT_FORGET };

static int cut_mapping(uintptr_t from, size_t length, enum cut_how *how)
{
    if (*how == CUT_FORGET)
        return 0;
    if (*how == CUT_KEEP_OUT && mmap((void *)from, length, PROT_NONE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
        return 0;
    /* At vm.max_map_count it can still be unmapped. */
    *how = CUT_UNMAP;
    return munmap((void *)from, length);
}

/*
 * Takes the first part of [start, end) that is a view out of the table: 1 with the
 * part, 0 when there is none, -ENOMEM.  fh_lock is held.
 */
static int cut_first_locked(struct fakehyp *fh, uintptr_t start, uintptr_t end, enum cut_how *how, uintptr_t *cut,
                            size_t *cut_length)
{
    struct fh_view *view = first_view_in(fh, start, end);
    if (!view)
        return 0;
    uintptr_t first = view->addr, last = first + view->length;
    uintptr_t from = first > start ? first : start, to = last < end ? last : end;
    struct fh_view *tail = NULL;
    if (from > first && to < last) {
        tail = get_free_view();
        if (!tail)
            return fh_fail(-ENOMEM, "unmap: out of memory");
    }
    if (cut_mapping(from, to - from, how))
        return fh_fail(-errno, "unmap: munmap: %s; vm.max_map_count limits the mappings of a process", strerror(errno));
    if (tail)
        set_view(tail, view->fh, view->file, to, last - to, view->offset + (to - first), view->prot);
    if (from > first) {
        atomic_store(&view->length, from - first);
    } else if (to < last) {
        view->offset += to - first;
        atomic_store(&view->length, last - to);
        atomic_store(&view->addr, to);
    } else {
        clear_view(view);
    }
    *cut = from;
    *cut_length = to - from;
    return 1;
}

static int cut_first(struct fakehyp *fh, uintptr_t start, uintptr_t end, enum cut_how *how, uintptr_t *cut,
                     size_t *cut_length)
{
    pthread_mutex_lock(&fh_lock);
    int rc = cut_first_locked(fh, start, end, how, cut, cut_length);
    pthread_mutex_unlock(&fh_lock);
    return rc;
}

/* A view that the daemon did not accept, or whose connection ends: no one is told. */
static void unmap_silently(struct fakehyp *fh, uintptr_t start, uintptr_t end)
{
    enum cut_how how = CUT_UNMAP;
    uintptr_t cut;
    size_t length;

    /* What is cut may be another thread's new view at once. */
    while (start < end && cut_first(fh, start, end, &how, &cut, &length) > 0)
        start = cut + length;
}

/*
 * Where something new is mapped there is no view any more, of whichever connection: the program has unmapped it by
 * itself.  It is forgotten before an agent can take the new mapping for it and register it.  The daemon learns it from
 * the new view.
 */
static void *map_anew(const struct fh_file *file, void *hint, size_t length, uint64_t offset, int *err)
{
    enum cut_how how = CUT_FORGET;
    uintptr_t cut;
    size_t cut_length;

    pthread_mutex_lock(&fh_lock);
    void *p = mmap(hint, length, PROT_NONE, MAP_SHARED | (hint ? MAP_FIXED_NOREPLACE : 0), file->fd, (off_t)offset);
    *err = errno;
    while (p != MAP_FAILED && cut_first_locked(NULL, (uintptr_t)p, (uintptr_t)p + length, &how, &cut, &cut_length) > 0)
        ;
    pthread_mutex_unlock(&fh_lock);
    return p;
}

/* Maps and registers; what it returns is open for access but not listed yet. */
static int map_registered(struct fakehyp *fh, const struct fh_file *file, void *hint, size_t length, int prot,
                          uint64_t offset, void **out)
{
    int err;
    void *p = map_anew(file, hint, length, offset, &err);

    if (p == MAP_FAILED) {
        if (err == EEXIST)
            return fh_fail(-EEXIST, "map: something is mapped at %p already", hint);
        return fh_fail(-err, "map: mmap of %zu bytes: %s", length, strerror(err));
    }
    if (hint && p != hint) {
        /* Kernels before 4.17 take MAP_FIXED_NOREPLACE for a mere hint. */
        munmap(p, length);
        return fh_fail(-EEXIST, "map: something is mapped at %p already", hint);
    }
    int rc = 0;
    if (madvise(p, length, MADV_DONTFORK) || madvise(p, length, MADV_NOHUGEPAGE))
        /* EINVAL: a kernel without transparent huge pages, which needs no such advice. */
        rc = errno == EINVAL ? 0 : fh_fail(-errno, "map: madvise: %s", strerror(errno));
    if (rc == 0)
        rc = fh_uffd_register(fh->uffd, (uintptr_t)p, length, UFFDIO_REGISTER_MODE_MISSING);
    if (rc == 0 && prot != PROT_NONE && mprotect(p, length, prot))
        rc = fh_fail(-errno, "map: mprotect: %s", strerror(errno));
    if (rc) {
        munmap(p, length);
        return rc;
    }
    *out = p;
    return 0;
}

static int map_file(struct fakehyp *fh, struct fh_file *file, void *hint, size_t length, int prot, uint64_t offset,
                    void **out)
{
    void *p = NULL;
    int rc = ensure_uffd(fh);

    if (rc == 0)
        rc = map_registered(fh, file, hint, length, prot, offset, &p);
    if (rc)
        return rc;

    /* Listed before the daemon hears of it: it answers by asking the agent to open what is shared. */
    pthread_mutex_lock(&fh_lock);
    struct fh_view *view = get_free_view();
    if (view)
        set_view(view, fh, file, (uintptr_t)p, length, offset, prot);
    pthread_mutex_unlock(&fh_lock);
    if (!view) {
        munmap(p, length);
        return fh_fail(-ENOMEM, "map: out of memory");
    }
    fh_sigbus_install();
    rc = tell_add(fh, file->id, p, length, offset);
    if (rc) {
        unmap_silently(fh, (uintptr_t)p, (uintptr_t)p + length);
        return rc;
    }
    *out = p;
    return 0;
}

int fakehyp_map(struct fakehyp_gmem *gmem, void *hint, size_t length, int prot, uint64_t offset, void **out)
{
    uint64_t end;
    int rc = fh_usable(gmem->object.fh);

    *out = NULL;
    if (rc)
        return rc;
    if (length == 0 || !aligned(length) || !aligned(offset) || !aligned((uintptr_t)hint) ||
        __builtin_add_overflow(offset, length, &end) || end > INT64_MAX)
        return fh_fail(-EINVAL, "map: address, offset and length must be multiples of %u, and the length not 0",
                       FAKEHYP_PAGE_SIZE);
    if (prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
        return fh_fail(-EINVAL, "map: protection %#x has unknown bits", prot);
    if (prot & PROT_EXEC)
        return fh_fail(-EPERM, "map: guest_memfd cannot be mapped with PROT_EXEC");
    if (!(gmem->file->flags & FAKEHYP_GMEM_MMAP))
        return fh_fail(-ENODEV, "map: this guest_memfd was created without FAKEHYP_GMEM_MMAP");
    return map_file(gmem->object.fh, gmem->file, hint, length, prot, offset, out);
}

int fakehyp_unmap(struct fakehyp *fh, void *addr, size_t length)
{
    uintptr_t start = (uintptr_t)addr, end, cut;
    enum cut_how how = CUT_KEEP_OUT;
    size_t cut_length;
    int rc = fh_usable(fh), got = 0;

    if (rc == -EIO)
        return rc;
    if (length == 0 || !aligned(length) || !aligned(start) || __builtin_add_overflow(start, length, &end))
        return fh_fail(-EINVAL, "unmap: address and length must be multiples of %u, and the length not 0",
                       FAKEHYP_PAGE_SIZE);
    rc = 0;
    while (start < end && (got = cut_first(fh, start, end, &how, &cut, &cut_length)) > 0) {
        int told = tell_remove(fh, cut, cut_length);
        if (how == CUT_KEEP_OUT)
            munmap((void *)cut, cut_length);
        /* A daemon that is gone has forgotten the view. */
        if (told && told != -ECONNRESET && rc == 0)
            rc = told;
        start = cut + cut_length;
    }
    return got < 0 ? got : rc;
}

int fakehyp_remap(struct fakehyp *fh, void *addr, size_t old_length, size_t new_length, void **out)
{
    struct fh_file *file = NULL;
    uint64_t offset = 0;
    int prot = 0, rc = fh_usable(fh);

    *out = NULL;
    if (rc)
        return rc;
    if (new_length == 0 || !aligned(new_length) || !aligned(old_length) || !aligned((uintptr_t)addr))
        return fh_fail(-EINVAL, "remap: address and lengths must be multiples of %u, and the new length not 0",
                       FAKEHYP_PAGE_SIZE);
    pthread_mutex_lock(&fh_lock);
    struct fh_view *view = first_view_in(fh, (uintptr_t)addr, (uintptr_t)addr + 1);
    if (view && view->addr == (uintptr_t)addr && view->length == old_length) {
        file = view->file;
        file->refs++;
        offset = view->offset;
        prot = view->prot;
    }
    pthread_mutex_unlock(&fh_lock);
    if (!file)
        return fh_fail(-EFAULT, "remap: %p with %zu bytes is not one whole view", addr, old_length);

    if (new_length <= old_length) {
        if (new_length < old_length)
            rc = fakehyp_unmap(fh, (char *)addr + new_length, old_length - new_length);
        if (rc == 0)
            *out = addr;
    } else {
        /* mremap() would drop the registration while the new place can be touched already: map anew instead. */
        rc = map_file(fh, file, NULL, new_length, prot, offset, out);
        /* The new view is there and the old one is not: what the daemon has not heard of that yet does not change it.
         */
        if (rc == 0)
            fakehyp_unmap(fh, addr, old_length);
    }
    pthread_mutex_lock(&fh_lock);
    fh_file_put_locked(file);
    pthread_mutex_unlock(&fh_lock);
    return rc;
}

void fh_views_drop_all(struct fakehyp *fh)
{
    unmap_silently(fh, 0, UINTPTR_MAX);
}

/* A program may have taken MADV_DONTFORK back: what of the view the child has then, nobody would refuse there. */
static void cover_inherited(const struct fh_view *view)
{
    int maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    uintptr_t end = view->addr + view->length;
    struct kernel_vma vma;

    for (uintptr_t at = view->addr; maps_fd >= 0 && fh_vma_at(maps_fd, at, &vma) > 0 && vma.start < end; at = vma.end) {
        uintptr_t from = vma.start > at ? vma.start : at, to = vma.end < end ? vma.end : end;
        if (vma.dev == view->file->dev && vma.ino == view->file->ino)
            mmap((void *)from, to - from, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    }
    if (maps_fd >= 0)
        close(maps_fd);
}

void fh_views_forked(void)
{
    for (struct fh_view *view = atomic_load(&fh_views); view; view = view->next) {
        if (!view->fh)
            continue;
        /* MADV_DONTFORK left a gap: what the child maps next must not turn up under an old pointer. */
        if (mmap((void *)view->addr, view->length, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
            cover_inherited(view);
        clear_view(view);
    }
}
