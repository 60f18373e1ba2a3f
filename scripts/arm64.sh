# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# shellcheck disable=SC2154 # top and jobs are of lib.sh
#
# Sourced by scripts/check: a build for arm64 with Debian's cross compiler.  The
# libraries of arm64 come from the system's own apt sources into a folder of
# the build tree; no architecture is added to the system, nothing is installed.
# qemu runs the tests that need nothing of the kernel that it does not have.

arm64_host=aarch64-linux-gnu
arm64=$top/build-arm64
arm64_sysroot=$arm64/sysroot

# What the build needs of libraries; its tools are the host's.
arm64_packages() {
    packages_of build | grep -e '-dev$'
}

# What the sysroot is made from: it is made again when this changes.
arm64_wanted() {
    (. /etc/os-release && printf '%s %s\n' "$ID" "${VERSION_CODENAME:-}")
    arm64_packages
}

# apt with lists, cache and status of its own, and without the hooks of a system whose own they are.  -c comes after all
# other configuration, so that #clear has something to clear.
arm64_apt() {
    apt-get -q -c "$arm64/apt/apt.conf" "$@"
}

arm64_configure_apt() {
    mkdir -p "$arm64/apt/state/lists/partial" "$arm64/apt/cache/archives/partial"
    : >"$arm64/apt/status"
    cat >"$arm64/apt/apt.conf" <<END
APT::Architecture "arm64";
#clear APT::Architectures;
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Dir::State "$arm64/apt/state";
Dir::State::status "$arm64/apt/status";
Dir::Cache "$arm64/apt/cache";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
END
}

# Absolute links are the target's: into the sysroot with them.
arm64_unpack() {
    local deb link
    for deb in "$arm64"/apt/cache/archives/*.deb; do
        dpkg -x "$deb" "$arm64/sysroot.new" || return
    done
    while IFS= read -r link; do
        ln -sfn "$arm64_sysroot$(readlink "$link")" "$link" || return
    done < <(find "$arm64/sysroot.new" -type l -lname '/*')
    rm -rf "$arm64/apt" && mv "$arm64/sysroot.new" "$arm64_sysroot"
}

# The sysroot, of what arm64_wanted says.  The stamp comes last.
arm64_make_sysroot() {
    local packages
    mapfile -t packages < <(arm64_packages)
    say "build-arm64/ begins anew: its libraries are not here, or others are wanted"
    rm -rf "$arm64"
    arm64_configure_apt
    step "$top/build/arm64.log" "apt-get update for arm64" arm64_apt update -o APT::Update::Error-Mode=any &&
        step "$top/build/arm64.log" "apt-get download for arm64" \
            arm64_apt install -y -d --no-install-recommends "${packages[@]}" &&
        step "$top/build/arm64.log" "unpack build-arm64/sysroot/" arm64_unpack &&
        arm64_wanted >"$arm64_sysroot/stamp"
}

# In LOG_FLAGS, between automake's `timeout` and the test: programs of arm64 run under qemu, scripts as they are.
arm64_make_runner() {
    cat >"$arm64/run" <<END
#!/bin/sh
case \$(head -c 4 "\$1" | tr -d '\177') in
ELF) exec qemu-aarch64-static -L '$arm64_sysroot' "\$@" ;;
*) exec "\$@" ;;
esac
END
    chmod +x "$arm64/run"
}

step_arm64() {
    local tool lib=$arm64_sysroot/usr/lib/$arm64_host
    for tool in apt-get dpkg "$arm64_host-gcc"; do
        if ! command -v "$tool" >/dev/null; then
            skip "arm64: $tool is not installed"
            return
        fi
    done
    if [ "$(cat "$arm64_sysroot/stamp" 2>/dev/null)" != "$(arm64_wanted)" ] && ! arm64_make_sysroot; then
        skip "arm64: its libraries cannot be had from here (build/arm64.log)"
        return
    fi
    build_tree build-arm64 "--host=$arm64_host" --enable-werror "CC=$arm64_host-gcc --sysroot=$arm64_sysroot" \
        "PKG_CONFIG_SYSROOT_DIR=$arm64_sysroot" "PKG_CONFIG_LIBDIR=$lib/pkgconfig:$arm64_sysroot/usr/share/pkgconfig"
    # The programs of the tests are built in any case.
    if ! command -v qemu-aarch64-static >/dev/null; then
        must_step "$arm64/check.log" "make check TESTS= in build-arm64/" make -C "$arm64" -j"$jobs" check TESTS=
        pass
        skip 'arm64: it is built, but no test ran: qemu-aarch64-static is not installed'
        return
    fi
    arm64_make_runner
    # qemu has no userfaultfd, no io_uring and not all of /proc.  make expands the lists.
    # shellcheck disable=SC2016
    local units='$(filter $(addprefix tests/unit/,ctl_% el2_% host_% machine_% proto_%),$(unit_tests))'
    run_tests build-arm64 "LOG_FLAGS='$arm64/run'" \
        TESTS="$units tests/unit/script_el2_objects tests/guide/pkvm_states tests/fuzz/el2_hypercalls tests/fuzz/el2_memcache tests/fuzz/wire"
}
