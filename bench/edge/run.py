"""A small machine: customers with columns and a text each, imported, searched, made into
an audience and served again after a restart, by one static binary that is told
--memory 512MB, below a limit of as much.

    python run.py            # writes ../results/edge.json

limit.py says whose the limit is. Customers are made up, from a fixed seed; every text
is different. --threads is held against the processor time that the kernel counts:
an import with --threads 1 may take no more of it than time passes. One with all cores
beside it shows that the work would have spread; on a busy machine it does not, and the
result says that nothing was shown.
"""
import argparse, csv, json, os, pathlib, random, signal, subprocess, sys, tempfile, time, urllib.error, urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from limit import Limit  # noqa: E402
from machine import ROOT, cpu_name, free_port, our_versions  # noqa: E402

WHO = "a young mother|a retired teacher|a student|a baker with two shops|a nurse on night shifts|a family of five|a software engineer|a gardener|a chef|a couple without children".split("|")
DOES = "sails every weekend|buys coffee every second week|returned three of five purchases|asks for invoices|prefers e-mail over calls|collects vintage records|grows tomatoes|runs marathons|cooks vegan food|travels to Norway each summer|paints small landscapes|plays chess online".split("|")
SAYS = "delivery was quick|the jacket runs small|the app crashed twice|great product|too expensive lately|would order again|support was friendly|the parcel was wet".split("|")
SEEDS = 300  # at most; half of their kind is left to be found


