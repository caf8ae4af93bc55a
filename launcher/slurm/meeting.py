"""How the nodes of a job reach one another, found out by a task on each of them (reach.py): an address of the first at
which all of them do, and the network interface of each that leads there.

Standard library alone and no import of ours: the doctor's probe runs it, too.
"""

import contextlib
import queue
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

ADDRESS, PORT, INTERFACES = "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME"  # what the user may have set
FIXES = {
    ADDRESS: "an address of the first node at which the others reach it",
    INTERFACES: "the network interface by which the nodes reach one another",
    PORT: "a port that is free on the first node",
}
ORDER = "SSLRUN_MEETING"  # as reach.py reads it
TOGETHER_SECONDS = 15.0  # from the first task's word until all have begun, where no container is made
TRY_SECONDS = 10.0  # for all the rest, beside what is left of these
HEED_SECONDS = 5.0
HURRY_SECONDS, WAVE_SECONDS = 3.0, 7.0  # for the likeliest address; for others, which are tried all at once
END_SECONDS = 5.0
TICK_SECONDS = 0.5
SAID = re.compile(r"(?P<node>\S+) (?P<verb>has|listens|cannot|reaches|misses) (?P<words>.+)")
FAILED = re.compile(r"error: (?P<node>\S+): tasks? \S+: (?P<how>.+)")
TRIED, NAMED = 16, 5  # of a node's own addresses; of several nodes


@dataclass(frozen=True)
class Meeting:
    """Where ranks meet: `address` and `port` of the first node. The address is a number where all nodes know it by the
    same; `interfaces`: {node: the one that leads there}, empty where that is not known of each."""

    address: str
    port: int
    interfaces: Mapping[str, str]


class Apart(Exception):
    """They do not meet. `why`: {node: half a sentence} of those that are to blame, few among many; `setting`: the
    variable by which a user can mend it, or has spoilt it. begun: whether it was tried at all."""

    def __init__(self, said: str = "", why: Mapping[str, str] | None = None, setting: str = "", begun: bool = True):
        self.why, self.setting, self.begun = dict(why or {}), setting, begun
        super().__init__(said or _listed(self.why))

    @property
    def advice(self) -> str:
        """What the user can do; empty where that is not known."""
        if self.why:
            return "leave these nodes out with cluster.exclude"
        return f"set cluster.environment.{self.setting} to {FIXES[self.setting]}" if self.setting else ""


def names(host: str, said: str) -> list[str]:
    """At which a node may be reached that calls itself `host`, the likeliest first. `said`: of it by scontrol."""
    return [host, *re.findall(r"\bNodeAddr=(\S+)", said)]


def meet(
    command: Sequence[str],
    nodes: Sequence[str],
    names: Sequence[str],
    *,
    given: Mapping[str, str],
    environment: Mapping[str, str],
    patience: float,
    together: float,
    over: Callable[[], bool] = lambda: False,
) -> Meeting:
    """`command` starts reach.py on each of `nodes`, in this `environment`. `names`: at which the first may be reached,
    the likeliest first; `given`: variables that the user has set, which are tried alone. patience: seconds until the
    first task begins; together: from there until all have; over: whether nobody needs it any more. Raises Apart."""
    port, first = given.get(PORT) or "0", nodes[0]
    if not (port.isdecimal() and int(port) < 2**16):
        raise Apart("it is no port", setting=PORT)
    wanted = [name for name in (given.get(INTERFACES) or "").split(",") if name]
    with _Tasks(command, nodes, {**environment, ORDER: f"{first} {port}"}, over) as tasks:
        tasks.begin(patience, together, port != "0")
        for name in wanted:
            lacking = {node: f"has no address at {name}" for node in nodes if name not in tasks.addresses[node]}
            _refuse(lacking, nodes, INTERFACES)
            _refuse(tasks.unreached(dict.fromkeys(nodes, name)), nodes, INTERFACES)
        candidates = [given[ADDRESS]] if given.get(ADDRESS) else [*names, *tasks.own(first)]
        star, trouble = _Star(tasks, first, candidates, nodes), None
        for address, sources in star.found():
            leads = {node: tasks.interface(node, sources[node]) for node in nodes}
            leads = leads if all(leads.values()) else {}
            try:
                _refuse({} if wanted else tasks.unreached(leads), nodes, INTERFACES)
            except Apart as error:
                trouble = trouble or error
            else:
                return Meeting(address, tasks.ports[first], leads)
        trouble = trouble or star.apart()
        if not (trouble.why or given.get(ADDRESS)) and len(nodes) > 2:
            others = _Star(tasks, nodes[1], tasks.own(nodes[1]), nodes[1:])
            if next(others.found(), None):  # so it is not the network
                raise Apart(why={first: f"is not reached, and {nodes[1]} is: {trouble}"})
        raise trouble


