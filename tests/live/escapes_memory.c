/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ways around the boundary by way of a process's own memory: mappings, and what
 * can be done to them.
 */
#include "tests/common/live_escape.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFDIO_CONTINUE
#define UFFDIO_CONTINUE                                                                                                \
    _IOWR(                                                                                                             \
        UFFDIO, 0x07, struct {                                                                                         \
            uint64_t range[2], mode;                                                                                   \
            int64_t mapped;                                                                                            \
        })
#endif

#define RW (PROT_READ | PROT_WRITE)

static void unmap(struct escape *e, uint8_t *view, uint64_t pages)
{
    if (fakehyp_unmap(e->fh, view, pages * PAGE))
        escape_broken(e, "unmap");
}

/* ---- mappings without the library -----------------------------------------------------------------------------------
 */

static void mapped(struct escape *e)
{
    uint8_t *p = escape_mmap(e, e->fd, e->row->arg & MAP_PRIVATE ? PROT_READ : RW, e->row->arg);

    if (!p)
        return;
    escape_look(e, p);
    munmap(p, ESCAPE_BYTES);
}

static void private_store(struct escape *e)
{
    uint8_t *p = escape_mmap(e, e->fd, RW, MAP_PRIVATE);

    if (!p)
        return;
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        p[escape_page(i) * PAGE + ARENA_SCRATCH] = 0x11;
    escape_look(e, p);
    munmap(p, ESCAPE_BYTES);
}

static void over_a_view(struct escape *e)
{
    uint8_t *view = escape_map(e, NULL, 0, ARENA_PAGES);

    if (mmap(view, ESCAPE_BYTES, RW, MAP_SHARED | MAP_FIXED, e->fd, 0) != view)
        escape_broken(e, "mmap");
    escape_look(e, view);
    unmap(e, view, ARENA_PAGES);
}

