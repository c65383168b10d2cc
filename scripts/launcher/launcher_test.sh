#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Tests of the launcher's decisions that a developer's machine does not meet: no JDK, a damaged
# download, missing packages, a second start, a changed source. Commands with effects are stand-
# ins on the PATH; nothing is installed or downloaded. The last line is "N passed, M failed".
set -uo pipefail
unset CI NIBBLE_YES JAVA_HOME NIBBLE_JAVA_HOME NIBBLE_JAVA_OPTS NIBBLE_LIBRARY NIBBLE_ADOPTIUM_API

here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
work="$(mktemp -d)/a folder" # with a blank in its path
mkdir -p "$work"
trap 'rm -rf "${work%/*}"' EXIT
passed=0
failed=0

# expect NAME EXPECTED_STATUS PATTERN COMMAND...: the command's status, and a pattern (grep -E)
# that its output, both streams together, must match.
expect() {
  local name="$1" expected="$2" pattern="$3" output status=0
  shift 3
  output="$("$@" 2>&1 </dev/null)" || status=$?
  if [[ "$status" == "$expected" ]] && grep -qE -- "$pattern" <<<"$output"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf '%s: status %s, expected %s with "%s" in:\n%s\n' \
      "$name" "$status" "$expected" "$pattern" "$output"
  fi
}

# stand_in FOLDER NAME BODY: an executable that takes a command's place.
stand_in() {
  mkdir -p "$1"
  printf '#!/bin/bash\n%s\n' "$3" >"$1/$2"
  chmod +x "$1/$2"
}

# make_jdk FOLDER VERSION: what passes for a JDK.
make_jdk() {
  stand_in "$1/bin" java 'printf "%s|" "$@"; echo'
  stand_in "$1/bin" javac 'exit 0'
  echo "JAVA_VERSION=\"$2\"" >"$1/release"
}

# The JDK part alone, in a home that is empty.
jdk() {
  env -u JAVA_HOME -u NIBBLE_JAVA_HOME -u CI HOME="$work/home" \
    XDG_CACHE_HOME="$work/cache" "$@" bash -c '
    set -euo pipefail
    build_dir="$HOME/build"
    source "$0/report.sh"
    source "$0/jdk.sh"
    jdk_places=($places "$jdk_cache"/jdk-*)
    assume_yes="${yes:-0}"
    PATH="$stand_ins:/usr/bin:/bin"
    ensure_jdk
    echo "chosen: $java_home"' "$here"
}

test_jdk() {
  export stand_ins="$work/bin" places=""
  mkdir -p "$work/home"
  # A javac of the machine must not be found.
  stand_in "$work/bin" readlink 'exit 1'
  make_jdk "$work/old" 17.0.2
  make_jdk "$work/new" 26
  make_jdk "$work/jdk25" 25.0.1

  expect "no JDK, nobody to ask" 1 'curl -fL .*/v3/binary/latest/25/ga/linux/' jdk
  expect "JAVA_HOME is taken" 0 "chosen: .*/new" jdk JAVA_HOME="$work/new"
  expect "an old JAVA_HOME is passed over" 1 'No JDK 25' jdk JAVA_HOME="$work/old"
  expect "NIBBLE_JAVA_HOME goes first" 0 "chosen: .*/jdk25" \
    jdk JAVA_HOME="$work/new" NIBBLE_JAVA_HOME="$work/jdk25"
  expect "a wrong NIBBLE_JAVA_HOME is an error" 1 'NIBBLE_JAVA_HOME=.*/old is not a JDK' \
    jdk NIBBLE_JAVA_HOME="$work/old"

  # Adoptium: one stand-in for curl answers the query and hands out the file.
  tar -czf "$work/jdk.tar.gz" -C "$work" jdk25
  stand_in "$work/bin" curl '
    while [[ $# -gt 0 ]]; do
      case "$1" in -o) out="$2"; shift ;; http*) url="$1" ;; esac
      shift
    done
    case "$url" in
      */v3/assets/*) cat "$answer" ;;
      *) cp "$archive" "$out" ;;
    esac'
  export archive="$work/jdk.tar.gz" answer="$work/answer.json"
  local sum
  sum="$(sha256sum "$archive" | cut -d " " -f 1)"
  cat >"$answer" <<END
[ { "binary": { "architecture": "x64", "image_type": "jdk", "package": {
      "checksum": "$sum", "checksum_link": "https://example.org/a.sha256.txt",
      "link": "https://example.org/a%2B1.tar.gz", "name": "a.tar.gz", "size": 1
    }, "project": "jdk" }, "release_name": "jdk-25.0.1+8" } ]
END
  expect "no consent, no download" 1 'agree to the download' jdk
  expect "a download with the right checksum" 0 "chosen: .*/cache/nibble/jdk-25" jdk yes=1
  expect "the downloaded JDK is found again" 0 "chosen: .*/cache/nibble/jdk-25" jdk
  rm -rf "$work/cache"
  echo "damage" >>"$archive"
  expect "a damaged download is refused" 1 'does not have the SHA-256' jdk yes=1
  expect "nothing of it stays" 0 '^0$' bash -c 'ls -A "$0" | wc -l' "$work/cache/nibble"
}

