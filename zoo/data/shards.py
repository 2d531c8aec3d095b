"""``shards:PATTERN``: WebDataset tar files, streamed, for data that do not fit on one machine.

PATTERN is a pattern of ``webdataset``: files or http(s) addresses with braces, ``data/train-{000..099}.tar``; none of
webdataset's other ways to read (``pipe:``, ``gs:``, ...), which start programs. A sample's image is its jpg, jpeg, png
or webp, its label its ``cls``, its caption its ``txt``. ``shards:PATTERN?classes=1000`` gives the number of classes: a
label is then a number below it, or -1 for "no label"; without it labels are not read. Every process reads its own
shards: process r of w reads shards r, r + w, ..., in a new order in each pass, through a shuffle buffer. Such a stream
can't be resumed exactly: from a new position it goes on with other images. It has no splits, so nothing is scored on
it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import lzma
import random
import re
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from zoo.data.facts import Facts
from zoo.data.files import check_member
from zoo.data.folder import parse_options
from zoo.data.images import open_picture, square, to_array, to_pil
from zoo.data.loader import Loader, to_device
from zoo.data.store import ImageData, Where
from zoo.seeds import seed_for

IMAGES = ("jpg", "jpeg", "png", "webp")
BUFFER_SAMPLES = 1000  # of the shuffle buffer
MAX_SHARDS, MAX_CLASSES = 100_000, 1_000_000

Sample = Mapping[str, bytes]  # extension -> content of the file
Decoded = dict[str, Any]  # "x" uint8 array [3, R, R], "y" int64 array [], "caption" a string


def expand(name: str, pattern: str) -> list[str]:
    """The shards of a pattern, with braces and ``::`` as in webdataset. Raises ValueError for anything but files and
    http(s) addresses."""
    from braceexpand import braceexpand

    try:
        parts = itertools.chain.from_iterable(map(braceexpand, pattern.split("::")))
        urls = list(itertools.islice(parts, MAX_SHARDS + 1))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: braces must be as in train-{{000..099}}.tar ({error})") from None
    if len(urls) > MAX_SHARDS:
        raise ValueError(f"{name}: must be at most {MAX_SHARDS:,} shards")
    for url in urls:
        if not re.fullmatch(r"https?://[!-~]+", url):
            check_file(name, url)
    return urls


def check_file(name: str, url: str) -> None:
    """Raises ValueError if webdataset would read ``url`` otherwise than as a plain file of that name."""
    parsed = urlparse(url)
    if parsed.scheme or parsed.path != url or url == "-":
        raise ValueError(f"{name}: '{url}' must be the path of a file, or begin with http:// or https://")
    if Path(url).exists() and not Path(url).is_file():
        raise ValueError(f"{name}: '{url}' must be a plain file")


def class_names(name: str, text: str) -> tuple[str, ...]:
    """The classes of the option ``classes``. Raises ValueError if it is not a whole number."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > MAX_CLASSES:
        raise ValueError(f"{name}: classes={text}: must be a whole number of at most {MAX_CLASSES:,}")
    return tuple(map(str, range(int(text))))


