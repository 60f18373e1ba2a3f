/* SPDX-License-Identifier: BSD-2-Clause */
/* Who takes part in a trace, and what is said of an event. */
#include "src/fakehypctl/picture.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- lanes ------------------------------------------------------------------------------------------------------ */

static bool of_guest(const struct host_event *ev)
{
    return ev->kind == HOST_EV_guest_abort || ev->kind == HOST_EV_guest_call || ev->kind == HOST_EV_guest_start ||
           ev->kind == HOST_EV_guest_end;
}

size_t lane_of_process(const struct lanes *lanes, uint32_t pid)
{
    size_t i = 0;

    while (i < lanes->nr && !(pid && lanes->list[i].kind == LANE_PROCESS && lanes->list[i].id == pid))
        i++;
    return i;
}

size_t lane_of_guest(const struct lanes *lanes, const struct event *event)
{
    const struct host_event *ev = &event->e.event;
    size_t i = 0;

    while (i < lanes->nr && !(lanes->list[i].kind == LANE_GUEST && lanes->list[i].run == event->run &&
                              lanes->list[i].vm == ev->vm && lanes->list[i].id == ev->vcpu))
        i++;
    return i;
}

static void add_lane(struct lanes *lanes, const struct lane *lane)
{
    lanes->list[lanes->nr++] = *lane;
}

static void name_process(struct lanes *lanes, const struct event *event)
{
    size_t at = lane_of_process(lanes, event->e.event.pid);

    if (event->e.event.kind == HOST_EV_client && at < lanes->nr && event->e.event.note[0])
        snprintf(lanes->list[at].name, sizeof(lanes->list[at].name), "%s", event->e.event.note);
}

bool lanes_find(const struct events *events, struct lanes *lanes)
{
    *lanes = (struct lanes){.list = calloc(2 * events->nr + 2, sizeof(struct lane))};
    if (!lanes->list)
        return false;
    /* A client that only came and went, as fakehypctl does, is not part of the play. */
    for (size_t i = 0; i < events->nr; i++) {
        const struct host_event *ev = &events->list[i].e.event;
        if (ev->pid && ev->kind != HOST_EV_client && lane_of_process(lanes, ev->pid) == lanes->nr)
            add_lane(lanes, &(struct lane){.kind = LANE_PROCESS, .id = ev->pid});
    }
    for (size_t i = 0; i < events->nr; i++)
        name_process(lanes, &events->list[i]);
    lanes->el1 = lanes->nr;
    add_lane(lanes, &(struct lane){.kind = LANE_EL1, .name = "host kernel"});
    lanes->el2 = lanes->nr;
    add_lane(lanes, &(struct lane){.kind = LANE_EL2, .name = "hypervisor"});
    for (size_t i = 0; i < events->nr; i++) {
        const struct event *event = &events->list[i];
        if (of_guest(&event->e.event) && lane_of_guest(lanes, event) == lanes->nr)
            add_lane(lanes,
                     &(struct lane){
                         .kind = LANE_GUEST, .run = event->run, .vm = event->e.event.vm, .id = event->e.event.vcpu});
    }
    return true;
}

void lanes_free(struct lanes *lanes)
{
    free(lanes->list);
    *lanes = (struct lanes){.list = NULL};
}

/* ---- words ------------------------------------------------------------------------------------------------------ */

static const char *exit_name(uint64_t reason)
{
    switch (reason) {
    case KVM_EXIT_HYPERCALL:
        return "KVM_EXIT_HYPERCALL";
    case KVM_EXIT_MMIO:
        return "KVM_EXIT_MMIO";
    case KVM_EXIT_SYSTEM_EVENT:
        return "KVM_EXIT_SYSTEM_EVENT";
    case KVM_EXIT_MEMORY_FAULT:
        return "KVM_EXIT_MEMORY_FAULT";
    default:
        return NULL;
    }
}

static void range(const struct host_event *ev, char *buf, size_t size)
{
    if (ev->size == HOST_PAGE_SIZE)
        snprintf(buf, size, "0x%" PRIx64, ev->offset);
    else
        snprintf(buf, size, "[0x%" PRIx64 ", +%s)", ev->offset, out_size(ev->size).s);
}

