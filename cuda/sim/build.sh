#!/usr/bin/env bash
# Builds the simulator of CUDA's driver, with the kernels in it:
#
#   cuda/sim/build.sh [plain|asan|ubsan|race]
#
# gives cuda/build/sim-KIND/libcuda.so.1, which a program built with the tag cuda
# finds by LD_LIBRARY_PATH.
#
#   cuda/sim/build.sh KIND FOLDER SOURCE.cu...
#
# gives FOLDER/libcuda.so.1 with these in place of the kernels of their names, the rest
# from the build of that kind, which has to be there: mutate.py breaks kernels.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-plain}
seen=() more=() # of kernels alone; of the linker
case $kind in
  plain) extra=() ;;
  asan) extra=(-fsanitize=address -fno-omit-frame-pointer) ;;
  ubsan) extra=(-fsanitize=undefined -fno-sanitize-recover=all) ;;
  # The kernels tell of what they touch by the calls of -fsanitize=thread, which race.cpp
  # answers: the sanitizer's library is not linked, and the simulator is compiled without.
  race) extra=(-DKINDRED_RACE) seen=(-fsanitize=thread) more=(-Wl,-z,defs) ;;
  *) echo "build.sh: $kind is none of plain, asan, ubsan, race" >&2; exit 2 ;;
esac
eval "$(toolchain/setup.sh)"
built=build/sim-$kind
out=$built
sources=(kernels/*.cu)
if [ $# -gt 1 ]; then
  out=$2
  sources=("${@:3}")
fi
mkdir -p "$out"
warnings=(-Wall -Wextra -Werror -Wno-unknown-pragmas)
[ "$out" = "$built" ] || warnings=(-w) # what is broken is to run
flags=(-std=c++20 -O2 -g -fPIC "${warnings[@]}" -DKINDRED_SIM -ffp-contract=off -Ikernels -Isim "${extra[@]}")
objects=()
for source in "${sources[@]}"; do
  name=$(basename "$source" .cu)
  # A kernel's type is known where its source ends: there it is registered.
  {
    echo "#include \"core.h\""
    echo "#include \"$(realpath "$source")\""
    sed -n 's/^KERNEL\(_BOUNDS\)\?(\(\w*\)[,)].*/KINDRED_REGISTER(\2)/p' "$source"
  } >"$out/$name.cpp"
  grep -q KINDRED_REGISTER "$out/$name.cpp" || { echo "build.sh: $source declares no KERNEL" >&2; exit 1; }
  g++ "${flags[@]}" "${seen[@]}" -c "$out/$name.cpp" -o "$out/$name.o"
  objects+=("$out/$name.o")
done
if [ "$out" = "$built" ]; then
  simulator=(core)
  [ "$kind" = race ] && simulator+=(race)
  for name in "${simulator[@]}"; do
    g++ "${flags[@]}" -c "sim/$name.cpp" -o "$out/$name.o"
    objects+=("$out/$name.o")
  done
  # The driver's header, not the shim's: the functions are defined by the names that
  # its macros give them.
  g++ "${flags[@]}" -I"$KINDRED_CUDA_HOME/include" -c sim/driver.cpp -o "$out/driver.o"
  objects+=("$out/driver.o")
else
  for object in "$built"/*.o; do
    [ -f "$out/$(basename "$object")" ] || objects+=("$object")
  done
fi
g++ "${flags[@]}" -shared "${more[@]}" -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" "${objects[@]}"
[ "$out" != "$built" ] || echo "$PWD/$out"
