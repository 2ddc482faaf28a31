"""The engine in Milvus against the client library alone (bench/milvus), and vector indexes
of a Milvus beside the scan and the graph (kindred bench milvus), against one server that
is installed, started and stopped here:

    python bench/milvus/run.py --ours bench/tmp/bin/milvus --kindred bin/kindred --home bench/tmp/milvus

--part writing (searching, hydrating, pushing) measures that anew and puts it into the result
that is there. --milvus host:port takes a server that runs instead. --vectors FILE (fp32 of 384, one behind
the other, as bench/hnsw writes them) are compared instead of made-up ones.
"""
import argparse, datetime, json, os, pathlib, platform, re, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
from machine import cpu_name, our_versions

SERVER = ROOT / "index/milvus/milvustest/server.py"
INDEXES = ["flat", "ivf_flat:nlist=1024,nprobe=16", "ivf_flat:nlist=1024,nprobe=64", "ivf_sq8:nlist=1024,nprobe=64",
           "scann:nlist=1024,nprobe=64,reorder_k=200", "hnsw:M=16,efConstruction=200,ef=32", "hnsw:M=16,efConstruction=200,ef=96",
           "hnsw:M=16,efConstruction=200,ef=256"]


def npy(source, target, dim):
    """Writes NumPy's header before numbers as they are: nothing needs to be installed for it."""
    size = source.stat().st_size
    if size == 0 or size % (4 * dim):
        sys.exit(f"{source} has {size} bytes, which are no vectors of {dim} numbers")
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size // (4 * dim)}, {dim}), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    with open(source, "rb") as src, open(target, "wb") as out:
        out.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode())
        while block := src.read(1 << 20):
            out.write(block)


def measure(a, addr, folder):
    def run(*cmd):
        done = subprocess.run([str(c) for c in cmd], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{cmd[0]} ended with {done.returncode}")
        return json.loads(done.stdout)

    out = run(a.ours, "-milvus", addr, "-rows", a.rows, "-dim", a.dim, "-pairs", a.pairs, "-queries", a.queries, "-part", a.part)
    now = our_versions()
    for r in out["ratios"]:
        r |= {"commit": now["commit"], "load": os.getloadavg()[0]}
    if a.part:
        return out, None
    data = ["--rows", a.index_rows, "--dim", a.dim]
    if a.vectors:
        file = pathlib.Path(folder) / "vectors.npy"
        npy(pathlib.Path(a.vectors), file, a.dim)
        data = ["--rows", a.index_rows, "--file", file]
    indexes = [w for i in a.indexes or INDEXES for w in ("--index", i)]
    report = run(a.kindred, "bench", "milvus", "--milvus", addr, *data, "--queries", a.index_queries, *indexes, "--json", "--quiet")
    return out, report


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours", required=True)
    p.add_argument("--kindred", required=True)
    p.add_argument("--home", help="folder of a server that is installed and started here")
    p.add_argument("--milvus", help="host:port of one that runs")
    p.add_argument("--vectors")
    p.add_argument("--rows", type=int, default=200_000)
    p.add_argument("--index-rows", type=int, default=100_000)
    p.add_argument("--index-queries", type=int, default=1000)
    p.add_argument("--indexes", nargs="*")
    p.add_argument("--dim", type=int, default=384)
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--queries", type=int, default=600)
    p.add_argument("--part", default="")
    p.add_argument("--out", default=str(ROOT / "bench/results/milvus.json"))
    a = p.parse_args()
    if bool(a.home) == bool(a.milvus):
        p.error("give --home or --milvus")
    load = os.getloadavg()[0]
    addr = a.milvus or subprocess.run([sys.executable, SERVER, "start", a.home], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    try:
        with tempfile.TemporaryDirectory() as folder:
            ours, report = measure(a, addr, folder)
    finally:
        if a.home:
            subprocess.run([sys.executable, SERVER, "stop", a.home], check=True)
    if a.part:
        result = json.loads(pathlib.Path(a.out).read_text())
        new = {r["what"]: r for r in ours["ratios"]}
        result["ratios"] = [new.pop(r["what"], r) for r in result["ratios"]] + list(new.values())
        pathlib.Path(a.out).write_text(json.dumps(result, indent=1) + "\n")
        return
    library = re.search(r"milvus-sdk-go/v2 v(\S+)", (ROOT / "go.mod").read_text()).group(1)
    result = {
        "date": datetime.date.today().isoformat(), "cpu": cpu_name(), "cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0],
        "versions": our_versions() | {"milvus": ours["milvus"], "milvus-sdk-go": library}, "python": platform.python_version(),
        "rows": ours["rows"], "dim": ours["dim"], "ratios": ours["ratios"],
        "index_data": "sentences of real reviews and posts, all-MiniLM-L6-v2" if a.vectors else report["data"], "indexes": report["report"],
    }
    pathlib.Path(a.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