void event_words(const struct event *event, char *buf, size_t size)
{
    const struct host_event *ev = &event->e.event;
    const char *name, *access = ev->a0 ? "write" : "read";
    char where[80];

    range(ev, where, sizeof(where));
    switch (ev->kind) {
    case HOST_EV_client:
        snprintf(buf, size, "%s", ev->rc ? "ends" : "comes");
        break;
    case HOST_EV_vm_create:
        snprintf(buf, size, "new VM %" PRIu64 ", handle 0x%" PRIx64, ev->vm, ev->a0);
        break;
    case HOST_EV_vm_destroy:
        snprintf(buf, size, "teardown of VM %" PRIu64 ", pages reclaimed: %" PRIu64, ev->vm, ev->a1);
        break;
    case HOST_EV_gmem_create:
        snprintf(buf, size, "new guest_memfd %" PRIu64 ", %s%s", ev->gmem, out_size(ev->size).s,
                 ev->a0 & GUEST_MEMFD_FLAG_INIT_SHARED ? ", all shared" : ", all private");
        break;
    case HOST_EV_gmem_release:
        snprintf(buf, size, "end of guest_memfd %" PRIu64 ", pages freed: %" PRIu64, ev->gmem, ev->a1);
        break;
    case HOST_EV_slot_set:
        snprintf(buf, size, "memslot %" PRIu64 ": %s at GPA 0x%" PRIx64, ev->a1, where, ev->a0);
        break;
    case HOST_EV_convert:
        snprintf(buf, size, "convert %s to %s", where, ev->a0 ? "private" : "shared");
        break;
    case HOST_EV_busy:
        snprintf(buf, size, "page %s is held: %s (refcount %" PRIu64 ", mapcount %" PRIu64 ")", where,
                 ev->note[0] ? ev->note : "nobody known", ev->a0, ev->a1);
        break;
    case HOST_EV_punch:
        snprintf(buf, size, "punch a hole at %s", where);
        break;
    case HOST_EV_allocate:
        snprintf(buf, size, "fallocate %s", where);
        break;
    case HOST_EV_pin:
        snprintf(buf, size, "pin %" PRIu64 ": %s of %s (%s)", ev->a1,
                 ev->a0 < REF_USER_KINDS ? ref_kinds[ev->a0].name : "reference", where, ev->note);
        break;
    case HOST_EV_unpin:
        snprintf(buf, size, "unpin %" PRIu64, ev->a1);
        break;
    case HOST_EV_fault:
        snprintf(buf, size, "page fault at %s (%s)", where, access);
        break;
    case HOST_EV_guest_abort:
        snprintf(buf, size, "stage-2 abort at GPA 0x%" PRIx64 " (%s)", ev->offset, access);
        break;
    case HOST_EV_guest_call:
        name = trace_call_name(ev->a0);
        if (name)
            snprintf(buf, size, "%s(0x%" PRIx64 ")", name, ev->a1);
        else
            snprintf(buf, size, "HVC 0x%" PRIx64, ev->a0);
        break;
    case HOST_EV_exit:
        name = exit_name(ev->a0);
        if (name)
            snprintf(buf, size, "KVM_RUN returns: %s", name);
        else
            snprintf(buf, size, "KVM_RUN returns: exit %" PRIu64, ev->a0);
        break;
    case HOST_EV_reclaim:
        if (ev->note[0])
            snprintf(buf, size, "%" PRIu64 " %s", ev->a1, ev->note);
        else
            snprintf(buf, size, "reclaim PFN 0x%" PRIx64 ", GFN 0x%" PRIx64, ev->a0, ev->a1);
        break;
    case HOST_EV_hvc:
        snprintf(buf, size, "HVC %" PRIu64 "(0x%" PRIx64 ")", ev->a0, ev->a1);
        break;
    case HOST_EV_host_abort:
        snprintf(buf, size, "stage-2 abort of the host at PFN 0x%" PRIx64 ": %s", ev->a0, ev->note);
        break;
    case HOST_EV_dma:
        snprintf(buf, size, "DMA %s by %s at IOVA 0x%" PRIx64, access, ev->note, ev->a1);
        break;
    case HOST_EV_memory_failure:
        snprintf(buf, size, "memory failure of PFN 0x%" PRIx64, ev->a1);
        break;
    case HOST_EV_move:
        snprintf(buf, size, "%s %s the host's reach", where, ev->a0 ? "into" : "out of");
        break;
    case HOST_EV_stray:
        snprintf(buf, size, "touches the private page 0x%" PRIx64, ev->offset & ~(HOST_PAGE_SIZE - 1));
        break;
    case HOST_EV_stray_page:
        snprintf(buf, size, "stray page %s dropped", where);
        break;
    case HOST_EV_guest_start:
        snprintf(buf, size, "guest starts, process %" PRIu64, ev->a0);
        break;
    case HOST_EV_guest_end:
        snprintf(buf, size, "guest has ended");
        break;
    case HOST_EV_late_agent:
        snprintf(buf, size, "agent of process %" PRIu64 " does not answer", ev->a0);
        break;
    default:
        snprintf(buf, size, "%s %s", event->name, ev->note);
        break;
    }
}

