/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests: which handler a body has, the task that it runs in, and its reply. */
#ifndef SRC_FAKEHYPD_DISPATCH_H
#define SRC_FAKEHYPD_DISPATCH_H

#include "src/fakehypd/client.h"

struct handler;

/* One request in flight. */
struct req {
    struct req *next, *prev;
    struct client *client;
    struct daemon *daemon;
    const struct handler *handler;
    Fakehyp__Request *request;
    struct task *task;
    int fd; /* the one that came with it, or -1; closed at the end */
    struct caller caller;
    /* Looked up by the helpers below and let go at the end. */
    struct gmem *gmem;
    struct vm_handle *vm;
};

/* conn_ops.frame of a control socket; owner is the client. */
void dispatch_frame(void *client, struct chan_msg *msg);
void dispatch_cancel_all(struct client *client);

/* Sends the reply with the request's id and, when error is set and message is not, the caller's explanation. */
void req_reply(struct req *req, Fakehyp__Reply *reply, const int *fds, unsigned nr_fds);
/* An Ack, or the error. */
void req_done(struct req *req, int rc);
/* The client's guest_memfd, VM: held until the request ends.  NULL after an explanation: -ENOENT. */
struct gmem *req_gmem(struct req *req, uint64_t id);
struct vm_handle *req_vm(struct req *req, uint64_t id);

/* Handlers: the whole of a request, in its task. */
void req_hello(struct req *req);
void req_vm_create(struct req *req);
void req_set_memory_attributes(struct req *req);
void req_vm_destroy(struct req *req);
void req_memory_region(struct req *req);
void req_vcpu_create(struct req *req);
void req_guest_prepare(struct req *req);
void req_vcpu_run(struct req *req);
void req_gmem_create(struct req *req);
void req_gmem_close(struct req *req);
void req_gmem_import(struct req *req);
void req_view_add(struct req *req);
void req_view_remove(struct req *req);
void req_convert(struct req *req);
void req_fallocate(struct req *req);
void req_pin(struct req *req);
void req_unpin(struct req *req);
void req_query(struct req *req);
void req_access_report(struct req *req);

#endif
