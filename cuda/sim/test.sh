#!/usr/bin/env bash
# Runs the tests of cuda/... against the simulator of the driver, which `make
# test-cuda-sim` has built: under several schedules of blocks and threads, in builds
# with sanitizers and with the race detector, without any driver, and with kernels broken on purpose, each of
# which the tests have to notice.
set -euo pipefail
cd "$(dirname "$0")/../.."
GO=${GO:-go}
set=$(cuda/toolchain/setup.sh)
eval "$set"
build=$PWD/cuda/build
step() { printf '\n--- %s\n' "$*"; }

step "the toolchain: what is no CUDA of 12 or 13 is refused, with one reason and nothing after it"
strange=$(mktemp -d)
mkdir "$strange/include"
for version in none 11080; do
  [ $version = none ] || echo "#define CUDA_VERSION $version" >"$strange/include/cuda.h"
  if said=$(CUDA_HOME=$strange make -s kernels 2>&1); then echo "a CUDA of version $version is taken"; exit 1; fi
  [ "$(grep -vc '^make' <<<"$said")" = 1 ] || { echo "more than one reason: $said"; exit 1; }
  grep "CUDA_HOME=$strange" <<<"$said"
done
rm -r "$strange"

step "vet"
$GO vet -tags cuda ./cuda/... ./cmd/... ./bench/cuda
mkdir -p "$build/tests"
packages=()
for package in $($GO list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' -tags cuda ./cuda/...); do
  packages+=("$package")
  $GO test -tags cuda -c -o "$build/tests/$(basename "$package").test" "$package"
done
# tests NAME=VALUE... runs all of them, in short where SHORT is set, without SKIP.
tests() {
  for package in "${packages[@]}"; do
    (cd "$package" && env CI=true "$@" "$build/tests/$(basename "$package").test" -test.failfast -test.timeout 10m ${SHORT:+-test.short} ${SKIP:+-test.skip "$SKIP"}) || return 1
  done
}

step "the simulator itself"
g++ -std=c++20 -O2 -g -Wall -Wextra -Werror -DKINDRED_SIM -ffp-contract=off -Wno-format-security -Icuda/sim -Icuda/kernels cuda/sim/fragments.cpp cuda/sim/core.cpp -o "$build/fragments"
"$build/fragments"
race=(-std=c++20 -O2 -g -Wall -Wextra -Werror -DKINDRED_SIM -DKINDRED_RACE -ffp-contract=off -Wno-format-security -Icuda/sim -Icuda/kernels)
g++ "${race[@]}" -fsanitize=thread -c cuda/sim/races.cpp -o "$build/races.o"
g++ "${race[@]}" cuda/sim/core.cpp cuda/sim/race.cpp "$build/races.o" -o "$build/races"
"$build/races"

for seed in 1 2; do
  step "schedule $seed"
  tests LD_LIBRARY_PATH="$build/sim-plain" KINDRED_SIM_SEED=$seed
  SHORT=1 # the other schedules, and the sanitizers
done
step "slow copies"
tests LD_LIBRARY_PATH="$build/sim-plain" KINDRED_SIM_SEED=3 KINDRED_SIM_SLOW=1
step "undefined behaviour"
tests LD_LIBRARY_PATH="$build/sim-ubsan"
step "addresses"
tests LD_LIBRARY_PATH="$build/sim-asan" LD_PRELOAD="$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0:handle_segv=0
step "races between threads"
SKIP='Conformance|Fail|Lost|Shards' tests LD_LIBRARY_PATH="$build/sim-race"
step "two binaries: without a driver, with one, and asked for a device that is not there"
$GO build -tags cuda -o "$build/kindred" ./cmd/kindred
if ldd "$build/kindred" | grep -i cuda; then echo "the binary is linked with a driver"; exit 1; fi
"$build/kindred" doctor | grep "CUDA  .*no driver"
LD_LIBRARY_PATH="$build/sim-plain" "$build/kindred" doctor | grep "Kindred simulator (not a GPU)"
if "$build/kindred" doctor --device cuda >/dev/null 2>&1; then echo "--device cuda without a device is no error"; exit 1; fi
# What doctor says of each fault; with --device cuda it is one.
while IFS='|' read -r fault says; do
  faulty() { LD_LIBRARY_PATH="$build/sim-plain" env "$fault" "$build/kindred" doctor "$@"; }
  faulty | grep "CUDA.*$says"
  faulty --json | python3 -c 'import json, sys
found, says = next(f["cuda"] for f in json.load(sys.stdin) if f["what"] == "CUDA"), sys.argv[1]
assert found["built"] and found["driver"] and found["architectures"] and says in found.get("problem", "") + "".join(d.get("problem", "") for d in found["devices"]), found' "$says"
  if faulty --device cuda >/dev/null 2>&1; then echo "doctor --device cuda passes with $fault"; exit 1; fi
done <<'FAULTS'
KINDRED_SIM_INIT=803|the driver does not start
KINDRED_SIM_DEVICES=0|the driver has no device
KINDRED_SIM_DRIVER=11080|the driver is too old
KINDRED_SIM_CAPABILITY=75|capability 7.5, and the kernels need 8.0
KINDRED_SIM_CREATE=46|in use by another process
KINDRED_SIM_CREATE=2|out of device memory
KINDRED_SIM_LOAD=222|kernels cannot be loaded
FAULTS
LD_LIBRARY_PATH="$build/sim-plain" KINDRED_SIM_DEVICES=2 "$build/kindred" doctor --device cuda:1 >/dev/null
step "testcuda and benchcuda: no device is a failure, and so is the simulator"
$GO build -tags cuda -o "$build/bench" ./bench/cuda
for way in "$build/none" "$build/sim-plain"; do
  if LD_LIBRARY_PATH=$way cuda/sim/device.sh >/dev/null 2>&1; then echo "testcuda passes with $way"; exit 1; fi
  said=$(LD_LIBRARY_PATH=$way python3 bench/cuda/run.py --binary "$build/bench" --model none 2>&1) && { echo "benchcuda passes with $way"; exit 1; }
  grep -E "no CUDA device|this is the simulator" <<<"$said"
done
step "the real program, and whatever is wrong with a device"
CI=true LD_LIBRARY_PATH="$build/sim-plain" $GO test -tags cuda -timeout 15m -run '^Test(DeviceFaults|ServeOnDevice)$' ./cmd/kindred
step "the pack: without a device, with the simulator, and with it allowed"
GO=$GO cuda/toolchain/pack.sh
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
tar -C "$packed" -xf "$build/kindred-cuda-pack.tar.xz"
# bare runs a command with nothing of this machine's environment.
bare() { env -i PATH=/usr/bin:/bin HOME="$packed" "$@"; }
if bare "$packed/kindred-cuda-pack/run.sh" 2>/dev/null; then echo "the pack passes without a device"; exit 1; fi
if bare LD_LIBRARY_PATH="$build/sim-plain" "$packed/kindred-cuda-pack/run.sh" 2>/dev/null; then echo "the pack takes the simulator for a device"; exit 1; fi
bare LD_LIBRARY_PATH="$build/sim-plain" ALLOW_SIMULATOR=1 TESTS='^Test(Manifest|Refused|Bfloat16)$' "$packed/kindred-cuda-pack/run.sh" >/dev/null
step "broken kernels"
cuda/sim/mutate.py
