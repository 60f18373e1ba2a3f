/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <unistd.h>

#include "src/fakehypd/dispatch.h"
#include "src/fakehypd/report.h"
#include "src/fakehypd/text.h"

static void refuse_version(struct req *req, uint32_t theirs)
{
    caller_explain(&req->caller, "the client speaks protocol version %u, fakehypd %s version %u: install them together",
                   theirs, FAKEHYP_VERSION, PROTO_VERSION);
    log_warning("process %d: %s", req->client->pid, req->caller.message);
    req_done(req, -EPROTO);
}

void req_hello(struct req *req)
{
    const Fakehyp__Hello *hello = req->request->hello;
    struct client *client = req->client;
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__HelloReply body = FAKEHYP__HELLO_REPLY__INIT;
    int agent = -1;

    if (client->ready) {
        caller_explain(&req->caller, "a hello comes once, at the start");
        req_done(req, -EALREADY);
        return;
    }
    if (hello->version != PROTO_VERSION) {
        refuse_version(req, hello->version);
        return;
    }
    if (hello->agent) {
        int rc = client_make_agent(client, &agent);
        if (rc) {
            req_done(req, rc);
            return;
        }
    }
    text_copy(client->program, sizeof(client->program), hello->program[0] ? hello->program : "?");
    client->ready = true;
    daemon_client_ready(req->daemon);
    log_info("client %llu: %s, pid %d", (unsigned long long)client->id, client->program, client->pid);
    struct host_event came = {.kind = HOST_EV_client, .a0 = (uint64_t)client->pid, .pid = (uint32_t)client->pid};
    snprintf(came.note, sizeof(came.note), "%s", client->program);
    machine_record(req->daemon->machine, &came);
    body.version = PROTO_VERSION;
    body.daemon = (char *)FAKEHYP_VERSION;
    body.client = client->id;
    body.stage = (char *)machine_stage_name(req->daemon->machine);
    body.n_capability = report_nr_capabilities;
    body.capability = (char **)report_capabilities;
    reply.body_case = FAKEHYP__REPLY__BODY_HELLO;
    reply.hello = &body;
    req_reply(req, &reply, &agent, agent >= 0);
    if (agent >= 0)
        close(agent);
}
