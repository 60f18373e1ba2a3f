/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs of host processes, in the process. */
#include "src/scenario/live.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void live_rc(struct sc_verdict *v, int rc)
{
    sc_rc(v, rc);
    if (rc)
        sc_detail(v, "%.300s", fakehyp_last_error());
}

void live_convert_verdict(struct sc_verdict *v, int rc, uint64_t error_offset)
{
    struct fakehyp_holder holders[SC_HOLDERS];
    size_t nr;

    live_rc(v, rc);
    if (!rc)
        return;
    if (error_offset != UINT64_MAX)
        sc_word(v, "%s@%llu", strerrorname_np(-rc), (unsigned long long)(error_offset / SC_PAGE));
    nr = fakehyp_last_holders(holders, SC_HOLDERS);
    v->nr_holders = (uint32_t)(nr < SC_HOLDERS ? nr : SC_HOLDERS);
    for (unsigned i = 0; i < v->nr_holders; i++) {
        /* The runner knows the process by its number. */
        snprintf(v->holders[i].who, sizeof(v->holders[i].who), "%d", (int)holders[i].pid);
        snprintf(v->holders[i].what, sizeof(v->holders[i].what), "%.47s", holders[i].what);
        snprintf(v->holders[i].kind, sizeof(v->holders[i].kind), "%s", holders[i].kind);
        v->holders[i].count = holders[i].count;
    }
}

struct fakehyp_gmem *live_file_of(struct live_actor *a, int64_t number, struct sc_verdict *v)
{
    if (number >= 0 && number < a->nr_files && a->file[number])
        return a->file[number];
    sc_broken(v, "process %s does not have file %lld", a->name, (long long)number);
    return NULL;
}

uint8_t *live_address(struct live_actor *a, int64_t page, int64_t view, struct sc_verdict *v)
{
    uint8_t *addr = NULL;

    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->nr_views && !addr; i++) {
        const struct live_view *x = &a->view[i];
        bool has = !x->gone && page >= (int64_t)x->page && page - (int64_t)x->page < (int64_t)x->nr;
        if (view ? i + 1 == (uint64_t)view : has)
            addr = x->addr + (page - (int64_t)x->page) * (int64_t)SC_PAGE;
    }
    pthread_mutex_unlock(&a->lock);
    if (!addr)
        sc_broken(v, "process %s has no view of page %lld", a->name, (long long)page);
    return addr;
}

/* ---- conversions and references --------------------------------------------------------------------------------- */

void live_PROCESS_convert(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    struct fakehyp_gmem *file = live_file_of(a, c->arg[3].n, v);
    uint64_t error_offset = UINT64_MAX;

    if (!file)
        return;
    int rc = fakehyp_convert(file, (uint64_t)c->arg[0].n * SC_PAGE, (uint64_t)c->arg[1].n * SC_PAGE,
                             (uint64_t)c->arg[2].n, &error_offset);
    live_convert_verdict(v, rc, error_offset);
}

void live_PROCESS_convert_raw(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    struct fakehyp_gmem *file = live_file_of(a, c->arg[4].n, v);
    struct fakehyp_memory_attributes2 attr = {.offset = (uint64_t)c->arg[0].n,
                                              .size = (uint64_t)c->arg[1].n,
                                              .attributes = (uint64_t)c->arg[2].n,
                                              .flags = (uint64_t)c->arg[3].n,
                                              .error_offset = UINT64_MAX};
    if (!file)
        return;
    int rc = fakehyp_set_memory_attributes2(file, &attr);
    live_convert_verdict(v, rc, attr.error_offset);
}

void live_PROCESS_pin(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    static const char *const kinds[] = {"FOLL_GET", "FOLL_PIN", "FOLL_LONGTERM"};
    struct fakehyp_gmem *file = live_file_of(a, c->arg[4].n, v);
    struct fakehyp_pin *pin;
    unsigned kind = 0;

    while (kind < 3 && strcmp(c->arg[2].text, kinds[kind]))
        kind++;
    if (kind == 3 || a->nr_pins == LIVE_MAX_PINS)
        sc_broken(v, "pin of kind \"%s\": FOLL_GET, FOLL_PIN or FOLL_LONGTERM, at most %u", c->arg[2].text,
                  LIVE_MAX_PINS);
    if (!file || *v->broken)
        return;
    live_rc(v, fakehyp_pin(file, (uint64_t)c->arg[0].n * SC_PAGE, (uint64_t)c->arg[1].n * SC_PAGE,
                           (enum fakehyp_pin_kind)kind, c->arg[3].text, &pin));
    if (v->rc)
        return;
    pthread_mutex_lock(&a->lock);
    a->pin[a->nr_pins++] = pin;
    v->value = a->nr_pins;
    pthread_mutex_unlock(&a->lock);
}

void live_PROCESS_unpin(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n;

    if (n < 1 || n > a->nr_pins || !a->pin[n - 1]) {
        sc_broken(v, "no such pin: its verdict was a refusal, or it has been dropped");
        return;
    }
    live_rc(v, fakehyp_unpin(a->pin[n - 1]));
    a->pin[n - 1] = NULL;
}

/* ---- accesses --------------------------------------------------------------------------------------------------- */

static void touch_word(struct sc_verdict *v, enum fakehyp_touch end)
{
    static const char *const words[] = {"0", "SIGBUS", "SIGSEGV"};
    sc_word(v, "%s", words[end]);
    v->rc = end ? -EFAULT : 0;
}

