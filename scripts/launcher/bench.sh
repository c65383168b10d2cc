# SPDX-License-Identifier: Apache-2.0
#
# ./nibble bench --report and --against: what they need beyond the library, and how they start.
# Everything else that bench does is the command line's.

source "$root/scripts/launcher/build.sh"

bench_jar="$root/bench/target/nibble-bench-0.1.0-SNAPSHOT.jar"
bench_program="$build_dir/release/bench/nibble_bench"
bench_stamp="$build_dir/bench.stamp"
bench_inputs=(bench/CMakeLists.txt bench/native bench/pom.xml bench/shapes.txt bench/src/main
  scripts/launcher/bench.sh)

# True when the module stands, newer than its inputs and than the library's build.
bench_up_to_date() {
  [[ -f "$bench_stamp" && -f "$bench_jar" && -x "$bench_program" &&
    ! "$stamp" -nt "$bench_stamp" ]] &&
    [[ -z "$(cd "$root" && find "${bench_inputs[@]}" -newer "$bench_stamp" -print -quit)" ]]
}

ensure_fonts() {
  local packages
  mapfile -t packages < <(missing_fonts)
  [[ ${#packages[@]} -gt 0 ]] || return 0
  say "Missing packages for the plots: ${packages[*]}"
  if ! command -v apt-get >/dev/null || ! may_install "Install them with sudo apt-get?"; then
    fail "install them, then run this again: ${packages[*]}"
  fi
  install_packages "${packages[@]}" || fail "$why_not"
}

# To be called when the library stands.
build_bench() {
  if bench_up_to_date; then
    return
  fi
  lock_build
  ensure_tools run
  touch "$bench_stamp.new" # as of now: a file that changes meanwhile makes it stale
  build_native release nibble_bench || exit 1
  local log="$build_dir/logs/java-bench.log"
  maven_goals=18
  : >"$log"
  progress "Java" 0 "starting Maven"
  logged "Java" "$log" maven_progress maven -pl bench -am -Dmaven.test.skip=true package || exit 1
  mv "$bench_stamp.new" "$bench_stamp"
  unlock_build
}

# run_bench WORDS...: in place of this shell.
run_bench() {
  ensure_fonts
  build_bench
  java_command
  # JMH's own use of sun.misc.Unsafe would draw a warning.
  exec "${java_line[@]}" --sun-misc-unsafe-memory-access=allow -Djava.awt.headless=true \
    "-Dnibble.bench.native=$bench_program" "-Dnibble.bench.shapes=$root/bench/shapes.txt" \
    "-Dnibble.bench.dir=$build_dir/bench-report" -jar "$bench_jar" "$@"
}
