/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fixture and assertions for cmocka tests of programs that use libfakehyp.
 * Include <cmocka.h> (and what it needs) before this file; doc/guide/your-own-test.md
 * shows a complete test.
 */
#ifndef FAKEHYP_CMOCKA_H
#define FAKEHYP_CMOCKA_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <fakehyp/fakehyp.h>

#define FAKEHYP_CMOCKA_PAGES 16

/* What *state points to: a VM with one guest_memfd of 16 shared pages, mapped, and memslot 0 at guest physical address
 * 0. */
struct fakehyp_cmocka {
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *gmem;
    uint8_t *base; /* the view */
    size_t size;   /* its length in bytes */
};

/* The fixture of the running test: the assertions ask its daemon. */
static struct fakehyp_cmocka *fakehyp_cmocka_current;

static inline int fakehyp_cmocka_teardown(void **state)
{
    struct fakehyp_cmocka *f = (struct fakehyp_cmocka *)*state;

    fakehyp_cmocka_current = NULL;
    if (f)
        fakehyp_disconnect(f->fh);
    free(f);
    *state = NULL;
    return 0;
}

/* Connects as fakehyp_connect(NULL): without FAKEHYP_SOCKET to a private daemon. */
static inline int fakehyp_cmocka_setup(void **state)
{
    struct fakehyp_cmocka *f = (struct fakehyp_cmocka *)calloc(1, sizeof(*f));
    void *base = NULL;

    *state = f;
    if (!f)
        return -1;
    f->size = (size_t)FAKEHYP_CMOCKA_PAGES * FAKEHYP_PAGE_SIZE;
    if (fakehyp_connect(NULL, &f->fh) || fakehyp_vm_create(f->fh, NULL, &f->vm) ||
        fakehyp_gmem_create(f->vm, f->size, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &f->gmem) ||
        fakehyp_map(f->gmem, NULL, f->size, PROT_READ | PROT_WRITE, 0, &base) ||
        fakehyp_set_memory_region(f->vm, 0, 0, f->size, f->gmem, 0)) {
        print_error("fakehyp_cmocka_setup: %s\n", fakehyp_last_error());
        fakehyp_cmocka_teardown(state);
        return -1;
    }
    f->base = (uint8_t *)base;
    fakehyp_cmocka_current = f;
    return 0;
}

static inline const char *fakehyp_cmocka_touch_name(enum fakehyp_touch touch)
{
    return touch == FAKEHYP_TOUCH_OK ? "it succeeded" : touch == FAKEHYP_TOUCH_SIGBUS ? "SIGBUS" : "SIGSEGV";
}

static inline void fakehyp_cmocka_expect_touch(const volatile void *p, enum fakehyp_touch wanted, const char *text,
                                               const char *file, int line)
{
    enum fakehyp_touch got = fakehyp_touch_read(p, NULL, NULL, NULL);
    char *json = NULL;

    if (got == wanted)
        return;
    print_error("%s is not %s: expected of a load: %s, but: %s\n", text,
                wanted == FAKEHYP_TOUCH_SIGBUS ? "private" : "shared", fakehyp_cmocka_touch_name(wanted),
                fakehyp_cmocka_touch_name(got));
    if (fakehyp_cmocka_current && fakehyp_query_address(fakehyp_cmocka_current->fh, p, &json) == 0)
        print_error("fakehypd says: %s\n", json);
    else
        print_error("fakehypd says nothing: %s\n", fakehyp_last_error());
    free(json);
    _fail(file, line);
}

/* Not inline: gcc 12 sees a dangling pointer where two of these follow each other. */
static __attribute__((noinline, unused)) void fakehyp_cmocka_expect_conversion(struct fakehyp_gmem *gmem,
                                                                               uint64_t offset, uint64_t size,
                                                                               uint64_t attributes, const char *file,
                                                                               int line)
{
    struct fakehyp_memory_attributes2 request;
    memset(&request, 0, sizeof(request)); /* no initializer suits both C and C++ without a warning */
    request.offset = offset;
    request.size = size;
    request.attributes = attributes;
    int rc = fakehyp_set_memory_attributes2(gmem, &request);

    if (rc == 0)
        return;
    print_error("conversion of [%#llx, %#llx) to %s: expected 0, got %d (%s)\n", (unsigned long long)offset,
                (unsigned long long)(offset + size), attributes & FAKEHYP_PRIVATE ? "private" : "shared", rc,
                strerror(-rc));
    if (rc == -EAGAIN)
        print_error("first page in the way: %#llx\n", (unsigned long long)request.error_offset);
    print_error("fakehypd says: %s\n", fakehyp_last_error());
    _fail(file, line);
}

static inline void fakehyp_cmocka_expect_busy(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t size,
                                              const char *name, const char *file, int line)
{
    struct fakehyp_holder holder[16];
    int rc = fakehyp_convert(gmem, offset, size, FAKEHYP_PRIVATE, NULL);
    size_t nr = fakehyp_last_holders(holder, 16);

    nr = nr < 16 ? nr : 16;
    for (size_t i = 0; rc == -EAGAIN && i < nr; i++)
        if (strstr(holder[i].what, name))
            return;
    if (rc != -EAGAIN) {
        print_error("conversion of [%#llx, %#llx) to private: expected EAGAIN because of \"%s\", got %d (%s)\n",
                    (unsigned long long)offset, (unsigned long long)(offset + size), name, rc, strerror(-rc));
    } else {
        print_error("the refused conversion names holders (%zu), but not \"%s\":\n", nr, name);
        for (size_t i = 0; i < nr; i++)
            print_error("  %s: %s, %u at %#llx, process %d\n", holder[i].what, holder[i].kind, holder[i].count,
                        (unsigned long long)holder[i].offset, (int)holder[i].pid);
    }
    if (rc)
        print_error("fakehypd says: %s\n", fakehyp_last_error());
    _fail(file, line);
}

/* A load at p raises SIGBUS. */
#define assert_private(p) fakehyp_cmocka_expect_touch((p), FAKEHYP_TOUCH_SIGBUS, #p, __FILE__, __LINE__)
/* A load at p succeeds. */
#define assert_shared(p) fakehyp_cmocka_expect_touch((p), FAKEHYP_TOUCH_OK, #p, __FILE__, __LINE__)
/* The conversion succeeds; attributes: FAKEHYP_PRIVATE or FAKEHYP_SHARED. */
#define assert_converts(gmem, offset, size, attributes)                                                                \
    fakehyp_cmocka_expect_conversion((gmem), (offset), (size), (attributes), __FILE__, __LINE__)
/* The conversion to private is refused with EAGAIN, and one of the holders that it names contains the text. */
#define assert_busy_names(gmem, offset, size, holder)                                                                  \
    fakehyp_cmocka_expect_busy((gmem), (offset), (size), (holder), __FILE__, __LINE__)

#endif
