# SPDX-License-Identifier: Apache-2.0
#
# ./nibble gpu-verify [--device N] [--out FILE]: builds for the GPU of this machine, runs all CUDA
# tests on it, under compute-sanitizer too where that is installed, times every kernel, and writes
# one results file. Exit status 2 where there is nothing to verify on.

source "$root/scripts/launcher/test.sh"

gpu=""        # its name
capability="" # 8.9 and so on

run_gpu_verify() {
  local device=0 out="" notes=()
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --device | --out)
        [[ $# -ge 2 ]] || { say "nibble gpu-verify: $1: no value given"; exit 2; }
        if [[ "$1" == --device ]]; then device="$2"; else out="$2"; fi
        shift
        ;;
      *) say "nibble gpu-verify: unknown option '$1', expected --device N or --out FILE"; exit 2 ;;
    esac
    shift
  done
  find_gpu "$device"
  if ! have_nvcc; then
    say "nibble gpu-verify: $no_nvcc"
    exit 2
  fi
  if [[ -z "$out" ]]; then
    out="$root/bench/results/$(date -u +%F)-$(slug "$gpu")/gpu-verify.json"
  fi
  say "$gpu (compute capability $capability)"

  if ! up_to_date; then
    build_all
  fi
  lock_build
  ensure_tools test
  cuda_suite "$device"
  notes=(--note "tests=$passed passed, $failed failed")
  sanitizer_suite
  notes+=(--note "compute_sanitizer=$sanitized")

  mkdir -p "$(dirname -- "$out")"
  say "Timing every kernel; this takes a while"
  if "$build_dir/release/kernels-cuda/nibble_gpu_verify" --device "$device" \
    --shapes "$root/bench/shapes.txt" --out "$out" "${notes[@]}"; then
    say "Results: $out"
  else
    failed=$((failed + 1))
  fi
  summary
}

# find_gpu DEVICE: sets gpu and capability, or ends with one line that says why there is none.
find_gpu() {
  local answer
  if ! command -v nvidia-smi >/dev/null; then
    say "nibble gpu-verify: no NVIDIA GPU here: nvidia-smi, which the driver brings, is not on the PATH"
    exit 2
  fi
  if ! answer="$(nvidia-smi --id="$1" --query-gpu=name,compute_cap --format=csv,noheader 2>&1)"; then
    say "nibble gpu-verify: no NVIDIA GPU $1 here: ${answer%%$'\n'*}"
    exit 2
  fi
  gpu="${answer%,*}"
  capability="${answer##*, }"
}

# "NVIDIA GeForce RTX 4090" as nvidia-geforce-rtx-4090.
slug() {
  printf '%s' "$1" | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9]\+/-/g; s/^-//; s/-$//'
}

# Each tool of compute-sanitizer over the kernel tests, without those that need the emulator's own
# view. Sets sanitized to what came of it.
sanitizer_suite() {
  local tool log state
  if ! command -v compute-sanitizer >/dev/null; then
    sanitized="not installed"
    return
  fi
  sanitized=""
  for tool in memcheck racecheck synccheck initcheck; do
    log="$build_dir/logs/sanitizer-$tool.log"
    : >"$log"
    state=clean
    logged "$tool" "$log" quietly compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$build_dir/release/kernels-cuda/kernels_cuda_tests" || state=failed
    count "$tool" "$([[ "$state" == clean ]] && echo 1 || echo 0)" \
      "$([[ "$state" == clean ]] && echo 0 || echo 1)" "$log"
    sanitized+="${sanitized:+, }$tool $state"
  done
}
