/* SPDX-License-Identifier: BSD-2-Clause */
/* guest_memfds: files, views, conversions and references. */
#include <errno.h>
#include <stdlib.h>

#include "src/fakehypd/dispatch.h"
#include "src/fakehypd/text.h"

/* Gives the client a handle; consumes the reference.  On failure it is dropped. */
static int add_handle(struct client *client, struct gmem *gmem)
{
    struct gmem_handle *handle = (struct gmem_handle *)handle_find(&client->gmems, gmem_id(gmem));

    if (!handle) {
        handle = calloc(1, sizeof(*handle));
        if (!handle) {
            gmem_put(gmem);
            return -ENOMEM;
        }
        handle->handle.id = gmem_id(gmem);
        handle->gmem = gmem;
        handle_insert(&client->gmems, &handle->handle);
    }
    handle->opens++;
    return 0;
}

static void reply_gmem(struct req *req, const struct gmem *gmem, bool with_fd)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__GmemReply body = FAKEHYP__GMEM_REPLY__INIT;
    int fd = live_file_fd(gmem);

    body.gmem = gmem_id(gmem);
    body.size = gmem_pages(gmem) * HOST_PAGE_SIZE;
    body.flags = gmem_flags(gmem);
    reply.body_case = FAKEHYP__REPLY__BODY_GMEM;
    reply.gmem = &body;
    req_reply(req, &reply, &fd, with_fd);
}

void req_gmem_create(struct req *req)
{
    const Fakehyp__GmemCreate *body = req->request->gmem_create;
    struct vm_handle *vm = req_vm(req, body->vm);
    struct gmem *gmem;
    int rc = vm ? gmem_create(vm->vm, body->size, body->flags, &gmem, &req->caller) : -ENOENT;

    if (rc == 0)
        rc = add_handle(req->client, gmem);
    if (rc)
        req_done(req, rc);
    else
        reply_gmem(req, gmem, true);
}

void req_gmem_close(struct req *req)
{
    uint64_t id = req->request->gmem_close->gmem;
    struct gmem_handle *handle = (struct gmem_handle *)handle_find(&req->client->gmems, id);

    if (!handle) {
        caller_explain(&req->caller, "this process has no guest_memfd %llu", (unsigned long long)id);
        req_done(req, -ENOENT);
        return;
    }
    struct gmem *gmem = handle->gmem;
    if (--handle->opens == 0) {
        handle_remove(&req->client->gmems, &handle->handle);
        free(handle);
    }
    sched_point("close:handle");
    gmem_put(gmem);
    req_done(req, 0);
}

void req_gmem_import(struct req *req)
{
    struct gmem *gmem = live_file_of_fd(req->daemon->live, req->fd);
    int rc = gmem ? 0 : -EINVAL;

    if (gmem) {
        gmem_get(gmem);
        rc = add_handle(req->client, gmem);
    } else {
        caller_explain(&req->caller, "the descriptor is no guest_memfd of this fakehypd");
    }
    if (rc)
        req_done(req, rc);
    else
        reply_gmem(req, gmem, false);
}

static int add_view(struct req *req, struct gmem *gmem)
{
    const Fakehyp__ViewAdd *body = req->request->view_add;

    if (!req->client->peer.conn) {
        caller_explain(&req->caller, "a client without an agent (hello.agent) cannot have views");
        return -EOPNOTSUPP;
    }
    /* It may reach beyond the end of the file, as any mapping may: the kernel answers SIGBUS there. */
    if (!body->length || (body->addr | body->length | body->offset) % HOST_PAGE_SIZE ||
        body->addr + body->length < body->addr || body->length > INT64_MAX || body->offset > INT64_MAX - body->length) {
        caller_explain(&req->caller, "the view of guest_memfd %u is empty, not aligned, or it wraps", gmem_id(gmem));
        return -EINVAL;
    }
    return live_view_add(req->daemon->live, gmem, &req->client->peer, (uint32_t)req->client->pid, body->addr,
                         body->length, body->offset);
}

void req_view_add(struct req *req)
{
    struct gmem *gmem = req_gmem(req, req->request->view_add->gmem);

    req_done(req, gmem ? add_view(req, gmem) : -ENOENT);
}

void req_view_remove(struct req *req)
{
    const Fakehyp__ViewRemove *body = req->request->view_remove;

    if (body->addr + body->length < body->addr || (body->addr | body->length) % HOST_PAGE_SIZE) {
        caller_explain(&req->caller, "the range is not page aligned");
        req_done(req, -EINVAL);
        return;
    }
    sched_point("unmap:asked");
    live_view_remove(req->daemon->live, &req->client->peer, body->addr, body->length);
    sched_point("unmap:removed");
    req_done(req, 0);
}

