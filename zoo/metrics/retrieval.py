"""Retrieval of captions: whether images show what their captions say.

Among 50 captions the one is looked for whose embedding has the largest inner product with that of an image (Xu et al.,
"AttnGAN", 2018, arXiv 1711.10485, call it R-precision, with 100 captions). A retrieval network embeds both: an image
encoder and a text encoder that were trained together. Captions come in a fixed random order, fifty at a time; the last
group is filled up with the first captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.metrics.images import Images

OF = 50  # captions in a group
QUANTILE = 1.959964  # of the normal distribution, for an interval of 95 %


@runtime_checkable
class Matcher(Protocol):
    """An image encoder and a text encoder, for images of a ``resolution``."""

    resolution: int

    def embed_images(self, images: Any) -> Tensor: ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class Retrieval:
    """For each caption whether it was the best of its group. ``hits``: bool [n], for "own", the image of the caption;
    "shuffled", that of another caption of the group; "real", the real image of the caption."""

    hits: Mapping[str, Tensor]

    def share(self, kind: str) -> tuple[float, float]:
        """The share of hits, and its standard error."""
        hits = self.hits[kind].double()
        return hits.mean().item(), hits.std().item() / len(hits) ** 0.5

    def facts(self) -> dict[str, Any]:
        """The number of captions, and the 95 % interval of each share."""
        n = len(self.hits["own"])
        intervals = {
            kind: [round(bound, 4) for bound in wilson(int(hits.sum()), n)] for kind, hits in self.hits.items()
        }
        return {"captions": n, "of": OF, "interval95": intervals}


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of hits among n (Wilson 1927). Raises ValueError if n is below 1."""
    if n < 1:
        raise ValueError(f"n={n}: must be at least 1")
    share, z = hits / n, QUANTILE**2 / n
    middle, half = share + z / 2, QUANTILE * (share * (1 - share) / n + z / (4 * n)) ** 0.5
    return max(0.0, (middle - half) / (1 + z)), min(1.0, (middle + half) / (1 + z))


def retrieve(matcher: Matcher, images: Images, captions: Sequence[str], real: Images) -> Retrieval:
    """The hits of images of captions, and of the real images of the same captions, all in one order.

    Raises ValueError if there are fewer than 50 captions, or not as many images.
    """
    if len(captions) < OF or images.count != len(captions) or real.count != len(captions):
        raise ValueError(
            f"captions: must be at least {OF} with an image each, got {len(captions)} with {images.count} images and "
            f"{real.count} real ones"
        )
    texts = matcher.embed_texts(captions).cpu()
    own, bound = (best_places(embed(matcher, x), texts) for x in (images, real))
    place = torch.arange(len(captions)) % OF
    return Retrieval({"own": own == place, "shuffled": own == (place + 1) % OF, "real": bound == place})


def embed(matcher: Matcher, images: Images) -> Tensor:
    """The embeddings of images, float32 [n, K] on the CPU, after a resize to the matcher's resolution."""
    parts = []
    for x in images.chunks():
        unit, side = x.float() / 255, matcher.resolution
        if x.shape[-1] != side:
            unit = interpolate(unit, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
        parts.append(matcher.embed_images(unit).cpu())
    return torch.cat(parts)


def best_places(images: Tensor, texts: Tensor) -> Tensor:
    """Of each row of ``images`` [n, K] the place in its group of the row of ``texts`` [n, K] with the largest inner
    product, int64 [n]."""
    places = []
    for first in range(0, len(images), OF):
        rows = torch.arange(first, first + OF) % len(images)
        places.append((images[rows].double() @ texts[rows].double().T).argmax(1)[: len(images) - first])
    return torch.cat(places)