static void view_over_mapping(struct escape *e)
{
    void *taken = mmap(NULL, ESCAPE_BYTES, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *view;

    if (fakehyp_map(e->gmem, taken, ESCAPE_BYTES, RW, 0, &view) == -EEXIST)
        escape_barred(e);
    else
        escape_look(e, view);
    munmap(taken, ESCAPE_BYTES);
}

static void unmapped_and_again(struct escape *e)
{
    uint8_t *view = escape_map(e, NULL, 0, ARENA_PAGES);

    munmap(view, ESCAPE_BYTES);
    view = escape_map(e, view, 0, ARENA_PAGES);
    escape_look(e, view);
    unmap(e, view, ARENA_PAGES);
}

/* The second view of the place comes from another connection of the process. */
static void unmapped_and_another(struct escape *e)
{
    static struct fakehyp *other;
    static struct fakehyp_gmem *gmem;
    void *again;

    if (!other && (fakehyp_connect(rig.socket, &other) || fakehyp_gmem_import(other, e->fd, &gmem)))
        escape_broken(e, "a second connection");
    uint8_t *view = escape_map(e, NULL, 0, ARENA_PAGES);
    munmap(view, ESCAPE_BYTES);
    if (fakehyp_map(gmem, view, ESCAPE_BYTES, RW, 0, &again))
        escape_broken(e, "map by a second connection");
    escape_look(e, again);
    if (fakehyp_unmap(other, again, ESCAPE_BYTES))
        escape_broken(e, "unmap by a second connection");
}

/* ---- mremap ---------------------------------------------------------------------------------------------------------
 *
 * The kernel moves one mapping, and a view is several where a part of it is open: these are views of pages that are
 * private for good, or just now.
 */

static const struct part {
    uint64_t first, nr;
} parts[] = {{0, ARENA_SECRETS}, {ARENA_FLIP, ARENA_FLIPS}};
#define PARTS 2u

static void look_part(struct escape *e, const uint8_t *mapping, const struct part *part)
{
    for (uint64_t i = 0; i < part->nr; i++)
        escape_look_at(e, mapping - part->first * PAGE, part->first + i);
}

/* What came of an mremap(): gone again. */
static void remapped(struct escape *e, void *got, const struct part *part)
{
    if (got == MAP_FAILED) {
        /* Flips may be several mappings just now. */
        if (part->first == 0)
            escape_broken(e, "mremap");
        return;
    }
    look_part(e, got, part);
    munmap(got, part->nr * PAGE);
}

static void remap_moves(struct escape *e)
{
    for (const struct part *part = parts; part < parts + PARTS; part++) {
        size_t bytes = part->nr * PAGE;
        uint8_t *view = escape_map(e, NULL, part->first, part->nr);
        void *to = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        remapped(e, mremap(view, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | e->row->arg, to), part);
        unmap(e, view, part->nr);
    }
}

static void remap_over_view(struct escape *e)
{
    for (const struct part *part = parts; part < parts + PARTS; part++) {
        uint8_t *view = escape_map(e, NULL, part->first, part->nr), *other = escape_map(e, NULL, 0, part->nr);
        size_t bytes = part->nr * PAGE;
        remapped(e, mremap(view, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, other), part);
        unmap(e, view, part->nr);
        unmap(e, other, part->nr);
    }
}

static void remap_grows(struct escape *e)
{
    for (const struct part *part = parts; part < parts + PARTS; part++) {
        uint8_t *view = escape_map(e, NULL, part->first, part->nr / 2);
        remapped(e, mremap(view, part->nr / 2 * PAGE, part->nr * PAGE, MREMAP_MAYMOVE), part);
        unmap(e, view, part->nr / 2);
    }
}

static void remap_duplicates(struct escape *e)
{
    for (const struct part *part = parts; part < parts + PARTS; part++) {
        uint8_t *view = escape_map(e, NULL, part->first, part->nr);
        remapped(e, mremap(view, 0, part->nr * PAGE, MREMAP_MAYMOVE), part);
        unmap(e, view, part->nr);
    }
}

static void remap_shrinks(struct escape *e)
{
    uint8_t *view = escape_map(e, NULL, 0, ARENA_PAGES);

    if (mremap(view + ARENA_SHARED * PAGE, (ARENA_PAGES - ARENA_SHARED) * PAGE, PAGE, 0) == MAP_FAILED)
        escape_broken(e, "mremap");
    escape_look(e, view);
    unmap(e, view, ARENA_PAGES);
}

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static void remap_by_library(struct escape *e)
{
    uint8_t *view = escape_map(e, NULL, 0, ARENA_FLIP);
    void *got;

    if (fakehyp_remap(e->fh, view, ARENA_FLIP * PAGE, ESCAPE_BYTES, &got))
        escape_broken(e, "fakehyp_remap");
    escape_look(e, got);
    unmap(e, got, ARENA_PAGES);
}

static void remap_pages(struct escape *e)
{
    for (const struct part *part = parts; part < parts + PARTS; part++) {
        uint8_t *view = escape_map(e, NULL, part->first, part->nr);
        syscall(SYS_remap_file_pages, view, part->nr * PAGE, 0, 0, 0);
        look_part(e, view, part);
        unmap(e, view, part->nr);
    }
}

/* ---- protection, advice, locks ------------------------------------------------------------------------------------
 */

static void protections(struct escape *e)
{
    static const int prot[] = {PROT_NONE, PROT_READ, PROT_WRITE, RW | PROT_EXEC, RW};

    for (size_t i = 0; i < sizeof(prot) / sizeof(prot[0]); i++)
        if (mprotect(e->view, ESCAPE_BYTES, prot[i]) && !(prot[i] & PROT_EXEC))
            escape_broken(e, "mprotect");
    escape_look(e, e->view);
}

static void sealed(struct escape *e)
{
    if (!e->turn && syscall(SYS_mseal, e->view, ESCAPE_BYTES, 0))
        escape_broken(e, "mseal");
    escape_look(e, e->view);
}

static const char *no_mseal(void)
{
    return syscall(SYS_mseal, 1, 1, 1) && errno == ENOSYS ? "no mseal (Linux 6.10)" : NULL;
}

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

/* All of the view, each page by itself, and the aligned 2 MiB of the flips: a refusal is no error. */
static void advise(const struct escape *e, int advice)
{
    madvise(e->view, ESCAPE_BYTES, advice);
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        madvise(e->view + escape_page(i) * PAGE, PAGE, advice);
    madvise(e->view + ARENA_FLIP * PAGE, UINT64_C(2) << 20, advice);
}

static void advised(struct escape *e)
{
    advise(e, e->row->arg);
    escape_look(e, e->view);
}

static void advised_order(struct escape *e)
{
    advise(e, MADV_RANDOM);
    advise(e, MADV_SEQUENTIAL);
    advise(e, MADV_NORMAL);
    escape_look(e, e->view);
}

static void advised_dump(struct escape *e)
{
    advise(e, MADV_DONTDUMP);
    advise(e, MADV_DODUMP);
    escape_look(e, e->view);
}

static void advised_merge(struct escape *e)
{
    advise(e, MADV_MERGEABLE);
    escape_look(e, e->view);
    advise(e, MADV_UNMERGEABLE);
}

static void advised_fork(struct escape *e)
{
    advise(e, MADV_DOFORK);
    pid_t pid = fork();
    if (pid == 0) {
        escape_look(e, e->view);
        _exit(0);
    }
    advise(e, MADV_DONTFORK);
    escape_wait(e, pid);
}

static void advised_wipe(struct escape *e)
{
    advise(e, MADV_WIPEONFORK);
    advise(e, MADV_KEEPONFORK);
    escape_look(e, e->view);
}

/* Each page by itself: EFAULT is the refusal. */
static void populated(struct escape *e)
{
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        if (!madvise(e->view + escape_page(i) * PAGE, PAGE, e->row->arg) && arena_is_secret(escape_page(i)))
            escape_broken(e, "a secret was populated");
    escape_look(e, e->view);
}

static void collapsed(struct escape *e)
{
    advise(e, MADV_HUGEPAGE);
    advise(e, MADV_COLLAPSE);
    escape_look(e, e->view);
    advise(e, MADV_NOHUGEPAGE);
}

static void collapsed_of_its_own(struct escape *e)
{
    uint8_t *p = escape_mmap(e, e->fd, RW, MAP_SHARED);

    if (!p)
        return;
    madvise(p, ESCAPE_BYTES, MADV_HUGEPAGE);
    for (uint64_t at = 0; at < ARENA_PAGES; at += 512)
        madvise(p + at * PAGE, UINT64_C(2) << 20, MADV_COLLAPSE);
    escape_look(e, p);
    munmap(p, ESCAPE_BYTES);
}

static void guarded(struct escape *e)
{
    uint8_t *view = escape_map(e, NULL, 0, ARENA_PAGES);

    madvise(view, ESCAPE_BYTES, MADV_GUARD_INSTALL);
    escape_look(e, view);
    madvise(view, ESCAPE_BYTES, MADV_GUARD_REMOVE);
    escape_look(e, view);
    unmap(e, view, ARENA_PAGES);
}

static const char *no_guard(void)
{
    void *p = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc = madvise(p, PAGE, MADV_GUARD_INSTALL);
    munmap(p, PAGE);
    return rc ? "no MADV_GUARD_INSTALL (Linux 6.13)" : NULL;
}

/* Not through libc: a sanitizer's mlock() does nothing. */
static void locked(struct escape *e)
{
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        if (!syscall(SYS_mlock, e->view + escape_page(i) * PAGE, PAGE) && arena_is_secret(escape_page(i)))
            escape_broken(e, "a secret was locked");
    escape_look(e, e->view);
    syscall(SYS_munlock, e->view, ESCAPE_BYTES);
}

static void locked_on_fault(struct escape *e)
{
    syscall(SYS_mlock2, e->view, ESCAPE_BYTES, MLOCK_ONFAULT);
    escape_look(e, e->view);
    syscall(SYS_munlock, e->view, ESCAPE_BYTES);
}

static const char *shadow_memory(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return "a sanitizer's shadow memory is larger than the machine's";
#else
    return NULL;
#endif
}

static void locked_all(struct escape *e)
{
    syscall(SYS_mlockall, e->row->arg);
    /* What comes under MCL_FUTURE is populated when it is mapped. */
    uint8_t *view = escape_map(e, NULL, 0, ARENA_PAGES);
    escape_look(e, view);
    unmap(e, view, ARENA_PAGES);
    syscall(SYS_munlockall);
}

static void residence(struct escape *e)
{
    unsigned char present[ARENA_PAGES];
    static const uint8_t nothing = 0;

    if (mincore(e->view, ESCAPE_BYTES, present))
        escape_broken(e, "mincore");
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        if (present[escape_page(i)] & 1)
            escape_saw(e, escape_page(i), &nothing, 1);
        else
            escape_refused(e);
}

static void synced(struct escape *e)
{
    msync(e->view, ESCAPE_BYTES, MS_SYNC);
    msync(e->view, ESCAPE_BYTES, MS_ASYNC);
    msync(e->view, ESCAPE_BYTES, MS_INVALIDATE);
    escape_look(e, e->view);
}

static void migrated(struct escape *e)
{
    enum { BIND = 2, MOVE = 1 << 1 };
    unsigned long node = 1;
    void *pages[ESCAPE_PAGES];
    int nodes[ESCAPE_PAGES], status[ESCAPE_PAGES];

    for (unsigned i = 0; i < ESCAPE_PAGES; i++) {
        pages[i] = e->view + escape_page(i) * PAGE;
        nodes[i] = 0;
    }
    syscall(SYS_mbind, e->view, ESCAPE_BYTES, BIND, &node, 8 * sizeof(node), MOVE);
    syscall(SYS_move_pages, 0, ESCAPE_PAGES, pages, nodes, status, MOVE);
    escape_look(e, e->view);
}

/* ---- userfaultfd ---------------------------------------------------------------------------------------------------
 */

static int own_uffd(struct escape *e)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
        escape_broken(e, "userfaultfd");
    return fd;
}

