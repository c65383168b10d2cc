# SPDX-License-Identifier: Apache-2.0
#
# The compilers and build tools: which are missing, and how they come.

# Prints the Debian packages of the tools that are missing.
missing_packages() {
  local tool
  # Command and package, where they differ in name.
  for tool in g++:g++ cmake:cmake ninja:ninja-build mvn:maven curl:curl; do
    command -v "${tool%%:*}" >/dev/null || echo "${tool#*:}"
  done
  if [[ "$1" == test ]]; then
    command -v pkg-config >/dev/null || echo pkg-config
    header_exists gtest/gtest.h || echo libgtest-dev
    header_exists benchmark/benchmark.h || echo libbenchmark-dev
  fi
}

header_exists() {
  command -v g++ >/dev/null && echo "#include <$1>" | g++ -E -x c++ - >/dev/null 2>&1
}

# ensure_tools run|test: installs what is missing, or says how to.
ensure_tools() {
  local packages as_root=()
  mapfile -t packages < <(missing_packages "$1")
  if [[ ${#packages[@]} -gt 0 ]]; then
    local install=(apt-get install -y --no-install-recommends "${packages[@]}")
    say "Missing packages: ${packages[*]}"
    if ! command -v apt-get >/dev/null; then
      fail "no apt-get here: install g++, CMake 3.22 or newer, Ninja and Maven yourself," \
        "then run this again"
    fi
    if [[ "$(id -u)" -ne 0 ]]; then
      as_root=(sudo)
      if ! command -v sudo >/dev/null || ! ask "Install them with sudo apt-get?"; then
        fail "install them, then run this again:"$'\n'"  sudo apt-get update &&" \
          "sudo ${install[*]}"
      fi
    fi
    say "Installing them with apt-get (log: $build_dir/logs/apt.log)"
    logged "apt-get" "$build_dir/logs/apt.log" quietly \
      "${as_root[@]}" apt-get update || fail "apt-get update did not work"
    logged "apt-get" "$build_dir/logs/apt.log" quietly \
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" ||
      fail "the packages could not be installed: ${packages[*]}"
  fi
  check_cmake_version
}

check_cmake_version() {
  local version
  version="$(cmake --version | sed -n '1s/[^0-9]*//p')"
  if [[ "$(printf '%s\n3.22\n' "$version" | sort -V | head -n 1)" != 3.22 ]]; then
    fail "cmake is version $version, but 3.22 or newer is needed"
  fi
}
