"""G1, G2 and G6 to G9 on a CUDA device: the encoder and the scan beside PyTorch.

    make benchcuda                  # builds, and writes bench/results/cuda.json
    python run.py --binary DIR/cuda # a binary that was built elsewhere, as `make pack-cuda` packs it
    python run.py --check --binary DIR/cuda   # tiny, on the simulator too: answers alone

Needs numpy, and PyTorch with CUDA for the rival and the peak of products; without
PyTorch ours is measured alone and the result says so. Order A B B A, five times; each side by the
clock of the host and by the device's events, the rival at its best: scaled-dot-product attention in fp16 on
texts padded to the longest, sorted by length, as it is and compiled (torch.compile, CUDA
graphs). Shares are of a matrix product of 8192 x 8192 in fp16 and of a copy within the
device, both in the same run. Before anything is timed, vectors are compared with a BERT in
numpy, in fp32, and lists with exact sums of whole numbers. G3 to G5 are of models that
this version does not run: they are not here. A run takes less than ten minutes.
"""
import argparse, json, os, pathlib, statistics, struct, subprocess, sys, tempfile, time

try:
    import numpy as np
except ImportError:  # what is wrong with the device is said first
    np = None

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = 1 << 15


def tensors(path):
    """Those of a safetensors file, fp32."""
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    kinds = {"F32": np.float32, "F16": np.float16}
    out = {}
    for name, t in json.loads(raw[8 : 8 + n]).items():
        if name != "__metadata__" and t["dtype"] in kinds:
            lo, hi = t["data_offsets"]
            out[name.removeprefix("bert.")] = np.frombuffer(raw, kinds[t["dtype"]], offset=8 + n + lo, count=(hi - lo) // np.dtype(kinds[t["dtype"]]).itemsize).reshape(t["shape"]).astype(np.float32)
    return out


def erf(x):
    """Abramowitz and Stegun 7.1.26, to 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    return np.sign(x) * (1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * np.exp(-x * x))


def bert(w, c, ids):
    """The unit mean vector of one text, in numpy."""
    def norm(x, name):
        x = x - x.mean(1, keepdims=True)
        return x / np.sqrt((x * x).mean(1, keepdims=True) + c["layer_norm_eps"]) * w[name + ".weight"] + w[name + ".bias"]

    linear = lambda x, name: x @ w[name + ".weight"].T + w[name + ".bias"]
    e, heads = "embeddings.", c["num_attention_heads"]
    x = norm(w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: len(ids)] + w[e + "token_type_embeddings.weight"][0], e + "LayerNorm")
    for i in range(c["num_hidden_layers"]):
        p = f"encoder.layer.{i}."
        q, k, v = (linear(x, p + "attention.self." + n).reshape(len(ids), heads, -1).transpose(1, 0, 2) for n in ("query", "key", "value"))
        s = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2])
        s = np.exp(s - s.max(2, keepdims=True))
        y = ((s / s.sum(2, keepdims=True)) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + linear(y, p + "attention.output.dense"), p + "attention.output.LayerNorm")
        y = linear(x, p + "intermediate.dense")
        x = norm(x + linear(y * 0.5 * (1 + erf(y / np.sqrt(2))), p + "output.dense"), p + "output.LayerNorm")
    v = x.mean(0)
    return v / np.linalg.norm(v)


def codes(rows, dim):
    """As main.go makes them: int8 [rows, dim], rows at most BLOCK."""
    with np.errstate(over="ignore"):
        z = np.arange(rows, dtype=np.uint64)[:, None] << np.uint64(20) | np.arange(dim, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.maximum(((z >> np.uint64(32)) & np.uint64(255)).astype(np.uint8).view(np.int8), -127)


def scales(rows):
    return ((1 + np.arange(rows, dtype=np.int64) * 7919 % 1000) / (1 << 20)).astype(np.float32)


def head(h, dim):
    return (((h * 131 + np.arange(dim) * 17) % 201 - 100) * 100).astype(np.int64)


class Ours:
    def __init__(self, binary, env):
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"cuda: our side ended with {self.process.wait()}: see its words above")
        r = json.loads(line)
        if r.get("error"):
            sys.exit("cuda: " + r["error"])
        return r

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        if self.process.wait():
            sys.exit("cuda: our side did not give back what it held")


def spread(xs):
    return {"median": statistics.median(xs), "min": min(xs), "max": max(xs)}


class Torch:
    """PyTorch's side, or None for want of it."""

    def __init__(self, torch, w, c):
        self.torch, self.c = torch, c
        self.w = {k: torch.tensor(v, device="cuda", dtype=torch.float16) for k, v in w.items()}
        self.forms = {"eager": self.forward}
        try:
            self.forms["compiled"] = torch.compile(self.forward, mode="reduce-overhead", dynamic=False)
        except Exception as e:  # said in the result
            self.no_compile = str(e)[:200]

    def timed(self, f):
        """Seconds by the clock and by events."""
        t = self.torch
        a, b = t.cuda.Event(enable_timing=True), t.cuda.Event(enable_timing=True)
        t.cuda.synchronize()
        start = time.perf_counter()
        a.record()
        f()
        b.record()
        t.cuda.synchronize()
        return time.perf_counter() - start, a.elapsed_time(b) / 1e3

    def forward(self, ids, keep):
        t, F, w, c = self.torch, self.torch.nn.functional, self.w, self.c
        dim, heads = c["hidden_size"], c["num_attention_heads"]
        norm = lambda x, n: F.layer_norm(x, (dim,), w[n + ".weight"], w[n + ".bias"], c["layer_norm_eps"])
        linear = lambda x, n: F.linear(x, w[n + ".weight"], w[n + ".bias"])
        e, n, l = "embeddings.", *ids.shape
        x = norm(w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][:l] + w[e + "token_type_embeddings.weight"][0], e + "LayerNorm")
        for i in range(c["num_hidden_layers"]):
            p = f"encoder.layer.{i}."
            q, k, v = (linear(x, p + "attention.self." + s).view(n, l, heads, -1).transpose(1, 2) for s in ("query", "key", "value"))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :]).transpose(1, 2).reshape(n, l, dim)
            x = norm(x + linear(y, p + "attention.output.dense"), p + "attention.output.LayerNorm")
            x = norm(x + linear(F.gelu(linear(x, p + "intermediate.dense")), p + "output.dense"), p + "output.LayerNorm")
        m = keep[:, :, None].half()
        return F.normalize((x * m).sum(1) / m.sum(1), dim=1)

    def encoder(self, texts, batch):
        """What encodes texts, longest first, so many at a time."""
        t = self.torch
        texts = sorted(texts, key=len, reverse=True)
        parts = []
        for lo in range(0, len(texts), batch):
            part = texts[lo : lo + batch]
            ids = t.zeros((len(part), len(part[0])), dtype=t.int64)
            keep = t.zeros(ids.shape, dtype=t.bool)
            for i, x in enumerate(part):
                ids[i, : len(x)], keep[i, : len(x)] = t.tensor(x), True
            parts.append((ids, keep))

        def run(form):
            return t.cat([form(i.cuda(), k.cuda()).float().cpu() for i, k in parts])

        return run


