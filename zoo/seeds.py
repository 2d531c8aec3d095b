"""Seeds: one hash from a place in a run to the seed of its generator."""

from __future__ import annotations

import hashlib


def seed_for(seed: int, *position: int | str) -> int:
    """A 63-bit seed for a place in a run: ``seed_for(seed, "round", 7)``. All randomness of a round comes from such
    seeds, so that a resumed run needs no generator's state and ranks can agree or differ by name."""
    text = repr((seed, *position)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
