# SPDX-License-Identifier: Apache-2.0
#
# A JDK of version 25 or newer: found, or downloaded from Adoptium after consent.

jdk_feature=25
# A mirror of Adoptium's API may stand in for it.
adoptium_api="${NIBBLE_ADOPTIUM_API:-https://api.adoptium.net}"
jdk_cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/nibble"
# Where JDKs lie, beside JAVA_HOME and PATH: packages, SDKMAN, IntelliJ, hand-made, downloaded.
jdk_places=(/usr/lib/jvm/* "${HOME:-}"/.sdkman/candidates/java/* "${HOME:-}"/.jdks/*
  /opt/jdk* /opt/java/* "$jdk_cache"/jdk-*)

# True if $1 is the home of a JDK (not a JRE) of a sufficient version.
is_suitable_jdk() {
  local version
  [[ -x "$1/bin/java" && -x "$1/bin/javac" && -r "$1/release" ]] || return 1
  version="$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$1/release")"
  [[ -n "$version" && "$version" -ge "$jdk_feature" ]]
}

# Sets java_home.
ensure_jdk() {
  local candidate on_path
  if [[ -n "${NIBBLE_JAVA_HOME:-}" ]]; then
    is_suitable_jdk "$NIBBLE_JAVA_HOME" ||
      fail "NIBBLE_JAVA_HOME=$NIBBLE_JAVA_HOME is not a JDK of version $jdk_feature or newer"
    java_home="$NIBBLE_JAVA_HOME"
    return
  fi
  on_path="$(readlink -f "$(command -v javac || true)" 2>/dev/null || true)"
  for candidate in "${JAVA_HOME:-}" "${on_path%/bin/javac}" "${jdk_places[@]}"; do
    if [[ -n "$candidate" ]] && is_suitable_jdk "$candidate"; then
      java_home="$candidate"
      return
    fi
  done
  download_jdk
}

download_jdk() {
  local arch query
  case "$(uname -m)" in
    x86_64) arch=x64 ;;
    aarch64) arch=aarch64 ;;
    *) fail "no JDK $jdk_feature found; set NIBBLE_JAVA_HOME to one" ;;
  esac
  query="$adoptium_api/v3/assets/latest/$jdk_feature/hotspot"
  query+="?architecture=$arch&image_type=jdk&os=linux&vendor=eclipse"

  say "No JDK $jdk_feature or newer found (looked at NIBBLE_JAVA_HOME, JAVA_HOME, PATH," \
    "/usr/lib/jvm, ~/.sdkman, ~/.jdks, /opt)."
  if ! ask "Download Eclipse Temurin $jdk_feature (about 140 MB) from Adoptium to $jdk_cache?"; then
    explain_jdk
    exit 1
  fi
  if ! fetch_jdk "$query"; then
    explain_jdk
    exit 1
  fi
}

# fetch_jdk QUERY: asks Adoptium which file is the newest and what its checksum is, and unpacks
# it to the cache. Published by rename, so that a cut connection leaves nothing half there.
fetch_jdk() {
  local work answer package link sum name home
  mkdir -p "$jdk_cache"
  work="$(mktemp -d "$jdk_cache/download.XXXXXX")"
  # shellcheck disable=SC2064  # the folder of now
  trap "rm -rf '$work'" EXIT
  answer="$(curl -fsSL --retry 2 --connect-timeout 20 "$1" | tr -d '\n\r\t')" || {
    say "Adoptium does not answer: $1"
    return 1
  }
  package="$(sed -n 's/.*"package" *: *{\([^}]*\)}.*/\1/p' <<<"$answer")"
  link="$(sed -n 's/.*"link" *: *"\([^"]*\)".*/\1/p' <<<"$package")"
  name="$(sed -n 's/.*"name" *: *"\([^"/]*\)".*/\1/p' <<<"$package")"
  sum="$(sed -n 's/.*"checksum" *: *"\([0-9a-f]\{64\}\)".*/\1/p' <<<"$package")"
  if [[ -z "$link" || -z "$name" || -z "$sum" ]]; then
    say "Adoptium's answer names no package: $1"
    return 1
  fi
  say "Downloading $link"
  local bar=(-sS)
  [[ ! -t 2 ]] || bar=(--progress-bar)
  curl -fL --retry 2 --connect-timeout 20 "${bar[@]}" -o "$work/$name" "$link" || return 1
  if ! echo "$sum  $work/$name" | sha256sum --check --quiet >&2; then
    say "The download does not have the SHA-256 that Adoptium states ($sum); it is thrown away."
    return 1
  fi
  mkdir "$work/jdk"
  tar -xzf "$work/$name" -C "$work/jdk" --strip-components=1 || return 1
  is_suitable_jdk "$work/jdk" || {
    say "$name does not hold a JDK $jdk_feature"
    return 1
  }
  home="$jdk_cache/jdk-$jdk_feature"
  rm -rf "$home"
  mv -T "$work/jdk" "$home"
  rm -rf "$work"
  trap - EXIT
  java_home="$home"
}

explain_jdk() {
  say "Nibble needs JDK $jdk_feature or newer. Either agree to the download (./nibble --yes ...), or:

  mkdir -p ~/.jdks/temurin-$jdk_feature
  curl -fL -o temurin.tar.gz '$adoptium_api/v3/binary/latest/$jdk_feature/ga/linux/$arch/jdk/hotspot/normal/eclipse'
  tar -xzf temurin.tar.gz -C ~/.jdks/temurin-$jdk_feature --strip-components=1

or set NIBBLE_JAVA_HOME to a JDK that you have."
}
