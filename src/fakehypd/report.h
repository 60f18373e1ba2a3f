/* SPDX-License-Identifier: BSD-2-Clause */
/* The answers to Query: JSON for fakehypctl and for people's scripts. */
#ifndef SRC_FAKEHYPD_REPORT_H
#define SRC_FAKEHYPD_REPORT_H

#include <jansson.h>

#include "src/fakehypd/daemon.h"

extern const char *const report_capabilities[];
extern const size_t report_nr_capabilities;

/* --print-capabilities: exit status. */
int report_print_capabilities(FILE *out);

/*
 * (task) Answers a query with JSON text, which the caller frees.  -EINVAL
 * unknown query, -ENOENT no such object, -ENOMEM.
 */
int report_query(struct daemon *daemon, const Fakehyp__Query *query, char **text, struct caller *caller);

json_t *report_status(struct daemon *daemon);
json_t *report_audit(struct daemon *daemon);
/* NULL after setting *error. */
json_t *report_page(struct daemon *daemon, const Fakehyp__Query *query, int *error, struct caller *caller);
json_t *report_kernel_load(struct daemon *daemon, const Fakehyp__Query *query, int *error, struct caller *caller);
json_t *report_ptdump(struct daemon *daemon, const Fakehyp__Query *query, int *error, struct caller *caller);
int report_trace(struct daemon *daemon, const Fakehyp__Query *query, char **text);

/* What several reports need. */
struct vm *report_find_vm(struct daemon *daemon, uint64_t id);
struct gmem *report_find_gmem(struct daemon *daemon, uint64_t id);
/* json_string() of text that may be no UTF-8. */
json_t *report_string(const char *text);
/* EL2's table says no to the host, whatever the attribute says. */
bool report_stage2_refuses(struct daemon *daemon, const struct page_report *page);
/* Where a page is: the frame's owner in words, "guest 0x1000 gfn 0x3". */
void report_owner(struct daemon *daemon, const struct page_report *page, char *buf, size_t size);

#endif
