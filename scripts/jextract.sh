#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Regenerates dev.nibble.ffi from nibble.h. For maintainers, after the header changed:
#
#   scripts/jextract.sh [OUTPUT_SOURCE_ROOT]      (default: java-bindings/src/main/java)
#
# `jextract` (https://jdk.java.net/jextract) must be on the PATH. The output is committed and
# never edited. No -l option is passed: the bindings look symbols up in the class loader that
# loaded the library, so that the application decides which file that is.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
header="$root/native/include/nibble/nibble.h"
output="${1:-$root/java-bindings/src/main/java}"
package=dev.nibble.ffi

if ! command -v jextract >/dev/null; then
  echo "scripts/jextract.sh: jextract is not on the PATH; get it from https://jdk.java.net/jextract" >&2
  exit 1
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Only Nibble's own names become Java; what <stdint.h> declares beside its types does not. The
# opaque handles have no layout, so they are left out: Java sees them as plain addresses.
jextract --dump-includes "$work/all.txt" "$header" 2>"$work/warnings.txt"
grep -E -- '^--include-[a-z]+ (nb_|NB_)' "$work/all.txt" | sed 's/ *#.*//' |
  grep -vxE -- '--include-struct nb_(context|matrix|kv_cache|graph)' >"$work/includes.txt"

jextract --target-package "$package" --header-class-name nibble_h \
  --output "$work/java" "@$work/includes.txt" "$header" 2>"$work/warnings.txt"

# The opaque handles give a warning each; anything else is news for the maintainer.
grep -v 'Skipping nb_.* is not supported' "$work/warnings.txt" >&2 || true

destination="$output/${package//.//}"
rm -rf "$destination"
mkdir -p "$(dirname "$destination")"
cp -R "$work/java/${package//.//}" "$destination"
echo "wrote $(find "$destination" -name '*.java' | wc -l) files to $destination"