bool event_failed(const struct event *event)
{
    const struct host_event *ev = &event->e.event;

    switch (ev->kind) {
    case HOST_EV_busy:
    case HOST_EV_splat:
    case HOST_EV_stray:
    case HOST_EV_stray_page:
    case HOST_EV_late_agent:
    case HOST_EV_host_abort:
    case HOST_EV_memory_failure:
        return true;
    case HOST_EV_client:
    case HOST_EV_guest_end:
        return false;
    default:
        return ev->rc < 0;
    }
}

void event_result(const struct event *event, char *buf, size_t size)
{
    const struct host_event *ev = &event->e.event;
    const char *name = ev->rc < 0 && ev->rc > -4096 ? strerrorname_np((int)-ev->rc) : NULL;

    /* SMCCC has its own numbers. */
    if (ev->kind == HOST_EV_guest_call)
        name = ev->rc == -1 ? "NOT_SUPPORTED" : ev->rc == -3 ? "INVALID_PARAMETER" : NULL;
    if (ev->kind == HOST_EV_stray)
        snprintf(buf, size, "SIGBUS");
    else if (ev->kind == HOST_EV_fault && ev->rc)
        snprintf(buf, size, "SIGBUS (%s)", name ? name : "?");
    else if (ev->kind == HOST_EV_convert && ev->rc == -11)
        snprintf(buf, size, "EAGAIN at 0x%" PRIx64, ev->a1);
    else if (name)
        snprintf(buf, size, "%s", name);
    else
        snprintf(buf, size, "%" PRId64, ev->rc);
}

static bool within_a_call(enum host_event_kind kind)
{
    return kind == HOST_EV_busy || kind == HOST_EV_move || kind == HOST_EV_reclaim || kind == HOST_EV_hvc ||
           kind == HOST_EV_splat || kind == HOST_EV_host_abort;
}

static bool is_call(enum host_event_kind kind)
{
    return kind == HOST_EV_convert || kind == HOST_EV_punch || kind == HOST_EV_allocate || kind == HOST_EV_vm_destroy ||
           kind == HOST_EV_guest_call;
}

/* Others' events that may have come between: each event looks back, so not for ever. */
#define LOOK_BACK 1000u

size_t event_begins(const struct events *events, size_t i)
{
    const struct event *end = &events->list[i];
    size_t first = i;

    if (!is_call(end->e.event.kind) || !end->e.task)
        return i;
    for (size_t j = i; j-- > 0 && i - j <= LOOK_BACK && events->list[j].run == end->run;) {
        const struct event *event = &events->list[j];
        if (event->e.task != end->e.task)
            continue;
        if (!within_a_call(event->e.event.kind))
            break;
        first = j;
    }
    return first;
}

bool events_have_time(const struct events *events)
{
    return events->nr && events->list[0].e.t_ns != events->list[events->nr - 1].e.t_ns;
}

double event_us(const struct events *events, size_t i)
{
    if (!events_have_time(events))
        return (double)i;
    return ((double)events->list[i].e.t_ns - (double)events->list[0].e.t_ns) / 1000;
}
