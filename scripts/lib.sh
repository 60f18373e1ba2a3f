# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
#
# Sourced by scripts/demo and scripts/check: from a bare checkout to a build.
# Steps that are done already cost nothing, so both scripts can be run again
# and again.  The output of a step goes to a log, which is shown when it fails.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc)

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# step LOG WHAT COMMAND...: runs the command with its output in LOG; one line of progress.
step() {
    local log=$1 what=$2 start=$SECONDS status=0
    shift 2
    mkdir -p "$(dirname "$log")"
    printf '==> %s ... ' "$what"
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -eq 0 ]; then
        printf 'ok (%d s)\n' $((SECONDS - start))
        return 0
    fi
    printf 'FAILED after %d s (%s)\n' $((SECONDS - start)) "${log#"$top"/}"
    return "$status"
}

# The same for a step that nothing can go on without.
must_step() {
    local log=$1
    step "$@" && return
    printf -- '--- the last lines of %s ---\n' "${log#"$top"/}" >&2
    tail -n 60 "$log" >&2
    exit 1
}

# packages_of build|check: of scripts/packages.txt what stands before the line "[check]", or after it.
packages_of() {
    local other='1,/^\[check\]$/d'
    [ "$1" = check ] || other='/^\[check\]$/Q'
    sed -e "$other" -e 's/#.*//' -e '/^[[:space:]]*$/d' "$top/scripts/packages.txt"
}

# missing_packages build|check
missing_packages() {
    local package
    for package in $(packages_of "$1"); do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
    done
}

# Not `sudo -v` at first: it wants a password as soon as one of several rules for the user does, as for the user of a
# cloud image, whose own rule has NOPASSWD and whose group's has not.  Without a terminal sudo cannot ask for one.
may_sudo() {
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }
}

# Nothing goes on without what the build needs.  What only scripts/check needs may be missing: its step is skipped then.
install_packages() {
    local missing optional='' with=step
    local -a as_root=() packages=()

    if ! command -v dpkg-query >/dev/null; then
        say "no dpkg here: configure will say what is missing (scripts/packages.txt has Debian's names)"
        return
    fi
    missing=$(missing_packages build)
    [ -z "$missing" ] || with=must_step
    [ "$(basename "$0")" != check ] || optional=$(missing_packages check)
    mapfile -t packages < <(printf '%s\n' "$missing" "$optional" | grep .)
    [ ${#packages[@]} -gt 0 ] || return 0
    say "missing packages: ${packages[*]}"

    if [ "$(id -u)" -ne 0 ]; then
        if ! may_sudo; then
            printf 'Installing them takes root.  As root, then run this again:\n' >&2
            printf '    apt-get update && apt-get install --no-install-recommends %s\n' "${packages[*]}" >&2
            [ -z "$missing" ] || exit 1
            return 0
        fi
        as_root=(sudo)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    "$with" "$top/build/apt.log" "apt-get update" "${as_root[@]}" apt-get -q update || return 0
    "$with" "$top/build/apt.log" "apt-get install" \
        "${as_root[@]}" apt-get -q install -y --no-install-recommends "${packages[@]}" || return 0
}

# Generates configure; later changes of its sources are make's business.
autogen() {
    if [ ! -e "$top/configure" ] || [ ! -e "$top/Makefile.in" ]; then
        must_step "$top/build/autogen.log" "autogen.sh" "$top/autogen.sh"
    fi
}

# Configured for this very place?  A tree that was moved or copied remembers the old one.
is_configured() {
    [ -e "$1/config.status" ] && grep -qxF "abs_top_builddir = $1" "$1/Makefile" 2>/dev/null
}

# build_tree DIRECTORY CONFIGURE-OPTION...: configures (once) and builds.
build_tree() {
    local dir=$top/$1 name=$1 options
    shift
    options="$*"
    mkdir -p "$dir"
    if ! is_configured "$dir"; then
        must_step "$dir/configure.log" "configure $name/${options:+ (${options//"$top/"/})}" \
            env -C "$dir" ../configure "$@"
    fi
    must_step "$dir/make.log" "make in $name/" make -C "$dir" -j"$jobs"
}

set_up() {
    install_packages
    autogen
}
