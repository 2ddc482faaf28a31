"""Paired timing of the HTTP service against its own engine, and against a Python
server around ONNX Runtime (C6): the same texts, weights and cores.

    python -m venv venv && venv/bin/pip install numpy onnxruntime tokenizers fastapi orjson uvicorn
    venv/bin/python run.py --model DIR --onnx FILE --data DIR    # writes ../results/http.json

A run sends all texts, 64 a request, over four connections, and takes the vectors in
base64, as JSON numbers, or from text-embeddings-inference's route; the engine's run
encodes the same texts in one call in a process of its own, so it sorts all of them by
length and answers nobody. The server's cache of vectors is off: every text is encoded
every time. Order A B B A; a ratio is made of runs next to each other. The client is one
for all servers; it works on the same cores, and its time counts, as does the kernel's.
The Python server has the best of the batch sizes, and of one request at a time on all
threads and one a core on one thread. Vectors of every route are compared first.
"""
import argparse, json, os, pathlib, platform, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from machine import ROOT, cpu_name, free_port, our_versions  # noqa: E402
from service import CONNECTIONS, Process, Service, body, texts_from, vectors_in  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
LEAST = {"fp32": 0.999999, "int16": 0.9999}


class Engine(Process):
    """The Go side of bench/peers: texts in, seconds out."""

    def __init__(self, *command):
        super().__init__(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"http: the Go side ended with {self.process.wait()}")
        return answer.strip()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2 in the cache of models")
    p.add_argument("--onnx", required=True)
    p.add_argument("--data", default=str(ROOT.parent / "shared/data"))
    p.add_argument("--texts", type=int, default=512)
    p.add_argument("--a-request", type=int, default=64)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--alternations", type=int, default=9)
    p.add_argument("--batches", default="8,16,32", help="sizes to try on the Python server")
    p.add_argument("--out", default=str(ROOT / "bench/results/http.json"))
    a = p.parse_args()
    import fastapi
    import numpy as np
    import onnxruntime
    import orjson
    import tokenizers
    import uvicorn

    load = os.getloadavg()[0]
    model = pathlib.Path(a.model).resolve()
    texts = texts_from(a.data, model, a.texts)
    requests = {r: [body(r, model.name, texts[at : at + a.a_request]) for at in range(0, len(texts), a.a_request)] for r in ("base64", "float", "tei")}
    running, cosine, tried = [], {}, {}

    def started(side):
        running.append(side)
        return side

    def vectors(service, route):
        v = np.array([v for raw in service.answers(requests[route]) for v in vectors_in(route, json.loads(raw))], "<f4")
        if v.shape != (len(texts), 384):
            sys.exit(f"http: {service.command[:2]} answers {v.shape} on {route}")
        return v

    with tempfile.TemporaryDirectory() as tmp:
        engine, kindred, file, out = (os.path.join(tmp, n) for n in ("peers", "kindred", "texts.json", "vectors"))
        pathlib.Path(file).write_text(json.dumps(texts))
        for binary, package in ((engine, "./bench/peers"), (kindred, "./cmd/kindred")):
            subprocess.run(["go", "build", "-o", binary, package], cwd=ROOT, check=True)
        os.environ["KINDRED_MODELS"] = str(model.parent)

        def python(setting):
            port = free_port()
            return Service([sys.executable, str(HERE / "server.py"), a.onnx, str(model / "tokenizer.json"), str(port), *map(str, setting)], port)

        def timed(service, route):
            begun = time.perf_counter()
            service.answers(requests[route])
            return time.perf_counter() - begun

        sides = {}  # name: seconds of one run, in the order of the first half
        try:
            for split in dict.fromkeys(((1, a.threads), (a.threads, 1))):
                for size in map(int, a.batches.split(",")):
                    s = started(python((*split, size)))
                    timed(s, "base64")
                    tried["%d workers of %d threads, batches of %d" % (*split, size)] = (min(timed(s, "base64") for _ in range(2)), (*split, size))
                    s.end()
                    running.remove(s)
            best = min(tried, key=lambda k: tried[k][0])
            rival = started(python(tried[best][1]))
            reference = vectors(rival, "base64")
            if not np.array_equal(vectors(rival, "float"), reference):
                sys.exit("http: the Python server's JSON is not its base64")
            ours = {}
            for k in LEAST:
                ours["engine", k] = started(Engine(engine, "-model", a.model, "-precision", k, "-threads", str(a.threads), "-texts", file))
                port = free_port()
                s = ours["http", k] = started(Service([kindred, "serve", "--data", os.path.join(tmp, k), "--listen", f"127.0.0.1:{port}", "--threads", str(a.threads), "--precision", k, "--cache", "0", "--quiet"], port))
                ours["engine", k].ask("vectors " + out)
                want = np.fromfile(out, "<f4").reshape(len(texts), -1)
                for route in requests:
                    if not np.array_equal(vectors(s, route), want):
                        sys.exit(f"http: {k} over HTTP ({route}) is not what the engine gives, bit for bit")
                cosine[k] = round(float((want.astype(np.float64) * reference).sum(1).min()), 7)
                if cosine[k] < LEAST[k]:
                    sys.exit(f"http: the least cosine of {k} to the Python server is {cosine[k]}, want {LEAST[k]}")
            cpu = {}
            for name, s, route in (("http float, int16", ours["http", "int16"], "float"), ("engine int16", ours["engine", "int16"], None), ("http base64, int16", ours["http", "int16"], "base64"), ("http tei, int16", ours["http", "int16"], "tei"),
                                   ("engine fp32", ours["engine", "fp32"], None), ("http base64, fp32", ours["http", "fp32"], "base64"), ("python base64", rival, "base64"), ("python float", rival, "float")):
                sides[name] = (lambda s=s: float(s.ask("time"))) if route is None else (lambda s=s, r=route: timed(s, r))
                cpu[name] = s.cpu
            halves, spent = [], []
            for _ in range(a.alternations):
                for order in (list(sides), list(sides)[::-1]):
                    took, used = {}, {}
                    for n in order:
                        time.sleep(0.03)
                        before = cpu[n]()
                        took[n] = sides[n]()
                        used[n] = cpu[n]() - before
                    halves.append(took)
                    spent.append(used)
        finally:
            for side in running:
                side.end()

    def ratio(ours, theirs):
        r = [h[theirs] / h[ours] for h in halves]
        c = [h[theirs] / h[ours] for h in spent if h[ours] > 0]
        return {"ours": ours, "theirs": theirs, "median": round(statistics.median(r), 3), "min": round(min(r), 3), "max": round(max(r), 3), "pairs": len(r), "by_processor_time": round(statistics.median(c), 3) if c else None}

    ratios = [ratio(*pair) for pair in (("http base64, int16", "engine int16"), ("http float, int16", "engine int16"), ("http tei, int16", "engine int16"), ("http base64, fp32", "engine fp32"),
                                        ("http base64, fp32", "python base64"), ("http base64, int16", "python base64"), ("http float, int16", "python float"))]
    print(json.dumps(ratios, indent=1))
    result = {
        "what": f"all-MiniLM-L6-v2 over HTTP, {a.a_request} texts a request on {CONNECTIONS} connections; a ratio is how many times as fast as the other our service is, from runs next to each other; processor time is the server's alone",
        "texts": len(texts), "ratios": ratios, "least_cosine_to_python": cosine, "vectors_equal_the_engines_bit_for_bit": list(requests),
        "python_settings_tried_seconds": {k: round(t, 4) for k, (t, _) in tried.items()}, "python_setting": best,
        "threads": a.threads, "alternations": a.alternations, "cpu": cpu_name(), "cores": os.cpu_count(), "load_average": {"start": load, "end": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "tokenizers": tokenizers.__version__, "fastapi": fastapi.__version__, "orjson": orjson.__version__, "uvicorn": uvicorn.__version__, **our_versions()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "raw": [{n: round(t, 5) for n, t in h.items()} for h in halves], "raw_processor_seconds": [{n: round(t, 2) for n, t in h.items()} for h in spent],
    }
    pathlib.Path(a.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
