#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Generates configure and the Makefile.in from a fresh checkout.
set -e
cd "$(dirname "$0")"
for tool in autoreconf automake libtoolize pkg-config; do
    command -v "$tool" >/dev/null && continue
    echo "autogen.sh: $tool is missing (Debian: autoconf automake libtool pkg-config)" >&2
    exit 1
done
exec autoreconf -fi
