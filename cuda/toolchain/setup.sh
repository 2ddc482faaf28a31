#!/usr/bin/env bash
# Finds or installs the CUDA compiler and headers, builds the trampoline library, and
# prints what `go build -tags cuda` needs in its environment:
#
#   eval "$(cuda/toolchain/setup.sh)" && go build -tags cuda ./cmd/kindred
#
# With CUDA_HOME a system's CUDA 12 or 13 is used; else the packages that
# requirements.txt pins, installed into cuda/build/env. What it does is said on
# standard error.
set -euo pipefail
CUDA_HOME=${CUDA_HOME:+$(realpath -m "$CUDA_HOME")} # before the folder changes
cd "$(dirname "$0")/.."
CUDA=$PWD
say() { echo "cuda: $*" >&2; }
fail() { say "$*"; exit 1; }

if [ -n "$CUDA_HOME" ]; then
  home=$CUDA_HOME
  [ -f "$home/include/cuda.h" ] || fail "CUDA_HOME=$home holds no include/cuda.h: give the folder of a CUDA 12 or 13, or unset it to install one by package"
  version=$(sed -n 's/^#define CUDA_VERSION *\([0-9]*\).*/\1/p' "$home/include/cuda.h")
  case $version in
    12??? | 13???) ;;
    *) fail "CUDA_HOME=$home is CUDA $((version / 1000)).$((version % 1000 / 10)), and 12 or 13 is wanted: give another, or unset it to install one by package" ;;
  esac
  include=("$home/include")
else
  stamp=build/env/installed
  if ! cmp -s toolchain/requirements.txt "$stamp"; then
    say "installing the compiler and headers into cuda/build/env (some 400 MB)"
    python3 -m venv --clear build/env || fail "python3 -m venv failed: install Python's venv module, or give CUDA_HOME"
    build/env/bin/pip install --quiet -r toolchain/requirements.txt >&2 || fail "pip could not install toolchain/requirements.txt; give CUDA_HOME=folder of a CUDA 12 or 13 instead"
    cp toolchain/requirements.txt "$stamp"
  fi
  home=$(echo "$CUDA"/build/env/lib/python3*/site-packages/nvidia/cu1*)
  include=("$home/include" "$home/include/cccl")
fi

flags=()
for dir in "${include[@]}"; do flags+=(--include "$dir"); done
out=build/trampoline
if ! [ "$out/libcuda.a" -nt toolchain/trampoline.py ] || ! grep -qxF "$home" "$out/made-for" 2>/dev/null; then
  python3 toolchain/trampoline.py "${flags[@]}" --out "$out" >&2
  for source in trampoline.S table.c; do
    gcc -O2 -fPIC -Wall -Wextra -Werror -c "$out/$source" -o "$out/${source%.*}.o" >&2
  done
  rm -f "$out/libcuda.a"
  ar rcs "$out/libcuda.a" "$out/trampoline.o" "$out/table.o" >&2
  echo "$home" >"$out/made-for"
fi

# -u keeps the table, to which nothing but the trampolines refers. go reads quotes in these.
printf 'export CGO_ENABLED=1\n'
printf 'export CGO_CFLAGS=%q\n' "-O2 -g '-I$CUDA/shim'$(printf " '-I%s'" "${include[@]}")"
printf 'export CGO_LDFLAGS=%q\n' "'-L$CUDA/$out' -Wl,-u,kindred_cuda_table -ldl"
printf 'export KINDRED_CUDA_HOME=%q\n' "$home"