def members(shards: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The files of open shards as webdataset groups them to samples. Only images, labels and captions are read. Raises
    OSError if one is too large or a shard is damaged."""
    endings = tuple(f".{kind}" for kind in (*IMAGES, "cls", "txt"))
    for shard in shards:
        url = shard["url"]
        try:
            with tarfile.open(fileobj=shard["stream"], mode="r|*") as tar:
                for member in tar:
                    if not member.isreg() or re.match(r"__[^/]*__($|/)", member.name):  # as webdataset: no sample's
                        continue
                    content = b""
                    if member.name.lower().endswith(endings) and (file := tar.extractfile(member)):
                        check_member(url, member.name, member.size)
                        content = file.read()
                    yield {"fname": member.name, "data": content, "__url__": url}
                    tar.members = []  # type: ignore[attr-defined]  # a stream: nothing is read again
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise OSError(f"{url}: {error}") from error
        yield {}  # the end of a shard is the end of a sample


def place(sample: Sample) -> str:
    """The shard and the key of a sample."""
    return f"{sample.get('__url__', 'a shard')}, sample {sample.get('__key__')!s}"


def open_shards(name: str, resolution: int | None) -> ShardData:
    """``shards:PATTERN`` as a stream. Raises ValueError if webdataset is missing or the first shard has no images."""
    return ShardData(name, resolution)


class ShardData(ImageData):
    """A stream of samples from shards. It has no length and no access by index."""

    is_stream = True

    def __init__(self, name: str, resolution: int | None):
        try:
            import webdataset  # noqa: F401
        except ImportError:
            raise ValueError(
                f'{name}: reading shards needs webdataset (pip install ".[shards]" in the folder of the zoo)'
            ) from None
        pattern, options = parse_options(name, ("classes",))
        self.name, self.urls = name, expand(name, pattern)
        self.classes = class_names(name, options.get("classes", "0"))
        if not re.match("https?://", self.urls[0]) and not Path(self.urls[0]).exists():
            raise ValueError(f"{name}: '{self.urls[0]}': no such file; several shards are train-{{000..099}}.tar")
        sample = next(self.samples(self.urls), None)
        if sample is None or not any(kind in sample for kind in IMAGES):
            raise ValueError(f"{name}: no sample with an image ({', '.join(IMAGES)}) in its first shard")
        keys = ("x", *(("y",) if self.classes else ()), *(("caption",) if "txt" in sample else ()))
        self.side = resolution
        self.side = resolution or self.decode(sample, keys)["x"].shape[-1]
        about = f"{len(self.urls)} shards, streamed: the order can't be resumed exactly."
        facts = Facts(name, f"Shards {pattern}", 3, self.side, self.classes, keys, {}, "the user's own", about)
        super().__init__(facts, {}, hashlib.sha256("\n".join(self.urls).encode()).hexdigest())

    def __len__(self) -> int:
        raise TypeError(f"{self.name} is a stream and has no length")

    def samples(self, urls: list[str]) -> Iterator[Sample]:
        """The undecoded samples of some shards, one after the other. Raises OSError if a shard can't be read."""
        import webdataset
        from webdataset.tariterators import group_by_keys

        try:
            opened = webdataset.WebDataset(urls, shardshuffle=False, nodesplitter=None, empty_check=False)
            # Its last two steps read and group the files.
            yield from webdataset.DataPipeline(*opened.pipeline[:-2], members, group_by_keys)
        except Exception as error:  # tar, network and pipe errors of many kinds
            raise OSError(f"{self.name}: {' '.join(str(error).split())}") from error

    def decode(self, sample: Sample, keys: tuple[str, ...]) -> Decoded:
        """One sample: "x" uint8 [3, R, R], "y" int64 [], "caption" text. Raises OSError if it can't be read, ValueError
        if its label is none of the classes."""
        import numpy as np

        kind = next((kind for kind in IMAGES if kind in sample), None)
        if kind is None:
            raise OSError(f"{self.name}: {place(sample)} has no image")
        try:
            image = square(to_pil(open_picture(io.BytesIO(sample[kind])), 3), self.side)
        except Exception as error:  # Pillow's decoders raise many kinds
            raise OSError(f"{self.name}: {place(sample)}: {kind} can't be read: {error}") from error
        row: Decoded = {"x": to_array(image)}
        if "y" in keys:
            row["y"] = np.asarray(self.label(sample))
        if "caption" in keys:
            row["caption"] = sample.get("txt", b"").decode(errors="replace")
        return row

    def label(self, sample: Sample) -> int:
        """The class of a sample. Raises ValueError if it has none, or none of the classes."""
        if "cls" not in sample:
            raise ValueError(
                f"{self.name}: {place(sample)} has no cls; it must be a class, 0 to {len(self.classes) - 1}"
            )
        text = sample["cls"][:40].decode(errors="replace").strip()
        if not re.fullmatch(r"-1|[0-9]{1,9}", text) or int(text) >= len(self.classes):
            raise ValueError(f"{self.name}: {place(sample)}: cls must be a class, 0 to {len(self.classes) - 1}, or -1 "
                             f"for no label, got {text!r}")  # fmt: skip
        return int(text)

    def feed(self, loader: Loader, where: Where | None, part: tuple[int, int], workers: int) -> ShardFeed:
        """The stream of one process. Raises ValueError for ``where``, or if there are fewer shards than processes."""
        if where:
            raise ValueError(f"where {dict(where)}: {self.name} is a stream and can't be filtered")
        urls = self.urls[part[0] :: part[1]]
        if len(urls) < loader.world:
            raise ValueError(f"{self.name}: {len(urls)} shards for {loader.world} processes; each needs one of its own")
        return ShardFeed(self, urls[loader.rank :: loader.world], loader, workers)


class ShardFeed:
    """The shuffled samples of one process, decoded in advance by ``workers`` threads."""

    def __init__(self, data: ShardData, urls: list[str], loader: Loader, workers: int):
        self.data, self.urls, self.loader = data, urls, loader
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="zoo-data") if workers else None
        self.position: int | None = None  # of the stream
        self.stream: Iterator[Decoded] = iter(())

    def samples(self, start: int) -> Iterator[Sample]:
        """Samples without end: one pass over the shards after the other, shuffled in a buffer."""
        rng = random.Random(seed_for(self.loader.seed, "shards", self.loader.rank, start))
        buffer: list[Sample] = []
        while True:
            urls = rng.sample(self.urls, len(self.urls))
            empty = True
            for sample in self.data.samples(urls):
                empty = False
                buffer.append(sample)
                if len(buffer) > BUFFER_SAMPLES:
                    index = rng.randrange(len(buffer))
                    buffer[index], buffer[-1] = buffer[-1], buffer[index]
                    yield buffer.pop()
            if empty:
                raise OSError(f"{self.data.name}: no samples in {', '.join(urls[:3])}")
            rng.shuffle(buffer)  # the buffer is emptied after each pass: every image comes once in a pass
            while buffer:
                yield buffer.pop()

    def rows(self, start: int, in_advance: int) -> Iterator[Decoded]:
        """Decoded samples; with a pool up to ``in_advance`` are decoded before they are needed."""
        keys = self.data.facts.keys
        if self.pool is None:
            for sample in self.samples(start):
                yield self.data.decode(sample, keys)
            return
        pending: deque[Future[Decoded]] = deque()
        for sample in self.samples(start):
            pending.append(self.pool.submit(self.data.decode, sample, keys))
            if len(pending) > in_advance:
                yield pending.popleft().result()

    def take(self, start: int, size: int) -> dict[str, Any]:
        import numpy as np
        import torch

        joint_start = start - self.loader.rank * size
        if joint_start != self.position:
            self.stream = self.rows(joint_start, 2 * size)
        self.position = joint_start + size * self.loader.world
        rows = [next(self.stream) for _ in range(size)]
        batch: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]}
        for key, values in batch.items():
            if not isinstance(values[0], str):
                batch[key] = torch.from_numpy(np.stack(values))
        return to_device(batch, self.loader.device)
