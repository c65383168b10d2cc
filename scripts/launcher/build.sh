# SPDX-License-Identifier: Apache-2.0
#
# The build as `./nibble` does it: native library, jar, ahead-of-time cache, stamp.

source "$root/scripts/launcher/report.sh"
source "$root/scripts/launcher/tools.sh"
source "$root/scripts/launcher/jdk.sh"

# Waits for another build of this tree to end. The lock lasts until unlock_build or the process's
# end; java must not inherit it.
lock_build() {
  mkdir -p "$build_dir"
  exec 9>"$build_dir/.lock"
  if ! flock --nonblock 9; then
    say "Waiting for another build of this folder to end"
    flock 9
  fi
}

unlock_build() {
  exec 9>&-
}

# Everything that `./nibble` needs to run a command. Sets java_home.
build_all() {
  lock_build
  if up_to_date; then
    unlock_build # the build that was waited for did it
    return
  fi
  ensure_tools run
  ensure_jdk
  # As of now: a file that changes while the build runs makes it stale.
  touch "$build_dir/launcher.stamp.new"
  local with_cuda=""
  if [[ "${arguments[0]:-}" == info ]]; then
    with_cuda=AUTO
  fi
  build_native release nibble_jar_resources
  build_java
  build_aot_cache
  local started
  started="$(stat -c %y "$build_dir/launcher.stamp.new")"
  printf '%s\n%s\n' "$root" "$java_home" >"$build_dir/launcher.stamp.new"
  touch -d "$started" "$build_dir/launcher.stamp.new"
  mv "$build_dir/launcher.stamp.new" "$stamp"
  unlock_build
}

# build_native PRESET [TARGET...]
build_native() {
  local preset="$1" title="native library" log="$build_dir/logs/native-$1.log" options=()
  shift
  local binary_dir="$build_dir/$preset"
  case "$preset" in
    test) binary_dir="$build_dir/release" title="native tests" ;;
    asan) title="sanitized tests" ;;
    aarch64) title="ARM tests" ;;
  esac
  : >"$(mkdir -p "${log%/*}" && echo "$log")"
  # CMake refuses a build folder that was made for a tree elsewhere.
  if [[ -f "$binary_dir/CMakeCache.txt" ]] &&
    ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$binary_dir/CMakeCache.txt"; then
    rm -rf "$binary_dir"
  fi
  if [[ "${CI:-}" == true ]]; then
    options+=(-DNIBBLE_WARNINGS_AS_ERRORS=ON)
  fi
  # Compiling the CUDA kernels takes minutes: only for info and the tests (with_cuda says how), or
  # where there is a GPU for them. CMake remembers it for the builds that follow in the same folder.
  if [[ -n "${with_cuda:-}" ]]; then
    options+=("-DNIBBLE_CUDA=$with_cuda")
  elif [[ "$preset" == release ]] && have_gpu; then
    options+=(-DNIBBLE_CUDA=AUTO)
  fi
  progress "$title" 0 "configuring"
  logged "$title" "$log" quietly in_root cmake --preset "$preset" ${options[@]+"${options[@]}"} ||
    return 1
  logged "$title" "$log" ninja_progress in_root \
    cmake --build --preset "$preset" --parallel "$(nproc)" ${1:+--target "$@"}
}

in_root() {
  (cd "$root" && "$@")
}

# maven ARGUMENTS...: on the chosen JDK, and without the warnings that Maven's own libraries
# draw from it.
maven() {
  in_root env JAVA_HOME="$java_home" \
    MAVEN_OPTS="--enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow ${MAVEN_OPTS:-}" \
    NO_COLOR=1 mvn --batch-mode -Dstyle.color=never \
    "-Dnibble.native.dir=$build_dir/release/jar-resources" "$@"
}

build_java() {
  local log="$build_dir/logs/java.log"
  maven_goals=9
  : >"$log"
  progress "Java" 0 "starting Maven"
  logged "Java" "$log" maven_progress maven -pl java-bindings -Dmaven.test.skip=true package
}

# The second start is a third of the first when classes come loaded and linked. A training run
# of the default model records which; without it everything works the same, only later.
build_aot_cache() {
  local log="$build_dir/logs/aot.log"
  rm -f "$aot_cache"
  progress "start-up cache" 50 ""
  java_command
  if ! "${java_line[@]}" "-XX:AOTCacheOutput=$aot_cache" -cp "$jar" dev.nibble.cli.Main \
    generate "Once upon a time" -n 8 --seed 1 </dev/null >"$log" 2>&1; then
    rm -f "$aot_cache"
    say "No start-up cache (see $log); Nibble starts slower without it."
  fi
  clear_progress
}
