"""Seeds: one hash from a position in a run to the seed of its random generator; and torch's global generators, which
are the caller's. No torch until it is needed."""

from __future__ import annotations

import contextlib
import hashlib
import operator
from collections.abc import Iterator, Sequence

MAX_SEED = (1 << 63) - 1  # of a run


def seed_for(seed: int, *position: int | str) -> int:
    """A 63-bit seed for a position in a run: ``seed_for(seed, "round", 7)``.

    All randomness of a round comes from such seeds: a resumed run needs no state of a generator, and processes get
    equal or different seeds by naming the position.
    """
    text = repr((operator.index(seed), *position)).encode()  # NumPy's integers have another repr
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


@contextlib.contextmanager
def own_random_state(cuda: Sequence[int] = ()) -> Iterator[None]:
    """After the block torch's global generators, of the CPU and of the CUDA devices of these numbers, have their former
    state."""
    from torch import random

    with random.fork_rng(devices=list(cuda)):
        yield