static int library_uffd(struct escape *e)
{
    int fd = escape_find_fd("[userfaultfd]");

    if (fd < 0)
        escape_broken(e, "the library has no userfaultfd");
    return fd;
}

static void copy_into(int uffd, const uint8_t *mapping, uint64_t page)
{
    static uint8_t source[4096] __attribute__((aligned(4096)));
    struct uffdio_copy copy = {.dst = (uintptr_t)(mapping + page * PAGE), .src = (uintptr_t)source, .len = PAGE};
    struct uffdio_zeropage zero = {.range = {copy.dst, PAGE}};

    memset(source, 0x44, sizeof(source));
    if (page % 2)
        ioctl(uffd, UFFDIO_COPY, &copy);
    else
        ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
}

static void continue_into(int uffd, const uint8_t *mapping, uint64_t page)
{
    struct {
        struct uffdio_range range;
        uint64_t mode;
        int64_t mapped;
    } body = {.range = {(uintptr_t)(mapping + page * PAGE), PAGE}};

    ioctl(uffd, UFFDIO_CONTINUE, &body);
}

static void fill_all(struct escape *e, int uffd, const uint8_t *mapping,
                     void (*fill)(int uffd, const uint8_t *mapping, uint64_t page))
{
    for (unsigned i = 0; i < ESCAPE_PAGES; i++)
        fill(uffd, mapping, escape_page(i));
    escape_look(e, mapping);
}

