"""Profiles kindred serve while four connections ask for embeddings, 64 texts a request,
in base64, as JSON and by text-embeddings-inference's route in turn; the sampling is Go's
own, through --pprof. Writes ../results/profile.json, of which bench/render draws
docs/img/flame.svg.

    python profile.py --model DIR --data DIR
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile, threading, time, urllib.request

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1]), str(pathlib.Path(__file__).resolve().parents[1] / "http")]
from machine import ROOT, cpu_name, free_port, our_versions  # noqa: E402
from service import CONNECTIONS, Service, body, texts_from  # noqa: E402


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2 in the cache of models")
    p.add_argument("--data", default=str(ROOT.parent / "shared/data"))
    p.add_argument("--seconds", type=int, default=30)
    p.add_argument("--out", default=str(ROOT / "bench/results/profile.json"))
    a = p.parse_args()
    load = os.getloadavg()[0]
    model = pathlib.Path(a.model).resolve()
    texts = texts_from(a.data, model, 768)
    os.environ["KINDRED_MODELS"] = str(model.parent)
    routes = ("base64", "float", "tei")
    requests = [body(routes[i % 3], model.name, texts[64 * i : 64 * i + 64]) for i in range(len(texts) // 64)]
    with tempfile.TemporaryDirectory() as tmp:
        kindred, flame = os.path.join(tmp, "kindred"), os.path.join(tmp, "flame")
        for binary, package in ((kindred, "./cmd/kindred"), (flame, "./bench/flame")):
            subprocess.run(["go", "build", "-o", binary, package], cwd=ROOT, check=True)
        port, at = free_port(), free_port()
        server = Service([kindred, "serve", "--data", os.path.join(tmp, "data"), "--listen", f"127.0.0.1:{port}", "--pprof", f"127.0.0.1:{at}", "--cache", "0", "--quiet"], port)
        try:
            server.answers(requests[:3])
            over, answered = threading.Event(), []

            def ask():
                while not over.is_set():
                    answered.append(len(server.answers(requests)))

            # Twice as many requests as connections wait, so that none idles between rounds.
            asking = [threading.Thread(target=ask) for _ in range(2)]
            for t in asking:
                t.start()
            time.sleep(1)
            began, before = time.perf_counter(), server.cpu()
            with urllib.request.urlopen(f"http://127.0.0.1:{at}/debug/pprof/profile?seconds={a.seconds}") as r:
                pathlib.Path(tmp, "cpu.pb.gz").write_bytes(r.read())
            took, spent = time.perf_counter() - began, server.cpu() - before
            over.set()
            for t in asking:
                t.join()
        finally:
            server.end()
        found = json.loads(subprocess.run([flame, os.path.join(tmp, "cpu.pb.gz")], check=True, capture_output=True, text=True).stdout)
    result = {
        "what": f"kindred serve while {CONNECTIONS} connections ask for embeddings, 64 texts a request, in base64, as JSON and by text-embeddings-inference's route in turn: whose work the samples of the processors are, and the calls above 0.2 %",
        "seconds": round(took, 1), "processor_seconds_by_the_kernel": round(spent, 1), "shares": found.pop("shares"), **found,
        "cpu": cpu_name(), "cores": os.cpu_count(), "load_average": {"start": load, "end": os.getloadavg()[0]}, "versions": our_versions(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    print(json.dumps(result["shares"]))
    pathlib.Path(a.out).write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
