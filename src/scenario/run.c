/* SPDX-License-Identifier: BSD-2-Clause */
/* Which scripts are played, under what, and what they add up to. */
#include "src/host/variants.h"
#include "src/scenario/scenario.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/scenario/play.h"

struct run {
    const struct sc_options *options;
    const struct sc_stage *stage;
    struct sc_output out;
    struct sc_totals totals;
    bool unusable; /* something is no scenario, or cannot be read */
};

/* The next word of a list; NULL at its end. */
static const char *next_word(const char **list, char *buf, size_t size)
{
    const char *s = *list + strspn(*list, " ");
    size_t len = strcspn(s, " ");
    if (!len)
        return NULL;
    snprintf(buf, size, "%.*s", (int)len, s);
    *list = s + len;
    return buf;
}

static const char *not_live(const struct sc_play *play)
{
    if (!play->about.live)
        return play->about.not_live;
    int policy = variant_find(VARIANT_POLICY, play->setting.policy, NULL, 0);
    return policy < 0 ? NULL : variant_get(VARIANT_POLICY, (unsigned)policy)->not_live;
}

static void play_once(struct run *run, const char *path, const struct sc_about *about, const struct sc_setting *setting)
{
    const char *slash = strrchr(path, '/');
    struct sc_play *play = calloc(1, sizeof(*play));

    if (!play) {
        run->totals.failed++;
        return;
    }
    play->path = path;
    play->file = slash ? slash + 1 : path;
    play->stage = run->stage;
    play->setting = *setting;
    play->out = &run->out;
    play->about = *about;
    play->trace = run->options->trace;
    play->exploring = run->options->exploring;
    play->repeats = run->options->repeats ? run->options->repeats : 1;
    run->totals.runs++;
    const char *reason = run->options->live ? not_live(play) : NULL;
    if (reason) {
        run->totals.not_live++;
        run->out.ops->end(&run->out, play, SC_END_NOT_LIVE, reason);
    } else {
        run->out.ops->begin(&run->out, play);
        sc_play_run(play);
        run->totals.failed += play->failed;
        run->totals.steps += play->nr_steps;
        run->totals.checks += play->nr_checks;
    }
    free(play);
}

static bool wanted(const char *only, const char *name)
{
    return !only || !strcmp(only, name);
}

static void play_settings(struct run *run, const char *path, const struct sc_about *about)
{
    const struct sc_options *o = run->options;
    struct sc_setting s = {.bugs = ""};
    unsigned before = run->totals.runs;

    if (o->bugs)
        snprintf(s.bugs, sizeof(s.bugs), "%s", o->bugs);

    for (const char *p = about->policies; next_word(&p, s.policy, sizeof(s.policy));)
        for (const char *t = about->trackers; next_word(&t, s.tracker, sizeof(s.tracker));)
            for (const char *h = about->hyps; next_word(&h, s.hyp, sizeof(s.hyp));)
                if (wanted(o->policy, s.policy) && wanted(o->tracker, s.tracker) && wanted(o->hyp, s.hyp))
                    play_once(run, path, about, &s);
    run->totals.scenarios += run->totals.runs > before;
}

static void play_script(struct run *run, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct sc_play *play = calloc(1, sizeof(*play));

    if (!play)
        return;
    *play = (struct sc_play){.path = path, .file = slash ? slash + 1 : path, .stage = run->stage, .out = &run->out};
    snprintf(play->setting.policy, sizeof(play->setting.policy), "D");
    if (sc_play_declare(play)) {
        play_settings(run, path, &play->about);
    } else {
        fprintf(run->options->err, "%s\n", play->failure);
        run->unusable = true;
    }
    free(play);
}

static int is_script(const struct dirent *e)
{
    size_t len = strlen(e->d_name);
    return e->d_name[0] != '.' && len > 4 && !strcmp(e->d_name + len - 4, ".lua");
}

static void play_folder(struct run *run, const char *path)
{
    struct dirent **list;
    int nr = scandir(path, &list, is_script, alphasort);

    if (nr <= 0) {
        fprintf(run->options->err, "%s: %s\n", path, nr ? strerror(errno) : "no scenario (*.lua) in this folder");
        run->unusable = true;
    }
    for (int i = 0; i < nr; i++) {
        char *file;
        if (asprintf(&file, "%s/%s", path, list[i]->d_name) >= 0) {
            play_script(run, file);
            free(file);
        }
        free(list[i]);
    }
    if (nr >= 0)
        free(list);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static const struct sc_output_ops *const formats[] = {
    [SC_FORMAT_TEXT] = &sc_text_output,
    [SC_FORMAT_TAP] = &sc_tap_output,
    [SC_FORMAT_JSON] = &sc_json_output,
    [SC_FORMAT_MATRIX] = &sc_matrix_output,
};

int sc_run(const struct sc_options *options)
{
    struct run run = {
        .options = options,
        .stage = &sc_sim_stage,
        .out = {.ops = formats[options->format],
                .f = options->out,
                .in = options->in,
                .quiet = options->quiet,
                .step = options->step,
                .predict = options->predict,
                .colour = options->colour},
    };
    bool one = options->nr_paths == 1 && !is_folder(options->paths[0]);

    if (options->live)
        run.stage = &sc_live_stage;
    const char *lacks = run.stage->lacks ? run.stage->lacks() : NULL;
    if (lacks) {
        if (options->format == SC_FORMAT_TAP)
            fprintf(options->out, "1..0 # SKIP %s\n", lacks);
        else
            fprintf(options->err, "no scenario can be played with real processes here: %s\n", lacks);
        return options->format == SC_FORMAT_TAP ? 0 : 2;
    }
    run.out.narrate = options->verbose || options->step || options->predict ||
                      (one && !options->quiet && options->format == SC_FORMAT_TEXT);
    for (size_t i = 0; i < options->nr_paths; i++)
        if (is_folder(options->paths[i]))
            play_folder(&run, options->paths[i]);
        else
            play_script(&run, options->paths[i]);
    if (!run.totals.runs && !run.unusable) {
        fprintf(options->err, "no scenario names policy %s, tracker %s, hypervisor %s\n",
                options->policy ? options->policy : "any", options->tracker ? options->tracker : "any",
                options->hyp ? options->hyp : "any");
        run.unusable = true;
    }
    run.out.ops->total(&run.out, &run.totals);
    return run.unusable ? 2 : run.totals.failed ? 1 : 0;
}
