#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Gets Google Highway's source from Debian's archive, for machines that reach a Debian mirror
# but not GitHub:
#
#   scripts/fetch-highway.sh CACHE_DIR VERSION SHA256
#
# prints the path of the unpacked source, CACHE_DIR/highway-VERSION, and downloads only when it
# is not there yet. apt runs on a configuration of its own (source list, package lists and cache
# in a temporary directory), so that the system's is neither read for sources nor changed, and
# root is not needed. apt checks the archive's signature and the package's checksums; SHA256 is
# that of the upstream release, which Debian ships unchanged, and is checked once more here.
set -euo pipefail

if [[ $# -ne 3 ]]; then
  echo "usage: fetch-highway.sh CACHE_DIR VERSION SHA256" >&2
  exit 2
fi
cache="$1" version="$2" sha256="$3"
source_dir="$cache/highway-$version"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

if [[ -f "$source_dir/hwy/highway.h" ]]; then
  echo "$source_dir"
  exit 0
fi
if ! command -v apt-get >/dev/null || [[ ! -r "$keyring" ]]; then
  echo "fetch-highway.sh: needs apt-get and $keyring (package debian-archive-keyring)" >&2
  exit 1
fi

mkdir -p "$cache"
work="$(mktemp -d "$cache/fetch-highway.XXXXXX")"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/sources.list.d"
echo "deb-src [signed-by=$keyring] http://deb.debian.org/debian trixie main" >"$work/sources.list"

options=(
  -q
  -o "Dir::Etc::SourceList=$work/sources.list"
  -o "Dir::Etc::SourceParts=$work/sources.list.d"
  -o "Dir::State::Lists=$work/lists"
  -o "Dir::Cache=$work/cache"
  -o "Acquire::Languages=none"
  -o "Acquire::http::Timeout=20"
  -o "Acquire::Retries=2"
)
# apt run by root would otherwise drop to the user _apt, who may not write to $work.
if [[ "$(id -u)" -eq 0 ]]; then
  options+=(-o "APT::Sandbox::User=root")
fi

apt-get "${options[@]}" update >&2
(cd "$work" && apt-get "${options[@]}" source --download-only highway) >&2

tarball="$work/highway_$version.orig.tar.gz"
if [[ ! -f "$tarball" ]]; then
  echo "fetch-highway.sh: Debian's source package is not version $version:" "$work"/*.dsc >&2
  exit 1
fi
echo "$sha256  $tarball" | sha256sum --check --quiet >&2
mkdir "$work/unpacked"
tar -xzf "$tarball" -C "$work/unpacked"
# Published by rename; when another build was first, its copy is as good.
mv -T "$work/unpacked/highway-$version" "$source_dir" 2>/dev/null ||
  [[ -f "$source_dir/hwy/highway.h" ]]
echo "$source_dir"
