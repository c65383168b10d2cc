#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# build.sh OUTPUT: the C program of ../c-cmake, built with what pkg-config says of Nibble.
set -euo pipefail
# shellcheck disable=SC2046  # flags are separated by blanks on purpose
"${CC:-cc}" -std=c99 -Wall -Wextra -Werror -o "$1" \
  "$(dirname -- "${BASH_SOURCE[0]}")/../c-cmake/gemm.c" $(pkg-config --cflags --libs nibble) -lm
