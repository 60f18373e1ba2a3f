/* SPDX-License-Identifier: BSD-2-Clause */
/* Pipes that hold pages of files. */
#include "src/host/mm_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct pipe_buffer {
    struct ref *ref;
    struct pipe_buffer *next;
};

struct pipe {
    struct host *host;
    char label[32];
    struct pipe_buffer *head, **tail;
    unsigned nr;
};

struct pipe *pipe_new(struct host *host, const char *label)
{
    struct pipe *pipe = calloc(1, sizeof(*pipe));
    if (!pipe)
        return NULL;
    pipe->host = host;
    pipe->tail = &pipe->head;
    snprintf(pipe->label, sizeof(pipe->label), "%s", label);
    return pipe;
}

void pipe_free(struct pipe *pipe)
{
    while (pipe->head)
        pipe_pop(pipe);
    free(pipe);
}

int pipe_vmsplice(struct pipe *pipe, struct mm *mm, uint64_t va, uint64_t nr, struct caller *caller)
{
    for (uint64_t i = 0; i < nr; i++) {
        struct pipe_buffer *buffer = calloc(1, sizeof(*buffer));
        int rc = buffer ? mm_gup(mm, va + (i << HOST_PAGE_SHIFT), 1, REF_FOLL_GET, pipe->label, &buffer->ref, caller)
                        : -ENOMEM;
        if (rc) {
            free(buffer);
            /* As the system call: a short count is a success. */
            return i ? 0 : rc;
        }
        ref_set_kind(buffer->ref, REF_PIPE);
        *pipe->tail = buffer;
        pipe->tail = &buffer->next;
        pipe->nr++;
    }
    return 0;
}

bool pipe_peek(const struct pipe *pipe, uint64_t *pfn)
{
    if (!pipe->head)
        return false;
    *pfn = ref_pfn(pipe->head->ref, 0);
    return true;
}

void pipe_pop(struct pipe *pipe)
{
    struct pipe_buffer *buffer = pipe->head;
    pipe->head = buffer->next;
    if (!pipe->head)
        pipe->tail = &pipe->head;
    pipe->nr--;
    ref_drop(buffer->ref);
    free(buffer);
}

unsigned pipe_buffers(const struct pipe *pipe)
{
    return pipe->nr;
}
