/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_script.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/common/live_puppet.h"

#define SMALL 16u
#define LARGE 1024u
#define GPA1 (UINT64_C(16) << 20)
#define RUN_MS 8000

struct script {
    const char *socket;
    struct inject *inject; /* NULL: nothing is injected into this process */
    struct fakehyp *fh;
    struct fakehyp_vm *vm;
    struct fakehyp_gmem *small, *large, *again;
    struct fakehyp_vcpu *vcpu;
    struct fakehyp_pin *pin;
    uint8_t *view, *large_view;
    bool guest_ended;
    struct command {
        unsigned op;
        uint64_t ipa, value;
        int64_t result;
    } * command; /* the guest's; shared with it */
};

/* ---- the guest -----------------------------------------------------------------------------------------------------
 */

enum { STORE = 1, LOAD, SHARE, UNSHARE };

static _Noreturn int guest_main(struct fakehyp_guest *guest, void *arg)
{
    struct command *c = arg;

    for (;;) {
        fakehyp_guest_hypercall(guest, HVC_PUPPET_NEXT, 0, 0, 0);
        c->result = 0;
        if (c->op == STORE)
            fakehyp_guest_store(guest, c->ipa, 8, c->value);
        else if (c->op == LOAD)
            c->result = fakehyp_guest_load(guest, c->ipa, 8) == c->value ? 0 : -EBADMSG;
        else
            c->result =
                c->op == SHARE ? fakehyp_guest_mem_share(guest, c->ipa) : fakehyp_guest_mem_unshare(guest, c->ipa);
    }
}

/* A run that failed can be repeated: the guest stands where it stood. */
static int run(struct script *s)
{
    const struct fakehyp_run *run = fakehyp_vcpu_state(s->vcpu);

    for (;;) {
        int rc = fakehyp_vcpu_run_converting(s->vcpu, s->small, 0, RUN_MS);
        if (rc)
            return rc;
        if (run->exit_reason == FAKEHYP_EXIT_HYPERCALL && run->hypercall.nr == HVC_PUPPET_NEXT)
            return 0;
        if (run->exit_reason == FAKEHYP_EXIT_SYSTEM_EVENT) {
            s->guest_ended = true;
            return -ECHILD;
        }
    }
}

static int guest_does(struct script *s, unsigned op, uint64_t page, uint64_t value)
{
    if (s->command->op != op || s->command->ipa != page * PAGE) {
        *s->command = (struct command){.op = op, .ipa = page * PAGE, .value = value, .result = -EINPROGRESS};
    }
    int rc = run(s);
    rc = rc ? rc : (int)s->command->result;
    if (!rc)
        s->command->op = 0;
    return rc;
}

/* ---- the steps
 * ------------------------------------------------------------------------------------------------------- */

static int convert(struct script *s, struct fakehyp_gmem *gmem, uint64_t page, uint64_t nr, uint64_t attributes)
{
    (void)s;
    return fakehyp_convert(gmem, page * PAGE, nr * PAGE, attributes, NULL);
}
static int query(struct script *s, const char *what, struct fakehyp_gmem *gmem)
{
    char *text = NULL;
    json_error_t error;
    int rc = fakehyp_query(s->fh, what, gmem, 0, &text);
    if (rc)
        return rc;
    /* A report that lacks a part is worse than none. */
    bool injecting = s->inject && atomic_exchange(&s->inject->on, false);
    json_t *answer = json_loads(text, 0, &error);
    const json_t *counts = json_object_get(answer, "counts"), *problems = json_object_get(answer, "problems");
    bool whole = !strcmp(what, "status") ? json_integer_value(json_object_get(counts, "gmems")) == 2 &&
                                               json_array_size(json_object_get(answer, "gmems")) == 2 &&
                                               json_array_size(json_object_get(answer, "vms")) == 1 &&
                                               json_array_size(json_object_get(answer, "clients")) == 2
                 : !strcmp(what, "audit")
                     ? json_is_true(json_object_get(answer, "ok")) && json_array_size(problems) == 0
                     : json_object_size(answer) > 4;
    json_decref(answer);
    free(text);
    if (injecting)
        atomic_store(&s->inject->on, true);
    return whole ? 0 : -EBADMSG;
}

#define STEP(name, ...)                                                                                                \
    static int name(struct script *s)                                                                                  \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