# A tree with the launcher and stand-ins for cmake and mvn that make what the real ones would.
test_build() {
  local tree="$work/tree"
  mkdir -p "$tree/scripts" "$tree/kernels-cpu/gemm" "$tree/kernels-cuda" "$tree/native/include" "$tree/native/src" \
    "$tree/cmake" "$tree/java-bindings/src/main"
  cp "$here/../../nibble" "$tree/"
  cp -R "$here" "$tree/scripts/launcher"
  touch "$tree/CMakeLists.txt" "$tree/CMakePresets.json" "$tree/native/CMakeLists.txt" \
    "$tree/pom.xml" "$tree/java-bindings/pom.xml"
  make_jdk "$work/jdk" 25
  stand_in "$work/tools" cmake '
    case "$*" in
      --version) echo "cmake version 3.25.1" ;;
      *--build*) mkdir -p build/release/native; echo "[1/1] lib"
        [[ -z "${broken:-}" ]] || { echo "gemm.cc: error: here"; exit 1; }
        touch build/release/native/libnibble.so; echo build >>"$calls"
        if [[ "$*" == *nibble_bench* ]]; then
          mkdir -p build/release/bench
          printf "#!/bin/bash\n" >build/release/bench/nibble_bench
          chmod +x build/release/bench/nibble_bench
        fi ;;
      *-DNIBBLE_CUDA=*)
        mkdir -p build/release
        echo "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" >build/release/CMakeCache.txt
        echo "NIBBLE_CUDA:STRING=$(sed "s/.*-DNIBBLE_CUDA=//; s/ .*//" <<<"$*")" \
          >>build/release/CMakeCache.txt ;;
    esac'
  stand_in "$work/tools" mvn '
    mkdir -p java-bindings/target
    touch java-bindings/target/nibble-0.1.0-SNAPSHOT.jar; echo mvn >>"$calls"
    if [[ "$*" == *" bench "* ]]; then
      mkdir -p bench/target
      touch bench/target/nibble-bench-0.1.0-SNAPSHOT.jar
    fi'
  local tool
  for tool in g++ ninja curl; do
    stand_in "$work/tools" "$tool" 'exit 0'
  done
  export calls="$work/calls" NIBBLE_JAVA_HOME="$work/jdk"
  local launch=(env -u CI PATH="$work/tools:/usr/bin:/bin" "$tree/nibble")

  expect "a failing build shows its log" 1 'gemm.cc: error: here' env broken=1 "${launch[@]}" info
  : >"$calls"
  expect "a first start builds, then runs" 0 'dev.nibble.cli.Main\|info\|a b\|' \
    "${launch[@]}" info "a b"
  expect "it built once" 0 '^2$' bash -c 'wc -l <"$0"' "$calls"
  expect "a second start only runs" 0 'dev.nibble.cli.Main\|info\|' "${launch[@]}" info
  expect "it built nothing" 0 '^2$' bash -c 'wc -l <"$0"' "$calls"
  expect "--yes is the launcher's" 0 'Main\|info\|--\|--yes\|' \
    "${launch[@]}" --yes info -- --yes
  sleep 0.02
  touch "$tree/kernels-cpu/gemm/new.cc"
  expect "a new source builds again" 0 'Main\|info\|' "${launch[@]}" info
  expect "it built again" 0 '^4$' bash -c 'wc -l <"$0"' "$calls"
  expect "from another folder, through a link" 0 'Main\|info\|' bash -c '
    cd / && ln -s "$0/tree/nibble" "$0/link" && PATH="$0/tools:$PATH" "$0/link" info' "$work"
  mkdir -p "$tree/bench/native" "$tree/bench/src/main"
  touch "$tree/bench/CMakeLists.txt" "$tree/bench/pom.xml" "$tree/bench/shapes.txt"
  stand_in "$work/tools" fc-list 'echo DejaVu'
  : >"$calls"
  expect "bench alone is the command line's" 0 'Main\|bench\|--json\|' \
    "${launch[@]}" bench --json
  expect "bench --report starts the module" 0 \
    "nibble.bench.native=$tree/build/release/bench/nibble_bench\|.*\|-jar\|$tree/bench/target/nibble-bench-0.1.0-SNAPSHOT.jar\|bench\|--report\|--out\|a b\|" \
    "${launch[@]}" bench --report --out "a b"
  expect "so does bench --against, and builds no more" 0 '\|bench\|--against=x\|' \
    "${launch[@]}" bench --against=x
  expect "the module was built once" 0 '^2$' bash -c 'wc -l <"$0"' "$calls"
  sleep 0.02
  touch "$tree/bench/shapes.txt"
  expect "another list builds the module again" 0 '\|bench\|--report\|' \
    "${launch[@]}" bench --report
  expect "it was built again" 0 '^4$' bash -c 'wc -l <"$0"' "$calls"
  expect "an unknown option of test" 2 "unknown option '--fast'" "${launch[@]}" test --fast

  rm "$work/tools/mvn"
  rm -rf "$tree/build"
  stand_in "$work/tools" apt-get 'echo "apt-get $*" >>"$calls"'
  stand_in "$work/tools" id 'echo 1000'
  # Only the stand-ins and what the launcher itself calls.
  for tool in bash cat dirname env find flock grep head mkdir nproc readlink rm sed sort stat \
    tail tee touch mv; do
    ln -s "$(command -v "$tool")" "$work/tools/$tool"
  done
  launch=(env -u CI PATH="$work/tools" "$tree/nibble")
  expect "no sudo: the commands are printed" 1 'sudo apt-get install .*maven' "${launch[@]}" info
  stand_in "$work/tools" sudo '"$@"'
  expect "sudo, but nobody to ask" 1 'sudo apt-get install .*maven' "${launch[@]}" info
  expect "sudo with --yes" 0 '^apt-get install -y --no-install-recommends maven$' bash -c '
    "$@" >/dev/null 2>&1; cat "$calls"' - "${launch[@]}" --yes info
}

