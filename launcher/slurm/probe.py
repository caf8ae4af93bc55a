"""What `sslrun doctor --launch` runs on the nodes of a job: no training, only what training needs to start.

Standard library alone and of ours meeting.py, which lies beside it, because it must run, and say what is wrong, where
nothing else would:

    python -I -S FOLDER/probe.py batch FOLDER     on the first node: starts the tasks with srun, writes report.json
    python -I -S -c SOURCE task                   one a rank; SOURCE is this file, for nodes that do not see the folder

Rank 0 listens where training would; every rank connects, says who it is, and waits to be let go. One that cannot
connect says so on its standard output instead, which srun carries to the batch script.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import time

ORDER = "SSLRUN_PROBE"  # what a rank is told: in its environment, since everybody on the node may read its command line
SAID = "sslrun-probe:"  # before each line of JSON on the way through srun
PROGRAMS = ("scontrol",)  # what the first node of a job asks Slurm with, and any node may be that
ATTEMPT_SECONDS = 5.0  # to connect once
ATTEMPTS = 3  # after which an address is out of reach; one that refuses only has no listener yet
LONGEST = 2**16  # bytes of what a rank says
PINGS = 8  # a node: the fastest bounds the error of the clocks' offset
WAIT_AFTER_SECONDS = 30.0  # beyond the ranks' own deadline, for srun to end


def main(role: str, folder: str = "") -> int:
    """Exit code 0 when the role was played to its end, whatever it found."""
    if role == "batch":
        return batch(folder)
    order = json.loads(os.environ[ORDER])
    if int(os.environ["SLURM_PROCID"]) == 0 and os.fork():
        return listen(order)  # the other process is rank 0 like any rank
    return task(order)


# -- on the first node -------------------------------------------------------------------------------------------------


def batch(folder: str) -> int:
    """Start the tasks as training's ranks are started, and write down what came of it."""
    import subprocess
    import threading

    with open(f"{folder}/order.json") as file:
        given = json.load(file)
    place = _meet(given)
    order = {
        "folder": folder,
        "token": given["token"],
        "world_size": given["world_size"],
        "seconds": given["seconds"],
        "address": place.pop("address"),
        "port": place.pop("port"),
        "contained": given["contained"],
    }
    with open(__file__) as file:
        source = file.read()
    command = [*given["command"], "-I", "-S", "-c", source, "task"]
    report: dict = {"ranks": [], "clocks": {}, "failures": []}
    began = time.time()
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    told = {**os.environ, **given["environment"], ORDER: json.dumps(order)}
    step = subprocess.Popen(command, env=told, text=True, errors="replace", **pipes)
    said: list[str] = []
    gone: set[int] = set()
    threads = [
        threading.Thread(target=_heed, args=(step.stderr, said, gone)),
        threading.Thread(target=_pass_on, args=(step, gone, order)),
    ]
    for thread in threads:
        thread.start()
    for line in step.stdout:
        _, found, words = line.partition(SAID)
        if found:
            with contextlib.suppress(ValueError):  # torn by a kill
                words = json.loads(words)
                report["clocks"].update(words.pop("clock", {}))
                for kind, what in words.items():
                    report[f"{kind}s"].append(what)
                if "failure" in words:
                    gone.add(words["failure"]["rank"])
    code = step.wait()
    for thread in threads:
        thread.join()
    for rank in report["ranks"]:
        rank["seconds"] = round(rank["seconds"] - began, 3)
    report.update(
        job=os.environ["SLURM_JOB_ID"],
        nodes=os.environ["SLURM_JOB_NODELIST"],
        address=order["address"],
        lacks=lacking(),
        **place,
        wrote=sorted(name[5:] for name in os.listdir(folder) if name.startswith("node-")),
        seconds=round(time.time() - began, 3),
        srun={"code": code, "said": said[-20:]},
    )
    with open(f"{folder}/report.tmp", "w") as file:
        json.dump(report, file)
    os.replace(f"{folder}/report.tmp", f"{folder}/report.json")
    return 0