STEP(do_connect, return fakehyp_connect(s->socket, &s->fh);)
STEP(do_vm_create, return fakehyp_vm_create(s->fh, NULL, &s->vm);)
STEP(do_small, return fakehyp_gmem_create(s->vm, SMALL *PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &s->small);)
STEP(do_large, return fakehyp_gmem_create(s->vm, LARGE *PAGE, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &s->large);)
STEP(do_slot0, return fakehyp_set_memory_region(s->vm, 0, 0, SMALL *PAGE, s->small, 0);)
STEP(do_slot1, return fakehyp_set_memory_region(s->vm, 1, GPA1, LARGE *PAGE, s->large, 0);)
STEP(do_slot1_off, return fakehyp_set_memory_region(s->vm, 1, GPA1, 0, NULL, 0);)
STEP(do_map, void *p = NULL; int rc = fakehyp_map(s->small, NULL, SMALL *PAGE, PROT_READ | PROT_WRITE, 0, &p);
     s->view = p; return rc;)
STEP(do_map_large, void *p = NULL; int rc = fakehyp_map(s->large, NULL, LARGE *PAGE, PROT_READ | PROT_WRITE, 0, &p);
     s->large_view = p; return rc;)
STEP(do_touch, for (unsigned i = 0; i < SMALL; i++) s->view[i * PAGE] = (uint8_t)(i + 1);
     for (unsigned i = 512; i < LARGE; i++) s->large_view[i * PAGE] = (uint8_t)i; return 0;)
STEP(do_private, return convert(s, s->small, 0, 4, FAKEHYP_PRIVATE);)
STEP(do_shared, return convert(s, s->small, 1, 1, FAKEHYP_SHARED);)
STEP(do_private_hole, return convert(s, s->large, 8, 4, FAKEHYP_PRIVATE);)
STEP(do_shared_hole, return convert(s, s->large, 8, 4, FAKEHYP_SHARED);)
STEP(do_private_large, return convert(s, s->large, 512, 512, FAKEHYP_PRIVATE);)
STEP(do_shared_large, return convert(s, s->large, 512, 512, FAKEHYP_SHARED);)
STEP(do_pin, return fakehyp_pin(s->small, 8 * PAGE, 2 * PAGE, FAKEHYP_FOLL_PIN, "script", &s->pin);)
STEP(do_private_pinned, return convert(s, s->small, 8, 2, FAKEHYP_PRIVATE);)
STEP(do_unpin, return fakehyp_unpin(s->pin);)
STEP(do_punch, return fakehyp_punch(s->small, 9 * PAGE, PAGE);)
STEP(do_allocate, return fakehyp_fallocate(s->large, FALLOC_FL_KEEP_SIZE, 16 * PAGE, 4 * PAGE);)
STEP(do_import, return fakehyp_gmem_import(s->fh, fakehyp_gmem_fd(s->small), &s->again);)
STEP(do_import_close, fakehyp_gmem_close(s->again); s->again = NULL; return 0;)
STEP(do_vcpu, return fakehyp_vcpu_create(s->vm, 0, &s->vcpu);)
STEP(do_guest, return fakehyp_guest_start(s->vm, guest_main, s->command);)
STEP(do_run, int rc = run(s);
     /* One that failed behind guest_start()'s back has not run, and can be started again. */
     if (rc == -ENOENT && !(rc = do_guest(s))) rc = run(s);
     return rc;)
STEP(do_store, return guest_does(s, STORE, 0, 77);)
STEP(do_share, return guest_does(s, SHARE, 0, 0);)
STEP(do_load_shared, return guest_does(s, LOAD, 0, 77);)
STEP(do_unshare, return guest_does(s, UNSHARE, 0, 0);)
STEP(do_load_private, return guest_does(s, LOAD, 0, 77);)
STEP(do_status, return query(s, "status", NULL);)
STEP(do_page, return query(s, "page", s->small);)
STEP(do_audit, return query(s, "audit", NULL);)
STEP(do_unmap_large, int rc = fakehyp_unmap(s->fh, s->large_view, LARGE *PAGE); s->large_view = NULL; return rc;)
STEP(do_vm_destroy, struct fakehyp_vm *vm = s->vm; s->vm = NULL; return fakehyp_vm_destroy(vm);)
STEP(do_close_small, fakehyp_gmem_close(s->small); s->small = NULL; return 0;)
STEP(do_close_large, fakehyp_gmem_close(s->large); s->large = NULL; return 0;)
STEP(do_unmap, int rc = fakehyp_unmap(s->fh, s->view, SMALL *PAGE); s->view = NULL; return rc;)
STEP(do_disconnect, fakehyp_disconnect(s->fh); s->fh = NULL; return 0;)