def paired(ours, theirs, times=5):
    """Alternations of two callables that give seconds by clock and events."""
    out = {"ours_wall": [], "ours_events": [], "theirs_wall": [], "theirs_events": []}
    for _ in range(times):
        for mine in (True, False, False, True) if theirs else (True,):
            w, e = ours() if mine else theirs()
            out["ours_wall" if mine else "theirs_wall"].append(w)
            out["ours_events" if mine else "theirs_events"].append(e)
    r = {k: spread(v) for k, v in out.items() if v}
    if theirs:
        r["ratio_wall"] = round(r["theirs_wall"]["median"] / r["ours_wall"]["median"], 3)
        r["ratio_events"] = round(r["theirs_events"]["median"] / r["ours_events"]["median"], 3)
    return r


def check_vectors(ours, w, c, texts, tmp, least):
    (tmp / "ids.json").write_text(json.dumps(texts))
    ours.ask("vectors", tmp / "ids.json", tmp / "vectors")
    got = np.fromfile(tmp / "vectors", "<f4").reshape(len(texts), -1)
    worst = min(float(bert(w, c, t) @ g) for t, g in zip(texts, got))
    if not worst >= least:
        sys.exit(f"cuda: least cosine to numpy {worst}, at least {least} is wanted")
    return worst