def _meet(given: dict) -> dict:
    """Where the ranks of a training would meet: {address, port, interfaces}, or {..., apart} where its nodes do not
    reach one another."""
    import subprocess

    sys.path.append(os.path.dirname(__file__))  # where meeting.py lies, too
    import meeting

    def ask(*words: str) -> str:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(["scontrol", "show", *words], capture_output=True, text=True, timeout=30).stdout
        return ""

    with socket.socket() as free:
        free.bind(("", 0))
        here = {"address": "127.0.0.1", "port": free.getsockname()[1]}
    if given["nodes"] == 1:
        return here
    here["address"] = given["environment"].get("MASTER_ADDR") or socket.gethostname()
    nodes = ask("hostnames", os.environ["SLURM_JOB_NODELIST"]).split()
    if not nodes:  # no scontrol, which is said elsewhere
        return here
    names = meeting.names(socket.gethostname(), ask("node", "-o", nodes[0]))
    environment = {**os.environ, **given["environment"]}
    about = {"given": environment, "environment": environment, "patience": given["seconds"]}
    try:
        found = meeting.meet(given["meet"], nodes, names, **about, together=given["seconds"])
    except meeting.Apart as error:
        return {**here, "apart": {"found": str(error), "advice": error.advice or "see the launch above"}}
    return {"address": found.address, "port": found.port, "interfaces": dict(found.interfaces)}


def _heed(stream, said: list[str], gone: set[int]) -> None:
    """Keep what srun says, and which ranks it says have failed: `srun: error: n2: tasks 2-3: Exited with ...`."""
    for line in stream:
        said.append(line.rstrip())
        ended = re.search(r"error: (?:\S+: )?tasks? ([\d,-]+)(?:: | launch failed)", line)
        if ended:
            for part in ended[1].split(","):
                first, _, last = part.partition("-")
                gone.update(range(int(first), int(last or first) + 1))


def _pass_on(step, gone: set[int], order: dict) -> None:
    """Tell rank 0, which is on this node, whom not to wait for, as soon as it listens; end what takes too long."""
    told: set[int] = set()
    end = time.monotonic() + order["seconds"] + WAIT_AFTER_SECONDS
    while step.poll() is None:
        now = set(gone)
        if now - told:
            words = json.dumps({"token": order["token"], "lost": sorted(now)}).encode() + b"\n"
            with contextlib.suppress(OSError), socket.create_connection(("localhost", order["port"]), 1) as line:
                line.sendall(words)
                told = now
        if time.monotonic() > end:
            step.kill()
        time.sleep(0.2)


# -- one a rank --------------------------------------------------------------------------------------------------------


def task(order: dict) -> int:
    """Say who and where this rank is, to rank 0 or, where that cannot be reached, to srun."""
    me = {
        "token": order["token"],
        "rank": int(os.environ["SLURM_PROCID"]),
        "local_rank": int(os.environ["SLURM_LOCALID"]),
        "node_rank": int(os.environ["SLURM_NODEID"]),
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "sees": _sees(order),
        "lacks": [] if order["contained"] else lacking(),
    }
    try:
        with _connect(order) as connection, connection.makefile("rwb") as stream:
            _send(stream, me)
            while (said := stream.readline()) and said != b"go\n":
                _send(stream, {"time": time.time()})
            return 0
    except OSError as error:
        failure = {name: me[name] for name in ("node", "rank", "sees", "lacks")} | {"reason": _reason(error)}
        _say({"failure": failure})
        return 1


def lacking() -> list[str]:
    """What this node lacks; in a container there is none of it, and nobody asks Slurm."""
    return [name for name in PROGRAMS if not shutil.which(name)]


def _sees(order: dict) -> str:
    """ "" when the folder holds what the submitter left there, and this node can write to it; else what is wrong."""
    folder = order["folder"]
    for _ in range(3):
        try:
            with open(f"{folder}/token") as file:
                if file.read() != order["token"]:
                    return "another folder of that name"
            if os.environ["SLURM_LOCALID"] == "0":
                with open(f"{folder}/node-{os.environ.get('SLURMD_NODENAME') or socket.gethostname()}", "w") as file:
                    file.write(order["token"])
            return ""
        except OSError as error:
            wrong = error.strerror
            time.sleep(0.5)  # a network file system may be a moment behind
    return wrong


