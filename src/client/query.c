/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/client/client.h"

#include <errno.h>
#include <stdlib.h>

int fakehyp_query_raw(struct fakehyp *fh, const struct fakehyp_query_args *args, char **json)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Query body = FAKEHYP__QUERY__INIT;
    struct fh_call_options options = {.what = "query", .expect = FAKEHYP__REPLY__BODY_QUERY, .fd = -1};
    struct fh_answer answer;

    *json = NULL;
    body.what = (char *)args->what;
    body.vm = args->vm;
    body.gmem = args->gmem;
    body.offset = args->offset;
    body.gpa = args->gpa;
    body.by_gpa = args->by_gpa;
    body.since = args->since;
    body.limit = args->limit;
    body.any = args->any;
    body.state = args->state;
    request.body_case = FAKEHYP__REQUEST__BODY_QUERY;
    request.query = &body;
    int rc = fh_call(fh, &options, &request, &answer);
    if (rc == 0) {
        *json = answer.json;
        answer.json = NULL;
    }
    fh_answer_free(&answer);
    return rc;
}

int fakehyp_query(struct fakehyp *fh, const char *what, struct fakehyp_gmem *gmem, uint64_t offset, char **json)
{
    struct fakehyp_query_args args = {.what = what, .gmem = gmem ? gmem->file->id : 0, .offset = offset, .any = true};

    return fakehyp_query_raw(fh, &args, json);
}

int fakehyp_query_address(struct fakehyp *fh, const volatile void *addr, char **json)
{
    struct fakehyp_query_args args = {.what = "page"};

    *json = NULL;
    if (!fh_view_find(fh, (uintptr_t)addr, &args.gmem, &args.offset))
        return fh_fail(-EFAULT, "query: %p is in no view of this connection", (const void *)(uintptr_t)addr);
    args.offset -= args.offset % FAKEHYP_PAGE_SIZE;
    return fakehyp_query_raw(fh, &args, json);
}
