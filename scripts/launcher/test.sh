# SPDX-License-Identifier: Apache-2.0
#
# ./nibble test: every suite runs even if an earlier one failed; the last line adds them up.

source "$root/scripts/launcher/build.sh"

passed=0
failed=0

# run_tests [--full] [--cuda]
run_tests() {
  local argument cuda_only=""
  for argument in "$@"; do
    case "$argument" in
      --full) export NIBBLE_FULL_TESTS=1 NIBBLE_FUZZ_RUNS="${NIBBLE_FUZZ_RUNS:-20000}" ;;
      --cuda) cuda_only=1 ;;
      *) say "nibble test: unknown option '$argument', expected --full or --cuda"; exit 2 ;;
    esac
  done
  if [[ -n "$cuda_only" ]] && ! have_nvcc; then
    say "nibble test --cuda: $no_nvcc"
    exit 2
  fi

  if ! up_to_date; then
    build_all
  fi
  lock_build
  ensure_tools test
  if [[ -n "$cuda_only" ]]; then
    cuda_suite
    summary
    return
  fi
  # What there is to ask is asked before the long work.
  local arm_skipped=""
  choose_arm_suite

  # Where there is a CUDA compiler, the tests of its kernels are among them.
  with_cuda=AUTO native_suite test "C++ tests"
  if [[ ! -f "$emulated_driver" ]]; then
    say "$(printf '%-16s skipped: %s' "CUDA kernels" \
      "$(sed -n 's/^-- CUDA: off: //p' "$build_dir/logs/native-test.log")")"
  fi
  native_suite asan "sanitized C++"
  arm_suite
  java_suite
  consumer_suite
  launcher_suite
  summary
}

summary() {
  clear_progress
  printf '%s passed, %s failed\n' "$passed" "$failed"
  [[ "$failed" -eq 0 ]]
}

# count TITLE PASSED FAILED LOG
count() {
  passed=$((passed + $2))
  failed=$((failed + $3))
  say "$(printf '%-16s %5d passed, %d failed%s' "$1" "$2" "$3" \
    "$([[ "$3" -eq 0 ]] || echo "  (log: $4)")")"
}

# native_suite PRESET TITLE
native_suite() {
  local log="$build_dir/logs/test-$1.log"
  : >"$log"
  if ! build_native "$1"; then
    count "$2" 0 1 "$build_dir/logs/native-$1.log"
    return
  fi
  logged "$2" "$log" ctest_progress in_root \
    ctest --preset "$1" --parallel "$(nproc)" || true
  count_ctest "$2" "$log"
}

# The tests of the CUDA half alone: the kernels in the emulator, and the whole library on it. With
# a word, on that GPU of this machine instead (the C++ tests one at a time).
cuda_suite() {
  local log="$build_dir/logs/test-cuda.log" parallel driver with_cuda=ON
  parallel="$(nproc)"
  : >"$log"
  if ! build_native test kernels_cuda_tests nibble_jar_resources nibble_emulated_cuda \
    nibble_gpu_verify; then
    count "CUDA kernels" 0 1 "$build_dir/logs/native-test.log"
    return
  fi
  if [[ -n "${1:-}" ]]; then
    export NIBBLE_TEST_DEVICE="$1"
    parallel=1
  fi
  logged "CUDA kernels" "$log" ctest_progress in_root \
    ctest --test-dir "$build_dir/release/kernels-cuda" --output-on-failure \
    --parallel "$parallel" || true
  count_ctest "CUDA kernels" "$log"
  driver="${1:+device}"
  java_tests "CUDA from Java" "$build_dir/logs/test-cuda-java.log" -pl java-bindings \
    "-Dtest=dev.nibble.cuda.*Test" "-Dnibble.test.cuda.driver=${driver:-$emulated_driver}"
}

# count_ctest TITLE LOG
count_ctest() {
  local title="$1" log="$2" total bad
  # "97% tests passed, 3 tests failed out of 120"
  total="$(sed -n 's/.* tests failed out of \([0-9]*\)$/\1/p' "$log" | tail -n 1)"
  bad="$(sed -n 's/.*tests passed, \([0-9]*\) tests failed out of .*/\1/p' "$log" | tail -n 1)"
  if [[ -z "$total" || -z "$bad" || "$total" -eq 0 ]]; then
    count "$title" 0 1 "$log" # no test ran at all
  else
    count "$title" $((total - bad)) "$bad" "$log"
  fi
}