# What decides about the tests on ARM, with a PATH of stand-ins alone.
arm_suite_alone() {
  local root="${here%/*/*}"
  env -u CI PATH="$work/arm" "$@" bash -c '
    set -euo pipefail
    root="$0" build_dir="$1/build"
    source "$root/scripts/launcher/test.sh"
    assume_yes="${yes:-0}"
    arm_skipped=""
    choose_arm_suite
    native_suite() { say "runs: $1"; }
    arm_suite
    echo "$passed passed, $failed failed"' "$root" "$work"
}

test_arm() {
  local tool
  mkdir -p "$work/arm"
  for tool in bash cat dirname env mkdir tail tee; do
    ln -s "$(command -v "$tool")" "$work/arm/$tool"
  done
  stand_in "$work/arm" uname 'echo "${machine:-x86_64}"'
  stand_in "$work/arm" id 'echo 1000'
  export calls="$work/arm-calls"
  : >"$calls"

  expect "no apt-get: the tests on ARM are skipped" 0 \
    '^C\+\+ on ARM +skipped: without g\+\+-aarch64-linux-gnu qemu-user' arm_suite_alone
  expect "but not in continuous integration" 0 '^0 passed, 1 failed' arm_suite_alone CI=true
  expect "an ARM machine needs none of it" 0 'skipped: this is an ARM machine' \
    arm_suite_alone CI=true machine=aarch64
  stand_in "$work/arm" apt-get 'echo "apt-get $*" >>"$calls"; exit "${broken:-0}"'
  stand_in "$work/arm" sudo '"$@"'
  expect "nobody to ask: skipped" 0 'skipped: without g' arm_suite_alone
  expect "nothing was installed" 0 '^0$' bash -c 'grep -c . <"$0" || true' "$calls"
  expect "a failing installation: skipped" 0 'skipped: apt-get update did not work' \
    arm_suite_alone yes=1 broken=1
  expect "with consent: installed and run" 0 'runs: aarch64' arm_suite_alone yes=1
  expect "nothing is removed for it" 0 \
    'install -y --no-install-recommends --no-remove g\+\+-aarch64-linux-gnu qemu-user' \
    cat "$calls"
  : >"$calls"
  stand_in "$work/arm" aarch64-linux-gnu-g++ 'exit 0'
  stand_in "$work/arm" qemu-aarch64-static 'exit 0'
  if [[ -f /usr/src/googletest/CMakeLists.txt ]]; then
    expect "with the tools: it runs" 0 'runs: aarch64' arm_suite_alone
    expect "without installing anything" 0 '^0$' bash -c 'grep -c . <"$0" || true' "$calls"
  fi
}

