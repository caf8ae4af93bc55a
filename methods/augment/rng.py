"""The randomness of the data: a function of (seed, epoch, sample, view), so that no worker has a state to lose."""

import numpy as np
from numpy.random.bit_generator import ISeedSequence


def view_rng(seed: int, epoch: int, sample: int, view: int = 0) -> np.random.Generator:
    """The random stream of one view of one sample in one epoch; each argument from 0 to 2^64 - 1.

    Philox (Salmon et al. 2011) is a bijection of a 256-bit counter under a 128-bit key. The key is (seed, epoch); the
    counter's upper half is (sample, view) and its lower half, 0 at first, counts the blocks drawn. Streams of one epoch
    therefore cannot meet before 2^128 blocks, and different keys are different ciphers.
    """
    counter = np.array([0, 0, sample, view], np.uint64)  # least significant word first
    return np.random.Generator(np.random.Philox(_Key(np.array([seed, epoch], np.uint64)), counter=counter))


class _Key(ISeedSequence):
    """Hands Philox its key as it is. `Philox(key=...)` asks the system for entropy first: 14 µs instead of 6."""

    def __init__(self, key: np.ndarray):
        self._key = key

    def generate_state(self, n_words: int, dtype: type = np.uint64) -> np.ndarray:
        return self._key
