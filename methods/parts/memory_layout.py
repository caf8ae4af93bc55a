"""How queues of keys (`memory.py`) and banks by sample id (`bank.py`) lie on the ranks of a world; what a spec says of
them. No torch."""

from launcher.spec.fields import refuse
from launcher.spec.schema import TrainConfig


def check_queue(config: TrainConfig, name: str = "queue") -> None:
    """Raises InputError where the field `name`, a length in keys, is no multiple of the global batch: then the oldest
    keys would not be those of a step (released code of MoCo, K % global batch)."""
    length, batch = getattr(config, name), config.global_batch
    if length < 1 or length % batch:
        below = length // batch * batch
        fix = f"use {below} or {below + batch}" if below > 0 else f"use at least {batch}"
        refuse(config, name, f"no multiple of the global batch of {batch}", fix)


def part_of_bank(samples: int, parts: int, number: int) -> range:
    """The sample ids that part `number` of a bank holds: parts differ by one at most, and lie one after the other.

    >>> [len(part_of_bank(10, 4, number)) for number in range(4)]
    [2, 3, 2, 3]
    """
    return range(number * samples // parts, (number + 1) * samples // parts)


def parts_of_rank(parts: int, rank: int, world_size: int) -> range:
    """The parts that a rank holds: neighbours, of which ranks have equally many, or differ by one. Raises ValueError
    where there are fewer parts than ranks."""
    if parts < world_size:
        raise ValueError(f"parts={parts}: fewer than the {world_size} ranks; give a part to each")
    return range(rank * parts // world_size, (rank + 1) * parts // world_size)


def share_of_bank(samples: int, parts: int, rank: int, world_size: int) -> range:
    """The sample ids that a rank holds. Raises ValueError as `parts_of_rank`.

    >>> [share_of_bank(10, 4, rank, 2) for rank in range(2)]
    [range(0, 5), range(5, 10)]
    """
    own = parts_of_rank(parts, rank, world_size)
    return range(part_of_bank(samples, parts, own[0]).start, part_of_bank(samples, parts, own[-1]).stop)


def bank_bytes(samples: int, row_bytes: int, *, parts: int, world_size: int) -> int:
    """What a bank takes on the rank with the largest share: for each of its rows, and one more for what belongs to
    others, `row_bytes`, and one to tell whether it was put.

    >>> bank_bytes(1_281_167, 2 * 128 * 4, parts=64, world_size=64) / 1e6  # MB of DeepCluster-v2's two embeddings
    20.5205
    """
    shares = (len(share_of_bank(samples, parts, rank, world_size)) for rank in range(world_size))
    return (max(shares) + 1) * (row_bytes + 1)
