/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Questions to the daemon, and what is said when it does not answer.
 */
#ifndef SRC_FAKEHYPCTL_ASK_H
#define SRC_FAKEHYPCTL_ASK_H

#include <jansson.h>
#include <stddef.h>

#include <fakehyp/fakehyp.h>

#include "src/fakehypctl/ctl.h"
#include "src/fakehypctl/reader.h"

#define ASK_SOCKET_MAX 256

/*
 * The socket to use: `given`, else $FAKEHYP_SOCKET, else
 * $XDG_RUNTIME_DIR/fakehypd.sock, else /tmp/fakehypd-UID.sock.
 * -ENAMETOOLONG when it does not fit into buf.
 */
int ask_socket_path(const char *given, char *buf, size_t size);

/* Connects; on failure explains it on io->err with the remedy and returns NULL. */
struct fakehyp *ask_connect(const struct ctl_args *args, struct ctl_io *io);

/* One question.  The answer, an object, is the caller's; NULL after an explanation on io->err. */
json_t *ask(struct fakehyp *fh, const struct fakehyp_query_args *query, struct ctl_io *io);

/* Prints an answer for people: reads with r, writes on io. */
typedef void ask_print_fn(struct reader *r, const json_t *answer, struct ctl_io *io);

/*
 * Prints an answer, all or nothing: one that lacks something is explained on
 * io->err, and nothing of it is printed.  args decide between JSON and print().
 */
enum ctl_exit ask_print(const char *what, const json_t *answer, const struct ctl_args *args, ask_print_fn *print,
                        struct ctl_io *io);

/* Connects, asks, prints.  `ok` (may be NULL) gets the member "ok" of the answer. */
enum ctl_exit ask_and_print(const struct ctl_args *args, const struct fakehyp_query_args *query, ask_print_fn *print,
                            struct ctl_io *io, bool *ok);

/* CTL_FAILED, with an explanation, when something printed could not be written. */
enum ctl_exit ask_flush(struct ctl_io *io);

#endif