static void own_uffd_on_view(struct escape *e)
{
    struct uffdio_register reg = {.range = {(uintptr_t)e->view, ESCAPE_BYTES}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int fd = own_uffd(e);

    if (!ioctl(fd, UFFDIO_REGISTER, &reg))
        escape_broken(e, "the view let itself be registered a second time");
    fill_all(e, fd, e->view, e->row->arg ? copy_into : continue_into);
    close(fd);
}

static void own_uffd_unregisters(struct escape *e)
{
    struct uffdio_range all = {(uintptr_t)e->view, ESCAPE_BYTES};
    int fd = own_uffd(e);

    ioctl(fd, UFFDIO_UNREGISTER, &all);
    escape_look(e, e->view);
    close(fd);
}

/* Older kernels let one userfaultfd unregister what another one has registered. */
static const char *any_unregisters(void)
{
    struct escape none = {.row = NULL};
    void *p = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register reg = {.range = {(uintptr_t)p, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int one = own_uffd(&none), two = own_uffd(&none);
    bool bad = ioctl(one, UFFDIO_REGISTER, &reg) || !ioctl(two, UFFDIO_UNREGISTER, &reg.range);

    close(one);
    close(two);
    munmap(p, PAGE);
    return bad ? "this kernel lets any userfaultfd of a process unregister a mapping: the signal is lost" : NULL;
}

static void own_uffd_on_own_mapping(struct escape *e)
{
    uint8_t *p = escape_mmap(e, e->fd, RW, MAP_SHARED);
    struct uffdio_register reg = {.range = {(uintptr_t)p, ESCAPE_BYTES}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int fd = own_uffd(e);

    if (ioctl(fd, UFFDIO_REGISTER, &reg))
        escape_broken(e, "UFFDIO_REGISTER");
    fill_all(e, fd, p, e->row->arg ? copy_into : continue_into);
    munmap(p, ESCAPE_BYTES);
    close(fd);
}

static void library_uffd_fills(struct escape *e)
{
    fill_all(e, library_uffd(e), e->view, e->row->arg ? copy_into : continue_into);
}

static void library_uffd_unregisters(struct escape *e)
{
    struct uffdio_range all = {(uintptr_t)e->view, ESCAPE_BYTES};

    if (ioctl(library_uffd(e), UFFDIO_UNREGISTER, &all))
        escape_broken(e, "UFFDIO_UNREGISTER");
    escape_look(e, e->view);
}

static void library_uffd_closed(struct escape *e)
{
    close(library_uffd(e));
    escape_look(e, e->view);
}

#define BARE "a mapping past the library is not registered and reads zeros; map with fakehyp_map()"
#define MOVED "the kernel drops the registration; use fakehyp_remap()"
#define STAYS "SIGBUS stays"
#define UFFD "the library's userfaultfd is the library's: leave it alone"

static const struct escape_row rows[] = {
    ROW("mmap", "of the descriptor, beside the view", DECLARED, BARE, mapped, .arg = MAP_SHARED),
    ROW("mmap, MAP_POPULATE", "the same, populated", DECLARED, BARE, mapped, .arg = MAP_SHARED | MAP_POPULATE),
    ROW("mmap, MAP_PRIVATE", "a load", DECLARED, BARE, mapped, .arg = MAP_PRIVATE),
    ROW("mmap, MAP_PRIVATE, a store", "copy on write of what is not there", DECLARED, BARE, private_store),
    ROW("MAP_FIXED over a view", "the file mapped over the library's view", DECLARED, BARE, over_a_view),
    ROW("a view over a mapping", "fakehyp_map() with the address of something else", CLOSED, "EEXIST",
        view_over_mapping),
    ROW("munmap, then a view there", "past the library, then fakehyp_map()", HARMLESS, STAYS, unmapped_and_again),
    ROW("munmap, then a view of another connection", "in the same process", HARMLESS, STAYS, unmapped_and_another),
    ROW("mremap moves", "MREMAP_FIXED to a free place", DECLARED, MOVED, remap_moves),
    ROW("mremap, MREMAP_DONTUNMAP", "the old place stays mapped", DECLARED, MOVED, remap_moves,
        .arg = MREMAP_DONTUNMAP),
    ROW("mremap over another view", "MREMAP_FIXED onto it", DECLARED, MOVED, remap_over_view),
    ROW("mremap grows", "a view to twice its size", DECLARED, MOVED, remap_grows),
    ROW("mremap shrinks", "the end of a view", HARMLESS, STAYS, remap_shrinks),
    ROW("mremap duplicates", "old size 0", DECLARED, MOVED, remap_duplicates),
    ROW("fakehyp_remap", "a view of 2 MiB to 8 MiB", HARMLESS, STAYS, remap_by_library),
    ROW("remap_file_pages", "of a view", DECLARED, "the kernel maps anew, past the library; use fakehyp_map()",
        remap_pages),
    ROW("mprotect", "none, read, write, execute", HARMLESS, STAYS, protections),
    ROW("mseal", "of a view", HARMLESS, STAYS "; the view cannot be unmapped any more", sealed, .missing = no_mseal),
    ROW("MADV_RANDOM, SEQUENTIAL, NORMAL", "of a view", HARMLESS, STAYS, advised_order),
    ROW("MADV_WILLNEED", "of a view", HARMLESS, STAYS, advised, .arg = MADV_WILLNEED),
    ROW("MADV_DONTNEED", "of a view", HARMLESS, STAYS, advised, .arg = MADV_DONTNEED),
    ROW("MADV_DONTNEED_LOCKED", "of a view", HARMLESS, STAYS, advised, .arg = MADV_DONTNEED_LOCKED),
    ROW("MADV_FREE", "of a view", HARMLESS, "EINVAL", advised, .arg = MADV_FREE),
    ROW("MADV_REMOVE", "of a view: punches holes into what is shared", HARMLESS,
        STAYS "; shared contents are gone, as with guest_memfd", advised, .arg = MADV_REMOVE, .wipes = true),
    ROW("MADV_COLD", "of a view", HARMLESS, STAYS, advised, .arg = MADV_COLD),
    ROW("MADV_PAGEOUT", "of a view", HARMLESS, STAYS, advised, .arg = MADV_PAGEOUT),
    ROW("MADV_POPULATE_READ", "of a view", HARMLESS, "EFAULT", populated, .arg = MADV_POPULATE_READ),
    ROW("MADV_POPULATE_WRITE", "of a view", HARMLESS, "EFAULT", populated, .arg = MADV_POPULATE_WRITE),
    ROW("MADV_HUGEPAGE", "of a view", HARMLESS, STAYS, advised, .arg = MADV_HUGEPAGE),
    ROW("MADV_COLLAPSE", "of a view, after MADV_HUGEPAGE", HARMLESS, STAYS, collapsed),
    ROW("MADV_COLLAPSE of its own mapping", "past the library", DECLARED,
        BARE "; what is stored in a huge folio while a page of it changes sides may be lost", collapsed_of_its_own,
        .wipes = true),
    ROW("MADV_DOFORK, then fork", "through libc", CLOSED, "the library's child handler takes the view away",
        advised_fork),
    ROW("MADV_WIPEONFORK, KEEPONFORK", "of a view", HARMLESS, "EINVAL", advised_wipe),
    ROW("MADV_MERGEABLE", "of a view", HARMLESS, STAYS, advised_merge),
    ROW("MADV_DONTDUMP, DODUMP", "of a view", HARMLESS, STAYS, advised_dump),
    ROW("MADV_GUARD_INSTALL, GUARD_REMOVE", "of a view", HARMLESS, "SIGSEGV, and then " STAYS, guarded,
        .missing = no_guard),
    ROW("mlock", "each page of a view", HARMLESS, "ENOMEM", locked),
    ROW("mlock2, MLOCK_ONFAULT", "of a view", HARMLESS, STAYS, locked_on_fault),
    ROW("mlockall, MCL_CURRENT", "then a new view", HARMLESS, STAYS, locked_all, .arg = MCL_CURRENT,
        .missing = shadow_memory),
    ROW("mlockall, MCL_FUTURE", "then a new view", HARMLESS, STAYS, locked_all, .arg = MCL_FUTURE),
    ROW("mincore", "of a view", HARMLESS, "a private page is absent", residence),
    ROW("msync", "MS_SYNC, MS_ASYNC, MS_INVALIDATE", HARMLESS, STAYS, synced),
    ROW("mbind, move_pages", "MPOL_MF_MOVE", HARMLESS, STAYS, migrated),
    ROW("its own userfaultfd on a view", "REGISTER, CONTINUE", HARMLESS, "EBUSY, EFAULT", own_uffd_on_view),
    ROW("its own userfaultfd unregisters", "UNREGISTER of a view", HARMLESS, "EINVAL", own_uffd_unregisters,
        .missing = any_unregisters),
    ROW("its own userfaultfd fills a view", "COPY and ZEROPAGE into private pages", DECLARED,
        "the kernel lets any userfaultfd of the process fill a registered mapping; do not fill views", own_uffd_on_view,
        .arg = 1),
    ROW("its own userfaultfd on its own mapping", "COPY and ZEROPAGE into private pages", DECLARED, BARE,
        own_uffd_on_own_mapping, .arg = 1),
    ROW("UFFDIO_CONTINUE", "by its own userfaultfd, on its own mapping", HARMLESS, "EFAULT: there is no page",
        own_uffd_on_own_mapping),
    ROW("the library's userfaultfd fills", "COPY and ZEROPAGE into private pages", DECLARED, UFFD, library_uffd_fills,
        .arg = 1),
    ROW("the library's userfaultfd continues", "CONTINUE on private pages", HARMLESS, "there is no page",
        library_uffd_fills),
    ROW("the library's userfaultfd unregisters", "UNREGISTER of a view", DECLARED, UFFD, library_uffd_unregisters),
    ROW("the library's userfaultfd is closed", "close, then touches", DECLARED, UFFD, library_uffd_closed,
        .fresh = true),
};

ESCAPE_MAIN("memory", rows)