def check_lists(ours, rows, dim, heads, size, tmp):
    """The first head's list against exact sums, in order, equal scores by row."""
    ours.ask("members", heads, size, tmp / "members")
    got = np.fromfile(tmp / "members", "<u4")
    block = codes(min(rows, BLOCK), dim).astype(np.int64) @ head(0, dim)
    s = (np.resize(block, rows).astype(np.float64) * scales(rows).astype(np.float64)).astype(np.float32)
    want = np.lexsort((np.arange(rows), -s))[:size]
    if not np.array_equal(got, want):
        sys.exit(f"cuda: the list of {heads} heads is not the exact one: {np.sum(got != want)} of {size} places differ")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", required=True, help="bench/cuda, built with the tag cuda")
    p.add_argument("--model", type=pathlib.Path, required=True, help="folder of all-MiniLM-L6-v2")
    p.add_argument("--rows", type=int, default=20_000_000, help="rows beside PyTorch, whose fp16 matrix takes 768 bytes of each")
    p.add_argument("--large", type=int, default=100_000_000, help="rows of the scan alone")
    p.add_argument("--check", action="store_true")
    p.add_argument("--out", default=str(ROOT / "bench/results/cuda.json"))
    a = p.parse_args()
    ours = Ours(a.binary, os.environ)
    if ours.about.get("simulated") and not a.check:
        sys.exit("cuda: this is the simulator, whose time says nothing: --check, or a device")
    if np is None:
        sys.exit("cuda: numpy is needed, and PyTorch with CUDA for the rival: pip install numpy torch, or PYTHON=that of an environment that has them")
    if not (a.model / "model.safetensors").exists():
        sys.exit(f"cuda: {a.model} is missing: kindred models pull all-MiniLM-L6-v2")
    w, c = tensors(a.model / "model.safetensors"), json.loads((a.model / "config.json").read_text())
    made = lambda lengths: [[1000 + (i * 131 + j * 17) % 20000 for j in range(n)] for i, n in enumerate(lengths)]
    dim = 384
    with tempfile.TemporaryDirectory() as folder:
        tmp = pathlib.Path(folder)
        cosines = {}
        for precision, least in (("bf16", 0.999), ("fp16+gemm_large", 0.9999), ("fp16", 0.9999)):
            ours.ask("model", a.model, precision)
            cosines[precision] = check_vectors(ours, w, c, made([3] if a.check else [1, 17, 64, 128, 250]), tmp, least)
        small = 2_000 if a.check else BLOCK * 4 + 77
        ours.ask("rows", small, dim)
        for heads in (1, 12):
            check_lists(ours, small, dim, heads, small // 20, tmp)
        ours.ask("seeds", 20, 10, 1)
        ours.ask("encode", tmp / "ids.json", 1)
        if not ours.ask("bandwidth", 1 if a.check else 1024, 1)["wall"]:
            sys.exit("cuda: no copy was timed")
        if a.check:
            ours.end()
            print("cuda: vectors and lists are right, least cosines", cosines)
            return
        try:
            import torch
        except ImportError:
            torch = None
        rival = Torch(torch, w, c) if torch is not None and torch.cuda.is_available() else None
        result = {"what": "the encoder and the scan on a CUDA device; seconds", "device": ours.about, "least_cosine_to_fp32": cosines,
                  "rival": f"PyTorch {torch.__version__}" if rival else "none: PyTorch with CUDA is not here", "not_here": "G3 to G5: no such model runs in this version"}
        if rival:
            x = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
            best = min(rival.timed(lambda: x @ x)[1] for _ in range(20))
            result["peak_flops"] = 2 * 8192**3 / best
            del x
        r = ours.ask("bandwidth", 4096, 10)
        result["copy_bytes_a_second"] = r["bytes"] / min(r["events"])

        def encode(name, lengths, batch):
            texts = made(lengths)
            file = tmp / "texts.json"
            file.write_text(json.dumps(texts))
            tokens = sum(lengths)
            mine = lambda: (lambda r: (r["wall"][0], r["events"][0]))(ours.ask("encode", file, 1))
            theirs = None
            if rival:
                run = rival.encoder(texts, batch)
                took = {}
                for form, f in rival.forms.items():
                    try:
                        run(f)
                        took[form] = min(rival.timed(lambda: run(f))[1] for _ in range(3))
                    except Exception as e:
                        result.setdefault("rival_failed", {})[f"{name}, {form}"] = str(e)[:200]
                best = min(took, key=took.get)
                theirs = lambda: rival.timed(lambda: run(rival.forms[best]))
            out = paired(mine, theirs)
            flops = sum(n * (2 * (4 * dim * dim + 2 * dim * c["intermediate_size"]) + 4 * dim * n) * c["num_hidden_layers"] for n in lengths)
            out["tokens_a_second"] = tokens / out["ours_events"]["median"]
            if rival:
                out["rival_form"] = best
                out["share_of_peak"] = flops / out["ours_events"]["median"] / result["peak_flops"]
            result[name] = out
            print(name, json.dumps(out), flush=True)

        encode("G1: 1024 texts of 128 tokens", [128] * 1024, 256)
        g1 = tmp / "g1.json"
        (tmp / "texts.json").rename(g1)
        ours.ask("model", a.model, "fp16+gemm_large")
        ours.ask("encode", g1, 1)
        other = ours.ask("encode", g1, 5)
        result["G1 by gemm_large, of every device"] = {"ours_wall": spread(other["wall"]), "ours_events": spread(other["events"])}
        result["products"] = ours.ask("model", a.model, "fp16").get("tuned", [])
        encode("G2: 4096 texts of 32 tokens", [32] * 4096, 512)
        encode("G2: 256 texts of 512 tokens", [512] * 256, 64)
        rng = np.random.default_rng(1)
        encode("G2: 2048 texts of 8 to 256 tokens", [int(x) for x in np.clip(rng.lognormal(3.7, 0.7, 2048), 8, 256)], 128)
        encode("G6: one text of 32 tokens", [32], 1)

        def lists(name, rows, heads, size, command="best"):
            mine = lambda: (lambda r: (r["wall"][0], r["events"][0]))(ours.ask(command, heads, size, 1))
            theirs = None
            if rival and matrix is not None:
                v = torch.tensor(np.stack([head(h, dim) for h in range(heads)]), device="cuda", dtype=torch.float16)

                def best():
                    if command == "seeds":
                        s = torch.cat([(m @ v.T).amax(1) for m in matrix.split(100_000)])
                        return torch.topk(s, size)
                    if heads == 1:
                        return torch.topk(matrix @ v[0], size)
                    s = matrix @ v.T
                    return [torch.topk(s[:, h], size) for h in range(heads)]

                best()
                theirs = lambda: rival.timed(best)
            out = paired(mine, theirs, 3)
            if command == "best" and heads == 1:
                out["share_of_copy_bandwidth"] = rows * (dim + 4) / out["ours_events"]["median"] / result["copy_bytes_a_second"]
            result[name] = out
            print(name, json.dumps(out), flush=True)

        matrix = None
        ours.ask("rows", a.rows, dim)
        if rival:
            block = torch.tensor(codes(BLOCK, dim), device="cuda").half()
            s = torch.tensor(scales(a.rows), device="cuda")
            matrix = torch.cat([(block[: min(BLOCK, a.rows - lo)] * s[lo : lo + BLOCK, None] * 1000).half() for lo in range(0, a.rows, BLOCK)])
        for heads, size in ((1, 1), (1, 1_000_000), (8, 100_000), (64, 100_000), (128, 100_000)):
            lists(f"G8: {a.rows} rows, {heads} heads, the best {size}", a.rows, heads, min(size, a.rows // 20))
        lists(f"G9: {a.rows} rows, 10000 seeds", a.rows, 10_000, min(100_000, a.rows // 20), "seeds")
        matrix = None
        if rival:
            del block, s
            torch.cuda.empty_cache()
        ours.ask("rows", a.large, dim)
        for size in (1, 1_000_000):
            lists(f"G8: {a.large} rows, 1 heads, the best {size}", a.large, 1, min(size, a.large // 20))

        # From here on each kernel is timed by events of its own, which makes all slower: nothing else is
        # measured.
        def kernels(name, *words):
            ours.ask(*words)
            ours.ask("trace")
            ours.ask(*words)
            result.setdefault("kernels", {})[name] = ours.ask("trace")["kernels"]

        kernels(f"G8: {a.large} rows, 1 heads, the best 1000000", "best", 1, min(1_000_000, a.large // 20), 1)
        ours.ask("rows", a.rows, dim)
        kernels(f"G8: {a.rows} rows, 64 heads, the best 100000", "best", 64, min(100_000, a.rows // 20), 1)
        kernels(f"G9: {a.rows} rows, 10000 seeds", "seeds", 10_000, min(100_000, a.rows // 20), 1)
        kernels("G1", "encode", g1, 1)
        ours.ask("model", a.model, "fp16+gemm_large")
        kernels("G1 by gemm_large, of every device", "encode", g1, 1)
    ours.end()
    out = pathlib.Path(a.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**result, "date": time.strftime("%Y-%m-%d", time.gmtime())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