void live_PROCESS_touch(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    uint8_t *addr = live_address(a, c->arg[0].n, c->arg[2].n, v), byte;

    if (addr)
        touch_word(v, c->arg[1].text[0] == 'w' ? fakehyp_touch_write(addr, 1, NULL, NULL)
                                               : fakehyp_touch_read(addr, &byte, NULL, NULL));
}

void live_PROCESS_read(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    uint8_t *addr = live_address(a, c->arg[0].n, c->arg[2].n, v);

    if (addr && (c->arg[1].n < 1 || c->arg[1].n > SC_BYTES))
        sc_broken(v, "read of %lld bytes: 1 to %u", (long long)c->arg[1].n, SC_BYTES);
    if (!addr || *v->broken)
        return;
    touch_word(v, FAKEHYP_TOUCH_OK);
    for (int64_t i = 0; i < c->arg[1].n && !v->rc; i++)
        touch_word(v, fakehyp_touch_read(addr + i, (uint8_t *)&v->bytes[i], NULL, NULL));
    v->nr_bytes = v->rc ? 0 : (uint32_t)c->arg[1].n;
}

void live_PROCESS_write(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    uint8_t *addr = live_address(a, c->arg[0].n, c->arg[2].n, v);

    if (!addr)
        return;
    touch_word(v, FAKEHYP_TOUCH_OK);
    for (size_t i = 0; i <= strlen(c->arg[1].text) && !v->rc; i++)
        touch_word(v, fakehyp_touch_write(addr + i, (uint8_t)c->arg[1].text[i], NULL, NULL));
}

/* ---- mappings --------------------------------------------------------------------------------------------------- */

void live_PROCESS_mmap(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    struct fakehyp_gmem *file = live_file_of(a, c->arg[2].n, v);
    uint64_t page = (uint64_t)c->arg[0].n;
    void *addr;

    if (file && a->nr_views == LIVE_MAX_VIEWS)
        sc_broken(v, "more than %u views", LIVE_MAX_VIEWS);
    if (!file || *v->broken)
        return;
    uint64_t nr = c->arg[1].n ? (uint64_t)c->arg[1].n : fakehyp_gmem_size(file) / SC_PAGE - page;
    live_rc(v, fakehyp_map(file, NULL, nr * SC_PAGE, PROT_READ | PROT_WRITE, page * SC_PAGE, &addr));
    if (v->rc)
        return;
    pthread_mutex_lock(&a->lock);
    a->view[a->nr_views++] = (struct live_view){.addr = addr, .page = page, .nr = nr};
    v->value = a->nr_views;
    pthread_mutex_unlock(&a->lock);
}

void live_PROCESS_munmap(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    int64_t n = c->arg[0].n;

    if (n < 1 || n > a->nr_views || a->view[n - 1].gone) {
        sc_broken(v, "process %s has no such view", a->name);
        return;
    }
    live_rc(v, fakehyp_unmap(a->fh, a->view[n - 1].addr, a->view[n - 1].nr * SC_PAGE));
    a->view[n - 1].gone = true;
}

/* ---- system calls ----------------------------------------------------------------------------------------------- */

/* read(2) and write(2) with a buffer in a view; the other end of the pipe is this process. */
static void system_call(struct live_actor *a, const struct sc_call *c, bool to_user, struct sc_verdict *v)
{
    uint8_t *addr = live_address(a, c->arg[0].n, c->arg[2].n, v);
    size_t bytes = (size_t)c->arg[1].n;
    int fds[2];

    if (addr && (!bytes || bytes > 64 * SC_PAGE))
        sc_broken(v, "%zu bytes: 1 to %llu", bytes, (unsigned long long)(64 * SC_PAGE));
    if (!addr || *v->broken)
        return;
    char *kernel = calloc(1, bytes);
    if (!kernel || pipe2(fds, O_CLOEXEC | O_NONBLOCK)) {
        sc_broken(v, "no pipe");
        free(kernel);
        return;
    }
    fcntl(fds[1], F_SETPIPE_SZ, 128 * SC_PAGE);
    if (to_user && write(fds[1], kernel, bytes) != (ssize_t)bytes)
        sc_broken(v, "the pipe does not take %zu bytes", bytes);
    ssize_t n = to_user ? read(fds[0], addr, bytes) : write(fds[1], addr, bytes);
    if (n < 0) {
        sc_rc(v, -errno);
    } else {
        v->value = n;
        sc_word(v, "%zd", n);
    }
    close(fds[0]);
    close(fds[1]);
    free(kernel);
}

void live_PROCESS_sys_read(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    system_call(a, c, true, v);
}

void live_PROCESS_sys_write(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    system_call(a, c, false, v);
}

void live_PROCESS_punch(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    struct fakehyp_gmem *file = live_file_of(a, c->arg[2].n, v);
    if (file)
        live_rc(v, fakehyp_fallocate(file, 3, c->arg[0].n * (int64_t)SC_PAGE, c->arg[1].n * (int64_t)SC_PAGE));
}

void live_PROCESS_fallocate(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    struct fakehyp_gmem *file = live_file_of(a, c->arg[3].n, v);
    if (file)
        live_rc(v, fakehyp_fallocate(file, (int)c->arg[0].n, c->arg[1].n, c->arg[2].n));
}

/* The answer is the end of the socket. */
void live_PROCESS_exit(struct live_actor *a, const struct sc_call *c, struct sc_verdict *v)
{
    (void)c;
    (void)v;
    fakehyp_disconnect(a->fh);
    _exit(0);
}
