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
    missing_fonts
  fi
}

# The benchmarks' plots need a font, and the system's way of finding it. Prints the Debian packages
# that are missing.
missing_fonts() {
  [[ -n "$(fc-list 2>/dev/null | head -n 1)" ]] || printf '%s\n' fontconfig fonts-dejavu-core
}

header_exists() {
  command -v g++ >/dev/null && echo "#include <$1>" | g++ -E -x c++ - >/dev/null 2>&1
}

# ensure_tools run|test: installs what is missing, or says how to.
ensure_tools() {
  local packages
  mapfile -t packages < <(missing_packages "$1")
  if [[ ${#packages[@]} -gt 0 ]]; then
    say "Missing packages: ${packages[*]}"
    if ! command -v apt-get >/dev/null; then
      fail "no apt-get here: install g++, CMake 3.22 or newer, Ninja and Maven yourself," \
        "then run this again"
    fi
    if ! may_install "Install them with sudo apt-get?"; then
      fail "install them, then run this again:"$'\n'"  sudo apt-get update &&" \
        "sudo apt-get install -y --no-install-recommends ${packages[*]}"
    fi
    install_packages "${packages[@]}" || fail "$why_not"
  fi
  check_cmake_version
}

# True if there is a CUDA compiler; else no_nvcc is the reason, in one line. CMake knows which
# versions will do (cmake/CudaToolkit.cmake).
have_nvcc() {
  no_nvcc=""
  if ! command -v nvcc >/dev/null || ! command -v ptxas >/dev/null; then
    no_nvcc="nvcc and ptxas are not both on the PATH; install CUDA's toolkit, 12.8 or newer"
    return 1
  fi
}

# True if NVIDIA's driver finds a GPU.
have_gpu() {
  command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus >/dev/null 2>&1
}

# What the C++ tests need besides to run as ARM code on another machine: the cross compiler with
# ARM's C++ library, the emulator, GoogleTest's source. Prints the Debian packages that are
# missing.
missing_arm_packages() {
  echo "#include <vector>" | aarch64-linux-gnu-g++ -E -x c++ - >/dev/null 2>&1 ||
    echo g++-aarch64-linux-gnu
  command -v qemu-aarch64 >/dev/null || command -v qemu-aarch64-static >/dev/null || echo qemu-user
  [[ -f /usr/src/googletest/CMakeLists.txt ]] || echo googletest
}

# True if the tools for the tests on ARM are there, if need be after installing them; else
# why_not is the reason, in one line.
have_arm_tools() {
  local packages
  mapfile -t packages < <(missing_arm_packages)
  [[ ${#packages[@]} -gt 0 ]] || return 0
  why_not="without ${packages[*]}"
  command -v apt-get >/dev/null || return 1
  may_install "Install ${packages[*]} with sudo apt-get, to run the tests as ARM code too?" ||
    return 1
  # They never take another package's place: Debian's cross compilers and gcc-multilib exclude
  # each other.
  install_packages --no-remove "${packages[@]}"
}

# may_install QUESTION: true as root, or if the user agrees to sudo.
may_install() {
  [[ "$(id -u)" -eq 0 ]] || { command -v sudo >/dev/null && ask "$1"; }
}

# install_packages [OPTION] PACKAGE...: false if that fails; why_not is then the reason.
install_packages() {
  local as_root=()
  [[ "$(id -u)" -eq 0 ]] || as_root=(sudo)
  say "Installing packages with apt-get (log: $build_dir/logs/apt.log)"
  if ! logged "apt-get" "$build_dir/logs/apt.log" quietly \
    ${as_root[@]+"${as_root[@]}"} apt-get update; then
    why_not="apt-get update did not work"
    return 1
  fi
  if ! logged "apt-get" "$build_dir/logs/apt.log" quietly \
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "$@"; then
    why_not="the packages could not be installed: $*"
    return 1
  fi
}

check_cmake_version() {
  local version
  version="$(cmake --version | sed -n '1s/[^0-9]*//p')"
  if [[ "$(printf '%s\n3.22\n' "$version" | sort -V | head -n 1)" != 3.22 ]]; then
    fail "cmake is version $version, but 3.22 or newer is needed"
  fi
}