def make(path, customers):
    """Writes a file of customers and returns the ids of those who sail."""
    rng, sailors = random.Random(5), []
    with open(path, "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["id", "age", "spend", "city", "note"])
        for i in range(customers):
            does = rng.choice(DOES)
            if does.startswith("sails"):
                sailors.append(f"c{i:07d}")
            out.writerow([f"c{i:07d}", rng.randint(18, 90), f"{rng.expovariate(1 / 200):.2f}", rng.choice(["Leeds", "Oslo", "Bath", "York"]), f"{rng.choice(WHO)} {does}, {rng.choice(SAYS)}, order {i}"])
    return sailors


class Machine:
    """The binary below the limit; steps is what the result says of each run of it."""

    def __init__(self, a, tmp):
        self.a, self.tmp, self.limit, self.steps, self.running = a, tmp, Limit(a.memory * 1_000_000), {}, None
        self.binary = str(tmp / "kindred")
        subprocess.run(["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", self.binary, "./cmd/kindred"], cwd=ROOT, env={**os.environ, "CGO_ENABLED": "0"}, check=True)

    def start(self, *args, data="data", threads=None):
        self.began = time.perf_counter()
        more = ["--threads", str(threads)] if threads else []
        with open(self.tmp / "log", "w") as log:
            self.running = subprocess.Popen([self.binary, *args, "--data", str(self.tmp / data), "--memory", f"{self.a.memory}MB", "--precision", self.a.precision, "--quiet", *more],
                                    cwd=self.tmp, stdout=subprocess.DEVNULL, stderr=log, preexec_fn=self.limit.enter)
        return self.running

    def close(self):
        if self.running and self.running.returncode is None:
            self.running.kill()
            self.running.wait()
        self.limit.close()

    def end(self, name, process):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - self.began
        self.steps[name] = {"seconds": round(took, 1), "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1), "resident_peak_mb": round(usage.ru_maxrss * 1024 / 1e6)}
        if process.returncode:
            sys.exit(f"edge: {name} ended with {process.returncode}; killed by the kernel: {self.limit.killed()}; it said: {self.said()}")
        if usage.ru_maxrss * 1024 > self.limit.limit:
            sys.exit(f"edge: {name} took {usage.ru_maxrss >> 10} MiB, the limit is {self.a.memory} MB")
        print(name, self.steps[name], flush=True)
        return round((usage.ru_utime + usage.ru_stime) / took, 2)

    def said(self):
        return (self.tmp / "log").read_text()[-2000:]


class Served:
    """kindred serve; ready_seconds is from its start to the first answer from customers."""

    def __init__(self, machine):
        self.machine, port = machine, free_port()
        self.at = f"http://127.0.0.1:{port}/v1/collections/shop"
        self.process = machine.start("serve", "--listen", f"127.0.0.1:{port}", "--min-audience", "1")
        while True:
            try:
                self.customers = self.ask("")["customers"]
                break
            except (ConnectionError, urllib.error.URLError):
                if self.process.poll() is not None:
                    sys.exit(f"edge: the server ended: {machine.said()}")
                time.sleep(0.05)
        self.ready_seconds = round(time.perf_counter() - machine.began, 2)

    def ask(self, path, body=None):
        request = urllib.request.Request(self.at + path, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as r:
                return json.loads(r.read())
        except urllib.error.HTTPError as e:
            sys.exit(f"edge: {path}: {e.code} {e.read().decode()[:500]}")

    def audience(self, sailors, customers):
        body = {"name": "sailors", "seeds": {"ids": sailors[: min(SEEDS, len(sailors) // 2)]}, "size": {"count": customers // 20}}
        self.ask("/audiences", body)
        while True:
            state = self.ask("/audiences/sailors")
            if state["state"] == "done":
                return
            if state["state"] not in ("queued", "running"):
                sys.exit(f"edge: the audience is {state}")
            time.sleep(0.2)

    def questions(self, rounds):
        """Answers to each kind of question, and milliseconds."""
        answers, took = [], {"search": [], "similar": []}
        for i in range(rounds):
            for kind, body in (("search", {"text": f"goes sailing on the {i}th", "limit": 10, "fields": ["city"]}),
                               ("similar", {"positive": [f"c{17 * i:07d}", f"c{29 * i + 1:07d}"], "limit": 10})):
                began = time.perf_counter()
                hits = self.ask("/" + kind, body)["hits"]
                took[kind].append(1e3 * (time.perf_counter() - began))
                if len(hits) != 10:
                    sys.exit(f"edge: {kind} found {len(hits)}, want ten: {body}")
                answers.append([(h["id"], h["score"]) for h in hits])
        return answers, {k: {"median": round(sorted(t)[len(t) // 2], 1), "max": round(max(t), 1)} for k, t in took.items()}

    def end(self, name):
        self.process.send_signal(signal.SIGTERM)
        self.machine.end(name, self.process)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--customers", type=int, default=100_000)
    p.add_argument("--memory", type=int, default=512, help="MB of a million bytes")
    p.add_argument("--model", default="all-MiniLM-L6-v2")
    p.add_argument("--precision", default="int16")
    p.add_argument("--rounds", type=int, default=50, help="of questions")
    p.add_argument("--thread-customers", type=int, default=3000, help="to import on one core and on all")
    p.add_argument("--out", default=str(ROOT / "bench/results/edge.json"))
    a = p.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        sailors = make(tmp / "customers.csv", a.customers)
        make(tmp / "few.csv", a.thread_customers)
        machine = Machine(a, tmp)
        try:
            columns = ("--type", "note=text", "--model", a.model)
            machine.end("import", machine.start("import", "shop", "customers.csv", *columns))
            served = Served(machine)
            if served.customers != a.customers:
                sys.exit(f"edge: {served.customers} customers after the import, want {a.customers}")
            before, took = served.questions(a.rounds)
            began = time.perf_counter()
            served.audience(sailors, a.customers)
            lookalike = round(time.perf_counter() - began, 1)
            first = served.ask("/audiences/sailors/members?limit=1000")["members"]
            if not first or served.ask("/audiences/sailors")["size"] != a.customers // 20:
                sys.exit("edge: the audience is not of the size asked for")
            inside = len(set(sailors) & {m["id"] for m in first}) / len(first)
            served.end("serve: search, similar, lookalike")
            served = Served(machine)
            ready, own = served.ready_seconds, machine.limit.own_mb()
            after, _ = served.questions(a.rounds)
            if after != before or served.ask("/audiences/sailors/members?limit=1000")["members"] != first:
                sys.exit("edge: the answers after a restart are others")
            served.end("restart")
            threads = {}
            for n in (1, os.cpu_count()):
                threads[str(n)] = machine.end(f"import of {a.thread_customers} with --threads {n}", machine.start("import", "shop", "few.csv", *columns, data=f"data{n}", threads=n))
                if threads[str(n)] > n + 0.1:
                    sys.exit(f"edge: --threads {n} took {threads[str(n)]} cores")
            size, peak, killed = os.path.getsize(machine.binary), machine.limit.mb("peak"), machine.limit.killed()
        finally:
            machine.close()
    if killed:
        sys.exit(f"edge: the kernel killed {killed} processes")
    result = {
        "what": "a static binary with a small model and customers of columns and a text each, below a limit of memory: import, search, similar, lookalike, restart",
        "customers": a.customers, "model": a.model, "precision": a.precision, "limit_mb": a.memory, "limit_by": machine.limit.kind,
        "peak_mb_with_page_cache": peak, "own_mb_after_restart": own, "killed_by_the_kernel": killed, "steps": machine.steps,
        "questions_ms": took, "lookalike_seconds": lookalike, "lookalike_first_thousand_of_the_kind": round(inside, 3), "ready_after_restart_seconds": ready,
        "cores_taken_by_threads": threads, "threads_shown": threads[str(os.cpu_count())] > 1.2, "binary_mb": round(size / 1e6, 1),
        "cpu": cpu_name(), "cores": os.cpu_count(), "load_average": {"start": load, "end": os.getloadavg()[0]}, "versions": our_versions(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    print(json.dumps(result))
    pathlib.Path(a.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
