"""``shards:PATTERN``: WebDataset tar files, streamed, for what does not fit one machine.

PATTERN is what ``webdataset`` takes: paths with braces, ``data/train-{000..099}.tar``. A sample's image is
its jpg, jpeg, png or webp, its label its ``cls``, its caption its ``txt``. ``shards:PATTERN?classes=1000``
says how many classes the labels have. Every process reads shards of its own: process r of w reads shards r,
r + w, ..., in a new order each pass, through a shuffle buffer. Such a stream can't be resumed exactly: from
a new position it goes on with other images.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts
from zoo.data.folder import options
from zoo.data.images import square, to_array, to_pil
from zoo.data.loader import Loader
from zoo.data.store import ImageData
from zoo.seeds import seed_for

if TYPE_CHECKING:
    import torch

IMAGES = ("jpg", "jpeg", "png", "webp")
BUFFER = 1000  # samples among which a stream is shuffled
CAPTION = 256  # bytes of a caption that are kept


def open_shards(name: str, resolution: int | None) -> ShardData:
    """``shards:PATTERN`` as a stream. ValueError where webdataset is missing or the pattern holds nothing to
    learn from."""
    return ShardData(name, resolution)


class ShardData(ImageData):
    """A stream of samples out of shards. It has no length and no random access."""

    exact = False

    def __init__(self, name: str, resolution: int | None):
        try:
            import webdataset
        except ImportError:
            raise ValueError(f"{name}: reading shards needs webdataset: pip install 'gan-zoo[shards]'") from None
        pattern, chosen = options(name, ("classes",))
        self.name, self.urls = name, webdataset.shardlists.expand_urls(pattern)
        sample = next(self.samples(self.urls), None)
        if sample is None or not any(kind in sample for kind in IMAGES):
            raise ValueError(f"{name}: no sample with an image ({', '.join(IMAGES)}) in its first shard")
        classes = tuple(map(str, range(int(chosen.get("classes", 0)))))
        if classes and "cls" not in sample:
            raise ValueError(f"{name}: classes={len(classes)}, but its samples have no cls")
        keys = ("x", *(("y",) if classes else ()), *(("caption",) if "txt" in sample else ()))
        self.resolution = resolution
        self.resolution = resolution or self.decode(sample, keys)["x"].shape[-1]
        about = f"{len(self.urls)} shards, streamed: the order can't be resumed exactly."
        facts = Facts(name, f"Shards {pattern}", 3, self.resolution, classes, keys, {}, "the user's own", about)
        super().__init__(facts, {}, hashlib.sha256("\n".join(self.urls).encode()).hexdigest())

    def __len__(self) -> int:
        raise TypeError(f"{self.name} is a stream and has no length")

    def samples(self, urls: list[str]) -> Iterator[dict[str, bytes]]:
        """The undecoded samples of some shards, one after the other. OSError where a shard can't be read."""
        import webdataset

        try:
            yield from webdataset.WebDataset(urls, shardshuffle=False, nodesplitter=None, empty_check=False)
        except Exception as error:  # tar, network and pipe errors of many kinds
            raise OSError(f"{self.name}: {' '.join(str(error).split())}") from error

    def decode(self, sample: Mapping[str, bytes], keys: tuple[str, ...]) -> dict[str, Any]:
        """One sample as arrays: "x" uint8 [3, R, R], "y" an integer, "caption" uint8 [256]."""
        import numpy as np
        from PIL import Image

        kind = next((kind for kind in IMAGES if kind in sample), None)
        if kind is None:
            raise OSError(f"{self.name}: sample {sample.get('__key__')} has no image")
        try:
            image = square(to_pil(Image.open(io.BytesIO(sample[kind])), 3), self.resolution)
        except Exception as error:  # Pillow's decoders raise many kinds
            raise OSError(f"{self.name}: image {sample.get('__key__')}.{kind} can't be read: {error}") from error
        row: dict[str, Any] = {"x": to_array(image)}
        if "y" in keys:
            row["y"] = int(sample["cls"])
        if "caption" in keys:
            text = sample.get("txt", b"")[:CAPTION]
            row["caption"] = np.frombuffer(text.ljust(CAPTION, b"\0"), np.uint8)
        return row

    def feed(self, loader: Loader, where: Mapping[str, int] | None, part: tuple[int, int], workers: int) -> ShardFeed:
        """How the loader gets its rows. ValueError where there are fewer shards than processes."""
        if where:
            raise ValueError(f"where {dict(where)}: {self.name} is a stream and can't be filtered")
        urls = self.urls[part[0] :: part[1]]
        if len(urls) < loader.world:
            raise ValueError(f"{self.name}: {len(urls)} shards for {loader.world} processes; each needs one of its own")
        return ShardFeed(self, urls[loader.rank :: loader.world], loader, workers)


class ShardFeed:
    """One process's samples in a shuffled stream, decoded by ``workers`` threads that work ahead."""

    def __init__(self, data: ShardData, urls: list[str], loader: Loader, workers: int):
        self.data, self.urls, self.loader = data, urls, loader
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="zoo-data") if workers else None
        self.due: int | None = None  # the position that the stream has reached
        self.stream: Iterator[dict[str, Any]] = iter(())

    def raw(self, start: int) -> Iterator[dict[str, bytes]]:
        """Samples without end: a pass over the shards after the other, shuffled in a buffer."""
        rng = random.Random(seed_for(self.loader.seed, "shards", self.loader.rank, start))
        buffer: list[dict[str, bytes]] = []
        while True:
            urls = rng.sample(self.urls, len(self.urls))
            found = False
            for sample in self.data.samples(urls):
                found = True
                buffer.append(sample)
                if len(buffer) > BUFFER:
                    place = rng.randrange(len(buffer))
                    buffer[place], buffer[-1] = buffer[-1], buffer[place]
                    yield buffer.pop()
            if not found:
                raise OSError(f"{self.data.name}: no samples in {', '.join(urls[:3])}")
            rng.shuffle(buffer)  # a pass ends whole: each image comes once in it
            while buffer:
                yield buffer.pop()

    def decoded(self, start: int, precompute: int) -> Iterator[dict[str, Any]]:
        if self.pool is None:
            for sample in self.raw(start):
                yield self.data.decode(sample, self.data.facts.keys)
        waiting: deque = deque()
        for sample in self.raw(start):
            waiting.append(self.pool.submit(self.data.decode, sample, self.data.facts.keys))
            if len(waiting) > precompute:
                yield waiting.popleft().result()

    def take(self, start: int, size: int) -> dict[str, torch.Tensor]:
        import numpy as np
        import torch

        joined = start - self.loader.rank * size
        if joined != self.due:
            self.stream = self.decoded(joined, 2 * size)
        self.due = joined + size * self.loader.world
        rows = [next(self.stream) for _ in range(size)]
        batch = {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]}
        return {key: value.to(self.loader.device, non_blocking=True) for key, value in batch.items()}
