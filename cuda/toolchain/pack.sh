#!/usr/bin/env bash
# Packs what a machine with a CUDA device needs and nothing else is wanted of it than
# NVIDIA's driver: the tests of cuda/..., built, the benchmarks, and the weights of
# all-MiniLM-L6-v2 in fp16.
#
#   cuda/toolchain/pack.sh      gives cuda/build/kindred-cuda-pack.tar.xz, below 64 MiB
#
# There: `tar xf kindred-cuda-pack.tar.xz && kindred-cuda-pack/run.sh`; it fails
# where there is no device. `run.sh bench` goes on with the benchmarks, for which
# python3 with numpy is needed, and PyTorch for the rival.
set -euo pipefail
cd "$(dirname "$0")/../.."
GO=${GO:-go}
set=$(cuda/toolchain/setup.sh)
eval "$set"
model=${KINDRED_MODELS:-$HOME/.cache/kindred/models}/all-MiniLM-L6-v2
[ -f "$model/model.safetensors" ] || { echo "pack: $model is missing: kindred models pull all-MiniLM-L6-v2" >&2; exit 1; }
build=$PWD/cuda/build
pack=$build/kindred-cuda-pack
rm -rf "$pack"
mkdir -p "$pack/tests" "$pack/models/all-MiniLM-L6-v2"
for package in $($GO list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' -tags cuda ./cuda/...); do
  name=$(basename "$package")
  mkdir -p "$pack/tests/$name"
  $GO test -tags cuda -ldflags '-s -w' -trimpath -c -o "$pack/tests/$name/run" "$package"
done
mkdir -p "$pack/tests/cuda/kernels"
cp cuda/kernels/* "$pack/tests/cuda/kernels" # a test holds the manifest to them
$GO build -tags cuda -ldflags '-s -w' -trimpath -o "$pack/bench" ./bench/cuda
cp bench/cuda/run.py "$pack/bench.py"
python3 cuda/toolchain/halves.py "$model" "$pack/models/all-MiniLM-L6-v2"
cat >"$pack/run.sh" <<'RUN'
#!/usr/bin/env bash
# Runs the tests on the CUDA device of this machine, and fails without one.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
found=$(./bench </dev/null) || { echo "there is no CUDA device here that can be used" >&2; exit 1; }
echo "$found"
if echo "$found" | grep -q "Kindred simulator" && [ "${ALLOW_SIMULATOR:-}" != 1 ]; then
  echo "this is the simulator, not a device: take it out of LD_LIBRARY_PATH" >&2
  exit 1
fi
export KINDRED_MODELS=$here/models
for test in tests/*/; do
  echo "--- $test"
  (cd "$test" && ./run -test.v ${TESTS:+-test.run "$TESTS"} -test.timeout 8m)
done
if [ "${1:-}" = bench ]; then
  python3 bench.py --binary ./bench --model models/all-MiniLM-L6-v2 --out cuda.json "${@:2}"
fi
RUN
chmod +x "$pack/run.sh"
# The programs have most of their bytes in common: a dictionary that several of them fit in takes
# a quarter off the pack, and 420 MB of memory.
XZ_OPT='-T1 --lzma2=preset=3,dict=64MiB' tar -C "$build" -cJf "$pack.tar.xz" "$(basename "$pack")"
size=$(stat -c %s "$pack.tar.xz")
echo "$pack.tar.xz: $((size >> 20)) MiB"
[ "$size" -lt $((64 << 20)) ] || { echo "pack: that is more than 64 MiB" >&2; exit 1; }
