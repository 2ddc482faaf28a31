"""A limit of memory for child processes: the kernel's where a memory cgroup can be made
(as root, version 1 or 2). There, a process above it is killed, and what counts is its
own memory and the page cache of the files that it is the first to read. Elsewhere only
the resident peak of each process is compared with the limit, after it has ended."""
import os, pathlib


class Limit:
    def __init__(self, limit):
        self.limit, self.dir, self.kind = limit, None, "none: no cgroup could be made, so resident peaks were compared with the limit afterwards"
        for base, most, now, peak, kind in (
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "cgroup version 1, memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max", "memory.current", "memory.peak", "cgroup version 2, memory.max"),
        ):
            path = pathlib.Path(base) / f"kindred-edge-{os.getpid()}"
            try:
                path.mkdir()
            except OSError:
                continue
            try:
                (path / most).write_text(str(limit))
                (path / peak).read_text()
                self.dir, self.now_file, self.peak_file, self.kind = path, path / now, path / peak, kind
                return
            except OSError:
                path.rmdir()

    def enter(self):
        """Runs in a child before it becomes another program."""
        if self.dir:
            (self.dir / "cgroup.procs").write_text(str(os.getpid()))

    def mb(self, what):
        """"now" or "peak" of all processes with the page cache, None without a cgroup."""
        if not self.dir:
            return None
        return round(int((self.now_file if what == "now" else self.peak_file).read_text()) / 1e6)

    def own_mb(self):
        """What the processes hold without the page cache, which the kernel takes back."""
        if not self.dir:
            return None
        found = dict(line.split() for line in (self.dir / "memory.stat").read_text().splitlines())
        return round(int(found.get("total_rss", found.get("anon", 0))) / 1e6)

    def killed(self):
        """How many processes the kernel has killed here."""
        if not self.dir:
            return None
        for name in ("memory.oom_control", "memory.events"):
            if (self.dir / name).exists():
                return int(dict(line.split() for line in (self.dir / name).read_text().splitlines()).get("oom_kill", 0))
        return None

    def close(self):
        if self.dir:
            self.dir.rmdir()