static int (*const functions[])(struct script *s) = {
    do_connect,      do_vm_create,   do_small,         do_large,        do_slot0,        do_slot1,
    do_slot1_off,    do_map,         do_map_large,     do_touch,        do_private,      do_shared,
    do_private_hole, do_shared_hole, do_private_large, do_shared_large, do_pin,          do_private_pinned,
    do_unpin,        do_punch,       do_allocate,      do_import,       do_import_close, do_vcpu,
    do_guest,        do_run,         do_store,         do_share,        do_load_shared,  do_unshare,
    do_load_private, do_status,      do_page,          do_audit,        do_unmap_large,  do_vm_destroy,
    do_close_small,  do_close_large, do_unmap,         do_disconnect,
};
const struct script_step script_steps[] = {
    {.name = "connect"},
    {.name = "vm_create"},
    {.name = "gmem_create"},
    {.name = "gmem_create, large"},
    {.name = "memory slot 0"},
    {.name = "memory slot 1"},
    {.name = "memory slot 1 deleted"},
    {.name = "map"},
    {.name = "map, large"},
    {.name = "touch"},
    {.name = "convert to private"},
    {.name = "convert to shared"},
    {.name = "convert holes to private"},
    {.name = "convert holes to shared"},
    {.name = "convert to private, large"},
    {.name = "convert to shared, large"},
    {.name = "pin"},
    {.name = "convert what is pinned", .expected = -EAGAIN},
    {.name = "unpin", .once = true},
    {.name = "punch"},
    {.name = "fallocate"},
    {.name = "import"},
    {.name = "import closed", .once = true},
    {.name = "vcpu_create"},
    {.name = "guest_start"},
    {.name = "run", .guest = true},
    {.name = "guest stores", .guest = true},
    {.name = "guest shares", .guest = true},
    {.name = "guest loads what is shared", .guest = true},
    {.name = "guest unshares", .guest = true},
    {.name = "guest loads what is private", .guest = true},
    {.name = "status"},
    {.name = "page"},
    {.name = "audit"},
    {.name = "unmap, large", .once = true},
    {.name = "vm_destroy", .once = true},
    {.name = "gmem_close", .once = true},
    {.name = "gmem_close, large", .once = true, .background = true},
    {.name = "unmap", .once = true},
    {.name = "disconnect", .once = true, .background = true},
};
const unsigned script_nr_steps = sizeof(script_steps) / sizeof(script_steps[0]);
_Static_assert(sizeof(functions) / sizeof(functions[0]) == sizeof(script_steps) / sizeof(script_steps[0]),
               "each step has a name and a function");

/* ---- the process
 * ------------------------------------------------------------------------------------------------------ */

static unsigned count_fds(void)
{
    unsigned nr = 0;
    for (int fd = 0; fd < 256; fd++)
        nr += fcntl(fd, F_GETFD) >= 0;
    return nr;
}

/* A page of each kind; those that no step touches before the first look are not looked at. */
static void look(const struct script *s, struct script_result *r)
{
    size_t used = 0;

    r->fds = count_fds();
    r->guest_ended = s->guest_ended;
    r->bytes[0] = '\0';
    for (unsigned i = 0; i < SMALL + 4; i++) {
        const uint8_t *view = i < SMALL ? s->view : s->large_view;
        uint8_t byte = 0;
        if (!view)
            continue;
        const uint8_t *p = i < SMALL ? view + i * PAGE : view + (512 + (i - SMALL) * 170) * PAGE;
        enum fakehyp_touch rc = fakehyp_touch_read(p, &byte, NULL, NULL);
        used += (size_t)snprintf(r->bytes + used, sizeof(r->bytes) - used, rc == FAKEHYP_TOUCH_OK ? "%x " : "- ", byte);
    }
}

static struct inject *map_inject(void)
{
    const char *path = getenv("FAKEHYP_INJECT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct inject), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (fd >= 0)
        close(fd);
    return p == MAP_FAILED ? NULL : p;
}

static _Noreturn void script_main(const char *socket, int sock)
{
    struct script s = {.socket = socket, .inject = map_inject()};
    uint32_t step;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    s.command = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    while (recv(sock, &step, sizeof(step), 0) == (ssize_t)sizeof(step)) {
        struct script_result r = {.rc = 0};
        if (step < script_nr_steps) {
            if (s.inject)
                atomic_store(&s.inject->on, true);
            r.rc = functions[step](&s);
            if (s.inject)
                atomic_store(&s.inject->on, false);
            if (r.rc && !s.guest_ended)
                snprintf(r.text, sizeof(r.text), "%s", fakehyp_last_error());
        }
        look(&s, &r);
        if (send(sock, &r, sizeof(r), MSG_NOSIGNAL) != (ssize_t)sizeof(r))
            break;
    }
    fakehyp_disconnect(s.fh);
    /* With the sanitizers what was lost is looked for now. */
    exit(0);
}

void script_main_if_asked(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "script"))
        script_main(argv[2], atoi(argv[3]));
}
