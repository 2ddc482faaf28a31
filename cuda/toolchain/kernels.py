#!/usr/bin/env python3
"""Compiles cuda/kernels/*.cu, each to one fatbin for every architecture.

The fatbins are written to cuda/build/kernels, where the build tag cuda embeds
them, with a manifest: the hashes of the sources and images and what ptxas says of each kernel,
registers, spills, shared memory. That of the compiler which requirements.txt names is
committed as kernels/manifest.json; others may be older, and know fewer architectures.
Warnings are errors, and so are spills of kernels that a source does not allow by a
line `// spills: NAME`.

usage: kernels.py --home DIR [--check]    DIR holds bin/nvcc; --check: nothing is
                                          written, the manifest must be current
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

CUDA = pathlib.Path(__file__).resolve().parent.parent
KERNELS = CUDA / "kernels"
ARCHITECTURES = ["80", "86", "89", "90a", "100"]
LOWEST = "80"  # PTX for what comes later is of this one

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def compiled(nvcc, source, target, architectures, env):
    """Compiles source to target; what ptxas says, kernel to architecture to figures."""
    command = [nvcc, "-fatbin", "-std=c++17", "-O3", "-lineinfo", "-Werror", "all-warnings",
               "-Xptxas", "-v", "-Xptxas", "-warn-spills", "--threads", "2", "-I", str(KERNELS)]
    for a in architectures:
        command += ["-gencode", f"arch=compute_{a},code=sm_{a}"]
    command += ["-gencode", f"arch=compute_{LOWEST},code=compute_{LOWEST}", "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    text = done.stdout + done.stderr
    if done.returncode:
        sys.exit(f"{source.name} does not compile:\n{text}")
    found, at = {}, None
    for line in text.splitlines():
        if m := ENTRY.search(line):
            at = found.setdefault(m[1], {}).setdefault(m[2], {"registers": 0, "stack": 0, "spill_stores": 0, "spill_loads": 0, "shared": 0})
        elif at is None:
            continue
        elif m := SPILLS.search(line):
            at["stack"], at["spill_stores"], at["spill_loads"] = map(int, m.groups())
        elif m := USED.search(line):
            at["registers"] = int(m[1])
            if s := SHARED.search(line):
                at["shared"] = int(s[1])
    if not found:
        sys.exit(f"ptxas said nothing of {source.name}:\n{text}")
    allowed = set(re.findall(r"^// spills: (\w+)", source.read_text(), re.M))
    for kernel, by in found.items():
        spilt = sorted(a for a, f in by.items() if f["spill_stores"] or f["spill_loads"])
        if spilt and kernel not in allowed:
            sys.exit(f"{source.name}: kernel {kernel} spills registers on {', '.join(spilt)}: use fewer, or allow it with a line `// spills: {kernel}` and the reason")
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--home", type=pathlib.Path, required=True, help="folder of CUDA: bin/nvcc in it")
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    nvcc = a.home / "bin" / "nvcc"
    if not nvcc.exists():
        sys.exit(f"{nvcc} is missing: is {a.home} a CUDA with its compiler?")
    env = dict(os.environ, PATH=f"{a.home / 'bin'}:{a.home / 'nvvm' / 'bin'}:{os.environ['PATH']}")
    version = re.search(r"V([\d.]+)", subprocess.run([nvcc, "--version"], capture_output=True, text=True, env=env).stdout)
    if not version:
        sys.exit(f"{nvcc} --version says no version")
    ours = re.search(r"^nvidia-cuda-nvcc==([\d.]+)", (CUDA / "toolchain" / "requirements.txt").read_text(), re.M)[1] == version[1]
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, env=env).stdout.split()
    architectures = [x for x in ARCHITECTURES if "sm_" + x.rstrip("a") in known]
    if LOWEST not in architectures:
        sys.exit(f"{nvcc} {version[1]} does not know sm_{LOWEST}: give a CUDA 12 or 13")
    if left := [f"sm_{x}" for x in ARCHITECTURES if x not in architectures]:
        print(f"nvcc {version[1]} does not know {', '.join(left)}: such devices compile the PTX of compute_{LOWEST} when they start")
    out = CUDA / "build" / "kernels"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.fatbin"):
        old.unlink()
    manifest = {"nvcc": version[1], "architectures": [f"sm_{x}" for x in architectures], "ptx": f"compute_{LOWEST}", "sources": {}, "kernels": {}}
    for path in sorted([*KERNELS.glob("*.cu"), *KERNELS.glob("*.cuh")]):
        manifest["sources"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for source in sorted(KERNELS.glob("*.cu")):
        manifest["kernels"][source.name] = compiled(str(nvcc), source, out / (source.stem + ".fatbin"), architectures, env)
        print(f"{source.name}: {len(manifest['kernels'][source.name])} kernels for {len(architectures)} architectures and PTX")
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    # What is embedded names its images too, which are not the same in every folder: they hold its name.
    images = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.fatbin")}
    (out / "manifest.json").write_text(json.dumps({**manifest, "images": images}, indent=1, sort_keys=True) + "\n")
    path = KERNELS / "manifest.json"
    if not ours:
        print(f"nvcc {version[1]} is not the one of requirements.txt: kernels/manifest.json stays as it is")
    elif a.check:
        old = json.loads(path.read_text()) if path.exists() else {}
        if old.get("sources") != manifest["sources"]:
            sys.exit("cuda/kernels/manifest.json is not of these sources: run `make kernels` and commit it")
        if old.get("nvcc") == manifest["nvcc"] and old != manifest:
            sys.exit("cuda/kernels/manifest.json says other figures than ptxas: run `make kernels` and commit it")
    else:
        path.write_text(text)


if __name__ == "__main__":
    main()
