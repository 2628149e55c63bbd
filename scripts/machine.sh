#!/usr/bin/env bash
# Says what this machine lacks, all of it at once and each with what to do, before anything is fetched or compiled.
#
#   machine.sh python rust cc     what `make build` stands on; PYTHON names another interpreter than python3
#
# Promises: nothing is written but a throw-away folder; 0 when nothing lacks, 1 when something does. How old Python and Rust may be is
# read from pyproject.toml and Cargo.toml. Does not know what is fetched later, and from where.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
python=${PYTHON:-python3}
code=0

# lack WHAT NEXT
lack() {
  printf 'error: %s\nnext: %s\n' "$1" "$2" >&2
  code=1
}

# setting NAME FILE: the version that a line `NAME = "…"` asks for, without a comparison before it.
setting() { sed -n "s/^$1 = \"[>=]*\([0-9.]*\)\"$/\1/p" "$root/$2"; }

# older FOUND NEEDED: whether a version comes before another one.
older() { [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

need_python() {
  local needed found
  needed=$(setting requires-python pyproject.toml)
  if ! command -v "$python" >/dev/null; then
    lack "there is no Python of this name: python=$python" \
      "install Python $needed or later with its venv (Debian: apt install python3-venv), or name one: make PYTHON=/path/to/python"
    return
  fi
  found=$("$python" -c 'import sys; print(".".join(str(part) for part in sys.version_info[:3]))') || found=0
  if older "$found" "$needed"; then
    lack "Python is older than $needed: python=$python, version=$found" \
      "install Python $needed or later with its venv, and name it: make PYTHON=python$needed"
  elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    lack "Python has no venv, which Debian has in a package of its own: python=$python" \
      "apt install python${found%.*}-venv (as root), or name another Python: make PYTHON=/path/to/python"
  fi
}

need_rust() {
  local needed found
  needed=$(setting rust-version Cargo.toml)
  if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    if [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
      lack "Rust is installed, but not on the PATH" ". \"${CARGO_HOME:-$HOME/.cargo}/env\", then say it again"
    else
      lack "there is no Rust: neither cargo nor rustc is on the PATH" "install Rust $needed or later by rustup (needs no root); what distributions package is often older"
    fi
    return
  fi
  # In the clone, as cargo will be: a folder may have a toolchain of its own.
  found=$(cd "$root" && rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
  if [ -z "$found" ]; then
    lack "rustc does not say its version: rustc=$(command -v rustc)" "see what \`rustc --version\` says; after a fresh rustup it is: rustup default stable"
  elif older "$found" "$needed"; then
    lack "Rust is older than $needed: rustc=$(command -v rustc), version=$found" \
      "rustup update; or, where Rust is the distribution's, install it by rustup (needs no root) and put ~/.cargo/bin before it on the PATH"
  fi
}

need_cc() {
  local scratch
  if ! command -v cc >/dev/null; then
    lack "there is no C compiler: cc is not on the PATH" "install one with the C library's headers (Debian: apt install gcc libc6-dev)"
    return
  fi
  scratch=$(mktemp -d) || exit 1
  # shellcheck disable=SC2064 # the folder is known now
  trap "rm -rf '$scratch'" EXIT
  printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' >"$scratch/program.c"
  if ! cc "$scratch/program.c" -o "$scratch/program" 2>"$scratch/log"; then
    sed 's/^/  /' "$scratch/log" >&2
    lack "the C compiler cannot make a program: cc=$(command -v cc)" "install the C library's headers (Debian: apt install libc6-dev)"
  fi
}

for what; do
  case $what in
    python | rust | cc) "need_$what" ;;
    *) echo "error: no such thing is looked for: $what" >&2; exit 2 ;;
  esac
done
exit "$code"