def _connect(order: dict) -> socket.socket:
    deadline, failed = time.monotonic() + order["seconds"], 0
    while True:
        try:
            connection = socket.create_connection((order["address"], order["port"]), ATTEMPT_SECONDS)
            connection.settimeout(order["seconds"] + WAIT_AFTER_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except OSError as error:
            failed += not isinstance(error, ConnectionRefusedError)
            if failed >= ATTEMPTS or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


# -- rank 0 ------------------------------------------------------------------------------------------------------------


def listen(order: dict) -> int:
    """Take every rank's word until all have come or the time is up, compare the clocks, let them go, and report."""
    import resource
    import selectors

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one connection a rank
    server = socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
    with contextlib.suppress(OSError, AttributeError):
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", order["port"]))
    except OSError as error:
        who = {"node": socket.gethostname(), "rank": 0, "sees": "", "lacks": []}
        _say({"failure": {**who, "reason": f"cannot listen: {error}"}})
        return 1
    server.listen(order["world_size"])
    ready = selectors.DefaultSelector()
    ready.register(server, selectors.EVENT_READ)
    ranks, streams, lost, heard = [], {}, set(), {}
    deadline = time.monotonic() + order["seconds"] + 2 * ATTEMPT_SECONDS
    while len({*streams, *lost}) < order["world_size"] and (left := deadline - time.monotonic()) > 0:
        for key, _ in ready.select(left):
            if key.fileobj is server:
                try:
                    connection, _ = server.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                except OSError:  # too many have connected: who was silent for longest goes
                    for oldest in list(heard)[:1]:
                        ready.unregister(oldest)
                        del heard[oldest]
                        oldest.close()
                    continue
                connection.settimeout(ATTEMPT_SECONDS)
                ready.register(connection, selectors.EVENT_READ)
                heard[connection] = b""
                continue
            if key.fileobj not in heard:
                continue
            part = b""
            with contextlib.suppress(OSError):
                part = key.fileobj.recv(LONGEST)
            line = heard[key.fileobj] = heard[key.fileobj] + part
            if part and b"\n" not in line and len(line) < LONGEST:  # nobody is waited for in the middle of a line
                continue
            ready.unregister(key.fileobj)
            del heard[key.fileobj]
            said = _word(line, order)
            if said is None:  # anybody may connect
                key.fileobj.close()
            elif "lost" in said:
                lost.update(said["lost"])
            else:
                ranks.append({**said, "seconds": time.time()})
                streams[said["rank"]] = key.fileobj.makefile("rwb")
    clocks = {}
    for rank in sorted(ranks, key=lambda rank: rank["rank"]):
        if rank["local_rank"] == 0:
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                clocks[rank["node"]] = _offset(streams[rank["rank"]])
    for stream in streams.values():
        with contextlib.suppress(OSError):
            stream.write(b"go\n")
            stream.flush()
    _say(*({"rank": rank} for rank in ranks), *({"clock": {node: offset}} for node, offset in clocks.items()))
    return 0


def _word(line: bytes, order: dict) -> "dict | None":
    """What a task of ours said: {rank, node, local_rank, ...}, or {lost: [rank, ...]}. None: it is not one of ours."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.pop("token", None) != order["token"]:
        return None
    ranks = said.get("lost", [said.get("rank"), said.get("local_rank")])
    if not isinstance(ranks, list) or any(type(rank) is not int for rank in ranks):
        return None
    if not set(ranks) <= set(range(order["world_size"])) or not isinstance(said.get("node", ""), str):
        return None
    return said if "lost" in said or "node" in said else None


def _offset(stream) -> tuple[float, float]:
    """(seconds that the other clock is ahead, how far off that may be): half the quickest round trip."""
    best = None
    for _ in range(PINGS):
        sent, before = time.time(), time.perf_counter()
        stream.write(b"ping\n")
        stream.flush()
        there = json.loads(stream.readline(LONGEST))["time"]
        trip = time.perf_counter() - before
        if best is None or trip / 2 < best[1]:
            best = (there - sent - trip / 2, trip / 2)
    return best


# -- words -------------------------------------------------------------------------------------------------------------


def _send(stream, words: dict) -> None:
    stream.write(json.dumps(words).encode() + b"\n")
    stream.flush()


def _say(*words: dict) -> None:
    """To the batch script. Short lines: srun mixes those of different ranks, but only long ones in their middle."""
    sys.stdout.write("".join(f"\n{SAID}{json.dumps(word)}\n" for word in words))
    sys.stdout.flush()


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved there"
    if isinstance(error, TimeoutError):
        return "no answer"
    return (error.strerror or str(error)).lower()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