def _refuse(why: Mapping[str, str], nodes: Sequence[str], setting: str) -> None:
    """Raises Apart where there is a reason, and blames nodes where those that have none are more."""
    if why:
        raise Apart(_listed(why), _few(why, nodes), setting)


def _few(why: Mapping[str, str], nodes: Sequence[str]) -> Mapping[str, str]:
    """Those that are to blame: none where they are half of `nodes` or more."""
    return why if 2 * len(why) < len(nodes) else {}


def _listed(why: Mapping[str, str]) -> str:
    return _first_few([f"{node} {reason}" for node, reason in why.items()], "; ")


def _first_few(said: Sequence[str], between: str = ", ") -> str:
    return between.join([*said[:NAMED], *([f"and {len(said) - NAMED} more"] if len(said) > NAMED else [])])


class _Tasks:
    """One on each node, and what they have said. `ports`: of each node that listens; `addresses`: of each node,
    {interface: [address, ...]}; `gone`: {node: why} of those from which nothing more will be heard; `answers`: to each
    question {node: (the numeric address, this node's own), or why it was not reached}."""

    def __init__(
        self, command: Sequence[str], nodes: Sequence[str], environment: dict[str, str], over: Callable[[], bool]
    ):
        self.nodes, self._over = nodes, over
        self.ports: dict[str, int] = {}
        self.addresses: dict[str, dict[str, list[str]]] = {node: {} for node in nodes}
        self.gone: dict[str, str] = {}
        self.answers: list[dict[str, tuple[str, str] | str]] = []
        self._asked: list[Sequence[str]] = []
        self._lines: queue.SimpleQueue = queue.SimpleQueue()
        self._heeded = time.monotonic()
        self._left, self._refused, self._last = 0.0, "", "srun has ended"
        environment = {**environment, ORDER: f"{environment[ORDER]} {secrets.token_hex()} {secrets.token_hex()}"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._step = subprocess.Popen(command, env=environment, encoding="utf-8", errors="replace", **pipes)
        threading.Thread(target=self._hear, daemon=True).start()

    def __enter__(self) -> "_Tasks":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._step.stdin.close()  # ends them
        try:
            self._step.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # srun waits for a node that is lost
            self._step.kill()
            self._step.wait()

    def begin(self, patience: float, together: float, port: bool) -> None:
        """Returns once all of them listen. `port`: whether the user has set it. Raises Apart."""
        self._left = patience
        self.wait(lambda: self.ports or self.gone, patience)
        if self.ports or self.gone:
            self._left = together + TRY_SECONDS
            self.wait(lambda: {*self.ports, *self.gone}.issuperset(self.nodes), together)
        if self._refused and port:
            raise Apart(self._refused, setting=PORT, begun=False)
        silent = [node for node in self.nodes if node not in self.ports]
        if silent:
            why = {node: self.gone.get(node, "does not run its Python") for node in silent}
            raise Apart(_listed(why), few := _few(why, self.nodes), begun=bool(few))

    def own(self, node: str) -> list[str]:
        """The first few of its addresses, those last at which it alone can be."""
        found = [address for each in self.addresses[node].values() for address in each]
        return sorted(found, key=lambda address: address == "::1" or address.startswith("127."))[:TRIED]

    def interface(self, node: str, address: str) -> str:
        """Which has it; empty where none does."""
        return next((name for name, found in self.addresses[node].items() if address in found), "")

    def ask(self, address: str, port: int, who: str = "*") -> int:
        """Have all nodes, or this one, knock there. Returns the question's number."""
        self._asked.append(self.nodes if who == "*" else [who])
        self.answers.append({})
        with contextlib.suppress(OSError):  # they have ended
            self._step.stdin.write(f"{who} {len(self._asked) - 1} {port} {' '.join(address.split())}\n")
            self._step.stdin.flush()
        return len(self._asked) - 1

    def answered(self, question: int) -> bool:
        return {*self.answers[question], *self.gone}.issuperset(self._asked[question])

    def missing(self, question: int) -> dict[str, str]:
        """{node: why} of those that did not get there."""
        said = {
            node: self.answers[question].get(node) or self.gone.get(node, "no answer") for node in self._asked[question]
        }
        return {node: why for node, why in said.items() if isinstance(why, str)}

    def unreached(self, interfaces: Mapping[str, str]) -> dict[str, str]:
        """{node: why} of those that are not reached at what these, one a node, are called first: each by the next."""
        asked = {}
        for node, following in zip(self.nodes, [*self.nodes[1:], self.nodes[0]], strict=True):
            if node in interfaces:
                address = self.addresses[node][interfaces[node]][0]
                asked[node] = (self.ask(address, self.ports[node], following), f"{address} ({interfaces[node]})")
        self.wait(lambda: all(self.answered(question) for question, _ in asked.values()), WAVE_SECONDS)
        return {
            node: f"is not reached by {follower} at {address}: {why}"
            for node, (question, address) in asked.items()
            for follower, why in self.missing(question).items()
        }

    def wait(self, until: Callable[[], object], seconds: float) -> None:
        """Hear them `until` that holds, for so many seconds, of which those in which the job is suspended are none.
        Raises Apart where it is over."""
        self._left, seconds = self._left - (left := min(seconds, self._left)), left
        while not until() and seconds > 0:
            began = time.monotonic()
            if began - self._heeded > HEED_SECONDS:
                self._heeded = began
                if self._over():
                    raise Apart("the job is to end")
            with contextlib.suppress(queue.Empty):
                self._take(self._lines.get(timeout=TICK_SECONDS))
            seconds -= min(time.monotonic() - began, 2 * TICK_SECONDS)
        self._left += seconds

    def _hear(self) -> None:
        for line in self._step.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def _take(self, line: str | None) -> None:
        if line is None:
            raise Apart(f"its nodes could not try how they reach one another: {self._last}", begun=False)
        elif (said := SAID.search(line)) and said["node"] in self.nodes:
            node, words = said["node"], said["words"].split()
            match said["verb"]:
                case "has":
                    name, _, address = words[0].rpartition("=")
                    self.addresses[node].setdefault(name, []).append(address)
                case "listens":
                    self.ports[node] = int(words[0])
                case "cannot":
                    self.gone[node] = f"cannot listen: {said['words']}"
                    if node == self.nodes[0]:
                        self._refused = f"{node} {self.gone[node]}"
                case "reaches":
                    self.answers[int(words[0])][node] = (words[1], words[2])
                case "misses":
                    self.answers[int(words[0])][node] = " ".join(words[1:])
        elif line:
            print(line, flush=True)
            self._last = line
            if (failed := FAILED.search(line)) and failed["node"] in self.nodes:
                self.gone.setdefault(failed["node"], f"does not run its Python: {failed['how'].lower()}")


class _Star:
    """All nodes knock at the `first`, at each of `candidates`."""

    def __init__(self, tasks: _Tasks, first: str, candidates: Sequence[str], nodes: Sequence[str]):
        self._tasks, self._first, self._nodes = tasks, first, nodes
        self._candidates = list(dict.fromkeys(candidates))
        self._asked: dict[str, int] = {}  # address -> question

    def found(self) -> Iterator[tuple[str, dict[str, str]]]:
        """(address, {node: from which of its own it got there}) of those at which all got there."""
        tasks, told = self._tasks, set()
        wave, others = self._candidates[:1], self._candidates[1:]
        seconds = HURRY_SECONDS if others else WAVE_SECONDS

        def new() -> list[str]:
            everybody = (number for number, sources in self._reached().items() if {*sources} >= {*self._nodes})
            return [number for number in everybody if number not in told]

        while wave:
            for address in wave:
                self._asked[address] = tasks.ask(address, tasks.ports[self._first])
            heard = True
            while heard:
                tasks.wait(lambda: new() or all(map(tasks.answered, self._asked.values())), seconds)
                heard = new()
                for number in heard:
                    told.add(number)
                    yield number, self._reached()[number]
            # A name may be another number to each of them.
            wave = [address for address in (*others, *self._reached()) if address not in self._asked]
            others, seconds = [], WAVE_SECONDS
        for name, question in self._asked.items():
            if not self._missing(question) and name not in told:
                yield name, {node: tasks.answers[question][node][1] for node in self._nodes}

    def apart(self) -> Apart:
        """What there is to say where nothing was found."""
        missing = {address: self._missing(question) for address, question in self._asked.items()}
        best = min(missing, key=lambda address: len(missing[address]))
        if few := _few(missing[best], self._nodes):
            said = f"does not reach {self._first} at {best}"
            return Apart(why={node: f"{said}: {why}" for node, why in few.items()}, setting=ADDRESS)
        tried = _first_few([f"{address} ({next(iter(why.values()))})" for address, why in missing.items()])
        reach = "do not reach" if len(missing[best]) > 1 else "does not reach"
        return Apart(f"{_first_few([*missing[best]])} {reach} {self._first} at {tried}", setting=ADDRESS)

    def _missing(self, question: int) -> dict[str, str]:
        return {node: why for node, why in self._tasks.missing(question).items() if node in self._nodes}

    def _reached(self) -> dict[str, dict[str, str]]:
        """{numeric address: {node: from which of its own}}"""
        found: dict[str, dict[str, str]] = {}
        for question in self._asked.values():
            for node, answer in self._tasks.answers[question].items():
                if not isinstance(answer, str):
                    found.setdefault(answer[0], {})[node] = answer[1]
        return found
