#!/usr/bin/env bash
# Runs the tests of cuda/... on a CUDA device. Without one, or on the simulator, it
# fails: a suite that ran nowhere has shown nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
GO=${GO:-go}
set=$(cuda/toolchain/setup.sh)
eval "$set"
found=$($GO run -tags cuda ./cmd/kindred doctor)
echo "$found" | grep CUDA || true
if ! echo "$found" | grep -q "CUDA device 0"; then
  echo "testcuda: there is no CUDA device here (make test-cuda-sim needs none)" >&2
  exit 1
fi
if echo "$found" | grep -q "Kindred simulator"; then
  echo "testcuda: this is the simulator, not a device: take it out of LD_LIBRARY_PATH" >&2
  exit 1
fi
CI=true $GO test -tags cuda -count=1 -v ./cuda/...
