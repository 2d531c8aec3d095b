"""Seeds: one hash from a position in a run to the seed of its random generator."""

from __future__ import annotations

import hashlib
import operator

MAX_SEED = (1 << 63) - 1  # of a run


def seed_for(seed: int, *position: int | str) -> int:
    """A 63-bit seed for a position in a run: ``seed_for(seed, "round", 7)``.

    All randomness of a round comes from such seeds: a resumed run needs no state of a generator, and processes get
    equal or different seeds by naming the position.
    """
    text = repr((operator.index(seed), *position)).encode()  # NumPy's integers have another repr
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
