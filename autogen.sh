#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Generates configure and the Makefile.in from a fresh checkout.
set -e
cd "$(dirname "$0")"
exec autoreconf -fi
