"""The ranks of one job: who am I, which device, which groups. One process without a launcher is a world of one."""

import contextlib
import datetime
import errno
import hmac
import ipaddress
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlparse

import torch
import torch.distributed as dist

from launcher.runtime.sealed import PROOF_BYTES, SealedStore, proof, stranger

LONGEST_WAIT = datetime.timedelta(minutes=30)  # a k-means pass or a save may keep the others waiting
WATCHED_WAIT = datetime.timedelta(days=30)  # no job is suspended for longer
_groups: list[Any] = []  # that this rank is in
_met: list[dist.Store] = []  # C++ holds its half of a store, and needs this one as long


@dataclass(frozen=True)
class World:
    """This process among the ranks. `control` is a gloo group of its own for votes and small objects; with the `secret`
    of the start the ranks of each new group recognise one another."""

    rank: int
    size: int
    device: torch.device
    control: Any = None
    secret: bytes = field(default=b"", repr=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.control)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value` on every rank, as JSON gives it back: a tuple as a list. Raises TypeError for what JSON has
        no words for; nothing that comes from another rank is ever executed, as a pickle would be."""
        text = _text(value) if self.is_main else torch.empty(0, dtype=torch.uint8)
        if self.size > 1:
            length = torch.tensor([len(text)])
            dist.broadcast(length, src=0, group=self.control)
            text = text if self.is_main else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(text, src=0, group=self.control)
        return _value(text)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, by rank, on every rank, as JSON gives it back; see `broadcast`."""
        text = _text(value)
        if self.size == 1:
            return [_value(text)]
        lengths = [length for (length,) in self._rows([len(text)])]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(text)] = text
        texts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(texts, padded, group=self.control)
        return [_value(text[:length]) for text, length in zip(texts, lengths, strict=True)]

    def overwrite(self, tensor: torch.Tensor) -> None:
        """Make every rank's `tensor`, of one shape and dtype, rank 0's."""
        if self.size > 1:
            wire = tensor.detach().cpu().contiguous()
            dist.broadcast(wire, src=0, group=self.control)
            tensor.detach().copy_(wire)

    def collect(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Every rank's `rows` [n_r, ...], in order of rank, on rank 0; None elsewhere. n_r may differ."""
        if self.size == 1:
            return rows
        counts = [count for (count,) in self._rows([len(rows)])]
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts] if self.is_main else None
        dist.gather(padded, parts, dst=0, group=self.control)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]) if parts else None

    def exchange(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Send parts[r] [n, ...] to rank r; returns what was sent to this rank, in order of the senders."""
        if self.size == 1:
            return parts[0]
        counts = self._rows([len(part) for part in parts])
        incoming = [counts[sender][self.rank] for sender in range(self.size)]
        received = parts[0].new_empty((sum(incoming), *parts[0].shape[1:]))
        dist.all_to_all_single(
            received, torch.cat(list(parts)), incoming, [len(part) for part in parts], group=self.control
        )
        return received

    def _rows(self, row: Sequence[int]) -> list[list[int]]:
        """Every rank's `row` of as many integers, by rank."""
        rows = [torch.empty(len(row), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(rows, torch.tensor(row), group=self.control)
        return [row.tolist() for row in rows]

    def apart(self) -> "World":
        """The same ranks with a control group of its own, for a thread beside the main one. Collective."""
        return self if self.size == 1 else replace(self, control=_recognised(_among_all(), self.secret))

    def group_of(self, ranks: Sequence[Sequence[int]]) -> Any:
        """Partition the world into process groups and return the one that holds this rank; None for a group of one.

        Collective: every rank passes the same partition.
        """
        mine = None
        for members in ranks:
            group = dist.new_group(list(members)) if len(members) > 1 else None
            if group is not None and self.rank in members:
                mine = _recognised(group, self.secret)
                _groups.append(mine)
        return mine


def _text(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(text: torch.Tensor) -> Any:
    return json.loads(text.numpy().tobytes())


def init(rendezvous: str | None = None, secret: bytes = b"") -> World:
    """Join the ranks as the environment says: RANK, WORLD_SIZE, LOCAL_RANK.

    rendezvous: the file:// where the ranks of one machine meet, in a folder that nobody else can enter; None: they meet
    at MASTER_ADDR and MASTER_PORT, which takes the `secret` of the start. Raises RunFailed where another process takes
    part in it that does not know the secret.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if size == 1:
        return World(rank, size, device)
    store = dist.FileStore(unquote(urlparse(rendezvous).path), size) if rendezvous else _tcp_store(rank, size, secret)
    store.set_timeout(LONGEST_WAIT)
    _met.append(SealedStore(store, secret))
    _met[-1].set_timeout(LONGEST_WAIT)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_met[-1], rank=rank, world_size=size, timeout=LONGEST_WAIT)
    _groups.append(_recognised(dist.group.WORLD, secret))
    return World(rank, size, device, _recognised(_among_all(), secret), secret)


def _among_all() -> Any:
    _groups.append(dist.new_group(backend="gloo"))
    return _groups[-1]


def wait_as_long_as_it_takes() -> None:
    """From now on no rank gives up on another in the groups that there are: each has a watchdog, which ends it where it
    hangs. The clocks by which gloo and NCCL give up run on while a job is suspended, and end ranks that come back."""
    # The second is what the first is called in earlier releases.
    change = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    for group in _groups:
        change(WATCHED_WAIT, group)


def _tcp_store(rank: int, size: int, secret: bytes) -> dist.Store:
    if not secret:
        raise ValueError("over a network ranks meet with a secret only: any process can come there")
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    listener = _listener(host, port) if rank == 0 else None
    return dist.TCPStore(host, port, size, rank == 0, LONGEST_WAIT, wait_for_workers=False, master_listen_fd=listener)


def _listener(host: str, port: int) -> int | None:
    """Rank 0's socket at the address `host`. None where that is a name, which other nodes may know as another of this
    node's networks, or an address that something in front of this machine has: then rank 0 listens at all of them."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return None
    try:
        return socket.create_server((host, port), family=family, backlog=socket.SOMAXCONN).detach()
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        raise


def _recognised(group: Any, secret: bytes) -> Any:
    """`group`, once every rank of it has shown every other one that it knows the secret, over the connection between
    them: gloo lets in whoever comes first. Collective; NCCL's ranks know one another by a number from the store."""
    if "gloo" not in dist.get_backend(group):
        return group
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    name = group.group_name  # the same on its ranks; what is said in one group opens no other
    mine = b"".join(proof(secret, name, rank, other) for other in range(size))
    heard = torch.empty(len(mine), dtype=torch.uint8)
    dist.all_to_all_single(heard, torch.frombuffer(bytearray(mine), dtype=torch.uint8), group=group)
    for other, word in enumerate(heard.split(PROOF_BYTES)):
        if not hmac.compare_digest(word.numpy().tobytes(), proof(secret, name, other, rank)):
            raise stranger(f"what rank {dist.get_global_rank(group, other)} says")
    return group


def shutdown() -> None:
    """Leave the process group. A rank that fails must not wait for the others here."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
        _met.clear()
        _groups.clear()


class Vote:
    """All ranks stop together: an all-reduce of a small number that nobody waits for, read one step later.

    `cast(code)` starts this step's vote and returns the previous one's outcome: the largest code of any rank.
    """

    def __init__(self, world: World):
        self._world = world
        self._pending: tuple[torch.Tensor, Any] | None = None

    def cast(self, code: int) -> int:
        outcome = self.settle()
        ballot = torch.tensor([code], dtype=torch.int32)
        alone, group = self._world.size == 1, self._world.control
        work = None if alone else dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=group, async_op=True)
        self._pending = (ballot, work)
        return outcome

    def settle(self) -> int:
        """Wait for the vote under way and return its outcome."""
        if self._pending is None:
            return 0
        (ballot, work), self._pending = self._pending, None
        if work is not None:
            work.wait()
        return int(ballot.item())

    def now(self, code: int) -> int:
        """Vote and wait: for safe points that are seconds apart, not for training steps."""
        earlier = self.cast(code)
        return max(earlier, self.settle())
