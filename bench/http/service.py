"""A server process, and requests to it over a few kept connections."""
import base64, csv, gzip, http.client, json, os, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

CONNECTIONS = 4  # enough that a request always waits
TICK = os.sysconf("SC_CLK_TCK")


def texts_from(data, model, count):
    """So many reviews from all over the file, each within the model's 256 tokens: the
    OpenAI route refuses longer ones."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    with gzip.open(os.path.join(data, "womens_clothing/reviews.csv.gz"), "rt", encoding="utf-8", newline="") as f:
        found = list(dict.fromkeys(r["Review Text"] for r in csv.DictReader(f) if r["Review Text"]))
    found = found[:: max(1, len(found) // (2 * count))]
    fit = [t for t, e in zip(found, tokenizer.encode_batch(found)) if len(e.ids) <= 256]
    if len(fit) < count:
        sys.exit(f"http: {data} has {len(fit)} texts of at most 256 tokens, {count} are wanted")
    return fit[:count]


def body(route, model, texts):
    """The request of a route's name: base64, float, or tei."""
    if route == "tei":
        return "/embed", json.dumps({"inputs": texts}).encode()
    return "/v1/embeddings", json.dumps({"model": model, "input": texts, "encoding_format": route}).encode()


def vectors_in(route, answer):
    if route == "tei":
        return answer
    if route == "float":
        return [d["embedding"] for d in answer["data"]]
    import numpy as np

    return [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in answer["data"]]


class Process:
    """A child whose processor time is known."""

    def __init__(self, command, **more):
        self.command, self.process = command, subprocess.Popen(command, **more)

    def cpu(self):
        """Processor seconds of all its threads so far."""
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def end(self):
        self.process.terminate()
        self.process.wait()


class Service(Process):
    def __init__(self, command, port):
        super().__init__(command, stdout=subprocess.DEVNULL)
        self.port = port
        while True:
            try:
                self.get("/healthz")
                break
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"http: {command[:2]} ended with {self.process.returncode}")
                time.sleep(0.1)
        self.here = threading.local()
        self.pool = ThreadPoolExecutor(CONNECTIONS, initializer=self.connect)

    def connect(self):
        self.here.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        self.here.used = time.monotonic()

    def get(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        c.request("GET", path)
        return c.getresponse().read()

    def post(self, request):
        path, raw = request
        c = self.here.connection
        if time.monotonic() - self.here.used > 60:  # servers drop idle connections; it opens anew
            c.close()
        c.request("POST", path, raw, {"Content-Type": "application/json"})
        r = c.getresponse()
        answer = r.read()
        self.here.used = time.monotonic()
        if r.status != 200:
            raise RuntimeError(f"{path}: {r.status}: {answer[:300]}")
        return answer

    def answers(self, requests):
        return list(self.pool.map(self.post, requests))

    def end(self):
        self.pool.shutdown()
        super().end()
