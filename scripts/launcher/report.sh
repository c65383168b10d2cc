# SPDX-License-Identifier: Apache-2.0
#
# What the launcher says while it works, all of it on standard error: one line that is rewritten
# on a terminal, plain lines elsewhere.

progress_shown=""

say() {
  clear_progress
  printf '%s\n' "$*" >&2
}

fail() {
  say "nibble: $*"
  exit 1
}

clear_progress() {
  if [[ -n "$progress_shown" && -t 2 ]]; then
    printf '\r\033[K' >&2
    progress_shown=""
  fi
}

# progress TITLE PERCENT DETAIL. Off a terminal only every full tenth is a line.
progress() {
  local line bar
  if [[ -t 2 ]]; then
    bar="$(printf '%*s' $(($2 / 5)) '')"
    line="$(printf '%-16s [%-20s] %3d%%  %s' "$1" "${bar// /#}" "$2" "$3")"
    printf '\r\033[K%s' "${line:0:$((${COLUMNS:-80} - 1))}" >&2
    progress_shown=1
  elif [[ "$progress_shown" != "$1 $(($2 / 10))" ]]; then
    printf '%-16s %3d%%\n' "$1" "$2" >&2
    progress_shown="$1 $(($2 / 10))"
  fi
}

# ask QUESTION: true if the user agrees. Nobody to ask counts as no.
ask() {
  local answer
  if [[ "$assume_yes" == 1 ]]; then
    return 0
  fi
  [[ -t 0 && -t 2 ]] || return 1
  clear_progress
  read -r -p "$1 [y/N] " answer </dev/tty
  [[ "$answer" == [yY]* ]]
}

# logged TITLE LOG FILTER COMMAND...: runs COMMAND with all its output in LOG and through FILTER,
# a function that reads lines and calls progress. A failure shows the log's end.
logged() {
  local title="$1" log="$2" filter="$3"
  shift 3
  mkdir -p "$(dirname "$log")"
  if "$@" </dev/null 2>&1 | tee -a "$log" | "$filter" "$title"; then
    clear_progress
    return 0
  fi
  say "$title failed. The end of $log:"
  tail -n 30 "$log" >&2
  return 1
}

# Filters for logged.

quietly() {
  cat >/dev/null
}

# Ninja's lines begin with [done/total].
ninja_progress() {
  local line
  while IFS= read -r line; do
    if [[ "$line" =~ ^\[([0-9]+)/([0-9]+)\]\ (.*)$ ]]; then
      progress "$1" $((100 * BASH_REMATCH[1] / BASH_REMATCH[2])) "${BASH_REMATCH[3]##*/}"
    fi
  done
}

# Maven names each goal as it starts it; $maven_goals is how many there are.
maven_progress() {
  local line goals=0 percent=0
  while IFS= read -r line; do
    if [[ "$line" =~ ^\[INFO\]\ ---\ ([a-z-]+): ]]; then
      percent=$((100 * goals / maven_goals))
      goals=$((goals + (goals < maven_goals)))
      progress "$1" "$percent" "${BASH_REMATCH[1]}"
    elif [[ "$line" =~ ^\[INFO\]\ Downloaded\ from\ .*/([^/ ]+)\  ]]; then
      progress "$1" "$percent" "${BASH_REMATCH[1]}"
    elif [[ "$line" =~ Running\ (dev\.nibble\.[A-Za-z0-9_.]+) ]]; then
      progress "$1" "$percent" "${BASH_REMATCH[1]}"
    fi
  done
}

# CTest's lines: " 12/345 Test #12: name ..... Passed".
ctest_progress() {
  local line
  while IFS= read -r line; do
    if [[ "$line" =~ ^\ *([0-9]+)/([0-9]+)\ Test\ +#[0-9]+:\ ([^\ ]+) ]]; then
      progress "$1" $((100 * BASH_REMATCH[1] / BASH_REMATCH[2])) "${BASH_REMATCH[3]}"
    fi
  done
}
