#!/usr/bin/env bash
# Builds the simulator of CUDA's driver, with the kernels in it:
#
#   cuda/sim/build.sh [plain|asan|ubsan]
#
# gives cuda/build/sim-KIND/libcuda.so.1, which a program built with the tag cuda
# finds by LD_LIBRARY_PATH.
#
#   cuda/sim/build.sh mutant FOLDER SOURCE.cu...
#
# gives FOLDER/libcuda.so.1 with these in place of the kernels of their names, the rest
# from the build with AddressSanitizer, which has to be there: mutate.py breaks kernels.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-plain}
case $kind in
  plain) extra=() ;;
  asan | mutant) extra=(-fsanitize=address -fno-omit-frame-pointer) ;;
  ubsan) extra=(-fsanitize=undefined -fno-sanitize-recover=all) ;;
  *) echo "build.sh: $kind is none of plain, asan, ubsan" >&2; exit 2 ;;
esac
eval "$(toolchain/setup.sh)"
out=build/sim-$kind
sources=(kernels/*.cu)
if [ "$kind" = mutant ]; then
  out=$2
  sources=("${@:3}")
fi
mkdir -p "$out"
flags=(-std=c++20 -O2 -g -fPIC -Wall -Wextra -Werror -DKINDRED_SIM -ffp-contract=off -Ikernels -Isim "${extra[@]}")
objects=()
for source in "${sources[@]}"; do
  name=$(basename "$source" .cu)
  # A kernel's type is known where its source ends: there it is registered.
  {
    echo "#include \"core.h\""
    echo "#include \"$(realpath "$source")\""
    sed -n 's/^KERNEL(\(\w*\)).*/KINDRED_REGISTER(\1)/p' "$source"
  } >"$out/$name.cpp"
  grep -q KINDRED_REGISTER "$out/$name.cpp" || { echo "build.sh: $source declares no KERNEL" >&2; exit 1; }
  g++ "${flags[@]}" -Wno-unknown-pragmas -c "$out/$name.cpp" -o "$out/$name.o"
  objects+=("$out/$name.o")
done
if [ "$kind" = mutant ]; then
  for object in build/sim-asan/*.o; do
    [ -f "$out/$(basename "$object")" ] || objects+=("$object")
  done
  g++ "${flags[@]}" -shared -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" "${objects[@]}"
  exit
fi
g++ "${flags[@]}" -c sim/core.cpp -o "$out/core.o"
# The driver's header, not the shim's: the functions are defined by the names that
# its macros give them.
g++ "${flags[@]}" -I"$KINDRED_CUDA_HOME/include" -c sim/driver.cpp -o "$out/driver.o"
g++ "${flags[@]}" -shared -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" "${objects[@]}" "$out/core.o" "$out/driver.o"
echo "$PWD/$out"
