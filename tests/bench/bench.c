/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * make bench: each figure of the design beside its floor, both measured in the
 * same run as the median of 11 interleaved pairs.  Absolute times belong to
 * the machine; the ratios travel.
 *
 * Writes a table to the terminal and bench.json (or what -o names): an
 * array of {name, unit, value, floor, ratio, goal}.  The goal is that of the
 * ratio; where floor and ratio are null it bounds the value itself.  The value
 * is null where it could not be measured.
 *
 * All processes share one CPU: what a wake-up costs depends on where the other
 * side happens to sleep, and would say more of the scheduler than of us.
 */
#include "tests/bench/bench.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

static const char *pattern = ""; /* of the names of wanted rows */
static json_t *results;
static struct fakehyp *connection; /* made when a row needs it */
static unsigned nr_met, nr_missed, nr_absent;

_Noreturn void die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, fakehyp_last_error());
    exit(1);
}

double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

bool wanted(const char *name)
{
    return strstr(name, pattern);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, PAIRS, sizeof(*v), by_value);
    return v[PAIRS / 2];
}

/* NULL text: there is none. */
static void column(int width, const char *format, double value, bool there)
{
    char text[32] = "-";

    if (there)
        snprintf(text, sizeof(text), format, value);
    printf(" %*s", width, text);
}

static void head(void)
{
    printf("%-52s %-12s %10s %10s %7s %8s\n", "what", "unit", "value", "floor", "ratio", "goal");
}

struct row {
    const char *name, *unit;
    double value, floor, ratio, goal;
    bool has_value, has_floor;
    const char *remark;
};

static void print(const struct row *row)
{
    printf("%-52s %-12s", row->name, row->unit);
    column(10, "%.2f", row->value, row->has_value);
    column(10, "%.2f", row->floor, row->has_floor);
    column(7, "%.2f", row->ratio, row->has_floor);
    column(8, row->has_floor ? "%.2f x" : "%.0f", row->goal, true);
    printf("  %s\n", row->remark);
    fflush(stdout);
}

static void report(struct row row)
{
    json_t *value = row.has_value ? json_real(row.value) : json_null();
    json_t *floor = row.has_floor ? json_real(row.floor) : json_null();
    json_t *ratio = row.has_floor ? json_real(row.ratio) : json_null();

    json_array_append_new(results, json_pack("{s:s,s:s,s:o,s:o,s:o,s:f}", "name", row.name, "unit", row.unit, "value",
                                             value, "floor", floor, "ratio", ratio, "goal", row.goal));
    if (!row.has_value) {
        nr_absent++;
    } else if ((row.has_floor ? row.ratio : row.value) <= row.goal) {
        nr_met++;
    } else {
        nr_missed++;
        row.remark = "MISSED";
    }
    print(&row);
}

void result(const char *name, const char *unit, double *values, double *floors, double goal)
{
    if (!wanted(name))
        return;
    double value = median(values), floor = median(floors);
    report((struct row){name, unit, value, floor, value / floor, goal, true, true, ""});
}

void bounded(const char *name, const char *unit, double value, double goal)
{
    if (wanted(name))
        report((struct row){.name = name, .unit = unit, .value = value, .goal = goal, .has_value = true, .remark = ""});
}

void absent(const char *name, const char *unit, double goal, const char *why)
{
    if (wanted(name))
        report((struct row){.name = name, .unit = unit, .goal = goal, .remark = why});
}

/* ---- the run ---------------------------------------------------------------------------------------------------- */

struct fakehyp *daemon_connection(void)
{
    if (!connection && fakehyp_connect(NULL, &connection))
        die("starting");
    return connection;
}

/* Daemons and guests inherit it. */
static void stay_on_one_cpu(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();

    CPU_ZERO(&set);
    CPU_SET(cpu < 0 ? 0 : cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        die("sched_setaffinity");
}

static int usage(void)
{
    fprintf(stderr, "usage: bench [-m MIB] [-o FILE] [PATTERN]\n"
                    "Measures the rows whose name contains PATTERN.  -m: size of the bulk conversions;\n"
                    "-o: where the figures go, for programs (default: bench.json).\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t bulk = GIB;
    const char *file = "bench.json";
    int opt;

    while ((opt = getopt(argc, argv, "m:o:s:")) != -1) {
        if (opt == 's')
            return el2_share_main((unsigned)strtoul(optarg, NULL, 10));
        if (opt == 'o')
            file = optarg;
        else if (opt != 'm' || (bulk = strtoull(optarg, NULL, 10) * MIB) == 0)
            return usage();
    }
    if (argc - optind > 1)
        return usage();
    if (argc > optind)
        pattern = argv[optind];
    results = json_array();
    stay_on_one_cpu();
    head();
    memory_rows();
    el2_rows();
    vmm_rows(bulk);
    guest_rows();
    fakehyp_disconnect(connection);
    unsigned nr = nr_met + nr_missed + nr_absent;
    if (nr == 0) {
        fprintf(stderr, "bench: no row's name contains \"%s\"\n", pattern);
        return 2;
    }
    if (json_dump_file(results, file, JSON_INDENT(2) | JSON_REAL_PRECISION(6))) {
        fprintf(stderr, "bench: %s cannot be written\n", file);
        return 1;
    }
    json_decref(results);
    printf("%u of %u rows within their goals, %u missed, %u not measured; %s has them\n", nr_met, nr, nr_missed,
           nr_absent, file);
    return 0;
}
