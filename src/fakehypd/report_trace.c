/* SPDX-License-Identifier: BSD-2-Clause */
/* Query "trace": the ring as JSON, built in slices since it can be long. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/fakehypd/report.h"

#define EVENTS_A_SLICE 256u

struct text {
    char *data;
    size_t len, size;
};

static int append(struct text *text, const char *data, size_t len)
{
    if (text->size - text->len <= len) {
        size_t size = (text->size + len + 1) * 2;
        char *grown = realloc(text->data, size);
        if (!grown)
            return -ENOMEM;
        text->data = grown;
        text->size = size;
    }
    memcpy(text->data + text->len, data, len);
    text->len += len;
    text->data[text->len] = '\0';
    return 0;
}

static bool wanted(struct daemon *daemon, const struct host_event *event, const Fakehyp__Query *query)
{
    if (query->any || !query->vm || event->vm == query->vm)
        return true;
    /* An event of a file is one of its VM's. */
    const struct gmem *gmem = event->vm || !event->gmem ? NULL : report_find_gmem(daemon, event->gmem);
    return gmem && gmem_vm_id(gmem) == query->vm;
}

/* Events from *next on that were kept; what is gone already is in *dropped. */
static int append_events(struct daemon *daemon, const Fakehyp__Query *query, struct text *text, uint64_t *next,
                         uint64_t *dropped)
{
    const struct trace *trace = machine_trace(daemon->machine);
    const uint64_t past = trace_next(trace);
    uint64_t nr = 0, seen = 0;
    const struct trace_entry *entry;
    char line[1024];
    int rc = 0;

    while (rc == 0 && *next < past && (entry = trace_get(trace, *next)) && !(query->limit && nr == query->limit)) {
        if (entry->seq > *next)
            *dropped += entry->seq - *next;
        *next = entry->seq + 1;
        if (wanted(daemon, &entry->event, query)) {
            size_t len = trace_json(entry, line, sizeof(line));
            rc = nr++ ? append(text, ",", 1) : 0;
            if (rc == 0)
                rc = append(text, line, len < sizeof(line) ? len : sizeof(line) - 1);
        }
        /* The ring goes on meanwhile: entries that are overtaken count as dropped. */
        if (++seen % EVENTS_A_SLICE == 0)
            sched_relax();
    }
    return rc;
}

int report_trace(struct daemon *daemon, const Fakehyp__Query *query, char **out)
{
    struct text events = {.data = NULL}, all = {.data = NULL};
    uint64_t next = query->since ? query->since : 1, dropped = 0;
    char head[128];
    int rc;

    rc = append_events(daemon, query, &events, &next, &dropped);
    snprintf(head, sizeof(head), "{\"schema\":%d,\"dropped\":%llu,\"next\":%llu,\"events\":[", TRACE_SCHEMA,
             (unsigned long long)dropped, (unsigned long long)next);
    if (rc == 0)
        rc = append(&all, head, strlen(head));
    if (rc == 0 && events.len)
        rc = append(&all, events.data, events.len);
    if (rc == 0)
        rc = append(&all, "]}", 2);
    free(events.data);
    if (rc)
        free(all.data);
    else
        *out = all.data;
    return rc;
}
