#!/usr/bin/env python3
"""Copies a model's folder with its fp32 tensors rounded to fp16: halves.py FROM TO."""
import array
import hashlib
import json
import pathlib
import shutil
import struct
import sys


def main():
    source, target = map(pathlib.Path, sys.argv[1:])
    for file in source.iterdir():
        if file.name != "model.safetensors":
            shutil.copy(file, target)
    raw = (source / "model.safetensors").read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    head, parts, at = {}, [], 0
    for name, t in json.loads(raw[8 : 8 + n]).items():
        if name == "__metadata__":
            continue
        lo, hi = t["data_offsets"]
        data, kind = raw[8 + n + lo : 8 + n + hi], t["dtype"]
        if kind == "F32":
            data, kind = b"".join(struct.pack(f"<{len(x)}e", *x) for x in pieces(data)), "F16"
        head[name] = {"dtype": kind, "shape": t["shape"], "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + b"".join(parts)
    (target / "model.safetensors").write_bytes(whole)
    about = json.loads((target / "kindred-model.json").read_text())
    about["files"]["model.safetensors"] = {"sha256": hashlib.sha256(whole).hexdigest(), "size": len(whole)}
    (target / "kindred-model.json").write_text(json.dumps(about, indent=2) + "\n")


def pieces(data, numbers=1 << 16):
    """The fp32 numbers of data, some at a time."""
    for lo in range(0, len(data), 4 * numbers):
        x = array.array("f")
        x.frombytes(data[lo : lo + 4 * numbers])
        if sys.byteorder == "big":
            x.byteswap()
        yield x


if __name__ == "__main__":
    main()
