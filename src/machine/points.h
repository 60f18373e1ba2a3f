/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The schedule points: every label that sched_point() and EL2's yield are given,
 * in the order of the operation that they belong to.
 *
 * At each of them other tasks may run, processes may die and requests may be
 * cancelled.  A check of the build compares this table with the sources.
 */
#ifndef SRC_MACHINE_POINTS_H
#define SRC_MACHINE_POINTS_H

#include <stddef.h>

/* X(label, meaning); those of mm.c exist in simulation only, where the model is what handles a process's faults. */
#define SCHED_POINTS(X)                                                                                                \
    X("convert:locked", "a conversion has the file's lock and has checked nothing yet")                                \
    X("convert:unmapped", "no process has a PTE in the range any more")                                                \
    X("lru:drained", "a conversion's check has had every CPU's LRU batch drained (simulation)")                        \
    X("convert:pins-checked", "policy A with its checks in the wrong order: no pin was found, the range is mapped")    \
    X("convert:waiting", "policy B is about to wait for a reference that it does not know")                            \
    X("convert:checked", "no foreign reference was found")                                                             \
    X("convert:prepared", "the stage has refused views and guests the range; nothing has moved")                       \
    X("convert:stored", "EL1's attribute is changed, the bytes are where they were")                                   \
    X("stage:begin", "a range is in transition: guests that touch it wait")                                            \
    X("stage:refused", "the views refuse a range that was open")                                                       \
    X("stage:withdrawn", "the guests have the private file mapped over the range")                                     \
    X("stage:step", "between two steps of a long move")                                                                \
    X("stage:moved", "the bytes are in the other file, the table of sides says the old one")                           \
    X("agent:asking", "a task is about to send a request to a process's agent")                                        \
    X("agent:asked", "the request is sent; no answer was looked for")                                                  \
    X("agent:answered", "the agent has answered, or has gone")                                                         \
    X("fault:locked", "a host process's fault has the file's lock (simulation)")                                       \
    X("fault:folio", "it has its folio, and no PTE yet (simulation)")                                                  \
    X("access:mapped", "the PTE is there, the access not yet made (simulation)")                                       \
    X("abort:locked", "a guest's stage-2 abort has the file's lock")                                                   \
    X("abort:folio", "it has its folio; EL2 does not know of it")                                                      \
    X("abort:mapped", "the page is in the guest's stage 2")                                                            \
    X("host-abort:injected",                                                                                           \
      "EL2 has injected an abort into the kernel, which has not taken the page from its guest yet")                    \
    X("s2:bbm", "EL2, break before make: the old entry is gone, the new one not there")                                \
    X("show:locked", "a file is about to be mapped over a range for a guest that touched it")                          \
    X("show:shown", "it is mapped; the guest's thread sleeps still")                                                   \
    X("punch:locked", "a hole punch has the file's lock")                                                              \
    X("punch:unmapped", "no process has a PTE in the hole any more")                                                   \
    X("punch:reclaimed", "a page has come back from the guest and is still in the page cache")                         \
    X("punch:removed", "the page cache has let go of the range, its bytes are there")                                  \
    X("unmap:cleared", "PTEs are cleared, CPUs may still have them in their TLBs (simulation)")                        \
    X("gup:pte-read", "GUP-fast has read a PTE (simulation)")                                                          \
    X("gup:grabbed", "it has a reference to the folio that it found there (simulation)")                               \
    X("gup:rechecked", "the PTE is still the same: the reference stays (simulation)")                                  \
    X("gup:pinned", "one more page of a range is pinned")                                                              \
    X("map:linked", "a view is known, and refuses all of its range")                                                   \
    X("map:opened", "what is open has been opened in it")                                                              \
    X("unmap:asked", "a process has unmapped a view that is known still")                                              \
    X("unmap:removed", "the view is forgotten")                                                                        \
    X("slot:linked", "a memslot is in the VM's list, the guest process does not have it")                              \
    X("slot:added", "the guest process has it mapped")                                                                 \
    X("slot:removing", "a memslot is about to be taken from the guest process")                                        \
    X("teardown:dying", "a VM takes no more calls, its guest runs")                                                    \
    X("teardown:guest-ended", "the guest process is dead")                                                             \
    X("teardown:idle", "no call is inside the VM any more")                                                            \
    X("teardown:begun", "EL2 has the VM as dying")                                                                     \
    X("teardown:page", "one more page has come back")                                                                  \
    X("teardown:ended", "EL2 has forgotten the VM; its memslots are there")                                            \
    X("teardown:slot", "a memslot is unlinked, the sides of its pages are not settled")                                \
    X("close:handle", "a process has closed a file that its VM may have still")                                        \
    X("release:file", "the memory of a closed file is about to be given back, or half of it has been")                 \
    X("cleanup:begin", "a process has gone, all that it had is there")                                                 \
    X("cleanup:pins", "its pins are dropped")                                                                          \
    X("cleanup:views", "its views are forgotten")                                                                      \
    X("cleanup:vms", "its VMs are destroyed")

#define SCHED_POINT_ONE(label, meaning) +1
enum { NR_SCHED_POINTS = 0 SCHED_POINTS(SCHED_POINT_ONE) };
#undef SCHED_POINT_ONE

struct sched_point_info {
    const char *label, *meaning;
};
extern const struct sched_point_info sched_points[NR_SCHED_POINTS];

/* Its place in the table; -1 for a label that is none. */
int sched_point_find(const char *label);
/* "unknown schedule point "x"; known are ...", for people. */
void sched_point_unknown(const char *label, char *text, size_t size);

#endif
