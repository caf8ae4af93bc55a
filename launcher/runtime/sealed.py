"""Where the ranks of a start meet over the network: a store whose values only these ranks can write and read.

torch's TCPStore takes values from whoever reaches its port. Here each value travels encrypted, with a proof over it and
its key, both made with the secret of the start, which lies in the run's folder for its user alone: what somebody else
put there is noticed before it is used, and what NCCL's ranks recognise one another by is not read by others.
"""

import datetime
import hashlib
import hmac
import os
from collections.abc import Sequence

import torch.distributed as dist

from launcher.errors import RunFailed

PROOF_BYTES = 32


def proof(secret: bytes, *words: object) -> bytes:
    """PROOF_BYTES bytes about `words` that nobody can make without the secret (HMAC-SHA256, RFC 2104)."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    # With their lengths, so that no other words are joined to the same bytes.
    return hmac.digest(secret, b"".join(len(part).to_bytes(8) + part for part in parts), "sha256")


def stranger(what: str) -> RunFailed:
    """The error for what no rank of this start can have said."""
    who = f"rank {os.environ.get('RANK', 0)} on {os.uname().nodename}"
    return RunFailed(f"{who}: {what} does not come from a rank of this start; another process takes part in it")


class SealedStore(dist.Store):
    """`store`, of which values are sealed with `secret`. Raises RunFailed where one was not. Counters are as they are:
    nothing is decided by them."""

    def __init__(self, store: dist.Store, secret: bytes):
        super().__init__()
        self._store, self._secret = store, secret
        self._clones: list[SealedStore] = []  # C++ holds its half of them, and needs this one

    def set(self, key: str, value: bytes) -> None:
        self._store.set(key, self._sealed(key, value))

    def get(self, key: str) -> bytes:
        return self._opened(key, self._store.get(key))

    def multi_set(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        self._store.multi_set(keys, [self._sealed(*each) for each in zip(keys, values, strict=True)])

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        return [self._opened(*each) for each in zip(keys, self._store.multi_get(keys), strict=True)]

    def compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        before = self._sealed(key, expected) if expected else b""  # the same value is always sealed alike
        return self._opened(key, self._store.compare_set(key, before, self._sealed(key, desired)))

    def add(self, key: str, amount: int) -> int:
        return self._store.add(key, amount)

    def check(self, keys: Sequence[str]) -> bool:
        return self._store.check(keys)

    def wait(self, keys: Sequence[str], *timeout: datetime.timedelta) -> None:
        self._store.wait(keys, *timeout)

    def delete_key(self, key: str) -> bool:
        return self._store.delete_key(key)

    deleteKey = delete_key  # as C++ calls it

    def has_extended_api(self) -> bool:
        return self._store.has_extended_api()

    def clone(self) -> dist.Store:
        self._clones.append(SealedStore(self._store.clone(), self._secret))
        self._clones[-1].set_timeout(self.timeout)
        return self._clones[-1]

    def _sealed(self, key: str, value: bytes) -> bytes:
        tag = proof(self._secret, key, value)
        return tag + self._masked(tag, value)

    def _opened(self, key: str, sealed: bytes) -> bytes:
        tag = sealed[:PROOF_BYTES]
        value = self._masked(tag, sealed[PROOF_BYTES:])
        if not hmac.compare_digest(tag, proof(self._secret, key, value)):
            raise stranger(f"{key} in the store where ranks meet")
        return value

    def _masked(self, tag: bytes, value: bytes) -> bytes:
        """XOR with a stream that follows from secret and tag (SHAKE256, FIPS 202): encrypts, and decrypts again."""
        stream = hashlib.shake_256(proof(self._secret, "mask", tag)).digest(len(value))
        return bytes(a ^ b for a, b in zip(value, stream, strict=True))
