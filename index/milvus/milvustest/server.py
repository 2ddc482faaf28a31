"""A real Milvus for tests, without containers: server.py start DIR | stop DIR.

start installs the PyPI package into DIR once (it brings the server's binary), writes a
configuration with free ports, starts the server in the background and prints its
address when it answers. stop ends it and waits. The data stays in DIR: start again
finds it. The package's own starter leaves the server running when it is stopped, and
its embedded etcd takes port 2379 of the machine, so neither is used here.
"""
import json, os, pathlib, signal, socket, subprocess, sys, time, urllib.request

PACKAGE = ["milvus==2.3.5", "setuptools<80"]
PORTS = ["etcd_port", "root_coord_port", "proxy_port", "proxy_internal_port", "query_coord_port", "query_node_port",
         "index_coord_port", "index_node_port", "data_coord_port", "data_node_port", "metrics", "etcd_peer"]
CONFIGURE = """
import json, sys
import milvus
home, ports = sys.argv[1], json.loads(sys.argv[2])
milvus._initialize_data_files(home)
milvus.MilvusServerConfig(data_dir=home, **ports).resolve()
"""


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    for s in socks:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0] != "Z"


def start(home):
    python = home / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGE], check=True)
    data = home / "data"
    saved = home / "ports.json"
    if saved.exists():
        ports = json.loads(saved.read_text())
    else:
        ports = dict(zip(PORTS, free_ports(len(PORTS))))
        own = {k: v for k, v in ports.items() if k not in ("metrics", "etcd_peer")}
        subprocess.run([python, "-c", CONFIGURE, data, json.dumps(own)], check=True)
        etcd = data / "configs/etcd.yaml"
        client, peer = (f"http://127.0.0.1:{ports[k]}" for k in ("etcd_port", "etcd_peer"))
        etcd.write_text(f"name: test\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n"
                        f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: test={peer}\n")
        conf = data / "configs/milvus.yaml"
        text = conf.read_text()
        section = "\netcd:\n"
        if text.count(section) != 1:
            sys.exit(f"{conf} has no section etcd: another version of the package?")
        conf.write_text(text.replace(section, f"{section}  config:\n    path: {etcd}\n"))
        (data / "run").mkdir(exist_ok=True)
        saved.write_text(json.dumps(ports))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MILVUS", "ETCD"))}
    env.update(DEPLOY_MODE="STANDALONE", METRICS_PORT=str(ports["metrics"]), MILVUS_RUN_DIR=str(data / "run"),
               LD_LIBRARY_PATH=f"{data}/bin:{env.get('LD_LIBRARY_PATH', '')}")
    with open(home / "server.log", "ab") as log:
        server = subprocess.Popen([data / "bin/milvus", "run", "standalone"], cwd=data, env=env, stdin=subprocess.DEVNULL,
                                  stdout=log, stderr=log, start_new_session=True)
    (home / "pid").write_text(str(server.pid))
    until = time.time() + 120
    while time.time() < until:
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}; see {home}/server.log")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics']}/healthz", timeout=2) as r:
                if b"OK" in r.read():
                    print(f"127.0.0.1:{ports['proxy_port']}")
                    return
        except OSError:
            pass
        time.sleep(0.3)
    stop(home)
    sys.exit(f"the server was not ready within 120 s; see {home}/server.log")


def stop(home):
    file = home / "pid"
    if not file.exists():
        return
    pid = int(file.read_text())
    if alive(pid):
        os.kill(pid, signal.SIGTERM)
    until = time.time() + 15
    while alive(pid) and time.time() < until:
        time.sleep(0.1)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
    file.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("start", "stop"):
        sys.exit("usage: server.py start|stop DIR")
    folder = pathlib.Path(sys.argv[2]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (start if sys.argv[1] == "start" else stop)(folder)
