"""Text encoders without weights: a hashed bag of words and character n-grams.

Weinberger, Dasgupta, Langford, Smola, Attenberg, "Feature Hashing for Large Scale Multitask Learning", 2009, arXiv
0902.2206; character n-grams of words as in Bojanowski, Grave, Joulin, Mikolov, "Enriching Word Vectors with Subword
Information", 2017, arXiv 1607.04606. The hash is BLAKE2, so that a text has the same vector on every machine.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.registry import NETWORKS

PLACES = 4  # of a word or an n-gram in the vector, each with a sign: a sparse random projection


@NETWORKS.register("hashed-text-encoder")
class HashedTextEncoder(nn.Module):
    """A list of N strings -> float32 [N, width], on the CPU. It has no weights, so that a recipe's Pretrained of it
    needs no source.

    The mean of the bag of words and that of the n-grams, each of length 1, stretched to the length sqrt(width), so that
    an entry has a variance of about 1; an empty text is 0. Lower and upper case are equal.

    Args:
        width: numbers of a vector.
        shortest, longest: letters of the n-grams of a word, its two ends counted as letters; longest=0: words alone.
    """

    def __init__(self, width: int = 256, shortest: int = 3, longest: int = 5):
        super().__init__()
        if width < 1 or (longest and not 1 <= shortest <= longest):
            raise ValueError(
                f"width={width}, shortest={shortest}, longest={longest}: must be a width of at least 1 and n-grams of "
                "1 <= shortest <= longest letters, or longest=0"
            )
        self.width, self.shortest, self.longest = width, shortest, longest

    def forward(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([self._embed(text) for text in texts], device="cpu").view(-1, self.width)

    def _embed(self, text: str) -> list[float]:
        """The vector of one text, ``width`` numbers."""
        words = re.findall(r"\w+", text.lower())
        grams = [
            f"<{word}>"[first : first + n]
            for word in words
            for n in range(self.shortest, self.longest + 1)
            for first in range(len(word) + 3 - n)
        ]
        bags = [unit(self._bag(kind, items)) for kind, items in (("word", words), ("gram", grams))]
        return [value * self.width**0.5 for value in unit([sum(values) for values in zip(*bags, strict=True)])]

    def _bag(self, kind: str, items: Sequence[str]) -> list[float]:
        """The sum of the items' vectors."""
        bag = [0.0] * self.width
        for item in items:
            for place, sign in places(kind, item, self.width):
                bag[place] += sign
        return bag


def unit(values: Sequence[float]) -> list[float]:
    """The vector at the length 1; 0 if it is 0."""
    length = math.sqrt(sum(value * value for value in values))
    return [value / length if length else 0.0 for value in values]


@functools.lru_cache(maxsize=1 << 16)
def places(kind: str, item: str, width: int) -> tuple[tuple[int, int], ...]:
    """The places of a word or an n-gram in a vector of ``width`` numbers, and the sign of each."""
    digest = hashlib.blake2b(f"{kind} {item}".encode(), digest_size=8 * PLACES).digest()
    numbers = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, len(digest), 8)]
    return tuple((number // 2 % width, 1 - 2 * (number % 2)) for number in numbers)
