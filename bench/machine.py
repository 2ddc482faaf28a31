"""What the results say of the machine, and what starting a server on it takes."""
import pathlib, platform, socket, subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cpu_name():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def our_versions():
    git = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return {"go": subprocess.run(["go", "version"], capture_output=True, text=True).stdout.split()[2], "commit": git("rev-parse", "--short", "HEAD") + changed}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