# Machines without a CUDA compiler, and without a GPU; which commands build the plug-in.
test_cuda() {
  local tool cache="$work/tree/build/release/CMakeCache.txt"
  local with_nvcc=(env -u CI PATH="$work/nvcc:$work/tools:/usr/bin:/bin" "$work/tree/nibble")
  stand_in "$work/nvcc" nvcc 'exit 0'
  printf '%s\n' "CMAKE_HOME_DIRECTORY:INTERNAL=$(readlink -f "$work/tree")" \
    "NIBBLE_CUDA:STRING=OFF" >"$cache"
  "${with_nvcc[@]}" generate >/dev/null 2>&1
  : >"$calls"
  expect "generate does not build the plug-in" 0 'Main\|generate\|' "${with_nvcc[@]}" generate
  expect "nor anything else" 0 '^0$' bash -c 'wc -l <"$0"' "$calls"
  expect "info builds it" 0 'Main\|info\|' "${with_nvcc[@]}" info
  expect "where the toolkit allows" 0 'NIBBLE_CUDA:STRING=AUTO' cat "$cache"
  expect "info builds it once" 0 'Main\|info\|' "${with_nvcc[@]}" info
  expect "that is, once" 0 "^1$" grep -c "^build$" "$calls"
  mkdir -p "$work/cuda"
  for tool in bash cat dirname env mkdir readlink; do
    ln -s "$(command -v "$tool")" "$work/cuda/$tool"
  done
  local launch=(env -u CI PATH="$work/cuda" "$work/tree/nibble")
  expect "no nvcc: one line" 2 '^nibble test --cuda: nvcc and ptxas are not both' \
    "${launch[@]}" test --cuda
  expect "no driver: one line" 2 '^nibble gpu-verify: no NVIDIA GPU here: nvidia-smi, which' \
    "${launch[@]}" gpu-verify
  stand_in "$work/cuda" nvidia-smi 'echo "NVIDIA-SMI has failed"; echo "More"; exit 9'
  expect "no GPU: the driver's reason" 2 'no NVIDIA GPU 0 here: NVIDIA-SMI has failed$' \
    "${launch[@]}" gpu-verify
  stand_in "$work/cuda" nvidia-smi 'echo "NVIDIA H100 80GB HBM3, 9.0"'
  expect "a GPU, but no nvcc" 2 '^nibble gpu-verify: nvcc and ptxas are not' \
    "${launch[@]}" gpu-verify
  expect "a wrong word" 2 "unknown option '--fast', expected --device" \
    "${launch[@]}" gpu-verify --fast
  expect "a folder's name" 0 '^nvidia-h100-80gb-hbm3$' bash -c '
    root="$0" build_dir="$1/build"
    source "$root/scripts/launcher/gpu_verify.sh"
    slug "NVIDIA H100 80GB HBM3"' "${here%/*/*}" "$work"
}

test_jdk
test_build
test_arm
test_cuda
echo "$passed passed, $failed failed"
[[ "$failed" -eq 0 ]]
