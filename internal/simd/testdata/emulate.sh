#!/usr/bin/env bash
# Runs the tests of the vector code on processors that this machine is not, under
# qemu's user-mode emulation, and with the plain Go twin.
#   emulate.sh arm64   NEON with and without products of bytes
#   emulate.sh cpu     amd64 without AVX2, with AVX2 alone, and the twin by override
# Without qemu it says so and stops; with CI=true that is a failure.
set -euo pipefail
cd "$(dirname "$0")/../../.."
GO=${GO:-go}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

find_qemu() { # find_qemu ARCHITECTURE
  qemu=$(command -v "qemu-$1-static" || command -v "qemu-$1") && return
  echo "skipped: qemu-$1 is not here (apt-get install qemu-user-static)" >&2
  [ "${CI:-}" != true ] || exit 1
  exit 0
}

# emulated CPU COMMAND...: qemu says which features of a processor it lacks.
emulated() {
  local cpu=$1
  shift
  "$qemu" -cpu "$cpu" "$@" 2> >(grep -v "TCG doesn't support" >&2)
}

# under CPU VARIANT PACKAGE [ARGS]: the tests of a package on that processor, where
# the vector code must choose VARIANT.
under() {
  local cpu=$1 variant=$2 pkg=$3
  shift 3
  local test=$work/${pkg//\//-}.test
  [ -e "$test" ] || CGO_ENABLED=0 "$GO" test -c -trimpath -o "$test" "./$pkg"
  printf '%s %s: %s: %s: ' "$GOARCH" "$cpu" "$variant" "$pkg"
  (cd "$pkg" && KINDRED_WANT_SIMD=$variant emulated "$cpu" "$test" -test.short -test.timeout 5m "$@")
}

# doctor CPU VARIANT: the program starts there and says what it chose.
doctor() {
  [ -e "$work/kindred" ] || CGO_ENABLED=0 "$GO" build -trimpath -o "$work/kindred" ./cmd/kindred
  mkdir -p "$work/none"
  KINDRED_MODELS=$work/none emulated "$1" "$work/kindred" doctor --data "$work/none" >"$work/doctor"
  [ "$(sed -n 's/^.*vector code  *//p' "$work/doctor")" = "$2" ] || { cat "$work/doctor"; echo "kindred doctor on $1: want vector code $2"; exit 1; }
  echo "$GOARCH $1: kindred doctor: $2"
}

kernels='Chosen|Choose|MatMul|Small|NaN|Int|Dot|GELU$|Softmax|ExpBound|LayerNorm$|Half|Scores|Rows|Fused|Fuzz'
encoder='Tiny|Fallback|Cancel|Queue'

case ${1:-} in
arm64)
  export GOARCH=arm64
  find_qemu aarch64
  doctor max neon+dotprod
  doctor cortex-a53 neon
  under max neon+dotprod internal/simd
  under cortex-a53 neon internal/simd -test.run "$kernels"
  under max neon+dotprod index/rows
  under max neon+dotprod embed -test.run "$encoder"
  ;;
cpu)
  export GOARCH=amd64
  find_qemu x86_64
  doctor Nehalem go
  doctor Haswell avx2+fma
  under Nehalem go internal/simd -test.run "$kernels"
  under Haswell avx2+fma internal/simd -test.run "$kernels"
  under Nehalem go index/rows
  under Nehalem go embed -test.run "$encoder"
  export KINDRED_SIMD=go KINDRED_WANT_SIMD=go
  "$GO" test -short -count=1 -timeout 10m ./internal/simd ./index/...
  "$GO" test -short -count=1 -timeout 10m -skip 'Real|SameBits' ./embed
  ;;
*)
  echo "usage: emulate.sh arm64|cpu" >&2
  exit 2
  ;;
esac