static void reply_convert(struct req *req, int rc, const struct gmem_busy *busy)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__ConvertReply body = FAKEHYP__CONVERT_REPLY__INIT;
    Fakehyp__Holder holders[BUSY_MAX_HOLDERS], *list[BUSY_MAX_HOLDERS];

    for (unsigned i = 0; i < busy->nr_holders; i++) {
        const struct holder_info *info = &busy->holders[i];
        holders[i] = (Fakehyp__Holder)FAKEHYP__HOLDER__INIT;
        holders[i].what = (char *)info->what;
        holders[i].kind = (char *)info->kind;
        holders[i].offset = info->index * HOST_PAGE_SIZE;
        holders[i].count = info->count;
        holders[i].pid = info->pid;
        holders[i].since_ns = sched_now() - info->since_ns;
        list[i] = &holders[i];
    }
    body.error_offset = busy->error_offset;
    body.error_offset_valid = busy->error_offset_valid;
    body.n_holder = busy->nr_holders;
    body.holder = list;
    reply.error = rc;
    reply.body_case = FAKEHYP__REPLY__BODY_CONVERT;
    reply.convert = &body;
    req_reply(req, &reply, NULL, 0);
}

static void tell_others(struct req *req, const struct gmem *gmem, const struct gmem_attributes2 *attr)
{
    client_event_gmem(
        req->daemon, req->client,
        &(struct client_event){.kind = "converted",
                               .vm = gmem_vm_id(gmem),
                               .gmem = gmem_id(gmem),
                               .offset = attr->offset,
                               .size = attr->size,
                               .text = attr->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE ? "to private" : "to shared"});
}

void req_convert(struct req *req)
{
    const Fakehyp__Convert *body = req->request->convert;
    const struct gmem_attributes2 attr = {
        .offset = body->offset, .size = body->size, .attributes = body->attributes, .flags = body->flags};
    struct gmem *gmem = req_gmem(req, body->gmem);
    struct gmem_busy busy = {.nr_holders = 0};
    int rc = gmem ? gmem_set_attributes2(gmem, &attr, &req->caller, &busy) : -ENOENT;

    if (rc == 0)
        tell_others(req, gmem, &attr);
    reply_convert(req, rc, &busy);
}

void req_set_memory_attributes(struct req *req)
{
    const Fakehyp__SetMemoryAttributes *body = req->request->set_memory_attributes;
    struct vm_handle *vm = req_vm(req, body->vm);
    struct gmem_busy busy = {.nr_holders = 0};
    int rc =
        vm ? vm_set_attributes(vm->vm, body->address, body->size, body->attributes, body->flags, &req->caller, &busy)
           : -ENOENT;

    reply_convert(req, rc, &busy);
}

void req_fallocate(struct req *req)
{
    const Fakehyp__Fallocate *body = req->request->fallocate;
    struct gmem *gmem = req_gmem(req, body->gmem);

    req_done(req, gmem ? gmem_fallocate(gmem, (int)body->mode, body->offset, body->length, &req->caller) : -ENOENT);
}

static int pin(struct req *req, struct gmem *gmem, uint64_t *id)
{
    const Fakehyp__Pin *body = req->request->pin;
    char label[48];

    if (body->kind >= REF_USER_KINDS) {
        caller_explain(&req->caller, "pin kind %u: 0 is FOLL_GET, 1 FOLL_PIN, 2 FOLL_LONGTERM", body->kind);
        return -EINVAL;
    }
    text_copy(label, sizeof(label), body->label);
    struct pin_handle *handle = calloc(1, sizeof(*handle));
    if (!handle)
        return -ENOMEM;
    int rc = gmem_pin(gmem, body->offset, body->size, (enum ref_kind)body->kind, label, &handle->pin, &req->caller);
    if (rc) {
        free(handle);
        return rc;
    }
    *id = handle->handle.id = ref_id(handle->pin);
    handle_insert(&req->client->pins, &handle->handle);
    return 0;
}

void req_pin(struct req *req)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__PinReply body = FAKEHYP__PIN_REPLY__INIT;
    struct gmem *gmem = req_gmem(req, req->request->pin->gmem);
    int rc = gmem ? pin(req, gmem, &body.pin) : -ENOENT;

    if (rc) {
        req_done(req, rc);
        return;
    }
    reply.body_case = FAKEHYP__REPLY__BODY_PIN;
    reply.pin = &body;
    req_reply(req, &reply, NULL, 0);
}

void req_unpin(struct req *req)
{
    uint64_t id = req->request->unpin->pin;
    struct handle *handle = handle_find(&req->client->pins, id);

    if (!handle) {
        caller_explain(&req->caller, "this process has no pin %llu", (unsigned long long)id);
        req_done(req, -ENOENT);
        return;
    }
    struct pin_handle *pin_handle = (struct pin_handle *)handle;
    handle_remove(&req->client->pins, handle);
    gmem_unpin(pin_handle->pin);
    free(pin_handle);
    req_done(req, 0);
}
