/* SPDX-License-Identifier: BSD-2-Clause */
/* Query: the answer in as many replies as it needs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/fakehypd/dispatch.h"
#include "src/fakehypd/report.h"

#define CHUNK_BYTES (60u << 10)
#define READ_TIMEOUT_NS UINT64_C(10000000000)

static void send_chunk(struct req *req, char *text, size_t len, bool more)
{
    Fakehyp__Reply reply = FAKEHYP__REPLY__INIT;
    Fakehyp__QueryReply body = FAKEHYP__QUERY_REPLY__INIT;

    body.json.data = (uint8_t *)text;
    body.json.len = len;
    body.more = more;
    reply.body_case = FAKEHYP__REPLY__BODY_QUERY;
    reply.query = &body;
    req_reply(req, &reply, NULL, 0);
}

void req_query(struct req *req)
{
    char *text = NULL;
    int rc = report_query(req->daemon, req->request->query, &text, &req->caller);
    size_t len = rc ? 0 : strlen(text), at = 0;

    if (rc) {
        req_done(req, rc);
        return;
    }
    while (len - at > CHUNK_BYTES && !req->client->dying) {
        send_chunk(req, text + at, CHUNK_BYTES, true);
        at += CHUNK_BYTES;
        if (req->client->dying)
            break;
        rc = conn_wait_drained(req->client->conn, READ_TIMEOUT_NS);
        if (rc == -ETIMEDOUT)
            client_die(req->client, "it does not read the answer to its query");
    }
    if (!req->client->dying)
        send_chunk(req, text + at, len - at, false);
    free(text);
}
