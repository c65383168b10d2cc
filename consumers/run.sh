#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# consumers/run.sh NAME: builds and runs one program that uses Nibble from outside, against what
# `cmake --install` and Maven hand out of the build in build/release and java-bindings/target
# (./nibble makes both). NAME is c-cmake, c-pkgconfig, java-ffi or maven. Fails unless the
# program succeeds and writes nothing to standard error: no native-access warning, for one.
# NIBBLE_TEST_JAVA_HOME (or JAVA_HOME) is the JDK.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
consumers="$root/consumers"
build="$root/build/release"
java_home="${NIBBLE_TEST_JAVA_HOME:-${JAVA_HOME:-}}"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
prefix="$work/prefix"

install_library() {
  cmake --install "$build" --prefix "$prefix" >"$work/install.log"
  library="$(find "$prefix" -name libnibble.so)"
}

# The library may export the functions of its header and nothing else.
check_exports() {
  local declared exported
  declared="$(sed -n 's/^NB_API .*\b\(nb_[a-z0-9_]*\)(.*/\1/p' "$prefix/include/nibble/nibble.h" | sort)"
  exported="$(nm -D --defined-only "$library" | awk '{print $3}' | sort)"
  if [[ "$declared" != "$exported" ]]; then
    echo "libnibble.so exports other symbols than nibble.h declares:" >&2
    diff <(echo "$declared") <(echo "$exported") >&2
    return 1
  fi
}

# run_silently COMMAND...: its standard output is shown; anything on standard error is a failure.
run_silently() {
  local status=0
  "$@" 2>"$work/stderr.txt" || status=$?
  if [[ -s "$work/stderr.txt" ]]; then
    echo "unexpected on standard error of: $*" >&2
    cat "$work/stderr.txt" >&2
    status=1
  fi
  return "$status"
}

c_cmake() {
  install_library
  check_exports
  cmake -S "$consumers/c-cmake" -B "$work/c" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_FLAGS="-Wall -Wextra -Werror"
  cmake --build "$work/c"
  run_silently "$work/c/gemm"
}

c_pkgconfig() {
  install_library
  local libdir
  libdir="$(dirname "$library")"
  PKG_CONFIG_PATH="$libdir/pkgconfig" "$consumers/c-pkgconfig/build.sh" "$work/gemm"
  LD_LIBRARY_PATH="$libdir" run_silently "$work/gemm"
}

java_ffi() {
  install_library
  "$java_home/bin/javac" -Xlint:-restricted -d "$work/classes" \
    "$root"/java-bindings/src/main/java/dev/nibble/ffi/*.java "$consumers/java-ffi/Gemm.java"
  run_silently "$java_home/bin/java" --enable-native-access=ALL-UNNAMED -cp "$work/classes" \
    Gemm "$library"
}

maven_dependency() {
  export JAVA_HOME="$java_home"
  export MAVEN_OPTS="--enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow"
  local repository="file://$work/repository" deploy
  deploy=(mvn --batch-mode --no-transfer-progress
    org.apache.maven.plugins:maven-deploy-plugin:3.1.4:deploy-file "-Durl=$repository")
  cd "$work" # outside of Nibble's own Maven project
  "${deploy[@]}" "-Dfile=$root/pom.xml" "-DpomFile=$root/pom.xml" -Dpackaging=pom
  "${deploy[@]}" "-Dfile=$root/java-bindings/target/nibble-0.1.0-SNAPSHOT.jar" \
    "-DpomFile=$root/java-bindings/pom.xml"
  cp -R "$consumers/maven" "$work/app"
  rm -rf "$work/app/target"
  mvn --batch-mode --no-transfer-progress -f "$work/app/pom.xml" \
    "-Dnibble.repository=$repository" package
  run_silently "$java_home/bin/java" -jar "$work/app/target/gemm.jar"
}

case "${1:-}" in
  c-cmake) c_cmake ;;
  c-pkgconfig) c_pkgconfig ;;
  java-ffi) java_ffi ;;
  maven) maven_dependency ;;
  *)
    echo "usage: consumers/run.sh c-cmake|c-pkgconfig|java-ffi|maven" >&2
    exit 2
    ;;
esac