# Sets arm_skipped to the reason why the C++ tests cannot run as 64-bit ARM code here, in an
# emulator; "" if they can.
choose_arm_suite() {
  local why_not=""
  if [[ "$(uname -m)" == aarch64 ]]; then
    arm_skipped="this is an ARM machine: the C++ tests above ran on it"
  elif ! have_arm_tools; then
    arm_skipped="$why_not"
  fi
}

# The C++ tests once more, built for 64-bit ARM, in an emulator (cmake/aarch64-linux-gnu.cmake).
# A developer's machine may lack the tools for it; continuous integration may not.
arm_suite() {
  if [[ -z "$arm_skipped" ]]; then
    native_suite aarch64 "C++ on ARM"
  elif [[ "${CI:-}" == true && "$(uname -m)" != aarch64 ]]; then
    say "C++ on ARM cannot run: $arm_skipped"
    count "C++ on ARM" 0 1 "$build_dir/logs/apt.log"
  else
    say "$(printf '%-16s skipped: %s' "C++ on ARM" "$arm_skipped")"
  fi
}

# The driver that the emulator of CUDA devices stands in for; there when nvcc is.
emulated_driver="$build_dir/release/kernels-cuda/libnibble_emulated_cuda.so"

java_suite() {
  local cuda=()
  if [[ -f "$emulated_driver" ]]; then
    cuda=("-Dnibble.test.cuda.driver=$emulated_driver")
  fi
  java_tests "Java tests" "$build_dir/logs/test-java.log" ${cuda[@]+"${cuda[@]}"} \
    "-Dnibble.bench.native=$build_dir/release/bench/nibble_bench"
}

# java_tests TITLE LOG MAVEN_ARGUMENT...
java_tests() {
  local title="$1" log="$2" status=0 total=0 bad=0 skipped=0 line
  shift 2
  : >"$log"
  maven_goals=14
  # A failing test does not keep the next module's from running; the sums below count it.
  logged "$title" "$log" maven_progress maven -Dmaven.test.failure.ignore=true "$@" test ||
    status=1
  # The sum that Surefire prints for each module after the single classes' lines (those end in a
  # class name).
  while IFS= read -r line; do
    if [[ "$line" =~ run:\ ([0-9]+),\ Failures:\ ([0-9]+),\ Errors:\ ([0-9]+),\ Skipped:\ ([0-9]+)$ ]]; then
      total=$((total + BASH_REMATCH[1])) skipped=$((skipped + BASH_REMATCH[4]))
      bad=$((bad + BASH_REMATCH[2] + BASH_REMATCH[3]))
    fi
  done <"$log"
  # A build that fails before or beside the tests is a failure too.
  if [[ "$bad" -eq 0 && ("$status" -ne 0 || "$total" -eq 0) ]]; then
    bad=1 total=$((total + 1))
  fi
  count "$title" $((total - bad - skipped)) "$bad" "$log"
}

# Programs of people who use Nibble from outside, each built against what is installed.
consumer_suite() {
  local name log
  for name in c-cmake c-pkgconfig java-ffi maven; do
    log="$build_dir/logs/consumer-$name.log"
    : >"$log"
    progress "consumer" 50 "$name"
    if logged "consumer $name" "$log" quietly \
      env "NIBBLE_TEST_JAVA_HOME=$java_home" "$root/consumers/run.sh" "$name"; then
      count "consumer $name" 1 0 "$log"
    else
      count "consumer $name" 0 1 "$log"
    fi
  done
}

launcher_suite() {
  local log="$build_dir/logs/test-launcher.log" good bad
  : >"$log"
  progress "launcher" 50 ""
  logged "launcher" "$log" quietly "$root/scripts/launcher/launcher_test.sh" || true
  read -r good bad < <(sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log") ||
    good=0 bad=1
  count "launcher" "$good" "$bad" "$log"
}
